//! How many connections there may be and how long they live; the hub tells a client that it is to go before it is made
//! to.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use h2::client::Builder;
use http::{Request, Response};
use switchyard::{
    model::Alternatives,
    net::{self, Acceptor, Connections, Http, Inbound, Options},
    proto::v1::{Draining, EndReason, Ping, StartPreset, session_request::Command as Wire, session_response::Frame},
    server::Server,
    tasks::{OnPanic, Tasks},
    telemetry::Metrics,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{
        Process, Session, client, config, event, http_get, hub_with, metric, publish, reason, reason_of_call, soon,
        spec, until,
    },
    http2::{Call, GOAWAY, Http2, Manual, SESSION, command},
    stored::{Folder, Reader, create, from, hub_on_with, numbered, preset, resume, store, stream},
    witness::Witness,
};

/// How many connections the hub ended for a reason.
async fn ended(hub: &Server, reason: &str) -> u64 {
    counted(hub.ops_address, &format!("switchyard_connections_ended_total{{reason=\"{reason}\"}} ")).await
}

pub async fn counted(ops_address: SocketAddr, name: &str) -> u64 {
    let text = http_get(ops_address, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

async fn hello(_: Request<Inbound>) -> Result<Response<String>, Infallible> {
    Ok(Response::new("hello".to_owned()))
}

/// Whether a connection is served.
async fn is_served(stream: &mut TcpStream) -> bool {
    // To a connection that was closed at once nothing may be sent, or what is sent is answered by a reset.
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ok();
    let mut answer = [0; 12];
    soon("an answer or a close", stream.read_exact(&mut answer)).await.is_ok()
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_and_no_more() {
    let options = Options { max_per_address: 2, ..Options::default() };
    let (metrics, tasks) = (Arc::new(Metrics::default()), Tasks::default());
    let (bound, listener) = net::listen(&config().listen, &options).await.expect("a port");
    let address = bound.tcp();
    // The connections are real; as where they come from, the network is told what the test wants.
    let v6 = |low: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, low).into();
    let v4 = |low: u8| Ipv4Addr::new(192, 0, 2, low).into();
    let peers =
        [v4(1), v4(1), v4(1), v4(2), v6(1), v6(2), v6(3), Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    let served = [true, true, false, true, true, true, false, true, true];
    let mut from = peers.into_iter().chain([Ipv4Addr::LOCALHOST.into(), v4(1)]).map(|ip| SocketAddr::new(ip, 1).into());
    let listener = listener.map(move |accepted| accepted.map(|(stream, peer)| (stream, from.next().unwrap_or(peer))));
    let connections = Arc::new(Connections::new(Arc::clone(&metrics), Arc::default()));
    let acceptor = Acceptor {
        options: Arc::new(options),
        tls: None,
        connections: Arc::clone(&connections),
        tasks: tasks.clone(),
        metrics,
        stop: CancellationToken::new(),
    };
    let edge = Http::new(tower::service_fn(hello), Arc::clone(&acceptor.options), tasks.clone());
    tasks.spawn("accept", OnPanic::Stop, acceptor.run(listener, edge));
    let mut open = Vec::new();
    for (peer, served) in peers.into_iter().zip(served) {
        let mut stream = TcpStream::connect(address).await.expect("a port");
        assert_eq!(is_served(&mut stream).await, served, "{peer}");
        open.push(stream);
    }
    // As many from this machine as anybody likes.
    let mut third = TcpStream::connect(address).await.expect("a port");
    assert!(is_served(&mut third).await);
    open.remove(0);
    until("one has left", async || connections.count() == 7).await;
    let mut again = TcpStream::connect(address).await.expect("a port");
    assert!(is_served(&mut again).await, "there is room again");
}

#[tokio::test]
async fn a_flood_of_connections_leaves_those_that_are_there_alone() {
    let hub = hub_with(|config| config.connections.max = 20).await;
    let mut witness = Witness::open(hub.address).await;
    let mut flood = Vec::new();
    for _ in 0..500 {
        flood.push(TcpStream::connect(hub.address).await.expect("the system accepts"));
    }
    until("all were looked at", async || metric(&hub, "switchyard_connections_refused_total").await == 481).await;
    assert_eq!(metric(&hub, "switchyard_open_connections").await, 20);
    witness.is_served().await;
    drop(flood);
    until("there is room again", async || metric(&hub, "switchyard_open_connections").await == 1).await;
    Session::open(hub.address).await.subscribe(1, spec(&["a"])).await;
    witness.is_served().await;
}

/// Whether the operator's port answers within a second.
async fn answers(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.expect("the system accepts");
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.ok();
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut answer)).await;
    matches!(read, Ok(Ok(_))) && answer == *b"HTTP/1.1 200"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_files_left_the_hub_serves_those_it_has_and_recovers() {
    let flags = ["--set", "connections.handshake_timeout_ms=600000"];
    // Fewer than it needs for those that it would accept.
    let process = Process::start_with_files(32, &flags);
    let mut witness = Witness::open(process.address).await;
    let mut taken = Vec::new();
    for address in [process.ops_address, process.address] {
        for _ in 0..60 {
            taken.push(TcpStream::connect(address).await.expect("the system accepts"));
        }
        witness.is_served().await;
    }
    assert!(!answers(process.ops_address).await, "there is no file left for anybody else");
    witness.is_served().await;
    taken.clear();
    until("the hub answers again", async || answers(process.ops_address).await).await;
    assert!(counted(process.ops_address, "switchyard_accept_errors_total ").await > 0, "files were short");
    Session::open(process.address).await.subscribe(1, spec(&["a"])).await;
    witness.is_served().await;
}

#[tokio::test]
async fn clients_never_take_the_last_file() {
    let process = Process::start_with_files(128, &["--set", "connections.handshake_timeout_ms=600000"]);
    let mut witness = Witness::open(process.address).await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(TcpStream::connect(process.address).await.expect("the system accepts"));
    }
    until("all were looked at", async || {
        counted(process.ops_address, "switchyard_connections_refused_total{reason=\"hub\"} ").await == 137
    })
    .await;
    assert_eq!(counted(process.ops_address, "switchyard_accept_errors_total ").await, 0);
    witness.is_served().await;
}

async fn next(call: &mut Call) -> Frame {
    call.frame().await.expect("the connection lives").expect("open").frame.expect("a known frame")
}

#[tokio::test]
async fn a_connection_without_streams_is_asked_to_go_and_one_with_a_session_is_not() {
    let hub = hub_with(|config| config.connections.idle_timeout_ms = 1_000).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut call = connection.call(SESSION).await;
    assert!(matches!(next(&mut call).await, Frame::Welcome(_)));

    let mut idle = Manual::connect(hub.address, &[]).await;
    let goaway = idle.frame_where(|frame| frame.kind == GOAWAY).await.expect("told before the close");
    assert_eq!(goaway.payload[4..8], [0; 4], "no error");
    assert_eq!(ended(&hub, "idle").await, 1);

    // Older than the idle one, and idle as long; but it has a stream.
    call.send(command(1, Wire::Ping(Ping::default())));
    assert!(matches!(next(&mut call).await, Frame::Pong(_)));
    // Without it, the time begins.
    drop(call);
    until("it goes", async || metric(&hub, "switchyard_open_connections").await <= 1).await;
    assert_eq!(ended(&hub, "idle").await, 2);
}

#[tokio::test]
async fn a_client_whose_idle_connection_went_connects_again() {
    let hub = hub_with(|config| config.connections.idle_timeout_ms = 1_000).await;
    let mut client = client(hub.address).await;
    client.publish(publish(vec![event("a", "x")])).await.expect("published");
    until("its connection is gone", async || metric(&hub, "switchyard_open_connections").await == 0).await;
    client.publish(publish(vec![event("a", "x")])).await.expect("published on another");
}

/// Reads until the hub tells a session to go.
async fn draining(call: &mut Call) -> Draining {
    loop {
        match next(call).await {
            Frame::Draining(draining) => return draining,
            Frame::Welcome(_) | Frame::Heartbeat(_) | Frame::Subscribed(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_of_age_goes_after_its_sessions_were_told() {
    const SESSIONS: i64 = 8;
    let hub = hub_with(|config| {
        config.connections.max_age_ms = 1_000;
        config.connections.max_age_grace_ms = 4_000;
    })
    .await;
    let mut connection = Http2::connect(hub.address).await;
    let mut calls = Vec::new();
    for id in 1..=SESSIONS {
        let mut call = connection.call(SESSION).await;
        let wish = switchyard::proto::v1::Subscribe { subscription_id: id, spec: Some(spec(&["a"])) };
        call.send(command(1, Wire::Subscribe(wish)));
        calls.push(call);
    }
    let mut deadlines = Vec::new();
    for call in &mut calls {
        let told = draining(call).await;
        let deadline = SystemTime::try_from(told.deadline.expect("a deadline")).expect("a time");
        let delay = Duration::try_from(told.reconnect_delay.expect("a delay")).expect("a duration");
        assert!(delay <= Duration::from_millis(400), "{delay:?}");
        deadlines.push(deadline);
    }
    deadlines.sort_unstable();
    deadlines.dedup();
    assert!(deadlines.len() > 1, "the ends are spread");
    assert_eq!(ended(&hub, "age").await, 1);
    for (id, call) in (1..).zip(&mut calls) {
        match next(call).await {
            Frame::Ended(end) => {
                assert_eq!((end.subscription_id, end.reason()), (id, EndReason::Draining));
                assert_eq!(reason(&end.status.expect("a status")), "DRAINING");
            }
            other => panic!("not the end: {other:?}"),
        }
        let status = call.end_of_stream().await.expect("the connection lives").expect("a status");
        assert_eq!((status.code(), reason_of_call(&status).as_str()), (Code::Unavailable, "DRAINING"));
        assert!(status.get_details_retry_info().is_some());
    }
    assert!(SystemTime::now() < deadlines[deadlines.len() - 1] + Duration::from_secs(10));
    until("the connection is gone", async || metric(&hub, "switchyard_open_connections").await == 0).await;
    assert_eq!(metric(&hub, "switchyard_open_sessions").await, 0);
}

#[tokio::test]
async fn a_client_that_does_not_go_is_closed_after_the_grace() {
    let hub = hub_with(|config| {
        config.connections.max_age_ms = 1_000;
        config.connections.max_age_grace_ms = 1_000;
    })
    .await;
    // Takes no data at all, so it hears neither that it is to go nor the end of its session.
    let mut connection = Http2::connect_with(Builder::new().initial_window_size(0), hub.address).await;
    let mut call = connection.call(SESSION).await;
    call.headers().await.expect("a session");
    until("it is closed", async || {
        metric(&hub, "switchyard_open_connections").await == 0 && metric(&hub, "switchyard_open_sessions").await == 0
    })
    .await;
    assert_eq!(ended(&hub, "age").await, 1);
}

#[tokio::test]
async fn a_client_whose_connection_is_of_age_learns_where_else_to_connect() {
    let hub = hub_with(|config| {
        config.connections.max_age_ms = 1_000;
        config.sessions.alternatives = Alternatives::parse("http://hub-1:50051").expect("addresses");
    })
    .await;
    let mut session = Session::open(hub.address).await;
    let Some(Frame::Draining(draining)) = session.frame().await.frame else { panic!("not draining") };
    assert_eq!(draining.alternatives, ["http://hub-1:50051"]);
}

#[tokio::test]
async fn a_young_connection_stays() {
    let hub = hub_with(|config| config.connections.max_age_ms = 4_000).await;
    let mut first = Session::open(hub.address).await;
    assert!(matches!(first.frame().await.frame, Some(Frame::Draining(_))), "it is of age");
    // This one is younger by nearly all of that.
    let mut second = Session::open(hub.address).await;
    second.subscribe(1, spec(&["a"])).await;
    assert_eq!(second.publish(vec![event("b", "x")]).await.results.len(), 1);
    assert_eq!(ended(&hub, "age").await, 1);
}

#[tokio::test]
async fn a_reader_of_a_stream_goes_on_where_its_connection_ended() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| {
        config.connections.max_age_ms = 1_500;
        config.connections.max_age_grace_ms = 6_000;
    })
    .await;
    create(hub.address, stream("s", &["s.>"])).await;
    let (mut got, mut start) = (Vec::new(), preset(StartPreset::Earliest));
    for round in 0..3 {
        let mut reader = Reader::open(hub.address, from("s", start)).await;
        store(hub.address, numbered("s.a", round * 5..(round + 1) * 5)).await;
        let ended = loop {
            match reader.step().await {
                Frame::Ended(ended) => break ended,
                Frame::Events(_) | Frame::Progress(_) | Frame::Draining(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        };
        assert_eq!(ended.reason(), EndReason::Draining);
        got.extend(reader.sequences());
        start = resume(&ended.resume_token);
    }
    assert_eq!(got, (1..=15).collect::<Vec<_>>());
}
