//! Who waits for something to happen and is no session: polls. How many may, and that they do not all wake at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    auth::Caller,
    model::{CommandError, StreamError},
};

/// Polls that wait for the same wake within this time of each other, when there are many.
const LONGEST_SPREAD: Duration = Duration::from_millis(20);
/// Each that waits adds this much to that time.
const SPREAD_OF_ONE: Duration = Duration::from_micros(20);

/// The polls of a hub that wait.
#[derive(Debug)]
pub(super) struct Waiters {
    max: usize,
    max_per_principal: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    count: usize,
    of: HashMap<Arc<str>, usize>,
}

/// One poll, counted while this lives.
#[derive(Debug)]
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    /// `None` on a hub that asks nobody: all are the same there.
    principal: Option<Arc<str>>,
}

impl Waiters {
    /// At most so many in the hub, and of one principal.
    pub(super) fn new(max: usize, max_per_principal: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_principal, table: Mutex::default() })
    }

    /// Counts a poll of this caller, unless there are as many as there may be.
    pub(super) fn enter(self: &Arc<Self>, caller: &Caller) -> Result<Waiter, CommandError> {
        let principal = caller.auth().map(|_| Arc::clone(caller.principal().id()));
        let too_many = |limit| Err(StreamError::TooMany { what: "polls that wait", limit }.into());
        let mut table = self.table.lock();
        if table.count >= self.max {
            return too_many(self.max);
        }
        if let Some(principal) = &principal {
            let of = table.of.entry(Arc::clone(principal)).or_default();
            if *of >= self.max_per_principal {
                return too_many(self.max_per_principal);
            }
            *of += 1;
        }
        table.count += 1;
        Ok(Waiter { waiters: Arc::clone(self), principal })
    }
}

impl Waiter {
    /// How long to wait before it looks at what has happened: longer by chance, the more there are.
    pub(super) fn spread(&self) -> Duration {
        let count = u32::try_from(self.waiters.table.lock().count).unwrap_or(u32::MAX);
        SPREAD_OF_ONE.saturating_mul(count).min(LONGEST_SPREAD).mul_f64(fastrand::f64())
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.waiters.table.lock();
        table.count -= 1;
        if let Some(principal) = &self.principal
            && let Some(of) = table.of.get_mut(principal)
        {
            *of -= 1;
            if *of == 0 {
                table.of.remove(principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_wait_and_no_more() {
        let (waiters, caller) = (Waiters::new(2, 1), Caller::nobody("test", None));
        let first = waiters.enter(&caller).expect("the first");
        let second = waiters.enter(&caller).expect("at the limit: nobody has a name");
        assert!(waiters.enter(&caller).is_err(), "one past");
        assert!(second.spread() <= SPREAD_OF_ONE * 2);
        drop(first);
        waiters.enter(&caller).expect("room again");
        assert_eq!(waiters.table.lock().count, 1);
    }
}
