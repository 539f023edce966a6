//! Clients that do not keep to HTTP/2 or to good manners: the hub bears them or ends them, and nobody else notices.

use std::{net::SocketAddr, time::Duration};

use switchyard::{
    proto::v1::{Events, Ping, Subscribe, session_request::Command as Wire, session_response::Frame},
    server::Server,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::{
    harness::{
        Process, Session, client, event, hub, hub_with, metric, pause, publish, reason_of_call, soon, spec, texts,
        until,
    },
    http2::{
        CONTINUATION, Call, DATA, END_HEADERS, HEADERS, Http2, Manual, PING, PREFACE, PUBLISH, RST_STREAM, RawFrame,
        SESSION, SUBSCRIBE, command, frame, framed, header_block,
    },
    stalled::{probe_wish, without_windows},
    stored::{Folder, all, create, hub_on_with, stream, text},
    witness::Witness,
};

const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: u32 = 11;
const MIB: usize = 1024 * 1024;
/// The events of a publish whose client goes away.
const BATCH: usize = 500;
/// The commands that come byte by byte.
const COMMANDS: usize = 100;

/// Reads until the hub closes a connection, or resets it.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut answer)).await.ok();
    answer
}

/// Sends bytes that are no HTTP and meets a closed connection.
async fn check_closed_after(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a port");
    stream.write_all(bytes).await.expect("sent");
    until_closed(&mut stream).await
}

/// Only the witness's connection and session are left.
pub async fn until_alone(hub: &Server) {
    until("only the witness is left", async || {
        metric(hub, "switchyard_open_sessions").await == 1 && metric(hub, "switchyard_open_connections").await == 1
    })
    .await;
}

#[tokio::test]
async fn garbage_closes_its_own_connection() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut close_to_http2 = PREFACE[..20].to_vec();
    close_to_http2.extend_from_slice(b"not HTTP/2 after all");
    let mut no_settings = PREFACE.to_vec();
    no_settings.extend_from_slice(&frame(PING, 0, 0, &[0; 3]));
    let mut huge_frame = PREFACE.to_vec();
    huge_frame.extend_from_slice(&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]);
    for bytes in [&[0xff; 4096][..], &[0; 64], b"\r\n\r\n\r\n", &close_to_http2, &no_settings, &huge_frame] {
        check_closed_after(hub.address, bytes).await;
        witness.is_served().await;
    }
    until_alone(&hub).await;
}

#[tokio::test]
async fn http1_is_told_what_this_port_is() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    for request in ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"]
    {
        let answer = String::from_utf8(check_closed_after(hub.address, request.as_bytes()).await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        assert!(answer.contains("gRPC over HTTP/2"), "{answer}");
    }
    witness.is_served().await;
    until_alone(&hub).await;
}

#[tokio::test]
async fn a_client_that_does_not_begin_to_speak_is_closed() {
    let hub = hub_with(|config| config.connections.handshake_timeout_ms = 200).await;
    let mut witness = Witness::open(hub.address).await;
    // Nothing; half of what HTTP/2 begins with; half a line and half a header of HTTP/1.
    for bytes in [&b""[..], &PREFACE[..12], b"GET / HT", b"GET / HTTP/1.1\r\nhost: a-client-that-is-slow\r\nx-"] {
        check_closed_after(hub.address, bytes).await;
        witness.is_served().await;
    }
    until_alone(&hub).await;
}

