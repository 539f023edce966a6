//! The shared middle: what all sessions and all edges use of one hub.
//!
//! The room owns the list of open sessions, their time and their draining; publishing, the one way in for events; quotas,
//! rates and resume tokens; groups on streams at work (`group/`); and what takes live events to other hubs (`exchange`). It
//! never reads a command and knows no wire.

mod about;
mod beginning;
mod exchange;
mod group;
mod marks;
mod observe;
mod options;
mod publish;
mod quota;
mod rates;
mod registry;
mod spans;
mod token;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::Instant;

pub use about::{About, HubTraffic};
pub(crate) use beginning::Beginning;
pub use exchange::Exchange;
pub use group::{AsOf, GroupStatus, Groups, MemberName, MemberStatus, Redriven, Streams, UnackedEvent, UnackedStage};
pub(crate) use group::{Command as GroupCommand, Departure, Handle, Identity, Newcomer, Speaker};
pub use options::Options;
pub use publish::{Placing, Publish, Publisher, Publishing, Sequenced};
pub use quota::{InFlight, Options as QuotaOptions};
pub use registry::{Kind, OpenSession, Traffic};
pub use spans::Tracing;
pub use token::TokenKey;
pub(crate) use waiting::first;

use crate::{
    auth::Caller,
    cut::Cut,
    engine::{Engine, EventStream},
    event::Event,
    memory::{Client, Memory, Use},
    model::{CommandError, End, EventError, Reason, Topic, limits::MAX_TERMINATE_REASON_BYTES},
    outbox::{Allowances, Budget, Counts, Desk, Frame, Outbox, Reply, Tick, Welcome},
    router::Router,
    telemetry::{Metrics, StreamCut},
};
pub use crate::{engine::Precondition, groups::Outcome};
use marks::Marks;
use quota::{Account, Quotas};
use rates::Rates;
use registry::Registry;

/// How often time is looked at: heartbeats and write timeouts are this much late at most.
const TICK: Duration = Duration::from_millis(250);
/// So many sessions are looked at before others may work.
const TICK_AT_ONCE: usize = 256;

/// All sessions of one process, and what they share.
#[derive(Debug)]
pub struct Hub {
    node: Arc<str>,
    options: Options,
    /// `None` on a hub without streams.
    engine: Option<Arc<dyn Engine>>,
    /// As many as there are engines.
    groups: Option<Arc<Groups>>,
    /// `None` on a hub that is alone.
    exchange: Option<Arc<dyn Exchange>>,
    tokens: TokenKey,
    router: Router,
    budget: Arc<Budget>,
    quotas: Quotas,
    tracing: Option<Tracing>,
    metrics: Arc<Metrics>,
    memory: Arc<Memory>,
    sessions: Registry,
    next_session: AtomicU64,
    /// Distinguishes the sessions of this process from those of every other.
    prefix: u64,
    start: Instant,
    rates: Mutex<Rates>,
    /// Of the totals that are counted.
    traffic: Mutex<Marks<4>>,
}

/// What a hub is made of.
#[derive(Debug, Default)]
pub struct Setup {
    /// Names it to its clients.
    pub node: Arc<str>,
    /// Limits and times of sessions.
    pub options: Options,
    /// What each principal may use.
    pub quotas: QuotaOptions,
    /// Where facts are counted.
    pub metrics: Arc<Metrics>,
    /// Accounts for what clients make the hub keep.
    pub memory: Arc<Memory>,
    /// Where traces are recorded; `None` for a hub without traces.
    pub tracing: Option<Tracing>,
    /// What is needed for streams; `None` for a hub without streams.
    pub streams: Option<Streams>,
    /// The way to the other hubs of the same store; `None` for a hub that is alone.
    pub exchange: Option<Arc<dyn Exchange>>,
}

impl Hub {
    /// A hub without sessions.
    pub fn new(setup: Setup) -> Self {
        let Setup { node, options, quotas, metrics, memory, tracing, streams, exchange } = setup;
        let engine = streams.as_ref().map(|streams| Arc::clone(&streams.engine));
        // Without streams there is nothing to resume, and no token that anybody could hand back.
        let secret = engine.as_ref().map_or([0; 32], |engine| engine.token_key());
        let hub = Self {
            engine,
            groups: streams.map(|streams| Arc::new(Groups::new(streams))),
            exchange,
            tokens: TokenKey::new(secret),
            node,
            tracing,
            memory,
            router: Router::new(options.routes()),
            budget: Arc::new(Budget::new(options.session_queue_bytes, options.hub_queue_bytes)),
            options,
            quotas: Quotas::new(quotas),
            metrics,
            sessions: Registry::default(),
            next_session: AtomicU64::new(1),
            prefix: fastrand::u64(..),
            start: Instant::now(),
            rates: Mutex::default(),
            traffic: Mutex::new(Marks::begin(Duration::ZERO)),
        };
        // Before anybody can publish: what streams have by now was not stored in this run.
        hub.look_at_rates();
        hub
    }

