//! What a group has yet to do of its stream: what it reads, what it holds, and which of that may be handed out. Pure.
//!
//! Of the sequences up to where it has read, each is done, held, or put off. It knows with whom an event is, and
//! nothing of members: whoever takes an event out of their hands does so before it is finished or released here.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    done::MAX_SEQUENCE,
    failure::{DeadLetter, Failure, millis},
    feed::{Feed, LOOK_AHEAD, StaleRead},
    held::{HeldEvents, Phase},
    member::MemberId,
    outcome::{Answer, Outcome},
    progress::Progress,
    put_off::PutOff,
};
use crate::model::GroupSettings;

/// The most events that are held ready before they are wanted; fewer when `max_unacked` is less.
const READY_AHEAD: usize = 1024;
/// With a `max_unacked` below this, as many are held ready nevertheless: reading one by one is slow.
const READY_AHEAD_LEAST: usize = 64;
/// Nothing new is read while what is done has this many gaps: each is stored whenever the group is.
const MOST_GAPS: usize = 64 * 1024;

/// Memory is bounded by `max_unacked`, the look-ahead and the limit on gaps.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) settings: GroupSettings,
    /// The latest time it knows of.
    pub(super) clock: u64,
    pub(super) progress: Progress,
    pub(super) held: HeldEvents,
    pub(super) put_off: PutOff,
    /// How many events were given up without a dead-letter stream.
    pub(super) dropped: u64,
}

impl Backlog {
    pub(super) fn new(settings: GroupSettings, progress: Progress, now: u64) -> Self {
        let (held, put_off) = (HeldEvents::default(), PutOff::default());
        Self { settings, clock: now, progress, held, put_off, dropped: 0 }
    }

    /// How long a lease is.
    pub(super) fn ack_deadline(&self) -> u64 {
        millis(self.settings.ack_deadline)
    }

    /// See [`super::GroupState::encode`].
    pub(super) fn encode(&self, buried: &[u64]) -> Vec<u8> {
        let waits = |sequence: &&u64| {
            self.held.burying().contains(sequence) || self.progress.is_given_up_unread(**sequence, &self.settings)
        };
        let buried: BTreeSet<u64> = buried.iter().filter(waits).copied().collect();
        self.progress.encode(&buried)
    }

    /// Goes by other settings from now on: what has failed too often by these is given up, and what waits for a dead-letter
    /// stream that is no more is dropped. Costs as much as there are failures.
    pub(super) fn set_settings(&mut self, settings: GroupSettings) {
        self.settings = settings;
        for sequence in self.progress.failed() {
            if let Some(Phase::Again | Phase::Waiting { .. } | Phase::Burying) = self.held.phase(sequence) {
                self.held.lift(sequence);
                self.release(sequence);
            }
        }
    }

    /// Goes on after `floor`, whatever was done and has failed.
    pub(super) fn seek(&mut self, floor: u64) {
        self.progress.seek(floor);
        self.forget_read();
    }

    /// Reads again what is not done.
    pub(super) fn rewind(&mut self) {
        self.progress.rewind();
        self.forget_read();
    }

    fn forget_read(&mut self) {
        self.held = HeldEvents::default();
        self.put_off.forget();
    }

    /// What to read next of a stream that ends with `latest`; `None` while enough is held. It asks for few events only when it
    /// has nothing to hand out.
    pub(super) fn feed(&self, latest: u64) -> Option<Feed> {
        let (new, again) = (self.feed_new().filter(|feed| feed.after < latest), self.feed_again());
        self.put_off.choose(new, again)
    }

    fn feed_new(&self) -> Option<Feed> {
        let most_ready = (self.settings.max_unacked as usize).clamp(READY_AHEAD_LEAST, READY_AHEAD);
        let (fresh, ahead) = (self.held.fresh(), self.held.ahead());
        let room = most_ready.saturating_sub(fresh).min(self.put_off.look_ahead.saturating_sub(ahead));
        let wanted = fresh == 0 || room >= most_ready / 2;
        let (done, read_to) = (self.progress.done(), self.progress.read_to());
        // What lies before the last of what is done makes no more gaps.
        let gaps = done.ranges().len() < MOST_GAPS || done.last() > read_to;
        (room > 0 && wanted && gaps && read_to < MAX_SEQUENCE).then_some(Feed { after: read_to, room })
    }

    pub(super) fn feed_again(&self) -> Option<Feed> {
        self.put_off.feed(&self.held, self.progress.done().floor())
    }

