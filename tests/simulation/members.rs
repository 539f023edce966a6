//! Members of a group on the stream.

use std::{collections::HashMap, rc::Rc, time::Duration};

use switchyard::proto::v1::{
    AckMode, AckOutcome, Acknowledge, Acknowledged, Reattach, SubscriptionSpec, Unsubscribe,
    session_request::Command as Wire, session_response::Frame,
};

use crate::{
    session::{Next, Session, is_unavailable},
    world::{GROUP, Phase, STREAM, World, pause, text},
};

pub struct Member {
    world: Rc<World>,
    who: String,
    /// It comes back under this name, with what it has in its hands.
    named: bool,
    /// The session it had last.
    session: String,
    random: fastrand::Rng,
    held: Vec<i64>,
    held_since: u64,
}

struct Visit {
    session: Session,
    open: HashMap<i64, Said>,
    requests: i64,
    /// Not a member yet, or not any more.
    away: bool,
}

struct Said {
    sequences: Vec<i64>,
    done: bool,
    carried: bool,
}

impl Member {
    pub fn new(world: &Rc<World>, who: &str, named: bool) -> Self {
        let random = world.random(who);
        let (world, who, session, held) = (Rc::clone(world), who.to_owned(), String::new(), Vec::new());
        Self { world, who, named, session, random, held, held_since: 0 }
    }

    pub async fn work(mut self) {
        while self.world.books.borrow().epoch.is_none() {
            pause(10).await;
        }
        while self.world.phase() < Phase::Over {
            self.visit().await;
            pause(self.random.u64(5..50)).await;
        }
    }

    /// One that comes back says what it has in its hands, or not: then it has all that it was sent.
    fn wish(&mut self) -> SubscriptionSpec {
        let (stream, group) = (STREAM.to_owned(), GROUP.to_owned());
        let says = self.named && self.random.bool();
        let reattach = says.then(|| Reattach { held_sequences: self.held.clone() });
        SubscriptionSpec { stream, group, ack_mode: AckMode::Explicit.into(), reattach, ..SubscriptionSpec::default() }
    }

    async fn visit(&mut self) {
        let name = if self.named { self.who.as_str() } else { "" };
        let opened = Session::open_again(&self.world, &self.who, name, &self.session).await;
        let Some(session) = opened else { return };
        self.session.clone_from(&session.id);
        let mut visit = Visit { session, open: HashMap::new(), requests: 10, away: true };
        if !visit.session.subscribe(1, self.wish()).await {
            return;
        }
        while self.world.phase() < Phase::Over || !visit.open.is_empty() {
            let wait = Duration::from_millis(self.random.u64(5..40));
            let goes_on = match visit.session.next(wait).await {
                Next::Frame(request_id, frame) => self.hear(&mut visit, request_id, frame).await,
                Next::Idle if !visit.away => self.speak(&mut visit, false).await,
                Next::Idle => true,
                Next::Lost => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    async fn hear(&mut self, visit: &mut Visit, request_id: i64, frame: Frame) -> bool {
        match frame {
            Frame::Subscribed(subscribed) => {
                assert_eq!(Some(subscribed.epoch), self.world.books.borrow().epoch);
                visit.away = false;
                let same = std::mem::replace(&mut self.held_since, visit.session.life) == visit.session.life;
                if self.named && same {
                    return self.speak(visit, true).await;
                }
                self.held.clear();
                true
            }
            Frame::Events(events) => {
                for received in &events.events {
                    self.brought(visit, received.sequence, text(received));
                }
                self.after_events(visit).await
            }
            Frame::Acknowledged(acknowledged) => {
                self.answered(visit, request_id, &acknowledged);
                true
            }
            Frame::Ended(ended) => {
                let status = ended.status.unwrap_or_default();
                if !visit.away {
                    assert!(is_unavailable(status.code), "{}: {status:?}", self.who);
                    return false;
                }
                if is_unavailable(status.code) {
                    return false;
                }
                assert_eq!(status.code, 0, "{}: {status:?}", self.who);
                assert!(visit.open.is_empty(), "{}: every word is answered before the end", self.who);
                visit.session.subscribe(1, self.wish()).await
            }
            Frame::Heartbeat(_) => true,
            // The group could not be reached when it was told.
            Frame::Error(status) if is_unavailable(status.code) => false,
            frame => panic!("{}: {frame:?}", self.who),
        }
    }

    fn brought(&mut self, visit: &Visit, sequence: i64, text: &str) {
        let mut books = self.world.books.borrow_mut();
        books.deliveries += 1;
        if let Some(done) = books.done.get(&sequence) {
            let before = *done > visit.session.life || (*done == visit.session.life && visit.away);
            let life = visit.session.life;
            assert!(before, "{sequence} was answered as done by hub {done}, and came to {} from hub {life}", self.who);
        }
        let known = books.brought.entry(sequence).or_insert_with(|| text.to_owned());
        assert_eq!(known, text, "{sequence} has changed");
        if !visit.away {
            self.held.push(sequence);
        }
    }

    async fn after_events(&mut self, visit: &mut Visit) -> bool {
        if visit.away {
            return true;
        }
        match self.random.u32(..40) {
            0 if self.world.phase() == Phase::Work => {
                visit.away = true;
                self.held.clear();
                visit.session.send(2, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await
            }
            1 if self.world.phase() == Phase::Work => false,
            2..20 => self.speak(visit, false).await,
            _ => true,
        }
    }

    async fn speak(&mut self, visit: &mut Visit, carried: bool) -> bool {
        let fails = self.random.u32(..4) == 0 && self.world.phase() == Phase::Work;
        let held = std::mem::take(&mut self.held);
        let (failed, done): (Vec<_>, Vec<_>) = held.into_iter().partition(|_| fails && self.random.u32(..3) == 0);
        for (sequences, outcome) in [(failed, AckOutcome::Nack), (done, AckOutcome::Ack)] {
            if sequences.is_empty() {
                continue;
            }
            let done = outcome == AckOutcome::Ack;
            if done {
                self.world.books.borrow_mut().said.extend(&sequences);
            }
            let mut told = Acknowledge { subscription_id: 1, sequences: sequences.clone(), ..Acknowledge::default() };
            told.set_outcome(outcome);
            visit.requests += 1;
            visit.open.insert(visit.requests, Said { sequences, done, carried });
            if !visit.session.send(visit.requests, Wire::Acknowledge(told)).await {
                return false;
            }
        }
        true
    }

    fn answered(&self, visit: &mut Visit, request_id: i64, acknowledged: &Acknowledged) {
        let said = visit.open.remove(&request_id).expect("an answer to what was said");
        assert_eq!(said.sequences.len(), acknowledged.results.len());
        for result in &acknowledged.results {
            match &result.status {
                None if said.done => {
                    self.world.books.borrow_mut().done.entry(result.sequence).or_insert(visit.session.life);
                }
                None => {}
                // Of what it had on a session before, the hub may have given up on it.
                Some(status) if said.carried && status.code == 9 => {}
                Some(status) => assert!(is_unavailable(status.code), "{}: {status:?}", self.who),
            }
        }
    }
}
