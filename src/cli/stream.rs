//! `switchyard stream`.

use std::time::Duration;

use anyhow::{Context, ensure};
use prost_types::FieldMask;
use serde_json::json;

use super::{
    browse::{Events, Topics},
    copy::CopyStream,
    group,
    pages::List,
    reach::{Reach, Reached},
    show, value,
};
use crate::proto::v1::{
    CreateStreamRequest, DeleteStreamRequest, Durability, GetEventRequest, GetStreamRequest, ListStreamsRequest,
    PurgeStreamRequest, Storage, Stream, StreamState, UpdateStreamRequest, get_event_request::Which,
};

/// Create, show, change and delete streams.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  switchyard stream create orders 'orders.>' --max-age 7d
  switchyard stream list
  switchyard stream info orders
  switchyard stream events orders --reverse --limit 10

Each subcommand has its own examples: switchyard stream create --help")]
pub struct StreamCommand {
    /// What to do
    #[command(subcommand)]
    action: Action,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show all streams
    #[command(after_help = "Examples:\n  switchyard stream list\n  switchyard stream list --json")]
    List,
    /// Create a stream: from then on every event that matches its filters is stored
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Show the settings of a stream
    #[command(after_help = "Examples:\n  switchyard stream get orders\n  switchyard stream get orders --json")]
    Get {
        /// Which stream
        name: String,
    },
    /// Show the state of a stream: size, rate, first and last event, and the lag of each group
    #[command(after_help = "Examples:\n  switchyard stream info orders\n  switchyard stream info orders --json")]
    Info {
        /// Which stream
        name: String,
    },
    /// Change settings of a stream; all others stay as they are
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(Update),
    /// Delete a stream, with its events and groups
    #[command(after_help = "Examples:\n  switchyard stream delete orders")]
    Delete {
        /// Which stream
        name: String,
    },
    /// Remove events from a stream
    #[command(after_help = PURGE_EXAMPLES)]
    Purge(Purge),
    /// Show one event of a stream
    #[command(after_help = EVENT_EXAMPLES)]
    Event(ShowEvent),
    /// Show the events of a stream, oldest or newest first
    Events(Events),
    /// Show the topics that a stream has events of, by name
    Topics(Topics),
    /// Copy a stream to another hub, with its groups; run again, it goes on where it was
    #[command(after_help = COPY_EXAMPLES)]
    Copy(Box<CopyStream>),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  switchyard stream create orders 'orders.>'
  switchyard stream create rates 'rates.*' 'stocks.>' --max-events-per-topic 1 --storage memory
  switchyard stream create logs 'logs.>' --max-age 7d --max-bytes 10GiB --durability interval";

const UPDATE_EXAMPLES: &str = "\
Examples:
  switchyard stream update logs --max-age 30d
  switchyard stream update logs --max-bytes none --durability sync
  switchyard stream update orders --filter 'orders.>' --filter 'returns.>'";

const PURGE_EXAMPLES: &str = "\
Examples:
  switchyard stream purge orders --up-to 1000
  switchyard stream purge orders --filter 'orders.test.>' --timeout 10m
  switchyard stream purge orders --all";

const EVENT_EXAMPLES: &str = "\
Examples:
  switchyard stream event orders 42
  switchyard stream event rates --last-of rates.eur --json";

const COPY_EXAMPLES: &str = "\
Every event is copied as it is, in order. The stream is created if it is not there; if it is, it must have the same
settings, and no events but those of the copy. What the source has when the command begins is copied, then both sides
are compared in blocks of 10,000 events, then the groups follow. Run again, it copies what came since: stop publishers
and workers before the last run. Ctrl-C ends it at any time. docs/operations.md says what cannot be copied.

--timeout limits each call. A hub that goes away meanwhile may take two minutes to come back.

Examples:
  switchyard stream copy --from http://old:50051 --to http://new:50051 orders
  switchyard stream copy --from http://old:50051 --to http://new:50051 orders --as bills --state-file bills.state
  switchyard stream copy --from https://old:50051 --from-token-file old.token --to https://new:50051 \
      --to-token-file new.token --to-tls-ca new-ca.crt orders
  switchyard stream copy --from http://old:50051 --to http://new:50051 orders --verify-only";

#[derive(Debug, clap::Args)]
struct Create {
    /// Its name: one topic token, at most 64 bytes
    name: String,
    /// Which topics it holds: * is one token, a final > one or more
    #[arg(required = true, value_name = "FILTER")]
    filters: Vec<String>,
    /// Where the events are kept
    #[arg(long, value_enum, default_value_t = Kept::File)]
    storage: Kept,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Which stream
    name: String,
    /// Which topics it holds from now on; may be repeated
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, clap::Args)]
struct Purge {
    /// Which stream
    name: String,
    #[command(flatten)]
    part: Part,
}

