//! Streams and their groups: how they are set up, and how far they have come. Pure.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Filter, Topic,
    limits::{
        MAX_BACKOFF_STEPS, MAX_DEDUPE_WINDOW, MAX_GROUP_TIME, MAX_STREAM_FILTERS, MAX_STREAM_NAME_BYTES, MAX_UNACKED,
        USUAL_DEDUPE_WINDOW,
    },
};

/// The checked name of a stream: one topic token of at most [`MAX_STREAM_NAME_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Box<str>);

/// Why a name is not the name of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream is named by 1 to {MAX_STREAM_NAME_BYTES} letters, digits, `_`, `-`, `:`, `=` or `@`")]
pub struct StreamNameError;

impl StreamName {
    /// Checks `name` against the rules.
    pub fn parse(name: &str) -> Result<Self, StreamNameError> {
        let is_token = !name.contains('.') && Topic::parse(name.as_bytes()).is_ok();
        if is_token && name.len() <= MAX_STREAM_NAME_BYTES { Ok(Self(name.into())) } else { Err(StreamNameError) }
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a stream keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    File,
    /// In memory: only the definition outlives the process.
    Memory,
}

/// What an accepted publish to a stream promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk: it outlives a loss of power.
    Sync,
    /// It will be on the disk within the interval the operator set.
    Interval,
    /// It is written to the disk some time.
    None,
}

/// A setting that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct SettingError {
    /// Its name, as in the contract.
    pub field: &'static str,
    /// What is wrong, in words.
    pub problem: String,
}

/// How a stream is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its name, which no other stream of the hub has.
    pub name: StreamName,
    /// The principal that made it, on whose account its bytes are; empty where nobody was asked. Never changes.
    pub owner: Arc<str>,
    /// It stores every event whose topic matches one of these; 1 to [`MAX_STREAM_FILTERS`].
    pub filters: Vec<Filter>,
    /// Where.
    pub storage: Storage,
    /// Events older than this are deleted.
    pub max_age: Option<Duration>,
    /// The oldest events are deleted so that no more than these stay.
    pub max_events: Option<u64>,
    /// The oldest events are deleted so that they have no more than these bytes.
    pub max_bytes: Option<u64>,
    /// The oldest events of a topic are deleted so that no more than these of it stay.
    pub max_events_per_topic: Option<u64>,
    /// How long an event with the same source and id is known as a repetition; zero is never.
    pub dedupe_window: Duration,
    /// What an accepted publish promises.
    pub durability: Durability,
}

impl StreamSettings {
    /// A stream with what is default for everything else.
    pub fn new(name: StreamName, filters: Vec<Filter>) -> Self {
        Self {
            name,
            owner: Arc::default(),
            filters,
            storage: Storage::File,
            max_age: None,
            max_events: None,
            max_bytes: None,
            max_events_per_topic: None,
            dedupe_window: USUAL_DEDUPE_WINDOW,
            durability: Durability::Sync,
        }
    }

    /// What is out of range.
    pub fn check(&self) -> Result<(), SettingError> {
        let refuse = |field, problem: String| Err(SettingError { field, problem });
        if self.filters.is_empty() || self.filters.len() > MAX_STREAM_FILTERS {
            return refuse("filters", format!("are {} and must be 1 to {MAX_STREAM_FILTERS}", self.filters.len()));
        }
        let limits = [
            ("max_age", self.max_age.map(|age| age.as_millis() as u64)),
            ("max_events", self.max_events),
            ("max_bytes", self.max_bytes),
            ("max_events_per_topic", self.max_events_per_topic),
        ];
        if let Some((field, _)) = limits.iter().find(|(_, limit)| *limit == Some(0)) {
            return refuse(field, "must be positive".to_owned());
        }
        if self.dedupe_window > MAX_DEDUPE_WINDOW {
            return refuse("dedupe_window", format!("must be at most {} seconds", MAX_DEDUPE_WINDOW.as_secs()));
        }
        Ok(())
    }
}

/// How far a stream has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// How it is set up.
    pub settings: StreamSettings,
    /// Changes when the stream is made again under its name, and when it lost its tail.
    pub epoch: i64,
    /// When it was made.
    pub created: SystemTime,
    /// The first sequence that is kept; `latest + 1` when none is.
    pub earliest: u64,
    /// The last sequence that readers may see.
    pub latest: u64,
    /// How many events are kept.
    pub events: u64,
    /// Their encoded size.
    pub bytes: u64,
}

/// How a group on a stream is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// How long a member may take to acknowledge an event.
    pub ack_deadline: Duration,
    /// How often an event is tried; 0 is without end.
    pub max_attempts: u32,
    /// How long to wait after a failed attempt: the n-th, and after the last of these the last. At least one.
    pub backoff: Vec<Duration>,
    /// The most events that members hold without having acknowledged them.
    pub max_unacked: u32,
    /// Where events go whose last attempt failed; `None` drops them.
    pub dead_letter_stream: Option<StreamName>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            ack_deadline: Duration::from_secs(30),
            max_attempts: 5,
            backoff: [1, 5, 30].map(Duration::from_secs).into(),
            max_unacked: 1_000,
            dead_letter_stream: None,
        }
    }
}

