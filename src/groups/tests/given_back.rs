//! Dead letters that are given back: each waits for members who want it.

use super::{super::*, *};

/// All up to 5 is done, 2 was a dead letter and is given back while nobody is there.
fn given_back() -> GroupState {
    let mut group = GroupState::new(settings(), 5);
    assert!(group.reopen(2, None));
    group
}

/// Members come whose filters take only `wanted` of what is there.
fn read(group: &mut GroupState, wanted: &[u64], through: u64) {
    group.rewind();
    group.join(A);
    let after = group.read_to();
    group.offer(after, wanted.iter().map(|sequence| (*sequence, None)), through, 0).expect("what is wanted");
}

#[test]
fn what_the_members_there_are_do_not_want_waits_for_others_and_holds_up_nothing() {
    let mut group = given_back();
    read(&mut group, &[6, 7], 7);
    assert_eq!(take(&mut group, A, 0), [6, 7]);
    for sequence in [6, 7] {
        group.acknowledge(A, sequence, &Outcome::Ack, 0);
    }
    let counts = group.counts();
    assert_eq!((counts.pending, counts.unacked, counts.behind, group.floor()), (1, 0, 0, 1));
    assert_eq!(group.acknowledge(A, 2, &Outcome::Ack, 0), Answer::NotDelivered);
    group.leave(A);
    read(&mut group, &[2], 7);
    let delivery = deliveries(&mut group, A, 0).remove(0);
    assert_eq!((delivery.sequence, delivery.attempt, &*delivery.last_failure), (2, 1, ""));
    group.acknowledge(A, 2, &Outcome::Ack, 0);
    assert_eq!(group.floor(), 7);
}

#[test]
fn it_waits_through_restarts_and_its_attempts_count_from_one() {
    let mut group = given_back();
    for _ in 0..2 {
        group = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
        read(&mut group, &[6], 6);
        assert_eq!(group.counts().pending, 2);
    }
    group = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
    read(&mut group, &[2], 6);
    assert_eq!(deliveries(&mut group, A, 0)[0].attempt, 1);
    group.acknowledge(A, 2, &nack(0), 0);
    assert_eq!(deliveries(&mut group, A, 0)[0].attempt, 2);
}

#[test]
fn it_is_new_and_waits_for_room_as_what_is_new_does() {
    let settings = GroupSettings { max_unacked: 1, ..settings() };
    let mut group = group_with(settings, &[0; 3]);
    group.seek(4);
    assert!(group.reopen(1, None) && group.reopen(2, None));
    assert_eq!(group.counts().unacked, 0);
    assert_eq!(take(&mut group, A, 0), [1]);
    assert_eq!(group.acknowledge(A, 2, &Outcome::Ack, 0), Answer::NotDelivered);
}

#[test]
fn what_waits_for_other_members_does_not_use_up_the_look_ahead() {
    let mut group = GroupState::new(settings(), 40_000);
    for sequence in (1..=32_000).step_by(2) {
        assert!(group.reopen(sequence, None));
    }
    read(&mut group, &[], 40_000);
    assert_eq!((group.counts().pending, group.feed(u64::MAX).map(|feed| feed.room > 0)), (16_000, Some(true)));
    for sequence in group.held_sequences() {
        assert_eq!(group.gone(sequence), Some(true));
    }
    assert_eq!(group.floor(), 40_000);
}

#[test]
fn given_back_before_it_is_read_again_it_is_kept_too() {
    let mut group = GroupState::new(settings(), 1);
    assert!(group.reopen(3, None));
    read(&mut group, &[], 5);
    assert_eq!((group.floor(), group.held_sequences()), (2, vec![3]));
    group.purge(4);
    assert_eq!((group.floor(), group.counts().pending), (5, 0));
}

#[test]
fn the_state_of_a_group_that_never_had_any_is_what_earlier_hubs_read() {
    let mut group = GroupState::new(settings(), 5);
    assert_eq!(group.encode(&[])[4], 1);
    assert!(group.reopen(2, None));
    assert_eq!(group.encode(&[])[4], 4);
    read(&mut group, &[2], 5);
    take(&mut group, A, 0);
    group.acknowledge(A, 2, &Outcome::Ack, 0);
    assert_eq!(group.encode(&[])[4], 4, "its next letter has another round");
}

#[test]
fn what_was_given_up_before_a_restart_is_buried_before_anybody_reads() {
    let mut group = group(&[0, 0, 0]);
    take(&mut group, A, 0);
    group.acknowledge(A, 2, &reject(), 0);
    group.acknowledge(A, 3, &nack(0), 0);
    let mut again = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
    let letters = again.unread_dead_letters(10);
    assert_eq!((letters.len(), letters[0].sequence, letters[0].attempts, &*letters[0].reason), (1, 2, 1, "never"));
    let stored = again.encode(&[2]);
    assert!(again.buried(2) && !again.buried(2) && !again.buried(3));
    assert_eq!(again.encode(&[]), stored);
    read(&mut again, &[1, 2, 3], 3);
    assert_eq!(take(&mut again, A, 0), [3, 1]);
}
