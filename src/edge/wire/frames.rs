//! From what the outbox hands out to bytes on the wire.
//!
//! Events are already encoded: an `events` frame is a short header and copies of them. The results of a publish are
//! written by `results`. Everything else is rare and goes through the generated messages. The frames of `Subscribe` have the same field numbers as those of `Session`, so one
//! encoding serves both.

use bytes::Bytes;
use prost::{
    Message,
    encoding::{encode_varint, encoded_len_varint},
};

use super::{
    forms::v1::{self as wire, session_response::Frame as Wire},
    results,
    status::{self, Fault},
};
use crate::{
    event::Event,
    field_numbers::{events, nested, number, session_response},
    hub::TokenKey,
    model::{End, Grant, Reason, limits},
    outbox::{Acked, Batch, Frame, GapReason, Item, Reply, ResumeOutcome, SessionLimits, Subscribed, Welcome},
    telemetry::Metrics,
};

/// `SessionResponse.events`, length-delimited.
const KEY_EVENTS: u8 = nested(session_response::EVENTS);
/// `Events.subscription_id`, a varint.
const KEY_SUBSCRIPTION_ID: u8 = number(events::SUBSCRIPTION_ID);
/// `Events.resume_token`, length-delimited.
const KEY_RESUME_TOKEN: u8 = nested(events::RESUME_TOKEN);
/// Room for a frame that is not events; more is found when it is needed.
const USUAL_FRAME_BYTES: usize = 64;

/// Encodes a batch, and counts it. `prefix` makes what the edge writes before a message of that many bytes.
pub(in crate::edge) fn encode<P: AsRef<[u8]>>(
    batch: &mut Batch,
    tokens: &TokenKey,
    metrics: &Metrics,
    prefix: impl Fn(usize) -> P + Copy,
) -> Bytes {
    let event_bytes: usize = batch.events.iter().map(Event::encoded_len).sum();
    let mut out = Vec::with_capacity(event_bytes + batch.items.len() * USUAL_FRAME_BYTES);
    let mut events = batch.events.iter();
    for item in batch.items.drain(..) {
        match item {
            Item::Reply(reply) => {
                count(&reply.frame, metrics);
                put_message(&mut out, &self::reply(reply, tokens), prefix);
            }
            Item::Events { subscription_id, count, position } => {
                let some = &events.as_slice()[..count];
                events.nth(count - 1);
                let token = position.map(|position| tokens.seal(&position));
                let token_bytes =
                    token.as_ref().map_or(0, |token| 1 + encoded_len_varint(token.len() as u64) + token.len());
                let entries: usize = some.iter().map(Event::encoded_len).sum();
                put_events_header(&mut out, subscription_id, entries + token_bytes, prefix);
                for event in some {
                    out.extend_from_slice(event.encoded());
                }
                if let Some(token) = token {
                    out.push(KEY_RESUME_TOKEN);
                    encode_varint(token.len() as u64, &mut out);
                    out.extend_from_slice(token.as_bytes());
                }
            }
        }
    }
    metrics.sent(batch.events.len(), event_bytes, out.len());
    batch.clear();
    out.into()
}

/// Everything of an `events` frame but its entries and its token, which are `entries` bytes.
fn put_events_header<P: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    subscription_id: i64,
    entries: usize,
    prefix: impl Fn(usize) -> P,
) {
    // As protobuf has it for a signed integer that is not zigzag.
    let id = subscription_id.cast_unsigned();
    let inner = 1 + encoded_len_varint(id) + entries;
    let message = 1 + encoded_len_varint(inner as u64) + inner;
    out.extend_from_slice(prefix(message).as_ref());
    out.push(KEY_EVENTS);
    encode_varint(inner as u64, out);
    out.push(KEY_SUBSCRIPTION_ID);
    encode_varint(id, out);
}

/// A frame that is not events, as a message.
pub(in crate::edge) fn reply(reply: Reply, tokens: &TokenKey) -> wire::SessionResponse {
    wire::SessionResponse { request_id: reply.request_id, frame: Some(frame(reply.frame, tokens)) }
}

/// The same encoded.
pub(in crate::edge) fn encode_reply(reply: Reply, tokens: &TokenKey) -> Vec<u8> {
    self::reply(reply, tokens).encode_to_vec()
}

