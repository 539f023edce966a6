//! Reaching a hub: from an address and a token to the frames of a session.
//!
//! Owns connections, of which every session has its own. It never decides when to connect, nor whether to try again.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, ClientTlsConfig, Endpoint, Uri},
};
use tower_service::Service;

use crate::{
    call::{self, Frames},
    connect::{KEEPALIVE_INTERVAL, deepest, is_of_tls},
    error::{Error, ErrorKind},
    machine::{OPEN_TIMEOUT, refresh::Fresh},
    token::{Token, TokenSource},
};

/// How long a source may take to give a token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a connection to one address of a name; with several, each gets a part.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// But for no more than so many.
const MOST_PARTS: u32 = 4;
/// How much of a session may come before it is read, in bytes: the hub need not wait for a client that is at work,
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// also on a connection that has only that.
const CONNECTION_WINDOW_BYTES: u32 = 5 * 1024 * 1024;
/// The largest piece in which a frame may come: one that is whole in a piece is not copied. Hubs send about 64 KiB at a time.
const PIECE_BYTES: u32 = 64 * 1024;

/// What a client shows of itself.
#[derive(Clone)]
pub(crate) enum Shows {
    Nothing,
    Token(Token),
    Source(Arc<dyn TokenSource>),
}

/// A session that is open.
pub(crate) struct Opened {
    /// What comes.
    pub(crate) frames: Frames,
    /// How long its token is good, if that is known.
    pub(crate) life: Option<Duration>,
    /// How long it took to open it, besides the time that the token took.
    pub(crate) took: Duration,
}

/// The way to the hubs of one client.
pub(crate) struct Links {
    tls: Option<ClientTlsConfig>,
    shows: Shows,
    /// Which record of a name is tried first.
    turn: AtomicUsize,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    pub(crate) fn new(tls: Option<ClientTlsConfig>, shows: Shows, seed: u64) -> Self {
        // Any number will do to begin with.
        Self { tls, shows, turn: AtomicUsize::new((seed >> 33) as usize) }
    }

    /// Opens a session.
    pub(crate) async fn open(&self, address: &str, commands: mpsc::Receiver<Bytes>) -> Result<Opened, Error> {
        let token = self.fetch().await?;
        let life = token.as_ref().and_then(|token| token.life);
        let since = Instant::now();
        let opening = self.call(address, token, commands);
        match timeout(OPEN_TIMEOUT, opening).await {
            Ok(opened) => opened.map(|frames| Opened { frames, life, took: since.elapsed() }),
            Err(_) => {
                let text = format!("the hub did not answer within {OPEN_TIMEOUT:?}");
                Err(Error::new(ErrorKind::Lost, Code::Unavailable, "NOTHING_HEARD", text))
            }
        }
    }

    /// A token that is good now, if this client has any.
    pub(crate) async fn fetch(&self) -> Result<Option<Fresh>, Error> {
        let failed = |text: String| Error::new(ErrorKind::Source, Code::Unavailable, "TOKEN_SOURCE", text);
        let token = match &self.shows {
            Shows::Nothing => return Ok(None),
            Shows::Token(token) => token.clone(),
            Shows::Source(source) => match timeout(TOKEN_TIMEOUT, source.fetch()).await {
                Ok(Ok(token)) => token,
                Ok(Err(error)) => return Err(failed(format!("no token: {error}"))),
                Err(_) => return Err(failed(format!("no token after {TOKEN_TIMEOUT:?}"))),
            },
        };
        let left = |expiry: SystemTime| expiry.duration_since(SystemTime::now()).unwrap_or_default();
        Ok(Some(Fresh { life: token.expiry().map(left), value: token.value().to_owned() }))
    }

