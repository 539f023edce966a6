//! Rules of what comes: in order, all of it, once, with gaps where there are some; of the place, and of the end. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checked::Checked,
    view::{Item, Reader, View, What},
};
use crate::{
    history::{Entry, Fact},
    protocol::{From, Phase, Report, Then},
};

/// Reports of one thing by different tasks come within this.
const TOGETHER_MS: u64 = 1000;

/// The text of an event, which is a number.
fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Events come in order: by sequence in a stream, by number for each topic of a live subscription. Members of groups get
/// again what failed, and are left out.
pub(super) fn order(view: &View) -> Checked {
    let mut checked = Checked::default();
    for reader in view.readers.iter().filter(|reader| reader.reads() || reader.is_live()) {
        let (mut last, mut last_of): (i64, BTreeMap<&str, u64>) = (0, BTreeMap::new());
        let mut seen = BTreeSet::new();
        for item in &reader.items {
            match item.what {
                What::Gap(gap) if gap.reason == "epoch" => (last, seen) = (0, BTreeSet::new()),
                // What comes again breaks another rule.
                What::Event(event) if reader.reads() && !seen.insert(event.sequence) => {}
                What::Event(event) if reader.reads() => {
                    let name = reader.name();
                    checked.that(event.sequence > last, || format!("{name}: {} behind {last}", event.sequence));
                    last = last.max(event.sequence);
                }
                What::Event(event) => {
                    let Some(now) = number(&event.text) else { continue };
                    let last = last_of.insert(&event.topic, now);
                    let holds = last.is_none_or(|last| now >= last);
                    checked.that(holds, || format!("{}: {} {now} behind {last:?}", reader.name(), event.topic));
                }
                _ => {}
            }
        }
    }
    checked
}

/// Nothing is missing between two events that came, unless a gap between them says so.
pub(super) fn loss(view: &View) -> Checked {
    let mut checked = Checked::default();
    for reader in &view.readers {
        if reader.reads() {
            loss_of_stream(view, reader, &mut checked);
        } else if reader.is_live() {
            loss_of_live(view, reader, &mut checked);
        }
    }
    checked
}

fn loss_of_stream(view: &View, reader: &Reader, checked: &mut Checked) {
    let starts_at_first = reader.spec.from == From::Earliest && reader.spec.position.is_empty();
    let (mut last, mut life, mut gaps) = (starts_at_first.then_some(0), reader.life, Vec::new());
    // An event that comes out of order is not missing too.
    let come: BTreeSet<(usize, i64)> = {
        let mut life = reader.life;
        let events = reader.items.iter().filter_map(|item| match item.what {
            What::Gap(gap) if gap.reason == "epoch" => {
                life += 1;
                None
            }
            What::Event(event) => Some((life, event.sequence)),
            _ => None,
        });
        events.collect()
    };
    for item in &reader.items {
        match item.what {
            What::Gap(gap) => {
                if gap.reason == "epoch" {
                    (last, life) = (None, life + 1);
                }
                gaps.push(gap);
            }
            What::Event(event) => {
                if let Some(last) = last {
                    let between = view.known_between(&reader.spec.stream, life, last, event.sequence);
                    let explained = |sequence: i64| {
                        gaps.iter().any(|gap| {
                            gap.from.is_none_or(|from| from <= sequence) && gap.to.is_none_or(|to| sequence <= to)
                        })
                    };
                    let missing: Vec<i64> = between
                        .into_iter()
                        .filter(|(_, known)| reader.wants(known.topic))
                        .map(|(sequence, _)| sequence)
                        .filter(|sequence| !explained(*sequence) && !come.contains(&(life, *sequence)))
                        .collect();
                    checked.that(missing.is_empty(), || {
                        format!("{}: {missing:?} are missing between {last} and {}", reader.name(), event.sequence)
                    });
                }
                last = last.max(Some(event.sequence));
                gaps.clear();
            }
            _ => {}
        }
    }
}

