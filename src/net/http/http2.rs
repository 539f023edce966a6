//! One HTTP/2 connection on the server's side: its streams, its pings, and when it has had enough of its client.
//!
//! The `h2` library is used without hyper around it (docs/adr/0019), for what hyper does not let through: how much the
//! many small frames of honest clients may cost before they are read, when window is given back, and with which code a
//! stream is ended.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{self, Handshake, SendResponse},
};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};

use super::{
    exchange::Exchange,
    fault::fault,
    inbound::{Inbound, Rest},
    takeover::TunnelProtocol,
};
use crate::{
    net::{Connection, Options},
    tasks::Tasks,
    telemetry::ConnectionEnd,
};

/// Frames from a client may be this large, in bytes: fewer frames for large publishes.
const MAX_FRAME_BYTES: u32 = 64 * 1024;
/// After this many new streams others may work.
const ACCEPT_AT_ONCE: usize = 64;

/// Why a connection ended, other than in order.
#[derive(Debug, thiserror::Error)]
pub(super) enum Http2Error {
    #[error("{0}")]
    Library(#[from] h2::Error),
    #[error("no answer to a ping")]
    PingTimeout,
    #[error("too many calls were cancelled as soon as they began")]
    EarlyResets,
}

impl Http2Error {
    /// As what it is counted, if the hub ended the connection.
    pub(super) fn reason(&self, connection: &Connection) -> Option<ConnectionEnd> {
        match self {
            Self::PingTimeout => Some(ConnectionEnd::PingTimeout),
            Self::EarlyResets => Some(ConnectionEnd::EarlyResets),
            // The streams of the connection have heard more of it than the connection itself.
            Self::Library(error) => connection.fault().or_else(|| fault(error)),
        }
    }
}

/// One connection.
pub(super) struct Http2<I, H> {
    state: State<I>,
    handler: H,
    tasks: Tasks,
    connection: Arc<Connection>,
    response_timeout: Duration,
    /// Whether streams may be tunnels for other protocols.
    tunnels: bool,
    early_resets: EarlyResets,
    alive: Alive,
    /// It takes no new streams.
    leaving: bool,
    /// What it ends with, once it is to end for what its client did.
    ended: Option<Http2Error>,
}

enum State<I> {
    Handshake(Handshake<I, Bytes>),
    Open(server::Connection<I, Bytes>),
}

/// A server for connections with these options.
fn builder(options: &Options, tunnels: bool) -> server::Builder {
    let mut builder = server::Builder::new();
    if tunnels {
        builder.enable_connect_protocol();
    }
    builder
        .initial_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .data_frame_budget(options.small_frame_budget_bytes)
        .max_concurrent_streams(options.max_streams)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buffer_size(options.send_buffer_bytes)
        .max_header_list_size(options.max_header_list_bytes)
        .max_local_error_reset_streams(Some(options.max_local_resets))
        .max_pending_accept_reset_streams(options.max_early_resets);
    builder
}

impl<I, H, B> Http2<I, H>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
    B: Body<Data = Bytes> + Send + 'static,
{
    /// Extended CONNECT (RFC 8441) is advertised where there may be `tunnels`; other streams of CONNECT are then refused
    /// here.
    pub(super) fn new(
        io: I,
        handler: H,
        tasks: Tasks,
        connection: Arc<Connection>,
        options: &Options,
        tunnels: bool,
    ) -> Self {
        Self {
            state: State::Handshake(builder(options, tunnels).handshake(io)),
            handler,
            tasks,
            connection,
            response_timeout: options.response_timeout(),
            tunnels,
            early_resets: EarlyResets::new(options.max_early_resets, Instant::now()),
            alive: Alive::new(options.keepalive_interval(), options.keepalive_timeout()),
            leaving: false,
            ended: None,
        }
    }

    /// Takes no new streams; the connection ends when the last is done.
    fn leave(&mut self) {
        self.leaving = true;
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Drives the connection and all that is said on it; ready when it is over.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        if !self.leaving && self.connection.is_leaving() {
            self.leave();
        }
        if let State::Handshake(handshake) = &mut self.state {
            let mut connection = ready!(Pin::new(handshake).poll(context))?;
            self.alive.begin(connection.ping_pong());
            if self.leaving {
                connection.graceful_shutdown();
            }
            self.state = State::Open(connection);
        }
        let State::Open(connection) = &mut self.state else { return Poll::Pending };
        if self.ended.is_none() && self.alive.poll(context).is_ready() {
            self.ended = Some(Http2Error::PingTimeout);
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
        for _ in 0..ACCEPT_AT_ONCE {
            let accepted = match connection.poll_accept(context) {
                Poll::Ready(Some(accepted)) => accepted,
                Poll::Ready(None) => return Poll::Ready(self.ended.take().map_or(Ok(()), Err)),
                Poll::Pending => return Poll::Pending,
            };
            let (mut request, mut respond) = accepted.map_err(|error| self.ended.take().unwrap_or(error.into()))?;
            if self.ended.is_some() {
                continue;
            }
            if respond.poll_reset(context).is_ready() {
                let cost = early_reset_cost(request.into_body(), context);
                if !self.early_resets.count(cost, Instant::now()) {
                    self.ended = Some(Http2Error::EarlyResets);
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                continue;
            }
            if self.tunnels && !is_served(&mut request) {
                respond.send_response(not_implemented(), true).ok();
                continue;
            }
            let serving = (&self.tasks, &self.connection, self.response_timeout);
            serve(&mut self.handler, serving, request, respond);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// False for what only a proxy would do. Notes what a tunnel is to carry.
fn is_served(request: &mut Request<RecvStream>) -> bool {
    let protocol = request.extensions_mut().remove::<h2::ext::Protocol>();
    let is_tunnel = protocol.is_some();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(TunnelProtocol::new(protocol.as_str()));
    }
    is_tunnel || request.method() != Method::CONNECT
}

fn not_implemented() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    response
}

/// Begins to serve one stream.
fn serve<H, B>(
    handler: &mut H,
    (tasks, connection, response_timeout): (&Tasks, &Arc<Connection>, Duration),
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) where
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
    B: Body<Data = Bytes> + Send + 'static,
{
    let (rest, open) = (Rest::default(), connection.open_stream());
    let mut request = request.map(|stream| Inbound::http2(stream, rest.clone(), Arc::clone(connection)));
    let ahead = request.body().ahead();
    let extensions = request.extensions_mut();
    extensions.insert(Arc::clone(connection));
    extensions.insert(Arc::clone(open.cut()));
    ahead.map(|ahead| extensions.insert(ahead));
    let response = handler.call(request);
    tasks.spawn_stream(connection.lane(), Exchange::new(response, respond, rest, open, response_timeout));
}

/// What it counts for that a call was cancelled before it could be looked at. Most calls of an honest client have come as a
/// whole by then, whatever their deadline: they count little. A flood saves itself the body.
fn early_reset_cost(mut body: RecvStream, context: &mut Context<'_>) -> f64 {
    let has_body = matches!(body.poll_data(context), Poll::Ready(Some(Ok(data))) if !data.is_empty());
    if has_body { 1.0 / 64.0 } else { 1.0 }
}

/// Calls that were cancelled before they could be looked at. An honest client does that when the hub was held up; one
/// that does nothing else is a flood ("rapid reset", CVE-2023-44487). So many at once are borne, and a tenth of that
/// every second.
struct EarlyResets {
    most: f64,
    left: f64,
    at: Instant,
}

impl EarlyResets {
    fn new(most: usize, now: Instant) -> Self {
        Self { most: most as f64, left: most as f64, at: now }
    }

    /// Counts one; false for one too many.
    fn count(&mut self, cost: f64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at);
        self.left = (self.left + self.most / 10.0 * elapsed.as_secs_f64()).min(self.most) - cost;
        self.at = now;
        self.left >= 0.0
    }
}

/// Finds out by pings whether the client is still there.
struct Alive {
    interval: Duration,
    timeout: Duration,
    /// Until the next ping, or for the answer to the last.
    timer: Pin<Box<Sleep>>,
    waits: bool,
    pings: Option<PingPong>,
}

impl Alive {
    fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout, timer: Box::pin(tokio::time::sleep(interval)), waits: false, pings: None }
    }

    fn begin(&mut self, pings: Option<PingPong>) {
        self.pings = pings;
        self.restart(self.interval);
    }

    fn restart(&mut self, after: Duration) {
        self.timer.as_mut().reset(Instant::now() + after);
    }

    /// Ready when the client has not answered in time.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(pings) = &mut self.pings else { return Poll::Pending };
            if self.waits {
                match pings.poll_pong(context) {
                    Poll::Ready(Ok(_)) => {
                        self.waits = false;
                        self.restart(self.interval);
                    }
                    // The connection is over, which it tells by itself.
                    Poll::Ready(Err(_)) => {
                        self.pings = None;
                        return Poll::Pending;
                    }
                    Poll::Pending => return self.timer.as_mut().poll(context),
                }
            }
            ready!(self.timer.as_mut().poll(context));
            if let Some(pings) = &mut self.pings
                && pings.send_ping(Ping::opaque()).is_ok()
            {
                self.waits = true;
                self.restart(self.timeout);
            } else {
                self.pings = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn early_resets_are_borne_at_once_and_in_time_and_a_flood_is_not() {
        let start = Instant::now();
        let mut resets = EarlyResets::new(100, start);
        assert!((0..100).all(|_| resets.count(1.0, start)), "at the limit");
        assert!(!resets.count(1.0, start), "one past");
        let mut resets = EarlyResets::new(100, start);
        let steady = (0..1_000_u64).all(|n| resets.count(1.0, start + Duration::from_millis(n * 100)));
        assert!(steady, "ten a second, for ever");
    }
}
