//! The loads there are, as plans.

use std::{sync::Arc, time::Duration};

use super::load::{Pace, Plan};
use crate::model::{Filter, Topic};

/// All publishers together keep this many events undelivered,
const WINDOW_EVENTS: u64 = 4096;
/// or as many as hold this many bytes: less than a subscription's queue, or the hub would have to drop what the load
/// itself keeps back.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// What an event is on the wire besides its payload, about.
const EVENT_BYTES: usize = 64;
/// How often topics are chosen before the choice begins again.
const CHOICES: usize = 65_536;

/// For how long a load runs.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub measure: Duration,
}

/// The window of each of `publishers` for payloads of a size.
pub fn window(payload_bytes: usize, publishers: usize) -> Pace {
    let events = WINDOW_EVENTS.min((WINDOW_BYTES / (payload_bytes + EVENT_BYTES)) as u64);
    Pace::Window((events / publishers.max(1) as u64).max(1))
}

/// `publishers` to one topic each, all of which `subscribers` want.
pub fn fan(publishers: usize, subscribers: usize, payload_bytes: usize, pace: Pace, times: Times) -> Plan {
    let topics: Vec<Arc<str>> = vec!["bench.fan".into()];
    Plan {
        publishers,
        subscribers: vec![vec!["bench.fan".to_owned()]; subscribers],
        deliveries: vec![subscribers as u64],
        topics,
        choose: Arc::new([0]),
        payload_bytes,
        pace,
        warm_up: times.warm_up,
        measure: times.measure,
    }
}

/// `count` topics of three tokens, each wanted by one filter of one subscriber, chosen evenly.
pub fn many(count: usize, payload_bytes: usize, times: Times) -> Plan {
    let topics: Vec<Arc<str>> = (0..count).map(|n| format!("bench.{}.{n}", n % 1_000).into()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    Plan {
        publishers: 1,
        subscribers: vec![topics.iter().map(ToString::to_string).collect()],
        deliveries: vec![1; count],
        choose: (0..CHOICES).map(|_| random.usize(..count) as u32).collect(),
        topics,
        payload_bytes,
        pace: window(payload_bytes, 1),
        warm_up: times.warm_up,
        measure: times.measure,
    }
}

/// Topics `bench.<a>.<b>`, chosen by Zipf's law, and subscribers with exact filters and both wildcards.
pub fn topics(count: usize, subscribers: usize, payload_bytes: usize, times: Times) -> Plan {
    let side = count.isqrt().max(1);
    let topics: Vec<Arc<str>> = (0..count).map(|n| format!("bench.{}.{}", n / side, n % side).into()).collect();
    let filters: Vec<Vec<String>> = (0..subscribers)
        .map(|n| match n % 4 {
            0 => vec![format!("bench.{}.>", n % side)],
            1 => vec![format!("bench.*.{}", n % side)],
            2 => topics.iter().skip(n).step_by(subscribers).take(100).map(ToString::to_string).collect(),
            _ => vec![format!("bench.{}.*", n % side), format!("bench.*.{}", n % side)],
        })
        .collect();
    let checked: Vec<Vec<Filter>> =
        filters.iter().map(|of_one| of_one.iter().filter_map(|f| Filter::parse(f.as_bytes()).ok()).collect()).collect();
    let gets = |topic: &str, of_one: &[Filter]| {
        Topic::parse(topic.as_bytes()).is_ok_and(|topic| of_one.iter().any(|filter| filter.matches(topic)))
    };
    let deliveries =
        topics.iter().map(|topic| checked.iter().filter(|of_one| gets(topic, of_one)).count() as u64).collect();
    Plan {
        publishers: 1,
        subscribers: filters,
        choose: zipf(count).into(),
        topics,
        deliveries,
        payload_bytes,
        pace: window(payload_bytes, 1),
        warm_up: times.warm_up,
        measure: times.measure,
    }
}

/// Numbers below `count`, the n-th about 1/n times as often as the first; the same each time.
fn zipf(count: usize) -> Vec<u32> {
    let total: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
    let mut sums = Vec::with_capacity(count);
    let mut sum = 0.0;
    for rank in 1..=count {
        sum += 1.0 / rank as f64 / total;
        sums.push(sum);
    }
    let mut random = fastrand::Rng::with_seed(1);
    (0..CHOICES).map(|_| sums.partition_point(|sum| *sum < random.f64()).min(count - 1) as u32).collect()
}
