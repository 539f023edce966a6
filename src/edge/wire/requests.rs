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

use tokio_stream::Stream;

use super::{
    buffer::Message,
    command::{self, Decoded},
    publish::{EVENT_STEPS, Publish, events_bytes, for_publish, stores},
    waiting::Waiting,
};
use crate::{
    event::EventIds,
    hub::Hub,
    memory::{Client, Held},
    model::CommandError,
    session::Request,
    tasks::Turn,
};

/// To decode a command costs a step for this many bytes.
pub(in crate::edge) const DECODED_BYTES_A_STEP: usize = 32;

/// What an edge has made of a message of its client.
#[derive(Debug)]
pub(in crate::edge) enum Incoming {
    /// One to be decoded.
    Message(Message),
    /// One that is no request, and what is wrong with it.
    Refused(Request),
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

/// The requests of one session, of its messages as an edge has cut them.
#[derive(Debug)]
pub(in crate::edge) struct Requests<M> {
    messages: M,
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

impl<M> Requests<M> {
    pub(in crate::edge) fn new(messages: M, hub: Arc<Hub>, client: Arc<Client>, ids: EventIds) -> Self {
        Self { messages, hub, client, ids, turn: Turn::default(), waits: None, publish: None }
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
        if self.hub.keeps_streams() {
            let bytes = events_bytes(publish.left());
            publish.memory = for_publish(&mut held, bytes, &self.client, false).ok();
            if publish.memory.is_none() {
                self.turn.note(publish.left().len() * EVENT_STEPS);
                if stores(&self.hub, publish.left()) {
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
            self.turn.note(publish.accept_some(max_event_bytes, &mut self.ids));
            if publish.left().is_empty() {
                return Poll::Ready(self.publish.take().map(|publish| publish.whole()));
            }
        }
    }
}

impl<M, I> Stream for Requests<M>
where
    M: Stream<Item = Result<I, CommandError>> + Unpin,
    I: Into<Incoming>,
{
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
                Some(Ok(message)) => match message.into() {
                    Incoming::Message(message) => message,
                    Incoming::Refused(request) => return Poll::Ready(Some(Ok(request))),
                },
            };
            if let Some(request) = this.take(message) {
                return Poll::Ready(Some(Ok(request)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use prost::Message as _;

    use super::*;
    use crate::{hub::Setup, proto::v1 as client, session::Command};

    #[tokio::test]
    async fn a_large_publish_takes_many_turns_and_is_whole_in_the_end() {
        let event = |n: usize| client::Event { topic: format!("a.{n}"), ..client::Event::default() };
        let publish = client::PublishRequest { events: (0..10_000).map(event).collect(), precondition: None };
        let command = Some(client::session_request::Command::Publish(publish));
        let bytes = client::SessionRequest { request_id: 7, command }.encode_to_vec().into();
        let messages = tokio_stream::once(Ok(Message { bytes, held: None }));
        let hub = Arc::new(Hub::new(Setup::default()));
        let client = hub.memory().client();
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
        assert_eq!(request.request_id, 7);
    }
}
