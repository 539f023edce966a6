//! How fast streams grow: the last sequence of each, looked at now and then. Pure; time is an argument. Pure.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::model::StreamName;

/// How often they are looked at,
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// and over how long a rate is taken.
const SPAN: Duration = Duration::from_secs(60);

/// What was seen of each stream in the last minute. A stream that lost its tail or was made anew is another one.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    seen: HashMap<(StreamName, i64), VecDeque<(Duration, u64)>>,
    /// When they were last looked at. A stream that was not there then has begun since, with nothing.
    looked: Option<Duration>,
}

impl Rates {
    /// Takes note of the last sequence of every stream there is, `now` after some fixed time.
    pub(crate) fn look(&mut self, now: Duration, streams: impl Iterator<Item = (StreamName, i64, u64)>) {
        let mut before = std::mem::take(&mut self.seen);
        for (name, epoch, latest) in streams {
            let key = (name, epoch);
            let since_then = || self.looked.map(|at| (at, 0)).into_iter().collect();
            let mut seen: VecDeque<_> = before.remove(&key).unwrap_or_else(since_then);
            while seen.front().is_some_and(|(at, _)| now.saturating_sub(*at) > SPAN) {
                seen.pop_front();
            }
            seen.push_back((now, latest));
            self.seen.insert(key, seen);
        }
        self.looked = Some(now);
    }

    /// Events a second of a stream whose last sequence is `latest`, over the last minute or as long as it is known.
    pub(crate) fn of(&self, now: Duration, name: &StreamName, epoch: i64, latest: u64) -> f64 {
        let first = self.seen.get(&(name.clone(), epoch)).and_then(VecDeque::front).copied();
        let Some((at, sequence)) = first.or(self.looked.map(|at| (at, 0))) else { return 0.0 };
        let passed = now.saturating_sub(at).as_secs_f64();
        if passed > 0.0 { latest.saturating_sub(sequence) as f64 / passed } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_minute_and_of_one_life_of_a_stream() {
        let name = StreamName::parse("s").expect("a name");
        let at = Duration::from_secs;
        let mut rates = Rates::default();
        for seconds in (0..=120).step_by(5) {
            // Nothing in the first minute, ten a second in the second one.
            let latest = if seconds < 60 { 0 } else { (seconds - 60) * 10 };
            rates.look(at(seconds), [(name.clone(), 1, latest)].into_iter());
        }
        let rate = rates.of(at(120), &name, 1, 600);
        assert!((rate - 10.0).abs() < 0.1, "{rate}");
        assert!(rates.of(at(121), &name, 2, 0) < 0.1, "another life");
        rates.look(at(125), std::iter::empty());
        assert!(rates.of(at(125), &name, 1, 600) < 0.1, "it is gone");
    }

    #[test]
    fn what_a_new_stream_gets_before_it_is_looked_at_counts_and_what_an_old_one_has_does_not() {
        let name = |text: &str| StreamName::parse(text).expect("a name");
        let at = Duration::from_secs;
        let mut rates = Rates::default();
        assert!(rates.of(at(0), &name("old"), 1, 600) < 0.1, "nothing is known yet");
        rates.look(at(0), [(name("old"), 1, 600)].into_iter());
        assert!(rates.of(at(4), &name("old"), 1, 600) < 0.1);
        // It began a moment ago.
        for (seconds, looked) in [(4, false), (8, true)] {
            if looked {
                rates.look(at(5), [(name("old"), 1, 600), (name("new"), 1, 40)].into_iter());
            }
            let rate = rates.of(at(seconds), &name("new"), 1, seconds * 10);
            assert!((rate - 10.0).abs() < 0.1, "{seconds}: {rate}");
        }
    }
}
