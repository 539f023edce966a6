//! Which topics a stream keeps events of: the last of each, how many, and, where their number is limited, which.

use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashMap;

use crate::model::{Filter, Topic};

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    count: u64,
    /// The sequences and sizes of those kept, in streams that limit them for each topic; empty in others.
    sequences: VecDeque<(u64, u32)>,
}

/// The topics of one stream.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: HashMap<Box<[u8]>, Kept>,
    /// The most events of a topic.
    limit: Option<u64>,
}

impl Topics {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { topics: HashMap::new(), limit }
    }

    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(super) fn has(&self, topic: &[u8]) -> bool {
        self.topics.contains_key(topic)
    }

    /// True when events of a topic push out older ones.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// A new event of `bytes`; gives back sequence and size of the one that has to go for it, if any.
    pub(super) fn add(&mut self, topic: &[u8], sequence: u64, bytes: u32) -> Option<(u64, u32)> {
        let kept = match self.topics.get_mut(topic) {
            Some(kept) => kept,
            None => self.topics.entry(topic.into()).or_default(),
        };
        kept.last = sequence;
        let Some(limit) = self.limit else {
            kept.count += 1;
            return None;
        };
        kept.sequences.push_back((sequence, bytes));
        let gone = if kept.sequences.len() as u64 > limit { kept.sequences.pop_front() } else { None };
        kept.count = kept.sequences.len() as u64;
        gone
    }

    /// The oldest event of a topic is gone.
    pub(super) fn remove_oldest(&mut self, topic: &[u8]) {
        if let Some(kept) = self.topics.get_mut(topic) {
            kept.sequences.pop_front();
            kept.count = kept.count.saturating_sub(1);
            if kept.count == 0 {
                self.topics.remove(topic);
            }
        }
    }

    /// An event is gone; false when it was already. When it was the last of its topic, and there are others, the last may have
    /// to be found: see [`Self::lacks_last`].
    pub(super) fn remove(&mut self, topic: &[u8], sequence: u64) -> bool {
        let Some(kept) = self.topics.get_mut(topic) else { return false };
        if self.limit.is_some() {
            let Ok(at) = kept.sequences.binary_search_by_key(&sequence, |kept| kept.0) else { return false };
            kept.sequences.remove(at);
            kept.last = kept.sequences.back().map_or(0, |last| last.0);
        } else if kept.last == sequence {
            kept.last = 0;
        }
        kept.count = kept.count.saturating_sub(1);
        if kept.count == 0 {
            self.topics.remove(topic);
        }
        true
    }

    /// True for a topic of which events are kept and the last is not known.
    pub(super) fn lacks_last(&self, topic: &[u8]) -> bool {
        self.topics.get(topic).is_some_and(|kept| kept.last == 0)
    }

    /// The last event of a topic was found.
    pub(super) fn set_last(&mut self, topic: &[u8], last: u64) {
        if let Some(kept) = self.topics.get_mut(topic) {
            kept.last = last;
        }
    }

    /// True unless newer events of its topic pushed it out.
    pub(super) fn keeps(&self, topic: &[u8], sequence: u64) -> bool {
        if self.limit.is_none() {
            return true;
        }
        self.topics.get(topic).is_some_and(|kept| kept.sequences.front().is_some_and(|oldest| oldest.0 <= sequence))
    }

    /// The sequence of the last event of a topic.
    pub(super) fn last(&self, topic: &[u8]) -> Option<u64> {
        self.topics.get(topic).map(|kept| kept.last).filter(|last| *last > 0)
    }

    /// The last sequences of the topics that match, of those in `(after, up_to]` the first `most`, ascending.
    pub(super) fn last_of_each(&self, filters: &[Filter], after: u64, up_to: u64, most: usize) -> Vec<u64> {
        let wanted = |topic: &[u8]| {
            filters.is_empty()
                || Topic::parse(topic).is_ok_and(|topic| filters.iter().any(|filter| filter.matches(topic)))
        };
        // The largest on top: it makes room for smaller ones.
        let mut found = BinaryHeap::new();
        for (topic, kept) in &self.topics {
            let is_full = found.len() >= most;
            let late = is_full && found.peek().is_none_or(|last| *last < kept.last);
            // The filters last: to match a topic takes longer than the rest.
            if late || kept.last <= after || kept.last > up_to || !wanted(topic) {
                continue;
            }
            if is_full {
                found.pop();
            }
            found.push(kept.last);
        }
        found.into_sorted_vec()
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

    #[test]
    fn the_last_of_a_topic_with_a_limit_is_the_last_that_is_kept() {
        let mut topics = Topics::new(Some(2));
        for sequence in 1..=2 {
            topics.add(b"a", sequence, 9);
        }
        assert!(topics.remove(b"a", 2) && !topics.remove(b"a", 2));
        assert_eq!((topics.last(b"a"), topics.last_of_each(&[], 0, 9, 9)), (Some(1), vec![1]));
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
        assert_eq!((topics.last(b"a"), topics.len()), (None, 0));
    }

    #[test]
    fn the_last_of_each_topic_is_told_up_to_a_point() {
        let mut topics = Topics::new(None);
        for (topic, sequence) in [("a.x", 1), ("b", 2), ("a.y", 3), ("a.x", 4), ("a.z", 5)] {
            topics.add(topic.as_bytes(), sequence, 9);
        }
        let filters = [Filter::parse(b"a.*").expect("a filter")];
        assert_eq!(topics.last_of_each(&filters, 0, 4, 9), [3, 4]);
        assert_eq!(topics.last_of_each(&[], 0, 9, 9), [2, 3, 4, 5]);
    }

    #[test]
    fn the_last_of_each_topic_comes_in_pages() {
        let mut topics = Topics::new(None);
        for sequence in 1..=1000_u64 {
            topics.add(format!("{}", sequence * 7919 % 400).as_bytes(), sequence, 9);
        }
        let all = topics.last_of_each(&[], 0, 950, usize::MAX);
        assert!(all.len() > 300 && all.is_sorted());
        let (mut pages, mut after) = (Vec::new(), 0);
        loop {
            let page = topics.last_of_each(&[], after, 950, 7);
            pages.extend_from_slice(&page);
            after = page.last().copied().unwrap_or_default();
            if page.len() < 7 {
                break;
            }
        }
        assert_eq!(pages, all);
        assert_eq!(topics.last_of_each(&[], 0, 950, 0), [0; 0]);
    }
}