/// Which events to remove.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Part {
    /// Only events up to and including this sequence
    #[arg(long, value_name = "SEQUENCE", value_parser = value::sequence)]
    up_to: Option<i64>,
    /// Only events whose topic matches this filter
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Every event
    #[arg(long, conflicts_with_all = ["up_to", "filter"])]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct ShowEvent {
    /// Which stream
    stream: String,
    #[command(flatten)]
    which: One,
}

/// Which event to show.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct One {
    /// The sequence of the event
    #[arg(value_parser = value::sequence)]
    sequence: Option<i64>,
    /// The last event of this topic
    #[arg(long, value_name = "TOPIC")]
    last_of: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kept {
    /// In the store on disk
    File,
    /// In memory; lost when the hub stops
    Memory,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Synced {
    /// On disk before the publisher gets its result
    Sync,
    /// On disk soon after
    Interval,
    /// On disk when it suits the system
    None,
}

/// What can be set when a stream is created, and changed later.
#[derive(Debug, Default, clap::Args)]
struct Settings {
    /// Remove events older than this: 7d, 12h, or none
    #[arg(long, value_name = "DURATION", value_parser = value::age)]
    max_age: Option<Duration>,
    /// Keep at most this many events, or none for no limit
    #[arg(long, value_name = "COUNT", value_parser = value::count)]
    max_events: Option<i64>,
    /// Keep at most this many bytes: 10GiB, 500MB, or none for no limit
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    max_bytes: Option<i64>,
    /// Keep at most this many events of each topic, or none for no limit; 1 keeps the last value of each
    #[arg(long, value_name = "COUNT", value_parser = value::count)]
    max_events_per_topic: Option<i64>,
    /// Treat events with the same topic, source and id as duplicates for this long; 0s turns this off [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    dedupe_window: Option<Duration>,
    /// What the result of a publish promises [default: sync]
    #[arg(long, value_enum)]
    durability: Option<Synced>,
}

impl Settings {
    /// Puts what was given into a stream, and gives the names of it.
    fn put(&self, stream: &mut Stream) -> Vec<String> {
        let mut paths = Vec::new();
        let mut given = |path: &str| paths.push(path.to_owned());
        if let Some(age) = self.max_age {
            stream.max_age = (!age.is_zero()).then(|| value::wire_duration(age));
            given("max_age");
        }
        if let Some(events) = self.max_events {
            stream.max_events = events;
            given("max_events");
        }
        if let Some(bytes) = self.max_bytes {
            stream.max_bytes = bytes;
            given("max_bytes");
        }
        if let Some(events) = self.max_events_per_topic {
            stream.max_events_per_topic = events;
            given("max_events_per_topic");
        }
        if let Some(window) = self.dedupe_window {
            stream.dedupe_window = Some(value::wire_duration(window));
            given("dedupe_window");
        }
        if let Some(durability) = self.durability {
            let durability = match durability {
                Synced::Sync => Durability::Sync,
                Synced::Interval => Durability::Interval,
                Synced::None => Durability::None,
            };
            stream.set_durability(durability);
            given("durability");
        }
        paths
    }
}

impl StreamCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        if let Action::Copy(copy) = &self.action {
            return copy.run(self.json, self.reach.timeout()).await;
        }
        let mut hub = self.reach.connect().await?;
        let hub = &mut hub;
        match &self.action {
            // It has two hubs of its own.
            Action::Copy(_) => Ok(()),
            Action::List => self.list(hub).await,
            Action::Create(create) => self.create(hub, create).await,
            Action::Get { name } => {
                let stream = get(hub, name).await?;
                self.tell(&stream, None)
            }
            Action::Info { name } => self.info(hub, name).await,
            Action::Update(update) => self.update(hub, update).await,
            Action::Delete { name } => self.delete(hub, name).await,
            Action::Purge(purge) => self.purge(hub, purge).await,
            Action::Event(event) => self.event(hub, event).await,
            Action::Events(events) => events.run(hub, self.json).await,
            Action::Topics(topics) => topics.run(hub, self.json).await,
        }
    }

    async fn list(&self, hub: &mut Reached) -> anyhow::Result<()> {
        let list = List {
            json: self.json,
            head: &["NAME", "EVENTS", "SIZE", "FIRST", "LAST", "RATE", "STORAGE", "DURABILITY", "FILTERS"],
            row,
            object: |stream: &Stream| as_json(stream, stream.state),
        };
        list.show(u64::MAX, async |(page_size, page_token)| {
            let request = ListStreamsRequest { page_size, page_token };
            let page = hub.ask("ListStreams", hub.streams().list_streams(request)).await?;
            Ok((page.streams, page.next_page_token))
        })
        .await
    }

    async fn create(&self, hub: &mut Reached, create: &Create) -> anyhow::Result<()> {
        let mut stream = Stream { name: create.name.clone(), filters: create.filters.clone(), ..Stream::default() };
        stream.set_storage(match create.storage {
            Kept::File => Storage::File,
            Kept::Memory => Storage::Memory,
        });
        create.settings.put(&mut stream);
        let request = CreateStreamRequest { stream: Some(stream) };
        let answer = hub.change("CreateStream", hub.streams().create_stream(request)).await?;
        self.tell(&answer.stream.context("the hub did not show the stream")?, Some("created"))
    }

    async fn update(&self, hub: &mut Reached, update: &Update) -> anyhow::Result<()> {
        let mut stream = Stream { name: update.name.clone(), filters: update.filters.clone(), ..Stream::default() };
        let mut paths = update.settings.put(&mut stream);
        if !update.filters.is_empty() {
            paths.push("filters".to_owned());
        }
        ensure!(!paths.is_empty(), "nothing to change: name a setting, such as --max-age 7d");
        let request = UpdateStreamRequest { stream: Some(stream), update_mask: Some(FieldMask { paths }) };
        let answer = hub.change("UpdateStream", hub.streams().update_stream(request)).await?;
        self.tell(&answer.stream.context("the hub did not show the stream")?, Some("updated"))
    }

    async fn delete(&self, hub: &mut Reached, name: &str) -> anyhow::Result<()> {
        let request = DeleteStreamRequest { name: name.to_owned() };
        hub.change("DeleteStream", hub.streams().delete_stream(request)).await?;
        let told = if self.json { json!({ "deleted": name }).to_string() } else { format!("deleted {name}") };
        show::print(&told).map(drop)
    }

    async fn purge(&self, hub: &mut Reached, purge: &Purge) -> anyhow::Result<()> {
        let request = PurgeStreamRequest {
            name: purge.name.clone(),
            up_to_sequence: purge.part.up_to.unwrap_or(0),
            filter: purge.part.filter.clone().unwrap_or_default(),
        };
        let events = hub.change("PurgeStream", hub.streams().purge_stream(request)).await?.purged_events;
        let told =
            if self.json { json!({ "purged_events": events }).to_string() } else { format!("purged {events} events") };
        show::print(&told).map(drop)
    }

    async fn event(&self, hub: &mut Reached, wanted: &ShowEvent) -> anyhow::Result<()> {
        let which = match (&wanted.which.last_of, wanted.which.sequence) {
            (Some(topic), _) => Which::LastOfTopic(topic.clone()),
            (None, sequence) => Which::Sequence(sequence.unwrap_or(0)),
        };
        let request = GetEventRequest { stream: wanted.stream.clone(), which: Some(which) };
        let answer = hub.ask("GetEvent", hub.streams().get_event(request)).await?;
        let received = answer.event.context("the hub did not show the event")?;
        let told = if self.json { show::event_json(&received).to_string() } else { show::event_page(&received) };
        show::print(&told).map(drop)
    }

    async fn info(&self, hub: &mut Reached, name: &str) -> anyhow::Result<()> {
        let stream = get(hub, name).await?;
        let groups = group::of_stream(hub, name).await?;
        let state = stream.state.unwrap_or_default();
        if self.json {
            let mut object = as_json(&stream, stream.state);
            object["groups"] = groups.iter().map(group::as_json).collect();
            return show::print(&object.to_string()).map(drop);
        }
        let mut ends = Vec::new();
        if !is_empty(state) {
            for sequence in [state.earliest_sequence, state.latest_sequence] {
                ends.push(end(hub, name, sequence).await?);
            }
        }
        let mut told = show::fields(&info_fields(&stream, state, &ends));
        if !groups.is_empty() {
            told.push('\n');
            told.push_str(&group::table(&groups));
        }
        show::print(&told).map(drop)
    }

    /// Shows the settings of a stream, after what was done with it.
    fn tell(&self, stream: &Stream, done: Option<&str>) -> anyhow::Result<()> {
        if self.json {
            return show::print(&as_json(stream, None).to_string()).map(drop);
        }
        let mut rows = vec![(done.unwrap_or("stream"), stream.name.clone())];
        rows.extend(settings_fields(stream));
        show::print(&show::fields(&rows)).map(drop)
    }
}

