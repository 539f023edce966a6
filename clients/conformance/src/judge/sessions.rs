//! Rules of sessions: states, attempts, silence, the end, and what a client takes of its process. Pure.

use std::collections::VecDeque;

use super::{checked::Checked, view::View};
use crate::{
    history::{Entry, Fact},
    protocol::{Command, Mode, Phase, Report, State},
};

/// How long a driver may take to end once its client is closed, beside what it was allowed.
const LAST_MS: u64 = 5000;
/// Attempts in one second that are too many.
const MOST_PER_SECOND: usize = 20;
/// The first ceiling of waits, and the last.
const CEILINGS_MS: (u64, u64) = (100, 5000);
/// What reports may be late by, on a machine that is busy.
const SLACK_MS: u64 = 1000;
/// What they may be early by.
const EARLY_MS: u64 = 400;
/// So many waits in a row say whether they are random.
const WAITS: usize = 7;
/// Of the silence that is allowed: two heartbeats and this.
const PATIENCE_MS: u64 = 5000;
/// How late a loss may be noticed on a machine that is busy.
const LATE_MS: u64 = 2500;
/// What may grow without being a leak.
const GROWTH_KIB: u64 = 8 * 1024;
const GROWTH_DESCRIPTORS: u64 = 4;
const GROWTH_THREADS: u64 = 2;

/// Everything that was to come has come.
pub(super) fn progress(view: &View) -> Checked {
    let mut checked = Checked::default();
    for entry in view.entries {
        match &entry.fact {
            Fact::Reached(_) => checked.evidence += 1,
            Fact::Missed(what) => checked.problems.push(format!("at {} ms: {what}", entry.at)),
            Fact::Nonsense(line) => checked.problems.push(format!("not in the language of drivers: {line}")),
            Fact::Heard(Report::Failed { text }) => checked.problems.push(format!("the driver failed: {text}")),
            _ => {}
        }
    }
    checked
}

/// The states of each run of the driver, in order.
fn states<'a>(view: &View<'a>) -> Vec<Vec<(&'a Entry, &'a State)>> {
    let mut runs = vec![Vec::new()];
    for entry in view.entries {
        match &entry.fact {
            Fact::DriverBegan => runs.push(Vec::new()),
            Fact::Heard(Report::State(state)) => runs.last_mut().into_iter().for_each(|run| run.push((entry, state))),
            _ => {}
        }
    }
    runs
}

fn is_legal(from: Phase, to: Phase) -> bool {
    use Phase::{Closed, Closing, Connecting, Draining, Failed, Idle, Up, Waiting};
    match (from, to) {
        (Closed | Failed, _) | (_, Idle) => false,
        (Closing, to) => matches!(to, Closing | Closed | Failed),
        (_, Closing | Closed) => true,
        (Idle | Waiting, to) => to == Connecting,
        (Connecting, to) => matches!(to, Up | Waiting | Failed),
        (Up | Draining, to) => matches!(to, Draining | Waiting | Failed),
    }
}

/// Changes of state are those that there are; a session has an id and an address, and no two have the same.
pub(super) fn changes(view: &View) -> Checked {
    let mut checked = Checked::default();
    for run in states(view) {
        let (mut last, mut session) = (Phase::Idle, "");
        for (_, state) in run {
            let now = state.state;
            checked.that(is_legal(last, now), || format!("{now:?} after {last:?}"));
            if now == Phase::Up {
                let is_new = !state.session.is_empty() && state.session != session && !state.address.is_empty();
                checked.that(is_new, || format!("up with session {:?} at {:?}", state.session, state.address));
                session = &state.session;
            }
            last = now;
        }
    }
    checked
}

/// The client ends when its caller wants that; or with the reason that the scenario has for it.
pub(super) fn for_ever(view: &View, fails_with: Option<&str>) -> Checked {
    let mut checked = Checked::default();
    let mut may_end = false;
    for entry in view.entries {
        match &entry.fact {
            Fact::DriverBegan => may_end = false,
            Fact::Told(Command::Drain { .. } | Command::Close) => may_end = true,
            Fact::Heard(Report::State(state)) => match state.state {
                Phase::Waiting => checked.evidence += 1,
                Phase::Failed => {
                    checked.that(fails_with == Some(&state.reason), || format!("it failed, with {}", state.reason));
                }
                Phase::Closed => checked.that(may_end, || "it closed, and nobody asked for that".to_owned()),
                _ => {}
            },
            _ => {}
        }
    }
    checked
}

