//! What an operator may set about sessions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Alternatives, limits},
    outbox::SessionLimits,
    router,
};

/// Limits and times of sessions; in the file under `[sessions]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Limit on sessions per hub.
    pub max: usize,
    /// Limit on sessions per connection.
    pub max_per_connection: usize,
    /// Limit on subscriptions per session, at most 1 000 000.
    pub max_subscriptions: usize,
    /// Limit on the tokens in all filters of one session. Their bytes also count as memory: `memory.filters_bytes`.
    pub max_filter_tokens: usize,
    /// Limit on the tokens in all filters of the hub.
    pub hub_filter_tokens: usize,
    /// Limit on the shapes (sets of places of `*`) in the live filters of one session, and separately in the filters of
    /// its subscriptions from streams. Filters of up to 8 tokens, and those with at most one `*`, do not count.
    pub max_filter_shapes: usize,
    /// Limit on the shapes in the live filters of the hub: an event visits two nodes for each, and for the 1 026 that do
    /// not count.
    pub hub_filter_shapes: usize,
    /// The largest encoded event, in bytes, at most 3 MiB.
    pub max_event_bytes: usize,
    /// Limit on the events that wait for one live subscription.
    pub queue_events: usize,
    /// Limit on the bytes of events that wait for one live subscription.
    pub queue_bytes: usize,
    /// Limit on the bytes that wait in one session, overhead included.
    pub session_queue_bytes: usize,
    /// Limit on the bytes that wait in the whole hub, overhead included.
    pub hub_queue_bytes: usize,
    /// Heartbeat interval of an idle session, in milliseconds, unless its client asks for another.
    pub heartbeat_interval_ms: u64,
    /// A session whose client reads nothing for this long is ended when the hub is short of memory, in milliseconds. An
    /// ended session is cut when its client does not read the end for twice as long.
    pub write_timeout_ms: u64,
    /// Timeout for a frame from a client, from its first byte to its last, in milliseconds; then its call ends.
    pub frame_timeout_ms: u64,
    /// Addresses of other hubs that clients may try instead of this one, with commas between them: `http://HOST:PORT` or
    /// `https://HOST:PORT`. At most 16.
    pub alternatives: Alternatives,
}

impl Default for Options {
    fn default() -> Self {
        let routes = router::Limits::default();
        Self {
            max: 100_000,
            max_per_connection: 1_000,
            max_subscriptions: 100_000,
            max_filter_tokens: 5_000_000,
            hub_filter_tokens: routes.filter_tokens,
            max_filter_shapes: routes.session_filter_shapes,
            hub_filter_shapes: routes.hub_filter_shapes,
            max_event_bytes: limits::MAX_EVENT_BYTES,
            queue_events: 65_536,
            queue_bytes: 4 * 1024 * 1024,
            session_queue_bytes: 64 * 1024 * 1024,
            hub_queue_bytes: 320 * 1024 * 1024,
            heartbeat_interval_ms: 15_000,
            write_timeout_ms: 30_000,
            frame_timeout_ms: 30_000,
            alternatives: Alternatives::default(),
        }
    }
}

/// The most an operator may allow: more does not fit the frame of [`limits::MAX_FRAME_BYTES`] or the numbers of the
/// outbox.
const MOST_SUBSCRIPTIONS: usize = 1_000_000;
const MOST_EVENT_BYTES: usize = 3 * 1024 * 1024;
/// Nodes of the trie are numbered by 32 bits.
const MOST_FILTER_TOKENS: usize = 1_000_000_000;
/// With more one event could hold its publisher up for more than a millisecond.
const MOST_FILTER_SHAPES: usize = 16_384;

impl Options {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            ("max", self.max, 1, usize::MAX),
            ("max_per_connection", self.max_per_connection, 1, 1_000_000),
            ("max_subscriptions", self.max_subscriptions, 1, MOST_SUBSCRIPTIONS),
            ("max_filter_tokens", self.max_filter_tokens, 1, MOST_FILTER_TOKENS),
            ("hub_filter_tokens", self.hub_filter_tokens, 1, MOST_FILTER_TOKENS),
            ("max_filter_shapes", self.max_filter_shapes, 0, MOST_FILTER_SHAPES),
            ("hub_filter_shapes", self.hub_filter_shapes, 0, MOST_FILTER_SHAPES),
            ("max_event_bytes", self.max_event_bytes, 1, MOST_EVENT_BYTES),
            ("queue_events", self.queue_events, 1, 16_777_216),
            ("queue_bytes", self.queue_bytes, 1, 1024 * 1024 * 1024),
            ("session_queue_bytes", self.session_queue_bytes, 1, 2 * 1024 * 1024 * 1024),
            ("hub_queue_bytes", self.hub_queue_bytes, 1, usize::MAX),
        ];
        for (key, value, least, most) in rules {
            if value < least || value > most {
                return Err(format!("sessions.{key} is {value} and must be {least} to {most}"));
            }
        }
        for (key, value) in [
            ("heartbeat_interval_ms", self.heartbeat_interval_ms),
            ("write_timeout_ms", self.write_timeout_ms),
            ("frame_timeout_ms", self.frame_timeout_ms),
        ] {
            if !(100..=limits::MAX_TIME_MS).contains(&value) {
                return Err(format!("sessions.{key} is {value} and must be 100 to {}", limits::MAX_TIME_MS));
            }
        }
        Ok(())
    }

    /// The limits each session keeps.
    pub fn limits(&self) -> SessionLimits {
        SessionLimits {
            max_event_bytes: self.max_event_bytes,
            max_subscriptions: self.max_subscriptions,
            max_filter_tokens: self.max_filter_tokens,
            queue_events: self.queue_events,
            queue_bytes: self.queue_bytes,
        }
    }

    /// The limits the routing table keeps.
    pub(crate) fn routes(&self) -> router::Limits {
        router::Limits {
            filter_tokens: self.hub_filter_tokens,
            hub_filter_shapes: self.hub_filter_shapes,
            session_filter_shapes: self.max_filter_shapes,
        }
    }

    /// How often an idle session hears from the hub.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms)
    }

    /// How long a transport may take nothing.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    /// How long a frame from a client may take.
    pub fn frame_timeout(&self) -> Duration {
        Duration::from_millis(self.frame_timeout_ms)
    }
}
