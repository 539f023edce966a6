//! Reading a stream: where a subscription begins, and what it has and what comes as one ordered feed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use switchyard::proto::v1::{
    AddCredit, EndReason, Event, ReceivedEvent, ResumeOutcome, StartPosition, StartPreset, Subscribe, SubscribeRequest,
    Unsubscribe, Update, session_request::Command as Wire, session_response::Frame, start_position::Position,
    subscribe_response::Frame as OneFrame,
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_stream::StreamExt;
use tonic::Code;

use crate::{
    harness::{Process, Session, client, credit, event, hub, pause, reason, reason_of_call, soon, spec},
    stored::{
        Folder, Reader, after, create, from, hub_on, hub_on_with, numbered, preset, refused, resume, state, store,
        stream, streams, text,
    },
};

fn sequences(range: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    range.collect()
}

async fn grant(reader: &Reader, events: i64) {
    let command = AddCredit { subscription_id: 1, credit: credit(events, 0) };
    reader.session.send(0, Wire::Credit(command)).await;
}

#[tokio::test]
async fn every_start_begins_where_it_says() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let epoch = create(hub.address, stream("s", &["s.>"])).await.state.expect("a state").epoch;
    store(hub.address, numbered("s.a", 0..5)).await;
    // Times are told in nanoseconds; an event of the same time would belong to the second half.
    pause(Duration::from_millis(5)).await;
    let time = SystemTime::now().into();
    pause(Duration::from_millis(5)).await;
    store(hub.address, numbered("s.b", 5..10)).await;
    let mut first = Reader::open(hub.address, from("s", after(0))).await;
    first.until_caught_up().await;

    let at = |position| Some(StartPosition { position: Some(position) });
    let starts = [
        (None, 11, ResumeOutcome::Fresh),
        (preset(StartPreset::New), 11, ResumeOutcome::Fresh),
        (preset(StartPreset::Earliest), 1, ResumeOutcome::Fresh),
        (preset(StartPreset::LastPerTopic), 5, ResumeOutcome::Fresh),
        (after(0), 1, ResumeOutcome::Fresh),
        (after(7), 8, ResumeOutcome::Fresh),
        (after(10), 11, ResumeOutcome::Fresh),
        (at(Position::AtTime(SystemTime::UNIX_EPOCH.into())), 1, ResumeOutcome::Fresh),
        (at(Position::AtTime(time)), 6, ResumeOutcome::Fresh),
        (resume(&first.token), 11, ResumeOutcome::Resumed),
    ];
    let mut readers = Vec::new();
    for (start, begins, outcome) in starts {
        let reader = Reader::open(hub.address, from("s", start.clone())).await;
        let told = &reader.subscribed;
        assert_eq!((told.start_sequence, told.resume_outcome()), (begins, outcome), "{start:?}");
        assert_eq!((told.epoch, told.earliest_sequence, told.latest_sequence), (epoch, 1, 10));
        assert!(told.automatic_credit);
        readers.push((start, begins, reader));
    }
    store(hub.address, numbered("s.c", 10..11)).await;
    for (start, begins, mut reader) in readers {
        reader.until(11).await;
        let last_per_topic = start == preset(StartPreset::LastPerTopic);
        let expected = if last_per_topic { vec![5, 10, 11] } else { sequences(begins..=11) };
        assert_eq!(reader.sequences(), expected, "{start:?}");
        assert!(reader.events.iter().all(|received| text(received) == (received.sequence - 1).to_string()));
    }
}

/// Publishes `count` events of a topic, a few at a time, and tells on the way how far it is.
async fn publish_on(address: SocketAddr, topic: String, count: usize, begun: Arc<Notify>) {
    let mut client = client(address).await;
    let mut next = 0;
    while next < count {
        let some = numbered(&topic, next..(next + 7).min(count));
        next += some.len();
        client.publish(crate::harness::publish(some)).await.expect("published");
        if next > count / 8 {
            begun.notify_one();
        }
    }
}

