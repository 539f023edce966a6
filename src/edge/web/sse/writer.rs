//! From what the outbox hands out to the messages of a subscription as an event stream.
//!
//! An event is a message whose data is a `ReceivedEvent` in JSON; the bytes are the same for everybody that gets it from that
//! stream. Every other frame is a message with the name and the JSON of the frame. Whatever says how far the subscription has
//! come bears that as its id: a browser that reconnects goes on behind the last id it has seen.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tonic::Code;

use super::text::{self, Head};
use crate::{
    edge::{
        web::messages::Messages,
        wire::{
            frames,
            status::{self, Fault},
        },
    },
    event::Event,
    hub::TokenKey,
    json::Forms,
    model::{Cursor, Origin},
    outbox::{Batch, Frame, Item},
    telemetry::Metrics,
};

/// The id of an end after which there is nothing to come back for.
pub(super) const DONE: &str = "done";
/// Room for a message that is no event; more is found when it is needed.
const USUAL_MESSAGE_BYTES: usize = 128;
/// A client that loses its connection without a word waits for this long at least.
const USUAL_RETRY: Duration = Duration::from_secs(1);
/// One whose end trying again does not mend need not try often.
const VAIN_RETRY: Duration = Duration::from_secs(60);
/// Delays are longer by chance: by up to a half of them, and up to this at least.
const LEAST_JITTER: Duration = Duration::from_secs(1);

/// Writes what one subscription gets.
#[derive(Debug)]
pub(super) struct Writer {
    forms: Arc<Forms>,
    messages: Messages,
    /// Of a subscription from a stream, once it is open.
    origin: Option<Arc<Origin>>,
    head: Head,
}

impl Writer {
    pub(super) fn new(forms: Arc<Forms>, messages: Messages) -> Self {
        Self { forms, messages, origin: None, head: Head::default() }
    }

    /// Writes a batch, which is empty then, and counts it.
    pub(super) fn encode(&mut self, batch: &mut Batch, tokens: &TokenKey, metrics: &Metrics) -> Bytes {
        let event_bytes: usize = batch.events.iter().map(Event::encoded_len).sum();
        // JSON is about half as long again.
        let of_events = event_bytes + event_bytes / 2 + batch.events.len() * self.head.bytes();
        let mut out = Vec::with_capacity(of_events + batch.items.len() * USUAL_MESSAGE_BYTES);
        let mut events = batch.events.iter();
        for item in batch.items.drain(..) {
            match item {
                Item::Reply(reply) => {
                    frames::count(&reply.frame, metrics);
                    self.put_frame(reply.frame, tokens, &mut out);
                }
                Item::Events { count, .. } => {
                    for event in events.by_ref().take(count) {
                        text::put_event(&mut out, &self.head, event.sequence(), |out| self.forms.put(event, out));
                    }
                }
            }
        }
        metrics.sent(batch.events.len(), event_bytes, out.len());
        batch.clear();
        out.into()
    }

    /// Writes a frame that is not events.
    pub(super) fn put_frame(&mut self, frame: Frame, tokens: &TokenKey, out: &mut Vec<u8>) {
        let id = match &frame {
            Frame::Heartbeat(_) => return text::put_comment(out),
            Frame::Welcome(_) => {
                text::put_retry(out, jittered(USUAL_RETRY));
                None
            }
            Frame::Subscribed(subscribed) => subscribed.opened.as_ref().map(|opened| {
                let position = &opened.position;
                self.head = Head::of(&position.origin);
                self.origin = Some(Arc::clone(&position.origin));
                Cursor::from(position).to_string()
            }),
            Frame::Progress { position, .. } => Some(Cursor::from(position).to_string()),
            // Where a stream was made anew nobody knows what is lost.
            Frame::Gap { gap, .. } if gap.sequences.1 > 0 => self.cursor(gap.sequences.1),
            Frame::Ended { end, position, .. } => {
                let fault = status::of_end(end);
                text::put_retry(out, retry(&fault));
                if is_ok(&fault) {
                    Some(DONE.to_owned())
                } else {
                    position.as_ref().map(|at| Cursor::from(at).to_string())
                }
            }
            Frame::Draining { reconnect_delay, .. } => {
                text::put_retry(out, jittered(*reconnect_delay));
                None
            }
            _ => None,
        };
        // The hub's own messages can be written.
        if let Ok((name, json)) = self.messages.named(frame, tokens) {
            text::put_named(out, &name, id.as_deref(), json.as_bytes());
        }
    }

    fn cursor(&self, sequence: u64) -> Option<String> {
        self.origin.as_ref().map(|origin| Cursor { origin, sequence }.to_string())
    }
}

/// Whether the client may come back for the same, or has to hear of it by name: its `EventSource` would give up for good after
/// a response that is no stream, and could not tell why.
pub(super) fn heals(fault: &Fault) -> bool {
    fault.retry_after.is_some() || matches!(fault.code(), Code::ResourceExhausted | Code::Unavailable)
}

fn is_ok(fault: &Fault) -> bool {
    fault.code() == Code::Ok
}

/// How long a client is to wait that ended so. One that ended in order comes back once, to hear that it is over.
fn retry(fault: &Fault) -> Duration {
    let is_vain = !heals(fault) && !is_ok(fault);
    jittered(fault.retry_after.unwrap_or(if is_vain { VAIN_RETRY } else { USUAL_RETRY }))
}

/// Clients that are sent away together do not come back together.
fn jittered(delay: Duration) -> Duration {
    delay + (delay / 2).max(LEAST_JITTER).mul_f64(fastrand::f64())
}