#[tokio::test]
async fn a_client_that_begins_in_time_may_be_idle_after_that() {
    let hub = hub_with(|config| config.connections.handshake_timeout_ms = 100).await;
    let mut idle = Manual::connect(hub.address, &[]).await;
    // Closed for saying nothing, hence after the timeout, and counted from later than the idle one.
    check_closed_after(hub.address, b"").await;
    idle.send(&frame(PING, 0, 0, &[7; 8])).await.expect("a live connection");
    let pong = idle.frame_where(|frame| frame.kind == PING).await.expect("still open");
    assert_eq!(pong.payload, [7; 8]);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_until_another_leaves() {
    let hub = hub_with(|config| config.connections.max = 3).await;
    let mut witness = Witness::open(hub.address).await;
    let mut second = Session::open(hub.address).await;
    let third = TcpStream::connect(hub.address).await.expect("a port");
    until("three are open", async || metric(&hub, "switchyard_open_connections").await == 3).await;
    for refused in 1..=2 {
        let mut fourth = TcpStream::connect(hub.address).await.expect("the system accepts");
        assert!(until_closed(&mut fourth).await.is_empty());
        assert_eq!(metric(&hub, "switchyard_connections_refused_total").await, refused);
    }
    second.subscribe(1, spec(&["a"])).await;
    drop(third);
    until("one has left", async || metric(&hub, "switchyard_open_connections").await == 2).await;
    let mut fourth = Session::open(hub.address).await;
    fourth.subscribe(1, spec(&["a"])).await;
    assert_eq!(fourth.publish(vec![event("a", "x")]).await.results[0].matched, 2);
    witness.is_served().await;
}

#[tokio::test]
async fn a_header_bomb_costs_its_own_call_or_connection() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut other = connection.call(SESSION).await;
    let large = "x".repeat(17 * 1024);
    let mut call = connection.call_with(SESSION, &[("x-large", &large)]).await;
    match call.end().await {
        Ok((code, _, _)) => assert_eq!(code.as_u16(), 431),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    other.send(command(1, Wire::Ping(Ping::default())));
    assert!(matches!(next(&mut other).await, Frame::Welcome(_)));
    assert!(matches!(next(&mut other).await, Frame::Pong(_)), "the same connection goes on");
    drop((call, other, connection));

    // A header list that never ends, one CONTINUATION after the other.
    let mut bomb = Manual::connect(hub.address, &[]).await;
    let block = header_block(SESSION, &[("x-large", &"y".repeat(16_000))]);
    bomb.send(&frame(HEADERS, 0, 1, &block)).await.expect("a live connection");
    let more = frame(CONTINUATION, 0, 1, &header_block(SESSION, &[("x-more", &"z".repeat(16_000))]));
    assert!(bomb.flood(&more, 100_000).await.is_ok(), "the connection is closed before 1.6 GB have come");
    witness.is_served().await;
    until_alone(&hub).await;
}

pub async fn next(call: &mut Call) -> Frame {
    call.frame().await.expect("the connection lives").expect("open").frame.expect("a known frame")
}

#[tokio::test]
async fn streams_opened_and_reset_at_once_leave_nothing() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut open = Some(Manual::connect(hub.address, &[]).await);
    let block = header_block(SESSION, &[]);
    let mut ended = None;
    // 20 000 streams, a hundred at a time.
    for hundred in 0..200_u32 {
        let Some(connection) = open.take() else { break };
        let mut bytes = Vec::new();
        for stream in (hundred * 100..(hundred + 1) * 100).map(|n| n * 2 + 1) {
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &block));
            bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
        }
        match connection.flood(&bytes, 1).await {
            Ok(code) => ended = Some(code),
            Err(connection) => open = Some(connection),
        }
    }
    // Or all of it was on its way before the hub had seen enough.
    if let Some(mut connection) = open {
        ended = Some(connection.until_closed().await);
    }
    let code = ended.expect("a connection that only resets is ended");
    // The close may have overtaken the frame that says why.
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    witness.is_served().await;
    until_alone(&hub).await;
}

#[tokio::test]
async fn sessions_opened_and_reset_in_turn_leave_nothing() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    for _ in 0..1_000 {
        let mut call = connection.call(SESSION).await;
        call.send(command(1, Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec(&["a"])) })));
        assert!(matches!(next(&mut call).await, Frame::Welcome(_)));
        call.reset();
    }
    witness.is_served().await;
    until("only the witness is left", async || metric(&hub, "switchyard_open_sessions").await == 1).await;
    let response = client(hub.address).await.publish(publish(vec![event("a", "x")])).await.expect("published");
    assert_eq!(response.into_inner().results[0].matched, 0);
}

