//! What is known of every event of the small stream, by what its owner and the members of its group were answered.
//!
//! It fails the test the moment the group breaks its word: an event comes though it was answered as done, or though it is a
//! dead letter and nobody gave it back, or though it was purged. Whenever the group has come to its end, [`Ledger::check`]
//! asks what became of each event.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
};

use switchyard::proto::v1::{DeadLetter, Event, Gap, GapReason, ReceivedEvent};

use super::squeezed::MAX_ATTEMPTS;
use crate::{harness::event, stored::text};

/// So many events the stream keeps.
pub(super) const KEPT: i64 = 40;
/// Members fail these, to try them again long after the test; only their removal lets the group go on.
pub(super) const POISON: &str = "small.poison";
/// Why members reject or fail events.
pub(super) const WHY: &str = "not to be done";

/// The event with that sequence.
pub(super) fn numbered(sequence: i64) -> Event {
    let key = if sequence % 3 == 0 { "k" } else { "" };
    Event {
        id: sequence.to_string(),
        source: "owner".into(),
        key: key.into(),
        ..event(topic(sequence), format!("{sequence} {}", "x".repeat((sequence * 37 % 200) as usize)))
    }
}

fn topic(sequence: i64) -> &'static str {
    if sequence % 10 == 3 { POISON } else { ["small.0", "small.1"][sequence as usize % 2] }
}

#[derive(Default)]
pub(super) struct Ledger(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// Every event up to here may have been published.
    published: i64,
    /// Said to be done; whether it is, is not known until that is answered.
    said: HashSet<i64>,
    /// Answered as done, by which hub.
    done: HashMap<i64, usize>,
    given_up: HashMap<i64, GivenUp>,
    redrives_begun: usize,
    redrives_over: usize,
    /// How many redrives had begun when an event came last, and from which hub.
    came: HashMap<i64, (usize, usize)>,
    /// Topic (empty: all) and last sequence of each purge that may have been done,
    purges: Vec<(String, i64)>,
    /// and of those that were answered, by which hub.
    purged: Vec<(String, i64, usize)>,
    purged_letters: HashSet<i64>,
    deliveries: usize,
    lost: i64,
    given_back: usize,
}

/// An event that is a dead letter, or was removed.
#[derive(Debug)]
struct GivenUp {
    /// Which hub said so.
    life: usize,
    /// How many redrives were over by then: none of these has given it back.
    redrives_over: usize,
}

fn covers((of, up_to): (&str, i64), sequence: i64) -> bool {
    sequence <= up_to && (of.is_empty() || of == topic(sequence))
}

impl Entries {
    /// True when the stream may have removed it.
    fn may_be_removed(&self, sequence: i64) -> bool {
        sequence <= self.published - KEPT || self.purges.iter().any(|(of, up_to)| covers((of, *up_to), sequence))
    }