    /// What the operator set.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where traces are recorded, if this hub does that.
    pub(crate) fn tracing(&self) -> Option<&Tracing> {
        self.tracing.as_ref()
    }

    /// Where facts are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Accounts for what clients make the hub keep.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// True for a hub that keeps streams.
    pub fn keeps_streams(&self) -> bool {
        self.engine.is_some()
    }

    /// Where streams are kept, if this hub keeps any.
    pub fn engine(&self) -> Option<&Arc<dyn Engine>> {
        self.engine.as_ref()
    }

    /// True when a topic, as it is written, belongs to a stream.
    pub fn stores(&self, topic: &[u8]) -> bool {
        let topic = Topic::parse(topic).ok();
        topic.is_some_and(|topic| self.engine.as_ref().is_some_and(|engine| engine.stream_of(topic).is_some()))
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
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// For how long it has run.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// A name that no other session or publish of any hub has.
    pub fn unique_name(&self) -> Arc<str> {
        self.name(self.next_session.fetch_add(1, Relaxed))
    }

    fn name(&self, number: u64) -> Arc<str> {
        format!("{:013x}-{number:x}", self.prefix >> 12).into()
    }

    /// Opens a session of a caller, whose first frame is `welcome`; what it commands with comes back, too. `cut` ends the
    /// stream it is on, and `client` accounts for what it makes the hub keep.
    pub(crate) fn enter(
        &self,
        kind: Kind,
        cut: Option<Arc<Cut>>,
        caller: &Caller,
        client: &Arc<Client>,
    ) -> Result<(Arc<OpenSession>, Desk), CommandError> {
        let heartbeat_interval = self.options.heartbeat_interval();
        let account = self.quotas.account(caller.principal().id());
        let counted = account.open_session().inspect_err(|error| self.note_refusal(&account, error))?;
        let outbox = Arc::new(Outbox::new(
            self.options.limits(),
            heartbeat_interval,
            kind == Kind::One,
            Arc::clone(&self.budget),
            Allowances { subscriptions: Arc::clone(account.subscriptions()), filters: client.nothing(Use::Filters) },
            cut,
            Instant::now(),
        ));
        let number = self.next_session.fetch_add(1, Relaxed);
        let desk = Desk::new(Arc::clone(&outbox));
        let named = (number, self.name(number), kind);
        let entry = Arc::new(OpenSession::new(named, caller, (account, counted), outbox, self.uptime()));
        let welcome = Welcome {
            session_id: Arc::clone(&entry.id),
            node: Arc::clone(&self.node),
            heartbeat_interval,
            limits: self.options.limits(),
            credential_expiry: caller.principal().expires(),
            alternatives: self.options.alternatives.clone(),
        };
        // Before anybody else can find it: nothing comes in front of it.
        desk.reply(Reply { request_id: 0, frame: Frame::Welcome(Arc::new(welcome)) });
        self.sessions.enter(&entry, self.options.max)?;
        self.metrics.session_opened();
        Ok((entry, desk))
    }

    /// Forgets a session, whose subscriptions are all forgotten already.
    pub(crate) fn close(&self, number: u64) {
        self.sessions.leave(number);
    }

    /// The account of a caller's principal.
    fn account(&self, caller: &Caller) -> Arc<Account> {
        self.quotas.account(caller.principal().id())
    }

    /// Lets these events be published, or says when they may be.
    fn may_publish(
        &self,
        account: &Arc<Account>,
        events: &[Result<Event, EventError>],
    ) -> Result<InFlight, CommandError> {
        let bytes = events.iter().flatten().map(Event::encoded_len).sum();
        let may = account.publish(events.len(), bytes, self.start.elapsed());
        let mut in_flight = may.inspect_err(|error| self.note_refusal(account, error))?;
        in_flight.span = self.tracing.as_ref().and_then(|tracing| tracing.publish(events));
        Ok(in_flight)
    }

    /// Counts what a quota refused.
    pub(crate) fn note_refusal(&self, account: &Account, error: &CommandError) {
        if let CommandError::QuotaUsedUp { quota, .. } = error {
            tracing::debug!(principal = account.principal(), quota = quota.name(), "quota used up");
            self.metrics.quota_refused(quota.name());
        }
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What waits in all sessions, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.budget.waiting_bytes()
    }

    /// At most `most` sessions that were opened after number `after`, the oldest first, and the number of the last one if
    /// there are more.
    pub fn list_sessions(&self, after: u64, most: usize) -> (Vec<Arc<OpenSession>>, Option<u64>) {
        self.sessions.page(after, most)
    }

    /// The session of that id.
    pub fn find_session(&self, id: &str) -> Result<Arc<OpenSession>, CommandError> {
        self.sessions.find(id)
    }

    /// Ends the session of that id; its client learns why.
    pub fn terminate_session(&self, id: &str, why: &str) -> Result<(), CommandError> {
        if why.len() > MAX_TERMINATE_REASON_BYTES {
            let problem = format!("has {} bytes; the limit is {MAX_TERMINATE_REASON_BYTES}", why.len());
            return Err(CommandError::Field { field: "reason", problem });
        }
        let session = self.find_session(id)?;
        session.outbox.end(End::Terminated { why: why.into() });
        tracing::info!(session = id, why, "session terminated");
        Ok(())
    }

    /// How many subscriptions all sessions have, and how many of them stand in a way that operators watch.
    pub async fn count_subscriptions(&self) -> (usize, Counts) {
        self.sessions.count_subscriptions().await
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
        self.traffic.lock().look(self.start.elapsed(), self.metrics.totals());
    }

    /// Lets time pass for every session, for ever.
    pub async fn keep_time(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let timeout = self.options.write_timeout();
        let mut look_at = Instant::now() + rates::LOOK_INTERVAL;
        loop {
            let now = ticks.tick().await;
            let looks = now >= look_at;
            if looks {
                look_at = now + rates::LOOK_INTERVAL;
                self.look_at_rates();
            }
            let wall = SystemTime::now();
            for some in self.sessions.all().chunks(TICK_AT_ONCE) {
                for session in some {
                    let tick = session.outbox.tick(now, wall, timeout, &self.options.alternatives);
                    self.note(session, tick);
                    if looks {
                        session.mark(self.uptime());
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Counts and logs what became of a client that takes nothing.
    fn note(&self, session: &OpenSession, tick: Tick) {
        match tick {
            Tick::Nothing => {}
            Tick::Stalled => {
                let timeout_ms = self.options.write_timeout_ms;
                tracing::warn!(session = %session.id, timeout_ms, "the client reads nothing while memory is short: session ended");
            }
            Tick::Cut { subscriptions } => {
                tracing::warn!(session = %session.id, subscriptions, "the client did not read the end of its session: stream cut");
                self.metrics.stream_cut(StreamCut::SessionStalled);
                self.metrics.subscriptions_ended(Reason::SessionStalled.name(), subscriptions as u64);
            }
        }
    }

    /// True once the hub is shutting down.
    pub fn is_draining(&self) -> bool {
        self.sessions.is_draining()
    }

    /// Waits until the hub is shutting down, and tells how long its clients may take to go: each after a part of that of
    /// its own.
    pub async fn until_draining(&self) -> Duration {
        self.sessions.until_draining().await
    }

    /// Tells every session that the hub is shutting down and ends each after a part of `spread` of its own, so that
    /// their clients do not all come to the other hubs at once. Returns when every session is gone, and what
    /// groups on streams have done is stored.
    pub async fn drain(&self, spread: Duration) {
        self.sessions.drain(spread);
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut ends: Vec<(Duration, Duration, Arc<Outbox>)> = self
            .sessions
            .all()
            .into_iter()
            .map(|session| {
                (spread.mul_f64(fastrand::f64()), spread.mul_f64(fastrand::f64()), Arc::clone(&session.outbox))
            })
            .collect();
        for (after, reconnect_delay, outbox) in &ends {
            outbox.announce_end(wall + *after, *reconnect_delay, &self.options.alternatives);
        }
        ends.sort_unstable_by_key(|(after, ..)| *after);
        for (after, reconnect_delay, outbox) in ends {
            tokio::time::sleep_until(start + after).await;
            outbox.end(End::Draining { reconnect_delay });
        }
        self.sessions.until_empty().await;
        if let Some(groups) = &self.groups {
            groups.close().await;
        }
    }
}
