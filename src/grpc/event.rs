//! An event from its publisher's bytes to the form every subscriber gets.
//!
//! The bytes of a `switchyard.v1.Event` are walked once. What the hub knows is checked, what it does not know is kept if
//! every client can pass it over (see `fields`), and the whole is copied once, out of the receive buffer, into a complete entry of an `events` frame: field
//! `Events.events`, a `ReceivedEvent` with the event and `attempt` 1. Nothing is decoded into objects on the way.

use std::{
    num::NonZeroU64,
    ops::Range,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::{
    Message,
    encoding::{decode_varint, encode_varint, encoded_len_varint},
};

use super::{
    event_ids::EventIds,
    fields::{self, NoField, Value},
    times,
};
use crate::model::{
    Event, EventError, GivenUp, NameError, Span, Spans, Stamp, Topic,
    limits::{MAX_EVENT_ATTRIBUTES, MAX_EVENT_FIELD_BYTES},
};
use crate::telemetry::TraceParent;

/// `Events.events`, length-delimited.
const KEY_ENTRY: u8 = (2 << 3) | 2;
/// `ReceivedEvent.event`, length-delimited.
const KEY_EVENT: u8 = (1 << 3) | 2;
/// `ReceivedEvent.stream`, length-delimited.
const KEY_STREAM: u8 = (2 << 3) | 2;
/// `ReceivedEvent.sequence`, a varint.
const KEY_SEQUENCE: u8 = 3 << 3;
/// `ReceivedEvent.append_time`, length-delimited.
const KEY_APPEND_TIME: u8 = (4 << 3) | 2;
/// `ReceivedEvent.last_failure`, length-delimited.
const KEY_LAST_FAILURE: u8 = (6 << 3) | 2;
/// `ReceivedEvent.attempt`, a varint.
const KEY_ATTEMPT: u8 = 5 << 3;
/// `Event.attributes`, a pair.
const KEY_ATTRIBUTE: u8 = (8 << 3) | 2;
/// The name of a pair, length-delimited.
const KEY_PAIR_NAME: u8 = (1 << 3) | 2;
/// The value of a pair, length-delimited.
const KEY_PAIR_VALUE: u8 = (2 << 3) | 2;
/// What a dead letter says: the stream it comes from, its sequence there, the group, the attempts, and the reason.
pub(super) const DEAD_LETTER_ATTRIBUTES: [&str; 5] =
    ["deadletterstream", "deadlettersequence", "deadlettergroup", "deadletterattempts", "deadletterreason"];
/// `Event.id`, length-delimited.
const KEY_ID: u8 = (1 << 3) | 2;
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

/// Checks an encoded event and makes its shared form.
pub(super) fn accept(raw: &[u8], max_bytes: usize, ids: &mut EventIds) -> Result<Event, EventError> {
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

    Event::new(entry.into(), found.spans(at), 0)
        .ok_or(EventError::Field { field: "topic", problem: "cannot be found again" })
}

/// The stored form of an event, at the end of `out`: the entry as a subscriber of the stream gets it. See
/// [`crate::model::Seal`].
pub fn seal(event: &Event, stamp: &Stamp<'_>, out: &mut Vec<u8>) -> Spans {
    let (at, body) = body(event);
    let (name, time) = (stamp.stream.as_bytes(), prost_types::Timestamp::from(stamp.time));
    let time_bytes = time.encoded_len();
    let name_bytes = 1 + varint_bytes(name.len()) + name.len();
    let stamped_bytes = name_bytes + 1 + encoded_len_varint(stamp.sequence) + 2 + time_bytes + 2;
    let spans = put_event(event.spans(), at, body, stamped_bytes, out);
    out.push(KEY_STREAM);
    encode_varint(name.len() as u64, out);
    out.extend_from_slice(name);
    out.push(KEY_SEQUENCE);
    encode_varint(stamp.sequence, out);
    out.extend_from_slice(&[KEY_APPEND_TIME, time_bytes as u8]);
    time.encode_raw(out);
    out.extend_from_slice(&[KEY_ATTEMPT, 1]);
    spans
}

/// A stored event as it is delivered once more.
pub(super) fn again(event: &Event, attempt: u32, last_failure: &str) -> Event {
    let (at, body) = body(event);
    let mut rest = &event.encoded()[at + body.len()..];
    let mut stamped = Vec::with_capacity(rest.len() + 10 + last_failure.len());
    // What the stream stamped stays, up to the number of the attempt, which is the last field of what a stream keeps.
    while let [key, ..] = rest
        && *key != KEY_ATTEMPT
    {
        let before = rest;
        if fields::next(&mut rest).is_err() {
            break;
        }
        stamped.extend_from_slice(&before[..before.len() - rest.len()]);
    }
    stamped.push(KEY_ATTEMPT);
    encode_varint(attempt.into(), &mut stamped);
    if !last_failure.is_empty() {
        stamped.push(KEY_LAST_FAILURE);
        encode_varint(last_failure.len() as u64, &mut stamped);
        stamped.extend_from_slice(last_failure.as_bytes());
    }
    let mut entry = Vec::with_capacity(body.len() + stamped.len() + 4 * 5);
    let spans = put_event(event.spans(), at, body, stamped.len(), &mut entry);
    entry.extend_from_slice(&stamped);
    // The spans were inside the old entry, so they are inside this one.
    Event::new(entry.into(), spans, event.sequence()).unwrap_or_else(|| event.detached())
}

/// An event that a group gave up, as it is published to a dead-letter stream: with attributes that say where it comes
/// from. Whatever its own limits were, it is kept as long as that stream says.
pub(super) fn dead_letter(event: &Event, told: &GivenUp<'_>) -> Event {
    let (at, body) = body(event);
    let (sequence, attempts) = (told.sequence.to_string(), told.attempts.to_string());
    let values = [told.stream, &sequence, told.group, &attempts, told.reason];
    let mut letter = body.to_vec();
    for (name, value) in DEAD_LETTER_ATTRIBUTES.iter().zip(values) {
        // Of an attribute that is there twice the last one counts.
        let len = 2 + varint_bytes(name.len()) + name.len() + varint_bytes(value.len()) + value.len();
        letter.push(KEY_ATTRIBUTE);
        encode_varint(len as u64, &mut letter);
        for (key, text) in [(KEY_PAIR_NAME, *name), (KEY_PAIR_VALUE, value)] {
            letter.push(key);
            encode_varint(text.len() as u64, &mut letter);
            letter.extend_from_slice(text.as_bytes());
        }
    }
    let mut entry = Vec::with_capacity(letter.len() + 4 * 5);
    let spans = put_event(event.spans(), at, &letter, 2, &mut entry);
    entry.extend_from_slice(&[KEY_ATTEMPT, 1]);
    // The spans were inside the old entry, so they are inside this one.
    Event::new(entry.into(), Spans { ttl_ms: None, ..spans }, 0).unwrap_or_else(|| event.detached())
}

/// The topic of an event that was not looked at yet, as it is written.
pub(super) fn topic_of(raw: &[u8]) -> Option<&[u8]> {
    walk(raw).ok().map(|found| &raw[found.topic])
}

/// The publisher's event, in the entry of an event.
pub(super) fn published(event: &Event) -> &[u8] {
    body(event).1
}

/// The `ReceivedEvent` in the entry of an event.
pub(super) fn received(event: &Event) -> Bytes {
    let mut rest = event.encoded().get(1..).unwrap_or_default();
    let len = decode_varint(&mut rest).unwrap_or_default() as usize;
    Bytes::copy_from_slice(&rest[..len.min(rest.len())])
}

/// When an event was stored.
pub(super) fn append_time(event: &Event) -> Option<prost_types::Timestamp> {
    let (at, body) = body(event);
    let mut rest = &event.encoded()[at + body.len()..];
    while !rest.is_empty() {
        if let (4, Value::Bytes(time)) = fields::next(&mut rest).ok()? {
            return prost_types::Timestamp::decode(time).ok();
        }
    }
    None
}

/// The same, for who knows no protobuf.
pub(super) fn append_system_time(event: &Event) -> Option<SystemTime> {
    append_time(event)?.try_into().ok()
}

/// The trace that an event is part of, as its attributes tell.
pub fn trace_parent(event: &Event) -> Option<TraceParent<'_>> {
    let (mut rest, mut found) = (body(event).1, None);
    let mut state = "";
    while !rest.is_empty() {
        let (8, Value::Bytes(attribute)) = fields::next(&mut rest).ok()? else { continue };
        match pair(attribute).ok()? {
            ("traceparent", value) => found = Some(value),
            ("tracestate", value) => state = value,
            _ => {}
        }
    }
    found.map(|parent| TraceParent { parent, state })
}