impl GroupSettings {
    /// What is out of range.
    pub fn check(&self) -> Result<(), SettingError> {
        let refuse = |field, problem: String| Err(SettingError { field, problem });
        if self.ack_deadline.is_zero() || self.ack_deadline > MAX_GROUP_TIME {
            return refuse(
                "ack_deadline",
                format!("must be positive and at most {} seconds", MAX_GROUP_TIME.as_secs()),
            );
        }
        if self.backoff.is_empty() || self.backoff.len() > MAX_BACKOFF_STEPS {
            return refuse(
                "backoff",
                format!("has {} steps and must have 1 to {MAX_BACKOFF_STEPS}", self.backoff.len()),
            );
        }
        if self.backoff.iter().any(|step| *step > MAX_GROUP_TIME) {
            return refuse("backoff", format!("has a step over {} seconds", MAX_GROUP_TIME.as_secs()));
        }
        if !(1..=MAX_UNACKED).contains(&self.max_unacked) {
            return refuse("max_unacked", format!("is {} and must be 1 to {MAX_UNACKED}", self.max_unacked));
        }
        Ok(())
    }

    /// How long to wait after the `attempt`-th attempt failed, counted from 1.
    pub fn backoff_after(&self, attempt: u32) -> Duration {
        let step = (attempt.max(1) as usize - 1).min(self.backoff.len().saturating_sub(1));
        self.backoff.get(step).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> StreamSettings {
        let filters = vec![Filter::parse(b"a.>").expect("a filter")];
        StreamSettings::new(StreamName::parse("s").expect("a name"), filters)
    }

    #[test]
    fn a_stream_is_named_by_one_short_token() {
        assert!(StreamName::parse(&"s".repeat(MAX_STREAM_NAME_BYTES)).is_ok());
        for bad in [&"s".repeat(MAX_STREAM_NAME_BYTES + 1), "", "a.b", "a b", "*", ">"] {
            assert_eq!(StreamName::parse(bad), Err(StreamNameError), "{bad}");
        }
    }

    #[test]
    fn settings_are_checked_at_their_limits() {
        let field = |settings: StreamSettings| settings.check().err().map(|error| error.field);
        let filters = |n: usize| vec![settings().filters[0].clone(); n];
        assert_eq!(field(settings()), None);
        assert_eq!(field(StreamSettings { filters: filters(MAX_STREAM_FILTERS), ..settings() }), None);
        assert_eq!(field(StreamSettings { filters: filters(MAX_STREAM_FILTERS + 1), ..settings() }), Some("filters"));
        assert_eq!(field(StreamSettings { filters: Vec::new(), ..settings() }), Some("filters"));
        assert_eq!(field(StreamSettings { max_events: Some(0), ..settings() }), Some("max_events"));
        assert_eq!(field(StreamSettings { max_bytes: Some(0), ..settings() }), Some("max_bytes"));
        assert_eq!(field(StreamSettings { max_age: Some(Duration::ZERO), ..settings() }), Some("max_age"));
        let window = MAX_DEDUPE_WINDOW;
        assert_eq!(field(StreamSettings { dedupe_window: window, ..settings() }), None);
        let window = window + Duration::from_nanos(1);
        assert_eq!(field(StreamSettings { dedupe_window: window, ..settings() }), Some("dedupe_window"));
    }

    #[test]
    fn group_settings_are_checked_at_their_limits() {
        let field = |settings: GroupSettings| settings.check().err().map(|error| error.field);
        let default = GroupSettings::default;
        assert_eq!(field(default()), None);
        assert_eq!(field(GroupSettings { max_unacked: MAX_UNACKED, ..default() }), None);
        assert_eq!(field(GroupSettings { max_unacked: MAX_UNACKED + 1, ..default() }), Some("max_unacked"));
        assert_eq!(field(GroupSettings { max_unacked: 0, ..default() }), Some("max_unacked"));
        assert_eq!(field(GroupSettings { ack_deadline: Duration::ZERO, ..default() }), Some("ack_deadline"));
        assert_eq!(field(GroupSettings { backoff: Vec::new(), ..default() }), Some("backoff"));
        let long = vec![MAX_GROUP_TIME + Duration::from_secs(1)];
        assert_eq!(field(GroupSettings { backoff: long, ..default() }), Some("backoff"));
    }

    #[test]
    fn the_last_backoff_stays() {
        let settings = GroupSettings::default();
        let seconds: Vec<u64> = (1..=5).map(|attempt| settings.backoff_after(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 5, 30, 30, 30]);
    }
}
