//! The worker mode of `switchyard sub`: gives each event of a group to a shell command and tells the hub what came of it.
//!
//! The hub is granted credit for as many events as commands may run, so that no event waits here while its lease runs
//! out. Nothing is decided for an event whose command has not ended: on the way out the hub gives it to another member.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    task::{JoinError, JoinSet},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    feed::{self, Feed},
    stop::Stop,
};
use crate::client::{TOKEN_VARIABLE, Target};
use crate::proto::v1::{
    AckMode, AckOutcome, Credit, ReceivedEvent, SubscriptionSpec, event::Payload, session_response::Frame,
};

/// What a hub that does not tell its ack deadline is taken to have.
const DEFAULT_ACK_DEADLINE: Duration = Duration::from_secs(30);
/// A lease is looked at so many times before it would run out.
const LOOKS_A_DEADLINE: u32 = 8;
/// What attributes may take in the environment, in bytes: Linux starts no program with a variable of 128 KiB or more.
const MAX_ATTRIBUTES_BYTES: usize = 120 * 1024;
/// No lease is looked at more often.
const SHORTEST_LOOK: Duration = Duration::from_millis(20);

/// A command that runs.
struct Job {
    /// Its process, and the group of processes it heads.
    process: Option<u32>,
    /// When the event came, or its lease was last extended.
    since: Instant,
    /// For people: sequence, topic, attempt.
    name: String,
}

/// Runs commands for events.
pub(super) struct Worker {
    command: String,
    /// The command is told how to reach the same hub.
    hub: Target,
    most_jobs: u16,
    /// How many events may still be asked for.
    left: i64,
    /// How many were asked for and have not come.
    expected: i64,
    /// By the sequence of their event.
    jobs: HashMap<i64, Job>,
    running: JoinSet<(i64, Result<(), String>)>,
    deadline: Duration,
    done: u64,
    failed: u64,
}

impl Worker {
    /// At most `most_jobs` commands at once, and `max_events` in all; 0 is no limit.
    pub(super) fn new(command: String, most_jobs: u16, max_events: i64) -> Self {
        Self {
            command,
            hub: Target::default(),
            most_jobs,
            left: if max_events > 0 { max_events } else { i64::MAX },
            expected: 0,
            jobs: HashMap::new(),
            running: JoinSet::new(),
            deadline: DEFAULT_ACK_DEADLINE,
            done: 0,
            failed: 0,
        }
    }

    /// Works until there is nothing more to do or it is asked to stop.
    pub(super) async fn run(mut self, target: &Target, spec: SubscriptionSpec, stop: &mut Stop) -> anyhow::Result<()> {
        self.hub = target.clone();
        let credit = Some(Credit { events: self.ask(self.most_jobs.into()), bytes: 0 });
        let spec = SubscriptionSpec { ack_mode: AckMode::Explicit.into(), credit, max_events: 0, ..spec };
        let mut feed = Feed::open(target, spec, true).await?;
        let left = match self.work(&mut feed, stop).await {
            Ok(()) => feed.leave().await,
            Err(error) => {
                drop(feed);
                self.finish(stop).await;
                Err(error)
            }
        };
        // One that was refused has nothing to tell but why.
        if left.is_ok() || self.done + self.failed > 0 {
            eprintln!("{} events done, {} failed", self.done, self.failed);
        }
        left
    }

