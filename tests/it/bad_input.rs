//! What the hub makes of commands it cannot take: each is answered with a code, a reason and a field, and nothing else
//! suffers. The limits have their own file.

use std::collections::HashMap;

use prost::Message;
use switchyard::proto::v1::{
    AckMode, Acknowledge, AddCredit, Authenticate, Ended, Event, Hello, Ping, PublishPrecondition, PublishRequest,
    StartPosition, StartPreset, Subscribe, SubscribeRequest, SubscriptionSpec, Unsubscribe, Update,
    publish_precondition::Condition, session_request::Command as Wire, session_response::Frame,
    start_position::Position,
};
use tonic::Code;

use crate::{
    harness::{Session, credit, event, hub, publish, reason, reason_of_call, soon, spec, texts},
    http2::{Http2, PUBLISH, SESSION, command, framed},
    witness::{AUTOMATIC, Bench, EXPLICIT, Witness, check_status, ping, status_of},
};

const MALFORMED: (Code, &str) = (Code::InvalidArgument, "MALFORMED_COMMAND");
/// As gRPC itself has it for frames.
const TOO_LARGE: (Code, &str) = (Code::ResourceExhausted, "EVENT_TOO_LARGE");
const COMPRESSED: (Code, &str) = (Code::Internal, "MALFORMED_COMMAND");
const NOT_FOUND: (Code, &str) = (Code::NotFound, "SUBSCRIPTION_NOT_FOUND");
const MISMATCH: (Code, &str) = (Code::FailedPrecondition, "CONFIG_MISMATCH");
const BAD_FILTER: (Code, &str) = (Code::InvalidArgument, "INVALID_FILTER");
const BAD_TOPIC: (Code, &str) = (Code::InvalidArgument, "INVALID_TOPIC");

fn update(subscription_id: i64, filters: &[&str]) -> Wire {
    let filters = filters.iter().map(|text| (*text).to_owned()).collect();
    Wire::Update(Update { subscription_id, filters, expression: String::new() })
}

fn add_credit(subscription_id: i64, events: i64, bytes: i64) -> Wire {
    Wire::Credit(AddCredit { subscription_id, credit: credit(events, bytes) })
}

fn acknowledge(subscription_id: i64) -> Wire {
    Wire::Acknowledge(Acknowledge { subscription_id, sequences: vec![1], ..Acknowledge::default() })
}

async fn check_errors(cases: impl IntoIterator<Item = (Wire, (Code, &str), &str)>) {
    let mut bench = Bench::new().await;
    for (command, (code, reason), field) in cases {
        bench.check_error(command, (code, reason, field)).await;
    }
}

#[tokio::test]
async fn a_command_for_no_subscription_says_so() {
    check_errors([
        (update(9, &["a"]), NOT_FOUND, "update.subscription_id"),
        (Wire::Unsubscribe(Unsubscribe { subscription_id: 9 }), NOT_FOUND, "unsubscribe.subscription_id"),
        (add_credit(9, 1, 0), NOT_FOUND, "credit.subscription_id"),
        (acknowledge(9), NOT_FOUND, "acknowledge.subscription_id"),
    ])
    .await;
}

#[tokio::test]
async fn a_command_for_an_ended_subscription_says_so() {
    let mut bench = Bench::new().await;
    bench.session.subscribe(7, SubscriptionSpec { credit: credit(1, 0), ..spec(&["once"]) }).await;
    bench.session.send(5, Wire::Unsubscribe(Unsubscribe { subscription_id: 7 })).await;
    assert_eq!(bench.session.ended().await.subscription_id, 7);
    for (command, field) in [
        (update(7, &["a"]), "update.subscription_id"),
        (Wire::Unsubscribe(Unsubscribe { subscription_id: 7 }), "unsubscribe.subscription_id"),
        (add_credit(7, 1, 0), "credit.subscription_id"),
        (acknowledge(7), "acknowledge.subscription_id"),
    ] {
        bench.check_error(command, (NOT_FOUND.0, NOT_FOUND.1, field)).await;
    }
}

