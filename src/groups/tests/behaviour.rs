//! What members see, rule by rule.

use super::{super::*, *};
use crate::model::limits::{MAX_FAILURE_BYTES, MAX_TIME_MS};

fn ack(group: &mut GroupState, member: MemberId, sequence: u64, now: u64) -> Answer {
    group.acknowledge(member, sequence, &Outcome::Ack, now)
}

#[test]
fn events_are_handed_out_in_order_to_whoever_asks_and_each_once() {
    let mut group = group(&[0; 4]);
    group.join(B);
    let handed: Vec<_> = [A, B, B, A].map(|member| group.next(member, 0).expect("one").sequence).to_vec();
    assert_eq!(handed, [1, 2, 3, 4]);
    assert_eq!(group.next(A, 0), None);
}

#[test]
fn an_event_acknowledged_is_never_seen_again_and_the_floor_rises_over_it() {
    let mut group = group(&[0; 3]);
    assert_eq!(take(&mut group, A, 0), [1, 2, 3]);
    assert_eq!(ack(&mut group, A, 2, 1), Answer::Applied);
    assert_eq!((group.floor(), group.done().ranges().collect::<Vec<_>>()), (0, vec![(2, 2)]));
    assert_eq!(ack(&mut group, A, 1, 1), Answer::Applied);
    assert_eq!((group.floor(), group.done().ranges().count()), (2, 0));
    assert_eq!(ack(&mut group, A, 3, 1), Answer::Applied);
    assert_eq!(take(&mut group, A, 1_000_000), NOTHING);
}

#[test]
fn saying_it_twice_does_no_more_than_saying_it_once() {
    let mut group = group(&[0; 3]);
    take(&mut group, A, 0);
    ack(&mut group, A, 1, 1);
    let revision = group.revision();
    for outcome in [Outcome::Ack, nack(0), reject(), Outcome::Extend { delay: None }] {
        assert_eq!(group.acknowledge(A, 1, &outcome, 1), Answer::AlreadyDone);
    }
    assert_eq!(group.revision(), revision, "there is nothing to store");
    assert_eq!(group.acknowledge(A, 2, &reject(), 1), Answer::Applied);
    assert_eq!(group.acknowledge(A, 2, &reject(), 1), Answer::AlreadyDone);
    assert_eq!(group.acknowledge(A, 3, &nack(50), 1), Answer::Applied);
    assert_eq!(group.acknowledge(A, 3, &nack(50), 1), Answer::Expired);
    assert_eq!(group.counts().redelivering, 1);
}

#[test]
fn late_and_foreign_acknowledgements_hurt_nobody() {
    let mut group = group(&[0; 2]);
    group.join(B);
    assert_eq!(ack(&mut group, A, 1, 0), Answer::NotDelivered, "pending");
    assert_eq!(ack(&mut group, A, 9, 0), Answer::NotDelivered, "not read");
    take(&mut group, A, 0);
    assert_eq!(ack(&mut group, B, 1, 0), Answer::Expired);
    assert_eq!(ack(&mut group, A, 1, 10_000), Answer::Expired, "the deadline has passed");
    assert_eq!(take(&mut group, B, 11_000), [1, 2]);
    assert_eq!(ack(&mut group, A, 1, 11_000), Answer::Expired, "another has it");
    assert_eq!(ack(&mut group, B, 1, 11_000), Answer::Applied);
    assert_eq!(ack(&mut group, A, 1, 11_000), Answer::AlreadyDone);
}

#[test]
fn the_lease_runs_from_when_the_event_was_sent() {
    let mut group = group(&[0]);
    assert!(group.next(A, 0).is_some());
    group.tick(1_000_000);
    assert_eq!((group.due(), group.counts().leased), (None, 1));
    assert!(group.sent(A, 1, 1_000_000));
    assert!(!group.sent(A, 1, 1_005_000), "the first counts");
    assert_eq!(group.due(), Some(1_010_000));
}

#[test]
fn an_event_that_is_not_sent_after_all_counts_no_attempt() {
    let mut group = group(&[7, 7]);
    group.join(B);
    assert!(group.next(A, 0).is_some());
    assert!(!group.unsend(B, 1));
    assert!(group.unsend(A, 1));
    assert_eq!((group.counts().pending, group.counts().unacked), (2, 0));
    assert_eq!(group.next(B, 0).map(|delivery| (delivery.sequence, delivery.attempt)), Some((1, 1)));
    assert!(group.sent(B, 1, 0));
    assert!(!group.unsend(B, 1), "it was sent");
}

