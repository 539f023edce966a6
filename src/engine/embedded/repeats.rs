//! What a stream knows repetitions by: the keys of the events of a window of time. Pure.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::event::Event;

/// What a key costs, in bytes: measured, see `what_keys_cost_is_what_is_counted`.
const KEY_BYTES: usize = 104;
/// Tables that could hold this many times what they do are made smaller,
const SPARSE: usize = 4;
/// if they could hold more than this.
const SMALL: usize = 1024;

/// Keys of events, and the sequences they got.
#[derive(Debug)]
pub(super) struct Repeats {
    /// How long a key is known, in microseconds; 0 is never.
    window: u64,
    /// The most keys; with more, the oldest are forgotten.
    limit: usize,
    sequences: HashMap<u128, u64>,
    order: VecDeque<(u64, u128)>,
    /// Keys from before the topic was part of them, with sequences and times.
    old: HashMap<u128, (u64, u64)>,
    /// How many were forgotten before their time.
    early: u64,
}

impl Repeats {
    pub(super) fn new(window: u64, limit: usize) -> Self {
        Self { window, limit, sequences: HashMap::new(), order: VecDeque::new(), old: HashMap::new(), early: 0 }
    }

    /// True when keys are of no use.
    pub(super) fn is_off(&self) -> bool {
        self.window == 0
    }

    /// True when an event appended at `time` is still known at `now`.
    pub(super) fn covers(&self, time: u64, now: u64) -> bool {
        self.window > 0 && time.saturating_add(self.window) > now
    }

    /// Changes how long keys are known.
    pub(super) fn set_window(&mut self, window: u64, now: u64) {
        self.window = window;
        self.expire(now);
    }

    /// Puts the keys in the order of their events, after they were added in any order.
    pub(super) fn put_in_order(&mut self) {
        let Self { order, sequences, .. } = self;
        order.make_contiguous().sort_unstable_by_key(|(time, key)| (*time, sequences.get(key).copied()));
    }

    /// Forgets the oldest keys while they are added in any order, once there are many more than may stay.
    pub(super) fn bound(&mut self) {
        if self.order.len() > self.limit.saturating_mul(2) {
            self.put_in_order();
            self.forget_oldest(self.order.len() - self.limit);
        }
    }

