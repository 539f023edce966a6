//! Streams as their owners meet them: making, changing, emptying them, and what a publish to them answers.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use prost::Message;
use switchyard::proto::v1::{
    CreateStreamRequest, DeleteStreamRequest, Durability, Event, GetEventRequest, GetStreamRequest, ListStreamsRequest,
    PublishPrecondition, PublishRequest, PublishResult, PurgeStreamRequest, ReceivedEvent, StartPreset, Storage,
    Stream, UpdateStreamRequest, get_event_request::Which, publish_precondition::Condition, session_response::Frame,
};
use tonic::Code;

use crate::{
    harness::{Session, client, event, metric, publish, reason, reason_of_call, soon, spec, texts, until},
    stored::{
        Folder, Reader, after, all, create, from, hub_on, hub_on_with, numbered, preset, resume, state, stop, store,
        stream, streams, text, told,
    },
};

async fn update(address: std::net::SocketAddr, stream: Stream, paths: &[&str]) -> Result<Stream, tonic::Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = UpdateStreamRequest { stream: Some(stream), update_mask: Some(prost_types::FieldMask { paths }) };
    streams(address).await.update_stream(request).await.map(|response| response.into_inner().stream.expect("a stream"))
}

async fn purge(address: std::net::SocketAddr, up_to_sequence: i64, filter: &str) -> i64 {
    let request = PurgeStreamRequest { name: "s".into(), up_to_sequence, filter: filter.into() };
    streams(address).await.purge_stream(request).await.expect("purged").into_inner().purged_events
}

async fn get_event(address: std::net::SocketAddr, stream: &str, which: Which) -> Result<ReceivedEvent, tonic::Status> {
    let request = GetEventRequest { stream: stream.into(), which: Some(which) };
    streams(address).await.get_event(request).await.map(|response| response.into_inner().event.expect("an event"))
}

fn sequences(range: Range<i64>) -> Vec<i64> {
    range.collect()
}

#[tokio::test]
async fn what_is_stored_is_routed_whatever_becomes_of_the_call() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    create(hub.address, stream("other", &["other.>"])).await;
    let mut live = Session::open(hub.address).await;
    live.subscribe(1, spec(&["s.>"])).await;
    let caller = client(hub.address).await;
    for n in 0..400 {
        let (mut caller, number) = (caller.clone(), n.to_string());
        // With events of two streams there is more than one moment to be given up at.
        let events = vec![event("other.a", number.clone()), event("s.a", number)];
        // Given up at some moment between the first byte and the answer.
        let patience = Duration::from_micros(n * 17 % 3_000);
        tokio::time::timeout(patience, async move { caller.publish(publish(events)).await }).await.ok();
    }
    store(hub.address, vec![event("s.a", "last")]).await;
    let stored = all(hub.address, "s").await;
    let mut missing: BTreeSet<&str> = stored.iter().map(text).collect();
    let all_routed = async {
        while !missing.is_empty() {
            if let Some(Frame::Events(events)) = live.frame().await.frame {
                for text in texts(&events) {
                    missing.remove(text.as_str());
                }
            }
        }
    };
    soon("every event that is stored", all_routed).await;
}

#[tokio::test]
async fn a_stream_is_created_shown_listed_and_deleted() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    for name in ["c", "a", "b"] {
        let created = create(hub.address, stream(name, &[&format!("{name}.>")])).await;
        assert_eq!((created.storage(), created.durability()), (Storage::File, Durability::Sync));
        assert_eq!(created.dedupe_window.expect("a default").seconds, 120);
        let state = created.state.expect("a state");
        assert_eq!((state.earliest_sequence, state.latest_sequence, state.events, state.bytes), (1, 0, 0, 0));
        assert!(state.epoch != 0 && state.create_time.is_some());
    }
    let mut client = streams(hub.address).await;
    let again = client.create_stream(switchyard::proto::v1::CreateStreamRequest { stream: Some(stream("a", &["x"])) });
    let error = again.await.expect_err("there is one");
    assert_eq!((error.code(), reason_of_call(&error).as_str()), (Code::AlreadyExists, "STREAM_EXISTS"));

    let request = ListStreamsRequest { page_size: 2, page_token: String::new() };
    let page = client.list_streams(request).await.expect("a page").into_inner();
    let names = |streams: &[Stream]| streams.iter().map(|stream| stream.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&page.streams), ["a", "b"]);
    let request = ListStreamsRequest { page_size: 2, page_token: page.next_page_token };
    let page = client.list_streams(request).await.expect("a page").into_inner();
    assert_eq!((names(&page.streams), page.next_page_token.as_str()), (vec!["c".to_owned()], ""));

    client.delete_stream(DeleteStreamRequest { name: "a".into() }).await.expect("deleted");
    for error in [
        client.delete_stream(DeleteStreamRequest { name: "a".into() }).await.expect_err("gone"),
        client.get_stream(GetStreamRequest { name: "a".into() }).await.expect_err("gone"),
    ] {
        assert_eq!((error.code(), reason_of_call(&error).as_str()), (Code::NotFound, "STREAM_NOT_FOUND"));
    }
}

