//! What members say about the events they were sent. Pure.

use super::{
    GroupState, MemberId,
    failure::shortened,
    held::{Phase, Sent},
    millis,
};
use crate::model::limits::MAX_TIME_MS;

/// What a member says about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Ack,
    /// The attempt failed.
    Nack {
        /// When to try again, in milliseconds from now; `None` for the group's backoff.
        delay: Option<u64>,
        /// Why.
        reason: Box<str>,
    },
    /// It needs more time.
    Extend {
        /// How much, in milliseconds from now; `None` for the group's ack deadline.
        delay: Option<u64>,
    },
    /// No attempt will ever succeed.
    Reject {
        /// Why.
        reason: Box<str>,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was done as told.
    Applied,
    /// The event was done already, and nothing has changed.
    AlreadyDone,
    /// Too late: the lease is over, and the event may be with another member.
    Expired,
    /// The event was not delivered, as far as the hub remembers.
    NotDelivered,
}

/// What became of an outcome for all events sent up to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpTo {
    /// The answer for the event that was named. Nothing is done for the others unless it is [`Answer::Applied`], or
    /// [`Answer::AlreadyDone`] because the member settled that event before the others.
    pub answer: Answer,
    /// To how many events it was applied.
    pub applied: usize,
}

impl GroupState {
    /// Applies what a member says about one event. Saying it twice does no more than saying it once.
    pub fn acknowledge(&mut self, member: MemberId, sequence: u64, outcome: &Outcome, now: u64) -> Answer {
        self.tick(now);
        self.hear(member, sequence);
        let answer = self.judge(member, sequence, outcome);
        if answer == Answer::Applied {
            self.apply(sequence, outcome);
        }
        answer
    }

    /// Applies what a member says about an event and all that were sent to it before that one and that it still has.
    /// *Before* is in the order of sending: an event that came back and was sent later is not meant, however low.
    pub fn acknowledge_up_to(&mut self, member: MemberId, sequence: u64, outcome: &Outcome, now: u64) -> UpTo {
        self.tick(now);
        self.hear(member, sequence);
        let answer = self.judge(member, sequence, outcome);
        let known = self.members.get(&member);
        let turn = match (answer, self.sent_to(sequence)) {
            (Answer::Applied, sent) => sent.map(|(_, turn)| turn),
            (Answer::AlreadyDone, _) => known.and_then(|member| member.turn_of_settled(sequence)),
            _ => None,
        };
        let sequences = match (known, turn) {
            (Some(member), Some(turn)) => member.sent_up_to(turn),
            _ if answer == Answer::Applied => vec![sequence],
            _ => Vec::new(),
        };
        for sequence in &sequences {
            self.apply(*sequence, outcome);
        }
        UpTo { answer, applied: sequences.len() }
    }

    /// What an outcome would be answered.
    fn judge(&self, member: MemberId, sequence: u64, outcome: &Outcome) -> Answer {
        let Some(event) = self.held.get(&sequence) else {
            return if self.done.contains(sequence) { Answer::AlreadyDone } else { Answer::NotDelivered };
        };
        match (event.phase, outcome) {
            (Phase::Leased { member: lessee, .. }, _) if lessee == member => Answer::Applied,
            (Phase::Burying, Outcome::Reject { .. }) => Answer::AlreadyDone,
            _ if event.sent_since.is_some() || self.has_failed(sequence) => Answer::Expired,
            _ => Answer::NotDelivered,
        }
    }

    /// To whom an event was sent that is leased, and in which turn.
    pub(super) fn sent_to(&self, sequence: u64) -> Option<(MemberId, u64)> {
        match self.phase(sequence) {
            Some(Phase::Leased { member, sent: Some(sent) }) => Some((member, sent.turn)),
            _ => None,
        }
    }

    fn apply(&mut self, sequence: u64, outcome: &Outcome) {
        let sent = self.sent_to(sequence).filter(|_| matches!(outcome, Outcome::Ack | Outcome::Reject { .. }));
        if let Some(Phase::Leased { member, sent: Some(Sent { since, .. }) }) = self.phase(sequence)
            && !matches!(outcome, Outcome::Extend { .. })
        {
            self.measure(member, since);
        }
        match outcome {
            Outcome::Ack => self.finish(sequence),
            Outcome::Nack { delay, reason } => self.fail(sequence, shortened(reason), *delay),
            Outcome::Extend { delay } => self.extend(sequence, *delay),
            Outcome::Reject { reason } => self.reject(sequence, shortened(reason)),
        }
        if let Some((member, turn)) = sent
            && let Some(member) = self.members.get_mut(&member)
        {
            member.settle(turn, sequence);
        }
    }

    /// Moves the end of a lease. One that does not run yet starts in full when the event is sent.
    fn extend(&mut self, sequence: u64, delay: Option<u64>) {
        let Some(Phase::Leased { member, sent: Some(sent) }) = self.phase(sequence) else { return };
        let more = delay.unwrap_or_else(|| millis(self.settings.ack_deadline)).min(MAX_TIME_MS);
        let deadline = self.clock.saturating_add(more);
        self.lift(sequence);
        self.place(sequence, Phase::Leased { member, sent: Some(Sent { deadline, since: None, ..sent }) });
    }
}