    /// Forgets what is older than the window.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((time, key)) = self.order.front() {
            let covers = self.covers(*time, now);
            if covers && self.order.len() <= self.limit {
                break;
            }
            self.early += u64::from(covers);
            self.sequences.remove(key);
            self.order.pop_front();
        }
        self.shrink();
    }

    /// Forgets the oldest keys before their time; tells how many those were.
    pub(super) fn forget_oldest(&mut self, most: usize) -> usize {
        let count = most.min(self.order.len());
        for (_, key) in self.order.drain(..count) {
            self.sequences.remove(&key);
        }
        self.early += count as u64;
        self.shrink();
        count
    }

    fn shrink(&mut self) {
        if self.order.capacity() > SMALL && self.order.len() * SPARSE < self.order.capacity() {
            self.order.shrink_to(2 * self.order.len());
            self.sequences.shrink_to(2 * self.order.len());
        }
    }

    /// The first sequence with a key that is known; none is below it.
    pub(super) fn first(&self) -> Option<u64> {
        self.order.front().and_then(|(_, key)| self.find(*key))
    }

    /// How many keys are known.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// How much memory they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        (self.order.len() + self.old.len()) * KEY_BYTES
    }

    /// How many keys were forgotten before their time since the last call, because there were too many.
    pub(super) fn take_early(&mut self) -> u64 {
        std::mem::take(&mut self.early)
    }

    /// The sequence of the first event with that key.
    pub(super) fn find(&self, key: u128) -> Option<u64> {
        self.sequences.get(&key).copied()
    }

    /// The sequence of the first event with that key, of those without a topic.
    pub(super) fn find_old(&self, key: impl FnOnce() -> Option<u128>, now: u64) -> Option<u64> {
        if self.old.is_empty() {
            return None;
        }
        let (sequence, time) = self.old.get(&key()?)?;
        self.covers(*time, now).then_some(*sequence)
    }

    /// The sequence of the event that this one, of that key, is a repetition of.
    pub(super) fn first_of(&self, event: &Event, key: u128, now: u64) -> Option<u64> {
        self.find(key).or_else(|| self.find_old(|| event.old_dedupe_key(), now))
    }

    /// True for a repetition of an event that is stored.
    pub(super) fn knows(&self, event: &Event, now: u64) -> bool {
        !self.is_off() && event.dedupe_key().is_some_and(|key| self.first_of(event, key, now).is_some())
    }

    /// A key of a deleted event, from before the topic was part of it. The newest come first.
    pub(super) fn add_old(&mut self, key: u128, sequence: u64, time: u64) {
        if self.old.len() < self.limit {
            self.old.entry(key).or_insert((sequence, time));
        }
    }

    /// Whether any key without a topic is known still; else all are forgotten.
    pub(super) fn keeps_old(&mut self, now: u64) -> bool {
        let kept = self.old.values().any(|(_, time)| self.covers(*time, now));
        if !kept {
            self.old = HashMap::new();
        }
        kept
    }

    /// A new event. Times never go back.
    pub(super) fn add(&mut self, key: u128, sequence: u64, time: u64) {
        if self.window > 0 && self.sequences.insert(key, sequence).is_none() {
            self.order.push_back((time, key));
        }
    }

    /// The last `count` events added were not stored after all.
    pub(super) fn take_back(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((_, key)) = self.order.pop_back() {
                self.sequences.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_for_the_window_and_no_longer() {
        let mut repeats = Repeats::new(10, 100);
        repeats.add(1, 1, 100);
        repeats.add(2, 2, 105);
        repeats.expire(109);
        assert_eq!((repeats.find(1), repeats.find(2)), (Some(1), Some(2)));
        repeats.expire(110);
        assert_eq!((repeats.find(1), repeats.find(2)), (None, Some(2)));
    }

    #[test]
    fn nothing_is_below_the_first_however_keys_of_one_time_were_added() {
        let mut repeats = Repeats::new(10, 1_000);
        for sequence in (1..=100).rev() {
            repeats.add(sequence.into(), sequence, 100);
        }
        repeats.put_in_order();
        assert_eq!(repeats.first(), Some(1));
    }

    #[test]
    fn with_too_many_keys_the_oldest_go_first() {
        let mut repeats = Repeats::new(10, 2);
        for key in 1..=3 {
            repeats.add(key, key as u64, 100);
        }
        repeats.expire(100);
        assert_eq!([1, 2, 3].map(|key| repeats.find(key)), [None, Some(2), Some(3)]);
        assert_eq!([repeats.take_early(), repeats.take_early()], [1, 0]);
        repeats.expire(110);
        assert_eq!((repeats.find(3), repeats.take_early()), (None, 0), "it was time for the others");
    }

    #[test]
    fn the_oldest_keys_are_forgotten_when_others_need_their_room() {
        let mut repeats = Repeats::new(10, 100);
        for key in 1..=3 {
            repeats.add(key, key as u64, 100);
        }
        assert_eq!((repeats.forget_oldest(2), repeats.len(), repeats.bytes()), (2, 1, KEY_BYTES));
        assert_eq!([1, 2, 3].map(|key| repeats.find(key)), [None, None, Some(3)]);
        assert_eq!((repeats.take_early(), repeats.forget_oldest(9)), (2, 1));
    }

    #[test]
    fn what_keys_cost_is_what_is_counted() {
        for count in [10_000_usize, 100_000, 200_000] {
            let mut repeats = Repeats::new(10, usize::MAX);
            let measured = allocation_counter::measure(|| {
                (0..count).for_each(|key| repeats.add(key as u128, key as u64, 100));
            });
            let (real, counted) = (measured.bytes_current as f64, repeats.bytes() as f64);
            println!("{count} keys: {real} bytes, counted as {counted}");
            assert!((0.6..1.4).contains(&(real / counted)), "{real} and {counted}");
            repeats.expire(110);
            assert_eq!((repeats.bytes(), repeats.order.capacity(), repeats.sequences.capacity()), (0, 0, 0));
        }
    }

    #[test]
    fn keys_without_a_topic_are_known_for_the_window_and_looked_for_only_while_there_are_any() {
        let mut repeats = Repeats::new(10, 2);
        for (key, time) in [(3, 109), (2, 105), (1, 100)] {
            repeats.add_old(key, key as u64, time);
        }
        let find = |repeats: &Repeats, key, now| repeats.find_old(|| Some(key), now);
        assert_eq!([1, 2, 3].map(|key| find(&repeats, key, 109)), [None, Some(2), Some(3)], "the newest two");
        assert_eq!((find(&repeats, 2, 115), find(&repeats, 3, 115)), (None, Some(3)));
        assert!(repeats.keeps_old(118) && repeats.bytes() > 0);
        assert!(!repeats.keeps_old(119) && repeats.bytes() == 0);
        assert_eq!(repeats.find_old(|| panic!("there are none"), 119), None);
    }

    #[test]
    fn what_was_not_stored_is_not_known() {
        let mut repeats = Repeats::new(10, 100);
        for key in 1..=3 {
            repeats.add(key, key as u64, 100);
        }
        repeats.take_back(2);
        assert_eq!([1, 2, 3].map(|key| repeats.find(key)), [Some(1), None, None]);
    }
}