#[tokio::test]
async fn ids_below_their_range_are_refused() {
    let subscribe = |subscription_id| Wire::Subscribe(Subscribe { subscription_id, spec: Some(spec(&["a"])) });
    for id in [-1, i64::MIN] {
        check_errors([
            (subscribe(id), MALFORMED, "subscribe.subscription_id"),
            (update(id, &["a"]), MALFORMED, "update.subscription_id"),
            (Wire::Unsubscribe(Unsubscribe { subscription_id: id }), MALFORMED, "unsubscribe.subscription_id"),
            (add_credit(id, 1, 0), MALFORMED, "credit.subscription_id"),
            (acknowledge(id), MALFORMED, "acknowledge.subscription_id"),
        ])
        .await;
    }
    check_errors([
        (update(0, &["a"]), MALFORMED, "update.subscription_id"),
        (add_credit(0, 1, 0), MALFORMED, "credit.subscription_id"),
    ])
    .await;
}

#[tokio::test]
async fn a_negative_request_id_is_refused_by_its_own_id() {
    let mut bench = Bench::new().await;
    bench.session.send(-4, Wire::Ping(Ping::default())).await;
    let (request_id, status) = bench.session.error().await;
    assert_eq!(request_id, -4);
    check_status("request id", &status, (MALFORMED.0, MALFORMED.1, "request_id"));
    bench.goes_on().await;
}

#[tokio::test]
async fn an_id_in_use_is_refused_and_its_subscription_works_on() {
    let mut bench = Bench::new().await;
    for wish in [Some(spec(&["other"])), Some(spec(&["a..b"])), None] {
        let again = Wire::Subscribe(Subscribe { subscription_id: AUTOMATIC, spec: wish });
        let expected = (Code::AlreadyExists, "SUBSCRIPTION_ID_IN_USE", "subscribe.subscription_id");
        bench.check_error(again, expected).await;
    }
    let matched = bench.client.publish(publish(vec![event("other", "x")])).await.expect("published");
    assert_eq!(matched.into_inner().results[0].matched, 0, "the second wish was not taken");
}

#[tokio::test]
async fn credit_that_makes_no_sense_is_refused() {
    check_errors([
        (add_credit(EXPLICIT, -1, 0), MALFORMED, "credit.credit.events"),
        (add_credit(EXPLICIT, 5, -1), MALFORMED, "credit.credit.bytes"),
        (add_credit(EXPLICIT, 0, 0), MALFORMED, "credit.credit"),
        (Wire::Credit(AddCredit { subscription_id: EXPLICIT, credit: None }), MALFORMED, "credit.credit"),
        (add_credit(AUTOMATIC, 1, 0), MALFORMED, "credit.subscription_id"),
    ])
    .await;
}

#[tokio::test]
async fn an_update_that_is_refused_changes_nothing() {
    let expression = Wire::Update(Update { subscription_id: 1, filters: vec!["b".into()], expression: "true".into() });
    check_errors([
        (update(AUTOMATIC, &[]), BAD_FILTER, "update.filters"),
        (update(AUTOMATIC, &["a", "b..c"]), BAD_FILTER, "update.filters[1]"),
        (update(AUTOMATIC, &["a.>.b"]), BAD_FILTER, "update.filters[0]"),
        (expression, (Code::InvalidArgument, "INVALID_EXPRESSION"), "update.expression"),
    ])
    .await;
}

#[tokio::test]
async fn what_this_hub_does_not_have_is_told() {
    let condition = |condition| PublishRequest {
        events: vec![event("bench", "never")],
        precondition: Some(PublishPrecondition { condition }),
    };
    check_errors([
        (acknowledge(AUTOMATIC), MISMATCH, "acknowledge.subscription_id"),
        (Wire::Authenticate(Authenticate { token: "secret".into() }), MISMATCH, "authenticate"),
        (Wire::Publish(condition(Some(Condition::LastSequence(0)))), MISMATCH, "publish.precondition"),
        (Wire::Publish(condition(Some(Condition::LastTopicSequence(0)))), MISMATCH, "publish.precondition"),
    ])
    .await;
    let mut bench = Bench::new().await;
    let status = bench.client.publish(condition(Some(Condition::LastSequence(0)))).await.expect_err("refused");
    check_status("precondition", &status_of(&status), (MISMATCH.0, MISMATCH.1, "precondition"));
    bench.goes_on().await;
}

