//! Backups: what was answered before is in them, what is damaged is told, and what is put back has new epochs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Directory, EVERYTHING, Options, append_all, event, event_with, keeps, name, options, read_all, runtime, settings,
};
use crate::{
    engine::{
        BackupError, Embedded, Engine, EventStream, Health, OpenError, RestoreError, Restored, StoreError,
        check_backup, renew, restore,
    },
    model::{Durability, Group, GroupSettings, Storage, StreamSettings},
    tasks::Tasks,
};

fn open(directory: &Directory, options: &Options) -> Result<Arc<dyn Engine>, OpenError> {
    let tasks = Tasks::default();
    Ok(Arc::new(Embedded::open(&directory.0, options, &tasks, &Arc::default(), &Arc::default())?))
}

/// All of a backup.
async fn backup(engine: &Arc<dyn Engine>) -> Result<Vec<u8>, BackupError> {
    let (mut next, mut all) = (engine.backup().await?.next(), Vec::new());
    while let Some((piece, rest)) = next.await? {
        assert!(piece.len() <= 64 * 1024);
        all.extend_from_slice(&piece);
        next = rest.next();
    }
    Ok(all)
}

fn group() -> Group {
    Group::parse("g").expect("a group")
}

/// A stream of each kind, with a group.
async fn some_streams(engine: &Arc<dyn Engine>) -> Vec<Arc<dyn EventStream>> {
    let mut streams = Vec::new();
    for (at, durability) in [Durability::Sync, Durability::Interval, Durability::None].into_iter().enumerate() {
        let settings = StreamSettings { durability, ..settings(&format!("s{at}"), &[&format!("s{at}.>")]) };
        let stream = engine.create_stream(settings).await.expect("made");
        stream.groups().create(group(), GroupSettings::default(), Bytes::from_static(b"state")).await.expect("made");
        streams.push(stream);
    }
    streams
}

#[test]
fn what_was_answered_before_a_backup_is_in_it_while_others_publish_and_delete() {
    let directory = Directory::new();
    runtime().block_on(async {
        // Nothing but commits of SYNC streams flushes.
        let options = Options { sync_interval_ms: 3_600_000, ..options() };
        let engine = open(&directory, &options).expect("a new store");
        let streams = some_streams(&engine).await;
        let mut number = 0;
        for _ in 0..5 {
            let mut answered = BTreeMap::new();
            for (at, stream) in streams.iter().enumerate() {
                for _ in 0..20 {
                    number += 1;
                    let (id, topic) = (number.to_string(), format!("s{at}.{}", number % 7));
                    let events = vec![event_with(&topic, &id, &format!("{number} {}", "x".repeat(3_000)), 0)];
                    append_all(stream, events, None).await.expect("stored");
                }
                answered.insert(at, read_all(stream, 0, &[], EVERYTHING).await.expect("readable"));
            }
            let writing = async {
                for n in 0.. {
                    let stream = &streams[n % streams.len()];
                    let topic = format!("s{}.other", n % streams.len());
                    append_all(stream, vec![event(&topic, &"y".repeat(20_000)); 10], None).await.expect("stored");
                    tokio::task::yield_now().await;
                }
            };
            let bytes = tokio::select! {
                biased;
                made = backup(&engine) => made.expect("a backup"),
                () = writing => unreachable!(),
            };

            assert_eq!(check_backup(&bytes[..]).expect("whole"), Restored { streams: 3 });
            let other = Directory::new();
            assert_eq!(restore(&bytes[..], &other.0).expect("restored"), Restored { streams: 3 });
            let restored = open(&other, &options).expect("a store");
            for (at, expected) in answered {
                let (old, new) = (&streams[at], restored.stream(&format!("s{at}")).expect("the stream"));
                let found = read_all(&new, 0, &[], EVERYTHING).await.expect("readable");
                assert!(found.len() >= expected.len() && found[..expected.len()] == expected, "{at}");
                assert!(new.epoch() > old.epoch(), "the history is another from here on");
                assert_eq!(new.groups().list().await.expect("groups")[0].state, Bytes::from_static(b"state"));
                let again = vec![event_with(&format!("s{at}.{}", number % 7), &number.to_string(), "again", 0)];
                let known = append_all(&new, again, None).await.expect("stored")[0].duplicate;
                assert_eq!(known, at == 2, "ids are known as before");
            }
            assert_eq!(restored.token_key(), engine.token_key());
        }
    });
}

