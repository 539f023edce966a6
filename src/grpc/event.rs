//! An event from its publisher's bytes to the form every subscriber gets.
//!
//! The bytes of a `switchyard.v1.Event` are walked once. What the hub knows is checked, what it does not know is kept,
//! and the whole is copied once, out of the receive buffer, into a complete entry of an `events` frame: field
//! `Events.events`, a `ReceivedEvent` with the event and `attempt` 1. Nothing is decoded into objects on the way.

use std::{ops::Range, sync::Arc};

use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, encoded_len_varint, skip_field},
};

use crate::model::{
    Event, EventError, NameError, Topic,
    limits::{MAX_EVENT_ATTRIBUTES, MAX_EVENT_FIELD_BYTES},
};

/// `Events.events`, length-delimited.
const KEY_ENTRY: u8 = (2 << 3) | 2;
/// `ReceivedEvent.event`, length-delimited.
const KEY_EVENT: u8 = (1 << 3) | 2;
/// `ReceivedEvent.attempt`, a varint.
const KEY_ATTEMPT: u8 = 5 << 3;
/// `Event.id`, length-delimited.
const KEY_ID: u8 = (1 << 3) | 2;

/// Makes ids for events that have none: the name of the session, and a number.
#[derive(Debug)]
pub(super) struct EventIds {
    /// The name of the session and a hyphen.
    prefix: Box<[u8]>,
    last: u64,
}

/// A number in hexadecimal.
struct Hex {
    digits: [u8; 16],
    from: usize,
}

impl EventIds {
    /// `session` is unique among all sessions of all hubs.
    pub(super) fn new(session: &str) -> Self {
        Self { prefix: format!("{session}-").into_bytes().into(), last: 0 }
    }

    /// Counts one more, and gives its number.
    fn next(&mut self) -> Hex {
        self.last += 1;
        Hex::of(self.last)
    }
}

