//! `switchyard.v1.StreamService`: managing streams.
//!
//! Requests become settings of the model, the engine does the work, and its errors become statuses in `status`.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tonic::{Request, Response, Status};

use super::{
    access::Access,
    status,
    wire::v1::{self as wire, get_event_request::Which, stream_service_server},
};
use crate::{
    auth::{Action, Caller},
    engine::{CreateError, DeleteError, Engine, EventStream, ReadError, UpdateError},
    event::{Event, times},
    hub::Hub,
    model::{CommandError, Durability, Filter, Group, Storage, StreamError, StreamName, StreamSettings, Topic, limits},
};

/// The most streams or groups in one page, and how many there are unless a page is asked to be of another size.
pub(super) const MAX_PAGE: i32 = 1000;
const USUAL_PAGE: i32 = 100;
/// A page ends once it has this many bytes, whatever size it is asked to be of.
pub(super) const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// Serves the calls of `StreamService`.
#[derive(Debug)]
pub(super) struct StreamService {
    hub: Arc<Hub>,
    access: Access,
}

impl StreamService {
    pub(super) fn new(hub: Arc<Hub>, access: Access) -> Self {
        Self { hub, access }
    }

    fn caller<T>(&self, request: &Request<T>, call: &'static str) -> Result<Caller, Refusal> {
        Ok(self.access.caller(request.extensions(), call)?)
    }

    fn engine(&self) -> Result<&Arc<dyn Engine>, StreamError> {
        self.hub.engine().ok_or(StreamError::None)
    }

