//! What one member has: a view for those who list members. Pure.

use super::{member::MemberId, state::GroupState};

/// What one member has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Events that were handed out to it and are not written to its transport yet.
    pub unsent: usize,
    /// Events that were sent to it, and that it has yet to acknowledge.
    pub unacked: usize,
    /// When the lease of the one of these ends that was sent first.
    pub deadline: Option<u64>,
    /// Without a transport, and until when another may succeed it.
    pub away_until: Option<u64>,
}

impl Holding {
    /// What a member of a group has; `None` for one that is none.
    pub fn of(state: &GroupState, member: MemberId) -> Option<Self> {
        let member = state.members.get(member)?;
        let first = member.sent.first_key_value().and_then(|(_, sequence)| state.backlog.held.sent_to(*sequence));
        Some(Self {
            unsent: member.unsent.len(),
            unacked: member.sent.len(),
            deadline: first.map(|(_, sent)| sent.deadline),
            away_until: member.detached_until,
        })
    }
}
