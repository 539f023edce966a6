//! A hub in memory that keeps the contract, a connection that can be cut anywhere, and an application, around one machine.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use prost::Message;
use tonic_types::{ErrorDetails, StatusExt, pb};

use super::leases::Leases;
use crate::{
    cutter::PREFIX_BYTES,
    machine::{
        Loss, Machine, Plan, Returns, Setup,
        incoming::Incoming,
        news::{Moment, News},
        publishes::{Amount, Care, NewPublish},
        verdict::Verdict,
        wire::{self, Encoded},
    },
    outcome::Published,
    proto::v1::{
        self, AckMode, AckOutcome, AckResult, Acknowledged, Credit, Ended, Event, Events, Progress, PublishResponse,
        PublishResult, ReceivedEvent, SessionRequest, SessionResponse, Subscribed, SubscriptionSpec, Welcome,
        publish_precondition::Condition, session_request::Command, session_response::Frame, start_position::Position,
    },
    received::{Entries, ReceivedRef},
    spec::Spec,
};

/// The one stream of the hub, of the topics that begin with its name.
pub(super) const STREAM: &str = "s";
/// A topic to which nobody may publish.
pub(super) const FORBIDDEN: &str = "forbidden";

/// A status as the hub makes them.
pub(super) fn status(code: tonic::Code, reason: &str, retry: Option<Duration>) -> pb::Status {
    let mut details = ErrorDetails::with_error_info(reason, "switchyard", HashMap::new());
    if let Some(delay) = retry {
        details.set_retry_info(Some(delay));
    }
    let status = tonic::Status::with_error_details(code, reason, details);
    pb::Status::decode(status.details()).expect("a status")
}

/// One subscription, as the hub sees it.
#[derive(Debug)]
struct Sub {
    spec: SubscriptionSpec,
    credit: Option<Credit>,
    /// The sequence it has come to.
    at: i64,
    is_told_caught_up: bool,
    /// Which member of the group it is, if it is one.
    member: u64,
}

/// What outlives sessions.
#[derive(Debug, Default)]
pub(super) struct Hub {
    pub(super) log: Vec<Event>,
    /// Events that belong to no stream, as often as they were delivered.
    pub(super) live: Vec<Event>,
    /// What is done for the group.
    pub(super) done: BTreeSet<i64>,
    pub(super) leases: Leases,
    /// It waits for members whose connection is cut to come back.
    pub(super) keeps: bool,
    /// It is of an earlier version: it knows nothing of what members say that they hold.
    pub(super) is_old: bool,
    subs: BTreeMap<i64, Sub>,
    /// Every `subscribe`, and all that was said of events, of all sessions.
    pub(super) subscribes: Vec<v1::Subscribe>,
    pub(super) told: Vec<v1::Acknowledge>,
    /// What every hub names in `welcome`.
    pub(super) alternatives: Vec<String>,
    pub(super) sessions: u32,
    pub(super) hellos: Vec<v1::Hello>,
    /// Frames on their way to the client.
    pub(super) out: VecDeque<SessionResponse>,
    /// Every publish is refused like this, while it is set.
    pub(super) refuses: Option<pb::Status>,
    /// The tokens that came in sessions.
    pub(super) authenticated: Vec<String>,
}

impl Hub {
    fn say(&mut self, request_id: i64, frame: Frame) {
        self.out.push_back(SessionResponse { request_id, frame: Some(frame) });
    }

    fn open(&mut self) {
        self.sessions += 1;
        let (session_id, alternatives) = (self.session(), self.alternatives.clone());
        self.say(0, Frame::Welcome(Welcome { session_id, alternatives, ..Welcome::default() }));
    }

    fn session(&self) -> String {
        format!("session-{}", self.sessions)
    }

    /// The connection is gone: what was leased goes back, unless the member is waited for.
    fn cut(&mut self) {
        self.out.clear();
        self.subs.clear();
        if !self.keeps {
            self.leases.forget_all();
        }
    }

    /// Those that are not here have not come back in time.
    pub(super) fn forget_absent(&mut self) {
        let here = self.subs.values().map(|sub| sub.member).collect();
        self.leases.forget_all_but(&here);
    }

    /// How many subscriptions are open.
    pub(super) fn open_subscriptions(&self) -> usize {
        self.subs.len()
    }

    /// A subscription is over, as a test says.
    pub(super) fn forget(&mut self, id: i64) {
        self.subs.remove(&id);
    }