#[tokio::test]
async fn a_precondition_out_of_its_range_is_refused() {
    let condition = |condition| PublishRequest {
        events: vec![event("bench", "never")],
        precondition: Some(PublishPrecondition { condition }),
    };
    check_errors([
        (
            Wire::Publish(condition(Some(Condition::LastTopicSequence(-1)))),
            MALFORMED,
            "publish.precondition.last_topic_sequence",
        ),
        (Wire::Publish(condition(Some(Condition::LastSequence(-1)))), MALFORMED, "publish.precondition.last_sequence"),
        (Wire::Publish(condition(None)), MALFORMED, "publish.precondition"),
    ])
    .await;
}

#[tokio::test]
async fn an_acknowledgement_out_of_its_range_is_refused() {
    let with = |change: fn(&mut Acknowledge)| {
        let mut acknowledge = Acknowledge { subscription_id: AUTOMATIC, sequences: vec![1], ..Default::default() };
        change(&mut acknowledge);
        Wire::Acknowledge(acknowledge)
    };
    check_errors([
        (with(|ack| ack.sequences = vec![]), MALFORMED, "acknowledge.sequences"),
        (with(|ack| ack.up_to = 1), MALFORMED, "acknowledge.sequences"),
        (with(|ack| ack.sequences = vec![0]), MALFORMED, "acknowledge.sequences"),
        (with(|ack| ack.sequences = vec![1; 10_001]), MALFORMED, "acknowledge.sequences"),
        (with(|ack| ack.sequences = vec![1; 10_000]), MISMATCH, "acknowledge.subscription_id"),
        (with(|ack| ack.outcome = 99), MALFORMED, "acknowledge.outcome"),
        (with(|ack| ack.reason = "x".repeat(1025)), MALFORMED, "acknowledge.reason"),
        (with(|ack| ack.reason = "x".repeat(1024)), MISMATCH, "acknowledge.subscription_id"),
        (
            with(|ack| ack.delay = Some(prost_types::Duration { seconds: 86_401, nanos: 0 })),
            MALFORMED,
            "acknowledge.delay",
        ),
        (with(|ack| ack.delay = Some(prost_types::Duration { seconds: -1, nanos: 0 })), MALFORMED, "acknowledge.delay"),
    ])
    .await;
}

#[tokio::test]
async fn a_publish_of_nothing_is_refused() {
    let mut bench = Bench::new().await;
    bench.check_error(Wire::Publish(publish(vec![])), (MALFORMED.0, MALFORMED.1, "publish.events")).await;
    let status = bench.client.publish(publish(vec![])).await.expect_err("refused");
    check_status("no events", &status_of(&status), (MALFORMED.0, MALFORMED.1, "events"));
    bench.goes_on().await;
}

#[tokio::test]
async fn hello_is_the_first_command_or_none() {
    let mut bench = Bench::new().await;
    bench.check_error(Wire::Hello(Hello::default()), (MALFORMED.0, MALFORMED.1, "hello")).await;
    let mut session = Session::open(bench.hub.address).await;
    session.send(0, Wire::Hello(Hello::default())).await;
    ping(&mut session).await;
    for (seconds, nanos) in [(0, 0), (-1, 0), (0, -1)] {
        let mut session = Session::open(bench.hub.address).await;
        let interval = Some(prost_types::Duration { seconds, nanos });
        session.send(6, Wire::Hello(Hello { heartbeat_interval: interval, ..Hello::default() })).await;
        let (_, status) = session.error().await;
        check_status("heartbeat", &status, (MALFORMED.0, MALFORMED.1, "hello.heartbeat_interval"));
        ping(&mut session).await;
    }
}

