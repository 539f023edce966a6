//! What the handles of one client and its driver share: the state machine under one lock, and how they wake each other.
//!
//! The lock is never held across an await, nor while anything of the user runs. Handles ring the driver's bell; the driver,
//! or whoever moved the machine, rings those who wait for a subscription, for room or for an answer. What fills a frame by
//! itself is written by the handle that has it: the driver would only pass it on.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    error::Error,
    ids::{Ids, Series},
    machine::{
        Machine,
        news::{Moment, News},
        publishes::{ENOUGH_BYTES, NewPublish},
        verdict::Verdict,
    },
    outcome::Receipt,
    spec::Spec,
    state::{Drain, State, Stats, Status},
    telemetry::Telemetry,
};

/// A client whose handles are all gone has this long to flush what was begun.
const LAST_FLUSH: Duration = Duration::from_secs(5);
/// No time that is waited for is further away.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Something of the user's that hears of every state.
pub(crate) type OnState = Box<dyn Fn(&Status) + Send + Sync>;

/// An event in the hands of the application: its subscription, its sequence, and which delivery of it.
pub(crate) type Hand = (i64, i64, u64);

pub(crate) struct Shared {
    state: Mutex<Inner>,
    /// Wakes the driver.
    doorbell: Notify,
    /// Wakes those who wait for room in the queue of publishes.
    pub(crate) room: Notify,
    /// Lets one of them wait for room at a time, in order.
    pub(crate) turnstile: Semaphore,
    status: watch::Sender<Status>,
    on_state: Option<OnState>,
    /// Never used under the lock.
    pub(crate) telemetry: Telemetry,
    /// Whoever has it tells of states: one after the other, in their order.
    telling: Mutex<()>,
    ids: Mutex<Ids>,
    start: Instant,
}

struct Inner {
    machine: Machine,
    /// Where frames go, while there is a session that takes any.
    outlet: Option<mpsc::Sender<Bytes>>,
    /// States that nobody was told of yet, in order.
    untold: VecDeque<Status>,
    bells: HashMap<i64, Arc<Notify>>,
    publishers: HashMap<u64, oneshot::Sender<Receipt>>,
    settlers: HashMap<u64, oneshot::Sender<Result<(), Error>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(machine: Machine, on_state: Option<OnState>, telemetry: Telemetry) -> Self {
        let status = watch::Sender::new(machine.status().clone());
        let inner = Inner {
            machine,
            outlet: None,
            untold: VecDeque::new(),
            bells: HashMap::new(),
            publishers: HashMap::new(),
            settlers: HashMap::new(),
        };
        Self {
            state: Mutex::new(inner),
            doorbell: Notify::new(),
            room: Notify::new(),
            turnstile: Semaphore::new(1),
            status,
            on_state,
            telemetry,
            telling: Mutex::new(()),
            ids: Mutex::new(Ids::new()),
            start: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whatever panicked, the machine is whole: nothing of the user runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the machine, and tells everybody what has come of it.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Machine, Moment) -> T) -> T {
        self.with_inner(|inner, now| act(&mut inner.machine, now))
    }

    /// The same for handles: the driver has a turn if there is something for it to do.
    pub(crate) fn call<T>(&self, act: impl FnOnce(&mut Machine, Moment) -> T) -> T {
        self.call_inner(|inner, now| act(&mut inner.machine, now))
    }

    fn call_inner<T>(&self, act: impl FnOnce(&mut Inner, Moment) -> T) -> T {
        let (done, rings) = self.with_inner(|inner, now| {
            let done = act(inner, now);
            (done, inner.machine.needs_driver(now))
        });
        if rings {
            self.doorbell.notify_one();
        }
        done
    }

    fn with_inner<T>(&self, act: impl FnOnce(&mut Inner, Moment) -> T) -> T {
        let now = self.start.elapsed();
        let mut inner = self.lock();
        let done = act(&mut inner, now);
        let mut refused = None;
        while let Some(news) = inner.machine.news.pop_front() {
            match news {
                News::Subscription(id) => {
                    if let Some(bell) = inner.bells.get(&id) {
                        bell.notify_waiters();
                    }
                }
                News::Published(ticket, receipt) => {
                    if let Some(publisher) = inner.publishers.remove(&ticket) {
                        // Whoever does not wait does not want to know.
                        publisher.send(receipt).ok();
                    }
                }
                News::Refused(count, error) => refused = Some((count, error)),
                News::Settled(ticket, result) => {
                    if let Some(settler) = inner.settlers.remove(&ticket) {
                        settler.send(result).ok();
                    }
                }
                News::Room => self.room.notify_waiters(),
                News::State(status) => inner.untold.push_back(status),
            }
        }
        let has_states = !inner.untold.is_empty();
        drop(inner);
        if has_states {
            self.tell_states();
        }
        if let Some((count, error)) = refused {
            tracing::warn!(%error, count, "the hub refused what was sent without waiting for an answer");
        }
        done
    }

