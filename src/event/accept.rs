//! An event from its publisher's bytes to the form every subscriber gets. Pure.
//!
//! The bytes of a `switchyard.v1.Event` are walked once. What the hub knows is checked, what it does not know is kept if
//! every client can pass it over (see `fields`), and the whole is copied once, out of the receive buffer, into a complete
//! entry of an `events` frame: field `Events.events`, a `ReceivedEvent` with the event and `attempt` 1. Nothing is decoded
//! into objects on the way.

use std::{num::NonZeroU64, ops::Range, time::Duration};

use prost::{Message, encoding::encode_varint};

use super::{
    Event, EventIds, Span, Spans,
    fields::{self, NoField, Value},
    keys::{KEY_ATTEMPT, KEY_ENTRY, KEY_EVENT, KEY_ID, varint_bytes},
    stored::DEAD_LETTER_ATTRIBUTES,
    times,
};
use crate::{
    field_numbers::event as field,
    model::{
        EventError, NameError, Topic,
        limits::{MAX_EVENT_ATTRIBUTES, MAX_EVENT_FIELD_BYTES},
    },
};

const NO_PAIR: &str = "is not a pair of strings";

/// What the walk over an event found.
#[derive(Debug, Default)]
struct Found {
    topic: Range<usize>,
    key: Range<usize>,
    id: Range<usize>,
    source: Range<usize>,
    time: prost_types::Timestamp,
    ttl: prost_types::Duration,
    ttl_ms: Option<NonZeroU64>,
    attributes: usize,
}

impl Found {
    /// Where the fields stand when the event begins at `at`.
    fn spans(&self, at: usize) -> Spans {
        let span = |range: &Range<usize>| Span { start: range.start as u32, len: range.len() as u16 }.moved(0, at);
        Spans {
            topic: span(&self.topic),
            key: span(&self.key),
            id: span(&self.id),
            source: span(&self.source),
            ttl_ms: self.ttl_ms,
        }
    }
}

impl Event {
    /// Checks an event as its publisher encoded it, and makes its shared form. `max_bytes` is for what it sent.
    pub fn accept(raw: &[u8], max_bytes: usize, ids: &mut EventIds) -> Result<Self, EventError> {
        if raw.len() > max_bytes {
            return Err(EventError::TooLarge { bytes: raw.len(), limit: max_bytes });
        }
        let found = walk(raw)?;
        Topic::parse(&raw[found.topic.clone()])?;

        let id = found.id.is_empty().then(|| ids.next());
        // A session's name is short: the id has fewer than 128 bytes, and its length is one byte.
        let event_bytes = raw.len() + id.as_ref().map_or(0, |id| 2 + id.len());
        let received_bytes = 1 + varint_bytes(event_bytes) + event_bytes + 2;
        let mut entry = Vec::with_capacity(1 + varint_bytes(received_bytes) + received_bytes);
        entry.push(KEY_ENTRY);
        encode_varint(received_bytes as u64, &mut entry);
        entry.push(KEY_EVENT);
        encode_varint(event_bytes as u64, &mut entry);
        let at = entry.len();
        entry.extend_from_slice(raw);
        if let Some(id) = id {
            // A field that stands again later wins: also over an id that was sent empty.
            entry.extend_from_slice(&[KEY_ID, id.len() as u8]);
            id.put(&mut entry);
        }
        entry.extend_from_slice(&[KEY_ATTEMPT, 1]);
        debug_assert_eq!(entry.len(), entry.capacity());

        Self::new(entry.into(), found.spans(at), 0)
            .ok_or(EventError::Field { field: "topic", problem: "cannot be found again" })
    }

    /// The topic of an event that was not looked at yet, as it is written.
    pub fn topic_of(raw: &[u8]) -> Option<&[u8]> {
        walk(raw).ok().map(|found| &raw[found.topic])
    }
}

