//! A small stream that loses events before its group is done with them, while the hub is killed: by its limit and by purges, with
//! a slow member, retries, and dead letters that are given back.
//!
//! One [`Owner`] publishes to the stream, one event behind the other, so that the sequence of an event tells its number. It
//! purges, and gives dead letters back. Again and again it stops and waits until the group has nothing left to do, while
//! hubs still die; then every event is to be accounted for ([`super::ledger`]).

use std::{collections::HashSet, sync::Arc, time::Duration};

use switchyard::proto::v1::{
    CreateGroupRequest, DeadLetter, GetGroupRequest, Group, GroupState, ListDeadLettersRequest, PublishRequest,
    PurgeDeadLettersRequest, PurgeStreamRequest, ReceivedEvent, RedriveDeadLettersRequest, StartPreset, Stream,
    SubscribeRequest, group_service_client::GroupServiceClient, hub_service_client::HubServiceClient,
    stream_service_client::StreamServiceClient, subscribe_response::Frame,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_stream::StreamExt;
use tonic::{Status, transport::Channel};

use super::{
    Life, Phase, is_lost,
    ledger::{KEPT, Ledger, POISON, numbered},
    still_at_work,
    worker::Worker,
};
use crate::{
    harness::{PATIENCE, channel, pause, soon},
    stored::{create, from, preset, stream},
    workplace::ms,
};

pub(super) const SMALL: &str = "small";
pub(super) const LETTERS: &str = "small-letters";
pub(super) const TEAM: &str = "team";
pub(super) const MAX_ATTEMPTS: i32 = 3;

pub(super) struct Squeezed {
    pub(super) ledger: Arc<Ledger>,
    owner: JoinSet<usize>,
    workers: JoinSet<()>,
}

impl Squeezed {
    pub(super) async fn start(life: Life, random: &mut fastrand::Rng, phase: &watch::Receiver<Phase>) -> Self {
        create(life.address, Stream { max_events: KEPT, ..stream(SMALL, &["small.>"]) }).await;
        create(life.address, stream(LETTERS, &["small-letters.>"])).await;
        let group = Group {
            stream: SMALL.into(),
            name: TEAM.into(),
            // Not a test of leases that end.
            ack_deadline: Some(ms(600_000)),
            max_attempts: Some(MAX_ATTEMPTS),
            backoff: vec![ms(5)],
            dead_letter_stream: LETTERS.into(),
            ..Group::default()
        };
        let request = CreateGroupRequest { group: Some(group), start: preset(StartPreset::Earliest) };
        GroupServiceClient::new(channel(life.address).await).create_group(request).await.expect("created");
        let ledger = Arc::new(Ledger::default());
        let (mut owner, mut workers) = (JoinSet::new(), JoinSet::new());
        let hub = Hub(phase.clone());
        owner.spawn(Owner { hub, random: random.fork(), ledger: Arc::clone(&ledger), published: 0 }.work());
        for (is_slow, drops) in [(false, false), (false, true), (true, false)] {
            workers.spawn(Worker::new(is_slow, drops, &ledger, random.fork(), phase.clone()).work());
        }
        Self { ledger, owner, workers }
    }

    pub(super) fn check_work(&mut self) {
        still_at_work(&mut self.owner);
        still_at_work(&mut self.workers);
    }

    /// Waits until all is published and done.
    pub(super) async fn until_done(&mut self) {
        let rounds = soon("the end of the small stream", self.owner.join_next()).await.expect("it works");
        println!("small: {} times all was accounted for; {}", rounds.expect("a report"), self.ledger.told());
    }

    pub(super) async fn until_over(&mut self) {
        while let Some(ended) = soon("a worker", self.workers.join_next()).await {
            ended.expect("a worker");
        }
    }

    /// What is done is so for the next hub as well.
    pub(super) async fn check(&self, life: Life) {
        let channel = channel(life.address).await;
        let state = state(channel.clone()).await.expect("told");
        assert_eq!((state.pending, state.unacked, state.blocked), (0, 0, 0));
        let events = read_all(channel.clone()).await.expect("read");
        self.ledger.check(&events, &letters(channel).await.expect("told"));
    }
}

/// The hub of the moment, whichever that is.
struct Hub(watch::Receiver<Phase>);

impl Hub {
    fn is_working(&self) -> bool {
        matches!(*self.0.borrow(), Phase::Work(_))
    }

    /// Asks the hub that is there; `None` when it died before it answered.
    async fn ask_one<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl Fn(Channel) -> F,
    ) -> Option<(T, Life)> {
        let life = self.0.borrow().life();
        let Some(life) = life else {
            pause(Duration::from_millis(2)).await;
            return None;
        };
        let channel = Channel::from_shared(format!("http://{}", life.address)).expect("a URL").connect().await.ok()?;
        match soon("an answer", call(channel)).await {
            Ok(answer) => Some((answer, life)),
            Err(status) => {
                assert!(is_lost(&status), "{status:?}");
                pause(Duration::from_millis(2)).await;
                None
            }
        }
    }

    /// Asks until a hub answers.
    async fn ask<T, F: Future<Output = Result<T, Status>>>(&self, call: impl Fn(Channel) -> F) -> (T, Life) {
        loop {
            if let Some(answer) = self.ask_one(&call).await {
                return answer;
            }
        }
    }
}

