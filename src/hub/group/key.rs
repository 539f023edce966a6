//! Which group it is, and what the store says of it in the words of the hub.

use crate::{
    engine::{EventStream, GroupStoreError},
    model::{Group, StreamError, StreamName},
};

/// A group, in one life of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) stream: StreamName,
    pub(super) epoch: i64,
    pub(super) group: Group,
}

impl Key {
    pub(super) fn new(stream: &dyn EventStream, group: &Group) -> Self {
        Self { stream: stream.name().clone(), epoch: stream.epoch(), group: group.clone() }
    }

    /// It does not exist.
    pub(super) fn not_found(&self) -> StreamError {
        StreamError::GroupNotFound { stream: self.stream.clone(), group: self.group.as_str().to_owned() }
    }

    /// What the store says of it.
    pub(super) fn refused(&self, error: &GroupStoreError) -> StreamError {
        refused(error, &self.stream, Some(&self.group))
    }

    /// Its state is none.
    pub(super) fn corrupt(&self, error: impl std::fmt::Display) -> StreamError {
        StreamError::Corrupt(format!("group {} of stream {}: {error}", self.group.as_str(), self.stream))
    }
}

/// What the store says of a group, or of all groups of a stream.
pub(super) fn refused(error: &GroupStoreError, stream: &StreamName, group: Option<&Group>) -> StreamError {
    let named = || (stream.clone(), group.map_or_else(String::new, |group| group.as_str().to_owned()));
    match error {
        GroupStoreError::Closed => StreamError::NotFound(stream.to_string()),
        GroupStoreError::Exists => {
            let (stream, group) = named();
            StreamError::GroupExists { stream, group }
        }
        GroupStoreError::NotFound => {
            let (stream, group) = named();
            StreamError::GroupNotFound { stream, group }
        }
        GroupStoreError::Setting(error) => StreamError::Setting(error.clone()),
        GroupStoreError::DeadLetterStream { name } => no_dead_letter_stream(name),
        GroupStoreError::TooMany { limit } => StreamError::TooMany { what: "groups on this stream", limit: *limit },
        // Where it goes on is found by coming again; dead letters wait by themselves, and nobody else hears of it.
        GroupStoreError::Fenced
        | GroupStoreError::TooLarge { .. }
        | GroupStoreError::QuotaUsedUp { .. }
        | GroupStoreError::NeverFits { .. }
        | GroupStoreError::NoMemory { .. } => StreamError::Unavailable,
        GroupStoreError::Store(error) => error.into(),
    }
}

pub(super) fn no_dead_letter_stream(name: &StreamName) -> StreamError {
    StreamError::Mismatch { field: "dead_letter_stream", problem: format!("is {name}, which does not exist") }
}