/// Each publisher's events are there once and in their order.
fn check_publishers(events: &[ReceivedEvent], publishers: usize, count: usize) {
    let mut next: HashMap<&str, usize> = HashMap::new();
    for received in events {
        let topic = received.event.as_ref().expect("an event").topic.as_str();
        let expected = next.entry(topic).or_default();
        assert_eq!(text(received), expected.to_string(), "{topic}");
        *expected += 1;
    }
    assert_eq!((next.len(), next.values().copied().min()), (publishers, Some(count)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_and_what_comes_is_one_feed() {
    const PUBLISHERS: usize = 3;
    const EACH: usize = 3_000;
    let folder = Folder::new();
    // A tail so short that those who are behind have to read the file.
    let hub = hub_on_with(&folder, |config| config.engine.tail_cache_bytes = 64 * 1024).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let begun = Arc::new(Notify::new());
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish_on(hub.address, format!("s.{publisher}"), EACH, Arc::clone(&begun)));
    }
    begun.notified().await;
    let total = (PUBLISHERS * EACH) as i64;
    let mut readers = JoinSet::new();
    for number in 0..8 {
        let address = hub.address;
        readers.spawn(async move {
            pause(Duration::from_millis(number * 23)).await;
            let mut wish = from("s", preset(StartPreset::Earliest));
            wish.max_batch = if number % 2 == 0 { 0 } else { 50 };
            let mut reader = Reader::open(address, wish).await;
            reader.until(total).await;
            assert_eq!(reader.sequences(), sequences(1..=total));
            reader.events
        });
    }
    publishers.join_all().await;
    for events in readers.join_all().await {
        check_publishers(&events, PUBLISHERS, EACH);
    }
}

#[tokio::test]
async fn one_that_has_everything_is_told_so() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    let progress = reader.until_caught_up().await;
    assert_eq!((progress.subscription_id, progress.lag), (1, 0), "an empty stream has no more");
    assert!(!progress.resume_token.is_empty());
    store(hub.address, numbered("s.x", 0..1000)).await;
    reader.until(1000).await;
    let mut late = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    let progress = late.until_caught_up().await;
    assert_eq!((late.last(), progress.lag), (1000, 0), "told behind the events");
    let resumed = Reader::open(hub.address, from("s", resume(&progress.resume_token))).await;
    assert_eq!(resumed.subscribed.start_sequence, 1001);
}

#[tokio::test]
async fn events_that_do_not_match_are_passed_over() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.sessions.heartbeat_interval_ms = 200).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.other", 0..100)).await;
    let wish = |start| {
        let mut wish = from("s", start);
        wish.filters = vec!["s.mine".into(), "s.also.*".into()];
        wish
    };
    let mut reader = Reader::open(hub.address, wish(preset(StartPreset::Earliest))).await;
    let progress = reader.until_caught_up().await;
    let resumed = Reader::open(hub.address, wish(resume(&progress.resume_token))).await;
    assert_eq!((reader.events.len(), resumed.subscribed.start_sequence), (0, 101));

    let some = vec![event("s.mine", "1"), event("s.also.x", "2"), event("s.also", "no"), event("s.other", "no")];
    store(hub.address, some).await;
    reader.until(102).await;
    assert_eq!(reader.texts(), ["1", "2"]);
    // Those behind are told of too, in time.
    let token = reader.until_caught_up().await.resume_token;
    let resumed = Reader::open(hub.address, wish(resume(&token))).await;
    assert_eq!(resumed.subscribed.start_sequence, 105);

    let mut wrong = from("s", None);
    wrong.filters = vec!["s..x".into()];
    assert_eq!(reason(&refused(hub.address, wrong).await.status.expect("a status")), "INVALID_FILTER");
}

