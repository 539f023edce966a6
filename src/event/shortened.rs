//! An event with less of its payload than was published, for those who look through many. Pure.

use std::iter;

use bytes::Bytes;

use super::{
    Event,
    fields::{self, Value},
    keys::{KEY_EVENT, put_bytes, varint_bytes},
    stored::body,
};
use crate::field_numbers::{event as field, nested};

impl Event {
    /// The `ReceivedEvent` in the entry of an event with at most `most` bytes of its payload, and how many that has. A
    /// text ends between two characters; all else is as it was published.
    pub fn received_up_to(&self, most: usize) -> (Bytes, usize) {
        let (at, published) = body(self);
        let (mut payload, mut sent) = (None, 0);
        for (_, tag, value) in all(published) {
            // As in protobuf, of several payloads the last one counts.
            if let Some(found) = as_payload(tag, value) {
                sent += found.len();
                payload = Some((tag, found));
            }
        }
        let Some((tag, payload)) = payload.filter(|_| sent > most) else {
            return (self.received(), payload.map_or(0, |(_, payload)| payload.len()));
        };
        let mut shorter = Vec::with_capacity(published.len() - sent + most.min(payload.len()) + 6);
        for (whole, tag, value) in all(published) {
            if as_payload(tag, value).is_none() {
                shorter.extend_from_slice(whole);
            }
        }
        put_bytes(nested(tag), &payload[..end(tag, payload, most)], &mut shorter);
        let stamped = &self.encoded()[at + published.len()..];
        let mut received = Vec::with_capacity(1 + varint_bytes(shorter.len()) + shorter.len() + stamped.len());
        put_bytes(KEY_EVENT, &shorter, &mut received);
        received.extend_from_slice(stamped);
        (received.into(), payload.len())
    }
}

/// How many bytes of a payload are left of it.
fn end(tag: u32, payload: &[u8], most: usize) -> usize {
    let mut end = most.min(payload.len());
    if tag == field::TEXT
        && let Ok(text) = std::str::from_utf8(payload)
    {
        while !text.is_char_boundary(end) {
            end -= 1;
        }
    }
    end
}

fn as_payload(tag: u32, value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Bytes(bytes) if matches!(tag, field::TEXT | field::DATA) => Some(bytes),
        _ => None,
    }
}

/// Each field of a message: all of it, its number, and what it has.
fn all(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], u32, Value<'_>)> {
    iter::from_fn(move || {
        let before = rest;
        let (tag, value) = fields::next(&mut rest).ok()?;
        Some((&before[..before.len() - rest.len()], tag, value))
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::UNIX_EPOCH};

    use prost::Message;

    use super::*;
    use crate::{
        event::{EventIds, Stamp},
        proto::v1::{self as client, event::Payload},
    };

    /// An event as a stream keeps it.
    fn stored(raw: &[u8]) -> Event {
        let accepted = Event::accept(raw, 1024 * 1024, &mut EventIds::new("s")).expect("accepted");
        let mut out = Vec::new();
        let spans = accepted.seal(&Stamp { stream: "orders", sequence: 7, time: UNIX_EPOCH }, &mut out);
        Event::new(out.into(), spans, 7).expect("spans inside")
    }

    fn with(payload: Payload) -> client::Event {
        client::Event {
            id: "1".into(),
            topic: "a.b".into(),
            content_type: "text/plain".into(),
            attributes: HashMap::from([("n".into(), "v".into())]),
            payload: Some(payload),
            ..client::Event::default()
        }
    }

    /// What is left of an event of which clients get so many bytes at most, and how many it has.
    fn left(event: &Event, most: usize) -> (client::ReceivedEvent, usize) {
        let (bytes, has) = event.received_up_to(most);
        (client::ReceivedEvent::decode(bytes).expect("a client decodes it"), has)
    }

    #[test]
    fn a_payload_ends_at_the_limit_and_all_else_stays() {
        let event = stored(&with(Payload::Data(Bytes::from_static(&[1, 2, 3]))).encode_to_vec());
        let whole = client::ReceivedEvent::decode(event.received()).expect("a client decodes it");
        for most in [3, 4, usize::MAX] {
            assert_eq!(left(&event, most), (whole.clone(), 3));
        }
        for (most, rest) in [(2, vec![1_u8, 2]), (0, vec![])] {
            let expected = client::ReceivedEvent { event: Some(with(Payload::Data(rest.into()))), ..whole.clone() };
            assert_eq!(left(&event, most), (expected, 3), "{most}");
        }
    }

    #[test]
    fn a_text_ends_between_two_characters() {
        let event = stored(&with(Payload::Text("aé€".into())).encode_to_vec());
        for (most, text) in [(6, "aé€"), (5, "aé"), (3, "aé"), (2, "a"), (1, "a"), (0, "")] {
            let (shown, has) = left(&event, most);
            assert_eq!((shown.event, has), (Some(with(Payload::Text(text.into()))), 6), "{most}");
        }
    }

    #[test]
    fn what_has_no_payload_is_shown_as_it_is() {
        let without = client::Event { payload: None, ..with(Payload::Text(String::new())) };
        let event = stored(&without.encode_to_vec());
        assert_eq!(event.received_up_to(0), (event.received(), 0));
    }

    #[test]
    fn of_several_payloads_the_last_is_left_and_no_other() {
        let text = client::Event { payload: Some(Payload::Text("long text".into())), ..client::Event::default() };
        let data = with(Payload::Data(Bytes::from_static(&[1, 2])));
        let event = stored(&[text.encode_to_vec(), data.encode_to_vec()].concat());
        let (bytes, has) = event.received_up_to(2);
        assert_eq!(has, 2);
        assert!(!bytes.windows(4).any(|part| part == b"long"), "{bytes:?}");
        assert_eq!(client::ReceivedEvent::decode(bytes).expect("decoded").event, Some(data));
    }
}
