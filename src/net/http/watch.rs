//! How far one HTTP/1 connection is that is served at length: between requests, in a head, or in an exchange.
//!
//! The HTTP/1 library tells nobody. So its transport, the handler and the bodies of its responses note what they see, for
//! who drives the connection: whether a stream is open on it, which one, and until when its client has time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::takeover::Takeover;
use crate::{
    cut::Cut,
    net::{Connection, OpenStream, Options},
};

/// What a client takes too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The head of a request.
    Head,
    /// Taking a response.
    Response,
}

/// What is known of one connection. All who hold it are in the task of the connection.
#[derive(Clone)]
pub(super) struct Watch(Arc<Mutex<Now>>);

struct Now {
    connection: Arc<Connection>,
    at: At,
    /// What is open counts as a stream from the first byte of its head on, or the connection would be idle.
    open: Option<OpenStream>,
    /// Since when the transport takes nothing of what is to be sent.
    blocked: Option<Instant>,
    /// The client may take its time for the response.
    at_its_own_pace: bool,
    takeover: Option<Takeover>,
    head_timeout: Duration,
    response_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between requests.
    Idle,
    /// The head of a request has begun to come.
    Head(Instant),
    /// A request is handled, or its response is being made.
    Exchange,
    /// A response is made; all of it may not be sent yet.
    Made,
    /// The last response says that something else is spoken.
    Upgrade,
}

impl Watch {
    /// The first head has begun to come.
    pub(super) fn new(connection: &Arc<Connection>, options: &Options) -> Self {
        Self(Arc::new(Mutex::new(Now {
            connection: Arc::clone(connection),
            at: At::Head(Instant::now()),
            open: Some(connection.open_stream()),
            blocked: None,
            at_its_own_pace: false,
            takeover: None,
            head_timeout: options.handshake_timeout(),
            response_timeout: options.response_timeout(),
        })))
    }

    /// A request has come. Gives what ends it from outside.
    pub(super) fn begin(&self) -> Arc<Cut> {
        let mut now = self.0.lock();
        // One that the client had sent together with the one before has had no first byte.
        if now.at == At::Idle || now.at == At::Made {
            now.open = None;
        }
        let connection = Arc::clone(&now.connection);
        let cut = Arc::clone(now.open.get_or_insert_with(|| connection.open_stream()).cut());
        (now.at, now.at_its_own_pace) = (At::Exchange, false);
        cut
    }

    /// There is a response.
    pub(super) fn answered(&self, at_its_own_pace: bool, takeover: Option<Takeover>) {
        let mut now = self.0.lock();
        now.at_its_own_pace = at_its_own_pace;
        if takeover.is_some() {
            (now.at, now.takeover) = (At::Upgrade, takeover);
        }
    }

    /// The response is made: the HTTP/1 library has all of it.
    fn made(&self) {
        let mut now = self.0.lock();
        if now.at == At::Exchange {
            now.at = At::Made;
        }
    }

    /// The client has said something.
    fn heard(&self) {
        let mut now = self.0.lock();
        if now.at == At::Idle {
            (now.at, now.open) = (At::Head(Instant::now()), Some(now.connection.open_stream()));
        }
    }

    /// The transport took something, or it did not. It is asked to flush only once it has taken all.
    fn wrote<T>(&self, result: &Poll<T>, all: bool) {
        let mut now = self.0.lock();
        if result.is_pending() {
            now.blocked.get_or_insert_with(Instant::now);
            return;
        }
        now.blocked = None;
        if all {
            now.settle();
        }
    }

    /// Whether the client is late with anything, or by when it would be. Asked whenever the HTTP/1 library has done what it
    /// could.
    pub(super) fn late(&self) -> Option<(Late, Instant)> {
        let mut now = self.0.lock();
        now.settle();
        match (now.at, now.blocked) {
            (At::Head(since), _) => Some((Late::Head, since + now.head_timeout)),
            // Once it is made, whoever made it has no eye on it any more.
            (At::Exchange, Some(_)) if now.at_its_own_pace => None,
            (_, Some(since)) => Some((Late::Response, since + now.response_timeout)),
            (_, None) => None,
        }
    }

    /// Ready once what is open is to be cut.
    pub(super) fn poll_cut(&self, context: &Context<'_>) -> Poll<()> {
        let now = self.0.lock();
        now.open.as_ref().map_or(Poll::Pending, |open| open.cut().poll_done(context))
    }

