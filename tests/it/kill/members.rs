//! Members of groups, at work while the hub is killed.
//!
//! All members of a group write what they do into one [`Ledger`], which fails the test the moment a group breaks its word:
//! an event comes though it was answered as done, or before the one of the same key that stands in front of it. At the
//! end [`Ledger::check`] asks whether every event of the stream was brought to somebody until it was done.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use switchyard::proto::v1::{
    AckMode, AckOutcome, Acknowledge, Acknowledged, CreateGroupRequest, EndReason, GetGroupRequest, Group, GroupState,
    Hello, Reattach, ReceivedEvent, SessionRequest, SessionResponse, StartPreset, Subscribe, SubscriptionSpec,
    Unsubscribe, group_service_client::GroupServiceClient, hub_service_client::HubServiceClient,
    session_request::Command as Wire, session_response::Frame,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Streaming, transport::Channel};

use super::{KEYS, Life, NAME, Phase, Truth, connect, is_keyed, still_at_work, words};
use crate::{
    harness::{channel, pause, reason, soon, until},
    stored::{all, preset, text},
    workplace::ms,
};

/// Where rejected events go.
pub(super) const LOST: &str = "lost";
/// A member speaks of its events at the latest when it has so many.
const MOST_HELD: usize = 60;
/// Why members reject or fail events.
const WHY: &str = "not to be done";

/// The groups, how each is acknowledged, and how its members behave.
const GROUPS: [(&str, AckMode, &[Manner]); 2] = [
    ("work", AckMode::Explicit, &[Manner::Steady, Manner::Steady, Manner::Nacks, Manner::Leaves, Manner::Returns]),
    ("line", AckMode::Cumulative, &[Manner::Steady, Manner::Leaves]),
];

/// What a member does besides its work.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Steady,
    /// Fails some events.
    Nacks,
    /// Unsubscribes with events in its hands, and subscribes again.
    Leaves,
    /// Drops its session with events in its hands, comes back on another and acknowledges them there.
    Returns,
}

/// The names of the groups.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|(group, ..)| *group)
}

/// Every member rejects these, whoever gets them.
fn is_rejected((publisher, number): (usize, u64)) -> bool {
    publisher == 1 && number % 50 == 7
}

/// What all members of one group did and saw.
pub(super) struct Ledger {
    group: &'static str,
    mode: AckMode,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// What came, and as what.
    texts: HashMap<i64, String>,
    deliveries: usize,
    /// Said to be done. As long as that is not answered it may be done or not.
    said: HashSet<i64>,
    said_of: HashSet<(usize, u64)>,
    /// Answered as done, by which hub.
    stored: HashMap<i64, usize>,
    /// How many of those were sent over a session before.
    carried: usize,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().expect("no member has failed")
    }

    /// An event came; of a member that `leaves`, it may have gone to another already.
    fn delivered(&self, life: usize, received: &ReceivedEvent, leaves: bool) {
        let (mut entries, sequence, group) = (self.entries(), received.sequence, self.group);
        entries.deliveries += 1;
        if let Some(done) = entries.stored.get(&sequence) {
            let other = *done > life || (*done == life && leaves);
            assert!(other, "{sequence} of {group} was answered as done by hub {done}, and came from hub {life}");
        }
        let (publisher, number) = words(text(received));
        if let Some(before) = number.checked_sub(KEYS).filter(|_| is_keyed(publisher)) {
            assert!(entries.said_of.contains(&(publisher, before)), "{sequence} of {group} came before its turn");
        }
        let known = entries.texts.entry(sequence).or_insert_with(|| text(received).to_owned());
        assert_eq!(known, text(received), "{sequence} of {group} has changed");
    }

    fn say(&self, sequence: i64) {
        let mut entries = self.entries();
        let of = words(&entries.texts[&sequence]);
        entries.said.insert(sequence);
        entries.said_of.insert(of);
    }

    fn is_rejected(&self, sequence: i64) -> bool {
        is_rejected(words(&self.entries().texts[&sequence]))
    }

    fn stored(&self, life: usize, sequence: i64, carried: bool) {
        let mut entries = self.entries();
        entries.stored.entry(sequence).or_insert(life);
        entries.carried += usize::from(carried);
    }

    /// Every event was brought to a member, as the stream has it, until one said that it is done.
    fn check(&self, truth: &Truth) {
        let entries = self.entries();
        for event in &truth.events {
            let (sequence, group) = (event.sequence, self.group);
            assert!(entries.said.contains(&sequence), "{group} never got its word on {sequence}");
            assert_eq!(entries.texts[&sequence], text(event), "{sequence} of {group}");
        }
        assert_eq!(entries.texts.len(), truth.events.len(), "nothing else came");
        println!(
            "{}: {} deliveries of {} events, {} answered as done, {} of them on another session",
            self.group,
            entries.deliveries,
            entries.texts.len(),
            entries.stored.len(),
            entries.carried
        );
    }
}

