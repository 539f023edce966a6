//! What one session does, command by command and frame by frame.

use std::{collections::HashMap, time::Duration};

use switchyard::proto::v1::{
    AddCredit, EndReason, Hello, Ping, SubscribeRequest, Unsubscribe, Update, session_request::Command as Wire,
    session_response::Frame, subscribe_response::Frame as OneFrame,
};
use tokio_stream::StreamExt;

use crate::harness::{Session, client, credit, event, hub, hub_with, publish, reason, soon, spec, texts};

#[tokio::test]
async fn headers_and_welcome_come_before_any_command() {
    let hub = hub().await;
    let mut session = Session::open_raw(&mut client(hub.address).await).await;
    let Some(Frame::Welcome(welcome)) = session.frame().await.frame else { panic!("no welcome") };
    assert!(!welcome.session_id.is_empty() && !welcome.node.is_empty());
    assert_eq!(welcome.version, env!("CARGO_PKG_VERSION"));
    let limits = welcome.limits.expect("limits");
    assert_eq!((limits.max_event_bytes, limits.max_subscriptions), (1024 * 1024, 100_000));
    assert_eq!(welcome.heartbeat_interval.expect("an interval").seconds, 15);
    assert!(welcome.alternatives.is_empty(), "none is configured");
}

#[tokio::test]
async fn a_session_publishes_to_itself_and_others() {
    let hub = hub().await;
    let mut one = Session::open(hub.address).await;
    let mut other = Session::open(hub.address).await;
    one.subscribe(1, spec(&["a.*"])).await;
    other.subscribe(5, spec(&["a.b", "c.>"])).await;
    other.send(9, Wire::Publish(publish(vec![event("a.b", "1"), event("x", "2"), event("c.d.e", "3")]))).await;
    assert_eq!(texts(&one.events().await), ["1"]);
    let frame = other.frame().await;
    let Some(Frame::Published(published)) = frame.frame else { panic!("not published: {frame:?}") };
    assert_eq!(frame.request_id, 9);
    assert_eq!(published.results.iter().map(|r| r.matched).collect::<Vec<_>>(), [2, 0, 1]);
    let got = other.collect(&HashMap::from([(5, 2)])).await;
    assert_eq!(got[&5], ["1", "3"]);
}

#[tokio::test]
async fn an_event_that_several_filters_match_comes_once() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["a.b", "a.*", "a.>", ">", "a.b"])).await;
    session.subscribe(2, spec(&["a.b"])).await;
    session.subscribe(3, spec(&["a.b"])).await;
    let matched = session.publish(vec![event("a.b", "x")]).await.results[0].matched;
    assert_eq!(matched, 3, "the same filter twice in a session is two subscriptions");
    let got = session.collect(&HashMap::from([(1, 1), (2, 1), (3, 1)])).await;
    assert!(got.values().all(|texts| texts == &["x"]));
    let after = session.publish(vec![event("other", "y")]).await.results[0].matched;
    assert_eq!(after, 1);
    assert_eq!(texts(&session.events().await), ["y"]);
}

#[tokio::test]
async fn events_of_one_publisher_keep_their_order() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["n.*"])).await;
    let publisher = Session::open(hub.address).await;
    for batch in 0..100 {
        let events = (0..100).map(|n| event("n.x", (batch * 100 + n).to_string())).collect();
        publisher.send(0, Wire::Publish(publish(events))).await;
    }
    let got = session.collect(&HashMap::from([(1, 10_000)])).await;
    assert!(got[&1].iter().enumerate().all(|(n, text)| *text == n.to_string()));
}

#[tokio::test]
async fn unsubscribe_ends_one_subscription_and_frees_its_id() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["a"])).await;
    session.subscribe(2, spec(&["a"])).await;
    session.send(5, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await;
    let frame = session.frame().await;
    let Some(Frame::Ended(ended)) = frame.frame else { panic!("not ended") };
    assert_eq!((frame.request_id, ended.subscription_id), (5, 1));
    assert_eq!(ended.reason(), EndReason::ClientUnsubscribed);
    assert_eq!(ended.status.expect("a status").code, 0);
    assert_eq!(session.publish(vec![event("a", "x")]).await.results[0].matched, 1);
    assert_eq!(session.events().await.subscription_id, 2);
    session.subscribe(1, spec(&["b"])).await;
}