#[tokio::test]
async fn a_connection_has_its_share_of_sessions_and_no_more() {
    let hub = hub_with(|config| config.sessions.max_per_connection = 2).await;
    let mut witness = Witness::open(hub.address).await;
    let mut client = client(hub.address).await;
    let first = Session::open_on(&mut client).await;
    let mut second = Session::open_on(&mut client).await;
    let one = switchyard::proto::v1::SubscribeRequest { spec: Some(spec(&["a"])) };
    let status = client.session(tokio_stream::empty()).await.expect_err("one too many");
    assert_eq!((status.code(), reason_of_call(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_SESSIONS"));
    let status = client.subscribe(one.clone()).await.expect_err("a subscription is a session, too");
    assert_eq!((status.code(), reason_of_call(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_SESSIONS"));
    client.publish(publish(vec![event("a", "x")])).await.expect("a publish is none");
    second.subscribe(1, spec(&["a"])).await;
    drop(first);
    until("there is room again", async || client.subscribe(one.clone()).await.is_ok()).await;
    witness.is_served().await;
}

#[tokio::test]
async fn a_subscribe_call_counts_before_its_message_comes() {
    let hub = hub_with(|config| config.sessions.max_per_connection = 2).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut silent = [connection.call(SUBSCRIBE).await, connection.call(SUBSCRIBE).await];
    let mut refused = async || {
        let head = connection.call(SESSION).await.headers().await.expect("the connection lives");
        head.headers.get("grpc-status").is_some_and(|code| code == "8")
    };
    until("both count", &mut refused).await;
    silent[0].reset();
    until("there is room again", async || !refused().await).await;
}

/// A subscriber to what abusers publish.
async fn watcher(address: SocketAddr, topic: &str) -> Session {
    let mut session = Session::open(address).await;
    session.subscribe(1, spec(&[topic])).await;
    session
}

async fn next_events(session: &mut Session) -> Events {
    loop {
        match session.frame().await.frame {
            Some(Frame::Events(events)) => return events,
            Some(Frame::Heartbeat(_)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn half_a_publish_publishes_nothing() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut watcher = watcher(hub.address, "torn").await;
    let events = (0..100).map(|n| event("torn", n.to_string())).collect();
    let whole = command(1, Wire::Publish(publish(events)));
    for cut in [3, 5, 6, whole.len() / 2, whole.len() - 1] {
        for resets in [true, false] {
            let mut connection = Http2::connect(hub.address).await;
            let mut call = connection.call(SESSION).await;
            assert!(matches!(next(&mut call).await, Frame::Welcome(_)));
            call.send(whole[..cut].to_vec());
            if resets {
                call.reset();
            } else {
                call.half_close();
            }
        }
    }
    until("their sessions are over", async || metric(&hub, "switchyard_open_sessions").await == 2).await;
    client(hub.address).await.publish(publish(vec![event("torn", "marker")])).await.expect("published");
    assert_eq!(texts(&next_events(&mut watcher).await), ["marker"], "the first that came");
    witness.is_served().await;
}

#[tokio::test]
async fn a_publish_whose_client_goes_away_is_whole_or_not_at_all() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut watcher = watcher(hub.address, "gone").await;
    for _ in 0..20 {
        let mut connection = Http2::connect(hub.address).await;
        let mut call = connection.call(SESSION).await;
        assert!(matches!(next(&mut call).await, Frame::Welcome(_)));
        let events = (0..BATCH).map(|n| event("gone", n.to_string())).collect();
        call.send(command(1, Wire::Publish(publish(events))));
        tokio::task::yield_now().await;
        call.reset();
    }
    until("their sessions are over", async || metric(&hub, "switchyard_open_sessions").await == 2).await;
    client(hub.address).await.publish(publish(vec![event("gone", "marker")])).await.expect("published");
    let mut got = Vec::new();
    while got.last().is_none_or(|text| text != "marker") {
        got.extend(texts(&next_events(&mut watcher).await));
    }
    got.pop();
    assert_eq!(got.len() % BATCH, 0, "{} events", got.len());
    assert!(got.iter().enumerate().all(|(n, text)| *text == (n % BATCH).to_string()));
    witness.is_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_delivered_though_its_publisher_goes_away() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.quotas.max_in_flight_bytes = 1024).await;
    create(hub.address, stream("s", &["gone"])).await;
    let mut watcher = watcher(hub.address, "gone").await;
    let mut random = fastrand::Rng::with_seed(1);
    for n in 0..100 {
        let mut connection = Http2::connect(hub.address).await;
        let mut call = connection.call(PUBLISH).await;
        call.send(framed(&prost::Message::encode_to_vec(&publish(vec![event("gone", n.to_string())]))));
        call.half_close();
        // Now and then just while it is being stored.
        pause(Duration::from_micros(random.u64(..3_000))).await;
        call.reset();
    }
    // Only once all that was begun is answered for is there room for so much.
    let large = || publish(vec![event("a", "x".repeat(2_000))]);
    let mut client = client(hub.address).await;
    until("the others are done", async || client.publish(large()).await.is_ok()).await;
    client.publish(publish(vec![event("gone", "marker")])).await.expect("published");
    let mut got = Vec::new();
    while got.last().is_none_or(|text| text != "marker") {
        got.extend(texts(&next_events(&mut watcher).await));
    }
    let stored = all(hub.address, "s").await;
    let mut stored: Vec<_> = stored.iter().map(|received| text(received).to_owned()).collect();
    assert!(stored.len() > 1, "some were stored");
    got.sort();
    stored.sort();
    assert_eq!(got, stored);
}

/// A session on a connection written by hand, on stream 1.
async fn manual_session(address: SocketAddr) -> Manual {
    let mut connection = Manual::connect(address, &[]).await;
    connection.begin(1, SESSION).await.expect("a live connection");
    let is_headers = |frame: &RawFrame| frame.kind == HEADERS && frame.stream == 1;
    connection.frame_where(is_headers).await.expect("a session");
    connection
}

#[tokio::test]
async fn a_flood_of_empty_data_ends_its_connection() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let connection = manual_session(hub.address).await;
    let some = frame(DATA, 0, 1, &[]).repeat(100);
    let Ok(code) = connection.flood(&some, 10_000).await else { panic!("a million frames of nothing are borne") };
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    witness.is_served().await;
    until_alone(&hub).await;
}

#[tokio::test]
async fn commands_in_single_bytes_are_commands() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut watcher = watcher(hub.address, "tiny").await;
    let mut connection = manual_session(hub.address).await;
    let mut bytes = Vec::new();
    for n in 0..COMMANDS {
        for byte in command(0, Wire::Publish(publish(vec![event("tiny", n.to_string())]))) {
            bytes.extend(frame(DATA, 0, 1, &[byte]));
        }
    }
    // The hub may bear them or, as HTTP/2 allows, end the connection; what comes is in order and whole.
    let borne = connection.send(&bytes).await.is_ok();
    connection.send(&frame(PING, 0, 0, &[1; 8])).await.ok();
    let borne = borne && connection.frame_where(|f| f.kind == PING && f.flags == 1).await.is_some();
    assert!(borne, "{} small frames at once are within the budget of h2", bytes.len() / 10);
    let mut got = Vec::new();
    while got.len() < COMMANDS {
        got.extend(texts(&next_events(&mut watcher).await));
    }
    assert!(got.iter().enumerate().all(|(n, text)| *text == n.to_string()), "{got:?}");
    witness.is_served().await;
}

#[tokio::test]
async fn a_message_that_never_ends_costs_no_more_than_a_frame() {
    let process = Process::start(&[]);
    let mut witness = Witness::open(process.address).await;
    let before = process.resident_bytes();
    // 100 sessions, each with the beginning of the largest frame and then drop after drop.
    let mut calls = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = Http2::connect(process.address).await;
        for _ in 0..25 {
            let mut call = connection.call(SESSION).await;
            assert!(matches!(next(&mut call).await, Frame::Welcome(_)));
            call.send(vec![0, 0, 0x40, 0, 0]);
            for _ in 0..200 {
                call.send(vec![0]);
            }
            calls.push(call);
        }
        connections.push(connection);
    }
    witness.is_served().await;
    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes for 100 sessions that sent 200 bytes each");
    calls.iter_mut().for_each(Call::reset);
    witness.is_served().await;
}

#[tokio::test]
async fn data_against_the_windows_ends_its_session() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = manual_session(hub.address).await;
    // Takes nothing of what the hub answers, and sends on when the hub reads no more.
    let ping = command(1, Wire::Ping(Ping { nonce: "n".repeat(64) }));
    let pings = frame(DATA, 0, 1, &ping.repeat(100));
    let mut over = false;
    for round in 0..20_000 {
        let sent = connection.send(&pings).await.is_ok();
        over = !sent || (round % 100 == 0 && metric(&hub, "switchyard_open_sessions").await == 1);
        if over {
            break;
        }
    }
    assert!(over, "the hub took {} bytes from a client that takes nothing", 20_000 * pings.len());
    witness.is_served().await;
    drop(connection);
    until_alone(&hub).await;
}

/// Clients that send a command as fast as they may and read no answer.
async fn check_memory(what: &str, bytes: &[u8], sessions: usize, most_bytes: usize, options: &[&str]) {
    let process = Process::start(options);
    let mut witness = Witness::open(process.address).await;
    let before = process.resident_bytes();
    let flood = bytes::Bytes::from(bytes.repeat(4 * MIB / bytes.len()));
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut connection = without_windows(process.address).await;
        let mut calls = Vec::new();
        for id in (1..).take(sessions / 4) {
            let mut call = connection.call(SESSION).await;
            call.send(probe_wish(id));
            call.send(flood.clone());
            calls.push(call);
        }
        all.push((connection, calls));
    }
    witness.is_served().await;
    // The hub reads no more of any of them.
    let waiting = async || crate::connections::counted(process.ops_address, "switchyard_queue_bytes ").await;
    let (mut last, mut looks_alike) = (0, 0);
    until("nothing more comes to wait", async || {
        let now = waiting().await;
        looks_alike = if std::mem::replace(&mut last, now) == now && now > 0 { looks_alike + 1 } else { 0 };
        looks_alike == 10
    })
    .await;
    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < most_bytes, "{what}: {grown} bytes more for {sessions} sessions");
    witness.is_served().await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded() {
    let ping = command(0, Wire::Ping(Ping { nonce: "n".repeat(64) }));
    check_memory("pings", &ping, 32, 32 * 8 * MIB, &[]).await;
    check_memory("bad frames", &framed(&[0x12, 200, 1]), 32, 32 * 8 * MIB, &[]).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_part_of_what_waits_in_the_hub() {
    let ping = command(0, Wire::Ping(Ping { nonce: "n".repeat(64) }));
    let options = ["--set", "sessions.hub_queue_bytes=16777216"];
    check_memory("pings", &ping, 32, 96 * MIB, &options).await;
}
