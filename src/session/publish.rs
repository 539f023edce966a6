//! Publishing to streams: what belongs to one is stored first, and reaches live subscriptions only then.
//!
//! A publish has two halves. The first gives its events their places in their streams, and a session has only one at a time, so
//! that their order is that of the commands. The second waits until they are stored; meanwhile the session goes on.
//! Events of topics that no stream holds are routed in the first half.

use std::{future::Future, pin::Pin, sync::Arc};

use super::Hub;
use crate::{
    engine::{Append, AppendError, Appended, EventStream, Precondition, Receipt, StoreError},
    model::{CommandError, Durability, Event, EventError, Origin, StreamError},
    outbox::{Accepted, Published, StoredAt},
    router::Scratch,
};

/// A publish whose events have their places.
#[derive(Debug)]
pub struct Placed {
    /// None where it was refused.
    events: Vec<Option<Arc<Event>>>,
    results: Vec<Published>,
    parts: Vec<Part>,
}

/// The events of one stream.
#[derive(Debug)]
struct Part {
    origin: Arc<Origin>,
    durability: Durability,
    /// Which of the publish.
    places: Vec<usize>,
    receipt: Result<Receipt, AppendError>,
}

/// The first half of a publish.
pub(super) type Placing = Pin<Box<dyn Future<Output = (i64, Result<Placed, CommandError>)> + Send>>;
/// The second half.
pub(super) type Storing = Pin<Box<dyn Future<Output = (i64, Vec<Published>)> + Send>>;

/// Gives events their places in their streams, and routes those that have none. A precondition needs all events to be of
/// one stream.
pub async fn place(
    hub: &Hub,
    events: Vec<Result<Arc<Event>, EventError>>,
    precondition: Option<Precondition>,
) -> Result<Placed, CommandError> {
    if let (Some(_), Some(refused)) = (precondition, events.iter().find_map(|event| event.as_ref().err())) {
        return Err(mismatch(format!("makes the publish atomic, and an event of it is refused: {refused}")).into());
    }
    let mut results: Vec<Published> = Vec::with_capacity(events.len());
    let mut accepted = Vec::with_capacity(events.len());
    for event in events {
        results.push(event.as_ref().map(|_| Accepted::default()).map_err(Clone::clone));
        accepted.push(event.ok());
    }
    hub.metrics().events_refused(results.iter().filter(|result| result.is_err()).count());
    let events = accepted;
    let mut live: Vec<usize> = Vec::new();
    let mut of_streams: Vec<(Arc<dyn EventStream>, Vec<usize>)> = Vec::new();
    for (place, event) in events.iter().enumerate() {
        let Some(event) = event else { continue };
        let Some(stream) = hub.engine().and_then(|engine| engine.stream_of(event.topic())) else {
            live.push(place);
            continue;
        };
        match of_streams.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &stream)) {
            Some((_, places)) => places.push(place),
            None => of_streams.push((stream, vec![place])),
        }
    }
    if precondition.is_some() && (!live.is_empty() || of_streams.len() > 1) {
        return Err(mismatch("needs all events to be of one stream".to_owned()).into());
    }
    if !live.is_empty() {
        let routed: Vec<Arc<Event>> = live.iter().filter_map(|place| events[*place].clone()).collect();
        let scratch = hub.publish(&routed).await;
        for (place, matched) in live.into_iter().zip(scratch.matched) {
            results[place] = Ok(Accepted { matched, stored: None });
        }
    }
    let mut parts = Vec::with_capacity(of_streams.len());
    for (stream, places) in of_streams {
        let events = places.iter().filter_map(|place| events[*place].clone()).collect();
        let receipt = stream.append(Append { events, precondition }).await;
        let origin = Arc::new(Origin { stream: stream.name().clone(), epoch: stream.epoch() });
        parts.push(Part { origin, durability: stream.settings().durability, places, receipt });
    }
    Ok(Placed { events, results, parts })
}

impl Placed {
    /// Waits until the events are stored, hands them to live subscriptions, and tells what became of each.
    pub async fn store(mut self, hub: &Hub, scratch: &mut Scratch) -> Vec<Published> {
        for part in std::mem::take(&mut self.parts) {
            let Part { origin, durability, places, receipt } = part;
            let appended = match receipt {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            };
            match appended {
                Ok(appended) => {
                    let matched = self.route(hub, &places, &appended, scratch).await;
                    for ((place, Appended { sequence, duplicate, .. }), matched) in
                        places.iter().zip(appended).zip(matched)
                    {
                        let stored = StoredAt { origin: Arc::clone(&origin), sequence, duplicate, durability };
                        self.results[*place] = Ok(Accepted { matched, stored: Some(stored) });
                    }
                }
                Err(error) => {
                    hub.metrics().events_refused(places.len());
                    let error = EventError::from(of_append(&error, &origin));
                    for place in places {
                        self.results[place] = Err(error.clone());
                    }
                }
            }
        }
        self.results
    }

    /// Hands stored events to live subscriptions, except those that were stored before, and tells to how many each went.
    async fn route(&self, hub: &Hub, places: &[usize], appended: &[Appended], scratch: &mut Scratch) -> Vec<u64> {
        let of_place = |place: &usize| self.events[*place].clone();
        let new = places.iter().zip(appended).filter(|(_, appended)| !appended.duplicate);
        let events: Vec<Arc<Event>> = new.filter_map(|(place, _)| of_place(place)).collect();
        hub.publish_with(&events, scratch).await;
        let mut matched = scratch.matched.iter().copied();
        appended.iter().map(|one| if one.duplicate { 0 } else { matched.next().unwrap_or_default() }).collect()
    }
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
        AppendError::TooLarge { .. } => StreamError::Mismatch { field: "events", problem: error.to_string() },
        AppendError::Store(error) => of_store(error),
    }
}

/// What the store could not do, in the words of the hub.
pub fn of_store(error: &StoreError) -> StreamError {
    match error {
        StoreError::Full => StreamError::Full,
        StoreError::Unavailable => StreamError::Unavailable,
        StoreError::Corrupt { what } => StreamError::Corrupt(what.clone()),
    }
}
