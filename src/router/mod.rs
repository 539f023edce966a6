//! Who gets what: from a published event to the outboxes of all who want it.
//!
//! The room owns the routing table. Publishers read it through a sharded lock: each thread takes its own shard, so
//! publishers do not wait for one another, and a subscribe holds all shards while it changes one path of the trie
//! (docs/adr/0003). Only matching happens under that lock. Outboxes have their own locks; each is taken and woken once
//! for a run of events, however many of its subscriptions match. A publish of many matches lets others work in between.
//!
//! It never waits for a subscriber, never encodes, and knows no session beyond its outbox.

mod order;
mod table;
mod trie;

use std::sync::{Arc, PoisonError};

use crossbeam_utils::sync::ShardedLock;
use smallvec::SmallVec;

use crate::{
    model::{CommandError, Event, Filter, Group, Topic, filter_tokens},
    outbox::{Closed, Outbox, Route, SubscriptionKey},
};
use table::{Entry, Table};
pub(crate) use trie::{Descent, NodeId, Trie};

/// A publish is delivered in runs of at most this many events,
const RUN_EVENTS: usize = 256;
/// or as many as bring at least this many matches.
const RUN_MATCHES: usize = 1024;
/// So many events are looked up together.
const EVENTS_TOGETHER: usize = 32;
/// After so many offers, a millisecond or two, a publish lets others work.
const PAUSE_OFFERS: usize = 16_384;
/// A publisher keeps memory for this many matches.
const KEEP_MATCHES: usize = 2048;
/// So many members of a group are asked at most whether they would serve an event at once.
const ASK_AT_MOST: usize = 16;
/// At most this many subscriptions are forgotten under one hold of the lock.
const FORGET_AT_ONCE: usize = 256;

/// The routing table, shared by all sessions.
#[derive(Debug)]
pub struct Router {
    table: ShardedLock<Table>,
    max_filter_tokens: usize,
}

/// The number the router gives an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxId(u32);

/// One match of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    outbox: u32,
    event: u32,
    key: SubscriptionKey,
}

/// How much a publish has done since others could work. Not after every run: the longer subscribers are left asleep, the
/// more each gets at a time.
#[derive(Debug, Default)]
struct Work {
    offers: usize,
}