    /// The stream of that name, for a caller that may know of it.
    fn stream(
        &self,
        caller: &Caller,
        (field, name): (&'static str, &str),
        action: fn(&str) -> Action<'_>,
    ) -> Result<Arc<dyn EventStream>, CommandError> {
        let name = stream_name(field, name)?;
        caller.authorize(&action(name.as_str()))?;
        find(&**self.engine()?, &name)
    }

    fn shown(&self, stream: &dyn EventStream) -> wire::Stream {
        let state = stream.state();
        let mut shown = of_settings(&state.settings);
        shown.state = Some(wire::StreamState {
            epoch: state.epoch,
            earliest_sequence: state.earliest.cast_signed(),
            latest_sequence: state.latest.cast_signed(),
            events: state.events.cast_signed(),
            bytes: state.bytes.cast_signed(),
            create_time: Some(state.created.into()),
            events_per_second: self.hub.events_per_second(stream),
        });
        shown
    }

    async fn create(&self, caller: &Caller, asked: Option<wire::Stream>) -> Result<wire::Stream, Refusal> {
        let mut settings = settings(asked.as_ref().ok_or_else(|| field("stream", "is missing"))?)?;
        settings.owner = Arc::clone(caller.principal().id());
        caller.authorize(&Action::ManageStream(settings.name.as_str()))?;
        caller.authorize(&Action::TakeTopics(&settings.filters))?;
        let stream = self.engine()?.create_stream(settings).await.map_err(|error| match error {
            CreateError::Setting(error) => StreamError::Setting(error),
            CreateError::Exists { name } => StreamError::Exists(name),
            CreateError::Overlap { with } => overlap(caller, with),
            CreateError::TooManySteps { limit } => StreamError::TooManySteps { limit },
            CreateError::NoMemory(full) => full.into(),
            CreateError::TooMany { limit } => StreamError::TooMany { what: "streams", limit },
            CreateError::Store(error) => StreamError::from(&error),
        })?;
        tracing::info!(stream = %stream.name(), epoch = stream.epoch(), "stream created");
        Ok(self.shown(&*stream))
    }

    /// Those that the caller may see: others are as if they were not there.
    fn list(&self, caller: &Caller, asked: &wire::ListStreamsRequest) -> Result<wire::ListStreamsResponse, Refusal> {
        let size = page_size(asked.page_size)?;
        let all = self.engine()?.streams();
        let mut after = all
            .iter()
            .filter(|stream| stream.name().as_str() > asked.page_token.as_str())
            .filter(|stream| caller.may(&Action::SeeStream(stream.name().as_str())));
        let (mut streams, mut bytes) = (Vec::new(), 0);
        let mut more = false;
        for stream in after.by_ref() {
            let shown = self.shown(&**stream);
            bytes += shown.encoded_len();
            more = streams.len() == size || (bytes > MAX_PAGE_BYTES && !streams.is_empty());
            if more {
                break;
            }
            streams.push(shown);
        }
        let next_page_token = streams.last().filter(|_| more).map_or_else(String::new, |stream| stream.name.clone());
        Ok(wire::ListStreamsResponse { streams, next_page_token })
    }

    async fn update(&self, caller: &Caller, asked: wire::UpdateStreamRequest) -> Result<wire::Stream, Refusal> {
        let wanted = asked.stream.ok_or_else(|| field("stream", "is missing"))?;
        let paths = asked.update_mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            return Err(field("update_mask", "is empty").into());
        }
        let stream = loop {
            let found = self.stream(caller, ("stream.name", &wanted.name), manage);
            let before = found.map_err(|error| Refusal::at("stream.", error))?.settings();
            let merged = settings(&merge(&before, &wanted, &paths)?);
            let merged = merged.map_err(|error| Refusal::at("stream.", error))?;
            // What it has already it may keep, or give up.
            let new = |filter: &&Filter| !before.filters.contains(filter);
            let new: Vec<Filter> = merged.filters.iter().filter(new).cloned().collect();
            caller.authorize(&Action::TakeTopics(&new))?;
            match self.engine()?.update_stream(merged, Some(before)).await {
                Ok(stream) => break stream,
                // Somebody else changed another part of it.
                Err(UpdateError::Changed) => {}
                Err(UpdateError::NotFound { name }) => return Err(StreamError::NotFound(name.to_string()).into()),
                Err(UpdateError::Setting(error)) => return Err(StreamError::Setting(error).into()),
                Err(UpdateError::Mismatch { field }) => {
                    return Err(StreamError::Mismatch { field, problem: "cannot be changed".to_owned() }.into());
                }
                Err(UpdateError::Overlap { with }) => return Err(overlap(caller, with).into()),
                Err(UpdateError::TooManySteps { limit }) => return Err(StreamError::TooManySteps { limit }.into()),
                Err(UpdateError::NoMemory(full)) => return Err(StreamError::from(full).into()),
                Err(UpdateError::Store(error)) => return Err(StreamError::from(&error).into()),
            }
        };
        tracing::info!(stream = %stream.name(), changed = paths.join(","), "stream updated");
        Ok(self.shown(&*stream))
    }

    async fn delete(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        let name = stream_name("name", name)?;
        caller.authorize(&Action::ManageStream(name.as_str()))?;
        self.engine()?.delete_stream(&name).await.map_err(|error| match error {
            DeleteError::NotFound { name } => StreamError::NotFound(name.to_string()),
            DeleteError::TakesDeadLetters { stream, group } => takes_dead_letters(caller, &stream, &group),
            DeleteError::Store(error) => StreamError::from(&error),
        })?;
        tracing::info!(stream = %name, "stream deleted");
        Ok(())
    }

    async fn purge(&self, caller: &Caller, asked: &wire::PurgeStreamRequest) -> Result<i64, Refusal> {
        let stream = self.stream(caller, ("name", &asked.name), manage)?;
        let up_to = match asked.up_to_sequence {
            0 => u64::MAX,
            sequence => u64::try_from(sequence).map_err(|_| field("up_to_sequence", "is negative"))?,
        };
        let filter = match asked.filter.as_str() {
            "" => None,
            text => {
                Some(Filter::parse(text.as_bytes()).map_err(|error| field("filter", format!("is invalid: {error}")))?)
            }
        };
        let purged = stream.purge(up_to, filter).await.map_err(|error| error.about(stream.name()))?;
        tracing::info!(stream = %stream.name(), events = purged, "stream purged");
        Ok(purged.cast_signed())
    }

