//! The worker mode of `switchyard sub`: gives each event of a group to a shell command and tells the hub what came of it.
//!
//! The window of the subscription has room for as many events as commands may run, so that no event waits here while its
//! lease runs out. Commands go on while there is no session, and what came of them is said in the next one. Nothing is
//! decided for an event whose command has not ended: on the way out the hub gives it to another member.
//!
//! This is not the worker of the client crate, because a person hears of gaps and of what a command did, stops it in two
//! steps, and may want a number of events.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    future::pending,
    process::{ExitStatus, Stdio},
    time::Duration,
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

use super::{lasting::Hub, news, stop::Stop};
use crate::client::{Delivery, Error, Item, Opened, Subscription, TOKEN_VARIABLE, Target};
use crate::proto::v1::ReceivedEvent;

/// What a hub that does not tell its ack deadline is taken to have.
const DEFAULT_ACK_DEADLINE: Duration = Duration::from_secs(30);
/// Leases are extended so many times before they would run out.
const EXTENDS_A_DEADLINE: u32 = 3;
/// But never more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);
/// What attributes may take in the environment, in bytes: Linux starts no program with a variable of 128 KiB or more.
const MAX_ATTRIBUTES_BYTES: usize = 120 * 1024;

/// A command that runs.
struct Job {
    /// Its process, and the group of processes it heads.
    process: Option<u32>,
    delivery: Delivery,
    /// For people: sequence, topic, attempt.
    name: String,
}

/// Runs commands for events.
pub(super) struct Worker {
    command: String,
    /// The command is told how to reach the same hub.
    hub: Target,
    /// How many events may still be begun.
    left: i64,
    /// By the sequence of their event. The client gives out none that is here.
    jobs: HashMap<i64, Job>,
    running: JoinSet<(i64, Result<(), String>)>,
    done: u64,
    failed: u64,
}

impl Worker {
    /// Runs commands for `max_events` events; 0 is no limit.
    pub(super) fn new(command: String, hub: Target, max_events: i64) -> Self {
        Self {
            command,
            hub,
            left: if max_events > 0 { max_events } else { i64::MAX },
            jobs: HashMap::new(),
            running: JoinSet::new(),
            done: 0,
            failed: 0,
        }
    }

    /// Works until there is nothing more to do or it is asked to stop.
    pub(super) async fn run(mut self, hub: &Hub, mut member: Subscription, stop: &mut Stop) -> anyhow::Result<()> {
        let left = tokio::select! {
            () = stop.requested() => hub.leave().await,
            ready = member.ready() => match ready {
                Err(error) => Err(hub.explain(&error)),
                Ok(()) => match self.work(hub, member, stop).await {
                    Ok(()) => hub.leave().await,
                    Err(error) => {
                        self.finish(stop).await;
                        hub.leave_in_a_hurry().await;
                        Err(error)
                    }
                },
            },
        };
        // One that was refused has nothing to tell but why.
        if left.is_ok() || self.done + self.failed > 0 {
            eprintln!("{} events done, {} failed", self.done, self.failed);
        }
        left
    }

