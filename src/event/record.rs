//! The event as the hub passes it on, and as a stream keeps it. Pure.

use std::{iter, num::NonZeroU64, ops::Range};

use bytes::Bytes;
use triomphe::ThinArc;

use crate::model::{
    Topic,
    limits::{MAX_EVENT_FIELD_BYTES, MAX_NAME_BYTES},
};

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

/// One immutable event: what the hub looks at, and its encoded form, made once and shared by all who get it. Cheap to
/// clone.
///
/// Most rooms only count the bytes, read the fields that [`Spans`] names, and pass them on. The stored form of an event is another `Event`, whose bytes
/// also say in which stream it is, where, and since when.
///
/// Events whose encoded forms stand in the same memory are made [together](Self::together), in one allocation: one for
/// each would cost as much as all else that is done to read it. All of it lives until the last of them is gone, so who
/// keeps a few of many for long gives them memory of their own ([`Self::detached`]).
#[derive(Debug, Clone)]
pub struct Event {
    together: ThinArc<Bytes, Place>,
    at: u32,
}

/// The memory that an event shares with those that were made together with it: it is there until the last of them is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// No other that is there at the same time has the same.
    pub address: usize,
    /// Which of its events this one is, counted from 0.
    pub at: usize,
    /// How many events it has,
    pub events: usize,
    /// and how many clones of them there are. More clones than events: some of them are in several places.
    pub clones: usize,
    /// The bytes of all encoded forms.
    pub bytes: usize,
}

/// One of several events whose encoded forms stand in the same memory.
// In this order: what every delivery looks at comes first, and is in one line of the cache with what stands before it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Place {
    start: u32,
    len: u32,
    sequence: u64,
    spans: Spans,
}

impl Place {
    /// The event whose encoded form is `entry` of `bytes`, and has at `spans.topic` what the caller has checked to be a
    /// topic. `sequence` is its place in its stream, 0 for one that is not from a stream. `None` when the entry is not
    /// inside the bytes, or the spans not inside the entry.
    pub fn new(bytes: &[u8], entry: Range<usize>, spans: Spans, sequence: u64) -> Option<Self> {
        let start = u32::try_from(entry.start).ok()?;
        let encoded = bytes.get(entry)?;
        let fields = [spans.topic, spans.key, spans.id, spans.source];
        if fields.iter().any(|span| span.of(encoded).is_none()) {
            return None;
        }
        debug_assert!(spans.topic.of(encoded).is_some_and(|name| Topic::parse(name).is_ok()));
        Some(Self { start, len: u32::try_from(encoded.len()).ok()?, sequence, spans })
    }

    /// The encoded form, in the bytes that the place was made for.
    pub fn encoded<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        bytes.get(start..start + self.len as usize).unwrap_or_default()
    }

    /// The topic of the event, in the bytes that the place was made for.
    pub fn topic<'a>(&self, bytes: &'a [u8]) -> Topic<'a> {
        Topic::checked(self.spans.topic.of(self.encoded(bytes)).unwrap_or_default())
    }

    /// What a stream knows a repetition of the event by: a hash of topic, source and id. `None` when the publisher gave no
    /// id. The hash is kept in stores and must never change.
    pub fn dedupe_key(&self, bytes: &[u8]) -> Option<u128> {
        self.hash(bytes, &[self.spans.topic, self.spans.source, self.spans.id])
    }

    /// The key that stores have from before the topic was part of it: a hash of source and id.
    pub fn old_dedupe_key(&self, bytes: &[u8]) -> Option<u128> {
        self.hash(bytes, &[self.spans.source, self.spans.id])
    }

    /// A hash of fields, of which the last must not be empty. Each of the others stands behind its length.
    fn hash(&self, bytes: &[u8], spans: &[Span]) -> Option<u128> {
        const MOST: usize = if MAX_EVENT_FIELD_BYTES > MAX_NAME_BYTES { MAX_EVENT_FIELD_BYTES } else { MAX_NAME_BYTES };
        let mut all = [0; 3 * (2 + MOST)];
        let (mut end, encoded) = (0, self.encoded(bytes));
        for (at, span) in spans.iter().enumerate() {
            let (field, last) = (span.of(encoded).unwrap_or_default(), at + 1 == spans.len());
            if field.len() > MOST || (last && field.is_empty()) {
                return None;
            }
            if !last {
                all[end..end + 2].copy_from_slice(&span.len.to_le_bytes());
                end += 2;
            }
            all[end..end + field.len()].copy_from_slice(field);
            end += field.len();
        }
        Some(xxhash_rust::xxh3::xxh3_128(&all[..end]))
    }

    /// The event in memory of its own, out of the bytes that the place was made for.
    pub fn detached(&self, bytes: &[u8]) -> Event {
        let encoded = Bytes::copy_from_slice(self.encoded(bytes));
        Event { together: ThinArc::from_header_and_iter(encoded, iter::once(Self { start: 0, ..*self })), at: 0 }
    }
}

impl Event {
    /// An event by itself; see [`Place::new`].
    pub fn new(encoded: Bytes, spans: Spans, sequence: u64) -> Option<Self> {
        let place = Place::new(&encoded, 0..encoded.len(), spans, sequence)?;
        Some(Self { together: ThinArc::from_header_and_iter(encoded, iter::once(place)), at: 0 })
    }

    /// The events at `places` of `bytes`, which are those that the places were made for. There are fewer than 2^32.
    pub fn together(bytes: Bytes, places: Vec<Place>) -> impl Iterator<Item = Self> {
        let count = places.len() as u32;
        let together = ThinArc::from_header_and_iter(bytes, places.into_iter());
        (0..count).map(move |at| Self { together: together.clone(), at })
    }

