//! From a client's frame to a checked command: plain functions that validate once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message;

use super::{
    forms::v1::{self as wire, session_request::Command as Wire},
    publish::Publish,
    request::{Refusal, field, not_negative, start, stream_name},
};
use crate::{
    event::times,
    hub::{Outcome, Precondition},
    model::{
        AckMode, CommandError, Filter, Grant, Group, Labels, OnGap, Overflow, Start, StreamSpec, SubscriptionSpec,
        limits,
    },
    session::{Command, Request, Secret},
};

/// What a frame of a session is.
#[derive(Debug)]
pub(in crate::edge) enum Decoded {
    /// A request. Whatever is wrong with it is in it.
    Whole(Request),
    /// A publish, whose events are not looked at yet.
    Publish(Publish),
}

/// Decodes one frame of a session.
pub(in crate::edge) fn decode(frame: Bytes) -> Decoded {
    let refused = |request_id, error| Decoded::Whole(Request { request_id, field_path: "", command: Err(error) });
    match wire::SessionRequest::decode(frame) {
        Err(error) => refused(0, CommandError::Undecodable { problem: format!("the frame does not decode: {error}") }),
        Ok(frame) if frame.request_id < 0 => refused(frame.request_id, field("request_id", "is negative")),
        Ok(wire::SessionRequest { request_id, command: None }) => {
            refused(request_id, CommandError::Undecodable { problem: "the frame has no command".into() })
        }
        Ok(wire::SessionRequest { request_id, command: Some(command) }) => {
            let field_path = field_path(&command);
            let whole = |command| Decoded::Whole(Request { request_id, field_path, command });
            match command {
                Wire::Publish(publish) => match check_publish(&publish) {
                    Ok(precondition) => {
                        Decoded::Publish(Publish::new(request_id, field_path, precondition, publish.events))
                    }
                    Err(error) => whole(Err(error)),
                },
                command => whole(checked(command)),
            }
        }
    }
}

/// What stands before the fields of a command.
fn field_path(command: &Wire) -> &'static str {
    match command {
        Wire::Hello(_) => "hello.",
        Wire::Subscribe(_) => "subscribe.",
        Wire::Update(_) => "update.",
        Wire::Unsubscribe(_) => "unsubscribe.",
        Wire::Credit(_) => "credit.",
        Wire::Acknowledge(_) => "acknowledge.",
        Wire::Publish(_) => "publish.",
        Wire::Authenticate(_) => "authenticate.",
        Wire::Ping(_) => "ping.",
    }
}

/// Any command but a publish. Errors name fields below the command.
fn checked(command: Wire) -> Result<Command, CommandError> {
    Ok(match command {
        Wire::Hello(hello) => self::hello(hello)?,
        Wire::Subscribe(subscribe) => Command::Subscribe {
            subscription_id: not_negative("subscription_id", subscribe.subscription_id)?,
            spec: subscription_spec(subscribe.spec.as_ref()),
        },
        Wire::Update(update) => {
            if !update.expression.is_empty() {
                return Err(CommandError::Expression);
            }
            Command::Update {
                subscription_id: positive("subscription_id", update.subscription_id)?,
                filters: filters(&update.filters)?,
            }
        }
        Wire::Unsubscribe(unsubscribe) => {
            Command::Unsubscribe { subscription_id: positive("subscription_id", unsubscribe.subscription_id)? }
        }
        Wire::Credit(add) => {
            let subscription_id = positive("subscription_id", add.subscription_id)?;
            let grant = grant(add.credit.unwrap_or_default())?;
            if grant == Grant::default() {
                return Err(field("credit", "grants nothing"));
            }
            Command::Credit { subscription_id, grant }
        }
        Wire::Acknowledge(acknowledge) => self::acknowledge(acknowledge)?,
        Wire::Publish(publish) => {
            Command::Publish { events: Vec::new(), precondition: check_publish(&publish)?, memory: None }
        }
        Wire::Authenticate(authenticate) => {
            let token = authenticate.token;
            if token.is_empty() {
                return Err(field("token", "is missing"));
            }
            if token.len() > limits::MAX_CREDENTIAL_BYTES {
                return Err(too_long("token", token.len(), limits::MAX_CREDENTIAL_BYTES));
            }
            Command::Authenticate { token: Secret(token.into()) }
        }
        Wire::Ping(ping) => {
            if ping.nonce.len() > limits::MAX_NONCE_BYTES {
                return Err(too_long("nonce", ping.nonce.len(), limits::MAX_NONCE_BYTES));
            }
            Command::Ping { nonce: ping.nonce.into() }
        }
    })
}