/// Whoever publishes, purges and gives back.
struct Owner {
    hub: Hub,
    random: fastrand::Rng,
    ledger: Arc<Ledger>,
    published: i64,
}

impl Owner {
    /// Gives how often all was accounted for.
    async fn work(mut self) -> usize {
        let mut rounds = 0;
        loop {
            let last = !self.hub.is_working();
            let target = self.published + self.random.i64(KEPT / 2..KEPT * 3);
            while self.published < target {
                match self.random.u32(..12) {
                    0 => self.purge_some().await,
                    1 => self.redrive().await,
                    _ => self.publish().await,
                }
            }
            self.settle().await;
            if self.random.bool() || last {
                self.redrive().await;
                self.settle().await;
            }
            rounds += 1;
            if last {
                return rounds;
            }
        }
    }

    async fn publish(&mut self) {
        let last = self.published + self.random.i64(1..=20);
        let events: Vec<_> = (self.published + 1..=last).map(numbered).collect();
        self.ledger.publishes(last);
        let publish = |channel| {
            let request = PublishRequest { events: events.clone(), precondition: None };
            async move { HubServiceClient::new(channel).publish(request).await }
        };
        let (response, _) = self.hub.ask(publish).await;
        let results = response.into_inner().results;
        assert!(results.iter().all(|result| result.status.is_none() && result.stream == SMALL), "{results:?}");
        let sequences: Vec<_> = results.iter().map(|result| result.sequence).collect();
        assert_eq!(sequences, (self.published + 1..=last).collect::<Vec<_>>(), "each is stored once, in order");
        self.published = last;
        pause(Duration::from_millis(self.random.u64(..8))).await;
    }

    /// Purges what the group may well hold.
    async fn purge_some(&mut self) {
        let up_to = self.published - self.random.i64(0..KEPT);
        let topics = ["", "small.1", POISON];
        let topic = topics[self.random.usize(..topics.len())];
        self.purge(topic, up_to).await;
    }

    async fn purge(&self, topic: &str, up_to: i64) {
        if up_to < 1 {
            return;
        }
        self.ledger.purges(topic, up_to);
        let purge = |channel| {
            let request = PurgeStreamRequest { name: SMALL.into(), up_to_sequence: up_to, filter: topic.into() };
            async move { StreamServiceClient::new(channel).purge_stream(request).await }
        };
        let (_, life) = self.hub.ask(purge).await;
        self.ledger.purged(topic, up_to, life.number);
    }

