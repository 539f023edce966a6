//! What takes long is done bit by bit, or beside what is written; and no more of it waits than may.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use redb::ReadableTableMetadata;

use super::{
    EVERYTHING, Options, Simulated, StoreError, StreamSettings, append, event, name, open, options, runtime, settings,
};
use crate::{
    engine::{
        CreateError, Engine, EventStream, MOST_WAITING, PurgeError,
        conformance::{append_all, sequences},
        embedded::{Embedded, read::MOST_COMPARISONS, rows::BATCHES, store::Store},
    },
    model::{Filter, Group, GroupSettings, Topic},
    tasks::Tasks,
};

async fn is_pending(call: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|context: &mut Context<'_>| Poll::Ready(Pin::new(&mut *call).poll(context).is_pending())).await
}

/// Events of a megabyte together, in a stream that has many of them.
async fn large(engine: &Arc<dyn Engine>, megabytes: usize) -> Arc<dyn EventStream> {
    let stream = engine.create_stream(settings("s", &["s"])).await.expect("made");
    for _ in 0..megabytes {
        append_all(&stream, vec![event("s", &"x".repeat(10_000)); 100], None).await.expect("stored");
    }
    stream
}

#[test]
fn purges_and_tighter_limits_of_many_bytes_are_done_when_they_are_answered() {
    runtime().block_on(async {
        let disk = Simulated::default();
        let engine = open(&disk, &options()).expect("a store");
        let stream = large(&engine, 20).await;
        assert_eq!(stream.purge(1_000, None).await, Ok(1_000));
        assert_eq!(
            (stream.state().await.expect("the state").earliest, stream.state().await.expect("the state").events),
            (1_001, 1_000)
        );
        let few = StreamSettings { max_events: Some(10), ..settings("s", &["s"]) };
        engine.update_stream(few, None).await.expect("updated");
        assert_eq!(
            (stream.state().await.expect("the state").earliest, stream.state().await.expect("the state").events),
            (1_991, 10)
        );
        assert_eq!(stream.purge(u64::MAX, None).await, Ok(10));
        assert_eq!(append(&stream, "s", "").await, 2_001);
        engine.close().await.expect("closed");
        drop((engine, stream));
        let engine = open(&disk, &options()).expect("the same store");
        assert_eq!(sequences(&engine.stream("s").expect("the stream"), 2_000).await, [2_001]);
    });
}

#[test]
fn what_is_appended_while_a_purge_is_under_way_stays() {
    runtime().block_on(async {
        let engine = open(&Simulated::default(), &options()).expect("a store");
        let stream = large(&engine, 20).await;
        let purge = stream.purge(u64::MAX, None);
        let (purged, appended) = tokio::join!(purge, async {
            tokio::task::yield_now().await;
            append(&stream, "s", "").await
        });
        assert_eq!((purged, appended), (Ok(2_000), 2_001));
        assert_eq!(sequences(&stream, 2_000).await, [2_001]);
    });
}

#[test]
fn what_a_deleted_stream_leaves_goes_even_if_the_hub_stops_in_between() {
    runtime().block_on(async {
        let disk = Simulated::default();
        let engine = open(&disk, &options()).expect("a store");
        drop(large(&engine, 40).await);
        engine.create_stream(settings("t", &["t"])).await.expect("made");
        let most = disk.len();
        engine.delete_stream(&name("s")).await.expect("deleted");
        // Before all of it is gone, most often.
        drop(engine);
        let opened = Embedded::open_simulated(&disk, &options(), &Tasks::default(), &Arc::default(), &Arc::default());
        let engine = opened.expect("the same store");
        assert!(engine.stream("s").is_none());
        let again = engine.create_stream(settings("s", &["s"])).await.expect("made again");
        assert_eq!((sequences(&again, 0).await.len(), append(&again, "s", "").await), (0, 1));
        let gone = async {
            while batches(&engine.link.stores.file) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone)
            .await
            .expect("only the one batch of the new stream is left");
        for _ in 0..3 {
            append_all(&again, vec![event("s", &"x".repeat(10_000)); 900], None).await.expect("stored");
        }
        assert!(disk.len() <= most, "the room is used again: {most} {}", disk.len());
    });
}

