//! Backups of a hub at work, and stores that were put back: everything that was answered before is in them, and whoever has
//! seen more than they have is told.
//!
//! `TORTURE_BACKUPS` sets how many backups are made under load (3 unless it is set; `make torture` sets 30).

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use switchyard::proto::v1::{
    BackupRequest, Durability, GapPolicy, ResumeOutcome, StartPreset, Stream, SubscriptionSpec,
    backup_service_client::BackupServiceClient,
};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    harness::{
        PATIENCE, Process, channel, client, event, exit, program, publish, reason, reason_of_call, signal, soon, until,
    },
    stored::{
        Folder, Reader, all, create, from, hub_on_with, numbered, preset, refused, resume, state, stop, store, stream,
        text,
    },
};

const BACKUPS: usize = 3;
const STREAMS: [(&str, Durability); 3] =
    [("sync", Durability::Sync), ("interval", Durability::Interval), ("none", Durability::None)];

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program runs")
}

/// Runs a command that must succeed.
fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn path(folder: &Folder, name: &str) -> String {
    folder.path().join(name).to_str().expect("text").to_owned()
}

/// Publishes numbers to a stream until told to stop, and writes down the last that was answered.
async fn publish_numbers(address: SocketAddr, name: &'static str, answered: Arc<AtomicI64>, over: Arc<AtomicBool>) {
    let mut client = client(address).await;
    let topic = format!("{name}.x");
    let mut next = 1;
    while !over.load(SeqCst) {
        let events =
            (next..next + 20).map(|n: i64| event(&topic, format!("{n} {}", "x".repeat((n * 37 % 900) as usize))));
        let events: Vec<_> = events.collect();
        next += events.len() as i64;
        let results = soon("an answer", client.publish(publish(events))).await.expect("stored").into_inner().results;
        answered.store(results.last().expect("results").sequence, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_backup_of_a_hub_under_load_restores_with_all_that_was_answered_before() {
    let backups = std::env::var("TORTURE_BACKUPS").ok().and_then(|text| text.parse().ok()).unwrap_or(BACKUPS);
    let folder = Folder::new();
    let hub = Process::start(&["--data-dir", &path(&folder, "data")]);
    let over = Arc::new(AtomicBool::new(false));
    let (mut publishers, mut answered) = (JoinSet::new(), Vec::new());
    for (name, durability) in STREAMS {
        let limits =
            Stream { max_events: 5_000, durability: durability.into(), ..stream(name, &[&format!("{name}.>")]) };
        create(hub.address, limits).await;
        let last = Arc::new(AtomicI64::new(0));
        publishers.spawn(publish_numbers(hub.address, name, Arc::clone(&last), Arc::clone(&over)));
        answered.push((name, last));
    }
    until("all have begun", async || answered.iter().all(|(_, last)| last.load(SeqCst) > 0)).await;
    for number in 0..backups {
        let (file, data) = (path(&folder, "hub.backup"), path(&folder, &format!("restored-{number}")));
        let before: Vec<_> = answered.iter().map(|(name, last)| (*name, last.load(SeqCst))).collect();
        let (to, server) = (file.clone(), hub.address.to_string());
        let backup = tokio::task::spawn_blocking(move || succeed(&["backup", &to, "--server", &server]));
        assert!(backup.await.expect("it ends").contains(": 3 streams, "));
        assert!(succeed(&["restore", &file, "--data-dir", &data]).contains(": 3 streams, "));

        let restored = Process::start(&["--data-dir", &data]);
        for (name, last) in before {
            let events = all(restored.address, name).await;
            let found = events.last().expect("events").sequence;
            assert!(found >= last, "backup {number}: {name} ends at {found}, and {last} was answered");
            for (one, two) in events.iter().zip(&events[1..]) {
                assert_eq!(one.sequence + 1, two.sequence, "backup {number}: {name}");
            }
            let is_right = |received| text(received).starts_with(&format!("{} ", received.sequence));
            assert!(events.iter().all(is_right), "backup {number}: {name}");
            let epochs = (state(hub.address, name).await.epoch, state(restored.address, name).await.epoch);
            assert!(epochs.0 < epochs.1, "{epochs:?}");
            store(restored.address, vec![event(&format!("{name}.x"), "more")]).await;
        }
        drop(restored);
        fs::remove_dir_all(data).expect("removed");
    }
    over.store(true, SeqCst);
    while let Some(done) = soon("the end", publishers.join_next()).await {
        done.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_of_a_backup_does_not_keep_it_open() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.connections.response_timeout_ms = 1_500).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for _ in 0..10 {
        store(hub.address, vec![event("s.x", "x".repeat(900_000))]).await;
    }
    let mut stalled = BackupServiceClient::new(channel(hub.address).await);
    let mut other = BackupServiceClient::new(channel(hub.address).await);
    let _pieces = stalled.backup(BackupRequest {}).await.expect("a backup").into_inner();
    let busy = other.backup(BackupRequest {}).await.expect_err("one at a time");
    assert_eq!((busy.code(), &*reason_of_call(&busy)), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
    until("there is room for another", async || other.backup(BackupRequest {}).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_stops_does_not_wait_for_a_backup() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.connections.response_timeout_ms = 60_000).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for _ in 0..10 {
        store(hub.address, vec![event("s.x", "x".repeat(900_000))]).await;
    }
    let mut client = BackupServiceClient::new(channel(hub.address).await);
    let mut pieces = client.backup(BackupRequest {}).await.expect("a backup").into_inner();
    let first = pieces.message().await.expect("a piece").expect("a piece");
    assert!(first.store_bytes > 9_000_000, "{}", first.store_bytes);
    let stopping = tokio::spawn(hub.stop(Duration::ZERO));
    let end = async {
        loop {
            match pieces.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it is not whole"),
                Err(status) => return status,
            }
        }
    };
    let status = soon("the end", end).await;
    assert_eq!((status.code(), &*reason_of_call(&status)), (Code::Unavailable, "DRAINING"));
    soon("the stop", stopping).await.expect("no panic");
}

#[test]
fn a_backup_that_is_stopped_leaves_no_file() {
    // Whoever connects is never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (folder, server) = (Folder::new(), silent.local_addr().expect("an address").to_string());
    let file = path(&folder, "hub.backup");
    fs::write(&file, "the one before").expect("written");
    let partial = format!("{file}.partial");
    let mut child = program()
        .args(["backup", &file, "--server", &server])
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(until("it has begun", async || Path::new(&partial).exists()));
    signal(child.id(), "INT");
    assert_eq!(exit(&mut child, PATIENCE).code(), Some(1));
    assert!(!Path::new(&partial).exists());
    assert_eq!(fs::read_to_string(&file).expect("the file"), "the one before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_for_its_owner_alone_and_is_not_put_over_a_store() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let hub = Process::start(&["--data-dir", &path(&folder, "data")]);
    create(hub.address, stream("s", &["s.>"])).await;
    let (file, server) = (path(&folder, "hub.backup"), hub.address.to_string());
    succeed(&["backup", &file, "--server", &server]);
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let output = run(&["restore", &file, "--data-dir", &path(&folder, "data")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"), "{output:?}");
    drop(hub);
    let output = run(&["restore", &file, "--data-dir", &path(&folder, "data")]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("move it away first"), "{output:?}");
    let told: serde_json::Value =
        serde_json::from_str(&succeed(&["restore", "--data-dir", &path(&folder, "data"), "--json"])).expect("JSON");
    assert_eq!(told["streams"], 1);
}

#[tokio::test]
async fn a_hub_without_streams_makes_no_backup() {
    let hub = crate::harness::hub().await;
    let mut client = BackupServiceClient::new(channel(hub.address).await);
    let refused = client.backup(BackupRequest {}).await.expect_err("nothing to copy");
    assert_eq!(reason_of_call(&refused), "CONFIG_MISMATCH");
}

/// A hub whose directory was put back from a copy of when it had a hundred events, and a token from when it had more.
async fn put_back(folder: &Folder) -> (String, SubscriptionSpec) {
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let open = || async { hub_on_with(folder, |config| config.data_dir = folder.path().join("data")).await };
    let hub = open().await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..100)).await;
    stop(hub).await;
    fs::create_dir(&copy).expect("a folder");
    for entry in fs::read_dir(&data).expect("a folder").map(|entry| entry.expect("an entry")) {
        fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
    }
    let hub = open().await;
    store(hub.address, numbered("s.x", 100..120)).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until(120).await;
    let token = reader.token.clone();
    drop(reader);
    stop(hub).await;
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&copy, &data).expect("put back");
    let wish = SubscriptionSpec { on_gap: GapPolicy::Earliest.into(), ..from("s", resume(&token)) };
    (token, wish)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_behind_the_end_of_a_store_that_was_put_back_is_told_of_the_lost_tail() {
    let folder = Folder::new();
    let (token, wish) = put_back(&folder).await;
    let hub = hub_on_with(&folder, |config| config.data_dir = folder.path().join("data")).await;
    store(hub.address, numbered("s.other", 0..5)).await;
    let ended = refused(hub.address, from("s", resume(&token))).await;
    assert_eq!(reason(ended.status.as_ref().expect("a status")), "EPOCH_CHANGED");
    let mut again = Reader::open(hub.address, wish).await;
    assert_eq!(again.subscribed.resume_outcome(), ResumeOutcome::Gap);
    soon(
        "a gap",
        crate::full_disk::next(&mut again.session, |frame| {
            matches!(frame, switchyard::proto::v1::session_response::Frame::Gap(_)).then_some(())
        }),
    )
    .await;
    again.until_caught_up().await;
    assert_eq!(again.sequences(), (1..=105).collect::<Vec<_>>());
    drop(again);
    stop(hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_restore_an_old_token_never_points_into_another_history() {
    let folder = Folder::new();
    let (token, _) = put_back(&folder).await;
    assert!(succeed(&["restore", "--data-dir", &path(&folder, "data")]).contains(": 1 streams, "));
    let hub = hub_on_with(&folder, |config| config.data_dir = folder.path().join("data")).await;
    // As many as the token has seen, and more.
    store(hub.address, numbered("s.other", 0..50)).await;
    let ended = refused(hub.address, from("s", resume(&token))).await;
    assert_eq!(reason(ended.status.as_ref().expect("a status")), "EPOCH_CHANGED");
    stop(hub).await;
}
