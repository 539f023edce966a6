//! From a listener to HTTP requests: the accept loop, with every limit set.
//!
//! tonic's own `serve` is not used: it leaves limits open that hyper closes, cannot bound its shutdown, and retries a
//! failing accept in a hot loop (docs/adr/0004). The room owns the connections and how they end. It knows nothing of
//! gRPC: the same loop serves the hub's port and the operator's. It is generic over the listener, so that a simulated
//! network can drive it.

mod address;
mod certificates;
mod connection;
mod exchange;
mod http;
mod http2;
mod inbound;
mod options;
mod tls;
mod transport;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tokio_util::sync::CancellationToken;

pub use address::{AddressError, ListenAddress};
pub use certificates::CertificateError;
pub use connection::{Connection, Connections, SessionPermit, WatchPermit};
pub use exchange::AtItsOwnPace;
pub use inbound::{Ahead, Inbound, InboundError};
pub use options::Options;
pub use tls::{ClientAuth, Tls, TlsOptions, TlsVersion};

use crate::{
    tasks::{OnPanic, Tasks},
    telemetry::{ConnectionEnd, HandshakeFailure, Metrics},
};
use connection::{Admitted, Asked, Streams};
use http::{ServeError, Serving};
use transport::{Listening, Transport};

/// After a failed accept the loop waits, twice as long each time in a row, from this
const SHORTEST_BACKOFF: Duration = Duration::from_millis(5);
/// to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Where requests go: any tower service that cannot fail.
pub trait Handler<B>:
    tower::Service<::http::Request<Inbound>, Response = ::http::Response<B>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<B, S> Handler<B> for S where
    S: tower::Service<
            ::http::Request<Inbound>,
            Response = ::http::Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// What the accept loop needs besides its listener.
#[derive(Debug, Clone)]
pub struct Acceptor {
    /// Limits and times.
    pub options: Arc<Options>,
    /// Serves connections by TLS, if there is any.
    pub tls: Option<Arc<Tls>>,
    /// Those that are open.
    pub connections: Arc<Connections>,
    /// Where each connection's task goes.
    pub tasks: Tasks,
    /// Counts what is accepted and what is not.
    pub metrics: Arc<Metrics>,
    /// Ends the loop, not the connections.
    pub stop: CancellationToken,
}

/// Binds a TCP port and gives its connections, with their socket options set. A name is resolved first, which may take as
/// long as the system lets it.
pub async fn listen(
    address: &ListenAddress,
    options: &Options,
) -> io::Result<(SocketAddr, impl Stream<Item = io::Result<(TcpStream, SocketAddr)>> + Send + use<>)> {
    let listener = address.bind().await?;
    let bound = listener.local_addr()?;
    let user_timeout = options.user_timeout();
    let accepted = TcpListenerStream::new(listener).map(move |stream| {
        let stream = stream?;
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        // HTTP/2 pings cannot free a socket whose send buffer is full; this does.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(user_timeout))?;
        #[cfg(not(target_os = "linux"))]
        let _ = user_timeout;
        Ok((stream, peer))
    });
    Ok((bound, accepted))
}

