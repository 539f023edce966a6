//! The pure core of the outbox: who waits for what; what is sent next is decided in [`writer`]. No lock, no clock, no
//! wake-up here: see [`super::Outbox`] for those. Pure.

mod feeding;
mod status;
mod writer;

use std::{
    collections::{BTreeSet, VecDeque},
    hash::BuildHasher,
};

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::{
    cost::Cost,
    frame::{Frame, Reply, SessionLimits},
    pool::Pool,
    subscriber::{Route, Subscriber},
};
use crate::{
    event::Event,
    model::{CommandError, End, Filter, Grant, SubscriptionSpec},
};

pub use status::Counts;

/// What a waiting event costs besides its bytes: its node, its shared header and the allocator's share. Budgets count
/// it, so that a flood of tiny events cannot hold more memory than a budget says.
const EVENT_OVERHEAD_BYTES: usize = 144;
/// Queues below this size are never looked at when a budget is exceeded: there are too many of them.
const SMALL_QUEUE_BYTES: usize = 4096;

/// Names one subscription of one session for good: the slot is used again, the generation never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// Where it is.
    pub slot: u32,
    /// Which of those that were there.
    pub generation: u32,
}

/// A subscription that is over, for the router to forget.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which one.
    pub key: SubscriptionKey,
    /// Where the router kept it.
    pub route: Route,
}

/// Subscriptions that their session has to do something for.
#[derive(Debug, Default)]
pub struct Attention {
    /// Their queues are low.
    pub hungry: Vec<SubscriptionKey>,
    /// They are over.
    pub gone: Vec<SubscriptionKey>,
    /// Of members of groups: the sequences that the writer took, in order.
    pub sent: Vec<(SubscriptionKey, Vec<u64>)>,
    /// Of members of groups: the sequences that will not be sent after all, for want of memory.
    pub dropped: Vec<(SubscriptionKey, Vec<u64>)>,
    /// Live ones that are over, for the router to forget.
    pub closed: Vec<Closed>,
}

impl Attention {
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        let Self { hungry, gone, sent, dropped, closed } = self;
        hungry.is_empty() && gone.is_empty() && sent.is_empty() && dropped.is_empty() && closed.is_empty()
    }
}

/// What became of an event offered to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Taken,
    Gone,
}

/// What a turn of the writer found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The batch has something.
    Some,
    /// Nothing to send now.
    Idle,
    /// Nothing to send ever again.
    Finished(End),
}

/// Everything that waits for one client.
#[derive(Debug)]
pub(super) struct Queues {
    limits: SessionLimits,
    replies: VecDeque<Reply>,
    reply_bytes: usize,
    subscribers: Slab<Subscriber>,
    /// From subscription id to slot.
    ids: HashTable<u32>,
    /// The tokens of all filters.
    filter_tokens: usize,
    /// What all subscriptions cost, in bytes.
    cost: usize,
    hasher: DefaultHashBuilder,
    pool: Pool,
    /// The fair writer's round.
    ready: VecDeque<SubscriptionKey>,
    /// How many in `ready` are gone; they are swept out before they are half of it.
    stale: usize,
    /// The queues that are not small, by the logarithm of their size: the largest class is shed first.
    large: BTreeSet<(u32, u32)>,
    next_generation: u32,
    next_id: i64,
    /// What waits, overhead included, in bytes.
    waiting_bytes: usize,
    closed: Vec<Closed>,
    counts: Counts,
    attention: Attention,
    no_more_commands: bool,
    /// After the last command: every slot below this one was looked at for a subscription that can get no more credit.
    swept: usize,
    /// Set once the session as a whole is ending.
    ending: Option<End>,
    /// While the session is ending: every slot below this one was told.
    told: usize,
    /// A session that is drained ends only then: what it had begun is answered.
    answered: bool,
    /// How a session that is complete ends: for one of a single subscription, as that one ended.
    outcome: End,
    mirrors: bool,
}

