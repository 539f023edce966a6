//! HTTP on one connection: which version its client speaks, and the driving of either.
//!
//! HTTP/2 is served at length ([`http2`]). HTTP/1 is for probes, and for clients that take this port for another, unless
//! the port is one where clients may choose: there it is served at length, too, and other protocols than HTTP may take over
//! a connection or a stream ([`takeover`]). It knows nothing of gRPC: the same serves all ports.

mod exchange;
mod fault;
mod greeting;
mod http1;
mod http2;
mod inbound;
mod takeover;
mod watch;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

pub use exchange::AtItsOwnPace;
pub use inbound::{Ahead, Inbound, InboundError};
pub use takeover::{Takeover, TunnelProtocol, Upgraded};

use super::{Connection, Options, Serve, ServeError, Transport};
use crate::tasks::Tasks;
use greeting::{Greeted, Version};
use http2::Http2;

/// Serves HTTP. Every request has its [`Connection`] in the extensions, and where it is served at length its
/// [`crate::cut::Cut`].
#[derive(Debug, Clone)]
pub struct Http<H> {
    handler: H,
    options: Arc<Options>,
    tasks: Tasks,
    at_length: bool,
}

impl<H> Http<H> {
    /// Requests go to `handler`, any tower service that cannot fail; each HTTP/2 stream is a task of its own. HTTP/1 is only
    /// answered, never served at length.
    pub fn new(handler: H, options: Arc<Options>, tasks: Tasks) -> Self {
        Self { handler, options, tasks, at_length: false }
    }

    /// Serves HTTP/1 at length, too: a request is a stream of its connection, which lives for
    /// [`Options::http1_idle_timeout_ms`] from one to the next. Other protocols may be spoken after an upgrade
    /// ([`Takeover`]), or over HTTP/2 after an extended CONNECT ([`TunnelProtocol`]). Any other CONNECT is refused.
    #[must_use]
    pub fn at_length(self) -> Self {
        Self { at_length: true, ..self }
    }
}

impl<I, H, B> Serve<I> for Http<H>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
{
    fn serve(
        self,
        transport: Transport<I>,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Result<(), ServeError>> + Send + 'static {
        let io = Greeted::new(transport, Arc::clone(&connection));
        Serving { state: State::Greeting(Some(Greeting { io, http: self })), connection }
    }
}

type Http1 = Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>>;

/// A connection that is served.
struct Serving<I, H> {
    state: State<I, H>,
    connection: Arc<Connection>,
}

enum State<I, H> {
    /// Its client has not said enough; empty only while it is replaced.
    Greeting(Option<Greeting<I, H>>),
    Http1(Http1),
    Http2(Box<Http2<Greeted<Transport<I>>, H>>),
}

struct Greeting<I, H> {
    io: Greeted<Transport<I>>,
    http: Http<H>,
}

impl<I, H> Unpin for Serving<I, H> {}

impl<I, H, B> Future for Serving<I, H>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
{
    type Output = Result<(), ServeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Http1(connection) => return connection.as_mut().poll(context),
                State::Http2(connection) => {
                    let over = connection.poll(context);
                    return over.map_err(|error| ServeError::new(error.reason(&this.connection), error));
                }
                State::Greeting(greeting) => {
                    let Some(known) = greeting.as_mut() else { return Poll::Ready(Ok(())) };
                    let version = ready!(known.io.poll_version(context)).map_err(ServeError::of_client)?;
                    let Some(greeting) = greeting.take() else { return Poll::Ready(Ok(())) };
                    this.state = greeting.answer(version, &this.connection);
                }
            }
        }
    }
}

impl<I, H, B> Greeting<I, H>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
{
    fn answer(self, version: Version, connection: &Arc<Connection>) -> State<I, H> {
        let Self { io, http: Http { handler, options, tasks, at_length } } = self;
        let connection = Arc::clone(connection);
        match version {
            Version::Http2 => State::Http2(Box::new(Http2::new(io, handler, tasks, connection, &options, at_length))),
            Version::Http1 if at_length => State::Http1(Box::pin(http1::at_length(io, handler, connection, &options))),
            Version::Http1 => State::Http1(Box::pin(http1::in_brief(io, handler, connection, &options))),
        }
    }
}
