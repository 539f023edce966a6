//! Where the bytes of a client come from: a connection that left HTTP/1 by an upgrade, or the body of a request over HTTP/2.

use std::{
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::io::{AsyncRead, ReadBuf};

/// What is read of a connection at a time, in bytes.
const READ_BYTES: usize = 32 * 1024;

/// A client, to be read. It holds no buffer while nothing comes.
pub(super) trait Source: Unpin + Send {
    /// The next bytes, which are at least one; `None` when there are no more, or cannot be.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<BytesMut>>;
}

/// A connection.
#[derive(Debug)]
pub(super) struct Socket<I>(pub(super) I);

impl<I: AsyncRead + Unpin + Send> Source for Socket<I> {
    #[allow(clippy::large_stack_arrays)] // It is not written to but by what comes.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<BytesMut>> {
        // On the stack, and copied once something has come: the client is silent nearly all the time.
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut room);
        let result = ready!(Pin::new(&mut self.0).poll_read(context, &mut read));
        Poll::Ready((result.is_ok() && !read.filled().is_empty()).then(|| BytesMut::from(read.filled())))
    }
}

/// A stream of HTTP/2.
#[derive(Debug)]
pub(super) struct Tunnel<B>(pub(super) B);

impl<B: Body<Data = Bytes> + Unpin + Send> Source for Tunnel<B> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<BytesMut>> {
        loop {
            let Some(Ok(frame)) = ready!(Pin::new(&mut self.0).poll_frame(context)) else {
                return Poll::Ready(None);
            };
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Poll::Ready(Some(data.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))));
            }
        }
    }
}