#[tokio::test]
async fn update_changes_filters_and_keeps_credit() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut wish = spec(&["a", "both"]);
    wish.credit = credit(2, 0);
    session.subscribe(1, wish).await;
    session.publish(vec![event("a", "1")]).await;
    assert_eq!(texts(&session.events().await), ["1"]);
    let filters = vec!["b".to_owned(), "both".to_owned()];
    session.send(8, Wire::Update(Update { subscription_id: 1, filters, expression: String::new() })).await;
    let frame = session.frame().await;
    let Some(Frame::Subscribed(subscribed)) = frame.frame else { panic!("not subscribed: {frame:?}") };
    assert_eq!(frame.request_id, 8);
    assert_eq!(subscribed.credit.expect("credit").events, 1, "one of two is spent");
    let response = session.publish(vec![event("a", "no"), event("b", "2"), event("both", "3")]).await;
    assert_eq!(response.results.iter().map(|r| r.matched).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!(texts(&session.events().await), ["2"], "credit for one");
}

#[tokio::test]
async fn the_hub_never_sends_more_than_granted() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.credit = credit(3, 0);
    session.subscribe(1, wish).await;
    session.publish((0..10).map(|n| event("a", n.to_string())).collect()).await;
    assert_eq!(texts(&session.events().await), ["0", "1", "2"]);
    ping(&mut session).await;
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(2, 0) })).await;
    assert_eq!(texts(&session.events().await), ["3", "4"]);
    ping(&mut session).await;
}

/// Whatever the hub sends for what came before stands before the pong.
async fn ping(session: &mut Session) {
    session.send(3, Wire::Ping(Ping { nonce: "n".into() })).await;
    let frame = session.frame().await;
    assert!(matches!(frame.frame, Some(Frame::Pong(pong)) if pong.nonce == "n"));
}

#[tokio::test]
async fn one_event_may_overdraw_the_bytes() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.credit = credit(0, 10);
    session.subscribe(1, wish).await;
    session.publish(vec![event("a", "x".repeat(1_000)), event("a", "y")]).await;
    assert_eq!(session.events().await.events.len(), 1);
    ping(&mut session).await;
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(0, 100) })).await;
    ping(&mut session).await;
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(0, 2_000) })).await;
    assert_eq!(texts(&session.events().await), ["y"]);
}

#[tokio::test]
async fn explicit_credit_without_a_grant_gets_nothing() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.credit = credit(0, 0);
    session.subscribe(1, wish).await;
    assert_eq!(session.publish(vec![event("a", "x")]).await.results[0].matched, 1);
    ping(&mut session).await;
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(1, 0) })).await;
    assert_eq!(texts(&session.events().await), ["x"]);
}

#[tokio::test]
async fn max_events_ends_the_subscription_after_the_last() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.max_events = 2;
    session.subscribe(1, wish).await;
    let results = session.publish((0..5).map(|n| event("a", n.to_string())).collect()).await.results;
    assert_eq!(results.iter().map(|r| r.matched).collect::<Vec<_>>(), [1, 1, 0, 0, 0], "none it would never get");
    assert_eq!(texts(&session.events().await), ["0", "1"]);
    let ended = session.ended().await;
    assert_eq!((ended.subscription_id, ended.reason()), (1, EndReason::LimitReached));
    assert_eq!(session.publish(vec![event("a", "x")]).await.results[0].matched, 0);
}

#[tokio::test]
async fn max_batch_limits_the_events_of_a_frame() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.max_batch = 2;
    session.subscribe(1, wish).await;
    session.publish((0..5).map(|n| event("a", n.to_string())).collect()).await;
    let sizes = [session.events().await, session.events().await, session.events().await].map(|e| e.events.len());
    assert_eq!(sizes, [2, 2, 1]);
}

#[tokio::test]
async fn the_hub_chooses_an_id_when_asked() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["a"])).await;
    let subscribe = switchyard::proto::v1::Subscribe { subscription_id: 0, spec: Some(spec(&["b"])) };
    session.send(4, Wire::Subscribe(subscribe)).await;
    let Some(Frame::Subscribed(subscribed)) = session.frame().await.frame else { panic!("not subscribed") };
    assert!(subscribed.subscription_id > 1);
    session.publish(vec![event("b", "x")]).await;
    assert_eq!(session.events().await.subscription_id, subscribed.subscription_id);
}

#[tokio::test]
async fn a_publish_without_a_request_id_is_answered_only_when_it_fails() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.send(0, Wire::Publish(publish(vec![event("a", "x")]))).await;
    ping(&mut session).await;
    session.send(0, Wire::Publish(publish(vec![event("a", "x"), event("a..b", "y")]))).await;
    let frame = session.frame().await;
    let Some(Frame::Published(published)) = frame.frame else { panic!("not published: {frame:?}") };
    assert!(published.results[0].status.is_none());
    assert_eq!(reason(published.results[1].status.as_ref().expect("refused")), "INVALID_TOPIC");
}

