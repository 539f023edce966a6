//! The record of who was refused what, and who managed what: one log line each, target `audit`.
//!
//! Lines name a principal, where it came from, the call and the reason; never a payload and never a credential. Denies
//! are limited for each caller, so that nobody fills the log; how many were left out is told later.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    model::{Denial, Peer},
    telemetry::AUDIT,
};

/// So many denies of one caller are told
const LINES: u32 = 10;
/// in so long.
const WINDOW: Duration = Duration::from_secs(10);
/// So many callers are known at a time; others share one account.
const MOST_CALLERS: usize = 4096;

/// What was told lately, by caller.
#[derive(Debug, Default)]
pub(super) struct Audit {
    accounts: Mutex<HashMap<String, Account>>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    since: Instant,
    told: u32,
    left_out: u32,
}

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Who; empty for a caller that nobody knows.
    pub(super) principal: &'a str,
    pub(super) peer: Option<Peer>,
    /// Which call or command.
    pub(super) call: &'a str,
}

impl Entry<'_> {
    fn peer(&self) -> String {
        self.peer.map(|peer| peer.to_string()).unwrap_or_default()
    }
}

impl Audit {
    /// Somebody was refused. `why` is for operators alone.
    pub(super) fn denied(&self, entry: Entry<'_>, denial: Denial, why: &str) {
        let address = || entry.peer.map(|peer| peer.host()).unwrap_or_default();
        let account = if entry.principal.is_empty() { address() } else { entry.principal.to_owned() };
        let Some(left_out) = self.take(account, Instant::now()) else { return };
        let (reason, peer) = (denial.reason().name(), entry.peer());
        tracing::warn!(
            target: AUDIT,
            principal = entry.principal,
            peer,
            call = entry.call,
            reason,
            why,
            left_out,
            "denied"
        );
    }

    /// Somebody manages something, and may.
    #[allow(clippy::unused_self)]
    pub(super) fn managed(&self, entry: Entry<'_>, verb: &str, name: &str) {
        let peer = entry.peer();
        tracing::info!(target: AUDIT, principal = entry.principal, peer, call = entry.call, verb, name, "managed");
    }

    /// Whether one more line may be told, and then how many were left out before it.
    fn take(&self, account: String, now: Instant) -> Option<u32> {
        let mut accounts = self.accounts.lock();
        if accounts.len() >= MOST_CALLERS && !accounts.contains_key(&account) {
            accounts.retain(|_, account| now.saturating_duration_since(account.since) < WINDOW);
        }
        let account = if accounts.len() < MOST_CALLERS { account } else { String::new() };
        let account = accounts.entry(account).or_insert(Account { since: now, told: 0, left_out: 0 });
        if now.saturating_duration_since(account.since) >= WINDOW {
            *account = Account { since: now, told: 0, ..*account };
        }
        if account.told >= LINES {
            account.left_out = account.left_out.saturating_add(1);
            return None;
        }
        account.told += 1;
        Some(std::mem::take(&mut account.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denies_are_limited_for_each_caller_and_what_is_left_out_is_told() {
        let (audit, start) = (Audit::default(), Instant::now());
        let take = |account: &str, after| audit.take(account.to_owned(), start + after);
        for _ in 0..LINES {
            assert_eq!(take("a", Duration::ZERO), Some(0));
        }
        assert_eq!(take("a", Duration::ZERO), None);
        assert_eq!(take("a", WINDOW / 2), None);
        assert_eq!(take("b", Duration::ZERO), Some(0));
        assert_eq!(take("a", WINDOW), Some(2));
    }

    #[test]
    fn the_number_of_callers_is_limited() {
        let (audit, start) = (Audit::default(), Instant::now());
        for caller in 0..2 * MOST_CALLERS {
            audit.take(caller.to_string(), start);
        }
        assert!(audit.accounts.lock().len() <= MOST_CALLERS + 1);
        audit.take("late".to_owned(), start + WINDOW);
        assert!(audit.accounts.lock().len() < 10);
    }
}
