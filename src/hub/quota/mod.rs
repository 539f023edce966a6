//! What one principal may use of a hub, however many sessions and connections it spreads over.
//!
//! One account per principal counts its sessions, its subscriptions and the bytes of its publishes that are not answered
//! yet, and keeps a bucket each for events and bytes a second. On a hub that does not ask who its callers are, all of
//! them share one account. An account lives as long as one of its sessions or publishes, and a little longer, so that
//! connecting anew gives nobody a full bucket.

mod bucket;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    memory::Held,
    model::{CommandError, Quota},
    outbox::Allowance,
    telemetry::PublishSpan,
};
use bucket::Bucket;

/// With fewer accounts than this, none is forgotten.
const KEEP_ACCOUNTS: usize = 1024;
/// The fastest rate that can be set, in a second.
const MAX_RATE: u64 = 1 << 40;

/// What each principal may use; in the file under `[quotas]`. 0 is no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Limit on the sessions of one principal.
    pub max_sessions: usize,
    /// Limit on the subscriptions in all sessions of one principal.
    pub max_subscriptions: usize,
    /// Limit on the events that one principal may publish per second, averaged over a second or more; a burst of this
    /// many passes at once.
    pub publish_events_per_second: u64,
    /// Limit on the bytes of encoded events that one principal may publish per second.
    pub publish_bytes_per_second: u64,
    /// Limit on the bytes of encoded events that one principal has published and that are not answered yet.
    pub max_in_flight_bytes: usize,
    /// Limit on the bytes in all streams that one principal created. The engine counts them.
    pub max_stored_bytes: u64,
}

impl Options {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let rates = [
            ("publish_events_per_second", self.publish_events_per_second),
            ("publish_bytes_per_second", self.publish_bytes_per_second),
        ];
        match rates.into_iter().find(|(_, rate)| *rate > MAX_RATE) {
            Some((key, rate)) => Err(format!("quotas.{key} is {rate} and must be at most {MAX_RATE}")),
            None => Ok(()),
        }
    }

    fn limits_publishes(&self) -> bool {
        self.publish_events_per_second > 0 || self.publish_bytes_per_second > 0 || self.max_in_flight_bytes > 0
    }
}

/// All accounts of a hub.
#[derive(Debug)]
pub(crate) struct Quotas {
    options: Arc<Options>,
    accounts: Mutex<Accounts>,
}

#[derive(Debug)]
struct Accounts {
    known: HashMap<Arc<str>, Arc<Account>>,
    /// With so many, those that are not in use are forgotten.
    sweep_at: usize,
}

/// What one principal uses.
#[derive(Debug)]
pub(crate) struct Account {
    /// Whose it is; empty for all whom nobody asked.
    principal: Arc<str>,
    options: Arc<Options>,
    sessions: AtomicUsize,
    subscriptions: Arc<Allowance>,
    in_flight_bytes: AtomicUsize,
    /// Events and bytes; `None` before the first publish.
    buckets: Mutex<Option<[Bucket; 2]>>,
}

/// One session, counted while this lives.
#[derive(Debug)]
pub(crate) struct SessionUse(Arc<Account>);

/// A publish that is not answered yet: its bytes are counted while this lives.
#[derive(Debug)]
pub struct InFlight {
    account: Arc<Account>,
    bytes: usize,
    /// Ends with it.
    pub(crate) span: Option<PublishSpan>,
    /// What its events make the hub keep until they are stored.
    memory: Option<Held>,
}

impl InFlight {
    /// Holds memory until the publish is answered.
    pub fn keep(&mut self, memory: Option<Held>) {
        self.memory = memory;
    }
}

impl Quotas {
    pub(crate) fn new(options: Options) -> Self {
        let accounts = Accounts { known: HashMap::new(), sweep_at: KEEP_ACCOUNTS };
        Self { options: Arc::new(options), accounts: Mutex::new(accounts) }
    }

    /// The account of a principal.
    pub(crate) fn account(&self, principal: &str) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        if let Some(account) = accounts.known.get(principal) {
            return Arc::clone(account);
        }
        if accounts.known.len() >= accounts.sweep_at {
            accounts.known.retain(|_, account| Arc::strong_count(account) > 1);
            accounts.sweep_at = KEEP_ACCOUNTS.max(2 * accounts.known.len());
        }
        let principal: Arc<str> = principal.into();
        let account = Arc::new(Account {
            principal: Arc::clone(&principal),
            options: Arc::clone(&self.options),
            sessions: AtomicUsize::new(0),
            subscriptions: Arc::new(Allowance::new(self.options.max_subscriptions)),
            in_flight_bytes: AtomicUsize::new(0),
            buckets: Mutex::default(),
        });
        accounts.known.insert(principal, Arc::clone(&account));
        account
    }
}

impl Account {
    /// Counts one session more.
    pub(crate) fn open_session(self: &Arc<Self>) -> Result<SessionUse, CommandError> {
        add(&self.sessions, 1, self.options.max_sessions)
            .map(|()| SessionUse(Arc::clone(self)))
            .ok_or_else(|| self.used_up(Quota::Sessions, Quota::RETRY_AFTER))
    }

