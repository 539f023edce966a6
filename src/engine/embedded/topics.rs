//! Which topics a stream keeps events of: the last of each, how many, and, where their number is limited, which.
//!
//! Topics are found by name in a table, and gone through in the order of their names, some at a time.

use std::{
    collections::{BTreeSet, BinaryHeap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use hashbrown::HashMap;

use crate::model::{Filter, Token, Topic};

/// What a topic costs, besides its name: measured, see `what_topics_cost_is_what_is_counted`.
const TOPIC_BYTES: usize = 112;
/// What it costs besides that where its events are limited.
const LIST_BYTES: usize = 48;
/// What one of these events costs.
const EVENT_BYTES: usize = 24;
/// Tables that could hold this many times what they do are made smaller,
const SPARSE: usize = 4;
/// if they could hold more than this.
const SMALL: usize = 1024;

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    count: u64,
    /// The sequences and sizes of those kept, in streams that limit them for each topic; none in others.
    #[expect(clippy::box_collection, reason = "most have none, and there are very many of them")]
    sequences: Option<Box<VecDeque<(u64, u32)>>>,
}

/// The topics of one stream.
#[derive(Debug, Default)]
pub(super) struct Topics {
    kept: HashMap<Arc<[u8]>, Kept>,
    names: BTreeSet<Arc<[u8]>>,
    /// How long the names are together.
    name_bytes: usize,
    /// How many events are kept, where they are limited.
    listed: usize,
    /// The most events of a topic.
    limit: Option<u64>,
}

impl Topics {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn has(&self, topic: &[u8]) -> bool {
        self.kept.contains_key(topic)
    }

    /// True when events of a topic push out older ones.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// How much memory they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.kept.len() * self.topic_bytes() + self.name_bytes + self.listed * EVENT_BYTES
    }

    /// How much a new topic takes besides its name, in bytes.
    pub(super) fn topic_bytes(&self) -> usize {
        TOPIC_BYTES + if self.limit.is_some() { LIST_BYTES } else { 0 }
    }

    /// How much a new event of a topic takes, in bytes.
    pub(super) fn event_bytes(&self, topic: &[u8]) -> usize {
        match self.limit {
            Some(limit) if self.kept.get(topic).is_none_or(|kept| kept.count < limit) => EVENT_BYTES,
            _ => 0,
        }
    }

    /// How much a new event of any topic takes at most, in bytes.
    pub(super) fn most_event_bytes(&self) -> usize {
        if self.limit.is_some() { EVENT_BYTES } else { 0 }
    }

    /// True when a new event of a topic pushes out an older one.
    pub(super) fn is_full(&self, topic: &[u8]) -> bool {
        self.limit.is_some_and(|limit| self.kept.get(topic).is_some_and(|kept| kept.count >= limit))
    }

    /// A new event of `bytes`; gives back sequence and size of the one that has to go for it, if any.
    pub(super) fn add(&mut self, topic: &[u8], sequence: u64, bytes: u32) -> Option<(u64, u32)> {
        let kept = match self.kept.get_mut(topic) {
            Some(kept) => kept,
            None => {
                let name: Arc<[u8]> = topic.into();
                self.name_bytes += name.len();
                self.names.insert(Arc::clone(&name));
                self.kept.entry(name).or_default()
            }
        };
        kept.last = sequence;
        let Some(limit) = self.limit else {
            kept.count += 1;
            return None;
        };
        let sequences = kept.sequences.get_or_insert_default();
        sequences.push_back((sequence, bytes));
        self.listed += 1;
        let gone = if sequences.len() as u64 > limit { sequences.pop_front() } else { None };
        self.listed -= usize::from(gone.is_some());
        kept.count = sequences.len() as u64;
        gone
    }

    /// The oldest event of a topic is gone.
    pub(super) fn remove_oldest(&mut self, topic: &[u8]) {
        let Some(kept) = self.kept.get_mut(topic) else { return };
        if let Some(sequences) = &mut kept.sequences
            && sequences.pop_front().is_some()
        {
            self.listed -= 1;
            shrink(sequences);
        }
        kept.count = kept.count.saturating_sub(1);
        if kept.count == 0 {
            self.forget(topic);
        }
    }

    /// An event is gone; false when it was already. When it was the last of its topic, and there are others, the last may have
    /// to be found: see [`Self::lacks_last`].
    pub(super) fn remove(&mut self, topic: &[u8], sequence: u64) -> bool {
        let Some(kept) = self.kept.get_mut(topic) else { return false };
        if self.limit.is_some() {
            let Some(sequences) = &mut kept.sequences else { return false };
            let Ok(at) = sequences.binary_search_by_key(&sequence, |kept| kept.0) else { return false };
            sequences.remove(at);
            self.listed -= 1;
            shrink(sequences);
            kept.last = sequences.back().map_or(0, |last| last.0);
        } else if kept.last == sequence {
            kept.last = 0;
        }
        kept.count = kept.count.saturating_sub(1);
        if kept.count == 0 {
            self.forget(topic);
        }
        true
    }

    fn forget(&mut self, topic: &[u8]) {
        self.kept.remove(topic);
        self.names.remove(topic);
        self.name_bytes -= topic.len();
        if self.kept.capacity() > SMALL && self.kept.len() * SPARSE < self.kept.capacity() {
            self.kept.shrink_to(2 * self.kept.len());
        }
    }

    /// True for a topic of which events are kept and the last is not known.
    pub(super) fn lacks_last(&self, topic: &[u8]) -> bool {
        self.kept.get(topic).is_some_and(|kept| kept.last == 0)
    }

    /// The last event of a topic was found.
    pub(super) fn set_last(&mut self, topic: &[u8], last: u64) {
        if let Some(kept) = self.kept.get_mut(topic) {
            kept.last = last;
        }
    }

    /// True unless newer events of its topic pushed it out.
    pub(super) fn keeps(&self, topic: &[u8], sequence: u64) -> bool {
        if self.limit.is_none() {
            return true;
        }
        let oldest = self.kept.get(topic).and_then(|kept| kept.sequences.as_ref()?.front());
        oldest.is_some_and(|oldest| oldest.0 <= sequence)
    }

    /// The sequence of the last event of a topic.
    pub(super) fn last(&self, topic: &[u8]) -> Option<u64> {
        self.kept.get(topic).map(|kept| kept.last).filter(|last| *last > 0)
    }
}

