//! How much a subscription may still be sent.

use crate::model::{Grant, limits};

/// The credit of one subscription: automatic, or counted in events and bytes, each from the first grant that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credit {
    events: i64,
    bytes: i64,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Automatic,
    /// Explicit, and nothing was granted yet.
    Nothing,
    Events,
    Bytes,
    Both,
}

impl Credit {
    /// The credit a subscription starts with: `None` is automatic.
    pub(super) fn new(first: Option<Grant>) -> Self {
        let mut credit = Self { events: 0, bytes: 0, counts: Counts::Automatic };
        if let Some(grant) = first {
            credit.counts = Counts::Nothing;
            credit.grant(grant);
        }
        credit
    }

    /// True when the hub refills it by itself.
    pub(super) fn is_automatic(self) -> bool {
        self.counts == Counts::Automatic
    }

    /// True when an event may be sent now, of whatever size: one event may overdraw the bytes.
    pub(super) fn may_send(self) -> bool {
        self.covers_more_than(0, 0)
    }

    /// True when one more event may be sent after `events` of `bytes` that wait.
    pub(super) fn covers_more_than(self, events: usize, bytes: usize) -> bool {
        let events_left = self.events > i64::try_from(events).unwrap_or(i64::MAX);
        let bytes_left = self.bytes > i64::try_from(bytes).unwrap_or(i64::MAX);
        match self.counts {
            Counts::Automatic => true,
            Counts::Nothing => false,
            Counts::Events => events_left,
            Counts::Bytes => bytes_left,
            Counts::Both => events_left && bytes_left,
        }
    }

    /// Takes what one event of `bytes` costs.
    pub(super) fn spend(&mut self, bytes: usize) {
        debug_assert!(self.may_send());
        if matches!(self.counts, Counts::Events | Counts::Both) {
            self.events -= 1;
        }
        if matches!(self.counts, Counts::Bytes | Counts::Both) {
            self.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
        }
    }

    /// Adds a grant; a sum too large to count stays at the largest number.
    pub(super) fn grant(&mut self, grant: Grant) {
        debug_assert!(grant.events >= 0 && grant.bytes >= 0);
        if self.is_automatic() {
            return;
        }
        self.events = self.events.saturating_add(grant.events);
        self.bytes = self.bytes.saturating_add(grant.bytes);
        let events = grant.events > 0 || matches!(self.counts, Counts::Events | Counts::Both);
        let bytes = grant.bytes > 0 || matches!(self.counts, Counts::Bytes | Counts::Both);
        self.counts = match (events, bytes) {
            (true, true) => Counts::Both,
            (true, false) => Counts::Events,
            (false, true) => Counts::Bytes,
            (false, false) => Counts::Nothing,
        };
    }

    /// What is held now, as told to the client.
    pub(super) fn held(self) -> Grant {
        if self.is_automatic() {
            Grant { events: limits::AUTOMATIC_CREDIT_EVENTS, bytes: limits::AUTOMATIC_CREDIT_BYTES }
        } else {
            Grant { events: self.events, bytes: self.bytes.max(0) }
        }
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
        assert_eq!(credit.held(), Grant { events: i64::MAX, bytes: 2 });
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