fn batches(store: &Store) -> u64 {
    let transaction = store.read_transaction().expect("a transaction");
    transaction.open_table(BATCHES).and_then(|batches| Ok(batches.len()?)).expect("readable")
}

#[test]
fn only_so_many_calls_that_change_streams_wait_and_reads_wait_for_none() {
    runtime().block_on(async {
        let disk = Simulated::default();
        let engine = open(&disk, &options()).expect("a store");
        let stream = engine.create_stream(settings("s", &["s"])).await.expect("made");
        append(&stream, "s", "").await;
        let group = Group::parse("g").expect("a group");
        stream.groups().create(group.clone(), GroupSettings::default(), bytes::Bytes::new()).await.expect("made");

        disk.set_stalled(true);
        let mut calls = Vec::new();
        for n in 0..MOST_WAITING {
            let mut call = engine.create_stream(settings(&format!("n{n}"), &[&format!("n{n}")]));
            assert!(is_pending(&mut call).await, "{n}");
            calls.push(call);
        }
        let busy = || StoreError::Busy { limit: MOST_WAITING };
        assert_eq!(engine.create_stream(settings("one", &["one"])).await.err(), Some(CreateError::Store(busy())));
        assert_eq!(stream.purge(1, None).await, Err(PurgeError::Store(busy())));
        assert_eq!(stream.groups().list().await.expect("read").len(), 1, "reading goes on");
        assert!(stream.groups().load(group).await.expect("read").is_some());
        let all: Arc<[Filter]> = Arc::from([]);
        assert_eq!(stream.last_per_topic(&all, 0, 9, 9).await, Ok(vec![1]));
        assert_eq!(stream.last_of(Topic::parse(b"s").expect("a topic")).await.expect("readable"), Some(1));
        disk.set_stalled(false);
        for call in calls {
            call.await.expect("made");
        }
        assert_eq!(engine.streams().len(), MOST_WAITING + 1);
    });
}

#[test]
fn a_call_that_nobody_waits_for_keeps_its_turn_until_it_is_done() {
    runtime().block_on(async {
        let engine = open(&Simulated::default(), &options()).expect("a store");
        for _ in 0..50 {
            let mut given_up = engine.create_stream(settings("one", &["a"]));
            // Sometimes while its filters are looked at, sometimes while the committer has it.
            tokio::time::timeout(Duration::from_micros(fastrand::u64(..500)), &mut given_up).await.ok();
            drop(given_up);
            let two = engine.create_stream(settings("two", &["a"])).await;
            assert!(two.is_ok() != engine.stream("one").is_some(), "never both");
            for stream in ["one", "two"].into_iter().filter(|name| engine.stream(name).is_some()) {
                engine.delete_stream(&name(stream)).await.expect("deleted");
            }
        }
    });
}

#[test]
fn a_read_compares_so_many_topics_with_filters_and_goes_on_at_the_next() {
    const EVENTS: u64 = 1_000;
    const FILTERS: usize = 256;
    for options in [options(), Options { tail_cache_bytes: 0, ..options() }] {
        runtime().block_on(async {
            let engine = open(&Simulated::default(), &options).expect("a new store");
            let stream = engine.create_stream(settings("s", &["t.>"])).await.expect("made");
            append_all(&stream, (0..EVENTS).map(|n| event(&format!("t.{n}"), "")).collect(), None)
                .await
                .expect("stored");
            let nothing: Vec<Filter> =
                (0..FILTERS).map(|n| Filter::parse(format!("t.none.{n}").as_bytes()).expect("a filter")).collect();
            let nothing: Arc<[Filter]> = nothing.into();
            let mut after = 0;
            while after < EVENTS {
                let chunk = stream.read(after, &nothing, EVERYTHING).await.expect("readable");
                assert!(chunk.events.is_empty() && chunk.through > after);
                assert!((chunk.through - after) as usize <= MOST_COMPARISONS / FILTERS, "{after} to {}", chunk.through);
                after = chunk.through;
            }
        });
    }
}
