//! The facts that are counted, in Prometheus form.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Counter,
    connections_refused: Counter,
    accept_errors: Counter,
    open_connections: Gauge,
    sessions: Counter,
    sessions_closed: Counter,
    events_in: Counter,
    event_bytes_in: Counter,
    events_refused: Counter,
    events_out: Counter,
    event_bytes_out: Counter,
    bytes_out: Counter,
    commands_refused: Counter,
    gaps: Counter,
    gap_events: Counter,
    ends: Family<ReasonLabel, Counter>,
    open_sessions: Gauge,
    open_subscriptions: Gauge,
    queue_bytes: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// What is looked up when metrics are read rather than counted as it happens.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    /// How many sessions are open.
    pub sessions: usize,
    /// How many subscriptions they have.
    pub subscriptions: usize,
    /// What waits in their queues, in bytes.
    pub queue_bytes: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switchyard");
        macro_rules! registered {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        let connections: Counter = registered!("connections", "Connections accepted");
        let connections_refused: Counter =
            registered!("connections_refused", "Connections closed at once because there were too many");
        let accept_errors: Counter = registered!("accept_errors", "Failures to accept a connection");
        let open_connections: Gauge = registered!("open_connections", "Connections open now");
        let sessions: Counter = registered!("sessions", "Sessions opened, Subscribe calls included");
        let sessions_closed: Counter = registered!("sessions_closed", "Sessions closed");
        let events_in: Counter = registered!("events_in", "Events published and accepted");
        let event_bytes_in: Counter = registered!("event_bytes_in", "Their encoded size in bytes");
        let events_refused: Counter = registered!("events_refused", "Events published and refused");
        let events_out: Counter = registered!("events_out", "Events handed to the transport of a subscriber");
        let event_bytes_out: Counter = registered!("event_bytes_out", "Their encoded size in bytes");
        let bytes_out: Counter = registered!("bytes_out", "Bytes of all frames handed to transports");
        let commands_refused: Counter = registered!("commands_refused", "Commands of sessions answered by an error");
        let gaps: Counter = registered!("gaps", "Gap frames sent");
        let gap_events: Counter = registered!("gap_events", "Events that gap frames told the loss of");
        let ends: Family<ReasonLabel, Counter> = registered!("subscription_ends", "Subscriptions ended, by reason");
        let open_sessions: Gauge = registered!("open_sessions", "Sessions open now");
        let open_subscriptions: Gauge = registered!("open_subscriptions", "Subscriptions open now");
        let queue_bytes: Gauge = registered!("queue_bytes", "Bytes that wait in queues, overhead included");
        Self {
            registry,
            connections,
            connections_refused,
            accept_errors,
            open_connections,
            sessions,
            sessions_closed,
            events_in,
            event_bytes_in,
            events_refused,
            events_out,
            event_bytes_out,
            bytes_out,
            commands_refused,
            gaps,
            gap_events,
            ends,
            open_sessions,
            open_subscriptions,
            queue_bytes,
        }
    }
}

impl Metrics {
    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.connections.inc();
        self.open_connections.inc();
    }

    /// A connection is closed.
    pub fn connection_closed(&self) {
        self.open_connections.dec();
    }

    /// A connection was closed at once.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.accept_errors.inc();
    }

    /// A session was opened.
    pub fn session_opened(&self) {
        self.sessions.inc();
    }

    /// A session was closed.
    pub fn session_closed(&self) {
        self.sessions_closed.inc();
    }

    /// Events were published and accepted.
    pub fn events_in(&self, events: usize, bytes: usize) {
        self.events_in.inc_by(events as u64);
        self.event_bytes_in.inc_by(bytes as u64);
    }

    /// Events were published and refused.
    pub fn events_refused(&self, events: usize) {
        self.events_refused.inc_by(events as u64);
    }

    /// Frames were handed to a transport: `events` events of `event_bytes`, all in all `bytes`.
    pub fn sent(&self, events: usize, event_bytes: usize, bytes: usize) {
        self.events_out.inc_by(events as u64);
        self.event_bytes_out.inc_by(event_bytes as u64);
        self.bytes_out.inc_by(bytes as u64);
    }

    /// A command was answered by an error.
    pub fn command_refused(&self) {
        self.commands_refused.inc();
    }

    /// A subscriber was told that it will not get `events`.
    pub fn gap_told(&self, events: u64) {
        self.gaps.inc();
        self.gap_events.inc_by(events);
    }

    /// A subscription is over. `reason` is a name of the closed list of reasons.
    pub fn subscription_ended(&self, reason: &'static str) {
        self.ends.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Everything in the text form of Prometheus (OpenMetrics 1.0).
    pub fn render(&self, gauges: Gauges) -> String {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.open_sessions, gauges.sessions);
        set(&self.open_subscriptions, gauges.subscriptions);
        set(&self.queue_bytes, gauges.queue_bytes);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
