//! What an operator may set about connections.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::limits::MAX_TIME_MS;

/// Limits and times of connections; in the file under `[connections]`. Why the defaults are what they are is told in
/// docs/operations.md.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Limit on open connections; further ones are closed at once.
    pub max: usize,
    /// Limit on connections from one address, or with IPv6 from one /64 network; further ones are closed at once.
    /// Connections from this machine are not counted. 0: no limit.
    pub max_per_address: usize,
    /// A connection without open streams for this long gets a GOAWAY, in milliseconds. 0: never.
    pub idle_timeout_ms: u64,
    /// A connection of this age, give or take a tenth, gets a GOAWAY, in milliseconds. 0: never.
    pub max_age_ms: u64,
    /// How long such a connection has to finish before it is closed, in milliseconds.
    pub max_age_grace_ms: u64,
    /// Limit on HTTP/2 streams per connection. Advertised to the client, which queues further streams.
    pub max_streams: u32,
    /// Timeout for a new connection to begin to speak HTTP, TLS included, and for the head of each request of HTTP/1, in
    /// milliseconds; then it is closed.
    pub handshake_timeout_ms: u64,
    /// A keep-alive connection of HTTP/1 without a request for this long is closed, in milliseconds. Where
    /// `idle_timeout_ms` is shorter, that applies.
    pub http1_idle_timeout_ms: u64,
    /// Limit on connections still in their handshake. When it is reached the oldest is closed; if none is older than a
    /// second, the new one is refused.
    pub max_handshakes: usize,
    /// How often a connection is pinged, in milliseconds.
    pub keepalive_interval_ms: u64,
    /// Timeout for the answer to a ping, in milliseconds.
    pub keepalive_timeout_ms: u64,
    /// How long sent bytes may stay unacknowledged by the peer's kernel, in milliseconds (`TCP_USER_TIMEOUT`).
    pub user_timeout_ms: u64,
    /// HTTP/2 window of a stream: how much a client may send on it before the hub has read it, in bytes.
    pub stream_window_bytes: u32,
    /// HTTP/2 window of a connection, in bytes. Much larger than that of a stream: a stream that is not read must not
    /// stop the others.
    pub connection_window_bytes: u32,
    /// How much may wait for the transport on one stream, in bytes.
    pub send_buffer_bytes: usize,
    /// The largest header list from a client, in bytes.
    pub max_header_list_bytes: u32,
    /// A connection ends when its client makes the hub reset this many of its streams.
    pub max_local_resets: usize,
    /// How many streams a client may reset before the hub has handled them: this many at once, then a tenth as many per
    /// second. More ends the connection.
    pub max_early_resets: usize,
    /// Budget for small frames that have arrived and are not read yet, in bytes: each counts 256 bytes minus its size.
    /// More ends the connection.
    pub small_frame_budget_bytes: usize,
    /// A response whose client reads nothing of it for this long is cut, in milliseconds. Does not apply to sessions:
    /// see `sessions.write_timeout_ms`.
    pub response_timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_per_address: 1_000,
            idle_timeout_ms: 15 * 60 * 1_000,
            max_age_ms: 0,
            max_age_grace_ms: 60_000,
            max_streams: 1_024,
            handshake_timeout_ms: 10_000,
            http1_idle_timeout_ms: 75_000,
            max_handshakes: 2_000,
            keepalive_interval_ms: 30_000,
            keepalive_timeout_ms: 10_000,
            user_timeout_ms: 40_000,
            stream_window_bytes: 512 * 1024,
            connection_window_bytes: 16 * 1024 * 1024,
            send_buffer_bytes: 64 * 1024,
            max_header_list_bytes: 16 * 1024,
            max_local_resets: 65_536,
            max_early_resets: 8_192,
            small_frame_budget_bytes: 64 * 1024 * 1024,
            response_timeout_ms: 30_000,
        }
    }
}

/// HTTP/2 has no larger window.
const MOST_WINDOW_BYTES: u32 = (1 << 31) - 1;

impl Options {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let windows = [
            ("stream_window_bytes", self.stream_window_bytes),
            ("connection_window_bytes", self.connection_window_bytes),
        ];
        for (key, value) in windows {
            if !(65_535..=MOST_WINDOW_BYTES).contains(&value) {
                return Err(format!("connections.{key} is {value} and must be 65535 to {MOST_WINDOW_BYTES}"));
            }
        }
        if self.connection_window_bytes / 8 < self.stream_window_bytes {
            return Err(format!(
                "connections.connection_window_bytes is {} and must be at least 8 times stream_window_bytes ({})",
                self.connection_window_bytes, self.stream_window_bytes
            ));
        }
        let times = [
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("http1_idle_timeout_ms", self.http1_idle_timeout_ms),
            ("keepalive_interval_ms", self.keepalive_interval_ms),
            ("keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("user_timeout_ms", self.user_timeout_ms),
            ("max_age_grace_ms", self.max_age_grace_ms),
            ("response_timeout_ms", self.response_timeout_ms),
        ];
        if let Some((key, value)) = times.iter().find(|(_, value)| !(100..=MAX_TIME_MS).contains(value)) {
            return Err(format!("connections.{key} is {value} and must be 100 to {MAX_TIME_MS}"));
        }
        for (key, value) in [("idle_timeout_ms", self.idle_timeout_ms), ("max_age_ms", self.max_age_ms)] {
            if value != 0 && !(100..=MAX_TIME_MS).contains(&value) {
                return Err(format!("connections.{key} is {value} and must be 0 or 100 to {MAX_TIME_MS}"));
            }
        }
        let least = [
            ("max", self.max as u64, 1),
            ("max_streams", self.max_streams.into(), 1),
            ("max_handshakes", self.max_handshakes as u64, 1),
            ("send_buffer_bytes", self.send_buffer_bytes as u64, 16 * 1024),
            ("max_header_list_bytes", self.max_header_list_bytes.into(), 1024),
            ("max_local_resets", self.max_local_resets as u64, 1),
            ("max_early_resets", self.max_early_resets as u64, 1),
            ("small_frame_budget_bytes", self.small_frame_budget_bytes as u64, 64 * 1024),
        ];
        match least.iter().find(|(_, value, least)| value < least) {
            Some((key, value, least)) => Err(format!("connections.{key} is {value} and must be at least {least}")),
            None => Ok(()),
        }
    }

    /// How long a connection may be without streams.
    pub fn idle_timeout(&self) -> Option<Duration> {
        (self.idle_timeout_ms != 0).then(|| Duration::from_millis(self.idle_timeout_ms))
    }

    /// How old a connection may be.
    pub fn max_age(&self) -> Option<Duration> {
        (self.max_age_ms != 0).then(|| Duration::from_millis(self.max_age_ms))
    }

    /// How long a connection may take to go.
    pub fn max_age_grace(&self) -> Duration {
        Duration::from_millis(self.max_age_grace_ms)
    }

    /// How long a connection may take to begin to speak.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// How long a connection of HTTP/1 may be without a request.
    pub fn http1_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.http1_idle_timeout_ms)
    }

    /// How often a connection is asked whether it is alive.
    pub fn keepalive_interval(&self) -> Duration {
        Duration::from_millis(self.keepalive_interval_ms)
    }

    /// How long the answer may take.
    pub fn keepalive_timeout(&self) -> Duration {
        Duration::from_millis(self.keepalive_timeout_ms)
    }

    /// How long a client may take nothing of a response.
    pub fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }

    /// How long sent bytes may stay unacknowledged.
    pub fn user_timeout(&self) -> Duration {
        Duration::from_millis(self.user_timeout_ms)
    }
}
