//! The state of one group on one stream: which event a member gets next, and what becomes of it. Pure.
//!
//! A [`GroupState`] is fed with the sequences of a stream, hands them out to members under leases, takes their
//! acknowledgements, and brings back what fails, after a wait, until it is given up. It keeps the order of the events
//! of one key. It is a pure machine: it knows neither events nor clients, reads nothing, stores nothing and starts
//! nothing. Time is an argument: milliseconds since the Unix epoch, by a clock that does not go back.
//!
//! What the caller owes it:
//! - It reads the stream where [`GroupState::feed`] says and offers what it found ([`GroupState::offer`]).
//! - When an event from [`GroupState::next`] was written to the transport it says so ([`GroupState::sent`]): that
//!   starts the lease. If it will not be written, [`GroupState::unsend`].
//! - Members that grant no credit are to be paced ([`GroupState::pace`]); which of them may have more than before
//!   [`GroupState::take_eased`] tells.
//! - What it finds missing in the stream it says ([`GroupState::gone`], [`GroupState::purge`]).
//! - It calls [`GroupState::tick`] when [`GroupState::due`] says.
//! - *Acknowledged means stored.* It applies acknowledgements, takes [`GroupState::encode`], stores that, and only then
//!   tells the members. [`GroupState::revision`] tells whether there is anything to store. What is handed out meanwhile
//!   does no harm: after a store that failed and a restart, some events are delivered again, and none is lost.
//! - It stores [`GroupState::dead_letters`] in the same transaction, names them to `encode`, and once that is stored
//!   says [`GroupState::buried`].
//!
//! Why it is as it is: docs/adr/0007-groups.md.

mod acknowledge;
mod delivery;
mod done;
mod failure;
mod feed;
mod held;
mod member;
mod put_off;
mod snapshot;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hashbrown::HashMap;

pub use acknowledge::{Answer, Outcome, UpTo};
pub use delivery::Delivery;
pub use failure::DeadLetter;
pub use feed::{Feed, StaleRead};
pub use member::MemberId;
pub use snapshot::SnapshotError;

use crate::model::{GroupSettings, limits::MAX_TIME_MS};
use done::Done;
use failure::Failure;
use held::{Chain, Held, Phase};
use member::Member;
use put_off::PutOff;
use snapshot::Saved;

/// A tick lets this many leases and waits end; more are left to the next one, so that none takes long.
const TIMERS_AT_ONCE: usize = 4096;
/// Sequences are signed on the wire.
const MAX_SEQUENCE: u64 = i64::MAX as u64 - 1;

/// One group on one stream.
///
/// Of the sequences up to `read_to`, each is done, held, or put off, and a held one is in exactly one of the places that
/// [`Phase`] names. Memory is bounded by `max_unacked`, the look-ahead of the feed and its limit on gaps.
#[derive(Debug)]
pub struct GroupState {
    settings: GroupSettings,
    /// The latest time it was told.
    clock: u64,
    revision: u64,
    /// The last sequence that was offered or passed over.
    read_to: u64,
    done: Done,
    /// Events appended before that are nothing for it, in microseconds since 1970.
    begins: u64,
    /// What failed at least once and is not done. After a restart also what was not offered again yet.
    failures: BTreeMap<u64, Failure>,
    held: HashMap<u64, Held>,
    /// By key.
    keys: HashMap<u64, Chain>,
    put_off: PutOff,
    /// May be handed out, for the first time.
    new: BTreeSet<u64>,
    /// May be handed out, and were before.
    again: BTreeSet<u64>,
    /// Given up, and not yet stored as dead letters.
    burying: BTreeSet<u64>,
    /// When leases and waits end, and of which event.
    timers: BTreeSet<(u64, u64)>,
    members: HashMap<MemberId, Member>,
    /// When members that lost their transport are given up.
    windows: BTreeSet<(u64, MemberId)>,
    /// Members with a window that may have more events than they could.
    eased: BTreeSet<MemberId>,
    /// Members that have yet to say something of events of which the lease is over.
    owing: BTreeSet<MemberId>,
    /// How many have a window.
    paced: usize,
    leased: usize,
    waiting: usize,
    /// Given back, and nothing for the members there are.
    aside: usize,
    last_turn: u64,
    expired: u64,
    dropped: u64,
}

