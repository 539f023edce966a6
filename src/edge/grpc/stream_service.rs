//! `switchyard.v1.StreamService`: managing streams.
//!
//! Requests become values of the model and status messages are made of what comes back; `manage` does the work.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::access::Access;
use crate::{
    auth::Caller,
    edge::wire::{
        forms::v1::{self as wire, get_event_request::Which, stream_service_server},
        request::{Refusal, duration, field, not_negative, page_size, positive, stream_name},
    },
    event::{Event, times},
    hub::Hub,
    manage::{
        events::{Begin, EventMark, EventsAsked},
        streams::{self, StreamSetting, StreamStatus},
        topics::{TopicStatus, TopicsPageAsked},
    },
    model::{CommandError, Durability, Filter, Storage, StreamError, StreamSettings, Topic, limits},
};

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

    async fn create(&self, caller: &Caller, asked: Option<wire::Stream>) -> Result<wire::Stream, Refusal> {
        let asked = asked.ok_or_else(|| field("stream", "is missing"))?;
        let settings = settings(&asked).map_err(|error| Refusal::at("stream.", error))?;
        let created = streams::create(&self.hub, caller, settings).await.map_err(|error| match error {
            // Not about a field of the stream.
            CommandError::Stream(StreamError::None) => error.into(),
            error => Refusal::at("stream.", error),
        })?;
        Ok(shown(created))
    }

    async fn get(&self, caller: &Caller, name: &str) -> Result<wire::Stream, Refusal> {
        Ok(shown(streams::see(&self.hub, caller, &stream_name("name", name)?).await?))
    }

    async fn list(
        &self,
        caller: &Caller,
        asked: &wire::ListStreamsRequest,
    ) -> Result<wire::ListStreamsResponse, Refusal> {
        let (size, after) = (page_size(asked.page_size)?, &asked.page_token);
        let page = streams::list(&self.hub, caller, after, size, shown, Message::encoded_len).await?;
        let next_page_token = page.next(|stream| stream.name.clone()).unwrap_or_default();
        Ok(wire::ListStreamsResponse { streams: page.items, next_page_token })
    }

    async fn update(&self, caller: &Caller, asked: &wire::UpdateStreamRequest) -> Result<wire::Stream, Refusal> {
        let wanted = asked.stream.as_ref().ok_or_else(|| field("stream", "is missing"))?;
        let paths = asked.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        if paths.is_empty() {
            return Err(field("update_mask", "is empty").into());
        }
        let below = |error: CommandError| Refusal::at("stream.", error);
        let name = stream_name("name", &wanted.name).map_err(below)?;
        let stream = streams::to_manage(&self.hub, caller, &name).map_err(below)?;
        paths.iter().try_for_each(|path| check_path(path))?;
        let changes = paths.iter().map(|path| setting(path, wanted));
        let changes = changes.collect::<Result<Vec<_>, _>>().map_err(below)?;
        let updated = stream.update(&changes).await.map_err(|error| match error {
            CommandError::Stream(StreamError::Setting(_)) => below(error),
            error => error.into(),
        })?;
        Ok(shown(updated))
    }

    async fn delete(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        Ok(streams::delete(&self.hub, caller, &stream_name("name", name)?).await?)
    }

    async fn purge(&self, caller: &Caller, asked: &wire::PurgeStreamRequest) -> Result<i64, Refusal> {
        let stream = streams::to_manage(&self.hub, caller, &stream_name("name", &asked.name)?)?;
        let up_to = match asked.up_to_sequence {
            0 => None,
            sequence => Some(u64::try_from(sequence).map_err(|_| field("up_to_sequence", "is negative"))?),
        };
        Ok(stream.purge(up_to, filter(&asked.filter)?).await?.cast_signed())
    }

    async fn event(&self, caller: &Caller, asked: &wire::GetEventRequest) -> Result<Event, Refusal> {
        let stream = streams::to_read(&self.hub, caller, &stream_name("stream", &asked.stream)?)?;
        match &asked.which {
            None => Err(field("which", "is missing").into()),
            Some(Which::Sequence(sequence)) => Ok(stream.event(positive("sequence", *sequence)?).await?),
            Some(Which::LastOfTopic(topic)) => {
                let topic = Topic::parse(topic.as_bytes());
                let topic = topic.map_err(|error| field("last_of_topic", format!("is not a topic: {error}")))?;
                Ok(stream.last_of(topic).await?)
            }
        }
    }

    async fn events(
        &self,
        caller: &Caller,
        asked: &wire::ListEventsRequest,
    ) -> Result<wire::ListEventsResponse, Refusal> {
        let stream = streams::to_read(&self.hub, caller, &stream_name("stream", &asked.stream)?)?;
        let wanted = EventsAsked {
            begin: begin(asked)?,
            newest_first: asked.newest_first,
            filter: filter(&asked.filter)?,
            most: page_size(asked.page_size)?,
        };
        let most = asked.max_payload_bytes.map_or(Ok(i64::MAX), |most| not_negative("max_payload_bytes", most))?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let show = |event: &Event| {
            let (event, payload_bytes) = event.received_up_to(most);
            let shown = wire::ListedEvent { event, payload_bytes: (payload_bytes as u64).cast_signed() };
            let bytes = shown.encoded_len();
            (shown, bytes)
        };
        let (events, next) = stream.events(wanted, show).await?;
        Ok(wire::ListEventsResponse { events, next_page_token: next.map(token).unwrap_or_default() })
    }

    async fn topics(
        &self,
        caller: &Caller,
        asked: &wire::ListTopicsRequest,
    ) -> Result<wire::ListTopicsResponse, Refusal> {
        let stream = streams::to_read(&self.hub, caller, &stream_name("stream", &asked.stream)?)?;
        if asked.prefix.len() > limits::MAX_NAME_BYTES {
            let problem = format!("has {} bytes; the limit is {}", asked.prefix.len(), limits::MAX_NAME_BYTES);
            return Err(field("prefix", problem).into());
        }
        let filter = filter(&asked.filter)?;
        let wanted = TopicsPageAsked {
            prefix: &asked.prefix,
            filter: filter.as_ref(),
            page_token: &asked.page_token,
            most: page_size(asked.page_size)?,
        };
        let (topics, next) = stream.topics(wanted).await?;
        let topics = topics.into_iter().map(shown_topic).collect();
        Ok(wire::ListTopicsResponse { topics, next_page_token: next.unwrap_or_default() })
    }
}