async fn get(hub: &mut Reached, name: &str) -> anyhow::Result<Stream> {
    let request = GetStreamRequest { name: name.to_owned() };
    let answer = hub.ask("GetStream", hub.streams().get_stream(request)).await?;
    answer.stream.context("the hub did not show the stream")
}

/// A sequence, and when its event was stored if it is still there.
async fn end(hub: &mut Reached, stream: &str, sequence: i64) -> anyhow::Result<String> {
    let request = GetEventRequest { stream: stream.to_owned(), which: Some(Which::Sequence(sequence)) };
    let found = hub.find("GetEvent", hub.streams().get_event(request)).await?;
    let time = found.and_then(|found| found.event).and_then(|received| received.append_time);
    let time = time.map(|time| format!(" ({}, {} ago)", show::time(&time), show::ago(&time)));
    Ok(format!("{sequence}{}", time.unwrap_or_default()))
}

fn storage(stream: &Stream) -> &'static str {
    match stream.storage() {
        Storage::Memory => "memory",
        Storage::File | Storage::Unspecified => "file",
    }
}

fn durability(stream: &Stream) -> &'static str {
    match stream.durability() {
        Durability::Interval => "interval",
        Durability::None => "none",
        Durability::Sync | Durability::Unspecified => "sync",
    }
}