    async fn work(&mut self, feed: &mut Feed, stop: &mut Stop) -> anyhow::Result<()> {
        let mut stopping = false;
        let mut looks = beat(self.deadline);
        loop {
            let nothing_comes = stopping || (self.left == 0 && self.expected == 0);
            if nothing_comes && self.running.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = stop.requested() => {
                    if stopping {
                        let cut = self.running.len();
                        self.cut_short().await;
                        bail!("second signal; commands that were killed: {cut}");
                    }
                    stopping = true;
                    eprintln!("stopping; waiting for commands to finish: {}", self.running.len());
                }
                Some(ended) = self.running.join_next() => {
                    self.ended(ended, feed)?;
                    if !stopping {
                        self.grant(feed);
                    }
                }
                _ = looks.tick(), if !self.jobs.is_empty() => self.extend(feed),
                frame = feed.next() => match frame? {
                    None | Some(Frame::Ended(_)) => bail!("the hub ended the subscription"),
                    // What comes after the request to stop is not begun.
                    Some(Frame::Events(events)) if !stopping => {
                        for received in events.events {
                            self.begin(received, feed);
                        }
                    }
                    Some(frame) => {
                        if let Frame::Subscribed(subscribed) = &frame {
                            self.deadline = deadline(subscribed.ack_deadline.as_ref());
                            looks = beat(self.deadline);
                        }
                        feed::tell(&frame);
                    }
                },
            }
        }
    }

    /// How many of `wanted` events more may be asked for. They are counted as asked for.
    fn ask(&mut self, wanted: i64) -> i64 {
        let events = wanted.min(self.left);
        self.left -= events;
        self.expected += events;
        events
    }

    /// Asks for one event more.
    fn grant(&mut self, feed: &mut Feed) {
        let events = self.ask(1);
        if events > 0 {
            feed.add_credit(events);
        }
    }

    fn begin(&mut self, received: ReceivedEvent, feed: &mut Feed) {
        let sequence = received.sequence;
        self.expected -= 1;
        if let Some(job) = self.jobs.get_mut(&sequence) {
            // Its lease ran out and it came again: what becomes of the command that runs counts for this attempt too.
            job.since = Instant::now();
            self.left = self.left.saturating_add(1);
            self.grant(feed);
            return;
        }
        let topic = received.event.as_ref().map_or("", |event| event.topic.as_str());
        let name = format!("sequence {sequence} ({topic}, attempt {})", received.attempt);
        let started = self.shell(&received).spawn();
        let process = started.as_ref().ok().and_then(Child::id);
        self.jobs.insert(sequence, Job { process, since: Instant::now(), name });
        let payload = payload(received);
        self.running.spawn(async move {
            let result = match started {
                Ok(child) => outcome(child, payload).await,
                Err(error) => Err(format!("the command did not start: {error}")),
            };
            (sequence, result)
        });
    }

    fn shell(&self, received: &ReceivedEvent) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.command])
            .env_remove(TOKEN_VARIABLE)
            .envs(self.hub.variables())
            .envs(environment(received))
            .stdin(Stdio::piped())
            // Ctrl-C in a terminal goes to every process of its group.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn ended(&mut self, ended: Result<(i64, Result<(), String>), JoinError>, feed: &mut Feed) -> anyhow::Result<()> {
        let (sequence, result) = ended.context("a command was lost")?;
        let job = self.jobs.remove(&sequence);
        match result {
            Ok(()) => {
                self.done += 1;
                feed.acknowledge(AckOutcome::Ack, vec![sequence], String::new());
            }
            Err(reason) => {
                self.failed += 1;
                eprintln!("{}: {reason}", job.map(|job| job.name).unwrap_or_default());
                feed.acknowledge(AckOutcome::Nack, vec![sequence], reason);
            }
        }
        Ok(())
    }

    /// Keeps the leases of events whose commands have run for half of the deadline.
    fn extend(&mut self, feed: &mut Feed) {
        let now = Instant::now();
        let mut sequences = Vec::new();
        for (sequence, job) in &mut self.jobs {
            if now.duration_since(job.since) >= self.deadline / 2 {
                job.since = now;
                sequences.push(*sequence);
            }
        }
        if !sequences.is_empty() {
            feed.acknowledge(AckOutcome::Extend, sequences, String::new());
        }
    }

    /// Lets commands end that nobody can be told of any more: half of their work would be worse.
    async fn finish(&mut self, stop: &mut Stop) {
        if !self.running.is_empty() {
            eprintln!("waiting for commands whose outcome can no longer be acknowledged: {}", self.running.len());
        }
        loop {
            tokio::select! {
                ended = self.running.join_next() => if ended.is_none() { return },
                () = stop.requested() => return self.cut_short().await,
            }
        }
    }

    /// Kills the commands, with all the processes they began.
    async fn cut_short(&mut self) {
        for process in self.jobs.values().filter_map(|job| job.process) {
            // The shell has the call that the standard library has not. It fails only for a group that is gone.
            Command::new("sh").args(["-c", &format!("kill -KILL -{process}")]).status().await.ok();
        }
        self.running.shutdown().await;
    }
}

