//! Clients that are drained: what they wait for, what they give back, and what is left of them.

use std::time::Duration;

use switchyard::client::{Delivery, Drain, ErrorKind, Live, State};

use super::{Running, all_of, deliveries, next_batch, numbered, publish_numbered};
use crate::{
    harness::{hub, metric, soon, until},
    stored::{Folder, create, hub_on, stream},
    verifying::{free_address, until_worked_off},
};

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_handlers_and_flushes_what_they_say() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let mut client = Running::of(server.address);
    publish_numbered(&client, "s.x", 0..3).await;
    let mut member = client.subscribe(all_of("s").group("g")).await.expect("open");
    let events = deliveries(&mut member, 3).await;
    let last = client.try_publish(numbered("s.x", 3)).expect("room");
    let draining = tokio::spawn({
        let client = client.clone();
        async move { client.drain(TIMEOUT, Drain::Finish).await }
    });
    client.until(State::Closing).await;
    assert!(soon("the end", member.next()).await.is_none(), "no new batches");
    let refused = client.subscribe(Live::to(["a"])).await.expect_err("closing");
    assert_eq!(refused.kind(), ErrorKind::Closed);
    soon("an answer", last).await.expect("stored");
    assert!(!draining.is_finished());
    events.into_iter().for_each(Delivery::ack);
    let left = soon("the end", draining).await.expect("no panic").expect("drained");
    assert!(left.is_nothing(), "{left:?}");
    soon("the task", &mut client.task).await.expect("no panic").expect("closed");
    assert_eq!(client.status().state, State::Closed);
    drop(member);
    until("no session is left", async || metric(&server, "switchyard_open_sessions").await == 0).await;
    // Another one finds nothing but the last.
    let other = Running::of(server.address);
    let mut member = other.subscribe(all_of("s").group("g")).await.expect("open");
    let batch = next_batch(&mut member).await;
    assert_eq!(super::texts(&batch), ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_releases_gives_events_back_at_once_and_as_they_were() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    publish_numbered(&client, "s.x", 0..3).await;
    let mut member = client.subscribe(all_of("s").group("g")).await.expect("open");
    let mut events = deliveries(&mut member, 3).await;
    events.remove(0).ack();
    let left = soon("the end", client.drain(TIMEOUT, Drain::Release)).await.expect("drained");
    assert!(left.is_nothing(), "{left:?}");
    let error = soon("an answer", events.remove(0).acked()).await.expect_err("given back");
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    let other = Running::of(server.address);
    let mut member = other.subscribe(all_of("s").group("g")).await.expect("open");
    let events = deliveries(&mut member, 2).await;
    let got: Vec<_> = events.iter().map(|event| (event.text().expect("a text"), event.attempt())).collect();
    assert_eq!(got, [("1", 1), ("2", 1)], "no attempt has failed");
    events.into_iter().for_each(Delivery::ack);
    soon("the answers", member.settled()).await.expect("stored");
    until_worked_off(server.address, "s", "g").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_in_time_and_says_what_is_left() {
    let client = Running::of(free_address());
    let unsent = client.try_publish(numbered("a", 1)).expect("room");
    let left = soon("the end", client.drain(Duration::from_millis(300), Drain::Finish)).await.expect("drained");
    assert_eq!((left.unsent_publishes, left.unknown_publishes, left.events), (1, 0, 0));
    assert_eq!(soon("an answer", unsent).await.expect_err("not sent").kind(), ErrorKind::Closed);
    client.until(State::Closed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_handles_ends_by_itself_and_leaves_nothing_in_the_hub() {
    let server = hub().await;
    let mut client = Running::of(server.address);
    let live = client.subscribe(Live::to(["a"])).await.expect("open");
    let hub_knows = async || metric(&server, "switchyard_open_sessions").await;
    assert_eq!(hub_knows().await, 1);
    let task = std::mem::replace(&mut client.task, tokio::spawn(async { Ok(()) }));
    drop((live, client));
    soon("the task", task).await.expect("no panic").expect("closed");
    until("no session is left", async || hub_knows().await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_may_run_a_client() {
    let server = hub().await;
    let client = Running::of(server.address);
    client.until(State::Up).await;
    let second = soon("an answer", client.clone().run()).await.expect_err("it runs already");
    assert_eq!(second.kind(), ErrorKind::Invalid);
    client.until(State::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_task_that_runs_it_a_client_is_over_and_everybody_hears_that() {
    let server = hub().await;
    let client = Running::of(server.address);
    let mut live = client.subscribe(Live::to(["a"])).await.expect("open");
    client.task.abort();
    client.until(State::Closed).await;
    assert!(soon("the end", live.next()).await.is_none());
    assert_eq!(client.try_publish(numbered("a", 1)).expect_err("closed").kind(), ErrorKind::Closed);
}
