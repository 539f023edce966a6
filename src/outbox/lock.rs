//! The one lock around all that waits for a client, held for a few queue operations and never across an await; and the one
//! wake-up: however much arrives, the writer is woken once.
//!
//! What others do with an outbox is in the views that they hold ([`super::Inlet`] and its siblings). What is here is its
//! owner's, the hub: it lets time pass, ends it, and reads what operators see.

use std::{
    ops::Range,
    sync::Arc,
    task::Waker,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    allowance::{Allowance, Allowances},
    budget::Budget,
    counts::Counts,
    frame::{Frame, Reply, SessionLimits},
    queues::Queues,
    status::SubscriptionStatus,
};
use crate::{
    cut::Cut,
    memory::Held,
    model::{Alternatives, CommandError, End, limits::MAX_BATCH_BYTES},
};

/// A client whose connection has come of age waits this long at most before it connects again: connections end at times
/// of their own.
const LONGEST_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The session reads no more commands while this many bytes of frames wait to be sent.
const REPLIES_HIGH_BYTES: usize = 1024 * 1024;
/// It goes on once only this many wait.
const REPLIES_LOW_BYTES: usize = 256 * 1024;

/// So many events are worth waiting for more of before they are written,
const FEW_EVENTS: Range<usize> = 8..64;
/// while others work this many times. With one wait, a publish to 40 subscribers makes a fifth more writes.
const MOST_WAITS: u8 = 2;

/// What waits for one client. Every verb, of this and of the views, takes the lock once.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    pub(super) budget: Arc<Budget>,
    pub(super) allowance: Arc<Allowance>,
    /// Wakes the task that reads the client's commands; there is only one.
    pub(super) reader: Notify,
}

/// What the lock is around.
#[derive(Debug)]
pub(super) struct State {
    pub(super) queues: Queues,
    /// What its subscriptions cost, and its labels.
    filters: Held,
    /// What its labels cost, in bytes.
    label_bytes: usize,
    /// How many events were handed to the transport.
    pub(super) sent_events: u64,
    /// The writer, while it waits for something to send.
    pub(super) writer: Option<Waker>,
    /// Since when the transport has not come back for more; `None` while the writer waits.
    pub(super) writing_since: Option<Instant>,
    pub(super) last_sent: Instant,
    pub(super) heartbeat_interval: Duration,
    reader_waits: bool,
    /// How often the writer has let others work since it took something.
    waits: u8,
    /// Ends the stream of a client that does not even take its end. It is that of the connection that the client is on now.
    cut: Option<Arc<Cut>>,
    /// Its connection ends, and the client was told so.
    leaving: Option<Box<Leaving>>,
    /// Nobody is expected to take anything: as many bytes may wait until somebody is again.
    aside: Option<usize>,
    /// Nothing will be sent any more.
    pub(super) over: bool,
}

/// When a session ends whose connection does.
#[derive(Debug)]
struct Leaving {
    at: Instant,
    reconnect_delay: Duration,
}

/// What the passing of time has done to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Nothing that others should hear of.
    Nothing,
    /// It was ended: its client takes nothing, and the hub is short of memory.
    Stalled,
    /// Its stream was cut: its client did not even take the end. So many of its subscriptions had not been told theirs.
    Cut {
        /// How many.
        subscriptions: usize,
    },
}

impl Outbox {
    /// An empty outbox. With `mirrors`, the session ends as its only subscription ended.
    pub fn new(
        limits: SessionLimits,
        heartbeat_interval: Duration,
        mirrors: bool,
        budget: Arc<Budget>,
        allowances: Allowances,
        cut: Option<Arc<Cut>>,
        now: Instant,
    ) -> Self {
        budget.join();
        let Allowances { subscriptions: allowance, filters } = allowances;
        let state = State {
            filters,
            label_bytes: 0,
            sent_events: 0,
            queues: Queues::new(&limits, mirrors),
            writer: None,
            writing_since: None,
            last_sent: now,
            heartbeat_interval,
            reader_waits: false,
            waits: 0,
            cut,
            leaving: None,
            aside: None,
            over: false,
        };
        Self { state: Mutex::new(state), budget, allowance, reader: Notify::new() }
    }

    /// Tells the client that its session ends by `deadline`, and where else it may connect.
    pub fn announce_end(&self, deadline: SystemTime, reconnect_delay: Duration, alternatives: &Alternatives) {
        self.with(|state| state.announce_end(deadline, reconnect_delay, alternatives));
    }

