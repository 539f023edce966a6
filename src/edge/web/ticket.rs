//! Tickets: a credential for one request, for clients that can't send headers (`EventSource`, WebSockets of pages).
//!
//! A token in a URL ends up in logs, histories and referrers. A ticket that does has been used, or is over half a minute
//! later. It is worth what its holder's credential is, for one path of this hub, once. Tickets are kept in memory: another
//! hub doesn't know them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    auth::Caller,
    model::{CommandError, StreamError},
};

/// A ticket is good for this long.
pub(super) const LIFE: Duration = Duration::from_secs(30);
/// At most this many tickets wait to be used on a hub,
const MAX_TICKETS: usize = 16_384;
/// and of one principal.
const MAX_PER_PRINCIPAL: usize = 256;
/// Used ones are forgotten once they outnumber others by this many.
const MOST_USED: usize = 256;
/// The length of a ticket, in bytes before base64.
const TICKET_BYTES: usize = 24;

type Id = [u8; TICKET_BYTES];

/// Tickets that were not used yet.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    open: HashMap<Id, Ticket>,
    /// The oldest first; all live equally long. Those that were used may be among them.
    order: VecDeque<(Instant, Id)>,
    /// How many each principal has.
    counts: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Ticket {
    caller: Caller,
    path: &'static str,
}

impl Tickets {
    /// A ticket for one request of this caller to a path.
    pub(super) fn issue(&self, caller: &Caller, path: &'static str) -> Result<String, CommandError> {
        let mut id = Id::default();
        getrandom::fill(&mut id).map_err(|_| CommandError::NoMemory { of: "tickets" })?;
        let mut table = self.0.lock();
        table.forget_old(Instant::now());
        let full = |limit| CommandError::from(StreamError::TooMany { what: "tickets", limit });
        if table.open.len() >= MAX_TICKETS {
            return Err(full(MAX_TICKETS));
        }
        let count = table.counts.entry(Arc::clone(caller.principal().id())).or_default();
        if *count >= MAX_PER_PRINCIPAL {
            return Err(full(MAX_PER_PRINCIPAL));
        }
        *count += 1;
        table.forget_used();
        table.order.push_back((Instant::now() + LIFE, id));
        table.open.insert(id, Ticket { caller: caller.clone(), path });
        Ok(BASE64_URL_SAFE_NO_PAD.encode(id))
    }

    /// Whose ticket it is, if it is good for the path and was not used before. What it is worth is judged now.
    pub(super) fn redeem(&self, ticket: &str, path: &str) -> Option<Caller> {
        let id = BASE64_URL_SAFE_NO_PAD.decode(ticket).ok()?.try_into().ok()?;
        let mut table = self.0.lock();
        table.forget_old(Instant::now());
        let Ticket { mut caller, path: of } = table.take(&id)?;
        drop(table);
        caller.refresh();
        (of == path && !caller.is_over()).then_some(caller)
    }
}

impl Table {
    fn forget_old(&mut self, now: Instant) {
        while let Some((ends, id)) = self.order.front().copied()
            && ends <= now
        {
            self.order.pop_front();
            self.take(&id);
        }
    }

    /// Keeps no more of those that were used than there are others, and a few.
    fn forget_used(&mut self) {
        if self.order.len() > 2 * self.open.len() + MOST_USED {
            self.order.retain(|(_, id)| self.open.contains_key(id));
        }
    }

    fn take(&mut self, id: &Id) -> Option<Ticket> {
        let ticket = self.open.remove(id)?;
        let name = ticket.caller.principal().id();
        if let Some(count) = self.counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(name);
            }
        }
        Some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_good_once_for_its_path_and_not_for_long() {
        let (tickets, caller) = (Tickets::default(), Caller::nobody("/v1/ticket", None));
        let issue = || tickets.issue(&caller, "/v1/ws").expect("a ticket");
        let ticket = issue();
        assert!(tickets.redeem(&ticket, "/v1/ws").is_some());
        assert!(tickets.redeem(&ticket, "/v1/ws").is_none(), "a second time");
        let ticket = issue();
        assert!(tickets.redeem(&ticket, "/v1/events").is_none(), "another path");
        assert!(tickets.redeem(&ticket, "/v1/ws").is_none(), "used up by that");
        let ticket = issue();
        tokio::time::advance(LIFE).await;
        assert!(tickets.redeem(&ticket, "/v1/ws").is_none(), "too late");
        for no_ticket in ["", "x", "!", &"A".repeat(64)] {
            assert!(tickets.redeem(no_ticket, "/v1/ws").is_none(), "{no_ticket}");
        }
    }

    #[test]
    fn those_that_were_used_take_no_memory() {
        let (tickets, caller) = (Tickets::default(), Caller::nobody("/v1/ticket", None));
        let kept = tickets.issue(&caller, "/v1/ws").expect("a ticket");
        for _ in 0..4 * MOST_USED {
            let ticket = tickets.issue(&caller, "/v1/ws").expect("a ticket");
            assert!(tickets.redeem(&ticket, "/v1/ws").is_some());
        }
        assert!(tickets.0.lock().order.len() <= MOST_USED + 4);
        assert!(tickets.redeem(&kept, "/v1/ws").is_some(), "others are as good as before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_principal_has_a_limit_and_gets_room_back() {
        let (tickets, caller) = (Tickets::default(), Caller::nobody("/v1/ticket", None));
        let issued: Vec<_> =
            (0..MAX_PER_PRINCIPAL).map(|_| tickets.issue(&caller, "/v1/ws").expect("a ticket")).collect();
        assert!(tickets.issue(&caller, "/v1/ws").is_err(), "one past");
        assert!(tickets.redeem(&issued[0], "/v1/ws").is_some());
        assert!(tickets.issue(&caller, "/v1/ws").is_ok());
        tokio::time::advance(LIFE).await;
        assert!(tickets.issue(&caller, "/v1/ws").is_ok());
        assert_eq!(tickets.0.lock().open.len(), 1, "the old are gone");
    }
}
