//! Connections that break in the middle of everything, several addresses, and connections that come of age.

use std::{collections::BTreeSet, time::Duration};

use switchyard::{
    client::{Client, Live, State, Subscription},
    model::Alternatives,
};

use super::{Running, all_of, answer, builder, next_gap, numbers, publish_numbered, read, relay::Relay};
use crate::{
    harness::{hub, hub_with, metric, soon, until},
    stored::{Folder, all, create, hub_on, hub_on_with, stop, stream, text},
    verifying::{free_address, until_worked_off},
};

#[tokio::test(flavor = "multi_thread")]
async fn wherever_connections_break_events_are_stored_once_read_once_and_done_once() {
    const EVENTS: usize = 4000;
    const ROUNDS: usize = 8;
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let relay = Relay::to(server.address).await;
    let client = Running::of(relay.address);
    let mut reader = client.subscribe(all_of("s").window(64)).await.expect("open");
    let reading = tokio::spawn(async move { read(&mut reader, EVENTS).await });
    let mut member = client.subscribe(all_of("s").group("g").window(64)).await.expect("open");
    let working = tokio::spawn(async move {
        let mut done = Vec::new();
        while done.len() < EVENTS {
            for event in super::next_batch(&mut member).await {
                done.push(event.text().expect("a text").to_owned());
                event.ack();
            }
        }
        // Until every word is stored the member must not go.
        (done, member)
    });
    let mut random = fastrand::Rng::new();
    for round in 0..ROUNDS {
        client.until(State::Up).await;
        let publisher = client.clone();
        let range = round * EVENTS / ROUNDS..(round + 1) * EVENTS / ROUNDS;
        let publishing = tokio::spawn(async move { publish_numbered(&publisher, "s.x", range).await });
        // In the middle of it, or a little later.
        crate::harness::pause(Duration::from_micros(random.u64(..20_000))).await;
        relay.cut();
        publishing.await.expect("published");
    }
    assert_eq!(soon("the last event", reading).await.expect("read"), numbers(0..EVENTS));
    let (done, member) = soon("the last of the work", working).await.expect("worked");
    assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), EVENTS, "nothing is done twice");
    until_worked_off(server.address, "s", "g").await;
    drop(member);
    let stored = all(server.address, "s").await;
    assert_eq!(stored.iter().map(text).collect::<Vec<_>>(), numbers(0..EVENTS), "once each, and in order");
    assert!(client.stats().sessions > 2, "{:?}", client.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_in_the_list_is_passed_over() {
    let server = hub().await;
    for _ in 0..5 {
        let addresses = [free_address().to_string(), server.address.to_string(), free_address().to_string()];
        let client = Running::start(Client::builder(addresses).name("test"));
        let status = client.until(State::Up).await;
        assert_eq!(status.address, server.address.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_an_address_too() {
    let server = hub().await;
    let client = Running::start(Client::builder([format!("http://localhost:{}", server.address.port())]));
    client.until(State::Up).await;
    answer(client.publish(super::numbered("a", 1))).await.expect("published");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_hub_drains_its_clients_go_to_the_other() {
    let servers = [hub().await, hub().await];
    let addresses = servers.each_ref().map(|server| server.address.to_string());
    let client = Running::start(Client::builder(addresses.clone()).name("test"));
    let first = client.until(State::Up).await.address;
    let mut live = client.subscribe(Live::to(["a"])).await.expect("open");
    let [one, two] = servers;
    let (leaves, stays) = if one.address.to_string() == first { (one, two) } else { (two, one) };
    let stopping = tokio::spawn(leaves.stop(Duration::ZERO));
    next_gap(&mut live).await;
    let status = client.status();
    assert_eq!((status.state, status.address), (State::Up, stays.address.to_string()));
    soon("the stop", stopping).await.expect("stopped");
    assert_eq!(client.reasons(), ["DRAINING"]);
    drop((client, live));
    stop(stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_given_one_address_goes_to_another_that_its_hub_has_named() {
    let stays = hub().await;
    let leaves = hub_with(|config| {
        let named = format!("http://{}", stays.address);
        config.sessions.alternatives = Alternatives::parse(&named).expect("an address");
        config.drain.spread_ms = 0;
    })
    .await;
    let client = Running::of(leaves.address);
    let mut live = client.subscribe(Live::to(["a"])).await.expect("open");
    let stopping = tokio::spawn(leaves.stop(Duration::ZERO));
    next_gap(&mut live).await;
    let status = client.status();
    assert_eq!((status.state, status.address), (State::Up, format!("http://{}", stays.address)));
    soon("the stop", stopping).await.expect("stopped");
    drop((client, live));
    stop(stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_of_age_are_replaced_and_nobody_notices() {
    const EVENTS: usize = 300;
    let folder = Folder::new();
    let age = |config: &mut switchyard::config::Config| {
        config.connections.max_age_ms = 1_000;
        config.connections.max_age_grace_ms = 2_000;
    };
    let server = hub_on_with(&folder, age).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    let mut reader = client.subscribe(all_of("s")).await.expect("open");
    let reading = tokio::spawn(async move { read(&mut reader, EVENTS).await });
    for number in 0..EVENTS {
        publish_numbered(&client, "s.x", number..number + 1).await;
        // Over several ages.
        crate::harness::pause(Duration::from_millis(15)).await;
    }
    assert_eq!(soon("the last event", reading).await.expect("read"), numbers(0..EVENTS));
    assert!(client.stats().sessions >= 3, "{:?}", client.stats());
    assert!(client.reasons().iter().all(|reason| reason == "DRAINING"), "{:?}", client.reasons());
    drop(client);
    until("no session is left", async || metric(&server, "switchyard_open_sessions").await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_are_back_soon_after_their_session_was_lost() {
    let server = hub().await;
    let relay = Relay::to(server.address).await;
    let client = Running::start(builder(relay.address));
    let mut all = Vec::new();
    for number in 0..10_000 {
        all.push(client.subscribe_soon(Live::to([format!("a.{number}")])).await.expect("taken"));
    }
    let last = all.last_mut().expect("some");
    soon("the last one", last.ready()).await.expect("open");
    relay.cut();
    let (_, gap) = next_gap(all.last_mut().expect("some")).await;
    assert_eq!(gap.count, None);
    until("all are open", async || all.iter().all(Subscription::is_open)).await;
    answer(client.publish(super::numbered("a.77", 77))).await.expect("published");
    let (before, _) = next_gap(&mut all[77]).await;
    assert!(before.is_empty());
    let switchyard::client::Item::Events(batch) = super::next(&mut all[77]).await else { panic!("no events") };
    assert_eq!(super::texts(&batch), ["77"]);
}
