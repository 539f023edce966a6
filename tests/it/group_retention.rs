//! Groups and what their streams remove: it blocks nothing, its loss is told, and what is not there is not counted.

use std::collections::BTreeSet;

use switchyard::proto::v1::{
    CreateGroupRequest, EndReason, Event, GapPolicy, GapReason, GetStreamRequest, Group, PurgeStreamRequest,
    StartPosition, Stream, Subscribe, UpdateStreamRequest, session_request::Command as Wire, session_response::Frame,
    start_position::Position,
};

use crate::{
    harness::{Folder, credit, event, http_get, metric, publish, soon, until},
    workplace::{Member, Place, ms, text},
};

async fn limit(place: &mut Place, path: &str, stream: Stream) {
    let stream = Stream { name: "jobs".into(), ..stream };
    let update_mask = Some(prost_types::FieldMask { paths: vec![path.into()] });
    place.streams.update_stream(UpdateStreamRequest { stream: Some(stream), update_mask }).await.expect("changed");
}

async fn purge(place: &mut Place, filter: &str) -> i64 {
    let request = PurgeStreamRequest { name: "jobs".into(), filter: filter.into(), ..Default::default() };
    place.streams.purge_stream(request).await.expect("purged").into_inner().purged_events
}

async fn kept(place: &mut Place) -> i64 {
    let request = GetStreamRequest { name: "jobs".into() };
    let stream = place.streams.get_stream(request).await.expect("told").into_inner().stream.expect("a stream");
    stream.state.expect("a state").events
}

