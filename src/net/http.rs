//! HTTP on one connection: which version its client speaks, and the driving of either.
//!
//! HTTP/2 is served at length ([`super::http2`]). HTTP/1 is for probes, and for clients that take this port for another.

use std::{
    convert::Infallible,
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

use super::{
    Options,
    connection::{Connection, Streams},
    http2::{Http2, Http2Error},
    inbound::{Inbound, InboundError},
    transport::{Listening, Version},
};
use crate::telemetry::ConnectionEnd;

/// HTTP/1 is only answered, never served at length.
const HTTP1_BUFFER_BYTES: usize = 16 * 1024;

/// Why a connection ended, other than in order.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http1(#[from] hyper::Error),
    #[error("{0}")]
    Http2(#[from] Http2Error),
}

impl ServeError {
    /// As what it is counted, if the hub ended the connection.
    pub(super) fn reason(&self, connection: &Connection) -> Option<ConnectionEnd> {
        match self {
            Self::Http2(error) => error.reason(connection),
            Self::Io(_) | Self::Http1(_) => None,
        }
    }
}

type Http1 = Pin<Box<dyn GracefulConnection<Output = Result<(), hyper::Error>, Error = hyper::Error> + Send>>;

/// A connection that is served.
pub(super) struct Serving<I, H> {
    state: State<I, H>,
    options: Arc<Options>,
}

enum State<I, H> {
    /// Its client has not said enough; empty only while it is replaced.
    Greeting(Option<Greeting<I, H>>),
    Http1(Http1),
    Http2(Box<Http2<Listening<I>, H>>),
}

struct Greeting<I, H> {
    io: Listening<I>,
    handler: H,
    streams: Streams,
}

impl<I, H, B> Serving<I, H>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
{
    pub(super) fn new(io: Listening<I>, handler: H, streams: Streams, options: Arc<Options>) -> Self {
        Self { state: State::Greeting(Some(Greeting { io, handler, streams })), options }
    }

    /// Takes nothing new; the connection ends when the last is done.
    pub(super) fn leave(&mut self) {
        match &mut self.state {
            // Nothing was begun; the caller closes it.
            State::Greeting(_) => {}
            State::Http1(connection) => connection.as_mut().graceful_shutdown(),
            State::Http2(connection) => connection.leave(),
        }
    }

    /// Drives the connection; ready when it is over.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        loop {
            match &mut self.state {
                State::Http1(connection) => return connection.as_mut().poll(context).map_err(ServeError::Http1),
                State::Http2(connection) => return connection.poll(context).map_err(ServeError::Http2),
                State::Greeting(greeting) => {
                    let Some(known) = greeting.as_mut() else { return Poll::Ready(Ok(())) };
                    let version = ready!(known.io.poll_version(context))?;
                    let Some(greeting) = greeting.take() else { return Poll::Ready(Ok(())) };
                    self.state = greeting.answer(version, &self.options);
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
    fn answer(self, version: Version, options: &Options) -> State<I, H> {
        let Self { io, handler, streams } = self;
        match version {
            Version::Http2 => State::Http2(Box::new(Http2::new(io, handler, streams, options))),
            Version::Http1 => {
                let service = OverHttp1 { handler, connection: streams.connection };
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