fn hello(hello: wire::Hello) -> Result<Command, CommandError> {
    if hello.client_name.len() > limits::MAX_CLIENT_NAME_BYTES {
        return Err(too_long("client_name", hello.client_name.len(), limits::MAX_CLIENT_NAME_BYTES));
    }
    let previous = hello.previous_session_id;
    if previous.len() > limits::MAX_SESSION_ID_BYTES {
        return Err(too_long("previous_session_id", previous.len(), limits::MAX_SESSION_ID_BYTES));
    }
    let labels = Labels::check(hello.labels).map_err(|error| field("labels", error.to_string()))?;
    let heartbeat_interval = match hello.heartbeat_interval {
        None => None,
        Some(interval) => match times::duration(interval) {
            Ok(Duration::ZERO) => return Err(field("heartbeat_interval", "is not positive")),
            Ok(interval) => Some(interval),
            Err(problem) => return Err(field("heartbeat_interval", problem)),
        },
    };
    let previous_session = (!previous.is_empty()).then(|| previous.into());
    Ok(Command::Hello { client_name: hello.client_name, labels, previous_session, heartbeat_interval })
}

/// What holds for a publish as a whole, and what must hold for it to happen.
pub(in crate::edge) fn check_publish(publish: &wire::PublishRequest) -> Result<Option<Precondition>, CommandError> {
    use wire::publish_precondition::Condition;
    let precondition = match publish.precondition.map(|precondition| precondition.condition) {
        None => None,
        Some(None) => return Err(field("precondition", "is empty")),
        Some(Some(Condition::LastSequence(sequence))) => {
            let sequence = not_negative("precondition.last_sequence", sequence)?;
            Some(Precondition::LastSequence(sequence.unsigned_abs()))
        }
        Some(Some(Condition::LastTopicSequence(sequence))) => {
            let sequence = not_negative("precondition.last_topic_sequence", sequence)?;
            Some(Precondition::LastTopicSequence(sequence.unsigned_abs()))
        }
    };
    match publish.events.len() {
        0 => Err(field("events", "is empty")),
        count if count > limits::MAX_PUBLISH_EVENTS as usize => {
            Err(field("events", format!("has {count} events; the limit is {}", limits::MAX_PUBLISH_EVENTS)))
        }
        _ => Ok(precondition),
    }
}