/// A wish is refused, whether it comes over a session or as a call of its own.
async fn check_wish(bench: &mut Bench, wish: Option<SubscriptionSpec>, expected: (Code, &str), field: &str) {
    let what = format!("{wish:?}").chars().take(200).collect::<String>();
    let (code, name) = expected;
    bench.session.send(8, Wire::Subscribe(Subscribe { subscription_id: 7, spec: wish.clone() })).await;
    let frame = bench.session.frame().await;
    let Some(Frame::Ended(ended)) = frame.frame else { panic!("{what} got {frame:?}") };
    assert_eq!((frame.request_id, ended.subscription_id), (8, 7), "{what}");
    assert_eq!(ended.reason().as_str_name(), format!("END_REASON_{name}"), "{what}");
    assert!(ended.retry.is_some_and(|advice| !advice.retry), "{what}: trying again cannot help");
    let status = ended.status.expect("a status");
    check_status(&what, &status, (code, name, &format!("subscribe.{field}")));
    bench.goes_on().await;

    let status = bench.client.subscribe(SubscribeRequest { spec: wish }).await.expect_err("refused by the call itself");
    check_status(&what, &status_of(&status), (code, name, field));
}

/// A good wish, changed.
fn bad(change: impl FnOnce(&mut SubscriptionSpec)) -> SubscriptionSpec {
    let mut wish = spec(&["bench"]);
    change(&mut wish);
    wish
}

async fn check_wishes(cases: impl IntoIterator<Item = (SubscriptionSpec, (Code, &str), &str)>) {
    let mut bench = Bench::new().await;
    for (wish, expected, field) in cases {
        check_wish(&mut bench, Some(wish), expected, field).await;
    }
    bench.session.subscribe(7, spec(&["free"])).await;
    let subscriptions = crate::harness::metric(&bench.hub, "switchyard_open_subscriptions").await;
    assert_eq!(subscriptions, 4, "nothing is left of the refused: two of the bench, one new, one of the witness");
}

#[tokio::test]
async fn a_bad_filter_ends_the_wish() {
    check_wishes([
        (bad(|wish| wish.filters = vec!["a..b".into()]), BAD_FILTER, "spec.filters[0]"),
        (bad(|wish| wish.filters = vec![String::new()]), BAD_FILTER, "spec.filters[0]"),
        (bad(|wish| wish.filters.push("a.>.b".into())), BAD_FILTER, "spec.filters[1]"),
        (bad(|wish| wish.filters.push("a*".into())), BAD_FILTER, "spec.filters[1]"),
        (bad(|wish| wish.filters.clear()), BAD_FILTER, "spec.filters"),
    ])
    .await;
    let mut bench = Bench::new().await;
    check_wish(&mut bench, None, MALFORMED, "spec").await;
}

#[tokio::test]
async fn a_wish_that_needs_a_stream_is_refused() {
    fn start(wish: &mut SubscriptionSpec, position: Position) {
        wish.start = Some(StartPosition { position: Some(position) });
    }
    check_wishes([
        (bad(|wish| wish.stream = "orders".into()), MISMATCH, "spec.stream"),
        (bad(|wish| start(wish, Position::Preset(StartPreset::Earliest.into()))), MISMATCH, "spec.start"),
        (bad(|wish| start(wish, Position::Preset(StartPreset::LastPerTopic.into()))), MISMATCH, "spec.start"),
        (bad(|wish| start(wish, Position::AfterSequence(0))), MISMATCH, "spec.start"),
        (bad(|wish| start(wish, Position::AtTime(prost_types::Timestamp::default()))), MISMATCH, "spec.start"),
        (bad(|wish| start(wish, Position::ResumeToken("t".into()))), MISMATCH, "spec.start"),
        (bad(|wish| wish.set_ack_mode(AckMode::Explicit)), MISMATCH, "spec.ack_mode"),
        (bad(|wish| wish.set_ack_mode(AckMode::Cumulative)), MISMATCH, "spec.ack_mode"),
        (bad(|wish| wish.expression = "true".into()), (Code::InvalidArgument, "INVALID_EXPRESSION"), "spec.expression"),
    ])
    .await;
}

