//! Places that are kept from one run of a program to the next.

use std::sync::Arc;

use switchyard::client::{ErrorKind, FilePosition, Item, MemoryPosition, OnGap, Start, Stream};
use switchyard::proto::v1::PurgeStreamRequest;

use super::{Running, all_of, next_batch, numbers, publish_numbered, read, texts};
use crate::{
    harness::{soon, until},
    stored::{Folder, create, hub_on, stream, streams},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_program_goes_on_behind_what_it_has_done() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let file = folder.path().join("place");
    let spec = || all_of("s").max_batch(10).position(FilePosition::new(&file));
    let mut all = Vec::new();
    for run in 0..3 {
        let client = Running::of(server.address);
        publish_numbered(&client, "s.x", run * 50..(run + 1) * 50).await;
        let mut reader = client.subscribe(spec()).await.expect("open");
        all.extend(read(&mut reader, 40).await);
        // This one is taken, and not done.
        let undone = next_batch(&mut reader).await;
        assert_eq!(texts(&undone)[0], all.len().to_string());
    }
    assert_eq!(all, numbers(0..all.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_moves_over_events_that_match_nothing() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    let store = Arc::new(MemoryPosition::new());
    let spec = Stream::named("s").filter("s.never").from(Start::Earliest).shared_position(Arc::clone(&store) as _);
    let mut reader = client.subscribe(spec).await.expect("open");
    let reading = tokio::spawn(async move {
        while let Some(item) = reader.next().await {
            assert!(matches!(item.expect("no error"), Item::CaughtUp));
        }
    });
    let mut last = None;
    for round in 0..3 {
        publish_numbered(&client, "s.x", round * 10..(round + 1) * 10).await;
        until("the place moves", async || store.token().is_some() && store.token() != last).await;
        last = store.token();
    }
    reading.abort();
    let spec = Stream::named("s").from(Start::Token(last.expect("a place")));
    let mut other = client.subscribe(spec).await.expect("open");
    publish_numbered(&client, "s.x", 30..31).await;
    assert_eq!(read(&mut other, 1).await, ["30"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_lost_ends_the_subscription_or_is_a_gap_as_asked() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    publish_numbered(&client, "s.x", 0..20).await;
    let mut reader = client.subscribe(all_of("s").max_batch(3)).await.expect("open");
    let batch = next_batch(&mut reader).await;
    let token = batch.token().to_owned();
    drop((batch, reader));
    let purge = PurgeStreamRequest { name: "s".into(), up_to_sequence: 10, filter: String::new() };
    streams(server.address).await.purge_stream(purge).await.expect("purged");

    let from = Stream::named("s").from(Start::Token(token));
    let error = soon("an answer", client.subscribe(from.clone())).await.expect_err("lost");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Ended, "RESUME_POINT_LOST"));
    let mut reader = client.subscribe(from.on_gap(OnGap::Earliest)).await.expect("open");
    let (before, gap) = super::next_gap(&mut reader).await;
    assert_eq!((before.len(), gap.from, gap.to, gap.count), (0, Some(4), Some(10), Some(7)));
    assert_eq!(read(&mut reader, 10).await, numbers(10..20));
    until("it has caught up", async || reader.is_caught_up()).await;
    assert_eq!(reader.lag(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_all_that_it_wanted_is_over_and_was_open() {
    let folder = Folder::new();
    let server = hub_on(&folder).await;
    create(server.address, stream("s", &["s.>"])).await;
    let client = Running::of(server.address);
    publish_numbered(&client, "s.x", 0..3).await;
    for _ in 0..30 {
        // It may have ended before anybody looks.
        let mut reader = client.subscribe(all_of("s").limit(2)).await.expect("it was open");
        assert_eq!(reader.opened().map(|opened| opened.latest_sequence), Some(3));
        assert_eq!(read(&mut reader, 2).await, ["0", "1"]);
        assert!(soon("the end", reader.next()).await.is_none());
    }
}
