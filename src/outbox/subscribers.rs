//! The subscriptions of one session: found by key in one step, or by the id that their client knows them by; with the sums
//! that the limits are about. What waits for them is in [`super::backlog`]. Pure.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::{
    attention::SubscriptionKey, cost::Cost, frame::SessionLimits, status::SubscriptionStatus, subscriber::Subscriber,
};
use crate::model::{CommandError, Filter, SubscriptionSpec};

/// All of one session.
#[derive(Debug)]
pub(super) struct Subscribers {
    all: Slab<Subscriber>,
    /// From subscription id to slot.
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
    most: usize,
    most_filter_tokens: usize,
    /// The tokens of all filters.
    filter_tokens: usize,
    /// What all of them cost, in bytes.
    cost: usize,
    next_id: i64,
    next_generation: u32,
}

impl Subscribers {
    pub(super) fn new(limits: &SessionLimits) -> Self {
        Self {
            all: Slab::new(),
            ids: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            most: limits.max_subscriptions,
            most_filter_tokens: limits.max_filter_tokens,
            filter_tokens: 0,
            cost: 0,
            next_id: 1,
            // Not the same in every session: a key that outlives its session must mean nothing in the next one.
            next_generation: fastrand::u32(..),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Every slot is below this one.
    pub(super) fn end_of_slots(&self) -> usize {
        self.all.capacity()
    }

    /// What all of them cost, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn at(&self, slot: u32) -> Option<&Subscriber> {
        self.all.get(slot as usize)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut Subscriber> {
        self.all.get_mut(slot as usize)
    }

    /// The one in a slot, and what hashes its topics.
    pub(super) fn hashed_at(&mut self, slot: u32) -> Option<(&mut Subscriber, &DefaultHashBuilder)> {
        Some((self.all.get_mut(slot as usize)?, &self.hasher))
    }

    /// The one of that key, unless it is gone.
    pub(super) fn live(&mut self, key: SubscriptionKey) -> Option<&mut Subscriber> {
        self.all.get_mut(key.slot as usize).filter(|subscriber| subscriber.generation == key.generation)
    }

    pub(super) fn is_live(&self, key: SubscriptionKey) -> bool {
        self.at(key.slot).is_some_and(|subscriber| subscriber.generation == key.generation)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Subscriber> {
        self.all.iter_mut().map(|(_, subscriber)| subscriber)
    }

    /// Has the records of subscriptions brought from memory all at once; one after the other, as they are needed, a publish
    /// to one of a million would wait for each.
    pub(super) fn fetch(&self, keys: impl Iterator<Item = SubscriptionKey>) {
        let records = keys.filter_map(|key| self.at(key.slot));
        std::hint::black_box(records.fold(0, |sum: u32, record| sum ^ record.generation ^ u32::from(record.max_batch)));
    }

    pub(super) fn slot_of(&self, id: i64) -> Result<u32, CommandError> {
        let is_it = |slot: &u32| self.at(*slot).is_some_and(|subscriber| subscriber.id == id);
        let slot = self.ids.find(self.hasher.hash_one(id), is_it).copied();
        slot.ok_or(CommandError::SubscriptionNotFound { id })
    }

    fn known(&self, id: i64) -> Result<(u32, &Subscriber), CommandError> {
        let slot = self.slot_of(id)?;
        Ok((slot, &self.all[slot as usize]))
    }

    /// The key of a subscription, and its live group, 0 for none.
    pub(super) fn find(&self, id: i64) -> Result<(SubscriptionKey, u32), CommandError> {
        let (slot, subscriber) = self.known(id)?;
        let key = SubscriptionKey { slot, generation: subscriber.generation };
        Ok((key, subscriber.route.as_ref().map_or(0, |route| route.group)))
    }

    /// An id that no subscription has.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.slot_of(self.next_id).is_ok() {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Takes in one that is not open yet and costs so much; an `id` of 0 is chosen here.
    pub(super) fn add(
        &mut self,
        id: i64,
        spec: &SubscriptionSpec,
        cost: Cost,
    ) -> Result<(SubscriptionKey, i64), CommandError> {
        let id = if id == 0 { self.free_id() } else { id };
        if self.slot_of(id).is_ok() {
            return Err(CommandError::SubscriptionIdInUse { id });
        }
        let limit = self.most;
        if self.len() >= limit {
            return Err(CommandError::TooManySubscriptions { limit });
        }
        self.check_tokens(spec.filter_tokens())?;
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        if self.all.capacity() == 0 {
            // Most sessions have just one.
            self.all.reserve_exact(1);
        }
        // A session has fewer than 2^32 subscriptions at a time.
        let slot = self.all.insert(Subscriber::new(id, generation, spec, cost)) as u32;
        self.cost += cost.bytes();
        let Self { all, hasher, .. } = self;
        self.ids.insert_unique(hasher.hash_one(id), slot, |slot| {
            hasher.hash_one(all.get(*slot as usize).map_or(0, |subscriber| subscriber.id))
        });
        Ok((SubscriptionKey { slot, generation }, id))
    }

    /// Takes one out. Its tokens still count.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Subscriber> {
        let subscriber = self.all.try_remove(slot as usize)?;
        self.cost -= subscriber.cost.bytes();
        if let Ok(entry) = self.ids.find_entry(self.hasher.hash_one(subscriber.id), |other| *other == slot) {
            entry.remove();
        }
        Some(subscriber)
    }

    /// Filters of `new` tokens are in the place of others of `old`.
    pub(super) fn exchange_tokens(&mut self, old: u32, new: u32) {
        self.filter_tokens = self.filter_tokens + new as usize - old as usize;
    }

    /// Refuses filters of `tokens` more when the session may not have so many.
    fn check_tokens(&self, tokens: usize) -> Result<(), CommandError> {
        let limit = self.most_filter_tokens;
        let fits = self.filter_tokens + tokens <= limit;
        fits.then_some(()).ok_or(CommandError::TooManyFilterTokens { whole: "session", limit })
    }

    /// Refuses filters of `tokens` in place of those a subscription has when the session may not have so many.
    pub(super) fn check_update(&self, id: i64, tokens: usize) -> Result<(), CommandError> {
        let (_, subscriber) = self.known(id)?;
        let routed = subscriber.route.as_ref().map(|route| route.tokens.get());
        let old = routed.or(subscriber.unrouted_tokens()).unwrap_or_default() as usize;
        self.check_tokens(tokens.saturating_sub(old))
    }

    /// What a subscription costs, and what it would cost with other filters.
    pub(super) fn costs_of(&self, id: i64, new: &[Filter]) -> Result<(Cost, Cost), CommandError> {
        let (_, subscriber) = self.known(id)?;
        let in_group = subscriber.route.as_ref().is_some_and(|route| route.group != 0);
        Ok((subscriber.cost, Cost::of(new, subscriber.stored().is_some(), in_group)))
    }

    /// A subscription that is still there costs so much from now on.
    pub(super) fn set_cost(&mut self, id: i64, new: Cost) {
        if let Ok(slot) = self.slot_of(id) {
            let old = std::mem::replace(&mut self.all[slot as usize].cost, new);
            self.cost = self.cost + new.bytes() - old.bytes();
        }
    }

    /// The status of at most `most` subscriptions from slot `from` on, and where to go on; `None` when there are no more.
    pub(super) fn statuses(&self, from: usize, most: usize) -> (Vec<SubscriptionStatus>, Option<usize>) {
        let mut found = Vec::new();
        // Not through the slab's iterator: it would begin at the first slot each time.
        for slot in from..self.end_of_slots() {
            let Some(subscriber) = self.all.get(slot).filter(|subscriber| subscriber.open) else { continue };
            if found.len() == most {
                return (found, Some(slot));
            }
            // A session has fewer than 2^32 subscriptions at a time.
            found.push(subscriber.status(slot as u32));
        }
        (found, None)
    }
}