#[tonic::async_trait]
impl stream_service_server::StreamService for StreamService {
    async fn create_stream(
        &self,
        request: Request<wire::CreateStreamRequest>,
    ) -> Result<Response<wire::CreateStreamResponse>, Status> {
        let caller = self.caller(&request, "CreateStream")?;
        let stream = self.create(&caller, request.into_inner().stream).await?;
        Ok(Response::new(wire::CreateStreamResponse { stream: Some(stream) }))
    }

    async fn get_stream(
        &self,
        request: Request<wire::GetStreamRequest>,
    ) -> Result<Response<wire::GetStreamResponse>, Status> {
        let caller = self.caller(&request, "GetStream")?;
        let stream = self.get(&caller, &request.get_ref().name).await?;
        Ok(Response::new(wire::GetStreamResponse { stream: Some(stream) }))
    }

    async fn list_streams(
        &self,
        request: Request<wire::ListStreamsRequest>,
    ) -> Result<Response<wire::ListStreamsResponse>, Status> {
        let caller = self.caller(&request, "ListStreams")?;
        Ok(Response::new(self.list(&caller, request.get_ref()).await?))
    }

    async fn update_stream(
        &self,
        request: Request<wire::UpdateStreamRequest>,
    ) -> Result<Response<wire::UpdateStreamResponse>, Status> {
        let caller = self.caller(&request, "UpdateStream")?;
        let stream = self.update(&caller, request.get_ref()).await?;
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

    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        let caller = self.caller(&request, "ListEvents")?;
        Ok(Response::new(self.events(&caller, request.get_ref()).await?))
    }

    async fn list_topics(
        &self,
        request: Request<wire::ListTopicsRequest>,
    ) -> Result<Response<wire::ListTopicsResponse>, Status> {
        let caller = self.caller(&request, "ListTopics")?;
        Ok(Response::new(self.topics(&caller, request.get_ref()).await?))
    }
}

/// Where a page of events begins.
fn begin(asked: &wire::ListEventsRequest) -> Result<Begin, CommandError> {
    use wire::list_events_request::Begin as Asked;
    if !asked.page_token.is_empty() {
        let mark = mark(&asked.page_token).ok_or_else(|| field("page_token", "was not issued by this call"))?;
        return Ok(Begin::Behind(mark));
    }
    Ok(match asked.begin {
        None => Begin::First,
        Some(Asked::FromSequence(sequence)) => Begin::Sequence(positive("from_sequence", sequence)?),
        Some(Asked::FromTime(time)) => Begin::Time(times::time(time).map_err(|problem| field("from_time", problem))?),
    })
}

/// How far pages of events have come, in a form that means nothing to clients.
fn token(mark: EventMark) -> String {
    format!("{}.{}", mark.epoch, mark.sequence)
}

