//! One connection: what is known of it, how long it may live, and the signals to end it.
//!
//! No connection has a timer of its own for what may take minutes: all are looked at together, now and then.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed},
    },
    task::Context,
    time::Duration,
};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::Options;
use crate::{
    cut::{Cut, Farewell},
    memory::{self, Memory},
    model::Peer,
    tasks::Lane,
    telemetry::{ConnectionEnd, ConnectionRefusal, Metrics, StreamCut},
};

/// How often connections are looked at: limits of their life are kept this late at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A client that takes its time for the handshake has this much before it may have to make room for another.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);
/// The maximal age of a connection is this part longer or shorter, by chance, so that those that came together do not
/// go together.
const AGE_JITTER: f64 = 0.1;

/// What a connection has been asked to do; only ever goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Nothing,
    /// Take no new streams and close when the last is done.
    Leave,
    /// Close now.
    Close,
}

/// One connection. In the extensions of every request that came over it.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    home: Weak<Connections>,
    peer: Peer,
    memory: Arc<memory::Client>,
    asked: AtomicU8,
    task: AtomicWaker,
    spoke: AtomicBool,
    sessions: AtomicUsize,
    watches: AtomicUsize,
    /// Streams that are open: calls, or whatever else keeps it from being idle.
    streams: AtomicUsize,
    since: Instant,
    /// When the last stream ended, in milliseconds since it was accepted.
    idle_since: AtomicU64,
    /// How long it may be without streams, if what is spoken on it has a limit of its own.
    idle_timeout: OnceLock<Duration>,
    /// After this it is to go; `None` for never.
    max_age: Option<Duration>,
    /// When it came of age, and is closed. Tells its streams.
    farewell: Arc<Farewell>,
    /// Of all its streams.
    lane: Arc<Lane>,
    closes_at: OnceLock<Instant>,
    /// What the client proved to be, in DER; set before the first request.
    certificate: OnceLock<Box<[u8]>>,
    /// What the client did that ends the connection, as its streams have heard.
    fault: OnceLock<ConnectionEnd>,
}

impl Connection {
    /// What it makes the hub keep.
    pub fn memory(&self) -> &Arc<memory::Client> {
        &self.memory
    }

    /// Where the client is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The client's own certificate in DER, if it showed one that `tls.client_ca_file` vouches for.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.certificate.get().map(AsRef::as_ref)
    }

    /// Notes the certificate of the client, which was verified.
    pub(super) fn identified(&self, certificate: &[u8]) {
        // Once: a connection has one handshake.
        self.certificate.get_or_init(|| certificate.into());
    }

    /// Counts one session more, unless the connection has `limit` already.
    pub fn open_session(self: &Arc<Self>, limit: usize) -> Option<SessionPermit> {
        add_one(&self.sessions, limit).then(|| SessionPermit(Arc::clone(self)))
    }

    /// Counts one watch of health more, unless the connection has `limit` already.
    pub fn open_watch(self: &Arc<Self>, limit: usize) -> Option<WatchPermit> {
        add_one(&self.watches, limit).then(|| WatchPermit(Arc::clone(self)))
    }

    /// Counts one stream more: with one, the connection is not idle.
    pub fn open_stream(self: &Arc<Self>) -> OpenStream {
        self.streams.fetch_add(1, Relaxed);
        OpenStream { connection: Arc::clone(self), cut: Cut::new(&self.farewell) }
    }

    /// What all its tasks share, so that they work for no longer than one.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Whether it is to end as soon as its streams have. The task of the connection is woken when that becomes true.
    pub fn is_leaving(&self) -> bool {
        self.asked.load(Ordering::Acquire) != Asked::Nothing as u8
    }

    /// What it has been asked; the task that asks is woken when that changes.
    pub(super) fn asked(&self, context: &Context<'_>) -> Asked {
        self.task.register(context.waker());
        match self.asked.load(Ordering::Acquire) {
            0 => Asked::Nothing,
            1 => Asked::Leave,
            _ => Asked::Close,
        }
    }

    /// What time brings: one that is idle or has come of age is to leave, and is closed when that takes too long.
    fn look(&self, now: Instant, options: &Options) -> Option<ConnectionEnd> {
        let age = now.saturating_duration_since(self.since);
        if let Some(closes_at) = self.closes_at.get() {
            if now >= *closes_at {
                self.ask(Asked::Close);
            }
            return None;
        }
        if self.max_age.is_some_and(|most| age >= most) {
            let closes_at = *self.closes_at.get_or_init(|| now + options.max_age_grace());
            self.farewell.say(closes_at);
            self.ask(Asked::Leave);
            return Some(ConnectionEnd::Age);
        }
        let idle_for = age.saturating_sub(Duration::from_millis(self.idle_since.load(Relaxed)));
        let most = [options.idle_timeout(), self.idle_timeout.get().copied()].into_iter().flatten().min();
        let is_idle = self.streams.load(Relaxed) == 0 && most.is_some_and(|most| idle_for >= most);
        // Before it speaks, another limit holds.
        if is_idle && self.spoke() && self.asked.load(Relaxed) == Asked::Nothing as u8 {
            self.ask(Asked::Leave);
            return Some(ConnectionEnd::Idle);
        }
        None
    }

    pub(super) fn spoke(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    /// The client has begun to speak; one that does not is closed after a time.
    pub fn heard(&self) {
        if !self.spoke.swap(true, Relaxed)
            && let Some(home) = self.home.upgrade()
        {
            home.open.lock().silent.remove(&self.number);
        }
    }

    /// It may be without streams for no longer than this, whatever holds for others.
    pub(super) fn limit_idle(&self, timeout: Duration) {
        self.idle_timeout.get_or_init(|| timeout);
    }

    /// Takes note of what a stream heard of the end of the connection.
    pub(super) fn note_fault(&self, fault: ConnectionEnd) {
        self.fault.get_or_init(|| fault);
    }

    /// What the client did that ends the connection, if its streams have heard of it.
    pub(super) fn fault(&self) -> Option<ConnectionEnd> {
        self.fault.get().copied()
    }

    fn ask(&self, asked: Asked) {
        self.asked.fetch_max(asked as u8, Ordering::AcqRel);
        self.task.wake();
    }
}

