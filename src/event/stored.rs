//! The forms that an event takes once a stream has it: stored, delivered again, and given up. Pure.
//!
//! Each is made of the bytes of another by copying them behind a new head: what the publisher sent stays as it is.

use std::time::SystemTime;

use bytes::Bytes;
use prost::{
    Message,
    encoding::{decode_varint, encode_varint, encoded_len_varint},
};

use super::{
    Event, Spans, fields,
    keys::{
        KEY_APPEND_TIME, KEY_ATTEMPT, KEY_ATTRIBUTE, KEY_ENTRY, KEY_EVENT, KEY_LAST_FAILURE, KEY_PAIR_NAME,
        KEY_PAIR_VALUE, KEY_REDELIVERED, KEY_SEQUENCE, KEY_STREAM, put_bytes, varint_bytes,
    },
};

/// What a dead letter says: the stream it comes from, its sequence there, the group, the attempts, and the reason.
pub const DEAD_LETTER_ATTRIBUTES: [&str; 5] =
    ["deadletterstream", "deadlettersequence", "deadlettergroup", "deadletterattempts", "deadletterreason"];

/// What a stream adds to an event when it stores it.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// The name of the stream.
    pub stream: &'a str,
    /// The event's sequence in it.
    pub sequence: u64,
    /// When it was appended.
    pub time: SystemTime,
}

impl Stamp<'_> {
    fn timestamp(&self) -> prost_types::Timestamp {
        self.time.into()
    }

    fn encoded_len(&self) -> usize {
        let name_bytes = 1 + varint_bytes(self.stream.len()) + self.stream.len();
        name_bytes + 1 + encoded_len_varint(self.sequence) + 2 + self.timestamp().encoded_len() + 2
    }
}

/// What a dead letter says of the event that a group gave up.
#[derive(Debug, Clone, Copy)]
pub struct GivenUp<'a> {
    /// The stream of the group.
    pub stream: &'a str,
    /// The event's sequence in it.
    pub sequence: u64,
    /// The group.
    pub group: &'a str,
    /// How many attempts failed.
    pub attempts: u32,
    /// Why the last one did.
    pub reason: &'a str,
}

impl Event {
    /// Puts the stored form of an event at the end of `out`, which is the entry as a subscriber of the stream gets it, and says
    /// where its fields are, counted from where that form begins.
    pub fn seal(&self, stamp: &Stamp<'_>, out: &mut Vec<u8>) -> Spans {
        let (at, body) = body(self);
        let spans = put_event(self.spans(), at, body, stamp.encoded_len(), out);
        put_bytes(KEY_STREAM, stamp.stream.as_bytes(), out);
        out.push(KEY_SEQUENCE);
        encode_varint(stamp.sequence, out);
        let time = stamp.timestamp();
        out.extend_from_slice(&[KEY_APPEND_TIME, time.encoded_len() as u8]);
        time.encode_raw(out);
        out.extend_from_slice(&[KEY_ATTEMPT, 1]);
        spans
    }

    /// How many bytes [`Self::seal`] puts.
    pub fn sealed_len(&self, stamp: &Stamp<'_>) -> usize {
        let received_bytes = received_bytes(body(self).1.len(), stamp.encoded_len());
        1 + varint_bytes(received_bytes) + received_bytes
    }

    /// A stored event as it is delivered to a group once more, which it says.
    #[must_use]
    pub fn again(&self, attempt: u32, last_failure: &str) -> Self {
        let (at, body) = body(self);
        let mut rest = &self.encoded()[at + body.len()..];
        let mut stamped = Vec::with_capacity(rest.len() + 12 + last_failure.len());
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
            put_bytes(KEY_LAST_FAILURE, last_failure.as_bytes(), &mut stamped);
        }
        stamped.extend_from_slice(&[KEY_REDELIVERED, 1]);
        let mut entry = Vec::with_capacity(body.len() + stamped.len() + 4 * 5);
        let spans = put_event(self.spans(), at, body, stamped.len(), &mut entry);
        entry.extend_from_slice(&stamped);
        // The spans were inside the old entry, so they are inside this one.
        Self::new(entry.into(), spans, self.sequence()).unwrap_or_else(|| self.detached())
    }

    /// An event that a group gave up, as it is published to a dead-letter stream: with attributes that say where it comes
    /// from. Whatever its own limits were, it is kept as long as that stream says.
    #[must_use]
    pub fn dead_letter(&self, given_up: &GivenUp<'_>) -> Self {
        let (at, body) = body(self);
        let (sequence, attempts) = (given_up.sequence.to_string(), given_up.attempts.to_string());
        let values = [given_up.stream, &sequence, given_up.group, &attempts, given_up.reason];
        let mut letter = body.to_vec();
        for (name, value) in DEAD_LETTER_ATTRIBUTES.iter().zip(values) {
            // Of an attribute that is there twice the last one counts.
            let len = 2 + varint_bytes(name.len()) + name.len() + varint_bytes(value.len()) + value.len();
            letter.push(KEY_ATTRIBUTE);
            encode_varint(len as u64, &mut letter);
            put_bytes(KEY_PAIR_NAME, name.as_bytes(), &mut letter);
            put_bytes(KEY_PAIR_VALUE, value.as_bytes(), &mut letter);
        }
        let mut entry = Vec::with_capacity(letter.len() + 4 * 5);
        let spans = put_event(self.spans(), at, &letter, 2, &mut entry);
        entry.extend_from_slice(&[KEY_ATTEMPT, 1]);
        // The spans were inside the old entry, so they are inside this one.
        Self::new(entry.into(), Spans { ttl_ms: None, ..spans }, 0).unwrap_or_else(|| self.detached())
    }

    /// What its attributes say, if it is a dead letter. Only the hub gives such attributes.
    pub fn given_up(&self) -> Option<GivenUp<'_>> {
        let mut values = [None; DEAD_LETTER_ATTRIBUTES.len()];
        for (name, value) in self.attributes() {
            if let Some(at) = DEAD_LETTER_ATTRIBUTES.iter().position(|known| *known == name) {
                values[at] = Some(value);
            }
        }
        let [stream, sequence, group, attempts, reason] = values;
        Some(GivenUp {
            stream: stream?,
            sequence: sequence?.parse().ok()?,
            group: group?,
            attempts: attempts?.parse().ok()?,
            reason: reason.unwrap_or_default(),
        })
    }

    /// The publisher's event, in the entry of an event.
    pub fn published(&self) -> &[u8] {
        body(self).1
    }

    /// The `ReceivedEvent` in the entry of an event.
    pub fn received(&self) -> Bytes {
        let mut rest = self.encoded().get(1..).unwrap_or_default();
        let len = decode_varint(&mut rest).unwrap_or_default() as usize;
        Bytes::copy_from_slice(&rest[..len.min(rest.len())])
    }
}

