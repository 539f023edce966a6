//! One request and its response on an HTTP/2 stream.
//!
//! The task of a stream asks the handler, sends what the response body gives at the pace of the client, and then reads
//! what is left of the request: a stream that is answered before its client has said all would otherwise have to be
//! reset, and a client whose calls are refused would lose its connection for what it had already sent.
//!
//! It decides how a stream ends that is not served to its end: by ENHANCE_YOUR_CALM when its client takes nothing
//! (gRPC: RESOURCE_EXHAUSTED), so that nobody takes it for a call that was cancelled by its own client.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{
    HeaderValue, Response,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::inbound::{FRAMES_AT_ONCE, Rest};
use crate::{net::OpenStream, telemetry::StreamCut};

/// When a call is answered, its client may send this much more on it,
const REST_BYTES: usize = 8 * 1024 * 1024;
/// and may pause this long.
const REST_PAUSE: Duration = Duration::from_secs(1);

/// In the extensions of a response: it may take as long as its client likes, since whoever made it has limits of its own
/// for slow readers. Others are cut when their client takes nothing for [`crate::net::Options::response_timeout_ms`].
#[derive(Debug, Clone, Copy)]
pub struct AtItsOwnPace;

pin_project! {
    /// The work of one HTTP/2 stream.
    pub(super) struct Exchange<F, B> {
        respond: SendResponse<Bytes>,
        rest: Rest,
        open: OpenStream,
        response_timeout: Duration,
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, B> {
        // In a box, which is gone once there is a response: a stream may be idle for days.
        Handling { response: Pin<Box<F>> },
        Sending { #[pin] sending: Sending<B> },
        Reading { reading: Box<Reading> },
    }
}

/// How far a stream has come.
enum Step<B> {
    Send(Sending<B>),
    Read(Box<Reading>),
    Done,
}

impl<F, B> Exchange<F, B>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes>,
{
    pub(super) fn new(
        response: F,
        respond: SendResponse<Bytes>,
        rest: Rest,
        open: OpenStream,
        response_timeout: Duration,
    ) -> Self {
        Self { respond, rest, open, response_timeout, state: State::Handling { response: Box::pin(response) } }
    }

    /// After the response: what is left of the request.
    fn read_rest(rest: &Rest) -> Step<B> {
        match rest.take() {
            Some(stream) if !stream.is_end_stream() => Step::Read(Box::new(Reading::new(stream))),
            _ => Step::Done,
        }
    }
}

impl<F, B> Future for Exchange<F, B>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes>,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.as_mut().project();
        if this.open.cut().poll_done(context).is_ready() {
            this.respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            return Poll::Ready(());
        }
        loop {
            let step = match this.state.as_mut().project() {
                StateProjection::Handling { response } => match response.as_mut().poll(context) {
                    Poll::Ready(Ok(response)) => match begin(response, this.respond, *this.response_timeout) {
                        Some(sending) => Step::Send(sending),
                        None => Self::read_rest(this.rest),
                    },
                    Poll::Ready(Err(never)) => match never {},
                    // The client may have given up on the call.
                    Poll::Pending => match ready!(this.respond.poll_reset(context)) {
                        Ok(_) | Err(_) => Step::Done,
                    },
                },
                StateProjection::Sending { sending } => match ready!(sending.poll(context)) {
                    Sent::All => Self::read_rest(this.rest),
                    Sent::Nothing => Step::Done,
                    Sent::Stalled => {
                        this.open.was_cut(StreamCut::ResponseStalled);
                        this.respond.send_reset(Reason::ENHANCE_YOUR_CALM);
                        Step::Done
                    }
                },
                StateProjection::Reading { reading } => {
                    ready!(reading.poll(context));
                    Step::Done
                }
            };
            match step {
                Step::Send(sending) => this.state.set(State::Sending { sending }),
                Step::Read(reading) => this.state.set(State::Reading { reading }),
                Step::Done => return Poll::Ready(()),
            }
        }
    }
}

