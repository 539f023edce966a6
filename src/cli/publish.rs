//! `switchyard pub`.

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Stdin},
    sync::mpsc,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{stop::interrupts, value};
use crate::client::{Target, explain, explain_message};
use crate::proto::v1::{
    Durability, Event, PublishPrecondition, PublishRequest, PublishResponse, PublishResult, SessionRequest,
    SessionResponse, event::Payload, publish_precondition::Condition, session_request::Command,
    session_response::Frame,
};

/// Lines that are ready go out together, at most this many,
const MOST_EVENTS: usize = 500;
/// or about this many bytes: a frame may have 4 MiB, and what goes over may be one line of the longest.
const MOST_BYTES: usize = 512 * 1024;
/// The longest line, in bytes: no hub can be set to take a larger event.
const MAX_LINE_BYTES: usize = 3 * 1024 * 1024;
/// So many publishes may be without an answer.
const MOST_UNANSWERED: usize = 16;
/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Publish an event, or one for every line of standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard pub orders.eu.created 'hello'
  switchyard pub rates.eur 1.0931 --key eur --attribute unit=usd --json
  switchyard pub orders.eu.created 'hello' --source shop --id order-17
  switchyard pub config.mode safe --if-last-topic-sequence 41
  tail -f access.log | switchyard pub logs.web")]
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
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let tally = match &self.text {
            Some(text) => self.publish_one(text.clone()).await?,
            None => self.publish_lines().await?,
        };
        tally.tell(self.json);
        Ok(())
    }

    fn event(&self, payload: Payload) -> Event {
        Event {
            id: self.id.clone(),
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

    async fn publish_one(&self, text: String) -> anyhow::Result<Tally> {
        let event = self.event(Payload::Text(text));
        let request = PublishRequest { events: vec![event], precondition: self.precondition() };
        let mut tally = Tally::new();
        let response = self.target.hub().await?.publish(request).await.map_err(|status| explain(&status))?;
        tally.add(&response.into_inner())?;
        Ok(tally)
    }

    async fn publish_lines(&self) -> anyhow::Result<Tally> {
        let mut stop = interrupts()?;
        let mut client = self.target.hub().await?;
        let (commands, receiver) = mpsc::channel(MOST_UNANSWERED);
        let response = client.session(ReceiverStream::new(receiver)).await.map_err(|status| explain(&status))?;
        let mut frames = response.into_inner();
        let mut lines = Lines::new();
        let mut tally = Tally::new();
        let mut commands = Some(commands);
        let mut unanswered = 0_usize;
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.tick().await;
        loop {
            if commands.is_none() && unanswered == 0 {
                return Ok(tally);
            }
            tokio::select! {
                biased;
                _ = stop.recv() => return Ok(tally),
                frame = frames.next() => match frame {
                    None => bail!("the hub ended the session"),
                    Some(Err(status)) => return Err(explain(&status)),
                    Some(Ok(frame)) => unanswered -= usize::from(tally.answer(frame)?),
                },
                _ = progress.tick() => tally.tell_progress(),
                batch = lines.next(), if commands.is_some() && unanswered < MOST_UNANSWERED => {
                    let payloads = batch.context("cannot read standard input")?;
                    if payloads.is_empty() {
                        commands = None;
                        continue;
                    }
                    let events = payloads.into_iter().map(|payload| self.event(payload)).collect();
                    let publish = Command::Publish(PublishRequest { events, precondition: None });
                    let request = SessionRequest { request_id: 1, command: Some(publish) };
                    if let Some(commands) = &commands {
                        // The channel has room for all that may be unanswered; it fails only if the session is over,
                        // which the next frame tells.
                        commands.try_send(request).ok();
                        unanswered += 1;
                    }
                }
            }
        }
    }
}

/// Standard input, in batches of the lines that are there.
struct Lines {
    input: BufReader<Stdin>,
    /// A line that has begun; kept when waiting for its end is given up.
    partial: Vec<u8>,
}

impl Lines {
    fn new() -> Self {
        Self { input: BufReader::with_capacity(64 * 1024, tokio::io::stdin()), partial: Vec::new() }
    }

    /// Waits for one line and takes those behind it that need no waiting. Empty at the end. Cancel-safe: what has been
    /// read of a line is kept.
    async fn next(&mut self) -> io::Result<Vec<Payload>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        loop {
            // One more shows that a line is too long, the rest of which nobody needs to read.
            let most = (MAX_LINE_BYTES + 1).saturating_sub(self.partial.len());
            (&mut self.input).take(most as u64).read_until(b'\n', &mut self.partial).await?;
            if self.partial.is_empty() {
                return Ok(lines);
            }
            let mut line = std::mem::take(&mut self.partial);
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if line.len() > MAX_LINE_BYTES {
                let told = format!("a line has more than {MAX_LINE_BYTES} bytes, the limit for events of any hub");
                return Err(io::Error::new(io::ErrorKind::InvalidData, told));
            }
            bytes += line.len();
            lines.push(payload(line));
            let more_is_there = self.input.buffer().contains(&b'\n');
            if !more_is_there || lines.len() == MOST_EVENTS || bytes >= MOST_BYTES {
                return Ok(lines);
            }
        }
    }
}