fn mark(token: &str) -> Option<EventMark> {
    let (epoch, sequence) = token.split_once('.')?;
    Some(EventMark { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? })
}

/// What topics have to match, in the field `filter`; empty for every one.
fn filter(text: &str) -> Result<Option<Filter>, CommandError> {
    let filter = (!text.is_empty()).then(|| Filter::parse(text.as_bytes())).transpose();
    filter.map_err(|error| field("filter", format!("is invalid: {error}")))
}

/// The settings of a stream that can be changed, as update masks name them.
const SETTINGS: [&str; 7] =
    ["filters", "max_age", "max_events", "max_bytes", "max_events_per_topic", "dedupe_window", "durability"];

/// Whether a path of an update mask names something that can be changed.
fn check_path(path: &str) -> Result<(), StreamError> {
    let problem = match path {
        known if SETTINGS.contains(&known) => return Ok(()),
        "name" | "storage" => format!("names {path}, which cannot be changed"),
        unknown => format!("names {unknown:?}, which is not a setting of a stream"),
    };
    Err(StreamError::Mismatch { field: "update_mask", problem })
}

/// One setting as it was asked for.
fn setting(path: &str, asked: &wire::Stream) -> Result<StreamSetting, CommandError> {
    let count = |field_path: &'static str, value: i64| match value {
        0 => Ok(None),
        value => u64::try_from(value).map(Some).map_err(|_| field(field_path, "is negative")),
    };
    Ok(match path {
        "filters" => StreamSetting::Filters(filters(&asked.filters)?),
        "max_age" => StreamSetting::MaxAge(asked.max_age.map(|age| duration("max_age", age)).transpose()?),
        "max_events" => StreamSetting::MaxEvents(count("max_events", asked.max_events)?),
        "max_bytes" => StreamSetting::MaxBytes(count("max_bytes", asked.max_bytes)?),
        "max_events_per_topic" => {
            StreamSetting::MaxEventsPerTopic(count("max_events_per_topic", asked.max_events_per_topic)?)
        }
        "dedupe_window" => StreamSetting::DedupeWindow(match asked.dedupe_window {
            None => limits::USUAL_DEDUPE_WINDOW,
            Some(window) => duration("dedupe_window", window)?,
        }),
        _ => StreamSetting::Durability(match wire::Durability::try_from(asked.durability) {
            Ok(wire::Durability::Unspecified | wire::Durability::Sync) => Durability::Sync,
            Ok(wire::Durability::Interval) => Durability::Interval,
            Ok(wire::Durability::None) => Durability::None,
            Err(_) => return Err(field("durability", "is unknown")),
        }),
    })
}

fn filters(texts: &[String]) -> Result<Vec<Filter>, CommandError> {
    if texts.is_empty() || texts.len() > limits::MAX_STREAM_FILTERS {
        return Err(field("filters", format!("must be 1 to {}", limits::MAX_STREAM_FILTERS)));
    }
    let filters = texts
        .iter()
        .enumerate()
        .map(|(index, text)| Filter::parse(text.as_bytes()).map_err(|error| CommandError::Filter { index, error }));
    filters.collect()
}

/// How a new stream is to be set up.
fn settings(asked: &wire::Stream) -> Result<StreamSettings, CommandError> {
    let mut settings = StreamSettings::new(stream_name("name", &asked.name)?, Vec::new());
    settings.storage = match wire::Storage::try_from(asked.storage) {
        Ok(wire::Storage::Unspecified | wire::Storage::File) => Storage::File,
        Ok(wire::Storage::Memory) => Storage::Memory,
        Err(_) => return Err(field("storage", "is unknown")),
    };
    for path in SETTINGS {
        setting(path, asked)?.apply(&mut settings);
    }
    Ok(settings)
}

/// A stream as clients see it.
fn shown(StreamStatus { state, events_per_second }: StreamStatus) -> wire::Stream {
    let settings = &state.settings;
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
        durability: wire::Durability::from(settings.durability).into(),
        state: Some(wire::StreamState {
            epoch: state.epoch,
            earliest_sequence: state.earliest.cast_signed(),
            latest_sequence: state.latest.cast_signed(),
            events: state.events.cast_signed(),
            bytes: state.bytes.cast_signed(),
            create_time: Some(state.created.into()),
            events_per_second,
        }),
    }
}

/// A topic as clients see it.
fn shown_topic(TopicStatus { topic, events, last }: TopicStatus) -> wire::TopicState {
    wire::TopicState {
        topic: topic.into(),
        events: events.cast_signed(),
        last_sequence: last.map_or(0, |(sequence, _)| sequence.cast_signed()),
        last_time: last.map(|(_, time)| time.into()),
    }
}
