//! Record batches: the form in which events lie in the store. Pure.
//!
//! A batch is one value under the key (stream, first sequence): a head, and records in the order of their sequences.
//! The head has a checksum over all the rest and the key, and tells the last sequence that the batch covers, so that a
//! missing batch is noticed. A record is a few numbers, most of them one byte, and the entry of the event as it is
//! delivered, so that reading is slicing. Sequences may be missing inside a batch once their events are deleted.

use std::{
    num::NonZeroU64,
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::clock::Warp;
use crate::event::{Place, Span, Spans};

/// The checksum, which covers all that follows it.
const SUM_BYTES: usize = 4;
/// The checksum, the version, two times, the last sequence and the number of records.
pub(super) const HEAD_BYTES: usize = SUM_BYTES + 1 + 8 + 8 + 8 + 4;
const VERSION: u8 = 1;
/// The numbers in front of an entry have at most these bytes.
pub(super) const MOST_RECORD_HEAD_BYTES: usize = 4 * 10 + 8 * 5;

/// How times are stored: microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The time that is so many microseconds after 1970.
pub(super) fn time_of(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// A stored value is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// The head of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The key: the first sequence it covers.
    pub(super) first: u64,
    /// The last sequence it covers.
    pub(super) last: u64,
    /// When its first record was appended, in microseconds since 1970.
    pub(super) base_time: u64,
    /// When its last record was appended.
    pub(super) last_time: u64,
    /// How many records it has.
    pub(super) count: u32,
}

/// One event in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// Its sequence.
    pub(super) sequence: u64,
    /// When it was appended, in microseconds since 1970.
    pub(super) time: u64,
    /// Where its fields stand in the entry.
    pub(super) spans: Spans,
    /// Where the entry begins, and how long it is, in what it was decoded from.
    pub(super) start: u32,
    /// See `start`.
    pub(super) len: u32,
}

impl Record {
    /// Where the entry stands.
    pub(super) fn entry(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// The topic, in the bytes that the record was decoded from.
    pub(super) fn topic<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize + self.spans.topic.start as usize;
        bytes.get(start..start + usize::from(self.spans.topic.len)).unwrap_or_default()
    }

    /// When it is past what its publisher allowed, in the times of its stream; never if that is `u64::MAX`.
    pub(super) fn ends(&self, warp: &Warp) -> u64 {
        self.spans.ttl_ms.map_or(u64::MAX, |ttl| warp.after(self.time, ttl.get().saturating_mul(1000)))
    }

    /// The event, in the bytes that the record was decoded from.
    pub(super) fn place(&self, bytes: &[u8]) -> Result<Place, Damaged> {
        Place::new(bytes, self.entry(), self.spans, self.sequence).ok_or(Damaged)
    }
}

/// Puts a record at the end of `out`. `before` are sequence and time of the record in front of it, or for the first of
/// a batch the sequence before the first, and the base time. Gives back where the entry begins.
pub(super) fn put(out: &mut Vec<u8>, before: (u64, u64), at: (u64, u64), spans: &Spans, entry: &[u8]) -> u32 {
    put_varint(out, at.0 - before.0 - 1);
    put_varint(out, at.1 - before.1);
    put_varint(out, entry.len() as u64);
    put_varint(out, spans.ttl_ms.map_or(0, NonZeroU64::get));
    for span in [spans.topic, spans.key, spans.id, spans.source] {
        put_varint(out, span.len.into());
        if span.len > 0 {
            put_varint(out, span.start.into());
        }
    }
    let start = out.len() as u32;
    out.extend_from_slice(entry);
    start
}

/// Fills in the head of a batch whose records stand behind it.
pub(super) fn finish(value: &mut [u8], stream: u64, head: &Head) {
    value[SUM_BYTES] = VERSION;
    let numbers = [head.base_time, head.last_time, head.last];
    for (number, place) in numbers.iter().zip(value[SUM_BYTES + 1..].chunks_exact_mut(8)) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    value[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&head.count.to_le_bytes());
    let sum = checksum(stream, head.first, &value[SUM_BYTES..]);
    value[..SUM_BYTES].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(stream: u64, first: u64, rest: &[u8]) -> u32 {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&stream.to_le_bytes());
    key[8..].copy_from_slice(&first.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&key), rest)
}

/// The head of a batch, whose checksum is checked.
pub(super) fn head(stream: u64, first: u64, value: &[u8]) -> Result<Head, Damaged> {
    if value.len() < HEAD_BYTES || value[SUM_BYTES] != VERSION {
        return Err(Damaged);
    }
    let sum = u32::from_le_bytes(value[..SUM_BYTES].try_into().map_err(|_| Damaged)?);
    if sum != checksum(stream, first, &value[SUM_BYTES..]) {
        return Err(Damaged);
    }
    let number = |at: usize| value[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| Damaged);
    Ok(Head {
        first,
        base_time: number(SUM_BYTES + 1)?,
        last_time: number(SUM_BYTES + 9)?,
        last: number(SUM_BYTES + 17)?,
        count: value[HEAD_BYTES - 4..HEAD_BYTES].try_into().map(u32::from_le_bytes).map_err(|_| Damaged)?,
    })
}

/// The records of a batch, one after the other.
#[derive(Debug)]
pub(super) struct Records<'a> {
    value: &'a [u8],
    at: usize,
    left: u32,
    before: (u64, u64),
}

