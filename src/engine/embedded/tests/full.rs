//! Disks without room: a hub starts on them, reads, and goes on once there is room, on the disk or by what is deleted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Options, PurgeError, Simulated, append, append_all, event, keeps, name, open, options, runtime, sequences, settings,
};
use crate::{
    engine::{AppendError, CreateError, Engine, EventStream, Health, StoreError},
    model::{Durability, Filter, Group, GroupSettings, StreamSettings},
};

const MIB: u64 = 1024 * 1024;

/// Appends until there is no room, and gives the last sequence that is stored.
async fn fill(stream: &Arc<dyn EventStream>) -> u64 {
    let mut stored = 0;
    loop {
        match append_all(stream, vec![event("s", &"x".repeat(50_000)); 2], None).await {
            Ok(results) => stored = results[1].sequence,
            Err(error) => {
                assert_eq!(error, AppendError::Store(StoreError::Full));
                return stored;
            }
        }
    }
}

async fn until_it_heals(engine: &Arc<dyn Engine>) {
    while engine.health() != Health::Good {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A store on a disk that it has filled.
async fn full(disk: &Simulated) -> (Arc<dyn Engine>, u64) {
    let engine = open(disk, &options()).expect("a new store");
    let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
    stream.groups().create(group(), GroupSettings::default(), Bytes::new()).await.expect("made");
    disk.set_capacity(Some(disk.used() + 20 * MIB));
    let stored = fill(&stream).await;
    assert!(stored > 100, "{stored}");
    (engine, stored)
}

fn group() -> Group {
    Group::parse("g").expect("a group")
}

/// How a hub may end.
#[derive(Debug, Clone, Copy)]
enum End {
    InOrder,
    Killed,
    WithoutPower,
}

async fn end(engine: Arc<dyn Engine>, how: End, disk: &Simulated) {
    match how {
        End::InOrder => engine.close().await.expect("closed"),
        End::Killed => disk.take_from_owner(),
        End::WithoutPower => disk.lose_power(&mut fastrand::Rng::with_seed(3)),
    }
}

#[test]
fn a_hub_starts_on_a_full_disk_reads_everything_and_a_purge_makes_room() {
    for how in [End::InOrder, End::Killed, End::WithoutPower] {
        let disk = Simulated::default();
        runtime().block_on(async {
            let (engine, stored) = full(&disk).await;
            end(engine, how, &disk).await;
            let mut engine = open(&disk, &options()).expect("it starts");
            // Also again and again: what opening writes must not use up what is left.
            for _ in 0..3 {
                assert_eq!(engine.health(), Health::Full, "{how:?}");
                let stream = engine.stream("s").expect("the stream");
                assert_eq!(sequences(&stream, 0).await, (1..=stored).collect::<Vec<_>>(), "{how:?}");
                let refused = append_all(&stream, vec![event("s", "")], None).await;
                assert_eq!(refused, Err(AppendError::Store(StoreError::Full)));
                let refused = engine.create_stream(settings("t", &["t"])).await.err();
                assert_eq!(refused, Some(CreateError::Store(StoreError::Full)));
                drop(stream);
                end(engine, how, &disk).await;
                engine = open(&disk, &options()).expect("it starts again");
            }

            let stream = engine.stream("s").expect("the stream");
            assert_eq!(stream.purge(stored / 2, None).await, Ok(stored / 2), "{how:?}");
            until_it_heals(&engine).await;
            let events = vec![event("s", &"x".repeat(50_000)); 20];
            append_all(&stream, events, None).await.expect("there is room where the old ones were");
            end(engine, how, &disk).await;
            let engine = open(&disk, &options()).expect("the same store");
            let stream = engine.stream("s").expect("the stream");
            assert_eq!(sequences(&stream, stored / 2).await, (stored / 2 + 1..=stored + 20).collect::<Vec<_>>());
        });
    }
}

#[test]
fn whatever_deletes_events_is_done_on_a_full_disk_and_makes_room() {
    for way in 0..4 {
        let disk = Simulated::default();
        runtime().block_on(async {
            let (engine, stored) = full(&disk).await;
            let stream = engine.stream("s").expect("the stream");
            stream.groups().delete(group()).await.expect("deleted");
            match way {
                0 => {
                    let few = StreamSettings { max_events: Some(10), ..keeps(Durability::Sync) };
                    engine.update_stream(few, None).await.expect("updated");
                }
                1 => {
                    let all = Filter::parse(b">").expect("a filter");
                    assert_eq!(stream.purge(stored / 2, Some(all)).await, Ok(stored / 2));
                }
                2 => {
                    let old = StreamSettings { max_age: Some(Duration::from_millis(1)), ..keeps(Durability::Sync) };
                    engine.update_stream(old, None).await.expect("updated");
                }
                _ => engine.delete_stream(&name("s")).await.expect("deleted"),
            }
            until_it_heals(&engine).await;
            let stream = match engine.stream("s") {
                Some(stream) => stream,
                None => engine.create_stream(keeps(Durability::Sync)).await.expect("made again"),
            };
            let events = vec![event("s", &"x".repeat(50_000)); 20];
            append_all(&stream, events, None).await.unwrap_or_else(|error| panic!("way {way}: {error}"));
        });
    }
}

#[test]
fn a_disk_fills_and_is_purged_again_and_again() {
    let disk = Simulated::default();
    runtime().block_on(async {
        let (engine, mut stored) = full(&disk).await;
        let stream = engine.stream("s").expect("the stream");
        for round in 0..12 {
            stream.purge(stored - 50, None).await.expect("purged");
            until_it_heals(&engine).await;
            let before = stored;
            stored = fill(&stream).await;
            assert!(stored > before + 50, "round {round}: {before} {stored}");
            assert_eq!(sequences(&stream, before - 50).await, (before - 49..=stored).collect::<Vec<_>>());
        }
    });
}

#[test]
fn what_was_kept_in_reserve_is_there_for_a_start_on_a_disk_that_others_filled() {
    let disk = Simulated::default();
    runtime().block_on(async {
        let engine = open(&disk, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
        append(&stream, "s", "kept").await;
        disk.take_from_owner();
        drop((engine, stream));
        disk.set_capacity(Some(disk.used()));
        let engine = open(&disk, &options()).expect("it starts");
        let stream = engine.stream("s").expect("the stream");
        assert_eq!(sequences(&stream, 0).await, [1]);
        disk.set_capacity(None);
        until_it_heals(&engine).await;
        assert_eq!(append(&stream, "s", "").await, 2);
    });
}

#[test]
fn a_disk_without_any_room_is_read_and_what_changed_in_memory_is_written_once_there_is_some() {
    for how in [End::InOrder, End::Killed] {
        let disk = Simulated::default();
        runtime().block_on(async {
            let slow = Options { sync_interval_ms: 3_600_000, ..options() };
            let engine = open(&disk, &slow).expect("a new store");
            let stream = engine.create_stream(keeps(Durability::Interval)).await.expect("made");
            for n in 0..10 {
                append(&stream, "s", &n.to_string()).await;
            }
            // Takes along what the other has.
            append(&engine.create_stream(settings("t", &["t"])).await.expect("made"), "t", "").await;
            let old = stream.epoch();
            drop(stream);
            end(engine, how, &disk).await;
            // Others took the reserve, too, and on some disks writing again what was written needs room.
            disk.take_reserve();
            disk.set_capacity(Some(0));

            let engine = open(&disk, &slow).expect("it starts");
            let stream = engine.stream("s").expect("the stream");
            assert_eq!((engine.health(), sequences(&stream, 0).await.len()), (Health::Full, 10), "{how:?}");
            assert_eq!(stream.purge(5, None).await, Err(PurgeError::Store(StoreError::Full)), "only in memory");
            assert_eq!(sequences(&stream, 0).await.len(), 10);
            let epoch = stream.epoch();
            assert_eq!(epoch > old, matches!(how, End::Killed), "{how:?}");
            disk.set_capacity(None);
            until_it_heals(&engine).await;
            let stream = engine.stream("s").expect("the stream");
            assert_eq!((append(&stream, "s", "").await, stream.epoch()), (11, epoch), "what readers were told holds");
            disk.take_from_owner();
            drop((stream, engine));
            let engine = open(&disk, &slow).expect("the same store");
            let stream = engine.stream("s").expect("the stream");
            assert!(stream.epoch() > epoch, "it was not closed, and may have lost its tail");
        });
    }
}