    /// Ends the session: every subscription is told, then the stream ends. The first end counts.
    pub fn end(&self, end: End) {
        self.with(|state| state.queues.end(end));
        self.reader.notify_one();
    }

    /// The client is gone, or its session is: nothing can be told any more.
    pub fn abandon(&self) {
        self.with(|state| {
            state.queues.end(End::Complete);
            state.over = true;
        });
        self.reader.notify_one();
    }

    /// Nobody takes anything from now on, until [`Self::take_up`], and at most `bytes` may wait meanwhile: of more the largest
    /// queues lose some, as in a session whose share of the hub is used up. It is on no connection meanwhile.
    pub fn set_aside(&self, bytes: usize) {
        let allowed = self.budget.allowed_bytes();
        self.with(|state| {
            state.aside = Some(bytes);
            state.writing_since = None;
            (state.cut, state.leaving) = (None, None);
            state.queues.shed(u32::MAX, state.allowed(allowed));
        });
    }

    /// Somebody takes what waits again, on a stream that `cut` ends: what that of the connection before said is over.
    pub fn take_up(&self, cut: Option<Arc<Cut>>, now: Instant) {
        self.with(|state| {
            state.aside = None;
            state.cut = cut;
            state.last_sent = now;
        });
    }

    /// What time brings: a heartbeat for an idle client, the end of one whose connection ends, or whose transport takes
    /// nothing while the hub is short of memory, the cut of one that does not even take its end, and the session's share of a
    /// full hub. A slow client alone is no reason to end anything: that it is alive, its connection finds out.
    pub fn tick(&self, now: Instant, wall: SystemTime, write_timeout: Duration, alternatives: &Alternatives) -> Tick {
        let allowed = self.budget.allowed_bytes();
        let end = self.with(|state| {
            if state.queues.is_ending() {
                let stuck = !state.over && state.is_stuck(now, write_timeout * 2);
                let cut = stuck && state.cut.as_ref().is_some_and(|cut| cut.cut());
                return Err(if cut {
                    Tick::Cut { subscriptions: state.queues.subscriptions() }
                } else {
                    Tick::Nothing
                });
            }
            state.queues.shed(u32::MAX, state.allowed(allowed));
            if state.aside.is_some() {
                return Err(Tick::Nothing);
            }
            let ends_by = state.cut.as_ref().and_then(|cut| cut.ends_by());
            if let Some(end) = ends_by.and_then(|by| state.leave(by, (now, wall), alternatives)) {
                return Ok(end);
            }
            if state.writing_since.is_none() {
                if now.saturating_duration_since(state.last_sent) >= state.heartbeat_interval {
                    state.last_sent = now;
                    state.queues.reply(Reply { request_id: 0, frame: Frame::Heartbeat(wall) });
                }
                return Err(Tick::Nothing);
            }
            let stalled = state.is_stuck(now, write_timeout) && self.budget.is_short_with(state.queues.held_bytes());
            if stalled { Ok(End::Stalled { timeout: write_timeout }) } else { Err(Tick::Nothing) }
        });
        match end {
            Err(tick) => tick,
            Ok(end) => {
                let stalled = matches!(end, End::Stalled { .. });
                self.end(end);
                if stalled { Tick::Stalled } else { Tick::Nothing }
            }
        }
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.state.lock().queues.subscriptions()
    }

    /// How many subscriptions are in a state that operators watch.
    pub fn counts(&self) -> Counts {
        self.state.lock().queues.backlog.counts()
    }

