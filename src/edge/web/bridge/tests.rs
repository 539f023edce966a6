//! The bridges in front of a service that says what it got.

use std::{
    future::pending,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto,
};
use serde_json::{Value, json};
use tonic::Status;

use super::{
    base64_text,
    envelope::{COMPRESSED, Cutter, END_OF_STREAM, TRAILERS, enveloped},
    *,
};
use crate::{json::JsonError, model::limits::MAX_FRAME_BYTES};

/// A message is its bytes, and its JSON a text of them.
#[derive(Debug)]
struct Text;

impl Form for Text {
    fn read(&self, json: Bytes) -> Reading {
        let mut steps = 3;
        Box::new(move || {
            steps -= 1;
            if steps > 0 {
                return Ok(Read::Some(1));
            }
            let text = serde_json::from_slice::<String>(&json);
            let wrong = |_| JsonError { path: "spec.text".to_owned(), problem: "is no text".to_owned() };
            text.map(|text| Read::Whole(text.into_bytes())).map_err(wrong)
        })
    }

    fn write(&self, protobuf: &[u8], out: &mut Vec<u8>) -> bool {
        std::str::from_utf8(protobuf).is_ok_and(|text| serde_json::to_writer(out, text).is_ok())
    }
}

fn calls() -> Calls {
    let method = |name: &str, client: bool, server: bool| MethodDescriptorProto {
        name: Some(name.to_owned()),
        client_streaming: Some(client),
        server_streaming: Some(server),
        options: (name == "Read").then(|| MethodOptions { idempotency_level: Some(1), ..MethodOptions::default() }),
        ..MethodDescriptorProto::default()
    };
    let methods = [("One", false, false), ("Read", false, false), ("Many", false, true), ("Both", true, true)];
    let service = ServiceDescriptorProto {
        name: Some("S".to_owned()),
        method: methods.map(|(name, client, server)| method(name, client, server)).into(),
        ..ServiceDescriptorProto::default()
    };
    let file =
        FileDescriptorProto { package: Some("t".to_owned()), service: vec![service], ..FileDescriptorProto::default() };
    Calls::of(&FileDescriptorSet { file: vec![file] }, |_| Some(Arc::new(Text)))
}

/// Reads a body, and throws it away.
fn drain(body: AxumBody) {
    Tasks::default().spawn("test", crate::tasks::OnPanic::Log, async { drop(body.collect().await) });
}

/// Answers with the messages it got, and with what `x-do` says.
async fn echo(request: Request<AxumBody>) -> Result<Response<Body>, Infallible> {
    assert_eq!((request.method(), request.version(), request.uri().query()), (&Method::POST, Version::HTTP_2, None));
    assert_eq!(request.headers()["content-type"], "application/grpc+proto");
    let what = request.headers().get("x-do").map(|value| value.to_str().expect("ASCII").to_owned()).unwrap_or_default();
    let timeout = request.headers().get("grpc-timeout").cloned();
    let encoding = Encoding::of(request.headers()).expect("an encoding");
    if request.uri().path() == "/t.S/None" {
        return Ok(Status::unimplemented("no such call").into_http());
    }
    if what == "hang" {
        drain(request.into_body());
        return Ok(response(Body::new(StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>()))));
    }
    let lender = Lender { client: Arc::<Memory>::default().client(), publishes: None };
    let mut messages = Framer::new(Body::new(request.into_body()), encoding, lender, Duration::from_secs(5)).expected();
    let mut frames = Vec::new();
    while let Some(message) = tokio_stream::StreamExt::next(&mut messages).await {
        match message {
            Ok(message) => frames.push(Frame::data(enveloped(0, &message.bytes))),
            Err(error) => return Ok(status::of_command(&error, "").status().into_http()),
        }
    }
    let mut status = match &*what {
        "fail" => Status::not_found("it is \"gone\""),
        "refuse" => return Ok(Status::permission_denied("no").into_http()),
        "nothing" => {
            frames.clear();
            Status::ok("")
        }
        "no-end" => {
            return Ok(response(Body::new(StreamBody::new(tokio_stream::iter(
                frames.into_iter().map(Ok::<_, Status>),
            )))));
        }
        _ => Status::ok(""),
    };
    status.metadata_mut().insert("x-last", "2".parse().expect("a value"));
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).expect("trailers");
    frames.push(Frame::trailers(trailers));
    let mut response =
        response(Body::new(StreamBody::new(tokio_stream::iter(frames.into_iter().map(Ok::<_, Status>)))));
    response.headers_mut().insert("x-first", HeaderValue::from_static("1"));
    if let Some(timeout) = timeout {
        response.headers_mut().insert("x-timeout", timeout);
    }
    Ok(response)
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A body of pieces, whose length is not announced.
fn pieces(pieces: Vec<Bytes>) -> Body {
    Body::new(StreamBody::new(tokio_stream::iter(pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(piece))))))
}

