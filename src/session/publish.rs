//! Publishing to streams: what belongs to one is stored first, and reaches live subscriptions only then.
//!
//! A publish has two halves. The first gives its events their places in their streams, and a session has only one at a time, so
//! that their order is that of the commands. The second waits until they are stored; meanwhile the session goes on.
//! Events of topics that no stream holds are routed in the first half.

use std::{future::Future, pin::Pin, sync::Arc};

use super::{Hub, InFlight};
use crate::{
    auth::Caller,
    engine::{Append, AppendError, Appended, EventStream, Precondition, PurgeError, ReadError, Receipt, StoreError},
    memory::{MemoryFull, Use},
    model::{CommandError, Durability, Event, EventError, Origin, Quota, StreamError, StreamName},
    outbox::{Accepted, Published, StoredAt},
    router::Scratch,
    tasks::Turn,
};

/// What it costs to look for the stream of a topic, in steps.
const LOOK_STEPS: usize = 4;
/// An event that is only counted or moved is a part of a step.
const EVENTS_A_STEP: usize = 2;

/// A publish whose events have their places.
#[derive(Debug)]
pub struct Placed {
    results: Vec<Published>,
    parts: Vec<Part>,
    /// Counted until the publisher is told.
    _in_flight: InFlight,
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
#[derive(Debug)]
struct Share {
    /// Which of the publish.
    places: Vec<usize>,
    events: Vec<Event>,
    /// No event can be stored that has more bytes.
    most_bytes: u64,
}

/// The first half of a publish.
pub(super) type Placing = Pin<Box<dyn Future<Output = (i64, Result<Placed, CommandError>)> + Send>>;
/// The second half.
pub(super) type Storing = Pin<Box<dyn Future<Output = (i64, Vec<Published>)> + Send>>;

/// Refuses the events that the caller may not publish; all of a publish that is atomic.
pub async fn admit_events(
    caller: &Caller,
    events: &mut [Result<Event, EventError>],
    precondition: Option<Precondition>,
) -> Result<(), CommandError> {
    match (caller.authorize_events(events).await, precondition) {
        (Some(denial), Some(_)) => Err(denial.into()),
        _ => Ok(()),
    }
}

/// True when a stream takes one of these events.
pub(super) async fn any_stream_takes(hub: &Hub, events: &[Result<Event, EventError>]) -> bool {
    let Some(engine) = hub.engine() else { return false };
    if engine.is_empty() {
        return false;
    }
    let (mut turn, mut last) = (Turn::default(), None);
    for event in events.iter().flatten() {
        if last.replace(event.topic()) == Some(event.topic()) {
            continue;
        }
        if engine.stream_of(event.topic()).is_some() {
            return true;
        }
        turn.spend(LOOK_STEPS).await;
    }
    false
}

/// Gives events their places in their streams, and routes those that have none. A precondition needs all events to be of
/// one stream.
pub async fn place(
    hub: &Hub,
    events: Vec<Result<Event, EventError>>,
    precondition: Option<Precondition>,
    in_flight: InFlight,
) -> Result<Placed, CommandError> {
    if let (Some(_), Some(refused)) = (precondition, events.iter().find_map(|event| event.as_ref().err())) {
        return Err(mismatch(format!("makes the publish atomic, and one of its events is refused: {refused}")).into());
    }
    let Shares { mut results, live, of_streams } = Shares::of(hub, events, precondition.is_some()).await;
    hub.metrics().events_refused(results.iter().filter(|result| result.is_err()).count());
    if precondition.is_some() && (!live.places.is_empty() || of_streams.len() > 1) {
        return Err(mismatch("needs all events to belong to one stream".to_owned()).into());
    }
    if !live.places.is_empty() {
        let scratch = hub.publish(&live.events).await;
        for (place, matched) in live.places.into_iter().zip(scratch.matched) {
            results[place] = Ok(Accepted { matched, stored: None });
        }
    }
    let mut parts = Vec::with_capacity(of_streams.len());
    for (stream, share) in of_streams.into_iter().filter(|(_, share)| !share.events.is_empty()) {
        let receipt = stream.append(Append { events: share.events.clone(), precondition }).await;
        let origin = Arc::new(stream.origin());
        parts.push(Part { origin, durability: stream.settings().durability, share, receipt });
    }
    Ok(Placed { results, parts, _in_flight: in_flight })
}

/// Where the events of a publish go.
struct Shares {
    /// Of those that were refused; the others are accepted so far.
    results: Vec<Published>,
    /// Those that no stream holds.
    live: Share,
    of_streams: Vec<(Arc<dyn EventStream>, Share)>,
}

impl Share {
    fn with_room(events: usize, most_bytes: u64) -> Self {
        Self { places: Vec::with_capacity(events), events: Vec::with_capacity(events), most_bytes }
    }
}

impl Shares {
    /// Where they are not `together`, those are refused alone that are larger than all that their stream keeps.
    async fn of(hub: &Hub, events: Vec<Result<Event, EventError>>, together: bool) -> Self {
        let mut turn = Turn::default();
        turn.spend(events.len() / EVENTS_A_STEP).await;
        let total = events.len();
        let (results, live) = (Vec::with_capacity(total), Share::with_room(0, u64::MAX));
        let mut shares = Self { results, live, of_streams: Vec::new() };
        // The stream of the event before. Most publishes are to one topic, which is looked up once.
        let mut known: Option<usize> = None;
        for (place, event) in events.into_iter().enumerate() {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    shares.results.push(Err(error));
                    continue;
                }
            };
            if shares.share(known).events.last().is_none_or(|last| last.topic() != event.topic()) {
                let stream = hub.engine().and_then(|engine| engine.stream_of(event.topic()));
                known = stream.map(|stream| shares.place_of(stream, total - place));
                turn.spend(LOOK_STEPS + shares.of_streams.len() / EVENTS_A_STEP).await;
            }
            let share = shares.share(known);
            let (bytes, limit) = (event.encoded_len() as u64, share.most_bytes);
            if bytes > limit && !together {
                shares.results.push(Err(StreamError::NeverFits { bytes, limit }.into()));
                continue;
            }
            share.places.push(place);
            share.events.push(event);
            shares.results.push(Ok(Accepted::default()));
        }
        shares
    }

    fn share(&mut self, stream: Option<usize>) -> &mut Share {
        match stream {
            Some(at) => &mut self.of_streams[at].1,
            None => &mut self.live,
        }
    }

    /// Where the share of a stream is, which is made if there is none.
    fn place_of(&mut self, stream: Arc<dyn EventStream>, room: usize) -> usize {
        let at = self.of_streams.iter().position(|(known, _)| Arc::ptr_eq(known, &stream));
        at.unwrap_or_else(|| {
            let most_bytes = stream.settings().max_bytes.unwrap_or(u64::MAX);
            self.of_streams.push((stream, Share::with_room(room, most_bytes)));
            self.of_streams.len() - 1
        })
    }
}

