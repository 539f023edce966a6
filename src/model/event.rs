//! The event as the hub passes it on, and as a stream keeps it.

use std::num::NonZeroU64;

use bytes::Bytes;

use super::{Topic, limits::MAX_EVENT_FIELD_BYTES};

/// Where a field stands in the encoded form of an event. Empty where the event has no such field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// How many there are; no field that is looked up is longer than 256 bytes.
    pub len: u16,
}

impl Span {
    /// The same field of something that stood at `from`, which it does not begin before, and now stands at `to`.
    #[must_use]
    pub fn moved(self, from: usize, to: usize) -> Self {
        if self.len == 0 {
            return Self::default();
        }
        Self { start: (self.start as usize + to).saturating_sub(from) as u32, ..self }
    }

    fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        let start = self.start as usize;
        bytes.get(start..start + usize::from(self.len))
    }
}

/// Where the fields stand that the hub looks at, and how long the event may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spans {
    /// The topic, checked to be one.
    pub topic: Span,
    /// The ordering key.
    pub key: Span,
    /// The id, if the publisher gave one. One that the hub made is not told: it dedupes nothing.
    pub id: Span,
    /// Who published it, as it says itself.
    pub source: Span,
    /// How long after its append a stream may deliver it, in milliseconds.
    pub ttl_ms: Option<NonZeroU64>,
}

/// One immutable event: what the hub looks at, and its encoded form, made once and shared by all who get it.
///
/// What the bytes mean is the wire's business (`grpc/event.rs` makes them); the rooms between only count them, look at
/// the fields that [`Spans`] tells of, and hand them on. The stored form of an event is another `Event`, whose bytes
/// also say in which stream it is, where, and since when.
#[derive(Debug)]
pub struct Event {
    encoded: Bytes,
    spans: Spans,
    sequence: u64,
}

impl Event {
    /// An event whose encoded form has at `spans.topic` what the caller has checked to be a topic. `sequence` is its
    /// place in its stream, 0 for one that is not from a stream. Spans that are not inside `encoded` give `None`.
    pub fn new(encoded: Bytes, spans: Spans, sequence: u64) -> Option<Self> {
        let fields = [spans.topic, spans.key, spans.id, spans.source];
        if fields.iter().any(|span| span.of(&encoded).is_none()) {
            return None;
        }
        debug_assert!(spans.topic.of(&encoded).is_some_and(|name| Topic::parse(name).is_ok()));
        Some(Self { encoded, spans, sequence })
    }

    /// The topic it was published to.
    pub fn topic(&self) -> Topic<'_> {
        Topic::checked(self.field(self.spans.topic))
    }

    /// The ordering key; empty for none.
    pub fn key(&self) -> &[u8] {
        self.field(self.spans.key)
    }

    /// The sequence in the stream it was read from, counted from 1; 0 for one that is not from a stream.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the fields stand in [`Self::encoded`].
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// The bytes to put into an `events` frame.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// What a stream knows a repetition of this event by: a hash of source and id. `None` when the publisher gave no
    /// id. The hash is kept in stores and must never change.
    pub fn dedupe_key(&self) -> Option<u128> {
        let (id, source) = (self.field(self.spans.id), self.field(self.spans.source));
        if id.is_empty() || source.len() > MAX_EVENT_FIELD_BYTES || id.len() > MAX_EVENT_FIELD_BYTES {
            return None;
        }
        let mut both = [0; 2 + 2 * MAX_EVENT_FIELD_BYTES];
        both[..2].copy_from_slice(&(source.len() as u16).to_le_bytes());
        both[2..2 + source.len()].copy_from_slice(source);
        let end = 2 + source.len() + id.len();
        both[2 + source.len()..end].copy_from_slice(id);
        Some(xxhash_rust::xxh3::xxh3_128(&both[..end]))
    }

    /// The same event in memory of its own, for one that is a small part of what it shares.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { encoded: Bytes::copy_from_slice(&self.encoded), spans: self.spans, sequence: self.sequence }
    }

    fn field(&self, span: Span) -> &[u8] {
        span.of(&self.encoded).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(source: &str, id: &str) -> Event {
        let text = format!("t{source}{id}");
        let at = |start: usize, len: usize| Span { start: start as u32, len: len as u16 };
        let spans = Spans {
            topic: at(0, 1),
            source: at(1, source.len()),
            id: at(1 + source.len(), id.len()),
            ..Spans::default()
        };
        Event::new(text.into(), spans, 0).expect("an event")
    }

    #[test]
    fn the_dedupe_key_is_of_source_and_id_and_never_changes() {
        assert_eq!(event("s", "").dedupe_key(), None);
        assert_eq!(event("s", "1").dedupe_key(), event("s", "1").dedupe_key());
        assert_ne!(event("s", "11").dedupe_key(), event("s1", "1").dedupe_key());
        assert_ne!(event("", "1").dedupe_key(), None);
        assert_eq!(event("orders", "1").dedupe_key(), Some(KEY_OF_ORDERS_1));
        let just = "x".repeat(MAX_EVENT_FIELD_BYTES);
        assert!(event(&just, &just).dedupe_key().is_some());
    }

    /// As stores have it.
    const KEY_OF_ORDERS_1: u128 = 191_969_376_211_092_580_419_026_911_629_541_017_350;

    #[test]
    fn spans_outside_the_bytes_are_refused() {
        let spans = Spans { topic: Span { start: 0, len: 1 }, key: Span { start: 1, len: 9 }, ..Spans::default() };
        assert!(Event::new(Bytes::from_static(b"abc"), spans, 0).is_none());
    }
}
