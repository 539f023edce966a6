//! What the world of the machine cannot show of hands: limits, and what is held.

use super::*;

fn hands_with(sequences: std::ops::RangeInclusive<i64>) -> (Hands, Vec<u64>) {
    let mut hands = Hands::default();
    let copies = sequences.clone().map(|sequence| hands.arrive(sequence, 10).expect("new")).collect();
    sequences.for_each(|sequence| hands.taken(sequence));
    (hands, copies)
}

#[test]
fn no_command_has_more_sequences_than_the_limit_and_only_those_of_one_verdict() {
    let count = MOST_SEQUENCES as i64 + 2;
    let (mut hands, copies) = hands_with(1..=count);
    for (at, copy) in copies.iter().enumerate() {
        let verdict = if at == 1 { Verdict::Reject { reason: "r".into() } } else { Verdict::Ack };
        hands.settle(at as i64 + 1, *copy, verdict, None).expect("in hand");
    }
    let commands: Vec<usize> =
        (0..9).filter_map(|request| hands.write(Moment::ZERO, request)).map(|told| told.sequences.len()).collect();
    assert_eq!(commands, [1, 1, MOST_SEQUENCES]);
}

#[test]
fn what_is_held_is_what_the_application_has_or_has_settled_in_vain() {
    let (mut hands, copies) = hands_with(1..=3);
    hands.arrive(4, 10).expect("new");
    hands.settle(2, copies[1], Verdict::Ack, None).expect("in hand");
    hands.write(Moment::ZERO, 1).expect("a command");
    assert_eq!(hands.session_lost(&mut VecDeque::new()), Size::one(10), "4 was not taken");
    assert_eq!(hands.held_sequences(), [1, 2, 3]);
}

#[test]
fn leases_that_are_lost_are_counted_beyond_those_that_are_named() {
    let count = MOST_LOST as i64 + 5;
    let (mut hands, copies) = hands_with(1..=count);
    for (at, copy) in copies.iter().enumerate() {
        hands.settle(at as i64 + 1, *copy, Verdict::Ack, None).expect("in hand");
    }
    hands.leases_lost(&(1..=count).collect::<Vec<_>>(), &mut VecDeque::new());
    let lost = hands.take_lost();
    assert_eq!((lost.sequences.len(), lost.count), (MOST_LOST, count as u64));
    assert_eq!(hands.take_lost(), Lost::default(), "it is told once");
    assert_eq!(hands.unanswered(), 0);
}

#[test]
fn a_word_whose_lease_is_lost_is_said_again_when_the_event_comes_again_unless_somebody_was_told() {
    for is_told in [false, true] {
        let (mut hands, copies) = hands_with(1..=1);
        hands.settle(1, copies[0], Verdict::Ack, None).expect("in hand");
        hands.leases_lost(&[1], &mut VecDeque::new());
        if is_told {
            hands.take_lost();
        }
        assert_eq!(hands.arrive(1, 10).is_some(), is_told);
        assert_eq!(hands.write(Moment::ZERO, 1).is_some(), !is_told);
    }
}

#[test]
fn words_that_a_lost_session_left_unanswered_are_said_again_in_their_order() {
    let (mut hands, copies) = hands_with(1..=40);
    for (at, copy) in copies.iter().enumerate() {
        let verdict = if at % 2 == 0 { Verdict::Ack } else { Verdict::Reject { reason: at.to_string() } };
        hands.settle(at as i64 + 1, *copy, verdict, None).expect("in hand");
    }
    let say = |hands: &mut Hands| {
        let said: Vec<i64> =
            (0..99).filter_map(|request| hands.write(Moment::ZERO, request)).flat_map(|told| told.sequences).collect();
        said
    };
    assert_eq!(say(&mut hands), (1..=40).collect::<Vec<_>>());
    hands.session_lost(&mut VecDeque::new());
    assert_eq!(say(&mut hands), (1..=40).collect::<Vec<_>>());
}

#[test]
fn of_more_than_a_hub_takes_those_are_named_of_which_something_was_said() {
    let most = MOST_NAMED as i64;
    let (mut hands, copies) = hands_with(1..=most);
    assert_eq!(hands.held_sequences(), (1..=most).collect::<Vec<_>>());
    hands.settle(most, copies[MOST_NAMED - 1], Verdict::Ack, None).expect("in hand");
    assert_eq!(hands.held_sequences().len(), MOST_NAMED, "whether it is in hand or said");
    hands.arrive(most + 1, 10).expect("new");
    hands.taken(most + 1);
    let named = hands.held_sequences();
    assert_eq!((named.len(), named[MOST_NAMED - 1]), (MOST_NAMED, most));
    assert!(named.is_sorted() && !named.contains(&(most + 1)));
}

#[test]
fn only_what_is_lost_has_failed_and_is_not_extended_any_more() {
    let (mut hands, copies) = hands_with(1..=4);
    hands.settle(1, copies[0], Verdict::Ack, Some(7)).expect("in hand");
    hands.settle(2, copies[1], Verdict::Ack, Some(8)).expect("in hand");
    hands.extend(3, copies[2], None);
    hands.extend(4, copies[3], None);
    let mut news = VecDeque::new();
    hands.leases_lost(&[], &mut news);
    assert!(news.is_empty());
    hands.leases_lost(&[2, 3, 99], &mut news);
    assert!(matches!(&*news.make_contiguous(), [News::Settled(8, Err(error))] if error.reason() == "LEASE_EXPIRED"));
    let said: Vec<Vec<i64>> =
        (0..9).filter_map(|request| hands.write(Moment::ZERO, request)).map(|told| told.sequences).collect();
    assert_eq!(said, [[1], [4]]);
}

#[test]
fn no_more_extensions_are_under_way_than_the_limit_and_the_others_go_together() {
    let (mut hands, copies) = hands_with(1..=2);
    for request in 0..MOST_EXTENDING as i64 {
        hands.extend(1, copies[0], None);
        hands.write(Moment::ZERO, request).expect("an extension");
    }
    hands.extend(1, copies[0], None);
    hands.extend(2, copies[1], None);
    assert!(hands.write(Moment::ZERO, 100).is_none());
    hands.answered(Moment::ZERO, 0, Vec::new(), &mut VecDeque::new());
    assert_eq!(hands.write(Moment::ZERO, 100).expect("an extension").sequences, [1, 2]);
}
