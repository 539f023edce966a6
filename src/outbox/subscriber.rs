//! One subscription as the outbox sees it: credit, queue, counts, and what it does when its queue is full. Pure.

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    attention::SubscriptionKey,
    cost::Cost,
    credit::Credit,
    frame::{Frame, Gap, GapReason, Opened, Reply, Subscribed},
    pool::{NodeId, Pool, Queue},
    route::Route,
    status::{Place, SubscriptionStatus},
    stored::{Member, Room, Stored},
};
use crate::{
    event::Event,
    model::{Grant, Overflow, Position, SubscriptionSpec, limits},
};

/// What is dropped next is fetched for so many events together.
const FETCH_TOGETHER: u32 = 32;
/// An empty table of topics keeps room for this many.
const KEEP_TOPICS: usize = 64;
/// No subscription asks for no more than so many events, and none is ever sent as many.
const NO_LIMIT: u64 = 1 << 63;

/// One subscription, in 112 bytes with its route: a million of them fit one session.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) id: i64,
    pub(super) generation: u32,
    pub(super) credit: Credit,
    pub(super) queue: Queue,
    overflow: Overflow,
    extra: Option<Box<Extra>>,
    /// Events dropped since the last gap frame.
    dropped: u32,
    /// Events replaced by later ones since the last gap frame.
    conflated: u32,
    /// How many events may still be sent; from [`NO_LIMIT`] on it is no limit, and counts what was sent.
    pub(super) events_left: u64,
    /// At most [`limits::MAX_BATCH_EVENTS`].
    pub(super) max_batch: u16,
    pub(super) cost: Cost,
    /// What the fair writer owes it (or, below 0, has sent ahead of its turn), in bytes.
    pub(super) deficit: i32,
    /// True while it stands in the fair writer's round.
    pub(super) ready: bool,
    /// `None` until the router has it, and again once the router is to forget it.
    pub(super) route: Option<Route>,
    /// How it stood when the counts were last brought up to it.
    pub(super) noted: Noted,
    /// False until `subscribed` was queued: no event may overtake that frame.
    pub(super) open: bool,
}

/// How a subscription stands, as far as operators watch it. In one byte: there may be a million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Noted(u8);

impl Noted {
    fn new(credit_blocked: bool, behind: bool) -> Self {
        Self(u8::from(credit_blocked) | (u8::from(behind) << 1))
    }

    /// Something is there for it, and its client gave no credit for it.
    pub(super) fn credit_blocked(self) -> bool {
        self.0 & 1 != 0
    }

    /// It reads a stream and does not have all that it has.
    pub(super) fn behind(self) -> bool {
        self.0 & 2 != 0
    }
}

/// What only few subscriptions have.
#[derive(Debug)]
enum Extra {
    /// For [`Overflow::Conflate`]: where the event of each topic waits.
    Topics(HashTable<NodeId>),
    /// For one from a stream.
    Stored(Stored),
    /// For a member of a group on a stream.
    Member(Member),
}

impl Subscriber {
    pub(super) fn new(id: i64, generation: u32, spec: &SubscriptionSpec, cost: Cost) -> Self {
        Self {
            id,
            generation,
            credit: Credit::new(spec.credit),
            queue: Queue::EMPTY,
            overflow: spec.overflow,
            extra: (spec.stream.is_none() && spec.overflow == Overflow::Conflate)
                .then(|| Box::new(Extra::Topics(HashTable::new()))),
            dropped: 0,
            conflated: 0,
            events_left: spec.max_events.unwrap_or(u64::MAX),
            max_batch: u16::try_from(spec.max_batch).unwrap_or(u16::MAX),
            cost,
            deficit: 0,
            ready: false,
            route: None,
            noted: Noted::default(),
            open: false,
        }
    }

    /// True when the fair writer has something to send for it: events for which there is credit, or a gap, which needs
    /// none, with no events behind it.
    pub(super) fn sendable(&self) -> bool {
        let something = if self.queue.is_empty() {
            self.dropped > 0 || self.conflated > 0 || self.stored().is_some_and(Stored::has_news)
        } else {
            self.credit.may_send()
        };
        self.open && (something || self.member().is_some_and(Member::has_gap))
    }

    /// True when one more event would be sent at once, as far as credit goes.
    pub(super) fn would_serve(&self) -> bool {
        let (events, bytes) = (self.queue.len(), self.queue.bytes());
        self.open
            && events < limits::AUTOMATIC_CREDIT_EVENTS as usize
            && (events as u64) < self.events_left
            && self.credit.covers_more_than(events, bytes)
    }

    pub(super) fn ends_when_full(&self) -> bool {
        self.overflow == Overflow::End && self.stored().is_none() && self.member().is_none()
    }

    pub(super) fn conflates(&self) -> bool {
        matches!(self.extra.as_deref(), Some(Extra::Topics(_)))
    }

    /// Makes it one from a stream.
    pub(super) fn store(&mut self, stored: Stored) {
        self.extra = Some(Box::new(Extra::Stored(stored)));
    }