/// The groups and their members.
pub(super) struct Members {
    ledgers: Vec<Arc<Ledger>>,
    work: JoinSet<()>,
}

impl Members {
    /// Makes the groups and sets their members to work.
    pub(super) async fn start(
        life: Life,
        random: &mut fastrand::Rng,
        phase: &watch::Receiver<Phase>,
        epoch: i64,
    ) -> Self {
        let mut groups = GroupServiceClient::new(channel(life.address).await);
        let (mut ledgers, mut work) = (Vec::new(), JoinSet::new());
        for (group, mode, manners) in GROUPS {
            let settings = Group {
                stream: NAME.into(),
                name: group.into(),
                // Not a test of leases that end, nor of members that are slow.
                ack_deadline: Some(ms(600_000)),
                max_attempts: Some(0),
                backoff: vec![ms(10)],
                dead_letter_stream: if mode == AckMode::Explicit { LOST.into() } else { String::new() },
                ..Group::default()
            };
            let request = CreateGroupRequest { group: Some(settings), start: preset(StartPreset::Earliest) };
            groups.create_group(request).await.expect("created");
            let ledger = Arc::new(Ledger { group, mode, entries: Mutex::default() });
            for (number, manner) in manners.iter().enumerate() {
                let member = Member {
                    name: (*manner == Manner::Returns).then(|| format!("{group}-{number}")),
                    manner: *manner,
                    ledger: Arc::clone(&ledger),
                    random: random.fork(),
                    phase: phase.clone(),
                    epoch,
                    held: Vec::new(),
                    held_since: 0,
                    session: String::new(),
                };
                work.spawn(member.work());
            }
            ledgers.push(ledger);
        }
        Self { ledgers, work }
    }

    /// A member that ended before it was told to has failed.
    pub(super) fn check_work(&mut self) {
        still_at_work(&mut self.work);
    }

    /// Waits until the groups have done everything up to `latest`.
    pub(super) async fn until_done(&mut self, life: Life, latest: i64) {
        for (group, ..) in GROUPS {
            let mut before = -1;
            // However much there is: it goes on.
            while before < latest {
                let mut cursor = before;
                until("a group goes on", async || {
                    self.check_work();
                    cursor = state(life.address, group).await.cursor;
                    cursor > before
                })
                .await;
                before = cursor;
            }
        }
    }

    /// Waits until all have ended, as they were told to.
    pub(super) async fn until_over(&mut self) {
        while let Some(ended) = soon("a member", self.work.join_next()).await {
            ended.expect("a member");
        }
    }

    /// What the groups have done holds, for this hub as for the one before; and nothing was lost on the way.
    pub(super) async fn check(&self, life: Life, truth: &Truth) {
        for ledger in &self.ledgers {
            let state = state(life.address, ledger.group).await;
            let latest = truth.events.len() as i64;
            assert_eq!((state.cursor, state.pending, state.unacked), (latest, 0, 0), "{}", ledger.group);
            ledger.check(truth);
        }
        let rejected = truth.events.iter().filter(|event| is_rejected(words(text(event))));
        let mut expected: Vec<_> = rejected.map(|event| (event.sequence.to_string(), text(event), WHY)).collect();
        let letters = all(life.address, LOST).await;
        let attribute = |letter: &'_ ReceivedEvent, name: &str| {
            letter.event.as_ref().map(|event| event.attributes[name].clone()).expect("an event")
        };
        let mut got: Vec<_> = letters.iter().map(|letter| (attribute(letter, "deadlettersequence"), letter)).collect();
        got.sort_by_key(|(sequence, _)| sequence.parse::<i64>().expect("a number"));
        expected.reverse();
        for (sequence, letter) in got {
            let why = attribute(letter, "deadletterreason");
            assert_eq!(Some((sequence, text(letter), why.as_str())), expected.pop(), "each dead letter once");
        }
        assert_eq!(expected, [], "no dead letter is missing");
        println!("{} dead letters", letters.len());
    }
}

