//! Live groups: members share the events.

use std::collections::HashMap;

use switchyard::proto::v1::{AddCredit, SubscriptionSpec, Unsubscribe, session_request::Command as Wire};

use crate::harness::{Session, client, credit, event, hub, publish, spec, texts};

fn member(filters: &[&str], group: &str) -> SubscriptionSpec {
    SubscriptionSpec { group: group.into(), ..spec(filters) }
}

#[tokio::test]
async fn each_event_goes_to_one_member_and_they_take_turns() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut other = Session::open(hub.address).await;
    session.subscribe(1, member(&["jobs.*"], "workers")).await;
    session.subscribe(2, member(&["jobs.>"], "workers")).await;
    other.subscribe(1, member(&["jobs.a", "jobs.b", "jobs.*"], "workers")).await;
    other.subscribe(2, spec(&["jobs.>"])).await;
    let results = client(hub.address)
        .await
        .publish(publish((0..300).map(|n| event("jobs.a", n.to_string())).collect()))
        .await
        .expect("published")
        .into_inner()
        .results;
    assert!(results.iter().all(|result| result.matched == 2), "the group counts as one, and the other one as one");
    let mine = session.collect(&HashMap::from([(1, 100), (2, 100)])).await;
    let theirs = other.collect(&HashMap::from([(1, 100), (2, 300)])).await;
    let mut all: Vec<usize> = [&mine[&1], &mine[&2], &theirs[&1]]
        .into_iter()
        .inspect(|texts| {
            let numbers: Vec<usize> = texts.iter().map(|t| t.parse().expect("a number")).collect();
            assert!(numbers.is_sorted(), "order within a member");
        })
        .flatten()
        .map(|text| text.parse().expect("a number"))
        .collect();
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn groups_of_different_names_are_apart() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, member(&["a"], "one")).await;
    session.subscribe(2, member(&["a"], "two")).await;
    assert_eq!(session.publish(vec![event("a", "x")]).await.results[0].matched, 2);
    assert!(session.collect(&HashMap::from([(1, 1), (2, 1)])).await.values().all(|texts| texts == &["x"]));
}

#[tokio::test]
async fn a_member_without_credit_is_passed_over() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, SubscriptionSpec { credit: credit(0, 0), ..member(&["a"], "g") }).await;
    session.subscribe(2, member(&["a"], "g")).await;
    let events = (0..10).map(|n| event("a", n.to_string())).collect();
    session.send(0, Wire::Publish(publish(events))).await;
    assert_eq!(session.collect(&HashMap::from([(2, 10)])).await[&2].len(), 10);
}

#[tokio::test]
async fn a_member_gets_no_more_than_its_credit_while_others_are_free() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, SubscriptionSpec { credit: credit(3, 0), ..member(&["a"], "g") }).await;
    session.subscribe(2, member(&["a"], "g")).await;
    let events = (0..100).map(|n| event("a", n.to_string())).collect();
    session.send(0, Wire::Publish(publish(events))).await;
    let got = session.collect(&HashMap::from([(1, 3), (2, 97)])).await;
    assert_eq!((got[&1].len(), got[&2].len()), (3, 97));
}

#[tokio::test]
async fn with_no_member_ready_the_event_waits_for_one() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, SubscriptionSpec { credit: credit(0, 0), ..member(&["a"], "g") }).await;
    assert_eq!(session.publish(vec![event("a", "x")]).await.results[0].matched, 1);
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(1, 0) })).await;
    assert_eq!(texts(&session.events().await), ["x"]);
}

#[tokio::test]
async fn a_member_that_leaves_leaves_its_share_to_the_others() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, member(&["a"], "g")).await;
    session.subscribe(2, member(&["a"], "g")).await;
    session.send(1, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await;
    session.ended().await;
    let events = (0..10).map(|n| event("a", n.to_string())).collect();
    session.send(0, Wire::Publish(publish(events))).await;
    assert_eq!(session.collect(&HashMap::from([(2, 10)])).await[&2].len(), 10);
    session.send(1, Wire::Unsubscribe(Unsubscribe { subscription_id: 2 })).await;
    session.ended().await;
    assert_eq!(session.publish(vec![event("a", "x")]).await.results[0].matched, 0);
}

#[tokio::test]
async fn update_keeps_the_member_in_its_group() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, member(&["a"], "g")).await;
    session.subscribe(2, member(&["b"], "g")).await;
    let update =
        switchyard::proto::v1::Update { subscription_id: 1, filters: vec!["b".into()], expression: String::new() };
    session.send(1, Wire::Update(update)).await;
    session.frame().await;
    assert_eq!(session.publish(vec![event("b", "x")]).await.results[0].matched, 1, "still one group");
}
