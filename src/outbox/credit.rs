//! How much a subscription may still be sent. Pure.

use crate::model::{Grant, limits};

/// A size that is not counted: automatic credit counts none, explicit credit each from the first grant that names it.
const UNCOUNTED: i64 = i64::MAX;
/// In place of the events of explicit credit that was granted nothing yet.
const NOTHING: i64 = i64::MIN;

/// The credit of one subscription. Two numbers and no more: there may be a million of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credit {
    events: i64,
    bytes: i64,
}

impl Credit {
    /// The credit a subscription starts with: `None` is automatic.
    pub(super) fn new(first: Option<Grant>) -> Self {
        let Some(grant) = first else { return Self { events: UNCOUNTED, bytes: UNCOUNTED } };
        let mut credit = Self { events: NOTHING, bytes: UNCOUNTED };
        credit.grant(grant);
        credit
    }

    /// True when the hub refills it by itself.
    pub(super) fn is_automatic(self) -> bool {
        self.events == UNCOUNTED && self.bytes == UNCOUNTED
    }

    /// True when an event may be sent now, of whatever size: one event may overdraw the bytes.
    pub(super) fn may_send(self) -> bool {
        self.covers_more_than(0, 0)
    }

    /// True when one more event may be sent after `events` of `bytes` that wait.
    pub(super) fn covers_more_than(self, events: usize, bytes: usize) -> bool {
        let more = |held: i64, used: usize| held == UNCOUNTED || held > i64::try_from(used).unwrap_or(i64::MAX);
        more(self.events, events) && more(self.bytes, bytes)
    }

    /// How many more events may wait behind `events` of `bytes`, as far as can be said before their size is known.
    pub(super) fn covers(self, events: usize, bytes: usize) -> usize {
        if !self.covers_more_than(events, bytes) {
            return 0;
        }
        let left = |held: i64| usize::try_from(held).unwrap_or(0).saturating_sub(events);
        if self.events == UNCOUNTED { usize::MAX } else { left(self.events) }
    }

    /// How many more bytes may wait behind `used`; one event may overdraw them.
    pub(super) fn bytes_left(self, used: usize) -> usize {
        if self.bytes == UNCOUNTED {
            return usize::MAX;
        }
        usize::try_from(self.bytes).unwrap_or(0).saturating_sub(used)
    }

    /// Takes what one event of `bytes` costs.
    pub(super) fn spend(&mut self, bytes: usize) {
        debug_assert!(self.may_send());
        if self.events != UNCOUNTED {
            self.events -= 1;
        }
        if self.bytes != UNCOUNTED {
            self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// Adds a grant; a sum too large to count stays at the largest number.
    pub(super) fn grant(&mut self, grant: Grant) {
        debug_assert!(grant.events >= 0 && grant.bytes >= 0);
        if self.is_automatic() {
            return;
        }
        // The first grant: what it does not name is not counted.
        if self.events == NOTHING && grant != Grant::default() {
            self.events = UNCOUNTED;
        }
        let add = |held: i64, more: i64| match (held, more) {
            (_, 0) => held,
            (UNCOUNTED, more) => more.min(UNCOUNTED - 1),
            (held, more) => held.saturating_add(more).min(UNCOUNTED - 1),
        };
        self.events = add(self.events, grant.events);
        self.bytes = add(self.bytes, grant.bytes);
    }

    /// What is held now, as told to the client.
    pub(super) fn held(self) -> Grant {
        if self.is_automatic() {
            return Grant { events: limits::AUTOMATIC_CREDIT_EVENTS, bytes: limits::AUTOMATIC_CREDIT_BYTES };
        }
        let counted = |held: i64| if held == UNCOUNTED { 0 } else { held.max(0) };
        Grant { events: counted(self.events), bytes: counted(self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit(events: i64, bytes: i64) -> Credit {
        Credit::new(Some(Grant { events, bytes }))
    }

    #[test]
    fn explicit_credit_without_a_grant_sends_nothing() {
        let mut credit = explicit(0, 0);
        assert!(!credit.may_send());
        credit.grant(Grant { events: 1, bytes: 0 });
        assert!(credit.may_send());
    }

    #[test]
    fn a_size_never_named_is_not_counted() {
        let mut credit = explicit(1, 0);
        credit.spend(usize::MAX);
        assert!(!credit.may_send());
        let mut credit = explicit(0, 1);
        assert!(credit.may_send());
        credit.spend(10);
        assert!(!credit.may_send(), "one event may overdraw the bytes, not two");
        credit.grant(Grant { events: 0, bytes: 9 });
        assert!(!credit.may_send(), "the overdraft comes off the next grant");
        credit.grant(Grant { events: 0, bytes: 1 });
        assert!(credit.may_send());
    }

    #[test]
    fn grants_add_up_and_do_not_overflow() {
        let mut credit = explicit(i64::MAX, 1);
        credit.grant(Grant { events: i64::MAX, bytes: 1 });
        assert_eq!(credit.held(), Grant { events: i64::MAX - 1, bytes: 2 });
    }

    #[test]
    fn automatic_credit_never_runs_out() {
        let mut credit = Credit::new(None);
        for _ in 0..1_000 {
            credit.spend(limits::MAX_EVENT_BYTES);
        }
        assert!(credit.may_send() && credit.is_automatic());
    }
}