fn post(path: &str, content_type: &str) -> http::request::Builder {
    Request::post(path).header("content-type", content_type).version(Version::HTTP_11)
}

struct Got {
    head: http::response::Parts,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn messages(&self) -> Vec<(u8, Bytes)> {
        let mut cutter = Cutter::default();
        cutter.push(self.body.clone());
        let messages = std::iter::from_fn(|| cutter.next()).collect();
        assert!(!cutter.is_within());
        messages
    }

    /// The code and the message of an error of a unary call.
    fn error(&self) -> (u16, String, String) {
        let error = self.json();
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (self.head.status.as_u16(), text("code"), text("message"))
    }
}

async fn ask_with(memory: &Arc<Memory>, request: Request<Body>) -> Response<Body> {
    let bridge = Bridge::new(tower::service_fn(echo), calls(), Arc::clone(memory), Tasks::default(), TIMEOUT);
    bridge.serve(request).await
}

const TIMEOUT: Duration = Duration::from_millis(200);

async fn ask(request: Request<Body>) -> Got {
    let memory = Arc::<Memory>::default();
    let (head, body) = ask_with(&memory, request).await.into_parts();
    let got = body.collect().await.expect("a body");
    assert!(got.trailers().is_none(), "there is no such thing in a browser");
    // The bytes of a response hold memory themselves, until they are written.
    let body = Bytes::copy_from_slice(&got.to_bytes());
    assert_eq!((memory.held_bytes(Use::Frames), memory.held_bytes(Use::Responses)), (0, 0));
    Got { head, body }
}

async fn one(content_type: &str, body: impl Into<Bytes>) -> Got {
    let body = body.into();
    let request = post("/t.S/One", content_type).header("content-length", body.len());
    ask(request.body(Body::new(Full::new(body))).expect("a request")).await
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    std::io::Write::write_all(&mut encoder, bytes).expect("room");
    encoder.finish().expect("room")
}

#[tokio::test]
async fn a_unary_call_is_its_message_and_nothing_else() {
    for (content_type, body) in [("application/json; charset=utf-8", "\"ab\""), ("application/proto", "ab")] {
        let got = one(content_type, body).await;
        assert_eq!((got.head.status.as_u16(), &*got.body), (200, body.as_bytes()));
        assert_eq!(got.header("content-type"), content_type.split(';').next());
        assert_eq!((got.header("x-first"), got.header("trailer-x-last")), (Some("1"), Some("2")));
        assert!(got.header("grpc-status").is_none() && got.header("x-last").is_none());
    }
    assert_eq!(one("application/proto", "").await.body, "", "an empty message is a message");
    let got = one("application/json", "").await;
    assert_eq!(got.error().1, "invalid_argument", "but no JSON");
}

#[tokio::test]
async fn bodies_may_be_compressed_and_answers_are_not() {
    for (content_type, body) in [("application/json", "\"ab\""), ("application/proto", "ab")] {
        for announced in [true, false] {
            let packed = gzipped(body.as_bytes());
            let mut request = post("/t.S/One", content_type).header("content-encoding", "gzip");
            if announced {
                request = request.header("content-length", packed.len());
            }
            let got = ask(request.body(pieces(vec![packed.into()])).expect("a request")).await;
            assert_eq!((got.head.status.as_u16(), &*got.body), (200, body.as_bytes()));
            assert!(got.header("content-encoding").is_none());
        }
    }
    let request = post("/t.S/One", "application/json").header("content-encoding", "br");
    let got = ask(request.body(Body::empty()).expect("a request")).await;
    assert_eq!((got.error().0, &*got.error().1), (501, "unimplemented"));
    let request = post("/t.S/One", "application/json").header("content-encoding", "gzip");
    let got = ask(request.body(pieces(vec!["\"no gzip\"".into()])).expect("a request")).await;
    assert_eq!(got.error().1, "internal");
}

