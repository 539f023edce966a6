//! What is read of a group at work and changes nothing: its members, what they have, and the events that are not done.

use super::{
    active::Active,
    command::{Identity, View},
    shown::{MemberStatus, UnackedEvent, UnackedStage, time},
};
use crate::{
    groups::{Holding, MemberId, Stage, Unacked},
    model::StreamError,
};

/// For one page at most so many sequences are looked at in one step.
const LOOKS: usize = 2048;

impl View {
    /// Shows what is asked for. Whoever asked may be gone.
    pub(super) fn show(self, group: &Active) {
        match self {
            Self::Held { of, answer } => {
                let held = of.iter().map(|identity| held(group, identity)).collect();
                answer.send(held).ok();
            }
            Self::Members { after, most, answer } => {
                answer.send(Ok(members(group, after, most))).ok();
            }
            Self::Unacked { after, most, answer } => {
                let (page, next) = Unacked::page(&group.state, after, most, LOOKS);
                let events = page.into_iter().map(|one| unacked(group, one)).collect();
                answer.send(Ok((events, next))).ok();
            }
        }
    }

    /// There is no such group.
    pub(super) fn refuse(self, error: StreamError) {
        match self {
            // That nothing comes is the answer.
            Self::Held { .. } => {}
            Self::Members { answer, .. } => drop(answer.send(Err(error))),
            Self::Unacked { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

fn held(group: &Active, identity: &Identity) -> Option<u64> {
    let holding = Holding::of(&group.state, group.seats.member(identity)?)?;
    Some(holding.unacked as u64)
}

/// The first `most` members with higher numbers, and where to go on if there are more.
fn members(group: &Active, after: u64, most: usize) -> (Vec<MemberStatus>, Option<u64>) {
    let mut numbers: Vec<u64> = group.seats.numbers().filter(|number| *number > after).collect();
    let more = numbers.len() > most;
    if more {
        numbers.select_nth_unstable(most);
        numbers.truncate(most);
    }
    numbers.sort_unstable();
    let next = numbers.last().copied().filter(|_| more);
    (numbers.into_iter().filter_map(|number| member(group, number)).collect(), next)
}

/// `None` for one that is gone.
fn member(group: &Active, number: u64) -> Option<MemberStatus> {
    let holding = Holding::of(&group.state, MemberId(number))?;
    Some(MemberStatus {
        number,
        name: group.seats.name(MemberId(number))?.clone(),
        away_until: holding.away_until.map(time),
        waiting: holding.unsent,
        unacked: holding.unacked,
        lease_ends: holding.deadline.map(time),
    })
}

fn unacked(group: &Active, one: Unacked) -> UnackedEvent {
    let name = |member| group.seats.name(member).cloned();
    let stage = match one.stage {
        Stage::Unsent(member) => UnackedStage::Assigned(name(member)),
        Stage::Sent { member, deadline } => UnackedStage::Sent { member: name(member), until: time(deadline) },
        Stage::Waiting { due } => UnackedStage::Waiting(time(due)),
        Stage::Ready => UnackedStage::Ready,
        Stage::Burying => UnackedStage::Burying,
    };
    UnackedEvent { sequence: one.sequence, attempt: one.attempt, failure: one.failure, stage }
}