    fn hear(&mut self, request: SessionRequest) {
        let id = request.request_id;
        match request.command.expect("a command") {
            Command::Hello(hello) => self.hellos.push(hello),
            Command::Subscribe(subscribe) => self.subscribe(id, subscribe),
            Command::Unsubscribe(leaves) => {
                let sub = self.subs.remove(&leaves.subscription_id).expect("an open subscription");
                self.leases.leave(sub.member);
                let reason = v1::EndReason::ClientUnsubscribed.into();
                let ended = Ended { subscription_id: leaves.subscription_id, reason, ..Ended::default() };
                self.say(id, Frame::Ended(ended));
            }
            Command::Credit(more) => {
                let more_credit = more.credit.expect("a credit");
                assert!(more_credit.events > 0 || more_credit.bytes > 0, "a grant of nothing");
                let sub = self.subs.get_mut(&more.subscription_id).expect("an open subscription");
                let credit = sub.credit.get_or_insert_default();
                credit.events += more_credit.events;
                credit.bytes += more_credit.bytes;
            }
            Command::Acknowledge(told) => self.acknowledge(id, &told),
            Command::Publish(publish) => self.publish(id, publish),
            Command::Authenticate(fresh) => self.authenticated.push(fresh.token),
            other => panic!("not expected: {other:?}"),
        }
    }

    fn subscribe(&mut self, id: i64, subscribe: v1::Subscribe) {
        self.subscribes.push(subscribe.clone());
        let spec = subscribe.spec.expect("a spec");
        let first = spec.credit.expect("explicit credit");
        assert!(first == Credit::default() || (first.events > 0 && first.bytes > 0), "both units or none: {first:?}");
        let latest = self.log.len() as i64;
        let at = match spec.start.as_ref().and_then(|start| start.position.as_ref()) {
            Some(Position::ResumeToken(token)) => token.parse().expect("a token"),
            Some(Position::AfterSequence(sequence)) => *sequence,
            Some(Position::Preset(preset)) if *preset == i32::from(v1::StartPreset::Earliest) => 0,
            _ => latest,
        };
        let (member, reattached, lost_sequences) = self.join(subscribe.subscription_id, &spec);
        let subscribed = Subscribed {
            subscription_id: subscribe.subscription_id,
            reattached,
            lost_sequences,
            epoch: i64::from(!spec.stream.is_empty()),
            start_sequence: at + 1,
            earliest_sequence: 1,
            latest_sequence: latest,
            ..Subscribed::default()
        };
        let credit = Some(first).filter(|first| *first != Credit::default());
        let sub = Sub { spec, credit, at, is_told_caught_up: false, member };
        assert!(self.subs.insert(subscribe.subscription_id, sub).is_none(), "an id that is in use");
        self.say(id, Frame::Subscribed(subscribed));
    }

    /// Which member that is, whether it has what it held before, and what it says it holds and does not.
    fn join(&mut self, id: i64, spec: &SubscriptionSpec) -> (u64, bool, Vec<i64>) {
        if spec.ack_mode() != AckMode::Explicit {
            assert!(spec.reattach.is_none(), "it holds nothing");
            return (0, false, Vec::new());
        }
        let held = spec.reattach.as_ref().filter(|_| !self.is_old).map(|reattach| &*reattach.held_sequences);
        let (session, hello) = (self.session(), self.hellos.last().expect("a hello"));
        let (member, is_back) = self.leases.join(id, (&session, &hello.previous_session_id), held);
        let is_lost = |sequence: &i64| !self.leases.has(member, *sequence) && !self.done.contains(sequence);
        let lost = held.unwrap_or_default().iter().copied().filter(is_lost).collect();
        (member, is_back && !self.is_old, lost)
    }

    fn acknowledge(&mut self, id: i64, told: &v1::Acknowledge) {
        self.told.push(told.clone());
        let mut results = Vec::new();
        let member = self.subs.get(&told.subscription_id).map_or(0, |sub| sub.member);
        for sequence in &told.sequences {
            let is_leased = self.leases.has(member, *sequence);
            let is_done = self.done.contains(sequence);
            let status = if is_leased || is_done { None } else { Some(lease_expired()) };
            if is_leased && told.outcome() != AckOutcome::Extend {
                self.leases.take(*sequence);
            }
            if is_leased && matches!(told.outcome(), AckOutcome::Ack | AckOutcome::Reject) {
                self.done.insert(*sequence);
            }
            results.push(AckResult { sequence: *sequence, status });
        }
        let acknowledged = Acknowledged { subscription_id: told.subscription_id, results };
        self.say(id, Frame::Acknowledged(acknowledged));
    }

