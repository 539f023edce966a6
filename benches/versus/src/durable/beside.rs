//! A publisher beside a subscriber that reads slowly: what is left of its rate.
//!
//! The subscriber begins at the end of the stream and is granted less credit than is published, in steps, so that it falls
//! behind and reads from the store. When the publisher has finished, it is granted the rest and catches up. Every event
//! must reach it once, in order. The publisher works alone, then twice beside such a subscriber, then alone: whatever
//! changes as the stream grows falls on both.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use switchyard::{
    bench::{Record, opaque},
    proto::load::{
        AddCredit, Credit, SessionRequest, SessionResponse, StartPosition, StartPreset, Subscribe, SubscriptionSpec,
        session_request::Command, session_response::Frame, start_position::Position,
    },
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::{
    folder::Folder,
    hub::HubStore,
    load::{Length, Load, PATIENCE},
    publish::WARM_UP_EVENTS,
    store::{EventStore, Publisher, STREAM},
};
use crate::{
    child::Server,
    contender::{Contender, Ground, hub},
};

/// The row.
pub(crate) const ROW: &str = "publisher_beside_slow_reader";
/// So many events is the subscriber granted,
const STEP_EVENTS: i64 = 1000;
/// so often: 20 000 a second.
const STEP_INTERVAL: Duration = Duration::from_millis(50);
/// It has fallen behind when it lacks so many events: more than wait for it anywhere in the hub.
const BEHIND_EVENTS: u64 = 50_000;

/// What one repetition found: events a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) alone: f64,
    pub(crate) beside: f64,
    /// How far behind the subscribers were when the publisher had finished, at least.
    pub(crate) behind: u64,
}

/// A subscriber.
struct Reader {
    commands: mpsc::Sender<SessionRequest>,
    frames: Streaming<SessionResponse>,
    /// The number in the next event.
    next: u64,
    caught_up: bool,
}

/// Measures the hub.
pub(crate) async fn measure(ground: &Ground, measure: Duration) -> anyhow::Result<Found> {
    let folder = Folder::make(&ground.data)?;
    let path = folder.0.display().to_string();
    let server = ground.start_with(Contender::Hub, &["--data-dir", &path]).await?;
    let store = HubStore::at(&server);
    store.create().await.context("cannot create the stream")?;
    let mut load = Load::new(store.publisher().await?);
    load.pipelined(Length::Events(WARM_UP_EVENTS)).await?;

    let phase = measure / 2;
    let first = alone(&mut load, phase).await?;
    let (second, behind) = beside(&server, &mut load, phase).await?;
    let (third, also_behind) = beside(&server, &mut load, phase).await?;
    let last = alone(&mut load, phase).await?;
    let behind = behind.min(also_behind);
    ensure!(behind >= BEHIND_EVENTS, "the subscriber was behind by {behind} events only");
    Ok(Found { alone: f64::midpoint(first, last), beside: f64::midpoint(second, third), behind })
}

async fn alone<P: Publisher>(load: &mut Load<P>, phase: Duration) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let events = load.pipelined(Length::Time(phase)).await?;
    Ok(events as f64 / begin.elapsed().as_secs_f64())
}

/// The rate, and how far behind the subscriber was.
async fn beside<P: Publisher>(server: &Server, load: &mut Load<P>, phase: Duration) -> anyhow::Result<(f64, u64)> {
    let mut reader = Reader::open(server, load.sent).await?;
    let finished = Cell::new(false);
    let publish = async {
        let rate = alone(load, phase).await;
        finished.set(true);
        rate
    };
    let (rate, read) = tokio::join!(publish, reader.read_slowly(&finished));
    read?;
    let behind = load.sent - reader.next;
    timeout(PATIENCE, reader.catch_up(load.sent)).await.with_context(|| {
        format!("the subscriber, {behind} events behind, did not catch up: it has {} of {}", reader.next, load.sent)
    })??;
    Ok((rate?, behind))
}

impl Reader {
    /// Subscribes behind the event of that number, with no credit at first.
    async fn open(server: &Server, next: u64) -> anyhow::Result<Self> {
        let (commands, frames) = hub(server).session().await?;
        let mut reader = Self { commands, frames, next, caught_up: false };
        let start = StartPosition { position: Some(Position::Preset(StartPreset::New.into())) };
        let spec = SubscriptionSpec {
            stream: STREAM.to_owned(),
            start: Some(start),
            credit: Some(Credit::default()),
            ..SubscriptionSpec::default()
        };
        reader.send(Command::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) })).await?;
        loop {
            match reader.frames.next().await.context("the session ended")??.frame {
                Some(Frame::Welcome(_)) => {}
                Some(Frame::Subscribed(_)) => return Ok(reader),
                other => bail!("not subscribed: {other:?}"),
            }
        }
    }

    async fn send(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(SessionRequest { request_id: 1, command: Some(command) }).await.context("the session ended")
    }

    async fn grant(&self, events: i64) -> anyhow::Result<()> {
        let credit = Some(Credit { events, bytes: 0 });
        self.send(Command::Credit(AddCredit { subscription_id: 1, credit })).await
    }

    /// Reads as it is granted, step by step, until the publisher has finished.
    async fn read_slowly(&mut self, finished: &Cell<bool>) -> anyhow::Result<()> {
        let mut steps = interval(STEP_INTERVAL);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !finished.get() {
            tokio::select! {
                _ = steps.tick() => self.grant(STEP_EVENTS).await?,
                result = self.read() => result?,
            }
        }
        Ok(())
    }

    /// Reads everything up to the event before that number, and hears that this is all.
    async fn catch_up(&mut self, end: u64) -> anyhow::Result<()> {
        self.caught_up = false;
        self.grant(i64::from(u32::MAX)).await?;
        while self.next < end || !self.caught_up {
            self.read().await?;
        }
        ensure!(self.next == end, "{} events came, and only {end} were published", self.next);
        Ok(())
    }

    /// Takes the next frame. Cancel-safe.
    async fn read(&mut self) -> anyhow::Result<()> {
        match self.frames.next().await.context("the session ended")??.frame {
            Some(Frame::Events(events)) => {
                let mut fault = None;
                let seen = &mut |sequence: u64, payload: &[u8]| {
                    let number = Record::read(payload).map(|record| u64::from(record.sequence));
                    if number != Some(self.next) || sequence != self.next + 1 {
                        fault.get_or_insert_with(|| format!("{sequence} with {number:?} in place of {}", self.next));
                    }
                    self.next += 1;
                };
                opaque::each_stored(&events, seen).context("an `events` frame does not decode")?;
                ensure!(fault.is_none(), "{fault:?}");
            }
            Some(Frame::Progress(progress)) => self.caught_up = progress.caught_up,
            Some(Frame::Heartbeat(_)) => {}
            other => bail!("not expected while reading: {other:?}"),
        }
        Ok(())
    }
}
