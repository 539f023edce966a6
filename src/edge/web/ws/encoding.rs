//! The two forms in which a session is spoken over WebSocket: protobuf in binary messages, or JSON in text.

use std::sync::Arc;

use bytes::Bytes;

use super::frame::{Kind, Opcode, head};
use crate::{
    edge::{
        web::messages::{Known, Messages},
        wire::{frames, status::Fault},
    },
    event::Event,
    hub::TokenKey,
    json,
    outbox::{Batch, Item},
    telemetry::Metrics,
};

/// The head of most messages in JSON, in bytes.
const USUAL_HEAD_BYTES: usize = 4;
/// Room for an event in JSON, as a multiple of its bytes.
const JSON_GROWTH: usize = 2;

/// In which form a client speaks.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    /// `SessionRequest` and `SessionResponse` in protobuf.
    Protobuf,
    /// The same as JSON.
    Json(Json),
}

/// What it takes to speak JSON.
#[derive(Debug, Clone)]
pub(super) struct Json {
    pub(super) messages: Messages,
    /// The JSON of events, which many get.
    pub(super) forms: Arc<json::Forms>,
}

impl Encoding {
    /// What messages are.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Protobuf => Kind::Binary,
            Self::Json(_) => Kind::Text,
        }
    }

    /// A batch as frames of WebSocket, a message each; counts it and empties it.
    pub(super) fn frames(&self, batch: &mut Batch, tokens: &TokenKey, metrics: &Metrics) -> Bytes {
        match self {
            Self::Protobuf => frames::encode(batch, tokens, metrics, |len| head(Opcode::Message(Kind::Binary), len)),
            Self::Json(json) => json.frames(batch, tokens, metrics),
        }
    }

    /// The frame that says how a session ended.
    pub(super) fn error(&self, fault: &Fault) -> Vec<u8> {
        let message = frames::encode_error(fault);
        let mut out = Vec::new();
        match self {
            Self::Protobuf => {
                out.extend_from_slice(&head(Opcode::Message(Kind::Binary), message.len()));
                out.extend_from_slice(&message);
            }
            Self::Json(json) => put_json(&mut out, json.messages.frame, &message),
        }
        out
    }
}

impl Json {
    fn frames(&self, batch: &mut Batch, tokens: &TokenKey, metrics: &Metrics) -> Bytes {
        let event_bytes: usize = batch.events.iter().map(Event::encoded_len).sum();
        let mut out = Vec::with_capacity(JSON_GROWTH * event_bytes);
        let mut events = batch.events.iter();
        for item in batch.items.drain(..) {
            match item {
                Item::Reply(reply) => {
                    frames::count(&reply.frame, metrics);
                    put_json(&mut out, self.messages.frame, &frames::encode_reply(reply, tokens));
                }
                Item::Events { subscription_id, count, position } => {
                    let some = &events.as_slice()[..count];
                    events.nth(count - 1);
                    let token = position.map(|position| tokens.seal(&position)).unwrap_or_default();
                    put_text(&mut out, |out| json::put_events(subscription_id, some, &token, &self.forms, out));
                }
            }
        }
        metrics.sent(batch.events.len(), event_bytes, out.len());
        batch.clear();
        out.into()
    }
}

/// Appends a message of the hub as a text.
fn put_json(out: &mut Vec<u8>, message: Known, protobuf: &[u8]) {
    put_text(out, |out| {
        let put = message.encode(protobuf, out);
        // All that the hub says is in the contract.
        debug_assert!(put.is_ok(), "{put:?}");
    });
}

/// Appends a text whose length is known once it is written.
fn put_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; USUAL_HEAD_BYTES]);
    write(out);
    let head = head(Opcode::Message(Kind::Text), out.len() - at - USUAL_HEAD_BYTES);
    out.splice(at..at + USUAL_HEAD_BYTES, head);
}
