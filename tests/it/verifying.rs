//! Clients that check what they are told while hubs come and go: publishers, followers of a stream, members of a group.
//!
//! Each works until it is told to finish. It opens a session, uses it until the hub ends it or it is lost, and goes on in
//! the next one: publishers with what was not answered, under the same ids; followers where their token says.
//!
//! What they must find at the end is in [`check`]: whatever was answered OK is in the stream of the hub that answered,
//! once, where the answer said; and every follower has got exactly what is in its stream.

#![allow(dead_code)]

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use switchyard::proto::v1::{
    AckMode, Acknowledge, CreateGroupRequest, EndReason, Ended, Event, GetGroupRequest, Group, PublishResult,
    ResumeOutcome, SessionRequest, SessionResponse, StartPreset, Subscribe, SubscriptionSpec,
    group_service_client::GroupServiceClient, hub_service_client::HubServiceClient, session_request::Command as Wire,
    session_response::Frame,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::{
    harness::{channel, event, pause, publish, reason, reason_of_call, soon, until},
    stored::{all, from, preset, resume, text},
};

/// A client that finds no hub tries again after this long.
const AGAIN: Duration = Duration::from_millis(50);

/// Where clients find their hubs.
#[derive(Debug, Clone)]
pub struct Door(Vec<Endpoint>);

impl Door {
    /// One hub.
    pub fn to(address: SocketAddr) -> Self {
        Self::named(address, &address.to_string())
    }

    /// What a proxy has under a name.
    pub fn named(address: SocketAddr, authority: &str) -> Self {
        Self(vec![endpoint(address, authority)])
    }

    /// Any of these hubs: the client balances by itself.
    pub fn any(addresses: &[SocketAddr]) -> Self {
        Self(addresses.iter().map(|address| endpoint(*address, &address.to_string())).collect())
    }

    async fn open(&self) -> Option<HubServiceClient<Channel>> {
        let channel = match &self.0[..] {
            [one] => one.connect().await.ok()?,
            many => Channel::balance_list(many.iter().cloned()),
        };
        Some(HubServiceClient::new(channel).max_decoding_message_size(8 * 1024 * 1024))
    }
}

/// A peer that is asked for by another name than its address.
pub fn endpoint(address: SocketAddr, authority: &str) -> Endpoint {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URL");
    endpoint.origin(format!("http://{authority}").parse().expect("a URL"))
}

/// An address that is free now, and outside the range from which the system takes ports by itself: so it is still free
/// when a process that had it has to start again.
pub fn free_address() -> SocketAddr {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(12_000..30_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// An open session: where commands go in, and frames come out.
struct Line {
    commands: mpsc::Sender<SessionRequest>,
    frames: Streaming<SessionResponse>,
}

impl Line {
    /// `first` are commands that are sent at once; their request ids are 1.
    async fn open(mut client: HubServiceClient<Channel>, first: Option<Wire>) -> Option<Self> {
        let (commands, receiver) = mpsc::channel(256);
        if let Some(command) = first {
            commands.send(SessionRequest { request_id: 1, command: Some(command) }).await.expect("room");
        }
        let frames = client.session(ReceiverStream::new(receiver)).await.inspect_err(lost).ok()?;
        Some(Self { commands, frames: frames.into_inner() })
    }

    /// False when the session is over.
    async fn send(&self, request_id: i64, command: Wire) -> bool {
        soon("room", self.commands.send(SessionRequest { request_id, command: Some(command) })).await.is_ok()
    }
}

/// No more is told than that there is no hub at the moment. The client's library says INTERNAL itself when a connection is
/// ended in order under a call; a hub that says it has details with a reason.
fn lost(status: &tonic::Status) {
    let code = status.code();
    let by_the_library = code == Code::Internal && status.details().is_empty();
    assert!(by_the_library || [Code::Unavailable, Code::Unknown, Code::Cancelled].contains(&code), "{status:?}");
}

/// What a session was told when its hub went.
#[derive(Debug, Default, Clone)]
pub struct Farewell {
    /// That the hub drains.
    pub draining: bool,
    /// Where the subscription may go on.
    pub ended: Option<Ended>,
    /// The end of the call, if it was not OK.
    pub status: Option<tonic::Status>,
}

impl Farewell {
    /// It was told all that a hub owes its clients when it shuts down; `token` says whether that includes a point to
    /// resume at.
    pub fn check(&self, subscribed: bool, token: bool) {
        assert!(self.draining, "told that the hub drains: {self:?}");
        if subscribed {
            let ended = self.ended.as_ref().expect("told that the subscription is over");
            assert_eq!(
                (ended.reason(), reason(ended.status.as_ref().expect("a status")).as_str()),
                (EndReason::Draining, "DRAINING")
            );
            assert_eq!(ended.resume_token.is_empty(), !token);
            assert!(ended.retry.as_ref().expect("advice").retry);
        }
        let status = self.status.as_ref().expect("the call did not end OK");
        assert_eq!((status.code(), reason_of_call(status).as_str()), (Code::Unavailable, "DRAINING"), "{status:?}");
        assert!(status.get_details_retry_info().is_some());
    }
}

/// An event that was answered OK.
#[derive(Debug, Clone, Copy)]
pub struct Acked {
    pub epoch: i64,
    pub sequence: i64,
    pub publisher: usize,
    pub number: u64,
}

/// Everything that was answered OK, to all publishers; a test may look at it at any time.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Acked>>>);

impl Ledger {
    pub fn entries(&self) -> MutexGuard<'_, Vec<Acked>> {
        self.0.lock().expect("no test panics while it holds this")
    }

    /// How many were answered by a stream of an epoch.
    pub fn of(&self, epoch: i64) -> usize {
        self.entries().iter().filter(|acked| acked.epoch == epoch).count()
    }
}

/// Whose an event is, which, and a filler that is told by both.
fn content(publisher: usize, number: u64) -> String {
    let length = fastrand::Rng::with_seed(number ^ ((publisher as u64) << 40)).usize(..200);
    let filler: String = (0..length).map(|at| char::from(b'a' + ((at as u64 * 7 + number) % 26) as u8)).collect();
    format!("{publisher} {number} {filler}")
}

/// How a publisher goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Over a session, or one call after the other.
    pub session: bool,
    /// So many publishes wait for their answer at a time; in a session.
    pub window: usize,
    /// A session is for so many publishes; the next may be with another hub.
    pub publishes: usize,
    /// Publishes no more when it hears that the hub drains; else until the session ends.
    pub polite: bool,
    /// Waits before each publish.
    pub pause: Duration,
}

/// Publishes numbered events to `<prefix>.<number of the publisher>` until told to finish.
pub struct Publisher {
    pub number: usize,
    pub prefix: &'static str,
    pub door: Door,
    pub manner: Manner,
    pub ledger: Ledger,
    pub finish: watch::Receiver<bool>,
    next: u64,
    /// Numbers whose publish was not answered, or refused because the hub drains.
    again: VecDeque<u64>,
    farewells: Vec<Farewell>,
}

const BATCH: usize = 4;

impl Publisher {
    pub fn new(
        number: usize,
        prefix: &'static str,
        door: Door,
        manner: Manner,
        ledger: &Ledger,
        finish: &watch::Receiver<bool>,
    ) -> Self {
        let (ledger, finish) = (ledger.clone(), finish.clone());
        Self { number, prefix, door, manner, ledger, finish, next: 0, again: VecDeque::new(), farewells: Vec::new() }
    }

    /// How many events it published, all of which were answered OK in the end; and how its sessions ended.
    pub async fn work(mut self) -> (u64, Vec<Farewell>) {
        let mut client = None;
        while !(*self.finish.borrow() && self.again.is_empty()) {
            if client.is_none() {
                client = self.door.open().await;
            }
            let done = match client.clone() {
                None => false,
                Some(client) if self.manner.session => self.over_a_session(client).await,
                Some(client) => self.one_call_each(client).await,
            };
            if !done {
                // A client that balances keeps what it has; the others look for a hub anew.
                if self.door.0.len() == 1 {
                    client = None;
                }
                pause(AGAIN).await;
            }
        }
        (self.next, self.farewells)
    }

    /// The numbers of the next publish; none when there is nothing left to do.
    fn batch(&mut self) -> Vec<u64> {
        let left = self.again.len().min(BATCH);
        if left > 0 {
            return self.again.drain(..left).collect();
        }
        if *self.finish.borrow() {
            return Vec::new();
        }
        self.next += BATCH as u64;
        (self.next - BATCH as u64..self.next).collect()
    }

    fn events(&self, batch: &[u64]) -> Vec<Event> {
        let (topic, source) = (format!("{}.{}", self.prefix, self.number), format!("publisher-{}", self.number));
        let event = |number: &u64| Event {
            id: number.to_string(),
            source: source.clone(),
            ..event(&topic, content(self.number, *number))
        };
        batch.iter().map(event).collect()
    }

    fn answered(&mut self, batch: Vec<u64>, results: &[PublishResult]) {
        assert_eq!(batch.len(), results.len());
        for (number, result) in batch.into_iter().zip(results) {
            match &result.status {
                None => {
                    let (epoch, sequence) = (result.epoch, result.sequence);
                    assert!(sequence > 0, "stored: {result:?}");
                    self.ledger.entries().push(Acked { epoch, sequence, publisher: self.number, number });
                }
                Some(status) => {
                    assert_eq!(reason(status), "DRAINING");
                    self.again.push_back(number);
                }
            }
        }
    }

    async fn over_a_session(&mut self, client: HubServiceClient<Channel>) -> bool {
        let Some(mut line) = Line::open(client, None).await else { return false };
        let mut open: HashMap<i64, Vec<u64>> = HashMap::new();
        let (mut sent, mut leaving, mut farewell) = (0, false, Farewell::default());
        loop {
            while open.len() < self.manner.window && !leaving {
                let batch = self.batch();
                if batch.is_empty() || sent == self.manner.publishes {
                    self.again.extend(batch);
                    leaving = true;
                    break;
                }
                pause(self.manner.pause).await;
                sent += 1;
                let request = Wire::Publish(publish(self.events(&batch)));
                open.insert(sent as i64, batch);
                leaving = !line.send(sent as i64, request).await;
            }
            if open.is_empty() {
                return true;
            }
            match soon("an answer", line.frames.next()).await {
                Some(Ok(SessionResponse { request_id, frame: Some(frame) })) => match frame {
                    Frame::Published(response) => {
                        let batch = open.remove(&request_id).expect("asked for, and answered once");
                        self.answered(batch, &response.results);
                    }
                    Frame::Draining(_) => {
                        farewell.draining = true;
                        leaving = self.manner.polite;
                    }
                    Frame::Welcome(_) | Frame::Heartbeat(_) => {}
                    other => panic!("unexpected: {other:?}"),
                },
                Some(Err(status)) => {
                    lost(&status);
                    farewell.status = Some(status);
                    break;
                }
                other => {
                    assert!(other.is_none(), "{other:?}");
                    break;
                }
            }
        }
        self.again.extend(open.into_values().flatten());
        self.farewells.push(farewell);
        false
    }

    async fn one_call_each(&mut self, mut client: HubServiceClient<Channel>) -> bool {
        for _ in 0..self.manner.publishes {
            let batch = self.batch();
            if batch.is_empty() {
                break;
            }
            pause(self.manner.pause).await;
            match soon("an answer", client.publish(publish(self.events(&batch)))).await {
                Ok(response) => self.answered(batch, &response.into_inner().results),
                Err(status) => {
                    lost(&status);
                    self.again.extend(batch);
                    return false;
                }
            }
        }
        true
    }
}

/// Reads all of a stream, over the lives of its hub.
pub struct Follower {
    pub door: Door,
    pub stream: &'static str,
    pub epoch: i64,
    pub finish: watch::Receiver<bool>,
    pub read: Followed,
    token: String,
}

/// What a follower has read, in order.
#[derive(Debug, Default)]
pub struct Followed {
    pub events: Vec<(i64, String)>,
    /// How the hubs that ended one of its sessions did so.
    pub farewells: Vec<Farewell>,
    /// How often it went on where a token said.
    pub resumed: usize,
}

impl Follower {
    pub fn new(door: Door, stream: &'static str, epoch: i64, finish: &watch::Receiver<bool>) -> Self {
        let (finish, read, token) = (finish.clone(), Followed::default(), String::new());
        Self { door, stream, epoch, finish, read, token }
    }

    /// Ends when it was told to finish and has read all there is.
    pub async fn work(mut self) -> Followed {
        loop {
            // Seen before the subscription is opened: it then catches up with all there is.
            let last = *self.finish.borrow_and_update();
            if let Some(client) = self.door.open().await
                && self.read_on(client, last).await
            {
                return self.read;
            }
            pause(AGAIN).await;
        }
    }

    async fn read_on(&mut self, client: HubServiceClient<Channel>, last: bool) -> bool {
        let resumes = !self.token.is_empty();
        let start = if resumes { resume(&self.token) } else { preset(StartPreset::Earliest) };
        let wish = Subscribe { subscription_id: 1, spec: Some(from(self.stream, start)) };
        let Some(mut line) = Line::open(client, Some(Wire::Subscribe(wish))).await else { return false };
        let mut farewell = Farewell::default();
        loop {
            let frame = tokio::select! {
                frame = soon("a frame", line.frames.next()) => frame,
                _ = self.finish.wait_for(|finish| *finish), if !last => return false,
            };
            match frame {
                Some(Ok(frame)) => match frame.frame.expect("a frame") {
                    Frame::Subscribed(subscribed) => {
                        let expected = if resumes { ResumeOutcome::Resumed } else { ResumeOutcome::Fresh };
                        assert_eq!((subscribed.resume_outcome(), subscribed.epoch), (expected, self.epoch));
                        self.read.resumed += usize::from(resumes);
                    }
                    Frame::Events(events) => {
                        for received in &events.events {
                            let before = self.read.events.last().map_or(0, |(sequence, _)| *sequence);
                            assert_eq!(received.sequence, before + 1, "no gap and no repeat");
                            self.read.events.push((received.sequence, text(received).to_owned()));
                        }
                        self.token = events.resume_token;
                    }
                    Frame::Progress(progress) => {
                        self.token = progress.resume_token;
                        if last && progress.caught_up {
                            return true;
                        }
                    }
                    Frame::Draining(_) => farewell.draining = true,
                    Frame::Ended(ended) => {
                        assert!(!ended.resume_token.is_empty(), "told where to resume: {ended:?}");
                        self.token.clone_from(&ended.resume_token);
                        farewell.ended = Some(ended);
                    }
                    Frame::Welcome(_) | Frame::Heartbeat(_) => {}
                    other => panic!("unexpected: {other:?}"),
                },
                Some(Err(status)) => {
                    lost(&status);
                    farewell.status = Some(status);
                    break;
                }
                None => break,
            }
        }
        self.read.farewells.push(farewell);
        false
    }
}

/// What the members of a group have done together.
#[derive(Debug, Clone, Default)]
pub struct Work(Arc<Mutex<Done>>);

#[derive(Debug, Default)]
pub struct Done {
    /// Every sequence that a member got.
    pub delivered: HashSet<i64>,
    /// Those whose acknowledgement was answered OK.
    pub confirmed: HashSet<i64>,
}

impl Work {
    pub fn done(&self) -> MutexGuard<'_, Done> {
        self.0.lock().expect("no test panics while it holds this")
    }
}

