//! Cuts a request body into gRPC messages, and leaves them as they are.
//!
//! A message that lies whole in one piece of the transport is handed on without a copy; one that does not is put
//! together in a buffer of its own, which goes with it. So an idle stream holds nothing, unlike with tonic's codec, which
//! keeps the largest buffer it ever needed. What has come of an incomplete message is counted, up to a limit for the whole hub.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use tokio_stream::Stream;
use tonic::body::Body;

use super::wire::PREFIX_BYTES;
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
}

impl Framer {
    pub(super) fn new(body: Body, memory: Arc<FrameMemory>) -> Self {
        Self { body, piece: Bytes::new(), partial: BytesMut::new(), memory }
    }

    /// The next message of what has come so far.
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
        loop {
            match self.cut() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) => {}
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                // A cancelled call looks like one whose client has said all; whoever must know asks the response body.
                None | Some(Err(_)) if self.partial.is_empty() => return Poll::Ready(None),
                None | Some(Err(_)) => return Poll::Ready(Some(Err(broken("the last frame is not complete")))),
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

    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use tokio_stream::StreamExt;

    use super::*;

    fn framer(pieces: Vec<Bytes>) -> (Framer, Arc<FrameMemory>) {
        let memory = Arc::new(FrameMemory::new(MAX_FRAME_BYTES + PREFIX_BYTES));
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        (Framer::new(Body::new(StreamBody::new(tokio_stream::iter(frames))), Arc::clone(&memory)), memory)
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
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let got: Vec<Vec<u8>> =
                runtime.block_on(all(framer)).into_iter().map(|message| message.expect("whole").to_vec()).collect();
            prop_assert_eq!(got, messages);
            prop_assert_eq!(memory.held(), 0);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
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