fn loss_of_live(view: &View, reader: &Reader, checked: &mut Checked) {
    let seeded = view.entries.iter().filter_map(|entry| match &entry.fact {
        Fact::Seeded { topic, number, .. } if reader.wants(topic) => Some((topic.as_str(), *number)),
        _ => None,
    });
    let seeded: BTreeSet<(&str, u64)> = seeded.collect();
    let events = |item: &Item| match item.what {
        What::Event(event) => number(&event.text),
        _ => None,
    };
    let come: BTreeSet<u64> = reader.items.iter().filter_map(events).collect();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for item in &reader.items {
        match item.what {
            What::Gap(_) => last.clear(),
            What::Event(event) => {
                let Some(now) = number(&event.text) else { continue };
                if let Some(before) = last.insert(&event.topic, now) {
                    let between = seeded.iter().filter(|(topic, number)| {
                        *topic == event.topic && (before + 1..now).contains(number) && !come.contains(number)
                    });
                    let missing: Vec<u64> = between.map(|(_, number)| *number).collect();
                    checked.that(missing.is_empty(), || {
                        format!("{}: {missing:?} are missing between {before} and {now}", reader.name())
                    });
                }
            }
            _ => {}
        }
    }
}

/// Nothing is given to the caller twice: of a stream never; of a group only what failed or whose lease was lost.
pub(super) fn repeat(view: &View) -> Checked {
    let mut checked = Checked::default();
    let mut settled: BTreeSet<(&str, &str, i64)> = BTreeSet::new();
    for reader in &view.readers {
        let mut seen: BTreeSet<(i64, &str)> = BTreeSet::new();
        // Losses of leases that explained an event before they were reported.
        let mut used = BTreeSet::new();
        for (number, item) in reader.items.iter().enumerate() {
            match item.what {
                What::Gap(gap) if gap.reason == "epoch" => seen.clear(),
                What::Event(event) => {
                    let text = if reader.is_live() { event.text.as_str() } else { "" };
                    let is_new = seen.insert((event.sequence, text))
                        || lost_soon(&reader.items[number..], event.sequence, &used)
                            .is_some_and(|index| used.insert(index));
                    checked.that(is_new, || {
                        let Reader { spec, .. } = reader;
                        format!("{}: {} {} comes again", spec.sub, event.sequence, event.text)
                    });
                    let key = (reader.spec.stream.as_str(), reader.spec.group.as_str(), event.sequence);
                    if !reader.spec.group.is_empty() && settled.contains(&key) {
                        checked.problems.push(format!(
                            "{}: {} comes again and was done",
                            reader.name(),
                            event.sequence
                        ));
                    }
                }
                What::Nacks([]) => seen.clear(),
                What::Nacks(sequences) => sequences.iter().for_each(|sequence| {
                    seen.remove(&(*sequence, ""));
                }),
                What::Settled(sequence, None) => {
                    settled.insert((&reader.spec.stream, &reader.spec.group, sequence));
                }
                What::Settled(sequence, Some(_)) if !used.contains(&item.index) => {
                    seen.remove(&(sequence, ""));
                }
                _ => {}
            }
        }
    }
    checked
}

/// The entry that says that the lease of an event was lost, if that comes just behind the event: whoever waits for the
/// answer to an acknowledgement and whoever takes events report in no order.
fn lost_soon(items: &[Item], sequence: i64, used: &BTreeSet<usize>) -> Option<usize> {
    let from = items.first()?.at;
    let soon = items.iter().take_while(|item| item.at <= from + TOGETHER_MS);
    let is_it = |item: &&Item| {
        matches!(item.what, What::Settled(lost, Some(_)) if lost == sequence) && !used.contains(&item.index)
    };
    soon.into_iter().find(is_it).map(|item| item.index)
}

/// When each run of the driver had a session again, and since when the one before was lost: (run, lost, up), as entries.
fn returns(entries: &[Entry]) -> Vec<(usize, usize, usize)> {
    let (mut run, mut lost, mut had) = (0, None, false);
    let mut all = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match &entry.fact {
            Fact::DriverBegan => (run, lost, had) = (run + 1, None, false),
            Fact::Heard(Report::State(state)) => match state.state {
                Phase::Up => {
                    if let (true, Some(lost)) = (had, lost.take()) {
                        all.push((run, lost, index));
                    }
                    had = true;
                }
                Phase::Waiting | Phase::Connecting => lost = lost.or(Some(index)),
                _ => {}
            },
            _ => {}
        }
    }
    all
}