impl<'a> Records<'a> {
    /// The records of a checked batch.
    pub(super) fn new(head: &Head, value: &'a [u8]) -> Self {
        Self { value, at: HEAD_BYTES, left: head.count, before: (head.first.wrapping_sub(1), head.base_time) }
    }

    fn record(&mut self) -> Result<Record, Damaged> {
        let mut rest = self.value.get(self.at..).ok_or(Damaged)?;
        let sequence = self.before.0.wrapping_add(varint(&mut rest)?).wrapping_add(1);
        let time = self.before.1.wrapping_add(varint(&mut rest)?);
        let len = varint(&mut rest)?;
        let ttl_ms = NonZeroU64::new(varint(&mut rest)?);
        let mut span = || -> Result<Span, Damaged> {
            let len = varint(&mut rest)? as u16;
            let start = if len > 0 { varint(&mut rest)? as u32 } else { 0 };
            Ok(Span { start, len })
        };
        let spans = Spans { topic: span()?, key: span()?, id: span()?, source: span()?, ttl_ms };
        let start = self.value.len() - rest.len();
        if len > rest.len() as u64 {
            return Err(Damaged);
        }
        self.before = (sequence, time);
        self.at = start + len as usize;
        Ok(Record { sequence, time, spans, start: start as u32, len: len as u32 })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = self.record();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

/// A batch with only those of its records that `keep` wants; it covers what it covered.
pub(super) fn without(
    stream: u64,
    head: &Head,
    value: &[u8],
    mut keep: impl FnMut(&Record) -> bool,
) -> Result<(Head, Vec<u8>), Damaged> {
    let mut out = vec![0; HEAD_BYTES];
    let mut before = (head.first.wrapping_sub(1), head.base_time);
    let mut count = 0;
    for record in Records::new(head, value) {
        let record = record?;
        if keep(&record) {
            let at = (record.sequence, record.time);
            put(&mut out, before, at, &record.spans, &value[record.entry()]);
            (before, count) = (at, count + 1);
        }
    }
    let head = Head { count, ..*head };
    finish(&mut out, stream, &head);
    Ok((head, out))
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(rest: &mut &[u8]) -> Result<u64, Damaged> {
    let mut value = 0;
    for place in 0..10 {
        let (byte, after) = rest.split_first().ok_or(Damaged)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(len: usize) -> Spans {
        Spans { topic: Span { start: 0, len: len as u16 }, ..Spans::default() }
    }

    fn batch(stream: u64, first: u64, entries: &[(u64, u64, Vec<u8>)]) -> Vec<u8> {
        let mut value = vec![0; HEAD_BYTES];
        let mut before = (first - 1, 1_000);
        for (skip, wait, entry) in entries {
            let at = (before.0 + 1 + skip, before.1 + wait);
            put(&mut value, before, at, &spans(1), entry);
            before = at;
        }
        let head = Head { first, last: before.0, base_time: 1_000, last_time: before.1, count: entries.len() as u32 };
        finish(&mut value, stream, &head);
        value
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_damage_is_noticed(
            entries in prop::collection::vec((0..3_u64, 0..1_000_000_u64, prop::collection::vec(any::<u8>(), 1..300)), 1..20),
            first in 1..u64::MAX / 2,
            flip in any::<prop::sample::Index>(),
            bit in 0..8,
            cut in any::<prop::sample::Index>(),
        ) {
            let value = batch(7, first, &entries);
            let head = head(7, first, &value).expect("whole");
            let records: Vec<Record> = Records::new(&head, &value).map(|record| record.expect("whole")).collect();
            prop_assert_eq!(records.len(), entries.len());
            let mut before = (first - 1, 1_000);
            for (record, (skip, wait, entry)) in records.iter().zip(&entries) {
                before = (before.0 + 1 + skip, before.1 + wait);
                prop_assert_eq!((record.sequence, record.time), before);
                prop_assert_eq!(&value[record.entry()], &entry[..]);
            }

            let mut damaged = value.clone();
            damaged[flip.index(value.len())] ^= 1_u8 << bit;
            prop_assert_eq!(super::head(7, first, &damaged), Err(Damaged));
            prop_assert_eq!(super::head(7, first, &value[..cut.index(value.len())]), Err(Damaged));
            prop_assert_eq!(super::head(8, first, &value), Err(Damaged));
            prop_assert_eq!(super::head(7, first + 1, &value), Err(Damaged));
        }

        #[test]
        fn a_batch_without_some_of_its_records_covers_the_same(
            entries in prop::collection::vec((0..3_u64, 0..1_000_u64, prop::collection::vec(any::<u8>(), 1..30)), 1..20),
            gone in any::<u32>(),
        ) {
            let value = batch(7, 5, &entries);
            let whole = head(7, 5, &value).expect("whole");
            let kept = |record: &Record| gone & (1 << (record.sequence % 32)) == 0;
            let (less, out) = without(7, &whole, &value, kept).expect("whole");
            prop_assert_eq!(head(7, 5, &out), Ok(less));
            prop_assert_eq!((less.last, less.last_time), (whole.last, whole.last_time));
            let read = |head: &Head, value: &[u8]| {
                let records = Records::new(head, value).map(|record| record.expect("whole"));
                records.map(|r| (r.sequence, r.time, value[r.entry()].to_vec(), kept(&r))).collect::<Vec<_>>()
            };
            let mut expected = read(&whole, &value);
            expected.retain(|record| record.3);
            prop_assert_eq!(read(&less, &out), expected);
        }

        #[test]
        fn numbers_come_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut rest = &out[..];
            prop_assert_eq!(varint(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }
    }
}
