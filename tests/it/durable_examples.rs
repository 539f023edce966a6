//! The clients in `examples/` that work on streams: members of a group, and a subscriber that keeps its token. They are
//! killed in the middle of their work, and so is the hub.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Stdio},
};

use switchyard::proto::v1::{
    CreateGroupRequest, CreateStreamRequest, Event, GetGroupRequest, Group, GroupState, ListDeadLettersRequest,
    StartPreset, Stream, event::Payload, group_service_client::GroupServiceClient,
    stream_service_client::StreamServiceClient,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    examples,
    harness::{Folder, PATIENCE, Process, channel, event, exit, publish, signal, until},
    verifying::free_address,
    workplace::{ms, preset},
};

/// More than fits in the pipe of a client that nobody reads, so that it is killed before it is done.
const EVENTS: usize = 4000;
/// How many events a worker asks for at a time.
const CREDIT: usize = 8;
/// How many events a resuming subscriber gets in one frame.
const MAX_BATCH: usize = 100;
/// So many lines are read before a client is killed.
const BEFORE: usize = 250;
/// Of workers.
const LANGUAGES: [&str; 3] = ["python", "go", "node"];
/// Of subscribers that resume.
const RESUMING: [&str; 4] = ["python", "go", "node", "java"];

/// A hub with a stream `jobs` and one for dead letters.
async fn hub(folder: &Folder) -> Process {
    // An address that it may have again after a restart.
    let listen = format!("listen={}", free_address());
    let data = folder.path().display().to_string();
    let hub = Process::start(&["--data-dir", &data, "--set", "drain.deadline_ms=5000", "--set", &listen]);
    let mut streams = StreamServiceClient::new(channel(hub.address).await);
    for name in ["jobs", "lost"] {
        let stream = Stream { name: name.into(), filters: vec![format!("{name}.>")], ..Stream::default() };
        streams.create_stream(CreateStreamRequest { stream: Some(stream) }).await.expect("created");
    }
    hub
}

/// Publishes to the topics `jobs.0` to `jobs.2` in turn; the text of an event says which one it is.
async fn fill(hub: SocketAddr, from: usize, to: usize) {
    let mut client = crate::harness::client(hub).await;
    for some in (from..=to).collect::<Vec<_>>().chunks(500) {
        let events = some.iter().map(|number| event(&topic(*number), format!("job {number}"))).collect();
        client.publish(publish(events)).await.expect("published");
    }
}

fn topic(number: usize) -> String {
    format!("jobs.{}", number % 3)
}

async fn group(hub: SocketAddr, name: &str) -> GroupState {
    let request = GetGroupRequest { stream: "jobs".into(), name: name.into() };
    let mut groups = GroupServiceClient::new(channel(hub).await);
    match groups.get_group(request).await {
        Ok(told) => told.into_inner().group.and_then(|group| group.state).expect("a state"),
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
            GroupState::default()
        }
    }
}

/// Waits until the group has nothing left to do.
async fn until_done(hub: SocketAddr, name: &str, events: usize) {
    until("everything is done", async || {
        let state = group(hub, name).await;
        (state.cursor, state.pending, state.unacked) == (events as i64, 0, 0)
    })
    .await;
}

/// A client and what it prints.
struct Client {
    child: Child,
    lines: BufReader<ChildStdout>,
    read: String,
}

