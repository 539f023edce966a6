//! `switchyard pub`.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    time::Duration,
};

use anyhow::Context;
use tokio::time::{interval, timeout};

use super::{
    lasting::{Hub, Lasting},
    lines::{Lines, MAX_LINE_BYTES, MOST_BYTES, MOST_LINES},
    reach::Reach,
    stop::Stop,
    tally::Tally,
    value,
};
use crate::client::{Client, Error, Published, Publishing};
use crate::proto::v1::{Event, PublishPrecondition, PublishRequest, event::Payload, publish_precondition::Condition};

/// How many lines may be without an answer: with those that are read next, no more than the queue of the client holds,
const MOST_UNANSWERED: usize = 8_192 - MOST_LINES;
/// and their bytes. The queue holds twice as much.
const MOST_UNANSWERED_BYTES: usize = 8 * 1024 * 1024;
const _: () = assert!(MOST_UNANSWERED_BYTES + MOST_BYTES + MAX_LINE_BYTES < 16 * 1024 * 1024);
/// How long a line is tried, from when it was read: well below the dedupe window of a stream with the defaults. While there
/// is no session nothing is read, so this is not how long a hub may be away.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long answers are awaited when somebody has stopped this.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Publish an event, or one for every line of standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Lines of standard input are published over one session. If it is lost, the program reconnects, and publishes lines
whose answer it did not get again, with the same id: a stream stores them once. Where no stream stores the topic, such
a line is not published again, and counts as unknown. At the end one line on standard error says how many lines were
accepted, refused and unknown, and which were the first. The exit code is 0 if all were accepted.

Examples:
  switchyard pub orders.eu.created 'hello'
  switchyard pub rates.eur 1.0931 --key eur --attribute unit=usd --json
  switchyard pub orders.eu.created 'hello' --source shop --id order-17
  switchyard pub config.mode safe --if-last-topic-sequence 41
  tail -f access.log | switchyard pub logs.web
  cat orders.txt | switchyard pub orders.eu.created --no-reconnect
  cat orders.txt | switchyard pub orders.eu.created --server http://hub-0:50051,http://hub-1:50051")]
pub struct Publish {
    /// The topic to publish to, such as orders.eu.created
    topic: String,
    /// The payload; if left out, each line of standard input is the payload of one event
    text: Option<String>,
    /// Set the id of the event
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// Set the type of the event, such as com.example.order.created
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    kind: String,
    /// Set the source of the event: a URI or a service name
    #[arg(long, default_value = "", hide_default_value = true)]
    source: String,
    /// Set the ordering key
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// Set the media type of the payload
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// Add an attribute; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
    /// Set how long streams keep the event: 30s, 5m, 7d
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    ttl: Option<Duration>,
    /// Publish only if this is the latest sequence of the stream; 0 if nothing was ever stored
    #[arg(long, value_name = "SEQUENCE", requires = "text", value_parser = clap::value_parser!(i64).range(0..))]
    if_last_sequence: Option<i64>,
    /// Publish only if this is the latest sequence of the topic in its stream; 0 if there is none
    #[arg(long, value_name = "SEQUENCE", requires = "text", conflicts_with = "if_last_sequence",
        value_parser = clap::value_parser!(i64).range(0..))]
    if_last_topic_sequence: Option<i64>,
    /// How long to wait for the answer to TEXT, connecting included: 5s, 500ms, 1m
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = value::timeout)]
    timeout: Duration,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lasting: Lasting,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match &self.text {
            Some(text) => self.publish_one(text.clone()).await,
            None => self.publish_lines().await,
        }
    }

    fn event(&self, payload: Payload, id: String) -> Event {
        Event {
            id,
            topic: self.topic.clone(),
            r#type: self.kind.clone(),
            source: self.source.clone(),
            key: self.key.clone(),
            content_type: self.content_type.clone(),
            attributes: self.attribute.iter().cloned().collect::<HashMap<_, _>>(),
            ttl: self.ttl.map(value::wire_duration),
            payload: Some(payload),
            ..Default::default()
        }
    }

    fn precondition(&self) -> Option<PublishPrecondition> {
        let of_stream = self.if_last_sequence.map(Condition::LastSequence);
        let condition = of_stream.or(self.if_last_topic_sequence.map(Condition::LastTopicSequence))?;
        Some(PublishPrecondition { condition: Some(condition) })
    }

    async fn publish_one(&self, text: String) -> anyhow::Result<()> {
        let event = self.event(Payload::Text(text), self.id.clone());
        let request = PublishRequest { events: vec![event], precondition: self.precondition() };
        let mut tally = Tally::new(!self.id.is_empty());
        let mut hub = Reach::new(self.lasting.target.clone(), self.timeout).connect().await?;
        tally.add(hub.change("Publish", hub.hub().publish(request)).await?)?;
        tally.tell(self.json);
        Ok(())
    }

    async fn publish_lines(&self) -> anyhow::Result<()> {
        let mut stop = Stop::listen()?;
        let mut hub = self.lasting.connect("pub")?;
        tokio::select! {
            up = hub.up() => up?,
            () = stop.requested() => return Ok(()),
        }
        let mut flow = Flow::new(self, hub.client.clone())?;
        let failure = flow.run(&mut hub, &mut stop).await;
        flow.tally.finish(self.json, failure)
    }
}

