//! HTTP on one connection: which version its client speaks, and the driving of either.
//!
//! HTTP/2 is served at length ([`http2`]). HTTP/1 is for probes, and for clients that take this port for another. It
//! knows nothing of gRPC: the same serves the hub's port and the operator's.

mod exchange;
mod fault;
mod greeting;
mod http2;
mod inbound;

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
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{ServiceExt, util::Oneshot};

pub use exchange::AtItsOwnPace;
pub use inbound::{Ahead, Inbound, InboundError};

use super::{Connection, Options, Serve, ServeError, Transport};
use crate::tasks::Tasks;
use greeting::{Greeted, Version};
use http2::Http2;

/// HTTP/1 is only answered, never served at length.
const HTTP1_BUFFER_BYTES: usize = 16 * 1024;

/// Serves HTTP. Every request has its [`Connection`] in the extensions, and over HTTP/2 its [`crate::cut::Cut`].
#[derive(Debug, Clone)]
pub struct Http<H> {
    handler: H,
    options: Arc<Options>,
    tasks: Tasks,
}

impl<H> Http<H> {
    /// Requests go to `handler`, any tower service that cannot fail; each HTTP/2 stream is a task of its own.
    pub fn new(handler: H, options: Arc<Options>, tasks: Tasks) -> Self {
        Self { handler, options, tasks }
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
        Serving { state: State::Greeting(Some(Greeting { io, http: self })), connection, leaving: false }
    }
}

type Http1 = Pin<Box<dyn GracefulConnection<Output = Result<(), hyper::Error>, Error = hyper::Error> + Send>>;

/// A connection that is served.
struct Serving<I, H> {
    state: State<I, H>,
    connection: Arc<Connection>,
    leaving: bool,
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
            if !this.leaving && this.connection.is_leaving() {
                this.leaving = this.state.leave();
            }
            match &mut this.state {
                State::Http1(connection) => return connection.as_mut().poll(context).map_err(ServeError::of_client),
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

impl<I, H, B> State<I, H>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes> + Send + 'static,
{
    /// Takes nothing new; the connection ends when the last is done. False while there is nothing to end.
    fn leave(&mut self) -> bool {
        match self {
            State::Greeting(_) => return false,
            State::Http1(connection) => connection.as_mut().graceful_shutdown(),
            State::Http2(connection) => connection.leave(),
        }
        true
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
        let Self { io, http: Http { handler, options, tasks } } = self;
        match version {
            Version::Http2 => State::Http2(Box::new(Http2::new(io, handler, tasks, Arc::clone(connection), &options))),
            Version::Http1 => {
                let service = OverHttp1 { handler, connection: Arc::clone(connection) };
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(options.handshake_timeout())
                    .max_buf_size(HTTP1_BUFFER_BYTES)
                    .serve_connection(TokioIo::new(io), service);
                State::Http1(Box::pin(connection))
            }
        }
    }
}

/// The handler as hyper calls it.
struct OverHttp1<H> {
    handler: H,
    connection: Arc<Connection>,
}

impl<H, B> hyper::service::Service<Request<Incoming>> for OverHttp1<H>
where
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Oneshot<H, Request<Inbound>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Inbound::http1);
        request.extensions_mut().insert(Arc::clone(&self.connection));
        self.handler.clone().oneshot(request)
    }
}
