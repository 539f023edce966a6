//! Which event of the source is which at the target. Pure.
//!
//! The target numbers its events without holes. Where the source has none either, one run says it all, and where the copy
//! began with sequence 1 the sequences are even the same. Each hole begins another run.

/// From here on the events of both sides follow each other one by one, until the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first sequence at the source.
    pub(super) source: i64,
    /// The same event at the target.
    pub(super) target: i64,
}

/// All runs, ascending on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Map {
    runs: Vec<Run>,
}

impl Run {
    fn to_source(self, target: i64) -> i64 {
        self.source.saturating_add(target - self.target)
    }
}

impl Map {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Says which event of the source is the next one at the target. Gives the run that begins with it, if one does.
    pub(super) fn pair(&mut self, source: i64, target: i64) -> Option<Run> {
        if self.to_source(target) == Some(source) {
            return None;
        }
        let run = Run { source, target };
        self.runs.push(run);
        Some(run)
    }

    /// Takes a run that was noted. It replaces those that it contradicts: they were planned, and never came true. False when
    /// it can be none of this map.
    pub(super) fn note(&mut self, run: Run) -> bool {
        self.cut(run.target.saturating_sub(1));
        let follows = self.runs.last().is_none_or(|last| last.source < run.source);
        let fits = run.source > 0 && run.target > 0 && follows;
        if fits {
            self.runs.push(run);
        }
        fits
    }

    /// Forgets all behind a sequence of the target.
    pub(super) fn cut(&mut self, target: i64) {
        self.runs.truncate(self.runs.partition_point(|run| run.target <= target));
    }

    /// Which event of the source this is. `None` before the first.
    pub(super) fn to_source(&self, target: i64) -> Option<i64> {
        let run = self.runs[..self.runs.partition_point(|run| run.target <= target)].last()?;
        Some(run.to_source(target))
    }

    /// Which event of the target this is. `None` for one that was not there when its neighbours were copied.
    pub(super) fn to_target(&self, source: i64) -> Option<i64> {
        self.reaches(source).filter(|(_, is_exact)| *is_exact).map(|(target, _)| target)
    }

    /// The last event of the target that is this one of the source or one before it; 0 if there is none.
    pub(super) fn floor(&self, source: i64) -> i64 {
        let before = self.runs.first().map_or(0, |run| run.target - 1);
        self.reaches(source).map_or(before, |(target, _)| target)
    }

    /// How far the target is at an event of the source, and whether it has that event.
    fn reaches(&self, source: i64) -> Option<(i64, bool)> {
        let behind = self.runs.partition_point(|run| run.source <= source);
        let run = self.runs[..behind].last()?;
        let target = run.target.saturating_add(source - run.source);
        match self.runs.get(behind) {
            Some(next) if target >= next.target => Some((next.target - 1, false)),
            _ => Some((target, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(i64, i64)]) -> Map {
        let mut map = Map::default();
        for (source, target) in pairs {
            map.pair(*source, *target);
        }
        map
    }

    fn run(source: i64, target: i64) -> Run {
        Run { source, target }
    }

    #[test]
    fn without_holes_one_run_says_it_all() {
        let map = map(&[(1, 1), (2, 2), (3, 3)]);
        assert_eq!(map.runs(), [run(1, 1)]);
        assert_eq!((map.to_target(3), map.to_source(3), map.floor(3)), (Some(3), Some(3), 3));
        assert_eq!(map.to_source(0), None);
    }

    #[test]
    fn each_hole_begins_a_run() {
        let map = map(&[(101, 1), (102, 2), (105, 3), (106, 4), (200, 5)]);
        assert_eq!(map.runs(), [run(101, 1), run(105, 3), run(200, 5)]);
        for (source, target) in [(101, 1), (102, 2), (105, 3), (106, 4), (200, 5), (201, 6)] {
            assert_eq!((map.to_target(source), map.to_source(target)), (Some(target), Some(source)));
            assert_eq!(map.floor(source), target);
        }
        for (source, floor) in [(1, 0), (100, 0), (103, 2), (104, 2), (107, 4), (199, 4)] {
            assert_eq!((map.to_target(source), map.floor(source)), (None, floor), "{source}");
        }
    }

    #[test]
    fn holes_at_the_target_alone_begin_runs_too() {
        let map = map(&[(1, 1), (2, 5), (3, 6)]);
        assert_eq!(map.runs(), [run(1, 1), run(2, 5)]);
        assert_eq!((map.to_target(2), map.to_source(6)), (Some(5), Some(3)));
    }

    #[test]
    fn what_was_planned_and_never_came_true_is_replaced() {
        let mut map = Map::default();
        for planned in [run(1, 1), run(10, 5), run(20, 8)] {
            assert!(map.note(planned));
        }
        assert!(map.note(run(12, 5)), "the event that was to be the fifth is gone");
        assert_eq!(map.runs(), [run(1, 1), run(12, 5)]);
        for bad in [run(0, 9), run(9, 0), run(12, 6), run(11, 9)] {
            assert!(!map.clone().note(bad), "{bad:?}");
        }
        map.cut(4);
        assert_eq!(map.runs(), [run(1, 1)]);
        map.cut(0);
        assert!(map.is_empty());
    }
}