#[tokio::test]
async fn an_error_has_the_status_the_words_and_the_details_of_the_service() {
    for (what, wanted) in [
        ("fail", (404, "not_found".to_owned(), "it is \"gone\"".to_owned())),
        ("refuse", (403, "permission_denied".to_owned(), "no".to_owned())),
        ("nothing", (500, "internal".to_owned(), "the call ended without a message".to_owned())),
        ("no-end", (500, "internal".to_owned(), "the call ended without a status".to_owned())),
    ] {
        let request = post("/t.S/One", "application/json").header("x-do", what);
        let got = ask(request.body(pieces(vec!["\"ab\"".into()])).expect("a request")).await;
        assert_eq!(got.error(), wanted, "{what}");
        assert_eq!(got.header("content-type"), Some("application/json"));
    }
    let request = post("/t.S/One", "application/proto").header("x-do", "fail");
    let got = ask(request.body(pieces(vec!["ab".into()])).expect("a request")).await;
    assert_eq!((got.header("content-type"), got.header("trailer-x-last")), (Some("application/json"), Some("2")));
    let two = [&enveloped(0, b"a")[..], &enveloped(0, b"b")].concat();
    let got = one("application/grpc-web", two).await;
    assert_eq!(got.messages().len(), 3, "how many are wrong is for the service to say");
}

#[tokio::test]
async fn what_is_wrong_with_json_is_said_with_the_place() {
    let got = one("application/json", "7").await;
    assert_eq!(got.error(), (400, "invalid_argument".to_owned(), "spec.text is no text".to_owned()));
    let details = got.json()["details"].as_array().expect("details").clone();
    let types: Vec<_> = details.iter().map(|detail| detail["type"].as_str().expect("a type")).collect();
    assert_eq!(types, ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]);
    let body = enveloped(0, b"7");
    let got = ask(post("/t.S/Many", "application/connect+json").body(pieces(vec![body])).expect("a request")).await;
    let end: Value = serde_json::from_slice(&got.messages()[0].1).expect("JSON");
    assert_eq!((got.head.status.as_u16(), &end["error"]["code"]), (200, &json!("invalid_argument")));
}

#[tokio::test]
async fn a_body_that_nobody_announced_is_as_large_as_a_frame_at_most() {
    let body = |bytes: usize| {
        let piece = Bytes::from(vec![b'a'; 64 * 1024]);
        let (whole, rest) = (bytes / piece.len(), bytes % piece.len());
        pieces(std::iter::repeat_n(piece.clone(), whole).chain([piece.slice(..rest)]).collect())
    };
    let call = |bytes| ask(post("/t.S/One", "application/proto").body(body(bytes)).expect("a request"));
    let got = call(MAX_FRAME_BYTES).await;
    assert_eq!((got.head.status.as_u16(), got.body.len()), (200, MAX_FRAME_BYTES));
    let got = call(MAX_FRAME_BYTES + 1).await;
    assert_eq!((got.error().0, &*got.error().1), (429, "resource_exhausted"));
    let request = post("/t.S/One", "application/proto").header("content-length", MAX_FRAME_BYTES + 1);
    let got = ask(request.body(body(MAX_FRAME_BYTES + 1)).expect("a request")).await;
    assert_eq!((got.error().0, &*got.error().1), (429, "resource_exhausted"), "announced");
    let request = post("/t.S/One", "application/proto").header("content-length", 2);
    let got = ask(request.body(body(3)).expect("a request")).await;
    assert_eq!(got.error().2, "the body is longer than its content-length");
}

