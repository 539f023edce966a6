//! The rows of storing events and of reading them back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use switchyard::bench::Expectation;
use tokio::time::timeout;

use super::{
    folder::Folder,
    hub::HubStore,
    jetstream::{self, JetStream},
    load::{Length, Load, PATIENCE, PAYLOAD_BYTES},
    store::{EventStore, Figure, Replay, Store},
};
use crate::{
    child::Server,
    contender::{Contender, Cost, Ground, Meter},
};

/// So many are stored while it counts, and read back.
const EVENTS: u64 = 1_000_000;
/// So many before anything counts;
pub(super) const WARM_UP_EVENTS: u64 = 50_000;
/// For a server that writes every event to the disk by itself, the time that is measured says how many there are.
const SLOW_WARM_UP_EVENTS: u64 = 500;

/// The rows. Those that end in `always` compare the hub with a JetStream that writes to the disk as the hub does.
pub(crate) const ROWS: [&str; 6] = [
    "durable_publish_pipelined",
    "durable_publish_pipelined_always",
    "durable_publish_lone_p50",
    "durable_publish_lone_p50_always",
    "replay",
    "replay_cold",
];

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