fn shrink(sequences: &mut VecDeque<(u64, u32)>) {
    if sequences.capacity() > SMALL && sequences.len() * SPARSE < sequences.capacity() {
        sequences.shrink_to(2 * sequences.len());
    }
}

/// Names that begin with the same tokens, and the filters that may take them.
#[derive(Debug)]
struct Part {
    /// What they begin with, or what the one name is.
    prefix: Box<[u8]>,
    is_name: bool,
    /// None: all are taken.
    filters: Vec<Filter>,
}

impl Part {
    fn new(filter: &Filter) -> Self {
        let (mut prefix, mut is_name) = (Vec::new(), true);
        for token in filter.tokens() {
            let Token::Literal(token) = token else {
                is_name = false;
                break;
            };
            prefix.extend_from_slice(token.as_bytes());
            prefix.push(b'.');
        }
        if is_name {
            prefix.pop();
        }
        Self { prefix: prefix.into(), is_name, filters: vec![filter.clone()] }
    }
}

/// A search for the last sequences of the topics that match filters: of those in `(after, up_to]` the first `most`. It looks
/// only at topics that begin as one of the filters does, and goes on where it was, however topics change meanwhile.
#[derive(Debug)]
pub(super) struct LastSearch {
    /// In the order of names, none of which is in two of them.
    parts: VecDeque<Part>,
    /// The last name that was looked at, in the first part.
    at: Option<Arc<[u8]>>,
    after: u64,
    up_to: u64,
    most: usize,
    /// The largest on top: it makes room for smaller ones.
    found: BinaryHeap<u64>,
}

impl LastSearch {
    pub(super) fn new(filters: &[Filter], after: u64, up_to: u64, most: usize) -> Self {
        let mut parts: Vec<Part> = filters.iter().map(Part::new).collect();
        if parts.is_empty() {
            parts.push(Part { prefix: Box::default(), is_name: false, filters: Vec::new() });
        }
        parts.sort_by(|one, two| (&one.prefix, one.is_name).cmp(&(&two.prefix, two.is_name)));
        parts.dedup_by(|part, before| {
            let is_part = if before.is_name {
                part.is_name && part.prefix == before.prefix
            } else {
                part.prefix.starts_with(&before.prefix)
            };
            if is_part {
                before.filters.append(&mut part.filters);
            }
            is_part
        });
        Self { parts: parts.into(), at: None, after, up_to, most, found: BinaryHeap::new() }
    }