/// The name and the value of an attribute: field 1 and field 2, both texts, either may be missing.
fn pair(mut rest: &[u8]) -> Result<(&str, &str), &'static str> {
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

/// Where the publisher's event stands in the entry of an event, and its bytes.
fn body(event: &Event) -> (usize, &[u8]) {
    let entry = event.encoded();
    let mut rest = entry;
    // `accept` and `put_event` make no other head: two keys of one byte, each with a length.
    let mut len = 0;
    for _ in 0..2 {
        rest = rest.get(1..).unwrap_or_default();
        len = decode_varint(&mut rest).unwrap_or_default() as usize;
    }
    (entry.len() - rest.len(), &rest[..len.min(rest.len())])
}

/// Puts an entry at the end of `out` up to its event, which is `body` and stood at `at` where `spans` tell of; fields of
/// `stamped_bytes` are to follow.
fn put_event(spans: &Spans, at: usize, body: &[u8], stamped_bytes: usize, out: &mut Vec<u8>) -> Spans {
    let start = out.len();
    let received_bytes = 1 + varint_bytes(body.len()) + body.len() + stamped_bytes;
    out.reserve(1 + varint_bytes(received_bytes) + received_bytes);
    out.push(KEY_ENTRY);
    encode_varint(received_bytes as u64, out);
    out.push(KEY_EVENT);
    encode_varint(body.len() as u64, out);
    let to = out.len() - start;
    out.extend_from_slice(body);
    Spans {
        topic: spans.topic.moved(at, to),
        key: spans.key.moved(at, to),
        id: spans.id.moved(at, to),
        source: spans.source.moved(at, to),
        ttl_ms: spans.ttl_ms,
    }
}

