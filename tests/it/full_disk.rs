//! A disk without room: publishes to streams are refused, reading goes on, and it heals when there is room again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use switchyard::{
    engine::{Embedded, Engine, Simulated},
    net,
    proto::v1::{
        AckMode, Durability, EndReason, Ended, GapPolicy, PurgeStreamRequest, ResumeOutcome, StartPreset, Stream,
        SubscriptionSpec, session_response::Frame,
    },
    server::{self, Ground, Server},
    tasks::Tasks,
    telemetry::Metrics,
};
use tonic::Code;

use crate::{
    harness::{
        PATIENCE, Process, Session, client, config, event, http_get, publish, reason, reason_of_call, soon, until,
    },
    stored::{Folder, Reader, all, create, from, numbered, preset, refused, resume, state, store, stream, streams},
};

/// A hub whose disk is simulated.
pub async fn hub_on_disk(disk: &Simulated) -> Server {
    let mut config = config();
    // Nothing but the test flushes.
    config.engine.sync_interval_ms = 3_600_000;
    config.engine.sweep_interval_ms = 10;
    config.drain.spread_ms = 0;
    let clients = net::listen(&config.listen, &config.connections).await.expect("a port");
    let (ops_listen, options) = (config.ops_listen.clone(), config.connections.clone());
    let operators = Box::pin(async move { net::listen(&ops_listen, &options).await });
    let (tasks, metrics, memory) = (Tasks::default(), Arc::new(Metrics::default()), Arc::default());
    let opened = Embedded::open_simulated(disk, &config.engine, &tasks, &metrics, &memory).expect("a new store");
    let engine: Arc<dyn Engine> = Arc::new(opened);
    let engine = Box::pin(std::future::ready(Ok(Some(engine))));
    server::start_on(
        config,
        Ground { clients, edges: Vec::new(), operators, engine, auth: None, tls: None, metrics, memory, tasks },
    )
    .await
    .expect("a hub starts")
}

/// What is looked for in the frames of a session.
pub async fn next<T>(session: &mut Session, wanted: impl Fn(Frame) -> Option<T>) -> T {
    let look = async {
        loop {
            if let Some(found) = wanted(session.frame().await.frame.expect("a frame")) {
                return found;
            }
        }
    };
    soon("what is looked for", look).await
}

fn ended(frame: Frame) -> Option<Ended> {
    match frame {
        Frame::Ended(ended) => Some(ended),
        _ => None,
    }
}

/// Publishes until there is no room, and gives how often that worked.
async fn fill(address: SocketAddr, topic: &str) -> usize {
    let mut client = client(address).await;
    let mut stored = 0;
    loop {
        match client.publish(publish(vec![event(topic, "x".repeat(50_000))])).await {
            Ok(_) => stored += 1,
            Err(status) => {
                assert_eq!((status.code(), &*reason_of_call(&status)), (Code::ResourceExhausted, "STREAM_FULL"));
                return stored;
            }
        }
    }
}

