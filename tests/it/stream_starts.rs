//! Where a subscription to a stream begins, when there is much of it, little memory, or something is deleted meanwhile.

use std::time::{Duration, SystemTime};

use switchyard::{
    proto::v1::{
        AddCredit, Event, PurgeStreamRequest, ReceivedEvent, StartPosition, StartPreset, Subscribe, SubscriptionSpec,
        hub_service_client::HubServiceClient, session_request::Command as Wire, session_response::Frame,
        start_position::Position,
    },
    server::Server,
};
use tonic::transport::Channel;

use crate::{
    harness::{Session, client, credit, event, metric, publish, reason, soon, spec, until},
    stored::{Folder, Reader, after, create, from, hub_on, hub_on_with, numbered, preset, store, stream, streams},
};

fn last_per_topic() -> SubscriptionSpec {
    from("s", preset(StartPreset::LastPerTopic))
}

/// Events of so many topics, `each` of a topic one after the other; the last of each is large.
fn topics(count: usize, each: usize, large: usize) -> Vec<Event> {
    let one = |topic: usize, n: usize| {
        let bytes = if n + 1 == each { large } else { 10 };
        event(&format!("s.{topic}"), format!("{n} {}", "x".repeat(bytes)))
    };
    (0..count).flat_map(|topic| (0..each).map(move |n| one(topic, n))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_many_topics_come_in_order_and_once() {
    const TOPICS: usize = 9_001;
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for some in topics(TOPICS, 2, 10).chunks(2_000) {
        store(hub.address, some.to_vec()).await;
    }
    let mut reader = Reader::open(hub.address, last_per_topic()).await;
    assert_eq!(reader.subscribed.start_sequence, 2);
    reader.until_caught_up().await;
    let expected: Vec<i64> = (1..=TOPICS as i64).map(|topic| topic * 2).collect();
    assert_eq!(reader.sequences(), expected);
    store(hub.address, topics(1, 1, 10)).await;
    reader.until(TOPICS as i64 * 2 + 1).await;
    assert_eq!(reader.events.len(), TOPICS + 1);
}

/// A client into which hardly anything goes that it does not read.
async fn narrow_client(hub: &Server) -> HubServiceClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", hub.address)).expect("a URL");
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    HubServiceClient::new(endpoint.connect().await.expect("a hub answers"))
}

/// Reads a session until so many events of a subscription have come.
async fn events_of(session: &mut Session, id: i64, count: usize) -> Vec<ReceivedEvent> {
    let mut got = Vec::new();
    let read = async {
        while got.len() < count {
            match session.frame().await.frame.expect("a frame") {
                Frame::Events(events) if events.subscription_id == id => got.extend(events.events),
                Frame::Subscribed(_) | Frame::Progress(_) | Frame::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    };
    soon("the events", read).await;
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_again_for_want_of_memory_is_still_the_last_of_each_topic() {
    const TOPICS: usize = 20;
    const SESSION_BYTES: usize = 450_000;
    const EVENT_BYTES: usize = 20_000;
    // Queues are compared by the logarithm of their size.
    const LARGE_BYTES: usize = 1 << 18;
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.sessions.session_queue_bytes = SESSION_BYTES).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, topics(TOPICS, 3, EVENT_BYTES)).await;

    // A live subscription whose events wait, and one from the stream all of whose events wait.
    let mut session = Session::open_on(&mut narrow_client(&hub).await).await;
    let live = SubscriptionSpec { credit: credit(0, 0), ..spec(&["live"]) };
    session.subscribe(1, live).await;
    let wish = Subscribe { subscription_id: 2, spec: Some(last_per_topic()) };
    session.send(2, Wire::Subscribe(wish)).await;
    let waits = async || metric(&hub, "switchyard_queue_bytes").await as usize;
    let all_wait = async || waits().await > LARGE_BYTES && metric(&hub, "switchyard_behind_subscriptions").await == 0;
    until("all that the transport does not take waits", all_wait).await;

    // With the other's, that is too much: the larger queue is given up, and read again.
    let more = (SESSION_BYTES - waits().await) / EVENT_BYTES + 1;
    assert!(more * EVENT_BYTES < LARGE_BYTES, "{more} events are less than what waits from the stream");
    let mut publisher = client(hub.address).await;
    for _ in 0..more {
        let live = event("live", "x".repeat(EVENT_BYTES));
        publisher.publish(publish(vec![live])).await.expect("published");
    }
    let got = events_of(&mut session, 2, TOPICS).await;
    let sequences: Vec<i64> = got.iter().map(|received| received.sequence).collect();
    assert_eq!(sequences, (1..=TOPICS as i64).map(|topic| topic * 3).collect::<Vec<_>>());
    drop(session);
    soon("the stop", hub.stop(Duration::ZERO)).await;
}

async fn purge_up_to(hub: &Server, up_to_sequence: i64) {
    let request = PurgeStreamRequest { name: "s".into(), up_to_sequence, ..PurgeStreamRequest::default() };
    streams(hub.address).await.purge_stream(request).await.expect("purged");
}

async fn grant(reader: &Reader, events: i64) {
    reader.session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(events, 0) })).await;
}

#[tokio::test]
async fn one_that_begins_with_what_is_there_does_so_when_some_of_it_is_deleted_first() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let at_time = StartPosition { position: Some(Position::AtTime(SystemTime::UNIX_EPOCH.into())) };
    let starts = [preset(StartPreset::Earliest), Some(at_time), after(0)];
    // Without credit nothing is read for them.
    let mut readers = Vec::new();
    for start in starts {
        let wish = SubscriptionSpec { credit: credit(0, 0), ..from("s", start) };
        readers.push(Reader::open(hub.address, wish).await);
    }
    let [earliest, at, behind] = &mut readers[..] else { panic!("three readers") };
    purge_up_to(&hub, 3).await;
    purge_up_to(&hub, 5).await;
    for reader in [&mut *earliest, at] {
        grant(reader, 2).await;
        reader.until(7).await;
        assert_eq!(reader.sequences(), [6, 7], "no gap, and no end");
    }

    // Whoever named a point, or has begun, has lost what is deleted then.
    purge_up_to(&hub, 8).await;
    for reader in [earliest, behind] {
        grant(reader, 2).await;
        let ended = reader.until_ended().await;
        assert_eq!(reason(ended.status.as_ref().expect("a status")), "RESUME_POINT_LOST");
    }
}
