//! The requests of one session, decoded and checked. A large publish is looked at in parts, between which others work.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio_stream::Stream;

use super::{
    command::{self, Decoded},
    event,
    event_ids::EventIds,
    framer::Framer,
};
use crate::{
    model::{CommandError, Event, EventError},
    session::{Command, Precondition, Request},
    tasks::Turn,
};

/// What it costs to look at an event, in steps,
const EVENT_STEPS: usize = 8;
/// besides one for this many bytes of it, which are copied;
const COPIED_BYTES_A_STEP: usize = 512;
/// and to decode a command, one for this many bytes.
const DECODED_BYTES_A_STEP: usize = 32;
/// So many events are looked at together.
const EVENTS_TOGETHER: usize = 64;

/// The requests of a session.
#[derive(Debug)]
pub(super) struct Decoding {
    frames: Framer,
    max_event_bytes: usize,
    ids: EventIds,
    turn: Turn,
    /// The one that is being looked at.
    publish: Option<Box<Publish>>,
}

/// A publish, of whose events some were looked at.
#[derive(Debug)]
pub(super) struct Publish {
    request_id: i64,
    place: &'static str,
    precondition: Option<Precondition>,
    left: std::vec::IntoIter<Bytes>,
    events: Vec<Result<Event, EventError>>,
}

impl Decoding {
    pub(super) fn new(frames: Framer, max_event_bytes: usize, ids: EventIds) -> Self {
        Self { frames, max_event_bytes, ids, turn: Turn::default(), publish: None }
    }
}

impl Stream for Decoding {
    type Item = Result<Request, CommandError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            ready!(this.turn.poll_settle(context));
            if let Some(publish) = &mut this.publish {
                this.turn.note(accept_some(
                    &mut publish.left,
                    &mut publish.events,
                    this.max_event_bytes,
                    &mut this.ids,
                ));
                if publish.left.len() > 0 {
                    continue;
                }
            }
            if let Some(publish) = this.publish.take() {
                return Poll::Ready(Some(Ok(publish.whole())));
            }
            let Some(frame) = ready!(Pin::new(&mut this.frames).poll_next(context)?) else { return Poll::Ready(None) };
            let bytes = frame.len();
            match command::decode(frame) {
                Decoded::Whole(request) => {
                    this.turn.note(bytes / DECODED_BYTES_A_STEP);
                    return Poll::Ready(Some(Ok(request)));
                }
                Decoded::Publish(publish) => this.publish = Some(Box::new(publish)),
            }
        }
    }
}

impl Publish {
    pub(super) fn new(
        request_id: i64,
        place: &'static str,
        precondition: Option<Precondition>,
        events: Vec<Bytes>,
    ) -> Self {
        let known = Vec::with_capacity(events.len());
        Self { request_id, place, precondition, left: events.into_iter(), events: known }
    }

    fn whole(self) -> Request {
        let Self { request_id, place, precondition, events, .. } = self;
        Request { request_id, place, command: Ok(Command::Publish { events, precondition }) }
    }
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
        known.push(event::accept(&raw, max_event_bytes, ids));
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
        grpc::wire::{self, v1},
        proto::v1 as client,
        session::FrameMemory,
    };

    #[tokio::test]
    async fn a_large_publish_takes_many_turns_and_is_whole_in_the_end() {
        let event = |n: usize| client::Event { topic: format!("a.{n}"), ..client::Event::default() };
        let publish = client::PublishRequest { events: (0..10_000).map(event).collect(), precondition: None };
        let command = Some(client::session_request::Command::Publish(publish));
        let message = client::SessionRequest { request_id: 7, command }.encode_to_vec();
        let bytes = [&wire::prefix(message.len())[..], &message].concat();
        let body = Body::new(StreamBody::new(tokio_stream::once(Ok::<_, Infallible>(Frame::data(Bytes::from(bytes))))));
        let frames = Framer::new(body, Arc::new(FrameMemory::new(1)), Duration::from_secs(1));
        let mut requests = Decoding::new(frames, 1_000, EventIds::new("s"));
        let mut turns = 0;
        let request = poll_fn(|context| {
            turns += 1;
            Pin::new(&mut requests).poll_next(context)
        });
        let request = request.await.expect("a request").expect("whole");
        let Ok(Command::Publish { events, .. }) = request.command else { panic!("no publish") };
        let topics = events.iter().map(|event| event.as_ref().expect("good").topic().to_string());
        assert!(topics.eq((0..10_000).map(|n| format!("a.{n}"))));
        assert!((8..20).contains(&turns), "80,000 steps in {turns} turns");
        assert_eq!(v1::SessionRequest::decode(&message[..]).expect("as above").request_id, request.request_id);
    }
}
