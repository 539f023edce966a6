//! The sessions of this hub: opening, publishing without one, the passing of time, and draining.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    Groups, Options, Session, Streams, TokenKey,
    rates::{self, Rates},
};
use crate::{
    engine::{Engine, EventStream},
    model::{CommandError, End, Event},
    outbox::{Budget, Frame, Outbox, Reply, Welcome},
    router::{Router, Scratch},
    tasks::Cut,
    telemetry::Metrics,
};

/// How often time is looked at: heartbeats and write timeouts are this much late at most.
const TICK: Duration = Duration::from_millis(250);
/// So many sessions are looked at before others may work.
const TICK_AT_ONCE: usize = 256;

/// Counts bytes of frames that have come in part, up to a limit.
#[derive(Debug)]
pub struct FrameMemory {
    limit: usize,
    held: AtomicUsize,
}

impl FrameMemory {
    /// None yet, and at most `limit`.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0) }
    }

    /// Counts `bytes` more, unless that were too many.
    pub fn hold(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.held.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// What was counted is gone.
    pub fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// How many there are.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// All sessions of one process, and what they share.
#[derive(Debug)]
pub struct Hub {
    node: Arc<str>,
    options: Options,
    /// `None` on a hub without streams.
    engine: Option<Arc<dyn Engine>>,
    /// As many as there are engines.
    groups: Option<Arc<Groups>>,
    tokens: TokenKey,
    router: Router,
    budget: Arc<Budget>,
    frame_memory: Arc<FrameMemory>,
    metrics: Arc<Metrics>,
    sessions: Mutex<HashMap<u64, Arc<Outbox>>>,
    /// Wakes who waits for the last session to go.
    gone: Notify,
    next_session: AtomicU64,
    /// Distinguishes the sessions of this process from those of every other.
    prefix: u64,
    draining: AtomicBool,
    start: Instant,
    rates: Mutex<Rates>,
}

/// What kind of call a session serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A `Session` call: many subscriptions.
    Many,
    /// A `Subscribe` call: one subscription, and the call ends as it ends.
    One,
}

impl Hub {
    /// A hub without sessions.
    pub fn new(node: &str, options: Options, metrics: Arc<Metrics>, streams: Option<Streams>) -> Self {
        let engine = streams.as_ref().map(|streams| Arc::clone(&streams.engine));
        // Without streams there is nothing to resume, and no token that anybody could hand back.
        let secret = engine.as_ref().map_or([0; 32], |engine| engine.token_key());
        Self {
            engine,
            groups: streams.map(|streams| Arc::new(Groups::new(streams))),
            tokens: TokenKey::new(secret),
            node: node.into(),
            router: Router::new(options.hub_filter_tokens),
            budget: Arc::new(Budget::new(options.session_queue_bytes, options.hub_queue_bytes)),
            frame_memory: Arc::new(FrameMemory::new(options.hub_frame_bytes)),
            options,
            metrics,
            sessions: Mutex::default(),
            gone: Notify::new(),
            next_session: AtomicU64::new(1),
            prefix: fastrand::u64(..),
            draining: AtomicBool::new(false),
            start: Instant::now(),
            rates: Mutex::default(),
        }
    }

    /// What the operator set.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where facts are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where streams are kept, if this hub keeps any.
    pub fn engine(&self) -> Option<&Arc<dyn Engine>> {
        self.engine.as_ref()
    }

    /// The groups on streams, if this hub keeps any.
    pub fn groups(&self) -> Option<&Arc<Groups>> {
        self.groups.as_ref()
    }

    /// What resume tokens are sealed with.
    pub fn tokens(&self) -> &TokenKey {
        &self.tokens
    }

    /// The routing table.
    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// A name that no other session or publish of any hub has.
    pub fn unique_name(&self) -> Arc<str> {
        self.name(self.next_session.fetch_add(1, Relaxed))
    }

    fn name(&self, number: u64) -> Arc<str> {
        format!("{:013x}-{number:x}", self.prefix >> 12).into()
    }

