//! The handle of a client: what its user begins, and what it can know.

use std::{fmt, future::Future, iter, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    driver::Driver,
    error::Error,
    event::Event,
    keeper::Keeper,
    link::Links,
    publish::{Publish, PublishAll, Publishing, send},
    shared::{Owner, Shared},
    spec::Spec,
    stamp::Stamp,
    state::{Drain, Left, State, Stats, Status},
    subscription::Subscription,
};

/// A client of Switchyard that comes back by itself.
///
/// It is a handle: clones are of the same client. Nothing happens until somebody runs it, in a task of the caller's choice.
/// With the last handle the client is over; [`Client::drain`] ends it in order.
///
/// See the front page of the crate for an example.
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
    links: Arc<Links>,
    stamp: Arc<Stamp>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.stamp.name).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(shared: Shared, links: Links, stamp: Stamp) -> Self {
        let shared = Arc::new(shared);
        // Whoever collects metrics does not keep the client.
        let seen = Arc::downgrade(&shared);
        shared.telemetry.observe(&stamp.name, move || seen.upgrade().map(|shared| shared.stats()));
        Self { owner: Owner::new(shared), links: Arc::new(links), stamp: Arc::new(stamp) }
    }

    fn shared(&self) -> &Shared {
        self.owner.shared()
    }

    /// Runs the client, until it is drained, its last other handle is gone, or it has failed for good. Only one may run it.
    ///
    /// This is all of the client that runs: spawn it, or poll it beside something else. If it is dropped, the client is
    /// over.
    ///
    /// ```no_run
    /// # async fn run(hub: switchyard_client::Client) {
    /// let running = tokio::spawn(hub.clone().run());
    /// // ...
    /// # drop(running);
    /// # }
    /// ```
    pub fn run(self) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let shared = Arc::clone(self.owner.shared());
        // From now on, not from the first poll: what is begun meanwhile may count on it.
        let driver = shared.with(|machine, _| machine.drive()).map(|()| Driver::new(shared, Arc::clone(&self.links)));
        drop(self);
        async move { driver?.run().await }
    }

    /// What the client is doing.
    pub fn status(&self) -> Status {
        self.shared().status()
    }

    /// What it is doing, now and whenever that changes. Whoever is slow sees the latest only;
    /// [`on_state`](crate::Builder::on_state) hears of every change.
    pub fn states(&self) -> watch::Receiver<Status> {
        self.shared().states()
    }

    /// What it has counted, and has in hand now.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Subscribes to live events or to a stream, and waits until the hub has opened that: for a live subscription, nothing
    /// that is published later is missed. As long as there is no hub, it waits; to give up, drop it.
    ///
    /// Fails when the hub refuses it in a way that waiting does not mend.
    ///
    /// ```no_run
    /// # async fn read(hub: switchyard_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use switchyard_client::{FilePosition, Item, Start, Stream};
    ///
    /// let spec = Stream::named("orders").filter("orders.eu.>").from(Start::Earliest);
    /// let mut orders = hub.subscribe(spec.position(FilePosition::new("orders.token"))).await?;
    /// while let Some(item) = orders.next().await {
    ///     match item? {
    ///         Item::Events(batch) => {
    ///             for event in &batch {
    ///                 println!("{} {:?}", event.topic(), event.text());
    ///             }
    ///             batch.done().await?;
    ///         }
    ///         Item::Gap(gap) => println!("lost: {gap:?}"),
    ///         Item::CaughtUp => println!("that is all for now"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(&self, spec: impl Into<Spec>) -> Result<Subscription, Error> {
        let mut subscription = self.subscribe_soon(spec).await?;
        subscription.ready().await?;
        Ok(subscription)
    }

    /// The same without waiting for the hub: it is opened as soon as there is a session. What the hub says of it comes with
    /// what is next.
    pub async fn subscribe_soon(&self, spec: impl Into<Spec>) -> Result<Subscription, Error> {
        let spec = spec.into();
        spec.check()?;
        let (keeper, token) = match &spec.position {
            Some(store) => Keeper::load(Arc::clone(store)).await?,
            None => (None, None),
        };
        let consuming = self.shared().telemetry.consume(&spec.wire.group);
        let (id, bell) = self.shared().subscribe(spec, token)?;
        Ok(Subscription::new(Arc::clone(&self.owner), id, bell, keeper, consuming))
    }

    /// Publishes an event. Await it for the hub's answer, which is the only thing that counts as published.
    ///
    /// What was lost with a session is written again with the same id, in order, until the deadline.
    ///
    /// ```no_run
    /// # async fn publish(hub: switchyard_client::Client) -> Result<(), switchyard_client::Error> {
    /// use std::time::Duration;
    /// use switchyard_client::{Event, Published};
    ///
    /// let event = Event::new("invoices.eu").text("17 paid").key("c-17");
    /// match hub.publish(event).deadline(Duration::from_secs(20)).await? {
    ///     Published::Stored { stream, sequence, .. } => println!("{stream} has it as {sequence}"),
    ///     Published::Live { matched, .. } => println!("{matched} subscriptions got it"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish<'e>(&self, event: impl Into<Event<'e>>) -> Publish<'_> {
        let (events, sending) = self.stamp.encode(self.shared(), iter::once(event.into()), true);
        Publish::new(&self.owner, events, sending)
    }

    /// Publishes events in one call: what becomes of each, in their order.
    ///
    /// Events are encoded straight into the frame that carries them, and the hub's answer is read when somebody asks for it:
    /// for many events this costs a fraction of as many calls. See [`Receipt`](crate::Receipt) for an example.
    pub fn publish_all<'e, E: Into<Event<'e>>>(&self, events: impl IntoIterator<Item = E>) -> PublishAll<'_> {
        let (events, sending) = self.stamp.encode(self.shared(), events.into_iter().map(Into::into), true);
        PublishAll::new(&self.owner, events, sending)
    }

    /// Publishes an event if there is room in the queue: an error with the reason `QUEUE_FULL` says that there is none.
    pub fn try_publish<'e>(&self, event: impl Into<Event<'e>>) -> Result<Publishing, Error> {
        self.publish(event).try_queue()
    }

    /// Sends events at most once, and asks for no answer: for live events at a high rate, a few of which may be lost.
    ///
    /// Await it for room in the queue, which is all that it says; what is published before and after goes out in the order of
    /// the calls. The events get no id. They wait for a session as long as it takes, are written once, and nobody knows what
    /// became of them. What the hub refuses is counted in [`Stats::refused_sends`] and logged. Where that is too little, use
    /// [`publish_all`](Self::publish_all).
    ///
    /// ```no_run
    /// # async fn send(hub: switchyard_client::Client) -> Result<(), switchyard_client::Error> {
    /// use switchyard_client::Event;
    ///
    /// let readings = [[21, 5], [21, 7]];
    /// hub.send_all(readings.iter().map(|reading| Event::new("rooms.7").data(reading))).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_all<'e, E: Into<Event<'e>>>(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let (events, sending) = self.stamp.encode(self.shared(), events.into_iter().map(Into::into), false);
        send(Arc::clone(&self.owner), events, sending)
    }

    /// Ends the client in order: no subscription gets anything new, what was begun is finished or given back, and
    /// acknowledgements and publishes are flushed. Returns when the client is over, at the latest after the timeout, with
    /// what was left. Fails when the client has failed.
    ///
    /// ```no_run
    /// # async fn stop(hub: switchyard_client::Client) -> Result<(), switchyard_client::Error> {
    /// use std::time::Duration;
    /// use switchyard_client::Drain;
    ///
    /// let left = hub.drain(Duration::from_secs(20), Drain::Finish).await?;
    /// if !left.is_nothing() {
    ///     eprintln!("left: {left:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain(&self, timeout: Duration, how: Drain) -> Result<Left, Error> {
        let mut states = self.states();
        self.shared().call(|machine, now| machine.drain(now, how, timeout));
        // The sender lives as long as this handle.
        let last = states.wait_for(|status| status.state.is_over()).await.map(|status| status.clone());
        match last {
            Ok(Status { state: State::Failed, reason: Some(error), .. }) => Err(error),
            _ => Ok(self.shared().with(|machine, _| machine.left())),
        }
    }
}
