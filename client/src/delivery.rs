//! Events in the hands of the application: what it can say of those of a group, and batches of them.

use std::{fmt, future::Future, ops::Deref, sync::Arc, time::Duration, vec};

use crate::{
    error::Error,
    keeper::Keeper,
    machine::{hands::lease_lost, verdict::Verdict},
    received::{Entries, Entry, Received, ReceivedRef},
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
            self.owner.shared().let_go(self.subscription, std::iter::once((self.sequence, self.copy)));
        }
    }
}

/// Events that came together.
///
/// A subscription that reads a stream by itself says with [`Batch::done`] that they are done, which moves its place. If a
/// batch is dropped without that, the place stays before it for as long as this subscription lives, and the next run of the
/// program gets it again. Members of groups settle each event instead.
///
/// A batch is one piece of memory, in which its events are as they came: to go through them with [`Batch::iter`] makes
/// nothing. An event that is taken out, by [`Batch::take_events`] or a loop over the batch itself, is a copy of its own.
///
/// ```
/// # async fn each(batch: switchyard_client::Batch) -> Result<(), switchyard_client::Error> {
/// for event in &batch {
///     println!("{}", event.topic());
/// }
/// batch.done().await
/// # }
/// ```
pub struct Batch {
    events: Entries,
    leases: Leases,
    token: String,
    hold: Hold,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("events", &self.len()).field("batch", &self.hold.batch).finish_non_exhaustive()
    }
}

/// The hold on a batch.
pub(crate) struct Hold {
    owner: Arc<Owner>,
    subscription: i64,
    batch: u64,
    keeper: Option<Arc<Keeper>>,
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

/// The hold on those events of a batch that were not taken out: their sequences and copies. None where nothing is
/// acknowledged.
struct Leases {
    owner: Arc<Owner>,
    subscription: i64,
    hands: vec::IntoIter<(i64, u64)>,
}

impl Leases {
    /// That of the next event.
    fn next(&mut self) -> Option<Lease> {
        let (sequence, copy) = self.hands.next()?;
        Some(Lease {
            owner: Arc::clone(&self.owner),
            subscription: self.subscription,
            sequence,
            copy,
            is_settled: false,
        })
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if self.hands.len() > 0 {
            self.owner.shared().let_go(self.subscription, std::mem::take(&mut self.hands));
        }
    }
}

impl Batch {
    /// Of these events. `copies` are of those that are acknowledged.
    pub(crate) fn new(events: Entries, copies: Vec<u64>, token: String, hold: Hold) -> Self {
        let sequences = events.all.iter().map(|entry| entry.fields.sequence);
        let hands: Vec<(i64, u64)> = sequences.zip(copies).collect();
        let leases =
            Leases { owner: Arc::clone(&hold.owner), subscription: hold.subscription, hands: hands.into_iter() };
        Self { events, leases, token, hold }
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
        self.events.all.len()
    }

    /// True when its events were taken out.
    pub fn is_empty(&self) -> bool {
        self.events.all.is_empty()
    }

    /// Its events, one after the other, where they are.
    pub fn iter(&self) -> BatchEvents<'_> {
        BatchEvents { events: &self.events, entries: self.events.all.iter() }
    }

    /// Takes its events out, to do something with each. The batch is still to be done.
    pub fn take_events(&mut self) -> Vec<Delivery> {
        let entries = std::mem::take(&mut self.events.all);
        entries.iter().map(|entry| Delivery::new(self.events.take(entry), self.leases.next())).collect()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = ReceivedRef<'a>;
    type IntoIter = BatchEvents<'a>;

    fn into_iter(self) -> BatchEvents<'a> {
        self.iter()
    }
}

impl IntoIterator for Batch {
    type Item = Delivery;
    type IntoIter = Deliveries;

    /// For members of groups. A subscription that reads a stream by itself cannot say any more that the batch is done.
    fn into_iter(mut self) -> Deliveries {
        let entries = std::mem::take(&mut self.events.all).into_iter();
        Deliveries { entries, batch: self }
    }
}

/// The events of a batch, where they are.
#[derive(Debug, Clone)]
pub struct BatchEvents<'a> {
    events: &'a Entries,
    entries: std::slice::Iter<'a, Entry>,
}

impl<'a> Iterator for BatchEvents<'a> {
    type Item = ReceivedRef<'a>;

    fn next(&mut self) -> Option<ReceivedRef<'a>> {
        self.entries.next().map(|entry| self.events.get(entry))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for BatchEvents<'_> {}

/// The events of a batch, each taken out of it when it comes.
#[derive(Debug)]
pub struct Deliveries {
    entries: vec::IntoIter<Entry>,
    batch: Batch,
}

impl Iterator for Deliveries {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        let entry = self.entries.next()?;
        Some(Delivery::new(self.batch.events.take(&entry), self.batch.leases.next()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl ExactSizeIterator for Deliveries {}
