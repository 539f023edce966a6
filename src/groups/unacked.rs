//! The events of a group that were handed out and are not done: a view for those who list them. Pure.

use super::{held::Phase, member::MemberId, state::GroupState};

/// An event that was handed out and is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unacked {
    /// Which event.
    pub sequence: u64,
    /// Which attempt it is at, or waits for; how many have failed of one that is given up.
    pub attempt: u32,
    /// Why the last attempt failed; empty when none has.
    pub failure: Box<str>,
    /// Where it is.
    pub stage: Stage,
}

/// Where an event is that was handed out and is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// With a member, and not written to its transport yet.
    Unsent(MemberId),
    /// With a member, under a lease that ends at `deadline`.
    Sent {
        /// Whose.
        member: MemberId,
        /// When the lease ends.
        deadline: u64,
    },
    /// It failed, and is tried again after `due`.
    Waiting {
        /// When.
        due: u64,
    },
    /// It came back, and waits for a member that takes it.
    Ready,
    /// It is given up, and not stored as a dead letter yet.
    Burying,
}

impl Unacked {
    /// The first `most` of a group that come after a sequence, and where to go on if there may be more. Looks at no more than
    /// `looks` sequences that are not done, so that there may be few, or none, and yet more.
    pub fn page(state: &GroupState, after: u64, most: usize, mut looks: usize) -> (Vec<Self>, Option<u64>) {
        let (done, read_to) = (state.backlog.progress.done(), state.read_to());
        let (mut found, mut at) = (Vec::new(), after.min(read_to));
        loop {
            let next = done.run_after(at) + 1;
            if next > read_to {
                return (found, None);
            }
            if looks == 0 {
                return (found, Some(at));
            }
            looks -= 1;
            if let Some(one) = Self::of(state, next) {
                if found.len() == most {
                    return (found, Some(at));
                }
                found.push(one);
            }
            at = next;
        }
    }

    fn of(state: &GroupState, sequence: u64) -> Option<Self> {
        let stage = match state.backlog.held.phase(sequence)? {
            Phase::Behind | Phase::New | Phase::Aside => return None,
            Phase::Leased { member, sent: None } => Stage::Unsent(member),
            Phase::Leased { member, sent: Some(sent) } => Stage::Sent { member, deadline: sent.deadline },
            Phase::Waiting { due } => Stage::Waiting { due },
            Phase::Again => Stage::Ready,
            Phase::Burying => Stage::Burying,
        };
        let failure = state.backlog.progress.failure(sequence);
        let failed = failure.map_or(0, |failure| failure.attempts);
        let next = u32::from(stage != Stage::Burying);
        Some(Self {
            sequence,
            attempt: failed.saturating_add(next),
            failure: failure.map_or_else(Box::default, |failure| failure.reason.as_ref().into()),
            stage,
        })
    }
}
