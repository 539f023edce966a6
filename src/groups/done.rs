//! Which sequences of a stream are done: all up to a floor, and ranges above it. Pure.
//!
//! Neighbours are merged at once, so there is never more than one range for each event that is not done. Every
//! operation costs the logarithm of the number of ranges, or of those it swallows.

use std::collections::BTreeMap;

/// Sequences are signed on the wire.
pub(super) const MAX_SEQUENCE: u64 = i64::MAX as u64 - 1;

/// A set of sequences. The floor is its lowest unbroken run, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    floor: u64,
    /// First to last of each range above the floor; none touches another or the floor.
    above: BTreeMap<u64, u64>,
}

impl Done {
    /// All up to `floor`, and nothing above.
    pub(super) fn up_to(floor: u64) -> Self {
        Self { floor, above: BTreeMap::new() }
    }

    /// Everything up to here is done.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The last one that is done.
    pub(super) fn last(&self) -> u64 {
        self.above.last_key_value().map_or(self.floor, |(_, last)| *last)
    }

    /// Whether this one is done.
    pub fn contains(&self, sequence: u64) -> bool {
        sequence <= self.floor || self.above.range(..=sequence).next_back().is_some_and(|(_, last)| sequence <= *last)
    }

    /// How many from `first` to `last`, both included, are not in it.
    pub(super) fn open_in(&self, first: u64, last: u64) -> u64 {
        let first = first.max(self.floor + 1);
        let from = self.above.range(..first).next_back().map_or(first, |(start, _)| *start);
        let done = self
            .above
            .range(from..=last.max(from))
            .map(|(start, end)| ((*end).min(last) + 1).saturating_sub((*start).max(first)));
        (last + 1).saturating_sub(first).saturating_sub(done.sum())
    }

    /// How many up to and with this one are not done.
    pub fn open_up_to(&self, through: u64) -> u64 {
        self.open_in(1, through.min(MAX_SEQUENCE))
    }

    /// Where the run ends that starts right after `sequence`; `sequence` itself when the next one is not done.
    pub fn run_after(&self, sequence: u64) -> u64 {
        let run = self.above.range(..=sequence + 1).next_back().map(|(_, last)| *last);
        sequence.max(self.floor).max(run.unwrap_or(0))
    }

    /// Adds `first` to `last`, both included.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first.max(self.floor + 1), last);
        if last < first {
            return;
        }
        if let Some((start, end)) = self.above.range(..=first).next_back()
            && *end + 1 >= first
        {
            (first, last) = (*start, last.max(*end));
        }
        while let Some((start, end)) = self.above.range(first..=last + 1).next() {
            let (start, end) = (*start, *end);
            last = last.max(end);
            self.above.remove(&start);
        }
        if first == self.floor + 1 {
            self.floor = last;
        } else {
            self.above.insert(first, last);
        }
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, sequence: u64) {
        if sequence <= self.floor {
            let last = std::mem::replace(&mut self.floor, sequence - 1);
            if sequence < last {
                self.above.insert(sequence + 1, last);
            }
        } else if let Some((first, last)) = self.above.range(..=sequence).next_back()
            && *last >= sequence
        {
            let (first, last) = (*first, *last);
            self.above.remove(&first);
            if first < sequence {
                self.above.insert(first, sequence - 1);
            }
            if sequence < last {
                self.above.insert(sequence + 1, last);
            }
        }
    }

    /// First and last of each range above the floor, ascending.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.above.iter().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_merge_and_the_floor_rises_over_them() {
        let mut done = Done::up_to(10);
        done.insert(13, 13);
        done.insert(15, 16);
        done.insert(14, 14);
        assert_eq!(done.ranges().collect::<Vec<_>>(), [(13, 16)]);
        assert_eq!((done.run_after(12), done.run_after(14), done.run_after(11), done.run_after(3)), (16, 16, 11, 10));
        done.insert(11, 12);
        assert_eq!((done.floor(), done.ranges().len()), (16, 0));
    }

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(changes in prop::collection::vec((1..80_u64, 0..8_u64, any::<bool>()), 0..60)) {
            let mut done = Done::up_to(5);
            let mut set: BTreeSet<u64> = (0..=5).collect();
            for (first, more, insert) in changes {
                if insert {
                    done.insert(first, first + more);
                    set.extend(first..=first + more);
                } else {
                    done.remove(first);
                    set.remove(&first);
                }
                for sequence in 0..100 {
                    prop_assert_eq!(done.contains(sequence), set.contains(&sequence), "{}", sequence);
                }
                let floor = (0..100).find(|sequence| !set.contains(&(sequence + 1))).expect("an end");
                prop_assert_eq!(done.floor(), floor);
                let open = (first..=first + more).filter(|sequence| !set.contains(sequence)).count() as u64;
                prop_assert_eq!(done.open_in(first, first + more), open);
                let ranges: Vec<_> = done.ranges().collect();
                let apart = ranges.windows(2).all(|two| two[0].1 + 1 < two[1].0);
                prop_assert!(apart && ranges.first().is_none_or(|(first, _)| floor + 1 < *first));
            }
        }
    }
}