/// The name and the value of an attribute: field 1 and field 2, both texts, either may be missing.
pub(super) fn pair(mut rest: &[u8]) -> Result<(&str, &str), &'static str> {
    let (mut name, mut value) = ("", "");
    while !rest.is_empty() {
        let (tag, found) = fields::next(&mut rest).map_err(NoField::problem)?;
        let place = match tag {
            1 => &mut name,
            2 => &mut value,
            _ => continue,
        };
        let Value::Bytes(text) = found else { return Err(NO_PAIR) };
        *place = std::str::from_utf8(text).map_err(|_| NO_PAIR)?;
    }
    Ok((name, value))
}

/// Walks the fields of an event. As in protobuf, of a text that comes twice the last one counts, and messages that come
/// twice are one.
// Most of what is done for an event: called, its result is copied.
#[allow(clippy::inline_always)]
#[inline(always)]
fn walk(raw: &[u8]) -> Result<Found, EventError> {
    let mut found = Found::default();
    let mut rest = raw;
    while !rest.is_empty() {
        let no_field = |error: NoField| EventError::Field { field: "event", problem: error.problem() };
        let (tag, value) = fields::next(&mut rest).map_err(no_field)?;
        let known = (field::ID..=field::DATA).contains(&tag);
        if !known {
            continue;
        }
        let Value::Bytes(value) = value else {
            return Err(EventError::Field { field: name(tag), problem: "has the wrong wire type" });
        };
        check(tag, value, &mut found)?;
        let end = raw.len() - rest.len();
        let range = end - value.len()..end;
        match tag {
            field::ID => found.id = range,
            field::TOPIC => found.topic = range,
            field::SOURCE => found.source = range,
            field::KEY => found.key = range,
            _ => {}
        }
    }
    Ok(found)
}

/// The rules of `proto/switchyard/v1/event.proto`, field by field.
fn check(tag: u32, value: &[u8], found: &mut Found) -> Result<(), EventError> {
    use field::{CONTENT_TYPE, ID, KEY, SOURCE, TEXT, TYPE};
    let refuse = |problem| Err(EventError::Field { field: name(tag), problem });
    match tag {
        // All its rules are looked at for the one that counts; but no subscriber could decode any that is not UTF-8.
        field::TOPIC => match std::str::from_utf8(value) {
            Ok(_) => Ok(()),
            Err(error) => Err(NameError::ForbiddenByte { offset: error.valid_up_to() }.into()),
        },
        ID | TYPE | SOURCE | KEY | CONTENT_TYPE if value.len() > MAX_EVENT_FIELD_BYTES => {
            refuse("is longer than 256 bytes")
        }
        ID | TYPE | SOURCE | KEY | CONTENT_TYPE | TEXT if std::str::from_utf8(value).is_err() => refuse("is not UTF-8"),
        field::TIME => {
            merge(&mut found.time, value).or_else(refuse)?;
            times::time(found.time).map(drop).or_else(refuse)
        }
        field::ATTRIBUTES => {
            found.attributes += 1;
            if found.attributes > MAX_EVENT_ATTRIBUTES {
                return refuse("has more than 64 pairs");
            }
            match pair(value) {
                Ok((name, _)) if DEAD_LETTER_ATTRIBUTES.contains(&name) => {
                    refuse("has one that only the hub may set, on dead letters")
                }
                Ok(_) => Ok(()),
                Err(problem) => refuse(problem),
            }
        }
        field::TTL => {
            merge(&mut found.ttl, value).or_else(refuse)?;
            match times::duration(found.ttl) {
                Ok(Duration::ZERO) => refuse("is not a positive duration"),
                Ok(ttl) => {
                    let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                    found.ttl_ms = NonZeroU64::new(ms.max(1));
                    Ok(())
                }
                Err(problem) => refuse(problem),
            }
        }
        _ => Ok(()),
    }
}

/// Adds to a message what more of it comes.
fn merge(message: &mut impl Message, more: &[u8]) -> Result<(), &'static str> {
    fields::check(more).map_err(NoField::problem)?;
    message.merge(more).map_err(|_| NoField::Broken.problem())
}

fn name(tag: u32) -> &'static str {
    const NAMES: [&str; 11] =
        ["id", "topic", "type", "source", "time", "key", "content_type", "attributes", "ttl", "text", "data"];
    NAMES.get(tag as usize - 1).copied().unwrap_or("event")
}
