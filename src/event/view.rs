//! The fields of an event, read from its encoded form: for edges that speak something else than protobuf, and for whatever the
//! hub wants to know that [`Spans`](super::Spans) does not say. Pure; nothing is copied.

use std::{
    iter,
    time::{Duration, SystemTime},
};

use prost::Message;

use super::{
    Event,
    accept::pair,
    fields::{self, Value},
    stored::body,
    times,
};
use crate::field_numbers::{event as publisher, received_event as received};

/// What an event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Payload<'a> {
    /// Nothing.
    #[default]
    None,
    Text(&'a str),
    Data(&'a [u8]),
}

/// The fields of one event. What is absent is empty, 0 or `None`, as in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View<'a> {
    pub id: &'a str,
    pub topic: &'a str,
    /// `type`, which Rust keeps for itself.
    pub kind: &'a str,
    pub source: &'a str,
    pub time: Option<SystemTime>,
    pub key: &'a str,
    pub content_type: &'a str,
    pub ttl: Option<Duration>,
    pub payload: Payload<'a>,
    /// The stream it was read from; the following are set only with it.
    pub stream: &'a str,
    pub sequence: u64,
    pub append_time: Option<SystemTime>,
    /// 1 for the first.
    pub attempt: u64,
    pub last_failure: &'a str,
    /// It may have been delivered before.
    pub redelivered: bool,
    published: &'a [u8],
}

impl Event {
    /// Its fields. Walks the whole event once.
    pub fn view(&self) -> View<'_> {
        let (at, published) = body(self);
        let mut view = View { published, ..View::default() };
        // `accept` has let nothing pass that is no field.
        each(published, |tag, value| view.publisher(tag, value));
        each(&self.encoded()[at + published.len()..], |tag, value| view.stamped(tag, value));
        view
    }

    /// When it was appended to its stream; `None` for one that is not from a stream. Walks only what the stream added.
    pub fn append_time(&self) -> Option<SystemTime> {
        let (at, published) = body(self);
        let mut view = View::default();
        each(&self.encoded()[at + published.len()..], |tag, value| view.stamped(tag, value));
        view.append_time
    }

    /// Its attributes in the order in which they were sent. Of a name that comes twice the last one counts.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        attributes(body(self).1)
    }
}

impl<'a> View<'a> {
    /// See [`Event::attributes`].
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        attributes(self.published)
    }

    fn publisher(&mut self, tag: u32, value: Value<'a>) {
        let Value::Bytes(bytes) = value else { return };
        let text = || std::str::from_utf8(bytes).unwrap_or_default();
        match tag {
            publisher::ID => self.id = text(),
            publisher::TOPIC => self.topic = text(),
            publisher::TYPE => self.kind = text(),
            publisher::SOURCE => self.source = text(),
            publisher::TIME => self.time = time(bytes),
            publisher::KEY => self.key = text(),
            publisher::CONTENT_TYPE => self.content_type = text(),
            publisher::TTL => {
                let ttl = prost_types::Duration::decode(bytes).ok();
                self.ttl = ttl.and_then(|ttl| times::duration(ttl).ok());
            }
            publisher::TEXT => self.payload = Payload::Text(text()),
            publisher::DATA => self.payload = Payload::Data(bytes),
            _ => {}
        }
    }

    fn stamped(&mut self, tag: u32, value: Value<'a>) {
        match (tag, value) {
            (received::STREAM, Value::Bytes(name)) => self.stream = std::str::from_utf8(name).unwrap_or_default(),
            (received::SEQUENCE, Value::Number(sequence)) => self.sequence = sequence,
            (received::APPEND_TIME, Value::Bytes(bytes)) => self.append_time = time(bytes),
            (received::ATTEMPT, Value::Number(attempt)) => self.attempt = attempt,
            (received::LAST_FAILURE, Value::Bytes(reason)) => {
                self.last_failure = std::str::from_utf8(reason).unwrap_or_default();
            }
            (received::REDELIVERED, Value::Number(number)) => self.redelivered = number != 0,
            _ => {}
        }
    }
}

fn time(bytes: &[u8]) -> Option<SystemTime> {
    times::time(prost_types::Timestamp::decode(bytes).ok()?).ok()
}

fn attributes(published: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = published;
    iter::from_fn(move || {
        while !rest.is_empty() {
            if let (publisher::ATTRIBUTES, Value::Bytes(attribute)) = fields::next(&mut rest).ok()? {
                return pair(attribute).ok();
            }
        }
        None
    })
}

/// Every field of a message, up to the first that is none.
fn each<'a>(mut message: &'a [u8], mut take: impl FnMut(u32, Value<'a>)) {
    while !message.is_empty() {
        let Ok((tag, value)) = fields::next(&mut message) else { return };
        take(tag, value);
    }
}
