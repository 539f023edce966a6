//! The end of a client: in order, because its user drains it, or at once, because it has failed for good. Pure.

use std::time::Duration;

use super::{
    CHECK_INTERVAL, Machine,
    news::Moment,
    phase::{Closing, Phase},
};
use crate::{
    error::Error,
    state::{Drain, Left, State},
};

/// How far the end of a session has come.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) half_closes: bool,
    pub(super) is_over: bool,
}

impl Machine {
    /// Takes nothing new, finishes what was begun, and ends; at the latest after `timeout`.
    pub(crate) fn drain(&mut self, now: Moment, how: Drain, timeout: Duration) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        let until = now.saturating_add(timeout);
        match &mut self.closing {
            Some(closing) => closing.until = closing.until.min(until),
            None => self.closing = Some(Closing { until, half_closed: None }),
        }
        self.table.hush(now);
        if how == Drain::Release {
            self.table.release(now);
        }
        self.check_at = now;
        self.enter(State::Closing, None);
        if matches!(self.phase, Phase::Idle) {
            // Nobody drives it, so nothing can be finished.
            self.finish();
        }
    }

    /// Ends when nothing is left, or it is time.
    pub(super) fn close_without_session(&mut self, now: Moment) {
        let Some(until) = self.closing.as_ref().map(|closing| closing.until) else { return };
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        let are_left = self.table.leave(now, &mut self.news);
        if now >= until || (!are_left && self.publishes.is_empty()) {
            self.finish();
        }
    }

    /// The same where there is a session, which is to end in order too.
    pub(super) fn close_in_session(&mut self, now: Moment) -> Step {
        let Some(closing) = &mut self.closing else { return Step::default() };
        if now >= closing.over_at() {
            self.finish();
            return Step { half_closes: false, is_over: true };
        }
        if now < self.check_at || closing.half_closed.is_some() {
            return Step::default();
        }
        self.check_at = now + CHECK_INTERVAL;
        if self.table.leave(now, &mut self.news) || !self.publishes.is_empty() {
            return Step::default();
        }
        closing.half_closed = Some(now);
        Step { half_closes: true, is_over: false }
    }

    /// Ends, whatever is left.
    pub(super) fn finish(&mut self) {
        let (events, acknowledgements) = self.table.left();
        let (unknown_publishes, unsent_publishes) = self.publishes.left();
        self.left = Left { events, acknowledgements, unknown_publishes, unsent_publishes };
        self.publishes.give_up(&Error::closed(), &mut self.news);
        self.table.fail(None, &mut self.news);
        self.phase = Phase::Over(Ok(()));
        self.enter(State::Closed, None);
    }

    /// Ends for good: trying again would not help.
    pub(super) fn fail(&mut self, error: Error) {
        self.publishes.give_up(&error, &mut self.news);
        self.table.fail(Some(&error), &mut self.news);
        self.phase = Phase::Over(Err(error.clone()));
        self.enter(State::Failed, Some(error));
    }

    /// Nobody drives it any more.
    pub(crate) fn abandon(&mut self) {
        if !matches!(self.phase, Phase::Over(_)) {
            self.finish();
        }
    }

    /// What was left when it was drained.
    pub(crate) fn left(&self) -> Left {
        self.left
    }
}
