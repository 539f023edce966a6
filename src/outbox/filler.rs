//! The view of those who fill an outbox from streams: the feeds of its session, and the groups whose members it has.

use std::{collections::HashSet, sync::Arc};

use super::{
    attention::SubscriptionKey,
    frame::{Gap, GapReason, Opened, Reply},
    lock::Outbox,
    stored::{Filled, Room, Wanted},
};
use crate::{
    event::Event,
    model::{End, Group},
};

/// Fills the queues of subscriptions from streams.
#[derive(Debug, Clone)]
pub struct Filler(Arc<Outbox>);

impl Filler {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self(outbox)
    }

    /// How much may be put into the queue of a subscription from a stream; `None` when it is gone.
    pub fn room(&self, key: SubscriptionKey) -> Option<Room> {
        let allowed = self.0.budget.allowed_bytes();
        self.0.with(|state| {
            let free = state.allowed(allowed).saturating_sub(state.queues.held_bytes());
            state.queues.backlog.room(key, free)
        })
    }

    /// Puts into the queue of a subscription what was found in its stream behind `after`, which [`Self::room`] told, up to
    /// `through`; the last event of the stream is `latest`.
    pub fn fill(&self, key: SubscriptionKey, after: u64, events: Vec<Event>, through: u64, latest: u64) -> Filled {
        self.0.with(|state| state.queues.backlog.feed(key, after, events, through, latest))
    }

    /// Puts events into the queues of subscriptions that follow their stream, in order. Those that have no room come back;
    /// they follow no longer.
    pub fn follow<'a>(&self, events: impl Iterator<Item = (SubscriptionKey, &'a Event)>) -> HashSet<SubscriptionKey> {
        let allowed = self.0.budget.allowed_bytes();
        self.0.with(|state| {
            let mut behind = HashSet::new();
            for (key, event) in events {
                let free = state.allowed(allowed).saturating_sub(state.queues.held_bytes());
                if !behind.contains(&key) && !state.queues.backlog.follow(key, event, free) {
                    behind.insert(key);
                }
            }
            behind
        })
    }

    /// From now on its session keeps a subscription filled without being asked. False when it does not have all up to
    /// `through`, or is gone.
    pub fn begin_following(&self, key: SubscriptionKey, through: u64) -> bool {
        self.0.with(|state| state.queues.backlog.begin_following(key, through))
    }

    /// Its session, which has looked at all up to `through`, does not keep a subscription filled any more.
    pub fn end_following(&self, key: SubscriptionKey, through: u64) {
        self.0.with(|state| state.queues.backlog.end_following(key, through));
    }

    /// Gives up what waits for a subscription from a stream, to be read again behind what was sent.
    pub fn rewind(&self, key: SubscriptionKey) {
        self.0.with(|state| state.queues.backlog.rewind_key(key));
    }

    /// Has a subscription that follows told that it came to `through`; one that does no longer is further back.
    pub fn tell_progress(&self, key: SubscriptionKey, through: u64) {
        self.0.with(|state| state.queues.backlog.tell_progress(key, through));
    }

    /// Events up to `to` are lost to a subscription from a stream: it is told behind what waits, and filled again only then.
    pub fn lose(&self, key: SubscriptionKey, to: u64, reason: GapReason) {
        self.0.with(|state| state.queues.backlog.lose(key, to, reason));
    }

    /// Opens a reserved subscription as a member of a group on a stream, of which it wants something, and tells the client;
    /// false when it is gone.
    pub fn open_member(&self, key: SubscriptionKey, opened: Opened, of: (Wanted, Group), request_id: i64) -> bool {
        self.0.with(|state| state.queues.open_member(key, opened, of, request_id))
    }

    /// Puts events into the queue of a member of a group on a stream; false when it is gone.
    pub fn hand(&self, key: SubscriptionKey, events: &[Event]) -> bool {
        self.0.with(|state| state.queues.backlog.put(key, events.iter().cloned(), 0, 0))
    }

    /// Forgets what waits for a member of a group: it was handed out by mistake, or is to be handed out again.
    pub fn recall(&self, key: SubscriptionKey) {
        self.0.with(|state| state.queues.backlog.recall(key));
    }

    /// Events are lost to the group of a member, which is told with whatever it is sent next.
    pub fn tell_gap(&self, key: SubscriptionKey, gap: Gap) {
        self.0.with(|state| state.queues.backlog.tell_gap(key, gap));
    }

    /// Queues a frame that bears the id of a subscription. When that is gone its client hears what `if_gone` says instead.
    pub fn reply_for(&self, key: SubscriptionKey, reply: Reply, if_gone: impl FnOnce() -> Option<Reply>) {
        self.0.with(|state| state.queues.reply_for(key, reply, if_gone));
    }

    /// Ends a subscription by its key and tells the client.
    pub fn close_key(&self, key: SubscriptionKey, end: End) {
        self.0.with(|state| state.queues.close_key(key, end));
    }
}
