//! Events that are put off: their key has its share of what is held already, so that they would be in the way of other
//! keys. They are neither held nor done, and are read again once most of what is held of their key is done.
//!
//! Nothing is kept of a single one: for each key only from where on events are put off.

use std::collections::BTreeMap;

use super::{
    GroupState,
    feed::{Feed, LOOK_AHEAD},
};

/// A key may hold one part in this many of the look-ahead that is free: many keys without headway get less each, and there
/// is always some left.
const SHARE_PART: usize = 8;
/// The most keys of which events are put off; those of one more are held, as long as there is look-ahead.
const MOST_KEYS: usize = 4096;
/// The least and the most events that are asked for at once.
const READ_AGAIN: (usize, usize) = (64, 1024);

/// What is put off.
#[derive(Debug)]
pub(super) struct PutOff {
    /// By key: from where on. Its events before that are held or done.
    keys: BTreeMap<u64, u64>,
    /// How many events.
    pub(super) events: usize,
    /// The last read was for these.
    pub(super) had_its_turn: bool,
    /// The look-ahead that keys share; less than [`LOOK_AHEAD`] only in tests.
    pub(super) look_ahead: usize,
}

impl Default for PutOff {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), events: 0, had_its_turn: false, look_ahead: LOOK_AHEAD }
    }
}

impl PutOff {
    /// A group that begins anew keeps its limit.
    pub(super) fn inherit(&mut self, old: &Self) {
        self.look_ahead = old.look_ahead;
    }
}

impl GroupState {
    /// Puts off an event that was just offered, if its key has its share or has events that are put off already. One that
    /// failed, or was given back, is held whatever its key has: as failures are, those are few.
    pub(super) fn puts_off(&mut self, sequence: u64, key: Option<u64>) -> bool {
        let Some(key) = key.filter(|_| !self.failures.contains_key(&sequence)) else { return false };
        if !self.put_off.keys.contains_key(&key) {
            if self.has_room_for(key) || self.put_off.keys.len() >= MOST_KEYS {
                return false;
            }
            self.put_off.keys.insert(key, sequence);
        }
        self.put_off.events += 1;
        true
    }

    /// What to read again: for the key whose events are put off from the lowest sequence on, of those that have room for
    /// more than half of their share. Costs as much as there are keys.
    pub(super) fn feed_again(&self) -> Option<Feed> {
        let share = self.share_of_a_key();
        let hungry = self.put_off.keys.iter().filter(|(key, _)| 2 * self.held_of(**key) <= share);
        let (key, from) = hungry.min_by_key(|(_, from)| **from)?;
        let room = share.saturating_sub(self.held_of(*key)).clamp(READ_AGAIN.0, READ_AGAIN.1);
        Some(Feed { after: (from - 1).max(self.done.floor()), room })
    }

    /// Takes what a read found of what was offered before: of keys whose events are put off from somewhere behind `after`,
    /// as many as they have room for. What was put off and is not there any more is done.
    pub(super) fn offer_again(
        &mut self,
        after: u64,
        events: impl IntoIterator<Item = (u64, Option<u64>)>,
        through: u64,
    ) {
        self.put_off.had_its_turn = true;
        let floor = self.done.floor();
        // Keys that have room for no more.
        let mut full: Vec<u64> = Vec::new();
        let mut next = after + 1;
        for (sequence, key) in events {
            if sequence < next || sequence > through {
                continue;
            }
            self.skip_put_off(next, sequence - 1);
            next = sequence + 1;
            let Some((key, from)) = key.and_then(|key| Some((key, *self.put_off.keys.get(&key)?))) else { continue };
            let is_wanted = from.max(floor + 1) > after && sequence >= from && !full.contains(&key);
            if !is_wanted || self.held.contains_key(&sequence) || self.done.contains(sequence) {
                continue;
            }
            if self.has_room_for(key) {
                self.put_off.events -= 1;
                self.hold(sequence, Some(key));
            } else {
                self.put_off.keys.insert(key, sequence);
                full.push(key);
            }
        }
        self.skip_put_off(next, through);
        let (read_to, events) = (self.read_to, self.put_off.events);
        self.put_off.keys.retain(|key, from| {
            if (*from).max(floor + 1) > after && *from <= through && !full.contains(key) {
                *from = through + 1;
            }
            *from <= read_to && events > 0
        });
    }

    /// Whatever is put off from `first` to `last` is done. Costs as much as is held and there are gaps.
    pub(super) fn skip_put_off(&mut self, first: u64, last: u64) {
        if first > last || self.done.open_in(first, last) == 0 {
            return;
        }
        let mut next = first;
        for held in self.held_between(first, last) {
            self.skip_unheld(next, held - 1);
            next = held + 1;
        }
        self.skip_unheld(next, last);
        if self.put_off.events == 0 {
            self.put_off.keys.clear();
        }
    }

    /// Whatever is from `first` to `last` is put off, and done now.
    fn skip_unheld(&mut self, first: u64, last: u64) {
        if first <= last {
            let open = self.done.open_in(first, last);
            self.put_off.events -= open as usize;
            self.revision += u64::from(open > 0);
            self.done.insert(first, last);
        }
    }

    /// Held events from `first` to `last`, ascending. Costs as much as is held.
    pub(super) fn held_between(&self, first: u64, last: u64) -> Vec<u64> {
        let mut held: Vec<u64> = self.held.keys().copied().filter(|held| (first..=last).contains(held)).collect();
        held.sort_unstable();
        held
    }

    /// True while a key may hold one more: always one, so that it makes headway.
    fn has_room_for(&self, key: u64) -> bool {
        let held = self.held_of(key);
        held == 0 || held < self.share_of_a_key()
    }

    fn share_of_a_key(&self) -> usize {
        self.put_off.look_ahead.saturating_sub(self.ahead()) / SHARE_PART
    }

    fn held_of(&self, key: u64) -> usize {
        self.keys.get(&key).map_or(0, |chain| chain.events)
    }
}
