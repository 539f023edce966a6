//! What time does to streams, as clients see it: ttl, starts at a time to come, and what limits end as it comes.

use std::time::{Duration, SystemTime};

use switchyard::proto::v1::{
    CreateGroupRequest, DeleteStreamRequest, Event, GetEventRequest, Group, PublishPrecondition, PublishRequest,
    ReceivedEvent, SeekGroupRequest, StartPosition, StartPreset, Stream, event::Payload, get_event_request::Which,
    publish_precondition::Condition, start_position::Position,
};

use crate::{
    harness::{Folder, client, event, http_get, pause, publish, reason, reason_of_call, until},
    stored::{Reader, all, create, from, hub_on, numbered, preset, state, store, stream, streams, text},
    workplace::{Place, ms},
};

fn brief(topic: &str, ttl_ms: i64) -> Event {
    Event { ttl: Some(ms(ttl_ms)), ..event(topic, "brief") }
}

fn at(time: SystemTime) -> Option<StartPosition> {
    Some(StartPosition { position: Some(Position::AtTime(time.into())) })
}

fn only_if(condition: Condition, events: Vec<Event>) -> PublishRequest {
    PublishRequest { precondition: Some(PublishPrecondition { condition: Some(condition) }), ..publish(events) }
}

fn appended(received: &ReceivedEvent) -> SystemTime {
    received.append_time.expect("a time").try_into().expect("a time")
}

#[tokio::test]
async fn a_lock_is_free_once_its_time_is_over() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("locks", &["lock.>"])).await;
    let take = async || {
        let request = only_if(Condition::LastTopicSequence(0), vec![brief("lock.leader", 3_000)]);
        client(hub.address).await.publish(request).await
    };
    let mut sequences = Vec::new();
    for _ in 0..3 {
        let mut taken = take().await;
        until("the lock is free", async || {
            if taken.is_err() {
                taken = take().await;
            }
            taken.is_ok()
        })
        .await;
        sequences.push(taken.expect("taken").into_inner().results[0].sequence);
        assert_eq!(reason_of_call(&take().await.expect_err("it is taken")), "SEQUENCE_MISMATCH");
    }
}

#[tokio::test]
async fn what_is_online_is_so_again_once_the_typing_is_over() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["presence.>"])).await;
    store(hub.address, vec![event("presence.user", "online"), brief("presence.user", 200)]).await;
    let which = Some(Which::LastOfTopic("presence.user".into()));
    let last = async || {
        let request = GetEventRequest { stream: "s".into(), which: which.clone() };
        let found = streams(hub.address).await.get_event(request).await.expect("there is always one").into_inner();
        text(&found.event.expect("an event")).to_owned()
    };
    until("the typing is over", async || last().await == "online").await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::LastPerTopic))).await;
    reader.until_caught_up().await;
    assert_eq!(reader.texts(), ["online"]);
    until("it is counted no more", async || state(hub.address, "s").await.events == 1).await;
}

#[tokio::test]
async fn what_waits_behind_much_that_is_dead_is_seen() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let large = Event { payload: Some(Payload::Text("x".repeat(200_000))), ..brief("jobs.a", 1) };
    for _ in 0..4 {
        place.hub.publish(publish(vec![large.clone(); 10])).await.expect("published");
    }
    place.publish(&["waits"]).await;
    until("it is the oldest", async || place.state().await.oldest_unacked_time.is_some()).await;
    let metrics = http_get(place.server.ops_address, "/metrics").await;
    let oldest = metrics.lines().find(|line| line.starts_with("switchyard_group_oldest_unacked_seconds{"));
    let seconds = oldest.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0.0), "{oldest:?}");
}

/// Publishes again and again until a time is over, and somewhat more.
async fn publish_past(address: std::net::SocketAddr, topic: &str, time: SystemTime) {
    let mut after = 0;
    while after < 4 {
        store(address, vec![event(topic, "x")]).await;
        after += usize::from(SystemTime::now() > time);
        pause(Duration::from_millis(20)).await;
    }
}

/// The sequences of what was stored at a time or later.
async fn stored_at(address: std::net::SocketAddr, name: &str, time: SystemTime) -> Vec<i64> {
    let all = all(address, name).await;
    let late: Vec<i64> = all.iter().filter(|received| appended(received) >= time).map(|one| one.sequence).collect();
    assert!(late.len() >= 3 && late[0] > 3, "{late:?}: some were stored before, and some after");
    late
}

