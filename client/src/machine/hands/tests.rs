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
    assert_eq!(hands.session_lost(), Size::one(10), "4 was not taken");
    assert_eq!(hands.held_sequences(), [1, 2, 3]);
}

#[test]
fn leases_that_are_lost_are_counted_beyond_those_that_are_named() {
    let count = MOST_LOST as i64 + 5;
    let (mut hands, copies) = hands_with(1..=count);
    for (at, copy) in copies.iter().enumerate() {
        hands.settle(at as i64 + 1, *copy, Verdict::Ack, None).expect("in hand");
    }
    hands.leases_lost(&lease_lost(), &mut VecDeque::new());
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
        hands.leases_lost(&lease_lost(), &mut VecDeque::new());
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
    hands.session_lost();
    assert_eq!(say(&mut hands), (1..=40).collect::<Vec<_>>());
}
