//! What tells the letters of one event apart.

use proptest::prelude::*;

use super::{super::*, restart::sealed_as, *};

/// The one letter that waits to be stored.
fn letter(group: &mut GroupState, sequence: u64) -> (u64, u64) {
    take(group, A, 0);
    group.acknowledge(A, sequence, &reject(), 0);
    let letters: Vec<_> = group.dead_letters().map(|letter| (letter.sequence, letter.round)).collect();
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters[0]
}

fn bury(group: &mut GroupState, sequence: u64) -> u64 {
    let (_, round) = letter(group, sequence);
    let bytes = group.encode(&[sequence]);
    assert!(group.buried(sequence));
    assert_eq!(group.encode(&[]), bytes);
    round
}

fn restored(group: &GroupState) -> GroupState {
    let mut again = GroupState::restore(settings(), &group.encode(&[]), 0).expect("what was encoded");
    again.join(A);
    again
}

#[test]
fn an_event_that_is_given_back_and_given_up_again_has_another_letter_each_time() {
    let mut group = group(&[0; 3]);
    let mut rounds = vec![bury(&mut group, 2)];
    for _ in 0..3 {
        assert!(group.reopen(2, None));
        rounds.push(bury(&mut group, 2));
        // Nothing that failed is left, and yet the count is known.
        group = restored(&group);
        let read = group.read_to() as usize;
        offer(&mut group, &[0; 3][read..]);
    }
    assert_eq!(rounds, [0, 1, 2, 3]);
}

#[test]
fn a_letter_has_the_same_round_after_a_restart_and_whatever_happens_to_others() {
    let mut group = group(&[0; 3]);
    bury(&mut group, 1);
    take(&mut group, A, 0);
    let before = group.encode(&[]);
    assert_eq!(letter(&mut group, 2), (2, 0));
    assert!(group.reopen(1, None));
    let mut again = restored(&group);
    let unread = again.unread_dead_letters(9);
    assert_eq!((unread.len(), unread[0].sequence, unread[0].round), (1, 2, 0));
    assert!(again.buried(2));
    offer(&mut again, &[0]);
    assert_eq!(letter(&mut again, 1), (1, 1));
    let mut tried_again = GroupState::restore(settings(), &before, 0).expect("what was encoded");
    tried_again.join(A);
    offer(&mut tried_again, &[0; 2]);
    assert_eq!(letter(&mut tried_again, 2), (2, 0));
}

#[test]
fn after_a_move_every_event_has_another_letter() {
    let mut group = group(&[0; 3]);
    assert_eq!(bury(&mut group, 2), 0);
    group.seek(1);
    let mut group = restored(&group);
    offer(&mut group, &[0; 3]);
    assert_eq!(bury(&mut group, 2), 1);
    assert!(group.reopen(2, None));
    assert_eq!((bury(&mut group, 2), bury(&mut group, 3)), (2, 1));
}

#[test]
fn a_letter_that_is_given_back_before_its_group_knows_of_it_has_another_round_next_time() {
    for is_read in [false, true] {
        let mut before = group(&[0]);
        assert_eq!(letter(&mut before, 1), (1, 0));
        // The letter is stored, and its owner is lost before it can say so.
        let mut group = restored(&before);
        if is_read {
            offer(&mut group, &[0]);
        }
        assert!(group.reopen(1, None));
        assert_eq!((group.dead_letters().count(), group.unread_dead_letters(9)), (0, Vec::new()));
        if !is_read {
            offer(&mut group, &[0]);
        }
        let again = deliveries(&mut group, A, 0).remove(0);
        assert_eq!((again.sequence, again.attempt), (1, 1));
        assert_eq!(bury(&mut group, 1), 1);
    }
}

#[test]
fn attempts_of_one_round_do_not_change_it() {
    let mut group = group(&[0]);
    bury(&mut group, 1);
    assert!(group.reopen(1, None));
    for now in [0, 10_000] {
        take(&mut group, A, now);
        group.acknowledge(A, 1, &nack(0), now);
        group = restored(&group);
        offer(&mut group, &[0]);
    }
    take(&mut group, A, 20_000);
    group.die(A, 20_000);
    group.join(A);
    take(&mut group, A, 90_000);
    group.acknowledge(A, 1, &nack(0), 90_000);
    assert_eq!(group.dead_letters().map(|letter| (letter.attempts, letter.round)).collect::<Vec<_>>(), [(3, 1)]);
}

#[test]
fn states_of_earlier_hubs_are_of_the_first_round_and_nonsense_is_refused() {
    let plain = sealed_as(1, &[5, 0, 1, 1, 1, 1, 0, 0], b"");
    let group = GroupState::restore(settings(), &plain, 0).expect("a state");
    assert_eq!(group.unread_dead_letters(9)[0].round, 0);
    assert_eq!(group.encode(&[]), plain);
    let is_taken = |numbers: &[u64]| GroupState::restore(settings(), &sealed_as(4, numbers, b""), 0).is_ok();
    let failed = |rounds: [u64; 3]| [&[5, 0, 1, 1, 1, 0, 9, 0, 0, 7, 0][..], &rounds].concat();
    assert!(is_taken(&failed([3, 1, 2])) && is_taken(&failed([3, 3, 3])) && is_taken(&[5, 0, 0, 0, 3, 0]));
    for rounds in [[3, 2, 1], [3, 1, 4], [3, 4, 4], [0, 0, 0]] {
        assert!(!is_taken(&failed(rounds)), "{rounds:?}");
    }
    assert!(!is_taken(&[5, 0, 0, 0, 0, 0]), "that is of version 1");
    assert!(!is_taken(&[5, 0, 0, 0, 2, 3]), "moved more often than counted");
}

proptest! {
    /// Of a store that never forgets a letter, one that is given up is stored once, and one that is given up again is stored.
    #[test]
    fn no_letter_is_taken_for_another(steps in prop::collection::vec((0..6_u8, 1..5_u64), 1..60)) {
        let mut group = group(&[0; 4]);
        let mut stored = std::collections::BTreeSet::new();
        for (step, sequence) in steps {
            match step {
                0 => _ = group.reopen(sequence, None),
                1 => group.seek(sequence),
                2 => group = restored(&group),
                _ => {
                    let (read, through) = (group.read_to(), 4);
                    group.offer(read, (read + 1..=through).map(|sequence| (sequence, None)), through, 0).expect("wanted");
                    take(&mut group, A, 0);
                    if group.acknowledge(A, sequence, &reject(), 0) == Answer::Applied {
                        let letters: Vec<_> = group.dead_letters().collect();
                        for letter in letters {
                            prop_assert!(stored.insert((letter.sequence, letter.round)), "{letter:?} is taken for another");
                            prop_assert!(group.buried(letter.sequence));
                        }
                    }
                }
            }
        }
    }
}
