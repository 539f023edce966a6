//! Frames as bytes: publishes are put together from events that were encoded once, and events that come are measured as the
//! hub measures them. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint, skip_field},
};

use crate::proto::v1::{PublishPrecondition, SessionRequest, SessionResponse, session_request::Command};

/// `SessionRequest.request_id` and `SessionRequest.publish`.
const REQUEST_ID: u32 = 1;
const PUBLISH: u32 = 8;
/// `PublishRequest.events` and `PublishRequest.precondition`.
const EVENTS_OF_PUBLISH: u32 = 1;
const PRECONDITION: u32 = 2;
/// `SessionResponse.events` and `Events.events`.
const EVENTS_FRAME: u32 = 4;
const EVENTS_OF_FRAME: u32 = 2;

/// A command as the bytes of its frame.
pub(crate) fn command(request_id: i64, command: Command) -> Bytes {
    SessionRequest { request_id, command: Some(command) }.encode_to_vec().into()
}

/// How many bytes an encoded event takes in a publish: all tags of it are one byte.
pub(crate) fn entry_len(event: &Bytes) -> usize {
    1 + encoded_len_varint(event.len() as u64) + event.len()
}

/// A publish of encoded events.
pub(crate) fn publish<'a>(
    request_id: i64,
    events: impl Iterator<Item = &'a Bytes> + Clone,
    precondition: Option<&PublishPrecondition>,
) -> Bytes {
    let precondition = precondition.map(Message::encode_to_vec);
    let last = precondition.as_ref().map_or(0, |bytes| 1 + encoded_len_varint(bytes.len() as u64) + bytes.len());
    let body = events.clone().map(entry_len).sum::<usize>() + last;
    let mut frame = BytesMut::with_capacity(body + 32);
    encode_key(REQUEST_ID, WireType::Varint, &mut frame);
    encode_varint(request_id.cast_unsigned(), &mut frame);
    encode_key(PUBLISH, WireType::LengthDelimited, &mut frame);
    encode_varint(body as u64, &mut frame);
    for event in events {
        put(EVENTS_OF_PUBLISH, event, &mut frame);
    }
    if let Some(bytes) = precondition {
        put(PRECONDITION, &bytes, &mut frame);
    }
    frame.freeze()
}

fn put(tag: u32, bytes: &[u8], frame: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, frame);
    encode_varint(bytes.len() as u64, frame);
    frame.put_slice(bytes);
}

/// A frame from the hub and, if it has events, what each of them cost of the credit: all bytes that it takes in the frame.
/// They cannot be told from the decoded event, which may have had fields that this version does not know.
pub(crate) fn decode(frame: &[u8]) -> Result<(SessionResponse, Vec<u32>), DecodeError> {
    let mut sizes = Vec::new();
    measure(frame, EVENTS_FRAME, |body| measure(body, EVENTS_OF_FRAME, |_| Ok(()), &mut sizes), &mut Vec::new())?;
    Ok((SessionResponse::decode(frame)?, sizes))
}

/// Does something with the value of every field of this number, and notes how many bytes each takes in all.
fn measure<'a>(
    mut rest: &'a [u8],
    wanted: u32,
    mut each: impl FnMut(&'a [u8]) -> Result<(), DecodeError>,
    sizes: &mut Vec<u32>,
) -> Result<(), DecodeError> {
    while !rest.is_empty() {
        let before = rest.len();
        let (tag, kind) = decode_key(&mut rest)?;
        if tag != wanted || kind != WireType::LengthDelimited {
            skip_field(kind, tag, &mut rest, prost::encoding::DecodeContext::default())?;
            continue;
        }
        let len = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
        // What is cut short is for the decoder to say.
        let Some((value, after)) = rest.split_at_checked(len) else { return Ok(()) };
        each(value)?;
        rest = after;
        // A frame is far smaller than 4 GiB.
        sizes.push((before - rest.len()) as u32);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{
        Event, Events, PublishRequest, ReceivedEvent, event::Payload, publish_precondition::Condition,
        session_response::Frame,
    };

    fn event(text: &str) -> Event {
        Event { topic: "a.b".into(), payload: Some(Payload::Text(text.into())), ..Event::default() }
    }

    #[test]
    fn a_publish_is_what_the_contract_says() {
        let events: Vec<Event> = ["", "x", &"y".repeat(300)].map(event).into();
        let encoded: Vec<Bytes> = events.iter().map(|event| event.encode_to_vec().into()).collect();
        for precondition in [None, Some(PublishPrecondition { condition: Some(Condition::LastSequence(7)) })] {
            let frame = publish(300, encoded.iter(), precondition.as_ref());
            let decoded = SessionRequest::decode(&frame[..]).expect("a request");
            let publish = PublishRequest { events: events.clone(), precondition };
            let expected = SessionRequest { request_id: 300, command: Some(Command::Publish(publish)) };
            assert_eq!(decoded, expected);
            assert_eq!(frame, expected.encode_to_vec(), "no byte more than prost");
        }
    }

    #[test]
    fn events_are_measured_as_they_came_with_what_nobody_here_knows() {
        let known = ReceivedEvent { event: Some(event("x")), sequence: 3, ..ReceivedEvent::default() };
        // A field of a newer hub, and one that has its default although it need not be there.
        let unknown = [known.encode_to_vec(), vec![0xfa, 0x3f, 0x03, 1, 2, 3, 0x28, 0x00]].concat();
        let mut body = BytesMut::new();
        encode_key(1, WireType::Varint, &mut body);
        encode_varint(9, &mut body);
        put(EVENTS_OF_FRAME, &known.encode_to_vec(), &mut body);
        put(EVENTS_OF_FRAME, &unknown, &mut body);
        put(3, b"token", &mut body);
        let mut frame = BytesMut::new();
        put(EVENTS_FRAME, &body, &mut frame);
        let (decoded, sizes) = decode(&frame).expect("a frame");
        let lengths = [known.encode_to_vec().len() as u32 + 2, unknown.len() as u32 + 2];
        assert_eq!(sizes, lengths);
        let expected = Events { subscription_id: 9, events: vec![known.clone(), known], resume_token: "token".into() };
        assert_eq!(decoded.frame, Some(Frame::Events(expected)));
    }

    #[test]
    fn a_frame_without_events_has_no_sizes_and_one_that_is_broken_is_an_error() {
        let pong = crate::proto::v1::Pong { nonce: "n".into() };
        let frame = SessionResponse { request_id: 1, frame: Some(Frame::Pong(pong)) }.encode_to_vec();
        assert!(decode(&frame).expect("a frame").1.is_empty());
        for cut in 1..frame.len() {
            decode(&frame[..cut]).map(drop).ok();
        }
        assert!(decode(&[0x22, 0x7f, 0x12]).is_err());
    }
}
