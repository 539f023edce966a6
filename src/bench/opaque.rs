//! Publishes and deliveries as bytes.
//!
//! A load that made an object of every event, with a string for each of its fields, would measure its own client. So
//! publishes are written and deliveries are read here, field by field, as any client could. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_varint, encoded_len_varint, skip_field,
};

use super::side::{Check, Outgoing};
use crate::field_numbers::{event, events, nested, publish_request, received_event, session_response};

/// `PublishRequest.events`.
const KEY_PUBLISHED: u8 = nested(publish_request::EVENTS);
/// `Event.topic` and `Event.data`.
const KEY_TOPIC: u8 = nested(event::TOPIC);
const KEY_DATA: u8 = nested(event::DATA);
/// `Events.events`, `ReceivedEvent.event` and `Event.data`: the way to a payload that was delivered.
const DELIVERED: [u32; 3] = [events::EVENTS, received_event::EVENT, event::DATA];
/// `SessionResponse.events`, and the same way from there.
const KEY_EVENTS: u8 = nested(session_response::EVENTS);
const IN_SESSION: [u32; 4] = [session_response::EVENTS, DELIVERED[0], DELIVERED[1], DELIVERED[2]];
/// `ReceivedEvent.event` and `ReceivedEvent.sequence`.
const RECEIVED_EVENT: u32 = received_event::EVENT;
const RECEIVED_SEQUENCE: u32 = received_event::SEQUENCE;
/// `PublishRequest.events` and `Event.data`: the way to one that was published.
const PUBLISHED: [u32; 2] = [publish_request::EVENTS, event::DATA];

/// A `PublishRequest` of events with a topic and a payload.
pub fn publish(batch: &[Outgoing]) -> Bytes {
    let field = |bytes: usize| 1 + encoded_len_varint(bytes as u64) + bytes;
    let event = |outgoing: &Outgoing| field(outgoing.topic.len()) + field(outgoing.payload.len());
    let mut out = BytesMut::with_capacity(batch.iter().map(|outgoing| field(event(outgoing))).sum());
    let put = |out: &mut BytesMut, key: u8, bytes: usize| {
        out.put_u8(key);
        encode_varint(bytes as u64, out);
    };
    for outgoing in batch {
        put(&mut out, KEY_PUBLISHED, event(outgoing));
        put(&mut out, KEY_TOPIC, outgoing.topic.len());
        out.extend_from_slice(outgoing.topic.as_bytes());
        put(&mut out, KEY_DATA, outgoing.payload.len());
        out.extend_from_slice(&outgoing.payload);
    }
    out.freeze()
}

/// Shows the payloads of an `Events`, in order. `None` when the bytes are none.
pub fn each_delivered(events: &[u8], check: &mut impl Check) -> Option<()> {
    each(events, &DELIVERED, check)
}

/// Shows the payloads of a `SessionResponse`, in order. `None` when the bytes are none with events.
pub fn each_in_session(response: &[u8], check: &mut impl Check) -> Option<()> {
    response.first().filter(|key| **key == KEY_EVENTS)?;
    each(response, &IN_SESSION, check)
}

/// Shows the sequences and payloads of an `Events` from a stream, in order. `None` when the bytes are none.
pub fn each_stored(events: &[u8], seen: &mut impl FnMut(u64, &[u8])) -> Option<()> {
    let mut received = |mut rest: &[u8]| {
        let (mut sequence, mut payload) = (0, &[][..]);
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest).ok()?;
            match (tag, wire_type) {
                (RECEIVED_EVENT, WireType::LengthDelimited) => payload = payload_of(cut(&mut rest)?)?,
                (RECEIVED_SEQUENCE, WireType::Varint) => sequence = decode_varint(&mut rest).ok()?,
                _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?,
            }
        }
        seen(sequence, payload);
        Some(())
    };
    let mut rest = events;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        if (tag, wire_type) == (DELIVERED[0], WireType::LengthDelimited) {
            received(cut(&mut rest)?)?;
        } else {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
        }
    }
    Some(())
}

