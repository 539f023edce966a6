//! How long to wait before the next try: exponential, with full jitter, so that clients that failed together do not try
//! again together.
//!
//! Owns the one rule by which this crate waits. It knows no clock and never sleeps: its user does.

use std::time::Duration;

/// Doubled this often, a millisecond is longer than any wait.
const MOST_DOUBLINGS: u32 = 31;

/// The waits between tries of one thing that fails.
///
/// Each wait is random, from nothing to a ceiling that doubles from the shortest to the longest.
///
/// ```
/// use std::time::Duration;
/// use switchyard_client::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// assert!(backoff.next() <= Duration::from_millis(100));
/// assert!(backoff.next() <= Duration::from_millis(200));
/// backoff.reset();
/// assert!(backoff.next() <= Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    /// Since the last reset.
    tries: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Waits whose ceiling is `shortest` at first and `longest` in the end.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, tries: 0, random: fastrand::Rng::new() }
    }

    /// The same with a seed for what is random: with the same seed the waits are the same.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), ..self }
    }

    /// How long to wait now.
    #[allow(clippy::should_implement_trait)] // It has no end.
    pub fn next(&mut self) -> Duration {
        self.next_up_to(self.longest)
    }

    /// The same with another longest wait, this once.
    pub fn next_up_to(&mut self, longest: Duration) -> Duration {
        let ceiling = self.shortest.saturating_mul(1 << self.tries.min(MOST_DOUBLINGS)).min(longest);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(self.random.f64())
    }

    /// It worked: the next failure is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How many waits there were since it worked.
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn the_ceiling_doubles_up_to_the_longest_wait_and_stays_there() {
        let mut backoff = Backoff::new(SHORTEST, LONGEST).with_seed(1);
        for tries in 0..200_u32 {
            let ceiling = SHORTEST.saturating_mul(1 << tries.min(20)).min(LONGEST);
            assert_eq!(backoff.tries(), tries);
            assert!(backoff.next() <= ceiling, "try {tries}");
        }
    }

    #[test]
    fn the_whole_range_below_the_ceiling_is_used() {
        let mut backoff = Backoff::new(SHORTEST, LONGEST).with_seed(2);
        for _ in 0..10 {
            backoff.next();
        }
        let waits: Vec<Duration> = (0..1000).map(|_| backoff.next()).collect();
        for tenth in 0..10_u32 {
            let (from, to) = (LONGEST / 10 * tenth, LONGEST / 10 * (tenth + 1));
            let count = waits.iter().filter(|wait| (from..to).contains(*wait)).count();
            assert!((50..200).contains(&count), "{count} waits from {from:?} to {to:?}");
        }
    }

    #[test]
    fn two_that_failed_together_do_not_wait_together() {
        let mut waits = [3, 4].map(|seed| Backoff::new(SHORTEST, LONGEST).with_seed(seed));
        let same = (0..100).filter(|_| waits[0].next() == waits[1].next()).count();
        assert!(same < 3, "{same} waits are the same");
    }

    #[test]
    fn another_longest_wait_is_for_once() {
        let mut backoff = Backoff::new(SHORTEST, LONGEST).with_seed(5);
        for _ in 0..20 {
            backoff.next();
        }
        let long = Duration::from_secs(30);
        assert!((0..100).any(|_| backoff.next_up_to(long) > LONGEST));
        assert!((0..100).all(|_| backoff.next() <= LONGEST));
        assert!(backoff.next_up_to(SHORTEST) <= SHORTEST);
    }

    #[test]
    fn after_a_reset_it_begins_with_the_shortest() {
        let mut backoff = Backoff::new(SHORTEST, LONGEST).with_seed(6);
        for _ in 0..20 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= SHORTEST);
        assert_eq!(backoff.tries(), 1);
    }
}
