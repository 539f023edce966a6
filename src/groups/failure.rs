//! Attempts that fail: the wait before the next one, and giving up. Pure.

use std::borrow::Cow;

use super::{GroupState, held::Phase, millis};
use crate::model::{
    GroupSettings,
    limits::{MAX_FAILURE_BYTES, MAX_TIME_MS},
};

/// The failure of an event that was not acknowledged in time.
const EXPIRED: &str = "it was not acknowledged in time";

/// How an event has failed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// How many attempts failed; 0 for one that was given back and has not failed since.
    pub(super) attempts: u32,
    /// No attempt is made before.
    pub(super) due: u64,
    /// So long after the last one failed that is.
    pub(super) wait: u64,
    /// No attempt is made any more.
    pub(super) rejected: bool,
    /// Why the last attempt failed.
    pub(super) reason: Cow<'static, str>,
}

/// An event that is given up, to be stored in the dead-letter stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which event.
    pub sequence: u64,
    /// How many attempts failed.
    pub attempts: u32,
    /// Why the last one did.
    pub reason: Box<str>,
}

impl Failure {
    /// That of a dead letter which is given back.
    pub(super) fn given_back() -> Self {
        Self { attempts: 0, due: 0, wait: 0, rejected: false, reason: Cow::Borrowed("") }
    }

    /// True when no further attempt is made.
    pub(super) fn is_final(&self, settings: &GroupSettings) -> bool {
        self.rejected || (settings.max_attempts > 0 && self.attempts >= settings.max_attempts)
    }
}

impl GroupState {
    /// Events that are given up and not [`Self::buried`], ascending. They hold back their keys until they are.
    pub fn dead_letters(&self) -> impl Iterator<Item = DeadLetter> {
        self.burying.iter().filter_map(|sequence| {
            let failure = self.failures.get(sequence)?;
            let (attempts, reason) = (failure.attempts, failure.reason.as_ref().into());
            Some(DeadLetter { sequence: *sequence, attempts, reason })
        })
    }

    /// Up to `most` events that were given up before a restart and are not read again yet. They are buried like
    /// [`Self::dead_letters`]. Costs as much as there are failures.
    pub fn unread_dead_letters(&self, most: usize) -> Vec<DeadLetter> {
        let unread = self.failures.range(self.read_to + 1..).filter(|(_, failure)| failure.is_final(&self.settings));
        let told = unread.map(|(sequence, failure)| DeadLetter {
            sequence: *sequence,
            attempts: failure.attempts,
            reason: failure.reason.as_ref().into(),
        });
        told.take(most).collect()
    }

    /// A dead letter is stored, together with what [`Self::encode`] told when it was given its sequence: it is done, and
    /// its key goes on. False when it was not waiting for that.
    pub fn buried(&mut self, sequence: u64) -> bool {
        if self.burying.contains(&sequence) {
            self.finish(sequence);
        } else if self.is_given_up_unread(sequence) {
            self.settle_unread(sequence);
        } else {
            return false;
        }
        true
    }

    /// True for one of [`Self::unread_dead_letters`].
    pub(super) fn is_given_up_unread(&self, sequence: u64) -> bool {
        let failure = self.failures.get(&sequence).filter(|_| sequence > self.read_to);
        failure.is_some_and(|failure| failure.is_final(&self.settings))
    }

    /// An event is done that failed before a restart and was not read since.
    pub(super) fn settle_unread(&mut self, sequence: u64) {
        self.revision += 1;
        self.failures.remove(&sequence);
        self.done.insert(sequence, sequence);
        self.read_to = self.done.run_after(self.read_to);
    }

    /// True when an attempt at an event has failed.
    pub(super) fn has_failed(&self, sequence: u64) -> bool {
        self.failures.get(&sequence).is_some_and(|failure| failure.attempts > 0)
    }

    /// The lease of an event, or its wait, ends by time.
    pub(super) fn ring(&mut self, sequence: u64) {
        match self.phase(sequence) {
            Some(Phase::Waiting { .. }) => {
                self.lift(sequence);
                self.place(sequence, Phase::Again);
            }
            phase => {
                if let Some(Phase::Leased { member, sent: Some(sent) }) = phase {
                    self.owe(member, sent.turn, sequence);
                }
                self.expired += 1;
                self.fail(sequence, Cow::Borrowed(EXPIRED), None);
            }
        }
    }

    /// An attempt has failed: the event comes back after `delay`, or else after the backoff of its attempts, or is given
    /// up.
    pub(super) fn fail(&mut self, sequence: u64, reason: Cow<'static, str>, delay: Option<u64>) {
        let attempts = self.failures.get(&sequence).map_or(0, |failure| failure.attempts).saturating_add(1);
        let wait = delay.unwrap_or_else(|| self.backoff(attempts)).min(MAX_TIME_MS);
        let due = self.clock.saturating_add(wait);
        self.come_back(sequence, Failure { attempts, due, wait, rejected: false, reason });
    }

    /// An event is given up at once.
    pub(super) fn reject(&mut self, sequence: u64, reason: Cow<'static, str>) {
        let attempts = self.failures.get(&sequence).map_or(0, |failure| failure.attempts).saturating_add(1);
        self.come_back(sequence, Failure { attempts, due: self.clock, wait: 0, rejected: true, reason });
    }

    fn come_back(&mut self, sequence: u64, failure: Failure) {
        self.failures.insert(sequence, failure);
        self.revision += 1;
        self.lift(sequence);
        self.release(sequence);
    }

    fn backoff(&self, attempts: u32) -> u64 {
        let steps = &self.settings.backoff;
        let step = (attempts as usize).min(steps.len()).checked_sub(1);
        step.and_then(|step| steps.get(step)).map_or(0, |wait| millis(*wait))
    }
}

/// As much of what a member gave as reason as is kept.
pub(super) fn shortened(reason: &str) -> Cow<'static, str> {
    let mut end = reason.len().min(MAX_FAILURE_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(reason[..end].to_owned())
}
