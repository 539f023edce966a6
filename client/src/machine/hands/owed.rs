//! Verdicts whose lease was lost before they were stored: kept for a while, in case the event comes again. Pure.

use std::collections::{HashMap, VecDeque};

use crate::machine::verdict::Verdict;

/// So many are kept; the oldest are forgotten, and their events are done again.
const MOST_OWED: usize = 4096;

/// The verdicts, by sequence.
#[derive(Debug, Default)]
pub(super) struct Owed {
    verdicts: HashMap<i64, Verdict>,
    /// The oldest first. Sequences that were taken are left here.
    order: VecDeque<i64>,
}

impl Owed {
    pub(super) fn put(&mut self, sequence: i64, verdict: Verdict) {
        if self.verdicts.insert(sequence, verdict).is_none() {
            self.order.push_back(sequence);
        }
        while self.order.len() > MOST_OWED
            && let Some(oldest) = self.order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
    }

    pub(super) fn take(&mut self, sequence: i64) -> Option<Verdict> {
        let verdict = self.verdicts.remove(&sequence)?;
        // Otherwise a sequence that comes and goes would be in the order many times, and its last verdict be forgotten with
        // the first.
        self.order.retain(|other| *other != sequence);
        Some(verdict)
    }

    pub(super) fn clear(&mut self) {
        self.verdicts.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_kept_and_the_oldest_go_first() {
        let mut owed = Owed::default();
        (0..=MOST_OWED as i64).for_each(|sequence| owed.put(sequence, Verdict::Ack));
        assert_eq!((owed.verdicts.len(), owed.order.len()), (MOST_OWED, MOST_OWED));
        assert_eq!((owed.take(0), owed.take(1)), (None, Some(Verdict::Ack)));
        assert_eq!(owed.take(1), None);
    }
}
