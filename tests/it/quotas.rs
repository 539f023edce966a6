//! What one principal may use: at each limit and one past it, and what is told.

use std::time::Duration;

use switchyard::{
    proto::v1::{
        AckOutcome, CreateStreamRequest, DeleteStreamRequest, Event, PublishResult, PurgeStreamRequest, Stream,
        SubscribeRequest, UpdateStreamRequest, group_service_client::GroupServiceClient,
        hub_service_client::HubServiceClient, stream_service_client::StreamServiceClient,
    },
    server::Server,
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::{
    auth_harness::{Guarded, bear, token},
    harness::{Session, channel, client, event, hub_with, metric, publish, reason, reason_of_call, spec, until},
    stored::{Folder, create, hub_on, hub_on_with, state, stop, store, stream, streams},
    workplace::Place,
};

/// The quota that a status names, and how long it asks to wait.
fn quota(status: &Status) -> (String, Option<Duration>) {
    let details = status.get_error_details();
    let quota = details.quota_failure().and_then(|failure| failure.violations.first());
    let wait = details.retry_info().and_then(|retry| retry.retry_delay);
    (quota.map(|violation| violation.subject.clone()).unwrap_or_default(), wait)
}

/// The status of a frame as that of a call.
fn of_frame(status: &tonic_types::pb::Status) -> Status {
    let details = prost::Message::encode_to_vec(status);
    Status::with_details(Code::from_i32(status.code), "", details.into())
}

async fn refusals(hub: &Server) -> u64 {
    metric(hub, "switchyard_quota_refusals_total").await
}

#[tokio::test]
async fn a_principal_has_so_many_sessions_over_all_connections() {
    let hub = hub_with(|config| config.quotas.max_sessions = 2).await;
    let first = Session::open(hub.address).await;
    let _second = Session::open(hub.address).await;
    let mut other = client(hub.address).await;
    let request = || SubscribeRequest { spec: Some(spec(&["a"])) };
    let refused = other.subscribe(request()).await.expect_err("one past");
    assert_eq!((refused.code(), reason_of_call(&refused).as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
    assert_eq!(quota(&refused), ("sessions".to_owned(), Some(Duration::from_secs(1))));
    assert_eq!(refusals(&hub).await, 1);
    drop(first);
    until("there is room again", async || other.subscribe(request()).await.is_ok()).await;
}

#[tokio::test]
async fn a_principal_has_so_many_subscriptions_over_all_sessions() {
    let hub = hub_with(|config| config.quotas.max_subscriptions = 3).await;
    let (mut one, mut two) = (Session::open(hub.address).await, Session::open(hub.address).await);
    one.subscribe(1, spec(&["a"])).await;
    one.subscribe(2, spec(&["a"])).await;
    two.subscribe(1, spec(&["a"])).await;
    let wish = switchyard::proto::v1::Subscribe { subscription_id: 2, spec: Some(spec(&["a"])) };
    let subscribe = switchyard::proto::v1::session_request::Command::Subscribe(wish);
    two.send(5, subscribe.clone()).await;
    let status = two.ended().await.status.expect("a status");
    assert_eq!(reason(&status), "QUOTA_EXCEEDED");
    assert_eq!(quota(&of_frame(&status)), ("subscriptions".to_owned(), Some(Duration::from_secs(1))));
    let request = SubscribeRequest { spec: Some(spec(&["a"])) };
    let refused = client(hub.address).await.subscribe(request).await.expect_err("one past");
    assert_eq!(quota(&refused), ("subscriptions".to_owned(), Some(Duration::from_secs(1))));
    // One that ends makes room, in whichever session.
    let unsubscribe = switchyard::proto::v1::Unsubscribe { subscription_id: 1 };
    one.send(6, switchyard::proto::v1::session_request::Command::Unsubscribe(unsubscribe)).await;
    one.ended().await;
    two.subscribe(2, spec(&["a"])).await;
    drop(one);
    until("a session that is gone makes room", async || {
        two.send(7, subscribe_as(3)).await;
        matches!(two.frame().await.frame, Some(switchyard::proto::v1::session_response::Frame::Subscribed(_)))
    })
    .await;
}

fn subscribe_as(subscription_id: i64) -> switchyard::proto::v1::session_request::Command {
    let wish = switchyard::proto::v1::Subscribe { subscription_id, spec: Some(spec(&["a"])) };
    switchyard::proto::v1::session_request::Command::Subscribe(wish)
}

#[tokio::test]
async fn a_publish_beyond_the_rate_is_told_when_to_come_again() {
    // So slow that no test is slow enough to see the bucket fill again.
    let hub = hub_with(|config| config.quotas.publish_events_per_second = 4).await;
    let mut session = Session::open(hub.address).await;
    let events = |count: usize| vec![event("a.b", "x"); count];
    // More than the bucket holds may be in one publish when it is full, and has to be made up for: three seconds.
    session.publish(events(12)).await;
    let mut caller = client(hub.address).await;
    let refused = caller.publish(publish(events(400))).await.expect_err("one burst past");
    let (name, wait) = quota(&refused);
    assert_eq!(name, "publish_events_per_second");
    assert!(wait.is_some_and(|wait| wait > Duration::ZERO && wait <= Duration::from_secs(3)), "{wait:?}");
    assert_eq!(reason_of_call(&refused), "QUOTA_EXCEEDED");
    assert_eq!(metric(&hub, "switchyard_events_in_total").await, 12, "nothing of it was published");
    until("the rate allows it", async || caller.publish(publish(events(1))).await.is_ok()).await;
}

#[tokio::test]
async fn bytes_are_counted_as_events_are() {
    let hub = hub_with(|config| config.quotas.publish_bytes_per_second = 1000).await;
    let mut caller = client(hub.address).await;
    let large = || publish(vec![event("a.b", "x".repeat(2000))]);
    caller.publish(large()).await.expect("a full bucket lets one pass that is larger");
    let refused = caller.publish(large()).await.expect_err("which is paid for");
    assert_eq!(quota(&refused).0, "publish_bytes_per_second");
}

#[tokio::test]
async fn unanswered_publishes_are_bounded_and_room_comes_back() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, |config| config.quotas.max_in_flight_bytes = 4000).await;
    create(hub.address, stream("s", &["a.>"])).await;
    let mut caller = client(hub.address).await;
    for _ in 0..20 {
        caller.publish(publish(vec![event("a.b", "x".repeat(3000))])).await.expect("each is answered before the next");
    }
    let session = Session::open(hub.address).await;
    let publish = publish(vec![event("a.b", "x".repeat(3000))]);
    for request_id in 1..=50 {
        let command = switchyard::proto::v1::session_request::Command::Publish(publish.clone());
        session.send(request_id, command).await;
    }
    let (mut accepted, mut refused, mut session) = (0, 0, session);
    while accepted + refused < 50 {
        match session.frame().await.frame {
            Some(switchyard::proto::v1::session_response::Frame::Published(_)) => accepted += 1,
            Some(switchyard::proto::v1::session_response::Frame::Error(status)) => {
                assert_eq!(reason(&status), "QUOTA_EXCEEDED");
                refused += 1;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(accepted > 0, "one at a time passes");
    assert_eq!(crate::stored::all(hub.address, "s").await.len(), 20 + accepted);
    assert_eq!(refusals(&hub).await, refused as u64);
}

/// An event of a topic, all of one size when stored.
fn sized(topic: &str) -> Event {
    event(topic, "x".repeat(500))
}

/// The most by which events differ that are stored at different times: how long a time is depends on its nanoseconds.
const TIME_BYTES: u64 = 6;

/// What one of them is stored with in a stream with a name of one letter, but for [`TIME_BYTES`].
async fn stored_bytes_of_one() -> u64 {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("m", &["m.a"])).await;
    store(hub.address, vec![sized("m.a")]).await;
    state(hub.address, "m").await.bytes.unsigned_abs()
}

/// The refusals among the results of a publish, which must be of the quota of stored bytes. None may name who is refused.
fn refused_for_room(results: &[PublishResult]) -> usize {
    let refused: Vec<_> = results.iter().filter_map(|result| result.status.clone()).collect();
    for status in &refused {
        let status = of_frame(status);
        assert_eq!((status.code(), reason_of_call(&status).as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
        assert_eq!(quota(&status), ("stored_bytes".to_owned(), Some(Duration::from_secs(1))));
    }
    refused.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_bytes_are_exact_for_publishers_that_come_together_and_after_a_restart() {
    let (folder, one) = (Folder::new(), stored_bytes_of_one().await);
    // Room for ten events and for no eleventh, whichever streams they are in.
    let start = async || hub_on_with(&folder, |config| config.quotas.max_stored_bytes = 10 * one + one / 2).await;
    let hub = start().await;
    create(hub.address, stream("a", &["a.a"])).await;
    create(hub.address, stream("b", &["b.a"])).await;
    let mut publishers = tokio::task::JoinSet::new();
    for n in 0..20 {
        let mut caller = client(hub.address).await;
        let request = publish(vec![sized(if n % 2 == 0 { "a.a" } else { "b.a" })]);
        publishers.spawn(async move { caller.publish(request).await });
    }
    let mut accepted = 0;
    while let Some(answer) = publishers.join_next().await {
        match answer.expect("no panic") {
            Ok(_) => accepted += 1,
            Err(status) => assert_eq!(quota(&status), ("stored_bytes".to_owned(), Some(Duration::from_secs(1)))),
        }
    }
    assert_eq!((accepted, refusals(&hub).await), (10, 10));

    // A live event beside one for which there is no room: only that one is refused.
    let mut session = Session::open(hub.address).await;
    let results = session.publish(vec![sized("a.a"), event("live", "x"), sized("b.a")]).await.results;
    assert_eq!((refused_for_room(&results), results[1].status.is_none()), (2, true));
    drop(session);
    let kept = async |hub: &Server| {
        let [a, b] = [state(hub.address, "a").await, state(hub.address, "b").await];
        (a.events + b.events, (a.bytes + b.bytes).unsigned_abs())
    };
    let (events, bytes) = kept(&hub).await;
    assert!(events == 10 && bytes.abs_diff(10 * one) <= 10 * TIME_BYTES, "{events} events of {bytes} bytes");

    stop(hub).await;
    let hub = start().await;
    let mut session = Session::open(hub.address).await;
    assert_eq!(refused_for_room(&session.publish(vec![sized("a.a")]).await.results), 1, "counted again");
    let purge = PurgeStreamRequest { name: "a".into(), up_to_sequence: 2, ..PurgeStreamRequest::default() };
    streams(hub.address).await.purge_stream(purge).await.expect("purged");
    assert_eq!(
        refused_for_room(&session.publish(vec![sized("b.a"); 3]).await.results),
        3,
        "all of a publish or nothing"
    );
    assert_eq!(refused_for_room(&session.publish(vec![sized("b.a"); 2]).await.results), 0, "what was purged is free");
    streams(hub.address).await.delete_stream(DeleteStreamRequest { name: "b".into() }).await.expect("deleted");
    let left = state(hub.address, "a").await.events;
    let free = usize::try_from(10 - left).expect("a number");
    assert_eq!(refused_for_room(&session.publish(vec![sized("a.a"); free]).await.results), 0, "as is what was deleted");
    assert_eq!(refused_for_room(&session.publish(vec![sized("a.a")]).await.results), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_bytes_are_on_the_account_of_who_made_the_stream() {
    let (folder, one) = (Folder::new(), stored_bytes_of_one().await);
    let hub = Guarded::start(&folder, |config| config.quotas.max_stored_bytes = 2 * one + one / 2).await;
    for (name, owner) in [("a", "alice"), ("b", "bob")] {
        let stream = Some(stream(name, &[&format!("{name}.a")]));
        let mut request = Request::new(CreateStreamRequest { stream });
        bear(&mut request, &token(owner, &["admin"]));
        streams(hub.server.address).await.create_stream(request).await.expect("created");
    }
    let mut bob = hub.session(&token("bob", &["admin"])).await;
    assert_eq!(refused_for_room(&bob.publish(vec![sized("a.a"); 2]).await.results), 0, "on the account of alice");
    assert_eq!(refused_for_room(&bob.publish(vec![sized("a.a")]).await.results), 1);
    assert_eq!(refused_for_room(&bob.publish(vec![sized("b.a"); 2]).await.results), 0, "on his own");
    // Whoever changes a stream does not take it over.
    let asked = Stream { name: "a".into(), max_events: 100, ..Stream::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["max_events".into()] });
    let mut request = Request::new(UpdateStreamRequest { stream: Some(asked), update_mask });
    bear(&mut request, &token("carol", &["admin"]));
    streams(hub.server.address).await.update_stream(request).await.expect("updated");
    let mut alice = hub.session(&token("alice", &["admin"])).await;
    let results = alice.publish(vec![sized("a.a")]).await.results;
    assert_eq!(refused_for_room(&results), 1);
    assert!(!format!("{results:?}").contains("alice"), "{results:?}");
}

#[tokio::test]
async fn dead_letters_without_room_wait_and_acknowledgements_do_not() {
    let folder = Folder::new();
    let server = hub_on_with(&folder, |config| config.quotas.max_stored_bytes = 4_000).await;
    let channel = channel(server.address).await;
    let mut place = Place {
        server,
        groups: GroupServiceClient::new(channel.clone()),
        streams: StreamServiceClient::new(channel.clone()),
        hub: HubServiceClient::new(channel),
    };
    for (name, filter) in [("jobs", "jobs.>"), ("lost", "lost.>"), ("ballast", "ballast")] {
        place.stream(name, filter).await;
    }
    place.group(|group| group.dead_letter_stream = "lost".into()).await;
    store(place.server.address, vec![event("ballast", "x".repeat(2_000))]).await;
    place.publish(&["x".repeat(1_000).as_str(), "small"]).await;
    let mut member = place.member().await;
    assert_eq!(member.texts(2).await[1], "small");
    assert_eq!(member.say(&[1], |told| told.set_outcome(AckOutcome::Reject)).await, [], "it is given up all the same");
    member.ack(&[2]).await;
    assert!(place.letters().await.is_empty(), "there is no room for it");
    place.streams.delete_stream(DeleteStreamRequest { name: "ballast".into() }).await.expect("deleted");
    assert_eq!(place.until_letters(1).await[0].origin_sequence, 1);
}
