//! What came for one subscription and was not taken: events, gaps in their place, and the news that it has caught up. Pure.
//!
//! Bounded: credit bounds the events, and gaps that follow each other are made one.

use std::collections::VecDeque;

use super::credit::Size;
use crate::{item::Gap, received::Entries};

/// Gaps that wait; further ones are added to the last. The hub needs no credit to send them.
const MOST_GAPS: usize = 64;

/// Something for whoever reads the subscription.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Events, the number of their batch, the token behind them, and their size.
    Events {
        events: Entries,
        /// Tells each of them from another time that the same event was in hand. Of those that are acknowledged.
        copies: Vec<u64>,
        batch: u64,
        token: String,
        size: Size,
    },
    /// Events that will not come.
    Gap(Gap),
    /// All there is has come.
    CaughtUp,
}

/// All that waits.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    all: VecDeque<Incoming>,
    gaps: usize,
}

impl Queue {
    pub(crate) fn push_events(&mut self, events: (Entries, Vec<u64>), batch: u64, token: String, size: Size) {
        let (events, copies) = events;
        self.all.push_back(Incoming::Events { events, copies, batch, token, size });
    }

    pub(crate) fn push_caught_up(&mut self) {
        if !matches!(self.all.back(), Some(Incoming::CaughtUp)) {
            self.all.push_back(Incoming::CaughtUp);
        }
    }

    pub(crate) fn push_gap(&mut self, gap: Gap) {
        let is_full = self.gaps >= MOST_GAPS;
        if let Some(Incoming::Gap(last)) = self.all.back_mut()
            && (is_full || last.reason == gap.reason)
        {
            return last.merge(&gap);
        }
        if is_full {
            // Behind events: rather a gap told too early than one that is not told.
            let last = self.all.iter_mut().rev().find_map(|incoming| match incoming {
                Incoming::Gap(last) => Some(last),
                _ => None,
            });
            if let Some(last) = last {
                return last.merge(&gap);
            }
        }
        self.gaps += 1;
        self.all.push_back(Incoming::Gap(gap));
    }

    pub(crate) fn pop(&mut self) -> Option<Incoming> {
        let incoming = self.all.pop_front()?;
        if matches!(incoming, Incoming::Gap(_)) {
            self.gaps -= 1;
        }
        Some(incoming)
    }

    /// Events are forgotten, and nothing else.
    pub(crate) fn forget_events(&mut self) {
        self.all.retain(|incoming| !matches!(incoming, Incoming::Events { .. }));
    }

    /// Everything is forgotten: how much that is in events.
    pub(crate) fn clear(&mut self) -> Size {
        let mut size = Size::default();
        for incoming in self.all.drain(..) {
            if let Incoming::Events { size: more, .. } = incoming {
                size.add(more);
            }
        }
        self.gaps = 0;
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::GapReason;

    fn gap(count: u64, reason: GapReason) -> Gap {
        Gap { count: Some(count), from: None, to: None, reason }
    }

    fn push_one(queue: &mut Queue) {
        queue.push_events((Entries::default(), Vec::new()), 0, String::new(), Size::one(1));
    }

    fn gaps(queue: &mut Queue) -> Vec<Gap> {
        std::iter::from_fn(|| queue.pop())
            .filter_map(|incoming| match incoming {
                Incoming::Gap(gap) => Some(gap),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn gaps_that_follow_each_other_are_one() {
        let mut queue = Queue::default();
        queue.push_gap(gap(1, GapReason::Overflow));
        queue.push_gap(gap(2, GapReason::Overflow));
        push_one(&mut queue);
        queue.push_gap(gap(4, GapReason::Overflow));
        queue.push_gap(gap(8, GapReason::Conflated));
        let told: Vec<Option<u64>> = gaps(&mut queue).iter().map(|gap| gap.count).collect();
        assert_eq!(told, [Some(3), Some(4), Some(8)]);
    }

    #[test]
    fn no_more_gaps_wait_than_the_limit_and_none_is_forgotten() {
        let mut queue = Queue::default();
        for n in 0..3 * MOST_GAPS {
            queue.push_gap(gap(1, if n % 2 == 0 { GapReason::Overflow } else { GapReason::Conflated }));
            if n == 2 * MOST_GAPS {
                push_one(&mut queue);
            }
        }
        assert_eq!(queue.gaps, MOST_GAPS);
        let told = gaps(&mut queue);
        assert_eq!(told.iter().filter_map(|gap| gap.count).sum::<u64>(), 3 * MOST_GAPS as u64);
        assert_eq!(queue.gaps, 0);
    }

    #[test]
    fn a_gap_of_a_number_that_nobody_knows_stays_one() {
        let mut first = Gap { from: Some(3), to: Some(5), ..gap(3, GapReason::Retention) };
        first.merge(&Gap { count: None, from: Some(6), to: Some(9), reason: GapReason::Retention });
        assert_eq!(first, Gap { count: None, from: Some(3), to: Some(9), reason: GapReason::Retention });
    }

    #[test]
    fn however_often_it_has_caught_up_it_says_so_once() {
        let mut queue = Queue::default();
        queue.push_caught_up();
        queue.push_caught_up();
        assert!(matches!(queue.pop(), Some(Incoming::CaughtUp)) && queue.pop().is_none());
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let mut queue = Queue::default();
        push_one(&mut queue);
        queue.push_gap(gap(1, GapReason::Overflow));
        push_one(&mut queue);
        assert_eq!(queue.clear(), Size { events: 2, bytes: 2 });
        assert!(queue.pop().is_none());
    }
}
