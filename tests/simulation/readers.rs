//! Readers of the stream, which go on where they were, and a client that subscribes to all sorts of things.

use std::{rc::Rc, time::Duration};

use switchyard::proto::v1::{
    AddCredit, Credit, PublishRequest, ResumeOutcome, StartPosition, StartPreset, SubscriptionSpec, Unsubscribe,
    session_request::Command as Wire, session_response::Frame, start_position::Position,
};

use crate::{
    session::{Next, Session, is_unavailable},
    world::{Phase, STREAM, Token, World, numbered, pause, text},
};

pub struct Reader {
    world: Rc<World>,
    who: String,
    filters: Vec<String>,
    /// Asks for so many events at a time; `None` leaves it to the hub.
    credit: Option<i64>,
    random: fastrand::Rng,
    token: Option<String>,
    last: i64,
}

impl Reader {
    pub fn new(world: &Rc<World>, who: &str, filters: &[&str], credit: Option<i64>) -> Self {
        world.books.borrow_mut().reading += 1;
        let random = world.random(who);
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        Self { world: Rc::clone(world), who: who.into(), filters, credit, random, token: None, last: 0 }
    }

    pub async fn work(mut self) {
        while self.world.books.borrow().epoch.is_none() {
            pause(10).await;
        }
        while !self.read_on().await {
            pause(self.random.u64(5..50)).await;
        }
        self.world.books.borrow_mut().reading -= 1;
    }

    fn wish(&self) -> SubscriptionSpec {
        let position = match &self.token {
            Some(token) => Position::ResumeToken(token.clone()),
            None => Position::Preset(StartPreset::Earliest.into()),
        };
        SubscriptionSpec {
            stream: STREAM.into(),
            filters: self.filters.clone(),
            start: Some(StartPosition { position: Some(position) }),
            credit: self.credit.map(|events| Credit { events, bytes: 0 }),
            ..SubscriptionSpec::default()
        }
    }

    fn keep(&mut self, token: String) {
        let known = Token { text: token.clone(), filters: self.filters.clone(), last: self.last };
        self.world.books.borrow_mut().tokens.push(known);
        self.token = Some(token);
    }

    /// True when everything is read.
    async fn read_on(&mut self) -> bool {
        // Seen before the subscription is opened: it then catches up with all there is.
        let finishes = self.world.phase() >= Phase::Read;
        let Some(mut session) = Session::open(&self.world, &self.who, "").await else { return false };
        if !session.subscribe(1, self.wish()).await {
            return false;
        }
        let mut left = self.credit.unwrap_or(i64::MAX);
        loop {
            match session.next(Duration::from_millis(100)).await {
                Next::Frame(_, Frame::Subscribed(subscribed)) => {
                    let expected = if self.token.is_some() { ResumeOutcome::Resumed } else { ResumeOutcome::Fresh };
                    let told = (subscribed.resume_outcome(), Some(subscribed.epoch));
                    assert_eq!(told, (expected, self.world.books.borrow().epoch), "{}", self.who);
                }
                Next::Frame(_, Frame::Events(events)) => {
                    left -= events.events.len() as i64;
                    assert!(left >= 0, "{} got more than it asked for", self.who);
                    for received in &events.events {
                        assert!(received.sequence > self.last, "{}: {} again", self.who, received.sequence);
                        self.last = received.sequence;
                        let mut books = self.world.books.borrow_mut();
                        let read = books.read.entry(self.who.clone()).or_default();
                        read.push((received.sequence, text(received).to_owned()));
                    }
                    self.keep(events.resume_token);
                    if let (0, Some(events)) = (left, self.credit) {
                        let more = AddCredit { subscription_id: 1, credit: Some(Credit { events, bytes: 0 }) };
                        if !session.send(0, Wire::Credit(more)).await {
                            return false;
                        }
                        left = events;
                    }
                }
                Next::Frame(_, Frame::Progress(progress)) => {
                    self.keep(progress.resume_token);
                    if finishes && progress.caught_up {
                        return true;
                    }
                }
                Next::Frame(_, Frame::Heartbeat(_)) => {}
                Next::Frame(_, Frame::Ended(ended)) => {
                    let status = ended.status.unwrap_or_default();
                    assert!(is_unavailable(status.code), "{}: {status:?}", self.who);
                    return false;
                }
                Next::Frame(_, frame) => panic!("{}: {frame:?}", self.who),
                Next::Idle if !finishes && self.world.phase() >= Phase::Read => return false,
                Next::Idle => {}
                Next::Lost => return false,
            }
            if self.world.phase() == Phase::Work && self.random.u32(..200) == 0 {
                return false;
            }
        }
    }
}

