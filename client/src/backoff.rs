//! How long to wait before something that failed is tried again.

use std::time::Duration;

/// Waits between attempts: full jitter below a ceiling that doubles with each failure.
///
/// Full jitter, since many clients that lost the same hub at the same time must not come back at the same time.
///
/// ```
/// # use std::time::Duration;
/// # use switchyard_client::Backoff;
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// assert!(backoff.delay() <= Duration::from_millis(100));
/// assert!(backoff.delay() <= Duration::from_millis(200));
/// backoff.reset();
/// assert!(backoff.delay() <= Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Waits up to `first` after the first failure, up to twice that after the next, and never more than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self { first, longest, ceiling: first }
    }

    /// How long to wait after one more failure.
    pub fn delay(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.longest);
        delay
    }

    /// It worked: the next failure is a first one.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_begin_anew_after_a_success() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for _ in 0..2 {
            for ceiling_ms in [100, 200, 400, 800, 1_000, 1_000] {
                assert!(backoff.delay() <= Duration::from_millis(ceiling_ms));
            }
            backoff.reset();
        }
    }

    #[test]
    fn delays_are_spread_over_all_of_their_range() {
        let longest = Duration::from_secs(1);
        let delays: Vec<Duration> = (0..1_000).map(|_| Backoff::new(longest, longest).delay()).collect();
        for tenth in 0..10 {
            let range = longest * tenth / 10..longest * (tenth + 1) / 10;
            assert!(delays.iter().any(|delay| range.contains(delay)), "{range:?}");
        }
    }

    #[test]
    fn the_first_delay_is_no_longer_than_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(1));
        assert!((0..10).all(|_| backoff.delay() <= Duration::from_secs(1)));
    }
}
