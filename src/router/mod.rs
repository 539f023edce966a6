//! Who gets what: from a published event to the outboxes of all who want it.
//!
//! The room owns the routing table. Publishers read it through a sharded lock: each thread takes its own shard, so
//! publishers do not wait for one another, and a subscribe holds all shards while it changes some paths of the trie
//! (docs/adr/0003). Only matching happens under that lock. Outboxes have their own locks; each is taken and woken once
//! for a run of events, however many of its subscriptions match.
//!
//! No client makes others wait: filters are refused that would make a topic take too many steps ([`shapes`]), no hold of the
//! lock has more than some thousand steps besides the matches of one event, and between holds others work.
//!
//! It never waits for a subscriber, never encodes, and knows no session beyond its outbox.

mod order;
mod shapes;
mod table;
mod trie;

use std::sync::PoisonError;

use crossbeam_utils::sync::ShardedLock;
use smallvec::SmallVec;

use crate::{
    event::Event,
    model::{CommandError, Filter, Group, Topic},
    outbox::{Closed, Inlet, Route, SubscriptionKey},
    tasks::Turn,
};
use order::Match;
use shapes::TOPICS_TOGETHER;
pub(crate) use shapes::{Shape, Shapes};
pub use table::Limits;
use table::{Entry, Table};
pub(crate) use trie::{Descent, NodeId, Trie};

/// A publish is delivered in runs of at most this many events,
const RUN_EVENTS: usize = 256;
/// or as many as bring at least this many matches.
const RUN_MATCHES: usize = 1024;
/// or take at least this many visits to nodes.
const RUN_VISITS: usize = 8192;
/// The events that are looked up together bring at least so many matches at most: then the lock is left.
const MATCHES_TOGETHER: usize = 16_384;
/// So many events of one topic that follow each other are looked up once, and are a run by themselves.
const LOOKED_UP_ONCE: usize = 16;
/// A node that is visited for a topic beside others is a quarter of a step,
const NODES_A_STEP: usize = 4;
/// and an offer half of one.
const OFFERS_A_STEP: usize = 2;
/// About so many steps of a change are done under one hold of the lock.
const CHANGE_STEPS: usize = 1024;
/// What a token costs that is inserted.
const INSERT_STEPS: usize = 2;
/// A publisher keeps memory for this many matches.
const KEEP_MATCHES: usize = 2048;
/// So many members of a group are asked at most whether they would serve an event at once.
const ASK_AT_MOST: usize = 16;

/// The routing table, shared by all sessions.
#[derive(Debug)]
pub struct Router {
    table: ShardedLock<Table>,
    limits: Limits,
}

