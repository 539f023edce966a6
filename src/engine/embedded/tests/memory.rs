//! What streams hold of the memory of the hub: up to a limit and no further, given back, and counted the same again.

use std::{sync::Arc, time::Duration};

use super::{Simulated, StreamSettings, event, event_with, name, options, runtime, settings};
use crate::{
    engine::{
        AppendError, CreateError, DeadLetter, Engine, EventStream, Fence, GroupStoreError, LetterId,
        conformance::append_all, embedded::Embedded,
    },
    event::Event,
    memory::{self, Memory, MemoryFull, NEVER_REFUSED_BYTES, Use},
    model::{Group, GroupSettings, Storage},
    tasks::Tasks,
};

const LIMIT: usize = 1024 * 1024;

fn small() -> Arc<Memory> {
    let limits = memory::Options {
        topics_bytes: LIMIT,
        ids_bytes: LIMIT,
        memory_streams_bytes: LIMIT,
        filters_bytes: LIMIT,
        ..memory::Options::default()
    };
    Arc::new(Memory::new(&limits))
}

fn open(disk: &Simulated, memory: &Arc<Memory>) -> Arc<dyn Engine> {
    let engine =
        Embedded::open_simulated(disk, &options(), &Tasks::default(), &Arc::default(), memory).expect("a store");
    Arc::new(engine)
}

async fn make(engine: &Arc<dyn Engine>, settings: StreamSettings) -> Arc<dyn EventStream> {
    engine.create_stream(settings).await.expect("made")
}

async fn put(stream: &Arc<dyn EventStream>, events: Vec<Event>) -> Result<usize, AppendError> {
    append_all(stream, events, None).await.map(|all| all.len())
}

fn full(of: Use) -> Result<usize, AppendError> {
    Err(AppendError::NoMemory(MemoryFull { of }))
}

/// Events of topics that are all new, up to when they are refused; how many there were.
async fn fill_topics(stream: &Arc<dyn EventStream>, prefix: &str) -> u64 {
    let mut stored = 0;
    for n in 0.. {
        let events = vec![event(&format!("{prefix}.{n}"), "")];
        match put(stream, events).await {
            Ok(_) => stored += 1,
            refused => {
                assert_eq!(refused, full(Use::Topics));
                break;
            }
        }
    }
    stored
}

#[test]
fn topics_fill_what_they_may_and_no_more_and_are_counted_the_same_again() {
    runtime().block_on(async {
        let (disk, memory) = (Simulated::default(), small());
        let engine = open(&disk, &memory);
        let stream = make(&engine, settings("s", &["s.>"])).await;
        let stored = fill_topics(&stream, "s").await;
        let held = memory.held_bytes(Use::Topics);
        assert!(held <= LIMIT / 2 && held > LIMIT / 2 - 200, "one stream fills half of it: {held}");
        assert_eq!(put(&stream, vec![event("s.0", ""); 9]).await, Ok(9), "topics that are there");
        assert_eq!(put(&stream, vec![event("s.0", ""), event("s.new", "")]).await, full(Use::Topics), "all or none");
        assert!(memory.refusals(Use::Topics) >= 2);

        let other = make(&engine, settings("t", &["t.>"])).await;
        fill_topics(&other, "t").await;
        let third = make(&engine, settings("u", &["u.>"])).await;
        let few = fill_topics(&third, "u").await;
        assert!(few > 100 && few * 100 < NEVER_REFUSED_BYTES as u64, "a few are always let in: {few}");
        let held = memory.held_bytes(Use::Topics);
        engine.close().await.expect("closed");
        drop((engine, stream, other, third));

        let memory = small();
        let engine = open(&disk, &memory);
        assert_eq!(memory.held_bytes(Use::Topics), held, "counted again, beyond the limit");
        let stream = engine.stream("s").expect("the stream");
        assert_eq!(put(&stream, vec![event("s.new", "")]).await, full(Use::Topics));
        stream.purge(stored, None).await.expect("purged");
        assert_eq!(put(&stream, vec![event("s.new", "")]).await, Ok(1), "what was purged is given back");
        for name in ["s", "t", "u"] {
            engine.delete_stream(&super::name(name)).await.expect("deleted");
        }
        assert_eq!((memory.held_bytes(Use::Topics), memory.held_bytes(Use::Filters)), (0, 0));
    });
}

