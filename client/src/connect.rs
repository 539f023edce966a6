//! Reaching a hub, and saying plainly what went wrong.

use std::{
    error::Error,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::time::{Instant, timeout};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

use crate::{
    credential::{Credential, Link},
    proto::v1::{
        backup_service_client::BackupServiceClient, group_service_client::GroupServiceClient,
        hub_service_client::HubServiceClient, session_service_client::SessionServiceClient,
        stream_service_client::StreamServiceClient,
    },
};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to ask an idle hub whether it is there; hubs and proxies take no offence at this pace.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The largest frame from a hub: one event of the largest size any hub may be set to, and its frame.
pub(crate) const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// Which hub to talk to.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct Target {
    /// The hub: http://HOST:PORT, https://HOST:PORT, unix:/PATH, or HOST:PORT, which is https with any of the --tls options;
    /// several with commas between them
    #[cfg_attr(
        feature = "clap",
        arg(long, global = true, value_name = "URL", env = "SWITCHYARD_SERVER", default_value = "127.0.0.1:50051")
    )]
    pub server: String,
    /// What is wanted of TLS.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub tls: TlsFiles,
    /// What to show it.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub credential: Credential,
}

/// What is wanted of TLS, and shown in return.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct TlsFiles {
    /// Trust hubs whose certificate is signed by the authorities in this PEM file [default: those of the system]
    #[cfg_attr(
        feature = "clap",
        arg(id = "tls_ca", long = "tls-ca", global = true, value_name = "FILE", env = "SWITCHYARD_TLS_CA")
    )]
    pub ca: Option<PathBuf>,
    /// Present the certificate in this PEM file to the hub
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "tls_cert",
            long = "tls-cert",
            global = true,
            value_name = "FILE",
            env = "SWITCHYARD_TLS_CERT",
            requires = "tls_key"
        )
    )]
    pub cert: Option<PathBuf>,
    /// The private key of --tls-cert, in PEM
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "tls_key",
            long = "tls-key",
            global = true,
            value_name = "FILE",
            env = "SWITCHYARD_TLS_KEY",
            requires = "tls_cert"
        )
    )]
    pub key: Option<PathBuf>,
    /// The name in the hub's certificate, where it is not the host of the URL
    #[cfg_attr(
        feature = "clap",
        arg(
            id = "tls_server_name",
            long = "tls-server-name",
            global = true,
            value_name = "NAME",
            env = "SWITCHYARD_TLS_SERVER_NAME"
        )
    )]
    pub server_name: Option<String>,
}

impl TlsFiles {
    fn variables(&self) -> impl Iterator<Item = (&'static str, OsString)> {
        let files = [
            ("SWITCHYARD_TLS_CA", self.ca.as_deref().map(Path::as_os_str)),
            ("SWITCHYARD_TLS_CERT", self.cert.as_deref().map(Path::as_os_str)),
            ("SWITCHYARD_TLS_KEY", self.key.as_deref().map(Path::as_os_str)),
            ("SWITCHYARD_TLS_SERVER_NAME", self.server_name.as_deref().map(OsStr::new)),
        ];
        files.into_iter().filter_map(|(name, value)| value.map(|value| (name, value.to_owned())))
    }

    /// Whether anything is wanted.
    pub(crate) fn is_set(&self) -> bool {
        self.variables().next().is_some()
    }

    pub(crate) fn config(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
        let mut config = ClientTlsConfig::new().timeout(CONNECT_TIMEOUT);
        config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(read(ca)?)),
            None => config.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

impl Target {
    /// Connects.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        self.channel_with(|endpoint| endpoint).await
    }

