//! Events in the hands of the application: what it can say of those of a group, and batches of them.

use std::{fmt, future::Future, ops::Deref, sync::Arc, time::Duration};

use crate::{
    error::Error,
    event::Received,
    keeper::Keeper,
    machine::{hands::lease_lost, verdict::Verdict},
    shared::Owner,
};

/// An event that came, and what can be said of it.
///
/// A member of a group says of each event what became of it, by one of the methods that consume it. What it says is sent as
/// soon as there is a session; [`Subscription::settled`](crate::Subscription::settled) waits until the hub has stored it. An
/// event that is dropped comes again once its lease has run out. Outside of groups these methods do nothing.
#[derive(Debug)]
pub struct Delivery {
    event: Received,
    lease: Option<Lease>,
}

/// The hold on an event of a group.
pub(crate) struct Lease {
    owner: Arc<Owner>,
    subscription: i64,
    sequence: i64,
    copy: u64,
    is_settled: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Deref for Delivery {
    type Target = Received;

    fn deref(&self) -> &Received {
        &self.event
    }
}

impl Delivery {
    pub(crate) fn new(event: Received, lease: Option<Lease>) -> Self {
        Self { event, lease }
    }

    /// Done: the group never gets it again.
    pub fn ack(self) {
        self.settle(Verdict::Ack);
    }

    /// Done, and waits until the hub has stored that. Fails when the lease was lost: then the event comes again, to this
    /// member or another. Whoever drops this while it waits has acknowledged the event and does not hear what came of it.
    pub async fn acked(self) -> Result<(), Error> {
        match self.lease {
            None => Ok(()),
            Some(lease) => lease.acked().await,
        }
    }

    /// Failed: it comes again, when the group's backoff says.
    pub fn nack(self, reason: impl Into<String>) {
        self.settle(Verdict::Nack { delay: None, reason: reason.into() });
    }

    /// Failed: it comes again after this time. At most a day.
    pub fn nack_after(self, delay: Duration, reason: impl Into<String>) {
        self.settle(Verdict::Nack { delay: Some(delay), reason: reason.into() });
    }

    /// It can never succeed: it becomes a dead letter.
    pub fn reject(self, reason: impl Into<String>) {
        self.settle(Verdict::Reject { reason: reason.into() });
    }

    /// Still at work: the lease begins again.
    pub fn extend(&self) {
        if let Some(lease) = &self.lease {
            lease.extend(None);
        }
    }

    /// Still at work: the lease lasts for this time from now. At most a day.
    pub fn extend_by(&self, time: Duration) {
        if let Some(lease) = &self.lease {
            lease.extend(Some(time));
        }
    }

    /// The event alone. That of a group counts as dropped: its lease runs out.
    pub fn into_event(self) -> Received {
        self.event
    }

    /// The event, and the hold on it.
    pub(crate) fn into_parts(self) -> (Received, Option<Lease>) {
        (self.event, self.lease)
    }

    fn settle(self, verdict: Verdict) {
        if let Some(lease) = self.lease {
            lease.settle(verdict);
        }
    }
}

impl Lease {
    pub(crate) fn new(owner: Arc<Owner>, subscription: i64, sequence: i64, copy: u64) -> Self {
        Self { owner, subscription, sequence, copy, is_settled: false }
    }

    fn hand(&self) -> (i64, i64, u64) {
        (self.subscription, self.sequence, self.copy)
    }

    pub(crate) fn settle(mut self, verdict: Verdict) {
        self.is_settled = true;
        self.owner.shared().settle(self.hand(), verdict);
    }

    fn acked(mut self) -> impl Future<Output = Result<(), Error>> {
        self.is_settled = true;
        let answer = self.owner.shared().settle_and_tell(self.hand(), Verdict::Ack);
        async move {
            // The client is not over as long as somebody waits for this.
            let _lease = self;
            match answer {
                Some(answer) => answer.await.unwrap_or_else(|_| Err(lease_lost())),
                None => Err(lease_lost()),
            }
        }
    }

    pub(crate) fn extend(&self, time: Option<Duration>) {
        self.owner.shared().call(|machine, now| machine.table.extend(now, self.hand(), time));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_settled {
            self.owner.shared().let_go(self.hand());
        }
    }
}

/// Events that came together.
///
/// A subscription that reads a stream by itself says with [`Batch::done`] that they are done, which moves its place. If a
/// batch is dropped without that, the place stays before it for as long as this subscription lives, and the next run of the
/// program gets it again. Members of groups settle each event instead.
///
/// ```
/// # async fn each(batch: switchyard_client::Batch) -> Result<(), switchyard_client::Error> {
/// for event in &batch {
///     println!("{}", event.topic());
/// }
/// batch.done().await
/// # }
/// ```
#[derive(Debug)]
pub struct Batch {
    events: Vec<Delivery>,
    token: String,
    hold: Hold,
}

/// The hold on a batch.
pub(crate) struct Hold {
    owner: Arc<Owner>,
    subscription: i64,
    batch: u64,
    keeper: Option<Arc<Keeper>>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.owner.shared().drop_batch(self.subscription, self.batch);
    }
}

impl Hold {
    pub(crate) fn new(owner: Arc<Owner>, subscription: i64, batch: u64, keeper: Option<Arc<Keeper>>) -> Self {
        Self { owner, subscription, batch, keeper }
    }
}

impl Batch {
    pub(crate) fn new(events: Vec<Delivery>, token: String, hold: Hold) -> Self {
        Self { events, token, hold }
    }

    /// All of it is done: the place moves behind it, once all before it is done too. Returns when the place is kept, where the
    /// subscription has a store for it, and fails if that fails. Does nothing for members of groups.
    pub async fn done(self) -> Result<(), Error> {
        let Hold { owner, subscription, batch, keeper } = &self.hold;
        owner.shared().call(|machine, now| machine.table.finish_batch(now, *subscription, *batch));
        match keeper {
            Some(keeper) => keeper.keep(owner.shared(), *subscription).await,
            None => Ok(()),
        }
    }

    /// The resume token of the place behind it: for programs that keep it together with the results of their work. Empty for
    /// a live subscription and for a member of a group.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True when its events were taken out.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Its events, one after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Delivery> {
        self.events.iter()
    }

    /// Takes its events out, to do something with each. The batch is still to be done.
    pub fn take_events(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.events)
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Delivery;
    type IntoIter = std::slice::Iter<'a, Delivery>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Batch {
    type Item = Delivery;
    type IntoIter = Deliveries;

    /// For members of groups. A subscription that reads a stream by itself cannot say any more that the batch is done.
    fn into_iter(self) -> Deliveries {
        Deliveries { events: self.events.into_iter(), _hold: self.hold }
    }
}

/// The events of a batch.
#[derive(Debug)]
pub struct Deliveries {
    events: std::vec::IntoIter<Delivery>,
    _hold: Hold,
}

impl Iterator for Deliveries {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        self.events.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl ExactSizeIterator for Deliveries {}
