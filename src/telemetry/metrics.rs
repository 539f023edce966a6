//! The facts that are counted, in Prometheus form.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::looked_at::{Gauges, LookedAt};

const CERTIFICATE_ENDS_HELP: &str =
    "When the certificate ends that is served, and the first authority of clients, in seconds since 1970";
const IDS_FORGOTTEN_HELP: &str =
    "Ids forgotten before the dedupe window of their stream ended, because it had too many";
const COMMIT_SECONDS_HELP: &str = "How long the store takes to write and flush what waits, in seconds";
/// From a tenth of a millisecond to more than a second and a half.
const COMMIT_SECONDS: [f64; 15] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192,
    1.6384,
];

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Counter,
    connections_refused: Family<ReasonLabel, Counter>,
    connections_ended: Family<ReasonLabel, Counter>,
    accept_errors: Counter,
    open_connections: Gauge,
    tls_handshake_failures: Family<ReasonLabel, Counter>,
    tls_reloads: Counter,
    tls_reload_failures: Counter,
    /// Without TLS there is none, rather than one that ended in 1970.
    tls_certificate_ends: Family<CertificateLabel, Gauge>,
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
    denied: Family<ReasonLabel, Counter>,
    quota_refusals: Family<QuotaLabel, Counter>,
    dedupe_ids_forgotten: Counter,
    commit_seconds: Histogram,
    /// Set before every reading, and read before the next one.
    looked_at: Mutex<LookedAt>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuotaLabel {
    quota: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: &'static str,
}

/// Which limit a connection too many met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// That of the hub.
    Hub,
    /// That of the client's address.
    Address,
    /// That of connections whose clients have not begun to speak.
    Handshakes,
}

/// Why the hub ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client did not begin to speak.
    NeverSpoke,
    /// The client was slow to begin to speak, and another needed its place.
    Displaced,
    /// There was no stream on it for long.
    Idle,
    /// It has come of age.
    Age,
}

/// Why there was no TLS with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client showed no certificate, or a bad one.
    ClientCertificate,
    /// The client spoke no TLS, or none that this hub speaks.
    Protocol,
    /// The client went away.
    Closed,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switchyard");
        macro_rules! registered {
            ($name:literal, $help:expr) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        let connections: Counter = registered!("connections", "Connections accepted");
        let connections_refused: Family<ReasonLabel, Counter> =
            registered!("connections_refused", "Connections closed at once because there were too many, by limit");
        let connections_ended: Family<ReasonLabel, Counter> =
            registered!("connections_ended", "Connections that the hub ended, by reason");
        let accept_errors: Counter = registered!("accept_errors", "Failures to accept a connection");
        let open_connections: Gauge = registered!("open_connections", "Connections open now");
        let tls_handshake_failures: Family<ReasonLabel, Counter> =
            registered!("tls_handshake_failures", "TLS handshakes that failed, by reason");
        let tls_reloads: Counter = registered!("tls_reloads", "Changes of the TLS files that are served now");
        let tls_reload_failures: Counter =
            registered!("tls_reload_failures", "Changes of the TLS files that were refused");
        let tls_certificate_ends: Family<CertificateLabel, Gauge> =
            registered!("tls_certificate_expiry_timestamp_seconds", CERTIFICATE_ENDS_HELP);
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
        let denied: Family<ReasonLabel, Counter> = registered!("denied", "Calls and commands denied, by reason");
        let quota_refusals: Family<QuotaLabel, Counter> =
            registered!("quota_refusals", "Refusals because a quota is used up, by quota");
        let dedupe_ids_forgotten: Counter = registered!("dedupe_ids_forgotten", IDS_FORGOTTEN_HELP);
        let commit_seconds = Histogram::new(COMMIT_SECONDS);
        registry.register("commit_seconds", COMMIT_SECONDS_HELP, commit_seconds.clone());
        let looked_at = Mutex::new(LookedAt::new(&mut registry));
        Self {
            registry,
            connections,
            connections_refused,
            connections_ended,
            accept_errors,
            open_connections,
            tls_handshake_failures,
            tls_reloads,
            tls_reload_failures,
            tls_certificate_ends,
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
            denied,
            quota_refusals,
            dedupe_ids_forgotten,
            commit_seconds,
            looked_at,
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
    pub fn connection_refused(&self, refusal: ConnectionRefusal) {
        let reason = match refusal {
            ConnectionRefusal::Hub => "hub",
            ConnectionRefusal::Address => "address",
            ConnectionRefusal::Handshakes => "handshakes",
        };
        self.connections_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The hub asked a connection to go, or closed it.
    pub fn connection_ended(&self, end: ConnectionEnd) {
        let reason = match end {
            ConnectionEnd::NeverSpoke => "never_spoke",
            ConnectionEnd::Displaced => "displaced",
            ConnectionEnd::Idle => "idle",
            ConnectionEnd::Age => "age",
        };
        self.connections_ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.accept_errors.inc();
    }

    /// There was no TLS with a client.
    pub fn tls_handshake_failed(&self, failure: HandshakeFailure) {
        let reason = match failure {
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::ClientCertificate => "client_certificate",
            HandshakeFailure::Protocol => "protocol",
            HandshakeFailure::Closed => "closed",
        };
        self.tls_handshake_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// New connections are served what the TLS files were changed to.
    pub fn tls_reloaded(&self) {
        self.tls_reloads.inc();
    }

    /// A change of the TLS files was refused.
    pub fn tls_reload_failed(&self) {
        self.tls_reload_failures.inc();
    }

    /// When the certificate ends that is served, in seconds since 1970.
    pub fn tls_certificate_ends(&self, at: i64) {
        self.tls_certificate_ends.get_or_create(&CertificateLabel { certificate: "server" }).set(at);
    }

    /// When the first authority of clients ends, in seconds since 1970.
    pub fn tls_client_ca_ends(&self, at: i64) {
        self.tls_certificate_ends.get_or_create(&CertificateLabel { certificate: "client_ca" }).set(at);
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

    /// Somebody was refused for what it is. `reason` is a name of the closed list of reasons.
    pub fn denied(&self, reason: &'static str) {
        self.denied.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A subscription is over. `reason` is a name of the closed list of reasons.
    pub fn subscription_ended(&self, reason: &'static str) {
        self.ends.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The store wrote and flushed what waited.
    pub fn committed(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// A stream had too many ids to know repetitions by.
    pub fn dedupe_ids_forgotten(&self, ids: u64) {
        self.dedupe_ids_forgotten.inc_by(ids);
    }

    /// A quota is used up. `quota` is a name of the closed list of quotas.
    pub fn quota_refused(&self, quota: &'static str) {
        self.quota_refusals.get_or_create(&QuotaLabel { quota }).inc();
    }

    /// Everything in the text form of Prometheus (OpenMetrics 1.0).
    pub fn render(&self, gauges: &Gauges) -> String {
        let looked_at = self.looked_at.lock();
        looked_at.set(gauges);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