    async fn event(&self, caller: &Caller, asked: &wire::GetEventRequest) -> Result<Event, Refusal> {
        let stream = self.stream(caller, ("stream", &asked.stream), read)?;
        let name = stream.name().as_str();
        let missing = |which: String| StreamError::EventNotFound { stream: stream.name().clone(), which };
        let (sequence, which) = match &asked.which {
            None => return Err(field("which", "is missing").into()),
            Some(Which::Sequence(sequence)) => {
                let sequence = u64::try_from(*sequence).ok().filter(|sequence| *sequence > 0);
                let sequence = sequence.ok_or_else(|| field("sequence", "must be positive"))?;
                (sequence, format!("with sequence {sequence}"))
            }
            Some(Which::LastOfTopic(topic)) => {
                let checked = Topic::parse(topic.as_bytes())
                    .map_err(|error| field("last_of_topic", format!("is not a topic: {error}")))?;
                caller.authorize(&Action::ReadEvent { stream: name, topic: checked })?;
                let last = stream.last_event(checked).await.map_err(|error| error.about(stream.name()))?;
                return Ok(last.ok_or_else(|| missing(format!("of topic {topic}")))?);
            }
        };
        let found = stream.get(vec![sequence]).await.map_err(|error| match error {
            ReadError::Lost { .. } => missing(which.clone()),
            error => error.about(stream.name()),
        })?;
        // One that the caller may not read is as if it were not there.
        let readable = |event: &Event| caller.may(&Action::ReadEvent { stream: name, topic: event.topic() });
        Ok(found.events.into_iter().next().filter(readable).ok_or_else(|| missing(which))?)
    }
}

/// Why a call was refused, and what stands before the field that is to blame.
#[derive(Debug)]
pub(super) struct Refusal {
    field_path: &'static str,
    error: CommandError,
}

impl Refusal {
    pub(super) fn at(field_path: &'static str, error: CommandError) -> Self {
        Self { field_path, error }
    }
}

impl<E: Into<CommandError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self { field_path: "", error: error.into() }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        status::of_command(&refusal.error, refusal.field_path).status()
    }
}

#[tonic::async_trait]
impl stream_service_server::StreamService for StreamService {
    async fn create_stream(
        &self,
        request: Request<wire::CreateStreamRequest>,
    ) -> Result<Response<wire::CreateStreamResponse>, Status> {
        let caller = self.caller(&request, "CreateStream")?;
        let stream =
            self.create(&caller, request.into_inner().stream).await.map_err(|refusal| refusal.below("stream."))?;
        Ok(Response::new(wire::CreateStreamResponse { stream: Some(stream) }))
    }

    async fn get_stream(
        &self,
        request: Request<wire::GetStreamRequest>,
    ) -> Result<Response<wire::GetStreamResponse>, Status> {
        let caller = self.caller(&request, "GetStream")?;
        let stream = self.stream(&caller, ("name", &request.get_ref().name), see).map_err(Refusal::from)?;
        Ok(Response::new(wire::GetStreamResponse { stream: Some(self.shown(&*stream)) }))
    }

    async fn list_streams(
        &self,
        request: Request<wire::ListStreamsRequest>,
    ) -> Result<Response<wire::ListStreamsResponse>, Status> {
        let caller = self.caller(&request, "ListStreams")?;
        Ok(Response::new(self.list(&caller, request.get_ref())?))
    }

    async fn update_stream(
        &self,
        request: Request<wire::UpdateStreamRequest>,
    ) -> Result<Response<wire::UpdateStreamResponse>, Status> {
        let caller = self.caller(&request, "UpdateStream")?;
        let stream = self.update(&caller, request.into_inner()).await?;
        Ok(Response::new(wire::UpdateStreamResponse { stream: Some(stream) }))
    }

    async fn delete_stream(
        &self,
        request: Request<wire::DeleteStreamRequest>,
    ) -> Result<Response<wire::DeleteStreamResponse>, Status> {
        let caller = self.caller(&request, "DeleteStream")?;
        self.delete(&caller, &request.get_ref().name).await?;
        Ok(Response::new(wire::DeleteStreamResponse {}))
    }

