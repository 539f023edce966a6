//! Members that are lost, and those that come back: what they keep, what comes again, and what counts as an attempt.

use super::{super::*, *};

const C: MemberId = MemberId(3);

fn ack(group: &mut GroupState, member: MemberId, sequence: u64, now: u64) -> Answer {
    group.acknowledge(member, sequence, &Outcome::Ack, now)
}

/// Sequence, attempt, and whether it may have been sent before.
fn seen(group: &mut GroupState, member: MemberId, now: u64) -> Vec<(u64, u32, bool)> {
    deliveries(group, member, now).into_iter().map(|d| (d.sequence, d.attempt, d.redelivered)).collect()
}

/// Sends all there is to A, loses it, and brings it back as another.
fn lose_and_return(group: &mut GroupState, member: MemberId, holds: &[u64], now: u64) -> MemberId {
    group.detach(member, 5_000, now);
    let next = MemberId(member.0 + 10);
    assert!(group.succeed(member, next, Some(holds), now));
    next
}

#[test]
fn whoever_says_what_it_holds_keeps_that_and_the_rest_comes_again_at_once() {
    let mut group = group(&[0; 4]);
    assert_eq!(seen(&mut group, A, 0), [(1, 1, false), (2, 1, false), (3, 1, false), (4, 1, false)]);
    let back = lose_and_return(&mut group, A, &[2], 1_000);
    assert_eq!(seen(&mut group, back, 1_000), [(1, 1, true), (3, 1, true), (4, 1, true)]);
    assert_eq!(ack(&mut group, back, 2, 1_000), Answer::Applied);
    assert_eq!(ack(&mut group, A, 1, 1_000), Answer::Expired, "its old session has nothing any more");
    assert_eq!(group.counts().leased, 3);
}

#[test]
fn three_bad_networks_in_a_row_burn_no_attempt_and_a_further_one_only_that_of_what_was_next_to_come() {
    let mut group = group(&[0; 3]);
    let mut member = A;
    for round in 0..4 {
        assert_eq!(seen(&mut group, member, 0), [1, 2, 3].map(|sequence| (sequence, 1, round > 0)));
        member = lose_and_return(&mut group, member, &[], 0);
    }
    assert_eq!(seen(&mut group, member, 0), [(2, 1, true), (3, 1, true)]);
    assert_eq!(seen(&mut group, member, 1_000), [(1, 2, true)], "it may be what ends each connection");
    // What it holds it has read, and what came before that; what it has settled it says nothing of.
    ack(&mut group, member, 2, 1_000);
    member = lose_and_return(&mut group, member, &[3], 1_000);
    assert_eq!(seen(&mut group, member, 1_000), [], "it was sent behind the third, and waits for its next attempt");
    assert_eq!(seen(&mut group, member, 6_000), [(1, 3, true)]);
}

#[test]
fn only_what_was_next_to_come_is_suspected() {
    let mut group = group(&[0; 4]);
    take(&mut group, A, 0);
    let mut member = A;
    for _ in 0..3 {
        member = lose_and_return(&mut group, member, &[2], 0);
        assert_eq!(take(&mut group, member, 0), [1, 3, 4], "at once");
    }
    // At first what came behind the second; then the first, which was sent again behind that.
    assert_eq!(losses(&group), [(1, 2), (3, 1)]);
}

/// Which events were lost, and how often.
fn losses(group: &GroupState) -> Vec<(u64, u32)> {
    let progress = &group.backlog.progress;
    progress.failed().into_iter().filter_map(|one| Some((one, progress.failure(one)?.losses))).collect()
}

#[test]
fn what_is_held_keeps_its_deadline() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    let back = lose_and_return(&mut group, A, &[1], 4_000);
    assert_eq!(group.due(), Some(10_000));
    group.acknowledge(back, 1, &Outcome::Extend { delay: None }, 4_000);
    assert_eq!(group.due(), Some(14_000), "whoever is back may ask for more");
    group.tick(14_000);
    assert_eq!(seen(&mut group, back, 15_000), [(1, 2, true)], "it was there, and said nothing");
}

