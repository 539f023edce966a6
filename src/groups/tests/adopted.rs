//! Deliveries of another owner of the group.

use super::{super::*, *};

/// The owner before: A and B have had something of events with these keys.
fn handed_out(keys: &[u64]) -> GroupState {
    let mut group = group(keys);
    group.join(B);
    group
}

/// The next owner, with the same members and events.
fn taken_over(before: &GroupState, keys: &[u64], now: u64) -> GroupState {
    let mut group = GroupState::restore(settings(), &before.encode(&[]), now).expect("what was encoded");
    group.join(A);
    group.join(B);
    let read = group.read_to() as usize;
    offer(&mut group, &keys[read..]);
    group
}

#[test]
fn what_a_member_has_is_not_handed_out_and_its_key_waits_for_it() {
    let keys = [7, 7, 8, 0];
    let mut before = handed_out(&keys);
    assert_eq!(take(&mut before, A, 0), [1, 3, 4]);
    let mut after = taken_over(&before, &keys, 5_000);
    assert!(after.adopt(A, 1, 1, 10_000) && after.adopt(A, 4, 1, 10_000));
    assert_eq!(take(&mut after, B, 5_000), [3]);
    assert_eq!((after.counts().leased, after.counts().behind), (3, 1));
    assert_eq!(after.acknowledge(B, 1, &Outcome::Ack, 5_000), Answer::Expired, "it is with another");
    assert_eq!(after.acknowledge(A, 1, &Outcome::Ack, 5_000), Answer::Applied);
    assert_eq!(take(&mut after, B, 5_000), [2]);
}

#[test]
fn its_attempt_is_the_same_and_its_lease_ends_as_any_other() {
    let mut before = handed_out(&[0]);
    take(&mut before, A, 0);
    before.acknowledge(A, 1, &nack(0), 0);
    let stored = before.encode(&[]);
    let mut after = GroupState::restore(settings(), &stored, 2_000).expect("what was encoded");
    after.join(A);
    offer(&mut after, &[0]);
    assert!(after.adopt(A, 1, 2, 9_000));
    assert_eq!((after.due(), after.counts().expired), (Some(9_000), 0));
    after.tick(9_000);
    assert_eq!(after.counts().expired, 1);
    after.acknowledge(A, 1, &nack(0), 9_000);
    let third = deliveries(&mut after, A, 60_000).remove(0);
    assert_eq!((third.attempt, &*third.last_failure, third.redelivered), (3, "it was not acknowledged in time", true));
}

#[test]
fn attempts_that_the_owner_before_had_not_stored_are_counted() {
    let mut after = taken_over(&handed_out(&[0]), &[0], 0);
    assert!(after.adopt(A, 1, 3, 10_000));
    after.acknowledge(A, 1, &nack(0), 0);
    let letters: Vec<_> = after.dead_letters().map(|letter| (letter.sequence, letter.attempts)).collect();
    assert_eq!(letters, [(1, 3)]);
    assert!(GroupState::restore(settings(), &after.encode(&[]), 0).is_ok());
}

#[test]
fn nothing_is_taken_over_that_is_done_or_given_up_or_unknown_or_with_another_or_old() {
    let keys = [0; 6];
    let mut before = handed_out(&keys);
    take(&mut before, A, 0);
    before.acknowledge(A, 1, &Outcome::Ack, 0);
    before.acknowledge(A, 2, &reject(), 0);
    before.acknowledge(A, 3, &nack(0), 0);
    let mut after = taken_over(&before, &keys, 0);
    let revision = after.revision();
    assert!(!after.adopt(A, 1, 1, 10_000), "done");
    assert!(!after.adopt(A, 2, 2, 10_000), "given up");
    assert!(!after.adopt(A, 3, 1, 10_000), "that attempt has failed");
    assert!(!after.adopt(A, 4, 0, 10_000), "attempts count from 1");
    assert!(!after.adopt(MemberId(9), 4, 1, 10_000), "no member");
    assert!(!after.adopt(A, 7, 1, 10_000), "not offered");
    assert!(after.adopt(A, 4, 1, 10_000) && !after.adopt(B, 4, 1, 10_000), "with another");
    assert_eq!((after.revision(), after.counts().leased), (revision, 1));
    assert_eq!(take(&mut after, B, 0), [3, 5, 6]);
}

#[test]
fn one_behind_another_of_its_key_neither_frees_nor_overtakes_anything() {
    let keys = [7, 7, 7];
    for ends in ["acknowledged", "failed", "given back"] {
        // The owner before had not stored that the first is done.
        let mut after = taken_over(&handed_out(&keys), &keys, 0);
        assert!(after.adopt(A, 2, 1, 10_000));
        assert_eq!(take(&mut after, B, 0), [1]);
        match ends {
            "acknowledged" => _ = after.acknowledge(A, 2, &Outcome::Ack, 0),
            "failed" => _ = after.acknowledge(A, 2, &nack(0), 0),
            _ => after.leave(A),
        }
        assert_eq!(take(&mut after, B, 0), NOTHING, "{ends}");
        after.acknowledge(B, 1, &Outcome::Ack, 0);
        let next = if ends == "acknowledged" { 3 } else { 2 };
        assert_eq!(take(&mut after, B, 0), [next], "{ends}");
        after.acknowledge(B, next, &Outcome::Ack, 0);
        take(&mut after, B, 0);
        after.acknowledge(B, 3, &Outcome::Ack, 0);
        assert_eq!((after.floor(), after.counts().pending), (3, 0));
    }
}

#[test]
fn an_earlier_one_of_its_key_that_is_done_leaves_it_where_it_is() {
    let keys = [7, 7, 7];
    let mut after = taken_over(&handed_out(&keys), &keys, 0);
    assert!(after.adopt(A, 2, 1, 10_000));
    assert_eq!(take(&mut after, B, 0), [1]);
    after.acknowledge(B, 1, &Outcome::Ack, 0);
    assert_eq!((take(&mut after, B, 0), after.counts().leased), (vec![], 1));
    assert_eq!(after.acknowledge(A, 2, &Outcome::Ack, 0), Answer::Applied);
    assert_eq!(take(&mut after, B, 0), [3]);
}

#[test]
fn what_was_sent_before_it_is_acknowledged_with_it() {
    let keys = [0; 4];
    let mut after = taken_over(&handed_out(&keys), &keys, 0);
    for sequence in [3, 1, 4] {
        assert!(after.adopt(A, sequence, 1, 10_000));
    }
    assert_eq!(after.acknowledge_up_to(A, 1, &Outcome::Ack, 0), UpTo { answer: Answer::Applied, applied: 2 });
    assert_eq!(after.counts().leased, 1);
}
