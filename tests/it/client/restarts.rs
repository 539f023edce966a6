//! Hubs that are killed, and hubs that are stopped in order: everybody goes on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use switchyard::client::{GapReason, Item, Live, State, Stream};

use super::{Running, all_of, home::Home, next_gap, numbered, numbers, publish_numbered, read};
use crate::{
    harness::{soon, until},
    stored::{all, create, stream, text},
    verifying::until_worked_off,
};

/// How a hub ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Killed,
    Stopped,
}

pub(super) async fn restart(home: &mut Home, end: End) {
    match end {
        End::Killed => home.kill().await,
        End::Stopped => home.stop().await,
    }
    home.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_there_before_its_hub_waits_for_it() {
    let mut home = Home::new();
    let client = Running::of(home.address);
    client.until(State::Waiting).await;
    assert_eq!(client.reasons()[0], "NOT_CONNECTED");
    let hub = client.clone();
    let subscribing = tokio::spawn(async move { hub.subscribe(Live::to(["a.>"])).await });
    home.start().await;
    soon("the subscription", subscribing).await.expect("no panic").expect("open");
    let status = client.status();
    assert_eq!((status.state, status.attempt, status.session_id.is_empty()), (State::Up, 0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_and_a_publisher_go_on_over_restarts_and_nothing_is_lost_or_repeated() {
    const ROUNDS: usize = 4;
    const EACH: usize = 1500;
    let mut home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    let client = Running::of(home.address);
    let mut reader = client.subscribe(all_of("s")).await.expect("open");
    let reading = tokio::spawn(async move { read(&mut reader, ROUNDS * EACH).await });
    for round in 0..ROUNDS {
        client.until(State::Up).await;
        let publisher = client.clone();
        let publishing =
            tokio::spawn(async move { publish_numbered(&publisher, "s.x", round * EACH..(round + 1) * EACH).await });
        // In the middle of it, or a little later.
        crate::harness::pause(Duration::from_micros(fastrand::u64(..30_000))).await;
        restart(&mut home, if round % 2 == 0 { End::Killed } else { End::Stopped }).await;
        let sequences = publishing.await.expect("published");
        let expected: BTreeMap<usize, i64> =
            (round * EACH..(round + 1) * EACH).map(|number| (number, number as i64 + 1)).collect();
        assert_eq!(sequences, expected, "round {round}");
    }
    assert_eq!(soon("the last event", reading).await.expect("read"), numbers(0..ROUNDS * EACH));
    let stored = all(home.address, "s").await;
    let stored: Vec<&str> = stored.iter().map(text).collect();
    assert_eq!(stored, numbers(0..ROUNDS * EACH), "once each, and in order");
    let states = client.states_so_far();
    assert!(states.contains(&State::Draining), "{states:?} {:?}", client.reasons());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_subscription_hears_that_it_may_have_missed_something() {
    let mut home = Home::started().await;
    let client = Running::of(home.address);
    let mut live = client.subscribe(Live::to(["a.>"])).await.expect("open");
    for (round, end) in [End::Killed, End::Stopped].into_iter().enumerate() {
        client.publish(numbered("a.b", round)).await.expect("published");
        let batch = super::next_batch(&mut live).await;
        assert_eq!(super::texts(&batch), [round.to_string()]);
        restart(&mut home, end).await;
        let (before, gap) = next_gap(&mut live).await;
        assert_eq!((before.len(), gap.reason, gap.count), (0, GapReason::Away, None));
    }
    client.publish(numbered("a.b", 9)).await.expect("published");
    let Item::Events(batch) = super::next(&mut live).await else { panic!("no events") };
    assert_eq!(super::texts(&batch), ["9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_begun_before_a_restart_is_finished_after_it_and_done_once() {
    const EVENTS: usize = 60;
    let mut home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    let client = Running::of(home.address);
    let begun = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let (worker, counts) = (client.clone(), Arc::clone(&begun));
    let working = tokio::spawn(async move {
        let handler = |event: switchyard::client::Received| {
            let counts = Arc::clone(&counts);
            async move {
                *counts.lock().expect("no panic").entry(event.text().expect("a text").to_owned()).or_default() += 1;
                crate::harness::pause(Duration::from_millis(100)).await;
                Ok(())
            }
        };
        worker.run_worker(all_of("s").group("g"), 4, handler).await
    });
    publish_numbered(&client, "s.x", 0..EVENTS).await;
    let count = || begun.lock().expect("no panic").len();
    for (reached, end) in [(EVENTS / 4, End::Killed), (EVENTS / 2, End::Stopped)] {
        until("some of the work is begun", async || count() >= reached).await;
        restart(&mut home, end).await;
    }
    until("all of it is begun", async || count() == EVENTS).await;
    until_worked_off(home.address, "s", "g").await;
    let twice: Vec<_> = begun.lock().expect("no panic").clone().into_iter().filter(|(_, times)| *times > 1).collect();
    assert_eq!(twice, [], "nothing is done twice");
    working.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_a_stream_that_is_gone_says_so_and_the_others_go_on() {
    use switchyard::proto::v1::DeleteStreamRequest;
    let home = Home::started().await;
    create(home.address, stream("s", &["s.>"])).await;
    create(home.address, stream("t", &["t.>"])).await;
    let client = Running::of(home.address);
    let mut gone = client.subscribe(Stream::named("s")).await.expect("open");
    let mut stays = client.subscribe(Stream::named("t")).await.expect("open");
    let request = DeleteStreamRequest { name: "s".into() };
    crate::stored::streams(home.address).await.delete_stream(request).await.expect("deleted");
    let error = loop {
        match soon("the end", gone.next()).await.expect("an error first") {
            Ok(Item::CaughtUp) => {}
            Ok(other) => panic!("not an end: {other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), "STREAM_NOT_FOUND");
    assert!(error.to_string().contains("stream s") && error.to_string().contains(&home.address.to_string()), "{error}");
    assert!(soon("nothing", gone.next()).await.is_none());
    publish_numbered(&client, "t.x", 0..1).await;
    assert_eq!(read(&mut stays, 1).await, ["0"]);
    let refused = soon("an answer", client.subscribe(Stream::named("none"))).await.expect_err("refused");
    assert_eq!(refused.reason(), "STREAM_NOT_FOUND");
}
