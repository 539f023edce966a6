//! Which stream stores a topic: the filters of all streams in one trie. Filters of different streams never overlap, so
//! the first that matches is the only one. Pure.
//!
//! Streams are added and removed one at a time, and every node knows the most steps that any topic takes below it: what
//! would make lookups too long is refused before it is added, and so is what takes too many steps to compare.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;

use crate::model::{Filter, Token, Topic};

/// The most nodes that a topic may be compared with, whatever streams there are.
pub(super) const MOST_LOOKUP_STEPS: u32 = 256;
/// The most pairs of nodes that are compared to find out whether filters overlap those of other streams.
pub(super) const MOST_OVERLAP_STEPS: usize = 1_000_000;
/// What a token of a filter costs here at most, besides its text.
pub(super) const TOKEN_BYTES: usize = 128;
/// A node with up to this many literal children keeps them in a list.
const FEW: usize = 8;

#[derive(Debug)]
struct Node<T> {
    literals: Literals<T>,
    one: Option<Box<Node<T>>>,
    /// The stream of a filter that ends here with `>`.
    tail: Option<Arc<T>>,
    /// The stream of a filter that ends here.
    here: Option<Arc<T>>,
    /// The most nodes, with this one, that a topic is compared with from here on.
    steps: u32,
}

#[derive(Debug)]
enum Literals<T> {
    Few(Vec<(Box<[u8]>, Node<T>)>),
    Many(Box<Many<T>>),
}

#[derive(Debug)]
struct Many<T> {
    nodes: HashMap<Box<[u8]>, Node<T>>,
    /// How many of the nodes take how many steps.
    steps: BTreeMap<u32, usize>,
}

/// From topics to streams.
#[derive(Debug)]
pub(super) struct Routes<T>(Node<T>);

/// Filters that are not among the routes yet.
#[derive(Debug)]
pub(super) struct NewFilters(Node<()>);

/// Why filters cannot be added.
#[derive(Debug)]
pub(super) enum Conflict<T> {
    /// Some topic would be in two streams.
    Overlap(Arc<T>),
    /// More steps would be needed than there may be.
    Steps {
        /// How many there may be.
        limit: usize,
    },
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: Literals::Few(Vec::new()), one: None, tail: None, here: None, steps: 1 }
    }
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self(Node::default())
    }
}

impl<T> Routes<T> {
    /// Topics that match `filter` belong to `stream`.
    pub(super) fn add(&mut self, filter: &Filter, stream: &Arc<T>) {
        self.0.add(filter.tokens(), stream);
    }

    /// Topics that match `filter` belong to no stream any more.
    pub(super) fn remove(&mut self, filter: &Filter) {
        self.0.remove(filter.tokens());
    }

    /// The stream that a topic belongs to. Takes no more steps than [`Self::check`] has let through.
    pub(super) fn find(&self, topic: Topic<'_>) -> Option<&Arc<T>> {
        find(&self.0, topic.as_bytes())
    }

    /// Whether filters may be added for a stream; those that it has already, which `is_own` tells, are to be removed then.
    pub(super) fn check(&self, new: &NewFilters, is_own: impl Fn(&T) -> bool) -> Result<(), Conflict<T>> {
        Comparison { steps: 0, is_own }.compare(&self.0, &new.0)?;
        if steps_with(Some(&self.0), &new.0) > MOST_LOOKUP_STEPS {
            return Err(Conflict::Steps { limit: MOST_LOOKUP_STEPS as usize });
        }
        Ok(())
    }
}

impl NewFilters {
    /// Of a stream that is to be made or changed.
    pub(super) fn new(filters: &[Filter]) -> Self {
        let (mut node, nobody) = (Node::default(), Arc::new(()));
        for filter in filters {
            node.add(filter.tokens(), &nobody);
        }
        Self(node)
    }
}

