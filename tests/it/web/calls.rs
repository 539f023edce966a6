//! Calls of the contract by Connect and gRPC-Web: every unary one with JSON, streams in all their forms, and the errors,
//! rights and limits that gRPC has.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Version};
use http_body::Frame as HttpFrame;
use http_body_util::{Full, StreamBody};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::{Value, json};
use switchyard::{
    edge::grpc::CALLS,
    proto::v1::{self, subscribe_response::Frame},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;

use super::{
    Answer, address, any_port, ask,
    envelopes::{Envelopes, enveloped, send},
    hub,
};
use crate::{
    auth_harness::{Guarded, token},
    harness::{Folder, Session, client, event, pause, publish, soon},
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A unary call by curl, as it were.
async fn call(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    ask(address, "POST", path, &[&[JSON], headers].concat(), &body.to_string()).await
}

/// A call, its request, and a part of its response: what is at a place, or all of it.
type Row = (&'static str, fn(&str) -> Value, &'static str, Value);

/// Every unary call of the contract, in an order in which each does something. Requests may name a session that is open.
fn rows() -> Vec<Row> {
    [rows_of_streams(), rows_of_groups(), rows_of_ends()].concat()
}

fn rows_of_streams() -> Vec<Row> {
    vec![
        ("/grpc.health.v1.Health/Check", |_| json!({}), "/status", json!("SERVING")),
        ("/grpc.health.v1.Health/List", |_| json!({}), "/statuses//status", json!("SERVING")),
        ("/switchyard.v1.AccessService/WhoAmI", |_| json!({}), "/authenticated", Value::Null),
        (
            "/switchyard.v1.AccessService/Check",
            |_| json!({"action": "ACCESS_ACTION_PUBLISH", "topic": "a"}),
            "/allowed",
            json!(true),
        ),
        ("/switchyard.v1.HubService/GetHub", |_| json!({}), "/hub/version", json!(env!("CARGO_PKG_VERSION"))),
        (
            "/switchyard.v1.StreamService/CreateStream",
            |_| json!({"stream": {"name": "s", "filters": ["s.>"], "max_age": "3600s", "maxEvents": "1000"}}),
            "/stream/maxAge",
            json!("3600s"),
        ),
        (
            "/switchyard.v1.StreamService/CreateStream",
            |_| json!({"stream": {"name": "t", "filters": ["t.>"]}}),
            "/stream/name",
            json!("t"),
        ),
        (
            "/switchyard.v1.HubService/Publish",
            |_| json!({"events": [{"topic": "s.a", "text": "one"}, {"topic": "s.b", "data": "AAEC/w=="}]}),
            "/results/1/sequence",
            json!("2"),
        ),
        ("/switchyard.v1.StreamService/GetStream", |_| json!({"name": "s"}), "/stream/state/events", json!("2")),
        ("/switchyard.v1.StreamService/ListStreams", |_| json!({}), "/streams/0/name", json!("s")),
        (
            "/switchyard.v1.StreamService/UpdateStream",
            |_| json!({"stream": {"name": "s", "maxEvents": 500}, "updateMask": "maxEvents"}),
            "/stream/maxEvents",
            json!("500"),
        ),
        (
            "/switchyard.v1.StreamService/GetEvent",
            |_| json!({"stream": "s", "sequence": 2}),
            "/event/event/data",
            json!("AAEC/w=="),
        ),
        (
            "/switchyard.v1.StreamService/ListEvents",
            |_| json!({"stream": "s"}),
            "/events/0/event/event/text",
            json!("one"),
        ),
        ("/switchyard.v1.StreamService/ListTopics", |_| json!({"stream": "s"}), "/topics/0/topic", json!("s.a")),
    ]
}

fn rows_of_groups() -> Vec<Row> {
    let group = |_: &str| json!({"stream": "s", "group": "g"});
    let group_by_name = |_: &str| json!({"stream": "s", "name": "g"});
    vec![
        (
            "/switchyard.v1.GroupService/CreateGroup",
            |_| json!({"group": {"stream": "s", "name": "g", "deadLetterStream": "t"}, "start": {"preset": "START_PRESET_EARLIEST"}}),
            "/group/name",
            json!("g"),
        ),
        ("/switchyard.v1.GroupService/GetGroup", group_by_name, "/group/state/pending", json!("2")),
        ("/switchyard.v1.GroupService/ListGroups", |_| json!({"stream": "s"}), "/groups/0/name", json!("g")),
        (
            "/switchyard.v1.GroupService/UpdateGroup",
            |_| json!({"group": {"stream": "s", "name": "g", "maxAttempts": 3}, "updateMask": "maxAttempts"}),
            "/group/maxAttempts",
            json!(3),
        ),
        (
            "/switchyard.v1.GroupService/SeekGroup",
            |_| json!({"stream": "s", "name": "g", "position": {"afterSequence": "1"}}),
            "/group/state/pending",
            json!("1"),
        ),
        ("/switchyard.v1.GroupService/ListMembers", group, "", json!({})),
        ("/switchyard.v1.GroupService/ListUnacked", group, "", json!({})),
        ("/switchyard.v1.GroupService/ListDeadLetters", group, "", json!({})),
        ("/switchyard.v1.GroupService/RedriveDeadLetters", group, "", json!({})),
        ("/switchyard.v1.GroupService/PurgeDeadLetters", group, "", json!({})),
        ("/switchyard.v1.GroupService/DeleteGroup", group_by_name, "", json!({})),
    ]
}

fn rows_of_ends() -> Vec<Row> {
    vec![
        (
            "/switchyard.v1.StreamService/PurgeStream",
            |_| json!({"name": "s", "upToSequence": 1}),
            "/purgedEvents",
            json!("1"),
        ),
        ("/switchyard.v1.StreamService/DeleteStream", |_| json!({"name": "s"}), "", json!({})),
        (
            "/switchyard.v1.SessionService/ListSessions",
            |_| json!({}),
            "/sessions/0/kind",
            json!("SESSION_KIND_SESSION"),
        ),
        (
            "/switchyard.v1.SessionService/GetSession",
            |session| json!({"sessionId": session}),
            "/subscriptions/0/filters/0",
            json!("mine.>"),
        ),
        ("/switchyard.v1.SessionService/TerminateSession", |session| json!({"sessionId": session}), "", json!({})),
    ]
}

/// The unary calls of the contract, and of those the ones that only read.
fn unary_calls() -> (BTreeSet<String>, BTreeSet<String>) {
    let set = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let set = FileDescriptorSet::decode(&set[..]).expect("descriptors");
    let (mut all, mut safe) = (BTreeSet::new(), BTreeSet::new());
    for file in &set.file {
        for service in &file.service {
            for method in
                service.method.iter().filter(|method| !method.client_streaming() && !method.server_streaming())
            {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let level = method.options.as_ref().and_then(|options| options.idempotency_level);
                all.insert(path.clone());
                safe.extend((level == Some(1)).then_some(path));
            }
        }
    }
    (all, safe)
}

/// What a response has at a place.
fn at<'a>(body: &'a Value, place: &str) -> &'a Value {
    body.pointer(place).unwrap_or(&Value::Null)
}