#[tokio::test]
async fn unknown_values_and_numbers_out_of_range_are_refused() {
    check_wishes([
        (bad(|wish| wish.ack_mode = 99), MALFORMED, "spec.ack_mode"),
        (bad(|wish| wish.overflow = 99), MALFORMED, "spec.overflow"),
        (bad(|wish| wish.overflow = -1), MALFORMED, "spec.overflow"),
        (bad(|wish| wish.on_gap = 99), MALFORMED, "spec.on_gap"),
        (
            bad(|wish| wish.start = Some(StartPosition { position: Some(Position::Preset(99)) })),
            MALFORMED,
            "spec.start.preset",
        ),
        (bad(|wish| wish.credit = credit(-1, 0)), MALFORMED, "spec.credit.events"),
        (bad(|wish| wish.credit = credit(0, -1)), MALFORMED, "spec.credit.bytes"),
        (bad(|wish| wish.max_events = -1), MALFORMED, "spec.max_events"),
        (bad(|wish| wish.max_batch = -1), MALFORMED, "spec.max_batch"),
        (bad(|wish| wish.group = "a.b".into()), MALFORMED, "spec.group"),
        (bad(|wish| wish.group = "*".into()), MALFORMED, "spec.group"),
    ])
    .await;
}

#[tokio::test]
async fn an_ended_subscription_is_never_heard_of_again() {
    let mut bench = Bench::new().await;
    bench.session.subscribe(7, SubscriptionSpec { credit: credit(0, 0), ..spec(&["bench"]) }).await;
    bench.client.publish(publish(vec![event("bench", "waits")])).await.expect("published");
    bench.session.collect(&HashMap::from([(AUTOMATIC, 1), (EXPLICIT, 1)])).await;
    bench.session.send(0, Wire::Unsubscribe(Unsubscribe { subscription_id: 7 })).await;
    let Ended { subscription_id, .. } = bench.session.ended().await;
    assert_eq!(subscription_id, 7, "told although nobody asked to be told");
    bench.session.send(0, Wire::Subscribe(Subscribe { subscription_id: 8, spec: Some(spec(&["x..y"])) })).await;
    assert_eq!(bench.session.ended().await.subscription_id, 8);
    for _ in 0..3 {
        // Reads only the two subscriptions of the bench, and fails on any other frame.
        bench.goes_on().await;
    }
}

fn refused_events() -> Vec<(Event, (Code, &'static str), &'static str)> {
    let good = || event("bench", "never");
    let pair = HashMap::from([(String::new(), String::new())]);
    vec![
        (event("", "x"), BAD_TOPIC, "topic"),
        (event("a..b", "x"), BAD_TOPIC, "topic"),
        (event("bench.*", "x"), BAD_TOPIC, "topic"),
        (event("a b", "x"), BAD_TOPIC, "topic"),
        (event("b\u{e9}", "x"), BAD_TOPIC, "topic"),
        (Event { ttl: Some(prost_types::Duration::default()), attributes: pair, ..good() }, MALFORMED, "ttl"),
        (Event { time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), ..good() }, MALFORMED, "time"),
    ]
}

#[tokio::test]
async fn a_bad_event_is_refused_alone() {
    let mut bench = Bench::new().await;
    for (bad, expected, place) in refused_events() {
        let what = format!("{bad:?}");
        let batch = || publish(vec![event("bench", "first"), bad.clone(), event("bench", "last")]);
        let over_session = bench.session.publish(batch().events).await;
        let over_call = bench.client.publish(batch()).await.expect("some were accepted").into_inner();
        for response in [over_session, over_call] {
            let matched: Vec<i64> = response.results.iter().map(|result| result.matched).collect();
            assert_eq!(matched, [2, 0, 2], "{what}");
            assert!(response.results[0].status.is_none() && response.results[2].status.is_none());
            let status = response.results[1].status.as_ref().expect("a refusal");
            check_status(&what, status, (expected.0, expected.1, &format!("events[1].{place}")));
        }
        let got = bench.session.collect(&HashMap::from([(AUTOMATIC, 4), (EXPLICIT, 4)])).await;
        assert!(got.values().all(|texts| *texts == ["first", "last", "first", "last"]), "{got:?}");
        bench.goes_on().await;
    }
}

