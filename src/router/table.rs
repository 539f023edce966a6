//! The pure routing table: whose subscriptions match a topic, and whose turn it is in a group. Pure.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use slab::Slab;

use super::{
    shapes::{Shape, Shapes},
    trie::{Descent, Matched, Trie},
};
use crate::{
    model::{CommandError, Filter, Group, Topic, filter_tokens},
    outbox::{Closed, Inlet, Route, SubscriptionKey},
};

/// No group.
const NO_GROUP: u32 = 0;

/// How many filters there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Tokens of all filters.
    pub filter_tokens: usize,
    /// Shapes of all filters that are not simple.
    pub hub_filter_shapes: usize,
    /// Shapes of the filters of one session that are not simple.
    pub session_filter_shapes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { filter_tokens: 10_000_000, hub_filter_shapes: 2_048, session_filter_shapes: 256 }
    }
}

/// One subscription, as a node of the trie keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Which outbox.
    pub(super) outbox: u32,
    /// Which subscription there.
    pub(super) key: SubscriptionKey,
    /// Which group it shares events in; [`NO_GROUP`] for none.
    pub(super) group: u32,
}

impl Entry {
    pub(super) fn in_group(self) -> bool {
        self.group != NO_GROUP
    }
}

/// Who gets what.
#[derive(Debug)]
pub(super) struct Table {
    trie: Trie<Entry>,
    /// Those of all filters, also of some that are not in the trie yet, or no more.
    shapes: Shapes,
    outboxes: Slab<Joined>,
    /// By number. A number is never used again, so that one that outlives its group means nothing.
    groups: HashMap<u32, LiveGroup>,
    group_ids: HashMap<Group, u32>,
    last_group: u32,
    /// The tokens of all filters.
    filter_tokens: usize,
}

#[derive(Debug)]
struct Joined {
    outbox: Inlet,
    /// Those of its filters that are not simple.
    shapes: Shapes,
}

