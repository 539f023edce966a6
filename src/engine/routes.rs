//! Which stream stores a topic: the filters of all streams in one trie. Filters of different streams never overlap, so
//! the first that matches is the only one.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{Filter, Token, Topic};

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<Box<[u8]>, Node<T>>,
    one: Option<Box<Node<T>>>,
    /// The stream of a filter that ends here with `>`.
    tail: Option<Arc<T>>,
    /// The stream of a filter that ends here.
    here: Option<Arc<T>>,
}

/// From topics to streams.
#[derive(Debug)]
pub(super) struct Routes<T>(Node<T>);

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), one: None, tail: None, here: None }
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
        let mut node = &mut self.0;
        for token in filter.tokens() {
            node = match token {
                Token::Literal(literal) => node.literals.entry(literal.as_bytes().into()).or_default(),
                Token::One => node.one.get_or_insert_default(),
                Token::Tail => {
                    node.tail = Some(Arc::clone(stream));
                    return;
                }
            };
        }
        node.here = Some(Arc::clone(stream));
    }

    /// The stream that a topic belongs to.
    pub(super) fn find(&self, topic: Topic<'_>) -> Option<&Arc<T>> {
        find(&self.0, topic.as_bytes())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_trie_finds_what_the_filters_match(
            filters in prop::collection::vec("[ab*](\\.[ab*]){0,2}(\\.>)?|>", 0..8),
            topic in "[ab](\\.[ab]){0,3}",
        ) {
            let mut streams: Vec<(Filter, Arc<usize>)> = Vec::new();
            let mut routes = Routes::default();
            for filter in filters {
                let filter = Filter::parse(filter.as_bytes()).expect("a filter");
                if streams.iter().all(|(other, _)| !other.overlaps(&filter)) {
                    let stream = Arc::new(streams.len());
                    routes.add(&filter, &stream);
                    streams.push((filter, stream));
                }
            }
            let topic = Topic::parse(topic.as_bytes()).expect("a topic");
            let expected = streams.iter().find(|(filter, _)| filter.matches(topic)).map(|(_, stream)| **stream);
            prop_assert_eq!(routes.find(topic).map(|stream| **stream), expected);
        }
    }
}
