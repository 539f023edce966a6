//! Members that come and go, and what happens to their leases when they do. Pure.

use super::{
    member::MemberId,
    outcome::{Answer, Outcome},
    state::GroupState,
};

impl GroupState {
    /// A member joins. One that is there stays as it is.
    pub fn join(&mut self, id: MemberId) {
        self.members.join(id);
    }

    /// From now on a member has no more events than it seems to work through in time. For one that grants no credit.
    pub fn pace(&mut self, id: MemberId) {
        self.members.pace(id);
    }

    /// Members that may have more events than they could since the last call.
    pub fn take_eased(&mut self) -> impl Iterator<Item = MemberId> + use<> {
        self.members.take_eased().into_iter()
    }

    /// A member goes on as another, which joins with that if it has not yet, whether or not the first had lost its transport.
    /// One that says which events it `holds`, ascending, has the leases of those, and of no others; one that does not has
    /// all that was sent. Leases keep their deadlines. The rest goes back at once: nobody knows whether it ever came. The one
    /// that was about to come is lost, as it may be what broke the transport. True when the first was still a member.
    pub fn succeed(&mut self, old: MemberId, new: MemberId, holds: Option<&[u64]>, now: u64) -> bool {
        self.tick(now);
        self.join(new);
        let Some(member) = (old != new).then(|| self.members.remove(old)).flatten() else { return false };
        self.members.inherit_window(new, member.window);
        let is_held = |sequence: u64| holds.is_none_or(|holds| holds.binary_search(&sequence).is_ok());
        let suspect = member.next_to_read(is_held);
        for sequence in member.sent.into_values() {
            match self.backlog.held.sent_to(sequence).filter(|_| is_held(sequence)) {
                Some((_, sent)) => {
                    self.lease(sequence, new, Some(sent));
                }
                None if suspect == Some(sequence) => {
                    self.lift(sequence);
                    self.backlog.lose(sequence, true);
                }
                None => self.give_back(sequence),
            }
        }
        for sequence in member.unsent {
            if holds.is_some() && is_held(sequence) {
                // It was sent, and whoever wrote it has not said so yet.
                self.lease(sequence, new, None);
                self.sent(new, sequence, now);
            } else {
                self.give_back(sequence);
            }
        }
        true
    }

    /// True for an event that a member has, or that is done: its acknowledgement is taken.
    pub fn may_acknowledge(&self, member: MemberId, sequence: u64) -> bool {
        matches!(self.backlog.judge(member, sequence, &Outcome::Ack), Answer::Applied | Answer::AlreadyDone)
    }

    /// A member goes in good order: what it has may be handed out at once, and no attempt has failed.
    pub fn leave(&mut self, id: MemberId) {
        let Some(member) = self.members.remove(id) else { return };
        for sequence in member.unsent.into_iter().chain(member.sent.into_values()) {
            self.give_back(sequence);
        }
    }

    /// The transport of a member is lost. What was sent stays with it for `window` milliseconds, in which another
    /// may succeed it; the rest goes back at once.
    pub fn detach(&mut self, id: MemberId, window: u64, now: u64) {
        self.tick(now);
        let Some(member) = self.members.get(id).filter(|member| member.is_attached()) else { return };
        if member.sent.is_empty() {
            self.leave(id);
            return;
        }
        for sequence in self.members.detach(id, self.backlog.clock.saturating_add(window)) {
            self.give_back(sequence);
        }
    }

    /// A member is lost for good, and with it each event that was sent to it: what is lost too often has failed.
    pub fn die(&mut self, id: MemberId, now: u64) {
        self.tick(now);
        self.lose(id);
    }

    /// True while the member is known, attached or not.
    pub fn has_member(&self, id: MemberId) -> bool {
        self.members.get(id).is_some()
    }

    /// True while a member has events that are not done.
    pub fn has_leases(&self, id: MemberId) -> bool {
        self.members.get(id).is_some_and(|member| member.leases() > 0)
    }
}
