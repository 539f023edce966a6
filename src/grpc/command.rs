//! From a client's frame to a checked command: plain functions that validate once.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::{
    event::{self, EventIds},
    wire::v1::{self as wire, session_request::Command as Wire},
};
use crate::{
    model::{CommandError, Filter, Grant, Group, Overflow, Wish, limits},
    session::{Command, Request},
};

/// Decodes one frame of a session. Whatever is wrong with it is in the request.
pub(super) fn request(frame: Bytes, max_event_bytes: usize, ids: &mut EventIds) -> Request {
    let refused = |request_id, error| Request { request_id, place: "", command: Err(error) };
    match wire::SessionRequest::decode(frame) {
        Err(error) => refused(0, CommandError::Undecodable { problem: format!("the frame does not decode: {error}") }),
        Ok(frame) if frame.request_id < 0 => refused(frame.request_id, field("request_id", "is negative")),
        Ok(wire::SessionRequest { request_id, command: None }) => {
            refused(request_id, CommandError::Undecodable { problem: "the frame has no command".into() })
        }
        Ok(wire::SessionRequest { request_id, command: Some(command) }) => {
            Request { request_id, place: place(&command), command: checked(command, max_event_bytes, ids) }
        }
    }
}

/// What stands before the fields of a command.
fn place(command: &Wire) -> &'static str {
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

/// Errors name fields below the command.
fn checked(command: Wire, max_event_bytes: usize, ids: &mut EventIds) -> Result<Command, CommandError> {
    Ok(match command {
        Wire::Hello(hello) => self::hello(hello)?,
        Wire::Subscribe(subscribe) => Command::Subscribe {
            subscription_id: not_negative("subscription_id", subscribe.subscription_id)?,
            wish: wish(subscribe.spec.as_ref()),
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
        Wire::Acknowledge(acknowledge) => {
            Command::Acknowledge { subscription_id: positive("subscription_id", acknowledge.subscription_id)? }
        }
        Wire::Publish(publish) => {
            check_publish(&publish)?;
            let events = publish.events.iter().map(|raw| event::accept(raw, max_event_bytes, ids)).collect();
            Command::Publish { events }
        }
        Wire::Authenticate(_) => {
            return Err(CommandError::Unsupported { field: "", needs: "a hub with credentials" });
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
    if hello.labels.len() > limits::MAX_LABELS {
        return Err(field("labels", format!("has more than {} pairs", limits::MAX_LABELS)));
    }
    let label_bytes = hello.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if label_bytes > limits::MAX_LABEL_BYTES {
        return Err(too_long("labels", label_bytes, limits::MAX_LABEL_BYTES));
    }
    let heartbeat_interval = match hello.heartbeat_interval {
        None => None,
        Some(interval) => Some(
            Duration::try_from(interval)
                .ok()
                .filter(|interval| !interval.is_zero())
                .ok_or_else(|| field("heartbeat_interval", "is not positive"))?,
        ),
    };
    Ok(Command::Hello { client_name: hello.client_name, heartbeat_interval })
}

/// What holds for a publish as a whole.
pub(super) fn check_publish(publish: &wire::PublishRequest) -> Result<(), CommandError> {
    if publish.precondition.is_some() {
        return Err(CommandError::Unsupported { field: "precondition", needs: "a stream, and this hub has none" });
    }
    match publish.events.len() {
        0 => Err(field("events", "is empty")),
        count if count > limits::MAX_PUBLISH_EVENTS as usize => {
            Err(field("events", format!("has {count} events and may have {}", limits::MAX_PUBLISH_EVENTS)))
        }
        _ => Ok(()),
    }
}

/// Checks what a subscription wants. Errors name fields below the spec; an empty one is the spec itself.
pub(super) fn wish(spec: Option<&wire::SubscriptionSpec>) -> Result<Wish, CommandError> {
    let spec = spec.ok_or_else(|| field("", "is missing"))?;
    if !spec.expression.is_empty() {
        return Err(CommandError::Expression);
    }
    check_live(spec)?;
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
    Ok(Wish {
        filters: filters(&spec.filters)?,
        group: if spec.group.is_empty() { None } else { Some(Group::parse(&spec.group)?) },
        credit,
        overflow: overflow(spec.overflow)?,
        max_events,
        max_batch: if spec.max_batch == 0 { most_batch } else { spec.max_batch }.unsigned_abs(),
    })
}

/// Refuses what only a subscription from a stream can have: this hub has no streams.
fn check_live(spec: &wire::SubscriptionSpec) -> Result<(), CommandError> {
    use wire::{AckMode, GapPolicy, StartPreset, start_position::Position};
    let needs_stream = |field, needs| Err(CommandError::Unsupported { field, needs });
    if !spec.stream.is_empty() {
        return needs_stream("stream", "a hub with streams, and this one has none");
    }
    match spec.start.as_ref().and_then(|start| start.position.as_ref()) {
        None => {}
        Some(Position::Preset(preset)) => match StartPreset::try_from(*preset) {
            Ok(StartPreset::Unspecified | StartPreset::New) => {}
            Ok(StartPreset::Earliest | StartPreset::LastPerTopic) => return needs_stream("start", "a stream"),
            Err(_) => return Err(field("start.preset", "is unknown")),
        },
        Some(_) => return needs_stream("start", "a stream"),
    }
    match AckMode::try_from(spec.ack_mode) {
        Ok(AckMode::Unspecified | AckMode::None) => {}
        Ok(_) => return needs_stream("ack_mode", "a group on a stream"),
        Err(_) => return Err(field("ack_mode", "is unknown")),
    }
    match GapPolicy::try_from(spec.on_gap) {
        // A live subscription has nothing to resume, so the answer to a failed resume cannot matter.
        Ok(_) => Ok(()),
        Err(_) => Err(field("on_gap", "is unknown")),
    }
}

fn overflow(value: i32) -> Result<Overflow, CommandError> {
    match wire::OverflowPolicy::try_from(value) {
        Ok(wire::OverflowPolicy::Unspecified | wire::OverflowPolicy::DropOldest) => Ok(Overflow::DropOldest),
        Ok(wire::OverflowPolicy::Conflate) => Ok(Overflow::Conflate),
        Ok(wire::OverflowPolicy::End) => Ok(Overflow::End),
        Err(_) => Err(field("overflow", "is unknown")),
    }
}

fn filters(texts: &[String]) -> Result<Vec<Filter>, CommandError> {
    if texts.is_empty() {
        return Err(CommandError::NoFilter);
    }
    if texts.len() > limits::MAX_FILTERS as usize {
        return Err(field("filters", format!("has {} filters and may have {}", texts.len(), limits::MAX_FILTERS)));
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

fn not_negative(name: &'static str, value: i64) -> Result<i64, CommandError> {
    if value < 0 { Err(field(name, "is negative")) } else { Ok(value) }
}

fn positive(name: &'static str, value: i64) -> Result<i64, CommandError> {
    if value < 1 { Err(field(name, "must be positive")) } else { Ok(value) }
}

fn too_long(name: &'static str, bytes: usize, limit: usize) -> CommandError {
    field(name, format!("has {bytes} bytes and may have {limit}"))
}

fn field(field: &'static str, problem: impl Into<String>) -> CommandError {
    CommandError::Field { field, problem: problem.into() }
}