/// The frame that says what is wrong when no request is, encoded.
pub(in crate::edge) fn encode_error(fault: &Fault) -> Vec<u8> {
    wire::SessionResponse { request_id: 0, frame: Some(Wire::Error(fault.message())) }.encode_to_vec()
}

/// A message with its prefix.
fn put_message<P: AsRef<[u8]>>(out: &mut Vec<u8>, message: &impl Message, prefix: impl Fn(usize) -> P) {
    let len = message.encoded_len();
    let prefix = prefix(len);
    out.reserve(prefix.as_ref().len() + len);
    out.extend_from_slice(prefix.as_ref());
    message.encode_raw(out);
}

/// Counts a frame that is sent.
pub(in crate::edge) fn count(frame: &Frame, metrics: &Metrics) {
    match frame {
        Frame::Gap { gap, .. } => metrics.gap_told(gap.count),
        Frame::Ended { end, .. } => metrics.subscription_ended(status::of_end(end).reason.name()),
        _ => {}
    }
}

fn frame(frame: Frame, tokens: &TokenKey) -> Wire {
    match frame {
        Frame::Welcome(welcome) => Wire::Welcome(self::welcome(&welcome)),
        Frame::Subscribed(subscribed) => Wire::Subscribed(self::subscribed(subscribed)),
        Frame::Ended { subscription_id, end, position } => {
            Wire::Ended(ended(subscription_id, &end, position.map(|position| tokens.seal(&position))))
        }
        Frame::Gap { subscription_id, gap } => Wire::Gap(wire::Gap {
            subscription_id,
            count: gap.count.cast_signed(),
            from_sequence: gap.sequences.0.cast_signed(),
            to_sequence: gap.sequences.1.cast_signed(),
            reason: match gap.reason {
                GapReason::Overflow => wire::GapReason::Overflow,
                GapReason::Conflated => wire::GapReason::Conflated,
                GapReason::Retention => wire::GapReason::Retention,
                GapReason::Epoch => wire::GapReason::Epoch,
            }
            .into(),
        }),
        Frame::Progress { subscription_id, position, latest } => Wire::Progress(wire::Progress {
            subscription_id,
            resume_token: tokens.seal(&position),
            caught_up: position.sequence >= latest,
            lag: latest.saturating_sub(position.sequence).cast_signed(),
        }),
        Frame::Acknowledged { subscription_id, results } => Wire::Acknowledged(wire::Acknowledged {
            subscription_id,
            results: results.iter().map(acknowledged).collect(),
        }),
        Frame::Published(results) => Wire::Published(results::encode(&results)),
        Frame::Error { field_path, error } => Wire::Error(status::of_command(&error, field_path).message()),
        Frame::CredentialExpiring { deadline } => {
            Wire::CredentialExpiring(wire::CredentialExpiring { deadline: Some(deadline.into()) })
        }
        Frame::Draining { deadline, reconnect_delay, alternatives } => Wire::Draining(wire::Draining {
            deadline: Some(deadline.into()),
            reconnect_delay: duration(reconnect_delay),
            alternatives: alternatives.addresses().map(str::to_owned).collect(),
        }),
        Frame::Heartbeat(time) => Wire::Heartbeat(wire::Heartbeat { time: Some(time.into()) }),
        Frame::Pong(nonce) => Wire::Pong(wire::Pong { nonce: nonce.into() }),
    }
}

/// What the clients of a hub must keep to.
pub(in crate::edge) fn limits(of: &SessionLimits) -> wire::Limits {
    let told = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    wire::Limits {
        max_event_bytes: told(of.max_event_bytes),
        max_frame_bytes: told(limits::MAX_FRAME_BYTES),
        max_subscriptions: told(of.max_subscriptions),
        max_publish_events: limits::MAX_PUBLISH_EVENTS,
        max_filters: limits::MAX_FILTERS,
        queue_events: told(of.queue_events),
        queue_bytes: told(of.queue_bytes),
    }
}

fn welcome(welcome: &Welcome) -> wire::Welcome {
    wire::Welcome {
        session_id: welcome.session_id.to_string(),
        node: welcome.node.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: Some(limits(&welcome.limits)),
        heartbeat_interval: duration(welcome.heartbeat_interval),
        credential_expiry: welcome.credential_expiry.map(Into::into),
        alternatives: welcome.alternatives.addresses().map(str::to_owned).collect(),
    }
}