#[tokio::test]
async fn results_tell_where_an_event_is_and_live_subscribers_get_it_too() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let epoch = create(hub.address, stream("s", &["s.>"])).await.state.expect("a state").epoch;
    let mut live = Session::open(hub.address).await;
    live.subscribe(1, spec(&[">"])).await;
    let mut reader = Reader::open(hub.address, from("s", None)).await;
    let results = store(hub.address, vec![event("s.a", "1"), event("live", "2"), event("s.b", "3")]).await;
    let told: Vec<_> = results.iter().map(|r| (r.stream.as_str(), r.sequence, r.epoch, r.matched)).collect();
    assert_eq!(told, [("s", 1, epoch, 1), ("", 0, 0, 1), ("s", 2, epoch, 1)]);
    let durabilities: Vec<_> = results.iter().map(PublishResult::durability).collect();
    assert_eq!(durabilities, [Durability::Sync, Durability::Unspecified, Durability::Sync]);

    let mut got = Vec::new();
    while got.len() < 3 {
        let events = live.events().await;
        assert!(events.events.iter().all(|received| received.stream.is_empty() && received.sequence == 0));
        assert_eq!(events.resume_token, "");
        got.extend(texts(&events));
    }
    got.sort();
    assert_eq!(got, ["1", "2", "3"]);
    reader.until(2).await;
    assert_eq!((reader.texts(), reader.sequences()), (vec!["1", "3"], vec![1, 2]));
    assert!(reader.events.iter().all(|received| received.stream == "s" && received.append_time.is_some()));
}

#[tokio::test]
async fn a_topic_is_of_one_stream() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("one", &["a.*", "b.>"])).await;
    create(hub.address, stream("two", &["c.>"])).await;
    for overlapping in [&["a.x"][..], &["*.x"], &[">"], &["d", "b.c.d"]] {
        let request = switchyard::proto::v1::CreateStreamRequest { stream: Some(stream("three", overlapping)) };
        let error = streams(hub.address).await.create_stream(request).await.expect_err("it overlaps");
        assert_eq!((error.code(), reason_of_call(&error).as_str()), (Code::FailedPrecondition, "FILTER_OVERLAP"));
    }
    let error = update(hub.address, stream("two", &["c.>", "b.x"]), &["filters"]).await.expect_err("it overlaps");
    assert_eq!(reason_of_call(&error), "FILTER_OVERLAP");
    update(hub.address, stream("one", &["a.*"]), &["filters"]).await.expect("fewer filters");
    update(hub.address, stream("two", &["c.>", "b.x"]), &["filters"]).await.expect("b.x is free now");
    let results = store(hub.address, vec![event("b.x", ""), event("b.y", ""), event("a.x", "")]).await;
    assert_eq!(results.iter().map(|result| result.stream.as_str()).collect::<Vec<_>>(), ["two", "", "one"]);
}

fn with_id(source: &str, id: &str) -> Event {
    Event { source: source.into(), id: id.into(), ..event("s.x", "") }
}

