//! Cuts a request body into gRPC messages, and leaves them as they are.
//!
//! A message that lies whole in one piece of the transport is handed on without a copy; one that does not is put
//! together in a buffer of its own, which goes with it. So an idle stream holds nothing, unlike with tonic's codec, which
//! keeps the largest buffer it ever needed. What has come of an incomplete message is counted, up to a limit for the whole hub,
//! and must be complete in time.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::time::{Instant, Sleep};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;

use super::{
    status,
    wire::{self, PREFIX_BYTES},
};
use crate::{
    model::{CommandError, limits::MAX_FRAME_BYTES},
    session::FrameMemory,
};

/// For an incomplete message so much memory is taken before it has come.
const MOST_AHEAD_BYTES: usize = 64 * 1024;

/// The messages of one request.
#[derive(Debug)]
pub(super) struct Framer {
    body: Body,
    /// What has come and was not looked at.
    piece: Bytes,
    /// The beginning of a message that is not complete.
    partial: BytesMut,
    memory: Arc<FrameMemory>,
    timeout: Duration,
    /// Since when the hub waits for what is next, unless it may wait for ever.
    since: Option<Instant>,
    /// It may not wait for ever between messages either.
    expected: bool,
    /// Kept when the message is complete: most often the next one is not. It then rings for nothing, once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Framer {
    /// The messages of a body, each of which takes no longer than `timeout` from its first byte to its last.
    pub(super) fn new(body: Body, memory: Arc<FrameMemory>, timeout: Duration) -> Self {
        let (piece, partial) = (Bytes::new(), BytesMut::new());
        Self { body, piece, partial, memory, timeout, since: None, expected: false, timer: None }
    }

    /// The first message is expected at once, and after it the end.
    pub(super) fn expected(mut self) -> Self {
        (self.since, self.expected) = (Some(Instant::now()), true);
        self
    }

    /// The same messages as a body again, for services that cut it themselves: none of them is incomplete.
    pub(super) fn into_body(self) -> Body {
        Body::new(StreamBody::new(self.map(|message| match message {
            Ok(message) => Ok(Frame::data([&wire::prefix(message.len())[..], &message].concat().into())),
            Err(error) => Err(status::of_command(&error, "").status()),
        })))
    }

    /// Whether the client has used up its time. If it has, but something came just now, the time begins anew: the hub may
    /// not have read for long, and then the client could not send.
    fn poll_late(&mut self, context: &mut Context<'_>, came: bool) -> bool {
        if self.since.is_none() && !self.partial.is_empty() {
            self.since = Some(Instant::now());
        }
        while let Some(since) = self.since {
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + self.timeout)));
            if timer.as_mut().poll(context).is_pending() {
                return false;
            }
            match since.elapsed() >= self.timeout {
                true if came => self.since = Some(Instant::now()),
                true => return true,
                // It was set for a message before.
                false => timer.as_mut().reset(since + self.timeout),
            }
        }
        false
    }

    /// The next message of what has come so far.
    fn next_message(&mut self) -> Result<Option<Bytes>, CommandError> {
        let message = self.cut();
        if let Ok(Some(_)) = &message {
            self.since = self.expected.then(Instant::now);
        }
        message
    }

    fn cut(&mut self) -> Result<Option<Bytes>, CommandError> {
        if self.partial.is_empty() {
            match whole_len(&self.piece)? {
                Some(whole) if self.piece.len() >= whole => {
                    let mut message = self.piece.split_to(whole);
                    message.advance(PREFIX_BYTES);
                    return Ok(Some(message));
                }
                _ if self.piece.is_empty() => return Ok(None),
                _ => {}
            }
        }
        loop {
            let whole = whole_len(&self.partial)?;
            let wanted = whole.unwrap_or(PREFIX_BYTES);
            if let (Some(whole), true) = (whole, self.partial.len() == wanted) {
                self.memory.release(whole);
                let mut message = std::mem::take(&mut self.partial).freeze();
                message.advance(PREFIX_BYTES);
                return Ok(Some(message));
            }
            if self.piece.is_empty() {
                return Ok(None);
            }
            let some = self.piece.split_to((wanted - self.partial.len()).min(self.piece.len()));
            if !self.memory.hold(some.len()) {
                return Err(CommandError::NoFrameMemory);
            }
            // Room for all of it, as far as anybody may make the hub believe in before it has come.
            let more = wanted.min(MOST_AHEAD_BYTES).saturating_sub(self.partial.len());
            self.partial.reserve(more.max(some.len()));
            self.partial.extend_from_slice(&some);
        }
    }
}