fn is_empty(state: StreamState) -> bool {
    state.earliest_sequence > state.latest_sequence
}

fn row(stream: &Stream) -> Vec<String> {
    let state = stream.state.unwrap_or_default();
    // Without events the first would be behind the last.
    let end = |sequence: i64| if is_empty(state) { "-".to_owned() } else { sequence.to_string() };
    vec![
        stream.name.clone(),
        state.events.to_string(),
        show::bytes(state.bytes),
        end(state.earliest_sequence),
        end(state.latest_sequence),
        format!("{:.1}/s", state.events_per_second),
        storage(stream).to_owned(),
        durability(stream).to_owned(),
        stream.filters.join(" "),
    ]
}

fn settings_fields(stream: &Stream) -> Vec<(&'static str, String)> {
    let limit = |count: i64| if count == 0 { "none".to_owned() } else { count.to_string() };
    let size = if stream.max_bytes == 0 { "none".to_owned() } else { show::bytes(stream.max_bytes) };
    vec![
        ("filters", stream.filters.join(" ")),
        ("storage", storage(stream).to_owned()),
        ("durability", durability(stream).to_owned()),
        ("max age", stream.max_age.as_ref().map_or_else(|| "none".to_owned(), show::wire_duration)),
        ("max events", limit(stream.max_events)),
        ("max bytes", size),
        ("max events per topic", limit(stream.max_events_per_topic)),
        ("dedupe window", stream.dedupe_window.as_ref().map_or_else(|| "2m".to_owned(), show::wire_duration)),
    ]
}

