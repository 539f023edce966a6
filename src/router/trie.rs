//! The trie over filters: which entries match a topic. Pure.
//!
//! Nodes live in one arena and edges in one hash table from (node, token) to node, so that a filter that nobody shares
//! costs about a hundred bytes and a lookup is one probe a token. Nodes keep their number as long as an entry uses
//! them: an entry is removed by number, without its filter.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};
use indexmap::IndexSet;
use slab::Slab;

use super::shapes::Shape;
use crate::model::{Filter, Token, Topic};

/// Where an entry is kept.
pub(crate) type NodeId = u32;

/// A node with up to this many entries keeps them in a plain list.
const FEW_ENTRIES: usize = 16;
/// Longer tokens are kept beside their node.
const INLINE_TOKEN_BYTES: usize = 14;
const ROOT: NodeId = 0;
/// Names no node: the root is nobody's child.
const NONE: NodeId = ROOT;

/// Entries by filter. An entry is kept once in a node however often it is inserted there.
#[derive(Debug)]
pub(crate) struct Trie<E> {
    nodes: Slab<Node<E>>,
    /// The children by literal token.
    edges: HashTable<NodeId>,
    hasher: DefaultHashBuilder,
}

/// One topic on its way down.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Its place among those that are matched.
    topic: u32,
    /// Where in it the next token begins.
    from: u16,
    /// How far down it is.
    node: NodeId,
    /// Of that node and the next token.
    hash: u64,
    /// What that hash leads to first: mostly the child, but it has to be checked.
    child: NodeId,
}

/// A node whose entries match a topic: the place of that, and the node.
type Hit = (u32, NodeId);

/// Memory for matching, kept between matches.
#[derive(Debug, Default)]
pub(crate) struct Descent {
    here: Vec<Step>,
    below: Vec<Step>,
    hits: Vec<Hit>,
}

impl Descent {
    /// Gives memory back for more than so many steps.
    pub(crate) fn shrink_to(&mut self, steps: usize) {
        self.here.clear();
        self.below.clear();
        self.hits.clear();
        self.here.shrink_to(steps);
        self.below.shrink_to(steps);
        self.hits.shrink_to(steps);
    }
}

/// How far a match went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matched {
    /// For so many topics all was found; for the others nothing.
    pub(crate) topics: usize,
    /// So many nodes were visited, and entries found.
    pub(crate) steps: usize,
}

/// The token of `topic` that begins at `from`.
fn token_at(topic: &[u8], from: u16) -> &[u8] {
    let rest = &topic[from as usize..];
    rest.iter().position(|byte| *byte == b'.').map_or(rest, |end| &rest[..end])
}

#[derive(Debug)]
struct Node<E> {
    parent: NodeId,
    /// The token of the edge from the parent: a literal, `*` or `>`.
    token: ShortToken,
    /// The child for `*`, or [`NONE`].
    one: NodeId,
    /// The child for a final `>`, or [`NONE`].
    tail: NodeId,
    literal_children: u32,
    entries: Entries<E>,
}

/// Most filters are of one subscription: that one is kept in the node itself.
#[derive(Debug)]
enum Entries<E> {
    None,
    One(E),
    Few(Vec<E>),
    Many(Box<IndexSet<E, DefaultHashBuilder>>),
}

/// A token in 16 bytes: nearly all are short, and there is one in every node.
#[derive(Debug)]
enum ShortToken {
    Inline { len: u8, bytes: [u8; INLINE_TOKEN_BYTES] },
    Beside(Box<Box<[u8]>>),
}

impl ShortToken {
    fn new(token: &[u8]) -> Self {
        let mut bytes = [0; INLINE_TOKEN_BYTES];
        match bytes.get_mut(..token.len()) {
            Some(room) => {
                room.copy_from_slice(token);
                Self::Inline { len: token.len() as u8, bytes }
            }
            None => Self::Beside(Box::new(token.into())),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..*len as usize],
            Self::Beside(token) => token,
        }
    }
}

const _: () = assert!(size_of::<Node<[u32; 4]>>() <= 56);