impl<T> Node<T> {
    fn add<'a>(&mut self, mut tokens: impl Iterator<Item = Token<'a>>, stream: &Arc<T>) {
        match tokens.next() {
            None => self.here = Some(Arc::clone(stream)),
            Some(Token::Tail) => self.tail = Some(Arc::clone(stream)),
            Some(Token::One) => self.one.get_or_insert_default().add(tokens, stream),
            Some(Token::Literal(token)) => self.literals.change(token.as_bytes(), |node| node.add(tokens, stream)),
        }
        self.count_steps();
    }

    fn remove<'a>(&mut self, mut tokens: impl Iterator<Item = Token<'a>>) {
        match tokens.next() {
            None => self.here = None,
            Some(Token::Tail) => self.tail = None,
            Some(Token::One) => {
                if let Some(one) = &mut self.one {
                    one.remove(tokens);
                }
                self.one.take_if(|one| one.is_unused());
            }
            Some(Token::Literal(token)) => self.literals.change(token.as_bytes(), |node| node.remove(tokens)),
        }
        self.count_steps();
    }

    fn count_steps(&mut self) {
        self.steps = (1 + self.one.as_ref().map_or(0, |one| one.steps)).saturating_add(self.literals.most_steps());
    }

    fn is_unused(&self) -> bool {
        self.one.is_none() && self.tail.is_none() && self.here.is_none() && self.literals.is_empty()
    }

    fn has_children(&self) -> bool {
        self.one.is_some() || !self.literals.is_empty()
    }
}

impl<T> Literals<T> {
    fn get(&self, token: &[u8]) -> Option<&Node<T>> {
        match self {
            Self::Few(nodes) => nodes.iter().find(|(known, _)| **known == *token).map(|(_, node)| node),
            Self::Many(many) => many.nodes.get(token),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(nodes) => nodes.is_empty(),
            Self::Many(many) => many.nodes.is_empty(),
        }
    }

    fn most_steps(&self) -> u32 {
        match self {
            Self::Few(nodes) => nodes.iter().map(|(_, node)| node.steps).max().unwrap_or_default(),
            Self::Many(many) => many.steps.last_key_value().map_or(0, |(steps, _)| *steps),
        }
    }

    fn each(&self) -> Box<dyn Iterator<Item = (&[u8], &Node<T>)> + '_> {
        match self {
            Self::Few(nodes) => Box::new(nodes.iter().map(|(token, node)| (&**token, node))),
            Self::Many(many) => Box::new(many.nodes.iter().map(|(token, node)| (&**token, node))),
        }
    }

    /// Changes the child of a token, which is made for that, and forgotten when it is of no use then.
    fn change(&mut self, token: &[u8], change: impl FnOnce(&mut Node<T>)) {
        if let Self::Few(nodes) = self {
            let at = nodes.iter().position(|(known, _)| **known == *token).unwrap_or_else(|| {
                nodes.reserve_exact(1);
                nodes.push((token.into(), Node::default()));
                nodes.len() - 1
            });
            let node = &mut nodes[at].1;
            change(node);
            if node.is_unused() {
                nodes.swap_remove(at);
            } else if nodes.len() > FEW {
                let mut steps = BTreeMap::new();
                for (_, node) in &*nodes {
                    *steps.entry(node.steps).or_default() += 1;
                }
                *self = Self::Many(Box::new(Many { nodes: nodes.drain(..).collect(), steps }));
            }
            return;
        }
        if let Self::Many(many) = self {
            let Many { nodes, steps } = &mut **many;
            let mut node = nodes.remove(token).inspect(|node| tally(steps, node.steps, false)).unwrap_or_default();
            change(&mut node);
            if !node.is_unused() {
                tally(steps, node.steps, true);
                nodes.insert(token.into(), node);
            } else if nodes.is_empty() {
                *self = Self::Few(Vec::new());
            }
        }
    }
}

fn tally(counts: &mut BTreeMap<u32, usize>, steps: u32, more: bool) {
    let count = counts.entry(steps).or_default();
    *count = if more { *count + 1 } else { count.saturating_sub(1) };
    if *count == 0 {
        counts.remove(&steps);
    }
}

/// `rest` is what follows the tokens that led to the node; the depth is that of a topic.
fn find<'a, T>(node: &'a Node<T>, rest: &[u8]) -> Option<&'a Arc<T>> {
    let end = rest.iter().position(|byte| *byte == b'.');
    let token = &rest[..end.unwrap_or(rest.len())];
    let next = |node: &'a Node<T>| match end {
        Some(end) => find(node, &rest[end + 1..]),
        None => node.here.as_ref(),
    };
    let literal = node.literals.get(token).and_then(next);
    literal.or_else(|| node.one.as_deref().and_then(next)).or(node.tail.as_ref())
}