    async fn purge_stream(
        &self,
        request: Request<wire::PurgeStreamRequest>,
    ) -> Result<Response<wire::PurgeStreamResponse>, Status> {
        let caller = self.caller(&request, "PurgeStream")?;
        let purged_events = self.purge(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::PurgeStreamResponse { purged_events }))
    }

    async fn get_event(
        &self,
        request: Request<wire::GetEventRequest>,
    ) -> Result<Response<wire::GetEventResponse>, Status> {
        let caller = self.caller(&request, "GetEvent")?;
        let event = self.event(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::GetEventResponse { event: event.received() }))
    }
}

fn manage(stream: &str) -> Action<'_> {
    Action::ManageStream(stream)
}

fn see(stream: &str) -> Action<'_> {
    Action::SeeStream(stream)
}

fn read(stream: &str) -> Action<'_> {
    Action::UseStream { stream, group: None }
}

/// The filters overlap those of a stream that the caller may not know of.
fn overlap(caller: &Caller, with: StreamName) -> StreamError {
    let seen = caller.may(&Action::SeeStream(with.as_str()));
    StreamError::Overlap { with: seen.then_some(with) }
}

/// A stream that is not deleted, since a group would have nowhere to put what it gives up. The caller may not know of that
/// group.
fn takes_dead_letters(caller: &Caller, stream: &StreamName, group: &Group) -> StreamError {
    let (stream, group) = (stream.as_str(), group.as_str());
    let seen = caller.may(&Action::SeeGroup { stream, group });
    let whose = if seen { format!("group {group} of stream {stream}") } else { "a group of another stream".to_owned() };
    let problem = format!("takes the dead letters of {whose}: change its dead_letter_stream first");
    StreamError::Mismatch { field: "name", problem }
}

/// The stream of that name.
pub(super) fn find(engine: &dyn Engine, name: &StreamName) -> Result<Arc<dyn EventStream>, CommandError> {
    Ok(engine.stream(name.as_str()).ok_or_else(|| StreamError::NotFound(name.to_string()))?)
}

/// A name that was given in a field.
pub(super) fn stream_name(field_path: &'static str, name: &str) -> Result<StreamName, CommandError> {
    StreamName::parse(name).map_err(|error| field(field_path, format!("is not the name of a stream: {error}")))
}

/// How many of these fit into a page, at least one.
pub(super) fn fitting(all: &[impl Message]) -> usize {
    let mut bytes = 0;
    let fits = |one: &&_| {
        bytes += Message::encoded_len(*one);
        bytes <= MAX_PAGE_BYTES
    };
    all.iter().take_while(fits).count().max(1)
}

/// How many a page has.
pub(super) fn page_size(asked: i32) -> Result<usize, CommandError> {
    match asked {
        0 => Ok(USUAL_PAGE as usize),
        1..=MAX_PAGE => Ok(asked.unsigned_abs() as usize),
        _ => Err(field("page_size", format!("must be 0 to {MAX_PAGE}"))),
    }
}

pub(super) fn field(field: &'static str, problem: impl Into<String>) -> CommandError {
    CommandError::Field { field, problem: problem.into() }
}

/// A duration that was given in a field.
pub(super) fn duration(field_path: &'static str, asked: prost_types::Duration) -> Result<Duration, CommandError> {
    times::duration(asked).map_err(|problem| field(field_path, problem))
}

