//! The commands of the program that live as long as their hub, `sub` and `pub`: they go on over hubs that are stopped, killed,
//! frozen, or end connections of an age.

use std::{
    io::{BufRead, BufReader, BufWriter, Read, Write},
    net::SocketAddr,
    ops::Range,
    process::{Child, ChildStdin, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    home::Home,
    numbers,
    relay::{Mode, Relay},
    restarts::{End, restart},
};
use crate::{
    harness::{Folder, PATIENCE, Session, client, event, exit, program, publish, spec, texts, until},
    stored::{all, create, numbered, store, stream, text},
    verifying::{free_address, until_worked_off},
};

/// How three hubs end, one after the other. The fourth ends connections that are two seconds old.
const ENDS: [End; 3] = [End::Stopped, End::Stopped, End::Killed];
/// Sessions that are lost by then, at least.
const LOST: usize = ENDS.len() + 1;
const AGE: [&str; 2] = ["connections.max_age_ms=2000", "connections.max_age_grace_ms=1000"];

/// Lines that came so far.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn read(from: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let lines = Self::default();
        let into = lines.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                into.0.lock().expect("no panic").push(line);
            }
        });
        (lines, reader)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    /// How many begin like this.
    fn count(&self, beginning: &str) -> usize {
        self.0.lock().expect("no panic").iter().filter(|line| line.starts_with(beginning)).count()
    }
}

/// A command that runs, and what it has printed and told so far.
struct Program {
    child: Child,
    printed: Lines,
    told: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// A command that has ended.
struct Ended {
    code: Option<i32>,
    printed: Vec<String>,
    told: Vec<String>,
}

impl Program {
    fn start(server: SocketAddr, arguments: &[&str]) -> Self {
        Self::start_with(&server.to_string(), arguments)
    }

    fn start_with(server: &str, arguments: &[&str]) -> Self {
        let mut command = program();
        command.args(arguments).args(["--server", server]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (printed, out) = Lines::read(child.stdout.take().expect("piped"));
        let (told, err) = Lines::read(child.stderr.take().expect("piped"));
        Self { child, printed, told, readers: vec![out, err] }
    }

    fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("piped")
    }

    /// Waits until it has told this so often.
    async fn until_told(&self, beginning: &str, count: usize) {
        until(&format!("{beginning:?} is told"), async || self.told.count(beginning) >= count).await;
    }