#[tokio::test]
async fn what_a_client_makes_the_hub_keep_is_held_and_refused_when_it_does_not_fit() {
    let options = crate::memory::Options { frames_bytes: 1_000_000, responses_bytes: 1_000_000, ..Default::default() };
    let memory = Arc::new(Memory::new(&options));
    let body = Bytes::from(format!("\"{}\"", "a".repeat(200_000)));
    let request = || post("/t.S/One", "application/json").body(pieces(vec![body.clone()])).expect("a request");
    let response = ask_with(&memory, request()).await;
    assert!(memory.held_bytes(Use::Responses) >= body.len(), "until it is written");
    assert_eq!(memory.held_bytes(Use::Frames), 0);
    drop(response);
    assert_eq!(memory.held_bytes(Use::Responses), 0);

    let mut others = memory.hold(Use::Frames, 1_000_000).expect("all of it");
    others.overdraw(1).expect("and more");
    let (head, body) = ask_with(&memory, request()).await.into_parts();
    let error = body.collect().await.expect("a body").to_bytes();
    assert_eq!(head.status.as_u16(), 429, "{error:?}");
    assert!(head.headers.contains_key("retry-after"), "{error:?}");
    drop(others);
    let _responses = memory.hold(Use::Responses, 1_000_000).expect("all of it");
    let read = Request::get("/t.S/Read?encoding=json&message=%22ab%22").body(Body::empty()).expect("a request");
    assert_eq!(ask_with(&memory, read).await.status().as_u16(), 200, "a little always fits");
    assert_eq!(memory.held_bytes(Use::Frames), 0);
}

