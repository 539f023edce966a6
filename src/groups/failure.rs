//! How an event has failed so far: the wait before its next attempt, and when there is none any more. Pure.
//!
//! A member that is lost with an event is no failure of the event: its connection broke, or its machine did. Only an event
//! that is lost again and again, with nobody who says anything of it in between, may be what ends its members or their
//! connections; from then on each loss counts. Why: docs/adr/0029-what-counts-as-an-attempt.md.

use std::{borrow::Cow, time::Duration};

use crate::model::{
    GroupSettings,
    limits::{MAX_FAILURE_BYTES, MAX_TIME_MS},
};

/// An event may be lost this often in a row before that counts as a failed attempt.
const LOSSES_FORGIVEN: u32 = 3;
/// The failure of an event that is lost more often than that.
const LOST: &str = "the member it was delivered to was lost";

/// How an event has failed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// How many attempts failed.
    pub(super) attempts: u32,
    /// How often it was lost since an attempt last failed by what a member said, or did not say in time. With neither attempts
    /// nor losses it is one that was given back, and nothing has come of it since.
    pub(super) losses: u32,
    /// No attempt is made before.
    pub(super) due: u64,
    /// That is this long after the last one failed.
    pub(super) wait: u64,
    /// No attempt is made any more.
    pub(super) rejected: bool,
    /// Why the last attempt failed.
    pub(super) reason: Cow<'static, str>,
    /// The round of its letter; see [`DeadLetter::round`]. [`super::progress::Progress`] gives it.
    pub(super) round: u64,
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
    /// Which of the letters of this event it is: the same however often it is tried to store it, and another once the event was
    /// given back or the group was moved.
    pub round: u64,
}

impl Failure {
    /// That of a dead letter which is given back.
    pub(super) fn given_back() -> Self {
        Self { attempts: 0, losses: 0, due: 0, wait: 0, rejected: false, reason: Cow::Borrowed(""), round: 0 }
    }

    /// One more attempt has failed: the next is made after `delay`, or else after the backoff of its attempts.
    pub(super) fn after(
        before: Option<&Self>,
        settings: &GroupSettings,
        now: u64,
        reason: Cow<'static, str>,
        delay: Option<u64>,
    ) -> Self {
        let attempts = Self::attempts_after(before);
        let wait = delay.unwrap_or_else(|| backoff(settings, attempts)).min(MAX_TIME_MS);
        Self { attempts, losses: 0, due: now.saturating_add(wait), wait, rejected: false, reason, round: 0 }
    }

    /// So many attempts failed in all, some of them at another owner of the group, which did not say how.
    pub(super) fn elsewhere(before: Option<&Self>, attempts: u32, now: u64) -> Self {
        let (losses, reason) =
            before.map_or((0, Cow::Borrowed("")), |failure| (failure.losses, failure.reason.clone()));
        Self { attempts, losses, due: now, wait: 0, rejected: false, reason, round: 0 }
    }

    /// It is lost with the member that had it, and waits as after a failure, so that one which ends its members does not end all
    /// of them at once. It does not wait if the member is back already.
    pub(super) fn lost(before: Option<&Self>, settings: &GroupSettings, now: u64, is_back: bool) -> Self {
        let losses = before.map_or(0, |failure| failure.losses).saturating_add(1);
        if losses > LOSSES_FORGIVEN {
            return Self { losses, ..Self::after(before, settings, now, Cow::Borrowed(LOST), None) };
        }
        let (attempts, reason) =
            before.map_or((0, Cow::Borrowed("")), |failure| (failure.attempts, failure.reason.clone()));
        let wait = if is_back { 0 } else { backoff(settings, losses) };
        Self { attempts, losses, due: now.saturating_add(wait), wait, rejected: false, reason, round: 0 }
    }

    /// One more attempt has failed, and no other is to be made.
    pub(super) fn rejected(before: Option<&Self>, now: u64, reason: Cow<'static, str>) -> Self {
        Self { attempts: Self::attempts_after(before), losses: 0, due: now, wait: 0, rejected: true, reason, round: 0 }
    }

    fn attempts_after(before: Option<&Self>) -> u32 {
        before.map_or(0, |failure| failure.attempts).saturating_add(1)
    }

    /// False for one that was given back and that nothing has come of since.
    pub(super) fn was_tried(&self) -> bool {
        self.attempts > 0 || self.losses > 0
    }

    /// True when no further attempt is made.
    pub(super) fn is_final(&self, settings: &GroupSettings) -> bool {
        self.rejected || (settings.max_attempts > 0 && self.attempts >= settings.max_attempts)
    }

    /// The dead letter of an event that failed like this.
    pub(super) fn dead_letter(&self, sequence: u64) -> DeadLetter {
        DeadLetter { sequence, attempts: self.attempts, reason: self.reason.as_ref().into(), round: self.round }
    }
}

fn backoff(settings: &GroupSettings, attempts: u32) -> u64 {
    let steps = &settings.backoff;
    let step = (attempts as usize).min(steps.len()).checked_sub(1);
    step.and_then(|step| steps.get(step)).map_or(0, |wait| millis(*wait))
}

/// A setting in milliseconds, at most a day whatever was set.
pub(super) fn millis(setting: Duration) -> u64 {
    u64::try_from(setting.as_millis()).unwrap_or(u64::MAX).min(MAX_TIME_MS)
}

/// As much of what a member gave as reason as is kept.
pub(super) fn shortened(reason: &str) -> Cow<'static, str> {
    let mut end = reason.len().min(MAX_FAILURE_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(reason[..end].to_owned())
}
