//! Subscriptions from streams: how their session fills their queues. Pure.

use super::{
    super::{
        frame::{Acked, Frame, Gap, GapReason, Opened, Reply, ResumeOutcome},
        stored::{Filled, Member, Room, Stored},
        subscriber::Subscriber,
    },
    Attention, Queues, SubscriptionKey, live,
};
use crate::{
    event::Event,
    model::{CommandError, End},
};

impl Queues {
    /// Opens a reserved subscription from a stream and says so; false when it is gone.
    pub(in crate::outbox) fn open_stored(
        &mut self,
        key: SubscriptionKey,
        opened: Opened,
        tokens: u32,
        request_id: i64,
    ) -> bool {
        let stored = Stored::new(opened.position.clone(), opened.latest, tokens);
        self.open_unrouted(key, opened, tokens, request_id, |subscriber| subscriber.store(stored))
    }

    /// Opens a reserved subscription as a member of a group on a stream and says so; false when it is gone.
    pub(in crate::outbox) fn open_member(
        &mut self,
        key: SubscriptionKey,
        opened: Opened,
        tokens: u32,
        request_id: i64,
    ) -> bool {
        let member = Member::new(opened.ack_deadline.is_some(), tokens);
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
        let Some(subscriber) = live(&mut self.subscribers, key).filter(|_| self.ending.is_none()) else { return false };
        become_one(subscriber);
        subscriber.open = true;
        let subscribed = subscriber.subscribed(Some(opened));
        self.filter_tokens += tokens as usize;
        self.reply(Reply { request_id, frame: Frame::Subscribed(subscribed) });
        self.make_ready(key.slot);
        true
    }

    /// Tells what became of acknowledgements; of a subscription that is gone, that it is.
    pub(in crate::outbox) fn acknowledged(
        &mut self,
        key: SubscriptionKey,
        id: i64,
        request_id: i64,
        results: Vec<Acked>,
    ) {
        // A session that is ending tells of its subscriptions behind its answers; to one that is stalled it tells nothing.
        let stalled = matches!(self.ending, Some(End::Stalled { .. }));
        let frame = if live(&mut self.subscribers, key).is_some() && !stalled {
            Frame::Acknowledged { subscription_id: id, results }
        } else if request_id != 0 {
            let error = Box::new(CommandError::SubscriptionNotFound { id });
            Frame::Error { field_path: "acknowledge.", error }
        } else {
            return;
        };
        self.reply(Reply { request_id, frame });
    }

    /// Forgets what waits for a member of a group: it was handed out by mistake, or is to be handed out anew.
    pub(in crate::outbox) fn recall(&mut self, key: SubscriptionKey) {
        if live(&mut self.subscribers, key).is_some() {
            self.with_queue(key.slot, |subscriber, pool, _| subscriber.clear(pool));
            self.make_ready(key.slot);
        }
    }

    /// Gives up what waits for a member of a group, for its group to hand out again.
    pub(super) fn give_back(&mut self, slot: u32) {
        let mut dropped = Vec::new();
        self.with_queue(slot, |subscriber, pool, hasher| {
            while let Some(event) = subscriber.pop(pool, hasher) {
                dropped.push(event.sequence());
            }
        });
        let generation = self.subscribers[slot as usize].generation;
        self.attention.dropped.push((SubscriptionKey { slot, generation }, dropped));
        self.make_ready(slot);
    }

    /// Notes what the writer took for a member of a group.
    pub(super) fn note_sent(&mut self, key: SubscriptionKey, events: &[Event]) {
        self.attention.sent.push((key, events.iter().map(Event::sequence).collect()));
    }

    /// Says that a subscription has other filters; false when it is gone.
    pub(in crate::outbox) fn refiltered(&mut self, key: SubscriptionKey, tokens: u32, request_id: i64) -> bool {
        let Some(subscriber) = live(&mut self.subscribers, key) else { return false };
        let Some(stored) = subscriber.stored_mut() else { return false };
        let old = std::mem::replace(&mut stored.tokens, tokens);
        let (position, latest) = (stored.position(), stored.latest());
        let earliest = position.sequence + 1;
        let outcome = ResumeOutcome::Fresh;
        let opened = Opened { position, earliest, latest, outcome, ack_deadline: None };
        let subscribed = subscriber.subscribed(Some(opened));
        self.filter_tokens = self.filter_tokens + tokens as usize - old as usize;
        self.reply(Reply { request_id, frame: Frame::Subscribed(subscribed) });
        true
    }

    /// Subscriptions that have to be looked after since the last call.
    pub(in crate::outbox) fn take_attention(&mut self) -> Attention {
        let mut attention = std::mem::take(&mut self.attention);
        attention.closed = self.take_closed();
        attention.hungry.retain(|key| {
            let Some(subscriber) = live(&mut self.subscribers, *key) else { return false };
            subscriber.set_hungry(false);
            // It may have begun to follow since it was hungry.
            subscriber.stored().is_none_or(|stored| !stored.following)
        });
        attention
    }

    pub(in crate::outbox) fn has_appetite(&self) -> bool {
        !self.attention.is_empty() || !self.closed.is_empty()
    }