    fn bytes(&self) -> &[u8] {
        &self.together.header.header
    }

    fn place(&self) -> &Place {
        &self.together.slice[self.at as usize]
    }

    /// The topic it was published to.
    pub fn topic(&self) -> Topic<'_> {
        self.place().topic(self.bytes())
    }

    /// The ordering key; empty for none.
    pub fn key(&self) -> &[u8] {
        self.spans().key.of(self.encoded()).unwrap_or_default()
    }

    /// The sequence in the stream it was read from, counted from 1; 0 for one that is not from a stream.
    pub fn sequence(&self) -> u64 {
        self.place().sequence
    }

    /// Where the fields stand in [`Self::encoded`].
    pub fn spans(&self) -> &Spans {
        &self.place().spans
    }

    /// The length of [`Self::encoded`], without a look at the bytes.
    pub fn encoded_len(&self) -> usize {
        self.place().len as usize
    }

    /// The bytes to put into an `events` frame.
    pub fn encoded(&self) -> &[u8] {
        self.place().encoded(self.bytes())
    }

    /// What a stream knows a repetition of this event by; see [`Place::dedupe_key`].
    pub fn dedupe_key(&self) -> Option<u128> {
        self.place().dedupe_key(self.bytes())
    }

    /// See [`Place::old_dedupe_key`].
    pub fn old_dedupe_key(&self) -> Option<u128> {
        self.place().old_dedupe_key(self.bytes())
    }

    /// Where it is kept, for whoever keeps something else made of it.
    pub fn allocation(&self) -> Allocation {
        Allocation {
            address: std::ptr::from_ref(&self.together.header).addr(),
            at: self.at as usize,
            events: self.together.slice.len(),
            clones: ThinArc::strong_count(&self.together),
            bytes: self.bytes().len(),
        }
    }

    /// The same event in memory of its own, for one that is a small part of what it shares.
    #[must_use]
    pub fn detached(&self) -> Self {
        self.place().detached(self.bytes())
    }
}

// The queues of all subscriptions are made of these.
const _: () = assert!(size_of::<Option<Event>>() <= 16);

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str, source: &str, id: &str) -> Event {
        let text = format!("{topic}{source}{id}");
        let at = |start: usize, len: usize| Span { start: start as u32, len: len as u16 };
        let spans = Spans {
            topic: at(0, topic.len()),
            source: at(topic.len(), source.len()),
            id: at(topic.len() + source.len(), id.len()),
            ..Spans::default()
        };
        Event::new(text.into(), spans, 0).expect("an event")
    }

    #[test]
    fn the_dedupe_key_is_of_topic_source_and_id_and_never_changes() {
        assert_eq!(event("t", "s", "").dedupe_key(), None);
        assert_eq!(event("t", "s", "1").dedupe_key(), event("t", "s", "1").dedupe_key());
        assert_ne!(event("t", "s", "11").dedupe_key(), event("t", "s1", "1").dedupe_key());
        assert_ne!(event("t", "s", "1").dedupe_key(), event("ts", "", "1").dedupe_key());
        assert_ne!(event("t", "s", "1").dedupe_key(), event("other", "s", "1").dedupe_key());
        assert_ne!(event("t", "", "1").dedupe_key(), None);
        let just = "x".repeat(MAX_EVENT_FIELD_BYTES);
        assert!(event(&just, &just, &just).dedupe_key().is_some());
        let known = event("t", "orders", "1");
        assert_eq!((known.dedupe_key(), known.old_dedupe_key()), (Some(KEY_OF_T_ORDERS_1), Some(OLD_KEY_OF_ORDERS_1)));
    }

    /// As stores have it,
    const KEY_OF_T_ORDERS_1: u128 = 65_930_648_589_992_263_287_272_862_700_183_285_898;
    /// and as they had it once.
    const OLD_KEY_OF_ORDERS_1: u128 = 191_969_376_211_092_580_419_026_911_629_541_017_350;

    #[test]
    fn events_that_were_made_together_keep_their_order_and_outlive_each_other() {
        let bytes = Bytes::from_static(b"-abc");
        let spans = Spans { topic: Span { start: 0, len: 1 }, ..Spans::default() };
        let place = |at: usize| Place::new(&bytes, at..at + 1, spans, at as u64).expect("inside");
        let mut together: Vec<_> = Event::together(bytes.clone(), vec![place(1), place(2), place(3)]).collect();
        let last = together.pop().expect("the last");
        let found: Vec<_> = together.iter().map(|event| (event.encoded(), event.sequence())).collect();
        assert_eq!(found, [(&b"a"[..], 1), (b"b", 2)]);
        drop(together);
        let allocation = last.allocation();
        assert_eq!((allocation.at, allocation.events, allocation.clones, allocation.bytes), (2, 3, 1, 4));
        let (clone, detached) = (last.clone(), last.detached());
        assert_eq!(clone.allocation(), Allocation { clones: 2, ..allocation });
        assert_ne!(detached.allocation().address, allocation.address);
        for same in [clone, detached] {
            assert_eq!((same.encoded(), same.topic().to_string(), same.sequence()), (&b"c"[..], "c".to_owned(), 3));
        }
        assert_eq!(Event::together(bytes, Vec::new()).count(), 0);
    }

    #[test]
    fn spans_outside_the_bytes_are_refused() {
        let spans = Spans { topic: Span { start: 0, len: 1 }, key: Span { start: 1, len: 9 }, ..Spans::default() };
        assert!(Event::new(Bytes::from_static(b"abc"), spans, 0).is_none());
        assert!(Place::new(b"abc", 2..4, Spans::default(), 0).is_none());
    }
}
