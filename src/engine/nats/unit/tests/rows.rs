//! Each thing that a server may say, one by one.

use super::{super::*, Body, Id, Outgoing, WINDOW};

fn lane() -> Lane<Body> {
    Lane::new(WINDOW, Rules::default())
}

/// An append of these keys, 0 for none.
fn queued(append: u64, keys: &[u128], precondition: Option<Precondition>) -> Queued<Body> {
    let message = |(at, key): (usize, &u128)| {
        let key = (*key > 0).then_some(*key);
        Message { key, bytes: 100, body: Body { append, at, topic: 0, key } }
    };
    Queued { append, messages: keys.iter().enumerate().map(message).collect(), precondition }
}

/// The ids of what is sent, and the number of the request.
fn sent(commands: &[Command<Body>]) -> (u64, Vec<Option<Id>>) {
    match commands.last() {
        Some(Command::Send { request, messages, .. } | Command::Locate { request, messages, .. }) => {
            (*request, messages.iter().map(|Outgoing { id, .. }| *id).collect())
        }
        other => panic!("{other:?} sends nothing"),
    }
}

fn probed(commands: &[Command<Body>]) -> u64 {
    let [.., Command::Probe { request, .. }] = commands else { panic!("{commands:?} probes nothing") };
    *request
}

fn done(commands: &[Command<Body>]) -> Vec<(u64, Vec<Outcome>)> {
    let done = |command: &Command<Body>| match command {
        Command::Done { append, results } => Some((*append, results.clone())),
        _ => None,
    };
    commands.iter().filter_map(done).collect()
}

type Outcome = Result<Stored, Failed>;

/// What is stored there, or was.
#[allow(clippy::unnecessary_wraps, reason = "it is compared with results")]
fn at(sequence: u64, duplicate: bool) -> Outcome {
    Ok(Stored { sequence, duplicate })
}

/// An append of these keys that waits for its first answer.
fn begun(keys: &[u128], precondition: Option<Precondition>) -> (Lane<Body>, u64) {
    let mut lane = lane();
    let commands = lane.queue(queued(1, keys, precondition), 0).expect("room");
    (lane, sent(&commands).0)
}

#[test]
fn what_waits_goes_together_once_the_unit_before_has_ended() {
    let (mut lane, first) = begun(&[0], None);
    for append in 2..5 {
        assert_eq!(lane.queue(queued(append, &[0, 7], None), 0).expect("room"), []);
    }
    let commands = lane.answer(first, Answer::Acked { sequence: 5, duplicate: false }, 1);
    assert_eq!(done(&commands), [(1, vec![at(5, false)])]);
    let (second, ids) = sent(&commands);
    assert_eq!(ids, [Some(Id::Own(2)), Some(Id::Key(7)), None, None], "a key is sent once");
    let commands = lane.answer(second, Answer::Acked { sequence: 9, duplicate: false }, 2);
    assert_eq!(
        done(&commands),
        [
            (2, vec![at(6, false), at(7, false)]),
            (3, vec![at(8, false), at(7, true)]),
            (4, vec![at(9, false), at(7, true)])
        ]
    );
}

#[test]
fn a_unit_has_a_limit_of_events_and_bytes_and_a_precondition_is_alone() {
    let (mut lane, first) = begun(&[0], None);
    let mut large = queued(3, &[0, 0], None);
    large.messages.iter_mut().for_each(|message| message.bytes = MOST_BYTES / 2 + 1);
    let appends = [queued(2, &[0; 600], None), large, queued(4, &[0; 999], None), queued(5, &[0; 2], None)];
    for append in appends {
        lane.queue(append, 0).expect("room");
    }
    lane.queue(queued(6, &[0], Some(Precondition::LastSequence(9))), 0).expect("room");
    lane.queue(queued(7, &vec![0; 1_500], None), 0).expect("room");
    let (mut request, mut sizes) = (first, Vec::new());
    loop {
        let commands = lane.answer(request, Answer::Acked { sequence: 5_000, duplicate: false }, 1);
        if matches!(commands.last(), Some(Command::Done { .. }) | None) {
            break;
        }
        let ids;
        (request, ids) = sent(&commands);
        sizes.push(ids.len());
    }
    assert_eq!(sizes, [600, 2, 999, 2, 1, 1_000, 500]);
    let commands = lane.queue(queued(8, &[0; 1_001], Some(Precondition::LastSequence(9))), 0).expect("room");
    assert_eq!(done(&commands)[0].1[0], Err(Failed::TooMany { limit: 1_000 }));
}

