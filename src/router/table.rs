//! The pure routing table: whose subscriptions match a topic, and whose turn it is in a group.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use slab::Slab;

use super::trie::{Descent, Trie};
use crate::{
    model::{Filter, Group, Topic, filter_tokens},
    outbox::{Closed, Outbox, Route, SubscriptionKey},
};

/// No group.
const NO_GROUP: u32 = 0;

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
    outboxes: Slab<Arc<Outbox>>,
    /// By number. A number is never used again, so that one that outlives its group means nothing.
    groups: HashMap<u32, LiveGroup>,
    group_ids: HashMap<Group, u32>,
    last_group: u32,
    /// The tokens of all filters.
    filter_tokens: usize,
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
            outboxes: Slab::new(),
            groups: HashMap::new(),
            group_ids: HashMap::new(),
            last_group: NO_GROUP,
            filter_tokens: 0,
        }
    }

    pub(super) fn add_outbox(&mut self, outbox: Arc<Outbox>) -> u32 {
        // The limit on sessions is far below 2^32.
        self.outboxes.insert(outbox) as u32
    }

    /// Forgets an outbox, whose subscriptions are all forgotten already.
    pub(super) fn remove_outbox(&mut self, id: u32) {
        self.outboxes.try_remove(id as usize);
    }

    pub(super) fn outbox(&self, id: u32) -> Option<&Arc<Outbox>> {
        self.outboxes.get(id as usize)
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

    /// Routes what matches `filters` to a subscription.
    pub(super) fn insert(&mut self, filters: &[Filter], entry: Entry) -> Route {
        let tokens = filter_tokens(filters);
        self.filter_tokens += tokens;
        // The limit on tokens is below 2^32, and a filter has at least one.
        let tokens = NonZeroU32::new(tokens as u32).unwrap_or(NonZeroU32::MIN);
        let mut route = Route { nodes: smallvec::SmallVec::new(), group: entry.group, tokens };
        for filter in filters {
            let node = self.trie.insert(filter, entry);
            if !route.nodes.contains(&node) {
                route.nodes.push(node);
            }
        }
        route
    }

    /// Forgets a subscription, except in the nodes of `keep`.
    pub(super) fn remove(&mut self, outbox: u32, closed: &Closed, keep: &[u32]) {
        let entry = Entry { outbox, key: closed.key, group: closed.route.group };
        for node in closed.route.nodes.iter().filter(|node| !keep.contains(node)) {
            self.trie.remove(*node, entry);
        }
        self.filter_tokens -= closed.route.tokens.get() as usize;
        self.leave_group(closed.route.group);
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

    /// Calls `found` with the place of a topic and an entry for every match; a subscription with several matching
    /// filters comes several times.
    pub(super) fn matches(&self, topics: &[Topic<'_>], descent: &mut Descent, mut found: impl FnMut(usize, Entry)) {
        self.trie.matches(topics, descent, &mut found);
    }
}
