//! What is counted of connections, TLS and streams, before anything is known of sessions.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::set::metric_set;

/// Why something was done, by the name of a closed list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
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
    /// The client did not answer a ping.
    PingTimeout,
    /// The client cancelled too many calls before the hub could look at them.
    EarlyResets,
    /// The client made the hub reset too many streams.
    InternalResets,
    /// Too many small frames of the client waited to be read.
    SmallFrames,
    /// The client sent headers without end.
    Headers,
    /// The client sent another flood.
    Flood,
    /// The client did not keep to HTTP/2.
    Protocol,
}

impl ConnectionEnd {
    /// As it stands in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NeverSpoke => "never_spoke",
            Self::Displaced => "displaced",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::PingTimeout => "ping_timeout",
            Self::EarlyResets => "too_many_resets",
            Self::InternalResets => "too_many_internal_resets",
            Self::SmallFrames => "too_many_data_frames",
            Self::Headers => "headers_too_large",
            Self::Flood => "flood",
            Self::Protocol => "protocol_error",
        }
    }

    /// True when the client broke a limit or a rule of HTTP/2.
    pub fn is_of_client(self) -> bool {
        use ConnectionEnd::{Age, Displaced, Idle, NeverSpoke, PingTimeout};
        !matches!(self, NeverSpoke | Displaced | Idle | Age | PingTimeout)
    }
}

/// Why the hub cut a stream: it could not even tell the client the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamCut {
    /// The client took nothing of a response.
    ResponseStalled,
    /// The client of a session that was ended took nothing, not even the end.
    SessionStalled,
}

impl StreamCut {
    /// As it stands in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResponseStalled => "response_stalled",
            Self::SessionStalled => "session_stalled",
        }
    }
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CertificateLabel {
    pub(super) certificate: &'static str,
}

metric_set! {
    /// The counters.
    pub(super) struct Wire {
        pub(super) connections: Counter = "connections", "Connections accepted";
        pub(super) connections_refused: Family<ReasonLabel, Counter> =
            "connections_refused", "Connections closed at once because of a limit, by limit";
        pub(super) connections_ended: Family<ReasonLabel, Counter> =
            "connections_ended", "Connections that the hub ended, by reason";
        pub(super) streams_cut: Family<ReasonLabel, Counter> =
            "streams_cut", "Streams cut because their client read nothing, by reason";
        pub(super) accept_errors: Counter = "accept_errors", "Failures to accept a connection";
        pub(super) open_connections: Gauge = "open_connections", "Connections open now";
        pub(super) tls_handshake_failures: Family<ReasonLabel, Counter> =
            "tls_handshake_failures", "TLS handshakes that failed, by reason";
        pub(super) tls_reloads: Counter = "tls_reloads", "Changes of the TLS files that were applied";
        pub(super) tls_reload_failures: Counter = "tls_reload_failures", "Changes of the TLS files that were refused";
        /// Without TLS there is none, rather than one that ended in 1970.
        pub(super) tls_certificate_ends: Family<CertificateLabel, Gauge> =
            "tls_certificate_expiry_timestamp_seconds",
            "When the served certificate and the first authority of clients expire, in seconds since 1970";
    }
}
