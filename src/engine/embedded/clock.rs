//! The time that streams go by. Pure: what clocks show is an argument. Pure.
//!
//! [`Slewed`] is the time of the hub. It goes with the clock that never goes back and only slowly towards the wall clock: one
//! that is wrong for a moment ends no event and keeps none, and one that stays wrong makes a difference of a tenth.
//!
//! [`Warp`] is for a stream that has times which are not yet: it was written by a clock that was ahead of what the clock
//! showed when the store was opened. Times of a stream never go back, so what it appends is stamped with later ones, and
//! its ages are measured as if the last of those had been appended when the store was opened.

/// The most that the wall clock draws, as a part of the time that passes.
const SLEW_PART: u64 = 10;

/// The time of the hub, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slewed {
    time: u64,
    /// What the clock that never goes back showed then, in nanoseconds.
    at: u64,
    /// What the wall clock showed then.
    wall: u64,
}

impl Slewed {
    /// Begins with what the wall clock shows.
    pub(super) fn new(at: u64, wall: u64) -> Self {
        Self { time: wall, at, wall }
    }

    /// What time it is.
    pub(super) fn advance(&mut self, at: u64, wall: u64) -> u64 {
        let passed = at.saturating_sub(self.at);
        let straight = self.time.saturating_add(passed);
        let most = passed / SLEW_PART;
        self.time = wall.clamp(straight - most, straight.saturating_add(most));
        (self.at, self.wall) = (self.at.max(at), wall);
        self.time
    }

    /// How far the wall clock was ahead the last time, in seconds.
    pub(super) fn offset(&self) -> f64 {
        let apart = self.wall.abs_diff(self.time) as f64 / 1e9;
        if self.wall < self.time { -apart } else { apart }
    }
}

/// The times of a stream whose last is `ahead` of the time at which the store was opened. All in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Warp {
    begin: u64,
    ahead: u64,
}

impl Warp {
    /// Of a stream that was read at `now`, and whose last event has the time `last`.
    pub(super) fn new(now: u64, last: u64) -> Self {
        Self { begin: now, ahead: last.saturating_sub(now) }
    }

    /// How far its last event was ahead.
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// What an event is stamped with that is appended at `now`: half as fast as time, until time has caught up.
    pub(super) fn stamp(&self, now: u64) -> u64 {
        let slow = self.begin.saturating_add(self.ahead).saturating_add(now.saturating_sub(self.begin) / 2);
        if self.ahead == 0 { now } else { slow.max(now) }
    }

    /// When an event with that stamp was appended, as far as ages go.
    pub(super) fn appended(&self, stamp: u64) -> u64 {
        self.after(stamp, 0)
    }

    /// When an event with that stamp was appended so long ago. Of those that are ahead, the last is as of the beginning, and
    /// the others are older by what they came before it: what was past its time then is so now.
    pub(super) fn after(&self, stamp: u64, time: u64) -> u64 {
        let last = self.begin.saturating_add(self.ahead);
        if stamp <= self.begin {
            stamp.saturating_add(time)
        } else if stamp <= last {
            stamp.saturating_add(time).saturating_sub(self.ahead)
        } else {
            let since = (stamp - last).saturating_mul(2);
            self.begin.saturating_add(since).min(stamp).saturating_add(time)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3_600 * SECOND;
    const START: u64 = 500_000 * HOUR;

    #[test]
    fn a_wall_clock_that_is_wrong_for_a_moment_makes_no_difference() {
        for wrong in [START + HOUR, START - HOUR, 0, u64::MAX] {
            let mut clock = Slewed::new(0, START);
            clock.advance(SECOND, START + SECOND);
            clock.advance(SECOND + SECOND / 10, wrong);
            let apart = clock.advance(3 * SECOND, START + 3 * SECOND).abs_diff(START + 3 * SECOND);
            assert_eq!(apart, 0, "a tenth of a tenth of a second is made good within two");
        }
    }

    #[test]
    fn the_hub_comes_to_a_wall_clock_that_stays_as_it_is() {
        let (mut clock, mut at) = (Slewed::new(0, START), 0);
        let wall = |at: u64| START + at - 60 * SECOND;
        while clock.advance(at, wall(at)) != wall(at) {
            at += SECOND;
        }
        assert_eq!(at, 600 * SECOND, "a minute is ten minutes of a tenth");
        clock.advance(at, wall(at) + 5 * SECOND);
        assert!((clock.offset() - 5.0).abs() < 1e-6);
        clock.advance(at, wall(at) - 5 * SECOND);
        assert!((clock.offset() + 5.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn time_never_goes_back_and_is_drawn_by_a_tenth_at_most(
            steps in prop::collection::vec((0..5 * SECOND, -HOUR.cast_signed()..HOUR.cast_signed()), 1..50),
        ) {
            let (mut clock, mut at) = (Slewed::new(0, START), 0);
            let mut before = START;
            for (passed, off) in steps {
                at += passed;
                let now = clock.advance(at, (START + at).saturating_add_signed(off));
                prop_assert!(now >= before);
                prop_assert!((now - before).abs_diff(passed) <= passed / SLEW_PART);
                before = now;
            }
            // The wall clock is right again: however wrong it was, no more than a tenth of that time has to be made good.
            let left = before.abs_diff(START + at);
            prop_assert!(left <= at / SLEW_PART + 50);
            at += SLEW_PART * (left + 1);
            prop_assert_eq!(clock.advance(at, START + at), START + at);
        }

        #[test]
        fn what_a_stream_is_ahead_is_made_good_and_ages_are_right(
            begin in 0..u64::MAX / 8,
            ahead in 0..u64::MAX / 8,
            passed in prop::collection::vec(0..u64::MAX / 8, 1..20),
        ) {
            let warp = Warp::new(begin, begin + ahead);
            prop_assert_eq!(warp.ahead(), ahead);
            let mut passed = passed;
            passed.sort_unstable();
            let mut before = begin + ahead;
            for now in passed.into_iter().map(|passed| begin + passed) {
                let stamp = warp.stamp(now);
                prop_assert!(stamp >= before.min(begin + ahead) && stamp >= now);
                prop_assert!(now - warp.appended(stamp) <= 1, "halves are rounded");
                prop_assert!(now < begin + 2 * ahead || stamp == now);
                before = stamp;
            }
        }

        #[test]
        fn what_was_there_is_as_old_as_it_says_or_as_it_was_when_the_last_came(
            begin in 0..u64::MAX / 8,
            ahead in 0..u64::MAX / 8,
            one: u64,
            time in 0..u64::MAX / 8,
        ) {
            let warp = Warp::new(begin, begin + ahead);
            let there = one % (begin + ahead + 1);
            let before_last = begin + ahead - there;
            let expected = if there > begin { begin.saturating_sub(before_last) } else { there };
            prop_assert_eq!(warp.appended(there), expected);
            // What had ended by the last event has ended, and nothing ends earlier than it says.
            let ended = there.saturating_add(time) <= begin + ahead;
            prop_assert!(there <= begin || (warp.after(there, time) <= begin) == ended);
            prop_assert!(warp.after(there, time).saturating_add(ahead) >= there + time);
        }
    }
}
