//! Running a load: publishers that keep a window of undelivered events, or a fixed rate, and subscribers that check
//! every event they get.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    record::{Expectation, Faults, HEADER_BYTES, Record, TICK_NS},
    side::{Check, Outgoing, Publish, Receive, Side},
};

/// After the last event is sent, all must have arrived within this time, or they are lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// At most this many events go out together.
const MOST_TOGETHER: u64 = 128;
/// At most this many bytes of payload go out together.
const MOST_BYTES_TOGETHER: usize = 64 * 1024;
/// Latencies are told up to this, in nanoseconds.
const LONGEST_LATENCY_NS: u64 = 60_000_000_000;

/// What a load does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many publish.
    pub publishers: usize,
    /// The filters of each subscriber.
    pub subscribers: Vec<Vec<String>>,
    /// Where to. Each event goes to the next as `choose` says.
    pub topics: Vec<Arc<str>>,
    /// For each topic, how many of the subscribers get it.
    pub deliveries: Vec<u64>,
    /// How often each topic is chosen: the numbers of topics, in the order in which they are taken, over and over.
    pub choose: Arc<[u32]>,
    /// The size of each payload, at least [`HEADER_BYTES`].
    pub payload_bytes: usize,
    /// How fast.
    pub pace: Pace,
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub measure: Duration,
}

/// How fast publishers send.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as may be with at most this many deliveries outstanding for each publisher.
    Window(u64),
    /// So many events a second, all publishers together, whatever becomes of them.
    Rate(u64),
}

/// What came of a load.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Events sent while it counted, a second.
    pub published_per_second: f64,
    /// Events received while it counted, a second, all subscribers together.
    pub delivered_per_second: f64,
    /// All events sent, warm-up included.
    pub published: u64,
    /// All events received, warm-up included.
    pub delivered: u64,
    /// What was wrong; a run with faults is a failed run.
    pub faults: Faults,
    /// From the intended send time to the check, for a load of a fixed rate.
    pub latency: Option<Latency>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50_us: f64,
    /// 9 of 10 are faster.
    pub p90_us: f64,
    /// 99 of 100 are faster.
    pub p99_us: f64,
    /// 999 of 1000 are faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// What the tasks of a load share.
#[derive(Debug)]
struct Shared {
    start: Instant,
    counting: AtomicBool,
    stop: AtomicBool,
    /// Everything has arrived, or will not.
    finished: CancellationToken,
    /// For each publisher: deliveries it caused that have not arrived.
    outstanding: Vec<AtomicU64>,
    /// Wakes each publisher.
    arrived: Vec<Notify>,
    published: AtomicU64,
    /// To each subscriber.
    delivered: Vec<AtomicU64>,
    /// Every event is for every subscriber.
    for_all: bool,
}

/// Runs a load on one side. An error is a client or server that failed; faults of delivery are in the outcome.
pub async fn run<S: Side>(side: &S, plan: &Plan, progress: impl Fn(u64, u64)) -> anyhow::Result<Outcome> {
    ensure!(plan.payload_bytes >= HEADER_BYTES, "a payload has at least {HEADER_BYTES} bytes");
    let plan = Arc::new(plan.clone());
    let shared = Arc::new(Shared::new(&plan));
    let mut subscribers = JoinSet::new();
    for filters in &plan.subscribers {
        let subscriber = side.subscriber(filters).await.context("cannot subscribe")?;
        let number = subscribers.len();
        subscribers.spawn(receive(subscriber, number, Arc::clone(&plan), Arc::clone(&shared)));
    }
    let mut publishers = JoinSet::new();
    for number in 0..plan.publishers {
        let publisher = side.publisher().await.context("cannot publish")?;
        publishers.spawn(publish(publisher, number, Arc::clone(&plan), Arc::clone(&shared)));
    }

    let mut tasks = Tasks { publishers, subscribers };
    tasks.watch(plan.warm_up, || {}).await?;
    let (begin, before) = (Instant::now(), shared.totals());
    shared.counting.store(true, Relaxed);
    tasks.watch(plan.measure, || progress(shared.totals().0, shared.totals().1)).await?;
    shared.counting.store(false, Relaxed);
    let (seconds, after) = (begin.elapsed().as_secs_f64(), shared.totals());

    let (faults, latencies) = tasks.finish(&shared).await?;
    let (published, delivered) = shared.totals();
    Ok(Outcome {
        published_per_second: (after.0 - before.0) as f64 / seconds,
        delivered_per_second: (after.1 - before.1) as f64 / seconds,
        published,
        delivered,
        faults,
        latency: matches!(plan.pace, Pace::Rate(_)).then(|| Latency::of(&latencies)),
    })
}

