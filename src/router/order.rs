//! Puts the matches of a run of events into the order in which they are delivered: by outbox, then by event, then by
//! subscription.
//!
//! Matches come by event, and outboxes are numbered densely, so one counting pass does nearly all of it; sorting them as
//! anything was a third of the cost of a publish to a hundred sessions (docs/performance.md). Pure.

use crate::outbox::SubscriptionKey;

/// Numbers of outboxes may be this many times as large as there are matches; beyond, counting costs more than sorting.
const SPARSEST: usize = 4;

/// One match of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Match {
    pub(super) outbox: u32,
    pub(super) event: u32,
    pub(super) key: SubscriptionKey,
}

/// Orders `matches`, which are in the order of their events. The other two are memory to work in.
pub(super) fn by_outbox(matches: &mut Vec<Match>, spare: &mut Vec<Match>, counts: &mut Vec<u32>) {
    let Some(most) = matches.iter().map(|found| found.outbox).max() else { return };
    let buckets = most as usize + 1;
    if buckets > SPARSEST * matches.len() + 1 {
        matches.sort_unstable();
        return;
    }
    counts.clear();
    counts.resize(buckets, 0);
    for found in matches.iter() {
        counts[found.outbox as usize] += 1;
    }
    // From how many to where the first goes.
    let mut next = 0;
    for count in counts.iter_mut() {
        next += std::mem::replace(count, next);
    }
    spare.clear();
    spare.resize(matches.len(), matches[0]);
    for found in matches.iter() {
        let place = &mut counts[found.outbox as usize];
        spare[*place as usize] = *found;
        *place += 1;
    }
    std::mem::swap(matches, spare);
    for of_one_event in matches.chunk_by_mut(|a, b| (a.outbox, a.event) == (b.outbox, b.event)) {
        if of_one_event.len() > 1 {
            of_one_event.sort_unstable();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_order_that_sorting_gives(
            found in prop::collection::vec((0..50_u32, 0..4_u32, 0..3_u32, 0..2_u32), 0..200),
            far in any::<bool>(),
        ) {
            let mut matches: Vec<Match> = found
                .into_iter()
                .map(|(outbox, event, slot, generation)| Match {
                    outbox: if far { outbox * 1_000_000 } else { outbox },
                    event,
                    key: SubscriptionKey { slot, generation },
                })
                .collect();
            matches.sort_by_key(|found| found.event);
            let mut expected = matches.clone();
            expected.sort_unstable();
            by_outbox(&mut matches, &mut Vec::new(), &mut Vec::new());
            prop_assert_eq!(matches, expected);
        }
    }
}