    async fn work(&mut self, hub: &Hub, member: Subscription, stop: &mut Stop) -> anyhow::Result<()> {
        let mut opened = member.opened().unwrap_or_default();
        eprintln!("{}", news::opened(&opened));
        let mut extends = beat(&opened);
        let mut stopping = false;
        // Until no more events are wanted. Without it nothing more comes; what has come can still be settled.
        let mut member = Some(member);
        loop {
            if member.is_none() && self.running.is_empty() {
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
                    member = None;
                    eprintln!("stopping; waiting for commands to finish: {}", self.running.len());
                }
                Some(ended) = self.running.join_next() => self.ended(ended)?,
                _ = extends.tick(), if !self.jobs.is_empty() => self.extend(),
                item = next(&mut member) => match item {
                    None => bail!("the hub ended the subscription"),
                    Some(Err(error)) => return Err(hub.explain(&error)),
                    Some(Ok(Item::CaughtUp)) => {}
                    Some(Ok(Item::Gap(gap))) => eprintln!("{}", news::gap(&gap)),
                    Some(Ok(Item::Events(batch))) => {
                        batch.into_iter().for_each(|delivery| self.begin(delivery));
                        // Since it was opened last the group may have another deadline.
                        let now = member.as_ref().and_then(Subscription::opened).unwrap_or(opened);
                        if now.ack_deadline != opened.ack_deadline {
                            extends = beat(&now);
                        }
                        opened = now;
                        if self.left == 0 {
                            member = None;
                        }
                    }
                },
            }
        }
    }

    /// Runs the command, unless enough of them were run: then the event goes back as this member leaves.
    fn begin(&mut self, delivery: Delivery) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let (sequence, topic, attempt) = (delivery.sequence(), delivery.topic(), delivery.attempt());
        let name = format!("sequence {sequence} ({topic}, attempt {attempt})");
        let started = self.shell(&delivery.to_wire()).spawn();
        let process = started.as_ref().ok().and_then(Child::id);
        let payload = delivery.to_data();
        self.jobs.insert(sequence, Job { process, delivery, name });
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

    fn ended(&mut self, ended: Result<(i64, Result<(), String>), JoinError>) -> anyhow::Result<()> {
        let (sequence, result) = ended.context("a command was lost")?;
        let Some(Job { delivery, name, .. }) = self.jobs.remove(&sequence) else { return Ok(()) };
        match result {
            Ok(()) => {
                self.done += 1;
                delivery.ack();
            }
            Err(reason) => {
                self.failed += 1;
                eprintln!("{name}: {reason}");
                delivery.nack(reason);
            }
        }
        Ok(())
    }

    /// Keeps the leases of events whose commands run.
    fn extend(&self) {
        self.jobs.values().for_each(|job| job.delivery.extend());
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
            kill(process).await;
        }
        self.running.shutdown().await;
    }
}

/// What comes next, for as long as anything is wanted.
async fn next(member: &mut Option<Subscription>) -> Option<Result<Item, Error>> {
    match member {
        Some(member) => member.next().await,
        None => pending().await,
    }
}

/// Kills a process with all of its group.
async fn kill(process: u32) {
    // The shell has the call that the standard library has not. It fails only for a group that is gone.
    Command::new("sh").args(["-c", &format!("kill -KILL -{process}")]).status().await.ok();
}

/// The beat in which leases are extended.
fn beat(opened: &Opened) -> Interval {
    let deadline = opened.ack_deadline.unwrap_or(DEFAULT_ACK_DEADLINE);
    let mut extends = interval((deadline / EXTENDS_A_DEADLINE).max(SHORTEST_INTERVAL));
    extends.set_missed_tick_behavior(MissedTickBehavior::Delay);
    extends
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
    use crate::proto::v1::{Event, event::Payload};

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
        let worker = Worker::new(command.to_owned(), Target::default(), 0);
        let child = worker.shell(&received(text)).spawn().unwrap();
        outcome(child, Bytes::copy_from_slice(text.as_bytes())).await
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
            let child = Worker::new("true".to_owned(), Target::default(), 0).shell(&event).spawn().unwrap();
            assert_eq!(outcome(child, Bytes::new()).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn a_command_is_not_given_a_token() {
        let command = "test -z \"$SWITCHYARD_TOKEN\" && test $SWITCHYARD_TOKEN_FILE = f".to_owned();
        let mut worker = Worker::new(command, Target::default(), 0);
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
        let worker = Worker::new("cat; tail -f /dev/null & wait".to_owned(), Target::default(), 0);
        let mut child = worker.shell(&received("x")).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let process = child.id().unwrap();
        let mut running = JoinSet::new();
        running.spawn(outcome(child, Bytes::from("begun")));
        let mut begun = [0; 5];
        output.read_exact(&mut begun).await.unwrap();
        kill(process).await;
        // The end comes when no process is left that could write.
        assert_eq!(output.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        assert!(running.join_next().await.unwrap().unwrap().unwrap_err().contains("signal: 9"));
    }
}