/// One session of a connection, counted while this lives.
#[derive(Debug)]
pub struct SessionPermit(Arc<Connection>);

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One watch of health on a connection, counted while this lives.
#[derive(Debug)]
pub struct WatchPermit(Arc<Connection>);

impl Drop for WatchPermit {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Relaxed);
    }
}

/// Adds one to a count, unless it is at its limit.
fn add_one(count: &AtomicUsize, limit: usize) -> bool {
    count.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).is_ok()
}

/// One stream of a connection, counted while this lives.
#[derive(Debug)]
pub struct OpenStream {
    connection: Arc<Connection>,
    cut: Arc<Cut>,
}

impl OpenStream {
    /// The connection it is on.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Ends it from outside. Whoever serves it sees to that.
    pub fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }

    /// It was cut.
    pub(super) fn was_cut(&self, why: StreamCut) {
        tracing::warn!(peer = %self.connection.peer, ?why, "a stream was cut");
        if let Some(home) = self.connection.home.upgrade() {
            home.metrics.stream_cut(why);
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let connection = &self.connection;
        // Before it is counted off: a look in between must not find a connection that was idle all the time.
        connection.idle_since.store(connection.since.elapsed().as_millis() as u64, Relaxed);
        connection.streams.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Default)]
struct Open {
    connections: HashMap<u64, Arc<Connection>>,
    /// Those that have not begun to speak, the oldest first.
    silent: BTreeMap<u64, Arc<Connection>>,
    /// How many there are of each address that is counted.
    addresses: HashMap<IpAddr, usize>,
    /// No more are admitted.
    leaving: bool,
}

/// The connections that are open.
#[derive(Debug)]
pub struct Connections {
    open: Mutex<Open>,
    next: AtomicU64,
    closed: Notify,
    pub(super) metrics: Arc<Metrics>,
    memory: Arc<Memory>,
}

impl Connections {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>, memory: Arc<Memory>) -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(0), closed: Notify::new(), metrics, memory }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.lock().connections.len()
    }

    /// Counts a new connection, unless there are as many as there may be.
    pub(super) fn admit(self: &Arc<Self>, peer: Peer, options: &Options) -> Result<Admitted, ConnectionRefusal> {
        let jitter = 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
        let number = self.next.fetch_add(1, Relaxed);
        let connection = Arc::new(Connection {
            number,
            home: Arc::downgrade(self),
            peer,
            memory: self.memory.client(),
            asked: AtomicU8::new(0),
            task: AtomicWaker::new(),
            spoke: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            since: Instant::now(),
            idle_since: AtomicU64::new(0),
            idle_timeout: OnceLock::new(),
            max_age: options.max_age().map(|age| age.mul_f64(jitter)),
            farewell: Arc::default(),
            lane: Arc::default(),
            closes_at: OnceLock::new(),
            certificate: OnceLock::new(),
            fault: OnceLock::new(),
        });
        let added = self.open.lock().add(&connection, options);
        match added {
            Ok(displaced) => {
                self.metrics.connection_opened();
                if let Some(displaced) = displaced {
                    tracing::debug!(peer = %displaced.peer, "too slow in its handshake while others wait");
                    self.metrics.connection_ended(ConnectionEnd::Displaced);
                }
                Ok(Admitted { connections: Arc::clone(self), connection })
            }
            Err(refusal) => {
                self.metrics.connection_refused(refusal);
                Err(refusal)
            }
        }
    }

    /// Lets time pass for every connection, for ever.
    pub async fn keep_time(self: Arc<Self>, options: Options) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let open = self.open.lock();
            for end in open.connections.values().filter_map(|connection| connection.look(now, &options)) {
                self.metrics.connection_ended(end);
            }
        }
    }

    /// Admits no more, and asks all to take no new streams and to close when their last is done.
    pub fn leave(&self) {
        let mut open = self.open.lock();
        open.leaving = true;
        open.connections.values().for_each(|connection| connection.ask(Asked::Leave));
    }

    /// Admits no more, and closes all now.
    pub fn close(&self) {
        let mut open = self.open.lock();
        open.leaving = true;
        open.connections.values().for_each(|connection| connection.ask(Asked::Close));
    }

    /// Waits until none is open.
    pub async fn until_none(&self) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// An open connection; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.connection);
        self.connections.metrics.connection_closed();
        self.connections.closed.notify_waiters();
    }
}

