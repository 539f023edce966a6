//! Streams on disk: storing events, with every answer awaited, and reading them back.
//!
//! One repetition is one server with an empty folder: a publisher that keeps a fixed window of unanswered events, the
//! same for every server; the same publisher with one event at a time; one subscriber that reads everything from the
//! earliest event on; and another one, after the server was stopped and started again and the system has forgotten what it
//! knew of the disk. Sequence and checksum of every
//! event are checked as it is read, and the sequences that answers name as they come.

pub(crate) mod beside;
pub(crate) mod group;
mod hub;
mod jetstream;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use switchyard::bench::{Check, Expectation, Outgoing, Record};
use tokio::time::timeout;

use self::{hub::HubStore, jetstream::JetStream};
use crate::{
    child::Server,
    contender::{Contender, Cost, Ground, Meter},
};

/// The size of every payload.
pub(crate) const PAYLOAD_BYTES: usize = 128;
/// The stream, and the one topic that it holds.
const STREAM: &str = "bench";
const TOPIC: &str = "bench.durable";
/// So many events are unanswered at a time: fewer than JetStream takes before it refuses more (10 000).
const WINDOW_EVENTS: u64 = 8192;
/// So many are sent together.
const MOST_TOGETHER: u64 = 128;
/// So many are stored while it counts, and read back.
const EVENTS: u64 = 1_000_000;
/// Before anything counts.
const WARM_UP_EVENTS: u64 = 50_000;
/// For a server that writes every event to the disk by itself, the time that is measured says how many there are.
const SLOW_WARM_UP_EVENTS: u64 = 500;
/// For how long lone events are sent.
const LONE_TIME: Duration = Duration::from_millis(1500);
/// All of something must have been answered or read within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stores events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A stream of the hub that answers once what it stores is written to the disk.
    Hub,
    /// A file stream of JetStream as it is by default: written to the disk every two minutes.
    JetStream,
    /// The same with `sync_interval: always`.
    JetStreamAlways,
}

/// One thing that a repetition found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Of which row.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) cost: Option<Cost>,
}

/// The rows. Those that end in `always` compare the hub with a JetStream that writes to the disk as the hub does.
pub(crate) const ROWS: [&str; 6] = [
    "durable_publish_pipelined",
    "durable_publish_pipelined_always",
    "durable_publish_lone_p50",
    "durable_publish_lone_p50_always",
    "replay",
    "replay_cold",
];

impl Store {
    pub(crate) const ALL: [Self; 3] = [Self::Hub, Self::JetStream, Self::JetStreamAlways];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::JetStream => "jetstream",
            Self::JetStreamAlways => "jetstream, sync always",
        }
    }

    /// In whose column its figures are.
    pub(crate) fn contender(self) -> Contender {
        match self {
            Self::Hub => Contender::Hub,
            Self::JetStream | Self::JetStreamAlways => Contender::Nats,
        }
    }
}

/// A server that has a stream, as its clients see it.
trait EventStore {
    type Publisher: Publisher;

    /// Makes the stream.
    async fn create(&self) -> anyhow::Result<()>;
    /// Connects one that publishes.
    async fn publisher(&self) -> anyhow::Result<Self::Publisher>;
    /// Connects one that reads, from the earliest event on, until everything was shown.
    async fn replay(&self, replay: &mut Replay) -> anyhow::Result<()>;
}

