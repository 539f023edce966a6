//! TLS: the certificate that is served now, and the handshake.
//!
//! The files are looked at again and again rather than watched: Kubernetes replaces a mounted secret by swapping a
//! symbolic link two levels up, which watches of a file do not see, and a look costs nothing. What is found is served to
//! new connections only once it stayed the same from one look to the next and was judged; until then, and if it is
//! refused, the old goes on being served. Open connections keep what they were accepted with.

use std::{io, ops::ControlFlow, sync::Arc, time::Duration};

use parking_lot::RwLock;
use rustls::{ServerConfig, server::Acceptor};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    certificates::{CertificateError, Files, Made},
    connection::Connection,
    tls_options::TlsOptions,
};
use crate::{
    tasks::Tasks,
    telemetry::{HandshakeFailure, Metrics},
};

/// The certificate that is served, for as long as the hub runs.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    current: RwLock<Arc<ServerConfig>>,
    /// What `current` was made of.
    served: [u8; 32],
    metrics: Arc<Metrics>,
}

impl Tls {
    /// Reads the files; `None` for a hub without TLS.
    pub fn load(options: &TlsOptions, metrics: &Arc<Metrics>) -> Result<Option<Arc<Self>>, CertificateError> {
        if !options.is_on() {
            return Ok(None);
        }
        let files = Files::read(options)?;
        let made = files.make(options)?;
        // Served all the same: there is nothing better, and clients say it more plainly than a hub that is not there.
        if let Some(problem) = made.certificate.problem() {
            tracing::error!(file = %options.cert_file.display(), "{problem}: clients will refuse it");
        }
        told(metrics, &made);
        Ok(Some(Arc::new(Self {
            options: options.clone(),
            current: RwLock::new(made.config),
            served: files.fingerprint(),
            metrics: Arc::clone(metrics),
        })))
    }

    /// Polls the files, for ever, and serves what they are changed to.
    pub async fn watch(self: Arc<Self>, tasks: Tasks) {
        let mut watch = Watch { served: Seen::Files(self.served), last: Seen::Files(self.served), told: None };
        let (interval, options) = (Duration::from_millis(self.options.reload_interval_ms), self.options.clone());
        let take = |found| {
            self.look(&mut watch, found);
            ControlFlow::Continue(())
        };
        tasks.poll(interval, move || Files::read(&options), take).await;
    }

    fn look(&self, watch: &mut Watch, found: Result<Files, CertificateError>) {
        let seen = match &found {
            Ok(files) => Seen::Files(files.fingerprint()),
            Err(error) => Seen::Nothing(error.to_string()),
        };
        let settled = watch.last == seen;
        watch.last = seen;
        if watch.last == watch.served {
            watch.told = None;
            return;
        }
        if !settled {
            return;
        }
        let made = found.and_then(|files| files.make(&self.options));
        match made.map_err(|error| error.to_string()).and_then(|made| self.refuse_useless(made)) {
            Ok(made) => {
                told(&self.metrics, &made);
                *self.current.write() = made.config;
                self.metrics.tls_reloaded();
                tracing::info!(file = %self.options.cert_file.display(), "new connections get a new certificate");
                (watch.served, watch.told) = (watch.last.clone(), None);
            }
            Err(problem) if watch.told.as_ref() == Some(&problem) => {}
            Err(problem) => {
                self.metrics.tls_reload_failed();
                tracing::error!("{problem}; the previous certificate is still served");
                watch.told = Some(problem);
            }
        }
    }

    /// One that no client would take does not replace one that is served.
    fn refuse_useless(&self, made: Made) -> Result<Made, String> {
        match made.certificate.problem() {
            Some(problem) => Err(format!("{}: {problem}", self.options.cert_file.display())),
            None => Ok(made),
        }
    }

    /// Greets a client. How many are greeted at a time, and how long each may take, is for who calls.
    pub(super) async fn accept<I>(&self, io: I, connection: &Connection) -> io::Result<Box<TlsStream<I>>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let greeted = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let config = Arc::clone(&self.current.read());
        let stream = Box::new(greeted.into_stream(config).await?);
        if let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
            connection.identified(leaf);
        }
        Ok(stream)
    }
}

/// What one look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// Files with this fingerprint.
    Files([u8; 32]),
    /// Why nothing could be read.
    Nothing(String),
}

/// What the looks before found.
struct Watch {
    /// What is served was made of this.
    served: Seen,
    last: Seen,
    /// What was said of it, which is not said again.
    told: Option<String>,
}

fn told(metrics: &Metrics, made: &Made) {
    metrics.tls_certificate_ends(made.certificate.ends);
    if let Some(ends) = made.client_ca_ends {
        metrics.tls_client_ca_ends(ends);
    }
}

/// Why a handshake failed, for who counts it.
pub(super) fn failure(error: &io::Error) -> HandshakeFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            HandshakeFailure::ClientCertificate
        }
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Closed,
    }
}