/// The most steps that a topic takes when `new` is added. Looks at the nodes of `new` alone.
fn steps_with<T>(old: Option<&Node<T>>, new: &Node<()>) -> u32 {
    let old_one = old.and_then(|old| old.one.as_deref());
    let one = new.one.as_ref().map_or_else(|| old_one.map_or(0, |one| one.steps), |one| steps_with(old_one, one));
    let literals =
        new.literals.each().map(|(token, node)| steps_with(old.and_then(|old| old.literals.get(token)), node));
    let literal = literals.max().unwrap_or_default().max(old.map_or(0, |old| old.literals.most_steps()));
    1_u32.saturating_add(one).saturating_add(literal)
}

/// A search for a topic that matches filters of both tries.
struct Comparison<F> {
    steps: usize,
    is_own: F,
}

impl<F> Comparison<F> {
    /// What is reached by the same topics in both.
    fn compare<T>(&mut self, old: &Node<T>, new: &Node<()>) -> Result<(), Conflict<T>>
    where
        F: Fn(&T) -> bool,
    {
        self.count()?;
        if new.here.is_some() {
            self.other(old.here.as_ref())?;
        }
        if new.tail.is_some() || new.has_children() {
            self.other(old.tail.as_ref())?;
        }
        if new.tail.is_some() {
            self.any_below(old)?;
        }
        for (token, node) in new.literals.each() {
            self.count()?;
            for old in [old.literals.get(token), old.one.as_deref()].into_iter().flatten() {
                self.compare(old, node)?;
            }
        }
        if let Some(one) = &new.one {
            for old in old.literals.each().map(|(_, node)| node).chain(old.one.as_deref()) {
                self.compare(old, one)?;
            }
        }
        Ok(())
    }

    /// Anything that is one or more tokens further down.
    fn any_below<T>(&mut self, old: &Node<T>) -> Result<(), Conflict<T>>
    where
        F: Fn(&T) -> bool,
    {
        self.count()?;
        for node in old.literals.each().map(|(_, node)| node).chain(old.one.as_deref()) {
            self.other(node.here.as_ref())?;
            self.other(node.tail.as_ref())?;
            self.any_below(node)?;
        }
        Ok(())
    }

    fn other<T>(&self, stream: Option<&Arc<T>>) -> Result<(), Conflict<T>>
    where
        F: Fn(&T) -> bool,
    {
        match stream {
            Some(stream) if !(self.is_own)(stream) => Err(Conflict::Overlap(Arc::clone(stream))),
            _ => Ok(()),
        }
    }

    fn count<T>(&mut self) -> Result<(), Conflict<T>> {
        self.steps += 1;
        if self.steps > MOST_OVERLAP_STEPS {
            return Err(Conflict::Steps { limit: MOST_OVERLAP_STEPS });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text.as_bytes()).expect("a filter")
    }

    /// What is wrong with adding filters for stream `own`, in a word.
    fn check(routes: &Routes<usize>, filters: &[Filter], own: usize) -> Option<Result<usize, usize>> {
        match routes.check(&NewFilters::new(filters), |stream| *stream == own) {
            Ok(()) => None,
            Err(Conflict::Overlap(with)) => Some(Ok(*with)),
            Err(Conflict::Steps { limit }) => Some(Err(limit)),
        }
    }