#[tokio::test]
async fn a_subscription_that_begins_at_a_time_to_come_gets_nothing_from_before_it() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, Stream { max_events: 1_000, ..stream("s", &["s.>"]) }).await;
    store(hub.address, numbered("s.a", 0..2)).await;
    let time = SystemTime::now() + Duration::from_secs(2);
    let mut reader = Reader::open(hub.address, from("s", at(time))).await;
    let mut never = Reader::open(hub.address, from("s", at(time + Duration::from_secs(3_600)))).await;
    assert_eq!(reader.subscribed.start_sequence, 3);
    publish_past(hub.address, "s.a", time).await;
    let late = stored_at(hub.address, "s", time).await;
    reader.until(late[late.len() - 1]).await;
    assert_eq!(reader.sequences(), late);
    store(hub.address, numbered("s.a", 0..1)).await;
    reader.until(late[late.len() - 1] + 1).await;
    // A stream that is deleted ends those that still wait.
    let request = DeleteStreamRequest { name: "s".into() };
    streams(hub.address).await.delete_stream(request).await.expect("deleted");
    let ended = never.until_ended().await;
    assert_eq!((reason(&ended.status.expect("a status")), never.events.len()), ("STREAM_NOT_FOUND".to_owned(), 0));
}

#[tokio::test]
async fn a_group_that_begins_at_a_time_to_come_gets_nothing_from_before_it() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.publish(&["old", "old"]).await;
    let time = SystemTime::now() + Duration::from_secs(2);
    let group = Group { stream: "jobs".into(), name: "g".into(), ..Default::default() };
    let request = CreateGroupRequest { group: Some(group), start: at(time) };
    place.groups.create_group(request).await.expect("created");
    let mut member = place.member().await;
    store(place.server.address, vec![event("jobs.a", "early")]).await;
    // It is known after a restart.
    member.session.half_close();
    drop(member);
    place.stop().await;
    let mut place = Place::again(&folder).await;
    let mut member = place.member().await;
    publish_past(place.server.address, "jobs.a", time).await;
    let late = stored_at(place.server.address, "jobs", time).await;
    for sequence in &late {
        let got = member.event().await;
        assert_eq!(got.sequence, *sequence);
        member.ack(&[got.sequence]).await;
    }
    // The same when it is moved.
    let time = SystemTime::now() + Duration::from_millis(500);
    let seek = SeekGroupRequest { stream: "jobs".into(), name: "g".into(), position: at(time) };
    place.groups.seek_group(seek).await.expect("moved");
    publish_past(place.server.address, "jobs.a", time).await;
    let late = stored_at(place.server.address, "jobs", time).await;
    assert_eq!(member.event().await.sequence, late[0]);
}

#[tokio::test]
async fn who_has_everything_gets_all_of_a_publish_that_is_more_than_the_stream_keeps() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, Stream { max_events: 5, ..stream("s", &["s.>"]) }).await;
    store(hub.address, numbered("s.a", 0..3)).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until_caught_up().await;
    for round in 1..=10 {
        store(hub.address, numbered("s.a", 0..20)).await;
        reader.until(3 + round * 20).await;
    }
    assert_eq!(reader.sequences(), (1..=203).collect::<Vec<_>>());
    assert_eq!(state(hub.address, "s").await.events, 5);
}

#[tokio::test]
async fn an_event_that_is_larger_than_its_stream_is_refused_alone() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, Stream { max_bytes: 20_000, ..stream("s", &["s.>"]) }).await;
    store(hub.address, numbered("s.a", 0..50)).await;
    let large = event("s.a", "x".repeat(30_000));
    let events = vec![event("s.a", "one"), large.clone(), event("s.a", "two")];
    let results = client(hub.address).await.publish(publish(events)).await.expect("two of three").into_inner().results;
    let reasons: Vec<_> = results.iter().map(|result| result.status.as_ref().map(reason)).collect();
    assert_eq!(reasons, [None, Some("EVENT_TOO_LARGE".to_owned()), None]);
    assert_eq!((results[0].sequence, results[2].sequence, state(hub.address, "s").await.events), (51, 52, 52));

    // Together they are refused together.
    let atomic = |events| only_if(Condition::LastSequence(52), events);
    let half = event("s.a", "x".repeat(12_000));
    for events in [vec![event("s.a", "one"), large], vec![half.clone(), half.clone()]] {
        let refused = client(hub.address).await.publish(atomic(events)).await;
        assert_eq!(reason_of_call(&refused.expect_err("refused")), "EVENT_TOO_LARGE");
    }
    assert_eq!(state(hub.address, "s").await.events, 52);
    client(hub.address).await.publish(atomic(vec![half])).await.expect("there is room for one");
}