    /// Gives back dead letters, all or some; whether that is answered or not, each is then there or its event is with the group.
    async fn redrive(&mut self) {
        let (there, _) = self.hub.ask(letters).await;
        let all = self.random.bool();
        let asked: Vec<i64> =
            there.iter().map(|letter| letter.sequence).filter(|_| all || self.random.bool()).collect();
        if asked.is_empty() {
            return;
        }
        self.ledger.redrive_begins();
        let redrive = |channel| {
            let (stream, group) = (SMALL.to_owned(), TEAM.to_owned());
            let request = RedriveDeadLettersRequest { stream, group, sequences: asked.clone() };
            async move { GroupServiceClient::new(channel).redrive_dead_letters(request).await }
        };
        let told = self.hub.ask_one(redrive).await.map(|(told, _)| told.into_inner());
        let asked: HashSet<i64> = asked.into_iter().collect();
        let (left, life) = self.hub.ask(letters).await;
        let left: Vec<_> = left.into_iter().filter(|letter| asked.contains(&letter.sequence)).collect();
        if let Some(told) = told {
            let counts = (told.redriven + told.lost + told.unmatched, told.lost + told.unmatched);
            assert_eq!(counts, (asked.len() as i64, left.len() as i64), "{told:?} of {asked:?}, and {left:?} are left");
        }
        self.ledger.redrive_over(&left, life.number);
    }

    /// Waits until the group has nothing left to do, which nothing may block; then every event is accounted for.
    async fn settle(&mut self) {
        // Members try these again long after the test.
        self.purge(POISON, self.published).await;
        let settled = async {
            loop {
                let (state, _) = self.hub.ask(state).await;
                if (state.pending, state.unacked, state.blocked) == (0, 0, 0) {
                    return;
                }
                pause(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, settled).await.is_ok();
        assert!(in_time, "the group does not come to its end: {:?}", self.hub.ask(state).await);
        let (events, _) = self.hub.ask(read_all).await;
        let (letters, _) = self.hub.ask(letters).await;
        self.ledger.check(&events, &letters);
        self.purge_lost_letters(&events, &letters).await;
    }

    /// Removes the dead letters that can never be given back.
    async fn purge_lost_letters(&self, events: &[ReceivedEvent], letters: &[DeadLetter]) {
        let kept: HashSet<i64> = events.iter().map(|event| event.sequence).collect();
        let lost = letters.iter().filter(|letter| !kept.contains(&letter.origin_sequence));
        let lost: Vec<i64> = lost.map(|letter| letter.sequence).collect();
        if lost.is_empty() {
            return;
        }
        let purge = |channel| {
            let (stream, group) = (SMALL.to_owned(), TEAM.to_owned());
            let request = PurgeDeadLettersRequest { stream, group, sequences: lost.clone() };
            async move { GroupServiceClient::new(channel).purge_dead_letters(request).await }
        };
        self.hub.ask(purge).await;
        self.ledger.purged_letters(&lost);
    }
}

/// How the group stands.
pub(super) async fn state(channel: Channel) -> Result<GroupState, Status> {
    let request = GetGroupRequest { stream: SMALL.into(), name: TEAM.into() };
    let response = GroupServiceClient::new(channel).get_group(request).await?;
    Ok(response.into_inner().group.and_then(|group| group.state).expect("a state"))
}

/// All of its dead letters.
pub(super) async fn letters(channel: Channel) -> Result<Vec<DeadLetter>, Status> {
    let mut groups = GroupServiceClient::new(channel).max_decoding_message_size(8 * 1024 * 1024);
    let (mut letters, mut page_token) = (Vec::new(), String::new());
    loop {
        let (stream, group) = (SMALL.to_owned(), TEAM.to_owned());
        let request = ListDeadLettersRequest { stream, group, page_size: 1_000, page_token };
        let page = groups.list_dead_letters(request).await?.into_inner();
        letters.extend(page.dead_letters);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(letters);
        }
    }
}

/// Everything the stream has.
pub(super) async fn read_all(channel: Channel) -> Result<Vec<ReceivedEvent>, Status> {
    let mut hub = HubServiceClient::new(channel).max_decoding_message_size(8 * 1024 * 1024);
    let request = SubscribeRequest { spec: Some(from(SMALL, preset(StartPreset::Earliest))) };
    let (mut frames, mut events) = (hub.subscribe(request).await?.into_inner(), Vec::new());
    while let Some(frame) = frames.next().await {
        match frame?.frame {
            Some(Frame::Events(more)) => events.extend(more.events),
            Some(Frame::Progress(progress)) if progress.caught_up => return Ok(events),
            Some(Frame::Welcome(_) | Frame::Subscribed(_) | Frame::Progress(_) | Frame::Heartbeat(_)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    Err(Status::unavailable("the hub died"))
}
