//! Members of groups on streams as they come, go, and come back: what they hold, and what they are told at the end.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use switchyard::proto::v1::{
    AckMode, AckOutcome, Acknowledge, DeleteGroupRequest, EndReason, Hello, Ping, RedriveDeadLettersRequest, Subscribe,
    SubscriptionSpec, session_request::Command as Wire, session_response::Frame,
};
use tokio::time::timeout;

use crate::{
    harness::{Folder, Session, credit, soon, until},
    workplace::{Member, Place, member, ms},
};

fn acknowledge(sequence: i64) -> Wire {
    Wire::Acknowledge(Acknowledge { subscription_id: 1, sequences: vec![sequence], ..Acknowledge::default() })
}

/// What comes next besides heartbeats, with its request id.
async fn next(member: &mut Member) -> (i64, Frame) {
    let next = async {
        loop {
            let frame = member.session.frame().await;
            match frame.frame.expect("a frame") {
                Frame::Heartbeat(_) => {}
                other => return (frame.request_id, other),
            }
        }
    };
    soon("a frame that is no heartbeat", next).await
}

/// A member whose session has a name, and that had another session before, or none.
async fn named(place: &Place, name: &str, before: &str) -> Member {
    let mut session = Session::open(place.server.address).await;
    let (client_name, previous_session_id) = (name.to_owned(), before.to_owned());
    session.send(0, Wire::Hello(Hello { client_name, previous_session_id, ..Hello::default() })).await;
    session.subscribe(1, member()).await;
    Member { session, waiting: VecDeque::new(), gaps: Vec::new(), request: 100 }
}

#[tokio::test]
async fn a_member_with_a_name_may_come_back_for_what_it_has() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a"]).await;
    let mut member = named(&place, "worker-7", "").await;
    assert_eq!(member.event().await.attempt, 1);
    let before = member.session.id.clone();
    drop(member);
    until("it is gone", async || place.state().await.members == 0).await;
    let mut member = named(&place, "worker-7", &before).await;
    member.ack(&[1]).await;
    assert_eq!(place.state().await.cursor, 1);
}

#[tokio::test]
async fn another_client_of_the_same_name_gets_nothing_of_one_that_may_come_back() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a"]).await;
    let mut lost = named(&place, "billing", "").await;
    assert_eq!(lost.event().await.attempt, 1);
    let before = lost.session.id.clone();
    drop(lost);
    until("it is gone", async || place.state().await.members == 0).await;
    let mut other = named(&place, "billing", "").await;
    assert_eq!(other.say(&[1], |_| {}).await, [(1, "LEASE_EXPIRED".to_owned())]);
    let mut stranger = named(&place, "billing", "no-such-session").await;
    assert_eq!(stranger.say(&[1], |_| {}).await, [(1, "LEASE_EXPIRED".to_owned())]);
    let mut back = named(&place, "billing", &before).await;
    back.ack(&[1]).await;
    assert_eq!((place.state().await.cursor, place.state().await.members), (1, 3));
}

#[tokio::test]
async fn a_client_may_come_back_before_its_old_connection_is_known_to_be_lost() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a", "b"]).await;
    // What it was sent and what waits for it: of that it has no credit for.
    let mut old = place.member_with(|spec| spec.credit = credit(1, 0)).await;
    assert_eq!(old.texts(1).await, ["a"]);
    let mut new = named(&place, "", &old.session.id.clone()).await;
    assert_eq!(new.texts(1).await, ["b"]);
    new.ack(&[1]).await;
    // It was not dead after all.
    old.session.send(5, acknowledge(2)).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        match next(&mut old).await {
            (0, Frame::Ended(ended)) => told.push(ended.reason().as_str_name()),
            (5, Frame::Error(_)) => told.push("error"),
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(told, ["END_REASON_CLIENT_UNSUBSCRIBED", "error"]);
    drop(old);
    place.publish(&["c"]).await;
    assert_eq!(new.texts(1).await, ["c"], "the end of the old one takes nothing with it");
    new.ack(&[2, 3]).await;
    assert_eq!((place.state().await.cursor, place.state().await.members), (3, 1));
}

