//! Events that are about to be written to one stream, in the pieces that go into batches. A draft changes nothing: one that
//! was committed is applied, and any other is dropped.

use hashbrown::HashMap;

use super::batch::{HEAD_BYTES, Record, time_of};
use crate::{
    event::{Event, Spans, Stamp},
    memory::Held,
};

/// Writes events as a stream stores them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealer<'a> {
    /// The name of the stream.
    pub(super) stream: &'a str,
}

impl Sealer<'_> {
    /// Writes an event as it is stored at a sequence and time, in place of what is in `stored`.
    pub(super) fn stamp(&self, event: &Event, (sequence, time): (u64, u64), stored: &mut Vec<u8>) -> Spans {
        stored.clear();
        event.seal(&Stamp { stream: self.stream, sequence, time: time_of(time) }, stored)
    }

    /// How many bytes [`Self::stamp`] writes.
    pub(super) fn stamped_len(&self, event: &Event, (sequence, time): (u64, u64)) -> usize {
        event.sealed_len(&Stamp { stream: self.stream, sequence, time: time_of(time) })
    }
}

/// Events that are about to be written to one stream.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) pieces: Vec<DraftPiece>,
    next: u64,
    /// What its events are stamped with,
    time: u64,
    /// and when they are appended, as ages go.
    pub(super) now: u64,
    /// How many keys were added.
    pub(super) keys: usize,
    /// The last sequences of topics in this draft, once a precondition asked for them.
    topics: Option<HashMap<Box<[u8]>, u64>>,
    /// How many events it has.
    events: usize,
    /// What they are stored with, in bytes.
    stored: u64,
    /// Room for what they may add in memory.
    reserved: Vec<Held>,
}

/// Part of a draft that goes into one batch.
#[derive(Debug)]
pub(super) struct DraftPiece {
    /// It goes behind what the open batch has.
    pub(super) continues: bool,
    pub(super) first: u64,
    pub(super) base_time: u64,
    /// Sequence and time of what is in front of it.
    pub(super) before: (u64, u64),
    pub(super) last: (u64, u64),
    /// Room for a head, and the records: what is written, unless it continues.
    pub(super) buffer: Vec<u8>,
    pub(super) records: Vec<Record>,
}

impl DraftPiece {
    /// What goes into the batch behind its head, or behind what it has.
    pub(super) fn records(&self) -> &[u8] {
        &self.buffer[HEAD_BYTES..]
    }
}

impl Draft {
    /// Without events. The first gets sequence `next`; all are stamped with `time`, and appended `now`, as ages go.
    pub(super) fn new(next: u64, time: u64, now: u64) -> Self {
        Self { pieces: Vec::new(), next, time, now, keys: 0, topics: None, events: 0, stored: 0, reserved: Vec::new() }
    }

    /// True when there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The sequence of the next event, and what it is stamped with.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.next, self.time)
    }

    /// How many events it has.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// What its events are stored with, in bytes.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// How many batches it is written to.
    pub(super) fn batches(&self) -> usize {
        self.pieces.len()
    }

    /// How many bytes are to be written.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.records().len()).sum()
    }

    /// The topics of its events, each as often as it comes.
    pub(super) fn topics(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().flat_map(|piece| piece.records.iter().map(|record| record.topic(&piece.buffer)))
    }

    /// The last sequence of a topic in this draft.
    pub(super) fn last_of(&mut self, topic: &[u8]) -> Option<u64> {
        let pieces = &self.pieces;
        let topics = self.topics.get_or_insert_with(|| {
            let all =
                pieces.iter().flat_map(|piece| piece.records.iter().map(|r| (r.topic(&piece.buffer), r.sequence)));
            all.map(|(topic, sequence)| (topic.into(), sequence)).collect()
        });
        topics.get(topic).copied()
    }

    /// Holds room for what its events may add in memory until it is applied.
    pub(super) fn hold(&mut self, room: Held) {
        self.reserved.push(room);
    }

    /// An event more is in its pieces, of so many bytes.
    pub(super) fn added(&mut self, event: &Event, bytes: usize) {
        if let Some(topics) = &mut self.topics {
            topics.insert(event.topic().as_bytes().into(), self.next);
        }
        self.next += 1;
        self.events += 1;
        self.stored += bytes as u64;
    }
}