impl Acceptor {
    /// Accepts until told to stop. Requests of every connection go to `handler`, with their [`Connection`] in the
    /// extensions.
    pub async fn run<I, B>(self, listener: impl Stream<Item = io::Result<(I, SocketAddr)>>, handler: impl Handler<B>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
    {
        tokio::pin!(listener);
        let mut backoff = SHORTEST_BACKOFF;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.next() => accepted,
            };
            match accepted {
                None => return,
                Some(Ok((stream, peer))) => {
                    backoff = SHORTEST_BACKOFF;
                    match self.connections.admit(peer, &self.options) {
                        Ok(admitted) => self.spawn(stream, admitted, handler.clone()),
                        Err(refusal) => tracing::debug!(%peer, ?refusal, "too many connections"),
                    }
                }
                // The peer was gone before it was accepted: no fault of this process.
                Some(Err(error)) if is_of_the_peer(&error) => {}
                Some(Err(error)) => {
                    self.metrics.accept_failed();
                    tracing::warn!(%error, retry_in_ms = backoff.as_millis() as u64, "accept failed");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    fn spawn<I, B>(&self, stream: I, admitted: Admitted, handler: impl Handler<B>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
    {
        let connection = Arc::clone(&admitted.connection);
        let deadline = Instant::now() + self.options.handshake_timeout();
        let streams = Streams { tasks: self.tasks.clone(), connection: Arc::clone(&connection) };
        let options = Arc::clone(&self.options);
        let serve =
            move |stream: Transport<I>| Serving::new(Listening::new(stream, connection), handler, streams, options);
        let Some(tls) = self.tls.clone() else {
            let serving = serve(Transport::Plain(stream));
            self.tasks.spawn("connection", OnPanic::Log, async move {
                admitted.ended(drive(serving, &admitted.connection, deadline).await);
            });
            return;
        };
        let metrics = Arc::clone(&self.metrics);
        let connection = Arc::clone(&admitted.connection);
        // In a box of its own, which goes when the handshake is done.
        let greeting = Box::pin(async move {
            let accepting = Box::pin(tls.accept(stream, &connection));
            match greet(accepting, &connection, deadline).await {
                Ok(stream) => Some(serve(Transport::Tls(stream))),
                Err(refused) => {
                    if let Some(failure) = refused.failure() {
                        metrics.tls_handshake_failed(failure);
                    }
                    tracing::debug!(peer = %connection.peer(), error = %refused, "no TLS");
                    None
                }
            }
        });
        self.tasks.spawn("connection", OnPanic::Log, async move {
            if let Some(serving) = greeting.await {
                admitted.ended(drive(serving, &admitted.connection, deadline).await);
            }
        });
    }
}

/// How a connection ended other than in order.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client did not begin to speak in time")]
    NeverSpoke,
    #[error("{0}")]
    Failed(#[from] ServeError),
}

impl Admitted {
    fn ended(&self, ended: Result<(), Ended>) {
        let Err(error) = ended else { return };
        let peer = self.connection.peer();
        let reason = match &error {
            Ended::NeverSpoke => Some(ConnectionEnd::NeverSpoke),
            Ended::Failed(error) => error.reason(&self.connection),
        };
        if let Some(reason) = reason {
            self.connections.metrics.connection_ended(reason);
        }
        match reason {
            Some(reason) if reason.is_of_client() => {
                tracing::warn!(%peer, reason = reason.name(), %error, "connection ended because of its client");
            }
            _ => tracing::debug!(%peer, %error, "connection ended"),
        }
    }
}

/// Why there is no TLS with a client.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake timed out")]
    Late,
    #[error("the hub is shutting down")]
    Leaving,
    #[error("{0}")]
    Failed(io::Error),
}

impl Refused {
    /// As what it is counted, if it is a failure.
    fn failure(&self) -> Option<HandshakeFailure> {
        match self {
            Self::Late => Some(HandshakeFailure::Timeout),
            Self::Leaving => None,
            Self::Failed(error) => Some(tls::failure(error)),
        }
    }
}

/// Drives a handshake to its end: its own, that of a client that is too slow, or the hub's.
async fn greet<T>(
    mut accepting: Pin<Box<impl Future<Output = io::Result<T>>>>,
    connection: &Connection,
    deadline: Instant,
) -> Result<T, Refused> {
    let mut patience = Box::pin(tokio::time::sleep_until(deadline));
    poll_fn(|context| {
        if connection.asked(context) != Asked::Nothing {
            return Poll::Ready(Err(Refused::Leaving));
        }
        if let Poll::Ready(done) = accepting.as_mut().poll(context) {
            return Poll::Ready(done.map_err(Refused::Failed));
        }
        patience.as_mut().poll(context).map(|()| Err(Refused::Late))
    })
    .await
}

/// Drives one connection to its end: its own, that of a client that never speaks, or the hub's.
async fn drive<I, B>(
    mut serving: Serving<I, impl Handler<B>>,
    connection: &Connection,
    deadline: Instant,
) -> Result<(), Ended>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
{
    let mut handshake: Option<Pin<Box<Sleep>>> = Some(Box::pin(tokio::time::sleep_until(deadline)));
    let mut leaving = false;
    poll_fn(|context| {
        match connection.asked(context) {
            Asked::Close => return Poll::Ready(Ok(())),
            // Before its first bytes there is nothing to leave in order; the client meets a closed connection.
            Asked::Leave if !connection.spoke() => return Poll::Ready(Ok(())),
            Asked::Leave if !leaving => {
                leaving = true;
                serving.leave();
            }
            _ => {}
        }
        let served = serving.poll(context);
        if connection.spoke() {
            handshake = None;
        } else if let Some(timer) = &mut handshake
            && Pin::new(timer).poll(context).is_ready()
        {
            return Poll::Ready(Err(Ended::NeverSpoke));
        }
        served.map_err(Ended::from)
    })
    .await
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}