    /// Every node that a topic is compared with.
    fn visited(node: &Node<usize>, tokens: &[&str]) -> u32 {
        let Some((token, rest)) = tokens.split_first() else { return 1 };
        let next = [node.literals.get(token.as_bytes()), node.one.as_deref()];
        1 + next.into_iter().flatten().map(|node| visited(node, rest)).sum::<u32>()
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_the_filters_match(
            steps in prop::collection::vec(
                (prop::collection::vec("[ab*](\\.[abcdefghijk*]){0,3}(\\.>)?|>", 1..5), 0..6_usize), 0..20),
            topics in prop::collection::vec("[ab](\\.[abcdefghijk]){0,3}", 1..9),
        ) {
            let mut streams: BTreeMap<usize, Vec<Filter>> = BTreeMap::new();
            let mut routes = Routes::default();
            for (filters, stream) in steps {
                let filters: Vec<_> = filters.iter().map(|text| filter(text)).collect();
                let others = streams.iter().filter(|(other, _)| **other != stream);
                let overlapping: Vec<usize> = others
                    .filter(|(_, theirs)| theirs.iter().any(|theirs| filters.iter().any(|ours| ours.overlaps(theirs))))
                    .map(|(other, _)| *other)
                    .collect();
                match check(&routes, &filters, stream) {
                    Some(Ok(with)) => prop_assert!(overlapping.contains(&with)),
                    refused => {
                        prop_assert_eq!((refused, overlapping), (None, Vec::new()));
                        for old in &streams.remove(&stream).unwrap_or_default() {
                            routes.remove(old);
                        }
                        let handle = Arc::new(stream);
                        for new in &filters {
                            routes.add(new, &handle);
                        }
                        streams.insert(stream, filters);
                    }
                }
            }
            for text in &topics {
                let topic = Topic::parse(text.as_bytes()).expect("a topic");
                let matches = |filters: &Vec<Filter>| filters.iter().any(|filter| filter.matches(topic));
                let expected = streams.iter().find(|(_, filters)| matches(filters)).map(|(stream, _)| *stream);
                prop_assert_eq!(routes.find(topic).map(|stream| **stream), expected);
                prop_assert!(visited(&routes.0, &text.split('.').collect::<Vec<_>>()) <= routes.0.steps);
            }
            let all: Vec<Filter> = streams.into_values().flatten().collect();
            for old in &all {
                routes.remove(old);
            }
            prop_assert!(routes.0.is_unused() && routes.0.steps == 1);
        }
    }

    /// All filters of `depth` tokens that are each `*` or `a`, and one more token.
    fn branching(depth: u32, end: &str) -> Vec<Filter> {
        let all = (0..1_u32 << depth).map(|bits| {
            let tokens = (0..depth).map(|at| if bits >> at & 1 == 1 { "a" } else { "*" });
            filter(&tokens.chain([end]).collect::<Vec<_>>().join("."))
        });
        all.collect()
    }

    #[test]
    fn what_a_topic_would_be_compared_with_too_often_is_refused() {
        let mut routes = Routes::default();
        // 127 nodes of six tokens, and an end for each of the 64 that are last.
        assert_eq!(check(&routes, &branching(6, "z"), 0), None);
        assert_eq!(check(&routes, &branching(7, "z"), 0), Some(Err(256)));
        let stream = Arc::new(0);
        for new in &branching(6, "z") {
            routes.add(new, &stream);
        }
        assert_eq!(routes.0.steps, 127 + 64);
        assert_eq!(check(&routes, &[filter("b")], 1), None);
        // In parts, it comes to the same.
        assert_eq!(check(&routes, &branching(6, "y.*.*"), 1), Some(Err(256)));
        assert_eq!(check(&routes, &branching(6, "y"), 1), None, "as many steps as before");
    }

    #[test]
    fn a_comparison_of_too_many_steps_is_refused() {
        let mut routes = Routes::default();
        let stream = Arc::new(0);
        // As many topics as a hub may well have filters for, beside each other.
        for n in 0..2_000 {
            routes.add(&filter(&format!("t{n}.x")), &stream);
        }
        assert_eq!(check(&routes, &[filter("*.y")], 1), None);
        assert_eq!(check(&routes, &[filter("*.x")], 1), Some(Ok(0)));
        // Each of the new ones meets each of them.
        let first: Vec<Filter> = (0..256).map(|n| filter(&format!("*.{}y{n}", "*.".repeat(n % 20)))).collect();
        let mut deep = Routes::default();
        let names = ["a", "b"];
        for bits in 0..1_u32 << 15 {
            let tokens = (0..15).map(|at| names[(bits >> at & 1) as usize]);
            deep.add(&filter(&tokens.collect::<Vec<_>>().join(".")), &stream);
        }
        assert_eq!(check(&deep, &first[..3], 1), None);
        let crossing: Vec<Filter> = (0..256_u32)
            .map(|n| {
                let tokens = (0..15).map(|at| if at >= 8 || n >> at & 1 == 1 { "*" } else { names[at % 2] });
                filter(&tokens.chain(["z"]).collect::<Vec<_>>().join("."))
            })
            .collect();
        assert_eq!(check(&deep, &crossing, 1), Some(Err(MOST_OVERLAP_STEPS)));
    }
}