/// The number the router gives an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxId(u32);

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
    outboxes: Vec<(u32, Inlet)>,
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
    /// A router without routes.
    pub fn new(limits: Limits) -> Self {
        Self { table: ShardedLock::new(Table::new()), limits }
    }

    /// Makes an outbox known.
    pub fn join(&self, outbox: Inlet) -> OutboxId {
        OutboxId(self.write(|table| table.add_outbox(outbox)))
    }

    /// Forgets an outbox, whose subscriptions are all forgotten already.
    pub fn leave(&self, outbox: OutboxId) {
        self.write(|table| table.remove_outbox(outbox.0));
    }

    /// Routes what matches `filters` to a subscription from now on. Others work meanwhile.
    pub async fn subscribe(
        &self,
        outbox: OutboxId,
        key: SubscriptionKey,
        filters: &[Filter],
        group: Option<&Group>,
    ) -> Result<Route, CommandError> {
        let route = self.write(|table| {
            let mut route = table.admit(filters, outbox.0, &self.limits)?;
            route.group = table.join_group(group);
            Ok::<_, CommandError>(route)
        })?;
        Ok(Making { router: self, outbox, key, left: filters, route, made: false }.finish().await)
    }

    /// Routes to a subscription that is already routed by other filters, too.
    pub async fn resubscribe(
        &self,
        outbox: OutboxId,
        key: SubscriptionKey,
        filters: &[Filter],
        group: u32,
    ) -> Result<Route, CommandError> {
        let route = self.write(|table| {
            let mut route = table.admit(filters, outbox.0, &self.limits)?;
            route.group = group;
            table.rejoin_group(group);
            Ok::<_, CommandError>(route)
        })?;
        Ok(Making { router: self, outbox, key, left: filters, route, made: false }.finish().await)
    }

    /// Forgets the route a subscription had before it got `new`.
    pub async fn forget_old(&self, outbox: OutboxId, key: SubscriptionKey, old: Route, new: &Route) {
        Forgetting { router: self, outbox, closed: vec![Closed { key, route: old }], keep: &new.nodes }.finish().await;
    }

    /// Forgets subscriptions that are over. Others work meanwhile; what is left is forgotten at once if whoever waits gives
    /// up.
    pub async fn forget(&self, outbox: OutboxId, closed: Vec<Closed>) {
        if !closed.is_empty() {
            Forgetting { router: self, outbox, closed, keep: &[] }.finish().await;
        }
    }

    /// The same for who cannot wait.
    pub fn forget_at_once(&self, outbox: OutboxId, closed: Vec<Closed>) {
        drop(Forgetting { router: self, outbox, closed, keep: &[] });
    }

    /// The filters of a subscription and its group, as they were asked for; nothing when it is forgotten already.
    pub fn describe(&self, outbox: OutboxId, key: SubscriptionKey, route: &Route) -> (Vec<String>, Option<Group>) {
        self.table.read().unwrap_or_else(PoisonError::into_inner).describe(outbox.0, key, route)
    }

    /// Hands events to everyone who wants them, in order. [`Scratch::matched`] tells how many each went to.
    pub async fn publish(&self, events: &[Event], scratch: &mut Scratch) {
        scratch.matched.clear();
        scratch.matched.resize(events.len(), 0);
        if self.is_empty() {
            return;
        }
        let (mut next, mut turn) = (0, Turn::default());
        while next < events.len() {
            let visits;
            (next, visits) = self.find(events, next, scratch);
            scratch.sort();
            self.resolve(scratch);
            turn.spend(visits.div_ceil(NODES_A_STEP)).await;
            self.deliver(events, scratch, &mut turn).await;
            self.draw(events, scratch, &mut turn).await;
            scratch.outboxes.clear();
        }
        scratch.shrink();
    }

    /// True when nobody subscribes to anything, as on a hub that is used for its streams alone.
    fn is_empty(&self) -> bool {
        // A filter has a token at least.
        self.table.read().unwrap_or_else(PoisonError::into_inner).filter_tokens() == 0
    }

    /// Matches the next run of events. Tells where the one after it begins, and how many nodes and entries it visited.
    fn find(&self, events: &[Event], from: usize, scratch: &mut Scratch) -> (usize, usize) {
        let Scratch { matches, members, descent, .. } = scratch;
        matches.clear();
        members.clear();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let alike = alike(&events[from..]);
        let together = if alike >= LOOKED_UP_ONCE { 1 } else { table.topics_together() };
        let (mut next, mut visits) = (from, 0);
        while next < events.len()
            && next - from < RUN_EVENTS
            && matches.len() + members.len() < RUN_MATCHES
            && visits < RUN_VISITS
        {
            let some = &events[next..(next + together).min(events.len())];
            let topics: SmallVec<[Topic<'_>; TOPICS_TOGETHER]> = some.iter().map(|event| event.topic()).collect();
            let matched = table.matches(&topics, descent, MATCHES_TOGETHER, |place, entry| {
                // A publish has fewer than 2^32 events: see `limits::MAX_PUBLISH_EVENTS`.
                let event = (next + place) as u32;
                let found = Match { outbox: entry.outbox, event, key: entry.key };
                if entry.in_group() {
                    members.push((event, entry.group, found));
                } else {
                    matches.push(found);
                }
            });
            next += matched.topics;
            visits += matched.steps;
            if alike >= LOOKED_UP_ONCE {
                return (from + repeat(matches, members, alike), visits);
            }
        }
        (next, visits)
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
                outboxes.push((found.outbox, outbox.clone()));
            }
        }
        drop(table);
        outboxes.sort_unstable_by_key(|(id, _)| *id);
        outboxes.dedup_by_key(|(id, _)| *id);
    }

    async fn deliver(&self, events: &[Event], scratch: &mut Scratch, turn: &mut Turn) {
        let Scratch { matches, outboxes, matched, .. } = scratch;
        for of_one in matches.chunk_by(|a, b| a.outbox == b.outbox) {
            let Some(outbox) = outbox_of(outboxes, of_one[0].outbox) else { continue };
            for some in of_one.chunks(RUN_MATCHES) {
                let offers = some.iter().map(|found| {
                    let event = found.event as usize;
                    (found.key, &events[event], event)
                });
                let closed = outbox.offer(offers, |event| matched[event] += 1);
                self.forget(OutboxId(of_one[0].outbox), closed).await;
                turn.spend(some.len().div_ceil(OFFERS_A_STEP)).await;
            }
        }
    }

    /// Gives each event to one member of each of its groups: to the next in turn that would be served at once, or,
    /// where none of those asked would, to the next in turn.
    async fn draw(&self, events: &[Event], scratch: &mut Scratch, turn: &mut Turn) {
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
                    self.forget_at_once(OutboxId(member.outbox), closed);
                    taken
                });
            matched[draw.event as usize] += u64::from(taken);
            turn.spend(asked).await;
        }
    }

    fn write<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many of the first events have the same topic.
