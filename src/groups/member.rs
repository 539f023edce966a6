//! The members of a group, and what happens to their leases when they go. Pure.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    GroupState,
    held::{Phase, Sent},
    window::Window,
};

/// The failure of an event whose member did not come back.
const LOST: &str = "the member it was delivered to was lost";

/// Of so many that a member settled before others is remembered when they were sent.
const MOST_SETTLED: usize = 1024;

/// Names a member. The caller chooses it, and never one that was another's: a client that comes back is a new member, which
/// [succeeds](GroupState::succeed) the one it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// What one member has.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Handed out, and not written to the transport yet.
    unsent: BTreeSet<u64>,
    /// By turn: sequences do not rise when some are delivered again.
    sent: BTreeMap<u64, u64>,
    /// By turn: what it settled before some that it was sent earlier. An acknowledgement up to one of these means them.
    settled: BTreeMap<u64, u64>,
    /// Without a transport, and until when another may succeed it.
    detached_until: Option<u64>,
    /// How many it may have; `None` for one whose client says so itself, by credit.
    pub(super) window: Option<Window>,
    /// By turn: what it was sent and has said nothing of, though the lease is over. Only with a window, and no more than that.
    pub(super) owed: BTreeMap<u64, u64>,
    /// When it last said something, or the last lease ended.
    pub(super) heard: u64,
}

impl Member {
    pub(super) fn is_attached(&self) -> bool {
        self.detached_until.is_none()
    }

    pub(super) fn take(&mut self, sequence: u64, sent: Option<Sent>) {
        match sent {
            Some(sent) => {
                self.sent.insert(sent.turn, sequence);
            }
            None => {
                self.unsent.insert(sequence);
            }
        }
    }

    pub(super) fn give_back(&mut self, sequence: u64, sent: Option<Sent>) {
        match sent {
            Some(sent) => {
                self.sent.remove(&sent.turn);
                let first = self.sent.first_key_value().map_or(u64::MAX, |(turn, _)| *turn);
                while self.settled.first_key_value().is_some_and(|(turn, _)| *turn < first) {
                    self.settled.pop_first();
                }
            }
            None => {
                self.unsent.remove(&sequence);
            }
        }
    }

    /// It has nothing more to say about an event that it has no more.
    pub(super) fn settle(&mut self, turn: u64, sequence: u64) {
        if self.sent.first_key_value().is_some_and(|(first, _)| *first < turn) {
            self.settled.insert(turn, sequence);
            if self.settled.len() > MOST_SETTLED {
                self.settled.pop_first();
            }
        }
    }

    /// When an event was sent that it settled before some that it was sent earlier.
    pub(super) fn turn_of_settled(&self, sequence: u64) -> Option<u64> {
        self.settled.iter().rev().find(|(_, settled)| **settled == sequence).map(|(turn, _)| *turn)
    }

    /// What was sent to it up to a turn, in that order.
    pub(super) fn sent_up_to(&self, turn: u64) -> Vec<u64> {
        self.sent.range(..=turn).map(|(_, sequence)| *sequence).collect()
    }

    pub(super) fn leases(&self) -> usize {
        self.unsent.len() + self.sent.len()
    }

    pub(super) fn forget_leases(&mut self) {
        self.unsent.clear();
        self.sent.clear();
        self.settled.clear();
        self.owed.clear();
    }
}

impl GroupState {
    /// A member joins. One that is there stays as it is.
    pub fn join(&mut self, id: MemberId) {
        self.members.entry(id).or_default();
    }

    /// A member goes on as another, which joins with that if it has not yet: it has the leases of what was sent, whether or
    /// not the first had lost its transport. What was not sent goes back.
    pub fn succeed(&mut self, old: MemberId, new: MemberId) {
        self.join(new);
        let Some(member) = (old != new).then(|| self.forget(old)).flatten() else { return };
        if let (Some(window), Some(successor)) = (member.window, self.members.get_mut(&new)) {
            // What it has would have been sent to it, too.
            successor.window = successor.window.map(|_| window);
        }
        for sequence in member.unsent {
            self.lift(sequence);
            self.release(sequence);
        }
        for sequence in member.sent.into_values() {
            let Some(Phase::Leased { sent, .. }) = self.phase(sequence) else { continue };
            self.lift(sequence);
            self.place(sequence, Phase::Leased { member: new, sent });
        }
    }

    /// A member goes in good order: what it has may be handed out at once, and no attempt has failed.
    pub fn leave(&mut self, id: MemberId) {
        let Some(member) = self.forget(id) else { return };
        for sequence in member.unsent.into_iter().chain(member.sent.into_values()) {
            self.lift(sequence);
            self.release(sequence);
        }
    }

    /// The transport of a member is lost. What was sent stays with it for `window` milliseconds, in which another
    /// may succeed it; the rest goes back at once.
    pub fn detach(&mut self, id: MemberId, window: u64, now: u64) {
        self.tick(now);
        let Some(member) = self.members.get_mut(&id).filter(|member| member.is_attached()) else { return };
        if member.sent.is_empty() {
            self.leave(id);
            return;
        }
        let until = self.clock.saturating_add(window);
        member.detached_until = Some(until);
        self.windows.insert((until, id));
        for sequence in std::mem::take(&mut member.unsent) {
            self.lift(sequence);
            self.release(sequence);
        }
    }

    /// A member is lost for good: for each event that was sent to it, an attempt has failed.
    pub fn die(&mut self, id: MemberId, now: u64) {
        self.tick(now);
        self.lose(id);
    }

    /// See [`Self::die`].
    pub(super) fn lose(&mut self, id: MemberId) {
        let Some(member) = self.forget(id) else { return };
        for sequence in member.unsent {
            self.lift(sequence);
            self.release(sequence);
        }
        for sequence in member.sent.into_values() {
            self.fail(sequence, Cow::Borrowed(LOST), None);
        }
    }

    /// True while the member is known, attached or not.
    pub fn has_member(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    /// True while a member has events that are not done.
    pub fn has_leases(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| member.leases() > 0)
    }

    fn forget(&mut self, id: MemberId) -> Option<Member> {
        let member = self.members.remove(&id)?;
        if let Some(until) = member.detached_until {
            self.windows.remove(&(until, id));
        }
        self.eased.remove(&id);
        self.owing.remove(&id);
        self.paced -= usize::from(member.window.is_some());
        self.ease_those_who_share();
        Some(member)
    }
}