#[tokio::test]
async fn a_repetition_is_told_and_not_stored_nor_delivered_again() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut live = Session::open(hub.address).await;
    live.subscribe(1, spec(&["s.>"])).await;
    let batch = || vec![with_id("p", "1"), with_id("p", "2"), with_id("p", "1"), with_id("q", "1")];
    let told = |results: Vec<PublishResult>| -> Vec<_> { results.iter().map(|r| (r.sequence, r.duplicate)).collect() };
    assert_eq!(told(store(hub.address, batch()).await), [(1, false), (2, false), (1, true), (3, false)]);
    assert_eq!(told(store(hub.address, batch()).await), [(1, true), (2, true), (1, true), (3, true)]);
    // An event without an id of its own is never a repetition.
    let results = store(hub.address, vec![with_id("p", ""), with_id("p", "")]).await;
    assert_eq!(told(results), [(4, false), (5, false)]);
    let mut got = 0;
    while got < 5 {
        got += live.events().await.events.len();
    }
    assert_eq!(got, 5);
    drop(live);
    stop(hub).await;

    let hub = hub_on(&folder).await;
    assert_eq!(told(store(hub.address, batch()).await), [(1, true), (2, true), (1, true), (3, true)]);
    assert_eq!(told(store(hub.address, vec![with_id("p", "3")]).await), [(6, false)]);
    assert_eq!(all(hub.address, "s").await.len(), 6);
}

#[tokio::test]
async fn without_a_window_nothing_is_a_repetition() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let window = Some(prost_types::Duration::default());
    create(hub.address, Stream { dedupe_window: window, ..stream("s", &["s.>"]) }).await;
    let results = store(hub.address, vec![with_id("p", "1"), with_id("p", "1")]).await;
    assert_eq!(results.iter().map(|r| (r.sequence, r.duplicate)).collect::<Vec<_>>(), [(1, false), (2, false)]);
}

fn only_if(condition: Condition, events: Vec<Event>) -> PublishRequest {
    PublishRequest { events, precondition: Some(PublishPrecondition { condition: Some(condition) }) }
}

#[tokio::test]
async fn a_publish_with_a_precondition_is_all_or_nothing() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = client(hub.address).await;
    let first = only_if(Condition::LastSequence(0), numbered("s.a", 0..2));
    let results = client.publish(first).await.expect("nothing was there").into_inner().results;
    assert_eq!(results.iter().map(|result| result.sequence).collect::<Vec<_>>(), [1, 2]);
    client.publish(publish(numbered("s.b", 0..1))).await.expect("published");

    let mismatches = [
        (Condition::LastSequence(2), "s.a", 3),
        (Condition::LastSequence(4), "s.a", 3),
        (Condition::LastTopicSequence(3), "s.a", 2),
        (Condition::LastTopicSequence(2), "s.b", 3),
        (Condition::LastTopicSequence(1), "s.new", 0),
    ];
    for (condition, topic, actual) in mismatches {
        let request = only_if(condition, numbered(topic, 0..3));
        let error = client.publish(request).await.expect_err("it does not hold");
        assert_eq!((error.code(), reason_of_call(&error).as_str()), (Code::Aborted, "SEQUENCE_MISMATCH"));
        let details: tonic_types::pb::Status = prost::Message::decode(error.details()).expect("a status");
        assert_eq!(told(&details, "actual"), Some(actual), "{condition:?} on {topic}");
    }
    assert_eq!(state(hub.address, "s").await.latest_sequence, 3, "nothing of a refused batch is stored");

    let held = [(Condition::LastTopicSequence(2), "s.a"), (Condition::LastTopicSequence(0), "s.new")];
    for (condition, topic) in held {
        client.publish(only_if(condition, numbered(topic, 0..1))).await.expect("it holds");
    }
    let bad = vec![event("s.a", ""), event("bad topic", "")];
    let mixed = vec![event("s.a", ""), event("live", "")];
    for events in [bad, mixed] {
        client.publish(only_if(Condition::LastSequence(5), events)).await.expect_err("not of one stream");
    }
    assert_eq!(state(hub.address, "s").await.latest_sequence, 5);
}

