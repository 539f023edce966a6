//! Clocks that jump, what is past its ttl and still on the disk, and those who follow what limits end.

use std::time::SystemTime;

use redb::ReadableTableMetadata;

use super::*;
use crate::{
    engine::{Appended, embedded::rows::BATCHES},
    model::Storage,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: f64 = 3_600.0;

fn with_id(id: &str, ttl: u64) -> Event {
    event_with("s", id, id, ttl * 1000)
}

async fn put(stream: &Arc<dyn EventStream>, event: Event) -> Appended {
    append_all(stream, vec![event], None).await.expect("stored")[0]
}

/// What the limits of a stream want to end is ended.
async fn limited(engine: &Arc<dyn Engine>, stream: &Arc<dyn EventStream>) -> u64 {
    engine.update_stream((*stream.settings()).clone(), None).await.expect("the same settings");
    stream.state().await.expect("the state").events
}

async fn first_at(stream: &Arc<dyn EventStream>, time: SystemTime) -> u64 {
    stream.first_at(time).await.expect("readable")
}

fn brief_settings() -> StreamSettings {
    let (max_age, dedupe_window) = (Some(4 * SECOND), 4 * SECOND);
    StreamSettings { max_age, dedupe_window, ..settings("s", &["s"]) }
}

#[test]
fn a_wall_clock_that_is_wrong_for_a_moment_is_not_believed() {
    for hours in [1.0, -1.0, 800_000.0] {
        runtime().block_on(async {
            let ground = OnDisk::new(options());
            let mut engine = ground.engine().await;
            let mut stream = engine.create_stream(brief_settings()).await.expect("made");
            put(&stream, with_id("before", 0)).await;
            let start = SystemTime::now();
            ground.disk.set_wall_ahead(hours * HOUR);
            ground.pass(SECOND / 10);
            assert_eq!(limited(&engine, &stream).await, 1, "nothing is ended by it");
            put(&stream, with_id("meanwhile", 0)).await;
            assert!((engine.clock().offset_seconds / (hours * HOUR) - 1.0).abs() < 0.01);
            ground.disk.set_wall_ahead(0.0);
            for reopened in [false, true] {
                if reopened {
                    engine = ground.reopened(engine).await;
                    stream = engine.stream("s").expect("the stream");
                }
                let last = put(&stream, with_id("after", 3)).await;
                assert!(!last.duplicate);
                let stamped = stream.now();
                let apart = stamped.duration_since(start).unwrap_or_default();
                assert!(apart < 60 * SECOND && start < stamped + SECOND, "{apart:?}");
                assert_eq!(first_at(&stream, stamped + SECOND).await, last.sequence + 1);
                ground.pass(4 * SECOND);
                let got = stream.get(vec![last.sequence]).await.expect("readable");
                assert!(got.events.is_empty(), "past its ttl");
                ground.pass(5 * SECOND);
                assert_eq!(limited(&engine, &stream).await, 0, "too old");
                assert!(!put(&stream, with_id("after", 0)).await.duplicate, "the window is over");
                ground.pass(5 * SECOND);
            }
            assert!(engine.clock().offset_seconds.abs() < 0.1);
        });
    }
}

/// What somebody finds who begins with the earliest event. Of a stream that had nothing left for a moment, because a sweep
/// came by, the earliest is the one after that.
async fn kept(stream: &Arc<dyn EventStream>) -> Vec<u64> {
    match read_all(stream, 0, &[], EVERYTHING).await {
        Err(ReadError::Lost { earliest, .. }) => sequences(stream, earliest - 1).await,
        all => all.expect("readable").into_iter().map(|(sequence, _)| sequence).collect(),
    }
}

#[test]
fn times_that_are_not_yet_are_as_of_the_start_and_are_made_good() {
    for storage in [Storage::File, Storage::Memory] {
        runtime().block_on(async {
            let ground = OnDisk::new(options());
            ground.stop_clock();
            ground.disk.set_wall_ahead(HOUR);
            let engine = ground.engine().await;
            let wanted = StreamSettings { max_age: None, storage, ..brief_settings() };
            let stream = engine.create_stream(wanted).await.expect("made");
            put(&stream, with_id("over", 1)).await;
            ground.pass(2 * SECOND);
            put(&stream, with_id("1", 0)).await;
            put(&stream, with_id("2", 3)).await;
            let stamped = stream.now();
            ground.disk.set_wall_ahead(0.0);
            let engine = ground.reopened(engine).await;
            let stream = engine.stream("s").expect("the stream");
            if storage == Storage::Memory {
                assert!(engine.clock().ahead_seconds < 1.0, "what it had is gone");
                return;
            }
            assert!((3_500.0..3_601.0).contains(&engine.clock().ahead_seconds));
            assert!(stream.age(stamped) < SECOND);
            assert!(put(&stream, with_id("1", 0)).await.duplicate, "the window begins anew");
            put(&stream, with_id("3", 3)).await;
            assert!(stream.now() >= stamped, "times never go back");
            ground.pass(2 * SECOND);
            assert_eq!(kept(&stream).await, [2, 3, 4], "what was over does not come back");
            ground.pass(SECOND);
            assert_eq!(kept(&stream).await, [2], "three seconds after the start, and after its append");
            ground.pass(2 * SECOND);
            assert!(!put(&stream, with_id("1", 0)).await.duplicate);
            assert!(!put(&stream, with_id("3", 0)).await.duplicate);
            ground.pass(Duration::from_secs(7_200));
            assert!(engine.clock().ahead_seconds.abs() < f64::EPSILON);
            put(&stream, with_id("4", 3)).await;
            assert!(stream.now() < SystemTime::now() + Duration::from_secs(7_300));
            ground.pass(3 * SECOND);
            assert_eq!(kept(&stream).await, [2, 5, 6]);
        });
    }
}

#[test]
fn after_a_long_silence_nothing_ends_by_its_age_for_some_minutes() {
    runtime().block_on(async {
        let ground = OnDisk::new(options());
        let engine = ground.engine().await;
        let stream = engine.create_stream(brief_settings()).await.expect("made");
        put(&stream, with_id("1", 0)).await;
        put(&stream, with_id("2", 60)).await;
        ground.disk.set_wall_ahead(24.1 * HOUR);
        let engine = ground.reopened(engine).await;
        let stream = engine.stream("s").expect("the stream");
        assert_eq!(limited(&engine, &stream).await, 1, "but for what is past its ttl");
        ground.pass(599 * SECOND);
        assert_eq!(limited(&engine, &stream).await, 1);
        ground.pass(2 * SECOND);
        assert_eq!(limited(&engine, &stream).await, 0);
        put(&stream, with_id("3", 0)).await;
        ground.disk.set_wall_ahead(48.0 * HOUR);
        let engine = ground.reopened(engine).await;
        assert_eq!(
            engine.stream("s").expect("the stream").state().await.expect("the state").events,
            0,
            "less than a day later"
        );
    });
}

fn batches(engine: &Embedded) -> u64 {
    let read = engine.link.stores.file.read_transaction().expect("open");
    read.open_table(BATCHES).expect("a table").len().expect("counted")
}

#[test]
fn what_is_past_its_ttl_gives_back_its_room() {
    runtime().block_on(async {
        let (disk, options) = (Simulated::default(), options());
        let opened = Embedded::open_simulated(&disk, &options, &Tasks::default(), &Arc::default(), &Arc::default());
        let engine = opened.expect("a new store");
        let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
        let text = "x".repeat(1_000);
        let mut before = 0;
        for round in 0..8_u64 {
            let brief = (0..3_000).map(|n| event_with(&format!("t.{n}"), "", &text, 1_000 + n));
            let events = brief.chain([event("kept", "")]).collect();
            append_all(&stream, events, None).await.expect("stored");
            disk.pass(10 * SECOND);
            let swept = async {
                while stream.state().await.expect("the state").events > round + 1 || batches(&engine) > round + 3 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(60 * SECOND, swept).await.expect("it is swept");
            if round == 2 {
                before = disk.used();
            }
        }
        assert_eq!(sequences(&stream, 0).await.len(), 8);
        assert!(disk.used() <= before * 2, "{} bytes, and {before} before", disk.used());
    });
}

#[test]
fn topics_of_which_all_is_past_its_ttl_count_no_more() {
    runtime().block_on(async {
        let ground = OnDisk::new(Options { max_topics: 3, sweep_interval_ms: 60_000, ..options() });
        ground.stop_clock();
        let engine = ground.engine().await;
        let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
        for round in 0..3 {
            let some = (0..3).map(|n| event_with(&format!("{round}.{n}"), "", "", 1_000)).collect();
            append_all(&stream, some, None).await.expect("there is room again");
            let refused = append_all(&stream, vec![event("more", "")], None).await;
            assert_eq!(refused, Err(AppendError::TooManyTopics { limit: 3 }));
            ground.pass(SECOND);
        }
    });
}

#[test]
fn an_append_waits_for_much_that_is_past_its_ttl_and_those_to_other_streams_do_not() {
    runtime().block_on(async {
        let ground = OnDisk::new(Options { sweep_interval_ms: 60_000, ..options() });
        let engine = ground.engine().await;
        let most = StreamSettings { max_events: Some(1_000), ..settings("s", &["s"]) };
        let stream = engine.create_stream(most).await.expect("made");
        let other = engine.create_stream(settings("o", &["o"])).await.expect("made");
        put(&stream, event("s", "kept")).await;
        let text = "x".repeat(40_000);
        for _ in 0..9 {
            let some = (0..111).map(|_| event_with("s", "", &text, 1_000)).collect();
            append_all(&stream, some, None).await.expect("stored");
        }
        ground.pass(SECOND);
        // In one round: 40 MB are read in ten of them.
        let one = |event| Append { events: vec![event], precondition: None };
        let mut receipts = Vec::new();
        for n in 0..5 {
            receipts.push(stream.append(one(event("s", &n.to_string()))).await.expect("queued"));
        }
        let beside = other.append(one(event("o", ""))).await.expect("queued");
        assert_eq!(beside.await.expect("stored")[0].sequence, 1);
        for (receipt, sequence) in receipts.into_iter().zip(1_001..) {
            assert_eq!(receipt.await.expect("stored")[0].sequence, sequence, "in order");
        }
        assert_eq!(sequences(&stream, 0).await, [1, 1_001, 1_002, 1_003, 1_004, 1_005]);
        assert_eq!(stream.state().await.expect("the state").events, 6);
    });
}

#[test]
fn who_follows_gets_what_limits_end_as_it_comes() {
    runtime().block_on(async {
        let ground = OnDisk::new(options());
        let engine = ground.engine().await;
        let few = StreamSettings { max_events: Some(5), ..settings("s", &["s"]) };
        let stream = engine.create_stream(few).await.expect("made");
        let followed = async |after| {
            let chunk = stream.follow(after, &Arc::from([]), EVERYTHING).await?;
            Ok::<_, ReadError>(chunk.events.iter().map(Event::sequence).collect::<Vec<_>>())
        };
        append_all(&stream, vec![event("s", ""); 20], None).await.expect("stored");
        assert_eq!(followed(0).await, Ok((1..=20).collect()));
        let lost = |earliest, latest| Err(ReadError::Lost { earliest, latest });
        assert_eq!(read_all(&stream, 0, &[], EVERYTHING).await, lost(16, 20).map(|()| Vec::new()));
        // What was purged, or is past its ttl, is for nobody.
        append_all(&stream, vec![event_with("s", "", "", 1_000), event("s", "")], None).await.expect("stored");
        stream.purge(18, None).await.expect("purged");
        assert_eq!(followed(10).await, lost(19, 22).map(|()| Vec::new()));
        append_all(&stream, vec![event("s", ""); 7], None).await.expect("stored");
        ground.pass(SECOND);
        assert_eq!(followed(18).await, Ok([19, 20].into_iter().chain(22..=29).collect()));
        let engine = OnDisk::new(Options { tail_cache_bytes: 0, ..options() }).engine().await;
        let stream = engine.create_stream((*stream.settings()).clone()).await.expect("made");
        append_all(&stream, vec![event("s", ""); 20], None).await.expect("stored");
        let chunk = stream.follow(0, &Arc::from([]), EVERYTHING).await;
        assert_eq!(chunk.err(), Some(ReadError::Lost { earliest: 16, latest: 20 }), "as far as memory goes");
    });
}

#[test]
fn the_last_of_a_topic_stays_known_when_one_that_outlives_it_is_taken_out() {
    runtime().block_on(async {
        let ground = OnDisk::new(options());
        let engine = ground.engine().await;
        let stream = engine.create_stream(settings("s", &["s"])).await.expect("made");
        for (id, ttl) in [("first", 0), ("second", 60), ("third", 30), ("fourth", 10)] {
            put(&stream, with_id(id, ttl)).await;
        }
        let last = async || stream.last_of(Topic::parse(b"s").expect("a topic")).await.expect("readable");
        assert_eq!(stream.remove(vec![2]).await, Ok(1));
        assert_eq!(last().await, Some(4));
        ground.pass(20 * SECOND);
        assert_eq!(last().await, Some(3));
        assert_eq!(stream.remove(vec![1]).await, Ok(1));
        assert_eq!(last().await, Some(3));
        ground.pass(20 * SECOND);
        assert_eq!(last().await, None);
    });
}