impl Work {
    async fn done(&mut self, offers: usize) {
        self.offers += offers;
        if self.offers >= PAUSE_OFFERS {
            self.offers = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// A group's candidates for one event: a range of [`Scratch::members`], and who is asked first.
#[derive(Debug)]
struct Draw {
    event: u32,
    members: std::ops::Range<usize>,
    first: usize,
}

/// Memory that a publisher keeps between publishes.
#[derive(Debug, Default)]
pub struct Scratch {
    matches: Vec<Match>,
    /// For [`order::by_outbox`].
    spare: Vec<Match>,
    counts: Vec<u32>,
    descent: Descent,
    /// Matches in groups: (event, group, match).
    members: Vec<(u32, u32, Match)>,
    draws: Vec<Draw>,
    outboxes: Vec<(u32, Arc<Outbox>)>,
    /// For each event of the last publish, how many subscriptions it went to; a group counts as one.
    pub matched: Vec<u64>,
}

impl Scratch {
    /// By outbox, then by event; and each subscription once, however many of its filters match.
    fn sort(&mut self) {
        order::by_outbox(&mut self.matches, &mut self.spare, &mut self.counts);
        self.matches.dedup();
        self.members.sort_unstable();
        self.members.dedup();
    }

    /// What one large publish needed is not kept for the next small one.
    fn shrink(&mut self) {
        self.matches.shrink_to(KEEP_MATCHES);
        self.spare.shrink_to(KEEP_MATCHES);
        self.counts.shrink_to(KEEP_MATCHES);
        self.members.shrink_to(KEEP_MATCHES);
        self.draws.shrink_to(KEEP_MATCHES);
        self.outboxes.shrink_to(KEEP_MATCHES);
        self.descent.shrink_to(KEEP_MATCHES);
    }
}

impl Router {
    /// A router without routes, for filters of at most `max_filter_tokens` tokens in all.
    pub fn new(max_filter_tokens: usize) -> Self {
        Self { table: ShardedLock::new(Table::new()), max_filter_tokens }
    }

    /// Makes an outbox known.
    pub fn join(&self, outbox: Arc<Outbox>) -> OutboxId {
        OutboxId(self.write(|table| table.add_outbox(outbox)))
    }

    /// Forgets an outbox, whose subscriptions are all forgotten already.
    pub fn leave(&self, outbox: OutboxId) {
        self.write(|table| table.remove_outbox(outbox.0));
    }

    /// Routes what matches `filters` to a subscription from now on.
    pub fn subscribe(
        &self,
        outbox: OutboxId,
        key: SubscriptionKey,
        filters: &[Filter],
        group: Option<&Group>,
    ) -> Result<Route, CommandError> {
        self.write(|table| {
            self.check_tokens(table, filters)?;
            let group = table.join_group(group);
            Ok(table.insert(filters, Entry { outbox: outbox.0, key, group }))
        })
    }

    /// Routes to a subscription that is already routed by other filters, too.
    pub fn resubscribe(
        &self,
        outbox: OutboxId,
        key: SubscriptionKey,
        filters: &[Filter],
        group: u32,
    ) -> Result<Route, CommandError> {
        self.write(|table| {
            self.check_tokens(table, filters)?;
            table.rejoin_group(group);
            Ok(table.insert(filters, Entry { outbox: outbox.0, key, group }))
        })
    }

    fn check_tokens(&self, table: &Table, filters: &[Filter]) -> Result<(), CommandError> {
        let limit = self.max_filter_tokens;
        let fits = table.filter_tokens() + filter_tokens(filters) <= limit;
        fits.then_some(()).ok_or(CommandError::TooManyFilterTokens { whole: "hub", limit })
    }

    /// Forgets the route a subscription had before it got `new`.
    pub fn forget_old(&self, outbox: OutboxId, key: SubscriptionKey, old: Route, new: &Route) {
        self.write(|table| table.remove(outbox.0, &Closed { key, route: old }, &new.nodes));
    }

    /// Forgets subscriptions that are over.
    pub fn forget(&self, outbox: OutboxId, closed: &[Closed]) {
        for some in closed.chunks(FORGET_AT_ONCE) {
            self.write(|table| some.iter().for_each(|closed| table.remove(outbox.0, closed, &[])));
        }
    }

    /// Hands events to everyone who wants them, in order. [`Scratch::matched`] tells how many each went to.
    pub async fn publish(&self, events: &[Event], scratch: &mut Scratch) {
        scratch.matched.clear();
        scratch.matched.resize(events.len(), 0);
        if self.is_empty() {
            return;
        }
        let (mut next, mut work) = (0, Work::default());
        while next < events.len() {
            next = self.find(events, next, scratch);
            scratch.sort();
            self.resolve(scratch);
            self.deliver(events, scratch, &mut work).await;
            self.draw(events, scratch, &mut work).await;
            scratch.outboxes.clear();
        }
        scratch.shrink();
    }

    /// True when nobody subscribes to anything, as on a hub that is used for its streams alone.
    fn is_empty(&self) -> bool {
        // A filter has a token at least.
        self.table.read().unwrap_or_else(PoisonError::into_inner).filter_tokens() == 0
    }

    /// Matches the next run of events. Tells where the one after it begins.
    fn find(&self, events: &[Event], from: usize, scratch: &mut Scratch) -> usize {
        let Scratch { matches, members, descent, .. } = scratch;
        matches.clear();
        members.clear();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut next = from;
        while next < events.len() && next - from < RUN_EVENTS && matches.len() + members.len() < RUN_MATCHES {
            let some = &events[next..(next + EVENTS_TOGETHER).min(events.len())];
            let topics: SmallVec<[Topic<'_>; EVENTS_TOGETHER]> = some.iter().map(|event| event.topic()).collect();
            let known = matches.len();
            table.matches(&topics, descent, |place, entry| {
                // A publish has fewer than 2^32 events: see `limits::MAX_PUBLISH_EVENTS`.
                let event = (next + place) as u32;
                let found = Match { outbox: entry.outbox, event, key: entry.key };
                if entry.in_group() {
                    members.push((event, entry.group, found));
                } else {
                    matches.push(found);
                }
            });
            let new = &mut matches[known..];
            if !new.is_sorted_by_key(|found| found.event) {
                new.sort_by_key(|found| found.event);
            }
            next += some.len();
        }
        next
    }

    /// Looks up the outboxes of the matches, and whose turn it is in each group. An outbox that left since, or whose
    /// number another has now, does no harm: its keys mean nothing there.
    fn resolve(&self, scratch: &mut Scratch) {
        let Scratch { matches, members, draws, outboxes, .. } = scratch;
        draws.clear();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut start = 0;
        for run in members.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (event, group, _) = run[0];
            let first = table.turn(group, run.len());
            draws.push(Draw { event, members: start..start + run.len(), first });
            start += run.len();
        }
        for found in matches.iter().chain(members.iter().map(|(_, _, found)| found)) {
            if outboxes.last().is_none_or(|(id, _)| *id != found.outbox)
                && let Some(outbox) = table.outbox(found.outbox)
            {
                outboxes.push((found.outbox, Arc::clone(outbox)));
            }
        }
        drop(table);
        outboxes.sort_unstable_by_key(|(id, _)| *id);
        outboxes.dedup_by_key(|(id, _)| *id);
    }

    async fn deliver(&self, events: &[Event], scratch: &mut Scratch, work: &mut Work) {
        let Scratch { matches, outboxes, matched, .. } = scratch;
        for of_one in matches.chunk_by(|a, b| a.outbox == b.outbox) {
            let Some(outbox) = outbox_of(outboxes, of_one[0].outbox) else { continue };
            for some in of_one.chunks(RUN_MATCHES) {
                let offers = some.iter().map(|found| {
                    let event = found.event as usize;
                    (found.key, &events[event], event)
                });
                let closed = outbox.offer(offers, |event| matched[event] += 1);
                self.forget(OutboxId(of_one[0].outbox), &closed);
                work.done(some.len()).await;
            }
        }
    }

    /// Gives each event to one member of each of its groups: to the next in turn that would be served at once, or,
    /// where none of those asked would, to the next in turn.
    async fn draw(&self, events: &[Event], scratch: &mut Scratch, work: &mut Work) {
        let Scratch { members, draws, outboxes, matched, .. } = scratch;
        for draw in draws.iter() {
            let event = &events[draw.event as usize];
            let candidates = &members[draw.members.clone()];
            let in_turn = || candidates[draw.first..].iter().chain(&candidates[..draw.first]).map(|(_, _, m)| m);
            let mut asked = 0;
            let served = in_turn().take(ASK_AT_MOST).any(|member| {
                asked += 1;
                outbox_of(outboxes, member.outbox).is_some_and(|outbox| outbox.offer_if_served(member.key, event))
            });
            let taken = served
                || in_turn().any(|member| {
                    asked += 1;
                    let Some(outbox) = outbox_of(outboxes, member.outbox) else { return false };
                    let mut taken = false;
                    let closed = outbox.offer(std::iter::once((member.key, event, ())), |()| taken = true);
                    self.forget(OutboxId(member.outbox), &closed);
                    taken
                });
            matched[draw.event as usize] += u64::from(taken);
            work.done(asked).await;
        }
    }

    fn write<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn outbox_of(outboxes: &[(u32, Arc<Outbox>)], id: u32) -> Option<&Arc<Outbox>> {
    outboxes.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| &outboxes[at].1)
}