/// Stores events.
trait Publisher {
    /// Sends a batch, in order. The batch is emptied.
    async fn send(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()>;
    /// Waits for answers. How many further events are stored, each at the sequence behind the one before.
    async fn answered(&mut self) -> anyhow::Result<u64>;
}

/// Measures one store.
pub(crate) async fn measure(ground: &Ground, store: Store, measure: Duration) -> anyhow::Result<Vec<Figure>> {
    let folder = Folder::make(&ground.data)?;
    let found = match store {
        Store::Hub => {
            let path = folder.0.display().to_string();
            let arguments = ["--data-dir", &path, "--set", "drain.spread_ms=0"];
            Box::pin(run(ground, Contender::Hub, &arguments, HubStore::at, &folder, Length::Events(EVENTS))).await
        }
        Store::JetStream | Store::JetStreamAlways => {
            let always = store == Store::JetStreamAlways;
            let path = jetstream::configure(&folder.0, always)?.display().to_string();
            let length = if always { Length::Time(measure) } else { Length::Events(EVENTS) };
            Box::pin(run(ground, Contender::Nats, &["--config", &path], JetStream::at, &folder, length)).await
        }
    };
    drop(folder);
    Ok(found?.into_figures(store))
}

/// What one server did.
struct Found {
    pipelined: Rate,
    lone_p50_us: f64,
    /// With everything in memory, and with nothing of it. None where there was too little to read.
    replays: Option<[Rate; 2]>,
}

/// Events a second, and what it took.
type Rate = (f64, Cost);

impl Found {
    fn into_figures(self, store: Store) -> Vec<Figure> {
        let rate = |name, (value, cost): Rate| Figure { name, unit: "events/s", value, cost: Some(cost) };
        let [pipelined, pipelined_always, lone, lone_always, replay, replay_cold] = ROWS;
        let mut figures = Vec::new();
        let pairs = [
            (pipelined, lone, store != Store::JetStreamAlways),
            (pipelined_always, lone_always, store != Store::JetStream),
        ];
        for (pipelined, lone, belongs) in pairs {
            if belongs {
                figures.push(rate(pipelined, self.pipelined));
                figures.push(Figure { name: lone, unit: "us", value: self.lone_p50_us, cost: None });
            }
        }
        if let Some([hot, cold]) = self.replays {
            figures.extend([rate(replay, hot), rate(replay_cold, cold)]);
        }
        figures
    }
}

/// A folder that is gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(path).with_context(|| format!("cannot empty {}", path.display()))?;
        }
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path.canonicalize()?))
    }

    /// Has the system drop from memory what it has of every file, so that it is read from the disk again.
    ///
    /// All is read once in between: of a virtual machine, memory that is free may be with its host, and to get a page of it
    /// back takes longer than to read the page from the disk. What was free just now is there.
    fn forget_in_memory(&self) -> anyhow::Result<()> {
        self.each_file(drop_from_memory)?;
        self.each_file(|file| io::copy(&mut &*file, &mut io::sink()).map(drop))?;
        self.each_file(drop_from_memory)
    }

    fn each_file(&self, what: impl Fn(&fs::File) -> io::Result<()>) -> anyhow::Result<()> {
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else {
                    what(&fs::File::open(entry.path())?)?;
                }
            }
        }
        Ok(())
    }
}

