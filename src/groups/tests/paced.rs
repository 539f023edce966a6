//! Members without credit of their own: how many events they have at a time.

use super::{super::*, *};

fn paced(events: usize, settings: GroupSettings) -> GroupState {
    let mut group = group_with(settings, &vec![0; events]);
    group.pace(A);
    group
}

/// A member that does one event after the other, `work` ms each, in the order in which they were sent. Gives how many were
/// done, how many leases ended, and the most it had at a time.
fn serial_worker(group: &mut GroupState, work: u64) -> (usize, u64, usize) {
    let (mut now, mut buffer, mut done, mut most) = (0, std::collections::VecDeque::new(), 0, 0);
    loop {
        buffer.extend(take(group, A, now));
        most = most.max(buffer.len());
        let Some(sequence) = buffer.pop_front() else {
            match group.due() {
                Some(due) => now = due,
                None => break,
            }
            continue;
        };
        now += work;
        done += usize::from(group.acknowledge(A, sequence, &Outcome::Ack, now) == Answer::Applied);
    }
    (done, group.counts().expired, most)
}

#[test]
fn a_member_that_takes_its_time_never_has_more_than_it_does_in_time() {
    for work in [1, 10, 100, 500] {
        let mut group = paced(600, GroupSettings { max_unacked: 1_000, ..settings() });
        let (done, expired, most) = serial_worker(&mut group, work);
        assert_eq!((done, expired), (600, 0), "{work} ms each");
        assert!(most as u64 * work <= 10_000, "{most} of {work} ms each");
    }
}

#[test]
fn a_fast_member_gets_to_have_many() {
    let mut group = paced(600, GroupSettings { max_unacked: 1_000, ..settings() });
    assert_eq!(serial_worker(&mut group, 1).2, 64);
}

#[test]
fn one_that_is_too_slow_for_what_it_began_with_gets_no_more_until_it_has_worked_through_that() {
    for work in [1_000, 3_000, 6_000, 9_000] {
        let mut group = paced(60, settings());
        let (done, expired, most) = serial_worker(&mut group, work);
        assert_eq!(done, 60, "{work} ms each: nothing is given up, though three attempts are all there are");
        assert!(expired <= 17 && most <= 17, "{work} ms each: {expired} leases ended, {most} at a time");
    }
}

#[test]
fn one_that_forgets_what_it_was_sent_gets_it_again_before_long() {
    let mut group = paced(40, settings());
    assert_eq!(take(&mut group, A, 0).len(), 16);
    assert_eq!(take(&mut group, A, 11_000), NOTHING, "it may be at work");
    assert_eq!(take(&mut group, A, 21_000), [1], "it said nothing for as long as it may take");
    ack_all(&mut group, &[1], 21_000);
    // One that says something of a later event is done with those before it.
    let mut group = paced(40, settings());
    take(&mut group, A, 0);
    ack_all(&mut group, &[2, 3], 9_000);
    assert_eq!(take(&mut group, A, 9_000), [17, 18]);
    assert_eq!(take(&mut group, A, 11_000), NOTHING);
    ack_all(&mut group, &[17], 11_500);
    assert_eq!(take(&mut group, A, 11_500), NOTHING, "one is with it, and that is all it seems to get done");
    ack_all(&mut group, &[18], 11_600);
    assert_eq!(take(&mut group, A, 11_600), [19], "the others wait until 12 s");
}

fn ack_all(group: &mut GroupState, sequences: &[u64], now: u64) {
    for sequence in sequences {
        group.acknowledge(A, *sequence, &Outcome::Ack, now);
    }
}

#[test]
fn a_second_member_has_its_share_at_once() {
    let mut group = paced(100, GroupSettings { max_unacked: 6, ..settings() });
    assert_eq!(take(&mut group, A, 0), [1, 2, 3, 4, 5, 6], "all that the group may have");
    group.join(B);
    group.pace(B);
    assert_eq!(take(&mut group, B, 0), NOTHING);
    ack_all(&mut group, &[1, 2, 3], 0);
    assert_eq!((group.room(A), take(&mut group, B, 0).len()), (0, 3), "three each");
}

#[test]
fn whoever_may_have_more_is_told_of() {
    let mut group = paced(100, settings());
    let sent = take(&mut group, A, 0);
    assert_eq!(group.take_eased().count(), 0);
    let outcomes = [Outcome::Ack, nack(60_000), reject()];
    for (sequence, outcome) in sent.iter().zip(outcomes) {
        group.acknowledge(A, *sequence, &outcome, 0);
        assert_eq!(group.take_eased().collect::<Vec<_>>(), [A], "{outcome:?}");
    }
    group.gone(4);
    assert_eq!(group.take_eased().collect::<Vec<_>>(), [A], "removed");
    take(&mut group, A, 0);
    group.take_eased().for_each(drop);
    group.tick(10_000);
    assert_eq!(group.take_eased().collect::<Vec<_>>(), [A], "not acknowledged in time");
    group.leave(A);
    assert_eq!((group.take_eased().count(), group.room(A)), (0, 0));
}

#[test]
fn more_time_is_no_answer_and_tells_nothing_of_how_long_one_takes() {
    let mut group = paced(100, settings());
    let sent = take(&mut group, A, 0);
    group.acknowledge(A, sent[0], &Outcome::Extend { delay: Some(60_000) }, 9_000);
    assert_eq!(group.room(A), 0);
    group.acknowledge(A, sent[0], &Outcome::Ack, 9_001);
    assert_eq!(group.room(A), 1);
}

#[test]
fn one_that_grants_credit_has_no_window() {
    let group = group(&[0; 100]);
    assert_eq!(group.room(A), usize::MAX);
}

#[test]
fn a_member_that_comes_back_goes_on_with_the_window_it_had() {
    let mut group = paced(100, GroupSettings { max_unacked: 1_000, ..settings() });
    serial_worker(&mut group, 1);
    let before = group.room(A);
    group.join(B);
    group.pace(B);
    group.succeed(A, B, None, 0);
    assert_eq!(group.room(B), before);
}