#[tokio::test]
async fn the_last_of_every_topic_comes_first_and_then_what_comes() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let topics: Vec<String> = (0..300).map(|topic| format!("s.{topic}")).collect();
    for round in 0..3 {
        let events = topics.iter().map(|topic| event(topic, round.to_string())).collect();
        store(hub.address, events).await;
    }
    store(hub.address, vec![event("s.7", "3")]).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::LastPerTopic))).await;
    reader.until_caught_up().await;
    let expected: Vec<i64> = (601..=901).filter(|sequence| *sequence != 608).collect();
    assert_eq!(reader.sequences(), expected);
    store(hub.address, vec![event("s.7", "4"), event("s.7", "5")]).await;
    reader.until(903).await;
    assert_eq!(&reader.sequences()[300..], [902, 903], "all of what comes");

    let mut wish = from("s", preset(StartPreset::LastPerTopic));
    wish.filters = vec!["s.7".into(), "s.nothing".into()];
    let mut reader = Reader::open(hub.address, wish).await;
    reader.until_caught_up().await;
    assert_eq!(reader.sequences(), [903]);
}

#[tokio::test]
async fn after_the_last_command_a_stream_is_read_on() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..2000)).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.session.half_close();
    reader.until(2000).await;
    for n in 2000..2010 {
        store(hub.address, numbered("s.x", n..n + 1)).await;
        reader.until(n as i64 + 1).await;
    }
    assert_eq!(reader.sequences(), sequences(1..=2010));
}

#[tokio::test]
async fn one_that_wants_so_many_gets_so_many() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..25)).await;
    let mut start = preset(StartPreset::Earliest);
    let mut got = Vec::new();
    for expected in [10, 10] {
        let mut wish = from("s", start);
        wish.max_events = expected;
        wish.max_batch = 4;
        let mut reader = Reader::open(hub.address, wish).await;
        let ended = reader.until_ended().await;
        assert_eq!((ended.reason(), reader.events.len()), (EndReason::LimitReached, expected as usize));
        got.extend(reader.sequences());
        start = resume(&ended.resume_token);
    }
    assert_eq!(got, sequences(1..=20));
}

#[tokio::test]
async fn unsubscribing_tells_where_to_go_on() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.credit = credit(4, 0);
    let mut reader = Reader::open(hub.address, wish).await;
    reader.until(4).await;
    reader.session.send(0, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await;
    let ended = reader.until_ended().await;
    assert_eq!(ended.reason(), EndReason::ClientUnsubscribed);
    let mut rest = Reader::open(hub.address, from("s", resume(&ended.resume_token))).await;
    rest.until(10).await;
    assert_eq!(rest.sequences(), sequences(5..=10));
}

#[tokio::test]
async fn new_filters_keep_the_place() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let some = |from: usize| -> Vec<Event> {
        (from..from + 10).map(|n| event(if n % 2 == 0 { "s.even" } else { "s.odd" }, n.to_string())).collect()
    };
    store(hub.address, some(0)).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.filters = vec!["s.even".into()];
    let mut reader = Reader::open(hub.address, wish).await;
    reader.until_caught_up().await;
    let update = Update { subscription_id: 1, filters: vec!["s.odd".into()], expression: String::new() };
    reader.session.send(5, Wire::Update(update)).await;
    let Frame::Subscribed(subscribed) = reader.step().await else { panic!("not subscribed") };
    assert_eq!(subscribed.start_sequence, 11);
    store(hub.address, some(10)).await;
    reader.until(20).await;
    assert_eq!(reader.sequences(), [1, 3, 5, 7, 9, 12, 14, 16, 18, 20]);
}

#[tokio::test]
async fn other_filters_hold_for_all_that_was_not_sent_yet() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    // More than a transport and a queue hold together, and each event the last of its topic.
    let large = "x".repeat(16 * 1024);
    for some in (0..500).collect::<Vec<_>>().chunks(100) {
        let topic = |n: &usize| format!("s.{}.{n}", if n.is_multiple_of(2) { "even" } else { "odd" });
        store(hub.address, some.iter().map(|n| event(&topic(n), large.clone())).collect()).await;
    }
    for begin in [StartPreset::Earliest, StartPreset::LastPerTopic] {
        let mut wish = from("s", preset(begin));
        wish.filters = vec!["s.even.*".into()];
        let mut reader = Reader::open(hub.address, wish).await;
        while reader.events.is_empty() {
            reader.step().await;
        }
        let update = Update { subscription_id: 1, filters: vec!["s.odd.*".into()], expression: String::new() };
        reader.session.send(5, Wire::Update(update)).await;
        let subscribed = loop {
            if let Frame::Subscribed(subscribed) = reader.step().await {
                break subscribed;
            }
        };
        assert!(reader.sequences().iter().all(|sequence| sequence % 2 == 1), "before: even numbers, from 0");
        let before = reader.events.len();
        assert_eq!(subscribed.start_sequence, reader.last() + 1, "behind what was sent");
        reader.until_caught_up().await;
        let expected: Vec<i64> = (subscribed.start_sequence..=500).filter(|sequence| sequence % 2 == 0).collect();
        assert_eq!(reader.sequences()[before..], expected, "{begin:?}");
    }
}