/// The payload of an `Event`; empty when it has none.
fn payload_of(mut event: &[u8]) -> Option<&[u8]> {
    while !event.is_empty() {
        let (tag, wire_type) = decode_key(&mut event).ok()?;
        if (tag, wire_type) == (DELIVERED[2], WireType::LengthDelimited) {
            return cut(&mut event);
        }
        skip_field(wire_type, tag, &mut event, DecodeContext::default()).ok()?;
    }
    Some(&[])
}

/// Cuts a value off that has its length in front.
fn cut<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (value, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(value)
}

/// Shows the payloads of a `PublishRequest`, in order. `None` when the bytes are none.
pub fn each_published(publish: &[u8], check: &mut impl Check) -> Option<()> {
    each(publish, &PUBLISHED, check)
}

/// Shows every value that is found by following `way` from field to field. `None` when the bytes are no message.
fn each(mut rest: &[u8], way: &[u32], check: &mut impl Check) -> Option<()> {
    let Some((next, further)) = way.split_first() else {
        check.check(rest);
        return Some(());
    };
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
            continue;
        }
        let value = cut(&mut rest)?;
        if tag == *next {
            each(value, further, check)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1::{
        Event, Events, Heartbeat, PublishRequest, ReceivedEvent, SessionResponse, event::Payload,
        session_response::Frame,
    };

    #[derive(Default)]
    struct Seen(Vec<Vec<u8>>);

    impl Check for Seen {
        fn check(&mut self, payload: &[u8]) {
            self.0.push(payload.to_vec());
        }
    }

    fn event(topic: &str, payload: &[u8]) -> Event {
        Event {
            topic: topic.to_owned(),
            payload: Some(Payload::Data(Bytes::copy_from_slice(payload))),
            ..Event::default()
        }
    }

    #[test]
    fn what_a_load_publishes_is_what_the_contract_says() {
        let long = vec![7; 300];
        let batch = [("a.b", &b"one"[..]), ("c", &long)];
        let outgoing =
            batch.map(|(topic, payload)| Outgoing { topic: topic.into(), payload: Bytes::copy_from_slice(payload) });
        let decoded = PublishRequest::decode(publish(&outgoing)).expect("a publish");
        assert_eq!(decoded.events, batch.map(|(topic, payload)| event(topic, payload)));
        let mut seen = Seen::default();
        assert_eq!(each_published(&publish(&outgoing), &mut seen), Some(()));
        assert_eq!(seen.0, batch.map(|(_, payload)| payload.to_vec()));
    }

    #[test]
    fn a_load_sees_every_payload_in_order() {
        let received = |sequence: i64, payload: &[u8]| {
            let event = Some(event("a", payload));
            ReceivedEvent { event, stream: "s".to_owned(), sequence, attempt: 2, ..ReceivedEvent::default() }
        };
        let frame =
            Events { subscription_id: 3, events: vec![received(7, b"1"), received(300, b"22")], ..Events::default() };
        let mut seen = Seen::default();
        let mut bytes = frame.encode_to_vec();
        assert_eq!(each_delivered(&bytes, &mut seen), Some(()));
        assert_eq!(seen.0, [b"1".to_vec(), b"22".to_vec()]);
        let mut stored = Vec::new();
        assert_eq!(each_stored(&bytes, &mut |sequence, payload| stored.push((sequence, payload.to_vec()))), Some(()));
        assert_eq!(stored, [(7, b"1".to_vec()), (300, b"22".to_vec())]);
        let response = |frame| SessionResponse { request_id: 0, frame: Some(frame) }.encode_to_vec();
        let mut in_session = Seen::default();
        assert_eq!(each_in_session(&response(Frame::Events(frame)), &mut in_session), Some(()));
        assert_eq!(in_session.0, seen.0);
        assert_eq!(each_in_session(&response(Frame::Heartbeat(Heartbeat::default())), &mut in_session), None);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(each_delivered(&bytes, &mut seen), None);
        assert_eq!(each_stored(&bytes, &mut |_, _| {}), None);
    }
}
