//! A small stream that loses events before its group is done with them, by its limit and by purges, with dead letters that are
//! given back all the time. Whatever was with the group when it went: nothing of it may hold up what comes after, what is
//! there in the end reaches a member, and no letter is both there and with the group.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use switchyard::proto::v1::{
    AckMode, AckOutcome, Acknowledge, Event, PublishRequest, PurgeStreamRequest, RedriveDeadLettersRequest,
    SubscriptionSpec, event::Payload, group_service_client::GroupServiceClient, session_request::Command as Wire,
    session_response::Frame, stream_service_client::StreamServiceClient,
};
use tokio::time::timeout;

use crate::{
    judge::{ask, state_of},
    session::{Next, PATIENCE, Session, connect},
    world::{Phase, World, pause},
};

pub const SMALL: &str = "small";
pub const LETTERS: &str = "letters";
pub const TEAM: &str = "team";

pub struct Squeezed {
    world: Rc<World>,
    random: fastrand::Rng,
    published: u64,
    /// What came since the stream was emptied for good.
    last: BTreeSet<String>,
}

impl Squeezed {
    pub fn new(world: &Rc<World>) -> Self {
        world.books.borrow_mut().reading += 1;
        Self { random: world.random("squeezed"), world: Rc::clone(world), published: 0, last: BTreeSet::new() }
    }

    pub async fn work(mut self) {
        while self.world.books.borrow().epoch.is_none() {
            pause(10).await;
        }
        while self.world.phase() == Phase::Work {
            self.visit().await;
            pause(self.random.u64(5..50)).await;
        }
        self.finish().await;
        self.world.books.borrow_mut().reading -= 1;
    }

    fn wish() -> SubscriptionSpec {
        let (stream, group) = (SMALL.to_owned(), TEAM.to_owned());
        SubscriptionSpec { stream, group, ack_mode: AckMode::Explicit.into(), ..SubscriptionSpec::default() }
    }

    fn events(&mut self, count: u64) -> Vec<Event> {
        let first = self.published;
        self.published += count;
        let event = |number: u64| Event {
            topic: format!("small.{}", number % 3),
            key: if number.is_multiple_of(4) { "k".to_owned() } else { String::new() },
            payload: Some(Payload::Text(number.to_string())),
            ..Event::default()
        };
        (first..first + count).map(event).collect()
    }

    /// Publishes, works, purges and gives back, as it comes.
    async fn visit(&mut self) {
        let Some(mut session) = Session::open(&self.world, "squeezed", "").await else { return };
        if !session.subscribe(1, Self::wish()).await {
            return;
        }
        while self.world.phase() == Phase::Work {
            let goes_on = match self.random.u32(..12) {
                0 => self.purge().await,
                1 => self.redrive().await,
                2..5 => {
                    let count = self.random.u64(1..=12);
                    let request = PublishRequest { events: self.events(count), precondition: None };
                    session.send(7, Wire::Publish(request)).await
                }
                _ => match session.next(Duration::from_millis(self.random.u64(5..40))).await {
                    Next::Frame(_, Frame::Events(events)) => {
                        let sequences = events.events.iter().map(|event| event.sequence).collect();
                        self.say(&mut session, sequences).await
                    }
                    Next::Frame(_, Frame::Ended(_) | Frame::Error(_)) | Next::Lost => false,
                    Next::Frame(..) | Next::Idle => true,
                },
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Something of each: that it is done, that it is to be tried again long after the run, that it is a dead letter, nothing.
    async fn say(&mut self, session: &mut Session, sequences: Vec<i64>) -> bool {
        for sequence in sequences {
            let outcome = match self.random.u32(..8) {
                0..3 => AckOutcome::Ack,
                3 | 4 => AckOutcome::Nack,
                5 | 6 => AckOutcome::Reject,
                _ => continue,
            };
            let delay = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
            let delay = delay.filter(|_| outcome == AckOutcome::Nack);
            let mut told =
                Acknowledge { subscription_id: 1, sequences: vec![sequence], delay, ..Acknowledge::default() };
            told.set_outcome(outcome);
            if !session.send(8, Wire::Acknowledge(told)).await {
                return false;
            }
        }
        true
    }

    async fn purge(&mut self) -> bool {
        let filter = if self.random.bool() { "small.1".to_owned() } else { String::new() };
        let request = PurgeStreamRequest { name: SMALL.into(), filter, ..PurgeStreamRequest::default() };
        let Some(channel) = connect().await else { return false };
        let mut client = StreamServiceClient::new(channel);
        timeout(PATIENCE, client.purge_stream(request)).await.is_ok_and(|told| told.is_ok())
    }

    async fn redrive(&mut self) -> bool {
        let (stream, group) = (SMALL.to_owned(), TEAM.to_owned());
        let request = RedriveDeadLettersRequest { stream, group, sequences: Vec::new() };
        let Some(channel) = connect().await else { return false };
        let mut client = GroupServiceClient::new(channel);
        timeout(PATIENCE, client.redrive_dead_letters(request)).await.is_ok_and(|told| told.is_ok())
    }

    /// Nothing fails any more. All that the group holds leaves the stream, some of it for an hour: what comes then is worked
    /// off as if it had never been.
    async fn finish(&mut self) {
        let purge = |channel| async move {
            let request = PurgeStreamRequest { name: SMALL.into(), ..PurgeStreamRequest::default() };
            StreamServiceClient::new(channel).purge_stream(request).await
        };
        ask(purge).await.expect("the stream is there");
        let expected: BTreeSet<String> = (self.published..self.published + 20).map(|n| n.to_string()).collect();
        let mut unsent = Some(self.events(20));
        while !self.last.is_superset(&expected) {
            self.finish_visit(&mut unsent).await;
        }
        loop {
            let state = state_of(SMALL, TEAM).await;
            if (state.pending, state.unacked, state.blocked) == (0, 0, 0) {
                return;
            }
            self.finish_visit(&mut unsent).await;
        }
    }

    async fn finish_visit(&mut self, unsent: &mut Option<Vec<Event>>) {
        let Some(mut session) = Session::open(&self.world, "squeezed", "").await else { return };
        if !session.subscribe(1, Self::wish()).await {
            return;
        }
        let sent = unsent.take();
        if let Some(events) = sent.clone() {
            let request = PublishRequest { events, precondition: None };
            assert!(session.send(7, Wire::Publish(request)).await, "nothing fails any more");
        }
        loop {
            match session.next(Duration::from_millis(500)).await {
                Next::Frame(_, Frame::Events(events)) => {
                    let mut told = Acknowledge { subscription_id: 1, ..Acknowledge::default() };
                    for received in events.events {
                        told.sequences.push(received.sequence);
                        self.last.insert(crate::world::text(&received).to_owned());
                    }
                    if !session.send(8, Wire::Acknowledge(told)).await {
                        return;
                    }
                }
                // The disk has room again, and the hub has not seen it yet.
                Next::Frame(7, Frame::Published(told)) if told.results.iter().any(|result| result.status.is_some()) => {
                    *unsent = sent;
                    return;
                }
                Next::Frame(7, Frame::Error(_)) => {
                    *unsent = sent;
                    return;
                }
                Next::Frame(_, Frame::Ended(_)) | Next::Idle | Next::Lost => return,
                Next::Frame(..) => {}
            }
        }
    }
}