#[test]
fn a_lease_that_ends_is_a_failed_attempt_and_the_event_comes_back_after_its_backoff() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    group.tick(9_999);
    assert_eq!(group.counts().leased, 1);
    group.tick(10_000);
    assert_eq!((group.counts().expired, group.counts().redelivering, group.due()), (1, 1, Some(11_000)));
    assert_eq!(take(&mut group, A, 10_999), NOTHING);
    let again = deliveries(&mut group, A, 11_000).remove(0);
    assert_eq!((again.attempt, &*again.last_failure), (2, "it was not acknowledged in time"));
    group.tick(21_000);
    assert_eq!(group.due(), Some(26_000), "the second wait is longer");
}

#[test]
fn a_nack_waits_as_long_as_it_says() {
    let mut group = group(&[0, 0]);
    take(&mut group, A, 0);
    assert_eq!(group.acknowledge(A, 1, &nack(300), 0), Answer::Applied);
    let soon = Outcome::Nack { delay: None, reason: "busy".into() };
    assert_eq!(group.acknowledge(A, 2, &soon, 0), Answer::Applied);
    assert_eq!(take(&mut group, A, 300), [1]);
    let again = deliveries(&mut group, A, 1_000).remove(0);
    assert_eq!((again.sequence, again.attempt, &*again.last_failure), (2, 2, "busy"));
}

#[test]
fn what_comes_back_goes_before_what_is_new() {
    let mut group = group(&[0; 4]);
    for sequence in 1..=3 {
        group.next(A, 0);
        group.sent(A, sequence, 0);
    }
    group.acknowledge(A, 3, &nack(5), 0);
    group.acknowledge(A, 1, &nack(5), 0);
    assert_eq!(take(&mut group, A, 5), [1, 3, 4]);
}

#[test]
fn more_time_moves_the_end_of_the_lease() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    assert_eq!(group.acknowledge(A, 1, &Outcome::Extend { delay: Some(30_000) }, 5_000), Answer::Applied);
    assert_eq!(group.due(), Some(35_000));
    assert_eq!(group.acknowledge(A, 1, &Outcome::Extend { delay: None }, 34_999), Answer::Applied);
    assert_eq!(group.due(), Some(44_999));
    let ever = Outcome::Extend { delay: Some(u64::MAX) };
    assert_eq!(group.acknowledge(A, 1, &ever, 34_999), Answer::Applied);
    assert_eq!(group.due(), Some(34_999 + MAX_TIME_MS), "no longer than a day");
    assert_eq!(ack(&mut group, A, 1, 50_000), Answer::Applied);
    assert_eq!(group.due(), None);
}

#[test]
fn events_of_one_key_follow_one_another_across_members() {
    let mut group = group(&[7, 7, 8, 0, 7]);
    group.join(B);
    assert_eq!(take(&mut group, A, 0), [1, 3, 4]);
    assert_eq!(take(&mut group, B, 0), NOTHING);
    ack(&mut group, A, 1, 0);
    assert_eq!(take(&mut group, B, 0), [2]);
    group.acknowledge(B, 2, &nack(500), 0);
    assert_eq!(take(&mut group, A, 499), NOTHING, "only its key waits, but that one does");
    assert_eq!(take(&mut group, A, 500), [2]);
    ack(&mut group, A, 2, 500);
    assert_eq!(take(&mut group, B, 500), [5]);
}

#[test]
fn a_nack_delays_only_its_key() {
    let mut group = group(&[7, 8, 7, 8]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(60_000), 0);
    ack(&mut group, A, 2, 0);
    assert_eq!(take(&mut group, A, 0), [4]);
}

#[test]
fn what_fails_too_often_is_a_dead_letter_and_its_key_waits_until_that_is_stored() {
    let mut group = group(&[7, 7]);
    for attempt in 1..=3 {
        assert_eq!(deliveries(&mut group, A, 0)[0].attempt, attempt);
        assert_eq!(group.dead_letters().count(), 0);
        group.acknowledge(A, 1, &nack(0), 0);
    }
    let letter = DeadLetter { sequence: 1, attempts: 3, reason: "no".into(), round: 0 };
    assert_eq!(group.dead_letters().collect::<Vec<_>>(), [letter]);
    assert_eq!((take(&mut group, A, 0), group.counts().burying), (vec![], 1));
    assert_eq!(ack(&mut group, A, 1, 0), Answer::Expired);
    assert!(group.buried(1));
    assert!(!group.buried(1));
    assert_eq!((take(&mut group, A, 0), group.floor()), (vec![2], 1));
}