#[test]
fn nothing_is_taken_from_others_and_what_one_never_had_is_not_its_own() {
    let mut group = group(&[0; 4]);
    group.join(B);
    for member in [A, B, A] {
        let sequence = group.next(member, 0).expect("one").sequence;
        group.sent(member, sequence, 0);
    }
    ack(&mut group, A, 1, 0);
    group.detach(A, 5_000, 0);
    assert!(group.succeed(A, C, Some(&[1, 2, 3, 4, 99]), 0));
    let may = [1, 2, 3, 4, 99].map(|sequence| group.may_acknowledge(C, sequence));
    assert_eq!(may, [true, false, true, false, false], "done, of another, its own, new, and not read");
    assert_eq!(ack(&mut group, C, 2, 0), Answer::Expired);
    assert_eq!(ack(&mut group, B, 2, 0), Answer::Applied);
    assert_eq!(ack(&mut group, C, 3, 0), Answer::Applied);
}

#[test]
fn one_that_has_what_is_not_known_to_be_sent_was_sent_it() {
    let mut group = group(&[0; 3]);
    group.next(A, 0);
    group.next(A, 0);
    assert!(group.succeed(A, C, Some(&[2]), 1_000));
    assert!(!group.sent(A, 2, 1_000), "who wrote it says so late");
    assert_eq!((group.due(), group.counts().leased), (Some(11_000), 1));
    assert_eq!(seen(&mut group, C, 1_000), [(1, 1, false), (3, 1, false)]);
    assert_eq!(ack(&mut group, C, 2, 1_000), Answer::Applied);
}

#[test]
fn what_it_says_up_to_follows_the_order_in_which_it_was_sent_over_both_sessions() {
    let mut group = group(&[0; 3]);
    take(&mut group, A, 0);
    let back = lose_and_return(&mut group, A, &[2], 0);
    assert_eq!(take(&mut group, back, 0), [1, 3]);
    let told = group.acknowledge_up_to(back, 1, &Outcome::Ack, 0);
    assert_eq!(told, UpTo { answer: Answer::Applied, applied: 2 });
    assert_eq!(group.floor(), 2);
}

#[test]
fn the_key_of_what_comes_again_waits_for_it() {
    let mut group = group(&[7, 7, 8]);
    group.join(B);
    assert_eq!(take(&mut group, A, 0), [1, 3]);
    let back = lose_and_return(&mut group, A, &[], 0);
    assert_eq!(take(&mut group, B, 0), [1, 3], "whoever asks first");
    assert_eq!(take(&mut group, back, 0), NOTHING);
    ack(&mut group, B, 1, 0);
    assert_eq!(take(&mut group, back, 0), [2]);
}

#[test]
fn one_that_comes_back_too_late_is_a_stranger() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    group.detach(A, 5_000, 0);
    assert!(!group.succeed(A, C, Some(&[1]), 5_000), "the time is over, though nobody has looked since");
    assert!(!group.may_acknowledge(C, 1));
    assert!(!group.succeed(A, C, Some(&[1]), 5_000) && !group.succeed(C, C, Some(&[]), 5_000));
    assert_eq!(seen(&mut group, C, 6_000), [(1, 1, true)]);
}

#[test]
fn what_was_settled_by_other_settings_while_it_was_away_is_settled() {
    let mut group = group_with(GroupSettings { dead_letter_stream: None, ..settings() }, &[0, 0]);
    take(&mut group, A, 0);
    group.acknowledge(A, 1, &nack(0), 0);
    group.acknowledge(A, 2, &nack(0), 0);
    take(&mut group, A, 0);
    group.detach(A, 5_000, 0);
    group.set_settings(GroupSettings { max_attempts: 1, dead_letter_stream: None, ..settings() });
    assert!(group.succeed(A, C, Some(&[1]), 0));
    assert_eq!((group.counts().dropped, group.floor(), group.done().ranges().count()), (1, 0, 1));
    assert_eq!(ack(&mut group, C, 1, 0), Answer::Applied);
    assert_eq!((group.floor(), group.counts().unacked), (2, 0));
}

/// Loses what member A was sent, by a crash, and looks how it comes again once its wait is over.
fn crash(group: &mut GroupState, now: &mut u64) -> Delivery {
    group.die(A, *now);
    group.join(A);
    *now = group.due().unwrap_or(*now);
    deliveries(group, A, *now).remove(0)
}

