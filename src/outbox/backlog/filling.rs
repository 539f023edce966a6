//! Subscriptions from streams, and members of groups on them: how their session or their group fills their queues. What
//! each verb means to those is said at [`crate::outbox::Filler`]. Pure.

use super::Backlog;
use crate::{
    event::Event,
    outbox::{
        attention::{Attention, SubscriptionKey},
        frame::{Gap, GapReason},
        stored::{Filled, Room, Stored},
    },
};

impl Backlog {
    pub(in crate::outbox) fn recall(&mut self, key: SubscriptionKey) {
        if self.subscribers.is_live(key) {
            self.with_queue(key.slot, |subscriber, pool, _| subscriber.clear(pool));
            self.make_ready(key.slot);
        }
    }

    /// Gives up what waits for a member of a group, for its group to hand out again.
    pub(super) fn give_back(&mut self, slot: u32) {
        let Some(subscriber) = self.subscribers.at(slot) else { return };
        let key = SubscriptionKey { slot, generation: subscriber.generation };
        let mut dropped = Vec::new();
        self.with_queue(slot, |subscriber, pool, hasher| {
            while let Some(event) = subscriber.pop(pool, hasher) {
                dropped.push(event.sequence());
            }
        });
        self.attention.dropped.push((key, dropped));
        self.make_ready(slot);
    }

    /// What the session has to do since the last call.
    pub(in crate::outbox) fn take_attention(&mut self) -> Attention {
        let mut attention = std::mem::take(&mut self.attention);
        attention.hungry.retain(|key| {
            let Some(subscriber) = self.subscribers.live(*key) else { return false };
            subscriber.set_hungry(false);
            // It may have begun to follow since it was hungry.
            subscriber.stored().is_none_or(|stored| !stored.following)
        });
        attention
    }

    pub(in crate::outbox) fn has_appetite(&self) -> bool {
        !self.attention.is_empty()
    }

    /// How much may be put into a queue, as far as its size, credit and `free_bytes` go; `None` when it is gone.
    pub(in crate::outbox) fn room(&mut self, key: SubscriptionKey, free_bytes: usize) -> Option<Room> {
        let subscriber = self.subscribers.live(key)?;
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
        let Some(stored) = self.subscribers.live(key).and_then(|subscriber| subscriber.stored()) else {
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
        let over = self.over;
        let stored = self.subscribers.live(key).and_then(|subscriber| subscriber.stored());
        let Some(stored) = stored.filter(|_| !over) else { return Filled::Gone };
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
        if self.over || !self.subscribers.is_live(key) {
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

    pub(in crate::outbox) fn begin_following(&mut self, key: SubscriptionKey, through: u64) -> bool {
        let Some(stored) = self.subscribers.live(key).and_then(|subscriber| subscriber.stored_mut()) else {
            return false;
        };
        let has_all = stored.through() == through && !stored.has_gap();
        stored.following |= has_all;
        has_all
    }

    pub(in crate::outbox) fn end_following(&mut self, key: SubscriptionKey, through: u64) {
        if let Some(stored) = self.following(key, through) {
            stored.following = false;
        }
        self.make_ready(key.slot);
    }

    pub(in crate::outbox) fn tell_progress(&mut self, key: SubscriptionKey, through: u64) {
        if let Some(stored) = self.following(key, through) {
            stored.tell();
        }
        self.make_ready(key.slot);
    }

    /// One that follows, and of which all up to `through` was looked at. Not one that does no longer: what waited for it
    /// was given up, so that it is further back.
    fn following(&mut self, key: SubscriptionKey, through: u64) -> Option<&mut Stored> {
        let subscriber = self.subscribers.live(key)?;
        let waits = !subscriber.queue.is_empty();
        let stored = subscriber.stored_mut().filter(|stored| stored.following)?;
        stored.passed(through, through, waits);
        Some(stored)
    }

    pub(in crate::outbox) fn lose(&mut self, key: SubscriptionKey, to: u64, reason: GapReason) {
        if let Some(stored) = self.subscribers.live(key).and_then(|subscriber| subscriber.stored_mut()) {
            stored.lose(to, reason);
        }
        self.make_ready(key.slot);
    }

    pub(in crate::outbox) fn tell_gap(&mut self, key: SubscriptionKey, gap: Gap) {
        if self.over {
            return;
        }
        if let Some(member) = self.subscribers.live(key).and_then(|subscriber| subscriber.member_mut()) {
            member.lose(gap);
            self.make_ready(key.slot);
        }
    }

    pub(in crate::outbox) fn rewind_key(&mut self, key: SubscriptionKey) {
        if self.subscribers.is_live(key) {
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