    /// What waits to be sent, overhead included, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.state.lock().queues.held_bytes()
    }

    /// How many events were handed to the transport.
    pub fn sent_events(&self) -> u64 {
        self.state.lock().sent_events
    }

    /// The status of at most `most` subscriptions, and where to go on from; `from` is 0 at first.
    pub fn statuses(&self, from: usize, most: usize) -> (Vec<SubscriptionStatus>, Option<usize>) {
        self.state.lock().queues.backlog.subscribers.statuses(from, most)
    }

    /// Takes the lock, to read only.
    pub(super) fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.state.lock())
    }

    /// Takes the lock, and when it is free again wakes who has to be woken.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let before = (state.queues.held_bytes(), state.queues.subscriptions());
        let result = act(&mut state);
        self.budget.change(before.0, state.queues.held_bytes());
        let freed = state.filters.bytes() - state.queues.backlog.subscribers.cost() - state.label_bytes;
        if freed > 0 {
            state.filters.shrink(freed);
        }
        // Those that are new were counted when they were reserved.
        let ended = before.1.saturating_sub(state.queues.subscriptions());
        let writer = if state.queues.has_work() { state.writer.take() } else { None };
        let room = state.reader_waits && state.may_read(REPLIES_LOW_BYTES, self.budget.allowed_bytes());
        let call = room || state.queues.backlog.has_appetite();
        drop(state);
        if ended > 0 {
            self.allowance.give_back(ended);
        }
        if let Some(waker) = writer {
            waker.wake();
        }
        if call {
            self.reader.notify_one();
        }
        result
    }
}

impl State {
    /// True while there are a few events, and others should work before they are written. Whoever publishes many events takes
    /// turns with the writers, which would write the few of each turn by themselves: that is most of the work then. A lone
    /// event waits for nobody.
    pub(super) fn should_wait(&mut self) -> bool {
        let few = FEW_EVENTS.contains(&self.queues.backlog.waiting_events());
        let waits =
            few && self.waits < MOST_WAITS && self.queues.held_bytes() < MAX_BATCH_BYTES && self.queues.has_work();
        self.waits = if waits { self.waits + 1 } else { 0 };
        waits
    }

    fn announce_end(&mut self, deadline: SystemTime, reconnect_delay: Duration, alternatives: &Alternatives) {
        let frame = Frame::Draining { deadline, reconnect_delay, alternatives: alternatives.clone() };
        self.queues.reply(Reply { request_id: 0, frame });
    }

    /// Tells the client once that its connection ends by `by`, and gives the end when it is time for it. Each session
    /// has a time of its own, late enough for the client to go first, early enough for it to hear the end.
    fn leave(&mut self, by: Instant, (now, wall): (Instant, SystemTime), alternatives: &Alternatives) -> Option<End> {
        if let Some(leaving) = &self.leaving {
            return (now >= leaving.at).then_some(End::Draining { reconnect_delay: leaving.reconnect_delay });
        }
        let patience = by.saturating_duration_since(now);
        let after = patience.mul_f64(0.4 + 0.4 * fastrand::f64());
        let reconnect_delay = LONGEST_RECONNECT_DELAY.min(patience / 10).mul_f64(fastrand::f64());
        self.leaving = Some(Box::new(Leaving { at: now + after, reconnect_delay }));
        self.announce_end(wall + after, reconnect_delay, alternatives);
        None
    }

    /// True when the transport has not come back for more for this long.
    fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        self.writing_since.is_some_and(|since| now.saturating_duration_since(since) >= patience)
    }

    /// Takes memory for a subscription. What no subscription has when the lock is left is given back.
    pub(super) fn hold_filters(&mut self, bytes: usize) -> Result<(), CommandError> {
        self.filters.grow(bytes).map_err(|full| CommandError::NoMemory { of: full.of.name() })
    }

    /// Takes memory for labels, which is given back with the outbox.
    pub(super) fn hold_labels(&mut self, bytes: usize) -> Result<(), CommandError> {
        self.hold_filters(bytes)?;
        self.label_bytes += bytes;
        Ok(())
    }

    /// How many bytes may wait where the hub allows so many.
    pub(super) fn allowed(&self, of_hub: usize) -> usize {
        self.aside.map_or(of_hub, |most| most.min(of_hub))
    }

    /// True when more commands may be read; notes whether they wait. A reader that waits goes on later than it stopped.
    pub(super) fn has_room(&mut self, allowed_bytes: usize) -> bool {
        let most = if self.reader_waits { REPLIES_LOW_BYTES } else { REPLIES_HIGH_BYTES };
        self.reader_waits = !self.may_read(most, allowed_bytes);
        !self.reader_waits
    }

    /// The one rule for when a reader stops and when it is woken: were they two, it would wake itself for ever.
    fn may_read(&self, most_bytes: usize, allowed_bytes: usize) -> bool {
        self.queues.reply_bytes() <= most_bytes.min(allowed_bytes)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.over || self.queues.is_ending()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.change(self.state.get_mut().queues.held_bytes(), 0);
        self.budget.leave();
        self.allowance.give_back(self.state.get_mut().queues.subscriptions());
    }
}