    /// Whether an event was sent, has failed, or was given back, as far as is known; `None` when it is not held.
    pub(super) fn is_redelivery(&self, sequence: u64) -> Option<bool> {
        let was_sent = self.held.get(sequence)?.sent_since.is_some();
        Some(was_sent || self.progress.failure(sequence).is_some())
    }

    /// See [`super::GroupState::offer`].
    pub(super) fn offer(
        &mut self,
        after: u64,
        events: impl IntoIterator<Item = (u64, Option<u64>)>,
        through: u64,
    ) -> Result<(), StaleRead> {
        let read_to = self.progress.read_to();
        if after < read_to && self.put_off.len() > 0 {
            self.offer_again(after, events, through.min(read_to));
            return Ok(());
        }
        if after != read_to {
            return Err(StaleRead { after, wanted: read_to });
        }
        self.put_off.waits();
        let through = through.min(MAX_SEQUENCE);
        for (sequence, key) in events {
            if sequence <= self.progress.read_to() || sequence > through {
                continue;
            }
            self.pass_over(self.progress.read_to() + 1, sequence - 1);
            if self.held.ahead() >= self.put_off.look_ahead {
                return Ok(());
            }
            // After a restart some that come again are done.
            if sequence > self.progress.read_to() {
                self.progress.read(sequence);
                if !self.puts_off(sequence, key) {
                    self.hold(sequence, key);
                }
            }
        }
        self.pass_over(self.progress.read_to() + 1, through);
        Ok(())
    }

    /// One that failed, or was given back, is held whatever its key has: as failures are, those are few.
    fn puts_off(&mut self, sequence: u64, key: Option<u64>) -> bool {
        let key = key.filter(|_| self.progress.failure(sequence).is_none());
        key.is_some_and(|key| self.put_off.puts_off(sequence, key, &self.held))
    }

    /// Takes what a read found of what was offered before: of what was put off as much as there is room for. What was put
    /// off and is not there any more is done.
    fn offer_again(&mut self, after: u64, events: impl IntoIterator<Item = (u64, Option<u64>)>, through: u64) {
        let mut read = self.put_off.begin_again(after, self.progress.done().floor());
        let mut next = after + 1;
        for event in events {
            let (sequence, key) = event;
            if sequence < next || sequence > through {
                continue;
            }
            self.put_off.finish(next, sequence - 1, &self.held, &mut self.progress);
            next = sequence + 1;
            if self.put_off.takes_back(&mut read, event, &self.held, self.progress.done()) {
                self.hold(sequence, key);
            }
        }
        self.put_off.finish(next, through, &self.held, &mut self.progress);
        self.put_off.end_again(&read, through, self.progress.read_to());
    }

    /// Everything from `first`, which is next to be read, to `last` is nothing for the members of this group. Goes on over
    /// what was done before a restart.
    fn pass_over(&mut self, mut first: u64, last: u64) {
        for sequence in self.progress.given_back(first, last) {
            self.progress.skip(first, sequence - 1);
            first = sequence + 1;
            self.progress.read(sequence);
            self.held.hold(sequence, None);
            self.held.place(sequence, Phase::Aside);
        }
        self.progress.skip(first, last);
    }

    /// See [`super::GroupState::reopen`].
    pub(super) fn reopen(&mut self, sequence: u64, key: Option<u64>) -> bool {
        let read_to = self.progress.read_to();
        let (is_done, failure) = (self.progress.done().contains(sequence), self.progress.failure(sequence));
        if sequence == 0 {
            return true;
        }
        if let (false, Some(failure)) = (is_done, failure) {
            // Its letter was stored and its state was not, since another owner was lost in between. The next one needs an id of its
            // own.
            if !failure.is_final(&self.settings) {
                self.progress.begin_round(sequence);
                return true;
            }
            self.progress.reopen(sequence);
            if self.held.phase(sequence) == Some(Phase::Burying) {
                self.held.lift(sequence);
                self.release(sequence);
            }
            return true;
        }
        // Without a member nothing that is reopened is held.
        let most_failures = LOOK_AHEAD + self.settings.max_unacked as usize;
        if self.held.ahead() >= LOOK_AHEAD || self.progress.failure_count() >= most_failures {
            return false;
        }
        self.progress.reopen(sequence);
        if is_done && sequence <= read_to {
            self.hold(sequence, key);
        }
        true
    }

    /// Whatever is not held up to `through` is gone from the stream.
    pub(super) fn purge(&mut self, through: u64) {
        let read_to = self.progress.read_to();
        self.put_off.finish(1, through.min(read_to), &self.held, &mut self.progress);
        if through > read_to {
            self.progress.skip(read_to + 1, through);
        }
    }

