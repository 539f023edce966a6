//! Clients that keep every rule of HTTP/2 keep their connection, however the hub is held up: what slows them down is flow
//! control and nothing else. Floods are in `abuse.rs`.

use switchyard::proto::v1::{Ping, session_request::Command as Wire, session_response::Frame};

use crate::{
    abuse::next,
    connections::counted,
    harness::{client, event, hub, hub_with, metric, publish, until},
    http2::{
        DATA, END_HEADERS, HEADERS, Http2, Manual, PING, PUBLISH, RST_STREAM, SESSION, command, frame, framed,
        header_block,
    },
    witness::Witness,
};

/// The flag of the last frame of a stream.
const END_STREAM: u8 = 1;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[tokio::test]
async fn small_commands_that_wait_cost_no_connection() {
    const SESSIONS: i64 = 8;
    const PINGS: i64 = 18_000;
    // More than one session's window of small frames, and less than those of all sessions.
    let hub = hub_with(|config| config.connections.small_frame_budget_bytes = 4 * 1024 * 1024).await;
    // Of its connection it takes whatever comes: the calls are read one after the other.
    let mut client = h2::client::Builder::new();
    client.initial_window_size(0).initial_connection_window_size(64 * 1024 * 1024);
    let mut connection = Http2::connect_with(&client, hub.address).await;
    let mut calls = Vec::new();
    for session in 1..=SESSIONS {
        // Takes no answers, so that the hub soon takes no commands; then the window of the stream fills with small frames.
        let mut call = connection.call(SESSION).await;
        for n in 1..=PINGS {
            call.send(command(n, Wire::Ping(Ping { nonce: "n".repeat(64) })));
        }
        let most = u64::try_from(session).expect("a few") * 1024 * 1024;
        until("it takes no more commands", async || metric(&hub, "switchyard_queue_bytes").await > most).await;
        calls.push(call);
    }
    Witness::open(hub.address).await.is_served().await;

    connection.open_windows(1024 * 1024).await;
    for call in &mut calls {
        assert!(matches!(next(call).await, Frame::Welcome(_)));
        let mut pongs = 0;
        while pongs < PINGS {
            match next(call).await {
                Frame::Pong(_) => pongs += 1,
                Frame::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn calls_that_are_cancelled_together_cost_no_connection() {
    // As many as may be open, many times over, as when their deadlines pass while the hub is held up.
    const CALLS: u32 = 40_000;
    let hub = hub().await;
    let mut connection = Manual::connect(hub.address, &[]).await;
    let block = header_block(PUBLISH, &[]);
    let request = framed(&prost::Message::encode_to_vec(&publish(vec![event("a", "x")])));
    let calls: Vec<u32> = (0..CALLS).map(|n| n * 2 + 1).collect();
    for together in calls.chunks(4_000) {
        let mut bytes = Vec::new();
        for stream in together {
            bytes.extend(frame(HEADERS, END_HEADERS, *stream, &block));
            bytes.extend(frame(DATA, END_STREAM, *stream, &request));
            bytes.extend(frame(RST_STREAM, 0, *stream, &CANCEL));
        }
        bytes.extend(frame(PING, 0, 0, &[7; 8]));
        connection.send(&bytes).await.expect("a live connection");
        let pong = connection.frame_where(|frame| frame.kind == PING).await.expect("it lives");
        assert_eq!(pong.payload, [7; 8]);
    }
    assert_eq!(counted(hub.ops_address, "switchyard_connections_ended_total{reason=\"too_many_resets\"} ").await, 0);
}

#[tokio::test]
async fn calls_that_are_refused_before_their_body_has_come_cost_no_connection() {
    let hub = hub_with(|config| config.connections.max_local_resets = 10).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut other = connection.call(SESSION).await;
    for _ in 0..100 {
        let mut call = connection.call("/switchyard.v1.HubService/Nonsense").await;
        for _ in 0..20 {
            call.send(vec![0; 10_000]);
        }
        let (_, _, status) = call.end().await.expect("the connection lives");
        assert_eq!(status.expect("a status").code(), tonic::Code::Unimplemented);
        // What it had begun to say; some of it comes after the answer.
        for _ in 0..20 {
            call.send(vec![0; 10_000]);
        }
        call.half_close();
    }
    other.send(command(1, Wire::Ping(Ping::default())));
    assert!(matches!(next(&mut other).await, Frame::Welcome(_)));
    assert!(matches!(next(&mut other).await, Frame::Pong(_)));
}

#[tokio::test]
async fn a_response_that_nobody_takes_is_cut_and_the_connection_goes_on() {
    let hub = hub_with(|config| config.connections.response_timeout_ms = 200).await;
    let mut connection = Http2::connect_with(h2::client::Builder::new().initial_window_size(0), hub.address).await;
    let mut call = connection.call(PUBLISH).await;
    call.send(framed(&prost::Message::encode_to_vec(&publish(vec![event("a", "x")]))));
    call.half_close();
    let cut = call.frame().await.expect_err("cut");
    assert_eq!(cut.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "as gRPC has RESOURCE_EXHAUSTED");
    assert_eq!(counted(hub.ops_address, "switchyard_streams_cut_total{reason=\"response_stalled\"} ").await, 1);
    connection.open_windows(65_535).await;
    let mut session = connection.call(SESSION).await;
    assert!(matches!(next(&mut session).await, Frame::Welcome(_)));
    client(hub.address).await.publish(publish(vec![event("a", "y")])).await.expect("published");
}

#[tokio::test]
async fn what_a_connection_was_ended_for_is_counted() {
    let hub = hub_with(|config| config.connections.max_early_resets = 10).await;
    let mut connection = Manual::connect(hub.address, &[]).await;
    let block = header_block(SESSION, &[]);
    let mut bytes = Vec::new();
    for stream in (0..1_000_u32).map(|n| n * 2 + 1) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &block));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    connection.send(&bytes).await.expect("a live connection");
    connection.until_closed().await;
    let ended = async |reason: &str| {
        counted(hub.ops_address, &format!("switchyard_connections_ended_total{{reason=\"{reason}\"}} ")).await
    };
    until("it is counted", async || ended("too_many_resets").await == 1).await;

    let mut connection = Manual::connect(hub.address, &[]).await;
    connection.send(&frame(PING, 0, 0, &[0; 3])).await.expect("a live connection");
    connection.until_closed().await;
    until("it is counted", async || ended("protocol_error").await == 1).await;
}
