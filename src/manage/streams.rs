//! Streams: making, changing, emptying and deleting them, who may see which, and reading one event.

use std::{sync::Arc, time::Duration};

use super::{
    engine,
    page::{Filling, Page},
};
use crate::{
    auth::{Action, Caller},
    engine::{CreateError, DeleteError, EventStream, ReadError, UpdateError},
    event::Event,
    hub::Hub,
    model::{CommandError, Durability, Filter, Group, StreamError, StreamName, StreamSettings, StreamState, Topic},
};

/// How a stream stands.
#[derive(Debug, Clone)]
pub struct StreamStatus {
    /// How it is set up, and how far it has come.
    pub state: StreamState,
    /// How many events it stores in a second, over the last minute.
    pub events_per_second: f64,
}

/// One setting of a stream that can be changed, with its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamSetting {
    /// [`StreamSettings::filters`].
    Filters(Vec<Filter>),
    /// [`StreamSettings::max_age`].
    MaxAge(Option<Duration>),
    /// [`StreamSettings::max_events`].
    MaxEvents(Option<u64>),
    /// [`StreamSettings::max_bytes`].
    MaxBytes(Option<u64>),
    /// [`StreamSettings::max_events_per_topic`].
    MaxEventsPerTopic(Option<u64>),
    /// [`StreamSettings::dedupe_window`].
    DedupeWindow(Duration),
    /// [`StreamSettings::durability`].
    Durability(Durability),
}

impl StreamSetting {
    fn name(&self) -> &'static str {
        match self {
            Self::Filters(_) => "filters",
            Self::MaxAge(_) => "max_age",
            Self::MaxEvents(_) => "max_events",
            Self::MaxBytes(_) => "max_bytes",
            Self::MaxEventsPerTopic(_) => "max_events_per_topic",
            Self::DedupeWindow(_) => "dedupe_window",
            Self::Durability(_) => "durability",
        }
    }

    /// Puts it in place of the one that is there.
    pub fn apply(&self, settings: &mut StreamSettings) {
        match self {
            Self::Filters(filters) => settings.filters.clone_from(filters),
            Self::MaxAge(age) => settings.max_age = *age,
            Self::MaxEvents(limit) => settings.max_events = *limit,
            Self::MaxBytes(limit) => settings.max_bytes = *limit,
            Self::MaxEventsPerTopic(limit) => settings.max_events_per_topic = *limit,
            Self::DedupeWindow(window) => settings.dedupe_window = *window,
            Self::Durability(durability) => settings.durability = *durability,
        }
    }
}

/// A stream that its caller may change.
#[derive(Debug)]
pub struct ManagedStream<'a> {
    hub: &'a Hub,
    caller: &'a Caller,
    stream: Arc<dyn EventStream>,
}

/// A stream that its caller may read, as far as it may read its topics.
#[derive(Debug)]
pub struct ReadableStream<'a> {
    pub(super) hub: &'a Hub,
    pub(super) caller: &'a Caller,
    pub(super) stream: Arc<dyn EventStream>,
}

/// Makes a stream, which its caller owns from then on.
pub async fn create(hub: &Hub, caller: &Caller, mut settings: StreamSettings) -> Result<StreamStatus, CommandError> {
    settings.check().map_err(StreamError::Setting)?;
    settings.owner = Arc::clone(caller.principal().id());
    caller.authorize(&Action::ManageStream(settings.name.as_str()))?;
    caller.authorize(&Action::TakeTopics(&settings.filters))?;
    let stream = engine(hub)?.create_stream(settings).await.map_err(|error| match error {
        CreateError::Setting(error) => StreamError::Setting(error),
        CreateError::Exists { name } => StreamError::Exists(name),
        CreateError::Overlap { with } => overlap(caller, with),
        CreateError::TooManySteps { limit } => StreamError::TooManySteps { limit },
        CreateError::NoMemory(full) => full.into(),
        CreateError::TooMany { limit } => StreamError::TooMany { what: "streams", limit },
        CreateError::Store(error) => StreamError::from(&error),
    })?;
    tracing::info!(stream = %stream.name(), epoch = stream.epoch(), "stream created");
    Ok(status(hub, &*stream).await?)
}