impl Hex {
    /// Written by hand: the formatting machinery costs as much as all the rest of an event.
    fn of(mut number: u64) -> Self {
        let mut hex = Self { digits: [b'0'; 16], from: 16 };
        while number > 0 || hex.from == 16 {
            hex.from -= 1;
            hex.digits[hex.from] = b"0123456789abcdef"[(number & 15) as usize];
            number >>= 4;
        }
        hex
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

/// What the walk over an event found.
#[derive(Debug, Default)]
struct Found {
    topic: Range<usize>,
    has_id: bool,
    attributes: usize,
}

/// Checks an encoded event and makes its shared form.
pub(super) fn accept(raw: &[u8], max_bytes: usize, ids: &mut EventIds) -> Result<Arc<Event>, EventError> {
    if raw.len() > max_bytes {
        return Err(EventError::TooLarge { bytes: raw.len(), limit: max_bytes });
    }
    let found = walk(raw)?;
    Topic::parse(&raw[found.topic.clone()])?;

    let number = (!found.has_id).then(|| ids.next());
    // A session's name is short: the id has fewer than 128 bytes, and its length is one byte.
    let id_bytes = number.as_ref().map_or(0, |number| ids.prefix.len() + number.as_bytes().len());
    let event_bytes = raw.len() + if found.has_id { 0 } else { 2 + id_bytes };
    let received_bytes = 1 + varint_bytes(event_bytes) + event_bytes + 2;
    let mut entry = Vec::with_capacity(1 + varint_bytes(received_bytes) + received_bytes);
    entry.push(KEY_ENTRY);
    encode_varint(received_bytes as u64, &mut entry);
    entry.push(KEY_EVENT);
    encode_varint(event_bytes as u64, &mut entry);
    let at = entry.len();
    entry.extend_from_slice(raw);
    if let Some(number) = number {
        // A field that stands again later wins: also over an id that was sent empty.
        entry.extend_from_slice(&[KEY_ID, id_bytes as u8]);
        entry.extend_from_slice(&ids.prefix);
        entry.extend_from_slice(number.as_bytes());
    }
    entry.extend_from_slice(&[KEY_ATTEMPT, 1]);
    debug_assert_eq!(entry.len(), entry.capacity());

    let topic = (at + found.topic.start) as u32..(at + found.topic.end) as u32;
    let event = Event::new(entry.into_boxed_slice(), topic)
        .ok_or(EventError::Field { field: "topic", problem: "cannot be found again" })?;
    Ok(Arc::new(event))
}

/// Walks the fields of an event. As in protobuf, of a field that comes twice the last one counts.
fn walk(raw: &[u8]) -> Result<Found, EventError> {
    const BROKEN: EventError = EventError::Field { field: "event", problem: "is not a protobuf message" };
    let mut found = Found::default();
    let mut rest = raw;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(|_| BROKEN)?;
        let known = (1..=11).contains(&tag);
        if !known {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(|_| BROKEN)?;
            continue;
        }
        if wire_type != WireType::LengthDelimited {
            return Err(EventError::Field { field: name(tag), problem: "has the wrong wire type" });
        }
        let value = take(&mut rest).ok_or(BROKEN)?;
        check(tag, value, &mut found)?;
        match tag {
            1 => found.has_id = !value.is_empty(),
            2 => {
                let end = raw.len() - rest.len();
                found.topic = end - value.len()..end;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The rules of `proto/switchyard/v1/event.proto`, field by field.
fn check(tag: u32, value: &[u8], found: &mut Found) -> Result<(), EventError> {
    let refuse = |problem| Err(EventError::Field { field: name(tag), problem });
    match tag {
        // All its rules are looked at for the one that counts; but no subscriber could decode any that is not UTF-8.
        2 => match std::str::from_utf8(value) {
            Ok(_) => Ok(()),
            Err(error) => Err(NameError::ForbiddenByte { offset: error.valid_up_to() }.into()),
        },
        1 | 3 | 4 | 6 | 7 if value.len() > MAX_EVENT_FIELD_BYTES => refuse("is longer than 256 bytes"),
        1 | 3 | 4 | 6 | 7 | 10 if std::str::from_utf8(value).is_err() => refuse("is not UTF-8"),
        5 => match prost_types::Timestamp::decode(value) {
            Ok(time) if is_proper(time) => Ok(()),
            _ => refuse("is not a time of the years 1 to 9999"),
        },
        8 => {
            found.attributes += 1;
            if found.attributes > MAX_EVENT_ATTRIBUTES {
                return refuse("has more than 64 pairs");
            }
            if is_pair_of_strings(value) { Ok(()) } else { refuse("is not a pair of strings") }
        }
        9 => match prost_types::Duration::decode(value) {
            Ok(ttl) if ttl.seconds >= 0 && ttl.nanos >= 0 && (ttl.seconds, ttl.nanos) > (0, 0) => Ok(()),
            _ => refuse("is not a positive duration"),
        },
        _ => Ok(()),
    }
}

fn is_proper(time: prost_types::Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
}

/// A map entry: field 1 and field 2, both strings, either may be missing.
fn is_pair_of_strings(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Ok((tag, wire_type)) = decode_key(&mut rest) else { return false };
        if tag > 2 {
            if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
                return false;
            }
            continue;
        }
        let text = if wire_type == WireType::LengthDelimited { take(&mut rest) } else { None };
        if text.is_none_or(|text| std::str::from_utf8(text).is_err()) {
            return false;
        }
    }
    true
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (value, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(value)
}

fn name(tag: u32) -> &'static str {
    const NAMES: [&str; 11] =
        ["id", "topic", "type", "source", "time", "key", "content_type", "attributes", "ttl", "text", "data"];
    NAMES.get(tag as usize - 1).copied().unwrap_or("event")
}

fn varint_bytes(value: usize) -> usize {
    encoded_len_varint(value as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::proto::v1 as client;

    fn ids() -> EventIds {
        EventIds::new("s")
    }

    fn accepted(raw: &[u8]) -> Result<Arc<Event>, EventError> {
        accept(raw, 1024 * 1024, &mut ids())
    }

    /// What a subscriber would make of it.
    fn received(event: &Event) -> client::ReceivedEvent {
        let events = client::Events::decode(event.encoded()).expect("an entry of an events frame");
        assert_eq!(events.events.len(), 1);
        events.events.into_iter().next().expect("one")
    }

    fn sample() -> client::Event {
        client::Event {
            id: "7".into(),
            topic: "a.b".into(),
            r#type: "t".into(),
            source: "/s".into(),
            time: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
            key: "k".into(),
            content_type: "text/plain".into(),
            attributes: HashMap::from([("n".into(), "v".into())]),
            ttl: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            payload: Some(client::event::Payload::Text("hé".into())),
        }
    }

    fn check_refused(event: client::Event, field: &str) {
        let error = accepted(&event.encode_to_vec()).expect_err("refused");
        assert_eq!(error.field(), field, "{error}");
    }

    #[test]
    fn every_field_arrives_as_it_was_sent() {
        let event = accepted(&sample().encode_to_vec()).expect("accepted");
        assert_eq!(event.topic().as_bytes(), b"a.b");
        let received = received(&event);
        assert_eq!(received.event, Some(sample()));
        assert_eq!(received.attempt, 1);
    }

    #[test]
    fn an_event_without_an_id_gets_one() {
        let without = client::Event { id: String::new(), ..sample() };
        let mut raw = without.encode_to_vec();
        let mut ids = ids();
        let one = accept(&raw, 1024, &mut ids).expect("accepted");
        // An empty id sent explicitly is no id either.
        raw.extend_from_slice(&[KEY_ID, 0]);
        let two = accept(&raw, 1024, &mut ids).expect("accepted");
        let id = |event: &Event| received(event).event.expect("an event").id;
        assert_eq!((id(&one).as_str(), id(&two).as_str()), ("s-1", "s-2"));
    }

    #[test]
    fn numbers_are_written_in_hexadecimal() {
        for number in [0, 1, 15, 16, 255, 4096, u64::MAX] {
            assert_eq!(Hex::of(number).as_bytes(), format!("{number:x}").as_bytes());
        }
    }

    #[test]
    fn unknown_fields_are_kept() {
        let mut raw = sample().encode_to_vec();
        let unknown = [(15 << 3) | 2, 3, b'n', b'e', b'w'];
        raw.extend_from_slice(&unknown);
        let event = accepted(&raw).expect("accepted");
        assert!(event.encoded().windows(unknown.len()).any(|window| window == unknown));
    }

    #[test]
    fn each_rule_is_kept_and_names_its_field() {
        let long = "x".repeat(MAX_EVENT_FIELD_BYTES + 1);
        let just = "x".repeat(MAX_EVENT_FIELD_BYTES);
        let fits =
            client::Event { id: just.clone(), r#type: just.clone(), source: just.clone(), key: just, ..sample() };
        assert!(accepted(&fits.encode_to_vec()).is_ok());
        check_refused(client::Event { id: long.clone(), ..sample() }, "id");
        check_refused(client::Event { r#type: long.clone(), ..sample() }, "type");
        check_refused(client::Event { source: long.clone(), ..sample() }, "source");
        check_refused(client::Event { key: long.clone(), ..sample() }, "key");
        check_refused(client::Event { content_type: long, ..sample() }, "content_type");
        check_refused(client::Event { topic: "a..b".into(), ..sample() }, "topic");
        check_refused(client::Event { topic: String::new(), ..sample() }, "topic");
        let pairs = |n: usize| (0..n).map(|i| (i.to_string(), String::new())).collect::<HashMap<_, _>>();
        let most = client::Event { attributes: pairs(MAX_EVENT_ATTRIBUTES), ..sample() };
        assert!(accepted(&most.encode_to_vec()).is_ok());
        check_refused(client::Event { attributes: pairs(MAX_EVENT_ATTRIBUTES + 1), ..sample() }, "attributes");
        for (seconds, nanos) in [(0, 0), (-1, 0), (0, -1)] {
            check_refused(client::Event { ttl: Some(prost_types::Duration { seconds, nanos }), ..sample() }, "ttl");
        }
        check_refused(
            client::Event { time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), ..sample() },
            "time",
        );
    }

    #[test]
    fn size_is_limited_exactly() {
        let raw = sample().encode_to_vec();
        assert!(accept(&raw, raw.len(), &mut ids()).is_ok());
        let limit = raw.len() - 1;
        assert_eq!(accept(&raw, limit, &mut ids()).err(), Some(EventError::TooLarge { bytes: raw.len(), limit }));
    }

    proptest! {
        #[test]
        fn what_is_accepted_decodes_at_every_subscriber(
            mut raw in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                Just(sample().encode_to_vec()),
            ],
            change in any::<prop::sample::Index>(),
            byte: u8,
        ) {
            if !raw.is_empty() {
                let at = change.index(raw.len());
                raw[at] = byte;
            }
            if let Ok(event) = accepted(&raw) {
                prop_assert!(client::Events::decode(event.encoded()).is_ok());
            }
        }
    }
}
