//! gRPC-Web and Connect, in front of the services that gRPC has: bodies and headers are translated on the way in and on the
//! way out, and everything between is gRPC.
//!
//! The bridges know how a call is written and nothing of what it does: who may make it, by when it has to be done and what
//! it answers is decided by the service behind them, which sees one more call of gRPC. Messages in protobuf go through as
//! they come; those in JSON are made by the tables of the contract ([`Form`]). Memory that a translation needs is held
//! for the client before it is used, and no request is read before its service reads it.

mod accounted;
mod bare;
mod base64_text;
mod broken;
mod calls;
mod contract;
mod ending;
mod envelope;
mod from_json;
mod from_text;
mod head;
mod protocol;
mod query;
mod to_json;
mod translated;
mod unary;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use axum::body::Body as AxumBody;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request, uri::PathAndQuery,
};
use http_body_util::{Empty, Full};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

pub use calls::{Calls, Form, Read, Reading};

use crate::{
    edge::wire::{
        buffer::Lender,
        framer::{Encoding, Framer},
        request::field,
        status,
    },
    memory::{Client, Memory, Use},
    net::Connection,
    tasks::Tasks,
};
use bare::{Bare, announced};
use broken::Broken;
use calls::Call;
use ending::{Ending, without_grpc};
use from_json::FromJson;
use from_text::FromText;
use head::{BadHead, Compression, Encoded};
use protocol::{Codec, Protocol};
use query::{BadQuery, Query};
use to_json::ToJson;
use translated::{Kind, Translated};
use unary::{USUAL_JSON_BYTES, Writer, answer, failed};

/// The bridges in front of a service of gRPC. Cheap to clone if the service is.
#[derive(Debug, Clone)]
pub struct Bridge<S> {
    service: S,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    calls: Calls,
    memory: Arc<Memory>,
    tasks: Tasks,
    /// The time for a message to come, and for memory to be there for it.
    timeout: Duration,
}

/// One call, on its way in.
struct Asked {
    head: request::Parts,
    body: Body,
    call: Option<Call>,
    client: Arc<Client>,
    broken: Broken,
}

