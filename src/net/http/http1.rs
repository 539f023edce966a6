//! HTTP/1 on one connection: in brief, for probes and for clients that take this port for another, or at length.
//!
//! At length a request is a stream as over HTTP/2: it counts for its connection, is cut from outside, and works in turns
//! with whatever else its connection does. Only a task of its own it has none: it is served in that of the connection, since
//! there is no more than one at a time. What the HTTP/1 library (hyper) lacks is kept here: limits of time on the head of a
//! request, on a connection between requests, and on a response whose client takes nothing.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONNECTION};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep},
};
use tower::{ServiceExt, util::Oneshot};

use super::{
    exchange::AtItsOwnPace,
    inbound::{Inbound, InboundError, Unread},
    takeover::{Io, Takeover, Upgraded},
    watch::{Late, Outbound, Watch, Watched},
};
use crate::{
    net::{Connection, OpenStream, Options, ServeError},
    tasks::Turn,
    telemetry::StreamCut,
};

/// What is read of a connection, and made for it, at a time.
const BUFFER_BYTES: usize = 16 * 1024;

/// Answers requests, which is all that is done for them: they are no streams of their connection.
pub(super) fn in_brief<I, H, B>(
    io: I,
    handler: H,
    connection: Arc<Connection>,
    options: &Options,
) -> impl Future<Output = Result<(), ServeError>> + Send + 'static + use<I, H, B>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
{
    let service = InBrief { handler, connection: Arc::clone(&connection) };
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.handshake_timeout())
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut leaving = false;
    poll_fn(move |context| {
        let mut served = Pin::new(&mut served);
        if !leaving && connection.is_leaving() {
            leaving = true;
            served.as_mut().graceful_shutdown();
        }
        served.poll(context).map_err(ServeError::of_client)
    })
}

/// The handler as hyper calls it.
struct InBrief<H> {
    handler: H,
    connection: Arc<Connection>,
}

impl<H, B> hyper::service::Service<Request<Incoming>> for InBrief<H>
where
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Oneshot<H, Request<Inbound>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(|body| Inbound::http1(body, Unread::default()));
        request.extensions_mut().insert(Arc::clone(&self.connection));
        self.handler.clone().oneshot(request)
    }
}

/// Serves requests as streams, one at a time, and what a connection is upgraded to.
pub(super) fn at_length<I, H, B>(
    io: I,
    handler: H,
    connection: Arc<Connection>,
    options: &Options,
) -> impl Future<Output = Result<(), ServeError>> + Send + 'static + use<I, H, B>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<InboundError>> + Send + 'static,
{
    connection.limit_idle(options.http1_idle_timeout());
    let watch = Watch::new(&connection, options);
    let header_bytes = options.max_header_list_bytes as usize;
    let service = AtLength { handler, connection: Arc::clone(&connection), watch: watch.clone() };
    // Its own time for a head would run between requests, too.
    let mut served = Box::new(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_header_size(header_bytes)
            .max_buf_size(header_bytes.max(BUFFER_BYTES))
            .serve_connection(TokioIo::new(Watched::new(io, watch.clone())), service),
    );
    async move {
        let (mut limit, mut leaving) = (Limit::default(), false);
        let over = poll_fn(|context| {
            if watch.poll_cut(context).is_ready() {
                return Poll::Ready(Ok(false));
            }
            let lane = connection.lane();
            let mut over = lane.within(|| Pin::new(&mut *served).poll(context));
            // Only now: a request that has come is served.
            if over.is_pending() && !leaving && connection.is_leaving() {
                leaving = true;
                Pin::new(&mut *served).graceful_shutdown();
                over = lane.within(|| Pin::new(&mut *served).poll(context));
            }
            match over {
                Poll::Ready(over) => Poll::Ready(over.map(|()| true).map_err(ServeError::of_client)),
                Poll::Pending => limit.poll(&watch, context).map(Err),
            }
        })
        .await?;
        if !over {
            return Ok(());
        }
        let parts = served.into_parts();
        let io: Box<dyn Io> = Box::new(parts.io.into_inner().into_inner());
        let last = watch.close();
        drop(watch);
        match last {
            (Some(open), Some(takeover)) => speak(open, takeover, Upgraded::new(io, parts.read_buf)).await,
            _ => end(io).await,
        }
    }
}