#[test]
fn a_reject_is_a_dead_letter_at_once() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    assert_eq!(group.acknowledge(A, 1, &reject(), 0), Answer::Applied);
    let letter = DeadLetter { sequence: 1, attempts: 1, reason: "never".into(), round: 0 };
    assert_eq!(group.dead_letters().collect::<Vec<_>>(), [letter]);
}

#[test]
fn without_a_dead_letter_stream_it_is_dropped_and_counted() {
    let mut group = group_with(GroupSettings { dead_letter_stream: None, ..settings() }, &[7, 7]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &reject(), 0);
    assert_eq!((group.counts().dropped, group.floor(), group.dead_letters().count()), (1, 1, 0));
    assert_eq!(take(&mut group, A, 0), [2], "its key goes on");
}

#[test]
fn with_no_limit_of_attempts_nothing_is_given_up() {
    let mut group = group_with(GroupSettings { max_attempts: 0, ..settings() }, &[0]);
    for attempt in 1..=100 {
        assert_eq!(deliveries(&mut group, A, 0)[0].attempt, attempt);
        group.acknowledge(A, 1, &nack(0), 0);
    }
}

#[test]
fn new_events_wait_while_too_many_are_unacknowledged_but_not_those_that_come_back() {
    let mut group = group_with(GroupSettings { max_unacked: 2, ..settings() }, &[0; 4]);
    assert_eq!(take(&mut group, A, 0), [1, 2]);
    assert!(!group.is_ready());
    group.acknowledge(A, 2, &nack(10), 0);
    assert_eq!(take(&mut group, A, 0), NOTHING, "what waits to come back is unacknowledged");
    assert_eq!(take(&mut group, A, 10), [2]);
    ack(&mut group, A, 1, 10);
    assert!(group.is_ready());
    assert_eq!(take(&mut group, A, 10), [3]);
}

#[test]
fn a_member_that_leaves_gives_back_all_at_once_and_nothing_has_failed() {
    let mut group = group(&[7, 8, 7]);
    group.join(B);
    group.next(A, 0);
    group.sent(A, 1, 0);
    group.next(A, 0);
    group.leave(A);
    assert!(!group.has_member(A));
    let again: Vec<_> = deliveries(&mut group, B, 0).iter().map(|d| (d.sequence, d.attempt)).collect();
    assert_eq!(again, [(1, 1), (2, 1)]);
    assert_eq!(ack(&mut group, A, 1, 0), Answer::Expired);
    assert_eq!(group.next(A, 0), None);
}

#[test]
fn a_member_that_comes_back_in_time_keeps_what_it_was_sent() {
    let mut group = group(&[0, 0]);
    group.join(B);
    group.next(A, 0);
    group.sent(A, 1, 0);
    group.next(A, 0);
    group.detach(A, 5_000, 1_000);
    assert_eq!(group.next(A, 1_000), None, "it has no transport");
    assert_eq!(take(&mut group, B, 1_000), [2], "what was not sent to it goes to others");
    assert_eq!(take(&mut group, B, 5_999), NOTHING);
    assert!(group.succeed(A, MemberId(3), None, 5_999));
    assert_eq!(ack(&mut group, MemberId(3), 1, 7_000), Answer::Applied);
}

#[test]
fn a_member_without_leases_is_forgotten_with_its_transport() {
    let mut group = group(&[0]);
    group.next(A, 0);
    group.detach(A, 5_000, 0);
    assert_eq!((group.has_member(A), group.due(), group.counts().pending), (false, None, 1));
}

#[test]
fn a_lease_also_ends_while_its_member_has_no_transport() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    group.detach(A, 60_000, 9_000);
    group.tick(10_000);
    assert_eq!((group.counts().leased, group.counts().redelivering), (0, 1));
    assert!(group.succeed(A, MemberId(3), None, 10_000));
    assert_eq!(ack(&mut group, MemberId(3), 1, 10_000), Answer::Expired);
}

#[test]
fn what_a_member_that_dies_was_sent_waits_and_what_it_was_not_does_not() {
    let mut group = group(&[0, 0]);
    group.join(B);
    group.next(A, 0);
    group.sent(A, 1, 0);
    group.next(A, 0);
    group.die(A, 100);
    assert_eq!(take(&mut group, B, 100), [2]);
    assert_eq!(take(&mut group, B, 1_100), [1]);
}