fn alike(events: &[Event]) -> usize {
    let first = events.first().map(Event::topic);
    events.iter().take(RUN_EVENTS).take_while(|event| Some(event.topic()) == first).count()
}

/// Gives what was found for one event to those behind it of the same topic too: to as many of `alike` as a run may bring. Tells
/// how many that are with the first.
fn repeat(matches: &mut Vec<Match>, members: &mut Vec<(u32, u32, Match)>, alike: usize) -> usize {
    let (of_one, in_groups) = (matches.len(), members.len());
    let many = alike.min(RUN_MATCHES / (of_one + in_groups).max(1)).max(1);
    for further in 1..many as u32 {
        for at in 0..of_one {
            let found = matches[at];
            matches.push(Match { event: found.event + further, ..found });
        }
        for at in 0..in_groups {
            let (event, group, found) = members[at];
            let event = event + further;
            members.push((event, group, Match { event, ..found }));
        }
    }
    many
}

/// A route that is being made. What there is of it is forgotten if whoever makes it gives up.
struct Making<'a> {
    router: &'a Router,
    outbox: OutboxId,
    key: SubscriptionKey,
    /// Filters that are not in the trie yet.
    left: &'a [Filter],
    route: Route,
    made: bool,
}

impl Making<'_> {
    async fn finish(mut self) -> Route {
        let mut turn = Turn::default();
        while !self.left.is_empty() {
            turn.spend(self.some()).await;
        }
        self.made = true;
        self.take_route()
    }

    fn take_route(&mut self) -> Route {
        let Route { nodes, group, tokens } = &mut self.route;
        Route { nodes: std::mem::take(nodes), group: *group, tokens: *tokens }
    }

    /// Inserts some filters under one hold of the lock. Tells how many steps that were.
    fn some(&mut self) -> usize {
        let Self { router, outbox, key, left, route, .. } = self;
        let (mut count, mut steps) = (0, 0);
        while let Some(filter) = left.get(count).filter(|_| steps < CHANGE_STEPS) {
            count += 1;
            steps += INSERT_STEPS * filter.tokens().count();
        }
        let (some, rest) = left.split_at(count);
        let entry = Entry { outbox: outbox.0, key: *key, group: route.group };
        router.write(|table| table.insert(some, entry, route));
        *left = rest;
        steps
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if !self.made {
            self.router.write(|table| table.give_back(self.outbox.0, self.left));
            let closed = Closed { key: self.key, route: self.take_route() };
            self.router.forget_at_once(self.outbox, vec![closed]);
        }
    }
}

/// Routes that are being forgotten. If whoever does that gives up, it is done at once.
struct Forgetting<'a> {
    router: &'a Router,
    outbox: OutboxId,
    closed: Vec<Closed>,
    /// What else the subscription needs.
    keep: &'a [NodeId],
}

