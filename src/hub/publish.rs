//! Publishing: the one way into the hub for events, whichever edge they come from.
//!
//! What the caller may not publish is refused first, then what its quotas do not allow. Events of a stream are stored before
//! they reach live subscriptions. That has two halves: the first gives them their sequences, and a session has only one at
//! a time, so that their order is that of its commands. The second waits until they are stored; meanwhile the session goes
//! on. A publish of which no event belongs to a stream is routed at once.

use std::{future::Future, pin::Pin, sync::Arc};

use super::{Hub, InFlight, quota::Account};
use crate::{
    auth::Caller,
    engine::{Append, AppendError, Appended, EventStream, Precondition, Receipt},
    event::Event,
    memory::Held,
    model::{CommandError, Durability, EventError, Origin, Quota, StreamError},
    outbox::{Accepted, Published, StoredAt},
    router::Scratch,
    tasks::{Tasks, Turn},
};

/// What it costs to look for the stream of a topic, in steps.
const LOOK_STEPS: usize = 4;
/// An event that is only counted or moved is a part of a step.
const EVENTS_A_STEP: usize = 2;

/// What a caller asks to be published.
#[derive(Debug)]
pub struct Publish {
    /// In order, with those that are refused already.
    pub events: Vec<Result<Event, EventError>>,
    /// What must hold for them to be published; then they are published together or not at all.
    pub precondition: Option<Precondition>,
    /// Held for the events until they are stored.
    pub memory: Option<Held>,
    /// The publisher wants to hear of failures only.
    pub quiet: bool,
}

/// What a publish comes to.
#[derive(Debug)]
pub enum Publishing {
    /// It is done. No results for a quiet one without failures.
    Done(Vec<Published>),
    /// Events of it belong to streams.
    Storing(Placing),
}

/// The first half of a publish to streams. The order of its events in their streams is that of the first polls.
pub struct Placing(Pin<Box<dyn Future<Output = Result<Sequenced, CommandError>> + Send>>);

/// A publish whose events have their sequences. What becomes of them is known once they are stored.
#[derive(Debug)]
pub struct Sequenced {
    hub: Arc<Hub>,
    results: Vec<Published>,
    parts: Vec<Part>,
    /// Counted until the publisher is answered.
    _in_flight: InFlight,
}

/// Publishes for one caller, and keeps what it can use again from one publish to the next.
#[derive(Debug)]
pub struct Publisher {
    hub: Arc<Hub>,
    account: Arc<Account>,
    scratch: Scratch,
}

/// The events of one stream.
#[derive(Debug)]
struct Part {
    origin: Arc<Origin>,
    durability: Durability,
    share: Share,
    receipt: Result<Receipt, AppendError>,
}

/// Events of a publish that go the same way.
#[derive(Debug, Default)]
struct Share {
    /// Which of the publish; nothing while they are all there are.
    indexes: Vec<usize>,
    events: Vec<Event>,
}

impl Hub {
    /// What publishes for a caller. Not across a change of its principal.
    pub fn publisher(self: &Arc<Self>, caller: &Caller) -> Publisher {
        Publisher { hub: Arc::clone(self), account: self.account(caller), scratch: Scratch::default() }
    }

    /// Publishes what the caller may publish, and returns what became of each event, in their order.
    ///
    /// There is no other way in for the events of an edge, and this one asks for the caller:
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use switchyard::{auth::Caller, hub::{Hub, Publish}, tasks::Tasks};
    /// async fn edge(hub: Arc<Hub>, caller: Caller, publish: Publish, tasks: Tasks) {
    ///     hub.publish(&caller, publish, &tasks).await.expect("published");
    /// }
    /// ```
    ///
    /// An edge that forgets who publishes does not compile:
    ///
    /// ```compile_fail,E0061
    /// # use std::sync::Arc;
    /// # use switchyard::{hub::{Hub, Publish}, tasks::Tasks};
    /// async fn edge(hub: Arc<Hub>, publish: Publish, tasks: Tasks) {
    ///     hub.publish(publish, &tasks).await.expect("published");
    /// }
    /// ```
    ///
    /// Nor does one that goes past the hub:
    ///
    /// ```compile_fail,E0624
    /// # use std::sync::Arc;
    /// # use switchyard::{hub::Hub, event::Event};
    /// async fn edge(hub: Arc<Hub>, events: Vec<Event>) {
    ///     hub.router().publish(&events, &mut Default::default()).await;
    /// }
    /// ```
    ///
    /// Events that have their sequences will be stored and routed, and count until then, whether or not anyone waits for
    /// that. Not before: what waits for room has no bound but the calls that wait.
    pub async fn publish(
        self: &Arc<Self>,
        caller: &Caller,
        publish: Publish,
        tasks: &Tasks,
    ) -> Result<Vec<Published>, CommandError> {
        match self.publisher(caller).publish(caller, publish).await? {
            Publishing::Done(results) => Ok(results),
            Publishing::Storing(placing) => {
                let sequenced = placing.await?;
                Ok(tasks.see_through("publish", sequenced.stored()).await)
            }
        }
    }

