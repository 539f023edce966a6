//! What a connection is read from and written to: a socket, or TLS over it, and an end that loses nothing.
//!
//! One type for both, so that what is spoken over it is compiled once. A plain socket costs a branch a call and no
//! allocation; the state of TLS is large and behind a pointer, so that plain connections do not pay for it.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_rustls::server::TlsStream;

/// When the hub has sent its last byte, the client has this long to close, too,
const LINGER: Duration = Duration::from_secs(2);
/// and may send this much meanwhile, in bytes: what it was allowed before it learned of the end.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// A connection as an edge reads and writes it. It ends without losing what was sent last.
///
/// A socket that is closed while there is something to read resets its connection, and a client that is still sending
/// then fails before it has read all: why its session ended, and where to resume. So the hub reads on, and throws it
/// away, until the client closes.
pub struct Transport<I> {
    socket: Socket<I>,
    /// The hub has sent its last byte.
    ended: bool,
    lingering: Option<Lingering>,
}

/// As it is, or with TLS over it.
enum Socket<I> {
    Plain(I),
    Tls(Box<TlsStream<I>>),
}

/// Does the same with either.
macro_rules! either {
    ($self:expr, $inner:ident => $act:expr) => {
        match $self.get_mut() {
            Socket::Plain($inner) => {
                let $inner = Pin::new($inner);
                $act
            }
            Socket::Tls($inner) => {
                let $inner = Pin::new($inner.as_mut());
                $act
            }
        }
    };
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(context, buffer))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(inner) => inner.is_write_vectored(),
            Self::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(context))
    }
}

/// What is left of the time and bytes to linger.
struct Lingering {
    time: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Lingering {
    fn new(time: Duration, bytes: usize) -> Self {
        Self { time: Box::pin(tokio::time::sleep(time)), bytes }
    }

    /// Ready when the client has closed, or it has taken too long or too much.
    fn poll<I: AsyncRead + Unpin>(&mut self, inner: &mut I, context: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 4096];
        loop {
            if self.time.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut scrap);
            match Pin::new(&mut *inner).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && self.bytes >= buffer.filled().len() => {
                    self.bytes -= buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<I> Transport<I> {
    pub(super) fn plain(socket: I) -> Self {
        Self::over(Socket::Plain(socket))
    }

    pub(super) fn tls(socket: Box<TlsStream<I>>) -> Self {
        Self::over(Socket::Tls(socket))
    }

    fn over(socket: Socket<I>) -> Self {
        Self { socket, ended: false, lingering: None }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            ready!(Pin::new(&mut this.socket).poll_shutdown(context))?;
            this.ended = true;
        }
        let lingering = this.lingering.get_or_insert_with(|| Lingering::new(LINGER, LINGER_BYTES));
        ready!(lingering.poll(&mut this.socket, context));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// More than any of this takes.
    const LONG: Duration = Duration::from_secs(30);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        (client, listener.accept().await.expect("accepted").0)
    }

    #[tokio::test]
    async fn a_client_that_is_still_sending_reads_all_of_the_end() {
        let (mut client, hub) = pair().await;
        client.write_all(&vec![1; 50_000]).await.expect("sent");
        let ending = async {
            let start = Instant::now();
            let mut hub = Transport::plain(hub);
            hub.lingering = Some(Lingering::new(LONG, LINGER_BYTES));
            hub.write_all(b"last words").await.expect("sent");
            hub.shutdown().await.expect("ended");
            start.elapsed()
        };
        let reading = async {
            let mut told = [0; 10];
            client.read_exact(&mut told).await.expect("told");
            client.write_all(&vec![1; 50_000]).await.expect("not reset");
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.expect("an end and no reset");
            assert_eq!((&told[..], rest.len()), (&b"last words"[..], 0));
            drop(client);
        };
        let (took, ()) = tokio::join!(ending, reading);
        assert!(took < LONG, "it goes when the client does");
    }

    #[tokio::test]
    async fn a_client_that_stays_is_left() {
        let (client, hub) = pair().await;
        let start = Instant::now();
        Transport::plain(hub).shutdown().await.expect("ended");
        assert!(start.elapsed() >= LINGER);
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_goes_on_sending_is_left() {
        const BUFFER: usize = 1024;
        const BYTES: usize = 8192;
        // What is in the buffer between them counts as sent, whether it is read or not.
        for (bytes, read) in [(BYTES, true), (BYTES + 4096 + BUFFER + 1, false)] {
            let (mut client, hub) = tokio::io::duplex(BUFFER);
            let sending = async move { client.write_all(&vec![1; bytes]).await.is_ok() };
            let ending = async {
                let mut hub = Transport::plain(hub);
                hub.lingering = Some(Lingering::new(LONG, BYTES));
                hub.shutdown().await.expect("ended");
            };
            let (sent, ()) = tokio::join!(sending, ending);
            assert_eq!(sent, read, "{bytes}");
        }
    }
}
