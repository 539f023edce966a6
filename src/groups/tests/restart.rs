//! What survives a restart, and what is made of bytes that are no state.

use proptest::prelude::*;

use super::{super::*, *};
use crate::model::limits::MAX_TIME_MS;

/// The group after a restart at `now`, with the same events offered.
fn restarted(group: &GroupState, buried: &[u64], now: u64, keys: &[u64]) -> GroupState {
    let mut again = GroupState::restore(settings(), &group.encode(buried), now).expect("what was encoded");
    again.join(A);
    let after = again.read_to();
    let events = (1..).zip(keys.iter().map(|key| (*key > 0).then_some(*key))).filter(|(sequence, _)| *sequence > after);
    again.offer(after, events, keys.len() as u64, now).expect("what is wanted");
    again
}

#[test]
fn what_was_not_acknowledged_is_delivered_again_and_the_rest_is_not() {
    let keys = [0, 7, 7, 0, 8];
    let mut group = group(&keys);
    take(&mut group, A, 0);
    for sequence in [2, 4] {
        group.acknowledge(A, sequence, &Outcome::Ack, 0);
    }
    let mut again = restarted(&group, &[], 0, &keys);
    assert_eq!(take(&mut again, A, 0), [1, 3, 5]);
    assert_eq!(again.acknowledge(A, 2, &Outcome::Ack, 0), Answer::AlreadyDone);
}

#[test]
fn no_more_is_reopened_without_members_than_a_group_may_hold() {
    let mut group = GroupState::new(settings(), 200_000);
    let (mut reopened, mut every_second) = (0, (1..200_000).step_by(2));
    // Nobody uses it, so it is as it is stored whenever some more of it is given back.
    while every_second.by_ref().take(64).all(|sequence| {
        let taken = group.reopen(sequence, None);
        reopened += usize::from(taken);
        taken
    }) {
        group = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
        assert!(reopened < 20_000, "there is no end to it");
    }
    assert_eq!(reopened, 16 * 1024 + settings().max_unacked as usize);
}

#[test]
fn attempts_waits_and_reasons_survive() {
    let keys = [7, 7, 0];
    let mut group = group(&keys);
    take(&mut group, A, 100);
    group.acknowledge(A, 1, &nack(60_000), 100);
    let mut again = restarted(&group, &[], 200, &keys);
    assert_eq!(again.acknowledge(A, 1, &Outcome::Ack, 200), Answer::Expired);
    assert_eq!(take(&mut again, A, 200), [3]);
    let second = deliveries(&mut again, A, 60_100).remove(0);
    assert_eq!((second.sequence, second.attempt, &*second.last_failure), (1, 2, "no"));
    let mut set_back = restarted(&group, &[], 0, &keys);
    assert!(set_back.due().is_some_and(|due| due <= MAX_TIME_MS));
    take(&mut set_back, A, 0);
}

#[test]
fn attempts_survive_two_restarts_even_if_the_event_was_not_read_between() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(0), 0);
    let between = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
    let mut again = restarted(&between, &[], 0, &[0]);
    assert_eq!(deliveries(&mut again, A, 0)[0].attempt, 2);
}

#[test]
fn how_often_an_event_was_lost_survives_and_is_known_before_it_is_read_again() {
    let mut group = group(&[0]);
    for loss in 0..3 {
        take(&mut group, A, 0);
        group.die(A, loss * 10_000);
        group = restarted(&group, &[], (loss + 1) * 10_000, &[0]);
        let counts = group.counts();
        assert_eq!((counts.redelivering, counts.pending, group.unread_dead_letters(9)), (1, 0, vec![]));
    }
    let fourth = deliveries(&mut group, A, 30_000).remove(0);
    assert_eq!((fourth.attempt, fourth.redelivered), (1, true));
    group.die(A, 30_000);
    group = restarted(&group, &[], 40_000, &[0]);
    assert_eq!(deliveries(&mut group, A, 40_000)[0].attempt, 2);
}