    /// Holds an event that was offered: behind the one of its key, if there is one.
    fn hold(&mut self, sequence: u64, key: Option<u64>) {
        if self.held.hold(sequence, key) {
            self.release(sequence);
        }
    }

    /// An event that is in no set is done: the next one of its key is free, unless this was behind another itself.
    pub(super) fn finish(&mut self, sequence: u64) {
        if let Some(follower) = self.remove(sequence) {
            self.release(follower);
        }
    }

    /// Decides where an event goes that is with nobody, unless it is behind another of its key.
    pub(super) fn release(&mut self, sequence: u64) {
        let mut next = Some(sequence);
        // A dropped event frees the next one of its key, which may be one to drop too.
        while let Some(sequence) = next.take() {
            let Some(event) = self.held.get(sequence) else { return };
            // What another owner handed out is with its member, or came back from there, before it was its turn here.
            if event.phase != Phase::Behind || event.is_behind() {
                return;
            }
            let phase = match self.progress.failure(sequence) {
                Some(failure) if failure.is_final(&self.settings) => Phase::Burying,
                Some(failure) if failure.due > self.clock => Phase::Waiting { due: failure.due },
                Some(failure) if failure.was_tried() => Phase::Again,
                _ if event.sent_since.is_some() => Phase::Again,
                _ => Phase::New,
            };
            if phase == Phase::Burying && self.settings.dead_letter_stream.is_none() {
                self.dropped += 1;
                next = self.remove(sequence);
            } else {
                self.held.place(sequence, phase);
            }
        }
    }

    /// Makes an event done that is in no set, and tells which one of its key is free by that.
    fn remove(&mut self, sequence: u64) -> Option<u64> {
        let event = self.held.remove(sequence)?;
        self.progress.finish(sequence);
        event.frees()
    }

    /// An attempt at an event that is in no set has failed: it comes back after `delay`, or else after the backoff of its
    /// attempts, or is given up.
    pub(super) fn fail(&mut self, sequence: u64, reason: Cow<'static, str>, delay: Option<u64>) {
        let before = self.progress.failure(sequence);
        let failure = Failure::after(before, &self.settings, self.clock, reason, delay);
        self.come_back(sequence, failure);
    }

    /// An event that is in no set is lost with the member that had it, which may be back: it comes back after a wait, or then.
    pub(super) fn lose(&mut self, sequence: u64, is_back: bool) {
        let failure = Failure::lost(self.progress.failure(sequence), &self.settings, self.clock, is_back);
        self.come_back(sequence, failure);
    }

    /// An attempt at it has failed, and it is given up at once.
    pub(super) fn reject(&mut self, sequence: u64, reason: Cow<'static, str>) {
        let failure = Failure::rejected(self.progress.failure(sequence), self.clock, reason);
        self.come_back(sequence, failure);
    }

    fn come_back(&mut self, sequence: u64, failure: Failure) {
        self.progress.fail(sequence, failure);
        self.release(sequence);
    }

    /// The next to be handed out.
    pub(super) fn next(&self) -> Option<u64> {
        self.held.next(self.settings.max_unacked)
    }

    /// What a member is to be answered that says this about an event.
    pub(super) fn judge(&self, member: MemberId, sequence: u64, outcome: &Outcome) -> Answer {
        let Some(event) = self.held.get(sequence) else {
            let is_done = self.progress.done().contains(sequence);
            return if is_done { Answer::AlreadyDone } else { Answer::NotDelivered };
        };
        match (event.phase, outcome) {
            (Phase::Leased { member: lessee, .. }, _) if lessee == member => Answer::Applied,
            (Phase::Burying, Outcome::Reject { .. }) => Answer::AlreadyDone,
            _ if event.sent_since.is_some() || self.was_tried(sequence) => Answer::Expired,
            _ => Answer::NotDelivered,
        }
    }

    /// True when an attempt at an event has failed, or was lost.
    fn was_tried(&self, sequence: u64) -> bool {
        self.progress.failure(sequence).is_some_and(Failure::was_tried)
    }

    /// Those that are given up and not stored as such, ascending.
    pub(super) fn dead_letters(&self) -> impl Iterator<Item = DeadLetter> {
        let given_up = self.held.burying().iter();
        given_up.filter_map(|sequence| Some(self.progress.failure(*sequence)?.dead_letter(*sequence)))
    }
}
