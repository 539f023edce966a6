//! The body of a request in JSON, as messages of gRPC: one after the other, each made as it is asked for.
//!
//! The memory of both forms is held, the first by whoever has cut it out. Making a message is work whose length the client
//! has chosen, which is done in turns.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use tokio_stream::Stream;
use tonic::Status;

use super::{
    accounted::accounted,
    broken::Broken,
    calls::{Form, Read, Reading},
    envelope::{PREFIX_BYTES, prefix},
};
use crate::{
    edge::wire::{
        buffer::{Message, hold_more},
        framer::Framer,
        status,
        waiting::Waiting,
    },
    memory::{Client, Held, MemoryFull, Use},
    tasks::Turn,
};

/// The body of a request.
pub(super) struct FromJson {
    messages: Framer,
    form: Arc<dyn Form>,
    client: Arc<Client>,
    broken: Broken,
    /// Memory is waited for at most this long.
    timeout: Duration,
    making: Option<Making>,
    turn: Turn,
}

/// A message on its way from one form to the other.
struct Making {
    /// Of the JSON.
    json: Option<Held>,
    json_bytes: usize,
    reading: Reading,
    held: Held,
    /// There is no memory for it yet.
    waiting: Option<Waiting>,
}

impl FromJson {
    /// The messages, each of which is one of `form` in JSON. What is wrong with them ends up in `broken`.
    pub(super) fn new(
        messages: Framer,
        form: Arc<dyn Form>,
        client: Arc<Client>,
        timeout: Duration,
        broken: Broken,
    ) -> Self {
        Self { messages, form, client, broken, timeout, making: None, turn: Turn::default() }
    }

    fn begin(&self, json: Message) -> Making {
        let Message { bytes, held } = json;
        Making {
            json: held,
            json_bytes: bytes.len(),
            reading: self.form.read(bytes),
            held: self.client.nothing(Use::Frames),
            waiting: None,
        }
    }
}

impl Making {
    /// Ready when there is memory for the message, or with an error when there was none for too long.
    fn poll_memory(&mut self, context: &mut Context<'_>, timeout: Duration) -> Poll<Result<(), MemoryFull>> {
        if self.held.bytes() > 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.poll(context));
            }
            // Most messages are shorter than their JSON.
            match hold_more(&mut self.held, PREFIX_BYTES + self.json_bytes, self.waiting.is_some()) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(full) if self.waiting.get_or_insert_with(Waiting::new).time() >= timeout => {
                    return Poll::Ready(Err(full));
                }
                Err(_) => {}
            }
        }
    }

    /// The message, with its length before it.
    fn whole(mut self, mut message: Vec<u8>) -> Bytes {
        self.json = None;
        let prefix = prefix(0, message.len());
        message.splice(0..0, prefix);
        self.held.set(message.capacity());
        accounted(message, Some(self.held))
    }
}

impl http_body::Body for FromJson {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            ready!(this.turn.poll_settle(context));
            let Some(making) = &mut this.making else {
                match ready!(Pin::new(&mut this.messages).poll_next(context)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => {
                        let status = status::of_command(&error, "").status();
                        return Poll::Ready(Some(Err(this.broken.end(status))));
                    }
                    Some(Ok(json)) => this.making = Some(this.begin(json)),
                }
                continue;
            };
            if let Err(full) = ready!(making.poll_memory(context, this.timeout)) {
                return Poll::Ready(Some(Err(this.broken.end(status::no_memory(full)))));
            }
            match (making.reading)() {
                Ok(Read::Some(steps)) => this.turn.note(steps),
                Ok(Read::Whole(message)) => {
                    let message = this.making.take().map(|making| making.whole(message));
                    return Poll::Ready(message.map(|message| Ok(Frame::data(message))));
                }
                Err(error) => {
                    let status = status::malformed(&error.path, error.to_string()).status();
                    return Poll::Ready(Some(Err(this.broken.end(status))));
                }
            }
        }
    }
}