#[test]
fn only_so_much_waits() {
    let (mut lane, _) = begun(&[0], None);
    for append in 0..16 {
        lane.queue(queued(append + 2, &[0; 1_000], None), 0).expect("room");
    }
    assert!(lane.queue(queued(99, &[0], None), 0).is_err());
}

#[test]
fn what_was_not_sent_waits_longer_each_time_and_is_unreachable_in_the_end() {
    let (mut lane, mut request) = begun(&[0], None);
    let (mut now, mut waits) = (0, Vec::new());
    loop {
        assert_eq!(lane.answer(request, Answer::NotSent, now), []);
        let due = lane.due().expect("a wait");
        waits.push(due - now);
        now = due;
        let commands = lane.tick(now);
        if let [Command::Done { results, .. }] = &commands[..] {
            assert_eq!(*results, [Err(Failed::Unreachable)]);
            break;
        }
        request = sent(&commands).0;
    }
    assert_eq!((waits[..6].to_vec(), waits.last(), now / 500), (vec![20, 40, 80, 160, 320, 500], Some(&500), 20));
}

#[test]
fn one_try_without_an_answer_makes_it_unknown_and_drops_the_connection() {
    let (mut lane, _) = begun(&[0], None);
    let (request, ids) = sent(&lane.tick(2_000));
    assert_eq!(ids, [Some(Id::Own(1))], "the same id");
    let mut commands = lane.answer(request, Answer::Full, 2_001);
    assert_eq!(done(&commands), [(1, vec![Err(Failed::Unknown)])]);
    commands = lane.queue(queued(2, &[0], None), 3_000).expect("room");
    assert_eq!(lane.answer(sent(&commands).0, Answer::Lost, 3_000), []);
    commands = lane.tick(13_000);
    assert_eq!((&commands[0], done(&commands)), (&Command::Drop, vec![(2, vec![Err(Failed::Unknown)])]));
}

#[test]
fn the_third_answer_that_it_is_in_process_moves_the_connection() {
    let (mut lane, mut request) = begun(&[0], None);
    for time in 1..=3 {
        let commands = lane.answer(request, Answer::InProcess, time * 100 - 100);
        assert_eq!(commands.contains(&Command::Move), time == 3);
        request = sent(&lane.tick(time * 100)).0;
    }
}

#[test]
fn a_unit_that_landed_is_found_by_its_own_id_wherever_that_is() {
    let (mut lane, _) = begun(&[5, 0, 6], None);
    let (request, ids) = sent(&lane.tick(2_000));
    assert_eq!(ids, [Some(Id::Key(5)), Some(Id::Own(1)), Some(Id::Key(6))]);
    let probe = probed(&lane.answer(request, Answer::Duplicates, 2_001));
    let (locate, ids) = sent(&lane.answer(probe, Answer::Known(vec![true; 3]), 2_002));
    assert_eq!(ids, [Some(Id::Own(1))]);
    let found = Answer::Located(vec![Stored { sequence: 12, duplicate: true }]);
    assert_eq!(done(&lane.answer(locate, found, 2_003)), [(1, vec![at(11, false), at(12, false), at(13, false)])]);
}

#[test]
fn what_was_known_before_is_a_duplicate_and_the_others_are_sent() {
    let (mut lane, request) = begun(&[5, 0, 6], None);
    let probe = probed(&lane.answer(request, Answer::Duplicates, 1));
    let (locate, ids) = sent(&lane.answer(probe, Answer::Known(vec![true, false, false]), 2));
    assert_eq!(ids, [Some(Id::Key(5))]);
    let found = Answer::Located(vec![Stored { sequence: 3, duplicate: true }]);
    let (rest, ids) = sent(&lane.answer(locate, found, 3));
    assert_eq!(ids, [Some(Id::Own(1)), Some(Id::Key(6))]);
    let commands = lane.answer(rest, Answer::Acked { sequence: 21, duplicate: false }, 4);
    assert_eq!(done(&commands), [(1, vec![at(3, true), at(20, false), at(21, false)])]);
}