/// A line as it is: bytes where it is no text.
fn payload(line: Vec<u8>) -> Payload {
    String::from_utf8(line).map_or_else(|error| Payload::Data(error.into_bytes().into()), Payload::Text)
}

/// What has come of a publish so far.
struct Tally {
    start: Instant,
    events: u64,
    matched: i64,
    duplicates: u64,
    /// The last result of an event that a stream holds. All have one topic, and so one stream.
    stored: Option<PublishResult>,
}

impl Tally {
    fn new() -> Self {
        Self { start: Instant::now(), events: 0, matched: 0, duplicates: 0, stored: None }
    }

    fn add(&mut self, response: &PublishResponse) -> anyhow::Result<()> {
        for result in &response.results {
            if let Some(status) = &result.status {
                return Err(explain_message(status));
            }
            self.events += 1;
            self.matched += result.matched;
            self.duplicates += u64::from(result.duplicate);
            if !result.stream.is_empty() {
                self.stored = Some(result.clone());
            }
        }
        Ok(())
    }

    /// True when the frame answers a publish.
    fn answer(&mut self, frame: SessionResponse) -> anyhow::Result<bool> {
        match frame.frame {
            Some(Frame::Published(response)) => self.add(&response).map(|()| true),
            Some(Frame::Error(status)) => Err(explain_message(&status)),
            Some(Frame::Draining(_)) => {
                eprintln!("the hub is draining: reconnect");
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn rate(&self) -> f64 {
        self.events as f64 / self.start.elapsed().as_secs_f64().max(f64::EPSILON)
    }

    fn tell_progress(&self) {
        eprintln!("{} events, {:.0} a second", self.events, self.rate());
    }

    fn tell(&self, json: bool) {
        if json {
            println!("{}", self.as_json());
            return;
        }
        let stored = self.stored.as_ref().map(|last| self.stored_text(last)).unwrap_or_default();
        println!("published {}, matched {}{stored}", self.events, self.matched);
    }

    fn as_json(&self) -> serde_json::Value {
        let mut object = json!({ "events": self.events, "matched": self.matched });
        if let Some(last) = &self.stored {
            object["stream"] = json!(last.stream);
            object["sequence"] = json!(last.sequence);
            object["epoch"] = json!(last.epoch);
            object["durability"] = json!(last.durability().as_str_name());
            object["duplicates"] = json!(self.duplicates);
        }
        object
    }

    fn stored_text(&self, last: &PublishResult) -> String {
        let PublishResult { stream, sequence, .. } = last;
        if self.events == 1 && self.duplicates == 1 {
            return format!(", duplicate of {sequence} in {stream}");
        }
        let promise = match last.durability() {
            Durability::Interval => ", synced at intervals",
            Durability::None => ", not synced",
            Durability::Sync | Durability::Unspecified => "",
        };
        let up_to = if self.events == 1 { "" } else { "up to " };
        let duplicates = match self.duplicates {
            0 => String::new(),
            some => format!(", {some} of them duplicates"),
        };
        format!(", stored in {stream} as {up_to}{sequence}{duplicates}{promise}")
    }
}
