//! The faults that watches of etcd once had, each tried on streams. Their causes were in what streams do too: joining
//! what is stored with what comes, telling how far a reader is, and removing what is old while somebody reads.
//!
//! Each test ends with the number of the issue of etcd:
//!
//! - 15271: a watch went back in time when its client came back after a partition.
//! - 17247: a cache gave an event twice.
//! - 17529: events were lost to watches that starved on a busy connection.
//! - 15220: a progress mark was ahead of the data.
//! - 18089, 19179: events at the edge of a compaction were dropped without a word.
//! - 20221: a watch on a revision in the future got old events.
//! - 14370: a single node lost a write that it had confirmed, in a crash.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use switchyard::proto::v1::{
    AddCredit, GapPolicy, PurgeStreamRequest, ResumeOutcome, StartPreset, Stream, Subscribe, SubscriptionSpec,
    session_request::Command as Wire, session_response::Frame,
};

use crate::{
    harness::{Process, Session, client, credit, event, pause, publish, soon},
    stored::{
        Folder, Reader, after, all, create, from, hub_on, hub_on_with, numbered, preset, refused, resume, state, stop,
        store, stream, streams, text,
    },
};

async fn grant(session: &Session, subscription_id: i64, events: i64) {
    session.send(0, Wire::Credit(AddCredit { subscription_id, credit: credit(events, 0) })).await;
}