    /// Whose it is.
    pub(crate) fn principal(&self) -> &str {
        &self.principal
    }

    /// How many subscriptions its sessions may have together.
    pub(crate) fn subscriptions(&self) -> &Arc<Allowance> {
        &self.subscriptions
    }

    /// Lets events of so many bytes be published, or says how long to wait. `now` is after some fixed time.
    pub(crate) fn publish(
        self: &Arc<Self>,
        events: usize,
        bytes: usize,
        now: Duration,
    ) -> Result<InFlight, CommandError> {
        let options = &self.options;
        if !options.limits_publishes() {
            return Ok(InFlight { account: Arc::clone(self), bytes: 0, span: None, memory: None });
        }
        let most = options.max_in_flight_bytes;
        // One publish that is larger passes alone.
        if add(&self.in_flight_bytes, bytes, most.max(if most > 0 { bytes } else { 0 })).is_none() {
            return Err(self.used_up(Quota::InFlightBytes, Duration::from_millis(100)));
        }
        let in_flight = InFlight { account: Arc::clone(self), bytes, span: None, memory: None };
        let rates = [options.publish_events_per_second, options.publish_bytes_per_second];
        let amounts = [events as u64, bytes as u64];
        let mut buckets = self.buckets.lock();
        let buckets = buckets.get_or_insert_with(|| rates.map(|rate| Bucket::full(rate, now)));
        let waits = [0, 1].map(|which| match rates[which] {
            0 => Duration::ZERO,
            rate => buckets[which].wait(amounts[which], rate, rate, now),
        });
        let quotas = [Quota::PublishEvents, Quota::PublishBytes];
        if let Some(which) = (0..2).filter(|which| !waits[*which].is_zero()).max_by_key(|which| waits[*which]) {
            return Err(self.used_up(quotas[which], waits[which]));
        }
        for which in 0..2 {
            buckets[which].take(amounts[which], rates[which], rates[which], now);
        }
        Ok(in_flight)
    }

    fn used_up(&self, quota: Quota, retry_after: Duration) -> CommandError {
        let limit = match quota {
            Quota::Sessions => self.options.max_sessions as u64,
            Quota::Subscriptions => self.options.max_subscriptions as u64,
            Quota::PublishEvents => self.options.publish_events_per_second,
            Quota::PublishBytes => self.options.publish_bytes_per_second,
            Quota::InFlightBytes => self.options.max_in_flight_bytes as u64,
            Quota::StoredBytes => self.options.max_stored_bytes,
        };
        CommandError::QuotaUsedUp { quota, limit, retry_after }
    }
}

impl Drop for SessionUse {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.account.in_flight_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// Adds to a count, unless it would be more than `limit`; a limit of 0 is none.
fn add(count: &AtomicUsize, more: usize, limit: usize) -> Option<()> {
    let fits = |held: usize| held.checked_add(more).filter(|sum| limit == 0 || *sum <= limit);
    count.fetch_update(Relaxed, Relaxed, fits).ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(options: Options) -> Arc<Account> {
        Quotas::new(options).account("p")
    }

    #[test]
    fn sessions_are_counted_up_to_the_limit_and_down_again() {
        let account = account(Options { max_sessions: 1, ..Options::default() });
        let session = account.open_session().expect("the first");
        assert!(account.open_session().is_err(), "one past");
        drop(session);
        account.open_session().expect("the first is over");
    }

    #[test]
    fn both_rates_count_and_the_longer_wait_is_told() {
        let options = Options { publish_events_per_second: 10, publish_bytes_per_second: 100, ..Options::default() };
        let account = account(options);
        account.publish(10, 100, Duration::ZERO).expect("the burst");
        let Err(CommandError::QuotaUsedUp { quota, retry_after, .. }) = account.publish(1, 50, Duration::ZERO) else {
            panic!("passes");
        };
        assert_eq!((quota, retry_after), (Quota::PublishBytes, Duration::from_millis(500)));
        account.publish(1, 50, Duration::from_millis(500)).expect("after the wait");
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let options = Options { publish_events_per_second: 2, max_in_flight_bytes: 100, ..Options::default() };
        let account = account(options);
        let first = account.publish(2, 100, Duration::ZERO).expect("at the limit");
        assert!(account.publish(0, 1, Duration::ZERO).is_err(), "one byte past");
        drop(first);
        for _ in 0..10 {
            assert!(account.publish(1, 100, Duration::ZERO).is_err(), "too fast");
        }
        account.publish(2, 1, Duration::from_secs(1)).expect("as fast as it may");
        account.publish(0, 500, Duration::from_secs(1)).expect("one that is larger passes alone");
    }

    #[test]
    fn accounts_in_use_are_kept() {
        let quotas = Quotas::new(Options { max_sessions: 1, ..Options::default() });
        let used = quotas.account("used");
        let _session = used.open_session().expect("the first");
        for number in 0..2 * KEEP_ACCOUNTS {
            quotas.account(&number.to_string());
        }
        assert!(quotas.accounts.lock().known.len() <= KEEP_ACCOUNTS + 1);
        assert!(quotas.account("used").open_session().is_err(), "the same account");
    }
}