#[test]
fn topics_with_a_limit_count_each_event_they_keep() {
    runtime().block_on(async {
        let memory = small();
        let engine = open(&Simulated::default(), &memory);
        let limited = StreamSettings { max_events_per_topic: Some(1_000_000), ..settings("s", &["s"]) };
        let stream = make(&engine, limited).await;
        let mut stored = 0;
        while put(&stream, vec![event("s", ""); 100]).await.is_ok() {
            stored += 100;
        }
        assert!((LIMIT / 2 / 40..LIMIT / 2 / 30).contains(&stored), "{stored}");
        let few = StreamSettings { max_events_per_topic: Some(10), ..settings("s", &["s"]) };
        engine.update_stream(few, None).await.expect("updated");
        assert_eq!(put(&stream, vec![event("s", ""); 100]).await, Ok(100));
        assert!(memory.held_bytes(Use::Topics) < 1_000);
    });
}

#[test]
fn what_is_known_of_events_that_end_is_counted_and_given_back() {
    runtime().block_on(async {
        let (disk, memory) = (Simulated::default(), small());
        let engine = open(&disk, &memory);
        let stream = make(&engine, settings("s", &["s"])).await;
        // Each ends before the one before it, and may be the last again.
        let mut stored = 0;
        let some = |stored: u64| (0..100).map(|n| event_with("s", "", "", 100_000_000 - stored - n)).collect();
        let refused = loop {
            match put(&stream, some(stored)).await {
                Ok(_) => stored += 100,
                refused => break refused,
            }
        };
        assert_eq!(refused, full(Use::Topics));
        assert!((LIMIT as u64 / 2 / 45..LIMIT as u64 / 2 / 30).contains(&stored), "{stored}");
        disk.pass(Duration::from_secs(100_000));
        while stream.state().await.expect("the state").events > 0 || memory.held_bytes(Use::Topics) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(put(&stream, vec![event("s", "")]).await, Ok(1));
    });
}

fn in_memory(name: &str) -> StreamSettings {
    StreamSettings { storage: Storage::Memory, ..settings(name, &[name]) }
}

