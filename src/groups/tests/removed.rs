//! Events that the stream loses while the group has them: whatever they are at, they are done.

use super::{super::*, *};

/// 1 is leased, 2 waits for its next attempt, 3 may be tried again, 4 is given up, 5 is behind 1, 6 is new, 7 is with nobody
/// because it was not sent.
fn in_every_place() -> GroupState {
    let mut group = group(&[7, 0, 0, 0, 7, 0, 0]);
    for sequence in 1..=4 {
        assert_eq!(group.next(A, 0).expect("one").sequence, sequence);
        group.sent(A, sequence, 0);
    }
    group.acknowledge(A, 2, &nack(60_000), 0);
    group.acknowledge(A, 3, &nack(0), 0);
    group.acknowledge(A, 4, &reject(), 0);
    group
}

#[test]
fn an_event_that_is_removed_is_done_wherever_it_is() {
    for sequence in 1..=6 {
        let mut group = in_every_place();
        assert_eq!(group.gone(sequence), Some(sequence < 5), "{sequence}");
        assert!(!group.holds(sequence));
        assert_eq!(group.gone(sequence), None);
        let left: Vec<u64> = (1..=7).filter(|other| *other != sequence).collect();
        assert_eq!(group.held_sequences(), left);
        assert_eq!(group.acknowledge(A, sequence, &Outcome::Ack, 0), Answer::AlreadyDone);
    }
    let mut group = in_every_place();
    for sequence in 1..=7 {
        group.gone(sequence);
    }
    assert_eq!((group.floor(), group.counts().unacked, group.due(), group.dead_letters().count()), (7, 0, None, 0));
    offer(&mut group, &[7]);
    assert_eq!(take(&mut group, A, 0), [8], "nothing is left of the key");
}

#[test]
fn room_is_free_again_when_what_uses_it_is_removed() {
    let settings = GroupSettings { max_unacked: 2, ..settings() };
    let mut group = group_with(settings, &[0; 4]);
    assert_eq!(take(&mut group, A, 0), [1, 2]);
    group.gone(1);
    assert_eq!(take(&mut group, A, 0), [3]);
}

#[test]
fn a_key_is_free_when_the_event_that_blocks_it_is_removed_and_stays_so_when_one_behind_it_is() {
    let mut group = group(&[7, 7, 7]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(60_000), 0);
    assert_eq!(group.gone(2), Some(false));
    assert_eq!(take(&mut group, A, 0), NOTHING, "1 is first still");
    assert_eq!(group.gone(1), Some(true));
    assert_eq!(take(&mut group, A, 0), [3]);
}

#[test]
fn a_purge_tells_of_all_that_was_not_done() {
    let mut group = in_every_place();
    group.acknowledge(A, 1, &Outcome::Ack, 0);
    assert_eq!(group.purge(10), 9);
    let mut group = GroupState::new(settings(), 5);
    assert_eq!((group.purge(3), group.purge(8), group.purge(8)), (0, 3, 0));
}

#[test]
fn what_failed_before_a_restart_and_is_removed_is_done_before_it_is_read() {
    let group = in_every_place();
    let mut again = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
    assert_eq!((again.gone_unread(1), again.gone_unread(2)), (false, true));
    assert_eq!(again.done().ranges().collect::<Vec<_>>(), [(2, 2)]);
    assert!(!again.gone_unread(2));
}