#[tokio::test]
async fn a_precondition_that_was_met_is_met_again_by_the_same_events() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut client = client(hub.address).await;
    for duplicate in [false, true] {
        let request = only_if(Condition::LastSequence(0), vec![with_id("p", "1"), with_id("p", "2")]);
        let results = client.publish(request).await.expect("stored").into_inner().results;
        let told: Vec<_> = results.iter().map(|result| (result.sequence, result.duplicate)).collect();
        assert_eq!(told, [(1, duplicate), (2, duplicate)]);
    }
    // One of them alone is new: then it is compared.
    let request = only_if(Condition::LastSequence(0), vec![with_id("p", "1"), with_id("p", "3")]);
    let error = client.publish(request).await.expect_err("it does not hold");
    assert_eq!(reason_of_call(&error), "SEQUENCE_MISMATCH");
}

#[tokio::test]
async fn of_two_that_compare_and_publish_at_once_one_wins() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for round in 0..20 {
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let mut client = client(hub.address).await;
            tries.spawn(async move {
                client.publish(only_if(Condition::LastTopicSequence(round), numbered("s.x", 0..1))).await.is_ok()
            });
        }
        let won = tries.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1, "round {round}");
    }
    assert_eq!(state(hub.address, "s").await.latest_sequence, 20);
}

#[tokio::test]
async fn new_limits_lose_no_position() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let epoch = create(hub.address, stream("s", &["s.>"])).await.state.expect("a state").epoch;
    store(hub.address, numbered("s.x", 0..100)).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.credit = crate::harness::credit(50, 0);
    let mut reader = Reader::open(hub.address, wish).await;
    reader.until(50).await;
    assert_eq!(reader.last(), 50);

    let changed = Stream { max_events: 60, ..stream("s", &[]) };
    let state = update(hub.address, changed, &["max_events"]).await.expect("changed").state.expect("a state");
    assert_eq!((state.epoch, state.earliest_sequence, state.latest_sequence, state.events), (epoch, 41, 100, 60));
    let again = Reader::open(hub.address, from("s", resume(&reader.token))).await;
    assert_eq!(again.subscribed.start_sequence, 51);
    for session in [&reader.session, &again.session] {
        let credit = switchyard::proto::v1::AddCredit { subscription_id: 1, credit: crate::harness::credit(1000, 0) };
        session.send(0, switchyard::proto::v1::session_request::Command::Credit(credit)).await;
    }
    assert_eq!(store(hub.address, numbered("s.x", 100..101)).await[0].sequence, 101);
    reader.until(101).await;
    assert_eq!(reader.sequences(), sequences(1..102));

    for (changed, path) in [
        (Stream { storage: Storage::Memory.into(), ..stream("s", &[]) }, "storage"),
        (stream("s", &[]), "name"),
        (stream("s", &[]), "nonsense"),
    ] {
        let error = update(hub.address, changed, &[path]).await.expect_err("it stays");
        assert_eq!(reason_of_call(&error), "CONFIG_MISMATCH", "{path}");
    }
}

#[tokio::test]
async fn a_purge_removes_what_it_names_and_nothing_else() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for n in 0..20 {
        store(hub.address, vec![event("s.a", format!("a{n}")), event("s.b", format!("b{n}"))]).await;
    }
    assert_eq!(purge(hub.address, 10, "").await, 10);
    assert_eq!(state(hub.address, "s").await.earliest_sequence, 11);
    assert_eq!(purge(hub.address, 20, "s.a").await, 5);
    let kept = state(hub.address, "s").await;
    assert_eq!((kept.latest_sequence, kept.events), (40, 25));
    let expected: Vec<i64> = (11..=40).filter(|sequence| *sequence > 20 || sequence % 2 == 0).collect();
    let read = |events: &[ReceivedEvent]| events.iter().map(|received| received.sequence).collect::<Vec<_>>();
    assert_eq!(read(&all(hub.address, "s").await), expected);
    assert_eq!(purge(hub.address, 0, "s.nothing").await, 0);
    stop(hub).await;

    let hub = hub_on(&folder).await;
    assert_eq!(read(&all(hub.address, "s").await), expected, "also after a restart");
    assert_eq!(purge(hub.address, 0, "").await, 25);
    assert_eq!(all(hub.address, "s").await.len(), 0);
    assert_eq!(store(hub.address, numbered("s.a", 0..1)).await[0].sequence, 41, "sequences go on");
}