#[tokio::test]
async fn a_publish_of_only_bad_events_fails_with_the_first() {
    let mut bench = Bench::new().await;
    let batch = || publish(vec![event("a..b", "x"), event("c", "y".repeat(1024 * 1024))]);
    let status = bench.client.publish(batch()).await.expect_err("all were refused");
    check_status("all bad", &status_of(&status), (BAD_TOPIC.0, BAD_TOPIC.1, "events[0].topic"));
    let response = bench.session.publish(batch().events).await;
    let reasons: Vec<String> =
        response.results.iter().map(|result| reason(result.status.as_ref().expect("a refusal"))).collect();
    assert_eq!(reasons, ["INVALID_TOPIC", "EVENT_TOO_LARGE"], "a session tells of each");
    bench.goes_on().await;
}

#[tokio::test]
async fn a_frame_that_is_no_command_is_told_and_the_session_goes_on() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut call = connection.call(SESSION).await;
    assert!(matches!(call.frame().await.expect("a frame").expect("open").frame, Some(Frame::Welcome(_))));
    // Request id 6 and a command of number 99; a field that ends too early; a wire type that does not exist; a text
    // that is not UTF-8 (a ping's nonce); nothing at all.
    let strange: [(&[u8], i64); 5] = [
        (&[0x08, 6, 0x9a, 0x06, 1, 0], 6),
        (&[0x12, 200, 1], 0),
        (&[0xff, 0xff, 0xff], 0),
        (&[0x4a, 3, 0x0a, 1, 0xff], 0),
        (&[], 0),
    ];
    for (bytes, request_id) in strange {
        call.send(framed(bytes));
        call.send(command(7, Wire::Ping(Ping::default())));
        let frame = call.frame().await.expect("a frame").expect("open");
        let Some(Frame::Error(status)) = &frame.frame else { panic!("{bytes:?} got {frame:?}") };
        assert_eq!(frame.request_id, request_id, "{bytes:?}");
        check_status(&format!("{bytes:?}"), status, (MALFORMED.0, MALFORMED.1, ""));
        let frame = call.frame().await.expect("a frame").expect("open");
        assert!(matches!(frame.frame, Some(Frame::Pong(_))), "{bytes:?}: {frame:?}");
        witness.is_served().await;
    }
}

/// Broken framing ends the call with INVALID_ARGUMENT, its subscriptions before it, and nothing else.
async fn check_broken(bytes: Vec<u8>, half_close: bool, expected: (Code, &str)) {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    let mut other = connection.call(SESSION).await;
    let mut call = connection.call(SESSION).await;
    let what = format!("{:?}", &bytes[..bytes.len().min(8)]);
    call.send(command(1, Wire::Subscribe(Subscribe { subscription_id: 7, spec: Some(spec(&["a"])) })));
    call.send(bytes);
    if half_close {
        call.half_close();
    }
    let mut ended = 0;
    while let Some(frame) = call.frame().await.expect("the connection lives") {
        match frame.frame {
            Some(Frame::Ended(end)) => {
                ended += 1;
                check_status(&what, &end.status.expect("a status"), (expected.0, expected.1, ""));
            }
            Some(Frame::Welcome(_) | Frame::Subscribed(_)) => {}
            other => panic!("{what} got {other:?}"),
        }
    }
    assert_eq!(ended, 1, "{what}");
    let status = call.end_of_stream().await.expect("the connection lives").expect("a status");
    assert_eq!((status.code(), reason_of_call(&status).as_str()), expected, "{what}");

    other.send(command(1, Wire::Ping(Ping::default())));
    for _ in 0..2 {
        let frame = other.frame().await.expect("the connection lives").expect("open").frame;
        assert!(matches!(frame, Some(Frame::Welcome(_) | Frame::Pong(_))), "{what}: {frame:?}");
    }
    witness.is_served().await;
}

#[tokio::test]
async fn broken_framing_ends_one_call_and_nothing_else() {
    let over = 4 * 1024 * 1024 + 1_u32;
    // Too large, told by its prefix and then really sent; compressed without saying how; no known kind of message; torn.
    let [a, b, c, d] = over.to_be_bytes();
    check_broken(vec![0, a, b, c, d], false, TOO_LARGE).await;
    check_broken(framed(&vec![0; over as usize]), false, TOO_LARGE).await;
    check_broken(vec![1, 0, 0, 0, 1, 0], false, COMPRESSED).await;
    check_broken(vec![7, 0, 0, 0, 1, 0], false, MALFORMED).await;
    check_broken(vec![0, 0, 0, 0, 9, 1, 2], true, MALFORMED).await;
}

