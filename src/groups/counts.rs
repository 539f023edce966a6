//! How a group stands, in numbers. Pure.

use super::backlog::Backlog;

/// How a group stands, for metrics and for those who manage it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Offered, and not handed out, whether held or put off. What the stream has behind [`super::GroupState::read_to`] is
    /// pending too.
    pub pending: usize,
    /// Handed out, and neither acknowledged nor given up; `leased`, `redelivering` and `burying` together.
    pub unacked: usize,
    /// With a member.
    pub leased: usize,
    /// Came back: they wait for their time or for a member.
    pub redelivering: usize,
    /// Given up, and not stored as dead letters yet.
    pub burying: usize,
    /// Behind an earlier one of their key.
    pub behind: usize,
    /// Members, with those that may still come back.
    pub members: usize,
    /// How many leases ended without an answer, since the start.
    pub expired: u64,
    /// How many events were given up without a dead-letter stream, since the start.
    pub dropped: u64,
}

impl Counts {
    pub(super) fn of(backlog: &Backlog, members: usize, expired: u64) -> Self {
        let (held, put_off) = (&backlog.held, backlog.put_off.len());
        let unacked = held.unacked();
        Self {
            pending: held.len() - unacked + put_off,
            unacked,
            leased: held.leased(),
            redelivering: held.redelivering(),
            burying: held.burying().len(),
            behind: held.ahead() - held.fresh() + put_off,
            members,
            expired,
            dropped: backlog.dropped,
        }
    }
}