    /// What is open, and what is spoken on it from now on, if the last response said so.
    pub(super) fn close(&self) -> (Option<OpenStream>, Option<Takeover>) {
        let mut now = self.0.lock();
        now.at = At::Idle;
        (now.open.take(), now.takeover.take())
    }
}

impl Now {
    /// A response that is made and sent was the last of its exchange.
    fn settle(&mut self) {
        if self.at == At::Made && self.blocked.is_none() {
            (self.at, self.open) = (At::Idle, None);
        }
    }
}

/// The transport of a connection that is watched.
pub(super) struct Watched<T> {
    inner: T,
    watch: Watch,
}

impl<T> Watched<T> {
    pub(super) fn new(inner: T, watch: Watch) -> Self {
        Self { inner, watch }
    }

    pub(super) fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watch.heard();
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch.wrote(&result, false);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch.wrote(&result, false);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.watch.wrote(&result, true);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

pin_project! {
    /// The body of a response on a connection that is watched.
    pub(super) struct Outbound<B> {
        // `None` has no bytes.
        #[pin]
        body: Option<B>,
        end: End,
    }
}

/// The HTTP/1 library drops a body when it has all of it.
struct End(Watch);

impl Drop for End {
    fn drop(&mut self) {
        self.0.made();
    }
}

impl<B> Outbound<B> {
    pub(super) fn new(body: Option<B>, watch: Watch) -> Self {
        Self { body, end: End(watch) }
    }
}

impl<B: Body<Data = Bytes>> Body for Outbound<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.project().body.as_pin_mut().map_or(Poll::Ready(None), |body| body.poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Connections;

    const TAKEN: Poll<()> = Poll::Ready(());

    #[tokio::test(start_paused = true)]
    async fn a_client_has_time_for_a_head_and_for_what_it_is_to_take_and_else_none_runs() {
        let options = Options::default();
        let connections = Arc::new(Connections::new(Arc::default(), Arc::default()));
        let admitted = connections.admit(crate::model::Peer::Unix(None), &options).expect("room");
        let watch = Watch::new(&admitted.connection, &options);
        let open = || watch.0.lock().open.is_some();
        let second = || tokio::time::advance(Duration::from_secs(1));
        let (head, response) = (options.handshake_timeout(), options.response_timeout());

        let start = Instant::now();
        second().await;
        watch.heard();
        assert_eq!(watch.late(), Some((Late::Head, start + head)), "from its first byte");
        let first = watch.begin();
        assert_eq!((watch.late(), open()), (None, true), "the hub may take its time");
        watch.wrote(&Poll::<()>::Pending, false);
        let blocked = Instant::now();
        second().await;
        watch.wrote(&Poll::<()>::Pending, false);
        assert_eq!(watch.late(), Some((Late::Response, blocked + response)));
        watch.answered(true, None);
        assert_eq!(watch.late(), None, "at its own pace");
        watch.made();
        assert_eq!(watch.late(), Some((Late::Response, blocked + response)), "whose maker is gone");
        watch.wrote(&TAKEN, false);
        watch.heard();
        assert!(open(), "some of it may wait");
        watch.wrote(&TAKEN, true);
        assert_eq!((watch.late(), open()), (None, false), "between requests");

        watch.heard();
        assert_eq!(watch.late(), Some((Late::Head, Instant::now() + head)));
        let second_cut = watch.begin();
        assert!(!Arc::ptr_eq(&first, &second_cut));
        watch.made();
        assert_eq!(watch.late(), None);
        assert!(!open(), "all had been taken at once");
        // One that came together with the one before.
        let third = watch.begin();
        assert!(!Arc::ptr_eq(&second_cut, &third) && open());
    }

    #[tokio::test]
    async fn what_is_upgraded_stays_open() {
        let options = Options::default();
        let connections = Arc::new(Connections::new(Arc::default(), Arc::default()));
        let admitted = connections.admit(crate::model::Peer::Unix(None), &options).expect("room");
        let watch = Watch::new(&admitted.connection, &options);
        let cut = watch.begin();
        watch.answered(false, Some(Takeover::new(|_| async { Ok(()) })));
        watch.made();
        watch.wrote(&TAKEN, true);
        let (open, takeover) = watch.close();
        assert!(Arc::ptr_eq(&cut, open.expect("still open").cut()) && takeover.is_some());
    }
}