impl Forgetting<'_> {
    async fn finish(mut self) {
        let mut turn = Turn::default();
        while !self.closed.is_empty() {
            turn.spend(self.some()).await;
        }
    }

    /// Forgets some under one hold of the lock. Tells how many steps that were.
    fn some(&mut self) -> usize {
        let Self { router, outbox, closed, keep } = self;
        router.write(|table| {
            let mut steps = 0;
            while let Some(last) = closed.last_mut().filter(|_| steps < CHANGE_STEPS) {
                let (done, more) = table.remove(outbox.0, last, keep, CHANGE_STEPS - steps);
                steps += done;
                if !more {
                    closed.pop();
                }
            }
            steps
        })
    }
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        while !self.closed.is_empty() {
            self.some();
        }
    }
}

fn outbox_of(outboxes: &[(u32, Inlet)], id: u32) -> Option<&Inlet> {
    outboxes.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| &outboxes[at].1)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        future::Future as _,
        pin::pin,
        sync::Arc,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::{Span, Spans},
        outbox::{Allowances, Budget, Desk, Outbox, SessionLimits},
    };

    const LIMITS: Limits = Limits { filter_tokens: 100_000, hub_filter_shapes: 40, session_filter_shapes: 20 };
    /// Shapes that are never refused.
    const SIMPLE: usize = 1026;

    fn event(topic: &str) -> Event {
        let len = u16::try_from(topic.len()).expect("a short topic");
        let spans = Spans { topic: Span { start: 0, len }, ..Spans::default() };
        Event::new(topic.as_bytes().to_vec().into(), spans, 0).expect("an event")
    }

    fn filters(texts: impl IntoIterator<Item = String>) -> Vec<Filter> {
        texts.into_iter().map(|text| Filter::parse(text.as_bytes()).expect("a filter")).collect()
    }

    fn join(router: &Router) -> OutboxId {
        let limits = SessionLimits {
            max_event_bytes: 1000,
            max_subscriptions: 1000,
            max_filter_tokens: 1000,
            queue_events: 10,
            queue_bytes: 1000,
        };
        let now = tokio::time::Instant::now();
        let budget = Arc::new(Budget::new(10_000, 10_000));
        let outbox = Outbox::new(limits, Duration::from_secs(15), false, budget, Allowances::default(), None, now);
        router.join(Desk::new(Arc::new(outbox)).inlet())
    }

    fn key(slot: u32) -> SubscriptionKey {
        SubscriptionKey { slot, generation: 0 }
    }

    /// The worst there is: each combination of `a` and `*`, and then what no topic has.
    fn combinations(tokens: u32) -> Vec<Filter> {
        filters((0..1_u32 << tokens).map(|way| {
            let token = |n: u32| if way >> n & 1 == 1 { "*." } else { "a." };
            (0..tokens).map(token).collect::<String>() + "z"
        }))
    }

    /// Filters of nine tokens, each of which has one shape that counts and that no other has.
    fn one_shape_each() -> impl Iterator<Item = Vec<Filter>> {
        (0..512_u32).filter(|stars| stars.count_ones() > 1).map(|stars| {
            let token = |n: u32| if stars >> n & 1 == 1 { "*" } else { "a" };
            filters([(0..9).map(token).collect::<Vec<_>>().join(".")])
        })
    }

    #[tokio::test]
    async fn as_many_shapes_as_the_limits_say_fit_and_no_more() {
        let router = Router::new(LIMITS);
        let (mut each, outboxes) = (one_shape_each(), [join(&router), join(&router), join(&router)]);
        let mut next = || each.next().expect("hundreds");
        let (mut routes, first) = (Vec::new(), next());
        for outbox in &outboxes[..2] {
            let new: Vec<_> = (1..20).map(|_| next()).collect();
            for (slot, some) in (0..).zip([&first].into_iter().chain(&new)) {
                routes.push(router.subscribe(*outbox, key(slot), some, None).await.expect("at the limit"));
            }
            let refused = router.subscribe(*outbox, key(20), &next(), None).await;
            assert_eq!(refused, Err(CommandError::TooManyFilterShapes { whole: "session", limit: 20 }), "one past");
            router.subscribe(*outbox, key(20), &first, None).await.expect("the shape is there already");
        }
        // The first is one of both: 39 of 40.
        let [_, other, third] = outboxes;
        router.subscribe(third, key(0), &next(), None).await.expect("at the limit");
        let last = next();
        let refused = router.subscribe(third, key(1), &last, None).await;
        assert_eq!(refused, Err(CommandError::TooManyFilterShapes { whole: "hub", limit: 40 }), "one past");
        let simple = filters(["*.*.*.*.*.*.*.>".to_owned(), format!("{}*.b", "a.".repeat(20))]);
        router.subscribe(third, key(1), &simple, None).await.expect("they do not count");
        router.forget(other, vec![Closed { key: key(19), route: routes.pop().expect("the last") }]).await;
        router.subscribe(third, key(2), &last, None).await.expect("room again");
    }

    #[tokio::test]
    async fn what_is_half_made_or_half_forgotten_is_forgotten() {
        let router = Router::new(Limits::default());
        let outbox = join(&router);
        let many = filters((0..256).map(|n| format!("{}.{n}", ["a"; 31].join("."))));
        for polls in 1..4 {
            let mut subscribe = Box::pin(router.subscribe(outbox, key(0), &many, None));
            for _ in 0..polls {
                let polled = subscribe.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending(), "it is not done in one turn");
            }
            drop(subscribe);
            assert!(router.is_empty(), "after {polls} polls");
            tokio::task::yield_now().await;
        }
        let route = router.subscribe(outbox, key(0), &many, None).await.expect("room");
        tokio::task::yield_now().await;
        let mut forget = Box::pin(router.forget(outbox, vec![Closed { key: key(0), route }]));
        assert!(forget.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "not in one turn");
        assert!(!router.is_empty());
        drop(forget);
        assert!(router.is_empty());
        router.write(|table| assert!(table.is_bare()));
    }

    #[tokio::test]
    async fn the_worst_filters_that_are_accepted_cost_an_event_a_bounded_number_of_steps() {
        let router = Router::new(Limits::default());
        let outboxes: Vec<OutboxId> = (0..20).map(|_| join(&router)).collect();
        for (slot, some) in combinations(12).chunks(256).enumerate() {
            // Those that are refused try what is left.
            router.subscribe(outboxes[slot % 20], key(slot as u32), some, None).await.ok();
        }
        for (slot, some) in combinations(8).chunks(256).enumerate() {
            router
                .subscribe(outboxes[slot % 20], key(1000 + slot as u32), some, None)
                .await
                .expect("they do not count");
        }
        // Two topics in turn: many events of one that follow each other are looked up once.
        let events: Vec<_> =
            [".b", ".c"].iter().cycle().take(1000).map(|end| event(&(["a"; 12].join(".") + end))).collect();
        let (mut scratch, mut next, mut holds) = (Scratch::default(), 0, 0);
        while next < events.len() {
            let (then, steps) = router.find(&events, next, &mut scratch);
            let an_event = 2 * (SIMPLE + LIMITS_OF_HUB.hub_filter_shapes + 1);
            assert!(steps <= RUN_VISITS + an_event.max(2 * 4096), "{steps} steps under one hold");
            assert!(steps <= (then - next) * an_event, "{steps} steps for {} events", then - next);
            (next, holds) = (then, holds + 1);
        }
        assert!(holds > 10, "{holds}");
    }

    const LIMITS_OF_HUB: Limits =
        Limits { filter_tokens: 10_000_000, hub_filter_shapes: 2_048, session_filter_shapes: 256 };

    fn a_filter() -> impl Strategy<Value = String> {
        ("[ab*](\\.[ab*]){0,13}", any::<bool>()).prop_map(|(name, tail)| if tail { name + ".>" } else { name })
    }

    #[tokio::test]
    async fn many_events_of_one_topic_are_looked_up_once_and_go_to_everyone_each() {
        let router = Router::new(LIMITS);
        let outbox = join(&router);
        let group = Group::parse("g").expect("a group");
        let [plain, grouped] = ["a.>", "a.b"].map(|text| filters([text.to_owned()]));
        router.subscribe(outbox, key(0), &plain, None).await.expect("subscribed");
        for slot in [1, 2] {
            router.subscribe(outbox, key(slot), &grouped, Some(&group)).await.expect("subscribed");
        }
        let events = [vec![event("a.b"); 40], vec![event("a.c")]].concat();
        let (mut scratch, mut lone) = (Scratch::default(), Scratch::default());
        let (next, visits) = router.find(&events, 0, &mut scratch);
        assert_eq!((next, visits), (40, router.find(&events[..1], 0, &mut lone).1));
        scratch.sort();
        router.resolve(&mut scratch);
        let all: Vec<u32> = (0..40).collect();
        assert_eq!(scratch.matches.iter().map(|found| found.event).collect::<Vec<_>>(), all);
        assert_eq!(scratch.draws.iter().map(|draw| draw.event).collect::<Vec<_>>(), all);
        assert!(scratch.draws.iter().all(|draw| draw.members.len() == 2));
        assert_eq!(router.find(&events, 40, &mut scratch).0, 41);
    }

    #[tokio::test]
    async fn a_run_of_one_topic_has_as_many_matches_as_any() {
        let router = Router::new(LIMITS);
        let (outbox, all) = (join(&router), filters([">".to_owned()]));
        let mut scratch = Scratch::default();
        for (subscriptions, events) in [(4, RUN_EVENTS), (5, RUN_MATCHES / 5), (600, 1)] {
            for slot in scratch.matches.len().min(subscriptions)..subscriptions {
                router.subscribe(outbox, key(slot as u32), &all, None).await.expect("subscribed");
            }
            let (next, _) = router.find(&vec![event("a"); 2 * RUN_EVENTS], 0, &mut scratch);
            assert_eq!((next, scratch.matches.len()), (events, events * subscriptions));
            scratch.matches.truncate(subscriptions);
        }
    }

    proptest! {
        #[test]
        fn no_filters_that_are_accepted_cost_more_than_the_limits_say(
            subscriptions in prop::collection::vec((prop::collection::vec(a_filter(), 1..20), 0..3_usize, any::<bool>()), 1..60),
            topics in prop::collection::vec(("[ab](\\.[ab]){0,14}", 1..2 * LOOKED_UP_ONCE), 1..40),
        ) {
            let router = Router::new(LIMITS);
            let outboxes = [join(&router), join(&router), join(&router)];
            let mut known: Vec<(u32, Vec<Filter>)> = Vec::new();
            for (slot, (texts, of, keep)) in subscriptions.into_iter().enumerate() {
                let (slot, filters) = (slot as u32, filters(texts));
                let mut subscribe = pin!(router.subscribe(outboxes[of], key(slot), &filters, None));
                let Poll::Ready(made) = subscribe.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                    panic!("there is no turn outside of a runtime");
                };
                match made {
                    Ok(_) if keep => known.push((slot, filters.clone())),
                    Ok(route) => router.forget_at_once(outboxes[of], vec![Closed { key: key(slot), route }]),
                    Err(CommandError::TooManyFilterShapes { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            let events: Vec<Event> =
                topics.iter().flat_map(|(topic, times)| vec![event(topic); *times]).collect();
            let (mut scratch, mut next, mut found) = (Scratch::default(), 0, BTreeSet::new());
            while next < events.len() {
                let (then, steps) = router.find(&events, next, &mut scratch);
                let visited = steps.saturating_sub(scratch.matches.len());
                prop_assert!(visited <= (then - next) * 2 * (SIMPLE + LIMITS.hub_filter_shapes + 1), "{}", visited);
                found.extend(scratch.matches.iter().map(|found| (found.event, found.key.slot)));
                next = then;
            }
            let expected: BTreeSet<(u32, u32)> = events.iter().zip(0..).flat_map(|(event, at)| {
                let takes = |filters: &[Filter]| filters.iter().any(|filter| filter.matches(event.topic()));
                known.iter().filter(move |(_, filters)| takes(filters)).map(move |(slot, _)| (at, *slot)).collect::<Vec<_>>()
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
