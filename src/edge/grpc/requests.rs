//! The requests of a session: frame after frame decoded, in parts between which others work, and publishes let in as there
//! is memory for them.
//!
//! Events that wait to be stored are memory that the client makes the hub keep, from before they are decoded until their
//! publisher is answered. A session whose publish does not fit reads nothing more until it does. Events that belong to no
//! stream wait for no disk, and so they go on in any case. A publish of thousands of events is looked at in parts.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio_stream::Stream;

use super::{
    buffer::hold_more,
    command::{self, Decoded},
    framer::{Framer, Message},
    waiting::Waiting,
};
use crate::{
    event::{Event, EventIds},
    hub::{Hub, Precondition},
    memory::{Client, Held, MemoryFull, Use},
    model::{CommandError, EventError},
    session::{Command, Request},
    tasks::Turn,
};

/// What it costs to look at an event, in steps,
const EVENT_STEPS: usize = 2;
/// besides one for this many bytes of it, which are copied;
const COPIED_BYTES_A_STEP: usize = 512;
/// and to decode a command, one for this many bytes.
pub(super) const DECODED_BYTES_A_STEP: usize = 32;
/// So many events are looked at together.
const EVENTS_TOGETHER: usize = 64;

/// The requests of one session.
#[derive(Debug)]
pub(super) struct Requests {
    messages: Framer,
    hub: Arc<Hub>,
    client: Arc<Client>,
    ids: EventIds,
    turn: Turn,
    /// A publish for which there is no memory.
    waits: Option<Box<Waits>>,
    /// One that is being looked at.
    publish: Option<Box<Publish>>,
}

#[derive(Debug)]
struct Waits {
    publish: Box<Publish>,
    /// Of the frame.
    held: Option<Held>,
    bytes: usize,
    waiting: Waiting,
}

/// A publish, of whose events some were looked at.
#[derive(Debug)]
pub(super) struct Publish {
    request_id: i64,
    field_path: &'static str,
    precondition: Option<Precondition>,
    memory: Option<Held>,
    left: std::vec::IntoIter<Bytes>,
    events: Vec<Result<Event, EventError>>,
}

impl Requests {
    pub(super) fn new(messages: Framer, hub: Arc<Hub>, client: Arc<Client>, ids: EventIds) -> Self {
        let turn = Turn::default();
        Self { messages: messages.patient(), hub, client, ids, turn, waits: None, publish: None }
    }

    /// Decodes a frame. A publish is looked at later, and may have to wait for memory first.
    fn take(&mut self, message: Message) -> Option<Request> {
        let Message { bytes, mut held } = message;
        let frame_bytes = bytes.len();
        let mut publish = match command::decode(bytes) {
            Decoded::Whole(request) => {
                self.turn.note(frame_bytes / DECODED_BYTES_A_STEP);
                return Some(request);
            }
            Decoded::Publish(publish) => Box::new(publish),
        };
        if self.hub.engine().is_some() {
            let events = publish.left.as_slice();
            let bytes = command::events_bytes(events);
            publish.memory = for_publish(&mut held, bytes, &self.client, false).ok();
            if publish.memory.is_none() {
                self.turn.note(events.len() * EVENT_STEPS);
                if stores(&self.hub, events) {
                    self.waits = Some(Box::new(Waits { publish, held, bytes, waiting: Waiting::new() }));
                    return None;
                }
            }
        }
        self.publish = Some(publish);
        None
    }

    /// Looks at a publish until others are to work, or all of it was looked at.
    fn poll_publish(&mut self, context: &mut Context<'_>) -> Poll<Option<Request>> {
        let Some(publish) = &mut self.publish else { return Poll::Ready(None) };
        let max_event_bytes = self.hub.options().max_event_bytes;
        loop {
            ready!(self.turn.poll_settle(context));
            self.turn.note(accept_some(&mut publish.left, &mut publish.events, max_event_bytes, &mut self.ids));
            if publish.left.len() == 0 {
                return Poll::Ready(self.publish.take().map(|publish| publish.whole()));
            }
        }
    }
}

impl Stream for Requests {
    type Item = Result<Request, CommandError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            ready!(this.turn.poll_settle(context));
            if let Some(request) = ready!(this.poll_publish(context)) {
                return Poll::Ready(Some(Ok(request)));
            }
            if let Some(waits) = &mut this.waits {
                ready!(waits.waiting.poll(context));
                let Ok(memory) = for_publish(&mut waits.held, waits.bytes, &this.client, true) else { continue };
                let Some(mut waits) = this.waits.take() else { continue };
                waits.publish.memory = Some(memory);
                this.publish = Some(waits.publish);
                continue;
            }
            let message = match ready!(Pin::new(&mut this.messages).poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(message)) => message,
            };
            if let Some(request) = this.take(message) {
                return Poll::Ready(Some(Ok(request)));
            }
        }
    }
}

impl Publish {
    pub(super) fn new(
        request_id: i64,
        field_path: &'static str,
        precondition: Option<Precondition>,
        events: Vec<Bytes>,
    ) -> Self {
        let known = Vec::with_capacity(events.len());
        Self { request_id, field_path, precondition, memory: None, left: events.into_iter(), events: known }
    }

    fn whole(self) -> Request {
        let Self { request_id, field_path, precondition, memory, events, .. } = self;
        Request { request_id, field_path, command: Ok(Command::Publish { events, precondition, memory }) }
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
    events.iter().any(|raw| Event::topic_of(raw).is_some_and(|topic| hub.stores(topic)))
}

/// Checks the events of a call that is one publish.
pub(super) async fn accept(
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn, sync::Arc, time::Duration};

    use http_body::Frame;
    use http_body_util::StreamBody;
    use prost::Message;
    use tonic::body::Body;

    use super::*;
    use crate::{
        edge::grpc::{
            buffer::Lender,
            framer::Encoding,
            wire::{self, v1},
        },
        hub::Setup,
        proto::v1 as client,
    };

    #[tokio::test]
    async fn a_large_publish_takes_many_turns_and_is_whole_in_the_end() {
        let event = |n: usize| client::Event { topic: format!("a.{n}"), ..client::Event::default() };
        let publish = client::PublishRequest { events: (0..10_000).map(event).collect(), precondition: None };
        let command = Some(client::session_request::Command::Publish(publish));
        let message = client::SessionRequest { request_id: 7, command }.encode_to_vec();
        let bytes = [&wire::prefix(message.len())[..], &message].concat();
        let body = Body::new(StreamBody::new(tokio_stream::once(Ok::<_, Infallible>(Frame::data(Bytes::from(bytes))))));
        let hub = Arc::new(Hub::new(Setup::default()));
        let client = hub.memory().client();
        let lender = Lender { client: Arc::clone(&client), publishes: None };
        let messages = Framer::new(body, Encoding::Identity, lender, Duration::from_secs(1));
        let mut requests = Requests::new(messages, hub, client, EventIds::new("s"));
        let mut turns = 0;
        let request = poll_fn(|context| {
            turns += 1;
            Pin::new(&mut requests).poll_next(context)
        });
        let request = request.await.expect("a request").expect("whole");
        let Ok(Command::Publish { events, .. }) = request.command else { panic!("no publish") };
        let topics = events.iter().map(|event| event.as_ref().expect("good").topic().to_string());
        assert!(topics.eq((0..10_000).map(|n| format!("a.{n}"))));
        assert!((2..5).contains(&turns), "20,000 steps in {turns} turns");
        assert_eq!(v1::SessionRequest::decode(&message[..]).expect("as above").request_id, request.request_id);
    }
}