/// A page of the streams that the caller may see and that come after `after` by name, in that order: at most `most`, as
/// `show` makes of them, each of as many bytes as `bytes_of` says.
pub async fn list<T>(
    hub: &Hub,
    caller: &Caller,
    after: &str,
    most: usize,
    show: impl Fn(StreamStatus) -> T,
    bytes_of: impl Fn(&T) -> usize,
) -> Result<Page<T>, CommandError> {
    let mut filling = Filling::new(most);
    for stream in engine(hub)?.streams() {
        let name = stream.name().as_str();
        if name <= after || !caller.may(&Action::SeeStream(name)) {
            continue;
        }
        let shown = match status(hub, &*stream).await {
            Ok(status) => show(status),
            // Deleted since.
            Err(StreamError::NotFound(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let bytes = bytes_of(&shown);
        if !filling.add(shown, bytes) {
            break;
        }
    }
    Ok(filling.page())
}

/// How a stream stands.
pub async fn see(hub: &Hub, caller: &Caller, name: &StreamName) -> Result<StreamStatus, CommandError> {
    caller.authorize(&Action::SeeStream(name.as_str()))?;
    Ok(status(hub, &*find(hub, name)?).await?)
}

/// Deletes a stream with its events and groups.
pub async fn delete(hub: &Hub, caller: &Caller, name: &StreamName) -> Result<(), CommandError> {
    caller.authorize(&Action::ManageStream(name.as_str()))?;
    engine(hub)?.delete_stream(name).await.map_err(|error| match error {
        DeleteError::NotFound { name } => StreamError::NotFound(name.to_string()),
        DeleteError::TakesDeadLetters { stream, group } => takes_dead_letters(caller, &stream, &group),
        DeleteError::Store(error) => StreamError::from(&error),
    })?;
    tracing::info!(stream = %name, "stream deleted");
    Ok(())
}

/// The stream of that name, for a caller that may change it.
pub fn to_manage<'a>(hub: &'a Hub, caller: &'a Caller, name: &StreamName) -> Result<ManagedStream<'a>, CommandError> {
    caller.authorize(&Action::ManageStream(name.as_str()))?;
    Ok(ManagedStream { hub, caller, stream: find(hub, name)? })
}

/// The stream of that name, for a caller that may read it.
pub fn to_read<'a>(hub: &'a Hub, caller: &'a Caller, name: &StreamName) -> Result<ReadableStream<'a>, CommandError> {
    caller.authorize(&Action::UseStream { stream: name.as_str(), group: None })?;
    Ok(ReadableStream { hub, caller, stream: find(hub, name)? })
}

impl ManagedStream<'_> {
    /// Changes settings, and leaves the others as they are, whoever changes those meanwhile.
    pub async fn update(&self, changes: &[StreamSetting]) -> Result<StreamStatus, CommandError> {
        let engine = engine(self.hub)?;
        let stream = loop {
            let before = find(self.hub, self.stream.name())?.settings();
            let mut wanted = StreamSettings::clone(&before);
            for change in changes {
                change.apply(&mut wanted);
            }
            wanted.check().map_err(StreamError::Setting)?;
            // What it has already it may keep, or drop.
            let new = |filter: &&Filter| !before.filters.contains(filter);
            let new: Vec<Filter> = wanted.filters.iter().filter(new).cloned().collect();
            self.caller.authorize(&Action::TakeTopics(&new))?;
            match engine.update_stream(wanted, Some(before)).await {
                Ok(stream) => break stream,
                Err(error) => {
                    if let Some(error) = not_updated(self.caller, error) {
                        return Err(error.into());
                    }
                }
            }
        };
        let changed: Vec<_> = changes.iter().map(StreamSetting::name).collect();
        tracing::info!(stream = %stream.name(), changed = changed.join(","), "stream updated");
        Ok(status(self.hub, &*stream).await?)
    }

    /// Deletes the events that match a filter (none: all) up to a sequence (none: the last); tells how many that were.
    pub async fn purge(&self, up_to: Option<u64>, filter: Option<Filter>) -> Result<u64, StreamError> {
        let purged = self.stream.purge(up_to.unwrap_or(u64::MAX), filter).await;
        let purged = purged.map_err(|error| error.about(self.stream.name()))?;
        tracing::info!(stream = %self.stream.name(), events = purged, "stream purged");
        Ok(purged)
    }
}

impl ReadableStream<'_> {
    /// The event with that sequence. One that the caller may not read is as if it were not there.
    pub async fn event(&self, sequence: u64) -> Result<Event, StreamError> {
        let name = self.stream.name();
        let missing = || self.missing(format!("with sequence {sequence}"));
        let found = self.stream.get(vec![sequence]).await.map_err(|error| match error {
            ReadError::Lost { .. } => missing(),
            error => error.about(name),
        })?;
        let readable =
            |event: &Event| self.caller.may(&Action::ReadEvent { stream: name.as_str(), topic: event.topic() });
        found.events.into_iter().next().filter(readable).ok_or_else(missing)
    }

    /// The last event of a topic.
    pub async fn last_of(&self, topic: Topic<'_>) -> Result<Event, CommandError> {
        let name = self.stream.name();
        self.caller.authorize(&Action::ReadEvent { stream: name.as_str(), topic })?;
        let last = self.stream.last_event(topic).await.map_err(|error| error.about(name))?;
        Ok(last.ok_or_else(|| self.missing(format!("of topic {topic}")))?)
    }

    fn missing(&self, which: String) -> StreamError {
        StreamError::EventNotFound { stream: self.stream.name().clone(), which }
    }
}

fn find(hub: &Hub, name: &StreamName) -> Result<Arc<dyn EventStream>, StreamError> {
    engine(hub)?.stream(name.as_str()).ok_or_else(|| StreamError::NotFound(name.to_string()))
}

async fn status(hub: &Hub, stream: &dyn EventStream) -> Result<StreamStatus, StreamError> {
    let state = stream.state().await.map_err(|error| error.about(stream.name()))?;
    Ok(StreamStatus { state, events_per_second: hub.events_per_second(stream) })
}

/// Why settings were not changed, as its caller may know it; `None` if somebody else changed others meanwhile.
fn not_updated(caller: &Caller, error: UpdateError) -> Option<StreamError> {
    Some(match error {
        UpdateError::Changed => return None,
        UpdateError::NotFound { name } => StreamError::NotFound(name.to_string()),
        UpdateError::Setting(error) => StreamError::Setting(error),
        UpdateError::Mismatch { field } => StreamError::Mismatch { field, problem: "cannot be changed".to_owned() },
        UpdateError::Overlap { with } => overlap(caller, with),
        UpdateError::TooManySteps { limit } => StreamError::TooManySteps { limit },
        UpdateError::NoMemory(full) => full.into(),
        UpdateError::Store(error) => StreamError::from(&error),
    })
}

/// The filters overlap those of a stream that the caller may not know of.
fn overlap(caller: &Caller, with: StreamName) -> StreamError {
    let seen = caller.may(&Action::SeeStream(with.as_str()));
    StreamError::Overlap { with: seen.then_some(with) }
}

/// A stream that is not deleted, since a group would have nowhere to put what it drops. The caller may not know of that
/// group.
fn takes_dead_letters(caller: &Caller, stream: &StreamName, group: &Group) -> StreamError {
    let (stream, group) = (stream.as_str(), group.as_str());
    let seen = caller.may(&Action::SeeGroup { stream, group });
    let whose = if seen { format!("group {group} of stream {stream}") } else { "a group of another stream".to_owned() };
    let problem = format!("takes the dead letters of {whose}: change its dead_letter_stream first");
    StreamError::Mismatch { field: "name", problem }
}
