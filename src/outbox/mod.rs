//! Everything that waits to be sent to one client: frames, events, credit, and the order in which they leave.
//!
//! The router offers events, the session queues frames and grants credit, and the wire takes batches; all of them from
//! their own tasks. The room owns the one lock between them, held for a few queue operations and never across an
//! await, and the one wake-up: however much arrives, the writer is woken once. What happens under the lock is pure and
//! lives in [`queues`].
//!
//! It never routes, never encodes and never knows who the client is.

mod allowance;
mod budget;
mod cost;
mod credit;
mod frame;
mod pool;
mod queues;
mod stored;
mod subscriber;
#[cfg(test)]
#[allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::map_entry, clippy::type_complexity)]
mod tests;

use std::{
    collections::HashSet,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

pub use allowance::{Allowance, Allowances};
pub use budget::Budget;
pub use cost::Cost;
pub use frame::{
    Accepted, Acked, Batch, Frame, Gap, GapReason, Item, Opened, Published, Reply, ResumeOutcome, SessionLimits,
    StoredAt, Subscribed, SubscriptionStatus, Welcome,
};
pub use queues::{Attention, Closed, Counts, SubscriptionKey};
pub use stored::{Filled, Room};
pub use subscriber::Route;

use crate::{
    cut::Cut,
    event::Event,
    memory::Held,
    model::{CommandError, End, Filter, Grant, SubscriptionSpec, filter_tokens},
};
use queues::{Offer, Queues, Turn};

/// A client whose connection has come of age waits this long at most before it connects again: connections end at times
/// of their own.
const LONGEST_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The session reads no more commands while this many bytes of frames wait to be sent.
const REPLIES_HIGH_BYTES: usize = 1024 * 1024;
/// It goes on once only this many wait.
const REPLIES_LOW_BYTES: usize = 256 * 1024;

/// What waits for one client. Cheap to share; every verb takes the lock once.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    budget: Arc<Budget>,
    allowance: Arc<Allowance>,
    /// Ends the stream of a client that does not even take its end.
    cut: Option<Arc<Cut>>,
    /// Wakes the task that reads the client's commands; there is only one.
    reader: Notify,
}

#[derive(Debug)]
struct State {
    queues: Queues,
    /// What its subscriptions cost.
    filters: Held,
    /// The writer, while it waits for something to send.
    writer: Option<Waker>,
    /// Since when the transport has not come back for more; `None` while the writer waits.
    writing_since: Option<Instant>,
    last_sent: Instant,
    heartbeat_interval: Duration,
    reader_waits: bool,
    /// Its connection ends, and the client was told so.
    leaving: Option<Box<Leaving>>,
    /// Nothing will be sent any more.
    over: bool,
}

/// When a session ends whose connection does.
#[derive(Debug)]
struct Leaving {
    at: Instant,
    reconnect_delay: Duration,
}

/// What a turn of the writer found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The batch has something to send.
    Batch,
    /// The session is over; this is how.
    Finished(End),
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