#[test]
fn every_unary_call_has_a_row() {
    let rows: BTreeSet<_> = rows().iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(rows, unary_calls().0, "each unary call of the contract needs a row in `rows`");
}

#[tokio::test]
async fn every_unary_call_is_made_with_json_and_those_that_only_read_by_get_too() {
    let folder = Folder::new();
    let hub = hub(|config| config.data_dir = folder.path().to_owned()).await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, crate::harness::spec(&["mine.>"])).await;
    let (_, safe) = unary_calls();
    for (path, request, place, wanted) in rows() {
        let request = request(&session.id);
        if safe.contains(path) {
            let message = BASE64_STANDARD.encode(request.to_string()).replace('+', "-").replace('/', "_");
            let url = format!("{path}?connect=v1&encoding=json&base64=1&message={message}");
            let answer = ask(address(&hub), "GET", &url, &[], "").await;
            assert_eq!((answer.status, at(&answer.json(), place)), (200, &wanted), "GET {path}: {}", answer.body);
        } else {
            assert_eq!(ask(address(&hub), "GET", path, &[], "").await.header("allow"), Some("POST"), "{path}");
        }
        let answer = call(address(&hub), path, &[], &request).await;
        assert_eq!((answer.status, at(&answer.json(), place)), (200, &wanted), "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
    while session.next().await.is_ok() {}
}

#[tokio::test]
async fn errors_have_the_reason_the_field_and_the_status_that_grpc_has() {
    let hub = hub(|_| {}).await;
    let refused = |path: &'static str, body: Value| {
        let address = address(&hub);
        async move {
            let answer = call(address, &format!("/switchyard.v1.{path}"), &[], &body).await;
            let error = answer.json();
            let debug = |kind: &str| {
                let details = error["details"].as_array().cloned().unwrap_or_default();
                details.into_iter().find(|it| it["type"] == format!("google.rpc.{kind}")).unwrap_or_default()["debug"]
                    .clone()
            };
            let field = debug("BadRequest")["fieldViolations"][0]["field"].clone();
            (answer.status, error["code"].clone(), debug("ErrorInfo")["reason"].clone(), field)
        }
    };
    let wanted = |status, code, reason, field| (status, json!(code), json!(reason), field);
    for (path, body, status, code, reason, field) in [
        (
            "StreamService/GetStream",
            json!({"name": "s"}),
            400,
            "failed_precondition",
            "CONFIG_MISMATCH",
            json!("stream"),
        ),
        (
            "HubService/Publish",
            json!({"events": [{"topic": "a b"}]}),
            400,
            "invalid_argument",
            "INVALID_TOPIC",
            json!("events[0].topic"),
        ),
        (
            "HubService/Publish",
            json!({"events": [{"topicc": "a"}]}),
            400,
            "invalid_argument",
            "MALFORMED_COMMAND",
            json!("events[0].topicc"),
        ),
        ("HubService/Publish", json!([]), 400, "invalid_argument", "MALFORMED_COMMAND", Value::Null),
        (
            "SessionService/GetSession",
            json!({"sessionId": "none"}),
            404,
            "not_found",
            "SESSION_NOT_FOUND",
            json!("session_id"),
        ),
    ] {
        assert_eq!(refused(path, body.clone()).await, wanted(status, code, reason, field), "{path} {body}");
    }
    let unknown =
        call(address(&hub), "/switchyard.v1.HubService/Nothing", &[("connect-protocol-version", "1")], &json!({}))
            .await;
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("unimplemented")));
    for (content_type, path) in [("text/plain", "HubService/Publish"), ("application/json", "HubService/Subscribe")] {
        let path = format!("/switchyard.v1.{path}");
        let answer = ask(address(&hub), "POST", &path, &[("content-type", content_type)], "{}").await;
        assert!(answer.status == 415 && answer.header("accept-post").is_some(), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn rights_are_those_of_grpc() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.web.listen = any_port()).await;
    let address = address(&hub.server);
    let reader = hub.header("ann", &["reader"]);
    let publish = |topic: &str| json!({"events": [{"topic": topic, "text": "x"}]});
    let path = "/switchyard.v1.HubService/Publish";
    for (headers, topic, status, code) in [
        (&[][..], "open.a", 401, "unauthenticated"),
        (&[("authorization", "Bearer nonsense")], "open.a", 401, "unauthenticated"),
        (&[("authorization", &*reader)], "closed.a", 403, "permission_denied"),
    ] {
        let answer = call(address, path, headers, &publish(topic)).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{headers:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    assert_eq!(call(address, path, &[("authorization", &reader)], &publish("open.a")).await.status, 200);
    let stream = json!({"stream": {"name": "s", "filters": ["s.>"]}});
    let answer =
        call(address, "/switchyard.v1.StreamService/CreateStream", &[("authorization", &reader)], &stream).await;
    assert_eq!(answer.status, 403, "{}", answer.body);
    // Nobody learns what is wrong with a request before it is known who asks.
    let answer = call(address, path, &[], &json!({"eventz": 1})).await;
    assert_eq!(answer.status, 401);
    let body = enveloped(json!({"spec": {"filters": ["other.>"]}}).to_string().as_bytes());
    let request =
        Request::post("/switchyard.v1.HubService/Subscribe").header("content-type", "application/connect+json");
    let request = request.header("authorization", &reader).body(Body::new(Full::from(body))).expect("a request");
    let (_, end) = Envelopes::of(send(address, Version::HTTP_11, request).await).json().await;
    assert_eq!(end["error"]["code"], "permission_denied", "{end}");
}

/// A stream says what is wrong with its request as a unary call does: not that there is none.
#[tokio::test]
async fn what_is_wrong_with_the_request_of_a_stream_is_named() {
    let hub = hub(|_| {}).await;
    for (content_type, path, body) in [
        ("application/connect+json", "HubService/Subscribe", json!({"spec": {"filterz": []}})),
        ("application/grpc-web+json", "HubService/Subscribe", json!({"spec": {"filterz": []}})),
        ("application/grpc-web+json", "StreamService/GetStream", json!({"spec.filterz": 1})),
    ] {
        let request = Request::post(format!("/switchyard.v1.{path}")).header("content-type", content_type);
        let request = request.body(Body::new(Full::from(enveloped(body.to_string().as_bytes())))).expect("a request");
        let mut frames = Envelopes::of(send(address(&hub), Version::HTTP_11, request).await);
        let (_, end) = frames.next().await.expect("an end");
        let end = String::from_utf8_lossy(&end).replace("%20", " ");
        assert!(end.contains("spec.filterz is not a field"), "{content_type}: {end}");
    }
}

/// The request of a subscription that ends after two events, in a form.
fn subscription(content_type: &str) -> Vec<u8> {
    let spec =
        v1::SubscriptionSpec { filters: vec!["a.>".to_owned()], max_events: 2, ..v1::SubscriptionSpec::default() };
    let message = if content_type.contains("json") {
        json!({"spec": {"filters": ["a.>"], "maxEvents": 2}}).to_string().into_bytes()
    } else {
        v1::SubscribeRequest { spec: Some(spec) }.encode_to_vec()
    };
    let body = enveloped(&message);
    if content_type.contains("text") { BASE64_STANDARD.encode(body).into_bytes() } else { body }
}

/// The texts of the events in a frame, and true if it says that the subscription is open.
fn shown(content_type: &str, message: &[u8]) -> (Vec<String>, bool) {
    if content_type.contains("json") {
        let frame: Value = serde_json::from_slice(message).expect("JSON");
        let events = frame["events"]["events"].as_array().cloned().unwrap_or_default();
        let texts = events.iter().map(|it| it["event"]["text"].as_str().expect("a text").to_owned());
        return (texts.collect(), frame.get("subscribed").is_some());
    }
    match v1::SubscribeResponse::decode(message).expect("a frame").frame {
        Some(Frame::Events(events)) => (crate::harness::texts(&events), false),
        frame => (vec![], matches!(frame, Some(Frame::Subscribed(_)))),
    }
}

#[tokio::test]
async fn a_subscription_is_read_in_every_form_over_both_versions_of_http() {
    let hub = hub(|_| {}).await;
    let mut publisher = client(hub.address).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for content_type in [
            "application/connect+json",
            "application/connect+proto",
            "application/grpc-web+proto",
            "application/grpc-web+json",
            "application/grpc-web-text+proto",
        ] {
            let request = Request::post("/switchyard.v1.HubService/Subscribe").header("content-type", content_type);
            let request = request.body(Body::new(Full::from(subscription(content_type)))).expect("a request");
            let mut frames = Envelopes::of(send(address(&hub), version, request).await);
            assert_eq!(frames.head.status.as_u16(), 200);
            assert_eq!(frames.head.headers["content-type"], *content_type);
            let mut texts = Vec::new();
            let end = loop {
                let (flags, message) = frames.next().await.expect("a frame");
                if flags != 0 {
                    break (flags, String::from_utf8(message.to_vec()).expect("text"));
                }
                let (events, subscribed) = shown(content_type, &message);
                texts.extend(events);
                if subscribed {
                    let events = vec![event("a.1", "one"), event("b", "other"), event("a.2", "\u{e9} \"two\"")];
                    publisher.publish(publish(events)).await.expect("published");
                }
            };
            assert_eq!(texts, ["one", "\u{e9} \"two\""], "{content_type}");
            if content_type.contains("connect") {
                assert_eq!(end, (2, "{}".to_owned()));
            } else {
                assert!(end.0 == 0x80 && end.1.contains("grpc-status: 0\r\n"), "{end:?}");
            }
            assert!(frames.next().await.is_none());
        }
    }
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let hub = hub(|_| {}).await;
    for (name, value, content_type) in
        [("connect-timeout-ms", "50", "application/connect+json"), ("grpc-timeout", "50m", "application/grpc-web")]
    {
        let request = Request::post("/switchyard.v1.HubService/Subscribe").header("content-type", content_type);
        let request = request.header(name, value).body(Body::new(Full::from(subscription(content_type))));
        let mut frames = Envelopes::of(send(address(&hub), Version::HTTP_11, request.expect("a request")).await);
        let mut last = Bytes::new();
        while let Some((_, message)) = frames.next().await {
            last = message;
        }
        let end = String::from_utf8(last.to_vec()).expect("text");
        assert!(end.contains("deadline_exceeded") || end.contains("grpc-status: 4\r\n"), "{end}");
    }
    let path = "/switchyard.v1.HubService/GetHub";
    let answer = call(address(&hub), path, &[("connect-timeout-ms", "0")], &json!({})).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("deadline_exceeded")));
}

