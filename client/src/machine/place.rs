//! Where a subscription that reads a stream by itself is: how far everything has come, and how far everything is done. Pure.
//!
//! A session goes on behind what has come, because that is still in hand here and comes to the application from here. A
//! program that is started again goes on behind what is done. The place never passes a batch that was dropped and is not
//! done: it would be lost to the next run.

use std::collections::VecDeque;

/// The place of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Behind all that has come.
    reached: Option<String>,
    /// Behind all that is done.
    done: Option<String>,
    /// Batches that came and do not count as done yet, the oldest first.
    open: VecDeque<Open>,
    next: u64,
    /// A batch was dropped without being done: the place stays before it.
    is_stuck: bool,
}

#[derive(Debug)]
struct Open {
    number: u64,
    /// Where the place is when this, and all before it, is done.
    token: String,
    is_done: bool,
}

impl Place {
    /// Of a subscription that goes on from an earlier run.
    pub(crate) fn from(token: Option<String>) -> Self {
        Self { reached: token.clone(), done: token, ..Self::default() }
    }

    /// Where the next session goes on.
    pub(crate) fn reached(&self) -> Option<&str> {
        self.reached.as_deref()
    }

    /// Where the next run of the program would go on.
    pub(crate) fn done(&self) -> Option<&str> {
        self.done.as_deref()
    }

    /// A batch came. Its number is for [`Self::finish`].
    pub(crate) fn arrived(&mut self, token: &str) -> u64 {
        let number = self.next;
        self.next += 1;
        self.reached = Some(token.to_owned());
        if !self.is_stuck {
            self.open.push_back(Open { number, token: token.to_owned(), is_done: false });
        }
        number
    }

    /// Events were passed over. That counts once nothing is in hand.
    pub(crate) fn passed(&mut self, token: &str) {
        if token.is_empty() {
            return;
        }
        self.reached = Some(token.to_owned());
        if self.is_stuck {
            return;
        }
        match self.open.back_mut() {
            Some(last) => token.clone_into(&mut last.token),
            None => self.done = Some(token.to_owned()),
        }
    }

    /// A batch is done.
    pub(crate) fn finish(&mut self, number: u64) {
        let Ok(at) = self.open.binary_search_by_key(&number, |open| open.number) else { return };
        self.open[at].is_done = true;
        // Of those that are done and follow each other the last one says where the place is: one that is never done does not
        // make a list of all that come after it.
        if self.open.get(at + 1).is_some_and(|next| next.is_done) {
            self.open.remove(at);
        }
        if at > 0 && self.open[at - 1].is_done {
            self.open.remove(at - 1);
        }
        while self.open.front().is_some_and(|first| first.is_done)
            && let Some(first) = self.open.pop_front()
        {
            self.done = Some(first.token);
        }
    }

    /// A batch was dropped. The place stays before it, unless it is done; nothing behind it has to be remembered.
    pub(crate) fn drop_batch(&mut self, number: u64) {
        if let Ok(at) = self.open.binary_search_by_key(&number, |open| open.number)
            && !self.open[at].is_done
        {
            self.open.truncate(at);
            self.is_stuck = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_place_moves_when_a_batch_is_done_and_never_before() {
        let mut place = Place::from(Some("0".into()));
        let (first, second) = (place.arrived("1"), place.arrived("2"));
        assert_eq!((place.reached(), place.done()), (Some("2"), Some("0")));
        place.finish(second);
        assert_eq!(place.done(), Some("0"), "the first is not done");
        place.finish(first);
        assert_eq!(place.done(), Some("2"));
        place.finish(first);
        assert_eq!(place.done(), Some("2"), "twice is once");
    }

    #[test]
    fn what_was_passed_over_counts_when_nothing_is_in_hand() {
        let mut place = Place::default();
        place.passed("1");
        assert_eq!(place.done(), Some("1"));
        let batch = place.arrived("2");
        place.passed("3");
        place.passed("");
        assert_eq!((place.reached(), place.done()), (Some("3"), Some("1")));
        place.finish(batch);
        assert_eq!(place.done(), Some("3"));
    }

    #[test]
    fn the_place_stays_before_a_batch_that_was_dropped() {
        let mut place = Place::default();
        let (first, second, third) = (place.arrived("1"), place.arrived("2"), place.arrived("3"));
        place.drop_batch(second);
        place.passed("4");
        for batch in [first, third, place.arrived("5")] {
            place.finish(batch);
        }
        assert_eq!((place.reached(), place.done()), (Some("5"), Some("1")));
        assert!(place.open.is_empty(), "what can never count is not remembered");
    }

    #[test]
    fn a_batch_that_is_done_can_be_dropped() {
        let mut place = Place::default();
        let (first, second) = (place.arrived("1"), place.arrived("2"));
        place.finish(second);
        place.drop_batch(second);
        place.finish(first);
        assert_eq!(place.done(), Some("2"));
    }

    #[test]
    fn a_batch_that_is_never_done_makes_no_list_of_all_others() {
        let mut place = Place::default();
        let first = place.arrived("first");
        for n in 0..1000 {
            // In pairs, and the second of each before the first.
            let pair = [place.arrived(&n.to_string()), place.arrived(&format!("{n}, too"))];
            pair.iter().rev().for_each(|batch| place.finish(*batch));
            assert_eq!(place.open.len(), 2);
        }
        place.finish(first);
        assert_eq!((place.done(), place.open.len()), (Some("999, too"), 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn everything_up_to_the_place_is_done(order in Just((0..30_usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut place = Place::default();
            let batches: Vec<u64> = (0..30).map(|n| place.arrived(&n.to_string())).collect();
            let mut done = [false; 30];
            for at in order {
                place.finish(batches[at]);
                done[at] = true;
                let first_open = done.iter().position(|done| !done).unwrap_or(30);
                let expected = first_open.checked_sub(1).map(|last| last.to_string());
                prop_assert_eq!(place.done(), expected.as_deref());
            }
        }
    }
}
