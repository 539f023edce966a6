//! Rules of members: who says that an event is done, what costs an attempt, and how much the hub may send. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checked::Checked,
    view::{Reader, View, What},
};
use crate::{history::Fact, protocol::Then};

/// What the hub did may be known this much before what the driver reported of it.
const LAG_MS: u64 = 1000;

/// The hub never has more credit than there is room: of a group, what it has sent and is not done; of others, what it has
/// sent and was not taken.
pub(super) fn window(view: &View) -> Checked {
    let mut checked = Checked::default();
    for (index, entry) in view.entries.iter().enumerate() {
        match &entry.fact {
            Fact::Group { stream, group, sent, .. } if *sent > 0 => {
                let run = view.run_at(index);
                let members: Vec<&Reader> =
                    view.members(stream, group).filter(|reader| reader.run == run && began(reader, index)).collect();
                if members.is_empty() {
                    continue;
                }
                let room: u64 =
                    members.iter().map(|reader| reader.window() + unanswered(reader, index, entry.at)).sum();
                checked.that(*sent <= room, || format!("group {group}: {sent} events are sent, and {room} fit"));
            }
            Fact::Sent { stream, group, filters, events, .. } if group.is_empty() && *events > 0 => {
                let run = view.run_at(index);
                let is_it = |reader: &&Reader| {
                    reader.run == run
                        && reader.spec.stream == *stream
                        && reader.spec.group.is_empty()
                        && reader.spec.filters == *filters
                };
                let Some(reader) = view.readers.iter().find(is_it) else { continue };
                let room = reader.window() + reader.taken_by(entry.at + LAG_MS);
                checked
                    .that(*events <= room, || format!("{}: {events} events are sent, and {room} fit", reader.name()));
            }
            _ => {}
        }
    }
    checked
}

fn began(reader: &Reader, index: usize) -> bool {
    reader.items.first().is_some_and(|item| item.index < index)
}

/// Events that the caller has settled, and of which the hub may not have heard.
fn unanswered(reader: &Reader, index: usize, at: u64) -> u64 {
    let (mut taken, mut said, mut answered) = (0_u64, 0_u64, 0_u64);
    let acks_all = reader.then_before(index) == Some(Then::Ack);
    for item in reader.items.iter().take_while(|item| item.at <= at + LAG_MS) {
        match item.what {
            What::Event(_) => taken += 1,
            What::Acks([]) | What::Nacks([]) | What::Rejects([]) => said = taken,
            What::Acks(some) | What::Nacks(some) | What::Rejects(some) => said += some.len() as u64,
            What::Settled(..) if item.index < index => answered += 1,
            _ => {}
        }
    }
    if acks_all {
        said = taken;
    }
    said.saturating_sub(answered)
}

/// What the hub has as done, the caller has said is done; and what the caller was told is stored as done is.
pub(super) fn acks(view: &View) -> Checked {
    let mut checked = Checked::default();
    for (index, entry) in view.entries.iter().enumerate() {
        let Fact::Group { stream, group, cursor, unacked, .. } = &entry.fact else { continue };
        let life = view.members(stream, group).map(|reader| reader.life).max().unwrap_or(0);
        let mut said = BTreeSet::new();
        let (mut taken, mut stored) = (BTreeSet::new(), BTreeSet::new());
        let mut acks_all = false;
        for reader in view.members(stream, group) {
            acks_all |= reader.then_before(index) == Some(Then::Ack);
            said.extend(said_done(reader, index));
            for item in reader.items.iter().take_while(|item| item.index < index) {
                match item.what {
                    What::Event(event) => {
                        taken.insert(event.sequence);
                    }
                    What::Settled(sequence, None) => {
                        stored.insert(sequence);
                    }
                    _ => {}
                }
            }
        }
        for sequence in unacked {
            checked.that(!stored.contains(sequence), || {
                format!("group {group}: {sequence} is not done, and its caller was told that it is")
            });
        }
        for (sequence, _) in view.known(stream, life) {
            if sequence <= *cursor {
                // With a standing order whatever comes may be done.
                checked.that(acks_all || said.contains(&sequence), || {
                    format!("group {group}: {sequence} is done, and nobody said so")
                });
            } else if taken.contains(&sequence) {
                checked.evidence += 1;
            }
        }
    }
    checked
}

/// The sequences that the caller said are done or can never succeed, before an entry.
fn said_done(reader: &Reader, index: usize) -> BTreeSet<i64> {
    let (mut taken, mut said) = (BTreeSet::new(), BTreeSet::new());
    for item in reader.items.iter().take_while(|item| item.index < index) {
        match item.what {
            What::Event(event) => {
                taken.insert(event.sequence);
            }
            What::Acks([]) | What::Rejects([]) => said.append(&mut taken),
            What::Acks(some) | What::Rejects(some) => said.extend(some),
            What::Nacks([]) => taken.clear(),
            _ => {}
        }
    }
    said
}

/// An attempt is counted for what failed or whose lease was lost, and for nothing else.
pub(super) fn attempts(view: &View) -> Checked {
    let mut checked = Checked::default();
    let mut failures: BTreeMap<(&str, &str, i64), i32> = BTreeMap::new();
    for reader in view.readers.iter().filter(|reader| !reader.spec.group.is_empty() && !reader.is_live()) {
        let (stream, group) = (reader.spec.stream.as_str(), reader.spec.group.as_str());
        let mut taken = BTreeSet::new();
        for item in &reader.items {
            match item.what {
                What::Event(event) => {
                    taken.insert(event.sequence);
                    let most = 1 + failures.get(&(stream, group, event.sequence)).copied().unwrap_or(0);
                    checked.that(event.attempt <= most, || {
                        format!("{}: {} is at attempt {}", reader.name(), event.sequence, event.attempt)
                    });
                }
                What::Nacks(some) => {
                    let all: Vec<i64> = if some.is_empty() { taken.iter().copied().collect() } else { some.to_vec() };
                    for sequence in all {
                        *failures.entry((stream, group, sequence)).or_default() += 1;
                    }
                }
                What::Settled(sequence, Some(_)) => *failures.entry((stream, group, sequence)).or_default() += 1,
                _ => {}
            }
        }
    }
    checked
}
