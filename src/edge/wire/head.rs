//! What the beginning of a frame says of the rest, before that has come. Pure.

use prost::encoding::{WireType, decode_key, decode_varint};

use crate::field_numbers::{event, publish_request, session_request};

/// What the frames of a request are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::edge) enum Frames {
    /// Commands of a session.
    Commands,
    /// A `PublishRequest`.
    Publish,
}

/// The topic of the first event of a publish of which the beginning has come; `None` if it is no publish, or not all of
/// the topic is there.
pub(in crate::edge) fn first_topic(head: &[u8], frames: Frames) -> Option<&[u8]> {
    let publish = if frames == Frames::Commands { beginning_of(head, session_request::PUBLISH)?.0 } else { head };
    let (first, _) = beginning_of(publish, publish_request::EVENTS)?;
    let (topic, whole) = beginning_of(first, event::TOPIC)?;
    whole.then_some(topic)
}

/// As much as there is of the first field of that number that has a length, and whether that is all of it.
fn beginning_of(message: &[u8], wanted: u32) -> Option<(&[u8], bool)> {
    let mut rest = message;
    loop {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let value = decode_varint(&mut rest).ok()?;
        match wire_type {
            WireType::Varint => {}
            WireType::LengthDelimited => {
                let len = usize::try_from(value).ok()?;
                if number == wanted {
                    return Some((&rest[..len.min(rest.len())], len <= rest.len()));
                }
                rest = rest.get(len..)?;
            }
            _ => return None,
        }
    }
}