    pub(super) fn stored(&self) -> Option<&Stored> {
        if let Some(Extra::Stored(stored)) = self.extra.as_deref() { Some(stored) } else { None }
    }

    pub(super) fn stored_mut(&mut self) -> Option<&mut Stored> {
        if let Some(Extra::Stored(stored)) = self.extra.as_deref_mut() { Some(stored) } else { None }
    }

    /// Makes it a member of a group on a stream.
    pub(super) fn enlist(&mut self, member: Member) {
        self.extra = Some(Box::new(Extra::Member(member)));
    }

    pub(super) fn member(&self) -> Option<&Member> {
        if let Some(Extra::Member(member)) = self.extra.as_deref() { Some(member) } else { None }
    }

    pub(super) fn member_mut(&mut self) -> Option<&mut Member> {
        if let Some(Extra::Member(member)) = self.extra.as_deref_mut() { Some(member) } else { None }
    }

    /// The tokens of the filters of one that the router does not know.
    pub(super) fn unrouted_tokens(&self) -> Option<u32> {
        let wanted = self.stored().map(|stored| &stored.wanted).or(self.member().map(|member| &member.wanted));
        wanted.map(|wanted| wanted.tokens)
    }

    /// How much may be put into its queue, if others than the router fill it.
    pub(super) fn room(&self) -> Option<Room> {
        let (events, bytes) = (self.queue.len(), self.queue.bytes());
        let of_member = self.member().map(|_| Member::room(events, bytes));
        self.stored().map(|stored| stored.room(events, bytes)).or(of_member)
    }

    /// Says whether who fills it knows that it is hungry.
    pub(super) fn set_hungry(&mut self, hungry: bool) {
        match self.extra.as_deref_mut() {
            Some(Extra::Stored(stored)) => stored.hungry = hungry,
            Some(Extra::Member(member)) => member.hungry = hungry,
            _ => {}
        }
    }

    /// How far it came in its stream.
    pub(super) fn position(&self) -> Option<Position> {
        self.stored().map(Stored::position)
    }

    /// True when a subscription from a stream is to be filled and its session does not know it yet.
    pub(super) fn grows_hungry(&self) -> bool {
        let (events, bytes) = (self.queue.len(), self.queue.bytes());
        let low = match self.extra.as_deref() {
            Some(Extra::Stored(stored)) => !stored.hungry && !stored.following && stored.is_low(events, bytes),
            Some(Extra::Member(member)) => !member.hungry && Member::is_low(events, bytes),
            _ => false,
        };
        self.open && low && (events as u64) < self.events_left && self.credit.covers_more_than(events, bytes)
    }

    /// True when it is over as soon as its last event is sent; its group ends one that acknowledges.
    pub(super) fn ends_when_sent(&self) -> bool {
        self.member().is_none_or(|member| !member.acknowledges)
    }

    /// What its client is told when it opens or gets new filters; `opened` for one from a stream.
    pub(super) fn subscribed(&self, opened: Option<Opened>) -> Subscribed {
        let paced = self.credit.is_automatic() && self.member().is_some_and(|member| member.acknowledges);
        let window = Grant { events: limits::AUTOMATIC_MEMBER_EVENTS, bytes: limits::AUTOMATIC_CREDIT_BYTES };
        Subscribed {
            subscription_id: self.id,
            opened: opened.map(Box::new),
            credit: if paced { window } else { self.credit.held() },
            automatic_credit: self.credit.is_automatic(),
        }
    }

    /// How it stands now.
    pub(super) fn stands(&self) -> Noted {
        let behind = self.open && self.stored().is_some_and(|stored| !stored.caught_up());
        let something = behind || !self.queue.is_empty();
        Noted::new(self.open && something && !self.credit.may_send(), behind)
    }

    /// How many events may still be sent; `None` for one that may have any number.
    fn limit_left(&self) -> Option<u64> {
        (self.events_left < NO_LIMIT).then_some(self.events_left)
    }

    /// What it gets, and how far it has come.
    fn place(&self) -> Place {
        match self.extra.as_deref() {
            Some(Extra::Stored(stored)) => {
                Place::Stream { position: stored.position(), filters: Arc::clone(&stored.wanted.filters) }
            }
            Some(Extra::Member(member)) => {
                Place::Member { joined: member.joined.clone(), filters: Arc::clone(&member.wanted.filters) }
            }
            Some(Extra::Topics(_)) | None => Place::Live(self.route.clone()),
        }
    }

    /// How it stands now, for a list.
    pub(super) fn status(&self, slot: u32) -> SubscriptionStatus {
        let events_left = self.limit_left();
        SubscriptionStatus {
            key: SubscriptionKey { slot, generation: self.generation },
            subscription_id: self.id,
            waiting_events: self.queue.len(),
            waiting_bytes: self.queue.bytes(),
            credit: (!self.credit.is_automatic()).then(|| self.credit.held()),
            credit_blocked: self.stands().credit_blocked(),
            sent_events: events_left.is_none().then(|| u64::MAX - self.events_left),
            events_left,
            place: self.place(),
        }
    }

