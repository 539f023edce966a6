//! Keys without headway, and the events of others behind them.

use super::{super::*, *};

/// More than any key may hold.
const MANY: u64 = 100_000;

/// A group of which the first event, of key 7, is with A, and 100,000 more of that key behind it.
fn blocked() -> GroupState {
    let mut group = group(&[7]);
    assert_eq!(take(&mut group, A, 0), [1]);
    offer(&mut group, &vec![7; MANY as usize]);
    group
}

/// Reads whatever is wanted from a stream whose events up to `end` have these keys.
fn read(group: &mut GroupState, key: impl Fn(u64) -> Option<u64>, end: u64) {
    while let Some(Feed { after, room }) = group.feed(end) {
        let through = (after + room as u64).min(end);
        group.offer(after, (after + 1..=through).map(|at| (at, key(at))), through, 0).expect("what is wanted");
    }
}

fn ack(group: &mut GroupState, sequence: u64) {
    assert_eq!(group.acknowledge(A, sequence, &Outcome::Ack, 0), Answer::Applied);
}

#[test]
fn a_blocked_key_does_not_stop_the_feed() {
    let mut group = blocked();
    assert_eq!(group.read_to(), MANY + 1);
    assert_eq!((group.counts().pending, group.counts().behind), (MANY as usize, MANY as usize));
    assert!(group.held_sequences().len() < 4_096, "most of them are not held");
    offer(&mut group, &[7, 0]);
    assert_eq!(take(&mut group, A, 0), [MANY + 3]);
}

#[test]
fn what_was_put_off_is_delivered_in_order_once_its_key_makes_headway() {
    let mut group = blocked();
    let key = |sequence| (sequence % 10 > 0 || sequence <= MANY).then_some(7);
    for sequence in 1..=MANY + 1 {
        ack(&mut group, sequence);
        read(&mut group, key, MANY + 1);
        assert_eq!(take(&mut group, A, 0).first(), (sequence <= MANY).then_some(&(sequence + 1)));
    }
    assert_eq!((group.counts().pending, group.counts().behind, group.floor()), (0, 0, MANY + 1));
    offer(&mut group, &[7]);
    assert_eq!(take(&mut group, A, 0), [MANY + 2], "the key is as any other");
}

#[test]
fn many_blocked_keys_leave_room_for_others() {
    let settings = GroupSettings { max_unacked: 1_000, ..settings() };
    let mut group = group_with(settings, &(1..=900).collect::<Vec<_>>());
    assert_eq!(take(&mut group, A, 0).len(), 900);
    let end = 400_000;
    read(&mut group, |sequence| Some(if sequence < end { sequence % 900 + 1 } else { 1_000 }), end);
    assert_eq!((group.read_to(), take(&mut group, A, 0)), (end, vec![end]));
}

#[test]
fn what_was_put_off_and_is_gone_from_the_stream_is_done() {
    let mut group = blocked();
    let kept = |sequence: u64| sequence.is_multiple_of(1_000);
    for sequence in group.held_sequences().into_iter().skip(1).filter(|sequence| !kept(*sequence)) {
        assert_eq!(group.gone(sequence), Some(false));
    }
    let mut expected = 1_000;
    ack(&mut group, 1);
    loop {
        while let Some(Feed { after, .. }) = group.feed(MANY + 1) {
            let events = (after + 1..=MANY + 1).filter(|at| kept(*at)).map(|at| (at, Some(7)));
            group.offer(after, events, MANY + 1, 0).expect("what is wanted");
        }
        let Some(next) = take(&mut group, A, 0).first().copied() else { break };
        assert_eq!(next, expected);
        ack(&mut group, next);
        expected += 1_000;
    }
    assert_eq!((group.floor(), group.counts().pending, expected), (MANY + 1, 0, MANY + 1_000));
}

#[test]
fn a_purge_takes_what_was_put_off_too() {
    let mut group = blocked();
    assert_eq!(group.purge(MANY - 10), MANY - 10);
    assert_eq!((group.floor(), group.counts().pending), (MANY - 10, 11));
    read(&mut group, |_| Some(7), MANY + 1);
    assert_eq!(take(&mut group, A, 0), [MANY - 9]);
    group.purge(MANY + 1);
    assert_eq!(
        (group.counts().pending, group.counts().unacked, group.feed(u64::MAX).map(|feed| feed.after)),
        (0, 0, Some(MANY + 1))
    );
}

#[test]
fn what_was_put_off_before_a_restart_is_delivered_after_it() {
    let group = blocked();
    let mut again = GroupState::restore(settings(), &group.encode(&[]), 0).expect("a state");
    again.join(A);
    read(&mut again, |sequence| (sequence <= MANY + 1).then_some(7), MANY + 2);
    assert_eq!(take(&mut again, A, 0), [1, MANY + 2]);
    assert_eq!(again.counts().behind, MANY as usize);
}

#[test]
fn nothing_new_is_read_while_there_are_as_many_gaps_as_may_be() {
    let mut group = group(&[7]);
    assert_eq!(take(&mut group, A, 0), [1]);
    // Every other event is of the blocked key: each is a gap once those between them are done.
    let key = |sequence: u64| (sequence % 2 == 1).then_some(7);
    let mut read_before = 0;
    while read_before < group.read_to() {
        read_before = group.read_to();
        read(&mut group, key, u64::MAX);
        for sequence in take(&mut group, A, 0) {
            ack(&mut group, sequence);
        }
    }
    let gaps = 64 * 1024;
    let there_are = group.done().ranges().count();
    assert!((gaps..gaps + 1_024).contains(&there_are), "{there_are}");
    assert_eq!(group.feed(u64::MAX), None);
    let mut again = GroupState::restore(settings(), &group.encode(&[]), 0).expect("a state");
    again.join(A);
    read(&mut again, key, read_before);
    assert!(again.read_to() + 1 >= read_before, "after a restart it reads on to where it was");
    ack(&mut group, 1);
    read(&mut group, key, read_before);
    assert_eq!(take(&mut group, A, 0).first(), Some(&3));
}
