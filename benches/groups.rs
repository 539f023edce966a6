//! Micro-benchmarks of a group on a stream: what one event costs from the feed to its acknowledgement.
//! `cargo bench --bench groups`.
//!
//! - `deliver`: offer, hand out, send and acknowledge, with so many events unacknowledged all the time, acknowledged in
//!   the order in which they were sent. With keys, about ten keys for each unacknowledged event.
//! - `deliver_out_of_order`: the same without keys, acknowledged in random order, so that what is done is in many ranges.
//! - `fail`: a NACK and what brings the event back.
//! - `encode`: the state to be stored with every second event done.

use divan::{Bencher, black_box, counter::ItemsCount};
use switchyard::{
    groups::{Answer, GroupState, MemberId, Outcome},
    model::GroupSettings,
};

const EVENTS: usize = 1_000;
const MEMBER: MemberId = MemberId(1);
const UNACKED: [usize; 3] = [100, 1_000, 100_000];

fn main() {
    divan::main();
}

/// A group that never runs dry, and what its member has.
struct Busy {
    group: GroupState,
    keys: u64,
    now: u64,
    sent: Vec<u64>,
    /// The place in `sent` of what is acknowledged next.
    oldest: usize,
}

impl Busy {
    fn new(unacked: usize, keys: u64) -> Self {
        let max_unacked = u32::try_from(unacked).expect("few");
        let settings = GroupSettings { max_unacked, max_attempts: 0, ..GroupSettings::default() };
        let mut group = GroupState::new(settings, 0);
        group.join(MEMBER);
        let mut busy = Self { group, keys, now: 0, sent: Vec::new(), oldest: 0 };
        while busy.sent.len() < unacked {
            let sequence = busy.send().expect("there are more keys than that");
            busy.sent.push(sequence);
        }
        busy
    }

    /// Hands out and sends one event.
    fn send(&mut self) -> Option<u64> {
        if let Some(feed) = self.group.feed(u64::MAX) {
            let through = feed.after + feed.room as u64;
            let keys = self.keys;
            // Scattered, as hashes are.
            let key = |sequence: u64| (keys > 0).then(|| (sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % keys);
            let events = (feed.after + 1..=through).map(|sequence| (sequence, key(sequence)));
            self.group.offer(feed.after, events, through, self.now).expect("what is wanted");
        }
        let sequence = self.group.next(MEMBER, self.now)?.sequence;
        self.group.sent(MEMBER, sequence, self.now);
        Some(sequence)
    }

    fn acknowledge(&mut self, place: usize) {
        let answer = self.group.acknowledge(MEMBER, self.sent[place], &Outcome::Ack, self.now);
        assert_eq!(answer, Answer::Applied);
    }
}

fn deliver(bencher: Bencher, unacked: usize, keys: u64) {
    let mut busy = Busy::new(unacked, keys);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        busy.now += 1;
        for _ in 0..EVENTS {
            busy.acknowledge(busy.oldest);
            busy.sent[busy.oldest] = busy.send().expect("one is free");
            busy.oldest = (busy.oldest + 1) % unacked;
        }
    });
}

#[divan::bench(args = UNACKED, sample_size = 1, sample_count = 1_000)]
fn deliver_without_keys(bencher: Bencher, unacked: usize) {
    deliver(bencher, unacked, 0);
}

#[divan::bench(args = UNACKED, sample_size = 1, sample_count = 1_000)]
fn deliver_with_keys(bencher: Bencher, unacked: usize) {
    deliver(bencher, unacked, 10 * unacked as u64);
}

#[divan::bench(args = UNACKED, sample_size = 1, sample_count = 1_000)]
fn deliver_out_of_order(bencher: Bencher, unacked: usize) {
    let mut busy = Busy::new(unacked, 0);
    let mut random = fastrand::Rng::with_seed(7);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        busy.now += 1;
        for _ in 0..EVENTS {
            let place = random.usize(..unacked);
            busy.acknowledge(place);
            busy.sent[place] = busy.send().expect("one is free");
        }
    });
}

#[divan::bench(args = UNACKED, sample_size = 1, sample_count = 1_000)]
fn fail(bencher: Bencher, unacked: usize) {
    let mut busy = Busy::new(unacked, 0);
    let nack = Outcome::Nack { delay: Some(0), reason: "busy".into() };
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        for _ in 0..EVENTS {
            busy.group.acknowledge(MEMBER, busy.sent[busy.oldest], &nack, busy.now);
            busy.sent[busy.oldest] = busy.send().expect("it comes back at once");
            busy.oldest = (busy.oldest + 1) % unacked;
        }
    });
}

#[divan::bench(args = UNACKED)]
fn encode(bencher: Bencher, unacked: usize) {
    let mut busy = Busy::new(unacked, 0);
    for place in (0..unacked).step_by(2) {
        busy.acknowledge(place);
    }
    bencher.bench_local(|| black_box(&busy.group).encode(&[]));
}