impl Queues {
    /// With `mirrors`, the session ends as its only subscription ended.
    pub(super) fn new(limits: SessionLimits, mirrors: bool) -> Self {
        Self {
            limits,
            replies: VecDeque::new(),
            reply_bytes: 0,
            subscribers: Slab::new(),
            ids: HashTable::new(),
            filter_tokens: 0,
            cost: 0,
            hasher: DefaultHashBuilder::default(),
            pool: Pool::new(),
            ready: VecDeque::new(),
            stale: 0,
            large: BTreeSet::new(),
            // Not the same in every session: a key that outlives its session must mean nothing in the next one.
            next_generation: fastrand::u32(..),
            next_id: 1,
            waiting_bytes: 0,
            closed: Vec::new(),
            counts: Counts::default(),
            attention: Attention::default(),
            no_more_commands: false,
            swept: 0,
            ending: None,
            told: 0,
            answered: false,
            outcome: End::Complete,
            mirrors,
        }
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.ending, Some(End::Draining { .. }))
    }

    /// True when [`Self::fill`] would find something other than [`Turn::Idle`].
    pub(super) fn has_work(&self) -> bool {
        !self.replies.is_empty()
            || self.ready.len() > self.stale
            || self.is_sweeping()
            || match self.ending {
                Some(_) => self.may_finish(),
                None => self.no_more_commands && self.ids.is_empty(),
            }
    }

    /// True for a session that is ending, once nothing more is to be told but the ends of its subscriptions and its own.
    pub(super) fn may_finish(&self) -> bool {
        self.answered || !self.is_draining()
    }

    /// See [`super::Outbox::all_answered`].
    pub(super) fn all_answered(&mut self) {
        self.answered = true;
    }

    /// The subscriptions that ended since the last call.
    pub(super) fn take_closed(&mut self) -> Vec<Closed> {
        std::mem::take(&mut self.closed)
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.reply_bytes += reply.frame.cost();
        self.replies.push_back(reply);
    }

    /// What all subscriptions cost, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// What a subscription costs, and what it would cost with other filters.
    pub(super) fn costs_of(&self, id: i64, new: &[Filter]) -> Result<(Cost, Cost), CommandError> {
        let slot = self.slot_of(id).ok_or(CommandError::SubscriptionNotFound { id })?;
        let subscriber = &self.subscribers[slot as usize];
        let in_group = subscriber.route.as_ref().is_some_and(|route| route.group != 0);
        Ok((subscriber.cost, Cost::of(new, subscriber.stored().is_some(), in_group)))
    }

    /// A subscription that is still there costs so much from now on.
    pub(super) fn set_cost(&mut self, id: i64, new: Cost) {
        if let Some(slot) = self.slot_of(id) {
            let old = std::mem::replace(&mut self.subscribers[slot as usize].cost, new);
            self.cost = self.cost + new.bytes() - old.bytes();
        }
    }

    /// Makes room for a subscription that is not open yet and costs so much; an `id` of 0 is chosen here.
    pub(super) fn reserve(
        &mut self,
        id: i64,
        spec: &SubscriptionSpec,
        cost: Cost,
    ) -> Result<(SubscriptionKey, i64), CommandError> {
        let id = if id == 0 { self.free_id() } else { id };
        if self.ending.is_some() {
            return Err(CommandError::Draining);
        }
        if self.slot_of(id).is_some() {
            return Err(CommandError::SubscriptionIdInUse { id });
        }
        let limit = self.limits.max_subscriptions;
        if self.ids.len() >= limit {
            return Err(CommandError::TooManySubscriptions { limit });
        }
        self.check_tokens(spec.filter_tokens())?;
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        // A session has fewer than 2^32 subscriptions at a time.
        let slot = self.subscribers.insert(Subscriber::new(id, generation, spec, cost)) as u32;
        self.cost += cost.bytes();
        let Self { subscribers, hasher, .. } = self;
        self.ids.insert_unique(hasher.hash_one(id), slot, |slot| {
            hasher.hash_one(subscribers.get(*slot as usize).map_or(0, |s| s.id))
        });
        Ok((SubscriptionKey { slot, generation }, id))
    }

    /// Takes out a subscription that was reserved and never opened, without a word.
    pub(super) fn release(&mut self, key: SubscriptionKey) {
        if live(&mut self.subscribers, key).is_some_and(|subscriber| !subscriber.open) {
            self.remove(key.slot, 0, End::Complete);
        }
    }

    /// Refuses filters of `tokens` in place of those a subscription has when the session may not have so many.
    pub(super) fn check_update(&self, id: i64, tokens: usize) -> Result<(), CommandError> {
        let slot = self.slot_of(id).ok_or(CommandError::SubscriptionNotFound { id })?;
        let subscriber = &self.subscribers[slot as usize];
        let routed = subscriber.route.as_ref().map(|route| route.tokens.get());
        let old = routed.or(subscriber.unrouted_tokens()).unwrap_or_default() as usize;
        self.check_tokens(tokens.saturating_sub(old))
    }

    /// Refuses filters of `tokens` more when the session may not have so many.
    fn check_tokens(&self, tokens: usize) -> Result<(), CommandError> {
        let limit = self.limits.max_filter_tokens;
        let fits = self.filter_tokens + tokens <= limit;
        fits.then_some(()).ok_or(CommandError::TooManyFilterTokens { whole: "session", limit })
    }

    /// An id that no subscription has.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.slot_of(self.next_id).is_some() {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Opens a reserved subscription, or re-routes an open one, and says so. Gives back the old route; or, if the
    /// subscription is gone, the new one as an error.
    pub(super) fn open(&mut self, key: SubscriptionKey, route: Route, request_id: i64) -> Result<Option<Route>, Route> {
        let Some(subscriber) = live(&mut self.subscribers, key).filter(|_| self.ending.is_none()) else {
            return Err(route);
        };
        let new_tokens = route.tokens.get() as usize;
        let old = subscriber.route.replace(route);
        let old_tokens = old.as_ref().map_or(0, |route| route.tokens.get() as usize);
        subscriber.open = true;
        let subscribed = subscriber.subscribed(None);
        self.filter_tokens = self.filter_tokens + new_tokens - old_tokens;
        self.reply(Reply { request_id, frame: Frame::Subscribed(subscribed) });
        self.make_ready(key.slot);
        Ok(old)
    }

    /// The key of an open subscription, and its group, 0 for none.
    pub(super) fn find(&self, id: i64) -> Result<(SubscriptionKey, u32), CommandError> {
        let slot = self.slot_of(id).ok_or(CommandError::SubscriptionNotFound { id })?;
        let subscriber = &self.subscribers[slot as usize];
        let key = SubscriptionKey { slot, generation: subscriber.generation };
        Ok((key, subscriber.route.as_ref().map_or(0, |route| route.group)))
    }

    /// Adds credit to a subscription.
    pub(super) fn grant(&mut self, id: i64, grant: Grant) -> Result<(), CommandError> {
        let slot = self.find(id)?.0.slot;
        let credit = &mut self.subscribers[slot as usize].credit;
        if credit.is_automatic() {
            return Err(CommandError::Field {
                field: "subscription_id",
                problem: format!("names subscription {id}, which has automatic credit: give `credit` in its spec"),
            });
        }
        credit.grant(grant);
        self.make_ready(slot);
        Ok(())
    }

    /// Ends one subscription and drops what waits for it.
    pub(super) fn close(&mut self, id: i64, request_id: i64, end: End) -> Result<(), CommandError> {
        let slot = self.find(id)?.0.slot;
        self.end_subscription(slot, request_id, end);
        Ok(())
    }

    /// Ends one subscription by its key.
    pub(super) fn close_key(&mut self, key: SubscriptionKey, end: End) {
        if live(&mut self.subscribers, key).is_some() {
            self.end_subscription(key.slot, 0, end);
        }
    }

    /// True when a member of a group would be served at once.
    pub(super) fn would_serve(&mut self, key: SubscriptionKey) -> bool {
        live(&mut self.subscribers, key).is_some_and(|subscriber| subscriber.would_serve())
    }

    /// Has the records of subscriptions brought from memory all at once; one after the other, as they are needed, a publish
    /// to one of a million would wait for each.
    pub(super) fn fetch(&self, keys: impl Iterator<Item = SubscriptionKey>) {
        let records = keys.filter_map(|key| self.subscribers.get(key.slot as usize));
        std::hint::black_box(records.fold(0, |sum: u32, record| sum ^ record.generation ^ u32::from(record.max_batch)));
    }

    /// Queues an event for a subscription, which does what it must when that is too much: see [`crate::model::Overflow`]. With
    /// all of the session at more than `allowed_bytes`, its largest queues are shed.
    pub(super) fn offer(&mut self, key: SubscriptionKey, event: &Event, allowed_bytes: usize) -> Offer {
        if self.ending.is_some() {
            return Offer::Gone;
        }
        let (max_events, max_bytes) = (self.limits.queue_events, self.limits.queue_bytes);
        let bytes = event.encoded_len();
        let Some(subscriber) = live(&mut self.subscribers, key) else { return Offer::Gone };
        // What waits already is all it will ever be sent.
        if !subscriber.conflates() && subscriber.queue.len() as u64 >= subscriber.events_left {
            return Offer::Gone;
        }
        // One that is not open yet cannot end before its client has heard of it.
        if subscriber.ends_when_full() && subscriber.open && subscriber.is_full_for(bytes, max_events, max_bytes) {
            self.overflow_end(key.slot, 1);
            return Offer::Gone;
        }
        self.with_queue(key.slot, |subscriber, pool, hasher| {
            subscriber.push(event.clone(), pool, hasher);
            while subscriber.queue.len() > 1
                && (subscriber.queue.len() > max_events || subscriber.queue.bytes() > max_bytes)
            {
                subscriber.drop_oldest(pool, hasher);
            }
        });
        self.shed(key.slot, allowed_bytes);
        self.make_ready(key.slot);
        Offer::Taken
    }

    /// Drops from the largest queues until no more than `allowed_bytes` wait, beginning with `slot` where all are small.
    pub(super) fn shed(&mut self, slot: u32, allowed_bytes: usize) {
        while self.waiting_bytes > allowed_bytes {
            let slot = self.large.last().map_or(slot, |(_, largest)| *largest);
            let Some(subscriber) = self.subscribers.get(slot as usize) else { return };
            if subscriber.queue.is_empty() {
                return;
            }
            if subscriber.ends_when_full() && subscriber.open {
                self.overflow_end(slot, 0);
                continue;
            }
            if subscriber.stored().is_some() {
                self.rewind(slot);
                continue;
            }
            if subscriber.member().is_some() {
                self.give_back(slot);
                continue;
            }
            let target = subscriber.queue.bytes() / 2;
            self.with_queue(slot, |subscriber, pool, hasher| {
                let waited = subscriber.queue.len() as u64;
                while subscriber.queue.bytes() > target {
                    subscriber.drop_oldest(pool, hasher);
                }
                if waited >= subscriber.events_left && !subscriber.conflates() {
                    // It was all it would ever be sent, so what came since was passed by: nothing later may take its place.
                    subscriber.events_left = subscriber.queue.len() as u64;
                }
            });
            self.make_ready(slot);
        }
    }

    /// The client sends no more commands: subscriptions without credit can never get any, and end, and so do members that
    /// have all they wanted and can say nothing of it.
    pub(super) fn no_more_commands(&mut self) {
        self.no_more_commands = true;
    }

    fn is_sweeping(&self) -> bool {
        self.no_more_commands && self.ending.is_none() && self.swept < self.subscribers.capacity()
    }

    /// Ends the session: nothing is taken any more, and every subscription is told.
    pub(super) fn end(&mut self, end: End) {
        if self.ending.is_some() {
            return;
        }
        if matches!(end, End::Stalled { .. }) {
            // Nobody reads them, and they may be all that is left of the session's memory.
            self.replies = VecDeque::new();
            self.reply_bytes = 0;
        }
        self.ending = Some(end);
        self.ready = VecDeque::new();
        self.stale = 0;
        self.large.clear();
        for (_, subscriber) in &mut self.subscribers {
            // What is not sent is read again, by who resumes or by the group.
            if let Some(stored) = subscriber.stored_mut() {
                stored.rewind();
                subscriber.clear(&mut self.pool);
            } else if subscriber.member().is_some() {
                subscriber.clear(&mut self.pool);
            } else {
                subscriber.drop_all(0, &mut self.pool);
            }
        }
        self.waiting_bytes = 0;
        self.counts = Counts::default();
    }

    /// Takes up to `most` routes from a session that is ending; 0 are left when none come back.
    pub(super) fn take_routes(&mut self, most: usize, from: &mut usize) -> Vec<Closed> {
        let mut routes = std::mem::take(&mut self.closed);
        while routes.len() < most && *from < self.subscribers.capacity() {
            if let Some(subscriber) = self.subscribers.get_mut(*from)
                && let Some(route) = subscriber.route.take()
            {
                self.filter_tokens -= route.tokens.get() as usize;
                let key = SubscriptionKey { slot: *from as u32, generation: subscriber.generation };
                routes.push(Closed { key, route });
            }
            *from += 1;
        }
        routes
    }

    /// Ends a subscription whose queue is full, and tells how much is lost.
    fn overflow_end(&mut self, slot: u32, and_more: usize) {
        let end = End::SlowConsumer { events: self.limits.queue_events, bytes: self.limits.queue_bytes };
        self.with_queue(slot, |subscriber, pool, _| subscriber.drop_all(and_more, pool));
        let gaps: Vec<Reply> = self.subscribers[slot as usize].take_gaps().collect();
        for gap in gaps {
            self.reply(gap);
        }
        self.end_subscription(slot, 0, end);
    }

    fn end_subscription(&mut self, slot: u32, request_id: i64, end: End) {
        if let Some(ended) = self.remove(slot, request_id, end) {
            self.reply(ended);
        }
    }

    /// Takes a subscription out, and makes the frame that says so.
    fn remove(&mut self, slot: u32, request_id: i64, end: End) -> Option<Reply> {
        self.with_queue(slot, |subscriber, pool, _| subscriber.clear(pool));
        let mut subscriber = self.subscribers.try_remove(slot as usize)?;
        self.forget_noted(&subscriber);
        self.cost -= subscriber.cost.bytes();
        let position = subscriber.position();
        if let Ok(entry) = self.ids.find_entry(self.hasher.hash_one(subscriber.id), |other| *other == slot) {
            entry.remove();
        }
        let key = SubscriptionKey { slot, generation: subscriber.generation };
        if let Some(route) = subscriber.route.take() {
            self.filter_tokens -= route.tokens.get() as usize;
            self.closed.push(Closed { key, route });
        }
        if let Some(tokens) = subscriber.unrouted_tokens() {
            self.filter_tokens -= tokens as usize;
            self.attention.gone.push(key);
        }
        if subscriber.ready {
            self.stale += 1;
            if self.stale > self.ready.len() / 2 {
                let Self { ready, subscribers, .. } = self;
                ready.retain(|key| live(subscribers, *key).is_some());
                self.stale = 0;
            }
        }
        if self.mirrors {
            self.outcome = end.clone();
        }
        Some(Reply { request_id, frame: Frame::Ended { subscription_id: subscriber.id, end, position } })
    }

    /// Every change of a queue goes through here, so that the sums stay right.
    fn with_queue(&mut self, slot: u32, change: impl FnOnce(&mut Subscriber, &mut Pool, &DefaultHashBuilder)) {
        let Some(subscriber) = self.subscribers.get_mut(slot as usize) else { return };
        let before = subscriber.queue;
        change(subscriber, &mut self.pool, &self.hasher);
        let after = subscriber.queue;
        self.waiting_bytes -= before.bytes() + before.len() * EVENT_OVERHEAD_BYTES;
        self.waiting_bytes += after.bytes() + after.len() * EVENT_OVERHEAD_BYTES;
        let (old, new) = (size_class(before.bytes()), size_class(after.bytes()));
        if old != new {
            self.large.remove(&(old, slot));
            if new > 0 {
                self.large.insert((new, slot));
            }
        }
    }

    /// A subscription may have become one that is served, or no longer.
    fn make_ready(&mut self, slot: u32) {
        self.note(slot);
        let Some(subscriber) = self.subscribers.get_mut(slot as usize) else { return };
        if subscriber.grows_hungry() {
            subscriber.set_hungry(true);
            self.attention.hungry.push(SubscriptionKey { slot, generation: subscriber.generation });
        }
        if !subscriber.ready && subscriber.sendable() {
            subscriber.ready = true;
            self.ready.push_back(SubscriptionKey { slot, generation: subscriber.generation });
        }
    }

    fn slot_of(&self, id: i64) -> Option<u32> {
        let is_it = |slot: &u32| self.subscribers.get(*slot as usize).is_some_and(|s| s.id == id);
        self.ids.find(self.hasher.hash_one(id), is_it).copied()
    }
}

/// 0 for a small queue, then the logarithm of its size.
fn size_class(bytes: usize) -> u32 {
    if bytes < SMALL_QUEUE_BYTES { 0 } else { bytes.ilog2() }
}

fn live(subscribers: &mut Slab<Subscriber>, key: SubscriptionKey) -> Option<&mut Subscriber> {
    subscribers.get_mut(key.slot as usize).filter(|s| s.generation == key.generation)
}
