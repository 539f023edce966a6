//! The two ways on which frames leave: a connection that left HTTP/1 by an upgrade, and the body of a response over HTTP/2.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::sender::{Next, Sender, Sent};
use crate::{
    net::ServeError,
    telemetry::{ConnectionEnd, StreamCut},
};

/// Sends over a connection until it is over, and ends it.
#[allow(clippy::manual_async_fn)] // An async fn would keep its arguments twice for as long as it runs.
pub(super) fn send<F>(
    mut sender: Sender<F>,
    mut io: impl AsyncWrite + Unpin + Send,
) -> impl Future<Output = Result<(), ServeError>> + Send
where
    F: FnMut(&mut Context<'_>) -> Poll<Next> + Send,
{
    async move {
        let mut unsent = Unsent { bytes: Bytes::new(), stuck: false, flushed: true };
        let sent = poll_fn(|context| poll_send(&mut sender, &mut unsent, Pin::new(&mut io), context)).await;
        // Whatever it keeps for the client is not needed while the client takes its time to close.
        drop(sender);
        if unsent.bytes.is_empty() {
            io.shutdown().await.map_err(ServeError::of_client)?;
        }
        match sent {
            Sent::Closed | Sent::Gone => Ok(()),
            Sent::Silent => Err(ServeError::new(Some(ConnectionEnd::PingTimeout), "no answer to a ping")),
            Sent::Stalled => Err(ServeError::of_cut(StreamCut::SessionStalled, "the client took nothing of a session")),
        }
    }
}

/// Bytes on their way to a connection.
struct Unsent {
    bytes: Bytes,
    /// The transport has no room.
    stuck: bool,
    /// Nothing is left in the transport.
    flushed: bool,
}

fn poll_send<F>(
    sender: &mut Sender<F>,
    unsent: &mut Unsent,
    mut io: Pin<&mut (impl AsyncWrite + ?Sized)>,
    context: &mut Context<'_>,
) -> Poll<Sent>
where
    F: FnMut(&mut Context<'_>) -> Poll<Next>,
{
    loop {
        while !unsent.bytes.is_empty() {
            match io.as_mut().poll_write(context, &unsent.bytes) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Sent::Gone),
                Poll::Ready(Ok(some)) => {
                    unsent.bytes.advance(some);
                    if std::mem::take(&mut unsent.stuck) {
                        sender.took();
                    }
                }
                Poll::Pending => {
                    unsent.stuck = true;
                    return sender.poll_stuck(context);
                }
            }
        }
        match sender.poll_bytes(context) {
            Poll::Ready(Ok(bytes)) => (unsent.bytes, unsent.flushed) = (bytes, false),
            Poll::Ready(Err(sent)) => return Poll::Ready(sent),
            Poll::Pending => {
                // The bytes are not kept while nothing is sent.
                unsent.bytes = Bytes::new();
                if !unsent.flushed {
                    if ready!(io.as_mut().poll_flush(context)).is_err() {
                        return Poll::Ready(Sent::Gone);
                    }
                    unsent.flushed = true;
                }
                return Poll::Pending;
            }
        }
    }
}

/// HTTP/2 asks for more right away unless the client has to make room first, which takes this long at least.
const SOON: Duration = Duration::from_millis(100);

/// The body of a response whose frames are those of WebSocket.
pub(super) struct SenderBody<F> {
    sender: Sender<F>,
    /// When something was handed out of which it is not known yet whether it has left.
    handed: Option<Instant>,
}

impl<F> SenderBody<F> {
    pub(super) fn new(sender: Sender<F>) -> Self {
        Self { sender, handed: None }
    }
}

impl<F: FnMut(&mut Context<'_>) -> Poll<Next> + Unpin> Body for SenderBody<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.handed.take().is_some_and(|handed| handed.elapsed() >= SOON) {
            this.sender.took();
        }
        let bytes = ready!(this.sender.poll_bytes(context));
        this.handed = bytes.is_ok().then(Instant::now);
        Poll::Ready(bytes.ok().map(|bytes| Ok(Frame::data(bytes))))
    }
}
