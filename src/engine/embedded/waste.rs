//! What is dead in the batches of a stream: newer events of their topics pushed it out, or it is past its ttl. Once that is
//! much of a batch it is written again. And when more of each batch will be dead by itself. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    batch::Record,
    clock::Warp,
    end::{BATCH_BYTES, OPEN_BATCH_BYTES},
};

/// What a batch costs in memory that has events with a ttl.
const DUE_BYTES: usize = 128;

/// How many records a batch has, and how many of them are dead.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) records: u32,
    pub(super) dead: u32,
    pub(super) dead_bytes: u32,
}

/// What is dead in the batches of a stream, which are known by their first sequences.
#[derive(Debug, Default)]
pub(super) struct Waste {
    /// In streams that limit the events of each topic every batch, in others those with events that have a ttl.
    loads: BTreeMap<u64, Load>,
    /// Batches of which so much is dead that they are written again.
    sweep: BTreeSet<u64>,
    dues: Dues,
}

/// When events of batches end by their ttl.
#[derive(Debug, Default)]
struct Dues {
    /// Of each batch when the first ends of those not counted as gone.
    of: BTreeMap<u64, u64>,
    order: BTreeSet<(u64, u64)>,
}

impl Dues {
    /// When the first event of a batch ends that is not gone: those that end before that are. `u64::MAX` when there is none.
    fn of(&self, first: u64) -> u64 {
        self.of.get(&first).copied().unwrap_or(u64::MAX)
    }

    fn set(&mut self, first: u64, due: u64) {
        let before = if due == u64::MAX { self.of.remove(&first) } else { self.of.insert(first, due) };
        if let Some(before) = before {
            self.order.remove(&(before, first));
        }
        if due != u64::MAX {
            self.order.insert((due, first));
        }
    }

    /// A batch with events that end by `now`.
    fn next(&self, now: u64) -> Option<u64> {
        self.order.first().filter(|(due, _)| *due <= now).map(|(_, first)| *first)
    }
}

