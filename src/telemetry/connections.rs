//! One function per fact of connections, TLS and streams.

use super::{
    metrics::Metrics,
    wire::{CertificateLabel, ConnectionEnd, ConnectionRefusal, HandshakeFailure, ReasonLabel, StreamCut},
};

impl Metrics {
    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.wire.connections.inc();
        self.wire.open_connections.inc();
    }

    /// A connection is closed.
    pub fn connection_closed(&self) {
        self.wire.open_connections.dec();
    }

    /// A connection was closed at once.
    pub fn connection_refused(&self, refusal: ConnectionRefusal) {
        let reason = match refusal {
            ConnectionRefusal::Hub => "hub",
            ConnectionRefusal::Address => "address",
            ConnectionRefusal::Handshakes => "handshakes",
        };
        self.wire.connections_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The hub asked a connection to go, or closed it.
    pub fn connection_ended(&self, end: ConnectionEnd) {
        self.wire.connections_ended.get_or_create(&ReasonLabel { reason: end.name() }).inc();
    }

    /// The hub cut a stream.
    pub fn stream_cut(&self, why: StreamCut) {
        self.wire.streams_cut.get_or_create(&ReasonLabel { reason: why.name() }).inc();
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.wire.accept_errors.inc();
    }

    /// There was no TLS with a client.
    pub fn tls_handshake_failed(&self, failure: HandshakeFailure) {
        let reason = match failure {
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::ClientCertificate => "client_certificate",
            HandshakeFailure::Protocol => "protocol",
            HandshakeFailure::Closed => "closed",
        };
        self.wire.tls_handshake_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// New connections are served what the TLS files were changed to.
    pub fn tls_reloaded(&self) {
        self.wire.tls_reloads.inc();
    }

    /// A change of the TLS files was refused.
    pub fn tls_reload_failed(&self) {
        self.wire.tls_reload_failures.inc();
    }

    /// When the certificate ends that is served, in seconds since 1970.
    pub fn tls_certificate_ends(&self, at: i64) {
        self.wire.tls_certificate_ends.get_or_create(&CertificateLabel { certificate: "server" }).set(at);
    }

    /// When the first authority of clients ends, in seconds since 1970.
    pub fn tls_client_ca_ends(&self, at: i64) {
        self.wire.tls_certificate_ends.get_or_create(&CertificateLabel { certificate: "client_ca" }).set(at);
    }
}