/// A live subscription hears that it was away before it gets what was published after its return.
pub(super) fn gaps(view: &View) -> Checked {
    let mut checked = Checked::default();
    let returns = returns(view.entries);
    for reader in view.readers.iter().filter(|reader| reader.is_live()) {
        let Some(first) = reader.items.first().map(|item| item.index) else { continue };
        for (_, lost, up) in returns.iter().filter(|(run, lost, _)| *run == reader.run && *lost > first) {
            let later = view.entries[*up..].iter().filter_map(|entry| match &entry.fact {
                Fact::Seeded { topic, number, .. } if reader.wants(topic) => Some(number.to_string()),
                _ => None,
            });
            let later: BTreeSet<String> = later.collect();
            let is_later = |item: &&Item| matches!(item.what, What::Event(event) if later.contains(&event.text));
            let Some(came) = reader.items.iter().find(is_later) else { continue };
            let between = reader.items.iter().filter(|item| (*lost..came.index).contains(&item.index));
            let says = between.into_iter().any(|item| matches!(item.what, What::Gap(_)));
            checked.that(says, || format!("{}: no gap after the loss at {} ms", reader.name(), view.entries[*lost].at));
        }
    }
    checked
}

/// The next run begins behind what is done: it gets all that is not done, and nothing that is.
pub(super) fn place(view: &View) -> Checked {
    let mut checked = Checked::default();
    let kept = |reader: &&Reader| !reader.spec.position.is_empty();
    for (at, reader) in view.readers.iter().enumerate().filter(|(_, reader)| kept(reader)) {
        let before: Vec<&Reader> = view.readers[..at]
            .iter()
            .filter(|other| other.run < reader.run && other.spec.position == reader.spec.position)
            .collect();
        let first = reader.items.iter().find_map(|item| match item.what {
            What::Event(event) => Some(event.sequence),
            _ => None,
        });
        let (Some(first), false) = (first, before.is_empty()) else { continue };
        let done: BTreeSet<i64> = before.iter().flat_map(|reader| said_done(reader)).collect();
        let kept = before.iter().flat_map(|reader| &reader.items).filter_map(|item| match item.what {
            What::Done(sequence) => Some(sequence),
            _ => None,
        });
        let kept = kept.max().unwrap_or(0);
        let lost: Vec<i64> = view
            .known_between(&reader.spec.stream, reader.life, 0, first)
            .into_iter()
            .filter(|(sequence, known)| reader.wants(known.topic) && !done.contains(sequence))
            .map(|(sequence, _)| sequence)
            .collect();
        checked.that(lost.is_empty(), || format!("{}: {lost:?} were not done, and do not come", reader.name()));
        checked.that(first > kept, || format!("{}: {first} comes again; {kept} was done", reader.name()));
    }
    checked
}

/// The sequences that the caller said are done.
fn said_done(reader: &Reader) -> BTreeSet<i64> {
    let (mut taken, mut done) = (Vec::new(), BTreeSet::new());
    for item in &reader.items {
        match item.what {
            What::Event(event) if reader.then_before(item.index) == Some(Then::Done) => {
                done.insert(event.sequence);
            }
            What::Event(event) => taken.push(event.sequence),
            What::SaysDone => done.extend(taken.drain(..)),
            _ => {}
        }
    }
    done
}

/// The end is reported once, nothing comes after it, and an error says which subscription of which hub it is of.
pub(super) fn ended(view: &View) -> Checked {
    let mut checked = Checked::default();
    for reader in &view.readers {
        let mut is_over = false;
        for item in &reader.items {
            match item.what {
                What::Ended(error) => {
                    checked.that(!is_over, || format!("{}: it ended twice", reader.name()));
                    is_over = true;
                    let Some(error) = error else { continue };
                    let of = if reader.is_live() { &reader.spec.filters[0] } else { &reader.spec.stream };
                    let names = error.text.contains(of.as_str()) && error.text.contains("127.0.0.1:");
                    checked.that(names, || format!("{}: which of which hub? {}", reader.name(), error.text));
                }
                What::Event(_) | What::Gap(_) if is_over => {
                    checked.problems.push(format!("{}: something comes after its end", reader.name()));
                }
                _ => {}
            }
        }
    }
    checked
}