/// Publishes `count` events, a few at a time.
async fn publish_on(address: SocketAddr, topics: usize, count: usize) {
    let mut client = client(address).await;
    for from in (0..count).step_by(10) {
        let events = (from..from + 10).map(|n| event(&format!("s.{}", n % topics), n.to_string())).collect();
        client.publish(publish(events)).await.expect("published");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_goes_back_in_time_15271() {
    let folder = Folder::new();
    let mut hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut start = preset(StartPreset::Earliest);
    let mut got: Vec<i64> = Vec::new();
    for round in 0..6 {
        let address = hub.address;
        let publisher = tokio::spawn(publish_on(address, 3, 500));
        // Comes and goes many times, each time with the last token it saw, from wherever in a frame or a batch.
        for part in 1..=20 {
            let mut wish = from("s", start.clone());
            wish.max_batch = 7;
            let mut reader = Reader::open(address, wish).await;
            assert!(reader.subscribed.start_sequence > got.last().copied().unwrap_or(0));
            reader.until(round * 500 + part * 25).await;
            got.extend(reader.sequences());
            start = resume(&reader.token);
        }
        publisher.await.expect("published");
        stop(hub).await;
        hub = hub_on(&folder).await;
    }
    let last = *got.last().expect("some");
    assert_eq!(got, (1..=last).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_comes_once_from_store_and_cache_17247() {
    const EVENTS: i64 = 20_000;
    let folder = Folder::new();
    // The cache holds a few hundred events, so that readers change between it and the file again and again.
    let hub = hub_on_with(&folder, |config| config.engine.tail_cache_bytes = 32 * 1024).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let publisher = tokio::spawn(publish_on(hub.address, 3, EVENTS as usize));
    let mut readers = tokio::task::JoinSet::new();
    for at_once in [20, 700, 1500, 4000] {
        let address = hub.address;
        readers.spawn(async move {
            let mut wish = from("s", preset(StartPreset::Earliest));
            wish.credit = credit(at_once, 0);
            let mut reader = Reader::open(address, wish).await;
            let mut granted = at_once;
            // Stops whenever its credit ends, catches up, follows, and stops again.
            while reader.last() < EVENTS {
                reader.until(granted.min(EVENTS)).await;
                pause(Duration::from_millis(at_once as u64 / 100)).await;
                grant(&reader.session, 1, at_once).await;
                granted += at_once;
            }
            assert_eq!(reader.sequences(), (1..=EVENTS).collect::<Vec<_>>());
            assert!(reader.events.iter().zip(0..).all(|(received, n)| text(received) == n.to_string()));
        });
    }
    publisher.await.expect("published");
    soon("all readers", readers.join_all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starved_readers_lose_nothing_17529() {
    const READERS: i64 = 300;
    const EVENTS: usize = 2_000;
    let folder = Folder::new();
    // So little memory for what waits that most of them wait for it.
    let hub = hub_on_with(&folder, |config| config.sessions.session_queue_bytes = 256 * 1024).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut session = Session::open(hub.address).await;
    for id in 1..=READERS {
        let spec = Some(SubscriptionSpec { credit: credit(1, 0), ..from("s", preset(StartPreset::Earliest)) });
        session.send(1, Wire::Subscribe(Subscribe { subscription_id: id, spec })).await;
    }
    let publisher = tokio::spawn(publish_on(hub.address, 3, EVENTS));
    let mut reached: HashMap<i64, i64> = HashMap::new();
    let mut left = READERS * EVENTS as i64;
    while left > 0 {
        match session.frame().await.frame.expect("a frame") {
            Frame::Events(events) => {
                let id = events.subscription_id;
                let last = reached.entry(id).or_default();
                for received in &events.events {
                    assert_eq!(received.sequence, *last + 1, "subscription {id}");
                    *last += 1;
                }
                left -= events.events.len() as i64;
                grant(&session, id, events.events.len() as i64 * 2).await;
            }
            Frame::Subscribed(_) | Frame::Progress(_) | Frame::Heartbeat(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    publisher.await.expect("published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_never_ahead_of_the_data_15220() {
    const EVENTS: i64 = 6_000;
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| {
        config.engine.tail_cache_bytes = 32 * 1024;
        config.sessions.heartbeat_interval_ms = 100;
    })
    .await;
    create(hub.address, stream("s", &["s.>"])).await;
    let publisher = tokio::spawn(publish_on(hub.address, 7, EVENTS as usize));
    let wish = |start, events| {
        let mut wish = from("s", start);
        wish.filters = vec!["s.2".into(), "s.5".into()];
        wish.credit = credit(events, 0);
        wish
    };
    // The event with number n has sequence n + 1.
    let expected: Vec<i64> = (1..=EVENTS).filter(|sequence| [2, 5].contains(&((sequence - 1) % 7))).collect();
    let last = *expected.last().expect("some");
    let mut reader = Reader::open(hub.address, wish(preset(StartPreset::Earliest), 10)).await;
    let mut marks = 0;
    while reader.last() < last {
        let frame = reader.step().await;
        match frame {
            Frame::Events(events) => grant(&reader.session, 1, events.events.len() as i64).await,
            Frame::Progress(progress) => {
                marks += 1;
                assert_eq!(progress.caught_up, progress.lag == 0);
                // Whoever begins there gets the very next one that this reader has not got yet.
                let next = expected[reader.events.len()];
                let mut other = Reader::open(hub.address, wish(resume(&progress.resume_token), 1)).await;
                assert_eq!(other.subscribed.resume_outcome(), ResumeOutcome::Resumed);
                assert!(other.subscribed.start_sequence <= next, "progress passed over {next}");
                other.until(next).await;
                assert_eq!(other.sequences(), [next]);
            }
            other => panic!("unexpected: {other:?}"),
        }
        assert_eq!(reader.sequences().last(), expected[..reader.events.len()].last());
    }
    publisher.await.expect("published");
    let progress = reader.until_caught_up().await;
    assert_eq!((reader.sequences(), progress.lag), (expected, 0));
    assert!(marks > 0, "there was progress to check");
}

async fn purge(address: SocketAddr, up_to_sequence: i64) {
    let request = PurgeStreamRequest { name: "s".into(), up_to_sequence, filter: String::new() };
    streams(address).await.purge_stream(request).await.expect("purged");
}

#[tokio::test]
async fn an_event_at_the_edge_of_what_is_kept_is_not_dropped_18089() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for n in 0..60 {
        store(hub.address, numbered("s.x", n..n + 1)).await;
    }
    // Tokens that stand behind every sequence.
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.max_batch = 1;
    let mut reader = Reader::open(hub.address, wish).await;
    let mut tokens = Vec::new();
    for sequence in 1..=60 {
        reader.until(sequence).await;
        tokens.push(reader.token.clone());
    }
    for up_to in [1, 2, 17, 40, 59, 60] {
        purge(hub.address, up_to).await;
        let earliest = state(hub.address, "s").await.earliest_sequence;
        assert_eq!(earliest, up_to + 1);
        for behind in up_to - 1..=(up_to + 1).min(60) {
            let token = (behind > 0).then(|| tokens[behind as usize - 1].as_str());
            for start in [Some(after(behind)), token.map(resume)].into_iter().flatten() {
                if behind < up_to {
                    let ended = refused(hub.address, from("s", start)).await;
                    assert_eq!(crate::harness::reason(&ended.status.expect("a status")), "RESUME_POINT_LOST");
                } else {
                    let mut reader = Reader::open(hub.address, from("s", start)).await;
                    reader.until_caught_up().await;
                    assert_eq!(reader.sequences(), (behind + 1..=60).collect::<Vec<_>>(), "behind {behind}");
                }
            }
        }
    }
    store(hub.address, numbered("s.x", 60..61)).await;
    assert_eq!(all(hub.address, "s").await.iter().map(|received| received.sequence).collect::<Vec<_>>(), [61]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_under_a_reader_is_told_19179() {
    const EVENTS: i64 = 12_000;
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.engine.tail_cache_bytes = 16 * 1024).await;
    create(hub.address, Stream { max_events: 1_500, ..stream("s", &["s.>"]) }).await;
    let publisher = tokio::spawn(publish_on(hub.address, 3, EVENTS as usize));
    let mut readers = tokio::task::JoinSet::new();
    let (published, done) = tokio::sync::watch::channel(false);
    // The last one takes one event, and nothing more until all is published: it is overtaken on the slowest disk, too.
    for (at_once, waits) in [(1, false), (50, false), (1000, false), (1, true)] {
        let (address, mut done) = (hub.address, done.clone());
        readers.spawn(async move {
            let wish = SubscriptionSpec {
                on_gap: GapPolicy::Earliest.into(),
                credit: credit(at_once, 0),
                ..from("s", preset(StartPreset::Earliest))
            };
            let mut reader = Reader::open(address, wish).await;
            let mut next = reader.subscribed.start_sequence;
            let mut gaps = 0;
            while next <= EVENTS {
                match reader.step().await {
                    Frame::Events(events) => {
                        for received in &events.events {
                            assert_eq!(received.sequence, next, "missing, and nothing was said");
                            next += 1;
                        }
                        pause(Duration::from_micros(300)).await;
                        if waits {
                            done.wait_for(|done| *done).await.expect("told");
                        }
                        grant(&reader.session, 1, events.events.len() as i64).await;
                    }
                    Frame::Gap(gap) => {
                        assert_eq!(gap.from_sequence, next);
                        assert_eq!(gap.count, gap.to_sequence - gap.from_sequence + 1);
                        next = gap.to_sequence + 1;
                        gaps += 1;
                    }
                    Frame::Progress(_) => {}
                    other => panic!("unexpected: {other:?}"),
                }
            }
            gaps
        });
    }
    publisher.await.expect("published");
    published.send_replace(true);
    let gaps: usize = soon("all readers", readers.join_all()).await.into_iter().sum();
    assert!(gaps > 0, "nobody was overtaken");
}

#[tokio::test]
async fn a_place_in_the_future_gives_no_old_events_20221() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..100)).await;
    for future in [101, 150, i64::MAX] {
        let ended = refused(hub.address, from("s", after(future))).await;
        assert_eq!(crate::harness::reason(&ended.status.expect("a status")), "CONFIG_MISMATCH", "{future}");
    }
    // The very end is no future. A moment that has not come is: see `time`.
    for start in [after(100), preset(StartPreset::New), None] {
        let mut reader = Reader::open(hub.address, from("s", start)).await;
        reader.until_caught_up().await;
        let next = state(hub.address, "s").await.latest_sequence + 1;
        store(hub.address, numbered("s.x", 100..101)).await;
        reader.until(next).await;
        assert_eq!(reader.sequences().last(), Some(&next));
        assert!(reader.sequences()[0] > 100, "{:?}", reader.sequences());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_event_outlives_a_crash_right_after_its_answer_14370() {
    let folder = Folder::new();
    let flags = ["--data-dir", folder.text()];
    let mut hub = Process::start(&flags);
    create(hub.address, stream("s", &["s.>"])).await;
    for n in 0..10 {
        let results = store(hub.address, numbered("s.x", n..n + 1)).await;
        hub.signal("KILL");
        assert_eq!(results[0].sequence, n as i64 + 1);
        hub.exit(Duration::from_secs(10));
        hub = Process::start(&flags);
        let kept = all(hub.address, "s").await;
        assert!(kept.iter().zip(0..=n).all(|(received, n)| text(received) == n.to_string()));
        assert_eq!(kept.len(), n + 1);
    }
}
