//! Reaching a hub as any client does, and saying plainly what went wrong. Serves the command line and the load generator;
//! it holds no state and knows no command.

use std::time::Duration;

use anyhow::anyhow;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use crate::proto::v1::{
    group_service_client::GroupServiceClient, hub_service_client::HubServiceClient,
    stream_service_client::StreamServiceClient,
};

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often to ask an idle hub whether it is there; hubs and proxies take no offence at this pace.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The largest frame from a hub: one event of the largest size any hub may be set to, and its frame.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// Which hub to talk to.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// The hub: http://HOST:PORT or HOST:PORT
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SWITCHYARD_SERVER",
        default_value = "http://127.0.0.1:50051"
    )]
    pub server: String,
}

impl Target {
    /// Connects.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        self.channel_with(|endpoint| endpoint).await
    }

    /// Connects with other settings than usual.
    pub async fn channel_with(&self, set: impl FnOnce(Endpoint) -> Endpoint) -> anyhow::Result<Channel> {
        let url = self.url();
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|_| anyhow!("--server {}: not a URL such as http://127.0.0.1:50051", self.server))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        set(endpoint).connect().await.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            anyhow!("no hub answers at {url} ({cause}); start one with `switchyard serve`, or name one with --server")
        })
    }

    /// The hub, with its scheme.
    pub fn url(&self) -> String {
        if self.server.contains("://") { self.server.clone() } else { format!("http://{}", self.server) }
    }

    /// Connects to the hub service.
    pub async fn hub(&self) -> anyhow::Result<HubServiceClient<Channel>> {
        Ok(HubServiceClient::new(self.channel().await?).max_decoding_message_size(MAX_FRAME_BYTES))
    }

    /// Connects to the stream service.
    pub async fn streams(&self) -> anyhow::Result<StreamServiceClient<Channel>> {
        Ok(StreamServiceClient::new(self.channel().await?).max_decoding_message_size(MAX_FRAME_BYTES))
    }

    /// Connects to the group service.
    pub async fn groups(&self) -> anyhow::Result<GroupServiceClient<Channel>> {
        Ok(GroupServiceClient::new(self.channel().await?).max_decoding_message_size(MAX_FRAME_BYTES))
    }
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
