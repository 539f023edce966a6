//! Bodies of requests that are read as a whole, and of responses that are made as a whole: both are memory that the client
//! makes the hub keep.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    edge::wire::{
        buffer::{Buffer, Lender, Message},
        waiting::until_fits,
    },
    memory::Held,
    model::{CommandError, limits::MAX_FRAME_BYTES},
};

/// Reads a body to its end, within `timeout`. One that comes in one piece is not copied, and nothing is held for it.
pub(super) async fn read(mut body: Body, lender: &Lender, timeout: Duration) -> Result<Message, CommandError> {
    let deadline = Instant::now() + timeout;
    let too_large = || CommandError::FrameTooLarge { limit: MAX_FRAME_BYTES };
    if body.size_hint().lower() > MAX_FRAME_BYTES as u64 {
        return Err(too_large());
    }
    let mut buffer = Buffer::default();
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| CommandError::SlowFrame { timeout })?;
        let piece = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => {
                return Err(CommandError::Undecodable { problem: "the body did not come to its end".into() });
            }
        };
        let whole = buffer.bytes.len() + piece.len();
        if whole > MAX_FRAME_BYTES {
            return Err(too_large());
        }
        if buffer.bytes.is_empty() && body.is_end_stream() {
            return Ok(Message { bytes: piece, held: None });
        }
        // As much as is said to come, if anything is.
        let most = body.size_hint().exact().map_or(MAX_FRAME_BYTES, |rest| whole + rest as usize);
        let left = deadline.saturating_duration_since(Instant::now());
        let grown = until_fits(left, |again| buffer.grow((piece.len(), most), Some(&piece), lender, again)).await;
        grown.map_err(|full| CommandError::NoMemory { of: full.of.name() })?;
        buffer.bytes.extend_from_slice(&piece);
    }
    let (bytes, held) = buffer.finish();
    Ok(Message { bytes, held })
}

/// A response that has been made, and the memory that is held until it is written or dropped.
pub(super) fn kept<H: Send + Unpin + 'static>(bytes: Bytes, held: H) -> Body {
    Body::new(Kept { bytes, _held: held })
}

struct Kept<H> {
    bytes: Bytes,
    _held: H,
}

impl<H: Unpin> http_body::Body for Kept<H> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// Memory that grows with what is put into a response.
pub(super) fn hold_for(held: &mut Held, bytes: usize) -> Result<(), CommandError> {
    held.grow(bytes.saturating_sub(held.bytes())).map_err(|full| CommandError::NoMemory { of: full.of.name() })
}
