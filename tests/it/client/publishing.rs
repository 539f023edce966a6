//! What publishers are told, and when.

use std::time::Duration;

use switchyard::client::{ErrorKind, Event, Live, Published};

use super::{Running, all_of, answer, builder, home::Home, numbered, publish_numbered, read, relay::Relay};
use crate::{
    harness::{hub, soon, until},
    stored::{Folder, create, hub_on, stream},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_has_its_own_answer() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    let _live = client.subscribe(Live::to(["live.>"])).await.expect("open");
    let same = || numbered("s.x", 3).id("three").source("test");
    let events = [numbered("s.x", 1), Event::new("not a topic"), numbered("live.x", 2), same(), same()];
    let receipt = answer(client.publish_all(events)).await.expect("answered");
    assert_eq!((receipt.len(), receipt.errors().count()), (5, 1));
    assert_eq!(receipt.all().expect_err("not all").reason(), "INVALID_TOPIC");
    let results: Vec<_> = receipt.into_iter().collect();
    assert!(
        matches!(&results[0], Ok(Published::Stored { sequence: 1, duplicate: false, stream, .. }) if stream == "s")
    );
    let refused = results[1].as_ref().expect_err("refused");
    assert_eq!((refused.kind(), refused.reason()), (ErrorKind::Refused, "INVALID_TOPIC"));
    assert!(!refused.retryable() && refused.field().is_some());
    assert!(matches!(results[2], Ok(Published::Live { matched: 1, .. })));
    assert!(matches!(results[3], Ok(Published::Stored { sequence: 2, duplicate: false, .. })));
    assert!(matches!(results[4], Ok(Published::Stored { sequence: 2, duplicate: true, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_bear_an_id_the_name_of_the_client_and_the_trace_of_their_publisher() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let traced = builder(server.address).trace_context(|attributes| {
        attributes.insert("traceparent".into(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    });
    let client = Running::start(traced);
    answer(client.publish(numbered("s.x", 1))).await.expect("stored");
    answer(client.publish(numbered("s.x", 2).id("own"))).await.expect("stored");
    let mut reader = client.subscribe(all_of("s")).await.expect("open");
    let batch = super::next_batch(&mut reader).await;
    let events: Vec<_> = batch.iter().collect();
    assert_eq!((events[0].id().len(), events[0].source()), (36, "test"));
    assert_eq!((events[1].id(), events[1].source()), ("own", ""));
    assert!(events[0].attribute("traceparent").is_some_and(|value| value.starts_with("00-0af7")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precondition_that_does_not_hold_is_refused() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    let first = answer(client.publish(numbered("s.x", 1)).if_last_sequence(0)).await;
    assert_eq!(first.expect("stored").sequence(), Some(1));
    let second = answer(client.publish(numbered("s.x", 2)).if_last_topic_sequence(0)).await;
    let error = second.expect_err("refused");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Refused, "SEQUENCE_MISMATCH"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_live_event_whose_answer_was_lost_nobody_knows_and_it_is_not_sent_twice() {
    let server = hub().await;
    let relay = Relay::to(server.address).await;
    let client = Running::of(relay.address);
    let witness = Running::of(server.address);
    let mut live = witness.subscribe(Live::to(["a"])).await.expect("open");
    client.until(switchyard::client::State::Up).await;
    relay.set(super::relay::Mode::SwallowDown);
    let publishing = client.publish(numbered("a", 1)).queued().await.expect("room");
    let again = client.publish(numbered("a", 2)).retry_live().queued().await.expect("room");
    let batch = super::next_batch(&mut live).await;
    assert_eq!(super::texts(&batch)[0], "1");
    drop(batch);
    relay.cut_and_pass();
    let error = soon("an answer", publishing).await.expect_err("nobody knows");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unknown, "NO_STREAM"));
    assert!(matches!(soon("an answer", again).await, Ok(Published::Live { .. })));
    answer(client.publish(numbered("a", 3))).await.expect("published");
    let mut after = Vec::new();
    while after.last().map(String::as_str) != Some("3") {
        let batch = super::next_batch(&mut live).await;
        after.extend(super::texts(&batch));
    }
    assert!(!after.contains(&"1".to_owned()), "{after:?}");
    assert!(after.iter().filter(|text| *text == "2").count() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_publishers_wait_and_nothing_is_dropped() {
    let mut home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    home.kill().await;
    let client = Running::start(builder(home.address).queue_events(4));
    let mut under_way = Vec::new();
    for number in 0..4 {
        under_way.push(client.try_publish(numbered("s.x", number)).expect("room"));
    }
    let full = client.try_publish(numbered("s.x", 9)).expect_err("full");
    assert_eq!((full.kind(), full.reason()), (ErrorKind::Refused, "QUEUE_FULL"));
    let impatient = client.publish(numbered("s.x", 9)).deadline(Duration::from_millis(50));
    let error = answer(impatient).await.expect_err("no room in time");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Refused, "DEADLINE_PASSED"));
    let publisher = client.clone();
    let waiting = tokio::spawn(async move {
        for number in 4..12 {
            let publish = publisher.publish(numbered("s.x", number)).deadline(Duration::from_secs(60));
            publish.await.expect("stored");
        }
    });
    assert_eq!(client.stats().queued_publishes, 4);
    home.start().await;
    soon("the last one", waiting).await.expect("published");
    for publishing in under_way {
        soon("an answer", publishing).await.expect("published");
    }
    let mut reader = client.subscribe(all_of("s")).await.expect("open");
    assert_eq!(read(&mut reader, 12).await, super::numbers(0..12));
    until("the queue is empty", async || client.stats().queued_publishes == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_while_it_is_under_way_is_published_all_the_same() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    drop(client.try_publish(numbered("s.x", 0)).expect("room"));
    publish_numbered(&client, "s.x", 1..2).await;
    let mut reader = client.subscribe(all_of("s")).await.expect("open");
    assert_eq!(read(&mut reader, 2).await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_sent_comes_in_order_with_what_is_published() {
    let server = hub().await;
    let client = Running::of(server.address);
    let mut live = client.subscribe(Live::to(["a"])).await.expect("open");
    for first in (0..1000).step_by(10) {
        answer(client.send_all((first..first + 9).map(|number| numbered("a", number)))).await.expect("room");
        drop(client.publish(numbered("a", first + 9)).queued().await.expect("room"));
    }
    assert_eq!(read(&mut live, 1000).await, super::numbers(0..1000));
    let missing = answer(client.send_all(std::iter::empty::<Event<'_>>())).await.expect_err("nothing to send");
    assert_eq!(missing.field(), Some("events"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_sent_has_an_id_of_the_hub_and_its_refusals_are_counted() {
    let server = hub().await;
    let client = Running::of(server.address);
    let mut live = client.subscribe(Live::to(["a"])).await.expect("open");
    let events = [numbered("a", 1), Event::new("not a topic"), numbered("a", 2).id("own")];
    answer(client.send_all(events)).await.expect("room");
    let (mut ids, mut sources) = (Vec::new(), Vec::new());
    while ids.len() < 2 {
        let batch = super::next_batch(&mut live).await;
        ids.extend(batch.iter().map(|event| event.id().to_owned()));
        sources.extend(batch.iter().map(|event| event.source().to_owned()));
    }
    assert!(!ids[0].is_empty() && ids[1] == "own", "{ids:?}");
    assert_eq!(sources, ["", ""]);
    until("the refusal is counted", async || client.stats().refused_sends == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_sent_waits_for_a_hub_and_for_room() {
    let mut home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    home.kill().await;
    let client = Running::start(builder(home.address).queue_events(4));
    answer(client.send_all((0..4).map(|number| numbered("s.x", number)))).await.expect("room");
    let sender = client.clone();
    let waiting = tokio::spawn(async move { sender.send_all([numbered("s.x", 4)]).await });
    assert_eq!(client.stats().queued_publishes, 4);
    home.start().await;
    soon("room", waiting).await.expect("no panic").expect("sent");
    let mut reader = client.subscribe(all_of("s")).await.expect("open");
    assert_eq!(read(&mut reader, 5).await, super::numbers(0..5));
}