fn subscribed(subscribed: Subscribed) -> wire::Subscribed {
    let Grant { events, bytes } = subscribed.credit;
    let mut told = wire::Subscribed {
        subscription_id: subscribed.subscription_id,
        resume_outcome: wire::ResumeOutcome::Fresh.into(),
        credit: Some(wire::Credit { events, bytes }),
        automatic_credit: subscribed.automatic_credit,
        ..Default::default()
    };
    if let Some(opened) = subscribed.opened {
        told.epoch = opened.position.origin.epoch;
        told.start_sequence = (opened.position.sequence + 1).cast_signed();
        told.earliest_sequence = opened.earliest.cast_signed();
        told.latest_sequence = opened.latest.cast_signed();
        told.resume_outcome = match opened.outcome {
            ResumeOutcome::Fresh => wire::ResumeOutcome::Fresh,
            ResumeOutcome::Resumed => wire::ResumeOutcome::Resumed,
            ResumeOutcome::Gap => wire::ResumeOutcome::Gap,
        }
        .into();
        told.ack_deadline = opened.ack_deadline.and_then(duration);
        told.reattached = opened.returned.reattached;
        told.lost_sequences = opened.returned.lost.iter().map(|sequence| sequence.cast_signed()).collect();
    }
    told
}

fn ended(subscription_id: i64, end: &End, token: Option<String>) -> wire::Ended {
    let fault = status::of_end(end);
    wire::Ended {
        subscription_id,
        status: Some(fault.message()),
        reason: reason(fault.reason).into(),
        resume_token: token.unwrap_or_default(),
        retry: Some(wire::RetryAdvice {
            retry: fault.retry_after.is_some(),
            delay: fault.retry_after.and_then(duration),
        }),
    }
}

fn acknowledged((sequence, result): &Acked) -> wire::AckResult {
    let status = result.as_ref().err().map(|error| status::of_ack(error).message());
    wire::AckResult { sequence: sequence.cast_signed(), status }
}

/// A duration, unless it is too long for one of the contract.
pub(in crate::edge) fn duration(duration: std::time::Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// The proto's value for a reason.
pub(in crate::edge) fn reason(reason: Reason) -> wire::EndReason {
    wire::EndReason::from_str_name(&format!("END_REASON_{}", reason.name())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::EventIds, proto::v1 as client};

    #[test]
    fn an_events_frame_is_what_the_contract_says() {
        let sent: Vec<client::Event> =
            (0..3).map(|n| client::Event { id: n.to_string(), topic: "a.b".into(), ..Default::default() }).collect();
        let mut ids = EventIds::new("s");
        let accept = |event: &client::Event| Event::accept(&event.encode_to_vec(), 1024, &mut ids).expect("accepted");
        let mut batch = Batch {
            items: vec![
                Item::Events { subscription_id: 300, count: 2, position: None },
                Item::Reply(Reply { request_id: 9, frame: Frame::Pong("n".into()) }),
                Item::Events { subscription_id: 1, count: 1, position: None },
            ],
            events: sent.iter().map(accept).collect(),
        };
        let bytes = encode(&mut batch, &TokenKey::new([7; 32]), &Metrics::default(), |len| (len as u32).to_be_bytes());
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some((head, tail)) = rest.split_at_checked(size_of::<u32>()) {
            let len = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
            let (message, after) = tail.split_at(len);
            frames.push(client::SessionResponse::decode(message).expect("a frame"));
            rest = after;
        }
        let events = |frame: &client::SessionResponse| match &frame.frame {
            Some(client::session_response::Frame::Events(events)) => {
                let got = events.events.iter().filter_map(|e| e.event.clone()).collect::<Vec<_>>();
                (events.subscription_id, got)
            }
            other => panic!("not events: {other:?}"),
        };
        assert_eq!(events(&frames[0]), (300, sent[..2].to_vec()));
        assert_eq!(frames[1].request_id, 9);
        assert_eq!(events(&frames[2]), (1, sent[2..].to_vec()));
        assert_eq!(frames.len(), 3);
    }

    #[test]
    fn every_reason_has_its_value_in_the_contract() {
        for known in Reason::ALL {
            assert_ne!(reason(*known), wire::EndReason::Unspecified, "{}", known.name());
        }
    }
}