    /// Hands what other hubs publish to the live subscriptions of this one, until there is no more. Returns at once when the
    /// hub is alone.
    ///
    /// Their callers were authorised where they published, and their events are counted there; nothing goes back.
    pub async fn hear_others(&self) {
        let Some(exchange) = &self.exchange else { return };
        let mut scratch = Scratch::default();
        while let Some(events) = exchange.hear().await {
            self.router.publish(&events, &mut scratch).await;
        }
    }

    /// Routes events that belong to no stream, here and on the other hubs.
    async fn route_live(&self, events: &[Event], scratch: &mut Scratch) {
        if let Some(exchange) = &self.exchange
            && !events.is_empty()
        {
            exchange.send(events);
        }
        self.route(events, scratch).await;
    }

    async fn route(&self, events: &[Event], scratch: &mut Scratch) {
        self.router.publish(events, scratch).await;
        self.metrics.events_in(events.len(), events.iter().map(Event::encoded_len).sum());
    }
}

impl Publisher {
    /// Publishes what the caller may publish.
    pub async fn publish(&mut self, caller: &Caller, publish: Publish) -> Result<Publishing, CommandError> {
        let Publish { mut events, precondition, memory, quiet } = publish;
        if let (Some(denial), Some(_)) = (caller.authorize_events(&mut events).await, precondition) {
            return Err(denial.into());
        }
        let mut in_flight = self.hub.may_publish(&self.account, &events)?;
        if let (Some(_), Some(refused)) = (precondition, events.iter().find_map(|event| event.as_ref().err())) {
            return Err(mismatch(format!("makes the publish atomic, and an event of it is refused: {refused}")).into());
        }
        let shares = Shares::of(&self.hub, events, precondition.is_some()).await;
        self.hub.metrics.events_refused(shares.refused.len());
        if precondition.is_some() && (!shares.live.events.is_empty() || shares.of_streams.len() > 1) {
            return Err(mismatch("needs all events to be of one stream".to_owned()).into());
        }
        if shares.of_streams.is_empty() {
            self.hub.route_live(&shares.live.events, &mut self.scratch).await;
            let answers = !quiet || !shares.refused.is_empty();
            return Ok(Publishing::Done(if answers { shares.results(&self.scratch.matched) } else { Vec::new() }));
        }
        in_flight.keep(memory);
        let hub = Arc::clone(&self.hub);
        Ok(Publishing::Storing(Placing(Box::pin(async move { Ok(place(hub, shares, precondition, in_flight).await) }))))
    }
}

/// Gives events their sequences in their streams, and routes those that belong to none.
async fn place(hub: Arc<Hub>, shares: Shares, precondition: Option<Precondition>, in_flight: InFlight) -> Sequenced {
    let mut scratch = Scratch::default();
    if !shares.live.events.is_empty() {
        hub.route_live(&shares.live.events, &mut scratch).await;
    }
    let (results, of_streams) = (shares.results(&scratch.matched), shares.of_streams);
    let mut parts = Vec::with_capacity(of_streams.len());
    for (stream, share) in of_streams.into_iter().filter(|(_, share)| !share.events.is_empty()) {
        let receipt = stream.append(Append { events: share.events.clone(), precondition }).await;
        let origin = Arc::new(stream.origin());
        parts.push(Part { origin, durability: stream.settings().durability, share, receipt });
    }
    Sequenced { hub, results, parts, _in_flight: in_flight }
}

impl Future for Placing {
    type Output = Result<Sequenced, CommandError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl std::fmt::Debug for Placing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Placing")
    }
}

/// Where the events of a publish go.
struct Shares {
    total: usize,
    refused: Vec<(usize, EventError)>,
    /// Those that no stream holds.
    live: Share,
    of_streams: Vec<(Arc<dyn EventStream>, Share)>,
}

