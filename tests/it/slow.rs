//! Clients that are slow on purpose, at every layer: TCP, TLS, the preface of HTTP/2, headers and bodies. What they hold
//! they hold for a limited time, and nobody else waits for them. What says nothing at all is in `abuse.rs`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use switchyard::{
    proto::v1::{Ping, session_request::Command as Wire, session_response::Frame},
    server::Server,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::{
    authority::{Authority, Secret, VERSIONS, tls_client, tls_stream, trust},
    harness::{event, http_get, hub_with, metric, pause, publish, reason_of_call, soon, until},
    http2::{
        CONTINUATION, Call, HEADERS, Http2, Manual, PREFACE, PUBLISH, SESSION, command, frame, framed, header_block,
    },
    witness::Witness,
};

/// Between the bytes of one who sends them one by one.
const DRIP: Duration = Duration::from_millis(40);

/// Sends bytes one by one, and the last again and again, until the hub closes the connection. What it sends cannot be
/// what keeps the connection open.
async fn drip_until_closed(stream: &mut TcpStream, bytes: &[u8]) {
    let (mut read, mut write) = stream.split();
    let reading = async {
        let mut nothing = Vec::new();
        read.read_to_end(&mut nothing).await.ok();
    };
    let writing = async {
        for byte in bytes.iter().chain(std::iter::repeat(&bytes[bytes.len() - 1])) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            pause(DRIP).await;
        }
    };
    let closed = async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    soon("the close", closed).await;
}

/// The first bytes of a client that speaks TLS.
fn client_hello(authority: &Authority) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).expect("a certificate");
    roots.add(der).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("bytes");
    hello
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_end_is_closed() {
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    let hub = hub_with(|config| {
        secret.serve(config);
        config.connections.handshake_timeout_ms = 3_000;
    })
    .await;
    let mut witness = Witness::of(tls_client(hub.address, trust(&authority)).await.expect("TLS")).await;
    let hello = client_hello(&authority);
    // Nothing; half a greeting; a whole one, and then nothing more.
    let stops_after = async |part: &[u8]| {
        let mut stream = TcpStream::connect(hub.address).await.expect("a port");
        stream.write_all(part).await.expect("sent");
        let mut answer = Vec::new();
        soon("the close", stream.read_to_end(&mut answer)).await.ok();
    };
    let drips = async {
        let mut stream = TcpStream::connect(hub.address).await.expect("a port");
        drip_until_closed(&mut stream, &hello).await;
    };
    // TLS and then nothing: the same time counts for the preface.
    let says_nothing = async {
        let mut stream = tls_stream(hub.address, &[&authority], &VERSIONS, None).await.expect("TLS");
        let mut nothing = Vec::new();
        soon("the close", stream.read_to_end(&mut nothing)).await.ok();
    };
    let half = &hello[..hello.len() / 2];
    tokio::join!(stops_after(&[]), stops_after(half), stops_after(&hello), drips, says_nothing, witness.is_served());
    until("they are counted", async || {
        let text = http_get(hub.ops_address, "/metrics").await;
        text.contains("switchyard_tls_handshake_failures_total{reason=\"timeout\"} 4")
            && text.contains("switchyard_connections_ended_total{reason=\"never_spoke\"} 1")
    })
    .await;
    witness.is_served().await;
    until("only the witness is left", async || metric(&hub, "switchyard_open_connections").await == 1).await;
}