/// The tasks of a load.
struct Tasks<P> {
    /// A publisher gives its connection back, to be kept open until everything has arrived.
    publishers: JoinSet<anyhow::Result<P>>,
    subscribers: JoinSet<anyhow::Result<(Faults, Histogram<u64>)>>,
}

impl<P: Publish> Tasks<P> {
    /// Lets time pass, and fails as soon as a task does.
    async fn watch(&mut self, time: Duration, every_second: impl Fn()) -> anyhow::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            let next = time.saturating_sub(begin.elapsed()).min(Duration::from_secs(1));
            tokio::select! {
                () = tokio::time::sleep(next) => every_second(),
                Some(ended) = self.publishers.join_next() => {
                    ended??;
                    bail!("a publisher ended early");
                }
                Some(ended) = self.subscribers.join_next() => {
                    ended??;
                    bail!("a subscriber ended early");
                }
            }
        }
        Ok(())
    }

    /// Stops sending, waits for what is under way, and collects what was found.
    async fn finish(mut self, shared: &Shared) -> anyhow::Result<(Faults, Histogram<u64>)> {
        shared.stop.store(true, Relaxed);
        shared.arrived.iter().for_each(Notify::notify_one);
        let mut open = Vec::new();
        while let Some(ended) = self.publishers.join_next().await {
            open.push(ended??);
        }
        let begin = Instant::now();
        while shared.owed() > 0 && begin.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shared.finished.cancel();
        let mut faults = Faults::default();
        let mut latencies = histogram();
        while let Some(ended) = self.subscribers.join_next().await {
            let (more, other) = ended??;
            faults.add(more);
            latencies.add(other).context("latencies")?;
        }
        // A loss in the middle is seen by its subscriber, one at the end only here.
        faults.lost = faults.lost.max(shared.owed());
        Ok((faults, latencies))
    }
}

impl Shared {
    fn new(plan: &Plan) -> Self {
        let (publishers, subscribers) = (plan.publishers, plan.subscribers.len());
        Self {
            start: Instant::now(),
            counting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            finished: CancellationToken::new(),
            outstanding: (0..publishers).map(|_| AtomicU64::new(0)).collect(),
            arrived: (0..publishers).map(|_| Notify::new()).collect(),
            published: AtomicU64::new(0),
            delivered: (0..subscribers).map(|_| AtomicU64::new(0)).collect(),
            for_all: plan.deliveries.iter().all(|deliveries| *deliveries == subscribers as u64),
        }
    }

    fn totals(&self) -> (u64, u64) {
        (self.published.load(Relaxed), self.delivered.iter().map(|delivered| delivered.load(Relaxed)).sum())
    }

    /// How many events the slowest subscriber has not had, where that can be told. What it is behind waits in one queue, which
    /// would be full while the deliveries that are outstanding are few for all of them together.
    fn most_behind(&self) -> u64 {
        let slowest = self.delivered.iter().map(|delivered| delivered.load(Relaxed)).min();
        let published = self.published.load(Relaxed);
        slowest.filter(|_| self.for_all).map_or(0, |slowest| published.saturating_sub(slowest))
    }

    fn owed(&self) -> u64 {
        self.outstanding.iter().map(|outstanding| outstanding.load(Relaxed)).sum()
    }

    /// Time since the start of the run, in ticks of the header.
    fn ticks(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64 / TICK_NS
    }
}

/// One publisher.
async fn publish<P: Publish>(
    mut publisher: P,
    number: usize,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
) -> anyhow::Result<P> {
    let most = MOST_TOGETHER.min((MOST_BYTES_TOGETHER / plan.payload_bytes).max(1) as u64);
    let fan_out = plan.deliveries.iter().copied().max().unwrap_or(1).max(1);
    let (outstanding, publishers) = (&shared.outstanding[number], plan.publishers as u64);
    let mut events = Events::new(number, &plan);
    let mut batch = Vec::new();
    // For a fixed rate: when the next event is due, in nanoseconds since the start.
    let mut due = shared.start.elapsed().as_nanos() as u64;
    while !shared.stop.load(Relaxed) {
        match plan.pace {
            Pace::Window(window) => {
                let behind = outstanding.load(Relaxed).div_ceil(fan_out).max(shared.most_behind() / publishers);
                let room = window.saturating_sub(behind).min(most);
                // Waking for every single delivery would measure the load and not the side.
                if room < most.min(window / 4).max(1) {
                    shared.arrived[number].notified().await;
                    continue;
                }
                let now = shared.ticks();
                (0..room).for_each(|_| batch.push(events.next(&plan, now)));
            }
            Pace::Rate(rate) => {
                let every = 1_000_000_000 * plan.publishers as u64 / rate.max(1);
                let now = shared.start.elapsed().as_nanos() as u64;
                while due <= now && (batch.len() as u64) < most {
                    batch.push(events.next(&plan, due / TICK_NS));
                    due += every;
                }
                if batch.is_empty() {
                    // Timers are a millisecond coarse; a load has its core to itself.
                    tokio::task::yield_now().await;
                    continue;
                }
            }
        }
        let caused: u64 = batch.iter().map(|(deliveries, _)| deliveries).sum();
        outstanding.fetch_add(caused, Relaxed);
        shared.published.fetch_add(batch.len() as u64, Relaxed);
        let mut outgoing: Vec<Outgoing> = batch.drain(..).map(|(_, outgoing)| outgoing).collect();
        publisher.publish(&mut outgoing).await?;
    }
    Ok(publisher)
}