impl<S> Bridge<S>
where
    S: Service<Request<AxumBody>, Response = Response<Body>, Error = Infallible> + Clone,
{
    /// In front of `service`, which has `calls`. A message has `timeout` to come.
    pub fn new(service: S, calls: Calls, memory: Arc<Memory>, tasks: Tasks, timeout: Duration) -> Self {
        Self { service, shared: Arc::new(Shared { calls, memory, tasks, timeout }) }
    }

    /// The methods of a call, with commas between them; `None` for a path that is none.
    pub fn methods(&self, path: &str) -> Option<&'static str> {
        self.shared.calls.get(path).map(|call| if call.safe { "GET, POST" } else { "POST" })
    }

    /// Whether a request is for the bridges: by the call that it names, or by what it speaks if there is no such call.
    pub fn wants(&self, path: &str, headers: &HeaderMap) -> bool {
        self.shared.calls.get(path).is_some() || protocol::is_ours(headers)
    }

    /// What is asked for by a request of gRPC-Web or Connect; anything else is refused, with what is accepted.
    pub async fn serve(self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        // By GET the query is the message. Otherwise it is part of a name that no call has.
        let by_get = head.method == Method::GET;
        let name = if by_get { head.uri.path() } else { head.uri.path_and_query().map_or("", PathAndQuery::as_str) };
        let call = self.shared.calls.get(name).cloned();
        let protocol = match Protocol::of(&head.method, &head.headers, call.as_ref()) {
            Ok(protocol) => protocol,
            Err(no_call) => return no_call.response(),
        };
        let client = match head.extensions.get::<Arc<Connection>>() {
            Some(connection) => Arc::clone(connection.memory()),
            None => self.shared.memory.client(),
        };
        let asked = Asked { head, body, call, client, broken: Broken::default() };
        match protocol {
            Protocol::Unary(codec) => self.unary(asked, codec).await,
            Protocol::Get => self.get(asked).await,
            Protocol::Web { codec, text_in, text_out } => {
                let kind = if text_out { Kind::WebText } else { Kind::Web };
                let content_type = protocol.content_type();
                let answered = self.web(asked, codec, text_in, kind, content_type.clone()).await;
                answered.unwrap_or_else(|ending| ended(kind, content_type, &ending))
            }
            Protocol::Stream(codec) => {
                let content_type = protocol.content_type();
                let answered = self.stream(asked, codec, content_type.clone()).await;
                answered.unwrap_or_else(|ending| ended(Kind::Stream, content_type, &ending))
            }
        }
    }

    async fn web(
        self,
        mut asked: Asked,
        codec: Codec,
        text_in: bool,
        kind: Kind,
        content_type: HeaderValue,
    ) -> Result<Response<Body>, Ending> {
        if asked.client_streams() {
            let text = "gRPC-Web has no calls whose requests are streams; this one is made by gRPC, Connect over HTTP/2 or WebSocket";
            return Err(status::unimplemented(text).into());
        }
        head::of_web(&mut asked.head.headers);
        if text_in {
            asked.body = Body::new(FromText::new(std::mem::take(&mut asked.body), asked.broken.clone()));
        }
        self.envelopes(asked, codec, kind, content_type).await
    }

    async fn stream(self, mut asked: Asked, codec: Codec, content_type: HeaderValue) -> Result<Response<Body>, Ending> {
        if asked.client_streams() && asked.head.version < Version::HTTP_2 {
            let text = "a call whose request is a stream needs HTTP/2; over HTTP/1.1 there is WebSocket";
            return Err(status::unimplemented(text).into());
        }
        head::of_connect(&mut asked.head.headers, Encoded::Messages).map_err(bad_head)?;
        self.envelopes(asked, codec, Kind::Stream, content_type).await
    }

    /// A call whose messages are in envelopes both ways.
    async fn envelopes(
        self,
        mut asked: Asked,
        codec: Codec,
        kind: Kind,
        content_type: HeaderValue,
    ) -> Result<Response<Body>, Ending> {
        let broken = asked.broken.clone();
        let mut json = None;
        if codec == Codec::Json {
            json = asked.response_form().map(|form| ToJson::new(form, Arc::clone(&asked.client)));
            let encoding = Encoding::of(&asked.head.headers)?;
            self.shared.translate(&mut asked, encoding);
        }
        let (mut head, body) = self.call(asked).await?.into_parts();
        if let Some(ending) = Ending::of(&head.headers) {
            return Ok(ended(kind, content_type, &ending));
        }
        without_grpc(&mut head.headers);
        head.headers.insert(header::CONTENT_TYPE, content_type);
        Ok(Response::from_parts(head, Body::new(Translated::new(body, kind, json, broken))))
    }

    /// A unary call of Connect by GET.
    async fn get(self, mut asked: Asked) -> Response<Body> {
        let query = match Query::parse(asked.head.uri.query().unwrap_or_default()) {
            Ok(query) => query,
            Err(error) => {
                let mut response = failed(HeaderMap::new(), &status::malformed("", error.to_string()).status().into());
                if error == BadQuery::Encoding {
                    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                }
                return response;
            }
        };
        let encoded = Encoded::Query(query.compression.as_deref());
        let compression = match head::of_connect(&mut asked.head.headers, encoded) {
            Ok(compression) => compression,
            Err(error) => return failed(HeaderMap::new(), &bad_head(error)),
        };
        let flags = if compression == Compression::Gzip { envelope::COMPRESSED } else { 0 };
        asked.body = Body::new(Full::new(envelope::enveloped(flags, &query.message)));
        self.one(asked, query.codec, compression).await
    }

    /// A unary call of Connect by POST.
    async fn unary(self, mut asked: Asked, codec: Codec) -> Response<Body> {
        let announced = announced(&asked.head.headers);
        let compression = match head::of_connect(&mut asked.head.headers, Encoded::Body) {
            Ok(compression) => compression,
            Err(error) => return failed(HeaderMap::new(), &bad_head(error)),
        };
        let (body, broken) = (std::mem::take(&mut asked.body), asked.broken.clone());
        let bare = Bare::new(body, announced, compression, &asked.client, self.shared.timeout, broken);
        asked.body = Body::new(bare);
        self.one(asked, codec, compression).await
    }

    /// A call with one message in an envelope, and an answer without.
    async fn one(self, mut asked: Asked, codec: Codec, compression: Compression) -> Response<Body> {
        let (broken, is_known) = (asked.broken.clone(), asked.call.is_some());
        let mut writer = None;
        if codec == Codec::Json {
            let held = match asked.client.hold(Use::Responses, USUAL_JSON_BYTES) {
                Ok(held) => held,
                Err(full) => return failed(HeaderMap::new(), &status::no_memory(full).into()),
            };
            let safe = asked.call.as_ref().is_some_and(|call| call.safe);
            let tasks = self.shared.tasks.clone();
            writer = asked.response_form().map(|form| Writer { form, held, safe, tasks });
            let encoding = if compression == Compression::Gzip { Encoding::Gzip } else { Encoding::Identity };
            self.shared.translate(&mut asked, encoding);
        }
        let mut response = match self.call(asked).await {
            Ok(response) => answer(response, writer, &broken).await,
            Err(ending) => failed(HeaderMap::new(), &ending),
        };
        if !is_known && response.status() == StatusCode::NOT_IMPLEMENTED {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }

    /// Makes the call, unless its request turns out to be broken.
    async fn call(self, asked: Asked) -> Result<Response<Body>, Ending> {
        let Asked { mut head, body, broken, .. } = asked;
        head.method = Method::POST;
        head.version = Version::HTTP_2;
        head.uri = without_query(head.uri);
        let mut calling = pin!(self.service.oneshot(Request::from_parts(head, AxumBody::new(body))));
        poll_fn(|context| match broken.poll(context) {
            Poll::Ready(ending) => Poll::Ready(Err(ending)),
            Poll::Pending => {
                let Ok(response) = ready!(calling.as_mut().poll(context));
                // It may be what the service says of a body that has just broken off.
                Poll::Ready(broken.why().map_or(Ok(response), Err))
            }
        })
        .await
    }
}