    /// Tells of all states, in their order, unless somebody is doing that; who then tells of these too.
    fn tell_states(&self) {
        loop {
            let telling = match self.telling.try_lock() {
                Ok(telling) => telling,
                // One that hears of states has panicked: the others are to be heard all the same.
                Err(TryLockError::Poisoned(telling)) => telling.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            // In a statement of its own: the lock must be free when it is told.
            while let Some(status) = { self.lock().untold.pop_front() } {
                self.tell(status);
            }
            drop(telling);
            // One may have come in between.
            if self.lock().untold.is_empty() {
                return;
            }
        }
    }

    fn tell(&self, status: Status) {
        let Status { state, reason, address, session_id, attempt } = &status;
        let reason = reason.as_ref().map(ToString::to_string).unwrap_or_default();
        let (name, attempt) = (state.to_string(), *attempt);
        match state {
            State::Failed => {
                tracing::error!(state = name, reason, address, session_id, attempt, "the client has failed");
            }
            State::Waiting => tracing::warn!(state = name, reason, address, session_id, attempt, "no session"),
            _ => tracing::info!(state = name, reason, address, session_id, attempt, "state of the client"),
        }
        if let Some(hears) = &self.on_state {
            hears(&status);
        }
        self.status.send_replace(status);
    }

    /// What is counted now. Tells nobody of anything, since whoever collects metrics asks too.
    pub(crate) fn stats(&self) -> Stats {
        let now = self.start.elapsed();
        self.lock().machine.stats(now)
    }

    /// The state now.
    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The state, now and whenever it changes.
    pub(crate) fn states(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Where frames go from now on, if anywhere.
    pub(crate) fn set_outlet(&self, outlet: Option<mpsc::Sender<Bytes>>) {
        self.lock().outlet = outlet;
    }

    /// Writes as much as the transport takes now. True when that is not all.
    pub(crate) fn write(&self) -> bool {
        self.with_inner(Inner::write)
    }

    /// Adds a subscription. Its bell rings when something has changed for it.
    pub(crate) fn subscribe(&self, spec: Spec, token: Option<String>) -> Result<(i64, Arc<Notify>), Error> {
        let bell = Arc::new(Notify::new());
        let id = self.call_inner(|inner, _| {
            let id = inner.machine.subscribe(spec, token)?;
            inner.bells.insert(id, Arc::clone(&bell));
            Ok(id)
        })?;
        Ok((id, bell))
    }

    /// Nobody reads a subscription any more.
    pub(crate) fn unsubscribe(&self, id: i64) {
        self.call_inner(|inner, now| {
            inner.bells.remove(&id);
            let Machine { table, news, .. } = &mut inner.machine;
            table.abandon(now, id, news);
        });
    }

    /// Events of a subscription are dropped, and nothing was said of them: their sequences and copies.
    pub(crate) fn let_go(&self, subscription: i64, hands: impl Iterator<Item = (i64, u64)>) {
        self.call(|Machine { table, news, .. }, now| table.let_go(now, subscription, hands, news));
    }

    /// A batch is dropped, whether or not it is done.
    pub(crate) fn drop_batch(&self, subscription: i64, batch: u64) {
        self.call(|Machine { table, news, .. }, now| table.drop_batch(now, subscription, batch, news));
    }

    /// Takes a call into the queue, unless it is full.
    pub(crate) fn publish(&self, new: NewPublish) -> Result<Result<oneshot::Receiver<Receipt>, NewPublish>, Error> {
        self.queue(new, |inner, ticket| {
            let (sender, receiver) = oneshot::channel();
            inner.publishers.insert(ticket, sender);
            receiver
        })
    }

    /// The same for what is only sent.
    pub(crate) fn send(&self, new: NewPublish) -> Result<Result<(), NewPublish>, Error> {
        self.queue(new, |_, _| ())
    }

    fn queue<T>(
        &self,
        new: NewPublish,
        queued: impl FnOnce(&mut Inner, u64) -> T,
    ) -> Result<Result<T, NewPublish>, Error> {
        let fills_a_frame = new.amount().bytes >= ENOUGH_BYTES;
        self.call_inner(|inner, now| match inner.machine.publish(new)? {
            Ok(ticket) => {
                let queued = queued(inner, ticket);
                if fills_a_frame {
                    inner.write(now);
                }
                Ok(Ok(queued))
            }
            Err(full) => Ok(Err(full)),
        })
    }

    /// An event is settled.
    pub(crate) fn settle(&self, hand: Hand, verdict: Verdict) {
        self.call(|machine, now| machine.table.settle_event(now, hand, verdict, None));
    }

    /// The same for somebody who waits until that is stored. `None` when the event is no longer in hand.
    pub(crate) fn settle_and_tell(&self, hand: Hand, verdict: Verdict) -> Option<oneshot::Receiver<Result<(), Error>>> {
        self.call_inner(|inner, now| {
            let ticket = inner.machine.ticket();
            let (sender, receiver) = oneshot::channel();
            let is_settled = inner.machine.table.settle_event(now, hand, verdict, Some(ticket));
            is_settled.then(|| {
                inner.settlers.insert(ticket, sender);
                receiver
            })
        })
    }

    /// Ids for events that are published now.
    pub(crate) fn ids(&self) -> Series {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).series(SystemTime::now())
    }

    /// Until a handle rings the driver's bell.
    pub(crate) async fn rung(&self) {
        self.doorbell.notified().await;
    }

    /// A point in the time of the machine.
    pub(crate) fn at(&self, moment: Moment) -> Instant {
        self.start + moment.min(FAR)
    }

    /// How long this client is there.
    pub(crate) fn now(&self) -> Moment {
        self.start.elapsed()
    }
}

impl Inner {
    /// Writes as much as the transport takes now. True when that is not all.
    fn write(&mut self, now: Moment) -> bool {
        let Some(outlet) = &self.outlet else { return false };
        loop {
            if !self.machine.has_writes(now) {
                return false;
            }
            // Whether there is no room or nobody to write to is for the driver to see.
            let Ok(room) = outlet.try_reserve() else { return true };
            match self.machine.write(now) {
                Some(frame) => room.send(frame),
                None => return false,
            }
        }
    }
}

/// What the handles of a client hold. With the last of them the client is over, as soon as it has flushed what was begun.
#[derive(Debug)]
pub(crate) struct Owner(Arc<Shared>);

impl Owner {
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self(shared))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.call(|machine, now| machine.drain(now, Drain::Finish, LAST_FLUSH));
    }
}
