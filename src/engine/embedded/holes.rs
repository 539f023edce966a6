//! How many events are missing in the middle of a stream, and about where: so that it can be told from memory how many are
//! kept behind a sequence.

use std::collections::BTreeMap;

use crate::engine::Kept;

/// Missing events are counted in so many places at most: with more of them each place is twice as wide. 24 KiB at most.
pub(super) const MOST_PLACES: usize = 1024;

/// What is missing, by places of `2^width` sequences each.
#[derive(Debug, Default)]
pub(super) struct Holes {
    width: u32,
    missing: BTreeMap<u64, u64>,
}

impl Holes {
    /// The events from `first` to `last` are missing from now on.
    pub(super) fn add_range(&mut self, first: u64, last: u64, floor: u64) {
        let mut from = first.max(floor);
        while from <= last {
            let place = from >> self.width;
            let to = last.min(((place + 1) << self.width) - 1);
            *self.missing.entry(place).or_default() += to - from + 1;
            from = to + 1;
            if self.missing.len() > MOST_PLACES {
                self.make_room(floor);
            }
        }
    }

    fn make_room(&mut self, floor: u64) {
        self.missing = self.missing.split_off(&(floor >> self.width));
        while self.missing.len() > MOST_PLACES {
            self.width += 1;
            for (place, missing) in std::mem::take(&mut self.missing) {
                *self.missing.entry(place >> 1).or_default() += missing;
            }
        }
    }

    /// How much is kept behind which sequence, of `events` from `earliest` to `latest`.
    pub(super) fn kept(&self, earliest: u64, latest: u64, events: u64) -> Kept {
        let places = self.missing.range(earliest >> self.width..);
        let places = places.map(|(place, missing)| (place << self.width, ((place + 1) << self.width) - 1, *missing));
        Kept::new(earliest, latest, events, places)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn with_few_missing_it_is_exact_wherever_they_are() {
        let mut holes = Holes::default();
        holes.add_range(2, 1000, 1);
        holes.add_range(1002, 1002, 1);
        let kept = holes.kept(1, 1003, 3);
        assert_eq!([0, 1, 500, 1000, 1001, 1002, 1003, 9999].map(|at| kept.after(at)), [3, 2, 2, 2, 1, 1, 0, 0]);
        assert_eq!((kept.between(1, 1000), kept.between(0, 1), kept.between(1000, 1002)), (0, 1, 1));
    }

    #[test]
    fn the_places_are_bounded_however_many_are_missing() {
        let mut holes = Holes::default();
        for sequence in (1..=1_000_000).step_by(2) {
            holes.add_range(sequence, sequence, 1);
        }
        assert!(holes.missing.len() <= MOST_PLACES);
        let kept = holes.kept(1, 1_000_000, 500_000);
        for at in [0_u64, 7, 1_000, 999_000, 1_000_000] {
            let (exact, told) = ((1_000_000 - at).div_ceil(2), kept.after(at));
            assert!(told >= exact && told <= exact + 1_024, "{at}: {told} for {exact}");
        }
        holes.add_range(1_000_001, u64::MAX >> 1, 1);
        assert!(holes.missing.len() <= MOST_PLACES);
    }

    #[test]
    fn what_is_before_the_first_event_is_forgotten() {
        let mut holes = Holes::default();
        for sequence in 1..=10_000 {
            holes.add_range(sequence * 2, sequence * 2, sequence * 2 - 1);
        }
        assert_eq!(holes.width, 0);
    }

    proptest! {
        #[test]
        fn it_is_exact_up_to_as_many_missing_as_there_are_places(
            missing in prop::collection::btree_set(1..300_u64, 0..200),
            floor in 1..100_u64,
        ) {
            let mut holes = Holes::default();
            for sequence in &missing {
                holes.add_range(*sequence, *sequence, 1);
            }
            let all: BTreeSet<u64> = (floor..=300).filter(|sequence| !missing.contains(sequence)).collect();
            let kept = holes.kept(floor, 300, all.len() as u64);
            for at in 0..=301 {
                prop_assert_eq!(kept.after(at), all.range(at + 1..).count() as u64);
            }
        }
    }
}