fn acknowledge(acknowledge: wire::Acknowledge) -> Result<Command, CommandError> {
    let subscription_id = positive("subscription_id", acknowledge.subscription_id)?;
    let most = limits::MAX_ACKNOWLEDGED;
    if acknowledge.sequences.len() > most {
        let count = acknowledge.sequences.len();
        return Err(field("sequences", format!("has {count} sequences; the limit is {most}")));
    }
    let up_to = not_negative("up_to", acknowledge.up_to)?.unsigned_abs();
    if (up_to > 0) != acknowledge.sequences.is_empty() {
        return Err(field("sequences", "or `up_to` must be given, but not both"));
    }
    let mut sequences = Vec::with_capacity(acknowledge.sequences.len());
    for sequence in &acknowledge.sequences {
        sequences.push(positive("sequences", *sequence)?.unsigned_abs());
    }
    if acknowledge.reason.len() > limits::MAX_ACK_REASON_BYTES {
        return Err(too_long("reason", acknowledge.reason.len(), limits::MAX_ACK_REASON_BYTES));
    }
    let delay = match acknowledge.delay {
        None => None,
        Some(delay) => {
            let delay = times::duration(delay).map_err(|problem| field("delay", problem))?;
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            if delay_ms > limits::MAX_TIME_MS {
                return Err(field("delay", "must be 0 to 24 hours"));
            }
            Some(delay_ms)
        }
    };
    let outcome = match wire::AckOutcome::try_from(acknowledge.outcome) {
        Ok(wire::AckOutcome::Unspecified | wire::AckOutcome::Ack) => Outcome::Ack,
        Ok(wire::AckOutcome::Nack) => Outcome::Nack { delay, reason: acknowledge.reason.into() },
        Ok(wire::AckOutcome::Extend) => Outcome::Extend { delay },
        Ok(wire::AckOutcome::Reject) => Outcome::Reject { reason: acknowledge.reason.into() },
        Err(_) => return Err(field("outcome", "is unknown")),
    };
    Ok(Command::Acknowledge { subscription_id, sequences, up_to: (up_to > 0).then_some(up_to), outcome })
}

/// What a `Subscribe` call wants, checked.
pub(in crate::edge) fn subscribe_request(message: Bytes) -> Result<SubscriptionSpec, Refusal> {
    let message = wire::SubscribeRequest::decode(message)
        .map_err(|error| CommandError::Undecodable { problem: format!("the request does not decode: {error}") })?;
    subscription_spec(message.spec.as_ref()).map_err(refused_spec)
}

/// Why a `Subscribe` call cannot have what it wants.
pub(in crate::edge) fn refused_spec(error: CommandError) -> Refusal {
    Refusal::at("spec.", error)
}

/// Checks what a subscription wants. Errors name fields below the spec; an empty one is the spec itself.
pub(in crate::edge) fn subscription_spec(
    spec: Option<&wire::SubscriptionSpec>,
) -> Result<SubscriptionSpec, CommandError> {
    let spec = spec.ok_or_else(|| field("", "is missing"))?;
    if !spec.expression.is_empty() {
        return Err(CommandError::Expression);
    }
    let stream = stream_spec(spec)?;
    let credit = match spec.credit {
        None => None,
        Some(credit) => Some(grant(credit)?),
    };
    let max_events = match not_negative("max_events", spec.max_events)? {
        0 => None,
        most => Some(most.unsigned_abs()),
    };
    let most_batch = limits::MAX_BATCH_EVENTS;
    if !(0..=most_batch).contains(&spec.max_batch) {
        return Err(field("max_batch", format!("must be 0 to {most_batch}")));
    }
    Ok(SubscriptionSpec {
        filters: if stream.is_some() && spec.filters.is_empty() { Vec::new() } else { filters(&spec.filters)? },
        stream,
        group: if spec.group.is_empty() { None } else { Some(Group::parse(&spec.group)?) },
        credit,
        overflow: overflow(spec.overflow)?,
        max_events,
        max_batch: if spec.max_batch == 0 { most_batch } else { spec.max_batch }.unsigned_abs(),
    })
}