/// How a group stands, for metrics and for those who manage it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Offered, and not handed out, whether held or put off. What the stream has behind [`GroupState::read_to`] is pending too.
    pub pending: usize,
    /// Handed out, and neither acknowledged nor given up; `leased`, `redelivering` and `burying` together.
    pub unacked: usize,
    /// With a member.
    pub leased: usize,
    /// Came back: they wait for their time or for a member.
    pub redelivering: usize,
    /// Given up, and not stored as dead letters yet.
    pub burying: usize,
    /// Behind an earlier one of their key.
    pub behind: usize,
    /// Members, with those that may still come back.
    pub members: usize,
    /// How many leases ended without an answer, since the start.
    pub expired: u64,
    /// How many events were given up without a dead-letter stream, since the start.
    pub dropped: u64,
}

/// The lowest sequence that is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// Which one.
    pub sequence: u64,
    /// When it was first written to a transport, if it was since the start.
    pub sent_since: Option<u64>,
}

impl GroupState {
    /// A group that starts after `floor`.
    pub fn new(settings: GroupSettings, floor: u64) -> Self {
        Self::starting(settings, Done::up_to(floor.min(MAX_SEQUENCE)), BTreeMap::new(), 0)
    }

    /// A group as [`Self::encode`] told of it. Leases are forgotten: whatever was not done is delivered again.
    pub fn restore(settings: GroupSettings, snapshot: &[u8], now: u64) -> Result<Self, SnapshotError> {
        let Saved { done, mut failures, begins } = snapshot::decode(snapshot)?;
        for failure in failures.values_mut() {
            // The clock may have been set back since: nothing waits longer than it had to when it failed.
            failure.due = failure.due.min(now.saturating_add(failure.wait));
        }
        Ok(Self { begins, ..Self::starting(settings, done, failures, now) })
    }

    fn starting(settings: GroupSettings, done: Done, failures: BTreeMap<u64, Failure>, now: u64) -> Self {
        Self {
            settings,
            clock: now,
            revision: 0,
            read_to: done.floor(),
            done,
            begins: 0,
            failures,
            held: HashMap::new(),
            keys: HashMap::new(),
            put_off: PutOff::default(),
            new: BTreeSet::new(),
            again: BTreeSet::new(),
            burying: BTreeSet::new(),
            timers: BTreeSet::new(),
            members: HashMap::new(),
            windows: BTreeSet::new(),
            eased: BTreeSet::new(),
            owing: BTreeSet::new(),
            paced: 0,
            leased: 0,
            waiting: 0,
            aside: 0,
            last_turn: 0,
            expired: 0,
            dropped: 0,
        }
    }

    /// What must survive a restart: what is done, and what failed how often. `buried` names the dead letters that are
    /// stored in the same transaction, which are done in it. Costs as much as there are ranges and failures.
    pub fn encode(&self, buried: &[u64]) -> Vec<u8> {
        let waits = |sequence: &&u64| self.burying.contains(sequence) || self.is_given_up_unread(**sequence);
        let buried = buried.iter().filter(waits);
        snapshot::encode(&self.done, &self.failures, self.begins, &buried.copied().collect())
    }

    /// Changes whenever what [`Self::encode`] tells has changed. An answer to a member, of whatever kind, may be told
    /// once what was encoded at this or a later revision is stored.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Everything up to here is done.
    pub fn floor(&self) -> u64 {
        self.done.floor()
    }

    /// First and last of what is done above the floor, ascending.
    pub fn done_above(&self) -> impl Iterator<Item = (u64, u64)> {
        self.done.ranges()
    }

    /// How many sequences up to and with this one are not done.
    pub fn open_up_to(&self, through: u64) -> u64 {
        self.done.open_in(1, through.min(MAX_SEQUENCE))
    }

    /// Up to where everything is done from this sequence on; `None` when it is not done itself.
    pub fn done_through(&self, sequence: u64) -> Option<u64> {
        self.done.contains(sequence).then(|| self.done.run_after(sequence))
    }

    /// The settings it goes by.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Goes by other settings from now on. Leases keep their deadlines and waits their times; what has failed too often
    /// by the new settings is given up, and what waits for a dead-letter stream that is no more is dropped. Costs as much
    /// as there are failures.
    pub fn set_settings(&mut self, settings: GroupSettings) {
        self.settings = settings;
        let failed: Vec<u64> = self.failures.keys().copied().collect();
        for sequence in failed {
            if let Some(Phase::Again | Phase::Waiting { .. } | Phase::Burying) = self.phase(sequence) {
                self.lift(sequence);
                self.release(sequence);
            }
        }
        self.ease_all();
    }

