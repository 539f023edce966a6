//! What a live subscription does with events that arrive while its queue is full.

use std::collections::HashMap;

use switchyard::{
    proto::v1::{
        AddCredit, EndReason, Event, GapReason, OverflowPolicy, SubscriptionSpec, session_request::Command as Wire,
        session_response::Frame,
    },
    server::Server,
};

use crate::harness::{Session, credit, event, hub_with, reason, spec, texts};

/// A hub whose queues hold ten events.
async fn small_queues() -> Server {
    hub_with(|config| config.sessions.queue_events = 10).await
}

fn blocked(overflow: OverflowPolicy) -> SubscriptionSpec {
    SubscriptionSpec { overflow: overflow.into(), credit: credit(0, 0), ..spec(&["a.*"]) }
}

fn numbered(topics: &[&str], count: usize) -> Vec<Event> {
    (0..count).map(|n| event(topics[n % topics.len()], n.to_string())).collect()
}

async fn release(session: &Session) {
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(1_000, 0) })).await;
}

async fn gap(session: &mut Session) -> (i64, GapReason) {
    match session.frame().await.frame {
        Some(Frame::Gap(gap)) => (gap.count, gap.reason()),
        other => panic!("not a gap: {other:?}"),
    }
}

#[tokio::test]
async fn the_oldest_go_and_are_counted() {
    let hub = small_queues().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, blocked(OverflowPolicy::Unspecified)).await;
    let results = session.publish(numbered(&["a.x"], 25)).await.results;
    assert!(results.iter().all(|result| result.matched == 1), "the publisher is not concerned");
    release(&session).await;
    assert_eq!(gap(&mut session).await, (15, GapReason::Overflow));
    let expected: Vec<String> = (15..25).map(|n| n.to_string()).collect();
    assert_eq!(texts(&session.events().await), expected);
    session.publish(vec![event("a.x", "after")]).await;
    assert_eq!(texts(&session.events().await), ["after"], "a gap is told once");
}

#[tokio::test]
async fn conflation_keeps_the_latest_of_each_topic() {
    let hub = small_queues().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, blocked(OverflowPolicy::Conflate)).await;
    session.publish(numbered(&["a.x", "a.y", "a.z"], 300)).await;
    release(&session).await;
    assert_eq!(gap(&mut session).await, (297, GapReason::Conflated));
    assert_eq!(texts(&session.events().await), ["297", "298", "299"]);
    // With nothing waiting, nothing is conflated.
    for n in 0..5 {
        session.publish(vec![event("a.x", n.to_string())]).await;
        assert_eq!(texts(&session.events().await), [n.to_string()]);
    }
}

#[tokio::test]
async fn conflation_of_more_topics_than_fit_drops_the_oldest() {
    let hub = small_queues().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, blocked(OverflowPolicy::Conflate)).await;
    let topics: Vec<String> = (0..12).map(|n| format!("a.{n}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    session.publish(numbered(&topics, 12)).await;
    release(&session).await;
    assert_eq!(gap(&mut session).await, (2, GapReason::Overflow));
    assert_eq!(session.events().await.events.len(), 10);
}

#[tokio::test]
async fn one_that_would_rather_end_ends_and_only_that_one() {
    let hub = small_queues().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, blocked(OverflowPolicy::End)).await;
    session.subscribe(2, spec(&["a.*"])).await;
    session.send(0, Wire::Publish(crate::harness::publish(numbered(&["a.x"], 10)))).await;
    assert_eq!(session.collect(&HashMap::from([(2, 10)])).await[&2].len(), 10, "ten fit");
    session.send(0, Wire::Publish(crate::harness::publish(numbered(&["a.x"], 1)))).await;
    assert_eq!(gap(&mut session).await, (11, GapReason::Overflow));
    let ended = session.ended().await;
    assert_eq!((ended.subscription_id, ended.reason()), (1, EndReason::SlowConsumer));
    let status = ended.status.expect("a status");
    assert_eq!((status.code, reason(&status).as_str()), (tonic::Code::ResourceExhausted as i32, "SLOW_CONSUMER"));
    assert!(ended.retry.expect("advice").retry);
    assert_eq!(session.events().await.subscription_id, 2);
    // The end freed the route: nobody but 2 is matched.
    assert_eq!(session.publish(numbered(&["a.x"], 1)).await.results[0].matched, 1);
}
