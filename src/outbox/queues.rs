//! What is sent to one client: its frames, its subscriptions from their opening to their end, and the end of all. What is
//! sent next is decided in [`writer`]. No lock, no clock, no wake-up here: see [`super::Outbox`] for those. Pure.

mod writer;

use std::sync::Arc;

use super::{
    attention::SubscriptionKey,
    backlog::Backlog,
    cost::Cost,
    frame::{Frame, Opened, Reply, ResumeOutcome, Returned, SessionLimits},
    replies::Replies,
    route::Route,
    stored::{Joined, Member, Stored, Wanted},
    subscriber::Subscriber,
};
use crate::{
    event::Event,
    model::{CommandError, End, Grant, Group, SubscriptionSpec},
};

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
    replies: Replies,
    /// Its subscriptions, and what waits for them.
    pub(super) backlog: Backlog,
    /// The most that may wait for one subscription.
    max_events: usize,
    /// As much, in bytes.
    max_bytes: usize,
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
    pub(super) fn new(limits: &SessionLimits, mirrors: bool) -> Self {
        Self {
            replies: Replies::new(!mirrors),
            backlog: Backlog::new(limits),
            max_events: limits.queue_events,
            max_bytes: limits.queue_bytes,
            no_more_commands: false,
            swept: 0,
            ending: None,
            told: 0,
            answered: false,
            outcome: End::Complete,
            mirrors,
        }
    }

    /// What is held for the client, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.backlog.waiting_bytes() + self.replies.bytes()
    }

    pub(super) fn reply_bytes(&self) -> usize {
        self.replies.bytes()
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.backlog.subscribers.len()
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
            || self.backlog.round.has_any()
            || self.is_sweeping()
            || match self.ending {
                Some(_) => self.may_finish(),
                None => self.no_more_commands && self.backlog.subscribers.is_empty(),
            }
    }

    /// True for a session that is ending, once nothing more is to be told but the ends of its subscriptions and its own.
    fn may_finish(&self) -> bool {
        self.answered || !self.is_draining()
    }

    pub(super) fn all_answered(&mut self) {
        self.answered = true;
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.replies.push(reply);
    }

    /// Queues a frame that bears the id of a subscription, or what is to be said when that is gone.
    pub(super) fn reply_for(&mut self, key: SubscriptionKey, reply: Reply, if_gone: impl FnOnce() -> Option<Reply>) {
        // A session that is ending tells of its subscriptions behind its answers; to one that is stalled it tells nothing.
        let stalled = matches!(self.ending, Some(End::Stalled { .. }));
        let is_there = self.backlog.subscribers.is_live(key) && !stalled;
        self.replies.extend(if is_there { Some(reply) } else { if_gone() });
    }

    /// Makes room for a subscription that is not open yet and costs so much; an `id` of 0 is chosen here.
    pub(super) fn reserve(
        &mut self,
        id: i64,
        spec: &SubscriptionSpec,
        cost: Cost,
    ) -> Result<(SubscriptionKey, i64), CommandError> {
        if self.ending.is_some() {
            return Err(CommandError::Draining);
        }
        self.backlog.subscribers.add(id, spec, cost)
    }

    /// Takes out a subscription that was reserved and never opened, without a word.
    pub(super) fn release(&mut self, key: SubscriptionKey) {
        if self.backlog.subscribers.live(key).is_some_and(|subscriber| !subscriber.open) {
            self.remove(key.slot, 0, End::Complete);
        }
    }

    pub(super) fn open(&mut self, key: SubscriptionKey, route: Route, request_id: i64) -> Result<Option<Route>, Route> {
        let ending = self.ending.is_some();
        let subscribers = &mut self.backlog.subscribers;
        let Some(subscriber) = subscribers.live(key).filter(|_| !ending) else { return Err(route) };
        let new_tokens = route.tokens.get();
        let old = subscriber.route.replace(route);
        let old_tokens = old.as_ref().map_or(0, |route| route.tokens.get());
        subscriber.open = true;
        let subscribed = subscriber.subscribed(None);
        subscribers.exchange_tokens(old_tokens, new_tokens);
        self.reply(Reply { request_id, frame: Frame::Subscribed(subscribed) });
        self.backlog.make_ready(key.slot);
        Ok(old)
    }

    pub(super) fn open_stored(
        &mut self,
        key: SubscriptionKey,
        opened: Opened,
        wanted: Wanted,
        request_id: i64,
    ) -> bool {
        let tokens = wanted.tokens;
        let stored = Stored::new(opened.position.clone(), opened.latest, wanted);
        self.open_unrouted(key, opened, tokens, request_id, |subscriber| subscriber.store(stored))
    }

    pub(super) fn open_member(
        &mut self,
        key: SubscriptionKey,
        opened: Opened,
        (wanted, group): (Wanted, Group),
        request_id: i64,
    ) -> bool {
        let (tokens, joined) = (wanted.tokens, Joined { origin: Arc::clone(&opened.position.origin), group });
        let member = Member::new(opened.ack_deadline.is_some(), wanted, joined);
        self.open_unrouted(key, opened, tokens, request_id, |subscriber| subscriber.enlist(member))
    }

    /// Opens a subscription that the router does not know.
    fn open_unrouted(
        &mut self,
        key: SubscriptionKey,
        opened: Opened,
        tokens: u32,
        request_id: i64,
        become_one: impl FnOnce(&mut Subscriber),
    ) -> bool {
        let ending = self.ending.is_some();
        let subscribers = &mut self.backlog.subscribers;
        let Some(subscriber) = subscribers.live(key).filter(|_| !ending) else { return false };
        become_one(subscriber);
        subscriber.open = true;
        let subscribed = subscriber.subscribed(Some(opened));
        subscribers.exchange_tokens(0, tokens);
        self.reply(Reply { request_id, frame: Frame::Subscribed(subscribed) });
        self.backlog.make_ready(key.slot);
        true
    }

    pub(super) fn refiltered(&mut self, key: SubscriptionKey, wanted: Wanted, request_id: i64) -> bool {
        let subscribers = &mut self.backlog.subscribers;
        let Some(subscriber) = subscribers.live(key) else { return false };
        let Some(stored) = subscriber.stored_mut() else { return false };
        let tokens = wanted.tokens;
        let old = std::mem::replace(&mut stored.wanted, wanted).tokens;
        let (position, latest) = (stored.position(), stored.latest());
        let earliest = position.sequence + 1;
        let outcome = ResumeOutcome::Fresh;
        let opened = Opened { position, earliest, latest, outcome, ack_deadline: None, returned: Returned::default() };
        let subscribed = subscriber.subscribed(Some(opened));
        subscribers.exchange_tokens(old, tokens);
        self.reply(Reply { request_id, frame: Frame::Subscribed(subscribed) });
        true
    }

    pub(super) fn grant(&mut self, id: i64, grant: Grant) -> Result<(), CommandError> {
        let slot = self.backlog.subscribers.slot_of(id)?;
        let Some(subscriber) = self.backlog.subscribers.at_mut(slot) else { return Ok(()) };
        if subscriber.credit.is_automatic() {
            return Err(CommandError::Field {
                field: "subscription_id",
                problem: format!("names subscription {id}, which has automatic credit: give `credit` in its spec"),
            });
        }
        subscriber.credit.grant(grant);
        self.backlog.make_ready(slot);
        Ok(())
    }

    /// Ends one subscription and drops what waits for it.
    pub(super) fn close(&mut self, id: i64, request_id: i64, end: End) -> Result<(), CommandError> {
        let slot = self.backlog.subscribers.slot_of(id)?;
        self.end_subscription(slot, request_id, end);
        Ok(())
    }

    pub(super) fn close_key(&mut self, key: SubscriptionKey, end: End) {
        if self.backlog.subscribers.is_live(key) {
            self.end_subscription(key.slot, 0, end);
        }
    }

    /// Queues an event for a subscription, which does what it must when that is too much: see [`crate::model::Overflow`]. With
    /// all of the session at more than `allowed_bytes`, its largest queues are shed.
    pub(super) fn offer(&mut self, key: SubscriptionKey, event: &Event, allowed_bytes: usize) -> Offer {
        if self.ending.is_some() {
            return Offer::Gone;
        }
        let (max_events, max_bytes) = (self.max_events, self.max_bytes);
        let Some(subscriber) = self.backlog.subscribers.live(key) else { return Offer::Gone };
        // What waits already is all it will ever be sent.
        if !subscriber.conflates() && subscriber.queue.len() as u64 >= subscriber.events_left {
            return Offer::Gone;
        }
        // One that is not open yet cannot end before its client has heard of it.
        if subscriber.ends_when_full()
            && subscriber.open
            && subscriber.is_full_for(event.encoded_len(), max_events, max_bytes)
        {
            self.overflow_end(key.slot, 1);
            return Offer::Gone;
        }
        self.backlog.push(key.slot, event, max_events, max_bytes);
        self.shed(key.slot, allowed_bytes);
        self.backlog.make_ready(key.slot);
        Offer::Taken
    }

    /// Drops from the largest queues until no more than `allowed_bytes` wait, beginning with `slot` where all are small.
    pub(super) fn shed(&mut self, slot: u32, allowed_bytes: usize) {
        while self.backlog.waiting_bytes() > allowed_bytes {
            let slot = self.backlog.largest().unwrap_or(slot);
            let subscriber = self.backlog.subscribers.at(slot).filter(|subscriber| !subscriber.queue.is_empty());
            match subscriber {
                None => return,
                Some(subscriber) if subscriber.ends_when_full() && subscriber.open => self.overflow_end(slot, 0),
                Some(_) => self.backlog.shed(slot),
            }
        }
    }

    pub(super) fn no_more_commands(&mut self) {
        self.no_more_commands = true;
    }

    fn is_sweeping(&self) -> bool {
        self.no_more_commands && self.ending.is_none() && self.swept < self.backlog.subscribers.end_of_slots()
    }

    /// Ends the session: nothing is taken any more, and every subscription is told.
    pub(super) fn end(&mut self, end: End) {
        if self.ending.is_some() {
            return;
        }
        if matches!(end, End::Stalled { .. }) {
            // Nobody reads them, and they may be all that is left of the session's memory.
            self.replies = Replies::new(!self.mirrors);
        }
        self.ending = Some(end);
        self.backlog.end();
    }

    /// Ends a subscription whose queue is full, and tells how much is lost.
    fn overflow_end(&mut self, slot: u32, and_more: usize) {
        let end = End::SlowConsumer { events: self.max_events, bytes: self.max_bytes };
        self.backlog.drop_all(slot, and_more);
        if let Some(subscriber) = self.backlog.subscribers.at_mut(slot) {
            self.replies.extend(subscriber.take_gaps());
        }
        self.end_subscription(slot, 0, end);
    }

    fn end_subscription(&mut self, slot: u32, request_id: i64, end: End) {
        let ended = self.remove(slot, request_id, end);
        self.replies.extend(ended);
    }

    /// Takes a subscription out, and makes the frame that says so.
    fn remove(&mut self, slot: u32, request_id: i64, end: End) -> Option<Reply> {
        let (subscription_id, position) = self.backlog.remove(slot)?;
        if self.mirrors {
            self.outcome = end.clone();
        }
        Some(Reply { request_id, frame: Frame::Ended { subscription_id, end, position } })
    }
}
