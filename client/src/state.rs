//! What a user can know of a client at any time: its state, and what it has counted. Pure.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::error::Error;

/// What a client is doing.
///
/// `Idle -> Connecting -> Up -> Draining -> Waiting -> Connecting`, and so on for ever. `Up` goes to `Waiting` when the
/// session is lost. `Closing -> Closed` is the caller's doing, and `Failed` is for errors that trying again cannot mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Nobody runs it yet.
    Idle,
    /// It opens a session.
    Connecting,
    /// It has a session.
    Up,
    /// It has a session whose hub asked it to go elsewhere. Everything still works.
    Draining,
    /// It has no session, and waits before it tries again.
    Waiting,
    /// It finishes what was begun, because its user drains it.
    Closing,
    /// It is over, as its user wanted.
    Closed,
    /// It is over, and the reason says why: trying again would not help.
    Failed,
}

impl State {
    /// True when nothing comes any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Waiting => "waiting",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Failed => "failed",
        })
    }
}

/// The state of a client, and how it came to be in it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Why it is in this state, if there is more to say: what ended the last session, or failed the client.
    pub reason: Option<Error>,
    /// The hub it is connected to, connects to, or was connected to. Empty before the first attempt.
    pub address: String,
    /// The session it has, or had last, as the hub names it in its logs. Empty before the first.
    pub session_id: String,
    /// How many attempts to open a session were made since one was open.
    pub attempt: u32,
}

impl Status {
    /// Of a client that nobody runs yet.
    pub(crate) fn idle() -> Self {
        Self { state: State::Idle, reason: None, address: String::new(), session_id: String::new(), attempt: 0 }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if !self.address.is_empty() {
            write!(f, " at {}", self.address)?;
        }
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// What a client has counted, and what it has in hand now.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// How many sessions were opened.
    pub sessions: u64,
    /// How many attempts failed or sessions ended, by reason: the hub's, or the code of gRPC.
    pub losses: BTreeMap<String, u64>,
    /// How long ago the last frame of the current session came; `None` without a session.
    pub since_last_frame: Option<Duration>,
    /// How many subscriptions there are.
    pub subscriptions: usize,
    /// Events that this client holds: those that were not taken, and those of groups that are not settled.
    pub events_in_hand: u64,
    /// Their bytes.
    pub bytes_in_hand: u64,
    /// Acknowledgements that the hub has not answered.
    pub unanswered_acknowledgements: usize,
    /// Events that wait to be published, or for the answer.
    pub queued_publishes: usize,
    /// Events of those that were written and are not answered.
    pub unanswered_publishes: usize,
    /// How often something was refused that was only sent: a single event, or all that went in one frame.
    pub refused_sends: u64,
    /// How often a subscription had to stop the hub because its window was full.
    pub full_windows: u64,
}

/// How a client is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// What the application has is awaited: batches that are dropped or done, events that are settled.
    Finish,
    /// What the application has of groups is given back at once, without a failed attempt; what it says of it later has no
    /// effect. Acknowledgements and publishes are still flushed.
    Release,
}

/// What was left when a client was drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Batches that the application had, and events of groups that it had not settled.
    pub events: usize,
    /// Acknowledgements that the hub has not answered.
    pub acknowledgements: usize,
    /// Events that were sent to be published, and not answered: they may be published.
    pub unknown_publishes: usize,
    /// Events that were never sent: they are not published.
    pub unsent_publishes: usize,
}

impl Left {
    /// True when nothing was left.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