#[test]
fn up_to_means_what_was_sent_before_not_what_is_lower() {
    let mut group = group(&[0; 5]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(10), 0);
    assert_eq!(take(&mut group, A, 10), [1], "sent after 5");
    let none = UpTo { answer: Answer::AlreadyDone, applied: 0 };
    assert_eq!(group.acknowledge_up_to(A, 4, &Outcome::Ack, 10), UpTo { answer: Answer::Applied, applied: 3 });
    assert_eq!(group.acknowledge_up_to(A, 4, &Outcome::Ack, 10), none);
    assert_eq!((group.floor(), group.counts().leased), (0, 2));
    assert_eq!(group.acknowledge_up_to(A, 1, &Outcome::Ack, 10), UpTo { answer: Answer::Applied, applied: 2 });
    assert_eq!(group.floor(), 5);
}

#[test]
fn up_to_one_that_was_settled_before_still_means_what_was_sent_before_it() {
    let mut group = group(&[0; 5]);
    take(&mut group, A, 0);
    assert_eq!(ack(&mut group, A, 2, 0), Answer::Applied);
    assert_eq!(group.acknowledge(A, 4, &reject(), 0), Answer::Applied);
    assert!(group.buried(4));
    let done = |applied| UpTo { answer: Answer::AlreadyDone, applied };
    assert_eq!(group.acknowledge_up_to(A, 4, &Outcome::Ack, 0), done(2));
    assert_eq!(group.floor(), 4, "the fifth was sent later");
    assert_eq!(group.acknowledge_up_to(A, 4, &Outcome::Ack, 0), done(0));
    assert_eq!(group.acknowledge_up_to(A, 2, &Outcome::Ack, 0), done(0));
}

#[test]
fn more_time_does_not_change_the_order_of_sending() {
    let mut group = group(&[0; 5]);
    take(&mut group, A, 0);
    group.acknowledge(A, 2, &Outcome::Extend { delay: None }, 5);
    assert_eq!(group.acknowledge_up_to(A, 4, &Outcome::Ack, 5), UpTo { answer: Answer::Applied, applied: 4 });
}

#[test]
fn up_to_reaches_neither_what_others_have_nor_what_was_not_sent() {
    let mut group = group(&[0; 4]);
    group.join(B);
    for member in [A, B, A] {
        let sequence = group.next(member, 0).expect("one").sequence;
        group.sent(member, sequence, 0);
    }
    group.next(A, 0);
    assert_eq!(group.acknowledge_up_to(A, 3, &reject(), 0), UpTo { answer: Answer::Applied, applied: 2 });
    assert_eq!((group.counts().leased, group.counts().burying), (2, 2));
    assert_eq!(group.acknowledge_up_to(A, 2, &Outcome::Ack, 0), UpTo { answer: Answer::Expired, applied: 0 });
}

#[test]
fn what_is_not_for_the_group_is_passed_over() {
    let mut group = GroupState::new(settings(), 10);
    group.join(A);
    assert_eq!(group.feed(u64::MAX).map(|feed| feed.after), Some(10));
    group.offer(10, [(13, None), (15, None)], 20, 0).expect("what is wanted");
    assert_eq!((group.floor(), group.done().ranges().collect::<Vec<_>>()), (12, vec![(14, 14), (16, 20)]));
    assert_eq!(group.oldest().map(|oldest| oldest.sequence), Some(13));
    take(&mut group, A, 0);
    ack(&mut group, A, 13, 0);
    ack(&mut group, A, 15, 0);
    assert_eq!((group.floor(), group.oldest()), (20, None));
}

#[test]
fn the_feed_stops_while_enough_is_held_and_takes_no_more_than_it_can_hold() {
    let mut group = GroupState::new(settings(), 0);
    group.join(A);
    let room = group.feed(u64::MAX).expect("it is empty").room;
    offer(&mut group, &vec![0; room]);
    assert_eq!(group.feed(u64::MAX), None);
    let mut group = GroupState::new(settings(), 0);
    group.join(A);
    group.offer(0, (1..100_000).map(|sequence| (sequence, None)), 100_000, 0).expect("what is wanted");
    assert_eq!((group.feed(u64::MAX), group.counts().pending as u64), (None, group.read_to()));
    assert!(group.read_to() < 20_000);
    take(&mut group, A, 0);
    ack(&mut group, A, 1, 0);
    assert_eq!(group.feed(u64::MAX), None, "one more is not worth a read while one is ready");
}

