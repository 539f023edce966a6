//! A member of a group that works by itself: it gives each event to a function, and acknowledges by what that returns.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, pending},
    time::Duration,
};

use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt;

use crate::{
    client::Client,
    delivery::Lease,
    error::Error,
    machine::verdict::Verdict,
    received::Received,
    spec::{Spec, Stream},
    subscription::{Item, Subscription},
    telemetry::Processing,
};

/// The most events that one worker has at a time.
const MOST_AT_ONCE: usize = 10_000;
/// The ack deadline of a group whose hub has not said another one.
const ACK_DEADLINE: Duration = Duration::from_secs(30);
/// Leases are extended so many times within their deadline.
const EXTENDS: u32 = 3;

/// Why an event was not done, and what is to become of it.
///
/// Every error becomes one that is tried again when the backoff of the group says, so that `?` works in a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It is to come again: after this time or, without one, when the backoff of the group says.
    Retry {
        /// How long to wait.
        after: Option<Duration>,
        /// Why it failed.
        reason: String,
    },
    /// It can never succeed: it becomes a dead letter.
    Reject {
        /// Why.
        reason: String,
    },
}

impl Failure {
    /// It is to come again after this time.
    pub fn retry_after(delay: Duration, reason: impl Into<String>) -> Self {
        Self::Retry { after: Some(delay), reason: reason.into() }
    }

    /// It can never succeed.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Retry { after: None, reason: error.to_string() }
    }
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Retry { after, reason } => Self::Nack { delay: after, reason },
            Failure::Reject { reason } => Self::Reject { reason },
        }
    }
}

impl Client {
    /// Works on the events of a group: gives each to `handler`, at most `concurrency` at a time, and acknowledges it by what
    /// that returns. As long as a handler runs, the lease on its event is extended. No event is taken ahead of that.
    ///
    /// Handlers run in the task that awaits this: one that takes long without awaiting anything holds up the others. If this
    /// is dropped, so are they, and their events come again.
    ///
    /// Returns when the client is drained and every handler is done. Fails when the subscription ends for good.
    ///
    /// ```no_run
    /// # async fn work(hub: switchyard_client::Client) -> Result<(), switchyard_client::Error> {
    /// use switchyard_client::{Failure, Stream};
    ///
    /// hub.run_worker(Stream::named("orders").group("billing"), 8, |order| async move {
    ///     let text = order.text().ok_or_else(|| Failure::reject("no text"))?;
    ///     let id: u64 = text.parse()?; // Comes again.
    ///     println!("{id} is billed");
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    pub async fn run_worker<H, F>(&self, stream: Stream, concurrency: usize, handler: H) -> Result<(), Error>
    where
        H: Fn(Received) -> F,
        F: Future<Output = Result<(), Failure>>,
    {
        if !(1..=MOST_AT_ONCE).contains(&concurrency) {
            return Err(Error::invalid("concurrency", format!("must be 1 to {MOST_AT_ONCE}")));
        }
        // Within the range that was just checked.
        let spec = Spec::from(stream.window(concurrency as u32));
        if !spec.acknowledges() {
            return Err(Error::invalid("group", "is missing, or its events are done when they are sent"));
        }
        let subscription = self.subscribe_soon(spec).await?;
        Worker { subscription, leases: HashMap::new(), next: 0 }.work(handler).await
    }
}

/// One worker at work.
struct Worker {
    subscription: Subscription,
    /// Of the events that handlers have.
    leases: HashMap<u64, Lease>,
    next: u64,
}

impl Worker {
    async fn work<H, F>(mut self, handler: H) -> Result<(), Error>
    where
        H: Fn(Received) -> F,
        F: Future<Output = Result<(), Failure>>,
    {
        let mut running = FuturesUnordered::new();
        let mut extend_at = Instant::now() + self.interval();
        let mut end = None;
        loop {
            if running.is_empty()
                && let Some(end) = end.take()
            {
                return end;
            }
            let is_open = end.is_none();
            tokio::select! {
                Some((job, result, processing)) = running.next(), if !running.is_empty() => {
                    self.done(job, result, processing);
                }
                item = next(&mut self.subscription, is_open) => match item {
                    Some(Ok(Item::Events(batch))) => {
                        for delivery in batch {
                            let (event, lease) = delivery.into_parts();
                            let job = self.begin(lease);
                            let processing = self.subscription.process(&event);
                            let work = processing.run(|| handler(event));
                            running.push(async move { (job, work.await, processing) });
                        }
                        extend_at = extend_at.min(Instant::now() + self.interval());
                    }
                    Some(Ok(Item::Gap(gap))) => tracing::warn!(?gap, "events are lost to the group"),
                    Some(Ok(Item::CaughtUp)) => {}
                    Some(Err(error)) => end = Some(Err(error)),
                    None => end = Some(Ok(())),
                },
                () = sleep_until(extend_at) => {
                    self.leases.values().for_each(|lease| lease.extend(None));
                    extend_at = Instant::now() + self.interval();
                }
            }
        }
    }

    fn begin(&mut self, lease: Option<Lease>) -> u64 {
        self.next += 1;
        if let Some(lease) = lease {
            self.leases.insert(self.next, lease);
        }
        self.next
    }

    fn done(&mut self, job: u64, result: Result<(), Failure>, processing: Processing) {
        let verdict = result.map_or_else(Verdict::from, |()| Verdict::Ack);
        processing.ended(&verdict);
        if let Some(lease) = self.leases.remove(&job) {
            lease.settle(verdict);
        }
    }

    /// How often leases are extended.
    fn interval(&self) -> Duration {
        let deadline = self.subscription.opened().and_then(|opened| opened.ack_deadline);
        deadline.unwrap_or(ACK_DEADLINE) / EXTENDS
    }
}

/// What comes next, until nothing comes any more.
async fn next(subscription: &mut Subscription, is_open: bool) -> Option<Result<Item, Error>> {
    if is_open { subscription.next().await } else { pending().await }
}