    /// Looks at topics for about so many steps; true when there are no more.
    pub(super) fn look(&mut self, topics: &Topics, mut steps: usize) -> bool {
        while let Some(part) = self.parts.front() {
            if part.is_name {
                steps = steps.saturating_sub(1);
                let last = topics.last(&part.prefix);
                self.parts.pop_front();
                self.offer(last);
            } else {
                let begin = match &self.at {
                    Some(at) => Bound::Excluded(&**at),
                    None => Bound::Included(&*part.prefix),
                };
                let mut ended = true;
                let mut found = Vec::new();
                for name in topics.names.range::<[u8], _>((begin, Bound::Unbounded)) {
                    if !name.starts_with(&part.prefix) {
                        break;
                    }
                    if steps == 0 {
                        ended = false;
                        break;
                    }
                    steps = steps.saturating_sub(1 + part.filters.len());
                    let wanted = part.filters.is_empty()
                        || Topic::parse(name).is_ok_and(|topic| part.filters.iter().any(|f| f.matches(topic)));
                    if wanted {
                        found.extend(topics.last(name));
                    }
                    self.at = Some(Arc::clone(name));
                }
                for last in found {
                    self.offer(Some(last));
                }
                if ended {
                    self.parts.pop_front();
                    self.at = None;
                }
            }
            if steps == 0 && !self.parts.is_empty() {
                return false;
            }
        }
        true
    }

    fn offer(&mut self, last: Option<u64>) {
        let Some(last) = last.filter(|last| *last > self.after && *last <= self.up_to) else { return };
        self.found.push(last);
        if self.found.len() > self.most {
            self.found.pop();
        }
    }

