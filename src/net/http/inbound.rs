//! The body of a request.
//!
//! A client may send as much as the windows of its stream and its connection allow, and gets window back only for what
//! was consumed here: that is all the back-pressure there is, and clients that keep to it are never ended for it. What
//! has come is taken out of the HTTP/2 library as soon as possible, though ([`Ahead`]): there every frame
//! costs some 300 bytes however small it is, so that it ends connections on which many small frames wait.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::fault::fault;
use crate::net::Connection;

/// Smaller pieces are copied together: each holds on to a whole buffer of the connection.
const SMALL_BYTES: usize = 1024;
/// They make pieces of about this size, so that window is given back in steps.
const GATHERED_BYTES: usize = 32 * 1024;

/// So many frames are taken in at a time: their number is the client's choice.
pub(super) const FRAMES_AT_ONCE: usize = 1024;

/// Why a body could not be read to its end.
pub type InboundError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request. Dropping it leaves what has not come yet to the stream it came on, which reads it and throws it
/// away.
#[derive(Debug)]
pub struct Inbound(Source);

#[derive(Debug)]
enum Source {
    Http1(Incoming),
    Http2(Arc<Mutex<Reading>>),
}

#[derive(Debug)]
struct Incoming {
    body: hyper::body::Incoming,
    unread: Unread,
}

/// Whether a request over HTTP/1 was left before its end: its connection can't be used for another one.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.unread.0.store(true, Relaxed);
        }
    }
}

#[derive(Debug)]
struct Reading {
    stream: Option<RecvStream>,
    /// What was read ahead, oldest first; what is smallest and newest is in `small`.
    ahead: VecDeque<Bytes>,
    small: BytesMut,
    /// How the stream ended, once that was read.
    ended: Option<Result<(), h2::Error>>,
    /// The client gets window back for this when more is asked for.
    handed_out: usize,
    rest: Rest,
    connection: Arc<Connection>,
}

/// In the extensions of a request over HTTP/2: takes in what has come of its body while nobody asks for it.
#[derive(Debug, Clone)]
pub struct Ahead(Arc<Mutex<Reading>>);

impl Ahead {
    /// Takes in what has come, for later: at most the window of the stream, since the client gets none of it back for
    /// this. The task is woken when more comes.
    pub fn poll(&self, context: &mut Context<'_>) {
        self.0.lock().read_some(context);
    }
}

/// Where the unread rest of a request is left for the task of its stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Rest(Arc<Mutex<Option<RecvStream>>>);

impl Rest {
    /// The rest, if there is one and nobody reads it any more.
    pub(super) fn take(&self) -> Option<RecvStream> {
        self.0.lock().take()
    }
}

impl Inbound {
    pub(super) fn http1(body: hyper::body::Incoming, unread: Unread) -> Self {
        Self(Source::Http1(Incoming { body, unread }))
    }

    pub(super) fn http2(stream: RecvStream, rest: Rest, connection: Arc<Connection>) -> Self {
        let (ahead, small) = (VecDeque::new(), BytesMut::new());
        let stream = Some(stream);
        let reading = Reading { stream, ahead, small, ended: None, handed_out: 0, rest, connection };
        Self(Source::Http2(Arc::new(Mutex::new(reading))))
    }

    /// Reads ahead while this waits to be read; `None` where nothing has to.
    pub(super) fn ahead(&self) -> Option<Ahead> {
        match &self.0 {
            Source::Http1(_) => None,
            Source::Http2(reading) => Some(Ahead(Arc::clone(reading))),
        }
    }
}

impl Reading {
    /// Takes in one piece. Pending also when all has come.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.ended.is_none()) else { return Poll::Pending };
        match stream.poll_data(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => self.ended = Some(Ok(())),
            Poll::Ready(Some(Err(error))) => {
                if let Some(fault) = fault(&error) {
                    self.connection.note_fault(fault);
                }
                self.ended = Some(Err(error));
            }
            Poll::Ready(Some(Ok(piece))) if piece.len() < SMALL_BYTES => {
                self.small.extend_from_slice(&piece);
                if self.small.len() >= GATHERED_BYTES {
                    self.gather();
                }
            }
            Poll::Ready(Some(Ok(piece))) => {
                self.gather();
                self.ahead.push_back(piece);
            }
        }
        Poll::Ready(())
    }

    /// Takes in what has come, some at a time: the task is woken for the rest.
    fn read_some(&mut self, context: &mut Context<'_>) {
        for _ in 0..FRAMES_AT_ONCE {
            if self.poll_read(context).is_pending() {
                return;
            }
        }
        context.waker().wake_by_ref();
    }

    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.ahead.push_back(std::mem::take(&mut self.small).freeze());
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        self.give_back();
        self.read_some(context);
        self.gather();
        if let Some(piece) = self.ahead.pop_front() {
            self.handed_out = piece.len();
            return Poll::Ready(Some(Ok(piece)));
        }
        match self.ended.take() {
            None => Poll::Pending,
            // An error is told once; behind it there is nothing.
            Some(ended) => {
                self.ended = Some(Ok(()));
                Poll::Ready(ended.err().map(Err))
            }
        }
    }

    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.handed_out);
        if let Some(stream) = self.stream.as_mut().filter(|_| bytes > 0) {
            // Fails only for more than has come.
            stream.flow_control().release_capacity(bytes).ok();
        }
    }

    /// Nobody reads it any more.
    fn leave(&mut self) {
        // Perhaps the connection has failed, and the last to hear of it is this.
        let _ = self.poll_read(&mut Context::from_waker(Waker::noop()));
        self.handed_out += self.small.len() + self.ahead.iter().map(Bytes::len).sum::<usize>();
        self.give_back();
        if let Some(stream) = self.stream.take().filter(|_| self.ended.is_none()) {
            *self.rest.0.lock() = Some(stream);
        }
        self.ahead = VecDeque::new();
        self.small = BytesMut::new();
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Source::Http2(reading) = &self.0 {
            reading.lock().leave();
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        match &mut self.0 {
            Source::Http1(Incoming { body, .. }) => {
                Pin::new(body).poll_frame(context).map(|next| next.map(|frame| frame.map_err(Into::into)))
            }
            Source::Http2(reading) => {
                let piece = reading.lock().poll_piece(context);
                piece.map(|next| next.map(|piece| piece.map(Frame::data).map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1(Incoming { body, .. }) => body.is_end_stream(),
            Source::Http2(reading) => {
                let reading = reading.lock();
                let all_read = reading.ahead.is_empty() && reading.small.is_empty();
                all_read && reading.stream.as_ref().is_none_or(RecvStream::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1(Incoming { body, .. }) => body.size_hint(),
            Source::Http2(_) => SizeHint::default(),
        }
    }
}