impl Shares {
    /// Where they are not `together`, those are refused alone that are larger than all that their stream keeps.
    async fn of(hub: &Hub, events: Vec<Result<Event, EventError>>, together: bool) -> Self {
        let total = events.len();
        let mut turn = Turn::default();
        turn.spend(total / EVENTS_A_STEP).await;
        let mut shares = Self { total, refused: Vec::new(), live: Share::default(), of_streams: Vec::new() };
        let engine = hub.engine().filter(|engine| !engine.is_empty());
        // The topic of the event before, and where it went. Most publishes are to one topic, which is looked up once.
        let (mut last, mut known): (Option<Event>, Option<(usize, u64)>) = (None, None);
        for (index, event) in events.into_iter().enumerate() {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    shares.refuse(index, error);
                    continue;
                }
            };
            if let Some(engine) = engine
                && last.as_ref().is_none_or(|last| last.topic() != event.topic())
            {
                known = engine.stream_of(event.topic()).map(|stream| shares.stream(stream));
                last = Some(event.clone());
                turn.spend(LOOK_STEPS + shares.of_streams.len() / EVENTS_A_STEP).await;
            }
            let Some((at, most_bytes)) = known else {
                shares.keep_live(index, event);
                continue;
            };
            let bytes = event.encoded_len() as u64;
            if bytes > most_bytes && !together {
                shares.refuse(index, StreamError::NeverFits { bytes, limit: most_bytes }.into());
            } else {
                shares.tell_apart(index);
                shares.of_streams[at].1.push(index, event, total);
            }
        }
        shares
    }

    fn refuse(&mut self, index: usize, error: EventError) {
        self.tell_apart(index);
        self.refused.push((index, error));
    }

    fn keep_live(&mut self, index: usize, event: Event) {
        if self.live.events.is_empty() {
            self.live.events.reserve(self.total - index);
        }
        self.live.events.push(event);
        if !self.live.indexes.is_empty() || index >= self.live.events.len() {
            self.live.indexes.push(index);
        }
    }

    /// An event does not go the way of all others so far, which is live: from here on it is noted which ones do.
    fn tell_apart(&mut self, index: usize) {
        if self.live.indexes.is_empty() && index == self.live.events.len() {
            self.live.indexes.extend(0..index);
        }
    }

    /// Where the share of a stream is, which is made if there is none, and how large an event may be.
    fn stream(&mut self, stream: Arc<dyn EventStream>) -> (usize, u64) {
        let most_bytes = stream.settings().max_bytes.unwrap_or(u64::MAX);
        let at = self.of_streams.iter().position(|(known, _)| Arc::ptr_eq(known, &stream));
        let at = at.unwrap_or_else(|| {
            self.of_streams.push((stream, Share::default()));
            self.of_streams.len() - 1
        });
        (at, most_bytes)
    }

    /// What is known before anything is stored, in the order of the events. `matched` is for the live ones.
    fn results(&self, matched: &[u64]) -> Vec<Published> {
        let mut results = vec![Ok(Accepted::default()); self.total];
        for (index, error) in &self.refused {
            results[*index] = Err(error.clone());
        }
        for (nth, matched) in matched.iter().take(self.live.events.len()).enumerate() {
            let index = self.live.indexes.get(nth).copied().unwrap_or(nth);
            results[index] = Ok(Accepted { matched: *matched, stored: None });
        }
        results
    }
}

impl Share {
    fn push(&mut self, index: usize, event: Event, total: usize) {
        if self.events.is_empty() {
            self.indexes.reserve(total - index);
            self.events.reserve(total - index);
        }
        self.indexes.push(index);
        self.events.push(event);
    }
}

impl Sequenced {
    /// Waits until the events are stored, hands them to live subscriptions, and returns what became of each.
    pub async fn stored(mut self) -> Vec<Published> {
        let mut scratch = Scratch::default();
        for part in std::mem::take(&mut self.parts) {
            let Part { origin, durability, share, receipt } = part;
            let appended = match receipt {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            };
            match appended {
                Ok(appended) => {
                    Turn::default().spend(appended.len()).await;
                    let matched = self.hub.route_stored(share.events, &appended, &mut scratch).await;
                    for ((index, Appended { sequence, duplicate, .. }), matched) in
                        share.indexes.into_iter().zip(appended).zip(matched)
                    {
                        let stored = StoredAt { origin: Arc::clone(&origin), sequence, duplicate, durability };
                        self.results[index] = Ok(Accepted { matched, stored: Some(stored) });
                    }
                }
                Err(error) => {
                    self.hub.metrics.events_refused(share.indexes.len());
                    if matches!(error, AppendError::QuotaUsedUp { .. }) {
                        self.hub.metrics.quota_refused(Quota::StoredBytes.name());
                    }
                    let error = EventError::from(error.about(&origin));
                    for index in share.indexes {
                        self.results[index] = Err(error.clone());
                    }
                }
            }
        }
        std::mem::take(&mut self.results)
    }
}

impl Hub {
    /// Hands stored events to live subscriptions, except those that were stored before, and returns to how many each went.
    async fn route_stored(&self, mut events: Vec<Event>, appended: &[Appended], scratch: &mut Scratch) -> Vec<u64> {
        if appended.iter().any(|appended| appended.duplicate) {
            let mut new = appended.iter().map(|appended| !appended.duplicate);
            events.retain(|_| new.next().unwrap_or_default());
        }
        self.route(&events, scratch).await;
        let mut matched = scratch.matched.iter().copied();
        appended.iter().map(|one| if one.duplicate { 0 } else { matched.next().unwrap_or_default() }).collect()
    }
}

fn mismatch(problem: String) -> StreamError {
    StreamError::Mismatch { field: "precondition", problem }
}