impl Waste {
    /// How much memory is taken by what is known of times, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.dues.of.len() * DUE_BYTES
    }

    /// How much an append may add to that, which has events with a ttl, and in all so many bytes of events.
    pub(super) fn most_bytes(bytes: usize) -> usize {
        DUE_BYTES * (2 + bytes / OPEN_BATCH_BYTES)
    }

    /// When the first event of a batch ends by its ttl that is not counted as gone; `u64::MAX` when there is none.
    pub(super) fn due(&self, first: u64) -> u64 {
        self.dues.of(first)
    }

    /// A batch with events that ended by their ttl by `now`, and are still counted.
    pub(super) fn next_due(&self, now: u64) -> Option<u64> {
        self.dues.next(now)
    }

    /// Sets when the first event of a batch ends that is not counted as gone.
    pub(super) fn set_due(&mut self, first: u64, due: u64) {
        self.dues.set(first, due);
    }

    /// True for a record of a batch that is past its ttl and counted as gone.
    pub(super) fn is_over(&self, first: u64, record: &Record, warp: &Warp) -> bool {
        record.ends(warp) < self.dues.of(first)
    }

    /// A piece of a batch is new, which now has so many records, with events that end at `due` or later, or none that does. Where
    /// topics are limited every batch is known.
    pub(super) fn add(&mut self, first: u64, records: u32, due: u64, is_limited: bool) {
        let due = self.dues.of(first).min(due);
        self.dues.set(first, due);
        if is_limited || due != u64::MAX || self.loads.contains_key(&first) {
            self.loads.entry(first).or_default().records = records;
        }
    }

    /// A batch was counted from the store.
    pub(super) fn count(&mut self, first: u64, load: Load, due: u64, is_limited: bool) {
        self.dues.set(first, due);
        if is_limited || due != u64::MAX || load.dead > 0 {
            self.loads.insert(first, load);
            self.look_at(first);
        }
    }

    /// One more event is dead. Every batch is known that has one that can die so; one that is `open` is looked at when
    /// nothing is added to it any more.
    pub(super) fn die(&mut self, sequence: u64, bytes: u32, open: Option<u64>) {
        let Some((first, load)) = self.loads.range_mut(..=sequence).next_back() else { return };
        load.dead += 1;
        load.dead_bytes = load.dead_bytes.saturating_add(bytes);
        let first = *first;
        if open != Some(first) {
            self.look_at(first);
        }
    }

    /// Whether a batch is to be written again.
    pub(super) fn look_at(&mut self, first: u64) {
        let much = |load: &Load| load.dead * 2 >= load.records || load.dead_bytes as usize * 2 >= BATCH_BYTES;
        if self.loads.get(&first).is_some_and(|load| load.dead > 0 && much(load)) {
            self.sweep.insert(first);
        }
    }

    /// True when batches are to be written again.
    pub(super) fn is_much(&self) -> bool {
        !self.sweep.is_empty()
    }

    /// Some of them, in order.
    pub(super) fn to_sweep(&self, most: usize) -> Vec<u64> {
        self.sweep.iter().copied().take(most).collect()
    }

    /// A batch need not be written again.
    pub(super) fn spare(&mut self, first: u64) {
        self.sweep.remove(&first);
    }

    /// A batch was written again, and has this now. That need not be known any longer, unless more of it can die by itself.
    pub(super) fn swept(&mut self, first: u64, load: Load, is_limited: bool) {
        self.sweep.remove(&first);
        if is_limited || self.dues.of(first) != u64::MAX {
            self.loads.insert(first, load);
        } else {
            self.loads.remove(&first);
        }
    }

    /// A batch is no more.
    pub(super) fn remove(&mut self, first: u64) {
        self.loads.remove(&first);
        self.sweep.remove(&first);
        self.dues.set(first, u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_swept_once_half_of_it_is_dead_and_nothing_is_added_to_it() {
        let mut waste = Waste::default();
        waste.add(1, 3, u64::MAX, true);
        waste.add(4, 4, u64::MAX, true);
        waste.die(4, 10, Some(4));
        waste.die(5, 10, Some(4));
        assert!(!waste.is_much(), "more may be added to it");
        waste.look_at(4);
        waste.die(1, 10, None);
        assert_eq!(waste.to_sweep(9), [4], "one of three is little");
        waste.die(3, 10, None);
        assert_eq!((waste.to_sweep(1), waste.to_sweep(9)), (vec![1], vec![1, 4]));
        waste.swept(4, Load { records: 2, ..Load::default() }, true);
        waste.remove(1);
        assert!(!waste.is_much());
        waste.die(7, 10, None);
        assert_eq!(waste.to_sweep(9), [4], "what is left of it counts");
    }

    #[test]
    fn without_limits_only_batches_with_a_ttl_are_known() {
        let mut waste = Waste::default();
        waste.add(1, 1, u64::MAX, false);
        waste.die(1, 10, None);
        assert_eq!((waste.is_much(), waste.bytes()), (false, 0));
        waste.add(2, 1, 70, false);
        waste.add(2, 2, u64::MAX, false);
        waste.add(2, 3, 50, false);
        assert_eq!([49, 50].map(|now| waste.next_due(now)), [None, Some(2)]);
        waste.set_due(2, 70);
        assert_eq!((waste.due(2), waste.next_due(69), waste.bytes()), (70, None, DUE_BYTES));
        waste.die(3, 10, None);
        waste.die(4, 10, None);
        assert_eq!(waste.to_sweep(9), [2]);
        waste.set_due(2, u64::MAX);
        waste.swept(2, Load { records: 1, ..Load::default() }, false);
        waste.die(4, 10, None);
        assert_eq!((waste.is_much(), waste.bytes()), (false, 0), "nothing more of it can die by itself");
    }
}