#[tokio::test]
async fn a_call_without_side_effects_is_made_by_get() {
    let get = |query: &str| Request::get(format!("/t.S/Read?{query}")).body(Body::empty()).expect("a request");
    for (query, wanted) in [
        ("connect=v1&encoding=json&message=%22ab%22", "\"ab\""),
        ("encoding=proto&message=YWI&base64=1", "ab"),
        ("encoding=json&message=ImFiIg==&base64=1", "\"ab\""),
    ] {
        let got = ask(get(query)).await;
        assert_eq!((got.head.status.as_u16(), &*got.body), (200, wanted.as_bytes()), "{query}");
    }
    let packed = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE, gzipped(b"\"ab\""));
    let got = ask(get(&format!("encoding=json&base64=1&compression=gzip&message={packed}"))).await;
    assert_eq!(&*got.body, b"\"ab\"");
    assert_eq!(ask(get("encoding=json")).await.error().0, 400);
    assert_eq!(ask(get("encoding=xml&message=a")).await.error().0, 415);
    let other = Request::get("/t.S/One?encoding=json&message=%22ab%22").body(Body::empty()).expect("a request");
    let got = ask(other).await;
    assert_eq!((got.head.status.as_u16(), got.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn a_stream_ends_with_an_envelope_of_json_whatever_its_messages_are() {
    for (content_type, message) in [("application/connect+json", "\"ab\""), ("application/connect+proto", "ab")] {
        for (what, wanted) in [
            ("", json!({"metadata": {"x-last": ["2"]}})),
            (
                "fail",
                json!({"error": {"code": "not_found", "message": "it is \"gone\""}, "metadata": {"x-last": ["2"]}}),
            ),
            ("refuse", json!({"error": {"code": "permission_denied", "message": "no"}})),
            ("no-end", json!({"error": {"code": "internal", "message": "the call ended without a status"}})),
        ] {
            let request = post("/t.S/Many", content_type).header("x-do", what);
            let got = ask(request.body(pieces(vec![enveloped(0, message.as_bytes())])).expect("a request")).await;
            let mut messages = got.messages();
            let (flags, end) = messages.pop().expect("an end");
            assert_eq!((got.head.status.as_u16(), got.header("content-type")), (200, Some(content_type)));
            assert_eq!(
                (flags, serde_json::from_slice::<Value>(&end).expect("JSON")),
                (END_OF_STREAM, wanted),
                "{what}"
            );
            let sent = if what == "refuse" { vec![] } else { vec![(0, Bytes::from(message))] };
            assert_eq!(messages, sent, "{what}");
        }
    }
}

#[tokio::test]
async fn messages_of_a_stream_may_be_compressed_one_by_one() {
    for (content_type, name) in [("connect+json", "connect-content-encoding"), ("grpc-web+json", "grpc-encoding")] {
        let body = enveloped(COMPRESSED, &gzipped(b"\"ab\""));
        let request = post("/t.S/Many", &format!("application/{content_type}")).header(name, "gzip");
        let got = ask(request.body(pieces(vec![body.clone()])).expect("a request")).await;
        assert_eq!(got.messages()[0], (0, Bytes::from_static(b"\"ab\"")), "{content_type}");
        let request = post("/t.S/Many", &format!("application/{content_type}"));
        let got = ask(request.body(pieces(vec![body])).expect("a request")).await;
        let end = String::from_utf8_lossy(&got.messages()[0].1).into_owned();
        assert!(end.contains("internal") || end.contains("grpc-status: 13"), "{end}");
    }
}

#[tokio::test]
async fn grpc_web_ends_with_the_trailers_in_its_body() {
    for (what, wanted) in [
        ("", "grpc-status: 0\r\n"),
        ("fail", "grpc-status: 5\r\n"),
        ("refuse", "grpc-status: 7\r\n"),
        ("no-end", "grpc-status: 13\r\n"),
    ] {
        let request = post("/t.S/Many", "application/grpc-web").header("x-do", what);
        let got = ask(request.body(pieces(vec![enveloped(0, b"ab")])).expect("a request")).await;
        let mut messages = got.messages();
        let (flags, block) = messages.pop().expect("trailers");
        let block = String::from_utf8(block.to_vec()).expect("text");
        assert_eq!((flags, got.header("grpc-status")), (TRAILERS, None));
        assert!(block.contains(wanted), "{block}");
        assert!(!block.contains("content-type"), "{block}");
        assert_eq!((got.head.status.as_u16(), got.header("content-type")), (200, Some("application/grpc-web+proto")));
        let sent = if what == "refuse" { vec![] } else { vec![(0, Bytes::from("ab"))] };
        assert_eq!(messages, sent, "{what}");
    }
}

#[tokio::test]
async fn requests_that_are_streams_need_http2_and_connect() {
    let ask_both = |content_type: &str, version| {
        let request = post("/t.S/Both", content_type).version(version).body(pieces(vec![enveloped(0, b"\"a\"")]));
        ask(request.expect("a request"))
    };
    for (content_type, version) in
        [("application/connect+json", Version::HTTP_11), ("application/grpc-web+json", Version::HTTP_2)]
    {
        let got = ask_both(content_type, version).await;
        let end = String::from_utf8(got.messages()[0].1.to_vec()).expect("text");
        assert!(got.head.status == 200 && end.contains("WebSocket"), "{end}");
        assert!(end.contains("unimplemented") || end.contains("grpc-status: 12"), "{end}");
    }
    let got = ask_both("application/connect+json", Version::HTTP_2).await;
    assert_eq!(got.messages()[0], (0, Bytes::from_static(b"\"a\"")));
}

#[tokio::test]
async fn headers_of_the_protocol_are_checked() {
    let unary = |name: &'static str, value: &'static str| {
        let request = post("/t.S/One", "application/json").header(name, value).body(pieces(vec!["\"a\"".into()]));
        ask(request.expect("a request"))
    };
    assert_eq!(unary("connect-timeout-ms", "1500").await.header("x-timeout"), Some("1500m"));
    assert_eq!(unary("connect-timeout-ms", "x").await.error().0, 400);
    assert_eq!(unary("connect-protocol-version", "1").await.head.status, 200);
    assert_eq!(unary("connect-protocol-version", "2").await.error().2, "connect-protocol-version must be 1");
    let request = post("/t.S/Many", "application/connect+proto").header("connect-protocol-version", "2");
    let got = ask(request.body(Body::empty()).expect("a request")).await;
    let end: Value = serde_json::from_slice(&got.messages()[0].1).expect("JSON");
    assert_eq!((got.head.status.as_u16(), &end["error"]["code"]), (200, &json!("invalid_argument")));
}

#[tokio::test]
async fn what_nobody_has_is_not_found_and_what_nobody_speaks_is_refused() {
    let got = ask(post("/t.S/None", "application/json").body(pieces(vec!["{}".into()])).expect("a request")).await;
    assert_eq!(got.error(), (404, "unimplemented".to_owned(), "no such call".to_owned()));
    let got = ask(post("/t.S/One", "application/xml").body(Body::empty()).expect("a request")).await;
    assert_eq!(got.head.status.as_u16(), 415);
    assert!(got.header("accept-post").is_some_and(|types| types.contains("application/json")));
    let got = ask(Request::delete("/t.S/One").body(Body::empty()).expect("a request")).await;
    assert_eq!((got.head.status.as_u16(), got.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn a_call_ends_as_soon_as_its_request_is_broken() {
    let body =
        vec![enveloped(0, b"\"a\""), enveloped(0, b"7")].into_iter().map(|piece| Ok::<_, Status>(Frame::data(piece)));
    // The client goes on, and so does the service, which waits for it.
    let body = tokio_stream::StreamExt::chain(tokio_stream::iter(body), tokio_stream::pending());
    let request = post("/t.S/Both", "application/connect+json").version(Version::HTTP_2).header("x-do", "hang");
    let got = ask(request.body(Body::new(StreamBody::new(body))).expect("a request")).await;
    let end: Value = serde_json::from_slice(&got.messages()[0].1).expect("JSON");
    assert_eq!(end["error"]["message"], "spec.text is no text");
}

/// A body that says it when it is dropped.
struct Watched(Option<tokio::sync::oneshot::Sender<()>>);

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Pending
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.take().map(|dropped| dropped.send(()));
    }
}

#[tokio::test]
async fn a_service_is_dropped_with_the_call_it_serves() {
    let (send, dropped) = tokio::sync::oneshot::channel();
    let send = Arc::new(parking_lot::Mutex::new(Some(send)));
    let service = tower::service_fn(move |_: Request<AxumBody>| {
        let body = Body::new(Watched(send.lock().take()));
        async move { Ok::<_, Infallible>(response(body)) }
    });
    let bridge = Bridge::new(service, calls(), Arc::default(), Tasks::default(), TIMEOUT);
    let request = post("/t.S/Many", "application/connect+proto").body(Body::empty()).expect("a request");
    drop(bridge.serve(request).await);
    dropped.await.expect("it is dropped");
    let never = tower::service_fn(|_: Request<AxumBody>| pending::<Result<Response<Body>, Infallible>>());
    let bridge = Bridge::new(never, calls(), Arc::default(), Tasks::default(), TIMEOUT);
    let request = post("/t.S/One", "application/json").body(Body::empty()).expect("a request");
    assert!(tokio::time::timeout(Duration::from_millis(10), bridge.serve(request)).await.is_err());
}

/// Pieces of these bytes, cut at any places.
fn cut(bytes: &Bytes, places: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut cuts: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| bytes.slice(pair[0]..pair[1])).collect()
}

proptest! {
    #[test]
    fn a_request_is_the_same_however_it_is_cut(
        texts in proptest::collection::vec("[a-zä\"]{0,12}", 1..5),
        places in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        paddings in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        packed: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let json: Vec<_> = texts.iter().map(|text| serde_json::to_vec(text).expect("JSON")).collect();
        let proto: Vec<_> = texts.iter().map(|text| text.clone().into_bytes()).collect();
        for (content_type, messages) in [
            ("connect+proto", &proto),
            ("connect+json", &json),
            ("grpc-web+proto", &proto),
            ("grpc-web+json", &json),
            ("grpc-web-text+proto", &proto),
            ("grpc-web-text+json", &json),
        ] {
            let envelope = |message: &Vec<u8>| {
                if packed { enveloped(COMPRESSED, &gzipped(message)) } else { enveloped(0, message) }
            };
            let mut body: Bytes = messages.iter().flat_map(envelope).collect();
            let is_text = content_type.contains("text");
            if is_text {
                body = cut(&body, &paddings).iter().flat_map(|piece| base64_text::encode(piece)).collect();
            }
            let path = if content_type.starts_with("connect") { "/t.S/Both" } else { "/t.S/Many" };
            let request = post(path, &format!("application/{content_type}")).version(Version::HTTP_2);
            let request = request.header("grpc-encoding", "gzip").header("connect-content-encoding", "gzip");
            let mut got = runtime.block_on(ask(request.body(pieces(cut(&body, &places))).expect("a request")));
            if is_text {
                got.body = base64_text::Decoder::default().decode(&got.body).expect("base64").into();
            }
            let mut sent: Vec<_> = got.messages().into_iter().map(|(flags, message)| (flags, message.to_vec())).collect();
            prop_assert!(sent.pop().is_some_and(|(flags, _)| flags == END_OF_STREAM || flags == TRAILERS));
            let wanted: Vec<_> = messages.iter().map(|message| (0, message.clone())).collect();
            prop_assert_eq!(sent, wanted, "{}", content_type);
        }
        for (content_type, body) in [("application/json", &json[0]), ("application/proto", &proto[0])] {
            let whole = Bytes::from(if packed { gzipped(body) } else { body.clone() });
            let mut request = post("/t.S/One", content_type);
            if packed {
                request = request.header("content-encoding", "gzip");
            }
            let got = runtime.block_on(ask(request.body(pieces(cut(&whole, &places))).expect("a request")));
            prop_assert_eq!(&got.body[..], &body[..]);
        }
    }
}