#[test]
fn a_reopened_event_that_the_stream_loses_leaves_the_order_of_its_key() {
    let mut group = group(&[7, 7, 7]);
    take(&mut group, A, 0);
    ack(&mut group, A, 1, 0);
    assert_eq!(take(&mut group, A, 0), [2]);
    assert!(group.reopen(1, Some(7)), "behind those that are held");
    offer(&mut group, &[7]);
    assert_eq!(group.purge(1), 1);
    assert_eq!(take(&mut group, A, 0), NOTHING, "the second is not done");
    for sequence in [2, 3, 4] {
        assert_eq!(ack(&mut group, A, sequence, 0), Answer::Applied);
        assert_eq!(take(&mut group, A, 0).first(), (sequence < 4).then_some(&(sequence + 1)));
    }
    assert!(group.reopen(1, Some(7)));
    group.purge(1);
    offer(&mut group, &[7]);
    assert_eq!(take(&mut group, A, 0), [5], "nothing is left of it");
}

#[test]
fn a_member_that_goes_on_as_another_keeps_what_it_was_sent() {
    let mut group = group(&[0, 0]);
    group.next(A, 0);
    group.sent(A, 1, 0);
    group.next(A, 0);
    assert!(group.succeed(A, B, None, 0));
    assert!(!group.has_member(A) && group.has_leases(B));
    assert!(!group.sent(A, 2, 0), "what the first was sent since is not its own");
    assert_eq!(ack(&mut group, A, 1, 0), Answer::Expired);
    assert_eq!(group.acknowledge_up_to(B, 1, &Outcome::Ack, 0), UpTo { answer: Answer::Applied, applied: 1 });
    assert_eq!(take(&mut group, B, 0), [2]);
    group.detach(B, 5_000, 0);
    assert!(group.succeed(B, A, None, 0));
    assert_eq!(group.due(), Some(10_000), "the lease runs on, and nobody is waited for");
    assert_eq!(ack(&mut group, A, 2, 9_999), Answer::Applied);
}

#[test]
fn a_read_from_before_a_seek_is_refused() {
    let mut group = group(&[0; 5]);
    group.seek(3);
    assert_eq!(group.offer(5, [(6, None)], 6, 0), Err(StaleRead { after: 5, wanted: 2 }));
    assert_eq!((group.read_to(), group.floor()), (2, 2));
}

#[test]
fn a_group_that_starts_ahead_of_the_stream_gets_nothing_from_before() {
    let mut group = group(&[0; 5]);
    group.seek(10);
    group.offer(9, [(3, None), (9, None), (10, None), (11, None), (12, None)], 11, 0).expect("what is wanted");
    assert_eq!(take(&mut group, A, 0), [10, 11], "nor anything from behind the read");
}

#[test]
fn a_purge_up_to_the_next_event_takes_that_one_and_no_more() {
    let mut group = group(&[0; 3]);
    assert_eq!((group.purge(0), group.purge(1), group.purge(1)), (0, 1, 0));
    assert_eq!(take(&mut group, A, 0), [2, 3]);
    group.offer(3, [(4, None)], 4, 0).expect("what is wanted");
    assert_eq!((group.purge(3), take(&mut group, A, 0)), (2, vec![4]));
}

#[test]
fn the_floor_is_never_ahead_of_what_was_acknowledged() {
    let mut group = group(&[0; 4]);
    take(&mut group, A, 0);
    for (sequence, floor) in [(3, 0), (2, 0), (1, 3), (4, 4)] {
        ack(&mut group, A, sequence, 0);
        assert_eq!(group.floor(), floor);
    }
}

#[test]
fn after_a_seek_all_from_there_on_is_delivered_as_if_for_the_first_time() {
    let mut group = group(&[7, 7, 0, 0]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(10), 0);
    ack(&mut group, A, 3, 0);
    let revision = group.revision();
    group.seek(1);
    assert!(group.revision() > revision && group.due().is_none());
    assert_eq!(ack(&mut group, A, 4, 0), Answer::NotDelivered);
    offer(&mut group, &[7, 7, 0, 0]);
    let again: Vec<_> = deliveries(&mut group, A, 0).iter().map(|d| (d.sequence, d.attempt)).collect();
    assert_eq!(again, [(1, 1), (3, 1), (4, 1)]);
    group.seek(0);
    assert_eq!(group.floor(), 0);
    group.seek(u64::MAX);
    assert_eq!((group.feed(u64::MAX), group.counts().members), (None, 1));
}

