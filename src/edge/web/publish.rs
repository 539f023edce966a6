//! `POST /v1/publish`: a `PublishRequest` in JSON or protobuf, or CloudEvents in whatever form they come over HTTP.
//!
//! It is a `Publish` call, and its answer a `PublishResponse`. What forms of pages can send is none of these.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use super::{
    body::{self, hold_for, kept},
    cloud_events::{self, NoCloudEvent},
    media::Kind,
    query::Query,
    refusal::Refusal,
    state::Web,
};
use crate::{
    auth::Caller,
    edge::{
        client_of,
        wire::{
            buffer::{Lender, Message},
            head::Frames,
            publish_call::PublishCall,
            results,
            status::{self, Fault},
        },
    },
    memory::{Client, Held, Use},
    model::{CommandError, Denial, End},
    net::Connection,
    tasks::{Tasks, Turn},
};

/// What a path takes, for those who send something else.
const TAKEN: &str = "application/json, application/x-protobuf, application/cloudevents+json, \
                     application/cloudevents-batch+json, or any with the headers of a CloudEvent";
/// CloudEvents of more bytes are read where that holds nobody up.
const LARGE_BYTES: usize = 64 * 1024;
/// To read JSON costs a step for this many bytes.
const BYTES_A_STEP: usize = 32;
/// What it costs to write a result as JSON, in steps.
const RESULT_STEPS: usize = 8;
/// What an event that was read takes besides its bytes.
const EVENT_OVERHEAD_BYTES: usize = 64;
/// JSON is at most about so many times as long as the protobuf that it is made of: names, and numbers as texts.
const JSON_GROWTH: usize = 4;

/// Serves it.
pub(super) async fn serve(State(web): State<Arc<Web>>, request: Request) -> Response {
    publish(&web, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn publish(web: &Web, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let kind = Kind::of(&head.headers).ok_or_else(|| Refusal::unsupported(TAKEN))?;
    let query = Query::parse(head.uri.query(), &["topic"]).map_err(refused)?;
    let topic = query.one("topic").map_err(refused)?;
    let is_cloud_events = matches!(kind, Kind::CloudEvent | Kind::CloudEvents | Kind::Data);
    if topic.is_some() && !is_cloud_events {
        return Err(refused(CommandError::Unsupported { field: "topic", needs: "CloudEvents: other events have one" }));
    }
    let hub = web.door.hub().map_err(|error| refused(error.into()))?;
    let caller = head.extensions.get::<Caller>().cloned().ok_or(Denial::Missing)?;
    let client = client_of(hub, head.extensions.get::<Arc<Connection>>());
    let publishes = (kind == Kind::Protobuf && hub.keeps_streams()).then(|| (Arc::clone(hub), Frames::Publish));
    let lender = Lender { client: Arc::clone(&client), publishes };
    let message = body::read(body, &lender, hub.options().frame_timeout()).await.map_err(refused)?;

    let call = PublishCall { hub, tasks: &web.tasks, caller: &caller, client: &client };
    let (encoded, held) = match kind {
        Kind::Protobuf => call.request(message).await?,
        Kind::Json => call.request(decoded(web, &client, message).await?).await?,
        Kind::CloudEvent | Kind::CloudEvents | Kind::Data => {
            let held = client.nothing(Use::Frames);
            let came = Came { kind, headers: head.headers, message, topic: topic.map(str::to_owned), held };
            let (events, held) = came.events(&web.tasks).await?;
            call.events(events, Some(held)).await?
        }
    };
    answer(web, kind, encoded, held).await
}

/// The request in protobuf.
async fn decoded(web: &Web, client: &Arc<Client>, message: Message) -> Result<Message, Fault> {
    let Message { bytes, held: _of_json } = message;
    // What comes out may be larger than what went in; it is known when it is there.
    let mut held = client.nothing(Use::Frames);
    hold_for(&mut held, bytes.len()).map_err(|error| status::of_command(&error, ""))?;
    let bytes = web.messages.publish.decode(bytes).await?;
    held.set(bytes.len());
    Ok(Message { bytes, held: Some(held) })
}

/// A request with CloudEvents, and the memory that is held for what is read from it.
struct Came {
    kind: Kind,
    headers: HeaderMap,
    message: Message,
    topic: Option<String>,
    held: Held,
}

impl Came {
    /// The events, as publishers encode them, and the memory that is held for them.
    async fn events(self, tasks: &Tasks) -> Result<(Vec<Bytes>, Held), Fault> {
        // One event may be as long as the body, and is read in one go.
        if self.message.bytes.len() > LARGE_BYTES {
            let read = tasks.block(move || self.read()).await;
            return read.ok_or_else(|| status::of_end(&End::Internal))?;
        }
        let bytes = self.message.bytes.len();
        let events = self.read();
        Turn::default().spend(bytes / BYTES_A_STEP).await;
        events
    }

    fn read(mut self) -> Result<(Vec<Bytes>, Held), Fault> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        let (body, topic) = (&self.message.bytes, self.topic.as_deref());
        let mut add = |event: Result<Vec<u8>, NoCloudEvent>| {
            let event = event.map_err(|wrong| malformed(&wrong))?;
            bytes += event.len() + EVENT_OVERHEAD_BYTES;
            hold_for(&mut self.held, bytes).map_err(|error| status::of_command(&error, ""))?;
            events.push(Bytes::from(event));
            Ok::<(), Fault>(())
        };
        match self.kind {
            Kind::Data => add(cloud_events::of_headers(&self.headers, body, topic))?,
            Kind::CloudEvents => cloud_events::Batch::new(body, topic).try_for_each(add)?,
            _ => add(cloud_events::of_json(body, topic))?,
        }
        Ok((events, self.held))
    }
}

/// The response, in the form that the client speaks.
async fn answer(web: &Web, kind: Kind, encoded: Bytes, mut held: Held) -> Result<Response, Refusal> {
    let (bytes, content_type) = if kind == Kind::Protobuf {
        (encoded, HeaderValue::from_static("application/x-protobuf"))
    } else {
        // It is published: memory that is short now is no reason to say anything else.
        held.set(encoded.len() * JSON_GROWTH);
        let (mut json, mut turn) = (b"{\"results\":[".to_vec(), Turn::default());
        for (index, result) in results::each(encoded).enumerate() {
            if index > 0 {
                json.push(b',');
            }
            web.messages.result.encode(&result, &mut json)?;
            turn.spend(RESULT_STEPS).await;
        }
        json.extend_from_slice(b"]}");
        held.set(json.capacity());
        (json.into(), HeaderValue::from_static("application/json"))
    };
    let mut response = Response::new(kept(bytes, held));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

fn malformed(wrong: &NoCloudEvent) -> Fault {
    let NoCloudEvent { path, problem } = wrong;
    let text = if path.is_empty() { format!("the body {problem}") } else { format!("{path} {problem}") };
    status::malformed(path, text)
}

fn refused(error: CommandError) -> Refusal {
    status::of_command(&error, "").into()
}