/// Checks settings; fields are named below the stream.
fn settings(asked: &wire::Stream) -> Result<StreamSettings, CommandError> {
    let count = |field_path: &'static str, value: i64| match value {
        0 => Ok(None),
        value => u64::try_from(value).map(Some).map_err(|_| field(field_path, "is negative")),
    };
    if asked.filters.is_empty() || asked.filters.len() > limits::MAX_STREAM_FILTERS {
        return Err(field("filters", format!("must be 1 to {}", limits::MAX_STREAM_FILTERS)));
    }
    let filters = asked
        .filters
        .iter()
        .enumerate()
        .map(|(index, text)| Filter::parse(text.as_bytes()).map_err(|error| CommandError::Filter { index, error }));
    let settings = StreamSettings {
        name: stream_name("name", &asked.name)?,
        owner: Arc::default(),
        filters: filters.collect::<Result<_, _>>()?,
        storage: match wire::Storage::try_from(asked.storage) {
            Ok(wire::Storage::Unspecified | wire::Storage::File) => Storage::File,
            Ok(wire::Storage::Memory) => Storage::Memory,
            Err(_) => return Err(field("storage", "is unknown")),
        },
        max_age: asked.max_age.map(|age| duration("max_age", age)).transpose()?,
        max_events: count("max_events", asked.max_events)?,
        max_bytes: count("max_bytes", asked.max_bytes)?,
        max_events_per_topic: count("max_events_per_topic", asked.max_events_per_topic)?,
        dedupe_window: match asked.dedupe_window {
            None => limits::USUAL_DEDUPE_WINDOW,
            Some(window) => duration("dedupe_window", window)?,
        },
        durability: match wire::Durability::try_from(asked.durability) {
            Ok(wire::Durability::Unspecified | wire::Durability::Sync) => Durability::Sync,
            Ok(wire::Durability::Interval) => Durability::Interval,
            Ok(wire::Durability::None) => Durability::None,
            Err(_) => return Err(field("durability", "is unknown")),
        },
    };
    settings.check().map_err(StreamError::Setting)?;
    Ok(settings)
}

/// The settings of a stream with those that `paths` name as they are wanted.
fn merge(before: &StreamSettings, wanted: &wire::Stream, paths: &[String]) -> Result<wire::Stream, StreamError> {
    let mut merged = of_settings(before);
    for path in paths {
        match path.as_str() {
            "filters" => merged.filters.clone_from(&wanted.filters),
            "max_age" => merged.max_age = wanted.max_age,
            "max_events" => merged.max_events = wanted.max_events,
            "max_bytes" => merged.max_bytes = wanted.max_bytes,
            "max_events_per_topic" => merged.max_events_per_topic = wanted.max_events_per_topic,
            "dedupe_window" => merged.dedupe_window = wanted.dedupe_window,
            "durability" => merged.durability = wanted.durability,
            "name" | "storage" => {
                let problem = format!("names {path}, which cannot be changed");
                return Err(StreamError::Mismatch { field: "update_mask", problem });
            }
            unknown => {
                let problem = format!("names {unknown:?}, which is not a setting of a stream");
                return Err(StreamError::Mismatch { field: "update_mask", problem });
            }
        }
    }
    Ok(merged)
}

/// Settings as they are told.
fn of_settings(settings: &StreamSettings) -> wire::Stream {
    let count = |limit: Option<u64>| limit.map_or(0, u64::cast_signed);
    wire::Stream {
        name: settings.name.to_string(),
        filters: settings.filters.iter().map(|filter| filter.as_str().to_owned()).collect(),
        storage: match settings.storage {
            Storage::File => wire::Storage::File,
            Storage::Memory => wire::Storage::Memory,
        }
        .into(),
        max_age: settings.max_age.and_then(|age| age.try_into().ok()),
        max_events: count(settings.max_events),
        max_bytes: count(settings.max_bytes),
        max_events_per_topic: count(settings.max_events_per_topic),
        dedupe_window: settings.dedupe_window.try_into().ok(),
        durability: of_durability(settings.durability).into(),
        state: None,
    }
}

/// Durability as it is told.
pub(super) fn of_durability(durability: Durability) -> wire::Durability {
    match durability {
        Durability::Sync => wire::Durability::Sync,
        Durability::Interval => wire::Durability::Interval,
        Durability::None => wire::Durability::None,
    }
}

impl Refusal {
    /// The same, of a message in a field.
    fn below(self, field_path: &'static str) -> Self {
        match &self.error {
            CommandError::Field { field: "stream", .. } | CommandError::Stream(StreamError::None) => self,
            _ => Self { field_path, ..self },
        }
    }
}