/// Sends the head of a response. Gives what is left to send, if anything is and the client still wants it.
fn begin<B: Body<Data = Bytes>>(
    response: Response<B>,
    respond: &mut SendResponse<Bytes>,
    response_timeout: Duration,
) -> Option<Sending<B>> {
    let (mut head, body) = response.into_parts();
    let at_its_own_pace = head.extensions.remove::<AtItsOwnPace>().is_some();
    // What is said of a connection of HTTP/1 is an error in HTTP/2, for which the whole response would be lost.
    for of_connection in [CONNECTION, UPGRADE, TRANSFER_ENCODING] {
        head.headers.remove(of_connection);
    }
    let ends = body.is_end_stream();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    // Fails when the client has reset the stream.
    let stream = respond.send_response(Response::from_parts(head, ()), ends).ok()?;
    let timeout = (!at_its_own_pace).then_some(response_timeout);
    (!ends).then(|| Sending { stream, waiting: Bytes::new(), timeout, patience: None, body })
}

pin_project! {
    /// A response body on its way.
    struct Sending<B> {
        stream: SendStream<Bytes>,
        // What waits for the client to open its window.
        waiting: Bytes,
        // How long it may wait; `None` for ever.
        timeout: Option<Duration>,
        patience: Option<Pin<Box<Sleep>>>,
        #[pin]
        body: B,
    }
}

/// How the sending of a response ended.
enum Sent {
    All,
    /// The client does not want it any more.
    Nothing,
    /// The client took nothing for too long.
    Stalled,
}

impl<B: Body<Data = Bytes>> Sending<B> {
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sent> {
        let mut this = self.project();
        loop {
            if this.stream.poll_reset(context).is_ready() {
                return Poll::Ready(Sent::Nothing);
            }
            if !this.waiting.is_empty() {
                let capacity = match poll_capacity(this.stream, context) {
                    Poll::Ready(Some(capacity)) => capacity,
                    Poll::Ready(None) => return Poll::Ready(Sent::Nothing),
                    Poll::Pending => return poll_stalled(*this.timeout, this.patience, context),
                };
                *this.patience = None;
                // Of a response that is timed nothing waits in the HTTP/2 library, where nobody would see it wait. A session
                // hands out little at a time, and is quicker when it is rid of all of it.
                let some = if this.timeout.is_some() { capacity.min(this.waiting.len()) } else { this.waiting.len() };
                if this.stream.send_data(this.waiting.split_to(some), false).is_err() {
                    return Poll::Ready(Sent::Nothing);
                }
                continue;
            }
            let frame = match ready!(this.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    this.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Sent::Nothing);
                }
                None => return Poll::Ready(sent(this.stream.send_data(Bytes::new(), true))),
            };
            match frame.into_data() {
                Ok(data) => {
                    // Only now: what is reserved before there is something to send is kept from other streams.
                    this.stream.reserve_capacity(if this.timeout.is_some() { data.len() } else { 1 });
                    *this.waiting = data;
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    this.stream.reserve_capacity(0);
                    return Poll::Ready(sent(this.stream.send_trailers(trailers)));
                }
            }
        }
    }
}

fn sent<E>(result: Result<(), E>) -> Sent {
    if result.is_ok() { Sent::All } else { Sent::Nothing }
}

/// How much may be sent now, at least one byte; `None` when the stream is over.
fn poll_capacity(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<Option<usize>> {
    loop {
        match stream.capacity() {
            0 => {}
            some => return Poll::Ready(Some(some)),
        }
        if ready!(stream.poll_capacity(context)).is_none_or(|capacity| capacity.is_err()) {
            return Poll::Ready(None);
        }
    }
}

fn poll_stalled(
    timeout: Option<Duration>,
    patience: &mut Option<Pin<Box<Sleep>>>,
    context: &mut Context<'_>,
) -> Poll<Sent> {
    let Some(timeout) = timeout else { return Poll::Pending };
    let patience = patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
    patience.as_mut().poll(context).map(|()| Sent::Stalled)
}

/// Reads what is left of a request, to throw it away.
struct Reading {
    stream: RecvStream,
    bytes: usize,
    pause: Pin<Box<Sleep>>,
}

impl Reading {
    fn new(stream: RecvStream) -> Self {
        Self { stream, bytes: REST_BYTES, pause: Box::pin(tokio::time::sleep(REST_PAUSE)) }
    }

    /// Ready when the client has said all, or has taken too long or too much for it.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..FRAMES_AT_ONCE {
            match self.stream.poll_data(context) {
                Poll::Ready(Some(Ok(data))) if data.len() <= self.bytes => {
                    self.bytes -= data.len();
                    // Fails only for more than has come.
                    self.stream.flow_control().release_capacity(data.len()).ok();
                    self.pause.as_mut().reset(tokio::time::Instant::now() + REST_PAUSE);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.pause.as_mut().poll(context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