    /// Waits for its end.
    fn end(mut self) -> Ended {
        let code = exit(&mut self.child, PATIENCE).code();
        self.readers.drain(..).for_each(|reader| reader.join().expect("read"));
        Ended { code, printed: self.printed.all(), told: self.told.all() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Ended {
    /// It ended well, and has told of every session that was lost, and of each once.
    fn check(&self, address: SocketAddr) {
        assert_eq!(self.code, Some(0), "{:?}", self.told);
        let news = ["the session is lost; reconnecting: ", "connected again, to "];
        let mut lost = 0;
        for line in self.told.iter().filter(|line| news.iter().any(|news| line.starts_with(news))) {
            assert!(line.starts_with(news[lost % 2]) && line.contains(&address.to_string()), "{:?}", self.told);
            lost += 1;
        }
        assert!(lost >= 2 * LOST, "{:?}", self.told);
    }
}

/// Writes numbers, a line each, as far as it is told to.
fn feed(input: ChildStdin) -> (mpsc::Sender<Range<usize>>, JoinHandle<()>) {
    let (ranges, receiver) = mpsc::channel::<Range<usize>>();
    let feeder = std::thread::spawn(move || {
        let mut input = BufWriter::new(input);
        for range in receiver {
            for number in range {
                writeln!(input, "{number}").expect("written");
            }
            input.flush().expect("written");
        }
    });
    (ranges, feeder)
}

/// Publishes one live event.
async fn publish_live(address: SocketAddr, topic: &str, text: &str) {
    client(address).await.publish(publish(vec![event(topic, text)])).await.expect("published");
}

/// Ends this hub, and starts the next. The last one ends connections of an age.
async fn next_hub(home: &mut Home, round: usize, end: End) {
    if round + 1 == ENDS.len() {
        for setting in AGE {
            home.set(setting);
        }
    }
    restart(home, end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_and_a_subscriber_with_a_resume_file_go_on_and_nothing_is_lost_or_stored_twice() {
    const EACH: usize = 3000;
    const ALL: usize = EACH * (ENDS.len() + 1);
    let mut home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    let folder = Folder::new();
    let file = folder.path().join("token");
    let file = file.to_str().expect("text");
    let (from, count) = (["--from", "earliest", "--resume-file", file, "-n"], ALL.to_string());
    let subscriber = Program::start(home.address, &[&["sub", "--stream", "s"], &from[..], &[count.as_str()]].concat());
    let mut publisher = Program::start(home.address, &["pub", "s.x"]);
    let (chunks, feeder) = feed(publisher.input());
    for (round, end) in ENDS.into_iter().enumerate() {
        chunks.send(round * EACH..(round + 1) * EACH).expect("it feeds");
        let some = round * EACH + EACH / 4;
        until("some of it has come", async || subscriber.printed.count("") > some).await;
        next_hub(&mut home, round, end).await;
    }
    for program in [&subscriber, &publisher] {
        program.until_told("connected again", LOST).await;
    }
    chunks.send(ALL - EACH..ALL).expect("it feeds");
    drop(chunks);
    feeder.join().expect("fed");
    let publisher = publisher.end();
    publisher.check(home.address);
    assert_eq!(publisher.printed, [format!("published {ALL}, matched 0, stored in s as up to {ALL}")]);
    assert_eq!(publisher.told.last().expect("a line"), &format!("{ALL} accepted, 0 refused, 0 unknown"));
    let subscriber = subscriber.end();
    subscriber.check(home.address);
    let expected: Vec<String> = (0..ALL).map(|number| format!("s.x {number}")).collect();
    assert!(subscriber.printed == expected, "each once, and in order");
    assert_eq!(subscriber.told.last().expect("a line"), &format!("{ALL} events"));
    let stored = all(home.address, "s").await;
    assert!(stored.iter().map(text).eq(numbers(0..ALL)), "each once, and in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_and_nothing_is_done_twice() {
    const EACH: usize = 16;
    const ALL: usize = EACH * (ENDS.len() + 1);
    let mut home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    let folder = Folder::new();
    let note = folder.path().join("note");
    let begun = || std::fs::read_to_string(&note).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let command = format!("echo $SWITCHYARD_SEQUENCE >> {}; sleep 0.1", note.display());
    let group = ["sub", "--stream", "s", "--group", "g", "--from", "earliest"];
    let count = ALL.to_string();
    let work = ["--exec", &command, "--jobs", "4", "-n", &count];
    let worker = Program::start(home.address, &[&group[..], &work[..]].concat());
    worker.until_told("subscribed", 1).await;
    for (round, end) in ENDS.into_iter().enumerate() {
        store(home.address, numbered("s.x", round * EACH..(round + 1) * EACH)).await;
        until("some of the work is begun", async || begun().len() > round * EACH + EACH / 4).await;
        next_hub(&mut home, round, end).await;
    }
    worker.until_told("connected again", LOST).await;
    store(home.address, numbered("s.x", ALL - EACH..ALL)).await;
    let worker = worker.end();
    worker.check(home.address);
    assert_eq!(worker.told.last().expect("a line"), &format!("{ALL} events done, 0 failed"));
    let mut done: Vec<usize> = begun().iter().map(|line| line.parse().expect("a sequence")).collect();
    done.sort_unstable();
    assert_eq!(done, (1..=ALL).collect::<Vec<_>>(), "each once");
    until_worked_off(home.address, "s", "g").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_subscriber_goes_on_and_tells_its_gaps() {
    let mut home = Home::started().await;
    let all = (ENDS.len() + 2).to_string();
    let mut subscriber = Program::start(home.address, &["sub", "a.>", "--json", "-n", &all]);
    subscriber.until_told("subscribed", 1).await;
    for (round, end) in ENDS.into_iter().enumerate() {
        publish_live(home.address, "a.b", &round.to_string()).await;
        until("it has come", async || subscriber.printed.count("{") > 2 * round).await;
        next_hub(&mut home, round, end).await;
        subscriber.until_told("gap: ", round + 1).await;
    }
    subscriber.until_told("gap: ", LOST).await;
    // Any of these may be published while it has no session again.
    until("it has all", async || {
        publish_live(home.address, "a.b", "more").await;
        subscriber.child.try_wait().expect("a child").is_some()
    })
    .await;
    let subscriber = subscriber.end();
    subscriber.check(home.address);
    let shown: Vec<String> = subscriber
        .printed
        .iter()
        .map(|line| {
            let value: Value = serde_json::from_str(line).expect("JSON");
            value["text"].as_str().or(value["gap"]["reason"].as_str()).expect("an event or a gap").to_owned()
        })
        .collect();
    assert_eq!(shown[..7], ["0", "AWAY", "1", "AWAY", "2", "AWAY", "AWAY"], "{shown:?}");
    assert_eq!(shown.iter().filter(|shown| *shown != "AWAY").count(), ENDS.len() + 2, "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_reconnecting_the_first_lost_session_is_the_end() {
    for (end, reason) in [(End::Stopped, "DRAINING"), (End::Killed, "")] {
        let mut home = Home::started().await;
        create(home.address, stream("s", &["s.>"])).await;
        let group = ["sub", "--stream", "s", "--group", "g", "--exec", "true"];
        let begin = |arguments: &[&str]| Program::start(home.address, &[arguments, &["--no-reconnect"]].concat());
        let subscribers = [begin(&["sub", "a.>"]), begin(&["sub", "--stream", "s"]), begin(&group)];
        for subscriber in &subscribers {
            subscriber.until_told("subscribed", 1).await;
        }
        let mut publisher = begin(&["pub", "s.x"]);
        let mut input = publisher.input();
        input.write_all(b"1\n").expect("written");
        until("it is stored", async || all(home.address, "s").await.len() == 1).await;
        restart(&mut home, end).await;
        let programs = subscribers.into_iter().chain([publisher]);
        for (at, program) in programs.map(Program::end).enumerate() {
            let last = program.told.last().expect("a line");
            assert!(last.contains(&home.address.to_string()) && last.contains(reason), "{at}: {last}");
            assert!(program.told.iter().all(|line| !line.contains("reconnecting")), "{:?}", program.told);
            assert_eq!(program.code, Some(1), "{at}: {last}");
            if at == 3 {
                assert!(last.contains(" accepted, 0 refused, "), "{last}");
            }
        }
        drop(input);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_hub_is_noticed_in_time() {
    let home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    let mut publisher = Program::start(home.address, &["pub", "s.x", "--heartbeat", "1s"]);
    let mut input = publisher.input();
    input.write_all(b"1\n").expect("written");
    until("it is stored", async || all(home.address, "s").await.len() == 1).await;
    let live = Program::start(home.address, &["sub", "a.>", "--heartbeat", "1s", "-n", "1"]);
    live.until_told("subscribed", 1).await;
    home.signal("STOP");
    let since = Instant::now();
    for program in [&publisher, &live] {
        program.until_told("the session is lost; reconnecting: ", 1).await;
    }
    // Two intervals and five seconds; five more if this machine held up the client itself.
    assert!(since.elapsed() < Duration::from_secs(20), "after {:?}", since.elapsed());
    let impatient = Program::start(home.address, &["pub", "s.y", "hello", "--timeout", "300ms"]).end();
    let last = impatient.told.last().expect("a line");
    assert!(last.contains(&format!("no answer from http://{} within 300ms", home.address)), "{last}");
    assert_eq!(impatient.code, Some(1));
    home.signal("CONT");
    for program in [&publisher, &live] {
        program.until_told("connected again", 1).await;
        let told = program.told.all();
        let lost = told.iter().find(|line| line.starts_with("the session is lost")).expect("just told");
        assert!(lost.contains("NOTHING_HEARD") && lost.contains(&home.address.to_string()), "{lost}");
    }
    input.write_all(b"2\n").expect("written");
    drop(input);
    live.until_told("gap: ", 1).await;
    publish_live(home.address, "a.b", "x").await;
    for program in [publisher, live].map(Program::end) {
        assert_eq!(program.code, Some(0), "{:?}", program.told);
    }
}

/// A subscriber of its own, to whom the hub sends what it has taken.
async fn witness(address: SocketAddr) -> Session {
    let mut witness = Session::open(address).await;
    witness.subscribe(1, spec(&["a.>"])).await;
    witness
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_event_whose_answer_is_lost_is_unknown_and_its_line_is_named() {
    let mut home = Home::started().await;
    let relay = Relay::to(home.address).await;
    let mut publisher = Program::start(relay.address, &["pub", "a.b"]);
    let mut input = publisher.input();
    let mut first = witness(home.address).await;
    input.write_all(b"1\n").expect("written");
    assert_eq!(texts(&first.events().await), ["1"]);
    // Its progress tells that the answer has come.
    publisher.until_told("1 events, ", 1).await;
    relay.set(Mode::SwallowDown);
    input.write_all(b"2\n").expect("written");
    assert_eq!(texts(&first.events().await), ["2"]);
    home.kill().await;
    publisher.until_told("the session is lost", 1).await;
    relay.set(Mode::Pass);
    home.start().await;
    let mut second = witness(home.address).await;
    input.write_all(b"3\n").expect("written");
    assert_eq!(texts(&second.events().await), ["3"], "and not again what may have been delivered");
    drop(input);
    let publisher = publisher.end();
    let last = publisher.told.last().expect("a line");
    assert!(last.contains("2 accepted, 0 refused, 1 unknown; the first unknown is line 2: "), "{last}");
    assert!(last.contains("NO_STREAM"), "{last}");
    assert_eq!((publisher.code, publisher.printed), (Some(1), vec!["published 2, matched 2".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_addresses_is_enough() {
    let home = Home::started().await;
    let servers = format!("{},http://{}", free_address(), home.address);
    let subscriber = Program::start_with(&servers, &["sub", "a.>", "-n", "1"]);
    subscriber.until_told("subscribed", 1).await;
    let mut publisher = Program::start_with(&servers, &["pub", "a.b"]);
    publisher.input().write_all(b"hello\n").expect("written");
    for (program, printed) in [(publisher, "published 1, matched 1"), (subscriber, "a.b hello")] {
        let program = program.end();
        assert_eq!((program.code, program.printed), (Some(0), vec![printed.to_owned()]), "{:?}", program.told);
    }
}