#[tokio::test]
async fn many_read_one_stream_over_one_session() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, (0..500).map(|n| event(&format!("s.{}", n % 10), n.to_string())).collect()).await;
    let mut session = Session::open(hub.address).await;
    for id in 1..=100_i64 {
        let mut spec = from("s", after(id));
        spec.filters = vec![format!("s.{}", id % 10)];
        session.send(1, Wire::Subscribe(Subscribe { subscription_id: id, spec: Some(spec) })).await;
    }
    store(hub.address, (500..1000).map(|n| event(&format!("s.{}", n % 10), n.to_string())).collect()).await;
    let expected = |id: i64| -> Vec<i64> {
        // The event with number n has sequence n + 1.
        (id + 1..=1000).filter(|sequence| (sequence - 1) % 10 == id % 10).collect()
    };
    let mut got: HashMap<i64, Vec<i64>> = HashMap::new();
    let mut left: i64 = (1..=100).map(|id| expected(id).len() as i64).sum();
    while left > 0 {
        match session.frame().await.frame.expect("a frame") {
            Frame::Events(events) => {
                left -= events.events.len() as i64;
                got.entry(events.subscription_id).or_default().extend(events.events.iter().map(|e| e.sequence));
            }
            Frame::Subscribed(_) | Frame::Progress(_) | Frame::Heartbeat(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    for id in 1..=100 {
        assert_eq!(got[&id], expected(id), "subscription {id}");
    }
}

/// The kernel gives memory back late, and both the store and its caches count: this is what a hub may grow to while a
/// reader that takes nothing is far behind. Unbounded queues would need the 200 MB that are published.
const MOST_GROWTH_BYTES: usize = 150 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_falls_behind_and_loses_nothing() {
    const EVENTS: i64 = 100_000;
    let folder = Folder::new();
    let small = ["engine.tail_cache_bytes=4194304", "engine.store_cache_bytes=8388608"];
    let flags = ["--data-dir", folder.text(), "--set", small[0], "--set", small[1]];
    let hub = Process::start(&flags);
    create(hub.address, stream("s", &["s.>"])).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.credit = credit(10, 0);
    let mut slow = Reader::open(hub.address, wish).await;
    let mut quick = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    let before = hub.resident_bytes();
    let address = hub.address;
    let publisher = tokio::spawn(async move {
        let mut client = client(address).await;
        let filler = "x".repeat(2000);
        for batch in 0..EVENTS / 500 {
            let events = (0..500).map(|n| event("s.x", format!("{} {filler}", batch * 500 + n))).collect();
            client.publish(crate::harness::publish(events)).await.expect("published");
        }
    });
    // One that keeps up has all of it; the other has ten events by then.
    while quick.last() < EVENTS {
        let reached = quick.last() + 1;
        quick.until(reached).await;
        quick.events.drain(..quick.events.len() - 1);
    }
    publisher.await.expect("published");
    slow.until(10).await;
    let grown = hub.resident_bytes().saturating_sub(before);
    assert!(grown < MOST_GROWTH_BYTES, "the hub grew by {grown} bytes");

    let mut granted = 10;
    while slow.last() < EVENTS {
        assert!(slow.last() <= granted, "more than was granted");
        if slow.last() == granted {
            grant(&slow, 5000).await;
            granted += 5000;
        }
        let frame = slow.step().await;
        assert!(matches!(frame, Frame::Events(_) | Frame::Progress(_)), "{frame:?}");
        let before = slow.events.len();
        for (received, expected) in slow.events.iter().zip(slow.last() - before as i64 + 1..) {
            let number = text(received).split(' ').next().expect("a number");
            assert_eq!((received.sequence, number), (expected, (expected - 1).to_string().as_str()));
        }
        slow.events.drain(..before - 1);
    }
    store(hub.address, vec![event("s.x", "now")]).await;
    slow.until(EVENTS + 1).await;
    assert_eq!(slow.texts().last(), Some(&"now"), "it has rejoined the others");
}

#[tokio::test]
async fn without_credit_nothing_is_sent() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..100)).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.credit = credit(0, 0);
    let mut reader = Reader::open(hub.address, wish).await;
    for granted in 1..=5 {
        grant(&reader, 1).await;
        reader.until(granted).await;
        reader.session.send(3, Wire::Ping(switchyard::proto::v1::Ping { nonce: "n".into() })).await;
        let frame = reader.step().await;
        assert!(matches!(frame, Frame::Pong(_)), "{granted}: {frame:?}");
    }
    assert_eq!(reader.sequences(), sequences(1..=5));
}

