//! The real hub, killed with SIGKILL again and again at random moments while publishers, subscribers and members of
//! groups work.
//!
//! What must hold at the end: every event that was answered OK is in the stream, once, where the answer said, in the
//! order of its publisher; nothing is in it that was never published; sequences have no gap and the epoch is the first
//! one; every reader has got exactly what matches it, though it saw many hubs die; every token that any hub gave is
//! still good; and groups have brought every event to a member until it was done, and none after it was answered as done.
//! What must hold of locks with a ttl, of a stream that removes events before its group is done with them, and of backups
//! that are put back, `locks`, `ledger` and `copies` tell.
//!
//! `TORTURE_KILLS` sets how often the hub is killed (40 unless it is set; `make torture` sets 500), `TORTURE_SEED` the
//! seed of the random choices, which is printed. The choices are then the same; when things happen is not.
//!
//! Each kind of worker works until the [`Phase`] tells it to finish, and gives a [`Report`], which is checked against the
//! [`Truth`] that the stream holds in the end. What members of groups are, `members` tells.

mod copies;
mod hubs;
mod ledger;
mod locks;
mod members;
mod squeezed;
mod worker;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use switchyard::{
    model::Filter,
    proto::v1::{
        AddCredit, Event, PublishPrecondition, PublishRequest, PublishResponse, PublishResult, ReceivedEvent,
        ResumeOutcome, SessionRequest, StartPreset, Subscribe, SubscriptionSpec, hub_service_client::HubServiceClient,
        publish_precondition::Condition, session_request::Command as Wire, session_response::Frame,
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Channel;

use crate::{
    harness::{credit, event, pause, soon},
    stored::{Reader, all, create, from, preset, resume, state, stream, text},
};
use copies::Copies;
use hubs::Hubs;
use locks::Locks;
use members::Members;
use squeezed::Squeezed;

const KILLS: usize = 40;
/// A hub begins with a new folder after so many: what a round leaves is checked as a whole.
const KILLS_OF_A_ROUND: usize = 50;
/// One in so many hubs is killed before it serves.
const EARLY: usize = 6;
/// So many publishes of one publisher wait for their answer at a time.
const WINDOW: usize = 6;
/// So many tokens of each reader are tried at the end.
const TOKENS: usize = 10;
const NAME: &str = "kill";

/// Events of a publisher whose numbers leave the same rest have the same key, if it uses keys.
const KEYS: u64 = 16;

/// One hub, from its start to its death.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Life {
    address: SocketAddr,
    /// Counts the hubs.
    number: usize,
}

/// What the workers are to do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Work with whatever hub there is.
    Work(Option<Life>),
    /// Begin nothing new; what was begun is to be finished.
    Publish(Life),
    /// Everything is published: read it.
    Read(Life),
    /// Everything is done.
    Over,
}

impl Phase {
    fn life(self) -> Option<Life> {
        match self {
            Self::Work(life) => life,
            Self::Publish(life) | Self::Read(life) => Some(life),
            Self::Over => None,
        }
    }

    fn address(self) -> Option<SocketAddr> {
        self.life().map(|life| life.address)
    }
}

/// What one worker did and saw.
enum Report {
    Publisher(Published),
    Reader(Read),
}

/// What the stream holds when all is done.
struct Truth {
    epoch: i64,
    events: Vec<ReceivedEvent>,
    /// How many events each publisher has begun to publish.
    published: HashMap<usize, u64>,
}

struct Published {
    publisher: usize,
    count: u64,
    /// The answers in the order of its events.
    answers: Vec<PublishResult>,
}

struct Read {
    filters: Vec<&'static str>,
    events: Vec<(i64, String)>,
    /// Tokens, and what each stands behind.
    tokens: Vec<(String, i64)>,
    resumed: usize,
}

/// The text of an event: whose it is, which, a checksum, and what the checksum is of.
fn content(publisher: usize, number: u64) -> String {
    let length = fastrand::Rng::with_seed(number ^ ((publisher as u64) << 40)).usize(..600);
    let filler: String = (0..length).map(|at| char::from(b'a' + ((at as u64 * 7 + number) % 26) as u8)).collect();
    format!("{publisher} {number} {:08x} {filler}", crc32c::crc32c(filler.as_bytes()))
}