    fn publish(&mut self, id: i64, publish: v1::PublishRequest) {
        if let Some(status) = &self.refuses {
            return self.say(id, Frame::Error(status.clone()));
        }
        let is_live = |event: &Event| !event.topic.starts_with(STREAM);
        let precondition = publish.precondition.and_then(|precondition| precondition.condition);
        if let Some(condition) = precondition {
            if publish.events.iter().any(is_live) {
                let status = status(tonic::Code::FailedPrecondition, "CONFIG_MISMATCH", None);
                return self.say(id, Frame::Error(status));
            }
            let known = publish.events.iter().all(|event| self.find(event).is_some());
            if !known && condition != Condition::LastSequence(self.log.len() as i64) {
                let status = status(tonic::Code::Aborted, "SEQUENCE_MISMATCH", None);
                let refused = PublishResult { status: Some(status), ..PublishResult::default() };
                let results = vec![refused; publish.events.len()];
                return self.say(id, Frame::Published(PublishResponse { results }));
            }
        }
        let mut results = Vec::new();
        for event in publish.events {
            if event.topic == FORBIDDEN {
                let status = status(tonic::Code::PermissionDenied, "PERMISSION_DENIED", None);
                results.push(PublishResult { status: Some(status), ..PublishResult::default() });
                continue;
            }
            assert_eq!(event.id.is_empty(), id == 0, "every event has its id, unless it is only sent");
            if is_live(&event) {
                self.live.push(event);
                results.push(PublishResult { matched: 1, ..PublishResult::default() });
                continue;
            }
            let known = self.find(&event);
            let sequence = known.unwrap_or(self.log.len() as i64 + 1);
            if known.is_none() {
                self.log.push(event);
            }
            let (stream, epoch, duplicate) = (STREAM.to_owned(), 1, known.is_some());
            results.push(PublishResult { stream, sequence, epoch, duplicate, ..PublishResult::default() });
        }
        // Where there is no request only what is refused is answered.
        if id != 0 || results.iter().any(|result| result.status.is_some()) {
            self.say(id, Frame::Published(PublishResponse { results }));
        }
    }

    /// What has no id gets one here, as another event each time.
    fn find(&self, event: &Event) -> Option<i64> {
        if event.id.is_empty() {
            return None;
        }
        let key = |event: &Event| (event.topic.clone(), event.source.clone(), event.id.clone());
        self.log.iter().position(|stored| key(stored) == key(event)).map(|at| at as i64 + 1)
    }

    /// Sends what there is credit for, a few events in a frame.
    pub(super) fn send(&mut self) {
        let ids: Vec<i64> = self.subs.keys().copied().collect();
        for id in ids {
            while self.send_some(id) {}
        }
    }

    fn send_some(&mut self, id: i64) -> bool {
        let latest = self.log.len() as i64;
        let Some(sub) = self.subs.get_mut(&id).filter(|sub| !sub.spec.stream.is_empty()) else { return false };
        let is_member = sub.spec.ack_mode() == AckMode::Explicit;
        let mut events = Vec::new();
        while events.len() < 3 && sub.credit.is_some_and(|credit| credit.events > 0 && credit.bytes > 0) {
            let next = if is_member {
                (1..=latest).find(|sequence| !self.done.contains(sequence) && self.leases.is_free(*sequence))
            } else {
                Some(sub.at + 1).filter(|next| *next <= latest)
            };
            let Some(sequence) = next else { break };
            let event = Some(self.log[sequence as usize - 1].clone());
            let received = ReceivedEvent { event, stream: STREAM.into(), sequence, ..ReceivedEvent::default() };
            if is_member {
                self.leases.give(sub.member, sequence);
            } else {
                sub.at = sequence;
            }
            if let Some(credit) = &mut sub.credit {
                credit.events -= 1;
                credit.bytes -= wire::entry_len(&received.encode_to_vec()) as i64;
            }
            events.push(received);
        }
        let token = if is_member { String::new() } else { sub.at.to_string() };
        let has_sent = !events.is_empty();
        if has_sent {
            sub.is_told_caught_up = false;
            let events = Events { subscription_id: id, events, resume_token: token };
            self.say(0, Frame::Events(events));
        } else if !is_member && sub.at == latest && !std::mem::replace(&mut sub.is_told_caught_up, true) {
            let progress = Progress { subscription_id: id, resume_token: token, caught_up: true, lag: 0 };
            self.say(0, Frame::Progress(progress));
        }
        has_sent
    }
}

