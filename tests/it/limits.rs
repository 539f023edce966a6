//! Every limit a client can reach: what is just at it passes, one more is refused, and nothing else suffers.

use std::collections::HashMap;

use prost::Message;
use switchyard::proto::v1::{
    AddCredit, Event, Events, Hello, OverflowPolicy, Ping, ReceivedEvent, Subscribe, SubscribeRequest,
    SubscriptionSpec, Unsubscribe, Update, session_request::Command as Wire, session_response::Frame,
};
use tonic::Code;

use crate::{
    harness::{
        Session, client, credit, event, hub, hub_with, metric, publish, reason_of_call, soon, spec, texts, until,
    },
    http2::{ACK, HEADERS, Http2, Manual, PING, RST_STREAM, SESSION, SETTINGS, command, frame},
    witness::{AUTOMATIC, Bench, EXPLICIT, Witness, check_status, ping, status_of},
};

const MIB: usize = 1024 * 1024;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// One filter more than these many, none of which matches anything else in this file.
fn filters(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("limits.filter.{n}")).collect()
}

#[tokio::test]
async fn the_nonce_of_a_ping() {
    let mut bench = Bench::new().await;
    let with = |nonce| Wire::Ping(Ping { nonce });
    bench.check_passes(with(long(64)), |frame| matches!(frame, Frame::Pong(pong) if pong.nonce.len() == 64)).await;
    bench.check_error(with(long(65)), (Code::InvalidArgument, "MALFORMED_COMMAND", "ping.nonce")).await;
}

#[tokio::test]
async fn what_hello_holds() {
    let hub = hub().await;
    let labels = |count: usize, bytes: usize| -> HashMap<String, String> {
        // Names of four bytes; the first value fills up to the sum.
        let value = |n: usize| if n == 0 { long(bytes - 4 * count) } else { String::new() };
        (0..count).map(|n| (format!("n{n:03}"), value(n))).collect()
    };
    let name = |client_name| Hello { client_name, ..Hello::default() };
    let previous = |previous_session_id| Hello { previous_session_id, ..Hello::default() };
    let with = |labels| Hello { labels, ..Hello::default() };
    for (hello, refused) in [
        (name(long(256)), None),
        (name(long(257)), Some("hello.client_name")),
        (previous(long(64)), None),
        (previous(long(65)), Some("hello.previous_session_id")),
        (with(labels(32, 128)), None),
        (with(labels(33, 132)), Some("hello.labels")),
        (with(labels(32, 4096)), None),
        (with(labels(32, 4097)), Some("hello.labels")),
    ] {
        let mut session = Session::open(hub.address).await;
        session.send(1, Wire::Hello(hello)).await;
        if let Some(field) = refused {
            let (_, status) = session.error().await;
            check_status(field, &status, (Code::InvalidArgument, "MALFORMED_COMMAND", field));
        }
        ping(&mut session).await;
    }
}

/// A wish passes over a session and as a call of its own, or is refused by both.
async fn check_wish(bench: &mut Bench, wish: SubscriptionSpec, refused: Option<(&str, &str)>) {
    let what = format!("{wish:?}").chars().take(200).collect::<String>();
    let subscribe = Wire::Subscribe(Subscribe { subscription_id: 7, spec: Some(wish.clone()) });
    bench.session.send(5, subscribe).await;
    let frame = bench.session.frame().await.frame;
    match (refused, frame) {
        (None, Some(Frame::Subscribed(_))) => {
            bench.session.send(0, Wire::Unsubscribe(Unsubscribe { subscription_id: 7 })).await;
            bench.session.ended().await;
        }
        (Some((reason, field)), Some(Frame::Ended(ended))) => {
            let field = format!("subscribe.{field}");
            check_status(&what, &ended.status.expect("a status"), (Code::InvalidArgument, reason, &field));
        }
        (_, other) => panic!("{what} got {other:?}"),
    }
    match (refused, bench.client.subscribe(SubscribeRequest { spec: Some(wish) }).await) {
        (None, Ok(_)) => {}
        (Some((reason, field)), Err(status)) => {
            check_status(&what, &status_of(&status), (Code::InvalidArgument, reason, field));
        }
        (_, other) => panic!("{what} got {other:?}"),
    }
    bench.goes_on().await;
}