impl Client {
    fn start(language: &str, verb: &str, hub: SocketAddr, arguments: &[&str]) -> Self {
        let mut child = examples::client(language, verb)
            .args(["--server", &hub.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{language}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines, read: String::new() }
    }

    fn worker(language: &str, hub: SocketAddr, name: &str) -> Self {
        Self::start(language, "worker", hub, &["jobs", name])
    }

    fn resume(language: &str, hub: SocketAddr, token: &Path) -> Self {
        Self::start(language, "resume", hub, &["jobs", &token.display().to_string()])
    }

    /// Reads on until so many lines came.
    fn read(&mut self, lines: usize) {
        for _ in 0..lines {
            assert!(self.lines.read_line(&mut self.read).expect("text") > 0, "it ended after: {}", self.read);
        }
    }

    /// Kills it as nothing can prevent, and gives the sequences of what it had handled.
    fn kill(mut self) -> Vec<usize> {
        self.child.kill().expect("killed");
        self.child.wait().expect("a status");
        self.rest()
    }

    /// Presses Ctrl-C, after which it leaves in good order, and gives the same.
    fn leave(mut self) -> Vec<usize> {
        signal(self.child.id(), "INT");
        let status = exit(&mut self.child, PATIENCE);
        assert!(status.success(), "{status}");
        self.rest()
    }

    fn rest(mut self) -> Vec<usize> {
        self.lines.read_to_string(&mut self.read).expect("text");
        let whole = self.read.rfind('\n').map_or(0, |end| end + 1);
        self.read[..whole].lines().map(handled).collect()
    }
}

impl Drop for Client {
    /// A test that fails leaves none behind.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The sequence in a line, the rest of which must fit.
fn handled(line: &str) -> usize {
    let (sequence, rest) = line.split_once(' ').expect("a sequence");
    let sequence = sequence.parse().expect("a number");
    assert_eq!(rest, format!("{} job {sequence}", topic(sequence)));
    sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_everything_there_is_and_leaves_when_asked() {
    let folder = Folder::new();
    let hub = hub(&folder).await;
    fill(hub.address, 1, EVENTS).await;
    for language in LANGUAGES {
        let mut worker = Client::worker(language, hub.address, language);
        worker.read(EVENTS);
        until_done(hub.address, language, EVENTS).await;
        assert_eq!(worker.leave(), (1..=EVENTS).collect::<Vec<_>>(), "{language}");
        until("the hub has seen it go", async || group(hub.address, language).await.members == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_python_worker_that_is_killed_is_done_by_another() {
    one_that_is_killed_and_another("python", "go").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_go_worker_that_is_killed_is_done_by_another() {
    one_that_is_killed_and_another("go", "node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_node_worker_that_is_killed_is_done_by_another() {
    one_that_is_killed_and_another("node", "python").await;
}

/// The hub waits some seconds for the first to come back, before the other gets what that has not acknowledged.
async fn one_that_is_killed_and_another(killed: &str, other: &str) {
    let folder = Folder::new();
    let hub = hub(&folder).await;
    fill(hub.address, 1, EVENTS).await;
    let mut worker = Client::worker(killed, hub.address, killed);
    worker.read(BEFORE);
    let first = worker.kill();
    assert!(first.len() < EVENTS, "it was done before it was killed");
    let mut worker = Client::worker(other, hub.address, killed);
    worker.read(EVENTS - first.len());
    until_done(hub.address, killed, EVENTS).await;
    let second = worker.leave();

    let all: BTreeSet<usize> = first.iter().chain(&second).copied().collect();
    assert_eq!(all.len(), EVENTS, "{killed}: every event was handled");
    // Only what the hub had not heard of is done again, which is no more than was asked for.
    let repeated = first.len() + second.len() - EVENTS;
    assert!(repeated <= CREDIT, "{killed}: {repeated} events twice");
    let state = group(hub.address, killed).await;
    assert_eq!((state.expired, state.dropped), (0, 0), "{killed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_what_failed_and_the_event_comes_again_until_it_is_a_dead_letter() {
    let folder = Folder::new();
    let hub = hub(&folder).await;
    let mut groups = GroupServiceClient::new(channel(hub.address).await);
    for language in LANGUAGES {
        let group = Group {
            stream: "jobs".into(),
            name: language.into(),
            max_attempts: Some(2),
            backoff: vec![ms(1)],
            dead_letter_stream: "lost".into(),
            ..Group::default()
        };
        let request = CreateGroupRequest { group: Some(group), start: preset(StartPreset::Earliest) };
        groups.create_group(request).await.expect("created");
    }
    let no_text = Event { payload: Some(Payload::Data([0xff].as_slice().into())), ..event("jobs.1", "") };
    let mut client = crate::harness::client(hub.address).await;
    client.publish(publish(vec![no_text])).await.expect("published");
    fill(hub.address, 2, 3).await;
    for language in LANGUAGES {
        let mut worker = Client::worker(language, hub.address, language);
        // The others are done meanwhile.
        worker.read(2);
        until_done(hub.address, language, 3).await;
        let request = ListDeadLettersRequest { stream: "jobs".into(), group: language.into(), ..Default::default() };
        let letters = groups.list_dead_letters(request).await.expect("told").into_inner().dead_letters;
        let told: Vec<_> = letters.iter().map(|l| (l.origin_sequence, l.attempts, l.reason.as_str())).collect();
        assert_eq!(told, [(1, 2, "the payload is no text")], "{language}");
        assert_eq!(worker.leave(), [2, 3], "{language}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_killed_goes_on_at_its_token() {
    let folder = Folder::new();
    let hub = hub(&folder).await;
    fill(hub.address, 1, EVENTS).await;
    for language in RESUMING {
        let token = folder.path().join(language);
        let mut reader = Client::resume(language, hub.address, &token);
        reader.read(BEFORE);
        let first = reader.kill();
        assert!((BEFORE..EVENTS).contains(&first.len()), "{language}: killed after {}", first.len());
        assert_eq!(first, (1..=first.len()).collect::<Vec<_>>(), "{language}");
        assert!(token.exists(), "{language}: it has kept a token");

        let mut reader = Client::resume(language, hub.address, &token);
        reader.read(EVENTS - first.len());
        until_told(&mut reader, EVENTS);
        let second = reader.leave();
        let begin = second[0];
        assert_eq!(second, (begin..=EVENTS).collect::<Vec<_>>(), "{language}: no gap, nothing twice");
        let repeated = (first.len() + 1).checked_sub(begin);
        assert!(repeated.is_some_and(|events| events <= MAX_BATCH), "{language}: from {begin} after {}", first.len());
    }
}

/// Reads until the event of that sequence has come.
fn until_told(reader: &mut Client, sequence: usize) {
    while reader.read.lines().last().is_none_or(|line| handled(line) < sequence) {
        reader.read(1);
    }
}

/// In the middle of their work the hub is stopped as operators stop it, and started again where it was.
#[tokio::test(flavor = "multi_thread")]
async fn workers_and_subscribers_go_on_when_the_hub_is_restarted() {
    let folder = Folder::new();
    let mut first = hub(&folder).await;
    let address = first.address;
    fill(address, 1, EVENTS).await;
    let mut workers = LANGUAGES.map(|language| (language, Client::worker(language, address, language)));
    let mut readers =
        RESUMING.map(|language| (language, Client::resume(language, address, &folder.path().join(language))));
    for (_, client) in workers.iter_mut().chain(&mut readers) {
        client.read(BEFORE);
    }
    first.signal("TERM");
    assert!(first.exit(PATIENCE).success());
    let listen = format!("listen={address}");
    let second = Process::start(&["--data-dir", &folder.path().display().to_string(), "--set", &listen]);
    assert_eq!(second.address, address);

    let all: Vec<_> = (1..=EVENTS).collect();
    for (language, mut worker) in workers {
        worker.read(EVENTS - BEFORE);
        until_done(address, language, EVENTS).await;
        let mut done = worker.leave();
        // What was put back when the hub went may come behind what was not sent yet.
        done.sort_unstable();
        assert_eq!(done, all, "{language}: nothing lost, nothing done twice");
    }
    for (language, mut reader) in readers {
        reader.read(EVENTS - BEFORE);
        assert_eq!(reader.leave(), all, "{language}: nothing lost, nothing twice, in order");
    }
}

/// An address that stays while hubs come and go; where its connections lead is told by what comes with it.
async fn forwarder(hub: SocketAddr) -> (SocketAddr, watch::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, receiver) = watch::channel(hub);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let hub = *receiver.borrow();
            tokio::spawn(async move {
                // Whatever goes wrong ends both.
                if let Ok(mut hub) = TcpStream::connect(hub).await {
                    tokio::io::copy_bidirectional(&mut client, &mut hub).await.ok();
                }
            });
        }
    });
    (address, sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_subscribers_find_the_hub_again() {
    const BEFORE_AND_AFTER: usize = 100;
    let folder = Folder::new();
    let mut first = hub(&folder).await;
    let (address, hub_address) = forwarder(first.address).await;
    fill(address, 1, BEFORE_AND_AFTER).await;
    let mut workers = LANGUAGES.map(|language| (language, Client::worker(language, address, language)));
    let mut readers =
        RESUMING.map(|language| (language, Client::resume(language, address, &folder.path().join(language))));
    for (language, worker) in &mut workers {
        worker.read(BEFORE_AND_AFTER);
        until_done(address, language, BEFORE_AND_AFTER).await;
    }
    for (_, reader) in &mut readers {
        reader.read(BEFORE_AND_AFTER);
    }
    first.child.kill().expect("killed");
    first.child.wait().expect("a status");
    let second = Process::start(&["--data-dir", &folder.path().display().to_string()]);
    hub_address.send_replace(second.address);
    fill(second.address, BEFORE_AND_AFTER + 1, 2 * BEFORE_AND_AFTER).await;
    // Everything was acknowledged, and every token kept, before the hub went.
    let all: Vec<_> = (1..=2 * BEFORE_AND_AFTER).collect();
    for (language, mut worker) in workers {
        worker.read(BEFORE_AND_AFTER);
        until_done(address, language, 2 * BEFORE_AND_AFTER).await;
        assert_eq!(worker.leave(), all, "{language}");
    }
    for (language, mut reader) in readers {
        reader.read(BEFORE_AND_AFTER);
        assert_eq!(reader.leave(), all, "{language}");
    }
}