    /// How much may be put into a queue, as far as its size, credit and `free_bytes` go; `None` when it is gone.
    pub(in crate::outbox) fn room(&mut self, key: SubscriptionKey, free_bytes: usize) -> Option<Room> {
        let subscriber = live(&mut self.subscribers, key)?;
        let (events, bytes) = (subscriber.queue.len(), subscriber.queue.bytes());
        let room = subscriber.room()?;
        let credit = subscriber.credit.covers(events, bytes);
        let left = usize::try_from(subscriber.events_left).unwrap_or(usize::MAX).saturating_sub(events);
        let free = room.bytes.min(free_bytes);
        let more = if free == 0 { 0 } else { room.events.min(credit).min(left) };
        // What waits for a member is kept from the others, so no more than it may be sent.
        let exact = more > 0 && subscriber.member().is_some();
        let bytes = if exact { free.min(subscriber.credit.bytes_left(bytes)) } else { free };
        Some(Room { events: more, bytes, ..room })
    }

    /// Puts an event into the queue of one that follows its stream. False when it does not, or has no room: it then
    /// follows no longer, and is behind that event.
    pub(in crate::outbox) fn follow(&mut self, key: SubscriptionKey, event: &Event, free_bytes: usize) -> bool {
        let Some(stored) = live(&mut self.subscribers, key).and_then(|subscriber| subscriber.stored()) else {
            return false;
        };
        let (sequence, following) = (event.sequence(), stored.following);
        if following && !stored.wants(sequence) {
            return true;
        }
        let fits = self.room(key, free_bytes).is_some_and(|room| room.events > 0);
        if following && fits {
            return self.put(key, [event.clone()], sequence, sequence);
        }
        if following {
            self.put(key, [], sequence - 1, sequence);
        }
        self.end_following(key, sequence - 1);
        false
    }

    /// Puts into a queue what was found in its stream behind `after` up to `through`, unless what waited behind `after` was
    /// given up since that was asked for.
    pub(in crate::outbox) fn feed(
        &mut self,
        key: SubscriptionKey,
        after: u64,
        events: Vec<Event>,
        through: u64,
        latest: u64,
    ) -> Filled {
        let stored = live(&mut self.subscribers, key).and_then(|subscriber| subscriber.stored());
        let Some(stored) = stored.filter(|_| self.ending.is_none()) else { return Filled::Gone };
        if stored.through() != after {
            return Filled::Stale;
        }
        self.put(key, events, through, latest);
        Filled::Taken
    }

    /// Puts into a queue what was found in its stream up to `through`; false when it is gone.
    pub(in crate::outbox) fn put(
        &mut self,
        key: SubscriptionKey,
        events: impl IntoIterator<Item = Event>,
        through: u64,
        latest: u64,
    ) -> bool {
        if self.ending.is_some() || live(&mut self.subscribers, key).is_none() {
            return false;
        }
        self.with_queue(key.slot, |subscriber, pool, hasher| {
            for event in events {
                subscriber.push(event, pool, hasher);
            }
            let waits = !subscriber.queue.is_empty();
            if let Some(stored) = subscriber.stored_mut() {
                stored.passed(through, latest, waits);
            }
        });
        self.make_ready(key.slot);
        true
    }

    /// From now on its session keeps it filled without being asked; false when it does not have all up to `through`.
    pub(in crate::outbox) fn begin_following(&mut self, key: SubscriptionKey, through: u64) -> bool {
        let Some(stored) = live(&mut self.subscribers, key).and_then(|subscriber| subscriber.stored_mut()) else {
            return false;
        };
        let has_all = stored.through() == through && !stored.has_gap();
        stored.following |= has_all;
        has_all
    }

    /// Its session, which has looked at all up to `through`, does not keep it filled any more.
    pub(in crate::outbox) fn end_following(&mut self, key: SubscriptionKey, through: u64) {
        if let Some(stored) = self.following(key, through) {
            stored.following = false;
        }
        self.make_ready(key.slot);
    }

    /// Has a subscription that follows told how far it came.
    pub(in crate::outbox) fn tell_progress(&mut self, key: SubscriptionKey, through: u64) {
        if let Some(stored) = self.following(key, through) {
            stored.tell();
        }
        self.make_ready(key.slot);
    }

    /// One that follows, and of which all up to `through` was looked at. Not one that does no longer: what waited for it
    /// was given up, so that it is further back.
    fn following(&mut self, key: SubscriptionKey, through: u64) -> Option<&mut Stored> {
        let subscriber = live(&mut self.subscribers, key)?;
        let waits = !subscriber.queue.is_empty();
        let stored = subscriber.stored_mut().filter(|stored| stored.following)?;
        stored.passed(through, through, waits);
        Some(stored)
    }

    /// Events up to `to` are lost to a subscription.
    pub(in crate::outbox) fn lose(&mut self, key: SubscriptionKey, to: u64, reason: GapReason) {
        if let Some(stored) = live(&mut self.subscribers, key).and_then(|subscriber| subscriber.stored_mut()) {
            stored.lose(to, reason);
        }
        self.make_ready(key.slot);
    }

    /// Events are lost to the group of a member, which is told with whatever it is sent next.
    pub(in crate::outbox) fn tell_gap(&mut self, key: SubscriptionKey, gap: Gap) {
        if self.ending.is_some() {
            return;
        }
        if let Some(member) = live(&mut self.subscribers, key).and_then(|subscriber| subscriber.member_mut()) {
            member.lose(gap);
            self.make_ready(key.slot);
        }
    }

    /// See [`Self::rewind`].
    pub(in crate::outbox) fn rewind_key(&mut self, key: SubscriptionKey) {
        if live(&mut self.subscribers, key).is_some() {
            self.rewind(key.slot);
        }
    }

    /// Gives up what waits for a subscription from a stream, to be read again.
    pub(super) fn rewind(&mut self, slot: u32) {
        self.with_queue(slot, |subscriber, pool, _| {
            subscriber.clear(pool);
            if let Some(stored) = subscriber.stored_mut() {
                stored.rewind();
            }
        });
        self.make_ready(slot);
    }
}