#[tokio::test]
async fn what_a_wish_holds() {
    let mut bench = Bench::new().await;
    let malformed = |field| Some(("MALFORMED_COMMAND", field));
    let bad_filter = Some(("INVALID_FILTER", "spec.filters[0]"));
    let tokens = |count| vec!["t"; count].join(".");
    for (wish, refused) in [
        (SubscriptionSpec { filters: filters(256), ..spec(&[]) }, None),
        (SubscriptionSpec { filters: filters(257), ..spec(&[]) }, malformed("spec.filters")),
        (spec(&[&long(256)]), None),
        (spec(&[&long(257)]), bad_filter),
        (spec(&[&tokens(32)]), None),
        (spec(&[&tokens(33)]), bad_filter),
        (SubscriptionSpec { group: long(64), ..spec(&["a"]) }, None),
        (SubscriptionSpec { group: long(65), ..spec(&["a"]) }, malformed("spec.group")),
        (SubscriptionSpec { max_batch: 10_000, ..spec(&["a"]) }, None),
        (SubscriptionSpec { max_batch: 10_001, ..spec(&["a"]) }, malformed("spec.max_batch")),
        (SubscriptionSpec { max_events: i64::MAX, ..spec(&["a"]) }, None),
        (SubscriptionSpec { credit: credit(i64::MAX, i64::MAX), ..spec(&["a"]) }, None),
    ] {
        check_wish(&mut bench, wish, refused).await;
    }
}

#[tokio::test]
async fn the_filters_of_an_update() {
    let mut bench = Bench::new().await;
    let with = |mut filters: Vec<String>| {
        filters[0] = "bench".into();
        Wire::Update(Update { subscription_id: AUTOMATIC, filters, expression: String::new() })
    };
    bench.check_passes(with(filters(256)), |frame| matches!(frame, Frame::Subscribed(_))).await;
    let expected = (Code::InvalidArgument, "MALFORMED_COMMAND", "update.filters");
    bench.check_error(with(filters(257)), expected).await;
}

#[tokio::test]
async fn credit_given_without_end_stays_credit() {
    let mut bench = Bench::new().await;
    for _ in 0..3 {
        let most = AddCredit { subscription_id: EXPLICIT, credit: credit(i64::MAX, i64::MAX) };
        bench.session.send(0, Wire::Credit(most)).await;
        bench.goes_on().await;
    }
}

/// One event of a publish passes, or is refused, over a session and as a call.
async fn check_event(bench: &mut Bench, event: Event, refused: Option<(&str, &str)>) {
    let what = format!("{event:?}").chars().take(200).collect::<String>();
    let over_session = bench.session.publish(vec![event.clone()]).await;
    let status = over_session.results[0].status.clone();
    let over_call = bench.client.publish(publish(vec![event])).await;
    match (refused, status, over_call) {
        (None, None, Ok(_)) => {}
        (Some((reason, field)), Some(status), Err(call)) => {
            let field = format!("events[0]{field}");
            check_status(&what, &status, (Code::InvalidArgument, reason, &field));
            check_status(&what, &status_of(&call), (Code::InvalidArgument, reason, &field));
        }
        (_, status, call) => panic!("{what} got {status:?} and {call:?}"),
    }
}

