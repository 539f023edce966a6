//! The events that wait for the subscriptions of one client, and what follows from them: whose turn it is, what the session
//! has to do, what operators see. Every change of a queue is made here, so that the sums stay right. What a client is told
//! of it is queued by [`super::queues`]. Pure.

mod filling;
mod turn;

use std::collections::BTreeSet;

use hashbrown::DefaultHashBuilder;

use super::{
    attention::{Attention, Closed, SubscriptionKey},
    counts::Counts,
    frame::SessionLimits,
    pool::Pool,
    round::Round,
    subscriber::Subscriber,
    subscribers::Subscribers,
};
use crate::{event::Event, model::Position};

/// What a waiting event costs besides its bytes: its node, its shared header and the allocator's share. Budgets count
/// it, so that a flood of tiny events cannot hold more memory than a budget says.
const EVENT_OVERHEAD_BYTES: usize = 144;
/// Queues below this size are never looked at when a budget is exceeded: there are too many of them.
const SMALL_QUEUE_BYTES: usize = 4096;

/// All that waits for the subscriptions of one client.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) subscribers: Subscribers,
    pool: Pool,
    /// The queues that are not small, by the logarithm of their size: the largest class is shed first.
    large: BTreeSet<(u32, u32)>,
    /// What waits, overhead included, in bytes.
    waiting_bytes: usize,
    pub(super) round: Round,
    counts: Counts,
    attention: Attention,
    /// The session is ending: nothing is put into queues any more.
    over: bool,
}

impl Backlog {
    pub(super) fn new(limits: &SessionLimits) -> Self {
        Self {
            subscribers: Subscribers::new(limits),
            pool: Pool::new(),
            large: BTreeSet::new(),
            waiting_bytes: 0,
            round: Round::default(),
            counts: Counts::default(),
            attention: Attention::default(),
            over: false,
        }
    }

    /// How many events wait.
    pub(super) fn waiting_events(&self) -> usize {
        self.pool.len()
    }

    /// What waits, overhead included, in bytes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The subscriptions that ended since the last call.
    pub(super) fn take_closed(&mut self) -> Vec<Closed> {
        std::mem::take(&mut self.attention.closed)
    }

    /// True when a member of a group would be served at once.
    pub(super) fn would_serve(&mut self, key: SubscriptionKey) -> bool {
        self.subscribers.live(key).is_some_and(|subscriber| subscriber.would_serve())
    }

    /// Queues an event, and drops the oldest while more than so many wait.
    pub(super) fn push(&mut self, slot: u32, event: &Event, max_events: usize, max_bytes: usize) {
        self.with_queue(slot, |subscriber, pool, hasher| {
            subscriber.push(event.clone(), pool, hasher);
            while subscriber.queue.len() > 1
                && (subscriber.queue.len() > max_events || subscriber.queue.bytes() > max_bytes)
            {
                subscriber.drop_oldest(pool, hasher);
            }
        });
    }

    /// The slot of the largest queue, if one is not small.
    pub(super) fn largest(&self) -> Option<u32> {
        self.large.last().map(|(_, largest)| *largest)
    }

    /// Gives up about half of what waits for one subscription: all of it where it can be had again.
    pub(super) fn shed(&mut self, slot: u32) {
        let Some(subscriber) = self.subscribers.at(slot) else { return };
        if subscriber.stored().is_some() {
            return self.rewind(slot);
        }
        if subscriber.member().is_some() {
            return self.give_back(slot);
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

    /// Drops all that waits for one subscription, to be told by the next gap frame; `and_more` that never came to wait are
    /// counted too.
    pub(super) fn drop_all(&mut self, slot: u32, and_more: usize) {
        self.with_queue(slot, |subscriber, pool, _| subscriber.drop_all(and_more, pool));
    }

    /// Empties all queues for good.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.round = Round::default();
        self.large.clear();
        for subscriber in self.subscribers.all_mut() {
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
        let mut routes = self.take_closed();
        while routes.len() < most && *from < self.subscribers.end_of_slots() {
            let slot = *from as u32;
            if let Some(subscriber) = self.subscribers.at_mut(slot)
                && let Some(route) = subscriber.route.take()
            {
                let key = SubscriptionKey { slot, generation: subscriber.generation };
                self.subscribers.exchange_tokens(route.tokens.get(), 0);
                routes.push(Closed { key, route });
            }
            *from += 1;
        }
        routes
    }

    /// Takes a subscription out with all that waits for it. Its id, and how far it came in its stream, come back.
    pub(super) fn remove(&mut self, slot: u32) -> Option<(i64, Option<Position>)> {
        self.with_queue(slot, |subscriber, pool, _| subscriber.clear(pool));
        let mut subscriber = self.subscribers.remove(slot)?;
        self.counts.forget(subscriber.noted);
        let key = SubscriptionKey { slot, generation: subscriber.generation };
        if let Some(route) = subscriber.route.take() {
            self.subscribers.exchange_tokens(route.tokens.get(), 0);
            self.attention.closed.push(Closed { key, route });
        }
        if let Some(tokens) = subscriber.unrouted_tokens() {
            self.subscribers.exchange_tokens(tokens, 0);
            self.attention.gone.push(key);
        }
        if subscriber.ready {
            self.round.leave(|key| self.subscribers.is_live(key));
        }
        Some((subscriber.id, subscriber.position()))
    }

    /// Every change of a queue goes through here, so that the sums stay right.
    fn with_queue(&mut self, slot: u32, change: impl FnOnce(&mut Subscriber, &mut Pool, &DefaultHashBuilder)) {
        let Some((subscriber, hasher)) = self.subscribers.hashed_at(slot) else { return };
        let before = subscriber.queue;
        change(subscriber, &mut self.pool, hasher);
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
    pub(super) fn make_ready(&mut self, slot: u32) {
        let Some(subscriber) = self.subscribers.at_mut(slot) else { return };
        let now = subscriber.stands();
        if subscriber.noted != now {
            self.counts.change(std::mem::replace(&mut subscriber.noted, now), now);
        }
        let key = SubscriptionKey { slot, generation: subscriber.generation };
        if subscriber.grows_hungry() {
            subscriber.set_hungry(true);
            self.attention.hungry.push(key);
        }
        if !subscriber.ready && subscriber.sendable() {
            subscriber.ready = true;
            self.round.push(key);
        }
    }
}

/// 0 for a small queue, then the logarithm of its size.
fn size_class(bytes: usize) -> u32 {
    if bytes < SMALL_QUEUE_BYTES { 0 } else { bytes.ilog2() }
}