#[derive(Debug)]
struct LiveGroup {
    name: Group,
    members: usize,
    /// Counts events, so that each member begins one in turn.
    turn: AtomicU32,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            trie: Trie::new(),
            shapes: Shapes::default(),
            outboxes: Slab::new(),
            groups: HashMap::new(),
            group_ids: HashMap::new(),
            last_group: NO_GROUP,
            filter_tokens: 0,
        }
    }

    pub(super) fn add_outbox(&mut self, outbox: Inlet) -> u32 {
        // The limit on sessions is far below 2^32.
        self.outboxes.insert(Joined { outbox, shapes: Shapes::default() }) as u32
    }

    /// Forgets an outbox, whose subscriptions are all forgotten already.
    pub(super) fn remove_outbox(&mut self, id: u32) {
        self.outboxes.try_remove(id as usize);
    }

    pub(super) fn outbox(&self, id: u32) -> Option<&Inlet> {
        self.outboxes.get(id as usize).map(|joined| &joined.outbox)
    }

    /// Nothing is left of any filter.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        let shapes = self.outboxes.iter().map(|(_, joined)| &joined.shapes).chain([&self.shapes]);
        self.trie.node_count() == 1 && self.groups.is_empty() && shapes.map(Shapes::distinct).sum::<usize>() == 0
    }

    /// The tokens of all filters.
    pub(super) fn filter_tokens(&self) -> usize {
        self.filter_tokens
    }

    /// The number of a group, which is made if it does not exist. One member more is counted.
    pub(super) fn join_group(&mut self, name: Option<&Group>) -> u32 {
        let Some(name) = name else { return NO_GROUP };
        let id = *self.group_ids.entry(name.clone()).or_insert_with(|| {
            self.last_group += 1;
            let group = LiveGroup { name: name.clone(), members: 0, turn: AtomicU32::new(0) };
            self.groups.insert(self.last_group, group);
            self.last_group
        });
        self.rejoin_group(id);
        id
    }

    /// Counts one member more.
    pub(super) fn rejoin_group(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.members += 1;
        }
    }

    /// Which of `members` begins with the next event.
    pub(super) fn turn(&self, group: u32, members: usize) -> usize {
        let turn = self.groups.get(&group).map_or(0, |g| g.turn.fetch_add(1, Relaxed));
        turn as usize % members.max(1)
    }

    /// Counts the filters of a subscription, which are to be inserted, unless they are too many for the hub or the session.
    /// What comes back is its route, with none of them yet.
    pub(super) fn admit(&mut self, filters: &[Filter], outbox: u32, limits: &Limits) -> Result<Route, CommandError> {
        let tokens = filter_tokens(filters);
        if self.filter_tokens + tokens > limits.filter_tokens {
            return Err(CommandError::TooManyFilterTokens { whole: "hub", limit: limits.filter_tokens });
        }
        let mut of_session = self.outboxes.get_mut(outbox as usize).map(|joined| &mut joined.shapes);
        let (of_one, of_all) = (limits.session_filter_shapes, limits.hub_filter_shapes);
        if of_session.as_ref().is_some_and(|shapes| shapes.would_exceed(filters, of_one)) {
            return Err(CommandError::TooManyFilterShapes { whole: "session", limit: of_one });
        }
        if self.shapes.would_exceed(filters, of_all) {
            return Err(CommandError::TooManyFilterShapes { whole: "hub", limit: of_all });
        }
        for shape in filters.iter().map(Shape::of) {
            self.shapes.add(shape);
            if let Some(shapes) = of_session.as_mut().filter(|_| !shape.is_simple()) {
                shapes.add(shape);
            }
        }
        self.filter_tokens += tokens;
        // The limit on tokens is below 2^32, and a filter has at least one.
        let tokens = NonZeroU32::new(tokens as u32).unwrap_or(NonZeroU32::MIN);
        Ok(Route { nodes: smallvec::SmallVec::new(), group: NO_GROUP, tokens })
    }

    /// Routes what matches some of the filters of a route that was admitted.
    pub(super) fn insert(&mut self, filters: &[Filter], entry: Entry, route: &mut Route) {
        for filter in filters {
            let node = self.trie.insert(filter, entry);
            if route.nodes.contains(&node) {
                self.forget_shape(entry.outbox, Shape::of(filter));
            } else {
                route.nodes.push(node);
            }
        }
    }

    /// Counts filters no longer that were admitted and will not be inserted.
    pub(super) fn give_back(&mut self, outbox: u32, filters: &[Filter]) {
        for filter in filters {
            self.forget_shape(outbox, Shape::of(filter));
        }
    }

    fn forget_shape(&mut self, outbox: u32, shape: Shape) {
        self.shapes.remove(shape);
        if let Some(joined) = self.outboxes.get_mut(outbox as usize).filter(|_| !shape.is_simple()) {
            joined.shapes.remove(shape);
        }
    }

    /// Forgets a subscription, except in the nodes of `keep`, or a part of it: about `most` steps are done. Tells how many,
    /// and whether there is more to do.
    pub(super) fn remove(&mut self, outbox: u32, closed: &mut Closed, keep: &[u32], most: usize) -> (usize, bool) {
        let entry = Entry { outbox, key: closed.key, group: closed.route.group };
        let mut steps = 1;
        while let Some(node) = closed.route.nodes.pop() {
            let (shape, tokens) = self.trie.shape_of(node);
            self.forget_shape(outbox, shape);
            if !keep.contains(&node) {
                self.trie.remove(node, entry);
            }
            steps += 2 * tokens;
            if steps >= most && !closed.route.nodes.is_empty() {
                return (steps, true);
            }
        }
        self.filter_tokens -= closed.route.tokens.get() as usize;
        self.leave_group(closed.route.group);
        (steps, false)
    }

    /// The filters of a subscription, and its group. What it does not have any more is left out.
    pub(super) fn describe(&self, outbox: u32, key: SubscriptionKey, route: &Route) -> (Vec<String>, Option<Group>) {
        let entry = Entry { outbox, key, group: route.group };
        let filters = route.nodes.iter().filter_map(|node| self.trie.filter_of(*node, entry)).collect();
        (filters, self.groups.get(&route.group).map(|group| group.name.clone()))
    }

    fn leave_group(&mut self, id: u32) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.members -= 1;
        if group.members == 0
            && let Some(group) = self.groups.remove(&id)
        {
            self.group_ids.remove(&group.name);
        }
    }

    /// How many topics may be looked up together.
    pub(super) fn topics_together(&self) -> usize {
        self.shapes.topics_together()
    }

    /// See [`Trie::matches`]; a subscription with several matching filters comes several times.
    pub(super) fn matches(
        &self,
        topics: &[Topic<'_>],
        descent: &mut Descent,
        most: usize,
        mut found: impl FnMut(usize, Entry),
    ) -> Matched {
        self.trie.matches(topics, descent, most, &mut found)
    }
}
