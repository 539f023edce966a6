//! What members say about the events they were sent. Pure.

use super::{
    failure::shortened,
    member::{MemberId, Sent},
    outcome::{Answer, Outcome, UpTo},
    state::GroupState,
};
use crate::model::limits::MAX_TIME_MS;

impl GroupState {
    /// Applies what a member says about one event. Saying it twice does no more than saying it once.
    pub fn acknowledge(&mut self, member: MemberId, sequence: u64, outcome: &Outcome, now: u64) -> Answer {
        self.tick(now);
        self.hear(member, sequence);
        let answer = self.backlog.judge(member, sequence, outcome);
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
        let answer = self.backlog.judge(member, sequence, outcome);
        let known = self.members.get(member);
        let turn = match answer {
            Answer::Applied => self.backlog.held.sent_to(sequence).map(|(_, sent)| sent.turn),
            Answer::AlreadyDone => known.and_then(|member| member.turn_of_settled(sequence)),
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

    /// A member says something of an event: it is done with what it was sent before that.
    fn hear(&mut self, id: MemberId, sequence: u64) {
        let leased = self.backlog.held.sent_to(sequence).filter(|(member, _)| *member == id);
        self.members.hear(id, sequence, leased.map(|(_, sent)| sent.turn), self.backlog.clock);
    }

    fn apply(&mut self, sequence: u64, outcome: &Outcome) {
        let sent = self.backlog.held.sent_to(sequence);
        if let Some((member, sent)) = sent
            && !matches!(outcome, Outcome::Extend { .. })
        {
            let (now, deadline) = (self.backlog.clock, self.backlog.ack_deadline());
            self.members.measure(member, sent.since, now, deadline);
        }
        match outcome {
            Outcome::Ack => self.finish(sequence),
            Outcome::Nack { delay, reason } => {
                self.lift(sequence);
                self.backlog.fail(sequence, shortened(reason), *delay);
            }
            Outcome::Extend { delay } => self.extend(sequence, *delay),
            Outcome::Reject { reason } => {
                self.lift(sequence);
                self.backlog.reject(sequence, shortened(reason));
            }
        }
        if let (Some((member, sent)), Outcome::Ack | Outcome::Reject { .. }) = (sent, outcome) {
            self.members.settle(member, sent.turn, sequence);
        }
    }

    /// Moves the end of a lease. One that does not run yet starts in full when the event is sent.
    fn extend(&mut self, sequence: u64, delay: Option<u64>) {
        let Some((member, sent)) = self.backlog.held.sent_to(sequence) else { return };
        let more = delay.unwrap_or_else(|| self.backlog.ack_deadline()).min(MAX_TIME_MS);
        let deadline = self.backlog.clock.saturating_add(more);
        self.lease(sequence, member, Some(Sent { deadline, since: None, ..sent }));
    }
}