    /// Connects with other settings than usual: to the first address where a hub answers.
    pub async fn channel_with(&self, set: impl Fn(Endpoint) -> Endpoint) -> anyhow::Result<Channel> {
        let mut last = None;
        for url in self.urls() {
            match self.connect(&url, CONNECT_TIMEOUT, &set).await {
                Ok(channel) => return Ok(channel),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(none_named))
    }

    /// Connects to the first address where a hub answers, within a time for all of them together, and says which that is.
    pub async fn channel_within(&self, limit: Duration) -> anyhow::Result<(Channel, String)> {
        let deadline = Instant::now() + limit;
        let urls: Vec<String> = self.urls().collect();
        let mut last = None;
        for (url, untried) in urls.iter().zip((1..=urls.len()).rev()) {
            // One that does not answer must leave time for those that come after it.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(untried).unwrap_or(u32::MAX);
            let until = Instant::now() + share;
            match timeout(share, self.connect(url, share, |endpoint| endpoint)).await {
                Ok(Ok(channel)) => return Ok((channel, url.clone())),
                Ok(Err(error)) if Instant::now() < until => last = Some(error),
                // The transport has the same limit, and words of its own.
                _ => last = Some(anyhow!("no answer from {url} within {limit:?}, while connecting")),
            }
        }
        Err(last.unwrap_or_else(none_named))
    }

    async fn connect(&self, url: &str, limit: Duration, set: impl Fn(Endpoint) -> Endpoint) -> anyhow::Result<Channel> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_| anyhow!("--server {}: not a URL such as http://127.0.0.1:50051", self.server))?
            .connect_timeout(limit)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let tls = self.tls.config()?.timeout(limit);
            endpoint = endpoint.tls_config(tls).map_err(|error| anyhow!("TLS: {}", deepest(&error)))?;
        }
        set(endpoint).connect().await.map_err(|error| {
            let cause = deepest(&error);
            if is_of_tls(cause) {
                return anyhow!("no TLS with the hub at {url}: {cause}; set the authority to trust with --tls-ca");
            }
            anyhow!("no hub answers at {url} ({cause}); start one with `switchyard serve`, or name one with --server")
        })
    }

    /// What says the same to a program that is started.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, OsString)> {
        self.tls.variables().chain(self.credential.variables()).chain([("SWITCHYARD_SERVER", self.url().into())])
    }

    /// The hub, with its scheme; with several, all of them.
    pub fn url(&self) -> String {
        self.urls().collect::<Vec<_>>().join(",")
    }

    fn urls(&self) -> impl Iterator<Item = String> {
        let scheme = if self.tls.is_set() { "https" } else { "http" };
        self.server.split(',').map(str::trim).map(move |server| {
            if server.contains("://") || server.starts_with("unix:") {
                return server.to_owned();
            }
            format!("{scheme}://{server}")
        })
    }

    /// A connection over which every call shows the credential.
    pub fn link(&self, channel: Channel) -> anyhow::Result<Link> {
        Ok(Link::new(channel, self.credential.bearer()?))
    }

    /// Connects to the hub service.
    pub async fn hub(&self) -> anyhow::Result<HubServiceClient<Link>> {
        Ok(HubServiceClient::new(self.link(self.channel().await?)?).max_decoding_message_size(MAX_FRAME_BYTES))
    }

    /// Connects to the stream service.
    pub async fn streams(&self) -> anyhow::Result<StreamServiceClient<Link>> {
        Ok(StreamServiceClient::new(self.link(self.channel().await?)?).max_decoding_message_size(MAX_FRAME_BYTES))
    }

    /// Connects to the group service.
    pub async fn groups(&self) -> anyhow::Result<GroupServiceClient<Link>> {
        Ok(GroupServiceClient::new(self.link(self.channel().await?)?).max_decoding_message_size(MAX_FRAME_BYTES))
    }

    /// Connects to the backup service.
    pub async fn backups(&self) -> anyhow::Result<BackupServiceClient<Link>> {
        Ok(BackupServiceClient::new(self.link(self.channel().await?)?).max_decoding_message_size(MAX_FRAME_BYTES))
    }

    /// Connects to the session service.
    pub async fn sessions(&self) -> anyhow::Result<SessionServiceClient<Link>> {
        Ok(SessionServiceClient::new(self.link(self.channel().await?)?).max_decoding_message_size(MAX_FRAME_BYTES))
    }
}

fn none_named() -> anyhow::Error {
    anyhow!("--server names no hub")
}

/// What an error comes from.
pub(crate) fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

pub(crate) fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
}

/// One line for a failed call: code, reason, text, field.
pub fn explain(status: &Status) -> anyhow::Error {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| format!(" {}", info.reason)).unwrap_or_default();
    let field = details
        .bad_request()
        .and_then(|bad| bad.field_violations.first())
        .map(|violation| format!(" (field {})", violation.field))
        .unwrap_or_default();
    anyhow!("{:?}{reason}: {}{field}", status.code(), status.message())
}

/// The same for a status inside a frame.
pub fn explain_message(status: &tonic_types::pb::Status) -> anyhow::Error {
    let details = prost::Message::encode_to_vec(status);
    explain(&Status::with_details(tonic::Code::from_i32(status.code), &status.message, details.into()))
}
