//! The messages of a response as JSON, with their lengths before them: some at a time, as the client takes them.
//!
//! What a client has not taken is memory that it makes the hub keep. Where that does not fit, nothing more is asked of the
//! service until it does.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{
    accounted::accounted,
    calls::Form,
    envelope::{COMPRESSED, Cutter, PREFIX_BYTES, prefix},
};
use crate::{
    edge::wire::{buffer::hold_more, waiting::Waiting},
    memory::{Client, Held, Use},
    tasks::Turn,
};

/// Messages are written together until they have so many bytes.
const TOGETHER_BYTES: usize = 16 * 1024;
/// A step writes JSON of so many bytes of messages.
const BYTES_A_STEP: usize = 32;

/// A service has sent what is no message of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOurs;

/// Writes the messages of one response.
#[derive(Debug)]
pub(super) struct ToJson {
    form: Arc<dyn Form>,
    client: Arc<Client>,
    cutter: Cutter,
    /// One for which there is no memory.
    next: Option<Bytes>,
    waiting: Option<Waiting>,
    turn: Turn,
}

impl ToJson {
    pub(super) fn new(form: Arc<dyn Form>, client: Arc<Client>) -> Self {
        Self { form, client, cutter: Cutter::default(), next: None, waiting: None, turn: Turn::default() }
    }

    /// Takes what the service has sent, once [`Self::poll_next`] has nothing of what it sent before.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.cutter.push(piece);
    }

    /// True when a message has come in part.
    pub(super) fn is_within(&self) -> bool {
        self.cutter.is_within()
    }

    /// Some more of what was taken, as JSON; `None` when there is nothing more.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, NotOurs>> {
        ready!(self.turn.poll_settle(context));
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.poll(context));
        }
        let (mut out, mut held) = (Vec::new(), self.client.nothing(Use::Responses));
        while out.len() < TOGETHER_BYTES {
            let Some(message) = self.next.take().or(self.cut()?) else { break };
            if hold_more(&mut held, likely_bytes(message.len()), self.waiting.is_some()).is_err() {
                self.next = Some(message);
                if !out.is_empty() {
                    break;
                }
                ready!(self.waiting.get_or_insert_with(Waiting::new).poll(context));
                continue;
            }
            self.waiting = None;
            self.write(&message, &mut out)?;
        }
        Poll::Ready(Ok((!out.is_empty()).then(|| sized(out, held))))
    }

    fn cut(&mut self) -> Result<Option<Bytes>, NotOurs> {
        match self.cutter.next() {
            Some((flags, _)) if flags & COMPRESSED != 0 => Err(NotOurs),
            next => Ok(next.map(|(_, message)| message)),
        }
    }

    fn write(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), NotOurs> {
        self.turn.note(message.len() / BYTES_A_STEP);
        let at = out.len() + PREFIX_BYTES;
        out.resize(at, 0);
        if !self.form.write(message, out) {
            return Err(NotOurs);
        }
        let prefix = prefix(0, out.len() - at);
        out[at - PREFIX_BYTES..at].copy_from_slice(&prefix);
        Ok(())
    }
}

/// Held for the JSON of a message before that is written, in bytes; most need less.
pub(super) fn likely_bytes(message: usize) -> usize {
    2 * message + 256
}

/// JSON that is there, with what it takes held for it, whether that fits or not: it was bounded by the message, and that
/// many bytes did fit.
pub(super) fn sized(json: Vec<u8>, mut held: Held) -> Bytes {
    held.set(json.capacity());
    accounted(json, Some(held))
}
