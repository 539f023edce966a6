//! A token bucket: how much of something may be done in a second, with a burst. Pure; time is an argument.

use std::time::Duration;

/// What is left of a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    /// May be below 0: what is larger than the burst is taken when the bucket is full, and paid for afterwards.
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full one, for a burst of `most`.
    pub(super) fn full(most: u64, now: Duration) -> Self {
        Self { level: most as f64, at: now }
    }

    /// How long to wait before `amount` may be taken; zero when it may be taken now. `rate` is in a second.
    pub(super) fn wait(&self, amount: u64, rate: u64, most: u64, now: Duration) -> Duration {
        let level = self.level_at(rate, most, now);
        let missing = (amount.min(most) as f64) - level;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / rate.max(1) as f64).unwrap_or(Duration::MAX)
    }

    /// Takes `amount`, for which nobody has to wait.
    pub(super) fn take(&mut self, amount: u64, rate: u64, most: u64, now: Duration) {
        self.level = self.level_at(rate, most, now) - amount as f64;
        self.at = self.at.max(now);
    }

    fn level_at(&self, rate: u64, most: u64, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        (self.level + passed * rate as f64).min(most as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let mut bucket = Bucket::full(10, Duration::ZERO);
        assert_eq!(bucket.wait(10, 5, 10, Duration::ZERO), Duration::ZERO);
        bucket.take(10, 5, 10, Duration::ZERO);
        assert_eq!(bucket.wait(1, 5, 10, Duration::ZERO), SECOND / 5);
        assert_eq!(bucket.wait(5, 5, 10, Duration::ZERO), SECOND);
        assert_eq!(bucket.wait(5, 5, 10, SECOND), Duration::ZERO);
    }

    #[test]
    fn what_is_larger_than_the_burst_passes_a_full_bucket_and_is_paid_for() {
        let mut bucket = Bucket::full(10, Duration::ZERO);
        assert_eq!(bucket.wait(25, 5, 10, Duration::ZERO), Duration::ZERO);
        bucket.take(25, 5, 10, Duration::ZERO);
        assert_eq!(bucket.wait(5, 5, 10, Duration::ZERO), 4 * SECOND);
    }

    proptest! {
        #[test]
        fn never_more_passes_than_rate_and_burst_allow(
            amounts in prop::collection::vec((1_u64..20, 0_u64..2_000), 1..100),
            rate in 1_u64..50,
            most in 20_u64..60,
        ) {
            let mut bucket = Bucket::full(most, Duration::ZERO);
            let (mut now, mut taken) = (Duration::ZERO, 0);
            for (amount, pause_ms) in amounts {
                now += Duration::from_millis(pause_ms);
                if bucket.wait(amount, rate, most, now).is_zero() {
                    bucket.take(amount, rate, most, now);
                    taken += amount;
                }
                let allowed = most as f64 + now.as_secs_f64() * rate as f64;
                prop_assert!(taken as f64 <= allowed + 1e-6, "{taken} of {allowed}");
            }
        }

        #[test]
        fn who_waits_as_told_passes(amount in 1_u64..100, rate in 1_u64..50, most in 1_u64..60, before in 0_u64..60) {
            let mut bucket = Bucket::full(most, Duration::ZERO);
            bucket.take(before.min(most), rate, most, Duration::ZERO);
            let wait = bucket.wait(amount, rate, most, Duration::ZERO);
            // A nanosecond more: what is told is rounded.
            prop_assert!(bucket.wait(amount, rate, most, wait + Duration::from_nanos(1)).is_zero());
        }
    }
}