#[test]
fn a_loss_of_what_is_given_up_or_too_many_are_no_state() {
    let is_taken = |numbers: &[u64]| GroupState::restore(settings(), &sealed_as(3, numbers, b""), 0).is_ok();
    assert!(is_taken(&[5, 0, 1, 1, 0, 0, 9, 0, 0, 7, 1]), "as encoding makes it");
    assert!(!is_taken(&[5, 0, 1, 1, 0, 0, 9, 0, 0, 7, 0]), "that is of version 2");
    assert!(!is_taken(&[5, 0, 1, 1, 1, 1, 9, 0, 0, 7, 1]), "it was rejected");
    assert!(!is_taken(&[5, 0, 1, 1, 0, 0, 9, 0, 0, 7, 1 << 32]));
}

#[test]
fn a_dead_letter_is_buried_with_the_state_it_was_stored_with_and_never_without() {
    let keys = [7, 7, 0];
    let mut group = group(&keys);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &reject(), 0);
    let mut stored = restarted(&group, &[1], 0, &keys);
    assert_eq!((stored.dead_letters().count(), take(&mut stored, A, 0)), (0, vec![2, 3]));
    let mut not_stored = restarted(&group, &[], 0, &keys);
    let letters: Vec<_> = not_stored.dead_letters().map(|letter| (letter.sequence, letter.attempts)).collect();
    assert_eq!((letters, take(&mut not_stored, A, 0)), (vec![(1, 1)], vec![3]));
    assert_eq!(group.encode(&[2, 3, 99]), group.encode(&[]), "only what waits to be buried can be");
}

#[test]
fn a_purge_or_a_read_that_passes_it_over_forgets_a_failure() {
    let mut group = group(&[0, 0]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(10), 0);
    group.acknowledge(A, 2, &nack(10), 0);
    let bytes = group.encode(&[]);
    let mut purged = GroupState::restore(settings(), &bytes, 0).expect("what was encoded");
    purged.purge(2);
    let mut passed = GroupState::restore(settings(), &bytes, 0).expect("what was encoded");
    passed.offer(0, [], 2, 0).expect("what is wanted");
    let fresh = GroupState::new(settings(), 2);
    assert_eq!((purged.encode(&[]), passed.encode(&[])), (fresh.encode(&[]), fresh.encode(&[])));
}

#[test]
fn many_failures_with_long_reasons_make_no_large_state() {
    let settings = GroupSettings { max_unacked: 10_000, ..settings() };
    let mut group = group_with(settings.clone(), &vec![0; 10_000]);
    let reason: Box<str> = "r".repeat(1_000).into();
    for sequence in take(&mut group, A, 0) {
        group.acknowledge(A, sequence, &Outcome::Nack { delay: None, reason: reason.clone() }, 0);
    }
    let bytes = group.encode(&[]);
    assert!(bytes.len() < 256 * 1024, "{}", bytes.len());
    assert!(GroupState::restore(settings, &bytes, 0).is_ok());
}

#[test]
fn a_wait_is_no_longer_after_a_restart_however_far_the_clock_was_set_back() {
    let hour = 3_600_000;
    let mut group = group(&[0]);
    take(&mut group, A, hour);
    group.acknowledge(A, 1, &nack(2_000), hour);
    for (now, due) in [(hour + 500, hour + 2_000), (hour + 9_000, hour + 9_000), (5, 2_005)] {
        let mut again = GroupState::restore(settings(), &group.encode(&[]), now).expect("what was encoded");
        again.join(A);
        again.offer(0, [(1, None)], 1, now).expect("what is wanted");
        assert_eq!(again.due().unwrap_or(now), due);
    }
}

#[test]
fn when_a_group_begins_is_known_after_a_restart_until_it_is_moved() {
    let mut group = group(&[0]);
    let before = group.revision();
    group.begin_at(7);
    assert!(group.revision() > before);
    group.rewind();
    let mut again = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
    assert_eq!((group.begins(), again.begins()), (7, 7));
    again.seek(1);
    assert_eq!(again.begins(), 0);
}

#[test]
fn other_bytes_and_later_versions_are_told_apart() {
    let damaged = |bytes: &[u8]| GroupState::restore(settings(), bytes, 0).expect_err("no state");
    assert_eq!((damaged(b""), damaged(b"{}")), (SnapshotError::Foreign, SnapshotError::Foreign));
    let mut bytes = GroupState::new(settings(), 5).encode(&[]);
    bytes[4] = 5;
    assert_eq!(damaged(&bytes), SnapshotError::Version(5));
}

