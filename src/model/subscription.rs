//! What a subscription wants, checked. Pure.

use std::{sync::Arc, time::SystemTime};

use super::{
    Filter, StreamName,
    limits::{MAX_BATCH_EVENTS, MAX_GROUP_NAME_BYTES},
};

/// What one subscription wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionSpec {
    /// The stream it reads; `None` for a live subscription.
    pub stream: Option<StreamSpec>,
    /// At least one for a live subscription; none for all of a stream.
    pub filters: Vec<Filter>,
    /// The group whose members share the events, if any.
    pub group: Option<Group>,
    /// The first grant; `None` is automatic credit.
    pub credit: Option<Grant>,
    /// What a live subscription does with events that arrive while its queue is full.
    pub overflow: Overflow,
    /// End after this many events.
    pub max_events: Option<u64>,
    /// The most events in one frame, at least 1.
    pub max_batch: u32,
}

impl SubscriptionSpec {
    /// A live subscription with the defaults of the contract: automatic credit, and the oldest go when its queue is full.
    pub fn live(filters: Vec<Filter>) -> Self {
        let (overflow, max_batch) = (Overflow::DropOldest, MAX_BATCH_EVENTS.unsigned_abs());
        Self { stream: None, filters, group: None, credit: None, overflow, max_events: None, max_batch }
    }

    /// How many tokens the filters have together.
    pub fn filter_tokens(&self) -> usize {
        filter_tokens(&self.filters)
    }

    /// About how many steps it takes to open it.
    pub fn steps(&self) -> usize {
        let held = self.stream.as_ref().and_then(|from| from.held.as_ref());
        self.filter_tokens() + held.map_or(0, |held| held.len())
    }
}

/// What a subscription from a stream wants besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Which stream.
    pub name: StreamName,
    /// Where in it to begin.
    pub start: Start,
    /// What to do when events are lost to it.
    pub on_gap: OnGap,
    /// How members of a group acknowledge.
    pub ack_mode: AckMode,
    /// What a member that comes back has in its hands, ascending; `None` for one that does not say: it has all that it was
    /// sent.
    pub held: Option<Arc<[u64]>>,
}

/// Where in a stream a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With what comes.
    New,
    /// With the earliest event kept.
    Earliest,
    /// With the last event of every topic, then with what comes.
    LastPerTopic,
    /// Strictly after a sequence.
    After(u64),
    /// With the first event stored then or later.
    At(SystemTime),
    /// Strictly after what a token says.
    Token(Box<str>),
}

/// What a subscription does when events after its position are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// It ends.
    Fail,
    /// It goes on with the earliest event kept.
    Earliest,
    /// It goes on with what comes.
    Latest,
}

/// How the members of a group acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckMode {
    /// Not: what was sent is done.
    None,
    /// Each event by its sequence.
    Explicit,
    /// Everything up to a sequence, too.
    Cumulative,
}

/// One life of a stream: what its sequences are counted in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The stream.
    pub stream: StreamName,
    /// Changes when the stream is made again, and when it lost its tail.
    pub epoch: i64,
}

/// A point in a stream: behind an event of it, or behind where one was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Of which stream.
    pub origin: Arc<Origin>,
    /// Behind which sequence.
    pub sequence: u64,
}

/// How many tokens filters have together.
pub fn filter_tokens(filters: &[Filter]) -> usize {
    filters.iter().map(|filter| filter.tokens().count()).sum()
}

/// More credit, in events and bytes. Neither is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// 0 names no number of events.
    pub events: i64,
    /// 0 names no number of bytes.
    pub bytes: i64,
}

/// What a live subscription does with events that arrive while its queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest waiting events go.
    DropOldest,
    /// Of the events that wait, only the latest of each topic stays.
    Conflate,
    /// The subscription ends.
    End,
}

/// The checked name of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group(Box<str>);

/// Why a name is not the name of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a group is named by 1 to {MAX_GROUP_NAME_BYTES} letters, digits, `_`, `-`, `:`, `=` or `@`")]
pub struct GroupError;

impl Group {
    /// Checks `name` against the rules of a group: one topic token of at most [`MAX_GROUP_NAME_BYTES`].
    pub fn parse(name: &str) -> Result<Self, GroupError> {
        let is_token = !name.contains('.') && super::Topic::parse(name.as_bytes()).is_ok();
        if is_token && name.len() <= MAX_GROUP_NAME_BYTES { Ok(Self(name.into())) } else { Err(GroupError) }
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_one_short_token() {
        assert!(Group::parse(&"g".repeat(MAX_GROUP_NAME_BYTES)).is_ok());
        for bad in [&"g".repeat(MAX_GROUP_NAME_BYTES + 1), "", "a.b", "a b", "*"] {
            assert_eq!(Group::parse(bad), Err(GroupError), "{bad}");
        }
    }
}