#[tokio::test]
async fn of_each_topic_only_the_last_are_kept() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, Stream { max_events_per_topic: 2, ..stream("s", &["s.*"]) }).await;
    let topics: Vec<String> = (0..5).map(|topic| format!("s.{topic}")).collect();
    for n in 0..10 {
        let events = topics.iter().map(|topic| event(topic, n.to_string())).collect();
        store(hub.address, events).await;
    }
    let mut hub = hub;
    for _ in 0..2 {
        assert_eq!(state(hub.address, "s").await.events, 10);
        let kept = all(hub.address, "s").await;
        assert_eq!(kept.iter().map(|received| received.sequence).collect::<Vec<_>>(), sequences(41..51));
        assert!(kept.iter().all(|received| ["8", "9"].contains(&text(received))));
        stop(hub).await;
        hub = hub_on(&folder).await;
    }
    // One that is in the middle of what is pushed out is told nothing is lost: what it misses was replaced.
    let mut reader = Reader::open(hub.address, from("s", after(44))).await;
    reader.until_caught_up().await;
    assert_eq!(reader.sequences(), sequences(45..51));
}

#[tokio::test]
async fn an_event_whose_time_is_over_is_not_delivered() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let ttl = Some(prost_types::Duration { seconds: 3, nanos: 0 });
    let mut reader = Reader::open(hub.address, from("s", None)).await;
    let brief = Event { ttl, ..event("s.x", "brief") };
    store(hub.address, vec![event("s.x", "1"), brief, event("s.x", "2")]).await;
    reader.until(3).await;
    assert_eq!(reader.texts(), ["1", "brief", "2"], "it is there until then");
    until("the end of its time", async || get_event(hub.address, "s", Which::Sequence(2)).await.is_err()).await;
    let left = all(hub.address, "s").await;
    assert_eq!(left.iter().map(text).collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test]
async fn what_is_too_old_is_removed() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let max_age = Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 });
    create(hub.address, Stream { max_age, ..stream("s", &["s.>"]) }).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    until("the removal", async || state(hub.address, "s").await.events == 0).await;
    let state = state(hub.address, "s").await;
    assert_eq!((state.earliest_sequence, state.latest_sequence), (11, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_change_a_stream_at_once_none_undoes_what_the_other_did() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for n in 1..100 {
        let change = |path: &'static str| {
            let wanted = Stream { name: "s".into(), max_events: n, max_bytes: n * 1_000, ..Stream::default() };
            async move { update(hub.address, wanted, &[path]).await.expect("updated") }
        };
        tokio::join!(change("max_events"), change("max_bytes"));
        // Whoever was last saw what the other did.
        let found = update(hub.address, Stream { name: "s".into(), ..Stream::default() }, &["max_age"]).await;
        let found = found.expect("updated");
        assert_eq!((found.max_events, found.max_bytes), (n, n * 1_000));
    }
}

#[tokio::test]
async fn a_single_event_is_shown() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, vec![event("s.a", "1"), event("s.b", "2"), event("s.a", "3")]).await;
    let second = get_event(hub.address, "s", Which::Sequence(2)).await.expect("there");
    assert_eq!((text(&second), second.sequence, second.stream.as_str()), ("2", 2, "s"));
    let last = get_event(hub.address, "s", Which::LastOfTopic("s.a".into())).await.expect("there");
    assert_eq!((text(&last), last.sequence), ("3", 3));
    for which in [Which::Sequence(4), Which::LastOfTopic("s.c".into())] {
        let error = get_event(hub.address, "s", which).await.expect_err("not there");
        assert_eq!((error.code(), reason_of_call(&error).as_str()), (Code::NotFound, "EVENT_NOT_FOUND"));
    }
    let error = get_event(hub.address, "other", Which::Sequence(1)).await.expect_err("no stream");
    assert_eq!(reason_of_call(&error), "STREAM_NOT_FOUND");
}