    /// True when one more event of `bytes` would not fit.
    pub(super) fn is_full_for(&self, bytes: usize, max_events: usize, max_bytes: usize) -> bool {
        let fits = self.queue.len() < max_events && self.queue.bytes() + bytes <= max_bytes;
        !fits && !self.queue.is_empty()
    }

    /// Queues an event; with conflation, in the place of the one of the same topic that waits.
    pub(super) fn push(&mut self, event: Event, pool: &mut Pool, hasher: &DefaultHashBuilder) {
        let Some(Extra::Topics(topics)) = self.extra.as_deref_mut() else {
            pool.push(&mut self.queue, event);
            return;
        };
        let topic = event.topic();
        let hash = hasher.hash_one(topic);
        let same = topics.find(hash, |id| pool.get(*id).is_some_and(|waiting| waiting.topic() == topic));
        if let Some(id) = same.copied() {
            pool.replace(&mut self.queue, id, event);
            self.conflated = self.conflated.saturating_add(1);
        } else {
            let id = pool.push(&mut self.queue, event);
            topics.insert_unique(hash, id, |id| hash_at(*id, pool, hasher));
        }
    }

    /// The size of the oldest event.
    pub(super) fn next_bytes(&self, pool: &Pool) -> Option<usize> {
        Some(pool.get(self.queue.head()?)?.encoded_len())
    }

    /// Takes the oldest event.
    pub(super) fn pop(&mut self, pool: &mut Pool, hasher: &DefaultHashBuilder) -> Option<Event> {
        if let (Some(Extra::Topics(topics)), Some(head)) = (self.extra.as_deref_mut(), self.queue.head())
            && let Ok(entry) = topics.find_entry(hash_at(head, pool, hasher), |id| *id == head)
        {
            entry.remove();
        }
        let event = pool.pop(&mut self.queue);
        let others = !self.queue.is_empty();
        if let (Some(stored), Some(event)) = (self.stored_mut(), &event) {
            stored.left(event.sequence(), others);
        }
        self.give_back_table();
        event
    }

    /// Drops the oldest event, to be told by the next gap frame.
    pub(super) fn drop_oldest(&mut self, pool: &mut Pool, hasher: &DefaultHashBuilder) {
        if self.dropped.is_multiple_of(FETCH_TOGETHER) {
            pool.fetch(self.queue, FETCH_TOGETHER as usize);
        }
        if self.pop(pool, hasher).is_some() {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Drops all that waits, to be told by the next gap frame; `and_more` that never came to wait are counted too.
    pub(super) fn drop_all(&mut self, and_more: usize, pool: &mut Pool) {
        let lost = u32::try_from(self.queue.len() + and_more).unwrap_or(u32::MAX);
        self.dropped = self.dropped.saturating_add(lost);
        self.clear(pool);
    }

    /// Forgets all that waits, without a word.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        pool.clear(&mut self.queue);
        if let Some(Extra::Topics(topics)) = self.extra.as_deref_mut() {
            topics.clear();
        }
        self.give_back_table();
    }

    /// A table that is empty gives its memory back when it has room for many topics.
    fn give_back_table(&mut self) {
        if let Some(Extra::Topics(topics)) = self.extra.as_deref_mut()
            && topics.is_empty()
            && topics.capacity() > KEEP_TOPICS
        {
            *topics = HashTable::new();
        }
    }

    /// What one from a stream has to tell once nothing waits: a gap, then how far it came.
    pub(super) fn take_news(&mut self) -> impl Iterator<Item = Reply> + use<> {
        let (id, empty) = (self.id, self.queue.is_empty());
        let stored = self.stored_mut().filter(|_| empty);
        let (gap, progress) = stored.map_or((None, None), |stored| {
            let gap = stored.take_gap();
            (gap, stored.take_progress().then(|| (stored.position(), stored.latest())))
        });
        let gap = gap.map(|gap| Frame::Gap { subscription_id: id, gap });
        let progress = progress.map(|(position, latest)| Frame::Progress { subscription_id: id, position, latest });
        [gap, progress].into_iter().flatten().map(|frame| Reply { request_id: 0, frame })
    }

    /// The gap frames that are due, which are then no longer due.
    pub(super) fn take_gaps(&mut self) -> impl Iterator<Item = Reply> + use<> {
        let id = self.id;
        let lost = self.member_mut().and_then(Member::take_gap);
        let dropped = (std::mem::take(&mut self.dropped), GapReason::Overflow);
        let conflated = (std::mem::take(&mut self.conflated), GapReason::Conflated);
        let live = [dropped, conflated].into_iter().filter(|(count, _)| *count > 0);
        let live = live.map(|(count, reason)| Gap { count: count.into(), sequences: (0, 0), reason });
        live.chain(lost).map(move |gap| Reply { request_id: 0, frame: Frame::Gap { subscription_id: id, gap } })
    }
}

const _: () = assert!(size_of::<Subscriber>() <= 112);

fn hash_at(id: NodeId, pool: &Pool, hasher: &DefaultHashBuilder) -> u64 {
    pool.get(id).map_or(0, |event| hasher.hash_one(event.topic()))
}