/// Bytes with a right checksum, whatever they tell.
fn sealed(numbers: &[u64], text: &[u8]) -> Vec<u8> {
    sealed_as(1, numbers, text)
}

pub(super) fn sealed_as(version: u8, numbers: &[u64], text: &[u8]) -> Vec<u8> {
    let mut bytes = b"SYGS".to_vec();
    bytes.push(version);
    for value in numbers {
        let mut value = *value;
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    }
    bytes.extend_from_slice(text);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_right_checksum_makes_no_nonsense_right() {
    let is_taken = |numbers: &[u64], text: &[u8]| GroupState::restore(settings(), &sealed(numbers, text), 0).is_ok();
    assert!(is_taken(&[5, 1, 2, 0, 1, 1, 1, 0, 9, 2], b"no"), "as encoding makes it");
    for (numbers, text) in [
        (&[u64::MAX, 0, 0][..], &b""[..]),
        (&[5, 1, 1, 0, 0], b""),
        (&[5, 1, u64::MAX, 0, 0], b""),
        (&[5, 1, 2, u64::MAX, 0], b""),
        (&[5, u64::MAX, 2, 0], b""),
        (&[5, 0, u64::MAX], b""),
        (&[5, 1, 2, 0, 1, 2, 1, 0, 9, 0], b""),
        (&[5, 0, 1, 0, 1, 0, 9, 0], b""),
        (&[5, 0, 1, 1, 0, 0, 9, 0], b""),
        (&[5, 0, 1, 1, u64::MAX, 0, 9, 0], b""),
        (&[5, 0, 1, 1, 1, 2, 9, 0], b""),
        (&[5, 0, 1, 1, 1, 0, 9, u64::MAX], b"no"),
        (&[5, 0, 1, 1, 1, 0, 9, 2], b"\xff\xfe"),
        (&[5, 0, 0], b"\0"),
        (&[5, 0], b"\x80\0"),
        (&[], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    ] {
        assert!(!is_taken(numbers, text), "{numbers:?} {text:?}");
    }
}

#[test]
fn a_long_chain_of_failures_of_one_key_is_dropped_without_a_deep_stack() {
    let mut numbers = vec![0, 0, 10_000];
    numbers.extend([1, 9, 1, 0, 0].repeat(10_000));
    let settings = GroupSettings { dead_letter_stream: None, ..settings() };
    let mut group = GroupState::restore(settings.clone(), &sealed(&numbers, b""), 0).expect("a state");
    group.offer(0, (1..=10_000).map(|sequence| (sequence, Some(7))), 10_000, 0).expect("what is wanted");
    assert_eq!((group.floor(), group.counts().dropped), (10_000, 10_000));
}

proptest! {
    #[test]
    fn damage_is_an_error_and_never_a_panic(at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<bool>()) {
        let mut group = group(&[0, 7, 7, 0, 0, 0]);
        take(&mut group, A, 0);
        group.acknowledge(A, 2, &nack(1_000), 0);
        group.acknowledge(A, 5, &Outcome::Ack, 0);
        let mut bytes = group.encode(&[]);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        prop_assert!(GroupState::restore(settings(), &bytes, 0).is_err());
    }

    #[test]
    fn any_bytes_with_a_right_checksum_are_a_state_or_an_error(
        numbers in prop::collection::vec(0..6_u64, 0..40),
        version in 1..=4_u8,
    ) {
        let bytes = sealed_as(version, &numbers, b"");
        if let Ok(mut group) = GroupState::restore(settings(), &bytes, 0) {
            prop_assert_eq!(group.encode(&[]), bytes, "there is one way to say it");
            group.join(A);
            let after = group.read_to();
            group.offer(after, (after + 1..50).map(|sequence| (sequence, Some(sequence % 3))), 50, 0).expect("wanted");
            while !take(&mut group, A, u64::MAX).is_empty() {
                for sequence in 1..50 {
                    group.acknowledge(A, sequence, &Outcome::Ack, u64::MAX);
                }
            }
        }
    }
}
