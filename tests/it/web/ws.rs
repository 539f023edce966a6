//! Sessions over WebSocket: both forms, what ends them and with which code, and clients that do not do what they should.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use switchyard::{
    model::limits::MAX_FRAME_BYTES,
    proto::v1::{self, TerminateSessionRequest, session_request::Command, session_response::Frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_websockets::Message;

use super::{
    address, any_port, ask, hub,
    websocket::{JSON, PROTOBUF, WebSocket, http2},
};
use crate::{
    auth_harness::{Guarded, token},
    harness::{Folder, client, event, metric, pause, publish, soon, spec, texts, until},
};

/// The headers of a handshake that is good.
pub const HANDSHAKE: [(&str, &str); 5] = [
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-protocol", PROTOBUF),
];

/// The same over HTTP/2.
pub const TUNNEL: [(&str, &str); 2] = [("sec-websocket-version", "13"), ("sec-websocket-protocol", PROTOBUF)];

fn subscribe(id: i64, filter: &str) -> Command {
    Command::Subscribe(v1::Subscribe { subscription_id: id, spec: Some(spec(&[filter])) })
}

/// The reason of an error.
fn reason(frame: &Value) -> &str {
    let details = frame["error"]["details"].as_array().map_or(&[][..], Vec::as_slice);
    details.iter().find_map(|detail| detail["reason"].as_str()).unwrap_or_else(|| panic!("no reason: {frame}"))
}

pub async fn welcomed(socket: &mut WebSocket) -> v1::Welcome {
    match socket.frame().await.frame {
        Some(Frame::Welcome(welcome)) => welcome,
        other => panic!("not a welcome: {other:?}"),
    }
}

/// A session in protobuf that has one subscription.
pub async fn subscribed(at: std::net::SocketAddr, filter: &str) -> WebSocket {
    let mut socket = WebSocket::open(at, PROTOBUF).await;
    speak_protobuf(&mut socket, filter).await;
    socket
}

async fn speak_protobuf(socket: &mut WebSocket, filter: &str) {
    welcomed(socket).await;
    socket.command(1, subscribe(1, filter)).await;
    assert!(matches!(socket.frame().await.frame, Some(Frame::Subscribed(_))));
}

async fn events(socket: &mut WebSocket) -> Vec<String> {
    match socket.frame().await.frame {
        Some(Frame::Events(events)) => texts(&events),
        other => panic!("not events: {other:?}"),
    }
}

/// What a whole session is, over any transport.
async fn is_a_session(mut socket: WebSocket) {
    speak_protobuf(&mut socket, "orders.>").await;
    socket.command(7, Command::Publish(publish(vec![event("orders.eu", "one"), event("orders.eu", "two")]))).await;
    let (mut got, mut answered) = (Vec::new(), false);
    while got.len() < 2 || !answered {
        let frame = socket.frame().await;
        match frame.frame {
            Some(Frame::Events(events)) => got.extend(texts(&events)),
            Some(Frame::Published(results)) => {
                assert_eq!((frame.request_id, results.results.len()), (7, 2));
                answered = true;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(got, ["one", "two"]);
    // A command in two frames, with a ping between them.
    socket.command(8, Command::Ping(v1::Ping { nonce: "n".repeat(64) })).await;
    assert!(matches!(socket.frame().await.frame, Some(Frame::Pong(pong)) if pong.nonce.len() == 64));
    socket.send(Message::close(None, "")).await;
    assert!(socket.message().await.expect("a close").is_close());
    assert!(socket.message().await.is_none());
}

#[tokio::test]
async fn a_session_in_protobuf_over_http1() {
    let hub = hub(|_| {}).await;
    is_a_session(WebSocket::open(address(&hub), PROTOBUF).await).await;
    until("nothing is left of it", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    until("nor its connection", async || metric(&hub, "switchyard_open_connections").await == 0).await;
}

#[tokio::test]
async fn a_session_over_a_stream_of_http2() {
    let hub = hub(|_| {}).await;
    let mut requests = http2(address(&hub)).await;
    assert!(requests.is_extended_connect_protocol_enabled());
    is_a_session(WebSocket::over_http2(&mut requests, &TUNNEL).await.expect("a WebSocket")).await;
    until("nothing is left of it", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    for (headers, status) in [
        (&[("sec-websocket-version", "12"), ("sec-websocket-protocol", PROTOBUF)][..], StatusCode::UPGRADE_REQUIRED),
        (&[("sec-websocket-version", "13")], StatusCode::BAD_REQUEST),
        (&[TUNNEL[0], TUNNEL[1], ("origin", "https://evil.example")], StatusCode::FORBIDDEN),
    ] {
        let refused = WebSocket::over_http2(&mut requests, headers).await.err();
        assert_eq!(refused, Some(status), "{headers:?}");
    }
}

#[tokio::test]
async fn a_session_in_json() {
    let hub = hub(|_| {}).await;
    let mut socket = WebSocket::open(address(&hub), JSON).await;
    let welcome = socket.json().await;
    assert_eq!(welcome["welcome"]["limits"]["maxFrameBytes"], json!(MAX_FRAME_BYTES.to_string()));
    socket.say(json!({"requestId": "1", "subscribe": {"subscriptionId": 5, "spec": {"filters": ["a.*"]}}})).await;
    let frame = socket.json().await;
    assert_eq!((&frame["requestId"], &frame["subscribed"]["subscriptionId"]), (&json!("1"), &json!("5")));
    let text = "snow ☃ \" \\ and\nso on";
    let sent = json!({"topic": "a.b", "text": text, "attributes": {"k": "v"}});
    socket.say(json!({"requestId": 2, "publish": {"events": [sent, {"topic": "a.c", "data": "AAEC"}]}})).await;
    let (mut got, mut results) = (Vec::new(), Value::Null);
    while got.len() < 2 || results.is_null() {
        let frame = socket.json().await;
        match frame["events"]["events"].as_array() {
            Some(events) => {
                assert_eq!(frame["events"]["subscriptionId"], "5");
                got.extend(events.iter().map(|received| received["event"].clone()));
            }
            None => results = frame["published"]["results"].clone(),
        }
    }
    assert_eq!(results.as_array().map(Vec::len), Some(2), "{results}");
    assert_eq!((&got[0]["text"], &got[0]["attributes"]["k"]), (&json!(text), &json!("v")));
    assert_eq!(got[1]["data"], "AAEC");

    // What is no command is refused with the field that is wrong, and the session goes on.
    for (wrong, id, field) in [
        (json!({"requestId": "9", "subscribe": {"spec": {"filterz": []}}}), "9", "subscribe.spec.filterz"),
        (json!({"requestId": "10", "credit": {"subscriptionId": "x"}}), "10", "credit.subscription_id"),
    ] {
        socket.say(wrong).await;
        let frame = socket.json().await;
        let details = frame["error"]["details"].as_array().expect("details");
        assert_eq!((&frame["requestId"], &frame["error"]["code"]), (&json!(id), &json!(3)), "{frame}");
        assert!(details.iter().any(|it| it["fieldViolations"][0]["field"] == field), "{frame}");
    }
    socket.send(Message::text("{\"requestId\": \"11\", \"ping\"")).await;
    assert_eq!(reason(&socket.json().await), "MALFORMED_COMMAND");
    socket.say(json!({"ping": {"nonce": "still there"}})).await;
    assert_eq!(socket.json().await, json!({"pong": {"nonce": "still there"}}));
    socket.send(Message::binary(vec![1])).await;
    assert_eq!(socket.json().await["ended"]["reason"], "END_REASON_MALFORMED_COMMAND");
    assert_eq!(reason(&socket.json().await), "MALFORMED_COMMAND");
    assert_eq!(socket.closed().await, (1003, "MALFORMED_COMMAND".to_owned()));
}

#[tokio::test]
async fn what_json_says_of_a_stream_is_what_protobuf_says() {
    let folder = Folder::new();
    let hub = hub(|config| config.data_dir = folder.path().to_owned()).await;
    crate::stored::create(hub.address, crate::stored::stream("log", &["log.>"])).await;
    client(hub.address)
        .await
        .publish(publish(vec![event("log.a", "one"), event("log.b", "two")]))
        .await
        .expect("stored");
    let from = json!({"stream": "log", "start": {"preset": "START_PRESET_EARLIEST"}});
    let mut socket = WebSocket::open(address(&hub), JSON).await;
    socket.json().await;
    socket.say(json!({"subscribe": {"subscriptionId": 1, "spec": from}})).await;
    let opened = socket.json().await["subscribed"].clone();
    assert_eq!((&opened["earliestSequence"], &opened["latestSequence"]), (&json!("1"), &json!("2")));
    let mut token = String::new();
    while token.is_empty() {
        let frame = socket.json().await;
        for received in frame["events"]["events"].as_array().into_iter().flatten() {
            if received["sequence"] == "1" {
                assert_eq!((&received["stream"], &received["event"]["text"]), (&json!("log"), &json!("one")));
                token = frame["events"]["resumeToken"].as_str().expect("a token").to_owned();
            }
        }
    }
    let mut other = WebSocket::open(address(&hub), JSON).await;
    other.json().await;
    let from = json!({"stream": "log", "start": {"resumeToken": token}});
    other.say(json!({"subscribe": {"subscriptionId": 1, "spec": from}})).await;
    assert_eq!(other.json().await["subscribed"]["resumeOutcome"], "RESUME_OUTCOME_RESUMED");
}

#[tokio::test]
async fn what_is_no_websocket_is_refused_before_anything_is_opened() {
    let hub = hub(|_| {}).await;
    let without = |name: &str| HANDSHAKE.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    for (missing, status) in [
        ("upgrade", 426),
        ("connection", 426),
        ("sec-websocket-version", 426),
        ("sec-websocket-key", 400),
        ("sec-websocket-protocol", 400),
    ] {
        let answer = ask(address(&hub), "GET", "/v1/ws", &without(missing), "").await;
        assert_eq!(answer.status, status, "without {missing}: {}", answer.body);
        assert_eq!(answer.header("upgrade").is_some(), status == 426, "without {missing}");
    }
    let old = without("sec-websocket-version").into_iter().chain([("sec-websocket-version", "8")]).collect::<Vec<_>>();
    assert_eq!(ask(address(&hub), "GET", "/v1/ws", &old, "").await.header("sec-websocket-version"), Some("13"));
    assert_eq!(metric(&hub, "switchyard_open_sessions").await, 0);
}

#[tokio::test]
async fn a_credential_among_the_subprotocols_is_used_and_never_echoed() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.web.listen = any_port()).await;
    let at = address(&hub.server);
    let bearer = |name: &str, role: &str| {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        format!("switchyard.bearer.{}", URL_SAFE_NO_PAD.encode(token(name, &[role])))
    };
    let offered = format!("{}, {PROTOBUF}", bearer("ann", "reader"));
    let stream = Box::new(TcpStream::connect(at).await.expect("a port"));
    let headers = [("sec-websocket-protocol", offered.as_str())];
    let (mut socket, answer) = WebSocket::over(stream, &format!("ws://{at}/v1/ws"), &headers).await;
    assert_eq!(answer["sec-websocket-protocol"], PROTOBUF);
    speak_protobuf(&mut socket, "open.>").await;
    socket.command(2, subscribe(2, "closed.>")).await;
    assert!(matches!(socket.frame().await.frame, Some(Frame::Ended(ended)) if ended.subscription_id == 2));
    assert_eq!(ask(at, "GET", "/v1/ws", &HANDSHAKE, "").await.status, 401, "none");
    // A ticket is good for one.
    let good = format!("Bearer {}", token("ann", &["reader"]));
    let headers = [("authorization", good.as_str()), ("content-type", "application/json")];
    let issued = ask(at, "POST", "/v1/ticket", &headers, "{\"path\":\"/v1/ws\"}").await;
    let path = format!("/v1/ws?ticket={}", issued.json()["ticket"].as_str().expect("a ticket"));
    let stream = Box::new(TcpStream::connect(at).await.expect("a port"));
    let headers = [("sec-websocket-protocol", PROTOBUF)];
    let (mut socket, _) = WebSocket::over(stream, &format!("ws://{at}{path}"), &headers).await;
    speak_protobuf(&mut socket, "open.>").await;
    assert_eq!(ask(at, "GET", &path, &HANDSHAKE, "").await.status, 401, "again");
}

#[tokio::test]
async fn every_end_has_its_code_and_before_it_the_status_of_the_session() {
    let hub = hub(|config| config.sessions.max_per_connection = 1).await;
    let at = address(&hub);
    // The wrong kind of message.
    let mut socket = subscribed(at, "a").await;
    socket.send(Message::text("{}")).await;
    let frame = socket.frame().await;
    assert!(matches!(frame.frame, Some(Frame::Ended(_))), "each subscription has its own end: {frame:?}");
    assert_eq!(socket.ended().await, (1003, "MALFORMED_COMMAND".to_owned()));
    // One that is too large.
    let mut socket = WebSocket::open(at, PROTOBUF).await;
    welcomed(&mut socket).await;
    let nonce = |bytes| Command::Ping(v1::Ping { nonce: "n".repeat(bytes) });
    // The nonce has two lengths and two keys before it, of 12 bytes together.
    socket.command(0, nonce(MAX_FRAME_BYTES - 12)).await;
    assert!(matches!(socket.frame().await.frame, Some(Frame::Error(_))), "at the limit it is only a long nonce");
    socket.command(0, nonce(MAX_FRAME_BYTES)).await;
    assert_eq!(socket.ended().await, (1009, "EVENT_TOO_LARGE".to_owned()));
    // One that an operator ends.
    let mut socket = WebSocket::open(at, PROTOBUF).await;
    let session_id = welcomed(&mut socket).await.session_id;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", hub.address)).expect("a URL");
    let mut sessions = v1::session_service_client::SessionServiceClient::new(channel.connect().await.expect("a hub"));
    let request = TerminateSessionRequest { session_id, ..TerminateSessionRequest::default() };
    sessions.terminate_session(request).await.expect("ended");
    assert_eq!(socket.ended().await, (4081, "SESSION_TERMINATED".to_owned()));
    // One too many of a connection.
    let mut requests = http2(at).await;
    let mut first = WebSocket::over_http2(&mut requests, &TUNNEL).await.expect("a WebSocket");
    welcomed(&mut first).await;
    let mut second = WebSocket::over_http2(&mut requests, &TUNNEL).await.expect("a WebSocket, to say why not");
    assert_eq!(second.ended().await, (1013, "TOO_MANY_SESSIONS".to_owned()));
}

#[tokio::test]
async fn a_hub_that_shuts_down_says_so_and_closes() {
    let hub = hub(|config| config.drain.spread_ms = 0).await;
    let mut socket = subscribed(address(&hub), "a").await;
    let mut page = WebSocket::open(address(&hub), JSON).await;
    page.json().await;
    let stopping = tokio::spawn(hub.stop(Duration::ZERO));
    assert!(matches!(socket.frame().await.frame, Some(Frame::Draining(draining)) if draining.deadline.is_some()));
    let Some(Frame::Ended(ended)) = socket.frame().await.frame else { panic!("no end") };
    assert_eq!((ended.subscription_id, ended.reason()), (1, v1::EndReason::Draining));
    assert_eq!(socket.ended().await, (1001, "DRAINING".to_owned()));
    assert!(page.json().await["draining"]["deadline"].is_string());
    let error = page.json().await["error"].clone();
    assert!(error["details"].as_array().expect("details").iter().any(|it| it["retryDelay"].is_string()), "{error}");
    assert_eq!(page.closed().await.0, 1001);
    soon("it stops", stopping).await.expect("stopped");
}

/// A connection that speaks WebSocket byte by byte, behind its handshake.
pub async fn raw(at: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.expect("a port");
    let headers: String = HANDSHAKE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET /v1/ws HTTP/1.1\r\nhost: {at}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", stream.read_u8()).await.expect("a byte"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_closed_and_counted() {
    let hub = hub(|config| {
        config.connections.keepalive_interval_ms = 200;
        config.connections.keepalive_timeout_ms = 1_000;
    })
    .await;
    let mut mute = raw(address(&hub)).await;
    let mut speaks = subscribed(address(&hub), "a").await;
    let listening = tokio::spawn(async move {
        assert_eq!(events(&mut speaks).await, ["it answered"]);
    });
    let mut all = Vec::new();
    soon("the end", mute.read_to_end(&mut all)).await.expect("an end in order");
    assert!(all.windows(2).any(|two| two == [0x89, 0]), "a ping");
    let close = all.windows(4).rposition(|four| four[0] == 0x88 && four[2..] == 1001_u16.to_be_bytes());
    assert!(close.is_some(), "{all:x?}");
    drop(mute);
    pause(Duration::from_millis(500)).await;
    client(hub.address).await.publish(publish(vec![event("a", "it answered")])).await.expect("published");
    listening.await.expect("the other is served");
    assert_eq!(metric(&hub, "switchyard_connections_ended_total").await, 1);
}

#[tokio::test]
async fn a_message_that_does_not_end_is_the_last() {
    let hub = hub(|config| config.sessions.frame_timeout_ms = 200).await;
    let mut slow = raw(address(&hub)).await;
    // The first byte of a binary message, and no more.
    slow.write_all(&[0x82]).await.expect("sent");
    let mut all = Vec::new();
    soon("the end", slow.read_to_end(&mut all)).await.expect("an end in order");
    let code = 4071_u16.to_be_bytes();
    assert!(all.windows(2).any(|two| two == code), "SESSION_STALLED: {all:x?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_nothing_cost_the_others_nothing_and_are_cut() {
    const READERS: usize = 990;
    const STALLED: usize = 10;
    const EVENTS: usize = 200;
    // Both ends of all connections are in this process.
    rlimit::increase_nofile_limit(rlimit::INFINITY).expect("files");
    let hub = hub(|config| config.sessions.write_timeout_ms = 1000).await;
    let at = address(&hub);
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut socket = raw(at).await;
        for (id, filter) in [(1, "flood"), (2, "probe")] {
            let wish = v1::SessionRequest { request_id: 0, command: Some(subscribe(id, filter)) };
            let wish = prost::Message::encode_to_vec(&wish);
            let head = [0x82, 0x80 | wish.len() as u8, 0, 0, 0, 0];
            socket.write_all(&[&head[..], &wish].concat()).await.expect("sent");
        }
        stalled.push(socket);
    }
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut socket = subscribed(at, "flood").await;
        readers.push(tokio::spawn(async move {
            let mut count = 0;
            while count < EVENTS {
                count += events(&mut socket).await.len();
            }
            socket
        }));
    }
    let all = (READERS + 2 * STALLED) as u64;
    until("all are subscribed", async || metric(&hub, "switchyard_open_subscriptions").await == all).await;
    let mut publisher = client(hub.address).await;
    for _ in 0..EVENTS / 50 {
        publisher.publish(publish(vec![event("flood", "x".repeat(1024)); 50])).await.expect("published");
        // At a pace that readers on a small machine keep up with.
        pause(Duration::from_millis(20)).await;
    }
    // Of each subscription that nobody takes from, and what it costs besides.
    let most = (2 * STALLED * 5 * 1024 * 1024) as u64;
    let mut sockets = Vec::new();
    for reader in readers {
        sockets.push(reader.await.expect("it got all, and no gap"));
    }
    until("those that take nothing are gone", async || {
        publisher.publish(publish(vec![event("probe", "x".repeat(256 * 1024))])).await.expect("published");
        assert!(metric(&hub, "switchyard_queue_bytes").await <= most, "what waits is bounded");
        metric(&hub, "switchyard_open_sessions").await == READERS as u64
    })
    .await;
    drop((sockets, stalled));
}