impl Placed {
    /// Waits until the events are stored, hands them to live subscriptions, and tells what became of each.
    pub async fn store(mut self, hub: &Hub, scratch: &mut Scratch) -> Vec<Published> {
        for part in std::mem::take(&mut self.parts) {
            let Part { origin, durability, share, receipt } = part;
            let appended = match receipt {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            };
            match appended {
                Ok(appended) => {
                    Turn::default().spend(appended.len()).await;
                    let matched = route(hub, share.events, &appended, scratch).await;
                    for ((place, Appended { sequence, duplicate, .. }), matched) in
                        share.places.into_iter().zip(appended).zip(matched)
                    {
                        let stored = StoredAt { origin: Arc::clone(&origin), sequence, duplicate, durability };
                        self.results[place] = Ok(Accepted { matched, stored: Some(stored) });
                    }
                }
                Err(error) => {
                    hub.metrics().events_refused(share.places.len());
                    if matches!(error, AppendError::QuotaUsedUp { .. }) {
                        hub.metrics().quota_refused(Quota::StoredBytes.name());
                    }
                    let error = EventError::from(of_append(&error, &origin));
                    for place in share.places {
                        self.results[place] = Err(error.clone());
                    }
                }
            }
        }
        self.results
    }
}

/// Hands stored events to live subscriptions, except those that were stored before, and tells to how many each went.
async fn route(hub: &Hub, mut events: Vec<Event>, appended: &[Appended], scratch: &mut Scratch) -> Vec<u64> {
    if appended.iter().any(|appended| appended.duplicate) {
        let mut new = appended.iter().map(|appended| !appended.duplicate);
        events.retain(|_| new.next().unwrap_or_default());
    }
    hub.publish_with(&events, scratch).await;
    let mut matched = scratch.matched.iter().copied();
    appended.iter().map(|one| if one.duplicate { 0 } else { matched.next().unwrap_or_default() }).collect()
}

