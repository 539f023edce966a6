//! Deliveries that another owner of the group has handed out, to members who are here now. Pure.

use super::{
    failure::Failure,
    held::Phase,
    member::{MemberId, Sent},
    state::GroupState,
};
use crate::model::limits::MAX_TIME_MS;

impl GroupState {
    /// Takes over an event that another owner handed out to a member as this attempt, under a lease that ends then: it is with the
    /// member as if it had been sent from here, and what comes behind it of its key waits for it. For a group that was restored:
    /// after an event was offered and before anything is handed out, in the order in which events were sent.
    ///
    /// False when there is nothing to take over: the event is done, given up, not offered yet or with a member already, the member
    /// has not joined, or an attempt as late as that has failed since.
    pub fn adopt(&mut self, member: MemberId, sequence: u64, attempt: u32, deadline: u64) -> bool {
        let before = self.backlog.progress.failure(sequence);
        let failed = before.map_or(0, |failure| failure.attempts);
        let is_free = match self.backlog.held.phase(sequence) {
            None | Some(Phase::Leased { .. } | Phase::Burying) => false,
            Some(Phase::Behind | Phase::New | Phase::Again | Phase::Waiting { .. } | Phase::Aside) => true,
        };
        if !is_free || attempt <= failed || !self.has_member(member) {
            return false;
        }
        if attempt - 1 > failed {
            // These failed at the other owner, which had not stored it.
            let failure = Failure::elsewhere(before, attempt - 1, self.backlog.clock);
            self.backlog.progress.fail(sequence, failure);
        }
        self.lift(sequence);
        self.last_turn += 1;
        let (turn, now) = (self.last_turn, self.backlog.clock);
        let deadline = deadline.min(now.saturating_add(MAX_TIME_MS));
        self.lease(sequence, member, Some(Sent { turn, deadline, since: None }));
        self.backlog.held.mark_sent(sequence, now);
        true
    }
}