/// Acknowledges what it gets, until told to finish.
pub struct Member {
    pub door: Door,
    pub stream: &'static str,
    pub group: &'static str,
    pub work: Work,
    pub finish: watch::Receiver<bool>,
}

impl Member {
    pub async fn work(mut self) -> Vec<Farewell> {
        let mut farewells = Vec::new();
        while !*self.finish.borrow() {
            if let Some(client) = self.door.open().await {
                farewells.extend(self.share(client).await);
            }
            pause(AGAIN).await;
        }
        farewells
    }

    async fn share(&mut self, client: HubServiceClient<Channel>) -> Option<Farewell> {
        let spec = SubscriptionSpec {
            group: self.group.into(),
            ack_mode: AckMode::Explicit.into(),
            ..from(self.stream, None)
        };
        let wish = Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) });
        let mut line = Line::open(client, Some(wish)).await?;
        let mut farewell = Farewell::default();
        loop {
            let frame = tokio::select! {
                frame = soon("a frame", line.frames.next()) => frame,
                _ = self.finish.wait_for(|finish| *finish) => return None,
            };
            match frame {
                Some(Ok(frame)) => match frame.frame.expect("a frame") {
                    Frame::Events(events) => {
                        let sequences: Vec<i64> = events.events.iter().map(|event| event.sequence).collect();
                        for sequence in &sequences {
                            let mut done = self.work.done();
                            assert!(!done.confirmed.contains(sequence), "{sequence} came again");
                            done.delivered.insert(*sequence);
                        }
                        let told = Acknowledge { subscription_id: 1, sequences, ..Acknowledge::default() };
                        line.send(2, Wire::Acknowledge(told)).await;
                    }
                    Frame::Acknowledged(acknowledged) => {
                        let stored = acknowledged.results.iter().filter(|result| result.status.is_none());
                        self.work.done().confirmed.extend(stored.map(|result| result.sequence));
                    }
                    Frame::Draining(_) => farewell.draining = true,
                    Frame::Ended(ended) => farewell.ended = Some(ended),
                    Frame::Error(status) => {
                        assert_eq!(reason(&status), "SUBSCRIPTION_NOT_FOUND", "acked behind the end");
                    }
                    Frame::Welcome(_) | Frame::Heartbeat(_) | Frame::Subscribed(_) => {}
                    other => panic!("unexpected: {other:?}"),
                },
                Some(Err(status)) => {
                    lost(&status);
                    farewell.status = Some(status);
                    return Some(farewell);
                }
                None => return Some(farewell),
            }
        }
    }
}

