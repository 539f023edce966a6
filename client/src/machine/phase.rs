//! Where the session of a client is, and what its driver is to do about it. Pure.

use std::time::Duration;

use super::news::Moment;
use crate::error::Error;

/// How long the hub may take to end a session that is half-closed and has no subscriptions.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Where the session is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Nobody drives it.
    Idle,
    Waiting(Moment),
    /// The driver connects.
    Opening,
    /// It has connected, and waits for `welcome`.
    Greeting,
    Up {
        since: Moment,
    },
    Over(Result<(), Error>),
}

/// What the driver does next where there is no session.
#[derive(Debug)]
pub(crate) enum Plan {
    /// To wait: until then, or until a handle rings.
    Rest(Moment),
    /// To open a session with this hub.
    Open(String),
    /// Nothing any more.
    Stop(Result<(), Error>),
}

/// What the driver does next where there is a session.
#[derive(Debug)]
pub(crate) struct Turn {
    /// It leaves the session, for this reason.
    pub(crate) cut: Option<Loss>,
    /// It writes.
    pub(crate) writes: bool,
    /// It asks the source for a token for this session.
    pub(crate) fetch: Option<u64>,
    /// It writes nothing any more.
    pub(crate) half_closes: bool,
    /// It comes back at this time at the latest.
    pub(crate) wake_at: Moment,
}

/// Why there is no session, or none any longer.
#[derive(Debug)]
pub(crate) enum Loss {
    /// The call failed, or the connection could not be made.
    Failed(Error),
    /// The hub ended the call with OK.
    Ended,
    /// Nothing came for too long.
    Silent,
    /// This client left, because the hub asked for it.
    Left,
}

/// The session is to end, as its hub has announced.
#[derive(Debug)]
pub(super) struct Draining {
    /// How long the hub asks to wait then.
    pub(super) delay: Option<Duration>,
}

/// A client that its user drains.
#[derive(Debug)]
pub(super) struct Closing {
    /// It ends then, whatever is left.
    pub(super) until: Moment,
    /// Since when nothing more is written.
    pub(super) half_closed: Option<Moment>,
}

impl Closing {
    /// When it is over, whatever is left.
    pub(super) fn over_at(&self) -> Moment {
        self.half_closed.map_or(self.until, |since| self.until.min(since.saturating_add(LAST_PATIENCE)))
    }

    /// Nothing is to come any more.
    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed.is_some()
    }
}
