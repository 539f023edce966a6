//! What is read of a group at work and changes nothing: what its members have.

use super::{
    active::Active,
    command::{Identity, View},
};
use crate::groups::Holding;

impl View {
    /// Shows what is asked for. Whoever asked may be gone.
    pub(super) fn of(self, group: &Active) {
        match self {
            Self::Unacked { of, answer } => {
                let unacked = of.iter().map(|identity| unacked(group, identity)).collect();
                answer.send(unacked).ok();
            }
        }
    }
}

fn unacked(group: &Active, identity: &Identity) -> Option<u64> {
    let holding = Holding::of(&group.state, group.seats.member(identity)?)?;
    Some(holding.unacked as u64)
}
