//! Deliveries that another owner of the group has handed out, to members who are here now. Pure.

use super::{backlog::Backlog, failure::Failure, held::Phase, member::MemberId, state::GroupState};
use crate::model::limits::MAX_TIME_MS;

impl GroupState {
    /// Takes over an event that another owner handed out to a member as this attempt, under a lease that ends then: it is with the
    /// member as if it had been sent from here, and what comes behind it of its key waits for it. For a group that was restored:
    /// after an event was offered and before anything is handed out, in the order in which events were sent.
    ///
    /// False when there is nothing to take over: the event is done, given up, not offered yet or with a member already, the member
    /// has not joined, or an attempt as late as that has failed since.
    pub fn adopt(&mut self, member: MemberId, sequence: u64, attempt: u32, deadline: u64) -> bool {
        if !self.has_member(member) || !self.backlog.reach(sequence, attempt) {
            return false;
        }
        let deadline = deadline.min(self.backlog.clock.saturating_add(MAX_TIME_MS));
        self.write(sequence, member, deadline, None);
        true
    }
}

impl Backlog {
    /// Makes this attempt at an event the next. False when the event is with somebody, done or given up, or when an attempt as
    /// late has failed since.
    fn reach(&mut self, sequence: u64, attempt: u32) -> bool {
        let before = self.progress.failure(sequence);
        let failed = before.map_or(0, |failure| failure.attempts);
        let is_free = match self.held.phase(sequence) {
            None | Some(Phase::Leased { .. } | Phase::Burying) => false,
            Some(Phase::Behind | Phase::New | Phase::Again | Phase::Waiting { .. } | Phase::Aside) => true,
        };
        if !is_free || attempt <= failed {
            return false;
        }
        if attempt - 1 > failed {
            // These failed at the other owner, which had not stored it.
            let failure = Failure::elsewhere(before, attempt - 1, self.clock);
            self.progress.fail(sequence, failure);
        }
        true
    }
}
