//! `connectrpc.conformance.v1.ConformanceService` behind the bridges: it answers as each request tells it to.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use tonic::{Status, body::Body};

use super::{
    messages::{Fields, Protos, headers, status},
    wire::{Incoming, Outgoing},
};

/// What every path begins with.
const PATH: &str = "/connectrpc.conformance.v1.ConformanceService/";

/// The service.
#[derive(Clone)]
pub struct Service {
    pub protos: Protos,
    /// The most bytes of a message.
    pub limit: usize,
}

/// What the service has seen of a call.
struct Seen {
    headers: HeaderMap,
    /// The name of its messages, without package.
    kind: String,
    requests: Vec<Bytes>,
}

impl Service {
    pub async fn call(self, request: Request<axum::body::Body>) -> Result<Response<Body>, Infallible> {
        let method = request.uri().path().strip_prefix(PATH).unwrap_or_default().to_owned();
        let (head, body) = request.into_parts();
        let seen = Seen { headers: head.headers, kind: format!("{method}Request"), requests: Vec::new() };
        let incoming = match Incoming::new(Body::new(body), &seen.headers, self.limit) {
            Ok(incoming) => incoming,
            Err(status) => return Ok(status.into_http()),
        };
        let answered = match &*method {
            "Unary" | "IdempotentUnary" => self.unary(&method, seen, incoming).await,
            "ClientStream" => self.client_stream(seen, incoming).await,
            "ServerStream" => self.server_stream(seen, incoming).await,
            "BidiStream" => self.bidi_stream(seen, incoming).await,
            _ => Err(Status::unimplemented("there is no such call")),
        };
        Ok(answered.unwrap_or_else(Status::into_http))
    }

    async fn unary(self, method: &str, mut seen: Seen, mut incoming: Incoming) -> Result<Response<Body>, Status> {
        seen.requests.push(incoming.only().await?);
        self.one_response(method, &seen).await
    }

    async fn client_stream(self, mut seen: Seen, mut incoming: Incoming) -> Result<Response<Body>, Status> {
        while let Some(request) = incoming.next().await? {
            seen.requests.push(request);
        }
        self.one_response("ClientStream", &seen).await
    }

    /// A response of one message, or an error, as the first request has it.
    async fn one_response(&self, method: &str, seen: &Seen) -> Result<Response<Body>, Status> {
        let definition = self.definition(seen)?;
        let definition = definition.as_ref();
        let (response, outgoing) = Outgoing::new(headers(definition, "response_headers"));
        if let Some(definition) = definition {
            pause(definition).await;
        }
        let error = definition.and_then(|definition| definition.message("error"));
        let ended = match error {
            Some(error) => Err(status(&error, Some(self.info_as_any(seen)))),
            None => {
                let data = definition.map(|definition| definition.bytes("response_data")).unwrap_or_default();
                outgoing.send(&self.response(method, data, Some(self.info(seen)))).await;
                Ok(())
            }
        };
        outgoing.end(headers(definition, "response_trailers"), ended).await;
        Ok(response)
    }

    async fn server_stream(self, mut seen: Seen, mut incoming: Incoming) -> Result<Response<Body>, Status> {
        seen.requests.push(incoming.only().await?);
        let definition = self.definition(&seen)?;
        let (response, outgoing) = Outgoing::new(headers(definition.as_ref(), "response_headers"));
        tokio::spawn(async move { self.rest("ServerStream", &seen, definition.as_ref(), 0, outgoing).await });
        Ok(response)
    }

    async fn bidi_stream(self, mut seen: Seen, mut incoming: Incoming) -> Result<Response<Body>, Status> {
        // The headers of the response are in the first request.
        let Some(first) = incoming.next().await? else { return Ok(Status::unimplemented("no request").into_http()) };
        seen.requests.push(first);
        let full =
            self.decoded(&seen)?.get_field_by_name("full_duplex").is_some_and(|full| full.as_bool() == Some(true));
        let definition = self.definition(&seen)?;
        let (response, outgoing) = Outgoing::new(headers(definition.as_ref(), "response_headers"));
        tokio::spawn(async move {
            let definition = definition.as_ref();
            match self.duplex(full, &mut seen, &mut incoming, definition, &outgoing).await {
                Ok(sent) => self.rest("BidiStream", &seen, definition, sent, outgoing).await,
                Err(status) => outgoing.end(headers(definition, "response_trailers"), Err(status)).await,
            }
        });
        Ok(response)
    }

