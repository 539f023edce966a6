//! Other protocols than HTTP, on a connection or a stream that began with it.
//!
//! Over HTTP/1 that is the connection, which leaves HTTP by an upgrade: whoever answers a request with 101 says in the
//! response what is spoken from then on. It is spoken in the task of the connection, so that the connection stays counted,
//! and leaves and closes as any other. Over HTTP/2 it is a stream, opened by an extended CONNECT; to the hub that is a
//! request like any other, whose two bodies are the two directions.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::ServeError;

/// What is spoken over an upgraded connection, to its end.
type Speaking = Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>>;
type Begin = Box<dyn FnOnce(Upgraded) -> Speaking + Send>;

/// In the extensions of a response with status 101: what is spoken once the client has that response.
///
/// The response counts only for a request that may be upgraded: over HTTP/1.1, with a header `upgrade` and without a body.
/// After any other the connection just ends.
#[derive(Clone)]
pub struct Takeover(Arc<Mutex<Option<Begin>>>);

impl Takeover {
    /// `begin` is called once, when all of HTTP is done. What it gives is polled in the task of the connection, directly: it
    /// is polled again once the connection [is leaving](crate::net::Connection::is_leaving), and then ends when what it has
    /// begun is done. It is dropped when it takes too long for that, or when the stream of the request is cut. It ends its
    /// connection itself, by a shutdown.
    pub fn new<F, S>(begin: F) -> Self
    where
        F: FnOnce(Upgraded) -> S + Send + 'static,
        S: Future<Output = Result<(), ServeError>> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(Some(Box::new(|upgraded| Box::pin(begin(upgraded)))))))
    }

    /// Begins; `None` if that was done before.
    pub(super) fn begin(&self, upgraded: Upgraded) -> Option<Speaking> {
        let begin = self.0.lock().take()?;
        Some(begin(upgraded))
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover").finish_non_exhaustive()
    }
}

/// In the extensions of a request that is an extended CONNECT (RFC 8441): what its client wants to speak on the stream. Its
/// body is what the client says, and the body of a response with status 200 what the hub says; each ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelProtocol(Box<str>);

impl TunnelProtocol {
    pub(super) fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name, such as `websocket`, as the client wrote it.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Only to name both in one `dyn`.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection after its upgrade. A shutdown loses nothing of what was sent before, and waits a moment for the client to
/// close, too.
pub struct Upgraded {
    /// What the client said right behind its request.
    ahead: Bytes,
    io: Box<dyn Io>,
}

impl Upgraded {
    pub(super) fn new(io: Box<dyn Io>, ahead: Bytes) -> Self {
        // Even when it is empty it keeps the buffer it was read into.
        Self { ahead: if ahead.is_empty() { Bytes::new() } else { ahead }, io }
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let bytes = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..bytes]);
        self.ahead.advance(bytes);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_first_and_in_any_pieces() {
        let (mut client, hub) = tokio::io::duplex(64);
        client.write_all(b" and after").await.expect("sent");
        client.shutdown().await.expect("ended");
        let mut upgraded = Upgraded::new(Box::new(hub), Bytes::from_static(b"before"));
        let (mut some, mut rest) = ([0; 4], String::new());
        upgraded.read_exact(&mut some).await.expect("read");
        upgraded.read_to_string(&mut rest).await.expect("read");
        assert_eq!((&some[..], &*rest), (&b"befo"[..], "re and after"));
    }

    #[tokio::test]
    async fn a_takeover_begins_once_however_often_its_response_was_cloned() {
        let takeover = Takeover::new(|_| async { Ok(()) });
        let upgraded = || Upgraded::new(Box::new(tokio::io::empty()), Bytes::new());
        let begun = takeover.clone().begin(upgraded()).expect("the first");
        begun.await.expect("it ends");
        assert!(takeover.begin(upgraded()).is_none());
    }
}