#[tokio::test]
async fn a_call_with_a_broken_request_fails_with_a_reason() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    let over = vec![0, 0xff, 0xff, 0xff, 0xff];
    for path in [PUBLISH, "/switchyard.v1.HubService/Subscribe"] {
        for (bytes, expected) in [
            (vec![], MALFORMED),
            (over.clone(), TOO_LARGE),
            (framed(&[0xff, 0xff]), MALFORMED),
            (vec![1, 0, 0, 0, 0], COMPRESSED),
            (vec![0, 0, 0, 0, 9, 1], MALFORMED),
        ] {
            let mut call = connection.call(path).await;
            call.send(bytes.clone());
            call.half_close();
            let (_, _, status) = call.end().await.expect("the connection lives");
            let status = status.expect("a status");
            assert_eq!((status.code(), reason_of_call(&status).as_str()), expected, "{path} {bytes:?}");
        }
    }
    witness.is_served().await;
}

#[tokio::test]
async fn requests_compressed_in_other_ways_are_refused_and_told_what_is_taken() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    let get_event = "/switchyard.v1.StreamService/GetEvent";
    for path in [SESSION, PUBLISH, "/switchyard.v1.HubService/Subscribe", get_event] {
        for encoding in ["deflate", "zstd", "unheard-of"] {
            let mut call = connection.call_with(path, &[("grpc-encoding", encoding)]).await;
            let (_, headers, status) = call.end().await.expect("the connection lives");
            assert_eq!(status.expect("a status").code(), Code::Unimplemented, "{path} {encoding}");
            assert_eq!(headers["grpc-accept-encoding"], "identity,gzip", "{path} {encoding}");
        }
    }
    let mut call = connection.call_with(SESSION, &[("grpc-encoding", "identity")]).await;
    assert!(matches!(call.frame().await.expect("a frame").expect("open").frame, Some(Frame::Welcome(_))));
    witness.is_served().await;
}

#[tokio::test]
async fn what_the_hub_does_not_serve_is_unimplemented() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    for path in [
        "/switchyard.v1.HubService/Nonsense",
        "/switchyard.v1.HubService/session",
        "/switchyard.v1.HubService/",
        "/switchyard.v1.HubService/other/Session",
        "/switchyard.v1.Nonsense/Session",
        "/Session",
        "/",
    ] {
        let mut call = connection.call(path).await;
        let (code, _, status) = call.end().await.expect("the connection lives");
        assert_eq!((code.as_u16(), status.expect("a status").code()), (200, Code::Unimplemented), "{path}");
    }
    witness.is_served().await;
}

#[tokio::test]
async fn an_unread_refusal_of_many_events_fits_the_frame_of_a_usual_client() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    // The longest refusal there is for an event this small.
    let bad = Event { content_type: "x".repeat(257), ..event("a", "") };
    let response = session.publish(vec![bad; 10_000]).await;
    assert!(response.results.iter().all(|result| result.status.is_some()));
    let bytes = response.encoded_len();
    assert!(bytes < 4 * 1024 * 1024, "{bytes} bytes, and gRPC clients take 4 MiB unless told otherwise");
}

#[tokio::test]
async fn a_client_that_says_nothing_useful_can_still_publish_and_subscribe() {
    let mut bench = Bench::new().await;
    for _ in 0..1_000 {
        bench.session.send(1, update(9, &["a"])).await;
        let (_, status) = soon("an error", bench.session.error()).await;
        assert_eq!(reason(&status), NOT_FOUND.1);
    }
    bench.session.subscribe(3, spec(&["after"])).await;
    let response = bench.session.publish(vec![event("after", "all")]).await;
    assert_eq!(response.results[0].matched, 1);
    assert_eq!(texts(&bench.session.events().await), ["all"]);
    bench.goes_on().await;
}
