//! Members that grant no credit: they are sent as much as they acknowledge, so that no lease runs out in a buffer and others
//! have their share.

use std::time::Duration;

use switchyard::proto::v1::{AckMode, Subscribe, session_request::Command as Wire, session_response::Frame};

use crate::{
    harness::{Folder, Session, credit, pause, soon, until},
    workplace::{Member, Place, member, ms},
};

/// What a worker does for one event takes so long.
const WORK: Duration = Duration::from_millis(20);

/// Does one event after the other until all are done; gives how many it did.
async fn work(member: &mut Member, count: usize) -> usize {
    for _ in 0..count {
        let event = member.event().await;
        assert_eq!((event.attempt, event.last_failure.as_str()), (1, ""), "nothing failed");
        pause(WORK).await;
        member.ack(&[event.sequence]).await;
    }
    count
}

#[tokio::test]
async fn a_worker_without_credit_that_takes_its_time_has_nothing_given_up() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    // All of it takes half as long again as the deadline.
    place
        .group(|group| {
            group.ack_deadline = Some(ms(4_000));
            group.max_attempts = Some(1);
        })
        .await;
    let texts: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    place.publish(&texts).await;
    let mut worker = place.member().await;
    work(&mut worker, 300).await;
    let state = place.state().await;
    assert_eq!((state.cursor, state.expired, state.dropped), (300, 0, 0));
}

#[tokio::test]
async fn a_second_worker_has_its_share_at_once() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let texts: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    place.publish(&texts).await;
    let mut first = place.member().await;
    first.event().await;
    let mut second = place.member().await;
    // The first acknowledges nothing.
    for _ in 0..40 {
        let event = soon("an event for the second", second.event()).await;
        second.ack(&[event.sequence]).await;
    }
    assert_eq!(place.state().await.expired, 0);
}

#[tokio::test]
async fn whatever_settles_an_event_makes_room_for_another() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.dead_letter_stream = "lost".into()).await;
    let texts: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    place.publish(&texts).await;
    let mut worker = place.member_with(|spec| spec.set_ack_mode(AckMode::Cumulative)).await;
    for _ in 0..5 {
        let sequence = worker.event().await.sequence;
        worker.ack(&[sequence]).await;
        let sequence = worker.event().await.sequence;
        worker.nack(sequence, 600_000, "later").await;
        let sequence = worker.event().await.sequence;
        let reject = worker.say(&[sequence], |told| told.set_outcome(switchyard::proto::v1::AckOutcome::Reject)).await;
        assert_eq!(reject, []);
        worker.event().await;
        let sequence = worker.event().await.sequence;
        assert_eq!(worker.say(&[], |told| told.up_to = sequence).await, []);
    }
    let state = place.state().await;
    assert_eq!((state.unacked, state.pending), (10, 0), "five are to be tried later, and five have come");
}

#[tokio::test]
async fn what_is_not_acknowledged_at_all_is_little() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let texts: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    place.publish(&texts).await;
    let mut silent = place.member().await;
    for _ in 0..16 {
        silent.event().await;
    }
    let state = place.state().await;
    assert_eq!((state.unacked, state.pending), (16, 984));
    // Credit is as it was, and so is a member that acknowledges nothing by design.
    let mut rich = place.member_with(|spec| spec.credit = credit(300, 0)).await;
    for _ in 0..300 {
        rich.event().await;
    }
    let _done = place.member_with(|spec| spec.set_ack_mode(AckMode::None)).await;
    until("all others are done", async || place.state().await.pending == 0).await;
}

#[tokio::test]
async fn the_window_of_a_member_is_told() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let mut session = Session::open(place.server.address).await;
    let subscribe = Subscribe { subscription_id: 1, spec: Some(member()) };
    session.send(1, Wire::Subscribe(subscribe)).await;
    match session.frame().await.frame {
        Some(Frame::Subscribed(told)) => {
            assert_eq!((told.automatic_credit, told.credit.map(|credit| credit.events)), (true, Some(64)));
        }
        other => panic!("not subscribed: {other:?}"),
    }
}