/// The beat in which leases are looked at.
fn beat(deadline: Duration) -> Interval {
    let mut looks = interval((deadline / LOOKS_A_DEADLINE).max(SHORTEST_LOOK));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

fn deadline(told: Option<&prost_types::Duration>) -> Duration {
    told.and_then(|told| Duration::try_from(*told).ok()).unwrap_or(DEFAULT_ACK_DEADLINE)
}

fn payload(received: ReceivedEvent) -> Bytes {
    match received.event.and_then(|event| event.payload) {
        Some(Payload::Text(text)) => text.into(),
        Some(Payload::Data(data)) => data,
        None => Bytes::new(),
    }
}

/// Gives a command its payload and waits for its end.
async fn outcome(mut child: Child, payload: Bytes) -> Result<(), String> {
    let input = child.stdin.take();
    let feed = async {
        if let Some(mut input) = input {
            // A command need not read what it is given.
            input.write_all(&payload).await.ok();
        }
        std::future::pending::<Infallible>().await
    };
    let status = tokio::select! {
        status = child.wait() => status,
        never = feed => match never {},
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failure(status)),
        Err(error) => Err(format!("the command is lost: {error}")),
    }
}

fn failure(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    }
}

/// What a command is told of its event besides the payload.
fn environment(received: &ReceivedEvent) -> Vec<(&'static str, String)> {
    let event = received.event.clone().unwrap_or_default();
    let (attributes, left_out) = attributes(event.attributes);
    let time = |time: Option<&prost_types::Timestamp>| time.map(ToString::to_string).unwrap_or_default();
    let variables = [
        ("SWITCHYARD_STREAM", received.stream.clone()),
        ("SWITCHYARD_SEQUENCE", received.sequence.to_string()),
        ("SWITCHYARD_ATTEMPT", received.attempt.to_string()),
        ("SWITCHYARD_LAST_FAILURE", received.last_failure.clone()),
        ("SWITCHYARD_REDELIVERED", received.redelivered.to_string()),
        ("SWITCHYARD_APPEND_TIME", time(received.append_time.as_ref())),
        ("SWITCHYARD_TIME", time(event.time.as_ref())),
        ("SWITCHYARD_ATTRIBUTES", attributes),
        ("SWITCHYARD_ATTRIBUTES_LEFT_OUT", left_out.to_string()),
        ("SWITCHYARD_TOPIC", event.topic),
        ("SWITCHYARD_ID", event.id),
        ("SWITCHYARD_TYPE", event.r#type),
        ("SWITCHYARD_SOURCE", event.source),
        ("SWITCHYARD_KEY", event.key),
        ("SWITCHYARD_CONTENT_TYPE", event.content_type),
    ];
    // No environment can hold a NUL.
    variables.into_iter().map(|(name, value)| (name, value.replace('\0', ""))).collect()
}

/// Attributes as one JSON object, and how many are left out of it since they do not fit into a variable: the largest.
fn attributes(all: HashMap<String, String>) -> (String, usize) {
    let count = all.len();
    let bytes = |text: &str| json!(text).to_string().len();
    let mut sized: Vec<_> =
        all.into_iter().map(|(name, value)| (bytes(&name) + bytes(&value) + 2, name, value)).collect();
    sized.sort_unstable();
    let mut total = 2;
    let fits = |(bytes, _, _): &(usize, String, String)| {
        total += bytes;
        total <= MAX_ATTRIBUTES_BYTES
    };
    let some: BTreeMap<_, _> = sized.into_iter().take_while(fits).map(|(_, name, value)| (name, value)).collect();
    (json!(some).to_string(), count - some.len())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::proto::v1::Event;

    fn received(text: &str) -> ReceivedEvent {
        let event = Event {
            topic: "orders.eu".into(),
            id: "a\0b".into(),
            payload: Some(Payload::Text(text.into())),
            ..Event::default()
        };
        ReceivedEvent {
            event: Some(event),
            stream: "orders".into(),
            sequence: 42,
            attempt: 2,
            redelivered: true,
            ..ReceivedEvent::default()
        }
    }

    async fn ran(command: &str, text: &str) -> Result<(), String> {
        let worker = Worker::new(command.to_owned(), 1, 0);
        let child = worker.shell(&received(text)).spawn().unwrap();
        outcome(child, payload(received(text))).await
    }

    #[tokio::test]
    async fn a_command_gets_the_payload_and_the_environment() {
        let checks = "test \"$(cat)\" = 'hello world' && test $SWITCHYARD_TOPIC = orders.eu \
            && test $SWITCHYARD_SEQUENCE = 42 && test $SWITCHYARD_ATTEMPT = 2 && test $SWITCHYARD_ID = ab \
            && test $SWITCHYARD_STREAM = orders && test $SWITCHYARD_ATTRIBUTES = '{}' \
            && test $SWITCHYARD_REDELIVERED = true";
        assert_eq!(ran(checks, "hello world").await, Ok(()));
    }

    #[tokio::test]
    async fn a_command_starts_whatever_the_attributes_and_knows_what_is_left_out() {
        let with = |pairs: &[(&str, usize)]| {
            let attributes = pairs.iter().map(|(name, bytes)| ((*name).to_owned(), "x".repeat(*bytes))).collect();
            let event = Event { attributes, ..received("").event.unwrap() };
            ReceivedEvent { event: Some(event), ..received("") }
        };
        let told = |event: &ReceivedEvent| {
            let told: HashMap<_, _> = environment(event).into_iter().collect();
            let attributes: HashMap<String, String> = serde_json::from_str(&told["SWITCHYARD_ATTRIBUTES"]).unwrap();
            let mut names: Vec<_> = attributes.into_keys().collect();
            names.sort_unstable();
            (names.join(" "), told["SWITCHYARD_ATTRIBUTES_LEFT_OUT"].clone())
        };
        // Braces, quotes, a colon and a comma are counted too.
        let just = MAX_ATTRIBUTES_BYTES - 2 - 2 - 4 - 1;
        assert_eq!(told(&with(&[("a", just)])), ("a".to_owned(), "0".to_owned()));
        assert_eq!(told(&with(&[("a", just + 1)])), (String::new(), "1".to_owned()));
        assert_eq!(told(&with(&[("large", 500_000), ("a", 10), ("b", 20)])), ("a b".to_owned(), "1".to_owned()));
        for event in [with(&[("a", just)]), with(&[("large", 500_000)]), with(&[(&"n".repeat(200_000), 1)])] {
            let child = Worker::new("true".to_owned(), 1, 0).shell(&event).spawn().unwrap();
            assert_eq!(outcome(child, Bytes::new()).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn a_command_is_not_given_a_token() {
        let mut worker =
            Worker::new("test -z \"$SWITCHYARD_TOKEN\" && test $SWITCHYARD_TOKEN_FILE = f".to_owned(), 1, 0);
        worker.hub.credential.token = Some("secret".to_owned());
        worker.hub.credential.token_file = Some("f".into());
        let mut command = worker.shell(&received(""));
        assert!(command.as_std().get_envs().any(|(name, value)| name == TOKEN_VARIABLE && value.is_none()));
        assert_eq!(outcome(command.spawn().unwrap(), Bytes::new()).await, Ok(()));
    }

    #[tokio::test]
    async fn an_exit_status_is_the_reason() {
        assert_eq!(ran("cat > /dev/null; exit 3", "x").await, Err("exit status 3".to_owned()));
        assert!(ran("kill -KILL $$", "x").await.unwrap_err().contains("signal: 9"));
    }

    #[tokio::test]
    async fn a_command_need_not_read_its_payload() {
        assert_eq!(ran("exit 0", &"x".repeat(1 << 20)).await, Ok(()));
    }

    #[tokio::test]
    async fn commands_that_are_cut_short_take_their_processes_with_them() {
        let mut worker = Worker::new("cat; tail -f /dev/null & wait".to_owned(), 1, 0);
        let mut child = worker.shell(&received("x")).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        worker.jobs.insert(42, Job { process: child.id(), since: Instant::now(), name: String::new() });
        worker.running.spawn(async move { (42, outcome(child, Bytes::from("begun")).await) });
        let mut begun = [0; 5];
        output.read_exact(&mut begun).await.unwrap();
        worker.cut_short().await;
        // The end comes when no process is left that could write.
        assert_eq!(output.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }

    #[test]
    fn no_more_events_are_asked_for_than_are_wanted() {
        let mut worker = Worker::new(String::new(), 4, 6);
        assert_eq!([worker.ask(4), worker.ask(1), worker.ask(4), worker.ask(1)], [4, 1, 1, 0]);
        assert_eq!(worker.expected, 6);
    }
}