/// Files of a process may be no larger, until that is changed again; as far as it needs room, its disk is then full.
#[cfg(target_os = "linux")]
fn limit_files(hub: &Process, bytes: u64) {
    let process = i32::try_from(hub.child.id()).expect("a process");
    let limits = Some((bytes, rlimit::INFINITY));
    rlimit::prlimit(process, rlimit::Resource::FSIZE, limits, None).expect("a limit");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_grow_no_further_is_a_full_disk_and_heals() {
    let folder = Folder::new();
    let flags = ["--data-dir", folder.text(), "--set", "engine.sweep_interval_ms=50"];
    let mut hub = Process::start(&flags);
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until(10).await;

    let length = std::fs::metadata(folder.path().join("streams.redb")).expect("a store").len();
    limit_files(&hub, length);
    let stored = 10 + fill(hub.address, "s.x").await as i64;
    reader.until(stored).await;
    assert_eq!(all(hub.address, "s").await.len() as i64, stored, "reading goes on");
    assert!(http_get(hub.ops_address, "/metrics").await.contains("switchyard_store_writable 0"));
    assert!(http_get(hub.ops_address, "/readyz").await.starts_with("HTTP/1.1 200"), "it serves");

    limit_files(&hub, rlimit::INFINITY);
    until_it_heals(hub.address, "s.x").await;
    assert!(http_get(hub.ops_address, "/metrics").await.contains("switchyard_store_writable 1"));
    reader.until(stored + 1).await;
    assert_eq!(reader.subscribed.epoch, state(hub.address, "s").await.epoch, "nothing was lost");
    store(hub.address, (0..40).map(|_| event("s.x", "x".repeat(50_000))).collect()).await;
    hub.signal("TERM");
    assert!(hub.exit(PATIENCE).success());
    let hub = Process::start(&flags);
    assert_eq!(all(hub.address, "s").await.len() as i64, stored + 41);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_starts_on_a_full_disk_reads_everything_and_a_purge_makes_room() {
    const LARGEST: u64 = 24 * 1024 * 1024;
    for signal in ["KILL", "TERM"] {
        let folder = Folder::new();
        let flags = ["--data-dir", folder.text(), "--set", "engine.sweep_interval_ms=50"];
        let mut hub = Process::start(&flags);
        create(hub.address, stream("s", &["s.>"])).await;
        store(hub.address, numbered("s.x", 0..10)).await;
        limit_files(&hub, LARGEST);
        let stored = 10 + fill(hub.address, "s.x").await as i64;
        for _ in 0..2 {
            hub.signal(signal);
            hub.exit(PATIENCE);
            hub = Process::start_with_largest_file(LARGEST, &flags);
            assert_eq!(all(hub.address, "s").await.len() as i64, stored, "{signal}");
            let refused =
                client(hub.address).await.publish(publish(vec![event("s.x", "")])).await.expect_err("no room");
            assert_eq!(reason_of_call(&refused), "STREAM_FULL", "{signal}");
            assert!(http_get(hub.ops_address, "/metrics").await.contains("switchyard_store_writable 0"));
            assert!(http_get(hub.ops_address, "/readyz").await.starts_with("HTTP/1.1 200"), "it serves");
        }

        let everything = PurgeStreamRequest { name: "s".into(), ..PurgeStreamRequest::default() };
        let purged = streams(hub.address).await.purge_stream(everything).await.expect("purged").into_inner();
        assert_eq!(purged.purged_events, stored, "{signal}");
        until_it_heals(hub.address, "s.x").await;
        store(hub.address, (0..40).map(|_| event("s.x", "x".repeat(50_000))).collect()).await;
        assert!(http_get(hub.ops_address, "/metrics").await.contains("switchyard_store_writable 1"));
        hub.signal(signal);
        hub.exit(PATIENCE);
        let hub = Process::start(&flags);
        assert_eq!(all(hub.address, "s").await.len(), 41, "{signal}");
    }
}

async fn until_it_heals(address: SocketAddr, topic: &str) {
    let mut client = client(address).await;
    until("there is room", async || client.publish(publish(vec![event(topic, "room")])).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_what_a_full_disk_took_is_told_to_come_again() {
    let disk = Simulated::default();
    let hub = hub_on_disk(&disk).await;
    create(hub.address, Stream { durability: Durability::Interval.into(), ..stream("s", &["s.>"]) }).await;
    create(hub.address, stream("whole", &["whole.>"])).await;
    // A stream that flushes takes along what the other has.
    store(hub.address, numbered("s.x", 0..10)).await;
    store(hub.address, numbered("whole.x", 0..10)).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until_caught_up().await;
    let mut untouched = Reader::open(hub.address, from("whole", preset(StartPreset::Earliest))).await;
    untouched.until_caught_up().await;
    let in_group = || SubscriptionSpec { group: "g".into(), ack_mode: AckMode::Explicit.into(), ..from("s", None) };
    let mut member = Reader::open(hub.address, in_group()).await.session;

    disk.set_capacity(Some(disk.used() + 1024 * 1024));
    let stored = fill(hub.address, "s.x").await as i64;
    assert!(stored > 0);
    for ended in [reader.until_ended().await, next(&mut member, ended).await] {
        assert_eq!(ended.reason(), EndReason::EngineRecovering, "{ended:?}");
        assert!(ended.retry.is_some_and(|advice| advice.retry), "it may come again");
    }
    // While there is no room: the stream is there, anew.
    let anew = refused(hub.address, from("s", resume(&reader.token))).await;
    assert_eq!(reason(anew.status.as_ref().expect("a status")), "EPOCH_CHANGED");
    let wish = SubscriptionSpec { on_gap: GapPolicy::Earliest.into(), ..from("s", resume(&reader.token)) };
    let again = Reader::open(hub.address, wish).await;
    assert_eq!(again.subscribed.resume_outcome(), ResumeOutcome::Gap);
    let mut whole = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    whole.until_caught_up().await;
    assert_eq!(whole.sequences(), (1..=10).collect::<Vec<_>>(), "what was flushed");

    disk.set_capacity(None);
    until_it_heals(hub.address, "s.x").await;
    whole.until(11).await;
    let mut member = Reader::open(hub.address, in_group()).await.session;
    store(hub.address, numbered("s.x", 0..1)).await;
    next(&mut member, |frame| matches!(frame, Frame::Events(_)).then_some(())).await;
    store(hub.address, numbered("whole.x", 10..11)).await;
    untouched.until(11).await;
    drop((reader, untouched, again, whole, member));
    soon("the stop", hub.stop(Duration::ZERO)).await;
}
