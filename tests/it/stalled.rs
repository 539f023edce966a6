//! Clients that take nothing of what they are sent: they are left alone while the hub has room, told their end when it has
//! not, and cut when they do not take even that.

use std::net::SocketAddr;

use h2::client::Builder;
use switchyard::{
    proto::v1::{Subscribe, SubscriptionSpec, session_request::Command as Wire, session_response::Frame},
    server::Server,
};
use tonic::Code;

use crate::{
    abuse::{next, until_alone},
    connections::counted,
    harness::{Session, client, credit, event, hub_with, metric, publish, reason_of_call, spec, texts, until},
    http2::{Http2, SESSION, command},
    witness::Witness,
};

/// A connection on which the hub may send headers but no data.
pub async fn without_windows(address: SocketAddr) -> Http2 {
    Http2::connect_with(Builder::new().initial_window_size(0), address).await
}

/// A wish for what is published to find out whether its session still lives.
pub fn probe_wish(subscription_id: i64) -> Vec<u8> {
    let wish = SubscriptionSpec { credit: credit(0, 0), ..spec(&["probe"]) };
    command(0, Wire::Subscribe(Subscribe { subscription_id, spec: Some(wish) }))
}

/// So little may wait in the hub that a few probes make it short of memory.
const LITTLE_ROOM_BYTES: usize = 64 * 1024;
const PROBE_BYTES: usize = 4 * 1024;

/// A hub that ends sessions whose clients take nothing for this long.
async fn hub_with_little_room(write_timeout_ms: u64) -> Server {
    hub_with(|config| {
        config.sessions.write_timeout_ms = write_timeout_ms;
        config.sessions.hub_queue_bytes = LITTLE_ROOM_BYTES;
    })
    .await
}

/// Waits until no session is left that wants probes: a session that is ending takes no events. Probes are large, so that
/// the hub becomes short of memory.
async fn until_none_takes_probes(address: SocketAddr) {
    let mut publisher = client(address).await;
    until("all are ended", async || {
        let probe = event("probe", "x".repeat(PROBE_BYTES));
        let response = publisher.publish(publish(vec![probe])).await.expect("published");
        response.into_inner().results[0].matched == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_ended_and_told_when_it_reads_on() {
    let hub = hub_with_little_room(2_000).await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = without_windows(hub.address).await;
    let mut call = connection.call(SESSION).await;
    call.send(probe_wish(7));
    until("it has subscribed", async || metric(&hub, "switchyard_open_subscriptions").await == 2).await;
    until_none_takes_probes(hub.address).await;
    witness.is_served().await;
    assert_eq!(metric(&hub, "switchyard_queue_bytes").await, 0);

    connection.open_windows(65_535).await;
    let mut ends = Vec::new();
    while let Some(frame) = call.frame().await.expect("the connection lives") {
        match frame.frame.expect("a known frame") {
            Frame::Ended(ended) => ends.push((ended.subscription_id, ended.reason().as_str_name())),
            Frame::Welcome(_) | Frame::Subscribed(_) | Frame::Gap(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(ends, [(7, "END_REASON_SESSION_STALLED")]);
    let status = call.end_of_stream().await.expect("the connection lives").expect("a status");
    assert_eq!((status.code(), reason_of_call(&status).as_str()), (Code::ResourceExhausted, "SESSION_STALLED"));
    let mut next_call = connection.call(SESSION).await;
    assert!(matches!(next(&mut next_call).await, Frame::Welcome(_)), "the connection is as good as before");
    witness.is_served().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left_alone_while_the_hub_has_room() {
    let hub = hub_with(|config| {
        config.sessions.write_timeout_ms = 100;
        config.sessions.heartbeat_interval_ms = 100;
    })
    .await;
    let mut connection = without_windows(hub.address).await;
    let mut call = connection.call(SESSION).await;
    let wish = SubscriptionSpec { credit: credit(10, 0), ..spec(&["late"]) };
    call.send(command(0, Wire::Subscribe(Subscribe { subscription_id: 7, spec: Some(wish) })));
    until("it has subscribed", async || metric(&hub, "switchyard_open_subscriptions").await == 1).await;
    client(hub.address).await.publish(publish(vec![event("late", "kept")])).await.expect("published");

    // Ten times the timeout, by the clock of another session.
    let mut other = Session::open(hub.address).await;
    let mut heartbeats = 0;
    while heartbeats < 10 {
        heartbeats += usize::from(matches!(other.frame().await.frame, Some(Frame::Heartbeat(_))));
    }
    assert_eq!(metric(&hub, "switchyard_open_sessions").await, 2);

    connection.open_windows(65_535).await;
    loop {
        match next(&mut call).await {
            Frame::Events(events) => break assert_eq!(texts(&events), ["kept"]),
            Frame::Welcome(_) | Frame::Subscribed(_) | Frame::Heartbeat(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_opens_no_window_and_goes_leaves_nothing() {
    let hub = hub_with_little_room(300).await;
    let mut witness = Witness::open(hub.address).await;
    for window in [0, 1] {
        let connection = Http2::connect_with(Builder::new().initial_window_size(window), hub.address).await;
        let mut connection = connection;
        let mut calls = Vec::new();
        for id in 1..=10 {
            let mut call = connection.call(SESSION).await;
            call.send(probe_wish(id));
            calls.push(call);
        }
        until("they have subscribed", async || metric(&hub, "switchyard_open_subscriptions").await == 11).await;
        until_none_takes_probes(hub.address).await;
        drop((calls, connection));
        until_alone(&hub).await;
        witness.is_served().await;
    }
}

#[tokio::test]
async fn a_stalled_client_that_never_reads_again_gives_its_place_back() {
    let hub = hub_with_little_room(200).await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = without_windows(hub.address).await;
    let mut call = connection.call(SESSION).await;
    call.send(probe_wish(7));
    assert!(call.headers().await.is_ok());
    until("it has subscribed", async || metric(&hub, "switchyard_open_subscriptions").await == 2).await;
    until_none_takes_probes(hub.address).await;
    until("its session is closed", async || metric(&hub, "switchyard_open_sessions").await == 1).await;
    let cut = call.frame().await.expect_err("cut");
    assert_eq!(cut.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "as gRPC has RESOURCE_EXHAUSTED");
    let counted = async |line: &str| counted(hub.ops_address, line).await;
    assert_eq!(counted("switchyard_streams_cut_total{reason=\"session_stalled\"} ").await, 1);
    assert_eq!(
        counted("switchyard_subscription_ends_total{reason=\"SESSION_STALLED\"} ").await,
        1,
        "not told, but counted"
    );
    witness.is_served().await;
}