async fn remove(place: &mut Place, how: &str) {
    match how {
        "purge" => assert_eq!(purge(place, "").await, 3),
        "filter" => assert_eq!(purge(place, "jobs.a").await, 3),
        "count" => limit(place, "max_events", Stream { max_events: 1, ..Stream::default() }).await,
        "bytes" => limit(place, "max_bytes", Stream { max_bytes: 150, ..Stream::default() }).await,
        "age" => limit(place, "max_age", Stream { max_age: Some(ms(50)), ..Stream::default() }).await,
        "topic" => limit(place, "max_events_per_topic", Stream { max_events_per_topic: 1, ..Stream::default() }).await,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_has_left_the_stream_uses_up_no_room_however_it_went() {
    for how in ["purge", "filter", "count", "bytes", "age", "topic"] {
        for held in [false, true] {
            let folder = Folder::new();
            let mut place = Place::new(&folder).await;
            place
                .group(|group| {
                    group.max_unacked = 3;
                    group.max_attempts = Some(0);
                })
                .await;
            let old = "x".repeat(100);
            place.publish(&[&old, &old, &old]).await;
            let mut member = place.member().await;
            for sequence in 1..=3 {
                assert_eq!(member.event().await.sequence, sequence);
                if !held {
                    member.nack(sequence, 600_000, "no paper").await;
                }
            }
            assert_eq!(place.state().await.unacked, 3);
            remove(&mut place, how).await;
            if how == "age" {
                until("they are old", async || kept(&mut place).await == 0).await;
                limit(&mut place, "max_age", Stream::default()).await;
            }
            // With a limit, it is what pushes the old ones out.
            place.publish(&["new"]).await;
            let event = soon(how, member.event()).await;
            assert_eq!((event.sequence, text(&event)), (4, "new".to_owned()), "{how}");
            member.ack(&[4]).await;
            let state = place.state().await;
            // A later event of the topic took their place.
            let expected = if how == "topic" { 0 } else { 3 };
            assert_eq!((state.cursor, state.unacked, state.pending), (4, 0, 0), "{how}");
            assert_eq!(state.lost, expected, "{how}");
        }
    }
}

#[tokio::test]
async fn a_key_goes_on_when_the_event_that_blocks_it_is_purged_and_nothing_else_happens() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let poison = Event { key: "k".into(), ..event("jobs.poison", "poison") };
    let next = Event { key: "k".into(), ..event("jobs.a", "next") };
    place.hub.publish(publish(vec![poison, next])).await.expect("published");
    let mut member = place.member().await;
    assert_eq!(member.event().await.sequence, 1);
    member.nack(1, 600_000, "no").await;
    assert_eq!(place.state().await.blocked, 1);
    assert_eq!(purge(&mut place, "jobs.poison").await, 1);
    assert_eq!(text(&soon("the next of the key", member.event()).await), "next");
    assert_eq!(place.state().await.blocked, 0);
}

/// A group of which 2 of 5 events are in hand when a stream of 10 gets 100 more.
async fn overtaken(folder: &Folder, on_gap: GapPolicy) -> (Place, Member) {
    let mut place = Place::new(folder).await;
    limit(&mut place, "max_events", Stream { max_events: 10, ..Stream::default() }).await;
    place.group(|group| group.max_unacked = 2).await;
    place.publish(&["a", "b", "c", "d", "e"]).await;
    let mut member = place.member_with(|spec| spec.set_on_gap(on_gap)).await;
    assert_eq!(member.texts(2).await, ["a", "b"]);
    for n in 0..10 {
        place.publish(&vec![n.to_string(); 10]).await;
    }
    (place, member)
}

#[tokio::test]
async fn a_group_that_is_overtaken_tells_its_members_and_whoever_watches_it() {
    for on_gap in [GapPolicy::Unspecified, GapPolicy::Earliest] {
        let folder = Folder::new();
        let (mut place, mut member) = overtaken(&folder, on_gap).await;
        let (mut lost, mut got) = (0, BTreeSet::new());
        while got.len() < 10 {
            match soon("what is left", member.session.frame()).await.frame {
                Some(Frame::Gap(gap)) => {
                    assert_eq!((gap.subscription_id, gap.reason()), (1, GapReason::Retention));
                    assert!(gap.from_sequence >= 1 && gap.to_sequence <= 95, "{gap:?}");
                    lost += gap.count;
                }
                Some(Frame::Events(events)) => {
                    for event in events.events {
                        // What comes before the last ten may have been read before it went.
                        if event.sequence > 95 {
                            got.insert(event.sequence);
                        }
                        member.session.send(0, Wire::Acknowledge(ack(event.sequence))).await;
                    }
                }
                Some(Frame::Heartbeat(_)) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        until("all is done", async || place.state().await.cursor == 105).await;
        let state = place.state().await;
        assert!(lost >= 90, "{lost} were told as lost");
        assert_eq!(state.lost, lost);
        assert_eq!(metric(&place.server, "switchyard_group_lost_total").await, lost.unsigned_abs());
    }
}

fn ack(sequence: i64) -> switchyard::proto::v1::Acknowledge {
    switchyard::proto::v1::Acknowledge { subscription_id: 1, sequences: vec![sequence], ..Default::default() }
}

#[tokio::test]
async fn a_member_that_asks_for_it_ends_when_the_group_is_overtaken_and_may_come_back() {
    let folder = Folder::new();
    let (mut place, mut member) = overtaken(&folder, GapPolicy::Fail).await;
    loop {
        match soon("the end", member.session.frame()).await.frame {
            Some(Frame::Ended(ended)) => {
                assert_eq!(ended.reason(), EndReason::ResumePointLost);
                break;
            }
            Some(Frame::Events(_) | Frame::Heartbeat(_)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    member.session.subscribe(2, crate::workplace::member()).await;
    assert_eq!(soon("what is left", member.event()).await.sequence, 96);
    assert!(place.state().await.lost >= 90);
    let latest = crate::workplace::member();
    let mut latest = switchyard::proto::v1::SubscriptionSpec { ..latest };
    latest.set_on_gap(GapPolicy::Latest);
    let subscribe = Subscribe { subscription_id: 3, spec: Some(latest) };
    member.session.send(9, Wire::Subscribe(subscribe)).await;
    let refused = loop {
        match member.session.frame().await.frame {
            Some(Frame::Ended(ended)) => break ended,
            Some(Frame::Events(_) | Frame::Heartbeat(_)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    };
    assert_eq!(refused.reason(), EndReason::ConfigMismatch);
}

#[tokio::test]
async fn a_group_that_nobody_uses_tells_what_it_has_lost_too_and_so_does_one_made_behind_the_beginning() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["x"; 30]).await;
    limit(&mut place, "max_events", Stream { max_events: 10, ..Stream::default() }).await;
    let state = place.state().await;
    assert_eq!((state.lost, state.pending), (20, 10));
    assert_eq!(metric(&place.server, "switchyard_group_lost_total").await, 20);
    let start = Some(StartPosition { position: Some(Position::AfterSequence(5)) });
    let group = Some(Group { stream: "jobs".into(), name: "late".into(), ..Group::default() });
    let made = place.groups.create_group(CreateGroupRequest { group, start }).await.expect("made").into_inner();
    assert_eq!(made.group.and_then(|group| group.state).expect("a state").lost, 15);
    // Once somebody works for it nothing is counted twice.
    let mut worker = place.member().await;
    assert_eq!(worker.event().await.sequence, 21);
    assert_eq!(place.state().await.lost, 20);
    worker.leave().await;
    until("it is at rest", async || place.state().await.members == 0).await;
    assert_eq!((place.state().await.lost, place.state().await.cursor), (20, 20));
}

#[tokio::test]
async fn what_the_stream_does_not_have_is_not_counted() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    limit(&mut place, "max_events_per_topic", Stream { max_events_per_topic: 1, ..Stream::default() }).await;
    place.group(|_| {}).await;
    let mut events = vec![event("jobs.first", "x")];
    events.extend((0..900).map(|n| event("jobs.hot", n.to_string())));
    place.hub.publish(publish(events)).await.expect("published");
    let state = place.state().await;
    assert_eq!((state.pending, state.lost), (2, 0), "the first, and the last of the other topic");
    let lag = async |place: &Place| metric(&place.server, "switchyard_group_lag").await;
    assert_eq!(lag(&place).await, 2);
    let mut worker = place.member_with(|spec| spec.credit = credit(1, 0)).await;
    assert_eq!(worker.event().await.sequence, 1);
    let state = place.state().await;
    assert_eq!((state.pending, state.unacked), (1, 1));
    worker.leave().await;

    assert_eq!(purge(&mut place, "jobs.first").await, 1);
    assert_eq!((place.state().await.pending, lag(&place).await), (1, 1));
}

#[tokio::test]
async fn when_all_that_is_left_was_purged_nothing_is_old() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let mut events = vec![event("jobs.poison", "x")];
    events.extend((0..3).map(|n| event("jobs.a", n.to_string())));
    place.hub.publish(publish(events)).await.expect("published");
    let mut worker = place.member().await;
    worker.texts(4).await;
    worker.ack(&[2, 3, 4]).await;
    worker.nack(1, 600_000, "no").await;
    worker.leave().await;
    until("nobody is there", async || place.state().await.members == 0).await;
    assert!(place.state().await.oldest_unacked_time.is_some());
    assert_eq!(purge(&mut place, "jobs.poison").await, 1);
    let state = place.state().await;
    assert_eq!((state.pending, state.unacked, state.oldest_unacked_time), (0, 0, None));
    let text = http_get(place.server.ops_address, "/metrics").await;
    let age = text.lines().find(|line| line.starts_with("switchyard_group_oldest_unacked_seconds{"));
    assert!(age.is_some_and(|line| line.ends_with(" 0.0")), "{age:?}");
}

#[tokio::test]
async fn the_oldest_event_is_one_that_is_not_done() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.hub.publish(publish(vec![event("jobs.poison", "x")])).await.expect("published");
    place.publish(&["done", "open"]).await;
    let mut worker = place.member().await;
    let events = [worker.event().await, worker.event().await, worker.event().await];
    worker.ack(&[2]).await;
    assert_eq!(place.state().await.oldest_unacked_time, events[0].append_time);
    purge(&mut place, "jobs.poison").await;
    assert_eq!(place.state().await.oldest_unacked_time, events[2].append_time);
}
