//! The body of a unary call of Connect, which is a message and nothing else, as gRPC has it: with its length before it.
//!
//! Where the client announces the length, what comes is handed on as it comes. Otherwise the message is put together
//! here first, in memory that is held for it. How long that may take is counted by whoever reads it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::Frame;
use tonic::{Status, body::Body};

use super::{
    accounted::accounted,
    broken::Broken,
    envelope::{COMPRESSED, PREFIX_BYTES, prefix},
    head::Compression,
};
use crate::{
    edge::wire::{
        buffer::{Buffer, Lender},
        status,
        waiting::Waiting,
    },
    memory::Client,
    model::{CommandError, limits::MAX_FRAME_BYTES},
};

/// The body of a call with one message.
#[derive(Debug)]
pub(super) struct Bare {
    body: Body,
    flags: u8,
    step: Step,
    broken: Broken,
}

#[derive(Debug)]
enum Step {
    /// It has been announced, with this length.
    Announced(u64),
    /// So many bytes of it are still to come.
    Passing(u64),
    Gathering(Box<Gathering>),
    Over,
}

/// A message that nobody has announced.
#[derive(Debug)]
struct Gathering {
    buffer: Buffer,
    /// What has come and is not in the buffer.
    piece: Bytes,
    lender: Lender,
    waiting: Option<Waiting>,
    /// Memory is waited for as long as this.
    patience: Duration,
}

/// The length that a client has announced.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Bare {
    /// The body of a call, with the length that its client has announced. Whoever reads it gives a message `timeout` to be
    /// complete. Memory is waited for at most for half of that: the reader can't tell such a wait from a slow client.
    pub(super) fn new(
        body: Body,
        announced: Option<u64>,
        compression: Compression,
        client: &Arc<Client>,
        timeout: Duration,
        broken: Broken,
    ) -> Self {
        let flags = if compression == Compression::Gzip { COMPRESSED } else { 0 };
        let step = match announced {
            Some(len) => Step::Announced(len),
            None => {
                let lender = Lender { client: Arc::clone(client), publishes: None };
                let buffer = Buffer::default();
                let patience = timeout / 2;
                Step::Gathering(Box::new(Gathering { buffer, piece: Bytes::new(), lender, waiting: None, patience }))
            }
        };
        Self { body, flags, step, broken }
    }

    fn refuse(&mut self, error: &CommandError) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.step = Step::Over;
        Poll::Ready(Some(Err(self.broken.end(status::of_command(error, "").status()))))
    }
}

impl Gathering {
    /// Takes in what has come. False when there is no memory for it yet.
    fn take(&mut self) -> Result<bool, CommandError> {
        if self.piece.is_empty() {
            return Ok(true);
        }
        // The length comes before it, in the same piece.
        let before = PREFIX_BYTES.saturating_sub(self.buffer.bytes.len());
        let more = before + self.piece.len();
        if self.buffer.bytes.len() + more > PREFIX_BYTES + MAX_FRAME_BYTES {
            return Err(CommandError::FrameTooLarge { limit: MAX_FRAME_BYTES });
        }
        match self.buffer.grow((more, PREFIX_BYTES + MAX_FRAME_BYTES), None, &self.lender, self.waiting.is_some()) {
            Ok(()) => {
                self.waiting = None;
                self.buffer.bytes.resize(self.buffer.bytes.len() + before, 0);
                self.buffer.bytes.extend_from_slice(&std::mem::take(&mut self.piece));
                Ok(true)
            }
            Err(full) if self.waiting.get_or_insert_with(Waiting::new).time() >= self.patience => {
                Err(CommandError::NoMemory { of: full.of.name() })
            }
            Err(_) => Ok(false),
        }
    }

    /// The message, with its length before it.
    fn whole(&mut self, flags: u8) -> Bytes {
        let mut buffer = std::mem::take(&mut self.buffer);
        let len = buffer.bytes.len().saturating_sub(PREFIX_BYTES);
        let prefix = prefix(flags, len);
        match buffer.bytes.get_mut(..PREFIX_BYTES) {
            Some(place) => place.copy_from_slice(&prefix),
            None => buffer.bytes = prefix.to_vec(),
        }
        let (bytes, held) = buffer.finish();
        accounted(bytes, held)
    }
}

impl http_body::Body for Bare {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            match &mut this.step {
                Step::Over => return Poll::Ready(None),
                Step::Announced(len) => {
                    let prefix = prefix(this.flags, usize::try_from(*len).unwrap_or(usize::MAX));
                    this.step = Step::Passing(*len);
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&prefix)))));
                }
                Step::Passing(left) => match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(frame)) => {
                        let piece = frame.into_data().unwrap_or_default();
                        match left.checked_sub(piece.len() as u64) {
                            Some(rest) => *left = rest,
                            None => return this.refuse(&too_long()),
                        }
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                },
                Step::Gathering(gathering) => {
                    if let Some(waiting) = &mut gathering.waiting {
                        ready!(waiting.poll(context));
                    }
                    match gathering.take() {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(error) => return this.refuse(&error),
                    }
                    match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                        Some(Ok(frame)) => gathering.piece = frame.into_data().unwrap_or_default(),
                        Some(Err(error)) => {
                            this.step = Step::Over;
                            return Poll::Ready(Some(Err(error)));
                        }
                        None => {
                            let whole = gathering.whole(this.flags);
                            this.step = Step::Over;
                            return Poll::Ready(Some(Ok(Frame::data(whole))));
                        }
                    }
                }
            }
        }
    }
}

fn too_long() -> CommandError {
    CommandError::Undecodable { problem: "the body is longer than its content-length".to_owned() }
}
