//! The state of a group: its backlog, and the members that have some of it. Pure.
//!
//! Whatever takes an event out of the hands of a member goes by [`GroupState::lift`], so that the backlog and the members
//! never differ about a lease.

use std::borrow::Cow;

use super::{
    backlog::Backlog,
    counts::Counts,
    done::{Done, MAX_SEQUENCE},
    failure::DeadLetter,
    feed::{Feed, StaleRead},
    held::Phase,
    member::{MemberId, Sent},
    members::Members,
    progress::Progress,
    snapshot::{self, SnapshotError},
};
use crate::model::GroupSettings;

/// A tick lets this many leases and waits end; more are left to the next one, so that none takes long.
const TIMERS_AT_ONCE: usize = 4096;
/// The failure of an event that was not acknowledged in time.
const EXPIRED: &str = "it was not acknowledged in time";

/// One group on one stream.
#[derive(Debug)]
pub struct GroupState {
    pub(super) backlog: Backlog,
    pub(super) members: Members,
    pub(super) last_turn: u64,
    expired: u64,
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
        Self::starting(settings, Progress::from(floor), 0)
    }

    /// A group as [`Self::encode`] told of it. Leases are forgotten: whatever was not done is delivered again.
    pub fn restore(settings: GroupSettings, snapshot: &[u8], now: u64) -> Result<Self, SnapshotError> {
        Ok(Self::starting(settings, Progress::restored(snapshot::decode(snapshot)?, now), now))
    }

    fn starting(settings: GroupSettings, progress: Progress, now: u64) -> Self {
        let members = Members::new(settings.max_unacked);
        Self { backlog: Backlog::new(settings, progress, now), members, last_turn: 0, expired: 0 }
    }

    /// What must survive a restart: what is done, and what failed how often. `buried` names the dead letters that are
    /// stored in the same transaction, which are done in it. Costs as much as there are ranges and failures.
    pub fn encode(&self, buried: &[u64]) -> Vec<u8> {
        self.backlog.encode(buried)
    }

    /// Changes whenever what [`Self::encode`] tells has changed. An answer to a member, of whatever kind, may be told
    /// once what was encoded at this or a later revision is stored.
    pub fn revision(&self) -> u64 {
        self.backlog.progress.revision()
    }

    /// Everything up to here is done.
    pub fn floor(&self) -> u64 {
        self.done().floor()
    }

    /// Which sequences are done.
    pub fn done(&self) -> &Done {
        self.backlog.progress.done()
    }

    /// The last sequence that was offered or passed over: the next read starts after it.
    pub fn read_to(&self) -> u64 {
        self.backlog.progress.read_to()
    }

    /// The settings it goes by.
    pub fn settings(&self) -> &GroupSettings {
        &self.backlog.settings
    }

    /// Goes by other settings from now on. Leases keep their deadlines and waits their times; what has failed too often
    /// by the new settings is given up, and what waits for a dead-letter stream that is no more is dropped. Costs as much
    /// as there are failures.
    pub fn set_settings(&mut self, settings: GroupSettings) {
        self.members.set_most(settings.max_unacked);
        self.backlog.set_settings(settings);
    }

    /// Makes `sequence` the next to be delivered, whatever was done, and forgets leases, failures and dead letters.
    /// Members stay.
    pub fn seek(&mut self, sequence: u64) {
        self.backlog.seek(sequence.saturating_sub(1));
        self.members.forget_leases();
    }

    /// Events that were appended before a time, in microseconds since 1970, are nothing for this group: whoever reads for it
    /// leaves them out of what is offered. For one that begins at a time that is not yet.
    pub fn begin_at(&mut self, time: u64) {
        self.backlog.progress.begin_at(time);
    }

    /// See [`Self::begin_at`]; 0 when there is no such time.
    pub fn begins(&self) -> u64 {
        self.backlog.progress.begins()
    }

    /// Forgets what was offered and is not done: the feed begins again behind the floor. What failed is known still. For a
    /// group without members.
    pub fn rewind(&mut self) {
        self.backlog.rewind();
        self.members.forget_leases();
    }

    /// What to read next of a stream that ends with `latest`; `None` while enough is held. It asks for few events only when it
    /// has nothing to hand out. New events and those that were put off take turns.
    pub fn feed(&self, latest: u64) -> Option<Feed> {
        self.backlog.feed(latest)
    }

    /// Takes what a read of the stream found after `after` up to `through`: the events for this group, ascending, each
    /// with the hash of its ordering key if it has one. All others up to `through` are done: filtered out, expired or
    /// gone. Events beyond the look-ahead are not taken and come with a later read; those of a key that has its share of it
    /// are put off.
    pub fn offer(
        &mut self,
        after: u64,
        events: impl IntoIterator<Item = (u64, Option<u64>)>,
        through: u64,
        now: u64,
    ) -> Result<(), StaleRead> {
        self.tick(now);
        self.backlog.offer(after, events, through)
    }

    /// Makes an event that is done or given up one to be delivered again, beginning with attempt 1. False when too many wait to
    /// be delivered. One that is neither is left where it is. It is kept until members come who want it, whatever those want
    /// that are there.
    pub fn reopen(&mut self, sequence: u64, key: Option<u64>) -> bool {
        self.backlog.reopen(sequence, key)
    }

    /// True while an event is neither done nor still to be read.
    pub fn holds(&self, sequence: u64) -> bool {
        self.backlog.held.contains(sequence)
    }

    /// Events that are held, ascending. Costs as much as there are.
    pub fn held_sequences(&self) -> Vec<u64> {
        self.backlog.held.sequences()
    }

    /// An event is not in the stream any more: it is done, whoever has it. Tells whether it had been tried, or was given
    /// back; `None` when it is not held.
    pub fn gone(&mut self, sequence: u64) -> Option<bool> {
        let was_tried = self.backlog.is_redelivery(sequence)?;
        self.finish(sequence);
        Some(was_tried)
    }

    /// An event that failed before a restart, or was given back, and was not read since, is not in the stream any more.
    /// False when it is none of these.
    pub fn gone_unread(&mut self, sequence: u64) -> bool {
        self.backlog.progress.gone_unread(sequence)
    }

    /// Everything up to `through` is gone from the stream: done, whoever has it. Tells of how many sequences that was not
    /// true before.
    pub fn purge(&mut self, through: u64) -> u64 {
        let through = through.min(MAX_SEQUENCE);
        let lost = self.done().open_up_to(through);
        // What is put off may be long, and is not gone through one by one.
        for sequence in self.backlog.held.between(1, through.min(self.read_to())) {
            self.finish(sequence);
        }
        self.backlog.purge(through);
        lost
    }

    /// Events that are given up and not [`Self::buried`], ascending. They hold back their keys until they are.
    pub fn dead_letters(&self) -> impl Iterator<Item = DeadLetter> {
        self.backlog.dead_letters()
    }

    /// Up to `most` events that were given up before a restart and are not read again yet. They are buried like
    /// [`Self::dead_letters`]. Costs as much as there are failures.
    pub fn unread_dead_letters(&self, most: usize) -> Vec<DeadLetter> {
        self.backlog.progress.unread_dead_letters(self.settings()).take(most).collect()
    }

    /// A dead letter is stored, together with what [`Self::encode`] told when it was given its sequence: it is done, and
    /// its key goes on. False when it was not waiting for that.
    pub fn buried(&mut self, sequence: u64) -> bool {
        if !self.backlog.held.burying().contains(&sequence) {
            return self.backlog.progress.buried_unread(sequence, &self.backlog.settings);
        }
        self.finish(sequence);
        true
    }

    /// Lets end what has to end by now: leases, waits, and the time in which members may come back. Bounded: if
    /// [`Self::due`] is not later than `now` after it, there is more.
    pub fn tick(&mut self, now: u64) {
        let clock = self.backlog.clock.max(now);
        self.backlog.clock = clock;
        for _ in 0..TIMERS_AT_ONCE {
            let Some(sequence) = self.backlog.held.over_by(clock) else { break };
            self.ring(sequence);
        }
        if self.members.owe_answers() {
            self.members.forgive(clock, self.backlog.ack_deadline());
        }
        while let Some(member) = self.members.lost_by(clock) {
            self.lose(member);
        }
    }

    /// The lease of an event, or its wait, ends by time. A member that is away could not say anything: its event is lost.
    fn ring(&mut self, sequence: u64) {
        match self.lift(sequence) {
            Some(Phase::Waiting { .. }) => self.backlog.held.place(sequence, Phase::Again),
            Some(Phase::Leased { member, .. }) if self.members.is_away(member) => {
                self.expired += 1;
                self.backlog.lose(sequence, false);
            }
            phase => {
                if let Some(Phase::Leased { member, sent: Some(sent) }) = phase {
                    self.members.owe(member, sent.turn, sequence, self.backlog.clock);
                }
                self.expired += 1;
                self.backlog.fail(sequence, Cow::Borrowed(EXPIRED), None);
            }
        }
    }

    /// A member is lost for good, and with it each event that was sent to it.
    pub(super) fn lose(&mut self, id: MemberId) {
        let Some(member) = self.members.remove(id) else { return };
        for sequence in member.unsent {
            self.give_back(sequence);
        }
        for sequence in member.sent.into_values() {
            self.lift(sequence);
            self.backlog.lose(sequence, false);
        }
    }

    /// When there is something to do by time alone; `None` for never.
    pub fn due(&self) -> Option<u64> {
        [self.backlog.held.due(), self.members.due()].into_iter().flatten().min()
    }

    /// How the group stands.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.backlog, self.members.len(), self.expired)
    }

    /// The oldest event that is not done, if any was offered.
    pub fn oldest(&self) -> Option<Oldest> {
        let sequence = self.floor() + 1;
        let sent_since = self.backlog.held.get(sequence).and_then(|held| held.sent_since);
        (sequence <= self.read_to()).then_some(Oldest { sequence, sent_since })
    }

    /// A member has an event from now on, wherever it was.
    pub(super) fn lease(&mut self, sequence: u64, member: MemberId, sent: Option<Sent>) {
        self.lift(sequence);
        self.backlog.held.place(sequence, Phase::Leased { member, sent });
        self.members.take(member, sequence, sent);
    }

    /// Takes an event out of its place, and out of the hands of its member; tells where it was.
    pub(super) fn lift(&mut self, sequence: u64) -> Option<Phase> {
        let phase = self.backlog.held.lift(sequence);
        if let Some(Phase::Leased { member, sent }) = phase {
            self.members.give_back(member, sequence, sent);
        }
        phase
    }

    /// An event may be handed out to others.
    pub(super) fn give_back(&mut self, sequence: u64) {
        self.lift(sequence);
        self.backlog.release(sequence);
    }

    /// An event is done.
    pub(super) fn finish(&mut self, sequence: u64) {
        self.lift(sequence);
        self.backlog.finish(sequence);
    }
}