#[tokio::test]
async fn a_publish_over_a_session_has_its_results_in_order() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut session = Session::open(hub.address).await;
    for request in 1..=200 {
        let events = vec![event("s.x", request.to_string()), event("live", ""), event("bad topic", "")];
        session.send(request, switchyard::proto::v1::session_request::Command::Publish(publish(events))).await;
    }
    for request in 1..=200 {
        let frame = session.frame().await;
        assert_eq!(frame.request_id, request);
        let Some(switchyard::proto::v1::session_response::Frame::Published(published)) = frame.frame else {
            panic!("not published")
        };
        let sequences: Vec<_> = published.results.iter().map(|result| result.sequence).collect();
        assert_eq!(sequences, [request, 0, 0]);
        let refused = published.results[2].status.as_ref().expect("refused");
        assert_eq!((reason(refused).as_str(), published.results[0].status.is_none()), ("INVALID_TOPIC", true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_quick_streams_keep_what_they_promise() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let kinds = [
        ("memory", Storage::Memory, Durability::Sync),
        ("interval", Storage::File, Durability::Interval),
        ("none", Storage::File, Durability::None),
    ];
    let mut epochs = Vec::new();
    for (name, storage, durability) in kinds {
        let mut wanted = stream(name, &[&format!("{name}.>")]);
        (wanted.storage, wanted.durability) = (storage.into(), durability.into());
        epochs.push(create(hub.address, wanted).await.state.expect("a state").epoch);
        let results = store(hub.address, numbered(&format!("{name}.x"), 0..100)).await;
        assert!(results.iter().all(|result| result.durability() == durability));
        assert_eq!(all(hub.address, name).await.len(), 100);
    }
    stop(hub).await;
    let hub = hub_on(&folder).await;
    for ((name, storage, _), epoch) in kinds.into_iter().zip(epochs) {
        let kept = storage == Storage::File;
        assert_eq!(state(hub.address, name).await.epoch == epoch, kept, "{name}");
        assert_eq!(all(hub.address, name).await.len(), if kept { 100 } else { 0 }, "{name}");
    }
}

#[tokio::test]
async fn ids_of_which_there_are_too_many_are_forgotten_early_and_counted() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| {
        config.engine.max_dedupe_ids = 10;
        config.engine.sweep_interval_ms = 20;
    })
    .await;
    create(hub.address, stream("s", &["s.>"])).await;
    let with_id = |n: usize| Event { id: n.to_string(), source: "test".into(), ..event("s.x", "") };
    store(hub.address, (0..15).map(with_id).collect()).await;
    let forgotten = async || metric(&hub, "switchyard_dedupe_ids_forgotten_total").await;
    until("five too many are counted", async || forgotten().await == 5).await;
    let results = store(hub.address, vec![with_id(0), with_id(14)]).await;
    assert_eq!([results[0].duplicate, results[1].duplicate], [false, true]);
}

#[tokio::test]
async fn a_page_of_streams_ends_after_a_megabyte() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    for n in 10..30 {
        let filters: Vec<String> = (0..240).map(|at| format!("t{n}.{at:0245}")).collect();
        create(hub.address, stream(&format!("s{n}"), &filters.iter().map(String::as_str).collect::<Vec<_>>())).await;
    }
    let mut client = streams(hub.address).await;
    let (mut names, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListStreamsRequest { page_size: 1000, page_token };
        let page = client.list_streams(request).await.expect("a page").into_inner();
        assert!(page.encoded_len() <= 1024 * 1024 + 100 && !page.streams.is_empty());
        names.extend(page.streams.into_iter().map(|stream| stream.name));
        (pages, page_token) = (pages + 1, page.next_page_token);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((pages, names), (2, (10..30).map(|n| format!("s{n}")).collect()));
    stop(hub).await;
}

#[tokio::test]
async fn filters_that_take_too_long_to_look_at_are_refused() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let wanted: Vec<String> = (0..256_u32)
        .map(|bits| (0..8).map(|at| if bits >> at & 1 == 1 { "a." } else { "*." }).collect::<String>() + "z")
        .collect();
    let wanted = stream("s", &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    let request = CreateStreamRequest { stream: Some(wanted) };
    let refused = streams(hub.address).await.create_stream(request).await.expect_err("too many wildcards");
    assert_eq!((refused.code(), &*reason_of_call(&refused)), (Code::FailedPrecondition, "CONFIG_MISMATCH"));
    stop(hub).await;
}
