//! The rules of WebSocket, broken on purpose on a real hub: each has the code that docs/web.md says, and costs nobody else
//! anything. That nothing else breaks them is shown by the Autobahn test suite: docs/testing.md.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    address, ask, hub,
    websocket::{PROTOBUF, WebSocket, http2},
    ws::{HANDSHAKE, TUNNEL, raw, subscribed, welcomed},
};
use crate::harness::{client, event, metric, publish, soon, until};

/// A frame of a client: its first byte, and its payload behind a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// The next frame of the hub: its first byte, and its payload.
async fn heard(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let reading = async {
        let (first, len) = (socket.read_u8().await?, socket.read_u8().await?);
        let len = match len {
            126 => u64::from(socket.read_u16().await?),
            127 => socket.read_u64().await?,
            len => u64::from(len),
        };
        let mut payload = vec![0; len as usize];
        socket.read_exact(&mut payload).await?;
        std::io::Result::Ok((first, payload))
    };
    soon("a frame", reading).await.expect("a frame")
}

/// The payload of the close that comes, behind which the hub says nothing.
async fn closed(socket: &mut TcpStream) -> Vec<u8> {
    loop {
        if let (0x88, payload) = heard(socket).await {
            assert_eq!(soon("the end", socket.read(&mut [0; 1])).await.expect("an end in order"), 0);
            return payload;
        }
    }
}

