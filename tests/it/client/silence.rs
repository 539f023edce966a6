//! Hubs that are there and say nothing: frozen processes, and connections that swallow what is sent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use switchyard::client::{ErrorKind, State};

use super::{
    Running, all_of, answer,
    home::Home,
    numbered, numbers, publish_numbered, read,
    relay::{Mode, Relay},
};
use crate::{
    harness::soon,
    stored::{create, stream},
};

/// Two heartbeat intervals of a second, and five seconds.
const LIMIT: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_hub_is_noticed_in_time_and_everything_goes_on_when_it_thaws() {
    let home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    let client = Running::of(home.address);
    let mut reader = client.subscribe(all_of("s")).await.expect("open");
    publish_numbered(&client, "s.x", 0..10).await;
    home.signal("STOP");
    let since = Instant::now();
    let publishing =
        client.publish(numbered("s.x", 10)).deadline(Duration::from_secs(60)).queued().await.expect("room");
    let impatient = client.publish(numbered("s.x", 99)).deadline(Duration::from_secs(1));
    let error = answer(impatient).await.expect_err("not answered");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unknown, "DEADLINE_PASSED"));
    let status = client.until(State::Waiting).await;
    let noticed = since.elapsed();
    // One that this machine held up waits five seconds more.
    assert!(noticed < LIMIT + Duration::from_secs(13), "after {noticed:?}");
    let reason = status.reason.expect("a reason");
    assert_eq!(reason.reason(), "NOTHING_HEARD");
    assert!(reason.to_string().contains(&home.address.to_string()), "{reason}");
    home.signal("CONT");
    soon("the answer", publishing).await.expect("stored");
    let got = read(&mut reader, 11).await;
    assert_eq!(got[..10], numbers(0..10));
    assert!(got[10..].iter().all(|text| ["10", "99"].contains(&text.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_swallows_what_is_sent_either_way_is_left() {
    let home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    tokio::join!(swallow(home.address, Mode::SwallowUp), swallow(home.address, Mode::SwallowDown));
    let stored = crate::stored::all(home.address, "s").await;
    assert_eq!(stored.len(), 2, "once each");
}

/// A connection that swallows what is sent one way, in the middle of a publish.
async fn swallow(hub: SocketAddr, mode: Mode) {
    let relay = Relay::to(hub).await;
    let client = Running::of(relay.address);
    client.until(State::Up).await;
    relay.set(mode);
    let publishing = client.publish(numbered("s.x", 1)).deadline(Duration::from_secs(60)).queued().await.expect("room");
    if mode == Mode::SwallowDown {
        client.until(State::Waiting).await;
    } else {
        // The hub hears nothing, and goes on sending heartbeats: its client cannot know, and need not.
        crate::harness::pause(Duration::from_secs(2)).await;
        relay.cut();
    }
    relay.set(Mode::Pass);
    soon("the answer", publishing).await.expect("stored");
}