/// Walks the fields of an event. As in protobuf, of a text that comes twice the last one counts, and messages that come
/// twice are one.
fn walk(raw: &[u8]) -> Result<Found, EventError> {
    let mut found = Found::default();
    let mut rest = raw;
    while !rest.is_empty() {
        let no_field = |error: NoField| EventError::Field { field: "event", problem: error.problem() };
        let (tag, value) = fields::next(&mut rest).map_err(no_field)?;
        let known = (1..=11).contains(&tag);
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
            1 => found.id = range,
            2 => found.topic = range,
            4 => found.source = range,
            6 => found.key = range,
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
        5 => {
            merge(&mut found.time, value).or_else(refuse)?;
            times::time(found.time).map(drop).or_else(refuse)
        }
        8 => {
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
        9 => {
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

fn varint_bytes(value: usize) -> usize {
    encoded_len_varint(value as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::proto::v1 as client;

    fn ids() -> EventIds {
        EventIds::new("s")
    }

    fn accepted(raw: &[u8]) -> Result<Event, EventError> {
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
    fn what_the_hub_looks_at_is_found_again() {
        let event = accepted(&sample().encode_to_vec()).expect("accepted");
        let field = |event: &Event, span: Span| {
            let start = span.start as usize;
            String::from_utf8(event.encoded()[start..start + usize::from(span.len)].to_vec()).expect("text")
        };
        let fields = |event: &Event| {
            let spans = *event.spans();
            [spans.topic, spans.key, spans.id, spans.source].map(|span| field(event, span))
        };
        assert_eq!(fields(&event), ["a.b", "k", "7", "/s"]);
        assert_eq!(event.spans().ttl_ms.map(NonZeroU64::get), Some(1000));
        assert_eq!((event.key(), event.sequence()), (&b"k"[..], 0));

        let stored = stored(&event);
        assert_eq!((fields(&stored), stored.sequence()), (fields(&event), 300));
        assert_eq!(stored.dedupe_key(), event.dedupe_key());
        assert_eq!(fields(&again(&stored, 2, "no")), fields(&event));

        let without = client::Event { id: String::new(), key: String::new(), ..sample() };
        let without = accepted(&without.encode_to_vec()).expect("accepted");
        assert_eq!((fields(&without), without.dedupe_key()), (["a.b", "", "", "/s"].map(String::from), None));
    }

    fn stored(event: &Event) -> Event {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
        let mut out = b"before".to_vec();
        let spans = seal(event, &Stamp { stream: "orders", sequence: 300, time }, &mut out);
        Event::new(out.split_off(6).into(), spans, 300).expect("spans inside")
    }

    #[test]
    fn a_stored_event_says_where_it_is_kept_and_a_redelivery_why() {
        let event = accepted(&sample().encode_to_vec()).expect("accepted");
        let stored = stored(&event);
        let first = client::ReceivedEvent {
            event: Some(sample()),
            stream: "orders".into(),
            sequence: 300,
            append_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_000_000 }),
            attempt: 1,
            last_failure: String::new(),
        };
        assert_eq!(received(&stored), first);
        let second = client::ReceivedEvent { attempt: 200, last_failure: "no luck".into(), ..first.clone() };
        assert_eq!(received(&again(&stored, 200, "no luck")), second);
        assert_eq!(received(&again(&stored, 3, "")), client::ReceivedEvent { attempt: 3, ..first });
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
    fn a_publisher_cannot_mark_an_event_as_a_dead_letter() {
        for name in DEAD_LETTER_ATTRIBUTES {
            check_refused(
                client::Event { attributes: HashMap::from([(name.into(), "1".into())]), ..sample() },
                "attributes",
            );
        }
        // Of a name that comes twice in one pair the last one counts.
        let key = |name: &str| [&[KEY_PAIR_NAME, name.len() as u8], name.as_bytes()].concat();
        for (names, taken) in [(["deadlettergroup", "x"], true), (["x", "deadlettergroup"], false)] {
            let pair = names.map(key).concat();
            let raw = [sample().encode_to_vec(), vec![KEY_ATTRIBUTE, pair.len() as u8], pair].concat();
            assert_eq!(accepted(&raw).is_ok(), taken, "{names:?}");
        }
        let others = HashMap::from([("deadletter".into(), "x".into()), ("DeadLetterGroup".into(), "x".into())]);
        assert!(accepted(&client::Event { attributes: others, ..sample() }.encode_to_vec()).is_ok());

        let event = stored(&accepted(&sample().encode_to_vec()).expect("accepted"));
        let told = GivenUp { stream: "orders", sequence: 300, group: "g", attempts: 2, reason: "no" };
        let letter = dead_letter(&event, &told);
        assert_eq!(received(&letter).event.expect("an event").attributes["deadletterreason"], "no");
    }

    #[test]
    fn size_is_limited_exactly() {
        let raw = sample().encode_to_vec();
        assert!(accept(&raw, raw.len(), &mut ids()).is_ok());
        let limit = raw.len() - 1;
        assert_eq!(accept(&raw, limit, &mut ids()).err(), Some(EventError::TooLarge { bytes: raw.len(), limit }));
    }
}