#[tokio::test]
async fn every_broken_rule_has_its_code_and_ends_nothing_else() {
    let hub = hub(|_| {}).await;
    let at = address(&hub);
    let mut other = subscribed(at, "a").await;
    let long_head = [&[0x82, 0xFF][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    for (broken, bytes, code) in [
        ("no mask", vec![0x82, 0x00], 1002),
        ("a reserved bit", frame(0xC2, b""), 1002),
        ("a reserved opcode", frame(0x83, b""), 1002),
        ("a reserved opcode that controls", frame(0x8B, b""), 1002),
        ("a ping in parts", frame(0x09, b""), 1002),
        ("a long ping", [&[0x89, 0xFE, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(), 1002),
        ("more of nothing", frame(0x80, b"a"), 1002),
        ("a message in a message", [frame(0x02, b"a"), frame(0x82, b"b")].concat(), 1002),
        ("half a code", frame(0x88, &[3]), 1002),
        ("a code that is never sent", frame(0x88, &1006_u16.to_be_bytes()), 1002),
        ("a reason that is no text", frame(0x88, &[3, 0xE8, 0xFF]), 1007),
        ("the other kind of message", frame(0x81, b"{}"), 1003),
        ("the longest length there is", long_head, 1009),
        ("a flood of pings", frame(0x89, b"ping").repeat(21), 1008),
        ("a flood of empty frames", [frame(0x02, b""), frame(0x00, b"").repeat(16)].concat(), 1008),
    ] {
        let mut socket = raw(at).await;
        socket.write_all(&bytes).await.expect("sent");
        let payload = closed(&mut socket).await;
        assert_eq!(payload.first_chunk(), Some(&u16::to_be_bytes(code)), "{broken}: {payload:x?}");
    }
    until("only the other is left", async || metric(&hub, "switchyard_open_sessions").await == 1).await;
    client(hub.address).await.publish(publish(vec![event("a", "still there")])).await.expect("published");
    other.frame().await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_without_its_reason() {
    let hub = hub(|_| {}).await;
    for (said, answer) in [(&b""[..], &b""[..]), (&[3, 0xE8], &[3, 0xE8]), (&[0x0F, 0xA0, b'!'], &[0x0F, 0xA0])] {
        let mut socket = raw(address(&hub)).await;
        // What comes behind it is not read.
        socket.write_all(&[frame(0x88, said), frame(0x83, b"nonsense")].concat()).await.expect("sent");
        assert_eq!(closed(&mut socket).await, answer);
    }
    until("nothing is left", async || metric(&hub, "switchyard_open_connections").await == 0).await;
}

#[tokio::test]
async fn a_ping_is_answered_amid_a_message_and_before_the_handshake_is_seen() {
    let hub = hub(|_| {}).await;
    let at = address(&hub);
    let headers: String = HANDSHAKE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET /v1/ws HTTP/1.1\r\nhost: {at}\r\n{headers}\r\n");
    let mut socket = TcpStream::connect(at).await.expect("a port");
    // A message has begun.
    let all = [request.as_bytes(), &frame(0x02, b"\x08"), &frame(0x89, b"early")].concat();
    socket.write_all(&all).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", socket.read_u8()).await.expect("a byte"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    while heard(&mut socket).await != (0x8A, b"early".to_vec()) {}
}

#[tokio::test]
async fn only_what_may_be_upgraded_is() {
    let hub = hub(|_| {}).await;
    let at = address(&hub);
    let with = |name: &str, value: &'static str| {
        let others = HANDSHAKE.into_iter().filter(move |(known, _)| *known != name);
        others.map(|(name, value)| (name.to_owned(), value)).chain([(name.to_owned(), value)]).collect::<Vec<_>>()
    };
    for (what, method, headers, body, status) in [
        ("a HEAD", "HEAD", with("x-nothing", ""), "", 405),
        ("a POST", "POST", with("x-nothing", ""), "", 405),
        ("a body", "GET", with("x-nothing", ""), "{}", 400),
        ("another protocol", "GET", with("upgrade", "h2c"), "", 426),
        ("a short key", "GET", with("sec-websocket-key", "c2hvcnQ="), "", 400),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(ask(at, method, "/v1/ws", &headers, body).await.status, status, "{what}");
    }
    assert_eq!(old_version(at).await, "HTTP/1.0 426");
    assert_eq!(metric(&hub, "switchyard_open_sessions").await, 0);
    let mut good = WebSocket::open(at, PROTOBUF).await;
    welcomed(&mut good).await;
}

/// How a good handshake ends in a version of HTTP that has no upgrades.
async fn old_version(at: SocketAddr) -> String {
    let mut socket = TcpStream::connect(at).await.expect("a port");
    let headers: String = HANDSHAKE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET /v1/ws HTTP/1.0\r\nhost: {at}\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    soon("an answer", socket.read_to_string(&mut answer)).await.expect("text");
    answer.chars().take("HTTP/1.0 426".len()).collect()
}

/// A WebSocket on a stream of HTTP/2, byte by byte.
async fn tunnel(requests: &mut h2::client::SendRequest<Bytes>) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let mut request = Request::builder().method(Method::CONNECT).uri("http://localhost/v1/ws");
    request = request.extension(h2::ext::Protocol::from_static("websocket"));
    for (name, value) in TUNNEL {
        request = request.header(name, value);
    }
    let (response, out) = requests.send_request(request.body(()).expect("a request"), false).expect("sent");
    let response = soon("a response", response).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    (out, response.into_body())
}

#[tokio::test]
async fn the_rules_are_the_same_on_a_stream_of_http2_however_it_is_cut() {
    let hub = hub(|_| {}).await;
    let mut requests = http2(address(&hub)).await;
    let (mut out, mut back) = tunnel(&mut requests).await;
    for byte in [frame(0x02, b"\x08"), frame(0x89, b"ping"), frame(0x80, b"\x01"), frame(0x83, b"")].concat() {
        out.send_data(Bytes::copy_from_slice(&[byte]), false).expect("sent");
    }
    let mut all = Vec::new();
    while let Some(data) = soon("more, or the end", back.data()).await {
        let data = data.expect("no reset");
        back.flow_control().release_capacity(data.len()).expect("what has come");
        all.extend_from_slice(&data);
    }
    assert!(all.windows(6).any(|pong| pong == b"\x8A\x04ping"), "{all:x?}");
    let close = all.windows(4).rposition(|four| four[0] == 0x88 && four[2..] == 1002_u16.to_be_bytes());
    assert!(close.is_some(), "{all:x?}");

    // One that goes without a word leaves nothing, and its connection goes on.
    let (mut out, _back) = tunnel(&mut requests).await;
    until("it is there", async || metric(&hub, "switchyard_open_sessions").await == 1).await;
    out.send_reset(h2::Reason::CANCEL);
    until("it is gone", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    let (mut out, mut back) = tunnel(&mut requests).await;
    out.send_data(frame(0x88, b"").into(), true).expect("sent");
    let mut all = Vec::new();
    while let Some(data) = soon("more, or the end", back.data()).await {
        all.extend_from_slice(&data.expect("no reset"));
    }
    assert!(all.ends_with(&[0x88, 0]), "{all:x?}");
}