#[tokio::test]
async fn deliveries_go_on_after_half_close() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["a"])).await;
    session.half_close();
    let mut publisher = client(hub.address).await;
    for n in 0..3 {
        // The half-close may still be on its way; what matters is that it changes nothing.
        publisher.publish(publish(vec![event("a", n.to_string())])).await.expect("published");
    }
    assert_eq!(session.collect(&HashMap::from([(1, 3)])).await[&1], ["0", "1", "2"]);
}

#[tokio::test]
async fn a_half_closed_session_without_subscriptions_ends_ok() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.publish(vec![event("a", "x")]).await;
    session.half_close();
    session.end().await.expect("OK");
}

#[tokio::test]
async fn credit_that_cannot_come_any_more_ends_the_subscription() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.credit = credit(2, 0);
    session.subscribe(1, wish).await;
    session.half_close();
    client(hub.address)
        .await
        .publish(publish((0..3).map(|n| event("a", n.to_string())).collect()))
        .await
        .expect("published");
    let got = session.collect(&HashMap::from([(1, 2)])).await;
    assert_eq!(got[&1], ["0", "1"]);
    assert_eq!(session.ended().await.reason(), EndReason::CreditExhausted);
    session.end().await.expect("OK");
}

#[tokio::test]
async fn an_idle_session_hears_heartbeats_as_often_as_it_asked() {
    let hub = hub().await;
    let start = tokio::time::Instant::now();
    let mut session = Session::open(hub.address).await;
    let interval = prost_types::Duration { seconds: 0, nanos: 1 };
    let hello = Hello { client_name: "test".into(), heartbeat_interval: Some(interval), ..Hello::default() };
    session.send(1, Wire::Hello(hello)).await;
    let frame = session.frame().await;
    assert!(matches!(frame.frame, Some(Frame::Heartbeat(_))), "{frame:?}");
    assert!(start.elapsed() >= Duration::from_secs(1), "a second is the shortest: {:?}", start.elapsed());
}

#[tokio::test]
async fn subscribe_is_a_session_of_one_subscription() {
    let hub = hub().await;
    let mut client = client(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.max_events = 1;
    let response = client.subscribe(SubscribeRequest { spec: Some(wish) }).await.expect("subscribed");
    let mut frames = response.into_inner();
    let mut next = async || soon("a frame", frames.next()).await.map(|frame| frame.expect("a frame").frame);
    assert!(matches!(next().await, Some(Some(OneFrame::Welcome(_)))));
    assert!(matches!(next().await, Some(Some(OneFrame::Subscribed(s))) if s.subscription_id == 1));
    client.publish(publish(vec![event("a", "x")])).await.expect("published");
    assert!(matches!(next().await, Some(Some(OneFrame::Events(events))) if texts(&events) == ["x"]));
    assert!(matches!(next().await, Some(Some(OneFrame::Ended(e))) if e.reason() == EndReason::LimitReached));
    assert!(next().await.is_none());
}

#[tokio::test]
async fn subscribe_with_explicit_credit_ends_when_it_is_used_up() {
    let hub = hub().await;
    let mut client = client(hub.address).await;
    let mut wish = spec(&["a"]);
    wish.credit = credit(1, 0);
    let mut frames = client.subscribe(SubscribeRequest { spec: Some(wish) }).await.expect("subscribed").into_inner();
    for _ in 0..2 {
        soon("a frame", frames.next()).await.expect("open").expect("a frame");
    }
    client.publish(publish(vec![event("a", "x"), event("a", "y")])).await.expect("published");
    let mut last = None;
    while let Some(frame) = soon("a frame", frames.next()).await {
        last = frame.expect("a frame").frame;
    }
    assert!(matches!(last, Some(OneFrame::Ended(ended)) if ended.reason() == EndReason::CreditExhausted));
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_behind() {
    let hub = hub_with(|_| {}).await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["a"])).await;
    drop(session);
    let mut publisher = client(hub.address).await;
    crate::harness::until("the subscription is forgotten", async || {
        let response = publisher.publish(publish(vec![event("a", "x")])).await.expect("published");
        response.into_inner().results[0].matched == 0
    })
    .await;
    crate::harness::until("the session is closed", async || {
        crate::harness::metric(&hub, "switchyard_open_sessions").await == 0
    })
    .await;
}
