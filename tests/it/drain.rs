//! Shutting down in order, and in time whatever clients do.

use std::{collections::BTreeSet, time::Duration};

use switchyard::{
    model::{Alternatives, limits},
    proto::v1::{
        EndReason, SessionResponse, SubscribeRequest, session_request::Command as Wire, session_response::Frame,
        subscribe_response,
    },
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::{
    harness::{Process, Session, client, event, hub_with, publish, reason, reason_of_call, soon, spec},
    stored::{Folder, all, create, hub_on, stop, stream, text},
};

/// Reads a session to its end and checks that it is told all it must be.
async fn told_to_go(mut session: Session) {
    match session.frame().await.frame {
        Some(Frame::Draining(draining)) => {
            assert!(draining.deadline.is_some() && draining.reconnect_delay.is_some());
        }
        other => panic!("not draining: {other:?}"),
    }
    let ended = session.ended().await;
    assert_eq!((ended.subscription_id, ended.reason()), (1, EndReason::Draining));
    let status = ended.status.expect("a status");
    assert_eq!((status.code, reason(&status).as_str()), (Code::Unavailable as i32, "DRAINING"));
    assert!(ended.retry.expect("advice").retry);
    let status = session.end().await.expect_err("not OK");
    assert_eq!((status.code(), reason_of_call(&status).as_str()), (Code::Unavailable, "DRAINING"));
    assert!(status.get_details_retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_sessions_are_told_to_go_and_the_process_exits_in_time() {
    const CONNECTIONS: usize = 5;
    const SESSIONS: usize = 1_000;
    // No heartbeat comes first, however long it takes to open them.
    let settings = ["drain.spread_ms=1000", "drain.deadline_ms=25000", "sessions.heartbeat_interval_ms=600000"];
    let mut process = Process::start(&settings.map(|setting| ["--set", setting]).concat());
    let mut sessions = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = client(process.address).await;
        for _ in 0..SESSIONS {
            let mut session = Session::open_on(&mut client).await;
            session.subscribe(1, spec(&["idle"])).await;
            sessions.push(session);
        }
    }
    let mut silent = TcpStream::connect(process.address).await.expect("a connection");
    let address = format!("http://{}", process.address);
    let channel = tonic::transport::Channel::from_shared(address).expect("a URL").connect().await.expect("a hub");
    let request = HealthCheckRequest { service: String::new() };
    let _watch = HealthClient::new(channel).watch(request).await.expect("a stream").into_inner();

    process.signal("TERM");
    let readers: Vec<_> = sessions.into_iter().map(|session| tokio::spawn(told_to_go(session))).collect();
    for reader in readers {
        reader.await.expect("told to go");
    }
    let exit = tokio::task::spawn_blocking(move || process.exit(Duration::from_secs(25))).await.expect("joined");
    assert_eq!(exit.code(), Some(0));
    let mut nothing = Vec::new();
    soon("the silent socket to close", silent.read_to_end(&mut nothing)).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_cannot_hold_up_the_exit() {
    let mut process = Process::start(&["--set", "drain.spread_ms=100", "--set", "drain.deadline_ms=2000"]);
    let mut stuck = Session::open(process.address).await;
    stuck.subscribe(1, spec(&["flood"])).await;
    // More than every window and buffer between here and there; the response is never read.
    let mut publisher = client(process.address).await;
    for _ in 0..64 {
        let events = vec![event("flood", "x".repeat(100_000)); 8];
        publisher.publish(publish(events)).await.expect("published");
    }
    process.signal("TERM");
    let exit = tokio::task::spawn_blocking(move || process.exit(Duration::from_secs(10))).await.expect("joined");
    assert_eq!(exit.code(), Some(0));
    drop(stuck);
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut process = Process::start(&["--set", "drain.propagation_delay_ms=60000"]);
    process.signal("TERM");
    crate::harness::until("it drains", async || {
        crate::harness::http_get(process.ops_address, "/readyz").await.starts_with("HTTP/1.1 503")
    })
    .await;
    process.signal("TERM");
    assert_eq!(process.exit(Duration::from_secs(10)).code(), Some(0));
}

#[tokio::test]
async fn while_draining_no_new_session_is_opened() {
    let process = Process::start(&["--set", "drain.spread_ms=20000"]);
    let mut client = client(process.address).await;
    let mut session = Session::open_on(&mut client).await;
    process.signal("TERM");
    assert!(matches!(session.frame().await.frame, Some(Frame::Draining(_))));
    let (_commands, receiver) = tokio::sync::mpsc::channel(1);
    let refused = soon("an answer", client.session(tokio_stream::wrappers::ReceiverStream::new(receiver))).await;
    // By the hub or, if the client has seen that its connection is to close, by the client itself.
    assert!(matches!(refused.expect_err("refused").code(), Code::Unavailable | Code::Cancelled));
    let metrics = crate::harness::http_get(process.ops_address, "/metrics").await;
    assert!(metrics.contains("switchyard_sessions_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn clients_learn_where_else_to_connect_when_they_come_and_when_they_have_to_go() {
    // As many as there may be, each as long as it may be.
    let host = "h".repeat(limits::MAX_ALTERNATIVE_BYTES - "https://-00:50051".len());
    let all: Vec<String> = (0..limits::MAX_ALTERNATIVES).map(|n| format!("https://{host}-{n:02}:50051")).collect();
    let hub = hub_with(|config| {
        config.sessions.alternatives = Alternatives::parse(&all.join(",")).expect("addresses");
        config.drain.spread_ms = 0;
    })
    .await;
    let mut client = client(hub.address).await;
    let mut session = Session::open_raw(&mut client).await;
    let Some(Frame::Welcome(welcome)) = session.frame().await.frame else { panic!("no welcome") };
    assert_eq!(welcome.alternatives, all);
    let one = client.subscribe(SubscribeRequest { spec: Some(spec(&["a"])) }).await.expect("subscribed");
    let first = soon("a frame", one.into_inner().next()).await.expect("a frame").expect("no error").frame;
    let Some(subscribe_response::Frame::Welcome(welcome)) = first else { panic!("no welcome: {first:?}") };
    assert_eq!(welcome.alternatives, all);
    let stopping = tokio::spawn(hub.stop(Duration::ZERO));
    let Some(Frame::Draining(draining)) = session.frame().await.frame else { panic!("not draining") };
    assert_eq!(draining.alternatives, all);
    assert_eq!(reason_of_call(&session.end().await.expect_err("not OK")), "DRAINING");
    stopping.await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_for_a_session_that_is_drained_is_answered_before_it_ends() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    stop(hub).await;
    let mut stored = 0;
    for round in 0..10 {
        let hub = hub_on(&folder).await;
        let mut session = Session::open(hub.address).await;
        let mut answered = BTreeSet::new();
        for n in 1..=400 {
            session.send(n, Wire::Publish(publish(vec![event("s.x", format!("{round}.{n}"))]))).await;
        }
        // In the middle of it.
        while answered.len() < 20 {
            answered.extend(published(session.frame().await));
        }
        let stopping = tokio::spawn(hub.stop(Duration::ZERO));
        let end = loop {
            match session.next().await {
                Ok(frame) => answered.extend(published(frame)),
                Err(end) => break end.expect("not OK"),
            }
        };
        assert_eq!(reason_of_call(&end), "DRAINING");
        stopping.await.expect("stopped");

        let hub = hub_on(&folder).await;
        let kept = all(hub.address, "s").await;
        let kept: Vec<&str> = kept[stored..].iter().map(text).collect();
        let expected: Vec<String> = answered.iter().map(|n| format!("{round}.{n}")).collect();
        assert_eq!(kept, expected, "round {round}");
        stored += kept.len();
        stop(hub).await;
    }
}

/// The request that a frame answers, if that is a publish which was stored.
fn published(frame: SessionResponse) -> Option<i64> {
    match frame.frame {
        Some(Frame::Published(published)) => {
            assert!(published.results.iter().all(|result| result.status.is_none()), "{published:?}");
            Some(frame.request_id)
        }
        Some(Frame::Draining(_) | Frame::Heartbeat(_)) => None,
        other => panic!("not an answer: {other:?}"),
    }
}