impl Open {
    /// Adds a connection. Gives the one that has to go for it, if there is one.
    fn add(
        &mut self,
        connection: &Arc<Connection>,
        options: &Options,
    ) -> Result<Option<Arc<Connection>>, ConnectionRefusal> {
        if self.leaving || self.connections.len() >= options.max {
            return Err(ConnectionRefusal::Hub);
        }
        if let Some(address) = counted(connection.peer) {
            let count = self.addresses.get(&address).copied().unwrap_or(0);
            if options.max_per_address != 0 && count >= options.max_per_address {
                return Err(ConnectionRefusal::Address);
            }
        }
        let displaced = self.displace(options.max_handshakes, connection.since)?;
        if let Some(address) = counted(connection.peer) {
            *self.addresses.entry(address).or_default() += 1;
        }
        self.connections.insert(connection.number, Arc::clone(connection));
        self.silent.insert(connection.number, Arc::clone(connection));
        Ok(displaced)
    }

    /// Makes room for one more that is silent: who is slow in its handshake never keeps others from theirs.
    fn displace(&mut self, limit: usize, now: Instant) -> Result<Option<Arc<Connection>>, ConnectionRefusal> {
        if self.silent.len() < limit {
            return Ok(None);
        }
        let Some(oldest) = self.silent.first_entry() else { return Ok(None) };
        if now.saturating_duration_since(oldest.get().since) < HANDSHAKE_GRACE {
            return Err(ConnectionRefusal::Handshakes);
        }
        let oldest = oldest.remove();
        oldest.ask(Asked::Close);
        Ok(Some(oldest))
    }

    fn remove(&mut self, connection: &Connection) {
        self.connections.remove(&connection.number);
        self.silent.remove(&connection.number);
        if let Some(address) = counted(connection.peer)
            && let Some(count) = self.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

/// As what an address is counted. This machine is not: a proxy on it connects for everyone, and who is on it needs no
/// network to do harm. Of IPv6 it is the network, of which everyone has a whole one.
fn counted(peer: Peer) -> Option<IpAddr> {
    let Peer::Tcp(address) = peer else { return None };
    match address.ip().to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        IpAddr::V4(address) => Some(address.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn counted_as(address: &str) -> Option<String> {
        counted(SocketAddr::new(address.parse().expect("an address"), 1).into()).map(|address| address.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_makes_room_after_a_second_and_who_speaks_never() {
        let connections = Arc::new(Connections::new(Arc::default(), Arc::default()));
        let options = Options { max_handshakes: 2, ..Options::default() };
        let admit = || connections.admit(SocketAddr::from(([192, 0, 2, 1], 1)).into(), &options);
        let closes = |admitted: &Admitted| admitted.connection.asked.load(Relaxed) == Asked::Close as u8;
        let (speaks, first, second) = {
            let speaks = admit().expect("room");
            speaks.connection.heard();
            (speaks, admit().expect("room"), admit().expect("at the limit"))
        };
        tokio::time::advance(HANDSHAKE_GRACE.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(admit().err(), Some(ConnectionRefusal::Handshakes), "one past");
        tokio::time::advance(Duration::from_millis(1)).await;
        let third = admit().expect("in place of the first");
        assert!(closes(&first) && ![&speaks, &second, &third].into_iter().any(closes));
        drop(second);
        let _fourth = admit().expect("one has gone by itself");
        assert_eq!(admit().err(), Some(ConnectionRefusal::Handshakes), "the others are young");
    }

    #[test]
    fn addresses_are_counted_by_who_has_them() {
        assert_eq!(counted_as("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(counted_as("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(counted_as("2001:db8:1:2:3:4:5:6").as_deref(), Some("2001:db8:1:2::"));
        for of_this_machine in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(counted_as(of_this_machine), None);
        }
    }
}
