//! How a client of HTTP greets: by what HTTP/2 begins with, or by anything else.
//!
//! Owns the first bytes of a connection until they are read again, and the note that its client has begun to speak.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Connection;

/// What HTTP/2 begins with, and longer than anything by which HTTP/1 is known.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// A transport whose first bytes have been looked at, if need be.
pub(super) struct Greeted<T> {
    inner: T,
    /// What was read to find out what the client speaks, to be read again.
    greeting: [u8; PREFACE.len()],
    /// How much of it there is, and how much was read again.
    known: usize,
    replayed: usize,
    /// How much the client has said, as far as that matters.
    heard: usize,
    connection: Arc<Connection>,
}

impl<T> Greeted<T> {
    pub(super) fn new(inner: T, connection: Arc<Connection>) -> Self {
        Self { inner, greeting: [0; PREFACE.len()], known: 0, replayed: 0, heard: 0, connection }
    }

    /// The client has said `bytes` more.
    fn hear(&mut self, bytes: usize) {
        if self.heard < PREFACE.len() {
            self.heard += bytes;
            if self.heard >= PREFACE.len() {
                self.connection.heard();
            }
        }
    }
}

impl<T: AsyncRead + Unpin> Greeted<T> {
    /// Finds out what the client speaks. Nothing of what it said is lost.
    pub(super) fn poll_version(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Version>> {
        loop {
            if self.greeting[..self.known] != PREFACE[..self.known] {
                return Poll::Ready(Ok(Version::Http1));
            }
            if self.known == PREFACE.len() {
                return Poll::Ready(Ok(Version::Http2));
            }
            let mut buffer = ReadBuf::new(&mut self.greeting[self.known..]);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled().len();
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.known += bytes;
            self.hear(bytes);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Greeted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replayed < self.known {
            let bytes = buffer.remaining().min(self.known - self.replayed);
            buffer.put_slice(&self.greeting[self.replayed..][..bytes]);
            self.replayed += bytes;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.hear(buffer.filled().len() - before);
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Greeted<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
