//! How many subscriptions several sessions together may have, and how much memory they may take.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{
    memory::{Held, Memory, Use},
    model::{CommandError, Quota},
};

/// What bounds the subscriptions of one session besides its own limits.
#[derive(Debug)]
pub struct Allowances {
    /// Those of its principal.
    pub subscriptions: Arc<Allowance>,
    /// The memory that they cost.
    pub filters: Held,
}

impl Default for Allowances {
    /// Those of a session that is alone in its hub.
    fn default() -> Self {
        Self { subscriptions: Arc::default(), filters: Arc::<Memory>::default().client().nothing(Use::Filters) }
    }
}

/// Shared by the outboxes of all sessions of one principal.
#[derive(Debug, Default)]
pub struct Allowance {
    used: AtomicUsize,
    /// 0 is no limit.
    limit: usize,
}

impl Allowance {
    /// For `limit` subscriptions; 0 is no limit.
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// Counts one more.
    pub(super) fn take(&self) -> Result<(), CommandError> {
        let fits = |used: usize| Some(used + 1).filter(|sum| self.limit == 0 || *sum <= self.limit);
        let taken = self.used.fetch_update(Relaxed, Relaxed, fits);
        taken.map(drop).map_err(|_| CommandError::QuotaUsedUp {
            quota: Quota::Subscriptions,
            limit: self.limit as u64,
            retry_after: Quota::RETRY_AFTER,
        })
    }

    /// So many are over.
    pub(super) fn give_back(&self, count: usize) {
        self.used.fetch_sub(count, Relaxed);
    }
}