pub(super) async fn state(address: SocketAddr, group: &str) -> GroupState {
    let request = GetGroupRequest { stream: NAME.into(), name: group.into() };
    let response = GroupServiceClient::new(channel(address).await).get_group(request).await.expect("told");
    response.into_inner().group.and_then(|group| group.state).expect("a state")
}

pub(super) async fn is_over(mut phase: watch::Receiver<Phase>) {
    phase.wait_for(|phase| *phase == Phase::Over).await.expect("the phase is told");
}

/// One member, over the lives of many hubs.
struct Member {
    manner: Manner,
    /// With it, the hub waits for it to come back,
    name: Option<String>,
    /// and knows it by the session that it had.
    session: String,
    ledger: Arc<Ledger>,
    random: fastrand::Rng,
    phase: watch::Receiver<Phase>,
    epoch: i64,
    /// What it has, in the order in which it came,
    held: Vec<i64>,
    /// and from which hub.
    held_since: usize,
}

/// One session of a member.
struct Visit {
    life: usize,
    commands: mpsc::Sender<SessionRequest>,
    /// What was said and not answered yet.
    open: HashMap<i64, Said>,
    requests: i64,
    /// It is no member yet, or has unsubscribed, and what comes is not its any more.
    away: bool,
}

#[derive(Debug)]
struct Said {
    sequences: Vec<i64>,
    done: bool,
    /// They came over a session before.
    carried: bool,
}

