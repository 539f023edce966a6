//! The latest events of a stream in memory, so that readers near the head never touch the store.
//!
//! Events come in pieces, as they were written; a piece is one allocation that all its events share. Events are made of it
//! by the first who reads them: most pieces go unread. How much there may be is counted for all streams together (see
//! [`Budget`]), and the oldest piece of any stream goes first.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    batch::{Damaged, Head, Records},
    clock::Warp,
};
use crate::event::Event;

/// What an event costs in memory besides its bytes.
const EVENT_OVERHEAD_BYTES: usize = 112;

/// Events that were written together.
#[derive(Debug)]
pub(super) struct Piece {
    /// The sequences it covers, all of which it has.
    pub(super) first: u64,
    pub(super) last: u64,
    /// The records, behind a head that need not be filled in.
    value: Bytes,
    /// What the first record counts from.
    base_time: u64,
    read: OnceLock<Read>,
}

/// What is in a piece.
#[derive(Debug)]
struct Read {
    events: Box<[Event]>,
    /// When each is past its ttl; empty when none has one.
    expires: Box<[u64]>,
}

impl Piece {
    /// Of the records behind the head in `value`, for each sequence from `first` to `last`.
    pub(super) fn new(first: u64, last: u64, base_time: u64, value: Bytes) -> Self {
        Self { first, last, value, base_time, read: OnceLock::new() }
    }

    /// Its events, and when each is past its ttl, unless none has one. `None` when it is not what was written, which
    /// cannot be: it never left this memory.
    pub(super) fn events(&self, warp: &Warp) -> Option<(&[Event], &[u64])> {
        let read = match self.read.get() {
            Some(read) => read,
            None => {
                let read = self.read(warp).ok()?;
                self.read.get_or_init(|| read)
            }
        };
        Some((&read.events, &read.expires))
    }

    fn read(&self, warp: &Warp) -> Result<Read, Damaged> {
        let count = self.count() as u32;
        let head =
            Head { first: self.first, last: self.last, base_time: self.base_time, last_time: self.base_time, count };
        let (mut places, mut expires) = (Vec::with_capacity(self.count()), Vec::new());
        for record in Records::new(&head, &self.value) {
            let record = record?;
            let at = record.ends(warp);
            if at != u64::MAX || !expires.is_empty() {
                // Those before it live for ever.
                expires.resize(places.len(), u64::MAX);
                expires.push(at);
            }
            places.push(record.place(&self.value)?);
        }
        Ok(Read { events: Event::together(self.value.clone(), places).collect(), expires: expires.into() })
    }

    fn count(&self) -> usize {
        // A batch has fewer bytes than that.
        (self.last + 1 - self.first) as usize
    }

    /// The size of the memory that the events share.
    pub(super) fn bytes(&self) -> usize {
        self.value.len()
    }
}

/// The pieces of one stream, oldest first and without gaps between them.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pieces: Mutex<VecDeque<Arc<Piece>>>,
}

impl Tail {
    /// Pieces from the one that has `sequence` on, until they have `bytes`; none when it is not here.
    pub(super) fn from(&self, sequence: u64, most_bytes: usize, most_pieces: usize) -> Vec<Arc<Piece>> {
        let pieces = self.pieces.lock();
        let at = pieces.partition_point(|piece| piece.last < sequence);
        let mut found = Vec::new();
        let mut bytes = 0;
        if pieces.get(at).is_none_or(|piece| piece.first > sequence) {
            return found;
        }
        for piece in pieces.range(at..).take(most_pieces) {
            found.push(Arc::clone(piece));
            bytes += piece.bytes();
            if bytes >= most_bytes {
                break;
            }
        }
        found
    }

    fn pop(&self) {
        self.pieces.lock().pop_front();
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.pieces.lock().clear();
    }
}

/// What the tails of all streams may hold together. Only the committer touches it.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    held: usize,
    /// The pieces of all streams in the order in which they came.
    order: VecDeque<(Weak<Tail>, usize)>,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: 0, order: VecDeque::new() }
    }

    /// True when nothing is to be kept.
    pub(super) fn is_off(&self) -> bool {
        self.limit == 0
    }

    /// Adds a piece, and drops the oldest of all for it.
    pub(super) fn push(&mut self, tail: &Arc<Tail>, piece: Piece) {
        let cost = piece.bytes() + piece.count() * EVENT_OVERHEAD_BYTES;
        tail.pieces.lock().push_back(Arc::new(piece));
        self.held += cost;
        self.order.push_back((Arc::downgrade(tail), cost));
        while self.held > self.limit {
            let Some((tail, cost)) = self.order.pop_front() else { break };
            self.held -= cost;
            // A tail that was cleared has fewer pieces than are counted: it only loses some early.
            if let Some(tail) = tail.upgrade() {
                tail.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(first: u64, last: u64) -> Piece {
        // However many events it has, it costs 1000 bytes.
        let bytes = 1000 - (last + 1 - first) as usize * EVENT_OVERHEAD_BYTES;
        Piece::new(first, last, 0, vec![0; bytes].into())
    }

    fn firsts(tail: &Tail, sequence: u64, bytes: usize) -> Vec<u64> {
        tail.from(sequence, bytes, 10).iter().map(|piece| piece.first).collect()
    }

    #[test]
    fn the_oldest_piece_of_any_stream_goes_first() {
        let mut budget = Budget::new(2500);
        let (one, two) = (Arc::new(Tail::default()), Arc::new(Tail::default()));
        budget.push(&one, piece(1, 3));
        budget.push(&two, piece(1, 2));
        assert_eq!((firsts(&one, 2, 1), firsts(&two, 1, 1)), (vec![1], vec![1]));
        budget.push(&one, piece(4, 9));
        assert_eq!((firsts(&one, 2, 1), firsts(&two, 1, 1)), (vec![], vec![1]));
        assert_eq!(firsts(&one, 4, 1), [4]);
        drop(two);
        budget.push(&one, piece(10, 10));
        assert_eq!(firsts(&one, 5, 1000), [4, 10]);
        assert_eq!(firsts(&one, 11, 1000), [0; 0]);
    }
}