/// Events of these topics and ids.
pub(super) fn encoded(events: &[(&str, &str)]) -> Encoded {
    let mut encoded = Encoded::default();
    for (topic, id) in events {
        encoded.push(&crate::event::Event::new(*topic).id(*id), None, 0);
    }
    encoded
}

/// The sequences and the copies of events that came; 0 where nothing is acknowledged.
pub(super) fn pairs(events: &Entries, copies: &[u64]) -> Vec<(i64, u64)> {
    let copies = copies.iter().copied().chain(std::iter::repeat(0));
    events.iter().map(ReceivedRef::sequence).zip(copies).collect()
}

fn lease_expired() -> pb::Status {
    status(tonic::Code::FailedPrecondition, "LEASE_EXPIRED", None)
}

/// Everything, and the time.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) hub: Hub,
    pub(super) now: Moment,
    /// Frames on their way to the hub.
    wire: VecDeque<SessionRequest>,
    pub(super) is_connected: bool,
    pub(super) opened: Vec<(Moment, String)>,
    pub(super) states: Vec<crate::state::Status>,
    pub(super) results: BTreeMap<u64, Vec<Result<Published, crate::error::Error>>>,
    pub(super) settled: BTreeMap<u64, Result<(), crate::error::Error>>,
    /// What was told of refusals of what was only sent.
    pub(super) refused: Vec<(u64, String)>,
    /// Whether the client has half-closed.
    pub(super) is_half_closed: bool,
}