#[tokio::test]
async fn a_session_is_open_both_ways_over_http2_and_refused_over_http1() {
    let hub = hub(|_| {}).await;
    let (commands, receiver) = tokio::sync::mpsc::channel(4);
    let body = Body::new(StreamBody::new(ReceiverStream::new(receiver)));
    let say = |command: Value| {
        let frame = HttpFrame::data(Bytes::from(enveloped(command.to_string().as_bytes())));
        commands.send(Ok::<_, tonic::Status>(frame))
    };
    let request = Request::post("/switchyard.v1.HubService/Session").header("content-type", "application/connect+json");
    let mut frames = Envelopes::of(send(address(&hub), Version::HTTP_2, request.body(body).expect("a request")).await);
    assert!(frames.json().await.1["welcome"]["sessionId"].is_string());
    let spec = json!({"filters": ["a"]});
    say(json!({"requestId": 1, "subscribe": {"subscriptionId": 7, "spec": spec}})).await.expect("sent");
    assert_eq!(frames.json().await.1["subscribed"]["subscriptionId"], "7");
    say(json!({"requestId": "2", "publish": {"events": [{"topic": "a", "text": "mine"}]}})).await.expect("sent");
    let (first, second) = (frames.json().await.1, frames.json().await.1);
    let (events, published) = if first.get("events").is_some() { (first, second) } else { (second, first) };
    assert_eq!(events["events"]["events"][0]["event"]["text"], "mine");
    assert_eq!((&published["requestId"], &published["published"]["results"][0]["matched"]), (&json!("2"), &json!("1")));
    // What is no command in JSON ends the call: there is nothing that the session could answer to.
    say(json!({"subscribee": {}})).await.expect("sent");
    let (flags, end) = frames.json().await;
    assert_eq!((flags, &end["error"]["code"]), (2, &json!("invalid_argument")), "{end}");
    assert!(end["error"]["message"].as_str().is_some_and(|text| text.contains("subscribee")), "{end}");

    for (content_type, version) in
        [("application/connect+json", Version::HTTP_11), ("application/grpc-web", Version::HTTP_2)]
    {
        let request = Request::post("/switchyard.v1.HubService/Session").header("content-type", content_type);
        let request = request.body(Body::empty()).expect("a request");
        let (_, end) = Envelopes::of(send(address(&hub), version, request).await).next().await.expect("an end");
        let end = String::from_utf8(end.to_vec()).expect("text");
        assert!(end.contains("WebSocket"), "{end}");
    }
}