/// What only a subscription from a stream can have; refused in a live one.
fn stream_spec(spec: &wire::SubscriptionSpec) -> Result<Option<StreamSpec>, CommandError> {
    let ack_mode = match wire::AckMode::try_from(spec.ack_mode) {
        Ok(wire::AckMode::Unspecified | wire::AckMode::None) => AckMode::None,
        Ok(wire::AckMode::Explicit) => AckMode::Explicit,
        Ok(wire::AckMode::Cumulative) => AckMode::Cumulative,
        Err(_) => return Err(field("ack_mode", "is unknown")),
    };
    let on_gap = match wire::GapPolicy::try_from(spec.on_gap) {
        Ok(wire::GapPolicy::Unspecified | wire::GapPolicy::Fail) => OnGap::Fail,
        Ok(wire::GapPolicy::Earliest) => OnGap::Earliest,
        Ok(wire::GapPolicy::Latest) => OnGap::Latest,
        Err(_) => return Err(field("on_gap", "is unknown")),
    };
    let start = start(spec.start.as_ref())?;
    let needs = |field, needs| Err(CommandError::Unsupported { field, needs });
    if spec.reattach.is_some() && ack_mode == AckMode::None {
        return needs("reattach", "a member of a group on a stream that acknowledges");
    }
    if spec.stream.is_empty() {
        return match (start, ack_mode) {
            (Start::New, AckMode::None) => Ok(None),
            (Start::New, _) => needs("ack_mode", "a group on a stream"),
            _ => needs("start", "a stream"),
        };
    }
    if ack_mode != AckMode::None && spec.group.is_empty() {
        return needs("ack_mode", "a group on a stream");
    }
    // A group goes on behind what its stream has lost, whatever a member wants.
    let on_gap = match wire::GapPolicy::try_from(spec.on_gap) {
        _ if spec.group.is_empty() => on_gap,
        Ok(wire::GapPolicy::Unspecified) => OnGap::Earliest,
        Ok(wire::GapPolicy::Latest) => {
            return needs("on_gap", "a subscription without a group: SeekGroup moves a group");
        }
        _ => on_gap,
    };
    if !spec.group.is_empty() && matches!(start, Start::LastPerTopic | Start::Token(_)) {
        return needs("start", "a subscription without a group: a group keeps its own position");
    }
    let held = held(spec.reattach.as_ref())?;
    let name = stream_name("stream", &spec.stream)?;
    Ok(Some(StreamSpec { name, start, on_gap, ack_mode, held }))
}

/// What a member that comes back has in its hands, ascending.
fn held(reattach: Option<&wire::Reattach>) -> Result<Option<Arc<[u64]>>, CommandError> {
    const FIELD: &str = "reattach.held_sequences";
    let Some(wire::Reattach { held_sequences }) = reattach else { return Ok(None) };
    let (count, most) = (held_sequences.len(), limits::MAX_HELD_SEQUENCES);
    if count > most {
        return Err(field(FIELD, format!("has {count} sequences; the limit is {most}")));
    }
    let mut held = Vec::with_capacity(count);
    for sequence in held_sequences {
        held.push(positive(FIELD, *sequence)?.unsigned_abs());
    }
    held.sort_unstable();
    held.dedup();
    Ok(Some(held.into()))
}

fn overflow(value: i32) -> Result<Overflow, CommandError> {
    match wire::OverflowPolicy::try_from(value) {
        Ok(wire::OverflowPolicy::Unspecified | wire::OverflowPolicy::DropOldest) => Ok(Overflow::DropOldest),
        Ok(wire::OverflowPolicy::Conflate) => Ok(Overflow::Conflate),
        Ok(wire::OverflowPolicy::End) => Ok(Overflow::End),
        Err(_) => Err(field("overflow", "is unknown")),
    }
}

/// One filter at least.
pub(in crate::edge) fn filters(texts: &[String]) -> Result<Vec<Filter>, CommandError> {
    if texts.is_empty() {
        return Err(CommandError::NoFilter);
    }
    if texts.len() > limits::MAX_FILTERS as usize {
        return Err(field("filters", format!("has {} filters; the limit is {}", texts.len(), limits::MAX_FILTERS)));
    }
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| Filter::parse(text.as_bytes()).map_err(|error| CommandError::Filter { index, error }))
        .collect()
}

fn grant(credit: wire::Credit) -> Result<Grant, CommandError> {
    Ok(Grant {
        events: not_negative("credit.events", credit.events)?,
        bytes: not_negative("credit.bytes", credit.bytes)?,
    })
}

fn positive(name: &'static str, value: i64) -> Result<i64, CommandError> {
    if value < 1 { Err(field(name, "must be positive")) } else { Ok(value) }
}

fn too_long(name: &'static str, bytes: usize, limit: usize) -> CommandError {
    field(name, format!("has {bytes} bytes; the limit is {limit}"))
}
