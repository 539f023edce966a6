//! How fast counters grow: what they said now and then, for rates over the last seconds. Pure; time is an argument.

use std::time::Duration;

/// What some counters said when they were read last, and the time before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks<const N: usize> {
    at: [Duration; 2],
    counted: [[u64; N]; 2],
}

impl<const N: usize> Marks<N> {
    /// Of counters that begin with nothing, `now` after some fixed time.
    pub(super) fn begin(now: Duration) -> Self {
        Self { at: [now; 2], counted: [[0; N]; 2] }
    }

    /// Takes note of what they say.
    pub(super) fn look(&mut self, now: Duration, counted: [u64; N]) {
        self.at = [self.at[1], now];
        self.counted = [self.counted[1], counted];
    }

    /// By how much they grow in a second, given what they say now: since the mark before the last one.
    pub(super) fn rates(&self, now: Duration, counted: [u64; N]) -> [f64; N] {
        let passed = now.saturating_sub(self.at[0]).as_secs_f64();
        std::array::from_fn(|n| {
            let grown = counted[n].saturating_sub(self.counted[0][n]) as f64;
            if passed > 0.0 { grown / passed } else { 0.0 }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_two_marks() {
        let at = Duration::from_secs;
        let mut marks = Marks::begin(at(100));
        let near = |rates: [f64; 2], expected: [f64; 2]| {
            rates.iter().zip(expected).all(|(rate, expected)| (rate - expected).abs() < 0.001)
        };
        assert!(near(marks.rates(at(100), [7, 7]), [0.0, 0.0]), "no time has passed");
        assert!(near(marks.rates(at(102), [20, 2]), [10.0, 1.0]), "since it began");
        marks.look(at(105), [20, 2]);
        assert!(near(marks.rates(at(105), [20, 2]), [4.0, 0.4]));
        marks.look(at(110), [120, 2]);
        assert!(near(marks.rates(at(110), [120, 2]), [20.0, 0.0]), "what came before that counts no more");
        assert!(near(marks.rates(at(115), [170, 22]), [15.0, 2.0]));
    }
}
