//! The accept loop: connections, with every limit set, to whatever speaks with their clients.
//!
//! Owns what holds for every connection whatever is spoken on it: how many there may be, TLS, that its client begins to
//! speak in time, and that it ends when it is asked to. What is spoken is for the [`Serve`] of its port. The loop is
//! generic over the listener, so that a simulated network can drive it.

use std::{
    error::Error,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use switchyard_client::Backoff;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    connection::{Admitted, Asked, Connection, Connections},
    tls::{self, Tls},
    transport::Transport,
};
use crate::{
    model::Peer,
    tasks::{OnPanic, Tasks},
    telemetry::{ConnectionEnd, HandshakeFailure, Metrics, StreamCut},
};

/// How long at most the loop waits after a failed accept,
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// and after many in a row.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// What is spoken with the clients of a port: what an edge gives to the accept loop.
pub trait Serve<I>: Clone + Send + 'static {
    /// Speaks with one client, and is ready when the connection is over. It is polled in the task of the connection. Once
    /// the connection [is leaving](Connection::is_leaving), for which it is polled, it begins nothing new and ends when what
    /// it has begun is done; it is dropped when it takes too long. A client that is not [heard](Connection::heard) in time
    /// is closed.
    fn serve(
        self,
        transport: Transport<I>,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Result<(), ServeError>> + Send + 'static;
}

/// Why a connection ended, other than in order.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct ServeError {
    reason: Option<ConnectionEnd>,
    /// What was spoken on it was cut.
    pub(super) cut: Option<StreamCut>,
    error: Box<dyn Error + Send + Sync>,
}

impl ServeError {
    /// With what it is counted as, if the hub ended the connection.
    pub fn new(reason: Option<ConnectionEnd>, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason, cut: None, error: error.into() }
    }

    /// What was spoken on a connection was cut, and the connection ends with it.
    pub fn of_cut(cut: StreamCut, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason: None, cut: Some(cut), error: error.into() }
    }

    /// The client is gone, or is none.
    pub fn of_client(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(None, error)
    }
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

impl Acceptor {
    /// Accepts until it is stopped. Every connection is served by `edge`.
    pub async fn run<I>(self, listener: impl Stream<Item = io::Result<(I, Peer)>>, edge: impl Serve<I>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::pin!(listener);
        let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.next() => accepted,
            };
            match accepted {
                None => return,
                Some(Ok((stream, peer))) => {
                    backoff.reset();
                    match self.connections.admit(peer, &self.options) {
                        Ok(admitted) => self.spawn(stream, admitted, edge.clone()),
                        Err(refusal) => tracing::debug!(%peer, ?refusal, "too many connections"),
                    }
                }
                // The peer was gone before it was accepted: no fault of this process.
                Some(Err(error)) if is_of_the_peer(&error) => {}
                Some(Err(error)) => {
                    self.metrics.accept_failed();
                    let delay = backoff.next();
                    tracing::warn!(%error, retry_in_ms = delay.as_millis() as u64, "accept failed");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
    }

    fn spawn<I>(&self, stream: I, admitted: Admitted, edge: impl Serve<I>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::clone(&admitted.connection);
        let deadline = Instant::now() + self.options.handshake_timeout();
        let Some(tls) = self.tls.clone() else {
            let serving = edge.serve(Transport::plain(stream), connection);
            return self.tasks.spawn("connection", OnPanic::Log, Driving::new(serving, admitted, deadline));
        };
        let metrics = Arc::clone(&self.metrics);
        // In a box of its own, which goes when the handshake is done.
        let greeting = Box::pin(async move {
            let accepting = Box::pin(tls.accept(stream, &connection));
            match greet(accepting, &connection, deadline).await {
                Ok(stream) => Some(Driving::new(edge.serve(Transport::tls(stream), connection), admitted, deadline)),
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
            if let Some(driving) = greeting.await {
                driving.await;
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
            Ended::Failed(error) => error.reason,
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

pin_project! {
    /// One connection, driven to its end: its own, that of a client that never speaks, or the hub's. By hand, since an
    /// async block would keep what it drives more than once.
    struct Driving<F> {
        #[pin]
        serving: F,
        admitted: Admitted,
        handshake: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = Result<(), ServeError>>> Driving<F> {
    fn new(serving: F, admitted: Admitted, deadline: Instant) -> Self {
        Self { serving, admitted, handshake: Some(Box::pin(tokio::time::sleep_until(deadline))) }
    }
}

impl<F: Future<Output = Result<(), ServeError>>> Future for Driving<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let connection = &this.admitted.connection;
        match connection.asked(context) {
            Asked::Close => return Poll::Ready(()),
            // Before its first bytes there is nothing to leave in order; the client meets a closed connection.
            Asked::Leave if !connection.spoke() => return Poll::Ready(()),
            Asked::Leave | Asked::Nothing => {}
        }
        let served = this.serving.poll(context);
        if connection.spoke() {
            *this.handshake = None;
        } else if let Some(timer) = this.handshake
            && timer.as_mut().poll(context).is_ready()
        {
            this.admitted.ended(Err(Ended::NeverSpoke));
            return Poll::Ready(());
        }
        served.map(|served| this.admitted.ended(served.map_err(Ended::from)))
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | NotConnected | InvalidInput)
}
