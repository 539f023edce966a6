//! Which shapes the filters of a trie have: what bounds the steps in which any topic is matched.
//!
//! A shape says which of the first so many tokens are `*`. Of all nodes of a trie that have one shape at most one matches a
//! topic, since the topic says what the other tokens are. So matching a topic visits no more nodes than there are shapes,
//! whatever the filters are. Pure.

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};

use crate::model::{Filter, Token};

/// Filters of so few tokens are never refused for their shapes,
const SIMPLE_TOKENS: u32 = 8;
/// nor are those with so few `*`. Others would not notice that somebody has used up all that are shared.
const SIMPLE_STARS: u32 = 1;
/// So many nodes are visited together at most, if that is more than one topic can visit.
const STEPS_TOGETHER: usize = 4096;
/// More topics are not looked up together: it would be no faster.
pub(super) const TOPICS_TOGETHER: usize = 32;

/// Which of the first tokens of a filter are `*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// How many tokens it speaks of, at most 32.
    tokens: u32,
    /// Bit n: token n is `*`.
    stars: u32,
}

impl Shape {
    /// That of a whole filter, but for a final `>`: that costs nothing more.
    pub(crate) fn of(filter: &Filter) -> Self {
        filter.tokens().fold(Self::default(), |shape, token| match token {
            Token::Literal(_) => shape.then(false),
            Token::One => shape.then(true),
            Token::Tail => shape,
        })
    }

    /// With one more token behind it.
    fn then(self, star: bool) -> Self {
        Self { tokens: self.tokens + 1, stars: self.stars | (u32::from(star) << self.tokens) }
    }

    /// With one more token before it.
    pub(super) fn behind(self, star: bool) -> Self {
        Self { tokens: self.tokens + 1, stars: (self.stars << 1) | u32::from(star) }
    }

    /// Of its first token, its first two, and so on to itself.
    fn prefixes(self) -> impl Iterator<Item = Self> {
        (1..=self.tokens).map(move |tokens| Self { tokens, stars: self.stars & (u32::MAX >> (32 - tokens)) })
    }

    /// One of the few that are never refused; then its prefixes are so, too.
    pub(super) fn is_simple(self) -> bool {
        self.tokens <= SIMPLE_TOKENS || self.stars.count_ones() <= SIMPLE_STARS
    }
}

/// The shapes of some filters and of their prefixes, counted.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    counts: HashMap<Shape, u32, DefaultHashBuilder>,
    /// How many of them may be refused.
    limited: usize,
}

impl Shapes {
    /// How many different ones there are; see [`Trie::matches`](super::Trie::matches).
    pub(crate) fn distinct(&self) -> usize {
        self.counts.len()
    }

    /// True when `filters` would bring more shapes than `limit` that are not simple.
    pub(crate) fn would_exceed(&self, filters: &[Filter], limit: usize) -> bool {
        let mut new = HashSet::<Shape, DefaultHashBuilder>::default();
        for shape in filters.iter().map(Shape::of).filter(|shape| !shape.is_simple()) {
            new.extend(shape.prefixes().filter(|prefix| !prefix.is_simple() && !self.counts.contains_key(prefix)));
            if self.limited + new.len() > limit {
                return true;
            }
        }
        false
    }

    pub(crate) fn add(&mut self, shape: Shape) {
        for prefix in shape.prefixes() {
            let count = self.counts.entry(prefix).or_default();
            *count += 1;
            self.limited += usize::from(*count == 1 && !prefix.is_simple());
        }
    }

    /// Forgets one that was added.
    pub(crate) fn remove(&mut self, shape: Shape) {
        for prefix in shape.prefixes() {
            let Some(count) = self.counts.get_mut(&prefix) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&prefix);
                self.limited -= usize::from(!prefix.is_simple());
            }
        }
    }

    /// How many topics may be looked up together, so that not too many nodes are visited.
    pub(crate) fn topics_together(&self) -> usize {
        (STEPS_TOGETHER / (self.distinct() + 1)).clamp(1, TOPICS_TOGETHER)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn filters(texts: impl IntoIterator<Item = String>) -> Vec<Filter> {
        texts.into_iter().map(|text| Filter::parse(text.as_bytes()).expect("a filter")).collect()
    }

    fn add(shapes: &mut Shapes, filters: &[Filter]) {
        for filter in filters {
            shapes.add(Shape::of(filter));
        }
    }

    fn remove(shapes: &mut Shapes, filters: &[Filter]) {
        for filter in filters {
            shapes.remove(Shape::of(filter));
        }
    }

    /// Filters that end in `*`, behind each of the ways to choose `a` or `*` for `tokens` tokens.
    fn all_ways(tokens: u32) -> Vec<Filter> {
        filters((0..1_u32 << tokens).map(|way| {
            let token = |n: u32| if way >> n & 1 == 1 { "*." } else { "a." };
            (0..tokens).map(token).collect::<String>() + "*"
        }))
    }

    #[test]
    fn what_is_added_is_counted_with_its_prefixes_and_goes_again() {
        let mut shapes = Shapes::default();
        let all = filters(["a.*.c", "b.*", "x.y.>", ">"].map(str::to_owned));
        add(&mut shapes, &all);
        // `a`, `a.*`, `a.*.c`, `x.y`.
        assert_eq!((shapes.distinct(), shapes.limited), (4, 0));
        remove(&mut shapes, &all);
        assert_eq!((shapes.distinct(), shapes.limited), (0, 0));
    }

    #[test]
    fn the_limit_holds_for_what_is_not_simple_and_for_nothing_else() {
        let (mut shapes, ways) = (Shapes::default(), all_ways(8));
        // Nine tokens with two stars and more: all of them but the one with the star at the end alone.
        let limited = ways.len() - 1;
        assert!(!shapes.would_exceed(&ways, limited), "at the limit");
        assert!(shapes.would_exceed(&ways, limited - 1), "one past");
        add(&mut shapes, &ways);
        assert_eq!(shapes.limited, limited);
        assert!(!shapes.would_exceed(&ways, limited), "they are there already");
        let simple = filters(["*.*.*.*.*.*.*.>".to_owned(), "a.".repeat(30) + "*.a"]);
        assert!(!shapes.would_exceed(&simple, 0));
        add(&mut shapes, &simple);
        assert_eq!(shapes.limited, limited);
        remove(&mut shapes, &ways);
        remove(&mut shapes, &simple);
        assert_eq!((shapes.distinct(), shapes.limited), (0, 0));
    }

    #[test]
    fn simple_shapes_are_few() {
        let all = (1..=8).flat_map(|tokens| (0..1 << tokens).map(move |stars| Shape { tokens, stars }));
        let long = (9..=32).flat_map(|tokens| {
            (0..tokens).map(move |star| Shape { tokens, stars: 1 << star }).chain([Shape { tokens, stars: 0 }])
        });
        let simple: HashSet<Shape> = all.chain(long).filter(|shape| shape.is_simple()).collect();
        assert_eq!(simple.len(), 1026);
    }
}
