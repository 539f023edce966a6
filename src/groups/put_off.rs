//! Events that are put off: their key has its share of what is held already, so that they would be in the way of other
//! keys. They are neither held nor done, and are read again once most of what is held of their key is done. Pure.
//!
//! Nothing is kept of a single one: for each key only from where on events are put off.

use std::collections::BTreeMap;

use super::{
    done::Done,
    feed::{Feed, LOOK_AHEAD},
    held::HeldEvents,
    progress::Progress,
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
    events: usize,
    /// The last read was for these.
    had_its_turn: bool,
    /// The look-ahead that keys share; less than [`LOOK_AHEAD`] only in tests.
    pub(super) look_ahead: usize,
}

/// What is known of a read of what was offered before, while its events are offered again.
#[derive(Debug)]
pub(super) struct ReadAgain {
    after: u64,
    floor: u64,
    /// Keys that have room for no more.
    full: Vec<u64>,
}

impl Default for PutOff {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), events: 0, had_its_turn: false, look_ahead: LOOK_AHEAD }
    }
}

impl PutOff {
    /// Nothing is put off any more.
    pub(super) fn forget(&mut self) {
        *self = Self { look_ahead: self.look_ahead, ..Self::default() };
    }

    /// How many events are put off.
    pub(super) fn len(&self) -> usize {
        self.events
    }

    /// Which of what may be read next is read: new events and those that were put off take turns.
    pub(super) fn choose(&self, new: Option<Feed>, again: Option<Feed>) -> Option<Feed> {
        if self.had_its_turn { new.or(again) } else { again.or(new) }
    }

    /// New events were read.
    pub(super) fn waits(&mut self) {
        self.had_its_turn = false;
    }

    /// Puts off an event that was just offered, if its key has its share or has events that are put off already.
    pub(super) fn puts_off(&mut self, sequence: u64, key: u64, held: &HeldEvents) -> bool {
        if !self.keys.contains_key(&key) {
            if self.has_room_for(key, held) || self.keys.len() >= MOST_KEYS {
                return false;
            }
            self.keys.insert(key, sequence);
        }
        self.events += 1;
        true
    }

    /// What to read again: for the key whose events are put off from the lowest sequence on, of those that have room for
    /// more than half of their share. Costs as much as there are keys.
    pub(super) fn feed(&self, held: &HeldEvents, floor: u64) -> Option<Feed> {
        let share = self.share_of_a_key(held);
        let hungry = self.keys.iter().filter(|(key, _)| 2 * held.of_key(**key) <= share);
        let (key, from) = hungry.min_by_key(|(_, from)| **from)?;
        let room = share.saturating_sub(held.of_key(*key)).clamp(READ_AGAIN.0, READ_AGAIN.1);
        Some(Feed { after: (from - 1).max(floor), room })
    }

    /// A read begins of what comes after `after` and was offered before.
    pub(super) fn begin_again(&mut self, after: u64, floor: u64) -> ReadAgain {
        self.had_its_turn = true;
        ReadAgain { after, floor, full: Vec::new() }
    }

    /// True for an event that is to be held now: one of a key of which events are put off from somewhere behind where the
    /// read began, while that has room for more.
    pub(super) fn takes_back(
        &mut self,
        read: &mut ReadAgain,
        (sequence, key): (u64, Option<u64>),
        held: &HeldEvents,
        done: &Done,
    ) -> bool {
        let Some((key, from)) = key.and_then(|key| Some((key, *self.keys.get(&key)?))) else { return false };
        let is_wanted = from.max(read.floor + 1) > read.after && sequence >= from && !read.full.contains(&key);
        if !is_wanted || held.contains(sequence) || done.contains(sequence) {
            return false;
        }
        let has_room = self.has_room_for(key, held);
        if has_room {
            self.events -= 1;
        } else {
            self.keys.insert(key, sequence);
            read.full.push(key);
        }
        has_room
    }

    /// A read of what was offered before is over, and went up to `through`.
    pub(super) fn end_again(&mut self, read: &ReadAgain, through: u64, read_to: u64) {
        let events = self.events;
        self.keys.retain(|key, from| {
            if (*from).max(read.floor + 1) > read.after && *from <= through && !read.full.contains(key) {
                *from = through + 1;
            }
            *from <= read_to && events > 0
        });
    }

    /// Whatever is put off from `first` to `last` is done. Costs as much as is held and there are gaps.
    pub(super) fn finish(&mut self, first: u64, last: u64, held: &HeldEvents, progress: &mut Progress) {
        if first > last || progress.done().open_in(first, last) == 0 {
            return;
        }
        let mut next = first;
        for held in held.between(first, last) {
            self.finish_unheld(next, held - 1, progress);
            next = held + 1;
        }
        self.finish_unheld(next, last, progress);
        if self.events == 0 {
            self.keys.clear();
        }
    }

    fn finish_unheld(&mut self, first: u64, last: u64, progress: &mut Progress) {
        if first <= last {
            self.events -= progress.finish_put_off(first, last) as usize;
        }
    }

    /// True while a key may hold one more: always one, so that it makes headway.
    fn has_room_for(&self, key: u64, held: &HeldEvents) -> bool {
        let events = held.of_key(key);
        events == 0 || events < self.share_of_a_key(held)
    }

    fn share_of_a_key(&self, held: &HeldEvents) -> usize {
        self.look_ahead.saturating_sub(held.ahead()) / SHARE_PART
    }
}