#[test]
fn a_purge_takes_away_what_is_held_waits_or_is_leased_and_frees_keys() {
    let mut group = group(&[7, 0, 8, 7, 9]);
    for _ in 0..3 {
        let sequence = group.next(A, 0).expect("one").sequence;
        group.sent(A, sequence, 0);
    }
    group.acknowledge(A, 2, &nack(10), 0);
    group.acknowledge(A, 3, &reject(), 0);
    assert_eq!(group.purge(3), 3);
    assert_eq!((group.floor(), group.counts().unacked, group.due()), (3, 0, None));
    assert_eq!(ack(&mut group, A, 1, 0), Answer::AlreadyDone);
    assert_eq!(take(&mut group, A, 0), [4, 5]);
    assert_eq!(group.purge(100), 97, "those that were never read, too");
    assert_eq!((group.floor(), group.read_to()), (100, 100));
}

#[test]
fn an_event_found_gone_is_done() {
    let mut group = group(&[7, 7]);
    take(&mut group, A, 0);
    assert_eq!(group.gone(1), Some(true), "it was tried");
    assert_eq!(group.gone(1), None);
    assert_eq!(take(&mut group, A, 0), [2]);
}

#[test]
fn other_settings_count_from_now_on() {
    let mut group = group(&[0; 4]);
    take(&mut group, A, 0);
    for sequence in [1, 2] {
        group.acknowledge(A, sequence, &nack(0), 0);
    }
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(60_000), 0);
    group.acknowledge(A, 3, &reject(), 0);
    group.set_settings(GroupSettings { max_attempts: 2, ..settings() });
    let given_up = |group: &GroupState| group.dead_letters().map(|letter| letter.sequence).collect::<Vec<_>>();
    assert_eq!(given_up(&group), [1, 3], "2 is with its member");
    group.set_settings(GroupSettings { dead_letter_stream: None, ..settings() });
    assert_eq!((group.counts().dropped, group.counts().redelivering), (1, 1), "1 may be tried again");
    assert_eq!(group.due(), Some(10_000), "leases keep their deadlines");
}

#[test]
fn counts_tell_where_everything_is() {
    let mut group = group(&[7, 7, 0, 0, 0]);
    for _ in 0..3 {
        let sequence = group.next(A, 5).expect("one").sequence;
        group.sent(A, sequence, 5);
    }
    group.acknowledge(A, 3, &nack(10), 6);
    group.acknowledge(A, 4, &reject(), 6);
    let expected = Counts {
        pending: 2,
        unacked: 3,
        leased: 1,
        redelivering: 1,
        burying: 1,
        behind: 1,
        members: 1,
        expired: 0,
        dropped: 0,
    };
    assert_eq!(group.counts(), expected);
    assert_eq!(group.oldest(), Some(Oldest { sequence: 1, sent_since: Some(5) }));
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let mut group = group(&[0]);
    take(&mut group, A, 50_000);
    group.tick(0);
    assert_eq!(group.acknowledge(A, 1, &nack(10), 100), Answer::Applied);
    assert_eq!(group.due(), Some(50_010));
    assert_eq!(take(&mut group, A, u64::MAX - MAX_TIME_MS), [1]);
    group.tick(u64::MAX);
    assert_eq!(group.acknowledge(A, 1, &nack(u64::MAX), u64::MAX), Answer::Expired);
}

#[test]
fn a_tick_ends_only_so_many_leases_and_says_that_there_are_more() {
    let settings = GroupSettings { max_unacked: 10_000, ..settings() };
    let mut group = group_with(settings, &vec![0; 10_000]);
    assert_eq!(take(&mut group, A, 0).len(), 10_000);
    group.tick(10_000);
    assert_eq!(group.due(), Some(10_000));
    while group.due() == Some(10_000) {
        group.tick(10_000);
    }
    assert_eq!((group.counts().expired, group.counts().redelivering), (10_000, 10_000));
}

#[test]
fn a_long_reason_is_kept_only_so_far() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    let reason: Box<str> = format!("x{}", "é".repeat(MAX_FAILURE_BYTES)).into();
    group.acknowledge(A, 1, &Outcome::Reject { reason }, 0);
    let kept = group.dead_letters().next().expect("one").reason;
    assert_eq!(kept.len(), MAX_FAILURE_BYTES - 1, "whole letters");
}
