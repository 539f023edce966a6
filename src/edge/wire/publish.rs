//! A publish on its way in: its events are checked some at a time, and memory is held for them from before that until their
//! publisher is answered.

use std::sync::Arc;

use bytes::Bytes;

use super::buffer::hold_more;
use crate::{
    event::{Event, EventIds},
    hub::{Hub, Precondition},
    memory::{Client, Held, MemoryFull, Use},
    model::EventError,
    session::{Command, Request},
    tasks::Turn,
};

/// What it costs to look at an event, in steps,
pub(in crate::edge) const EVENT_STEPS: usize = 2;
/// besides one for this many bytes of it, which are copied.
const COPIED_BYTES_A_STEP: usize = 512;
/// So many events are looked at together.
const EVENTS_TOGETHER: usize = 64;
/// What an event costs while it waits to be stored, besides its bytes: its header, its places in lists, and its result.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// A publish, of whose events some were looked at.
#[derive(Debug)]
pub(in crate::edge) struct Publish {
    request_id: i64,
    field_path: &'static str,
    precondition: Option<Precondition>,
    pub(in crate::edge) memory: Option<Held>,
    left: std::vec::IntoIter<Bytes>,
    events: Vec<Result<Event, EventError>>,
}

impl Publish {
    pub(in crate::edge) fn new(
        request_id: i64,
        field_path: &'static str,
        precondition: Option<Precondition>,
        events: Vec<Bytes>,
    ) -> Self {
        let known = Vec::with_capacity(events.len());
        Self { request_id, field_path, precondition, memory: None, left: events.into_iter(), events: known }
    }

    /// The events that were not looked at yet.
    pub(in crate::edge) fn left(&self) -> &[Bytes] {
        self.left.as_slice()
    }

    /// Looks at some more events. Tells how many steps that took.
    pub(in crate::edge) fn accept_some(&mut self, max_event_bytes: usize, ids: &mut EventIds) -> usize {
        accept_some(&mut self.left, &mut self.events, max_event_bytes, ids)
    }

    /// The request, once all events were looked at.
    pub(in crate::edge) fn whole(self) -> Request {
        let Self { request_id, field_path, precondition, memory, events, .. } = self;
        Request { request_id, field_path, command: Ok(Command::Publish { events, precondition, memory }) }
    }
}

/// Memory for events of so many bytes. `frame` is that of their frame, which is part of it if it counts as a publish.
pub(in crate::edge) fn for_publish(
    frame: &mut Option<Held>,
    bytes: usize,
    client: &Arc<Client>,
    again: bool,
) -> Result<Held, MemoryFull> {
    if let Some(mut held) = frame.take_if(|held| held.of() == Use::Publishes) {
        let more = bytes.saturating_sub(held.bytes());
        if let Err(full) = hold_more(&mut held, more, again) {
            *frame = Some(held);
            return Err(full);
        }
        held.shrink(held.bytes() - bytes);
        return Ok(held);
    }
    let mut memory = client.nothing(Use::Publishes);
    if again { memory.grow_again(bytes) } else { memory.grow(bytes) }.map(|()| memory)
}

/// True when one of the events belongs to a stream.
pub(in crate::edge) fn stores(hub: &Hub, events: &[Bytes]) -> bool {
    events.iter().any(|raw| Event::topic_of(raw).is_some_and(|topic| hub.stores(topic)))
}

/// Checks the events of a call that is one publish.
pub(in crate::edge) async fn accept(
    events: Vec<Bytes>,
    max_event_bytes: usize,
    ids: &mut EventIds,
) -> Vec<Result<Event, EventError>> {
    let (mut known, mut left, mut turn) = (Vec::with_capacity(events.len()), events.into_iter(), Turn::default());
    while left.len() > 0 {
        let steps = accept_some(&mut left, &mut known, max_event_bytes, ids);
        turn.spend(steps).await;
    }
    known
}

/// Looks at some more events. Tells how many steps that took.
fn accept_some(
    left: &mut std::vec::IntoIter<Bytes>,
    known: &mut Vec<Result<Event, EventError>>,
    max_event_bytes: usize,
    ids: &mut EventIds,
) -> usize {
    let (mut steps, before) = (0, known.len());
    while steps < EVENTS_TOGETHER * EVENT_STEPS && known.len() < before + EVENTS_TOGETHER {
        let Some(raw) = left.next() else { break };
        steps += EVENT_STEPS + raw.len() / COPIED_BYTES_A_STEP;
        known.push(Event::accept(&raw, max_event_bytes, ids));
    }
    steps
}

/// What the events of a publish cost until they are stored, in bytes.
pub(in crate::edge) fn events_bytes(events: &[Bytes]) -> usize {
    events.iter().map(|raw| raw.len() + EVENT_OVERHEAD_BYTES).sum()
}