    /// Makes `sequence` the next to be delivered, whatever was done, and forgets leases, failures and dead letters.
    /// Members stay.
    pub fn seek(&mut self, sequence: u64) {
        let floor = sequence.saturating_sub(1).min(MAX_SEQUENCE);
        let fresh = Self::starting(self.settings.clone(), Done::up_to(floor), BTreeMap::new(), self.clock);
        let old = std::mem::replace(self, fresh);
        (self.members, self.windows, self.paced) = (old.members, old.windows, old.paced);
        self.put_off.inherit(&old.put_off);
        self.members.values_mut().for_each(Member::forget_leases);
        self.ease_all();
        self.revision = old.revision + 1;
        (self.expired, self.dropped) = (old.expired, old.dropped);
    }

    /// Events that were appended before a time, in microseconds since 1970, are nothing for this group: whoever reads for it
    /// leaves them out of what is offered. For one that begins at a time that is not yet.
    pub fn begin_at(&mut self, time: u64) {
        self.begins = time;
        self.revision += 1;
    }

    /// See [`Self::begin_at`]; 0 when there is no such time.
    pub fn begins(&self) -> u64 {
        self.begins
    }

    /// Forgets what was offered and is not done: the feed begins anew behind the floor. What failed is known still. For a
    /// group without members.
    pub fn rewind(&mut self) {
        let fresh =
            Self::starting(self.settings.clone(), self.done.clone(), std::mem::take(&mut self.failures), self.clock);
        let old = std::mem::replace(self, fresh);
        (self.members, self.windows, self.paced) = (old.members, old.windows, old.paced);
        self.begins = old.begins;
        self.put_off.inherit(&old.put_off);
        self.members.values_mut().for_each(Member::forget_leases);
        self.ease_all();
        (self.revision, self.expired, self.dropped) = (old.revision, old.expired, old.dropped);
    }

    /// Everything up to `through` is gone from the stream: done, whoever has it. Tells of how many sequences that was not
    /// true before.
    pub fn purge(&mut self, through: u64) -> u64 {
        let through = through.min(MAX_SEQUENCE);
        let lost = self.done.open_in(1, through);
        // What is put off may be long, and is not gone through one by one.
        for sequence in self.held_between(1, through.min(self.read_to)) {
            self.finish(sequence);
        }
        self.skip_put_off(1, through.min(self.read_to));
        if through > self.read_to {
            self.skip(self.read_to + 1, through);
        }
        lost
    }

    /// Lets end what has to end by now: leases, waits, and the hope for members that do not come back. Bounded: if
    /// [`Self::due`] is not later than `now` after it, there is more.
    pub fn tick(&mut self, now: u64) {
        self.clock = self.clock.max(now);
        for _ in 0..TIMERS_AT_ONCE {
            match self.timers.first() {
                Some((at, sequence)) if *at <= self.clock => self.ring(*sequence),
                _ => break,
            }
        }
        if !self.owing.is_empty() {
            self.forgive();
        }
        while let Some((_, member)) = self.windows.first().filter(|(at, _)| *at <= self.clock) {
            self.lose(*member);
        }
    }

    /// When there is something to do by time alone; `None` for never.
    pub fn due(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let window = self.windows.first().map(|(at, _)| *at);
        [timer, window].into_iter().flatten().min()
    }

    /// How the group stands.
    pub fn counts(&self) -> Counts {
        let unacked = self.unacked();
        Counts {
            pending: self.held.len() - unacked + self.put_off.events,
            unacked,
            leased: self.leased,
            redelivering: self.waiting + self.again.len(),
            burying: self.burying.len(),
            behind: self.ahead() - self.new.len() + self.put_off.events,
            members: self.members.len(),
            expired: self.expired,
            dropped: self.dropped,
        }
    }

    /// The oldest event that is not done, if any was offered.
    pub fn oldest(&self) -> Option<Oldest> {
        let sequence = self.done.floor() + 1;
        let sent_since = self.held.get(&sequence).and_then(|held| held.sent_since);
        (sequence <= self.read_to).then_some(Oldest { sequence, sent_since })
    }

    fn unacked(&self) -> usize {
        self.leased + self.waiting + self.again.len() + self.burying.len()
    }
}

/// A setting in milliseconds, at most a day whatever was set.
fn millis(setting: Duration) -> u64 {
    u64::try_from(setting.as_millis()).unwrap_or(u64::MAX).min(MAX_TIME_MS)
}