/// Lines on their way from standard input to the hub, and the answers to them.
struct Flow<'a> {
    command: &'a Publish,
    client: Client,
    lines: Lines,
    /// What ids begin with that are made here.
    run: String,
    /// The number of the last line that was read.
    read: u64,
    /// Lines that are not answered, in order.
    unanswered: VecDeque<Line>,
    unanswered_bytes: usize,
    tally: Tally,
}

/// A line that is not answered.
struct Line {
    number: u64,
    bytes: usize,
    publishing: Publishing,
}

impl<'a> Flow<'a> {
    fn new(command: &'a Publish, client: Client) -> anyhow::Result<Self> {
        let mut run = [0; 8];
        // From the system: two that start together must not make the same ids.
        getrandom::fill(&mut run).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        Ok(Self {
            command,
            client,
            lines: Lines::new(),
            run: format!("{:016x}", u64::from_ne_bytes(run)),
            read: 0,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            tally: Tally::new(!command.id.is_empty()),
        })
    }

    /// Works until everything that was read is answered, or nobody wants to wait for that. What ended it before the last
    /// line, if something did.
    async fn run(&mut self, hub: &mut Hub, stop: &mut Stop) -> Option<anyhow::Error> {
        let (mut failure, mut has_all) = (None, false);
        let mut progress = interval(PROGRESS_INTERVAL);
        progress.tick().await;
        while !(has_all && self.unanswered.is_empty()) {
            // What is not read can wait for as long as the hub is away.
            let reads = !has_all && hub.has_session() && self.has_room();
            tokio::select! {
                biased;
                () = stop.requested() => {
                    self.flush(stop).await;
                    break;
                }
                result = answer(&mut self.unanswered) => self.answered(result),
                () = hub.changed() => if let Some(error) = hub.failure() {
                    failure.get_or_insert(error);
                    has_all = true;
                },
                _ = progress.tick() => self.tally.tell_progress(),
                lines = self.lines.next(), if reads => match lines.context("cannot read standard input") {
                    Ok(lines) if lines.is_empty() => has_all = true,
                    Ok(lines) => self.queue(lines).await,
                    Err(error) => {
                        failure = Some(error);
                        has_all = true;
                    }
                },
            }
        }
        failure
    }

    fn has_room(&self) -> bool {
        self.unanswered.len() < MOST_UNANSWERED && self.unanswered_bytes < MOST_UNANSWERED_BYTES
    }

    /// Gives lines to the client, which has room for them unless the hub takes longer to answer than a line is tried.
    async fn queue(&mut self, lines: Vec<Payload>) {
        for payload in lines {
            self.read += 1;
            let (number, bytes) = (self.read, bytes(&payload));
            let id = self.command.id.as_str();
            let id = if id.is_empty() { format!("{}-{number}", self.run) } else { id.to_owned() };
            let event = self.command.event(payload, id);
            match self.client.publish(event).deadline(DEADLINE).queued().await {
                Ok(publishing) => {
                    self.unanswered.push_back(Line { number, bytes, publishing });
                    self.unanswered_bytes += bytes;
                }
                Err(error) => self.tally.add_line(number, Err(error)),
            }
        }
    }

    /// The first of the lines that are not answered is.
    fn answered(&mut self, result: Result<Published, Error>) {
        if let Some(line) = self.unanswered.pop_front() {
            self.unanswered_bytes -= line.bytes;
            self.tally.add_line(line.number, result);
        }
    }

    /// Waits for answers to what was read, but not for long.
    async fn flush(&mut self, stop: &mut Stop) {
        let answers = async {
            while !self.unanswered.is_empty() {
                let result = answer(&mut self.unanswered).await;
                self.answered(result);
            }
        };
        tokio::select! {
            _ = timeout(STOP_TIMEOUT, answers) => {}
            () = stop.requested() => {}
        }
        for line in self.unanswered.drain(..) {
            self.tally.add_unanswered(line.number);
        }
    }
}

/// What became of the first of these lines. Cancel-safe.
async fn answer(unanswered: &mut VecDeque<Line>) -> Result<Published, Error> {
    match unanswered.front_mut() {
        Some(line) => (&mut line.publishing).await,
        None => pending().await,
    }
}

fn bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Text(text) => text.len(),
        Payload::Data(data) => data.len(),
    }
}