/// What a stream holds in the end against what its clients were told; how many events it has.
pub async fn check(address: SocketAddr, stream: &str, epoch: i64, ledger: &Ledger, followers: &[&Followed]) -> usize {
    let truth: Vec<(i64, String)> =
        all(address, stream).await.iter().map(|received| (received.sequence, text(received).to_owned())).collect();
    let mut once = HashSet::new();
    for ((sequence, text), expected) in truth.iter().zip(1..) {
        assert_eq!(*sequence, expected, "the stream has no holes");
        assert!(once.insert(text.as_str()), "{text} is in the stream twice");
    }
    for acked in ledger.entries().iter().filter(|acked| acked.epoch == epoch) {
        let (_, text) = truth.get(acked.sequence as usize - 1).unwrap_or_else(|| panic!("{acked:?} is lost"));
        assert_eq!(*text, content(acked.publisher, acked.number), "{acked:?}");
    }
    for followed in followers {
        assert_eq!(followed.events, truth);
    }
    truth.len()
}

/// A group that begins with the first event of a stream.
pub async fn create_group(address: SocketAddr, stream: &str, group: &str) {
    let group = Group { stream: stream.into(), name: group.into(), ..Group::default() };
    let request = CreateGroupRequest { group: Some(group), start: preset(StartPreset::Earliest) };
    GroupServiceClient::new(channel(address).await).create_group(request).await.expect("created");
}

/// Waits until the members of a group have acknowledged all there is.
pub async fn until_worked_off(address: SocketAddr, stream: &str, group: &str) {
    let mut groups = GroupServiceClient::new(channel(address).await);
    until("every event is acknowledged", async || {
        let request = GetGroupRequest { stream: stream.into(), name: group.into() };
        let group = groups.get_group(request).await.expect("told").into_inner().group.expect("a group");
        let state = group.state.expect("a state");
        state.pending == 0 && state.unacked == 0
    })
    .await;
}