#[tokio::test]
async fn what_an_event_holds() {
    let mut bench = Bench::new().await;
    let with = |change: &dyn Fn(&mut Event)| {
        let mut event = event("limits", "x");
        change(&mut event);
        event
    };
    let pairs = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect::<HashMap<_, _>>();
    let malformed = |field| Some(("MALFORMED_COMMAND", field));
    let topic = Some(("INVALID_TOPIC", ".topic"));
    for (event, refused) in [
        (event(&long(256), "x"), None),
        (event(&long(257), "x"), topic),
        (event(&vec!["t"; 32].join("."), "x"), None),
        (event(&vec!["t"; 33].join("."), "x"), topic),
        (with(&|event| event.id = long(256)), None),
        (with(&|event| event.id = long(257)), malformed(".id")),
        (with(&|event| event.r#type = long(256)), None),
        (with(&|event| event.r#type = long(257)), malformed(".type")),
        (with(&|event| event.source = long(256)), None),
        (with(&|event| event.source = long(257)), malformed(".source")),
        (with(&|event| event.key = long(256)), None),
        (with(&|event| event.key = long(257)), malformed(".key")),
        (with(&|event| event.content_type = long(256)), None),
        (with(&|event| event.content_type = long(257)), malformed(".content_type")),
        (with(&|event| event.attributes = pairs(64)), None),
        (with(&|event| event.attributes = pairs(65)), malformed(".attributes")),
    ] {
        check_event(&mut bench, event, refused).await;
    }
    bench.goes_on().await;
}

/// An event of exactly this many encoded bytes.
fn event_of(bytes: usize) -> Event {
    let mut sized = event("limits", long(bytes));
    let over = sized.encoded_len() - bytes;
    sized = event("limits", long(bytes - over));
    // The length of the text may have become shorter by one, too.
    let under = bytes - sized.encoded_len();
    sized = event("limits", long(bytes - over + under));
    assert_eq!(sized.encoded_len(), bytes);
    sized
}

#[tokio::test]
async fn the_size_of_an_event() {
    for (limit, mut bench) in
        [(MIB, Bench::new().await), (1_000, Bench::with(|config| config.sessions.max_event_bytes = 1_000).await)]
    {
        check_event(&mut bench, event_of(limit), None).await;
        check_event(&mut bench, event_of(limit + 1), Some(("EVENT_TOO_LARGE", ""))).await;
        // What passes also arrives.
        bench.session.subscribe(7, spec(&["limits"])).await;
        assert_eq!(bench.session.publish(vec![event_of(limit)]).await.results[0].matched, 1);
        assert_eq!(bench.session.events().await.events.len(), 1);
        bench.goes_on().await;
    }
}

#[tokio::test]
async fn the_events_of_a_publish() {
    let mut bench = Bench::new().await;
    let events = |count| publish(vec![event("limits", ""); count]);
    bench
        .check_passes(Wire::Publish(events(10_000)), |f| matches!(f, Frame::Published(p) if p.results.len() == 10_000))
        .await;
    let expected = |field| (Code::InvalidArgument, "MALFORMED_COMMAND", field);
    bench.check_error(Wire::Publish(events(10_001)), expected("publish.events")).await;
    bench.client.publish(events(10_000)).await.expect("published");
    let status = bench.client.publish(events(10_001)).await.expect_err("one too many");
    check_status("publish", &status_of(&status), expected("events"));
}

/// A publish whose frame is exactly this many bytes.
fn frame_of(bytes: usize) -> Wire {
    let with = |last: usize| {
        let mut events = vec![event("limits", long(MIB - 100)); 3];
        events.push(event("limits", long(last)));
        Wire::Publish(publish(events))
    };
    let room = bytes - (command(1, with(0)).len() - 5);
    // The lengths before the text take some of it.
    let fits = (room - 16..room).find(|last| command(1, with(*last)).len() - 5 == bytes).expect("a size that fits");
    with(fits)
}

#[tokio::test]
async fn the_size_of_a_frame() {
    let hub = hub().await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Http2::connect(hub.address).await;
    for (bytes, passes) in [(4 * MIB, true), (4 * MIB + 1, false)] {
        let mut call = connection.call(SESSION).await;
        assert!(matches!(call.frame().await.expect("open").expect("a frame").frame, Some(Frame::Welcome(_))));
        call.send(command(1, frame_of(bytes)));
        let frame = call.frame().await.expect("the connection lives");
        assert_eq!(matches!(frame.and_then(|f| f.frame), Some(Frame::Published(_))), passes, "{bytes}");
        if !passes {
            let status = call.end_of_stream().await.expect("the connection lives").expect("a status");
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert_eq!(reason_of_call(&status), "EVENT_TOO_LARGE");
            assert!(status.message().contains("4194304"), "{}", status.message());
        }
    }
    witness.is_served().await;
}

#[tokio::test]
async fn the_subscriptions_of_a_session() {
    let mut bench = Bench::with(|config| config.sessions.max_subscriptions = 4).await;
    bench.session.subscribe(3, spec(&["a"])).await;
    bench.session.subscribe(4, spec(&["a"])).await;
    for id in [5, 0] {
        let one_more = Subscribe { subscription_id: id, spec: Some(spec(&["a"])) };
        bench.session.send(9, Wire::Subscribe(one_more)).await;
        let ended = bench.session.ended().await;
        assert!(ended.subscription_id > 4);
        let expected = (Code::ResourceExhausted, "TOO_MANY_SUBSCRIPTIONS", "");
        check_status("one more", &ended.status.expect("a status"), expected);
        bench.goes_on().await;
    }
    bench.session.send(0, Wire::Unsubscribe(Unsubscribe { subscription_id: 3 })).await;
    bench.session.ended().await;
    bench.session.subscribe(5, spec(&["a"])).await;
    bench.goes_on().await;
    let mut other = Session::open(bench.hub.address).await;
    other.subscribe(1, spec(&["a"])).await;
}

#[tokio::test]
async fn the_sessions_of_a_hub() {
    // One is the witness's.
    let hub = hub_with(|config| config.sessions.max = 3).await;
    let mut witness = Witness::open(hub.address).await;
    let first = Session::open(hub.address).await;
    let mut second = Session::open(hub.address).await;
    let mut client = client(hub.address).await;
    let one = SubscribeRequest { spec: Some(spec(&["a"])) };
    for status in [
        client.session(tokio_stream::empty()).await.expect_err("one too many"),
        client.subscribe(one.clone()).await.expect_err("one too many"),
    ] {
        assert_eq!((status.code(), reason_of_call(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_SESSIONS"));
        assert!(!status.message().contains("connection"), "it is the hub that is full: {}", status.message());
    }
    second.subscribe(1, spec(&["a"])).await;
    client.publish(publish(vec![event("a", "x")])).await.expect("a publish needs no session");
    assert_eq!(texts(&second.events().await), ["x"]);
    drop(first);
    until("there is room again", async || client.subscribe(one.clone()).await.is_ok()).await;
    witness.is_served().await;
}

/// With room for `room` tokens of filters besides those of the bench, that many pass and one more does not.
async fn check_filter_tokens(mut bench: Bench, room: usize) {
    let tokens = |count: usize| vec!["t"; count].join(".");
    bench.session.subscribe(7, spec(&[&tokens(room - 1), "one"])).await;
    let one_more = Subscribe { subscription_id: 8, spec: Some(spec(&["x"])) };
    bench.session.send(9, Wire::Subscribe(one_more)).await;
    let status = bench.session.ended().await.status.expect("a status");
    let expected = |field| (Code::ResourceExhausted, "QUOTA_EXCEEDED", field);
    check_status("subscribe", &status, expected("subscribe.spec.filters"));
    let filters = vec!["bench".to_owned(), "x".to_owned()];
    let update = Wire::Update(Update { subscription_id: AUTOMATIC, filters, expression: String::new() });
    bench.check_error(update, expected("update.filters")).await;
    bench.session.send(0, Wire::Unsubscribe(Unsubscribe { subscription_id: 7 })).await;
    bench.session.ended().await;
    bench.session.subscribe(8, spec(&[&tokens(room)])).await;
    bench.goes_on().await;
}

#[tokio::test]
async fn the_filter_tokens_of_a_session() {
    // Two subscriptions of the bench have one each.
    check_filter_tokens(Bench::with(|config| config.sessions.max_filter_tokens = 2 + 6).await, 6).await;
}

#[tokio::test]
async fn the_filter_tokens_of_a_hub() {
    // And one is the witness's.
    let bench = Bench::with(|config| config.sessions.hub_filter_tokens = 3 + 6).await;
    let mut client = bench.client.clone();
    let mut other = Session::open(bench.hub.address).await;
    other.subscribe(1, spec(&["a.b.c.d.e.f"])).await;
    let status = client.subscribe(SubscribeRequest { spec: Some(spec(&["x"])) }).await.expect_err("one too many");
    check_status("call", &status_of(&status), (Code::ResourceExhausted, "QUOTA_EXCEEDED", "spec.filters"));
    other.send(0, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await;
    other.ended().await;
    check_filter_tokens(bench, 6).await;
}

/// A session with subscriptions that have no credit yet.
async fn waiting(address: std::net::SocketAddr, topics: &[&str]) -> Session {
    let mut session = Session::open(address).await;
    for (topic, id) in topics.iter().zip(1..) {
        session.subscribe(id, SubscriptionSpec { credit: credit(0, 0), ..spec(&[topic]) }).await;
    }
    session
}

fn numbered(topic: &str, count: usize, bytes: usize) -> Vec<Event> {
    let text = |n: usize| format!("{n:08}{}", long(bytes));
    (0..count).map(|n| Event { id: format!("{n:08}"), ..event(topic, text(n)) }).collect()
}

/// Grants credit to a subscription and reads until `total` events of it are told: how many came, how many are lost.
async fn drained(session: &mut Session, subscription_id: i64, total: usize) -> (usize, usize) {
    let grant = AddCredit { subscription_id, credit: credit(1_000_000, 0) };
    session.send(0, Wire::Credit(grant)).await;
    let (mut came, mut lost) = (0, 0);
    while came + lost < total {
        match session.frame().await.frame {
            Some(Frame::Events(events)) if events.subscription_id == subscription_id => came += events.events.len(),
            Some(Frame::Gap(gap)) if gap.subscription_id == subscription_id => {
                lost += usize::try_from(gap.count).expect("a count");
            }
            Some(Frame::Heartbeat(_)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    ping(session).await;
    (came, lost)
}

#[tokio::test]
async fn the_events_that_wait_for_a_subscription() {
    let hub = hub_with(|config| config.sessions.queue_events = 10).await;
    let mut client = client(hub.address).await;
    for (count, lost) in [(9, 0), (10, 0), (11, 1), (25, 15)] {
        let mut session = waiting(hub.address, &["q"]).await;
        client.publish(publish(numbered("q", count, 0))).await.expect("published");
        assert_eq!(drained(&mut session, 1, count).await, (count - lost, lost));
    }
}

#[tokio::test]
async fn the_bytes_that_wait_for_a_subscription() {
    // What waits is an event as it is sent.
    let received = |event: Event| ReceivedEvent { event: Some(event), attempt: 1, ..ReceivedEvent::default() };
    let sent = |event| Events { events: vec![received(event)], ..Events::default() }.encoded_len();
    let each = sent(numbered("q", 1, 500).remove(0));
    let hub = hub_with(|config| config.sessions.queue_bytes = 10 * each).await;
    let mut client = client(hub.address).await;
    for (count, lost) in [(10, 0), (11, 1), (30, 20)] {
        let mut session = waiting(hub.address, &["q"]).await;
        client.publish(publish(numbered("q", count, 500))).await.expect("published");
        assert_eq!(drained(&mut session, 1, count).await, (count - lost, lost));
    }
    // One that is larger than all the room is kept as long as it is alone.
    let mut session = waiting(hub.address, &["q"]).await;
    client.publish(publish(numbered("q", 1, 20 * each))).await.expect("published");
    assert_eq!(drained(&mut session, 1, 1).await, (1, 0));
}

#[tokio::test]
async fn a_subscription_that_would_rather_end_ends_one_past_its_queue() {
    let hub = hub_with(|config| config.sessions.queue_events = 10).await;
    let mut session = Session::open(hub.address).await;
    let mut wish = SubscriptionSpec { credit: credit(0, 0), ..spec(&["q"]) };
    wish.set_overflow(OverflowPolicy::End);
    session.subscribe(1, wish).await;
    session.publish(numbered("q", 10, 0)).await;
    ping(&mut session).await;
    let mut client = client(hub.address).await;
    let response = client.publish(publish(numbered("q", 1, 0))).await.expect("published");
    assert_eq!(response.into_inner().results[0].matched, 0);
    assert!(matches!(session.frame().await.frame, Some(Frame::Gap(gap)) if gap.count == 11));
    let status = session.ended().await.status.expect("a status");
    check_status("ended", &status, (Code::ResourceExhausted, "SLOW_CONSUMER", ""));
    ping(&mut session).await;
}

#[tokio::test]
async fn a_full_session_sheds_its_largest_queue_and_no_small_one() {
    const BUDGET: usize = 200_000;
    let hub = hub_with(|config| config.sessions.session_queue_bytes = BUDGET).await;
    let mut witness = Witness::open(hub.address).await;
    let mut session = waiting(hub.address, &["small", "large", "middle"]).await;
    let mut client = client(hub.address).await;
    client.publish(publish(numbered("small", 10, 100))).await.expect("published");
    client.publish(publish(numbered("middle", 30, 1_000))).await.expect("published");
    assert!(metric(&hub, "switchyard_queue_bytes").await > 30_000);
    for _ in 0..10 {
        client.publish(publish(numbered("large", 100, 1_000))).await.expect("published");
        let waits = metric(&hub, "switchyard_queue_bytes").await as usize;
        assert!(waits <= BUDGET, "{waits} bytes wait");
    }
    assert_eq!(drained(&mut session, 1, 10).await, (10, 0));
    assert_eq!(drained(&mut session, 3, 30).await, (30, 0));
    let (came, lost) = drained(&mut session, 2, 1_000).await;
    assert!(came >= 50 && lost > 0, "{came} came, {lost} lost: the budget had room for more than half of it");
    witness.is_served().await;
}

#[tokio::test]
async fn a_full_hub_sheds_the_sessions_that_hold_most() {
    const BUDGET: usize = 400_000;
    let hub = hub_with(|config| config.sessions.hub_queue_bytes = BUDGET).await;
    let mut witness = Witness::open(hub.address).await;
    let mut modest = waiting(hub.address, &["modest"]).await;
    let mut greedy = [waiting(hub.address, &["greedy"]).await, waiting(hub.address, &["greedy"]).await];
    let mut client = client(hub.address).await;
    client.publish(publish(numbered("modest", 50, 1_000))).await.expect("published");
    for _ in 0..10 {
        client.publish(publish(numbered("greedy", 100, 1_000))).await.expect("published");
    }
    until("the hub keeps to its budget", async || metric(&hub, "switchyard_queue_bytes").await as usize <= BUDGET)
        .await;
    witness.is_served().await;
    assert_eq!(drained(&mut modest, 1, 50).await, (50, 0));
    for session in &mut greedy {
        let (came, lost) = drained(session, 1, 1_000).await;
        assert!(came > 0 && lost > 0, "{came} came, {lost} lost");
    }
}

#[tokio::test]
async fn an_event_for_which_a_session_has_no_room_is_a_gap() {
    let hub = hub_with(|config| config.sessions.session_queue_bytes = 2_000).await;
    let mut session = waiting(hub.address, &["q"]).await;
    client(hub.address).await.publish(publish(numbered("q", 1, 4_000))).await.expect("published");
    assert_eq!(soon("a gap", drained(&mut session, 1, 1)).await, (0, 1));
}

#[tokio::test]
async fn a_frame_of_events_ends_at_64_kib() {
    let hub = hub().await;
    let mut session = waiting(hub.address, &["q"]).await;
    client(hub.address).await.publish(publish(numbered("q", 200, 1_000))).await.expect("published");
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(200, 0) })).await;
    let (mut came, mut largest) = (0, 0);
    while came < 200 {
        let events = session.events().await;
        came += events.events.len();
        largest = largest.max(events.encoded_len());
    }
    assert!((8 * 1024..=64 * 1024 + 16).contains(&largest), "{largest}");
}

#[tokio::test]
async fn the_windows_and_streams_of_a_connection() {
    let hub = hub_with(|config| {
        config.connections.max_streams = 3;
        config.connections.stream_window_bytes = 100_000;
        config.connections.max_header_list_bytes = 9_000;
    })
    .await;
    let mut witness = Witness::open(hub.address).await;
    let mut connection = Manual::connect(hub.address, &[]).await;
    let told =
        connection.frame_where(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await.expect("settings");
    let told: HashMap<u16, u32> = told
        .payload
        .chunks(6)
        .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]])))
        .collect();
    assert_eq!((told[&3], told[&4], told[&6]), (3, 100_000, 9_000), "streams, window, header list");
    connection.send(&frame(SETTINGS, ACK, 0, &[])).await.expect("a live connection");
    for stream in [1, 3, 5, 7] {
        connection.begin(stream, SESSION).await.expect("a live connection");
    }
    let refused = connection.frame_where(|frame| frame.kind == RST_STREAM).await.expect("the connection lives");
    assert_eq!((refused.stream, refused.payload.as_slice()), (7, &REFUSED_STREAM[..]));
    connection.send(&frame(PING, 0, 0, &[9; 8])).await.expect("a live connection");
    connection.frame_where(|frame| frame.kind == PING && frame.flags & ACK != 0).await.expect("a live connection");
    assert_eq!(metric(&hub, "switchyard_open_sessions").await, 4, "three, and the witness");
    witness.is_served().await;
}

#[tokio::test]
async fn the_headers_of_a_call() {
    let hub = hub_with(|config| config.connections.max_header_list_bytes = 4_096).await;
    let mut connection = Http2::connect(hub.address).await;
    for (bytes, passes) in [(3_000, true), (4_097, false)] {
        let mut call = connection.call_with("/nowhere", &[("x-long", &long(bytes))]).await;
        let (code, _, _) = call.end().await.expect("the connection lives");
        assert_eq!(code.as_u16(), if passes { 200 } else { 431 }, "{bytes}");
    }
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_closed() {
    let hub = hub_with(|config| {
        config.connections.keepalive_interval_ms = 200;
        config.connections.keepalive_timeout_ms = 1_500;
    })
    .await;
    let mut witness = Witness::open(hub.address).await;
    let mut silent = Manual::connect(hub.address, &[]).await;
    silent.begin(1, SESSION).await.expect("a live connection");
    assert!(silent.frame_where(|frame| frame.kind == HEADERS).await.is_some());
    silent.until_closed().await;
    until("its session is over", async || metric(&hub, "switchyard_open_sessions").await == 1).await;
    // The witness answers pings, and lives on.
    witness.is_served().await;
}