/// Subscribes and unsubscribes at random over one session, to live topics, streams, and what there is not. That each
/// subscribe is answered once, and that nothing comes after an end, its session checks.
pub struct Wanderer {
    world: Rc<World>,
    random: fastrand::Rng,
    next: i64,
}

impl Wanderer {
    pub fn new(world: &Rc<World>) -> Self {
        Self { world: Rc::clone(world), random: world.random("wanderer"), next: 1 }
    }

    pub async fn work(mut self) {
        while self.world.phase() < Phase::Read {
            self.wander().await;
            pause(self.random.u64(5..50)).await;
        }
    }

    fn wish(&mut self) -> SubscriptionSpec {
        let start = [StartPreset::New, StartPreset::Earliest, StartPreset::LastPerTopic][self.random.usize(..3)];
        let start = Some(StartPosition { position: Some(Position::Preset(start.into())) });
        match self.random.u32(..6) {
            0 => SubscriptionSpec { stream: "none".into(), ..SubscriptionSpec::default() },
            1 => SubscriptionSpec { filters: vec!["not a filter".into()], ..SubscriptionSpec::default() },
            2 => SubscriptionSpec { stream: STREAM.into(), start, max_events: 5, ..SubscriptionSpec::default() },
            3 => SubscriptionSpec { stream: STREAM.into(), start, ..SubscriptionSpec::default() },
            _ => SubscriptionSpec { filters: vec!["sim.>".into(), "live.*".into()], ..SubscriptionSpec::default() },
        }
    }

    async fn wander(&mut self) {
        let Some(mut session) = Session::open(&self.world, "wanderer", "").await else { return };
        let mut open: Vec<i64> = Vec::new();
        // The last live event of each subscription: those of one publisher come in order, and once.
        let mut live: std::collections::HashMap<i64, u64> = std::collections::HashMap::new();
        let mut number = 0;
        let until = tokio::time::Instant::now() + Duration::from_millis(self.random.u64(500..4000));
        loop {
            let done = tokio::time::Instant::now() >= until;
            if done && session.is_answered() {
                return;
            }
            let sent = match self.random.u32(..4) {
                _ if done => true,
                0 if open.len() < 8 => {
                    let (id, wish) = (self.next, self.wish());
                    self.next += 1;
                    session.subscribe(id, wish).await
                }
                1 if !open.is_empty() => {
                    let subscription_id = open.swap_remove(self.random.usize(..open.len()));
                    session.send(2, Wire::Unsubscribe(Unsubscribe { subscription_id })).await
                }
                2 => {
                    number += 1;
                    let mut event = numbered(9, number);
                    event.topic = "live.wanderer".into();
                    session.send(0, Wire::Publish(PublishRequest { events: vec![event], precondition: None })).await
                }
                _ => true,
            };
            if !sent {
                return;
            }
            match session.next(Duration::from_millis(self.random.u64(1..60))).await {
                Next::Frame(_, Frame::Subscribed(subscribed)) => open.push(subscribed.subscription_id),
                Next::Frame(_, Frame::Ended(ended)) => open.retain(|id| *id != ended.subscription_id),
                Next::Frame(_, Frame::Events(events)) => {
                    for received in events.events.iter().filter(|received| received.stream.is_empty()) {
                        let (publisher, number) = crate::world::words(text(received));
                        if publisher == 9 {
                            let before = live.insert(events.subscription_id, number).unwrap_or(0);
                            assert!(number > before, "live event {number} came behind {before}");
                        }
                    }
                }
                Next::Lost => return,
                _ => {}
            }
        }
    }
}