#[test]
fn keys_alone_are_compared_with_the_message_that_is_stored() {
    for ours in [true, false] {
        let (mut lane, _) = begun(&[5, 6], None);
        let (request, _) = sent(&lane.tick(2_000));
        let probe = probed(&lane.answer(request, Answer::Duplicates, 2_001));
        let (locate, _) = sent(&lane.answer(probe, Answer::Known(vec![true; 2]), 2_002));
        let found = [8, 9].map(|sequence| Stored { sequence, duplicate: true });
        let commands = lane.answer(locate, Answer::Located(found.to_vec()), 2_003);
        let [Command::Compare { request, unit: 1, sequence: 8 }] = commands[..] else { panic!("{commands:?}") };
        let expected = if ours { vec![at(8, false), at(9, false)] } else { vec![at(8, true), at(9, true)] };
        assert_eq!(done(&lane.answer(request, Answer::Ours(ours), 2_004)), [(1, expected)]);
    }
}

#[test]
fn a_precondition_that_holds_is_tried_again_and_one_that_does_not_is_a_mismatch() {
    let expected = Some(Precondition::LastTopicSequence(4));
    let (mut lane, mut request) = begun(&[0], expected);
    for actual in [4, 4, 6] {
        let now = lane.due().unwrap_or(0);
        let commands = lane.answer(request, Answer::Mismatch, now);
        let [Command::Last { request: last, .. }] = commands[..] else { panic!("{commands:?}") };
        let commands = lane.answer(last, Answer::Last(actual), now);
        if actual == 6 {
            assert_eq!(done(&commands), [(1, vec![Err(Failed::Mismatch { actual: 6 })])]);
            return;
        }
        request = sent(&lane.tick(lane.due().expect("a wait"))).0;
    }
}

#[test]
fn a_precondition_broken_by_its_own_unit_is_none() {
    let (mut lane, _) = begun(&[0], Some(Precondition::LastSequence(4)));
    let (request, _) = sent(&lane.tick(2_000));
    let commands = lane.answer(request, Answer::Mismatch, 2_001);
    let [Command::Last { request, .. }] = commands[..] else { panic!("{commands:?}") };
    let probe = probed(&lane.answer(request, Answer::Last(9), 2_002));
    let (locate, _) = sent(&lane.answer(probe, Answer::Known(vec![true]), 2_003));
    let found = Answer::Located(vec![Stored { sequence: 5, duplicate: true }]);
    assert_eq!(done(&lane.answer(locate, found, 2_004)), [(1, vec![at(5, false)])]);
}

#[test]
fn repetitions_alone_are_duplicates_whatever_their_precondition() {
    let (mut lane, request) = begun(&[5], Some(Precondition::LastSequence(4)));
    let commands = lane.answer(request, Answer::Mismatch, 1);
    let [Command::Last { request, .. }] = commands[..] else { panic!("{commands:?}") };
    let probe = probed(&lane.answer(request, Answer::Last(9), 2));
    let (locate, _) = sent(&lane.answer(probe, Answer::Known(vec![true]), 3));
    let found = Answer::Located(vec![Stored { sequence: 5, duplicate: true }]);
    assert_eq!(done(&lane.answer(locate, found, 4)), [(1, vec![at(5, true)])]);
}

#[test]
fn one_that_is_refused_fails_alone() {
    let (mut lane, first) = begun(&[0], None);
    for append in 2..5 {
        lane.queue(queued(append, &[0], None), 0).expect("room");
    }
    let (unit, ids) = sent(&lane.answer(first, Answer::Acked { sequence: 1, duplicate: false }, 1));
    assert_eq!(ids.len(), 3);
    let (mut request, _) = sent(&lane.answer(unit, Answer::Refused { code: 10_054 }, 2));
    let mut results = Vec::new();
    for answer in [
        Answer::Acked { sequence: 2, duplicate: false },
        Answer::Refused { code: 10_054 },
        Answer::Acked { sequence: 3, duplicate: false },
    ] {
        let commands = lane.answer(request, answer, 3);
        results.extend(done(&commands).into_iter().map(|(_, results)| results[0]));
        if let Some(Command::Send { request: next, messages, .. }) = commands.last() {
            assert_eq!(messages.len(), 1);
            request = *next;
        }
    }
    assert_eq!(results, [at(2, false), Err(Failed::Refused { code: 10_054 }), at(3, false)]);
}

#[test]
fn ids_that_may_be_forgotten_are_not_relied_on() {
    let mut lane = Lane::new(15_000, Rules::default());
    lane.queue(queued(1, &[0], None), 0).expect("room");
    assert_eq!(sent(&lane.tick(2_000)).1.len(), 1);
    assert_eq!(sent(&lane.tick(4_000)).1.len(), 1);
    let commands = lane.tick(6_000);
    assert_eq!(done(&commands), [(1, vec![Err(Failed::Unknown)])]);
}