fn mismatch(problem: String) -> StreamError {
    StreamError::Mismatch { field: "precondition", problem }
}

/// An append that was refused, in the words of the hub.
fn of_append(error: &AppendError, origin: &Origin) -> StreamError {
    match error {
        AppendError::Closed => StreamError::NotFound(origin.stream.to_string()),
        AppendError::SequenceMismatch { actual } => StreamError::SequenceMismatch { actual: *actual },
        AppendError::MixedTopics => mismatch("on a topic needs events of one topic".to_owned()),
        AppendError::TooManyTopics { limit } => StreamError::TooMany { what: "topics in this stream", limit: *limit },
        AppendError::QuotaUsedUp { limit } => StreamError::QuotaUsedUp { limit: *limit },
        AppendError::NeverFits { bytes, limit } => StreamError::NeverFits { bytes: *bytes, limit: *limit },
        AppendError::NoMemory(full) => of_memory(*full),
        AppendError::TooLarge { .. } => StreamError::Mismatch { field: "events", problem: error.to_string() },
        AppendError::Store(error) => of_store(error),
    }
}

/// What a stream has no memory for, in the words of the hub.
pub fn of_memory(full: MemoryFull) -> StreamError {
    match full.of {
        Use::MemoryStreams => StreamError::MemoryStreamFull,
        of => StreamError::NoMemory { of: of.name() },
    }
}

/// Why the handle of a stream is no longer good, in the words of the hub.
pub(super) fn of_closed(stream: &dyn EventStream) -> StreamError {
    of_read(&stream.check().err().unwrap_or(ReadError::Closed), stream.name())
}

/// Why a stream could not be read, in the words of the hub. Where it matters what is lost, that is for the caller to say.
pub fn of_read(error: &ReadError, stream: &StreamName) -> StreamError {
    match error {
        ReadError::Store(error) => of_store(error),
        ReadError::Closed | ReadError::Lost { .. } => StreamError::NotFound(stream.to_string()),
    }
}

/// Why nothing could be taken out of a stream, in the words of the hub.
pub fn of_purge(error: &PurgeError, stream: &StreamName) -> StreamError {
    match error {
        PurgeError::Store(error) => of_store(error),
        PurgeError::Closed => StreamError::NotFound(stream.to_string()),
    }
}

/// What the store could not do, in the words of the hub.
pub fn of_store(error: &StoreError) -> StreamError {
    match error {
        StoreError::Full => StreamError::Full,
        StoreError::Busy { limit } => StreamError::TooMany { what: "calls that change streams waiting", limit: *limit },
        StoreError::Recovering => StreamError::Recovering,
        StoreError::Unavailable => StreamError::Unavailable,
        StoreError::Corrupt { what } => StreamError::Corrupt(what.clone()),
    }
}