fn drop_from_memory(file: &fs::File) -> io::Result<()> {
    // What is not on the disk yet stays in memory.
    file.sync_all()?;
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Whatever is left is removed before the next run.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// How long to publish.
#[derive(Debug, Clone, Copy)]
enum Length {
    Events(u64),
    Time(Duration),
}

async fn run<S: EventStore>(
    ground: &Ground,
    contender: Contender,
    arguments: &[&str],
    at: impl Fn(&Server) -> S,
    folder: &Folder,
    length: Length,
) -> anyhow::Result<Found> {
    let server = ground.start_with(contender, arguments).await?;
    let store = at(&server);
    store.create().await.context("cannot create the stream")?;

    let mut load = Load::new(store.publisher().await?);
    let (warm_up, readable) = match length {
        Length::Events(_) => (WARM_UP_EVENTS, true),
        Length::Time(_) => (SLOW_WARM_UP_EVENTS, false),
    };
    load.pipelined(Length::Events(warm_up)).await?;
    let pipelined = metered(&server, load.pipelined(length)).await?;
    let lone_p50_us = load.lone().await?;
    let sent = load.sent;
    drop(load);
    if !readable {
        return Ok(Found { pipelined, lone_p50_us, replays: None });
    }

    let hot = metered(&server, replay(&store, sent)).await.context("replay")?;
    server.stop().await?;
    let server = ground.start_with(contender, arguments).await?;
    // Only now: a server may read everything when it starts.
    folder.forget_in_memory()?;
    let read_before = server.disk_read_bytes()?;
    let cold = metered(&server, replay(&at(&server), sent)).await.context("replay after a restart")?;
    let (read, stored) = (server.disk_read_bytes()? - read_before, sent * PAYLOAD_BYTES as u64);
    ensure!(read >= stored, "{read} bytes came from the disk of the {stored} that are stored: that was not cold");
    Ok(Found { pipelined, lone_p50_us, replays: Some([hot, cold]) })
}

/// The rate of something that tells how many events it was about, and what it took.
async fn metered(server: &Server, what: impl Future<Output = anyhow::Result<u64>>) -> anyhow::Result<Rate> {
    let meter = Meter::start(server)?;
    let begin = Instant::now();
    let events = timeout(PATIENCE, what).await.context("took too long")??;
    let rate = events as f64 / begin.elapsed().as_secs_f64();
    Ok((rate, meter.read(server, events)?))
}

/// Reads everything back. How many events that was.
async fn replay(store: &impl EventStore, events: u64) -> anyhow::Result<u64> {
    let mut replay = Replay { expectation: Expectation::new(1, 1), seen: 0, events };
    store.replay(&mut replay).await?;
    let faults = replay.expectation.faults;
    ensure!(faults.is_none(), "{faults:?} of {events} events");
    ensure!(replay.seen == events, "{} events are stored, {} came", events, replay.seen);
    Ok(events)
}

/// Checks what is read.
struct Replay {
    expectation: Expectation,
    seen: u64,
    /// How many there are.
    events: u64,
}

impl Replay {
    fn is_done(&self) -> bool {
        self.seen >= self.events
    }
}

impl Check for Replay {
    fn check(&mut self, payload: &[u8]) {
        self.expectation.check(payload);
        self.seen += 1;
    }
}

/// A publisher and what it has sent.
struct Load<P> {
    publisher: P,
    topic: Arc<str>,
    batch: Vec<Outgoing>,
    sent: u64,
    answered: u64,
}

impl<P: Publisher> Load<P> {
    fn new(publisher: P) -> Self {
        Self { publisher, topic: TOPIC.into(), batch: Vec::new(), sent: 0, answered: 0 }
    }

    /// Sends so many events together.
    async fn send(&mut self, events: u64) -> anyhow::Result<()> {
        for sequence in self.sent..self.sent + events {
            let mut payload = [0; PAYLOAD_BYTES];
            // The record has less room for a sequence, which begins again when it is full.
            let sequence = (sequence & u64::from(u32::MAX)) as u32;
            Record { publisher: 0, topic: 0, sequence, intended: 0 }.write(&mut payload);
            let payload = Bytes::copy_from_slice(&payload);
            self.batch.push(Outgoing { topic: Arc::clone(&self.topic), payload });
        }
        self.sent += events;
        self.publisher.send(&mut self.batch).await
    }

    /// Waits for answers.
    async fn hear(&mut self) -> anyhow::Result<()> {
        self.answered += self.publisher.answered().await?;
        ensure!(self.answered <= self.sent, "more answers than events");
        Ok(())
    }

    /// Keeps the window full until it is over, and then until all is answered. How many events that were.
    async fn pipelined(&mut self, length: Length) -> anyhow::Result<u64> {
        let (begin, before) = (Instant::now(), self.sent);
        loop {
            let left = match length {
                Length::Events(events) => (before + events).saturating_sub(self.sent),
                Length::Time(time) if begin.elapsed() < time => MOST_TOGETHER,
                Length::Time(_) => 0,
            };
            let together = left.min(MOST_TOGETHER);
            if together > 0 && self.sent - self.answered + together <= WINDOW_EVENTS {
                self.send(together).await?;
            } else if self.answered < self.sent {
                self.hear().await?;
            } else {
                return Ok(self.sent - before);
            }
        }
    }

    /// One event at a time, for a while: the median time from sending to the answer, in microseconds.
    async fn lone(&mut self) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let mut times = Vec::new();
        while begin.elapsed() < LONE_TIME {
            let sent = Instant::now();
            self.send(1).await?;
            timeout(PATIENCE, self.hear()).await.context("no answer")??;
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).context("no answers")?;
        Ok(median.as_secs_f64() * 1e6)
    }
}