impl Member {
    async fn work(mut self) {
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

    /// One that comes back says what it has in its hands, or not: then it has all that it was sent.
    fn wish(&mut self) -> SubscriptionSpec {
        let (stream, group) = (NAME.to_owned(), self.ledger.group.to_owned());
        let says = self.manner == Manner::Returns && self.random.bool();
        let reattach = says.then(|| Reattach { held_sequences: self.held.clone() });
        SubscriptionSpec { stream, group, ack_mode: self.ledger.mode.into(), reattach, ..SubscriptionSpec::default() }
    }

    /// Works over one session until the hub dies, the member drops it, or all is over.
    async fn visit(&mut self, mut client: HubServiceClient<Channel>, life: usize) {
        let (commands, receiver) = mpsc::channel(64);
        let mut visit = Visit { life, commands, open: HashMap::new(), requests: 10, away: true };
        if let Some(client_name) = self.name.clone() {
            let previous_session_id = self.session.clone();
            visit.send(0, Wire::Hello(Hello { client_name, previous_session_id, ..Hello::default() })).await;
        }
        visit.send(1, self.subscribe()).await;
        let Ok(frames) = client.session(ReceiverStream::new(receiver)).await else { return };
        let mut frames = frames.into_inner();
        while !(visit.open.is_empty() && *self.phase.borrow() == Phase::Over) {
            if !self.go_on(&mut visit, &mut frames).await {
                return;
            }
        }
    }

    fn subscribe(&mut self) -> Wire {
        Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(self.wish()) })
    }

    /// One step; false when the session is over.
    async fn go_on(&mut self, visit: &mut Visit, frames: &mut Streaming<SessionResponse>) -> bool {
        let idle = self.held.is_empty() || visit.away;
        let work = Duration::from_millis(self.random.u64(1..20));
        let frame = tokio::select! {
            frame = soon("a frame", frames.next()) => frame,
            () = pause(work), if !idle => return self.speak(visit, false).await,
            () = is_over(self.phase.clone()), if visit.open.is_empty() => return true,
        };
        let Some(Ok(frame)) = frame else { return false };
        match frame.frame.expect("a frame") {
            Frame::Subscribed(subscribed) => {
                assert_eq!(subscribed.epoch, self.epoch);
                visit.away = false;
                self.carry(visit).await
            }
            Frame::Events(events) => {
                for received in &events.events {
                    self.ledger.delivered(visit.life, received, visit.away);
                    if !visit.away {
                        self.held.push(received.sequence);
                    }
                }
                self.after_events(visit).await
            }
            Frame::Acknowledged(acknowledged) => {
                visit.answered(&self.ledger, frame.request_id, &acknowledged);
                true
            }
            Frame::Ended(ended) => {
                assert!(visit.away && ended.reason() == EndReason::ClientUnsubscribed, "{ended:?}");
                assert!(visit.open.is_empty(), "every word is answered before the end");
                visit.send(1, self.subscribe()).await
            }
            Frame::Welcome(welcome) => {
                self.session = welcome.session_id;
                true
            }
            Frame::Heartbeat(_) => true,
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// What it has from a session before: it acknowledges that if it is still its own.
    async fn carry(&mut self, visit: &mut Visit) -> bool {
        let same = std::mem::replace(&mut self.held_since, visit.life) == visit.life;
        if self.manner == Manner::Returns && same && !self.held.is_empty() {
            return self.speak(visit, true).await;
        }
        self.held.clear();
        true
    }

    async fn after_events(&mut self, visit: &mut Visit) -> bool {
        if visit.away {
            return true;
        }
        let moves = matches!(*self.phase.borrow(), Phase::Work(_)) && self.random.u32(..60) == 0;
        match self.manner {
            Manner::Leaves if moves => {
                visit.away = true;
                self.held.clear();
                visit.send(2, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await
            }
            Manner::Returns if moves => false,
            _ if self.held.len() > MOST_HELD => self.speak(visit, false).await,
            _ => true,
        }
    }

    /// Says of everything it has what became of it.
    async fn speak(&mut self, visit: &mut Visit, carried: bool) -> bool {
        let sequences = std::mem::take(&mut self.held);
        if self.ledger.mode == AckMode::Cumulative {
            let told = Acknowledge { up_to: *sequences.last().expect("one"), ..Acknowledge::default() };
            return visit.tell(&self.ledger, told, Said { sequences, done: true, carried }).await;
        }
        let (rejected, others): (Vec<_>, Vec<_>) =
            sequences.into_iter().partition(|sequence| self.ledger.is_rejected(*sequence));
        let fails = self.manner == Manner::Nacks && self.random.u32(..3) == 0;
        let (failed, done): (Vec<_>, Vec<_>) = others.into_iter().partition(|_| fails && self.random.u32(..3) == 0);
        let delay = Some(ms(self.random.i64(0..30)));
        for (sequences, outcome) in
            [(rejected, AckOutcome::Reject), (failed, AckOutcome::Nack), (done, AckOutcome::Ack)]
        {
            if sequences.is_empty() {
                continue;
            }
            let mut told = Acknowledge { sequences: sequences.clone(), reason: WHY.into(), ..Acknowledge::default() };
            told.set_outcome(outcome);
            told.delay = delay.filter(|_| outcome == AckOutcome::Nack);
            let said = Said { sequences, done: outcome != AckOutcome::Nack, carried };
            if !visit.tell(&self.ledger, told, said).await {
                return false;
            }
        }
        true
    }
}

impl Visit {
    async fn send(&self, request_id: i64, command: Wire) -> bool {
        let request = SessionRequest { request_id, command: Some(command) };
        soon("room for a command", self.commands.send(request)).await.is_ok()
    }

    async fn tell(&mut self, ledger: &Ledger, told: Acknowledge, said: Said) -> bool {
        if said.done {
            said.sequences.iter().for_each(|sequence| ledger.say(*sequence));
        }
        self.requests += 1;
        self.open.insert(self.requests, said);
        self.send(self.requests, Wire::Acknowledge(Acknowledge { subscription_id: 1, ..told })).await
    }

    fn answered(&mut self, ledger: &Ledger, request_id: i64, acknowledged: &Acknowledged) {
        let said = self.open.remove(&request_id).expect("an answer to what was said");
        let failed: HashSet<i64> = acknowledged
            .results
            .iter()
            .filter_map(|result| {
                let status = result.status.as_ref()?;
                assert_eq!((said.carried, reason(status).as_str()), (true, "LEASE_EXPIRED"), "{status:?}");
                Some(result.sequence)
            })
            .collect();
        for sequence in said.sequences.into_iter().filter(|sequence| said.done && !failed.contains(sequence)) {
            ledger.stored(self.life, sequence, said.carried);
        }
    }
}
