//! What can be sent to a client, as values. `grpc/frames.rs` gives them their wire form.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::model::{CommandError, End, Event, EventError, Grant};

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
    },
    /// Events a subscription will not get.
    Gap {
        /// Which one.
        subscription_id: i64,
        /// How many events.
        count: u64,
        /// Why.
        reason: GapReason,
    },
    /// The result of every event of a publish.
    Published(Vec<Published>),
    /// A command failed.
    Error {
        /// What stands before the fields of the command, such as `update.`.
        place: &'static str,
        /// Why.
        error: Box<CommandError>,
    },
    /// The hub is shutting down.
    Draining {
        /// When the hub ends the session.
        deadline: SystemTime,
        /// How long the client is asked to wait before it connects again.
        reconnect_delay: Duration,
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
#[derive(Debug, Clone, Copy)]
pub struct Subscribed {
    /// Which one.
    pub subscription_id: i64,
    /// The credit it holds, or the automatic window.
    pub credit: Grant,
    /// True when the hub refills the credit by itself.
    pub automatic_credit: bool,
}

/// What became of one event of a publish: how many live subscriptions it went to, or why it was refused.
pub type Published = Result<u64, EventError>;

/// Why events are lost to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// A queue was full.
    Overflow,
    /// A later event of the same topic took their place.
    Conflated,
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
    },
}

/// One turn of the writer.
#[derive(Debug, Default)]
pub struct Batch {
    /// What to send, in order.
    pub items: Vec<Item>,
    /// The events the items speak of, in order.
    pub events: Vec<Arc<Event>>,
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
            Self::Error { .. } | Self::Ended { .. } => 128,
            Self::Pong(nonce) => nonce.len(),
            Self::Welcome(_) => size_of::<Welcome>(),
            Self::Subscribed(_) | Self::Gap { .. } | Self::Draining { .. } | Self::Heartbeat(_) => 0,
        };
        size_of::<Reply>() + more
    }
}