    /// Reads the requests, and if it is full duplex answers each. Gives how many answers that were.
    async fn duplex(
        &self,
        full: bool,
        seen: &mut Seen,
        incoming: &mut Incoming,
        definition: Option<&DynamicMessage>,
        outgoing: &Outgoing,
    ) -> Result<usize, Status> {
        let data = definition.map(|definition| definition.list("response_data")).unwrap_or_default();
        let mut sent = 0;
        loop {
            if full {
                let (Some(definition), Some(next)) = (definition, data.get(sent)) else { return Ok(sent) };
                pause(definition).await;
                let info = if sent == 0 { self.info(seen) } else { self.info_of_requests(seen) };
                outgoing.send(&self.response("BidiStream", bytes(next), Some(info))).await;
                seen.requests.clear();
                sent += 1;
            }
            match incoming.next().await? {
                Some(request) => seen.requests.push(request),
                None => return Ok(sent),
            }
        }
    }

    /// The responses that were not sent yet, and the end.
    async fn rest(
        &self,
        method: &str,
        seen: &Seen,
        definition: Option<&DynamicMessage>,
        sent: usize,
        outgoing: Outgoing,
    ) {
        let data = definition.map(|definition| definition.list("response_data")).unwrap_or_default();
        for (at, next) in data.iter().enumerate().skip(sent) {
            pause(definition.expect("a definition")).await;
            outgoing.send(&self.response(method, bytes(next), (at == 0).then(|| self.info(seen)))).await;
        }
        let error = definition.and_then(|definition| definition.message("error"));
        let info = data.is_empty().then(|| self.info_as_any(seen));
        let ended = error.map_or(Ok(()), |error| Err(status(&error, info)));
        outgoing.end(headers(definition, "response_trailers"), ended).await;
    }

    /// The first request.
    fn decoded(&self, seen: &Seen) -> Result<DynamicMessage, Status> {
        let first = seen.requests.first().cloned().unwrap_or_default();
        self.protos.decode(&seen.kind, &first)
    }

    /// What the first request asks for.
    fn definition(&self, seen: &Seen) -> Result<Option<DynamicMessage>, Status> {
        Ok(self.decoded(seen)?.message("response_definition"))
    }

    fn response(&self, method: &str, data: Vec<u8>, info: Option<DynamicMessage>) -> Vec<u8> {
        let mut payload = self.protos.make("ConformancePayload");
        payload.set_field_by_name("data", Value::Bytes(data.into()));
        if let Some(info) = info {
            payload.set_field_by_name("request_info", Value::Message(info));
        }
        let mut response = self.protos.make(&format!("{method}Response"));
        response.set_field_by_name("payload", Value::Message(payload));
        response.encode_to_vec()
    }

    /// What was seen of a call.
    fn info(&self, seen: &Seen) -> DynamicMessage {
        let mut info = self.info_of_requests(seen);
        let shown = seen.headers.keys().map(|name| {
            let mut header = self.protos.make("Header");
            let values =
                seen.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into());
            header.set_field_by_name("name", Value::String(name.to_string()));
            header.set_field_by_name("value", Value::List(values.map(Value::String).collect()));
            Value::Message(header)
        });
        info.set_field_by_name("request_headers", Value::List(shown.collect()));
        if let Some(timeout) = seen.headers.get("grpc-timeout") {
            let milliseconds = milliseconds(timeout.to_str().expect("ASCII"));
            info.set_field_by_name("timeout_ms", Value::I64(milliseconds));
        }
        info
    }

    /// As part of an error.
    fn info_as_any(&self, seen: &Seen) -> Value {
        self.protos.any("ConformancePayload.RequestInfo", self.info(seen).encode_to_vec())
    }

    fn info_of_requests(&self, seen: &Seen) -> DynamicMessage {
        let mut info = self.protos.make("ConformancePayload.RequestInfo");
        let requests = seen.requests.iter().map(|request| self.protos.any(&seen.kind, request.to_vec()));
        info.set_field_by_name("requests", Value::List(requests.collect()));
        info
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.as_bytes().expect("bytes").to_vec()
}

/// A timeout of gRPC, whole milliseconds of it.
fn milliseconds(timeout: &str) -> i64 {
    let (digits, unit) = timeout.split_at(timeout.len() - 1);
    let number: i64 = digits.parse().expect("digits");
    match unit {
        "H" => number * 3_600_000,
        "M" => number * 60_000,
        "S" => number * 1_000,
        "m" => number,
        "u" => number / 1_000,
        "n" => number / 1_000_000,
        _ => panic!("no unit: {timeout}"),
    }
}

async fn pause(definition: &DynamicMessage) {
    tokio::time::sleep(Duration::from_millis(definition.number("response_delay_ms").into())).await;
}
