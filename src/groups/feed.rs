//! The feed: where to read the stream next, and what was found there. What is read a second time, `put_off` says. Pure.

use super::{GroupState, MAX_SEQUENCE, failure::Failure};

/// The most events that are held ready before they are wanted; fewer when `max_unacked` is less.
const READY_AHEAD: usize = 1024;
/// With a `max_unacked` below this, as many are held ready nevertheless: reading one by one is slow.
const READY_AHEAD_LEAST: usize = 64;
/// The most events that are held and were not handed out, ready or behind others of their key. A key that makes no headway
/// uses up no more than its share of them.
pub(super) const LOOK_AHEAD: usize = 16 * 1024;
/// Nothing new is read while what is done has this many gaps: each is stored whenever the group is.
const MOST_GAPS: usize = 64 * 1024;

/// What to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// Read what comes after this sequence.
    pub after: u64,
    /// At most this many events; at least 1.
    pub room: usize,
}

/// What was read is not what is wanted next: the group was moved meanwhile. The read is to be thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events after {after} were offered, those after {wanted} are wanted")]
pub struct StaleRead {
    /// Where the read began.
    pub after: u64,
    /// Where the next read has to begin.
    pub wanted: u64,
}

impl GroupState {
    /// The last sequence that was offered or passed over: the next read starts after it.
    pub fn read_to(&self) -> u64 {
        self.read_to
    }

    /// What to read next of a stream that ends with `latest`; `None` while enough is held. It asks for few events only when it
    /// has nothing to hand out. New events and those that were put off take turns.
    pub fn feed(&self, latest: u64) -> Option<Feed> {
        let (new, again) = (self.feed_new().filter(|feed| feed.after < latest), self.feed_again());
        if self.put_off.had_its_turn { new.or(again) } else { again.or(new) }
    }

    fn feed_new(&self) -> Option<Feed> {
        let most_ready = (self.settings.max_unacked as usize).clamp(READY_AHEAD_LEAST, READY_AHEAD);
        let room = most_ready.saturating_sub(self.new.len()).min(self.put_off.look_ahead.saturating_sub(self.ahead()));
        let wanted = self.new.is_empty() || room >= most_ready / 2;
        // What lies before the last of what is done makes no more gaps.
        let gaps = self.done.ranges().len() < MOST_GAPS || self.done.last() > self.read_to;
        (room > 0 && wanted && gaps && self.read_to < MAX_SEQUENCE).then_some(Feed { after: self.read_to, room })
    }

    /// Takes what a read of the stream found after `after` up to `through`: the events for this group, ascending, each
    /// with the hash of its ordering key if it has one. All others up to `through` are done: filtered out, expired or
    /// gone. Events beyond the look-ahead are not taken and come with a later read; those of a key that has its share of it
    /// are put off.
    pub fn offer(
        &mut self,
        after: u64,
        events: impl IntoIterator<Item = (u64, Option<u64>)>,
        through: u64,
        now: u64,
    ) -> Result<(), StaleRead> {
        self.tick(now);
        if after < self.read_to && self.put_off.events > 0 {
            self.offer_again(after, events, through.min(self.read_to));
            return Ok(());
        }
        if after != self.read_to {
            return Err(StaleRead { after, wanted: self.read_to });
        }
        self.put_off.had_its_turn = false;
        let through = through.min(MAX_SEQUENCE);
        for (sequence, key) in events {
            if sequence <= self.read_to || sequence > through {
                continue;
            }
            self.pass_over(self.read_to + 1, sequence - 1);
            if self.ahead() >= self.put_off.look_ahead {
                return Ok(());
            }
            // After a restart some that come again are done.
            if sequence > self.read_to {
                self.read_to = sequence;
                if !self.puts_off(sequence, key) {
                    self.hold(sequence, key);
                }
            }
        }
        self.pass_over(self.read_to + 1, through);
        Ok(())
    }

    /// Makes an event that is done one to be delivered again, beginning with attempt 1. False when too many wait to be
    /// delivered. One that is not done already is left where it is. It is kept until members come who want it, whatever
    /// those want that are there.
    pub fn reopen(&mut self, sequence: u64, key: Option<u64>) -> bool {
        let done = self.done.contains(sequence);
        if sequence == 0 || (!done && (sequence <= self.read_to || self.failures.contains_key(&sequence))) {
            return true;
        }
        // Without a member nothing that is reopened is held.
        let most_failures = LOOK_AHEAD + self.settings.max_unacked as usize;
        if self.ahead() >= LOOK_AHEAD || self.failures.len() >= most_failures {
            return false;
        }
        self.revision += 1;
        self.failures.insert(sequence, Failure::given_back());
        if done {
            self.done.remove(sequence);
        }
        if sequence <= self.read_to {
            self.hold(sequence, key);
        }
        true
    }

    /// True while an event is neither done nor still to be read.
    pub fn holds(&self, sequence: u64) -> bool {
        self.held.contains_key(&sequence)
    }

    /// Events that are held, ascending. Costs as much as there are.
    pub fn held_sequences(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.held.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// An event is not in the stream any more: it is done, whoever has it. Tells whether it had been tried, or was given
    /// back; `None` when it is not held.
    pub fn gone(&mut self, sequence: u64) -> Option<bool> {
        let tried = self.held.get(&sequence)?.sent_since.is_some() || self.failures.contains_key(&sequence);
        self.finish(sequence);
        Some(tried)
    }

    /// An event that failed before a restart, or was given back, and was not read since, is not in the stream any more.
    /// False when it is none of these.
    pub fn gone_unread(&mut self, sequence: u64) -> bool {
        let found = sequence > self.read_to && self.failures.contains_key(&sequence);
        if found {
            self.settle_unread(sequence);
        }
        found
    }

    /// How many are held that hold up the feed once they are too many.
    pub(super) fn ahead(&self) -> usize {
        self.held.len() - self.unacked() - self.aside
    }

    /// Everything from `first`, which is next to be read, to `last` is nothing for the members of this group. Goes on over
    /// what was done before a restart.
    pub(super) fn pass_over(&mut self, mut first: u64, last: u64) {
        let failed: Vec<_> =
            self.failures.range(first..=last.max(first)).map(|(at, known)| (*at, known.attempts)).collect();
        for (sequence, attempts) in failed {
            if sequence <= last && attempts == 0 {
                self.skip(first, sequence - 1);
                (first, self.read_to) = (sequence + 1, sequence);
                self.hold_aside(sequence);
            }
        }
        self.skip(first, last);
    }

    /// The same, without what was given back.
    pub(super) fn skip(&mut self, first: u64, last: u64) {
        if first <= last {
            self.revision += 1;
            self.done.insert(first, last);
            let passed: Vec<u64> = self.failures.range(first..=last).map(|(sequence, _)| *sequence).collect();
            for sequence in passed {
                self.failures.remove(&sequence);
            }
            self.read_to = last;
        }
        self.read_to = self.done.run_after(self.read_to);
    }
}
