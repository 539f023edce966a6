//! The commands of a session: frame after frame decoded, and publishes let in as there is memory for them.
//!
//! Events that wait to be stored are memory that the client makes the hub keep, from before they are decoded until their
//! publisher is answered. A session whose publish does not fit reads nothing more until it does. Events that belong to no
//! stream wait for no disk, and so they go on in any case.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio_stream::Stream;

use super::{
    buffer::hold_more,
    command, event,
    event_ids::EventIds,
    framer::{Framer, Message},
    waiting::Waiting,
    wire::v1::session_request::Command as Wire,
};
use crate::{
    memory::{Client, Held, MemoryFull, Use},
    model::CommandError,
    session::{Hub, Request},
};

/// The commands of one session.
#[derive(Debug)]
pub(super) struct Requests {
    messages: Framer,
    hub: Arc<Hub>,
    client: Arc<Client>,
    ids: EventIds,
    /// A publish for which there is no memory.
    waits: Option<Box<Waits>>,
}

#[derive(Debug)]
struct Waits {
    message: Message,
    bytes: usize,
    waiting: Waiting,
}

impl Requests {
    pub(super) fn new(messages: Framer, hub: Arc<Hub>, client: Arc<Client>, ids: EventIds) -> Self {
        Self { messages: messages.patient(), hub, client, ids, waits: None }
    }

    /// Decodes a frame; `None` when it has to wait.
    fn take(&mut self, mut message: Message, mut memory: Option<Held>) -> Option<Request> {
        let decoded = match command::decode(message.bytes.clone()) {
            Ok(decoded) => decoded,
            Err(refused) => return Some(*refused),
        };
        if let (Wire::Publish(publish), true, None) = (&decoded.1, self.hub.engine().is_some(), &memory) {
            let bytes = command::events_bytes(&publish.events);
            memory = for_publish(&mut message.held, bytes, &self.client, false).ok();
            if memory.is_none() && stores(&self.hub, &publish.events) {
                self.waits = Some(Box::new(Waits { message, bytes, waiting: Waiting::new() }));
                return None;
            }
        }
        let max_event_bytes = self.hub.options().max_event_bytes;
        Some(command::request(decoded, memory, max_event_bytes, &mut self.ids))
    }
}

impl Stream for Requests {
    type Item = Result<Request, CommandError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let (message, memory) = if let Some(waits) = &mut this.waits {
                ready!(waits.waiting.poll(context));
                let memory = for_publish(&mut waits.message.held, waits.bytes, &this.client, true);
                let Ok(memory) = memory else { continue };
                let Some(waits) = this.waits.take() else { continue };
                (waits.message, Some(memory))
            } else {
                match ready!(Pin::new(&mut this.messages).poll_next(context)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(message)) => (message, None),
                }
            };
            if let Some(request) = this.take(message, memory) {
                return Poll::Ready(Some(Ok(request)));
            }
        }
    }
}

/// Memory for events of so many bytes. `frame` is that of their frame, which is part of it if it counts as a publish.
pub(super) fn for_publish(
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
pub(super) fn stores(hub: &Hub, events: &[Bytes]) -> bool {
    events.iter().any(|raw| event::topic_of(raw).is_some_and(|topic| hub.stores(topic)))
}