fn numbered(publisher: usize, number: u64) -> Event {
    let topic = format!("kill.{publisher}.{}", if publisher == 2 { 0 } else { number % 3 });
    let (id, source) = (number.to_string(), format!("publisher-{publisher}"));
    let key = if is_keyed(publisher) { format!("{publisher}-{}", number % KEYS) } else { String::new() };
    Event { id, source, key, ..event(&topic, content(publisher, number)) }
}

fn is_keyed(publisher: usize) -> bool {
    publisher % 2 == 1
}

/// Whose an event is, and which, by its text.
fn words(text: &str) -> (usize, u64) {
    let mut words = text.split(' ').map_while(|word| word.parse::<u64>().ok());
    let mut word = || words.next().expect("a number");
    (word() as usize, word())
}

/// A connection to the hub of the moment; none when it is dead already.
async fn connect(address: SocketAddr) -> Option<HubServiceClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await.ok()?;
    Some(HubServiceClient::new(channel).max_decoding_message_size(8 * 1024 * 1024))
}

/// A call that failed with its hub.
fn is_lost(status: &tonic::Status) -> bool {
    [tonic::Code::Unavailable, tonic::Code::Unknown, tonic::Code::Cancelled].contains(&status.code())
}

/// Publishes until told to finish. What was not answered by one hub is published again to the next, in order.
struct Publisher {
    number: usize,
    random: fastrand::Rng,
    phase: watch::Receiver<Phase>,
    count: u64,
    answers: Vec<PublishResult>,
    /// Batches without an answer, the oldest first.
    open: VecDeque<Vec<Event>>,
}

impl Publisher {
    async fn work(mut self) -> Report {
        loop {
            let phase = *self.phase.borrow_and_update();
            if !matches!(phase, Phase::Work(_)) && self.open.is_empty() {
                let Self { number: publisher, count, answers, .. } = self;
                return Report::Publisher(Published { publisher, count, answers });
            }
            if let Some(address) = phase.address()
                && let Some(client) = connect(address).await
            {
                match self.number {
                    0 => self.over_a_session(client, true).await,
                    1 => self.over_a_session(client, false).await,
                    _ => self.one_call_each(client).await,
                }
            }
            if matches!(*self.phase.borrow(), Phase::Work(_)) {
                pause(Duration::from_millis(2)).await;
            }
        }
    }

    fn is_working(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Work(_))
    }

    fn begin(&mut self) {
        let events = self.random.u64(1..=12);
        self.open.push_back((self.count..self.count + events).map(|n| numbered(self.number, n)).collect());
        self.count += events;
    }

    fn answered(&mut self, response: PublishResponse) {
        let batch = self.open.pop_front().expect("an answer for each batch");
        assert_eq!(batch.len(), response.results.len());
        for result in &response.results {
            assert!(result.status.is_none() && result.stream == NAME, "{result:?}");
        }
        self.answers.extend(response.results);
    }

    /// Many publishes at a time over one session, `quick` or with pauses, until the hub dies or nothing is left to do.
    async fn over_a_session(&mut self, mut client: HubServiceClient<Channel>, quick: bool) {
        let (commands, receiver) = mpsc::channel(WINDOW * 2);
        let Ok(frames) = client.session(ReceiverStream::new(receiver)).await else { return };
        let mut frames = frames.into_inner();
        let publish = |events: &Vec<Event>| SessionRequest {
            request_id: 1,
            command: Some(Wire::Publish(PublishRequest { events: events.clone(), precondition: None })),
        };
        let mut sent = 0;
        loop {
            while self.open.len() < WINDOW && self.is_working() {
                self.begin();
            }
            while sent < self.open.len() {
                if commands.send(publish(&self.open[sent])).await.is_err() {
                    return;
                }
                sent += 1;
            }
            if self.open.is_empty() {
                return;
            }
            match soon("an answer", frames.next()).await {
                Some(Ok(frame)) => match frame.frame {
                    Some(Frame::Published(response)) => {
                        self.answered(response);
                        sent -= 1;
                    }
                    Some(Frame::Welcome(_) | Frame::Heartbeat(_)) => {}
                    other => panic!("unexpected: {other:?}"),
                },
                _ => return,
            }
            let time = if quick { 0 } else { self.random.u64(..8) };
            if time > 0 {
                pause(Duration::from_millis(time)).await;
            }
        }
    }

    /// One publish after the other, each only behind the last one that was answered.
    async fn one_call_each(&mut self, mut client: HubServiceClient<Channel>) {
        loop {
            if self.open.is_empty() {
                if !self.is_working() {
                    return;
                }
                self.begin();
            }
            let last = self.answers.last().map_or(0, |result| result.sequence);
            let precondition = (self.number == 2)
                .then_some(PublishPrecondition { condition: Some(Condition::LastTopicSequence(last)) });
            let request = PublishRequest { events: self.open[0].clone(), precondition };
            match soon("an answer", client.publish(request)).await {
                Ok(response) => self.answered(response.into_inner()),
                Err(status) => {
                    assert!(is_lost(&status), "{status:?}");
                    return;
                }
            }
            pause(Duration::from_millis(self.random.u64(..4))).await;
        }
    }
}