/// How many connections the hub ended because others needed their place.
async fn displaced(hub: &Server) -> u64 {
    let text = http_get(hub.ops_address, "/metrics").await;
    let line = "switchyard_connections_ended_total{reason=\"displaced\"} ";
    text.lines().find_map(|found| found.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}

/// As many handshakes as there may be at a time.
const HANDSHAKES: u64 = 10;

/// Takes every place of a hub that clients have before they speak, and never goes on from there.
async fn take_every_place(hub: &Server, parts: &[&[u8]]) -> Vec<TcpStream> {
    let mut stuck = Vec::new();
    for part in parts.iter().cycle().take(HANDSHAKES as usize) {
        let mut stream = TcpStream::connect(hub.address).await.expect("a port");
        stream.write_all(part).await.expect("sent");
        stuck.push(stream);
    }
    until("all are in their handshake", async || metric(hub, "switchyard_open_connections").await == HANDSHAKES).await;
    stuck
}

#[tokio::test]
async fn handshakes_that_wait_for_their_client_keep_nobody_from_theirs() {
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    let hub = hub_with(|config| {
        secret.serve(config);
        config.connections.max_handshakes = HANDSHAKES as usize;
        config.connections.handshake_timeout_ms = 600_000;
    })
    .await;
    let hello = client_hello(&authority);
    let stuck = take_every_place(&hub, &[&[], &hello[..hello.len() / 2], &hello]).await;
    let mut served = Vec::new();
    for n in 1..=HANDSHAKES {
        until("a client is served", async || {
            let Ok(mut client) = tls_client(hub.address, trust(&authority)).await else { return false };
            client.publish(publish(vec![event("a", "x")])).await.expect("published");
            served.push(client);
            true
        })
        .await;
        if n == 1 {
            assert_eq!(displaced(&hub).await, 1, "no more than are needed go");
        }
    }
    // Whoever has spoken stands in nobody's way.
    assert_eq!(displaced(&hub).await, 1);
    for client in &mut served {
        client.publish(publish(vec![event("a", "x")])).await.expect("still there");
    }
    drop(stuck);
}

#[tokio::test]
async fn a_crowd_that_says_nothing_makes_room_and_the_oldest_goes_first() {
    let hub = hub_with(|config| {
        config.connections.max_handshakes = HANDSHAKES as usize;
        config.connections.handshake_timeout_ms = 600_000;
    })
    .await;
    let mut witness = Witness::open(hub.address).await;
    let mut stuck = Vec::new();
    for _ in 0..HANDSHAKES {
        stuck.push(TcpStream::connect(hub.address).await.expect("a port"));
    }
    until("all were accepted", async || metric(&hub, "switchyard_open_connections").await == HANDSHAKES + 1).await;
    // One more goes at once while none of them has had its second, and takes the place of the oldest after that.
    until("the oldest goes", async || {
        let mut one_more = TcpStream::connect(hub.address).await.expect("a port");
        one_more.write_all(PREFACE).await.ok();
        displaced(&hub).await > 0
    })
    .await;
    let mut nothing = Vec::new();
    soon("the close", stuck[0].read_to_end(&mut nothing)).await.ok();
    witness.is_served().await;
}

#[tokio::test]
async fn a_preface_in_drops_is_closed() {
    let hub = hub_with(|config| config.connections.handshake_timeout_ms = 1_000).await;
    let mut witness = Witness::open(hub.address).await;
    let mut stream = TcpStream::connect(hub.address).await.expect("a port");
    drip_until_closed(&mut stream, &PREFACE[..PREFACE.len() - 1]).await;
    witness.is_served().await;
    let mut stream = TcpStream::connect(hub.address).await.expect("a port");
    drip_until_closed(&mut stream, b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
    witness.is_served().await;
    until("only the witness is left", async || metric(&hub, "switchyard_open_connections").await == 1).await;
}

#[tokio::test]
async fn headers_in_drops_are_closed() {
    // A client in the middle of its headers cannot answer a ping, so it is as good as gone.
    let hub = hub_with(|config| {
        config.connections.keepalive_interval_ms = 1_000;
        config.connections.keepalive_timeout_ms = 1_000;
    })
    .await;
    let mut witness = Witness::open(hub.address).await;
    let block = header_block(SESSION, &[]);
    // Half of a frame; and whole frames of one byte each, none of which is the last.
    let whole = frame(HEADERS, 0, 1, &block);
    let pieces: [Vec<Bytes>; 2] = [
        whole[..whole.len() - 1].chunks(1).map(Bytes::copy_from_slice).collect(),
        std::iter::once(frame(HEADERS, 0, 1, &block[..1]).into())
            .chain(block[1..].chunks(1).map(|byte| frame(CONTINUATION, 0, 1, byte).into()))
            .collect(),
    ];
    for pieces in pieces {
        let Manual { mut write, read } = Manual::connect(hub.address, &[]).await;
        let sending = async {
            for piece in pieces.iter().cycle() {
                if write.write_all(piece).await.is_err() {
                    return;
                }
                pause(DRIP).await;
            }
        };
        soon("the close", sending).await;
        drop(read);
        witness.is_served().await;
    }
    until("only the witness is left", async || metric(&hub, "switchyard_open_connections").await == 1).await;
}

async fn next(call: &mut Call) -> Frame {
    call.frame().await.expect("the connection lives").expect("open").frame.expect("a known frame")
}

/// The beginning of a message of 64 KiB.
const BEGINNING: [u8; 5] = [0, 0, 1, 0, 0];

/// Sends the beginning of a message and then drop after drop, until the hub has ended the call.
async fn drip_until_ended(hub: &Server, call: &mut Call, open_sessions: u64) -> tonic::Status {
    call.send(BEGINNING.to_vec());
    until("the call is over", async || {
        // Fails once the hub has reset the stream, which is as good.
        call.commands.send_data(Bytes::from_static(&[0]), false).ok();
        metric(hub, "switchyard_open_sessions").await == open_sessions
    })
    .await;
    call.end_of_stream().await.expect("the connection lives").expect("a status")
}

fn check_too_slow(status: &tonic::Status) {
    assert_eq!((status.code(), reason_of_call(status).as_str()), (Code::ResourceExhausted, "SESSION_STALLED"));
    assert!(status.message().contains("not complete"), "{status:?}");
}

async fn open(connection: &mut Http2) -> Call {
    let mut call = connection.call(SESSION).await;
    assert!(matches!(next(&mut call).await, Frame::Welcome(_)));
    call
}

#[tokio::test]
async fn a_frame_in_drops_ends_its_session_and_no_other() {
    let hub = hub_with(|config| config.sessions.frame_timeout_ms = 700).await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut other = open(&mut connection).await;
    let mut slow = open(&mut connection).await;
    // Whole frames first: the time is that of one frame, not of the session.
    slow.send(command(1, Wire::Ping(Ping::default())));
    assert!(matches!(next(&mut slow).await, Frame::Pong(_)));
    check_too_slow(&drip_until_ended(&hub, &mut slow, 2).await);
    // Idle for as long, between frames.
    other.send(command(1, Wire::Ping(Ping::default())));
    assert!(matches!(next(&mut other).await, Frame::Pong(_)));
    witness.is_served().await;
}

#[tokio::test]
async fn a_frame_that_is_slow_but_in_time_is_a_frame() {
    let hub = hub_with(|config| config.sessions.frame_timeout_ms = 20_000).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut call = open(&mut connection).await;
    for _ in 0..2 {
        for byte in command(1, Wire::Ping(Ping { nonce: "slow".into() })) {
            call.send(vec![byte]);
            pause(DRIP).await;
        }
        assert!(matches!(next(&mut call).await, Frame::Pong(pong) if pong.nonce == "slow"));
    }
}

#[tokio::test]
async fn a_request_that_does_not_come_ends_its_call() {
    let hub = hub_with(|config| config.sessions.frame_timeout_ms = 300).await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    let methods = [
        PUBLISH,
        "/switchyard.v1.HubService/Subscribe",
        "/switchyard.v1.StreamService/ListStreams",
        "/switchyard.v1.GroupService/ListGroups",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    ];
    for method in methods {
        for beginning in [&[][..], &BEGINNING] {
            let mut call = connection.call(method).await;
            call.send(beginning.to_vec());
            let (_, _, status) = call.end().await.expect("the connection lives");
            check_too_slow(&status.unwrap_or_else(|| panic!("{method}: no status")));
        }
    }
    // A whole message, and no end of the request.
    let mut call = connection.call(PUBLISH).await;
    call.send(framed(&prost::Message::encode_to_vec(&publish(vec![event("a", "x")]))));
    let (_, _, status) = call.end().await.expect("the connection lives");
    check_too_slow(&status.expect("a status"));
    witness.is_served().await;
}

#[tokio::test]
async fn reflection_may_be_idle_between_requests_but_not_within_one() {
    let hub = hub_with(|config| config.sessions.frame_timeout_ms = 300).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut idle = connection.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").await;
    let mut slow = connection.call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").await;
    slow.send(BEGINNING.to_vec());
    // The library of this service ends a call that it cannot read on as if the client had.
    let (_, _, status) = slow.end().await.expect("the connection lives");
    assert!(status.is_some(), "it is over");
    // `list_services` of a ServerReflectionRequest.
    idle.send(framed(&[0x3a, 0]));
    idle.half_close();
    let headers = idle.headers().await.expect("headers");
    assert!(tonic::Status::from_header_map(&headers.headers).is_none(), "it is answered");
}