#[test]
fn a_lost_connection_is_no_failure_and_the_event_waits_as_after_one() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    group.detach(A, 5_000, 1_000);
    assert_eq!(group.due(), Some(6_000));
    group.tick(6_000);
    assert!(!group.has_member(A));
    group.join(B);
    assert_eq!(seen(&mut group, B, 6_999), [], "one that ends its members does not end all at once");
    let again = deliveries(&mut group, B, 7_000).remove(0);
    assert_eq!((again.attempt, &*again.last_failure, again.redelivered), (1, "", true));
}

#[test]
fn an_event_that_is_lost_again_and_again_fails_and_is_given_up() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    let mut now = 0;
    let mut waits = Vec::new();
    let attempts: Vec<u32> = (0..5)
        .map(|_| {
            let before = now;
            let attempt = crash(&mut group, &mut now).attempt;
            waits.push(now - before);
            attempt
        })
        .collect();
    // Three times nobody counts it, and of three attempts the last is the sixth delivery.
    assert_eq!((attempts, waits), (vec![1, 1, 1, 2, 3], vec![1_000, 5_000, 5_000, 1_000, 5_000]));
    group.die(A, now);
    let letter =
        DeadLetter { sequence: 1, attempts: 3, reason: "the member it was delivered to was lost".into(), round: 0 };
    assert_eq!(group.dead_letters().collect::<Vec<_>>(), [letter]);
}

#[test]
fn whatever_a_member_says_of_an_event_forgives_the_losses_before_and_keeps_its_reason() {
    let mut group = group_with(GroupSettings { max_attempts: 0, ..settings() }, &[0]);
    take(&mut group, A, 0);
    let mut now = 0;
    for _ in 0..3 {
        assert_eq!(crash(&mut group, &mut now).attempt, 1);
    }
    group.acknowledge(A, 1, &Outcome::Nack { delay: Some(0), reason: "busy".into() }, now);
    assert_eq!(deliveries(&mut group, A, now)[0].attempt, 2);
    for _ in 0..3 {
        let again = crash(&mut group, &mut now);
        assert_eq!((again.attempt, &*again.last_failure), (2, "busy"));
    }
    let fourth = crash(&mut group, &mut now);
    assert_eq!((fourth.attempt, &*fourth.last_failure), (3, "the member it was delivered to was lost"));
    assert_eq!(crash(&mut group, &mut now).attempt, 4, "nobody has said anything of it since");
}

#[test]
fn a_lease_that_ends_while_its_member_is_away_is_a_loss() {
    let mut group = group(&[0]);
    for _ in 0..4 {
        let now = group.due().unwrap_or(0);
        assert_eq!(seen(&mut group, A, now).len(), 1);
        group.detach(A, 60_000, now);
        group.tick(now + 10_000);
        assert!(group.succeed(A, B, Some(&[]), now + 10_000) && group.succeed(B, A, Some(&[]), now + 10_000));
    }
    assert_eq!(group.counts().expired, 4);
    let now = group.due().expect("a wait");
    assert_eq!(seen(&mut group, A, now), [(1, 2, true)], "the fourth counts");
}

#[test]
fn a_lease_that_ends_while_its_member_is_there_has_failed_however_often_it_came_back() {
    let mut group = group(&[0]);
    take(&mut group, A, 0);
    let back = lose_and_return(&mut group, A, &[1], 9_999);
    group.tick(10_000);
    let again = deliveries(&mut group, back, 11_000).remove(0);
    assert_eq!((again.attempt, &*again.last_failure), (2, "it was not acknowledged in time"));
}

#[test]
fn what_was_sent_and_given_back_in_good_order_may_have_been_seen() {
    let mut group = group(&[0, 0]);
    group.join(B);
    group.next(A, 0);
    group.sent(A, 1, 0);
    group.next(A, 0);
    group.leave(A);
    assert_eq!(seen(&mut group, B, 0), [(1, 1, true), (2, 1, false)]);
    ack(&mut group, B, 1, 0);
    assert!(group.reopen(1, None));
    assert_eq!(seen(&mut group, B, 0), [(1, 1, true)], "it was a dead letter");
}

#[test]
fn a_window_is_not_made_smaller_by_leases_that_end_while_its_member_is_away() {
    let mut group = group_with(settings(), &[0; 40]);
    group.pace(A);
    assert_eq!(take(&mut group, A, 0).len(), 16);
    group.detach(A, 60_000, 0);
    group.tick(10_000);
    group.join(B);
    group.pace(B);
    assert!(group.succeed(A, B, Some(&[]), 10_000));
    assert_eq!(group.room(B), 16);
}