impl<E: Copy + Eq + Hash> Trie<E> {
    pub(crate) fn new() -> Self {
        let mut nodes = Slab::new();
        nodes.insert(Node::new(ROOT, b""));
        Self { nodes, edges: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }

    /// Keeps `entry` for `filter` and tells where.
    pub(crate) fn insert(&mut self, filter: &Filter, entry: E) -> NodeId {
        let mut at = ROOT;
        for token in filter.tokens() {
            at = match token {
                Token::Literal(token) => {
                    let token = token.as_bytes();
                    self.literal(at, token).unwrap_or_else(|| self.grow_literal(at, token))
                }
                Token::One => match self.nodes[at as usize].one {
                    NONE => {
                        let child = self.grow(at, b"*");
                        self.nodes[at as usize].one = child;
                        child
                    }
                    child => child,
                },
                Token::Tail => match self.nodes[at as usize].tail {
                    NONE => {
                        let child = self.grow(at, b">");
                        self.nodes[at as usize].tail = child;
                        child
                    }
                    child => child,
                },
            };
        }
        self.nodes[at as usize].entries.insert(entry);
        at
    }

    /// Forgets `entry` at `node`, and the nodes that nobody needs any more.
    pub(crate) fn remove(&mut self, node: NodeId, entry: E) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.entries.remove(&entry);
        }
        let mut at = node;
        while at != ROOT && self.nodes.get(at as usize).is_some_and(Node::is_unused) {
            at = self.prune(at);
        }
    }

    /// Calls `found` with the place of a topic in `topics` and an entry, for the entries of every filter that matches it;
    /// an entry with several such filters comes several times. Topics come in order, but after the one with which there are
    /// `most` entries no other comes.
    ///
    /// Visits no more than `2 * (distinct + 1)` nodes a topic, if there are filters of so many
    /// [distinct](super::shapes::Shapes::distinct) shapes.
    ///
    /// All topics go down level by level, and each level is looked up in three passes, so that what the processor must
    /// fetch from memory for one topic it fetches for the next ones meanwhile: with a million filters that is most of the
    /// time (docs/performance.md).
    pub(crate) fn matches(
        &self,
        topics: &[Topic<'_>],
        descent: &mut Descent,
        most: usize,
        found: &mut impl FnMut(usize, E),
    ) -> Matched {
        let visited = self.descend(topics, descent);
        let (mut entries, mut last) = (0, 0);
        for (topic, node) in &descent.hits {
            if *topic != last && entries >= most {
                return Matched { topics: last as usize + 1, steps: visited + entries };
            }
            last = *topic;
            self.nodes[*node as usize].entries.each(&mut |entry| {
                entries += 1;
                found(*topic as usize, entry);
            });
        }
        Matched { topics: topics.len(), steps: visited + entries }
    }

    /// Finds the nodes that match each topic, in the order of the topics. Tells how many it visited.
    fn descend(&self, topics: &[Topic<'_>], descent: &mut Descent) -> usize {
        let Descent { here, below, hits } = descent;
        hits.clear();
        here.clear();
        here.extend((0..topics.len() as u32).map(|topic| Step { topic, from: 0, node: ROOT, hash: 0, child: NONE }));
        let mut visited = 0;
        while !here.is_empty() {
            visited += here.len();
            for step in here.iter_mut() {
                let topic = topics[step.topic as usize].as_bytes();
                step.hash = self.hasher.hash_one((step.node, token_at(topic, step.from)));
            }
            for step in here.iter_mut() {
                step.child = self.edges.find(step.hash, |_| true).copied().unwrap_or(NONE);
            }
            below.clear();
            for step in here.iter() {
                let topic = topics[step.topic as usize].as_bytes();
                self.step(*step, topic, below, hits);
            }
            std::mem::swap(here, below);
        }
        if !hits.is_sorted_by_key(|(topic, _)| *topic) {
            // They are a few ascending runs, which this sort merges.
            hits.sort_by_key(|(topic, _)| *topic);
        }
        visited + hits.len()
    }

    /// Takes one topic down one level, in every way it can go.
    fn step(&self, step: Step, topic: &[u8], below: &mut Vec<Step>, hits: &mut Vec<Hit>) {
        let token = token_at(topic, step.from);
        let node = &self.nodes[step.node as usize];
        if node.tail != NONE {
            hits.push((step.topic, node.tail));
        }
        let literal = if node.literal_children == 0 {
            None
        } else if step.child != NONE && self.is_edge(step.child, step.node, token) {
            Some(step.child)
        } else {
            self.find_edge(step.hash, step.node, token)
        };
        let one = (node.one != NONE).then_some(node.one);
        let from = step.from as usize + token.len() + 1;
        for child in [one, literal].into_iter().flatten() {
            if from > topic.len() {
                hits.push((step.topic, child));
            } else {
                below.push(Step { node: child, from: from as u16, ..step });
            }
        }
    }

    /// The shape of the filters that end in a node, and how many tokens they have.
    pub(super) fn shape_of(&self, node: NodeId) -> (Shape, usize) {
        let (mut shape, mut tokens, mut at) = (Shape::default(), 0, node);
        while let Some(node) = self.nodes.get(at as usize).filter(|_| at != ROOT) {
            match node.token.as_bytes() {
                b">" => {}
                token => shape = shape.behind(token == b"*"),
            }
            tokens += 1;
            at = node.parent;
        }
        (shape, tokens)
    }

    /// The filter that ends in a node, if the node keeps the entry.
    pub(super) fn filter_of(&self, node: NodeId, entry: E) -> Option<String> {
        if !self.nodes.get(node as usize)?.entries.contains(&entry) {
            return None;
        }
        let (mut tokens, mut at) = (Vec::new(), node);
        while let Some(node) = self.nodes.get(at as usize).filter(|_| at != ROOT) {
            tokens.push(node.token.as_bytes());
            at = node.parent;
        }
        tokens.reverse();
        String::from_utf8(tokens.join(&b'.')).ok()
    }

    fn literal(&self, parent: NodeId, token: &[u8]) -> Option<NodeId> {
        self.find_edge(self.hasher.hash_one((parent, token)), parent, token)
    }

    fn find_edge(&self, hash: u64, parent: NodeId, token: &[u8]) -> Option<NodeId> {
        self.edges.find(hash, |id| self.is_edge(*id, parent, token)).copied()
    }

    fn is_edge(&self, child: NodeId, parent: NodeId, token: &[u8]) -> bool {
        let node = &self.nodes[child as usize];
        node.parent == parent && node.token.as_bytes() == token
    }

    fn grow_literal(&mut self, parent: NodeId, token: &[u8]) -> NodeId {
        let child = self.grow(parent, token);
        let Self { nodes, edges, hasher } = self;
        edges.insert_unique(hasher.hash_one((parent, token)), child, |id| {
            let node = &nodes[*id as usize];
            hasher.hash_one((node.parent, node.token.as_bytes()))
        });
        nodes[parent as usize].literal_children += 1;
        child
    }

    fn grow(&mut self, parent: NodeId, token: &[u8]) -> NodeId {
        // Fewer than 2^32 nodes: the limits on subscriptions, filters and tokens see to it.
        self.nodes.insert(Node::new(parent, token)) as NodeId
    }

    /// Takes out a node that nobody uses, and tells its parent.
    fn prune(&mut self, at: NodeId) -> NodeId {
        let node = self.nodes.remove(at as usize);
        let parent = &mut self.nodes[node.parent as usize];
        match node.token.as_bytes() {
            b"*" => parent.one = NONE,
            b">" => parent.tail = NONE,
            token => {
                parent.literal_children -= 1;
                if let Ok(entry) = self.edges.find_entry(self.hasher.hash_one((node.parent, token)), |id| *id == at) {
                    entry.remove();
                }
            }
        }
        node.parent
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

impl<E> Node<E> {
    fn new(parent: NodeId, token: &[u8]) -> Self {
        Self {
            parent,
            token: ShortToken::new(token),
            one: NONE,
            tail: NONE,
            literal_children: 0,
            entries: Entries::None,
        }
    }

    fn is_unused(&self) -> bool {
        let no_entries = matches!(self.entries, Entries::None);
        no_entries && self.one == NONE && self.tail == NONE && self.literal_children == 0
    }
}

impl<E: Copy + Eq + Hash> Entries<E> {
    fn insert(&mut self, entry: E) {
        match self {
            Self::None => *self = Self::One(entry),
            Self::One(other) if *other == entry => {}
            Self::One(other) => *self = Self::Few(vec![*other, entry]),
            Self::Few(list) if list.contains(&entry) => {}
            Self::Few(list) if list.len() < FEW_ENTRIES => list.push(entry),
            Self::Few(list) => {
                let mut set: IndexSet<E, DefaultHashBuilder> = list.drain(..).collect();
                set.insert(entry);
                *self = Self::Many(Box::new(set));
            }
            Self::Many(set) => {
                set.insert(entry);
            }
        }
    }

    fn remove(&mut self, entry: &E) {
        let empty = match self {
            Self::None => true,
            Self::One(other) => other == entry,
            Self::Few(list) => {
                if let Some(at) = list.iter().position(|other| other == entry) {
                    list.swap_remove(at);
                }
                list.is_empty()
            }
            Self::Many(set) => {
                set.swap_remove(entry);
                set.is_empty()
            }
        };
        if empty {
            *self = Self::None;
        }
    }

    fn contains(&self, entry: &E) -> bool {
        match self {
            Self::None => false,
            Self::One(other) => other == entry,
            Self::Few(list) => list.contains(entry),
            Self::Many(set) => set.contains(entry),
        }
    }

    fn each(&self, found: &mut impl FnMut(E)) {
        match self {
            Self::None => {}
            Self::One(entry) => found(*entry),
            Self::Few(list) => list.iter().copied().for_each(found),
            Self::Many(set) => set.iter().copied().for_each(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{super::shapes::Shapes, *};

    fn topic(text: &str) -> Topic<'_> {
        Topic::parse(text.as_bytes()).expect("a topic")
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(text.as_bytes()).expect("a filter")
    }

    fn matched(trie: &Trie<u32>, name: &str) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        // Beside another, so that they must not be mixed up.
        trie.matches(&[topic("z.z"), topic(name)], &mut Descent::default(), usize::MAX, &mut |place, entry| {
            if place == 1 {
                found.insert(entry);
            }
        });
        found
    }

    /// What the rules say, token by token, with no thought for speed.
    fn naive(filter: &str, topic: &str) -> bool {
        let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('.').collect(), topic.split('.').collect());
        match filter.iter().position(|token| *token == ">") {
            Some(tail) if topic.len() <= tail => return false,
            None if filter.len() != topic.len() => return false,
            _ => {}
        }
        filter.iter().zip(&topic).take_while(|(f, _)| **f != ">").all(|(f, t)| *f == "*" || f == t)
    }

    fn check(filters: &[&str], name: &str, expected: &[u32]) {
        let mut trie = Trie::new();
        for (index, text) in filters.iter().enumerate() {
            trie.insert(&filter(text), index as u32);
        }
        assert_eq!(matched(&trie, name), expected.iter().copied().collect(), "{filters:?} on {name}");
    }

    #[test]
    fn wildcards_match_as_in_nats() {
        check(&["a.b", "a.*", "a.>", ">", "*", "*.*", "b.>"], "a.b", &[0, 1, 2, 3, 5]);
        check(&["a.>", "a", "a.*.>", ">"], "a", &[1, 3]);
        check(&["a.*.c", "a.>", "a.*.>", "*.b.*"], "a.b.c", &[0, 1, 2, 3]);
    }

    #[test]
    fn many_entries_of_one_filter_come_and_go() {
        let mut trie = Trie::new();
        let nodes: Vec<_> = (0..1_000).map(|entry| trie.insert(&filter("a.*"), entry)).collect();
        assert_eq!(matched(&trie, "a.x").len(), 1_000);
        for (entry, node) in nodes.iter().enumerate() {
            trie.remove(*node, entry as u32);
        }
        assert!(matched(&trie, "a.x").is_empty());
        assert_eq!(trie.node_count(), 1, "only the root is left");
    }

    #[test]
    fn topics_behind_the_one_with_enough_entries_wait() {
        let mut trie = Trie::new();
        (0..10).for_each(|entry| _ = trie.insert(&filter("a.>"), entry));
        let topics = ["a.b", "z", "a.c", "a.d"].map(topic);
        for (most, done) in [(0, 1), (1, 1), (10, 1), (11, 3), (20, 3), (21, 4), (usize::MAX, 4)] {
            let mut found = Vec::new();
            let matched =
                trie.matches(&topics, &mut Descent::default(), most, &mut |place, entry| found.push((place, entry)));
            assert_eq!(matched.topics, done, "{most}");
            assert_eq!(found.len(), 10 * [0, 2, 3].iter().filter(|place| **place < matched.topics).count(), "{most}");
        }
    }

    fn a_filter() -> impl Strategy<Value = String> {
        ("[abc*](\\.[abc*]){0,3}", any::<bool>()).prop_map(|(name, tail)| if tail { name + ".>" } else { name })
    }

    proptest! {
        #[test]
        fn matches_what_a_naive_matcher_matches(
            steps in prop::collection::vec((a_filter(), any::<bool>(), any::<prop::sample::Index>()), 0..60),
            topics in prop::collection::vec("[abcd](\\.[abcd]){0,4}", 1..10),
        ) {
            let mut trie = Trie::new();
            let mut kept: Vec<(String, u32, NodeId)> = Vec::new();
            for (number, (text, insert, index)) in steps.into_iter().enumerate() {
                if insert || kept.is_empty() {
                    let node = trie.insert(&filter(&text), number as u32);
                    kept.push((text, number as u32, node));
                } else {
                    let (_, entry, node) = kept.swap_remove(index.index(kept.len()));
                    trie.remove(node, entry);
                }
            }
            for name in topics {
                let expected: BTreeSet<u32> =
                    kept.iter().filter(|(text, ..)| naive(text, &name)).map(|(_, entry, _)| *entry).collect();
                prop_assert_eq!(matched(&trie, &name), expected, "{}", name);
            }
            for (_, entry, node) in kept {
                trie.remove(node, entry);
            }
            prop_assert_eq!(trie.node_count(), 1);
        }

        #[test]
        fn no_filters_make_a_topic_take_more_steps_than_they_have_shapes(
            filters in prop::collection::vec(("[ab*](\\.[ab*]){0,12}", any::<bool>()), 1..400),
            topics in prop::collection::vec("[ab](\\.[ab]){0,13}", 1..10),
        ) {
            let (mut trie, mut shapes) = (Trie::new(), Shapes::default());
            let nodes: Vec<NodeId> = filters
                .iter()
                .enumerate()
                .map(|(entry, (name, tail))| {
                    let filter = filter(&if *tail { format!("{name}.>") } else { name.clone() });
                    shapes.add(Shape::of(&filter));
                    let node = trie.insert(&filter, entry as u32);
                    assert_eq!(trie.shape_of(node), (Shape::of(&filter), filter.tokens().count()));
                    assert_eq!(trie.filter_of(node, entry as u32).as_deref(), Some(filter.as_str()));
                    assert_eq!(trie.filter_of(node, u32::MAX), None);
                    node
                })
                .collect();
            for name in topics {
                let mut entries = 0;
                let matched =
                    trie.matches(&[topic(&name)], &mut Descent::default(), usize::MAX, &mut |_, _| entries += 1);
                prop_assert!(matched.steps - entries <= 2 * (shapes.distinct() + 1), "{} of {}", matched.steps, name);
            }
            for node in nodes {
                shapes.remove(trie.shape_of(node).0);
            }
            prop_assert_eq!(shapes.distinct(), 0);
        }
    }
}