    fn is_purged(&self, sequence: i64, life: usize) -> bool {
        self.purged.iter().any(|(of, up_to, by)| *by < life && covers((of, *up_to), sequence))
    }
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("nobody has failed")
    }

    /// Everything up to `last` is about to be published.
    pub(super) fn publishes(&self, last: i64) {
        self.entries().published = last;
    }

    /// A purge is about to begin.
    pub(super) fn purges(&self, topic: &str, up_to: i64) {
        self.entries().purges.push((topic.to_owned(), up_to));
    }

    pub(super) fn purged(&self, topic: &str, up_to: i64, life: usize) {
        self.entries().purged.push((topic.to_owned(), up_to, life));
    }

    pub(super) fn purged_letters(&self, letters: &[i64]) {
        self.entries().purged_letters.extend(letters);
    }

    pub(super) fn redrive_begins(&self) {
        self.entries().redrives_begun += 1;
    }

    /// Of what was to be given back these are dead letters still, as a hub says: the group does not have their events.
    pub(super) fn redrive_over(&self, left: &[DeadLetter], life: usize) {
        let mut entries = self.entries();
        let begun = entries.redrives_begun;
        entries.redrives_over = begun;
        for letter in left {
            let sequence = letter.origin_sequence;
            let came = entries.came.get(&sequence).is_some_and(|(after, by)| *after == begun && *by >= life);
            assert!(!came, "{sequence} was given back, and is a dead letter still: {letter:?}");
            entries.given_up.insert(sequence, GivenUp { life: 0, redrives_over: begun });
        }
    }

    pub(super) fn delivered(&self, life: usize, received: &ReceivedEvent) {
        let (mut entries, sequence) = (self.entries(), received.sequence);
        check_content(received);
        assert!(sequence <= entries.published, "{sequence} was never published");
        assert!((1..=MAX_ATTEMPTS).contains(&received.attempt), "attempt {} at {sequence}", received.attempt);
        if let Some(done) = entries.done.get(&sequence) {
            // From a hub that was dead by then: it was on its way for long.
            assert!(*done > life, "{sequence} was answered as done by hub {done}, and came from hub {life}");
        }
        let begun = entries.redrives_begun;
        if let Some(given_up) = entries.given_up.get(&sequence) {
            let may_come = given_up.life > life || begun > given_up.redrives_over;
            assert!(may_come, "{sequence} came from hub {life}, and nobody gave it back: {given_up:?}");
            entries.given_back += usize::from(received.attempt == 1);
        }
        assert!(!entries.is_purged(sequence, life), "{sequence} was purged before hub {life}, and came from it");
        entries.came.insert(sequence, (begun, life));
        entries.deliveries += 1;
    }

    pub(super) fn gap(&self, gap: &Gap) {
        let mut entries = self.entries();
        assert_eq!(gap.reason(), GapReason::Retention);
        let ends = [gap.from_sequence, gap.to_sequence];
        assert!(ends.iter().all(|end| entries.may_be_removed(*end)), "nothing has removed all of {gap:?}");
        entries.lost += gap.count;
    }

    pub(super) fn say_done(&self, sequences: &[i64]) {
        self.entries().said.extend(sequences);
    }

    pub(super) fn redrives_over(&self) -> usize {
        self.entries().redrives_over
    }

    pub(super) fn stored_as_done(&self, sequences: &[i64], life: usize) {
        let mut entries = self.entries();
        for sequence in sequences {
            entries.done.entry(*sequence).or_insert(life);
        }
    }

    /// It is answered that these are dead letters, or removed; `redrives_over` is of when that was said.
    pub(super) fn stored_as_given_up(&self, sequences: &[i64], life: usize, redrives_over: usize) {
        let mut entries = self.entries();
        for sequence in sequences {
            entries.given_up.insert(*sequence, GivenUp { life, redrives_over });
        }
    }

    /// What was answered as done.
    pub(super) fn done(&self) -> HashSet<i64> {
        self.entries().done.keys().copied().collect()
    }

    /// What members said is done, answered or not.
    pub(super) fn said(&self) -> HashSet<i64> {
        self.entries().said.clone()
    }

    /// The group has nothing left to do: each event is done, is a dead letter, or was removed.
    pub(super) fn check(&self, events: &[ReceivedEvent], letters: &[DeadLetter]) {
        let entries = self.entries();
        let there: HashSet<i64> = events.iter().map(|event| event.sequence).collect();
        assert!(there.len() as i64 <= KEPT, "{} are more than the stream keeps", there.len());
        for sequence in 1..=entries.published {
            assert!(there.contains(&sequence) || entries.may_be_removed(sequence), "{sequence} is gone");
        }
        let origins = check_letters(letters);
        for received in events {
            let sequence = received.sequence;
            check_content(received);
            assert!(!entries.is_purged(sequence, usize::MAX), "{sequence} was purged, and is there");
            let known = entries.said.contains(&sequence) || origins.contains(&sequence);
            assert!(known, "{sequence} is neither done nor a dead letter");
        }
        for letter in letters {
            let (sequence, origin) = (letter.sequence, letter.origin_sequence);
            assert!(
                !entries.purged_letters.contains(&sequence),
                "dead letter {sequence} was purged, and is there: {letter:?}"
            );
            assert!(!entries.done.contains_key(&origin), "{origin} is done, and a dead letter");
        }
    }

    pub(super) fn told(&self) -> String {
        let entries = self.entries();
        format!(
            "{} events, {} deliveries, {} answered as done, {} told as lost; {} redrives, {} came back of them",
            entries.published,
            entries.deliveries,
            entries.done.len(),
            entries.lost,
            entries.redrives_begun,
            entries.given_back
        )
    }
}

/// Each event has one dead letter at most, and is in it as it was. Gives the sequences of the events.
pub(super) fn check_letters(letters: &[DeadLetter]) -> HashSet<i64> {
    for letter in letters {
        let received = letter.event.as_ref().expect("an event");
        assert_eq!(text(received), text_of(letter.origin_sequence));
        assert!((1..=MAX_ATTEMPTS).contains(&letter.attempts), "{letter:?}");
    }
    let origins: HashSet<i64> = letters.iter().map(|letter| letter.origin_sequence).collect();
    assert_eq!(origins.len(), letters.len(), "an event is a dead letter twice");
    origins
}

fn check_content(received: &ReceivedEvent) {
    let event = received.event.as_ref().expect("an event");
    let expected = (topic(received.sequence).to_owned(), text_of(received.sequence));
    assert_eq!((event.topic.clone(), text(received).to_owned()), expected, "{} has changed", received.sequence);
}

fn text_of(sequence: i64) -> String {
    use switchyard::proto::v1::event::Payload;
    match numbered(sequence).payload {
        Some(Payload::Text(text)) => text,
        other => panic!("not a text: {other:?}"),
    }
}
