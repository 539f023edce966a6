//! `GET /v1/events`: one subscription as an event stream, as `EventSource` of every browser reads it.
//!
//! It is a `Subscribe` call. A client that reconnects says behind which id it goes on, and the hub keeps nothing for it
//! meanwhile. What can heal is told inside a stream, since an `EventSource` that gets anything else gives up for good.

mod body;
mod text;
mod writer;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};

use super::{query::Query, refusal::Refusal, state::Web};
use crate::{
    auth::Caller,
    edge::{Opening, wire::status},
    hub::{Kind, TokenKey},
    model::{
        AckMode, CommandError, Denial, End, OnGap, Overflow, Start, StreamSpec, SubscriptionSpec,
        limits::MAX_BATCH_EVENTS,
    },
    net::AtItsOwnPace,
    outbox::Frame,
    session::NoRequests,
    tasks::OnPanic,
};
use body::EventBody;
use writer::{DONE, Writer, heals};

/// What the query may have.
const PARAMETERS: [&str; 8] = ["stream", "filter", "start", "after", "on_gap", "overflow", "limit", CURSOR];
/// Stands for the header on a first load, and in clients that can't set it.
const CURSOR: &str = "lastEventId";
/// The id of the last message that the client has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Has proxies hand on every message as it comes.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Serves it.
pub(super) async fn serve(State(web): State<Arc<Web>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    // Boxed: it is done before the stream begins, and that is what may go on for days.
    match Box::pin(open(&web, &head)).await {
        Ok(response) => response,
        Err(error) => refused(&web, error),
    }
}

async fn open(web: &Web, head: &Parts) -> Result<Response, CommandError> {
    let query = Query::parse(head.uri.query(), &PARAMETERS)?;
    let cursor = last_event_id(&head.headers, &query)?;
    if cursor == Some(DONE) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let spec = spec(&query, cursor)?;
    let hub = web.door.hub()?;
    let caller = head.extensions.get::<Caller>().cloned().ok_or(Denial::Missing)?;
    let opening = Opening::new(hub, head.extensions.get(), head.extensions.get().cloned())?;
    let (mut session, permit) = opening.open(Kind::One, caller)?;
    session.subscribe_once(&spec).await?;
    let body = EventBody::new(session.outlet(), writer(web), permit);
    web.tasks.spawn_beside("session", OnPanic::Log, session.run(NoRequests));
    let mut response = stream(Body::new(body));
    response.extensions_mut().insert(AtItsOwnPace);
    Ok(response)
}

/// Behind which message the client goes on, if it says so.
fn last_event_id<'a>(headers: &'a HeaderMap, query: &'a Query<'_>) -> Result<Option<&'a str>, CommandError> {
    let bad = || CommandError::Field { field: "Last-Event-ID", problem: "is not an id of this hub".to_owned() };
    let by_header = headers.get(LAST_EVENT_ID).map(|id| id.to_str().map_err(|_| bad())).transpose()?;
    // The header is later: it is sent with each reconnect to the address that has the parameter.
    match by_header.filter(|id| !id.is_empty()) {
        None => query.one(CURSOR),
        by_header => Ok(by_header),
    }
}

/// What the query asks for.
fn spec(query: &Query<'_>, cursor: Option<&str>) -> Result<SubscriptionSpec, CommandError> {
    let (stream, filters, start) = (query.stream()?, query.filters()?, query.start(cursor)?);
    let (on_gap, overflow) = (query.on_gap()?, query.overflow()?);
    let needs = |field, needs| Err(CommandError::Unsupported { field, needs });
    let stream = match stream {
        None if start.as_ref().is_some_and(|start| *start != Start::New) => return needs("start", "a stream"),
        None if on_gap != OnGap::Fail => return needs("on_gap", "a stream"),
        None if filters.is_empty() => return Err(CommandError::NoFilter),
        None => None,
        Some(_) if overflow.is_some() => return needs("overflow", "a live subscription, without a stream"),
        Some(name) => {
            let start = start.unwrap_or(Start::New);
            Some(StreamSpec { name, start, on_gap, ack_mode: AckMode::None, held: None })
        }
    };
    Ok(SubscriptionSpec {
        stream,
        filters,
        group: None,
        credit: None,
        overflow: overflow.unwrap_or(Overflow::DropOldest),
        max_events: query.limit(i64::MAX.unsigned_abs())?,
        max_batch: MAX_BATCH_EVENTS.unsigned_abs(),
    })
}

/// Why there is no subscription.
fn refused(web: &Web, error: CommandError) -> Response {
    let fault = status::of_command(&error, "");
    let is_lost = fault.code() == tonic::Code::OutOfRange;
    if !heals(&fault) && !is_lost {
        return Refusal::from(&fault).into_response();
    }
    let frame = Frame::Ended { subscription_id: 1, end: End::Refused(Box::new(error)), position: None };
    let mut out = Vec::new();
    // There is no position in it to be sealed.
    writer(web).put_frame(frame, &TokenKey::new([0; 32]), &mut out);
    stream(Body::from(Bytes::from(out)))
}

fn writer(web: &Web) -> Writer {
    Writer::new(Arc::clone(&web.forms), web.messages)
}

fn stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Filter;

    fn asked(query: &str, header: Option<&'static str>) -> Result<SubscriptionSpec, String> {
        let query = Query::parse(Some(query), &PARAMETERS).map_err(|error| error.to_string())?;
        let value = |id: &str| HeaderValue::from_bytes(id.as_bytes()).expect("a value");
        let headers = header.map(|id| (LAST_EVENT_ID, value(id))).into_iter().collect();
        let cursor = last_event_id(&headers, &query).map_err(|error| error.to_string())?;
        spec(&query, cursor).map_err(|error| error.to_string())
    }

    fn start(query: &str, header: Option<&'static str>) -> Start {
        asked(query, header).expect("a spec").stream.expect("a stream").start
    }

    #[test]
    fn the_last_id_that_the_client_has_seen_counts() {
        assert_eq!(start("stream=s", None), Start::New);
        assert_eq!(start("stream=s&lastEventId=a", None), Start::Token("a".into()));
        assert_eq!(start("stream=s&lastEventId=a&start=earliest", Some("b")), Start::Token("b".into()));
        assert_eq!(start("stream=s&start=earliest", Some("")), Start::Earliest);
    }

    #[test]
    fn what_a_live_subscription_cannot_have_is_refused() {
        let live = asked("filter=a&filter=b.%3E&overflow=conflate&limit=7", None).expect("a spec");
        assert_eq!((live.stream, live.overflow, live.max_events), (None, Overflow::Conflate, Some(7)));
        let filters: Vec<_> = live.filters.iter().map(Filter::as_str).collect();
        assert_eq!(filters, ["a", "b.>"]);
        assert!(asked("filter=a&start=new", None).is_ok());
        for (query, header, problem) in [
            ("", None, "a live subscription needs at least one filter"),
            ("filter=a&start=earliest", None, "start needs a stream"),
            ("filter=a&after=1", None, "start needs a stream"),
            ("filter=a", Some("c1.s.1.1"), "start needs a stream"),
            ("filter=a&on_gap=latest", None, "on_gap needs a stream"),
            ("stream=s&overflow=conflate", None, "overflow needs a live subscription"),
            ("stream=s", Some("\u{e9}"), "Last-Event-ID is not an id"),
            ("stream=s&wait=1s", None, "query has a parameter"),
        ] {
            let refused = asked(query, header).expect_err("refused");
            assert!(refused.starts_with(problem), "{query}: {refused}");
        }
    }
}