#[tokio::test]
async fn deleting_a_stream_ends_those_who_read_it() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    create(hub.address, stream("t", &["t.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.credit = credit(3, 0);
    let mut behind = Reader::open(hub.address, wish).await;
    behind.until(3).await;
    let mut following = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    following.until_caught_up().await;
    let mut other = Reader::open(hub.address, from("t", None)).await;
    let request = switchyard::proto::v1::DeleteStreamRequest { name: "s".into() };
    streams(hub.address).await.delete_stream(request).await.expect("deleted");
    let ended = following.until_ended().await;
    let status = ended.status.as_ref().expect("a status");
    assert_eq!((ended.reason(), status.code), (EndReason::StreamNotFound, Code::NotFound as i32));
    grant(&behind, 100).await;
    assert_eq!(behind.until_ended().await.reason(), EndReason::StreamNotFound);
    store(hub.address, numbered("t.x", 0..1)).await;
    other.until(1).await;
    assert_eq!(store(hub.address, numbered("s.x", 0..1)).await[0].stream, "", "its topics are free");
}

#[tokio::test]
async fn a_call_of_its_own_reads_a_stream() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let mut client = client(hub.address).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.max_events = 10;
    let mut frames = client.subscribe(SubscribeRequest { spec: Some(wish) }).await.expect("a call").into_inner();
    let mut got = Vec::new();
    while let Some(frame) = soon("a frame", frames.next()).await {
        match frame.expect("a frame").frame.expect("a frame") {
            OneFrame::Events(events) => got.extend(events.events.iter().map(|received| received.sequence)),
            OneFrame::Ended(ended) => assert_eq!(ended.reason(), EndReason::LimitReached),
            _ => {}
        }
    }
    assert_eq!(got, sequences(1..=10));
    let error = client.subscribe(SubscribeRequest { spec: Some(from("none", None)) }).await.expect_err("no stream");
    assert_eq!((error.code(), reason_of_call(&error).as_str()), (Code::NotFound, "STREAM_NOT_FOUND"));
}

#[tokio::test]
async fn a_hub_without_a_store_says_so() {
    let hub = hub().await;
    let ended = refused(hub.address, from("s", None)).await;
    assert_eq!(reason(&ended.status.expect("a status")), "CONFIG_MISMATCH");
    let error = streams(hub.address)
        .await
        .create_stream(switchyard::proto::v1::CreateStreamRequest { stream: Some(stream("s", &["s"])) })
        .await
        .expect_err("no store");
    assert_eq!(reason_of_call(&error), "CONFIG_MISMATCH");
    // Live events need none.
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["s"])).await;
    assert_eq!(session.publish(vec![event("s", "x")]).await.results[0].matched, 1);
}

#[tokio::test]
async fn how_a_stream_stands_is_told_as_it_is() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let state = state(hub.address, "s").await;
    assert_eq!((state.earliest_sequence, state.latest_sequence, state.events), (1, 10, 10));
    assert!(state.bytes > 100 && state.bytes < 2000, "{}", state.bytes);
}
