//! The handle of a subscription: what comes, in order.

use std::{fmt, sync::Arc};

use tokio::sync::Notify;
use tonic::Code;

use crate::{
    delivery::{Batch, Hold},
    error::{Error, ErrorKind},
    item::{Gap, Opened},
    keeper::Keeper,
    machine::{hands::Lost, incoming::Incoming},
    received::Received,
    shared::{Owner, Shared},
    telemetry::{Consuming, Processing},
};

/// Sequences that an error names.
const MOST_NAMED: usize = 10;

/// What comes for a subscription.
#[derive(Debug)]
pub enum Item {
    /// Events, in order.
    Events(Batch),
    /// Events that it does not get. They would have come here.
    Gap(Gap),
    /// It has all that the stream has.
    CaughtUp,
}

/// A subscription, over all sessions of its client.
///
/// It ends when it is dropped, as soon as everything that it gave out is settled or dropped.
pub struct Subscription {
    owner: Arc<Owner>,
    id: i64,
    bell: Arc<Notify>,
    keeper: Option<Arc<Keeper>>,
    consuming: Consuming,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What there is for whoever reads.
enum Next {
    Some(Incoming),
    End(Result<(), Error>),
    Nothing,
}

impl Subscription {
    pub(crate) fn new(
        owner: Arc<Owner>,
        id: i64,
        bell: Arc<Notify>,
        keeper: Option<Arc<Keeper>>,
        consuming: Consuming,
    ) -> Self {
        Self { owner, id, bell, keeper, consuming }
    }

    /// A worker begins with one of its events.
    pub(crate) fn process(&self, event: &Received) -> Processing {
        self.consuming.process(event)
    }

    fn shared(&self) -> &Shared {
        self.owner.shared()
    }

    /// The next thing that comes. An error when the subscription has ended and does not come back, or its place could not be
    /// kept; `None` when it is over: after that error, when it has all that it wanted, or when its client is drained.
    ///
    /// If this is dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        loop {
            let rung = self.bell.notified();
            // The place may have moved without a batch, over events that match no filter.
            if let Some(keeper) = &self.keeper
                && let Err(error) = keeper.keep(self.shared(), self.id).await
            {
                return Some(Err(error));
            }
            match self.take() {
                Next::Some(incoming) => return Some(Ok(self.item(incoming))),
                Next::End(Ok(())) => return None,
                Next::End(Err(error)) => return Some(Err(error)),
                Next::Nothing => rung.await,
            }
        }
    }

    fn take(&self) -> Next {
        self.shared().call(|machine, now| match machine.table.take(now, self.id) {
            Some(incoming) => Next::Some(incoming),
            None => machine.table.take_end(self.id).map_or(Next::Nothing, Next::End),
        })
    }

    fn item(&self, incoming: Incoming) -> Item {
        match incoming {
            Incoming::Gap(gap) => Item::Gap(gap),
            Incoming::CaughtUp => Item::CaughtUp,
            Incoming::Events { events, copies, batch, token, .. } => {
                self.consuming.received(events.all.len());
                let hold = Hold::new(Arc::clone(&self.owner), self.id, batch, self.keeper.clone());
                Item::Events(Batch::new(events, copies, token, hold))
            }
        }
    }

    /// Waits until the hub has opened it. Fails when it refuses that for good, or the client is over.
    pub async fn ready(&mut self) -> Result<(), Error> {
        loop {
            let rung = self.bell.notified();
            let end = self.shared().with(|machine, _| {
                let table = &mut machine.table;
                // Whatever has become of it since, it was open.
                if table.opened(self.id).is_some() {
                    return Some(None);
                }
                table.is_over(self.id).then(|| table.take_end(self.id))
            });
            match end {
                Some(None) => return Ok(()),
                Some(Some(Err(error))) => return Err(error),
                Some(Some(Ok(()))) => return Err(Error::closed()),
                None => rung.await,
            }
        }
    }

    /// Waits until the hub has stored everything that was said so far of events of a group. Fails when leases were lost
    /// before that: those events come again, to this member or another.
    pub async fn settled(&self) -> Result<(), Error> {
        let mark = self.shared().with(|machine, _| machine.table.mark(self.id));
        loop {
            let rung = self.bell.notified();
            match self.shared().with(|machine, _| machine.table.settled(self.id, mark)) {
                Some(lost) if lost.count == 0 => return Ok(()),
                Some(lost) => return Err(self.leases_lost(&lost)),
                None => rung.await,
            }
        }
    }

    fn leases_lost(&self, lost: &Lost) -> Error {
        let named: Vec<String> = lost.sequences.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        let more = if lost.count > named.len() as u64 { " and others" } else { "" };
        let text = format!(
            "{} leases were lost before what was said of their events was stored; sequences {}{more} come again",
            lost.count,
            named.join(", ")
        );
        let place = self.shared().with(|machine, _| machine.table.name(self.id));
        Error::new(ErrorKind::LeaseLost, Code::FailedPrecondition, "LEASE_EXPIRED", text).at(&place)
    }

    /// Where it is, from when the hub opened it last; `None` if it never did.
    pub fn opened(&self) -> Option<Opened> {
        self.shared().with(|machine, _| machine.table.opened(self.id))
    }

    /// Whether it is open now.
    pub fn is_open(&self) -> bool {
        self.shared().with(|machine, _| machine.table.is_open(self.id))
    }

    /// Whether it has all that the stream has, as far as the hub has said.
    pub fn is_caught_up(&self) -> bool {
        self.shared().with(|machine, _| machine.table.lag(self.id)).0
    }

    /// How many events of the stream it is behind, as the hub said last. Not for live subscriptions and members of groups.
    pub fn lag(&self) -> i64 {
        self.shared().with(|machine, _| machine.table.lag(self.id)).1
    }

    /// The resume token of its place: behind all that is done. `None` where nothing is done yet, for live subscriptions and
    /// members of groups.
    pub fn position(&self) -> Option<String> {
        self.shared().with(|machine, _| machine.table.done(self.id))
    }

    /// The id that the hub knows it by, in every session.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Keeps the place, if it has a store and has moved since.
    pub async fn keep_position(&self) -> Result<(), Error> {
        match &self.keeper {
            Some(keeper) => keeper.keep(self.shared(), self.id).await,
            None => Ok(()),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared().unsubscribe(self.id);
    }
}