impl World {
    pub(super) fn new(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            name: "test".into(),
            labels: HashMap::new(),
            heartbeat: Duration::from_secs(15),
            addresses: vec!["hub".into()],
            has_tls: false,
            has_source: false,
            returns: Returns::default(),
            most: Amount { events: 8192, bytes: 16 << 20 },
            seed: 7,
        };
        change(&mut setup);
        let mut machine = Machine::new(setup);
        machine.drive().expect("nobody drives it");
        Self {
            machine,
            hub: Hub::default(),
            now: Moment::ZERO,
            wire: VecDeque::new(),
            is_connected: false,
            opened: Vec::new(),
            states: Vec::new(),
            results: BTreeMap::new(),
            settled: BTreeMap::new(),
            refused: Vec::new(),
            is_half_closed: false,
        }
    }

    pub(super) fn hear_news(&mut self) {
        while let Some(news) = self.machine.news.pop_front() {
            match news {
                News::State(status) => self.states.push(status),
                News::Published(ticket, receipt) => {
                    assert!(self.results.insert(ticket, receipt.into_iter().collect()).is_none(), "it is told once");
                }
                News::Settled(ticket, result) => {
                    assert!(self.settled.insert(ticket, result).is_none(), "it is told once");
                }
                News::Refused(count, error) => self.refused.push((count, error.reason().to_owned())),
                News::Subscription(_) | News::Room => {}
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// How long ago that was.
    pub(super) fn since(&self, moment: Moment) -> Duration {
        self.now.saturating_sub(moment)
    }

    /// Plans, and connects if that is the plan.
    pub(super) fn plan(&mut self) {
        assert!(!self.is_connected);
        if let Plan::Open(address) = self.machine.plan(self.now) {
            self.opened.push((self.now, address));
            self.is_connected = true;
            self.is_half_closed = false;
            self.machine.connected(self.now, None, Duration::ZERO);
            self.hub.open();
        }
        self.hear_news();
    }

    /// Waits as long as it takes, and connects.
    pub(super) fn connect(&mut self) {
        for _ in 0..100 {
            if self.is_connected {
                break;
            }
            match self.machine.plan(self.now) {
                Plan::Rest(until) => self.now = self.now.max(until),
                Plan::Open(address) => {
                    self.opened.push((self.now, address));
                    self.is_connected = true;
                    self.is_half_closed = false;
                    self.machine.connected(self.now, None, Duration::ZERO);
                    self.hub.open();
                }
                Plan::Stop(_) => break,
            }
        }
        self.hear_news();
    }

    /// The connection is lost, with everything on its way.
    pub(super) fn cut(&mut self) {
        self.lose(Loss::Ended);
    }

    pub(super) fn lose(&mut self, loss: Loss) {
        self.hub.cut();
        self.wire.clear();
        self.is_connected = false;
        self.machine.lost(self.now, loss);
        self.hear_news();
    }

    /// A turn of the driver: writes at most so many frames.
    pub(super) fn turn(&mut self, frames: usize) {
        if !self.is_connected {
            return;
        }
        if self.hub.out.is_empty() && self.machine.is_silent(self.now) {
            return self.lose(Loss::Silent);
        }
        let turn = self.machine.turn(self.now);
        if let Some(loss) = turn.cut {
            return self.lose(loss);
        }
        self.is_half_closed |= turn.half_closes;
        for _ in 0..frames {
            let Some(frame) = self.machine.write(self.now) else { break };
            assert!(!self.is_half_closed, "nothing is written any more");
            self.wire.push_back(SessionRequest::decode(&frame[PREFIX_BYTES..]).expect("a request"));
        }
        self.hear_news();
    }

    /// The hub reads at most so many commands.
    pub(super) fn hub_reads(&mut self, commands: usize) {
        for _ in 0..commands {
            let Some(request) = self.wire.pop_front() else { break };
            self.hub.hear(request);
        }
    }

    /// The client reads at most so many frames.
    pub(super) fn client_reads(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.hub.out.pop_front() else { break };
            let heard = wire::decode(frame.encode_to_vec().into()).expect("a frame");
            self.machine.frame(self.now, SystemTime::UNIX_EPOCH, heard);
        }
        self.hear_news();
    }

    /// Everything that is on its way arrives, and what comes of that, until nothing has come for a while.
    pub(super) fn settle(&mut self) {
        self.settle_for(60);
    }

    /// The same, where nothing waits for the time.
    pub(super) fn settle_at_once(&mut self) {
        self.settle_for(4);
    }

    fn settle_for(&mut self, idle: usize) {
        let mut idles = 0;
        for _ in 0..10_000 {
            if idles == idle {
                return;
            }
            self.connect();
            self.turn(usize::MAX);
            self.hub_reads(usize::MAX);
            self.hub.send();
            if self.hub.out.is_empty() && self.wire.is_empty() {
                idles += 1;
                self.pass(Duration::from_millis(25));
            }
            self.client_reads(usize::MAX);
        }
        panic!("something comes for ever");
    }

    pub(super) fn subscribe(&mut self, spec: impl Into<Spec>) -> i64 {
        self.machine.subscribe(spec.into(), None).expect("taken")
    }

    /// Publishes one event; the ticket and the id.
    pub(super) fn publish(&mut self, topic: &str, id: &str) -> u64 {
        self.publish_with(topic, id, |_| {})
    }

    pub(super) fn publish_with(&mut self, topic: &str, id: &str, change: impl FnOnce(&mut NewPublish)) -> u64 {
        let care = Care::Until { deadline: self.now + Duration::from_secs(3600), retry_live: false };
        let mut new = NewPublish { events: encoded(&[(topic, id)]), precondition: None, care };
        change(&mut new);
        self.machine.publish(new).expect("open").expect("room")
    }

    /// Sends events that nobody answers.
    pub(super) fn send(&mut self, topics: &[&str]) {
        let events: Vec<(&str, &str)> = topics.iter().map(|topic| (*topic, "")).collect();
        let new = NewPublish { events: encoded(&events), precondition: None, care: Care::Sent };
        self.machine.publish(new).expect("open").expect("room");
    }

    /// The next events of a subscription, with the copy of each; other news of it is passed over.
    pub(super) fn take_events(&mut self, id: i64) -> Option<(u64, Vec<(i64, u64)>)> {
        loop {
            match self.machine.table.take(self.now, id)? {
                Incoming::Events { events, copies, batch, .. } => {
                    let events = pairs(&events, &copies);
                    return Some((batch, events));
                }
                Incoming::Gap(_) | Incoming::CaughtUp => {}
            }
        }
    }

    /// Settles an event for the application.
    pub(super) fn settle_event(&mut self, id: i64, (sequence, copy): (i64, u64), verdict: Verdict) -> bool {
        self.machine.table.settle_event(self.now, (id, sequence, copy), verdict, None)
    }

    pub(super) fn state(&self) -> crate::state::State {
        self.machine.status().state
    }
}