    /// Opens a session, whose first frame is `welcome`. `cut` ends the stream it is on.
    pub fn open(self: &Arc<Self>, kind: Kind, cut: Option<Arc<Cut>>) -> Result<Session, CommandError> {
        let heartbeat_interval = self.options.heartbeat_interval();
        let outbox = Arc::new(Outbox::new(
            self.options.limits(),
            heartbeat_interval,
            kind == Kind::One,
            Arc::clone(&self.budget),
            cut,
            Instant::now(),
        ));
        let number = self.next_session.fetch_add(1, Relaxed);
        {
            let mut sessions = self.sessions.lock();
            // Looked at under the lock: one that is opened now is seen by the drain, or refused.
            if self.draining.load(Relaxed) {
                return Err(CommandError::Draining);
            }
            let limit = self.options.max;
            if sessions.len() >= limit {
                return Err(CommandError::TooManySessions { whole: "hub", limit });
            }
            sessions.insert(number, Arc::clone(&outbox));
        }
        let id = self.name(number);
        let welcome = Welcome {
            session_id: Arc::clone(&id),
            node: Arc::clone(&self.node),
            heartbeat_interval,
            limits: self.options.limits(),
        };
        outbox.reply(Reply { request_id: 0, frame: Frame::Welcome(Arc::new(welcome)) });
        self.metrics.session_opened();
        Ok(Session::new(Arc::clone(self), number, id, outbox))
    }

    /// Forgets a session, whose subscriptions are all forgotten already.
    pub(super) fn close(&self, number: u64) {
        self.sessions.lock().remove(&number);
        self.gone.notify_waiters();
    }

    /// Publishes for a caller without a session. [`Scratch::matched`] tells how many each event went to.
    pub async fn publish(&self, events: &[Arc<Event>]) -> Scratch {
        let mut scratch = Scratch::default();
        self.publish_with(events, &mut scratch).await;
        scratch
    }

    pub(super) async fn publish_with(&self, events: &[Arc<Event>], scratch: &mut Scratch) {
        self.router.publish(events, scratch).await;
        self.metrics.events_in(events.len(), events.iter().map(|event| event.encoded().len()).sum());
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// How many subscriptions all sessions have.
    pub fn subscription_count(&self) -> usize {
        self.outboxes().iter().map(|outbox| outbox.subscriptions()).sum()
    }

    /// What waits in all sessions, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.budget.waiting_bytes()
    }

    /// Bytes of frames that have come in part, of all calls together.
    pub fn frame_memory(&self) -> &Arc<FrameMemory> {
        &self.frame_memory
    }

    fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// How many events a stream stores in a second, over the last minute.
    pub fn events_per_second(&self, stream: &dyn EventStream) -> f64 {
        let latest = *stream.visible().borrow();
        self.rates.lock().of(self.start.elapsed(), stream.name(), stream.epoch(), latest)
    }

    fn look_at_rates(&self) {
        let streams = self.engine.as_ref().map(|engine| engine.streams()).unwrap_or_default();
        let seen = streams.iter().map(|stream| (stream.name().clone(), stream.epoch(), *stream.visible().borrow()));
        self.rates.lock().look(self.start.elapsed(), seen);
    }

    /// Lets time pass for every session, for ever.
    pub async fn keep_time(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look_at = Instant::now();
        loop {
            let now = ticks.tick().await;
            if now >= look_at {
                look_at = now + rates::LOOK_INTERVAL;
                self.look_at_rates();
            }
            let wall = SystemTime::now();
            for some in self.outboxes().chunks(TICK_AT_ONCE) {
                for outbox in some {
                    outbox.tick(now, wall, self.options.write_timeout());
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Tells every session that the hub is shutting down and ends each after a part of `spread` of its own, so that
    /// their clients do not all come to the other hubs at once. Returns when every session is gone, and what
    /// groups on streams have done is stored.
    pub async fn drain(&self, spread: Duration) {
        {
            let _sessions = self.sessions.lock();
            self.draining.store(true, Relaxed);
        }
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut ends: Vec<(Duration, Duration, Arc<Outbox>)> = self
            .outboxes()
            .into_iter()
            .map(|outbox| (spread.mul_f64(fastrand::f64()), spread.mul_f64(fastrand::f64()), outbox))
            .collect();
        for (after, reconnect_delay, outbox) in &ends {
            let frame = Frame::Draining { deadline: wall + *after, reconnect_delay: *reconnect_delay };
            outbox.reply(Reply { request_id: 0, frame });
        }
        ends.sort_unstable_by_key(|(after, ..)| *after);
        for (after, reconnect_delay, outbox) in ends {
            tokio::time::sleep_until(start + after).await;
            outbox.end(End::Draining { reconnect_delay });
        }
        self.until_empty().await;
        if let Some(groups) = &self.groups {
            groups.close().await;
        }
    }

    async fn until_empty(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.sessions.lock().is_empty() {
                return;
            }
            gone.await;
        }
    }
}