#[test]
fn a_backup_is_of_one_moment_and_there_is_one_at_a_time() {
    let directory = Directory::new();
    runtime().block_on(async {
        let engine = open(&directory, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
        append_all(&stream, vec![event("s", &"x".repeat(10_000)); 100], None).await.expect("stored");
        let first = engine.backup().await.expect("a backup");
        assert_eq!(engine.backup().await.err(), Some(BackupError::UnderWay));
        stream.purge(u64::MAX, None).await.expect("purged");
        append_all(&stream, vec![event("s", "after")], None).await.expect("stored");
        let (mut next, mut bytes) = (first.next(), Vec::new());
        while let Some((piece, rest)) = next.await.expect("a piece") {
            bytes.extend_from_slice(&piece);
            next = rest.next();
        }
        let other = Directory::new();
        restore(&bytes[..], &other.0).expect("restored");
        let restored = open(&other, &options()).expect("a store").stream("s").expect("the stream");
        assert_eq!(
            (restored.state().await.expect("the state").earliest, restored.state().await.expect("the state").latest),
            (1, 100),
            "as it was"
        );
        drop(engine.backup().await.expect("the first is over"));
        drop(engine.backup().await.expect("so is one that was given up"));
    });
}

#[test]
fn a_backup_that_takes_too_long_is_given_up() {
    let directory = Directory::new();
    runtime().block_on(async {
        let options = Options { backup_timeout_ms: 1, ..options() };
        let engine = open(&directory, &options).expect("a new store");
        let begun = engine.backup().await.expect("a backup");
        tokio::time::sleep(Duration::from_millis(2)).await;
        let limit = Duration::from_millis(1);
        assert_eq!(begun.next().await.err(), Some(BackupError::TooLong { limit }));
    });
}

#[test]
fn streams_in_memory_are_empty_again() {
    let directory = Directory::new();
    runtime().block_on(async {
        let engine = open(&directory, &options()).expect("a new store");
        let in_memory = StreamSettings { storage: Storage::Memory, ..settings("m", &["m"]) };
        let stream = engine.create_stream(in_memory).await.expect("made");
        append_all(&stream, vec![event("m", "gone")], None).await.expect("stored");
        let other = Directory::new();
        restore(&backup(&engine).await.expect("a backup")[..], &other.0).expect("restored");
        let restored = open(&other, &options()).expect("a store");
        assert_eq!(restored.stream("m").expect("the stream").state().await.expect("the state").events, 0);
    });
}

#[test]
fn what_is_no_whole_backup_is_told_and_leaves_nothing() {
    let directory = Directory::new();
    let bytes = runtime().block_on(async {
        let engine = open(&directory, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
        append_all(&stream, vec![event("s", &"x".repeat(5_000)); 40], None).await.expect("stored");
        backup(&engine).await.expect("a backup")
    });
    let refused = |bytes: &[u8]| {
        assert!(matches!(check_backup(bytes), Err(RestoreError::Backup { .. })));
        let other = Directory::new();
        assert!(matches!(restore(bytes, &other.0), Err(RestoreError::Backup { .. })));
        assert!(!other.0.join("streams.redb").exists() && !other.0.join("streams.new").exists());
    };
    let mut random = fastrand::Rng::with_seed(11);
    let places: Vec<usize> = (0..40).map(|_| random.usize(..bytes.len())).collect();
    for at in [0, 3, 7, bytes.len() - 1].into_iter().chain(places) {
        refused(&bytes[..at]);
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << random.u32(..8);
        refused(&damaged);
    }
    refused(&[&bytes[..], b"x"].concat());
    // A store is never overwritten, and one that is open is left alone.
    assert!(matches!(restore(&bytes[..], &directory.0), Err(RestoreError::InTheWay { .. })));
    runtime().block_on(async {
        let engine = open(&directory, &options()).expect("the same store");
        let in_use = RestoreError::Open(OpenError::InUse { folder: String::new() });
        assert_eq!(std::mem::discriminant(&renew(&directory.0).expect_err("in use")), std::mem::discriminant(&in_use));
        assert_eq!(engine.stream("s").expect("the stream").state().await.expect("the state").events, 40);
    });
}

#[test]
fn a_directory_that_was_put_back_gets_new_epochs_and_keeps_all_else() {
    let directory = Directory::new();
    assert!(matches!(renew(&directory.0), Err(RestoreError::NoStore { .. })));
    assert!(!directory.0.exists(), "nothing is made");
    runtime().block_on(async {
        let engine = open(&directory, &options()).expect("a new store");
        let streams = some_streams(&engine).await;
        append_all(&streams[0], vec![event("s0.x", "kept"); 9], None).await.expect("stored");
        let before: Vec<i64> = streams.iter().map(|stream| stream.epoch()).collect();
        engine.close().await.expect("closed");
        drop((engine, streams));
        assert_eq!(renew(&directory.0).expect("renewed"), Restored { streams: 3 });
        let engine = open(&directory, &options()).expect("the same store");
        let after: Vec<i64> = engine.streams().iter().map(|stream| stream.epoch()).collect();
        assert!(after.iter().all(|new| before.iter().all(|old| new > old)), "{before:?} {after:?}");
        let kept = engine.stream("s0").expect("the stream");
        assert_eq!(
            (kept.state().await.expect("the state").events, kept.groups().list().await.expect("groups").len()),
            (9, 1)
        );
        // A stream that is made later has an epoch that none had.
        engine.delete_stream(&name("s1")).await.expect("deleted");
        let new = engine.create_stream(settings("s1", &["s1.>"])).await.expect("made");
        assert!(after.iter().all(|old| new.epoch() > *old));
    });
}

#[test]
fn a_damaged_store_makes_no_backup() {
    let disk = super::Simulated::default();
    let mut random = fastrand::Rng::with_seed(5);
    runtime().block_on(async {
        let engine = super::open(&disk, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
        append_all(&stream, vec![event("s", &"x".repeat(10_000)); 1000], None).await.expect("stored");
        assert_eq!(engine.health(), Health::Good);
        // Most of it is events, and little of it is in the cache.
        let mut told = 0;
        for _ in 0..200 {
            disk.flip(random.usize(disk.len() / 8..disk.len() / 2), random.u32(..8));
        }
        for _ in 0..3 {
            match backup(&engine).await {
                Err(BackupError::Store(StoreError::Corrupt { .. } | StoreError::Unavailable)) => told += 1,
                Err(other) => panic!("{other}"),
                Ok(bytes) => assert!(check_backup(&bytes[..]).is_ok()),
            }
        }
        assert!(told > 0, "nobody noticed");
    });
}