    /// What was found, ascending.
    pub(super) fn finish(self) -> Vec<u64> {
        self.found.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_pushes_out_the_oldest_of_the_topic() {
        let mut topics = Topics::new(Some(2));
        assert_eq!([1, 3, 4].map(|sequence| topics.add(b"a", sequence, 9)), [None, None, Some((1, 9))]);
        assert_eq!(topics.add(b"b", 5, 9), None);
        let kept = [1, 3, 4].map(|sequence| topics.keeps(b"a", sequence));
        assert_eq!(kept, [false, true, true]);
        assert_eq!((topics.last(b"a"), topics.last(b"c")), (Some(4), None));
    }

    fn filters(patterns: &[&str]) -> Vec<Filter> {
        patterns.iter().map(|pattern| Filter::parse(pattern.as_bytes()).expect("a filter")).collect()
    }

    fn last_of_each(topics: &Topics, patterns: &[&str], after: u64, up_to: u64, most: usize) -> Vec<u64> {
        let mut search = LastSearch::new(&filters(patterns), after, up_to, most);
        while !search.look(topics, 1) {}
        search.finish()
    }

    /// How many steps it takes to look for the last of each topic.
    fn steps(topics: &Topics, patterns: &[&str]) -> usize {
        let mut search = LastSearch::new(&filters(patterns), 0, u64::MAX, 9);
        (1..=topics.len() + 9).find(|_| search.look(topics, 1)).expect("an end")
    }

    #[test]
    fn the_last_of_a_topic_with_a_limit_is_the_last_that_is_kept() {
        let mut topics = Topics::new(Some(2));
        for sequence in 1..=2 {
            topics.add(b"a", sequence, 9);
        }
        assert!(topics.remove(b"a", 2) && !topics.remove(b"a", 2));
        assert_eq!((topics.last(b"a"), last_of_each(&topics, &[], 0, 9, 9)), (Some(1), vec![1]));
    }

    #[test]
    fn a_topic_is_forgotten_with_its_last_event() {
        let mut topics = Topics::new(None);
        for sequence in 1..=2 {
            topics.add(b"a", sequence, 9);
        }
        topics.remove_oldest(b"a");
        assert_eq!(topics.last(b"a"), Some(2));
        topics.remove_oldest(b"a");
        assert_eq!((topics.last(b"a"), topics.len(), topics.bytes()), (None, 0, 0));
    }

    #[test]
    fn the_last_of_each_topic_is_told_up_to_a_point() {
        let mut topics = Topics::new(None);
        for (topic, sequence) in [("a.x", 1), ("b", 2), ("a.y", 3), ("a.x", 4), ("a.z", 5)] {
            topics.add(topic.as_bytes(), sequence, 9);
        }
        assert_eq!(last_of_each(&topics, &["a.*"], 0, 4, 9), [3, 4]);
        assert_eq!(last_of_each(&topics, &[], 0, 9, 9), [2, 3, 4, 5]);
        assert_eq!(last_of_each(&topics, &["b", "a.*", "a.x", "*.y", "b"], 0, 9, 9), [2, 3, 4, 5], "each once");
        assert_eq!(last_of_each(&topics, &["b", "a.x", "a", "a.x.>"], 0, 9, 9), [2, 4]);
    }

    #[test]
    fn the_last_of_each_topic_comes_in_pages() {
        let mut topics = Topics::new(None);
        for sequence in 1..=1000_u64 {
            topics.add(format!("{}", sequence * 7919 % 400).as_bytes(), sequence, 9);
        }
        let all = last_of_each(&topics, &[], 0, 950, usize::MAX);
        assert!(all.len() > 300 && all.is_sorted());
        let (mut pages, mut after) = (Vec::new(), 0);
        loop {
            let page = last_of_each(&topics, &[], after, 950, 7);
            pages.extend_from_slice(&page);
            after = page.last().copied().unwrap_or_default();
            if page.len() < 7 {
                break;
            }
        }
        assert_eq!(pages, all);
        assert_eq!(last_of_each(&topics, &[], 0, 950, 0), [0; 0]);
    }

    #[test]
    fn only_topics_that_begin_as_a_filter_does_are_looked_at() {
        let mut topics = Topics::new(None);
        for n in 1..=1000_u64 {
            topics.add(format!("s.{}.{n}", n % 10).as_bytes(), n, 9);
        }
        assert_eq!(steps(&topics, &["s.none"]), 1);
        assert!(steps(&topics, &["s.none.*", "t.>", "s.1.1"]) <= 3);
        assert!((100..110).contains(&steps(&topics, &["s.3.*"])));
        assert!((1000..1010).contains(&steps(&topics, &["*.none", "s.3.*"])));
    }

    proptest::proptest! {
        #[test]
        fn what_is_found_in_steps_is_what_the_filters_match(
            names in proptest::collection::vec("[ab-](\\.[ab-]){0,2}", 0..30),
            patterns in proptest::collection::vec("[ab*-](\\.[ab*-]){0,2}(\\.>)?|>", 0..4),
            (after, most) in (0..20_u64, 0..20_usize),
        ) {
            let mut topics = Topics::new(None);
            for (at, name) in names.iter().enumerate() {
                topics.add(name.as_bytes(), at as u64 + 1, 9);
            }
            let wanted: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let filters = filters(&wanted);
            let mut expected: Vec<u64> = topics
                .kept
                .iter()
                .filter(|(name, _)| {
                    let topic = Topic::parse(name).expect("a topic");
                    filters.is_empty() || filters.iter().any(|filter| filter.matches(topic))
                })
                .map(|(_, kept)| kept.last)
                .filter(|last| *last > after)
                .collect();
            expected.sort_unstable();
            expected.truncate(most);
            proptest::prop_assert_eq!(last_of_each(&topics, &wanted, after, u64::MAX, most), expected);
        }
    }

    #[test]
    fn what_topics_cost_is_what_is_counted() {
        for (limit, count, len) in
            [(None, 1_000_usize, 20), (None, 100_000, 20), (None, 150_000, 200), (Some(3), 60_000, 20)]
        {
            let mut topics = Topics::new(limit);
            let measured = allocation_counter::measure(|| {
                for n in 0..count {
                    let name = format!("{n:0len$}");
                    (0..2).for_each(|more| _ = topics.add(name.as_bytes(), (2 * n + more) as u64 + 1, 9));
                }
            });
            let (real, counted) = (measured.bytes_current as f64, topics.bytes() as f64);
            println!("{limit:?} {count} topics of {len} bytes: {real} bytes, counted as {counted}");
            assert!((0.6..1.3).contains(&(real / counted)), "{real} and {counted}");
            for n in 0..count {
                (0..2).for_each(|_| topics.remove_oldest(format!("{n:0len$}").as_bytes()));
            }
            assert_eq!((topics.bytes(), topics.kept.capacity() <= SMALL), (0, true));
        }
    }
}