impl Shared {
    /// Has the messages of a request made of their JSON.
    fn translate(&self, asked: &mut Asked, encoding: Encoding) {
        asked.head.headers.remove("grpc-encoding");
        let body = std::mem::take(&mut asked.body);
        let Some(form) = asked.call.as_ref().map(|call| Arc::clone(&call.request)) else {
            // Nobody has such a call, and whoever is asked for it says so.
            asked.body = Body::new(Empty::new());
            return;
        };
        let client = Arc::clone(&asked.client);
        let lender = Lender { client: Arc::clone(&client), publishes: None };
        let messages = Framer::new(body, encoding, lender, self.timeout);
        let messages = if asked.client_streams() { messages.patient() } else { messages.expected() };
        asked.body = Body::new(FromJson::new(messages, form, client, self.timeout, asked.broken.clone()));
    }
}

impl Asked {
    fn client_streams(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.client_streams)
    }

    fn response_form(&self) -> Option<Arc<dyn Form>> {
        self.call.as_ref().map(|call| Arc::clone(&call.response))
    }
}

/// A response that is only the end of its call.
fn ended(kind: Kind, content_type: HeaderValue, ending: &Ending) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(kind.end(ending))));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn bad_head(error: BadHead) -> Ending {
    let refused = |name, problem: &str| status::of_command(&field(name, problem), "").status();
    Ending::from(match error {
        BadHead::Version => refused("connect-protocol-version", "must be 1"),
        BadHead::Timeout => refused("connect-timeout-ms", "must be 1 to 10 digits, and sent once"),
        BadHead::Compression => status::unimplemented("requests are taken without compression, or with gzip"),
    })
}

fn without_query(uri: Uri) -> Uri {
    if uri.query().is_none() {
        return uri;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = uri.path().parse().ok();
    Uri::from_parts(parts).unwrap_or(uri)
}