/// Ends a connection on which nothing else is spoken. The HTTP/1 library has done so, unless the client asked for an upgrade
/// once.
async fn end(mut io: Box<dyn Io>) -> Result<(), ServeError> {
    io.shutdown().await.map_err(ServeError::of_client)
}

/// Speaks over a connection, for as long as its stream is not cut.
fn speak(
    open: OpenStream,
    takeover: Takeover,
    upgraded: Upgraded,
) -> impl Future<Output = Result<(), ServeError>> + Send {
    let lane = Arc::clone(open.connection().lane());
    let mut speaking = lane.within(|| takeover.begin(upgraded));
    poll_fn(move |context| {
        if open.cut().poll_done(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        match &mut speaking {
            Some(speaking) => {
                let end = ready!(lane.within(|| speaking.as_mut().poll(context)));
                if let Some(why) = end.as_ref().err().and_then(|error| error.cut) {
                    open.was_cut(why);
                }
                Poll::Ready(end)
            }
            None => Poll::Ready(Ok(())),
        }
    })
}

/// The one limit of time that holds now for the client of a connection. There is a timer only while there is a limit: none
/// between requests, where [`Connection::limit_idle`] holds.
#[derive(Default)]
struct Limit(Option<Pin<Box<Sleep>>>);

impl Limit {
    /// Ready when the client is late.
    fn poll(&mut self, watch: &Watch, context: &mut Context<'_>) -> Poll<ServeError> {
        let Some((late, by)) = watch.late() else {
            self.0 = None;
            return Poll::Pending;
        };
        ready!(self.poll_until(by, context));
        Poll::Ready(match late {
            Late::Head => ServeError::of_client("the head of a request took too long"),
            Late::Response => {
                if let (Some(open), _) = watch.close() {
                    open.was_cut(StreamCut::ResponseStalled);
                }
                ServeError::of_client("the client took nothing of a response")
            }
        })
    }

    fn poll_until(&mut self, by: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(by)));
        if timer.deadline() != by {
            timer.as_mut().reset(by);
        }
        timer.as_mut().poll(context)
    }
}

/// The handler as hyper calls it where requests are streams.
struct AtLength<H> {
    handler: H,
    connection: Arc<Connection>,
    watch: Watch,
}

impl<H, B> hyper::service::Service<Request<Incoming>> for AtLength<H>
where
    H: tower::Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Data = Bytes>,
{
    type Response = Response<Outbound<B>>;
    type Error = Infallible;
    type Future = Handling<Oneshot<H, Request<Inbound>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let cut = self.watch.begin();
        let unread = Unread::default();
        let mut request = request.map(|body| Inbound::http1(body, unread.clone()));
        let (may_upgrade, is_tunnel) = (request.body().is_end_stream(), request.method() == Method::CONNECT);
        let extensions = request.extensions_mut();
        let may_upgrade = extensions.remove::<OnUpgrade>().is_some() && may_upgrade;
        extensions.insert(Arc::clone(&self.connection));
        extensions.insert(cut);
        Handling {
            turn: Turn::of_stream(),
            // This is no proxy.
            response: (!is_tunnel).then(|| self.handler.clone().oneshot(request)),
            watch: self.watch.clone(),
            may_upgrade,
            unread,
        }
    }
}

pin_project! {
    /// The work on one request until there is a response. It begins when there is a turn for it.
    struct Handling<F> {
        turn: Turn,
        // `None` for a request that the handler does not get.
        #[pin]
        response: Option<F>,
        watch: Watch,
        may_upgrade: bool,
        unread: Unread,
    }
}

impl<F, B> Future for Handling<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<Outbound<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        ready!(this.turn.poll_settle(context));
        let Some(response) = this.response.as_pin_mut() else {
            let mut response = Response::new(Outbound::new(None, this.watch.clone()));
            *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
            return Poll::Ready(Ok(response));
        };
        let mut response = match ready!(response.poll(context)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let upgrades = *this.may_upgrade && response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let extensions = response.extensions_mut();
        let at_its_own_pace = extensions.remove::<AtItsOwnPace>().is_some();
        let takeover = extensions.remove::<Takeover>().filter(|_| upgrades);
        this.watch.answered(at_its_own_pace, takeover);
        // What is left of a request is not read, so that the connection ends. A client that did not know would send its next
        // request into the void.
        if this.unread.is_left() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| Outbound::new(Some(body), this.watch.clone()))))
    }
}