#[test]
fn events_in_memory_fill_what_they_may_and_no_more() {
    runtime().block_on(async {
        let memory = small();
        let disk = Simulated::default();
        disk.stop_clock();
        let engine = open(&disk, &memory);
        let held = || memory.held_bytes(Use::MemoryStreams);
        for bytes in [100, 3_000, 9_000, 40_000] {
            let stream = make(&engine, in_memory("s")).await;
            // From 128 to 16,383 sequences take two bytes, so that all events are of the same size.
            assert_eq!(put(&stream, vec![event("s", ""); 127]).await, Ok(127));
            stream.purge(u64::MAX, None).await.expect("purged");
            let events = || vec![event("s", &"x".repeat(bytes)); 3];
            while put(&stream, events()).await.is_ok() {}
            assert_eq!(put(&stream, events()).await, full(Use::MemoryStreams), "{bytes}");
            assert!(held() <= LIMIT / 2 && held() > LIMIT / 2 - 6 * 66_000, "{bytes}: {}", held());
            assert!(stream.state().await.expect("the state").bytes < LIMIT as u64 / 2);
            // A limit ends as much as comes in.
            let ring =
                StreamSettings { max_bytes: Some(stream.state().await.expect("the state").bytes), ..in_memory("s") };
            engine.update_stream(ring, None).await.expect("updated");
            for _ in 0..200 {
                assert_eq!(put(&stream, events()).await, Ok(3), "{bytes}");
                assert!(held() < LIMIT * 3 / 4, "{bytes}: {}", held());
            }
            stream.purge(u64::MAX, None).await.expect("purged");
            assert_eq!(put(&stream, events()).await, Ok(3));
            stream.remove(vec![stream.state().await.expect("the state").latest]).await.expect("removed");
            engine.delete_stream(&name("s")).await.expect("deleted");
            while held() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    });
}

#[test]
fn whoever_knows_most_ids_forgets_the_oldest() {
    runtime().block_on(async {
        let (disk, memory) = (Simulated::default(), small());
        let engine = open(&disk, &memory);
        let (few, many) = (make(&engine, settings("f", &["f"])).await, make(&engine, settings("m", &["m"])).await);
        let ids = |topic: &str, from: usize, count: usize| -> Vec<Event> {
            (from..from + count).map(|n| event_with(topic, &n.to_string(), "", 0)).collect()
        };
        assert_eq!(put(&few, ids("f", 0, 1_000)).await, Ok(1_000));
        for n in 0..30 {
            assert_eq!(put(&many, ids("m", n * 1_000, 1_000)).await, Ok(1_000));
            assert!(memory.held_bytes(Use::Ids) <= LIMIT);
        }
        let duplicate = async |stream: &Arc<dyn EventStream>, topic: &str, n: usize| {
            append_all(stream, ids(topic, n, 1), None).await.expect("stored")[0].duplicate
        };
        assert!(duplicate(&few, "f", 0).await, "who has few keeps them");
        assert!(duplicate(&many, "m", 29_000).await, "the latest are known");
        assert!(!duplicate(&many, "m", 0).await, "the oldest are not");
        assert!(memory.refusals(Use::Ids) > 20_000);
        let before = memory.held_bytes(Use::Ids);
        engine.close().await.expect("closed");
        drop((engine, few, many));

        let again = small();
        let engine = open(&disk, &again);
        let after = again.held_bytes(Use::Ids);
        assert!(after <= LIMIT && after.abs_diff(before) < LIMIT / 8, "{before} {after}");
        let [few, many] = ["f", "m"].map(|name| engine.stream(name).expect("the stream"));
        assert!(duplicate(&few, "f", 0).await && duplicate(&many, "m", 29_000).await);
        for name in ["f", "m"] {
            engine.delete_stream(&super::name(name)).await.expect("deleted");
        }
        assert_eq!(again.held_bytes(Use::Ids), 0);
    });
}

#[test]
fn definitions_fill_half_of_what_filters_may() {
    runtime().block_on(async {
        let memory = small();
        let engine = open(&Simulated::default(), &memory);
        let wanted = |n: usize| {
            let filters: Vec<String> = (0..200).map(|at| format!("t{n}.{at}.{}", "x".repeat(200))).collect();
            settings(&format!("s{n}"), &filters.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let mut made = 0;
        let refused = loop {
            match engine.create_stream(wanted(made)).await {
                Ok(_) => made += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, CreateError::NoMemory(MemoryFull { of: Use::Filters }));
        assert!(made > 1 && memory.held_bytes(Use::Filters) <= LIMIT / 2);
        engine.delete_stream(&name("s0")).await.expect("deleted");
        make(&engine, wanted(made)).await;
    });
}

#[test]
fn dead_letters_without_memory_wait_where_they_are() {
    runtime().block_on(async {
        let memory = small();
        let engine = open(&Simulated::default(), &memory);
        let (jobs, lost) = (make(&engine, settings("j", &["j"])).await, make(&engine, in_memory("l")).await);
        let group = Group::parse("g").expect("a group");
        jobs.groups().create(group.clone(), GroupSettings::default(), bytes::Bytes::new()).await.expect("made");
        while put(&lost, vec![event("l", &"x".repeat(40_000))]).await.is_ok() {}
        let letter =
            || DeadLetter { id: LetterId::first(1), stream: name("l"), event: event("j", &"x".repeat(40_000)) };
        let save =
            async || jobs.groups().bury(Fence::default(), group.clone(), bytes::Bytes::new(), vec![letter()]).await;
        let full = MemoryFull { of: Use::MemoryStreams };
        assert_eq!(save().await, Err(GroupStoreError::NoMemory { name: name("l"), full }));
        lost.purge(u64::MAX, None).await.expect("purged");
        assert_eq!(save().await, Ok(()));
    });
}
