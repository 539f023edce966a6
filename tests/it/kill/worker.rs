//! A member of the group of the small stream, over the lives of many hubs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use switchyard::proto::v1::{
    AckMode, AckOutcome, Acknowledge, Acknowledged, ReceivedEvent, SessionRequest, Subscribe, SubscriptionSpec,
    hub_service_client::HubServiceClient, session_request::Command as Wire, session_response::Frame,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Channel;

use super::{
    Phase, connect,
    ledger::{Ledger, POISON, WHY},
    members::is_over,
    squeezed::{MAX_ATTEMPTS, SMALL, TEAM},
};
use crate::{
    harness::{pause, soon},
    workplace::ms,
};

/// Longer than any test.
const NEVER_MS: i64 = 3_600_000;

pub(super) struct Worker {
    /// Keeps what it has for long enough that the stream loses some of it.
    is_slow: bool,
    /// Drops its session now and then, with events in its hands: they come again, and those that are lost too often fail.
    drops: bool,
    ledger: Arc<Ledger>,
    random: fastrand::Rng,
    phase: watch::Receiver<Phase>,
}

/// One session.
struct Visit {
    life: usize,
    commands: mpsc::Sender<SessionRequest>,
    held: Vec<ReceivedEvent>,
    requests: i64,
    open: HashMap<i64, Said>,
}

/// What was said of some events, and is not answered.
struct Said {
    outcome: AckOutcome,
    sequences: Vec<i64>,
    /// True when no other attempt is made.
    is_last: bool,
    redrives_over: usize,
}

impl Worker {
    pub(super) fn new(
        is_slow: bool,
        drops: bool,
        ledger: &Arc<Ledger>,
        random: fastrand::Rng,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self { is_slow, drops, ledger: Arc::clone(ledger), random, phase }
    }

    pub(super) async fn work(mut self) {
        loop {
            let phase = *self.phase.borrow_and_update();
            if phase == Phase::Over {
                return;
            }
            if let Some(life) = phase.life()
                && let Some(client) = connect(life.address).await
            {
                self.visit(client, life.number).await;
            }
            pause(Duration::from_millis(2)).await;
        }
    }

    /// Works over one session until the hub dies, the session is dropped, or all is over.
    async fn visit(&mut self, mut client: HubServiceClient<Channel>, life: usize) {
        let (commands, receiver) = mpsc::channel(256);
        let (stream, group) = (SMALL.to_owned(), TEAM.to_owned());
        let spec = SubscriptionSpec { stream, group, ack_mode: AckMode::Explicit.into(), ..Default::default() };
        let subscribe = Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) });
        let mut visit = Visit { life, commands, held: Vec::new(), requests: 10, open: HashMap::new() };
        visit.send(1, subscribe).await;
        let Ok(frames) = client.session(ReceiverStream::new(receiver)).await else { return };
        let mut frames = frames.into_inner();
        let time = if self.is_slow { 10..100 } else { 1..10 };
        loop {
            let work = Duration::from_millis(self.random.u64(time.clone()));
            let frame = tokio::select! {
                frame = soon("a frame", frames.next()) => frame,
                () = pause(work), if !visit.held.is_empty() => {
                    if self.drops && self.random.u32(..100) == 0 || !self.speak(&mut visit).await {
                        return;
                    }
                    continue;
                }
                () = is_over(self.phase.clone()) => return,
            };
            let Some(Ok(frame)) = frame else { return };
            match frame.frame.expect("a frame") {
                Frame::Events(events) => {
                    events.events.iter().for_each(|received| self.ledger.delivered(life, received));
                    visit.held.extend(events.events);
                }
                Frame::Gap(gap) => self.ledger.gap(&gap),
                Frame::Acknowledged(told) => visit.answered(&self.ledger, frame.request_id, &told),
                Frame::Welcome(_) | Frame::Subscribed(_) | Frame::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Says of everything it has what became of it.
    async fn speak(&mut self, visit: &mut Visit) -> bool {
        for received in std::mem::take(&mut visit.held) {
            let is_last = received.attempt == MAX_ATTEMPTS;
            let (outcome, delay) = self.outcome(&received);
            let said = Said {
                outcome,
                sequences: vec![received.sequence],
                is_last: is_last || outcome == AckOutcome::Reject,
                redrives_over: self.ledger.redrives_over(),
            };
            if !visit.tell(&self.ledger, said, delay).await {
                return false;
            }
        }
        true
    }

    fn outcome(&mut self, received: &ReceivedEvent) -> (AckOutcome, i64) {
        let topic = received.event.as_ref().map(|event| event.topic.as_str());
        match received.sequence % 10 {
            _ if topic == Some(POISON) => (AckOutcome::Nack, NEVER_MS),
            // Some are done once they were given back.
            5 if self.random.u32(..4) > 0 => (AckOutcome::Reject, 0),
            6 if self.random.u32(..8) > 0 => (AckOutcome::Nack, self.random.i64(0..20)),
            _ => (AckOutcome::Ack, 0),
        }
    }
}

impl Visit {
    async fn send(&self, request_id: i64, command: Wire) -> bool {
        let request = SessionRequest { request_id, command: Some(command) };
        soon("room for a command", self.commands.send(request)).await.is_ok()
    }

    async fn tell(&mut self, ledger: &Ledger, said: Said, delay: i64) -> bool {
        if said.outcome == AckOutcome::Ack {
            ledger.say_done(&said.sequences);
        }
        let mut told = Acknowledge { subscription_id: 1, sequences: said.sequences.clone(), ..Acknowledge::default() };
        told.set_outcome(said.outcome);
        told.reason = WHY.into();
        told.delay = Some(ms(delay)).filter(|_| said.outcome == AckOutcome::Nack);
        self.requests += 1;
        self.open.insert(self.requests, said);
        self.send(self.requests, Wire::Acknowledge(told)).await
    }

    fn answered(&mut self, ledger: &Ledger, request_id: i64, told: &Acknowledged) {
        let said = self.open.remove(&request_id).expect("an answer to what was said");
        // Whatever the stream has removed meanwhile: the word of whoever has it counts.
        assert!(told.results.iter().all(|result| result.status.is_none()), "{told:?}");
        if said.outcome == AckOutcome::Ack {
            ledger.stored_as_done(&said.sequences, self.life);
        } else if said.is_last {
            ledger.stored_as_given_up(&said.sequences, self.life, said.redrives_over);
        }
    }
}