/// Makes the events of one publisher.
struct Events {
    publisher: u16,
    /// The next sequence of each topic.
    sequences: Vec<u32>,
    /// Where in `Plan::choose` the next topic stands; publishers begin at different places.
    at: usize,
    body: Vec<u8>,
}

impl Events {
    fn new(number: usize, plan: &Plan) -> Self {
        let body = (0..plan.payload_bytes).map(|at| at as u8).collect();
        let at = number * plan.choose.len() / plan.publishers.max(1);
        Self { publisher: number as u16, sequences: vec![0; plan.topics.len()], at, body }
    }

    /// The next event, and how many deliveries it causes.
    fn next(&mut self, plan: &Plan, intended: u64) -> (u64, Outgoing) {
        let topic = plan.choose[self.at];
        self.at = (self.at + 1) % plan.choose.len();
        let sequence = &mut self.sequences[topic as usize];
        let record = Record { publisher: self.publisher, topic, sequence: *sequence, intended: intended as u32 };
        *sequence = sequence.wrapping_add(1);
        record.write(&mut self.body);
        let payload = Bytes::copy_from_slice(&self.body);
        (plan.deliveries[topic as usize], Outgoing { topic: Arc::clone(&plan.topics[topic as usize]), payload })
    }
}

/// One subscriber.
async fn receive<R: Receive>(
    mut subscriber: R,
    number: usize,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
) -> anyhow::Result<(Faults, Histogram<u64>)> {
    let mut audit = Audit::new(number, &plan, &shared);
    loop {
        tokio::select! {
            biased;
            received = subscriber.receive(&mut audit) => received?,
            () = shared.finished.cancelled() => return Ok((audit.expectation.faults, audit.latencies)),
        }
        audit.settle(&shared);
    }
}

/// What one subscriber finds.
struct Audit<'a> {
    number: usize,
    shared: &'a Shared,
    timed: bool,
    expectation: Expectation,
    latencies: Histogram<u64>,
    /// Since the last settlement: all that came, and of each publisher those that are whole.
    delivered: u64,
    arrived: Vec<u64>,
    /// When the first of them came, in ticks.
    now: Option<u32>,
}

impl<'a> Audit<'a> {
    fn new(number: usize, plan: &Plan, shared: &'a Shared) -> Self {
        Self {
            number,
            shared,
            timed: matches!(plan.pace, Pace::Rate(_)),
            expectation: Expectation::new(plan.publishers, plan.topics.len()),
            latencies: histogram(),
            delivered: 0,
            arrived: vec![0; plan.publishers],
            now: None,
        }
    }

    /// Tells the publishers what has arrived.
    fn settle(&mut self, shared: &Shared) {
        shared.delivered[self.number].fetch_add(std::mem::take(&mut self.delivered), Relaxed);
        self.now = None;
        for (publisher, arrived) in self.arrived.iter_mut().enumerate().filter(|(_, arrived)| **arrived > 0) {
            // Never below zero, even when events are repeated.
            let arrived = std::mem::take(arrived);
            shared.outstanding[publisher]
                .fetch_update(Relaxed, Relaxed, |owed| Some(owed.saturating_sub(arrived)))
                .ok();
            shared.arrived[publisher].notify_one();
        }
    }
}

impl Check for Audit<'_> {
    fn check(&mut self, payload: &[u8]) {
        self.delivered += 1;
        let Some(record) = self.expectation.check(payload) else { return };
        self.arrived[record.publisher as usize] += 1;
        if self.timed && self.shared.counting.load(Relaxed) {
            let now = *self.now.get_or_insert_with(|| self.shared.ticks() as u32);
            let latency = u64::from(now.wrapping_sub(record.intended)) * TICK_NS;
            self.latencies.saturating_record(latency);
        }
    }
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latencies.max() as f64 / 1_000.0,
        }
    }
}

/// Nanoseconds up to [`LONGEST_LATENCY_NS`], to three digits.
fn histogram() -> Histogram<u64> {
    #[allow(clippy::expect_used)] // Constant arguments that are in range.
    Histogram::new_with_bounds(1, LONGEST_LATENCY_NS, 3).expect("bounds")
}
