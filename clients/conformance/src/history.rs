//! What happened in a scenario, in order: what the driver was told and said, what was done to hub and network, and what
//! the hub has. Pure.

use std::collections::BTreeMap;

use crate::{
    protocol::{Command, Phase, Report},
    scenario::Counts,
};

/// No scenario has more entries: one that does is stopped.
pub const MOST: usize = 3_000_000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When, in milliseconds since the scenario began.
    pub at: u64,
    pub fact: Fact,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The driver was told this.
    Told(Command),
    /// The driver said this.
    Heard(Report),
    /// The driver said something that is not in its language.
    Nonsense(String),
    /// A driver was started.
    DriverBegan,
    /// It ended: by itself, this long after it was asked to, or because it was killed.
    DriverEnded { by_itself: bool, after_ms: u64 },
    /// A connection was made to the proxy.
    Accepted,
    /// From now on the client can hear nothing, and its connections stay open.
    Silent,
    /// The silence is over.
    Audible,
    /// Connections were broken, a hub ended, or cannot be reached.
    Broken,
    /// A stream was created, perhaps again.
    Created { stream: String },
    /// Somebody else published this; the sequence is 0 where no stream has it.
    Seeded { topic: String, number: u64, sequence: i64 },
    /// Events up to this sequence were removed.
    Purged { stream: String, up_to: i64 },
    /// All that a stream has.
    Stored { stream: String, events: Vec<Kept> },
    /// What a group has.
    Group { stream: String, group: String, cursor: i64, sent: u64, unacked: Vec<i64> },
    /// How many events the hub has sent to a subscription in one session.
    Sent { session: String, stream: String, group: String, filters: Vec<String>, events: u64 },
    /// How many sessions the hub has, after the end of the last driver.
    SessionsLeft(u64),
    /// What the process of the driver has.
    Measured { resident_kib: u64, descriptors: u64, threads: u64 },
    /// The scenario waited for something that did not come, or checked something that was not so.
    Missed(String),
    /// All that was to come has come.
    Reached(String),
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub sequence: i64,
    pub topic: String,
    pub text: String,
}

/// How often what a scenario may wait for has happened.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: Counts,
    is_up: bool,
}

impl Tally {
    /// One more thing has happened.
    pub fn add(&mut self, fact: &Fact) {
        let Fact::Heard(report) = fact else { return };
        let counts = &mut self.counts;
        match report {
            Report::Ready { .. } => more(&mut counts.ready),
            Report::State(state) => self.enter(state.state),
            Report::Subscribed { .. } => more(&mut counts.subscribed),
            Report::Event(event) => {
                more_of(&mut counts.taken, &event.sub);
                more(&mut counts.taken_in_all);
            }
            Report::CaughtUp { sub } => more_of(&mut counts.caught_up, sub),
            Report::Gap(gap) => {
                more_of(&mut counts.gaps, &gap.sub);
                more_of(&mut counts.gap_reasons, &gap.reason);
            }
            Report::Ended { sub, error } => {
                more_of(&mut counts.ended, sub);
                let reason = error.as_ref().map_or("", |error| error.reason.as_str());
                more_of(&mut counts.end_reasons, reason);
            }
            Report::Done { .. } => more(&mut counts.done),
            Report::Settled { error: None, .. } => more(&mut counts.settled),
            Report::Settled { .. } => more(&mut counts.leases_lost),
            Report::Outcome(outcome) => {
                more(&mut counts.outcomes);
                *counts.fates.entry(outcome.outcome).or_default() += 1;
                if outcome.duplicate {
                    more(&mut counts.duplicates);
                }
            }
            Report::Stats(_) => more(&mut counts.stats),
            Report::Drained { clean } => {
                more(&mut counts.drained);
                if *clean {
                    more(&mut counts.drained_clean);
                }
            }
            Report::Failed { .. } => {}
        }
    }

    fn enter(&mut self, phase: Phase) {
        let counts = &mut self.counts;
        match phase {
            Phase::Up => more(&mut counts.sessions),
            Phase::Waiting => more(&mut counts.losses),
            Phase::Draining => more(&mut counts.draining),
            Phase::Failed => more(&mut counts.failed),
            Phase::Connecting => more(&mut counts.attempts),
            _ => {}
        }
        self.is_up = matches!(phase, Phase::Up | Phase::Draining);
    }

    /// How many drivers have said that they are ready.
    pub fn drivers(&self) -> u64 {
        self.counts.ready.unwrap_or(0)
    }

    /// Whether the client has a session, as far as it has said.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// What is not as wanted: at least as often, or exactly.
    pub fn lacks(&self, wanted: &Counts, exactly: bool) -> Vec<String> {
        let has = &self.counts;
        let mut missing = Vec::new();
        let mut one = |name: &str, wanted: Option<u64>, has: Option<u64>| {
            let (Some(wanted), has) = (wanted, has.unwrap_or(0)) else { return };
            if has < wanted || (exactly && has != wanted) {
                missing.push(format!("{name}: {has} instead of {wanted}"));
            }
        };
        one("ready", wanted.ready, has.ready);
        one("sessions", wanted.sessions, has.sessions);
        one("losses", wanted.losses, has.losses);
        one("draining", wanted.draining, has.draining);
        one("failed", wanted.failed, has.failed);
        one("attempts", wanted.attempts, has.attempts);
        one("subscribed", wanted.subscribed, has.subscribed);
        one("taken in all", wanted.taken_in_all, has.taken_in_all);
        one("settled", wanted.settled, has.settled);
        one("leases lost", wanted.leases_lost, has.leases_lost);
        one("done", wanted.done, has.done);
        one("outcomes", wanted.outcomes, has.outcomes);
        one("duplicates", wanted.duplicates, has.duplicates);
        one("stats", wanted.stats, has.stats);
        one("drained", wanted.drained, has.drained);
        one("drained clean", wanted.drained_clean, has.drained_clean);
        let maps = [
            ("taken", &wanted.taken, &has.taken),
            ("gaps", &wanted.gaps, &has.gaps),
            ("gap reason", &wanted.gap_reasons, &has.gap_reasons),
            ("ended", &wanted.ended, &has.ended),
            ("end reason", &wanted.end_reasons, &has.end_reasons),
            ("caught up", &wanted.caught_up, &has.caught_up),
        ];
        for (name, wanted, has) in maps {
            for (key, count) in wanted {
                one(&format!("{name} {key}"), Some(*count), has.get(key).copied());
            }
        }
        for (fate, count) in &wanted.fates {
            one(&format!("{fate:?}"), Some(*count), has.fates.get(fate).copied());
        }
        missing
    }
}

fn more(count: &mut Option<u64>) {
    *count.get_or_insert(0) += 1;
}

fn more_of(counts: &mut BTreeMap<String, u64>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}