/// Reads one stream over the lives of many hubs.
struct Subscriber {
    filters: Vec<&'static str>,
    /// Asks for so many events at a time; `None` leaves it to the hub.
    credit: Option<i64>,
    phase: watch::Receiver<Phase>,
    epoch: i64,
    read: Read,
}

impl Subscriber {
    fn new(filters: &[&'static str], credit: Option<i64>, phase: watch::Receiver<Phase>, epoch: i64) -> Self {
        let read = Read { filters: filters.to_vec(), events: Vec::new(), tokens: Vec::new(), resumed: 0 };
        Self { filters: filters.to_vec(), credit, phase, epoch, read }
    }

    async fn work(mut self) -> Report {
        loop {
            // Seen before the subscription is opened: it then catches up with all there is.
            let phase = *self.phase.borrow_and_update();
            if let Some(address) = phase.address()
                && let Some(client) = connect(address).await
                && self.read_on(client, matches!(phase, Phase::Read(_))).await
            {
                return Report::Reader(self.read);
            }
            if matches!(*self.phase.borrow(), Phase::Work(_)) {
                pause(Duration::from_millis(2)).await;
            }
        }
    }

    fn wish(&self) -> SubscriptionSpec {
        let start = match self.read.tokens.last() {
            Some((token, _)) => resume(token),
            None => preset(StartPreset::Earliest),
        };
        SubscriptionSpec {
            filters: self.filters.iter().map(|filter| (*filter).to_owned()).collect(),
            credit: self.credit.and_then(|events| credit(events, 0)),
            ..from(NAME, start)
        }
    }

    /// Reads until the hub dies or the phase changes; or, for the last time, until all is read, which makes it true.
    async fn read_on(&mut self, mut client: HubServiceClient<Channel>, last: bool) -> bool {
        let (commands, receiver) = mpsc::channel(16);
        let subscribe = Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(self.wish()) });
        commands.send(SessionRequest { request_id: 1, command: Some(subscribe) }).await.expect("room");
        let Ok(frames) = client.session(ReceiverStream::new(receiver)).await else { return false };
        let mut frames = frames.into_inner();
        let mut left = self.credit.unwrap_or(i64::MAX);
        loop {
            let frame = tokio::select! {
                frame = soon("a frame", frames.next()) => frame,
                _ = self.phase.wait_for(|phase| matches!(phase, Phase::Read(_))), if !last => return false,
            };
            let Some(Ok(frame)) = frame else { return false };
            match frame.frame.expect("a frame") {
                Frame::Subscribed(subscribed) => {
                    let resumed = !self.read.tokens.is_empty();
                    let expected = if resumed { ResumeOutcome::Resumed } else { ResumeOutcome::Fresh };
                    assert_eq!((subscribed.resume_outcome(), subscribed.epoch), (expected, self.epoch));
                    self.read.resumed += usize::from(resumed);
                }
                Frame::Events(events) => {
                    left -= events.events.len() as i64;
                    for received in events.events {
                        let before = self.read.last();
                        assert!(received.sequence > before, "{} came behind {before}", received.sequence);
                        self.read.events.push((received.sequence, text(&received).to_owned()));
                    }
                    self.read.keep(events.resume_token);
                    if let (0, Some(events)) = (left, self.credit) {
                        let more = Wire::Credit(AddCredit { subscription_id: 1, credit: credit(events, 0) });
                        if commands.send(SessionRequest { request_id: 0, command: Some(more) }).await.is_err() {
                            return false;
                        }
                        left = events;
                    }
                }
                Frame::Progress(progress) => {
                    self.read.keep(progress.resume_token);
                    if last && progress.caught_up {
                        return true;
                    }
                }
                Frame::Welcome(_) | Frame::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

impl Read {
    fn last(&self) -> i64 {
        self.events.last().map_or(0, |(sequence, _)| *sequence)
    }

    fn keep(&mut self, token: String) {
        let last = self.last();
        self.tokens.push((token, last));
    }

    /// It has got what matches, all of it and nothing else; and a token that it was given at any time leads to what
    /// came after it.
    async fn check(&self, address: SocketAddr, truth: &Truth, random: &mut fastrand::Rng) {
        let filters: Vec<Filter> =
            self.filters.iter().map(|filter| Filter::parse(filter.as_bytes()).expect("a filter")).collect();
        let matches = |received: &&ReceivedEvent| {
            let topic = &received.event.as_ref().expect("an event").topic;
            let topic = switchyard::model::Topic::parse(topic.as_bytes()).expect("a topic");
            filters.is_empty() || filters.iter().any(|filter| filter.matches(topic))
        };
        let mut expected = truth.events.iter().filter(matches);
        for (sequence, got) in &self.events {
            let event = expected.next().expect("no more than there is");
            assert_eq!((event.sequence, text(event)), (*sequence, got.as_str()), "{:?}", self.filters);
        }
        assert_eq!(expected.count(), 0, "{:?} did not get all", self.filters);
        for _ in 0..TOKENS {
            let (token, last) = random.choice(&self.tokens).expect("tokens");
            let rest = &self.events[self.events.partition_point(|(sequence, _)| sequence <= last)..];
            let rest: Vec<i64> = rest.iter().map(|(sequence, _)| *sequence).take(50).collect();
            let wish = SubscriptionSpec {
                filters: self.filters.iter().map(|filter| (*filter).to_owned()).collect(),
                max_events: 50,
                ..from(NAME, resume(token))
            };
            let mut reader = Reader::open(address, wish).await;
            assert_eq!(reader.subscribed.resume_outcome(), ResumeOutcome::Resumed);
            if rest.len() < 50 {
                reader.until_caught_up().await;
            } else {
                reader.until_ended().await;
            }
            assert_eq!(reader.sequences(), rest, "behind {last}");
        }
    }
}

impl Published {
    /// Whatever was answered is where the answer said.
    fn check(&self, truth: &Truth) {
        assert_eq!(self.answers.len() as u64, self.count, "every event was answered in the end");
        for (number, answer) in (0..).zip(&self.answers) {
            assert_eq!(answer.epoch, truth.epoch);
            let event = &truth.events[answer.sequence as usize - 1];
            assert_eq!(text(event), content(self.publisher, number), "answered at {}", answer.sequence);
        }
    }
}

impl Truth {
    /// No gap, nothing that was never published, and everything once and in the order of its publisher.
    fn check(&self) {
        let mut next: HashMap<usize, u64> = HashMap::new();
        for (received, sequence) in self.events.iter().zip(1..) {
            assert_eq!(received.sequence, sequence, "a gap, or one too many");
            let (publisher, number) = words(text(received));
            assert_eq!(text(received), content(publisher, number), "{sequence} is torn");
            let expected = next.entry(publisher).or_default();
            assert_eq!(number, *expected, "{sequence} of publisher {publisher} is not the next one");
            *expected += 1;
        }
        assert_eq!(next, self.published);
    }
}

/// One data directory, and the hubs that live and die on it.
async fn round(kills: usize, random: &mut fastrand::Rng) {
    let (mut hubs, mut copies) = (Hubs::new(), Copies::new());
    let mut life = hubs.start().await;
    let epoch = create(life.address, stream(NAME, &["kill.>"])).await.state.expect("a state").epoch;
    create(life.address, stream(members::LOST, &["lost.>"])).await;
    let (phase, watched) = watch::channel(Phase::Work(Some(life)));
    let mut workers = workers(random, &watched, epoch);
    let mut members = Members::start(life, random, &watched, epoch).await;
    let mut locks = Locks::start(life, random, &watched).await;
    let mut small = Squeezed::start(life, random, &watched).await;
    for kill in 1..=kills {
        pause(Duration::from_millis(random.u64(5..400))).await;
        let copy = copies.take(kill, life, random, &small).await;
        phase.send_replace(Phase::Work(None));
        hubs.kill();
        copies.put_back(copy, &small);
        if kill % EARLY == 0 {
            hubs.kill_early(random).await;
        }
        life = hubs.start().await;
        phase.send_replace(Phase::Work(Some(life)));
        members.check_work();
        locks.check_work();
        small.check_work();
        still_at_work(&mut workers);
    }
    phase.send_replace(Phase::Publish(life));
    let mut reports = Vec::new();
    for _ in 0..PUBLISHERS {
        reports.push(soon("a publisher", workers.join_next()).await.expect("a worker").expect("a report"));
    }
    locks.finish(life).await;
    small.until_done().await;
    phase.send_replace(Phase::Read(life));
    while let Some(report) = soon("a reader", workers.join_next()).await {
        reports.push(report.expect("a report"));
    }
    members.until_done(life, state(life.address, NAME).await.latest_sequence).await;
    phase.send_replace(Phase::Over);
    members.until_over().await;
    small.until_over().await;
    // Whatever was answered last is told by the next hub as well.
    hubs.kill();
    life = hubs.start().await;
    let truth = check(life.address, epoch, &reports, random).await;
    members.check(life, &truth).await;
    small.check(life).await;
    copies.check(&truth).await;
}

/// Whoever has ended before it was told to has failed.
fn still_at_work<T: 'static>(work: &mut JoinSet<T>) {
    if let Some(ended) = work.try_join_next() {
        ended.expect("it goes on");
        panic!("it ended before it was told to");
    }
}

const PUBLISHERS: usize = 4;

fn workers(random: &mut fastrand::Rng, phase: &watch::Receiver<Phase>, epoch: i64) -> JoinSet<Report> {
    let mut workers = JoinSet::new();
    for number in 0..PUBLISHERS {
        let publisher = Publisher {
            number,
            random: random.fork(),
            phase: phase.clone(),
            count: 0,
            answers: Vec::new(),
            open: VecDeque::new(),
        };
        workers.spawn(publisher.work());
    }
    for (filters, credit) in
        [(&[][..], None), (&["kill.0.*", "kill.2.>"], None), (&["kill.*.1"], None), (&[], Some(700))]
    {
        workers.spawn(Subscriber::new(filters, credit, phase.clone(), epoch).work());
    }
    workers
}

async fn check(address: SocketAddr, epoch: i64, reports: &[Report], random: &mut fastrand::Rng) -> Truth {
    let published = reports.iter().filter_map(|report| match report {
        Report::Publisher(published) => Some((published.publisher, published.count)),
        Report::Reader(_) => None,
    });
    let truth = Truth { epoch, events: all(address, NAME).await, published: published.collect() };
    let state = state(address, NAME).await;
    assert_eq!((state.epoch, state.latest_sequence), (epoch, truth.events.len() as i64));
    truth.check();
    let mut resumed = 0;
    for report in reports {
        match report {
            Report::Publisher(published) => published.check(&truth),
            Report::Reader(read) => {
                read.check(address, &truth, random).await;
                resumed += read.resumed;
            }
        }
    }
    println!("{} events, {resumed} times resumed", truth.events.len());
    truth
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_outlives_every_kill() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = setting("TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let kills = setting("TORTURE_KILLS").map_or(KILLS, |kills| kills as usize);
    println!("{kills} kills; TORTURE_SEED={seed} makes the same choices again");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut left = kills;
    while left > 0 {
        let some = left.min(KILLS_OF_A_ROUND);
        round(some, &mut random).await;
        left -= some;
    }
}
