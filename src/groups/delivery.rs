//! Handing out: which event a member gets, and the lease that starts when it is sent. Pure.

use super::{
    GroupState, MemberId,
    held::{Phase, Sent},
    millis,
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
}

impl GroupState {
    /// True when [`Self::next`] has something for an attached member, as far as time has been told.
    pub fn is_ready(&self) -> bool {
        !self.again.is_empty() || (!self.new.is_empty() && self.may_hand_out_new())
    }

    /// The next event for a member: the lowest that comes back, or else the lowest new one, unless too many are
    /// unacknowledged. None while its window is full. The lease starts when the event is [`Self::sent`].
    pub fn next(&mut self, member: MemberId, now: u64) -> Option<Delivery> {
        self.tick(now);
        if !self.members.get(&member)?.is_attached() || self.room(member) == 0 {
            return None;
        }
        let new = || self.new.first().filter(|_| self.may_hand_out_new());
        let sequence = *self.again.first().or_else(new)?;
        self.lift(sequence);
        self.place(sequence, Phase::Leased { member, sent: None });
        let (attempt, last_failure) = match self.failures.get(&sequence) {
            Some(failure) => (failure.attempts.saturating_add(1), failure.reason.as_ref().into()),
            None => (1, Box::default()),
        };
        Some(Delivery { sequence, attempt, last_failure })
    }

    /// An event was written to the transport of its member: the lease runs from now. False when the event is not that
    /// member's to send any more, or was sent already.
    pub fn sent(&mut self, member: MemberId, sequence: u64, now: u64) -> bool {
        let unsent = Phase::Leased { member, sent: None };
        if self.phase(sequence) != Some(unsent) {
            return false;
        }
        self.tick(now);
        self.last_turn += 1;
        let deadline = self.clock.saturating_add(millis(self.settings.ack_deadline));
        self.lift(sequence);
        let sent = Sent { turn: self.last_turn, deadline, since: Some(self.clock) };
        self.place(sequence, Phase::Leased { member, sent: Some(sent) });
        if let Some(event) = self.held.get_mut(&sequence) {
            event.sent_since.get_or_insert(self.clock);
        }
        true
    }

    /// An event will not be written to the transport of its member after all: it may be handed out again. False when it
    /// is not that member's, or was sent.
    pub fn unsend(&mut self, member: MemberId, sequence: u64) -> bool {
        let unsent = self.phase(sequence) == Some(Phase::Leased { member, sent: None });
        if unsent {
            self.lift(sequence);
            self.release(sequence);
        }
        unsent
    }

    fn may_hand_out_new(&self) -> bool {
        self.unacked() < self.settings.max_unacked as usize
    }
}
