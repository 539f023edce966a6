//! Which topics a stream keeps events of: the last of each, how many, and, where their number is limited, which. Pure.
//!
//! Where the last has a ttl, the ones before it that outlive it are known, too: which is the last at a point in time is
//! always known from here, whether or not what is past its ttl was counted as gone yet.
//!
//! Topics are found by name in a table, and gone through in the order of their names, some at a time: for the last of each,
//! or to list them.

use std::{
    collections::{BTreeSet, BinaryHeap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use hashbrown::HashMap;

use crate::{
    engine::{KeptTopic, TopicsAsked, TopicsFound},
    model::{Filter, Token, Topic},
};

/// What a topic costs, besides its name: measured, see `what_topics_cost_is_what_is_counted`.
const TOPIC_BYTES: usize = 120;
/// What it costs besides that where some of its events are listed.
const LIST_BYTES: usize = 64;
/// What one of these events costs.
const EVENT_BYTES: usize = 36;
/// Tables that could hold this many times what they do are made smaller,
const SPARSE: usize = 4;
/// if they could hold more than this.
const SMALL: usize = 1024;

#[derive(Debug, Default)]
struct Kept {
    /// 0 when it is not known.
    last: u64,
    /// When that is past its ttl.
    ends: u64,
    count: u64,
    /// In streams that limit the events of each topic: those kept. In others: those before the last that outlive it, each all
    /// that come after it.
    #[expect(clippy::box_collection, reason = "most have none, and there are very many of them")]
    listed: Option<Box<VecDeque<Listed>>>,
}

/// An event of a topic.
#[derive(Debug, Clone, Copy)]
struct Listed {
    sequence: u64,
    ends: u64,
    bytes: u32,
}

impl Kept {
    /// The last that is not past its ttl.
    fn last_at(&self, now: u64) -> Option<u64> {
        let listed = || self.listed.iter().flat_map(|listed| listed.iter().rev());
        let last =
            if self.ends > now { Some(self.last) } else { listed().find(|it| it.ends > now).map(|it| it.sequence) };
        last.filter(|last| *last > 0)
    }
}

/// The topics of one stream.
#[derive(Debug, Default)]
pub(super) struct Topics {
    kept: HashMap<Arc<[u8]>, Kept>,
    names: BTreeSet<Arc<[u8]>>,
    /// How long the names are together.
    name_bytes: usize,
    /// How many events are listed.
    listed: usize,
    /// For how many topics.
    lists: usize,
    /// The most events of a topic.
    limit: Option<u64>,
    /// The last of all last events that are not known any more, since somebody asked.
    forgotten: u64,
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
        self.kept.len() * TOPIC_BYTES + self.name_bytes + self.lists * LIST_BYTES + self.listed * EVENT_BYTES
    }

    /// How much a new topic takes besides its name, in bytes.
    pub(super) fn topic_bytes(&self) -> usize {
        TOPIC_BYTES + if self.limit.is_some() { LIST_BYTES } else { 0 }
    }

    /// How much a new event of a topic takes, which has a ttl or none, in bytes.
    pub(super) fn event_bytes(&self, topic: &[u8], ttl: bool) -> usize {
        match self.limit {
            Some(limit) if self.kept.get(topic).is_none_or(|kept| kept.count < limit) => EVENT_BYTES,
            None if ttl && self.kept.contains_key(topic) => self.most_event_bytes(ttl),
            _ => 0,
        }
    }

    /// How much a new event of any topic takes at most, which has a ttl or none, in bytes.
    pub(super) fn most_event_bytes(&self, ttl: bool) -> usize {
        match self.limit {
            Some(_) => EVENT_BYTES,
            None if ttl => EVENT_BYTES + LIST_BYTES,
            None => 0,
        }
    }

    /// True when a new event of a topic pushes out an older one.
    pub(super) fn is_full(&self, topic: &[u8]) -> bool {
        self.limit.is_some_and(|limit| self.kept.get(topic).is_some_and(|kept| kept.count >= limit))
    }

    /// A new event of `bytes`, which ends at a time or never; gives back sequence and size of the one that has to go for it, if
    /// any.
    pub(super) fn add(&mut self, topic: &[u8], sequence: u64, bytes: u32, ends: u64) -> Option<(u64, u32)> {
        let kept = match self.kept.get_mut(topic) {
            Some(kept) => kept,
            None => {
                let name: Arc<[u8]> = topic.into();
                self.name_bytes += name.len();
                self.names.insert(Arc::clone(&name));
                self.kept.entry(name).or_default()
            }
        };
        let new = Listed { sequence, ends, bytes };
        let before = Listed { sequence: kept.last, ends: kept.ends, bytes: 0 };
        (kept.last, kept.ends) = (sequence, ends);
        kept.count += 1;
        let (listed, lists) =
            (kept.listed.as_ref().map_or(0, |listed| listed.len()), usize::from(kept.listed.is_some()));
        let mut gone = None;
        match self.limit {
            Some(limit) => {
                let listed = kept.listed.get_or_insert_default();
                listed.push_back(new);
                gone = if listed.len() as u64 > limit { listed.pop_front() } else { None };
                kept.count = listed.len() as u64;
            }
            None => kept.outlived_by(before, ends),
        }
        self.listed = self.listed + kept.listed.as_ref().map_or(0, |listed| listed.len()) - listed;
        self.lists = self.lists + usize::from(kept.listed.is_some()) - lists;
        gone.map(|gone| (gone.sequence, gone.bytes))
    }

    /// The oldest event of a topic is gone, which has this sequence.
    pub(super) fn remove_oldest(&mut self, topic: &[u8], sequence: u64) {
        let Some(kept) = self.kept.get_mut(topic) else { return };
        if let Some(listed) = &mut kept.listed {
            let some = listed.len();
            while listed.front().is_some_and(|first| first.sequence <= sequence) {
                listed.pop_front();
            }
            self.listed -= some - listed.len();
            shrink(listed);
        }
        self.removed(topic);
    }

    /// An event is gone; false when it was already. When it was the last of its topic, and there are others, the last may have
    /// to be found: see [`Self::lacks_last`].
    pub(super) fn remove(&mut self, topic: &[u8], sequence: u64) -> bool {
        self.take(topic, sequence, true)
    }

    /// An event is past its ttl; false when it was gone already.
    pub(super) fn expire(&mut self, topic: &[u8], sequence: u64) -> bool {
        self.take(topic, sequence, false)
    }

    /// Takes an event out, which may be one that outlives others that nothing is known of but this.
    fn take(&mut self, topic: &[u8], sequence: u64, outlives: bool) -> bool {
        let limited = self.limit.is_some();
        let Some(kept) = self.kept.get_mut(topic) else { return false };
        let some = kept.listed.as_ref().map_or(0, |listed| listed.len());
        let mut found = false;
        if let Some(listed) = &mut kept.listed
            && let Ok(at) = listed.binary_search_by_key(&sequence, |it| it.sequence)
        {
            found = true;
            listed.remove(at);
            shrink(listed);
        }
        if limited && !found {
            return false;
        }
        if !limited && outlives && (found || kept.last == sequence) {
            self.forgotten = self.forgotten.max(kept.last);
            kept.last = 0;
            kept.listed.iter_mut().for_each(|listed| listed.clear());
        } else if kept.last == sequence {
            let listed = kept.listed.as_mut();
            let last = listed.and_then(|listed| if limited { listed.back().copied() } else { listed.pop_back() });
            (kept.last, kept.ends) = last.map_or((0, 0), |last| (last.sequence, last.ends));
        }
        self.listed = self.listed + kept.listed.as_ref().map_or(0, |listed| listed.len()) - some;
        self.removed(topic);
        true
    }

    /// A topic has one event less.
    fn removed(&mut self, topic: &[u8]) {
        let Some(kept) = self.kept.get_mut(topic) else { return };
        kept.count = kept.count.saturating_sub(1);
        if kept.listed.as_ref().is_some_and(|listed| listed.is_empty()) {
            kept.listed = None;
            self.lists -= 1;
        }
        if kept.count == 0 {
            self.forget(topic);
        }
    }

    fn forget(&mut self, topic: &[u8]) {
        if let Some(Kept { listed: Some(listed), .. }) = self.kept.remove(topic) {
            self.lists -= 1;
            self.listed -= listed.len();
        }
        self.names.remove(topic);
        self.name_bytes -= topic.len();
        if self.kept.capacity() > SMALL && self.kept.len() * SPARSE < self.kept.capacity() {
            self.kept.shrink_to(2 * self.kept.len());
        }
    }

    /// How many events of a topic are kept.
    pub(super) fn count(&self, topic: &[u8]) -> u64 {
        self.kept.get(topic).map_or(0, |kept| kept.count)
    }

    /// True for a topic of which events are kept and the last is not known.
    pub(super) fn lacks_last(&self, topic: &[u8]) -> bool {
        self.kept.get(topic).is_some_and(|kept| kept.last == 0)
    }

    /// Where to begin to look, going back, for the last events of topics that lack them since the last call.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    /// An event of a topic was found that ends at a time, and behind which nothing is that is not known.
    pub(super) fn found(&mut self, topic: &[u8], sequence: u64, ends: u64) {
        let Some(kept) = self.kept.get_mut(topic).filter(|_| self.limit.is_none()) else { return };
        let oldest = kept.listed.as_ref().and_then(|listed| listed.front());
        let (first, longest) = oldest.map_or((kept.last, kept.ends), |it| (it.sequence, it.ends));
        if kept.last == 0 {
            (kept.last, kept.ends) = (sequence, ends);
        } else if sequence < first && ends > longest {
            self.lists += usize::from(kept.listed.is_none());
            kept.listed.get_or_insert_default().push_front(Listed { sequence, ends, bytes: 0 });
            self.listed += 1;
        }
    }

    /// True unless newer events of its topic pushed it out.
    pub(super) fn keeps(&self, topic: &[u8], sequence: u64) -> bool {
        if self.limit.is_none() {
            return true;
        }
        let oldest = self.kept.get(topic).and_then(|kept| kept.listed.as_ref()?.front());
        oldest.is_some_and(|oldest| oldest.sequence <= sequence)
    }

    /// Some of the topics that are asked for, without those all of which is past its ttl at a time; looks for about so many steps.
    pub(super) fn some(&self, asked: &TopicsAsked<'_>, now: u64, mut steps: usize) -> TopicsFound {
        let part = asked.filter.map(Part::new);
        let (begins, is_name) = part.as_ref().map_or((&[][..], false), |part| (&*part.prefix, part.is_name));
        let (short, long) =
            if begins.len() < asked.prefix.len() { (begins, asked.prefix) } else { (asked.prefix, begins) };
        let mut found = TopicsFound::default();
        if !long.starts_with(short) {
            return found;
        }
        let begin = if asked.after < long { Bound::Included(long) } else { Bound::Excluded(asked.after) };
        let mut at = asked.after;
        for name in self.names.range::<[u8], _>((begin, Bound::Unbounded)) {
            // A name is before all others that begin with it.
            if !name.starts_with(long) || (is_name && **name != *begins) {
                break;
            }
            if steps == 0 || found.topics.len() >= asked.most {
                found.through = Some(at.into());
                break;
            }
            steps = steps.saturating_sub(2);
            at = name;
            let (topic, Some(kept)) = (Topic::checked(name), self.kept.get(name)) else { continue };
            let last = kept.last_at(now);
            if (last.is_some() || kept.last == 0) && asked.filter.is_none_or(|filter| filter.matches(topic)) {
                found.topics.push(KeptTopic::new(topic, kept.count, last));
            }
        }
        found
    }

    /// The sequence of the last event of a topic that is not past its ttl.
    pub(super) fn last(&self, topic: &[u8], now: u64) -> Option<u64> {
        self.kept.get(topic).and_then(|kept| kept.last_at(now))
    }
}

impl Kept {
    /// What was the last is followed by one that ends at a time: of the two and those before, those are of interest that
    /// outlive all that follow.
    fn outlived_by(&mut self, before: Listed, ends: u64) {
        if before.sequence > 0 && before.ends > ends {
            self.listed.get_or_insert_default().push_back(before);
        } else if let Some(listed) = &mut self.listed {
            while listed.back().is_some_and(|it| it.ends <= ends) {
                listed.pop_back();
            }
            if listed.is_empty() {
                self.listed = None;
            }
        }
    }
}

fn shrink(listed: &mut VecDeque<Listed>) {
    if listed.capacity() > SMALL && listed.len() * SPARSE < listed.capacity() {
        listed.shrink_to(2 * listed.len());
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

    /// Looks at topics, as they are at a time, for about so many steps; true when there are no more.
    pub(super) fn look(&mut self, topics: &Topics, now: u64, mut steps: usize) -> bool {
        while let Some(part) = self.parts.front() {
            if part.is_name {
                steps = steps.saturating_sub(1);
                let last = topics.last(&part.prefix, now);
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
                        found.extend(topics.last(name, now));
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

    const NEVER: u64 = u64::MAX;

    #[test]
    fn a_limit_pushes_out_the_oldest_of_the_topic() {
        let mut topics = Topics::new(Some(2));
        assert_eq!([1, 3, 4].map(|sequence| topics.add(b"a", sequence, 9, NEVER)), [None, None, Some((1, 9))]);
        assert_eq!(topics.add(b"b", 5, 9, NEVER), None);
        let kept = [1, 3, 4].map(|sequence| topics.keeps(b"a", sequence));
        assert_eq!(kept, [false, true, true]);
        assert_eq!((topics.last(b"a", 0), topics.last(b"c", 0)), (Some(4), None));
    }

    fn filters(patterns: &[&str]) -> Vec<Filter> {
        patterns.iter().map(|pattern| Filter::parse(pattern.as_bytes()).expect("a filter")).collect()
    }

    fn last_of_each(topics: &Topics, patterns: &[&str], after: u64, up_to: u64, most: usize) -> Vec<u64> {
        let mut search = LastSearch::new(&filters(patterns), after, up_to, most);
        while !search.look(topics, 0, 1) {}
        search.finish()
    }

    /// How many steps it takes to look for the last of each topic.
    fn steps(topics: &Topics, patterns: &[&str]) -> usize {
        let mut search = LastSearch::new(&filters(patterns), 0, u64::MAX, 9);
        (1..=topics.len() + 9).find(|_| search.look(topics, 0, 1)).expect("an end")
    }

    #[test]
    fn the_last_of_a_topic_with_a_limit_is_the_last_that_is_kept() {
        let mut topics = Topics::new(Some(2));
        for sequence in 1..=2 {
            topics.add(b"a", sequence, 9, NEVER);
        }
        assert!(topics.remove(b"a", 2) && !topics.remove(b"a", 2));
        assert_eq!((topics.last(b"a", 0), last_of_each(&topics, &[], 0, 9, 9)), (Some(1), vec![1]));
    }

    #[test]
    fn a_topic_is_forgotten_with_its_last_event() {
        let mut topics = Topics::new(None);
        for sequence in 1..=2 {
            topics.add(b"a", sequence, 9, NEVER);
        }
        topics.remove_oldest(b"a", 1);
        assert_eq!(topics.last(b"a", 0), Some(2));
        topics.remove_oldest(b"a", 2);
        assert_eq!((topics.last(b"a", 0), topics.len(), topics.bytes()), (None, 0, 0));
    }

    /// The names of all topics that are asked for, some at a time, and in how many times.
    fn listed(topics: &Topics, prefix: &str, filter: Option<&str>, most: usize, steps: usize) -> (Vec<String>, usize) {
        let filter = filter.map(|filter| Filter::parse(filter.as_bytes()).expect("a filter"));
        let (mut names, mut times) = (Vec::new(), 0);
        let mut after: Box<[u8]> = Box::default();
        loop {
            let asked = TopicsAsked { after: &after, prefix: prefix.as_bytes(), filter: filter.as_ref(), most };
            let found = topics.some(&asked, 5, steps);
            assert!(found.topics.len() <= most);
            names.extend(found.topics.iter().map(|topic| topic.topic().to_string()));
            times += 1;
            match found.through {
                Some(through) => after = through,
                None => return (names, times),
            }
        }
    }

    #[test]
    fn topics_are_listed_by_name_some_at_a_time() {
        let mut topics = Topics::new(None);
        for (sequence, topic) in (1..).zip(["b.x", "a", "a.b", "a.bc", "a.b.c", "c"]) {
            topics.add(topic.as_bytes(), sequence, 9, NEVER);
        }
        let all = ["a", "a.b", "a.b.c", "a.bc", "b.x", "c"];
        assert_eq!(listed(&topics, "", None, 9, 99), (all.map(String::from).to_vec(), 1));
        assert_eq!(listed(&topics, "", None, 2, 99), (all.map(String::from).to_vec(), 3), "in pages of two");
        assert_eq!(listed(&topics, "", None, 9, 1), (all.map(String::from).to_vec(), 6), "in single steps");
        let cases = [
            ("a.b", None, vec!["a.b", "a.b.c", "a.bc"]),
            ("a.b", Some("a.*"), vec!["a.b", "a.bc"]),
            ("", Some("a.b"), vec!["a.b"]),
            ("a.b", Some("a.b"), vec!["a.b"]),
            ("a.bc", Some("a.b"), vec![]),
            ("b", Some("a.>"), vec![]),
            ("a", Some(">"), vec!["a", "a.b", "a.b.c", "a.bc"]),
            ("", Some("*.x"), vec!["b.x"]),
            ("d", None, vec![]),
        ];
        for (prefix, filter, expected) in cases {
            for (most, steps) in [(9, 99), (1, 99), (9, 1)] {
                assert_eq!(listed(&topics, prefix, filter, most, steps).0, expected, "{prefix} {filter:?}");
            }
        }
    }

    #[test]
    fn a_topic_is_listed_with_what_is_known_of_it() {
        let mut topics = Topics::new(None);
        let events = [("a", 1, NEVER), ("a", 2, 5), ("dead", 3, 5), ("gone", 4, NEVER), ("gone", 5, NEVER)];
        for (topic, sequence, ends) in events {
            topics.add(topic.as_bytes(), sequence, 9, ends);
        }
        topics.remove(b"gone", 5);
        let asked = TopicsAsked { after: b"", prefix: b"", filter: None, most: 9 };
        let found = topics.some(&asked, 5, 99).topics;
        let found: Vec<_> = found.iter().map(|it| (it.topic().to_string(), it.events, it.last)).collect();
        assert_eq!(found, [("a".to_owned(), 2, Some(1)), ("gone".to_owned(), 1, None)]);
    }

    #[test]
    fn the_last_of_each_topic_is_told_up_to_a_point() {
        let mut topics = Topics::new(None);
        for (topic, sequence) in [("a.x", 1), ("b", 2), ("a.y", 3), ("a.x", 4), ("a.z", 5)] {
            topics.add(topic.as_bytes(), sequence, 9, NEVER);
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
            topics.add(format!("{}", sequence * 7919 % 400).as_bytes(), sequence, 9, NEVER);
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
            topics.add(format!("s.{}.{n}", n % 10).as_bytes(), n, 9, NEVER);
        }
        assert_eq!(steps(&topics, &["s.none"]), 1);
        assert!(steps(&topics, &["s.none.*", "t.>", "s.1.1"]) <= 3);
        assert!((100..110).contains(&steps(&topics, &["s.3.*"])));
        assert!((1000..1010).contains(&steps(&topics, &["*.none", "s.3.*"])));
    }

    /// What a topic does in the test below.
    #[derive(Debug, Clone)]
    enum Step {
        Add(u64),
        Pass(u64),
        Remove(usize),
        Oldest,
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        prop_oneof![
            6 => prop_oneof![1..30_u64, Just(NEVER)].prop_map(Step::Add),
            3 => (0..8_u64).prop_map(Step::Pass),
            1 => (0..9_usize).prop_map(Step::Remove),
            1 => Just(Step::Oldest),
        ]
    }

    proptest::proptest! {
        #[test]
        fn the_last_that_lives_is_known_at_any_time(
            steps in proptest::collection::vec(step(), 1..60),
            limit in proptest::option::of(1..6_u64),
            sweeps: bool,
        ) {
            let (mut topics, mut now, mut next) = (Topics::new(limit), 0, 1);
            let mut kept: Vec<(u64, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Add(ttl) => {
                        // What is dead has to be gone before a limit looks.
                        if limit.is_some() {
                            kept.retain(|(sequence, ends)| *ends > now || !topics.expire(b"t", *sequence));
                        }
                        let gone = topics.add(b"t", next, 1, now.saturating_add(ttl));
                        kept.push((next, now.saturating_add(ttl)));
                        kept.retain(|(sequence, _)| gone.is_none_or(|gone| gone.0 != *sequence));
                        next += 1;
                    }
                    Step::Pass(time) => {
                        now += time;
                        if sweeps {
                            kept.retain(|(sequence, ends)| *ends > now || !topics.expire(b"t", *sequence));
                        }
                    }
                    Step::Remove(at) if at < kept.len() => {
                        let (sequence, _) = kept.remove(at);
                        proptest::prop_assert!(topics.remove(b"t", sequence));
                        if topics.lacks_last(b"t") {
                            kept.iter().rev().for_each(|(sequence, ends)| topics.found(b"t", *sequence, *ends));
                        }
                    }
                    Step::Oldest if !kept.is_empty() => topics.remove_oldest(b"t", kept.remove(0).0),
                    _ => {}
                }
                let last = kept.iter().rev().find(|(_, ends)| *ends > now).map(|(sequence, _)| *sequence);
                proptest::prop_assert_eq!(topics.last(b"t", now), last);
                proptest::prop_assert_eq!(topics.has(b"t"), !kept.is_empty());
                let listed = topics.kept.get(b"t".as_slice()).and_then(|kept| kept.listed.as_ref());
                proptest::prop_assert_eq!(topics.listed, listed.map_or(0, |listed| listed.len()));
                proptest::prop_assert_eq!(topics.lists, usize::from(listed.is_some()));
            }
        }

        #[test]
        fn what_is_found_in_steps_is_what_the_filters_match(
            names in proptest::collection::vec("[ab-](\\.[ab-]){0,2}", 0..30),
            patterns in proptest::collection::vec("[ab*-](\\.[ab*-]){0,2}(\\.>)?|>", 0..4),
            (after, most) in (0..20_u64, 0..20_usize),
        ) {
            let mut topics = Topics::new(None);
            for (at, name) in names.iter().enumerate() {
                topics.add(name.as_bytes(), at as u64 + 1, 9, NEVER);
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
                    (0..2).for_each(|more| _ = topics.add(name.as_bytes(), (2 * n + more) as u64 + 1, 9, NEVER));
                }
            });
            let (real, counted) = (measured.bytes_current as f64, topics.bytes() as f64);
            println!("{limit:?} {count} topics of {len} bytes: {real} bytes, counted as {counted}");
            assert!((0.6..1.3).contains(&(real / counted)), "{real} and {counted}");
            for n in 0..count {
                (0..2).for_each(|more| {
                    topics.remove_oldest(format!("{n:0len$}").as_bytes(), (2 * n + more) as u64 + 1);
                });
            }
            assert_eq!((topics.bytes(), topics.kept.capacity() <= SMALL), (0, true));
        }
    }
}