    async fn call(
        &self,
        address: &str,
        token: Option<Fresh>,
        commands: mpsc::Receiver<Bytes>,
    ) -> Result<Frames, Error> {
        let authorization = match token {
            Some(token) => {
                let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.value).parse().map_err(|_| {
                    let text = "the token has characters that are not allowed in a header";
                    Error::new(ErrorKind::Source, Code::Unavailable, "TOKEN_SOURCE", text)
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let mut channel = self.connect(address).await?;
        poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| not_connected(&error))?;
        let response = channel.call(call::request(commands, authorization)).await;
        let failed = |status: &Status| Error::of_status(ErrorKind::Lost, status);
        let response = response.map_err(|error| failed(&Status::from_error(error.into())))?;
        Frames::new(response).map_err(|status| failed(&status))
    }

    async fn connect(&self, address: &str) -> Result<Channel, Error> {
        let endpoint = endpoint(address, self.tls.as_ref())?;
        let connected = if address.starts_with("unix:") {
            endpoint.connect().await
        } else {
            endpoint.connect_with_connector(Records { turn: self.turn.fetch_add(1, Relaxed) }).await
        };
        connected.map_err(|error| not_connected(&error))
    }
}

/// What connects to an address; an error when that is none.
pub(crate) fn endpoint(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, Error> {
    let bad = |problem: &dyn std::fmt::Display| Error::invalid("addresses", format!("has {address:?}: {problem}"));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let has_scheme = address.contains("://") || address.starts_with("unix:");
    let url = if has_scheme { address.to_owned() } else { format!("{scheme}://{address}") };
    let endpoint = Endpoint::from_shared(url).map_err(|_| bad(&"not a URL such as http://127.0.0.1:50051"))?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(PIECE_BYTES)
        .user_agent(concat!("switchyard-client/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| bad(&error))?;
    if address.starts_with("unix:") {
        return Ok(endpoint);
    }
    match (endpoint.uri().scheme_str(), endpoint.uri().host(), tls) {
        (_, None | Some(""), _) => Err(bad(&"has no host")),
        (Some("https"), _, tls) => {
            let tls = tls.cloned().unwrap_or_else(|| ClientTlsConfig::new().with_native_roots());
            endpoint.tls_config(tls).map_err(|error| bad(deepest(&error)))
        }
        (Some("http"), ..) => Ok(endpoint),
        _ => Err(bad(&"begins neither with http:// nor with https://")),
    }
}

fn not_connected(error: &(dyn std::error::Error + 'static)) -> Error {
    let cause = deepest(error);
    let text =
        if is_of_tls(cause) { format!("no TLS with the hub: {cause}") } else { format!("no hub answers: {cause}") };
    Error::new(ErrorKind::Lost, Code::Unavailable, "NOT_CONNECTED", text)
}

/// Connects to one of the records of a name: each client and each attempt begins with another one, and goes on with the
/// next where that does not answer.
#[derive(Debug, Clone)]
struct Records {
    turn: usize,
}

impl Service<Uri> for Records {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let turn = self.turn;
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            let records = tokio::net::lookup_host((host, port)).await?.collect();
            connect_to_any(in_turn(records, turn)).await.map(TokioIo::new)
        })
    }
}

fn in_turn(mut records: Vec<SocketAddr>, turn: usize) -> Vec<SocketAddr> {
    // Resolvers change the order, which would be chance on top of chance.
    records.sort_unstable();
    records.dedup();
    let first = turn % records.len().max(1);
    records.rotate_left(first);
    records
}

async fn connect_to_any(records: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let parts = u32::try_from(records.len()).unwrap_or(MOST_PARTS).clamp(1, MOST_PARTS);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for record in records {
        match timeout(CONNECT_TIMEOUT / parts, TcpStream::connect(record)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{record} does not answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_scheme_that_fits_the_settings_unless_it_says_which() {
        let scheme = |address: &str, tls: Option<&ClientTlsConfig>| {
            endpoint(address, tls).expect("an address").uri().scheme_str().map(str::to_owned)
        };
        let tls = ClientTlsConfig::new();
        assert_eq!(scheme("hub:1", None).as_deref(), Some("http"));
        assert_eq!(scheme("hub:1", Some(&tls)).as_deref(), Some("https"));
        assert_eq!(scheme("http://hub:1", Some(&tls)).as_deref(), Some("http"));
        endpoint("unix:/run/hub.sock", None).expect("a socket");
        for bad in ["", "ftp://hub:1", "http://", "a b"] {
            let error = endpoint(bad, None).expect_err(bad);
            assert_eq!((error.kind(), error.field()), (ErrorKind::Invalid, Some("addresses")), "{bad}");
        }
    }

    #[test]
    fn every_record_of_a_name_has_its_turn() {
        let records: Vec<SocketAddr> = (1..=3).map(|n| SocketAddr::from(([10, 0, 0, n], 1))).collect();
        let shuffled = vec![records[2], records[0], records[1], records[0]];
        let firsts: Vec<SocketAddr> = (0..3).map(|turn| in_turn(shuffled.clone(), turn)[0]).collect();
        assert_eq!(firsts, records);
        assert_eq!(in_turn(Vec::new(), 5), []);
    }
}