/// Attempts are few and random in time.
pub(super) fn backoff(view: &View) -> Checked {
    let mut checked = Checked::default();
    let mut recent: VecDeque<u64> = VecDeque::new();
    for entry in view.entries.iter().filter(|entry| entry.fact == Fact::Accepted) {
        recent.push_back(entry.at);
        while recent.front().is_some_and(|at| at + 1000 < entry.at) {
            recent.pop_front();
        }
        if recent.len() > MOST_PER_SECOND {
            checked.problems.push(format!("{} connections within a second, at {} ms", recent.len(), entry.at));
            break;
        }
    }
    for run in states(view) {
        // From when it began to when it was up for the first time: only then the ceilings are known.
        let mut waits = Vec::new();
        let mut since = None;
        for (entry, state) in run.iter().take_while(|(_, state)| state.state != Phase::Up) {
            match state.state {
                Phase::Waiting => since = Some(entry.at),
                Phase::Connecting => waits.extend(since.take().map(|since| entry.at - since)),
                _ => {}
            }
        }
        let (first, longest) = CEILINGS_MS;
        let ceiling = |number: usize| first.saturating_mul(1 << number.min(20)).min(longest);
        for (number, wait) in waits.iter().enumerate() {
            let most = ceiling(number);
            if *wait > most + SLACK_MS {
                checked.problems.push(format!("wait {number} was {wait} ms, and {most} is the most"));
            }
        }
        if waits.len() >= WAITS {
            let is_long = |(number, wait): (usize, &u64)| wait * 10 >= ceiling(number) * 9;
            let are_long = waits.iter().enumerate().all(is_long);
            let are_equal = waits[1..].iter().all(|wait| wait.abs_diff(waits[0]) < waits[0] / 10);
            checked.that(!are_long && !are_equal, || format!("waits that are not random: {waits:?} ms"));
        }
    }
    checked
}

/// A hub that is silent is noticed after two heartbeats and five seconds.
pub(super) fn silence(view: &View) -> Checked {
    let mut checked = Checked::default();
    let (mut heartbeat, mut is_up, mut since) = (0, false, None);
    for entry in view.entries {
        match &entry.fact {
            Fact::Told(Command::Connect(connect)) => heartbeat = connect.heartbeat_ms,
            Fact::DriverBegan => (is_up, since) = (false, None),
            Fact::Silent if is_up && since.is_none() => since = Some(entry.at),
            Fact::Broken => since = None,
            Fact::Audible => {
                let most = 2 * heartbeat + PATIENCE_MS + LATE_MS;
                if let Some(began) = since.take()
                    && entry.at > began + most
                {
                    checked.that(false, || format!("{} ms of silence were not noticed", entry.at - began));
                }
            }
            Fact::Heard(Report::State(state)) => {
                is_up = matches!(state.state, Phase::Up | Phase::Draining);
                let Some(began) = since.filter(|_| !is_up) else { continue };
                since = None;
                let took = entry.at - began;
                let patience = 2 * heartbeat + PATIENCE_MS;
                // The last frame may have come one heartbeat before.
                let in_time = patience.saturating_sub(heartbeat + EARLY_MS)..=patience + LATE_MS;
                checked.that(in_time.contains(&took), || format!("{took} ms of silence instead of {patience}"));
            }
            _ => {}
        }
    }
    checked
}

/// After the end nothing is left.
pub(super) fn end(view: &View) -> Checked {
    let mut checked = Checked::default();
    let mut drain: Option<(u64, u64)> = None;
    for entry in view.entries {
        match &entry.fact {
            Fact::DriverBegan => drain = None,
            Fact::Told(Command::Drain { timeout_ms, mode: Mode::Finish | Mode::Release }) => {
                drain = Some((entry.at, *timeout_ms));
            }
            Fact::Heard(Report::Drained { .. }) => {
                let Some((asked, timeout)) = drain.take() else {
                    checked.problems.push("it was drained, and nobody asked for that".to_owned());
                    continue;
                };
                let took = entry.at - asked;
                checked.that(took <= timeout + LATE_MS, || format!("a drain of {timeout} ms took {took} ms"));
            }
            Fact::DriverEnded { by_itself, after_ms } => {
                checked.that(*by_itself && *after_ms <= LAST_MS, || {
                    format!("the driver is still there {after_ms} ms after it was told to end")
                });
                if drain.is_some() {
                    checked.problems.push("nobody said what became of the drain".to_owned());
                }
            }
            Fact::SessionsLeft(count) => checked.that(*count == 0, || format!("{count} sessions are left in the hub")),
            _ => {}
        }
    }
    checked
}

/// What the process has does not grow.
pub(super) fn leaks(view: &View) -> Checked {
    let mut checked = Checked::default();
    let mut first: Option<(u64, u64, u64)> = None;
    let mut last = None;
    for entry in view.entries {
        match entry.fact {
            Fact::DriverBegan => (first, last) = (None, None),
            Fact::Measured { resident_kib, descriptors, threads } => {
                let now = (resident_kib, descriptors, threads);
                last = first.map(|first| (first, now));
                first = first.or(Some(now));
            }
            _ => {}
        }
    }
    let Some(((kib, descriptors, threads), now)) = last else { return checked };
    let most_kib = (kib / 4).max(GROWTH_KIB) + kib;
    checked.that(now.0 <= most_kib, || format!("memory grew from {kib} to {} KiB", now.0));
    checked.that(now.1 <= descriptors + GROWTH_DESCRIPTORS, || {
        format!("descriptors grew from {descriptors} to {}", now.1)
    });
    checked.that(now.2 <= threads + GROWTH_THREADS, || format!("threads grew from {threads} to {}", now.2));
    checked
}
