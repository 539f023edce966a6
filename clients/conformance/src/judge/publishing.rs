//! Rules of publishing: what its caller was told is what the hub has, in the order of the calls, and no more waits than may.
//! Pure.

use std::collections::BTreeMap;

use super::{checked::Checked, view::View};
use crate::{
    history::{Fact, Kept},
    protocol::{Command, Fate, Outcome, Publish, Report},
};

/// A call to publish, and what became of its events.
struct Call<'a> {
    publish: &'a Publish,
    outcomes: Vec<&'a Outcome>,
    /// Its driver ended by itself, so every event must have an outcome.
    is_complete: bool,
}

fn calls<'a>(view: &View<'a>) -> Vec<Call<'a>> {
    let mut calls: Vec<Call> = Vec::new();
    let mut first_of_run = 0;
    for entry in view.entries {
        match &entry.fact {
            Fact::DriverBegan => first_of_run = calls.len(),
            Fact::Told(Command::Publish(publish)) => {
                calls.push(Call { publish, outcomes: Vec::new(), is_complete: false });
            }
            Fact::Heard(Report::Outcome(outcome)) => {
                let is_it = |call: &&mut Call| {
                    let Publish { first, count, .. } = call.publish;
                    let has = call.outcomes.iter().any(|known| known.number == outcome.number);
                    (*first..first + count).contains(&outcome.number) && !has
                };
                let last = calls.len().checked_sub(1);
                let place = calls[first_of_run..].iter_mut().find(is_it).map(|call| call.outcomes.push(outcome));
                // One too many belongs to the last.
                if let (None, Some(last)) = (place, last) {
                    calls[last].outcomes.push(outcome);
                }
            }
            Fact::DriverEnded { by_itself: true, .. } => {
                calls[first_of_run..].iter_mut().for_each(|call| call.is_complete = true);
            }
            _ => {}
        }
    }
    calls
}

/// What each stream has in the end, by topic and text; none of those from which something was removed.
fn stored<'a>(view: &View<'a>) -> BTreeMap<&'a str, BTreeMap<(&'a str, &'a str), Vec<i64>>> {
    let mut all = BTreeMap::new();
    for entry in view.entries {
        if let Fact::Stored { stream, events } = &entry.fact {
            let mut by_text: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
            for Kept { sequence, topic, text } in events {
                by_text.entry((topic, text)).or_default().push(*sequence);
            }
            all.insert(stream.as_str(), by_text);
        }
    }
    for entry in view.entries {
        match &entry.fact {
            Fact::Purged { stream, .. } => drop(all.remove(stream.as_str())),
            Fact::Created { stream } if !all.contains_key(stream.as_str()) => {}
            _ => {}
        }
    }
    all
}

/// Stored is stored, once and where the caller was told; refused is not stored; unknown is stored once at most. Each event
/// has one outcome.
pub(super) fn publishes(view: &View) -> Checked {
    let mut checked = Checked::default();
    let stored = stored(view);
    let calls = calls(view);
    let mut told: BTreeMap<(&str, u64), Vec<&Outcome>> = BTreeMap::new();
    for call in &calls {
        let Publish { topic, first, count, .. } = call.publish;
        for number in *first..first + count {
            let outcomes: Vec<&Outcome> =
                call.outcomes.iter().copied().filter(|outcome| outcome.number == number).collect();
            checked.that(outcomes.len() <= 1, || format!("{number} has {} outcomes", outcomes.len()));
            if call.is_complete {
                checked.that(!outcomes.is_empty(), || format!("nobody said what became of {number}"));
            }
            told.entry((topic, number)).or_default().extend(outcomes);
        }
    }
    for ((topic, number), outcomes) in told {
        let stream = topic.split('.').next().unwrap_or(topic);
        let text = number.to_string();
        let Some(events) = stored.get(stream) else { continue };
        let has = events.get(&(topic, text.as_str())).map_or(&[][..], Vec::as_slice);
        checked.that(has.len() <= 1, || format!("{number} is stored {} times: {has:?}", has.len()));
        for outcome in &outcomes {
            match outcome.outcome {
                Fate::Stored => checked.that(has.contains(&outcome.sequence), || {
                    format!("{number} is not stored as {}, but as {has:?}", outcome.sequence)
                }),
                Fate::Refused => {
                    let others = outcomes.iter().any(|other| other.outcome != Fate::Refused);
                    checked.that(has.is_empty() || others, || format!("{number} was refused, and is stored: {has:?}"));
                }
                Fate::Live => checked.that(false, || format!("{number} is of a stream, and its outcome is live")),
                Fate::Unknown => {}
            }
        }
    }
    checked
}

/// Events are stored in the order of the calls.
pub(super) fn order(view: &View) -> Checked {
    let mut checked = Checked::default();
    let mut last: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for call in calls(view).iter().filter(|call| call.publish.id.is_empty()) {
        let stream = call.publish.topic.split('.').next().unwrap_or_default();
        let mut stored: Vec<&&Outcome> =
            call.outcomes.iter().filter(|outcome| outcome.outcome == Fate::Stored).collect();
        stored.sort_by_key(|outcome| outcome.number);
        for outcome in stored {
            if let Some((before, sequence)) = last.insert(stream, (outcome.number, outcome.sequence)) {
                let (number, now) = (outcome.number, outcome.sequence);
                checked.that(now > sequence, || format!("{number} is at {now}, and {before} before it at {sequence}"));
            }
        }
    }
    checked
}

/// What waits is no more than was allowed.
pub(super) fn queue(view: &View) -> Checked {
    let mut checked = Checked::default();
    let mut most = 0;
    for entry in view.entries {
        match &entry.fact {
            Fact::Told(Command::Connect(connect)) => most = connect.queue_events as u64,
            Fact::Heard(Report::Stats(stats)) if stats.queued > 0 => {
                checked.that(stats.queued <= most, || format!("{} events wait, and {most} may", stats.queued));
            }
            _ => {}
        }
    }
    checked
}
