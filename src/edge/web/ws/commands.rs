//! The commands of a session out of the messages of its client.
//!
//! What is in JSON becomes protobuf first, some at a time; from there on all commands take the same way. JSON that is no
//! command is refused with the field that is wrong, and the session goes on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use serde::Deserialize;
use tokio_stream::Stream;

use super::{
    encoding::Encoding,
    line::Line,
    messages::{Messages, Said},
    source::Source,
};
use crate::{
    edge::{
        web::messages::Known,
        wire::{
            buffer::{Message, hold_more},
            requests::{self, Incoming},
            waiting::Waiting,
        },
    },
    json::{self, JsonError},
    memory::Held,
    model::CommandError,
    net::Ahead,
    session::{self, Request},
    tasks::Turn,
};

/// A message in JSON that is refused is searched for its number up to this size.
const SEARCHED_BYTES: usize = 64 * 1024;

/// The commands of one client.
pub(super) struct Commands<S> {
    requests: requests::Requests<Protobuf<S>>,
    ahead: Option<Ahead>,
    line: Arc<Line>,
}

impl<S: Source> Commands<S> {
    pub(super) fn new(requests: requests::Requests<Protobuf<S>>, ahead: Option<Ahead>, line: Arc<Line>) -> Self {
        Self { requests, ahead, line }
    }
}

impl<S: Source> Stream for Commands<S> {
    type Item = Result<Request, CommandError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.requests).poll_next(context);
        if next.is_pending()
            && let Some(ahead) = &self.ahead
        {
            // They may wait for memory, and then nothing is read.
            ahead.poll(context);
        }
        next
    }
}

impl<S: Source> session::Requests for Commands<S> {
    fn poll_ahead(&mut self, context: &mut Context<'_>) {
        self.line.listen(false);
        if let Some(ahead) = &self.ahead {
            ahead.poll(context);
        }
    }
}

/// The messages of a client in protobuf, whatever they come in.
pub(super) struct Protobuf<S> {
    messages: Messages<S>,
    /// What they are if they come in JSON.
    json: Option<Known>,
    /// A message in JSON of which some was read.
    reading: Option<Box<Reading>>,
    turn: Turn,
}

struct Reading {
    text: Bytes,
    decoding: json::Decoding,
    /// Of a message that was put together: for the text, and for what is made of it.
    held: Option<Held>,
    /// There is no memory to go on.
    waiting: Option<Box<Waiting>>,
}

impl<S: Source> Protobuf<S> {
    pub(super) fn new(messages: Messages<S>, encoding: &Encoding) -> Self {
        let json = match encoding {
            Encoding::Protobuf => None,
            Encoding::Json(json) => Some(json.messages.request),
        };
        Self { messages, json, reading: None, turn: Turn::default() }
    }
}

impl<S: Source> Stream for Protobuf<S> {
    type Item = Result<Incoming, CommandError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(reading) = &mut this.reading {
                let read = ready!(reading.poll(&mut this.turn, context));
                let reading = this.reading.take();
                return Poll::Ready(reading.map(|reading| Ok(reading.finish(read))));
            }
            let Said { message, .. } = match ready!(Pin::new(&mut this.messages).poll_next(context)) {
                Some(Ok(said)) => said,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let Some(decoding) = this.json.and_then(|json| json.decoding(message.bytes.clone())) else {
                return Poll::Ready(Some(Ok(Incoming::Message(message))));
            };
            let Message { bytes: text, held } = message;
            this.reading = Some(Box::new(Reading { text, decoding, held, waiting: None }));
        }
    }
}

impl Reading {
    /// Reads until others are to work, or all of it was read.
    fn poll(&mut self, turn: &mut Turn, context: &mut Context<'_>) -> Poll<Result<(), JsonError>> {
        while !self.decoding.is_whole() {
            ready!(turn.poll_settle(context));
            ready!(self.poll_memory(context));
            match self.decoding.some() {
                Ok(steps) => turn.note(steps),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Holds memory for what was made so far, as much again as the text at least; waits until there is some.
    fn poll_memory(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(held) = &mut self.held else { return Poll::Ready(()) };
        loop {
            let needed = self.text.len() + self.decoding.made_bytes();
            let again = self.waiting.is_some();
            if hold_more(held, needed.saturating_sub(held.bytes()), again).is_ok() {
                self.waiting = None;
                return Poll::Ready(());
            }
            ready!(self.waiting.get_or_insert_with(|| Box::new(Waiting::new())).poll(context));
        }
    }

    /// What came of it.
    fn finish(self, read: Result<(), JsonError>) -> Incoming {
        match read {
            Ok(()) => {
                let (bytes, mut held) = (self.decoding.into_bytes(), self.held);
                if let Some(held) = &mut held {
                    held.shrink(held.bytes().saturating_sub(bytes.capacity()));
                }
                Incoming::Message(Message { bytes: bytes.into(), held })
            }
            Err(JsonError { path, problem }) => Incoming::Refused(Request {
                request_id: request_id(&self.text),
                field_path: "",
                command: Err(CommandError::Json { path, problem }),
            }),
        }
    }
}

/// The number of a request that is no command, as far as it has one: its client wants to know which one was refused.
fn request_id(text: &[u8]) -> i64 {
    #[derive(Deserialize)]
    struct Numbered {
        #[serde(alias = "requestId", default)]
        request_id: serde_json::Value,
    }
    let searched = (text.len() <= SEARCHED_BYTES).then_some(text);
    match searched.and_then(|text| serde_json::from_slice(text).ok()).map(|Numbered { request_id }| request_id) {
        Some(serde_json::Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(serde_json::Value::String(number)) => number.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_refused_keeps_its_number_if_it_has_one() {
        for (text, number) in [
            (r#"{"requestId":"7","subscribe":{"x":1}}"#, 7),
            (r#"{"nothing":{},"request_id":7}"#, 7),
            (r#"{"requestId":9007199254740993}"#, 9_007_199_254_740_993),
            (r#"{"requestId":"x"}"#, 0),
            (r#"{"requestId":1.5}"#, 0),
            ("{}", 0),
            ("[", 0),
        ] {
            assert_eq!(request_id(text.as_bytes()), number, "{text}");
        }
        let at = |bytes: usize| {
            let head = r#"{"requestId":"7","x":""#;
            request_id(format!("{head}{}\"}}", "x".repeat(bytes - head.len() - 2)).as_bytes())
        };
        assert_eq!((at(SEARCHED_BYTES), at(SEARCHED_BYTES + 1)), (7, 0), "in one of that size");
    }
}
