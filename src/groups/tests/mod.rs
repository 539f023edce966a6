//! The machine by its behaviour, and against a model.

mod adopted;
mod behaviour;
mod given_back;
mod model;
mod naive;
mod paced;
mod put_off;
mod removed;
mod restart;
mod returning;
mod rounds;
mod views;

use std::time::Duration;

use super::{Delivery, GroupState, MemberId, Outcome};
use crate::model::{GroupSettings, StreamName};

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const NOTHING: [u64; 0] = [];

/// Ten seconds to acknowledge, three attempts a second and five seconds apart, a dead-letter stream.
fn settings() -> GroupSettings {
    GroupSettings {
        ack_deadline: Duration::from_secs(10),
        max_attempts: 3,
        backoff: [1, 5].map(Duration::from_secs).to_vec(),
        max_unacked: 100,
        dead_letter_stream: Some(StreamName::parse("dead").expect("a name")),
    }
}

/// A group with member A and events from 1 on with these keys; 0 is none.
fn group_with(settings: GroupSettings, keys: &[u64]) -> GroupState {
    let mut group = GroupState::new(settings, 0);
    group.join(A);
    offer(&mut group, keys);
    group
}

fn group(keys: &[u64]) -> GroupState {
    group_with(settings(), keys)
}

/// Offers events after what was read, with these keys; 0 is none.
fn offer(group: &mut GroupState, keys: &[u64]) {
    let after = group.read_to();
    let events = (after + 1..).zip(keys.iter().map(|key| (*key > 0).then_some(*key)));
    group.offer(after, events, after + keys.len() as u64, 0).expect("what is wanted");
}

/// Hands out and sends all that is to be had.
fn take(group: &mut GroupState, member: MemberId, now: u64) -> Vec<u64> {
    deliveries(group, member, now).into_iter().map(|delivery| delivery.sequence).collect()
}

fn deliveries(group: &mut GroupState, member: MemberId, now: u64) -> Vec<Delivery> {
    std::iter::from_fn(|| {
        let delivery = group.next(member, now)?;
        assert!(group.sent(member, delivery.sequence, now));
        Some(delivery)
    })
    .collect()
}

fn nack(delay: u64) -> Outcome {
    Outcome::Nack { delay: Some(delay), reason: "no".into() }
}

fn reject() -> Outcome {
    Outcome::Reject { reason: "never".into() }
}