#[tokio::test]
async fn every_acknowledgement_is_answered_while_its_group_is_deleted() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    for _ in 0..20 {
        place.group(|_| {}).await;
        place.publish(&["x"; 100]).await;
        let mut member = place.member().await;
        let first = member.event().await.sequence;
        let mut open: BTreeSet<i64> = (1000..1100).collect();
        let request = DeleteGroupRequest { stream: "jobs".into(), name: "g".into() };
        let mut groups = place.groups.clone();
        let deleted = tokio::spawn(async move { groups.delete_group(request).await });
        for (request_id, sequence) in open.iter().zip(first..) {
            member.session.send(*request_id, acknowledge(sequence)).await;
            tokio::task::yield_now().await;
        }
        let mut ended = false;
        while !open.is_empty() || !ended {
            let (request_id, frame) = next(&mut member).await;
            match frame {
                Frame::Acknowledged(_) => {
                    assert!(!ended, "after its end nothing bears the id of a subscription");
                    assert!(open.remove(&request_id));
                }
                Frame::Error(_) => assert!(open.remove(&request_id)),
                Frame::Ended(_) => ended = true,
                Frame::Events(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        deleted.await.expect("no panic").expect("deleted");
        let purge = switchyard::proto::v1::PurgeStreamRequest { name: "jobs".into(), ..Default::default() };
        place.streams.purge_stream(purge).await.expect("purged");
    }
}

/// Rejects what it gets for the first time, and acknowledges what is given back, while dead letters are given back all the
/// time by two at once.
#[tokio::test]
async fn what_is_given_up_and_given_back_at_the_same_time_is_neither_lost_nor_doubled() {
    const EVENTS: usize = 400;
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.dead_letter_stream = "lost".into()).await;
    let mut member = place.member().await;
    let redriving: Vec<_> = (0..2)
        .map(|_| {
            let mut groups = place.groups.clone();
            tokio::spawn(async move {
                let (stream, group) = ("jobs".to_owned(), "g".to_owned());
                let request = RedriveDeadLettersRequest { stream, group, sequences: vec![] };
                let mut redriven = 0;
                // The group is deleted at the end.
                while let Ok(response) = groups.redrive_dead_letters(request.clone()).await {
                    redriven += response.into_inner().redriven;
                }
                redriven
            })
        })
        .collect();
    let (mut rejected, mut done) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..EVENTS / 20 {
        place.publish(&["x"; 20]).await;
        let target = rejected.len() + 20;
        while rejected.len() < target {
            settle_one(&mut member, &mut rejected, &mut done).await;
        }
    }
    while done.len() < EVENTS {
        settle_one(&mut member, &mut rejected, &mut done).await;
    }
    until("all is done", async || place.state().await.cursor == EVENTS as i64).await;
    assert_eq!(place.letters().await.len(), 0);
    let request = DeleteGroupRequest { stream: "jobs".into(), name: "g".into() };
    place.groups.delete_group(request).await.expect("deleted");
    let mut redriven = 0;
    for one in redriving {
        redriven += one.await.expect("no panic");
    }
    assert_eq!(redriven, EVENTS as i64, "each was given back once, and by one");
}

async fn settle_one(member: &mut Member, rejected: &mut BTreeSet<i64>, done: &mut BTreeSet<i64>) {
    let sequence = soon("an event", member.event()).await.sequence;
    assert!(!done.contains(&sequence), "{sequence} was done, and came again");
    let outcome = if rejected.insert(sequence) { AckOutcome::Reject } else { AckOutcome::Ack };
    assert_eq!(member.say(&[sequence], |told| told.set_outcome(outcome)).await, []);
    if outcome == AckOutcome::Ack {
        done.insert(sequence);
    }
}

/// Members with other filters have the group read anew, while what was given up before is on its way to its stream.
#[tokio::test]
async fn a_dead_letter_is_stored_once_whoever_comes_meanwhile() {
    const ROUNDS: usize = 40;
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.dead_letter_stream = "lost".into()).await;
    let mut member = place.member_with(|spec| spec.filters = vec!["jobs.a".into()]).await;
    for round in 0..ROUNDS {
        place.publish(&["x"]).await;
        let sequence = member.event().await.sequence;
        let mut session = Session::open(place.server.address).await;
        let filter = if round % 2 == 0 { "jobs.*" } else { "jobs.a" };
        let reject = Acknowledge { subscription_id: 1, sequences: vec![sequence], ..Acknowledge::default() };
        let reject = Acknowledge { outcome: AckOutcome::Reject.into(), ..reject };
        member.session.send(5, Wire::Acknowledge(reject)).await;
        // Most of these arrive before the end of their session, and the others with the next member.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        drop(member);
        let spec = SubscriptionSpec { filters: vec![filter.into()], ..crate::workplace::member() };
        loop {
            let subscribe = Subscribe { subscription_id: 1, spec: Some(spec.clone()) };
            session.send(1, Wire::Subscribe(subscribe)).await;
            match session.frame().await.frame {
                Some(Frame::Subscribed(_)) => break,
                // The other one is there still.
                Some(Frame::Ended(ended)) => assert_eq!(ended.reason(), EndReason::ConfigMismatch),
                other => panic!("unexpected: {other:?}"),
            }
        }
        member = Member { session, waiting: VecDeque::new(), gaps: Vec::new(), request: 100 };
    }
    while place.state().await.cursor < ROUNDS as i64 {
        if let Ok(event) = timeout(Duration::from_millis(50), member.event()).await {
            assert_eq!(member.say(&[event.sequence], |told| told.set_outcome(AckOutcome::Reject)).await, []);
        }
    }
    let origins: Vec<i64> = place.letters().await.iter().map(|letter| letter.origin_sequence).collect();
    assert_eq!(origins, (1..=ROUNDS as i64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_member_with_a_limit_ends_when_its_last_event_is_settled() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a", "b", "c"]).await;
    let mut member = place.member_with(|spec| spec.max_events = 2).await;
    assert_eq!(member.texts(2).await, ["a", "b"]);
    member.ack(&[2]).await;
    assert_eq!((place.state().await.members, place.state().await.unacked), (1, 1), "it still has the first");
    member.session.send(7, acknowledge(1)).await;
    let (request_id, frame) = next(&mut member).await;
    assert!(matches!(frame, Frame::Acknowledged(_)) && request_id == 7, "{frame:?}");
    match next(&mut member).await.1 {
        Frame::Ended(ended) => assert_eq!(ended.reason(), EndReason::LimitReached),
        other => panic!("not ended: {other:?}"),
    }
    let state = place.state().await;
    assert_eq!((state.cursor, state.unacked), (2, 0));
    until("it is gone", async || place.state().await.members == 0).await;
    assert_eq!(place.member().await.texts(1).await, ["c"], "what was beyond its limit is for others");
}

#[tokio::test]
async fn a_member_with_a_limit_ends_when_what_it_has_fails_or_its_time_is_up() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.ack_deadline = Some(ms(1_500))).await;
    place.publish(&["a", "b"]).await;
    let mut member = place.member_with(|spec| spec.max_events = 2).await;
    assert_eq!(member.texts(2).await, ["a", "b"]);
    let told = Acknowledge { subscription_id: 1, sequences: vec![1], ..Acknowledge::default() };
    let told = Acknowledge { outcome: AckOutcome::Nack.into(), ..told };
    member.session.send(7, Wire::Acknowledge(told)).await;
    assert!(matches!(next(&mut member).await.1, Frame::Acknowledged(_)));
    // Of the other one it says nothing.
    match next(&mut member).await.1 {
        Frame::Ended(ended) => assert_eq!(ended.reason(), EndReason::LimitReached),
        other => panic!("not ended: {other:?}"),
    }
    let mut other = place.member().await;
    let mut again = [other.event().await, other.event().await].map(|event| (event.sequence, event.attempt));
    again.sort_unstable();
    assert_eq!(again, [(1, 2), (2, 2)]);
}

#[tokio::test]
async fn a_member_that_can_say_nothing_ends_with_the_last_event() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a", "b"]).await;
    let mut silent = place.member_with(|spec| (spec.max_events, spec.ack_mode) = (1, AckMode::None.into())).await;
    assert_eq!(silent.texts(1).await, ["a"]);
    assert_eq!(silent.session.ended().await.reason(), EndReason::LimitReached);
    let mut deaf = place.member_with(|spec| spec.max_events = 1).await;
    assert_eq!(deaf.texts(1).await, ["b"]);
    deaf.session.send(0, Wire::Ping(Ping::default())).await;
    deaf.session.half_close();
    loop {
        match next(&mut deaf).await.1 {
            Frame::Pong(_) => {}
            Frame::Ended(ended) => {
                assert_eq!(ended.reason(), EndReason::LimitReached, "it can acknowledge no more");
                break;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(place.member().await.event().await.attempt, 1, "it goes back at once");
}