/// `ends`: the first and the last event; nothing when the stream is empty.
fn info_fields(stream: &Stream, state: StreamState, ends: &[String]) -> Vec<(&'static str, String)> {
    let end = |at: usize| ends.get(at).cloned().unwrap_or_else(|| "none".to_owned());
    let mut rows = vec![
        ("stream", stream.name.clone()),
        ("events", state.events.to_string()),
        ("size", show::bytes(state.bytes)),
        ("rate", format!("{:.1} events/s over the last minute", state.events_per_second)),
        ("first", end(0)),
        ("last", end(1)),
        ("epoch", state.epoch.to_string()),
        ("created", state.create_time.as_ref().map(show::time).unwrap_or_default()),
    ];
    rows.extend(settings_fields(stream));
    rows
}

/// The stream with the names of the contract; limits it does not have are left out.
fn as_json(stream: &Stream, state: Option<StreamState>) -> serde_json::Value {
    let mut object = json!({
        "name": stream.name,
        "filters": stream.filters,
        "storage": stream.storage().as_str_name(),
        "durability": stream.durability().as_str_name(),
    });
    if let Some(age) = &stream.max_age {
        object["max_age"] = json!(age.to_string());
    }
    if let Some(window) = &stream.dedupe_window {
        object["dedupe_window"] = json!(window.to_string());
    }
    let limits = [
        ("max_events", stream.max_events),
        ("max_bytes", stream.max_bytes),
        ("max_events_per_topic", stream.max_events_per_topic),
    ];
    for (name, limit) in limits.into_iter().filter(|(_, limit)| *limit != 0) {
        object[name] = json!(limit);
    }
    if let Some(state) = state {
        object["state"] = json!({
            "epoch": state.epoch,
            "earliest_sequence": state.earliest_sequence,
            "latest_sequence": state.latest_sequence,
            "events": state.events,
            "bytes": state.bytes,
            "create_time": state.create_time.as_ref().map(ToString::to_string),
            "events_per_second": state.events_per_second,
        });
    }
    object
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn put(arguments: &str) -> (Stream, Vec<String>) {
        let words = ["stream"].into_iter().chain(arguments.split_whitespace());
        let mut stream = Stream::default();
        let paths = Line::try_parse_from(words).unwrap().settings.put(&mut stream);
        (stream, paths)
    }

    #[test]
    fn what_is_given_is_named_and_nothing_else() {
        let (stream, paths) = put("--max-age 7d --max-bytes 10MiB --durability none");
        assert_eq!(paths, ["max_age", "max_bytes", "durability"]);
        assert_eq!(stream.max_age, Some(prost_types::Duration { seconds: 604_800, nanos: 0 }));
        assert_eq!((stream.max_bytes, stream.durability()), (10 << 20, Durability::None));
        assert_eq!(put(""), (Stream::default(), Vec::new()));
    }

    #[test]
    fn a_limit_is_lifted_by_none_and_repetitions_are_stored_after_0s() {
        let (stream, paths) = put("--max-age none --max-events none --max-events-per-topic none --dedupe-window 0s");
        assert_eq!(paths, ["max_age", "max_events", "max_events_per_topic", "dedupe_window"]);
        let off = Some(prost_types::Duration::default());
        assert_eq!(stream, Stream { dedupe_window: off, ..Stream::default() });
    }
}
