//! How far a group has come: what it has read, what is done, and what has failed. Pure.
//!
//! All of it but where the group has read to must survive a restart, and no change of that goes without another revision.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    done::{Done, MAX_SEQUENCE},
    failure::{DeadLetter, Failure},
    rounds::Rounds,
    snapshot::{self, Saved},
};
use crate::model::GroupSettings;

#[derive(Debug)]
pub(super) struct Progress {
    /// The last sequence that was offered or passed over.
    read_to: u64,
    done: Done,
    /// What failed or was lost at least once and is not done. After a restart also what was not offered again yet.
    failures: BTreeMap<u64, Failure>,
    /// Events appended before that are nothing for the group, in microseconds since 1970.
    begins: u64,
    rounds: Rounds,
    revision: u64,
}

impl Progress {
    /// That of a group that starts after `floor`.
    pub(super) fn from(floor: u64) -> Self {
        let floor = floor.min(MAX_SEQUENCE);
        let (done, failures, rounds) = (Done::up_to(floor), BTreeMap::new(), Rounds::default());
        Self { read_to: floor, done, failures, begins: 0, rounds, revision: 0 }
    }

    /// That of a group after a restart.
    pub(super) fn restored(saved: Saved, now: u64) -> Self {
        let Saved { done, mut failures, begins, rounds } = saved;
        for failure in failures.values_mut() {
            // The clock may have been set back since: nothing waits longer than it had to when it failed.
            failure.due = failure.due.min(now.saturating_add(failure.wait));
        }
        Self { read_to: done.floor(), done, failures, begins, rounds, revision: 0 }
    }

    /// As bytes, with `buried` done.
    pub(super) fn encode(&self, buried: &BTreeSet<u64>) -> Vec<u8> {
        snapshot::encode(&self.done, &self.failures, (self.begins, self.rounds), buried)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn done(&self) -> &Done {
        &self.done
    }

    pub(super) fn read_to(&self) -> u64 {
        self.read_to
    }

    pub(super) fn begins(&self) -> u64 {
        self.begins
    }

    pub(super) fn begin_at(&mut self, time: u64) {
        self.begins = time;
        self.revision += 1;
    }

    /// Goes on after `floor`, whatever was done and has failed.
    pub(super) fn seek(&mut self, floor: u64) {
        let counted = self.rounds.counted.saturating_add(1);
        let rounds = Rounds { counted, moved: counted };
        *self = Self { revision: self.revision + 1, rounds, ..Self::from(floor) };
    }

    /// Reads again what is not done.
    pub(super) fn rewind(&mut self) {
        self.read_to = self.done.floor();
    }

    /// How an event has failed so far.
    pub(super) fn failure(&self, sequence: u64) -> Option<&Failure> {
        self.failures.get(&sequence)
    }

    /// How many events have failed, were lost or were given back, and are not done.
    pub(super) fn failure_count(&self) -> usize {
        self.failures.len()
    }

    /// Which events these are, ascending.
    pub(super) fn failed(&self) -> Vec<u64> {
        self.failures.keys().copied().collect()
    }

    /// Those from `first` to `last` that were given back and that nothing has come of since.
    pub(super) fn given_back(&self, first: u64, last: u64) -> Vec<u64> {
        if first > last {
            return Vec::new();
        }
        let known = self.failures.range(first..=last).filter(|(_, failure)| !failure.was_tried());
        known.map(|(sequence, _)| *sequence).collect()
    }

    pub(super) fn fail(&mut self, sequence: u64, failure: Failure) {
        let round = self.failures.get(&sequence).map_or(self.rounds.moved, |before| before.round);
        self.failures.insert(sequence, Failure { round, ..failure });
        self.revision += 1;
    }

    /// An event is to be delivered as if it never had been.
    pub(super) fn reopen(&mut self, sequence: u64) {
        self.rounds.counted = self.rounds.counted.saturating_add(1);
        self.failures.insert(sequence, Failure { round: self.rounds.counted, ..Failure::given_back() });
        self.revision += 1;
        self.done.remove(sequence);
    }

    /// An event that failed before is where it was, and the next letter of it is another than all before.
    pub(super) fn begin_round(&mut self, sequence: u64) {
        if let Some(failure) = self.failures.get_mut(&sequence) {
            self.rounds.counted = self.rounds.counted.saturating_add(1);
            failure.round = self.rounds.counted;
            self.revision += 1;
        }
    }

    /// An event that is next to be read was.
    pub(super) fn read(&mut self, sequence: u64) {
        self.read_to = sequence;
    }

    /// Everything from `first`, which is next to be read, to `last` is nothing for the group. Goes on over what was done
    /// before a restart.
    pub(super) fn skip(&mut self, first: u64, last: u64) {
        if first <= last {
            self.revision += 1;
            self.insert(first, last);
            self.read_to = last;
        }
        self.read_to = self.done.run_after(self.read_to);
    }

    /// Whatever is open from `first` to `last` was put off, and is done now. Tells how many sequences that are.
    pub(super) fn finish_put_off(&mut self, first: u64, last: u64) -> u64 {
        let open = self.done.open_in(first, last);
        self.revision += u64::from(open > 0);
        self.insert(first, last);
        open
    }

    /// All of these are done, whatever failed.
    fn insert(&mut self, first: u64, last: u64) {
        self.done.insert(first, last);
        let failed: Vec<u64> = self.failures.range(first..=last).map(|(sequence, _)| *sequence).collect();
        for sequence in failed {
            self.failures.remove(&sequence);
        }
    }

    /// An event is done.
    pub(super) fn finish(&mut self, sequence: u64) {
        self.revision += 1;
        self.done.insert(sequence, sequence);
        self.failures.remove(&sequence);
    }

    /// An event that failed before a restart, or was given back, and was not read since, is not in the stream any more.
    /// False when it is none of these.
    pub(super) fn gone_unread(&mut self, sequence: u64) -> bool {
        let found = sequence > self.read_to && self.failures.contains_key(&sequence);
        if found {
            self.finish_unread(sequence);
        }
        found
    }

    /// The dead letters of events that were given up before a restart and are not read again yet. Costs as much as there
    /// are failures.
    pub(super) fn unread_dead_letters(&self, settings: &GroupSettings) -> impl Iterator<Item = DeadLetter> {
        let unread = self.failures.range(self.read_to + 1..).filter(|(_, failure)| failure.is_final(settings));
        unread.map(|(sequence, failure)| failure.dead_letter(*sequence))
    }

    /// True for one of [`Self::unread_dead_letters`].
    pub(super) fn is_given_up_unread(&self, sequence: u64, settings: &GroupSettings) -> bool {
        let failure = self.failures.get(&sequence).filter(|_| sequence > self.read_to);
        failure.is_some_and(|failure| failure.is_final(settings))
    }

    /// One of [`Self::unread_dead_letters`] is stored. False when it is none of them.
    pub(super) fn buried_unread(&mut self, sequence: u64, settings: &GroupSettings) -> bool {
        let found = self.is_given_up_unread(sequence, settings);
        if found {
            self.finish_unread(sequence);
        }
        found
    }

    fn finish_unread(&mut self, sequence: u64) {
        self.finish(sequence);
        self.read_to = self.done.run_after(self.read_to);
    }
}
