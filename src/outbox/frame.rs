//! What can be sent to a client, as values. `edge/wire/frames.rs` gives them their wire form.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    event::Event,
    model::{AckError, Alternatives, CommandError, Durability, End, EventError, Grant, Origin, Position},
};

/// A frame that is not events, and the request it answers (0 for none).
#[derive(Debug)]
pub struct Reply {
    /// The client's `request_id`, or 0.
    pub request_id: i64,
    /// What to tell.
    pub frame: Frame,
}

/// What to tell a client.
#[derive(Debug)]
pub enum Frame {
    /// Who the client is talking to.
    Welcome(Arc<Welcome>),
    /// A subscription is open, or was updated.
    Subscribed(Subscribed),
    /// A subscription is over.
    Ended {
        /// Which one.
        subscription_id: i64,
        /// Why.
        end: End,
        /// How far it came in its stream; `None` for a live one.
        position: Option<Position>,
    },
    /// Events a subscription will not get.
    Gap {
        /// Which one.
        subscription_id: i64,
        /// What is lost.
        gap: Gap,
    },
    /// How far a subscription from a stream has come.
    Progress {
        /// Which one.
        subscription_id: i64,
        /// Everything up to here was sent or passed over.
        position: Position,
        /// The last sequence that the stream was known to have.
        latest: u64,
    },
    /// The result of every event of a publish.
    Published(Vec<Published>),
    /// What became of acknowledgements.
    Acknowledged {
        /// Of which subscription.
        subscription_id: i64,
        /// One result per sequence.
        results: Vec<Acked>,
    },
    /// A command failed.
    Error {
        /// What stands before the fields of the command, such as `update.`.
        field_path: &'static str,
        /// Why.
        error: Box<CommandError>,
    },
    /// The credential of the client will expire.
    CredentialExpiring {
        /// When.
        deadline: SystemTime,
    },
    /// The hub is shutting down.
    Draining {
        /// When the hub ends the session.
        deadline: SystemTime,
        /// How long the client is asked to wait before it connects again.
        reconnect_delay: Duration,
        /// Where else it may connect.
        alternatives: Alternatives,
    },
    /// Nothing else was sent for a while.
    Heartbeat(SystemTime),
    /// The answer to a ping.
    Pong(Box<str>),
}

/// Who the client is talking to.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// Names the session.
    pub session_id: Arc<str>,
    /// Names the hub.
    pub node: Arc<str>,
    /// How often an idle session hears from the hub.
    pub heartbeat_interval: Duration,
    /// What the client must keep to.
    pub limits: SessionLimits,
    /// When its credential expires; `None` when it does not, or needs none.
    pub credential_expiry: Option<SystemTime>,
    /// Where else it may connect.
    pub alternatives: Alternatives,
}

/// The configurable limits a session keeps.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// The largest encoded event, in bytes.
    pub max_event_bytes: usize,
    /// The most subscriptions at a time.
    pub max_subscriptions: usize,
    /// The most tokens in all filters together.
    pub max_filter_tokens: usize,
    /// The most events that wait for one subscription.
    pub queue_events: usize,
    /// The most bytes that wait for one subscription.
    pub queue_bytes: usize,
}

/// A subscription is open, or was updated.
#[derive(Debug, Clone)]
pub struct Subscribed {
    /// Which one.
    pub subscription_id: i64,
    /// Where in its stream it begins; `None` for a live one.
    pub opened: Option<Box<Opened>>,
    /// The credit it holds, or the automatic window.
    pub credit: Grant,
    /// True when the hub refills the credit by itself.
    pub automatic_credit: bool,
}

/// Where in its stream a subscription begins.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Before its first event.
    pub position: Position,
    /// The first sequence kept.
    pub earliest: u64,
    /// The last sequence that readers may see.
    pub latest: u64,
    /// What came of a resume.
    pub outcome: ResumeOutcome,
    /// How long a member of a group may take to acknowledge; `None` for one that does not.
    pub ack_deadline: Option<Duration>,
    /// What a member of a group that comes back has.
    pub returned: Returned,
}

/// What a member of a group that comes back on another session has; all others came back to nothing.
#[derive(Debug, Clone, Default)]
pub struct Returned {
    /// It goes on for the one it was.
    pub reattached: bool,
    /// Of the events it says that it holds those whose acknowledgement is not taken, ascending.
    pub lost: Vec<u64>,
}

/// What came of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeOutcome {
    /// It was none.
    Fresh,
    /// Nothing was missed.
    Resumed,
    /// Some events are lost.
    Gap,
}

/// A sequence, and what became of its acknowledgement.
pub type Acked = (u64, Result<(), AckError>);

/// What became of one event of a publish.
pub type Published = Result<Accepted, EventError>;

/// Where an event went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// How many live subscriptions it went to.
    pub matched: u64,
    /// Where it is stored, if a stream holds its topic.
    pub stored: Option<StoredAt>,
}

/// Where an event is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAt {
    /// The stream.
    pub origin: Arc<Origin>,
    /// The sequence; of the first one, for a repetition.
    pub sequence: u64,
    /// It was stored before.
    pub duplicate: bool,
    /// What that it is stored promises.
    pub durability: Durability,
}

/// Events that a subscription will not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub count: u64,
    /// The first and the last sequence lost; 0 for a live subscription.
    pub sequences: (u64, u64),
    /// Why.
    pub reason: GapReason,
}

/// Why events are lost to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// A queue was full.
    Overflow,
    /// A later event of the same topic took their place.
    Conflated,
    /// The stream keeps them no longer.
    Retention,
    /// The stream was made anew.
    Epoch,
}

/// What the writer sends next, in order.
#[derive(Debug)]
pub enum Item {
    /// A frame that is not events.
    Reply(Reply),
    /// Events of one subscription: the next `count` of [`Batch::events`]. At least one.
    Events {
        /// Which one.
        subscription_id: i64,
        /// How many, at least 1.
        count: usize,
        /// Behind the last of them; `None` for a live subscription.
        position: Option<Position>,
    },
}

/// One turn of the writer.
#[derive(Debug, Default)]
pub struct Batch {
    /// What to send, in order.
    pub items: Vec<Item>,
    /// The events the items speak of, in order.
    pub events: Vec<Event>,
}

impl Batch {
    /// Forgets what it holds and keeps its memory.
    pub fn clear(&mut self) {
        self.items.clear();
        self.events.clear();
    }
}

/// About what a refused event takes when its status is encoded.
const ENCODED_REFUSAL_BYTES: usize = 256;

impl Frame {
    /// About how many bytes the frame holds while it waits.
    pub(super) fn cost(&self) -> usize {
        let more = match self {
            Self::Published(results) => results
                .iter()
                .map(|result| if result.is_ok() { size_of::<Published>() } else { ENCODED_REFUSAL_BYTES })
                .sum(),
            Self::Acknowledged { results, .. } => results
                .iter()
                .map(|(_, result)| if result.is_ok() { size_of::<Acked>() } else { ENCODED_REFUSAL_BYTES })
                .sum(),
            Self::Error { .. } | Self::Ended { .. } => 128,
            Self::Pong(nonce) => nonce.len(),
            Self::Welcome(_) => size_of::<Welcome>(),
            Self::Subscribed(subscribed) => subscribed
                .opened
                .as_ref()
                .map_or(0, |opened| size_of::<Opened>() + opened.returned.lost.len() * size_of::<u64>()),
            Self::Gap { .. }
            | Self::Progress { .. }
            | Self::CredentialExpiring { .. }
            | Self::Draining { .. }
            | Self::Heartbeat(_) => 0,
        };
        size_of::<Reply>() + more
    }
}
