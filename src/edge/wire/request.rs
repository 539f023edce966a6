//! What requests have in common: how their fields are checked, and what a call is refused with.
//!
//! Errors name fields as the contract does; what stands before a field is added where the whole request is known.

use std::time::Duration;

use tonic::Status;

use super::{
    forms::v1 as wire,
    status::{self, Fault},
};
use crate::{
    event::times,
    manage::{MAX_PAGE, USUAL_PAGE},
    model::{CommandError, Group, Start, StreamName},
};

/// Why a call was refused, and what stands before the field that is to blame.
#[derive(Debug)]
pub(in crate::edge) struct Refusal {
    field_path: &'static str,
    error: CommandError,
}

impl Refusal {
    pub(in crate::edge) fn at(field_path: &'static str, error: impl Into<CommandError>) -> Self {
        Self { field_path, error: error.into() }
    }

    pub(in crate::edge) fn fault(&self) -> Fault {
        status::of_command(&self.error, self.field_path)
    }
}

impl<E: Into<CommandError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::at("", error)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.fault().status()
    }
}

pub(in crate::edge) fn field(field: &'static str, problem: impl Into<String>) -> CommandError {
    CommandError::Field { field, problem: problem.into() }
}

pub(in crate::edge) fn not_negative(name: &'static str, value: i64) -> Result<i64, CommandError> {
    if value < 0 { Err(field(name, "is negative")) } else { Ok(value) }
}

pub(in crate::edge) fn positive(name: &'static str, value: i64) -> Result<u64, CommandError> {
    let positive = u64::try_from(value).ok().filter(|value| *value > 0);
    positive.ok_or_else(|| field(name, "must be positive"))
}

/// The name of a stream that was given in a field.
pub(in crate::edge) fn stream_name(field_path: &'static str, name: &str) -> Result<StreamName, CommandError> {
    StreamName::parse(name).map_err(|error| field(field_path, format!("is not the name of a stream: {error}")))
}

/// The name of a group that was given in a field.
pub(in crate::edge) fn group_name(field_path: &'static str, name: &str) -> Result<Group, CommandError> {
    Group::parse(name).map_err(|error| field(field_path, format!("is not the name of a group: {error}")))
}

/// A duration that was given in a field.
pub(in crate::edge) fn duration(
    field_path: &'static str,
    asked: prost_types::Duration,
) -> Result<Duration, CommandError> {
    times::duration(asked).map_err(|problem| field(field_path, problem))
}

/// How many things a page is asked to have.
pub(in crate::edge) fn page_size(asked: i32) -> Result<usize, CommandError> {
    match usize::try_from(asked) {
        Ok(0) => Ok(USUAL_PAGE),
        Ok(size) if size <= MAX_PAGE => Ok(size),
        _ => Err(field("page_size", format!("must be 0 to {MAX_PAGE}"))),
    }
}

/// Where in a stream to begin.
pub(in crate::edge) fn start(start: Option<&wire::StartPosition>) -> Result<Start, CommandError> {
    use wire::{StartPreset, start_position::Position};
    Ok(match start.and_then(|start| start.position.as_ref()) {
        None => Start::New,
        Some(Position::Preset(preset)) => match StartPreset::try_from(*preset) {
            Ok(StartPreset::Unspecified | StartPreset::New) => Start::New,
            Ok(StartPreset::Earliest) => Start::Earliest,
            Ok(StartPreset::LastPerTopic) => Start::LastPerTopic,
            Err(_) => return Err(field("start.preset", "is unknown")),
        },
        Some(Position::AfterSequence(sequence)) => {
            Start::After(not_negative("start.after_sequence", *sequence)?.unsigned_abs())
        }
        Some(Position::AtTime(time)) => {
            Start::At(times::time(*time).map_err(|problem| field("start.at_time", problem))?)
        }
        Some(Position::ResumeToken(token)) => Start::Token(token.as_str().into()),
    })
}
