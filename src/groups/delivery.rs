//! Handing out: which event a member gets, and the lease that starts when it is sent. Pure.

use super::{
    backlog::Backlog,
    held::Phase,
    member::{MemberId, Sent},
    state::GroupState,
};

/// One event for one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Which event.
    pub sequence: u64,
    /// 1 for the first attempt; one more for each that failed.
    pub attempt: u32,
    /// Why the attempt before failed; empty for the first.
    pub last_failure: Box<str>,
    /// It was sent to a member before, as far as is known: that it was is not stored before it failed or was lost.
    pub redelivered: bool,
}

impl Delivery {
    fn of(backlog: &Backlog, sequence: u64) -> Self {
        let failure = backlog.progress.failure(sequence);
        let (attempt, last_failure) = match failure {
            Some(failure) => (failure.attempts.saturating_add(1), failure.reason.as_ref().into()),
            None => (1, Box::default()),
        };
        Self { sequence, attempt, last_failure, redelivered: backlog.is_redelivery(sequence) == Some(true) }
    }
}

impl GroupState {
    /// True when [`Self::next`] has something for an attached member, as far as time has been told.
    pub fn is_ready(&self) -> bool {
        self.backlog.next().is_some()
    }

    /// The next event for a member: the lowest that comes back, or else the lowest new one, unless too many are
    /// unacknowledged. None while its window is full. The lease starts when the event is [`Self::sent`].
    pub fn next(&mut self, member: MemberId, now: u64) -> Option<Delivery> {
        self.tick(now);
        if !self.members.get(member)?.is_attached() || self.room(member) == 0 {
            return None;
        }
        let sequence = self.backlog.next()?;
        self.lease(sequence, member, None);
        Some(Delivery::of(&self.backlog, sequence))
    }

    /// An event was written to the transport of its member: the lease runs from now. False when the event is not that
    /// member's to send any more, or was sent already.
    pub fn sent(&mut self, member: MemberId, sequence: u64, now: u64) -> bool {
        if !self.is_unsent(member, sequence) {
            return false;
        }
        self.tick(now);
        let clock = self.backlog.clock;
        self.write(sequence, member, clock.saturating_add(self.backlog.ack_deadline()), Some(clock));
        true
    }

    /// An event is with a member from now on, which was sent it after all others that it has.
    pub(super) fn write(&mut self, sequence: u64, member: MemberId, deadline: u64, since: Option<u64>) {
        self.last_turn += 1;
        self.lease(sequence, member, Some(Sent { turn: self.last_turn, deadline, since }));
        self.backlog.held.mark_sent(sequence, self.backlog.clock);
    }

    /// An event will not be written to the transport of its member after all: it may be handed out again. False when it
    /// is not that member's, or was sent.
    pub fn unsend(&mut self, member: MemberId, sequence: u64) -> bool {
        let unsent = self.is_unsent(member, sequence);
        if unsent {
            self.give_back(sequence);
        }
        unsent
    }

    /// How many more events a member may have, as far as its window goes.
    pub fn room(&self, member: MemberId) -> usize {
        self.members.room(member)
    }

    fn is_unsent(&self, member: MemberId, sequence: u64) -> bool {
        self.backlog.held.phase(sequence) == Some(Phase::Leased { member, sent: None })
    }
}