/// Where the publisher's event stands in the entry of an event, and its bytes.
pub(super) fn body(event: &Event) -> (usize, &[u8]) {
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

/// The length of what an entry has inside: an event of `body_bytes`, and what is stamped on it.
fn received_bytes(body_bytes: usize, stamped_bytes: usize) -> usize {
    1 + varint_bytes(body_bytes) + body_bytes + stamped_bytes
}

/// Puts an entry at the end of `out` up to its event, which is `body` and stood at `at` where `spans` tell of; fields of
/// `stamped_bytes` are to follow.
fn put_event(spans: &Spans, at: usize, body: &[u8], stamped_bytes: usize, out: &mut Vec<u8>) -> Spans {
    let start = out.len();
    let received_bytes = received_bytes(body.len(), stamped_bytes);
    out.reserve(1 + varint_bytes(received_bytes) + received_bytes);
    out.push(KEY_ENTRY);
    encode_varint(received_bytes as u64, out);
    put_bytes(KEY_EVENT, body, out);
    let to = out.len() - start - body.len();
    Spans {
        topic: spans.topic.moved(at, to),
        key: spans.key.moved(at, to),
        id: spans.id.moved(at, to),
        source: spans.source.moved(at, to),
        ttl_ms: spans.ttl_ms,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, num::NonZeroU64};

    use super::*;
    use crate::{
        event::{EventIds, Span, keys::KEY_ID},
        model::{
            EventError,
            limits::{MAX_EVENT_ATTRIBUTES, MAX_EVENT_FIELD_BYTES},
        },
        proto::v1 as client,
    };

    fn ids() -> EventIds {
        EventIds::new("s")
    }

    fn accepted(raw: &[u8]) -> Result<Event, EventError> {
        Event::accept(raw, 1024 * 1024, &mut ids())
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
        let one = Event::accept(&raw, 1024, &mut ids).expect("accepted");
        // An empty id sent explicitly is no id either.
        raw.extend_from_slice(&[KEY_ID, 0]);
        let two = Event::accept(&raw, 1024, &mut ids).expect("accepted");
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
        assert_eq!(fields(&stored.again(2, "no")), fields(&event));

        let without = client::Event { id: String::new(), key: String::new(), ..sample() };
        let without = accepted(&without.encode_to_vec()).expect("accepted");
        assert_eq!((fields(&without), without.dedupe_key()), (["a.b", "", "", "/s"].map(String::from), None));
    }

    fn stored(event: &Event) -> Event {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
        let mut out = b"before".to_vec();
        let spans = event.seal(&Stamp { stream: "orders", sequence: 300, time }, &mut out);
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
            redelivered: false,
        };
        assert_eq!(received(&stored), first);
        let again = client::ReceivedEvent { redelivered: true, ..first };
        let second = client::ReceivedEvent { attempt: 200, last_failure: "no luck".into(), ..again.clone() };
        assert_eq!(received(&stored.again(200, "no luck")), second);
        assert_eq!(received(&stored.again(3, "")), client::ReceivedEvent { attempt: 3, ..again.clone() });
        assert_eq!(
            received(&stored.again(200, "no luck").again(1, "")),
            again,
            "nothing of the delivery before is left"
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_stored_is_as_long_as_it_is_said_to_be(
            text_bytes in 0..40_000_usize,
            stream in "[a-z]{1,200}",
            sequence in 0..u64::MAX >> 1,
            micros in 0..1_u64 << 50,
        ) {
            let event = client::Event { payload: Some(client::event::Payload::Text("x".repeat(text_bytes))), ..sample() };
            let event = accepted(&event.encode_to_vec()).expect("accepted");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros);
            let (stamp, mut out) = (Stamp { stream: &stream, sequence, time }, Vec::new());
            event.seal(&stamp, &mut out);
            proptest::prop_assert_eq!(out.len(), event.sealed_len(&stamp));
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
        let letter = event.dead_letter(&told);
        assert_eq!(received(&letter).event.expect("an event").attributes["deadletterreason"], "no");
    }

    #[test]
    fn size_is_limited_exactly() {
        let raw = sample().encode_to_vec();
        assert!(Event::accept(&raw, raw.len(), &mut ids()).is_ok());
        let limit = raw.len() - 1;
        assert_eq!(
            Event::accept(&raw, limit, &mut ids()).err(),
            Some(EventError::TooLarge { bytes: raw.len(), limit })
        );
    }
}