impl Stream for Framer {
    type Item = Result<Bytes, CommandError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut came = false;
        loop {
            match self.next_message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) => {}
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.piece = frame.into_data().unwrap_or_default();
                    came = true;
                }
                // A cancelled call looks like one whose client has said all; whoever must know asks the response body.
                Poll::Ready(None | Some(Err(_))) if self.partial.is_empty() => return Poll::Ready(None),
                Poll::Ready(None | Some(Err(_))) => {
                    return Poll::Ready(Some(Err(broken("the last frame is not complete"))));
                }
                Poll::Pending if self.poll_late(context, came) => {
                    return Poll::Ready(Some(Err(CommandError::SlowFrame { timeout: self.timeout })));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Framer {
    fn drop(&mut self) {
        self.memory.release(self.partial.len());
    }
}

/// The length of the first message with its prefix, once the prefix is there.
fn whole_len(bytes: &[u8]) -> Result<Option<usize>, CommandError> {
    let Some(&[compressed, a, b, c, d]) = bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    if compressed != 0 {
        return Err(broken("a frame is marked as compressed, or is no frame"));
    }
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(broken(&format!("a frame has {len} bytes and may have {MAX_FRAME_BYTES}")));
    }
    Ok(Some(PREFIX_BYTES + len))
}

fn broken(problem: &str) -> CommandError {
    CommandError::Undecodable { problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn framer(pieces: Vec<Bytes>) -> (Framer, Arc<FrameMemory>) {
        let memory = Arc::new(FrameMemory::new(MAX_FRAME_BYTES + PREFIX_BYTES));
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        (Framer::new(body, Arc::clone(&memory), Duration::from_secs(1)), memory)
    }

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let prefixed = |message: &Vec<u8>| [&super::super::wire::prefix(message.len())[..], message].concat();
        messages.iter().flat_map(prefixed).collect()
    }

    async fn all(mut framer: Framer) -> Vec<Result<Bytes, CommandError>> {
        let mut got = Vec::new();
        while let Some(next) = framer.next().await {
            let broken = next.is_err();
            got.push(next);
            if broken {
                break;
            }
        }
        got
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_the_bytes_come(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            sizes in prop::collection::vec(1..30_usize, 1..20),
        ) {
            let bytes = Bytes::from(framed(&messages));
            let mut pieces = Vec::new();
            let mut rest = bytes;
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                pieces.push(rest.split_to((*size).min(rest.len())));
            }
            let (framer, memory) = framer(pieces);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let got: Vec<Vec<u8>> =
                runtime.block_on(all(framer)).into_iter().map(|message| message.expect("whole").to_vec()).collect();
            prop_assert_eq!(got, messages);
            prop_assert_eq!(memory.held(), 0);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let (framer, memory) = framer(vec![bytes.into()]);
            runtime.block_on(all(framer));
            prop_assert_eq!(memory.held(), 0);
        }
    }

    #[tokio::test]
    async fn a_frame_may_be_as_large_as_the_limit_and_no_larger() {
        let message = vec![0; MAX_FRAME_BYTES];
        assert_eq!(all(framer(vec![framed(&[message]).into()]).0).await.len(), 1);
        let prefix = super::super::wire::prefix(MAX_FRAME_BYTES + 1);
        let got = all(framer(vec![Bytes::copy_from_slice(&prefix)]).0).await;
        assert!(got[0].as_ref().is_err_and(|error| error.to_string().contains("may have")), "{got:?}");
    }
}