/// What a session has to do besides reading commands.
#[derive(Debug)]
pub enum Call {
    /// It is ending.
    Ending,
    /// Subscriptions from streams want to be looked after.
    Attention(Attention),
    /// Commands may be read again.
    Room,
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
            queues: Queues::new(limits, mirrors),
            writer: None,
            writing_since: None,
            last_sent: now,
            heartbeat_interval,
            reader_waits: false,
            leaving: None,
            over: false,
        };
        Self { state: Mutex::new(state), budget, allowance, cut, reader: Notify::new() }
    }

    /// Queues a frame that is not events.
    pub fn reply(&self, reply: Reply) {
        self.with(|state| state.queues.reply(reply));
    }

    /// Makes room for a subscription; nothing is sent for it until [`Self::open`]. An `id` of 0 is chosen here; the id
    /// comes back.
    pub fn reserve(&self, id: i64, spec: &SubscriptionSpec) -> Result<(SubscriptionKey, i64), CommandError> {
        self.allowance.take()?;
        let cost = Cost::of(&spec.filters, spec.stream.is_some(), spec.group.is_some());
        let reserved = self.with(|state| {
            // Given back by the end of this, unless a subscription has it.
            state.hold_filters(cost.bytes())?;
            state.queues.reserve(id, spec, cost)
        });
        if reserved.is_err() {
            self.allowance.give_back(1);
        }
        reserved
    }

    /// Gives back the room of a subscription that was never opened.
    pub fn release(&self, key: SubscriptionKey) {
        self.with(|state| state.queues.release(key));
    }

    /// An id that no subscription of this session has.
    pub fn free_id(&self) -> i64 {
        self.with(|state| state.queues.free_id())
    }

    /// Opens a reserved subscription, or gives an open one a new route, and tells the client. The old route comes back;
    /// or, if the subscription is gone, the new one as an error. The router is to forget either.
    pub fn open(&self, key: SubscriptionKey, route: Route, request_id: i64) -> Result<Option<Route>, Route> {
        self.with(|state| state.queues.open(key, route, request_id))
    }

    /// The key of a subscription, and its live group, 0 for none.
    pub fn find(&self, id: i64) -> Result<(SubscriptionKey, u32), CommandError> {
        self.with(|state| state.queues.find(id))
    }

    /// Adds credit to a subscription.
    pub fn grant(&self, id: i64, grant: Grant) -> Result<(), CommandError> {
        self.with(|state| state.queues.grant(id, grant))
    }

    /// Ends a subscription and tells the client. What comes back is for the router to forget.
    pub fn close(&self, id: i64, request_id: i64, end: End) -> Result<Vec<Closed>, CommandError> {
        self.with(|state| state.queues.close(id, request_id, end).map(|()| state.queues.take_closed()))
    }

    /// Offers events to subscriptions, in order; `taken` hears of each that was taken. What comes back is for the
    /// router to forget.
    pub fn offer<'a, T>(
        &self,
        offers: impl Iterator<Item = (SubscriptionKey, &'a Event, T)> + Clone,
        mut taken: impl FnMut(T),
    ) -> Vec<Closed> {
        let allowed = self.budget.allowed_bytes();
        self.with(|state| {
            state.queues.fetch(offers.clone().map(|(key, ..)| key));
            for (key, event, tag) in offers {
                if state.queues.offer(key, event, allowed) == Offer::Taken {
                    taken(tag);
                }
            }
            state.queues.take_closed()
        })
    }

    /// Offers an event to one member of a group, but only if it would be served at once.
    pub fn offer_if_served(&self, key: SubscriptionKey, event: &Event) -> bool {
        let allowed = self.budget.allowed_bytes();
        self.with(|state| state.queues.would_serve(key) && state.queues.offer(key, event, allowed) == Offer::Taken)
    }

    /// The client sends no more commands.
    pub fn no_more_commands(&self) {
        self.with(|state| state.queues.no_more_commands());
    }

    /// Makes room for new filters of a subscription beside those that it has, or refuses them. What it is to be called with
    /// in [`Self::end_update`] comes back: the cost as it was, and as it is with the new ones.
    pub fn begin_update(&self, id: i64, new: &[Filter]) -> Result<(Cost, Cost), CommandError> {
        self.with(|state| {
            state.queues.check_update(id, filter_tokens(new))?;
            let (old, new) = state.queues.costs_of(id, new)?;
            state.hold_filters(new.bytes().saturating_sub(old.bytes()))?;
            state.queues.set_cost(id, old.max(new));
            Ok((old, new))
        })
    }

    /// A subscription has new filters, or not; it costs so much.
    pub fn end_update(&self, id: i64, cost: Cost) {
        self.with(|state| state.queues.set_cost(id, cost));
    }

    /// Ends the session: every subscription is told, then the stream ends. The first end counts.
    pub fn end(&self, end: End) {
        self.with(|state| state.queues.end(end));
        self.reader.notify_one();
    }

    /// The client is gone: nothing can be told any more.
    pub fn abandon(&self) {
        self.with(|state| {
            state.queues.end(End::Complete);
            state.over = true;
        });
        self.reader.notify_one();
    }

    /// Takes routes for the router to forget from a session that is ending; none are left when none come back. `from`
    /// starts at 0 and is kept between calls.
    pub fn take_routes(&self, most: usize, from: &mut usize) -> Vec<Closed> {
        self.with(|state| state.queues.take_routes(most, from))
    }

    /// Sets how often an idle client hears from the hub.
    pub fn set_heartbeat_interval(&self, interval: Duration) {
        self.with(|state| state.heartbeat_interval = interval);
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.state.lock().queues.subscriptions()
    }

    /// How many subscriptions stand in a way that operators watch.
    pub fn counts(&self) -> Counts {
        self.state.lock().queues.counts()
    }

    /// What waits to be sent, overhead included, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.state.lock().held_bytes()
    }

    /// How at most `most` subscriptions stand, and where to go on from; `from` is 0 at first.
    pub fn statuses(&self, from: usize, most: usize) -> (Vec<SubscriptionStatus>, Option<usize>) {
        self.state.lock().queues.statuses(from, most)
    }

    /// Takes what is sent next into `batch`, which the caller has cleared. Subscriptions that ended thereby are for the
    /// session to have forgotten: see [`Attention::closed`].
    pub fn poll_take(&self, context: &mut Context<'_>, batch: &mut Batch) -> Poll<Taken> {
        let now = Instant::now();
        self.with(|state| {
            state.writing_since = None;
            match state.queues.fill(batch) {
                Turn::Some => {
                    state.last_sent = now;
                    state.writing_since = Some(now);
                    Poll::Ready(Taken::Batch)
                }
                Turn::Finished(end) => {
                    state.over = true;
                    self.reader.notify_one();
                    Poll::Ready(Taken::Finished(end))
                }
                Turn::Idle => {
                    match &mut state.writer {
                        Some(waker) => waker.clone_from(context.waker()),
                        none => *none = Some(context.waker().clone()),
                    }
                    Poll::Pending
                }
            }
        })
    }

    /// What time brings: a heartbeat for an idle client, the end of one whose connection ends, or whose transport takes
    /// nothing while the hub is short of memory, the cut of one that does not even take its end, and the session's share of a
    /// full hub. A slow client alone is no reason to end anything: that it is alive, its connection finds out.
    pub fn tick(&self, now: Instant, wall: SystemTime, write_timeout: Duration) -> Tick {
        let allowed = self.budget.allowed_bytes();
        let ends_by = self.cut.as_ref().and_then(|cut| cut.ends_by());
        let end = self.with(|state| {
            if state.queues.is_ending() {
                let stuck = !state.over && state.is_stuck(now, write_timeout * 2);
                let cut = stuck && self.cut.as_ref().is_some_and(|cut| cut.cut());
                return Err(if cut {
                    Tick::Cut { subscriptions: state.queues.subscriptions() }
                } else {
                    Tick::Nothing
                });
            }
            state.queues.shed(u32::MAX, allowed);
            if let Some(end) = ends_by.and_then(|by| state.leave(by, now, wall)) {
                return Ok(end);
            }
            if state.writing_since.is_none() {
                if now.saturating_duration_since(state.last_sent) >= state.heartbeat_interval {
                    state.last_sent = now;
                    state.queues.reply(Reply { request_id: 0, frame: Frame::Heartbeat(wall) });
                }
                return Err(Tick::Nothing);
            }
            let stalled = state.is_stuck(now, write_timeout) && self.budget.is_short_with(state.held_bytes());
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

    /// Opens a reserved subscription from a stream, with filters of so many tokens, and tells the client; false when it is
    /// gone.
    pub fn open_stored(&self, key: SubscriptionKey, opened: Opened, tokens: u32, request_id: i64) -> bool {
        self.with(|state| state.queues.open_stored(key, opened, tokens, request_id))
    }

    /// Opens a reserved subscription as a member of a group on a stream, with filters of so many tokens, and tells the
    /// client; false when it is gone.
    pub fn open_member(&self, key: SubscriptionKey, opened: Opened, tokens: u32, request_id: i64) -> bool {
        self.with(|state| state.queues.open_member(key, opened, tokens, request_id))
    }

    /// Puts events into the queue of a member of a group on a stream; false when it is gone.
    pub fn hand(&self, key: SubscriptionKey, events: &[Event]) -> bool {
        self.with(|state| state.queues.put(key, events.iter().cloned(), 0, 0))
    }

    /// Forgets what waits for a member of a group on a stream.
    pub fn recall(&self, key: SubscriptionKey) {
        self.with(|state| state.queues.recall(key));
    }

    /// Tells what became of acknowledgements of the subscription with that key and id.
    pub fn acknowledged(&self, key: SubscriptionKey, id: i64, request_id: i64, results: Vec<Acked>) {
        self.with(|state| state.queues.acknowledged(key, id, request_id, results));
    }

    /// Which subscriptions want to be looked after, for who cannot wait for [`Self::until_call`].
    pub fn take_attention(&self) -> Attention {
        self.with(|state| state.queues.take_attention())
    }

    /// True when the session ends because the hub shuts down.
    pub fn is_draining(&self) -> bool {
        self.state.lock().queues.is_draining()
    }

    /// How much may be put into the queue of a subscription from a stream; `None` when it is gone.
    pub fn room(&self, key: SubscriptionKey) -> Option<Room> {
        let allowed = self.budget.allowed_bytes();
        self.with(|state| {
            let free = allowed.saturating_sub(state.held_bytes());
            state.queues.room(key, free)
        })
    }

    /// Puts into the queue of a subscription what was found in its stream behind `after`, which [`Self::room`] told, up to
    /// `through`; the last event of the stream is `latest`.
    pub fn fill(&self, key: SubscriptionKey, after: u64, events: Vec<Event>, through: u64, latest: u64) -> Filled {
        self.with(|state| state.queues.feed(key, after, events, through, latest))
    }

    /// Puts events into the queues of subscriptions that follow their stream, in order. Those that have no room come back;
    /// they follow no longer.
    pub fn follow<'a>(&self, events: impl Iterator<Item = (SubscriptionKey, &'a Event)>) -> HashSet<SubscriptionKey> {
        let allowed = self.budget.allowed_bytes();
        self.with(|state| {
            let mut behind = HashSet::new();
            for (key, event) in events {
                let free = allowed.saturating_sub(state.held_bytes());
                if !behind.contains(&key) && !state.queues.follow(key, event, free) {
                    behind.insert(key);
                }
            }
            behind
        })
    }

    /// From now on its session keeps a subscription filled without being asked. False when it does not have all up to
    /// `through`, or is gone.
    pub fn begin_following(&self, key: SubscriptionKey, through: u64) -> bool {
        self.with(|state| state.queues.begin_following(key, through))
    }

    /// Its session, which has looked at all up to `through`, does not keep a subscription filled any more.
    pub fn end_following(&self, key: SubscriptionKey, through: u64) {
        self.with(|state| state.queues.end_following(key, through));
    }

    /// Gives up what waits for a subscription from a stream, to be read again behind what was sent.
    pub fn rewind(&self, key: SubscriptionKey) {
        self.with(|state| state.queues.rewind_key(key));
    }

    /// Has a subscription that follows told that it came to `through`; one that does no longer is further back.
    pub fn tell_progress(&self, key: SubscriptionKey, through: u64) {
        self.with(|state| state.queues.tell_progress(key, through));
    }

    /// Tells a member of a group that events are lost to that.
    pub fn tell_gap(&self, key: SubscriptionKey, gap: Gap) {
        self.with(|state| state.queues.tell_gap(key, gap));
    }

    /// Events up to `to` are lost to a subscription from a stream: it is told behind what waits, and filled again only then.
    pub fn lose(&self, key: SubscriptionKey, to: u64, reason: GapReason) {
        self.with(|state| state.queues.lose(key, to, reason));
    }

    /// Tells the client that a subscription from a stream has new filters, of so many tokens; false when it is gone.
    pub fn refiltered(&self, key: SubscriptionKey, tokens: u32, request_id: i64) -> bool {
        self.with(|state| state.queues.refiltered(key, tokens, request_id))
    }

    /// Ends a subscription by its key and tells the client.
    pub fn close_key(&self, key: SubscriptionKey, end: End) {
        self.with(|state| state.queues.close_key(key, end));
    }

    /// Waits until the session has something to do besides reading commands: it is ending, or subscriptions from
    /// streams want to be looked after; or, for one that waits to read, until there is room for answers.
    pub async fn until_call(&self, waits_for_room: bool) -> Call {
        loop {
            let call = self.with(|state| {
                let room = state.has_room(self.budget.allowed_bytes());
                if state.is_ending() {
                    Some(Call::Ending)
                } else if state.queues.has_appetite() {
                    Some(Call::Attention(state.queues.take_attention()))
                } else {
                    (waits_for_room && room).then_some(Call::Room)
                }
            });
            match call {
                Some(call) => return call,
                None => self.reader.notified().await,
            }
        }
    }

    /// True when the client has read so much of what waits for it that more commands may be read.
    pub fn has_room(&self) -> bool {
        self.with(|state| state.has_room(self.budget.allowed_bytes()))
    }

    /// The session has answered all that it had begun when it was drained: the last of it may go.
    pub fn all_answered(&self) {
        self.with(|state| state.queues.all_answered());
    }

    /// Waits until the session is over: nothing will be sent any more.
    pub async fn until_over(&self) {
        while !self.state.lock().over {
            self.reader.notified().await;
        }
    }

    /// Takes the lock, and when it is free again wakes who has to be woken.
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let before = (state.held_bytes(), state.queues.subscriptions());
        let result = act(&mut state);
        self.budget.change(before.0, state.held_bytes());
        let freed = state.filters.bytes() - state.queues.cost();
        if freed > 0 {
            state.filters.shrink(freed);
        }
        // Those that are new were counted by `reserve`.
        let ended = before.1.saturating_sub(state.queues.subscriptions());
        let writer = if state.queues.has_work() { state.writer.take() } else { None };
        let room = state.reader_waits && state.may_read(REPLIES_LOW_BYTES, self.budget.allowed_bytes());
        let call = room || state.queues.has_appetite();
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
    /// Tells the client once that its connection ends by `by`, and gives the end when it is time for it. Each session
    /// has a time of its own, late enough for the client to go first, early enough for it to hear the end.
    fn leave(&mut self, by: Instant, now: Instant, wall: SystemTime) -> Option<End> {
        if let Some(leaving) = &self.leaving {
            return (now >= leaving.at).then_some(End::Draining { reconnect_delay: leaving.reconnect_delay });
        }
        let patience = by.saturating_duration_since(now);
        let after = patience.mul_f64(0.4 + 0.4 * fastrand::f64());
        let reconnect_delay = LONGEST_RECONNECT_DELAY.min(patience / 10).mul_f64(fastrand::f64());
        self.leaving = Some(Box::new(Leaving { at: now + after, reconnect_delay }));
        self.queues.reply(Reply { request_id: 0, frame: Frame::Draining { deadline: wall + after, reconnect_delay } });
        None
    }

    /// True when the transport has not come back for more for this long.
    fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        self.writing_since.is_some_and(|since| now.saturating_duration_since(since) >= patience)
    }

    fn hold_filters(&mut self, bytes: usize) -> Result<(), CommandError> {
        self.filters.grow(bytes).map_err(|full| CommandError::NoMemory { of: full.of.name() })
    }

    fn held_bytes(&self) -> usize {
        self.queues.waiting_bytes() + self.queues.reply_bytes()
    }

    /// True when more commands may be read; notes whether they wait. A reader that waits goes on later than it stopped.
    fn has_room(&mut self, allowed_bytes: usize) -> bool {
        let most = if self.reader_waits { REPLIES_LOW_BYTES } else { REPLIES_HIGH_BYTES };
        self.reader_waits = !self.may_read(most, allowed_bytes);
        !self.reader_waits
    }

    /// The one rule for when a reader stops and when it is woken: were they two, it would wake itself for ever.
    fn may_read(&self, most_bytes: usize, allowed_bytes: usize) -> bool {
        self.queues.reply_bytes() <= most_bytes.min(allowed_bytes)
    }

    fn is_ending(&self) -> bool {
        self.over || self.queues.is_ending()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.change(self.state.get_mut().held_bytes(), 0);
        self.budget.leave();
        self.allowance.give_back(self.state.get_mut().queues.subscriptions());
    }
}