#[tokio::test]
async fn requests_have_the_limits_of_grpc() {
    let hub = hub(|config| config.sessions.frame_timeout_ms = 300).await;
    let large = |bytes: usize| json!({"events": [{"topic": "a", "text": "x".repeat(bytes)}]});
    let answer = call(address(&hub), "/switchyard.v1.HubService/Publish", &[], &large(5 * 1024 * 1024)).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("resource_exhausted")), "{}", answer.body);
    let name = json!({"name": "x".repeat(200_000)});
    let answer = call(address(&hub), "/switchyard.v1.StreamService/GetStream", &[], &name).await;
    assert_eq!(answer.json()["code"], "resource_exhausted", "{}", answer.body);
    // A client that never says the rest of its request.
    let (_keep, receiver) = tokio::sync::mpsc::channel::<Result<HttpFrame<Bytes>, tonic::Status>>(1);
    let body = Body::new(StreamBody::new(ReceiverStream::new(receiver)));
    let request = Request::post("/switchyard.v1.HubService/Publish").header("content-type", "application/json");
    let response = send(address(&hub), Version::HTTP_11, request.body(body).expect("a request")).await;
    assert_eq!(response.status().as_u16(), 429, "{response:?}");
}

#[tokio::test]
async fn a_client_that_leaves_is_gone() {
    let hub = hub(|_| {}).await;
    let request =
        Request::post("/switchyard.v1.HubService/Subscribe").header("content-type", "application/connect+json");
    let request = request.body(Body::new(Full::from(subscription("json")))).expect("a request");
    let mut frames = Envelopes::of(send(address(&hub), Version::HTTP_11, request).await);
    frames.next().await.expect("it is open");
    let sessions = || async {
        let answer = call(address(&hub), "/switchyard.v1.SessionService/ListSessions", &[], &json!({})).await;
        answer.json()["sessions"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(sessions().await, 1);
    drop(frames);
    soon("the end of the session", async {
        while sessions().await > 0 {
            pause(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn pages_of_other_origins_are_kept_from_every_call() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| {
        config.web.listen = any_port();
        config.web.origins = "https://app.example.com".to_owned().try_into().expect("origins");
    })
    .await;
    let (at, known) = (address(&hub.server), unary_calls());
    let good = format!("Bearer {}", token("anyone", &["admin"]));
    for (path, _) in CALLS.iter().filter(|(path, _)| !path.contains("reflection")) {
        for attack in [
            &[("origin", "https://evil.example")][..],
            &[("host", "evil.example")],
            &[("sec-fetch-site", "cross-site")],
            &[("origin", "https://evil.example"), ("access-control-request-method", "POST")],
        ] {
            let answer = call(at, path, &[attack, &[("authorization", &good)]].concat(), &json!({})).await;
            assert_eq!(answer.status, 403, "{attack:?} on {path}: {}", answer.body);
        }
        for form in
            ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "application/grpc"]
        {
            let answer = ask(at, "POST", path, &[("content-type", form), ("authorization", &good)], "").await;
            assert_eq!(answer.status, 415, "{form} on {path}: {}", answer.body);
        }
        let preflight = [("origin", "https://app.example.com"), ("access-control-request-method", "POST")];
        let answer = ask(at, "OPTIONS", path, &preflight, "").await;
        let methods = if known.1.contains(*path) { "GET, POST" } else { "POST" };
        assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some(methods)), "{path}");
        let allowed = answer.header("access-control-allow-headers").expect("headers");
        assert!(["connect-protocol-version", "content-encoding", "x-grpc-web"].iter().all(|it| allowed.contains(it)));
        let open = path.starts_with("/grpc.health");
        if known.0.contains(*path) && !open {
            for headers in [&[][..], &[("authorization", "Bearer nonsense")]] {
                assert_eq!(call(at, path, headers, &json!({})).await.status, 401, "{path}");
            }
            let by_ticket = call(at, &format!("{path}?ticket=AAAA"), &[], &json!({})).await;
            assert_ne!(by_ticket.status, 200, "{path}");
        }
    }
}
