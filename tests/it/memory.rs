//! Memory that clients make the hub keep: what is at a limit passes, one more is refused or waits, who caused it bears it,
//! and nothing is left of it in the end.
//!
//! Where a limit has to be reached by others, the test itself holds what they would: in the accountant of the hub.

use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use prost::Message;
use switchyard::{
    config::Config,
    engine::{Embedded, Engine},
    memory::{Held, Memory, Use},
    net,
    proto::v1::{
        CreateGroupRequest, Event, GetEventRequest, Group, SubscribeRequest, SubscriptionSpec, Unsubscribe, Update,
        get_event_request::Which, group_service_client::GroupServiceClient, session_request::Command as Wire,
        session_response::Frame,
    },
    server::{self, Ground, Server},
    tasks::Tasks,
    telemetry::Metrics,
};
use tonic::Code;

use crate::{
    harness::{Folder, Session, channel, client, config, event, publish, reason_of_call, soon, spec, until},
    http2::{Call, Http2, PUBLISH, SESSION, command, framed},
    stored::{create, from, preset, stream, streams},
    witness::{Witness, check_status, ping, status_of},
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GET_EVENT: &str = "/switchyard.v1.StreamService/GetEvent";
const QUOTA: (Code, &str) = (Code::ResourceExhausted, "QUOTA_EXCEEDED");

/// A hub with a stream `s` of `s.>`, and its accountant.
struct Place {
    hub: Server,
    memory: Arc<Memory>,
    /// What the stream itself takes, by its filters.
    definition_bytes: usize,
    _folder: Folder,
}

impl Place {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let (folder, mut config) = (Folder::new(), config());
        config.drain.spread_ms = 0;
        // The least that may be.
        config.memory.frames_bytes = 16 * MIB;
        config.memory.publishes_bytes = 16 * MIB;
        config.memory.responses_bytes = 8 * MIB;
        config.memory.filters_bytes = 8 * MIB;
        change(&mut config);
        let clients = net::listen(&config.listen, &config.connections).await.expect("a port");
        let (ops_listen, options) = (config.ops_listen.clone(), config.connections.clone());
        let operators = Box::pin(async move { net::listen(&ops_listen, &options).await });
        let memory = Arc::new(Memory::new(&config.memory));
        let (tasks, metrics, of_hub) = (Tasks::default(), Arc::new(Metrics::default()), Arc::clone(&memory));
        let opened = Embedded::open(folder.path(), &config.engine, &tasks, &metrics, &memory);
        let engine: Arc<dyn Engine> = Arc::new(opened.expect("a new store"));
        let engine = Box::pin(std::future::ready(Ok(Some(engine))));
        let ground = Ground {
            clients,
            edges: Vec::new(),
            operators,
            engine,
            auth: None,
            tls: None,
            metrics,
            memory: of_hub,
            tasks,
        };
        let hub = server::start_on(config, ground).await.expect("a hub starts");
        create(hub.address, stream("s", &["s.>"])).await;
        let definition_bytes = memory.held_bytes(Use::Filters);
        Self { hub, memory, definition_bytes, _folder: folder }
    }

    /// All of a use is held by others, with what may go beyond it.
    fn fill(&self, of: Use) -> Vec<Held> {
        let mut all: Vec<Held> = (0..2).map(|_| self.memory.client().nothing(of)).collect();
        for held in &mut all {
            let mut step = self.memory.limit_bytes(of);
            while step > 0 {
                if held.grow_again(step).is_err() {
                    step /= 2;
                }
            }
        }
        all[0].overdraw(1).expect("nobody else does");
        all
    }

    /// Nothing is held any more.
    async fn is_empty(&self, of: Use) {
        let stays = if of == Use::Filters { self.definition_bytes } else { 0 };
        until("nothing is held", async || self.memory.held_bytes(of) == stays).await;
    }
}

fn text_of(topic: &str, bytes: usize) -> Event {
    event(topic, "x".repeat(bytes))
}

/// A session on a connection by hand, which was welcomed.
async fn session_on(connection: &mut Http2, headers: &[(&str, &str)]) -> Call {
    let mut call = connection.call_with(SESSION, headers).await;
    assert!(matches!(next(&mut call).await, Frame::Welcome(_)));
    call
}

async fn next(call: &mut Call) -> Frame {
    loop {
        match call.frame().await.expect("the connection lives").expect("open").frame.expect("a known frame") {
            Frame::Heartbeat(_) => {}
            frame => return frame,
        }
    }
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, message).expect("memory");
    let mut out = framed(&encoder.finish().expect("memory"));
    out[0] = 1;
    out
}

#[tokio::test]
async fn frames_that_are_not_complete_are_a_matter_of_their_connection() {
    let place = Place::new(|_| {}).await;
    let mut witness = Witness::open(place.hub.address).await;
    let mut greedy = Http2::connect(place.hub.address).await;
    let mut beginning = command(1, Wire::Publish(publish(vec![text_of("a", MIB - KIB); 3])));
    beginning.truncate(2 * MIB);
    let mut calls = Vec::new();
    for _ in 0..6 {
        let mut call = session_on(&mut greedy, &[]).await;
        call.send(beginning.clone());
        calls.push(call);
    }
    // Its share is used up: all but one of them wait.
    until("it has its share", async || place.memory.refusals(Use::Frames) > 0).await;
    let mut session = Session::open(place.hub.address).await;
    assert_eq!(session.publish(vec![text_of("a", MIB / 2); 4]).await.results.len(), 4);
    client(place.hub.address).await.publish(publish(vec![text_of("a", MIB / 2); 4])).await.expect("published");
    witness.is_served().await;
    // One is more than its share: the one that may go on.
    assert!(place.memory.held_bytes(Use::Frames) <= 12 * MIB);
    drop((calls, greedy));
    place.is_empty(Use::Frames).await;
    ping(&mut session).await;
}

#[tokio::test]
async fn a_session_whose_frame_does_not_fit_waits_and_goes_on() {
    let place = Place::new(|config| config.sessions.frame_timeout_ms = 300).await;
    let others = place.fill(Use::Frames);
    let mut session = Session::open(place.hub.address).await;
    session.send(5, Wire::Publish(publish(vec![text_of("a", MIB / 2)]))).await;
    // A call waits as long as a frame may take, and longer than that the session has waited, too.
    let status = client(place.hub.address).await.publish(publish(vec![text_of("a", MIB / 2)])).await;
    check_status("a call", &status_of(&status.expect_err("no memory")), (QUOTA.0, QUOTA.1, ""));
    client(place.hub.address).await.publish(publish(vec![text_of("a", 30 * KIB)])).await.expect("a little always fits");
    drop(others);
    let frame = session.frame().await;
    assert!(matches!(frame.frame, Some(Frame::Published(_))) && frame.request_id == 5, "{frame:?}");
    place.is_empty(Use::Frames).await;
}

#[tokio::test]
async fn frames_that_wait_for_each_other_all_come_through() {
    let place = Place::new(|_| {}).await;
    // More than fits, of as many connections; each has room for a half, and none for the whole.
    let mut calls = Vec::new();
    let whole = command(7, Wire::Publish(publish(vec![text_of("a", MIB - KIB); 4])));
    for _ in 0..8 {
        let mut connection = Http2::connect(place.hub.address).await;
        let mut call = session_on(&mut connection, &[]).await;
        call.send(whole[..whole.len() - 1].to_vec());
        calls.push((call, connection));
    }
    for (call, _) in &mut calls {
        call.send(whole[whole.len() - 1..].to_vec());
    }
    for (call, _) in &mut calls {
        assert!(matches!(soon("an answer", next(call)).await, Frame::Published(_)));
    }
    place.is_empty(Use::Frames).await;
}

#[tokio::test]
async fn publishes_that_wait_to_be_stored_hold_up_nobody_else() {
    let place = Place::new(|config| config.sessions.frame_timeout_ms = 300).await;
    let others = place.fill(Use::Publishes);
    // The large one is seen to be one before it has come as a whole.
    let mut large = Session::open(place.hub.address).await;
    large.send(5, Wire::Publish(publish(vec![text_of("s.x", MIB / 2); 4]))).await;
    let mut small = Session::open(place.hub.address).await;
    small.send(6, Wire::Publish(publish(vec![event("s.x", "x"); 300]))).await;
    let mut hub = client(place.hub.address).await;
    for (bytes, count) in [(0, 300), (KIB, 100), (MIB / 2, 2)] {
        let status = hub.publish(publish(vec![text_of("s.x", bytes); count])).await;
        check_status("a call", &status_of(&status.expect_err("no memory")), (QUOTA.0, QUOTA.1, ""));
    }
    hub.publish(publish(vec![event("s.x", "x")])).await.expect("a little always fits");
    // What no stream keeps waits for no disk.
    let mut live = Session::open(place.hub.address).await;
    assert_eq!(live.publish(vec![text_of("a", MIB / 2); 7]).await.results.len(), 7);
    hub.publish(publish(vec![text_of("a", MIB / 2); 7])).await.expect("published");
    assert!(place.memory.held_bytes(Use::Frames) <= 128 * KIB, "what waits has not come yet");
    drop(others);
    for (session, request_id, results) in [(&mut large, 5, 4), (&mut small, 6, 300)] {
        let frame = session.frame().await;
        let Some(Frame::Published(published)) = frame.frame else { panic!("{frame:?}") };
        assert_eq!((frame.request_id, published.results.len()), (request_id, results));
        assert!(published.results.iter().all(|result| result.status.is_none() && result.sequence > 0));
    }
    drop((large, small, live, hub));
    place.is_empty(Use::Publishes).await;
    place.is_empty(Use::Frames).await;
}

#[tokio::test]
async fn responses_that_nobody_reads_are_a_matter_of_their_connection() {
    let place = Place::new(|_| {}).await;
    let mut witness = Witness::open(place.hub.address).await;
    client(place.hub.address).await.publish(publish(vec![text_of("s.x", MIB - KIB)])).await.expect("stored");
    let asked = GetEventRequest { stream: "s".into(), which: Some(Which::Sequence(1)) };
    let windowless = h2::client::Builder::new().initial_window_size(0).clone();
    let mut greedy = Http2::connect_with(&windowless, place.hub.address).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let mut call = greedy.call(GET_EVENT).await;
        call.send(framed(&asked.encode_to_vec()));
        call.half_close();
        calls.push(call);
    }
    // A refusal has no body, so it is heard.
    until("it has its share", async || place.memory.refusals(Use::Responses) >= 16).await;
    let mut refused = 0;
    for call in &mut calls {
        let headers = call.headers().await.expect("the connection lives").headers;
        refused += usize::from(headers.contains_key("grpc-status"));
    }
    assert!((16..20).contains(&refused), "{refused} of 20 are refused");
    assert!(place.memory.held_bytes(Use::Responses) <= 4 * MIB);
    let mut others = streams(place.hub.address).await;
    others.get_event(asked.clone()).await.expect("another connection has its own share");
    witness.is_served().await;
    drop((calls, greedy, others));
    place.is_empty(Use::Responses).await;
}

#[tokio::test]
async fn a_response_that_does_not_fit_is_a_refusal() {
    let place = Place::new(|config| config.sessions.frame_timeout_ms = 300).await;
    let mut hub = client(place.hub.address).await;
    hub.publish(publish(vec![text_of("s.x", MIB / 2), event("s.x", "small")])).await.expect("stored");
    let others = place.fill(Use::Responses);
    let get = |sequence| GetEventRequest { stream: "s".into(), which: Some(Which::Sequence(sequence)) };
    let mut calls = streams(place.hub.address).await;
    let status = calls.get_event(get(1)).await.expect_err("no memory");
    check_status("a large one", &status_of(&status), (QUOTA.0, QUOTA.1, ""));
    calls.get_event(get(2)).await.expect("a little always fits");
    // Refused before anything is published: 1,000 results are more than a little.
    let status = hub.publish(publish(vec![event("s.x", "never"); 1_000])).await.expect_err("no memory");
    assert_eq!((status.code(), reason_of_call(&status).as_str()), QUOTA);
    drop(others);
    assert_eq!(crate::stored::state(place.hub.address, "s").await.latest_sequence, 2);
    drop((hub, calls));
    place.is_empty(Use::Responses).await;
}

/// Subscribes until it is refused, and tells how often it was not.
async fn fill_with(session: &mut Session, wish: impl Fn(usize) -> SubscriptionSpec) -> usize {
    for count in 0.. {
        let subscribe = switchyard::proto::v1::Subscribe { subscription_id: 0, spec: Some(wish(count)) };
        session.send(1, Wire::Subscribe(subscribe)).await;
        loop {
            match session.frame().await.frame.expect("a frame") {
                Frame::Subscribed(_) => break,
                Frame::Ended(ended) => {
                    check_status("one more", &ended.status.expect("a status"), (QUOTA.0, QUOTA.1, ""));
                    return count;
                }
                Frame::Heartbeat(_) | Frame::Progress(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    0
}

#[tokio::test]
async fn filters_count_in_bytes_whatever_reads_by_them() {
    let place = Place::new(|_| {}).await;
    let create = CreateGroupRequest {
        group: Some(Group { stream: "s".into(), name: "g".into(), ..Group::default() }),
        start: preset(switchyard::proto::v1::StartPreset::Earliest),
    };
    GroupServiceClient::new(channel(place.hub.address).await).create_group(create).await.expect("created");
    let long = |n: usize| SubscriptionSpec {
        filters: (0..256).map(|m| format!("s.{n:04}.{m:04}.{}", "x".repeat(240))).collect(),
        ..spec(&[])
    };
    let live = |n| long(n);
    let stored = |n| SubscriptionSpec { stream: "s".into(), ..long(n) };
    let member = |_| SubscriptionSpec { group: "g".into(), ..from("s", None) };
    let member = |n| SubscriptionSpec { filters: long(0).filters, ..member(n) };
    let kinds: [(&str, &dyn Fn(usize) -> SubscriptionSpec); 3] =
        [("live", &live), ("stored", &stored), ("members", &member)];
    for (kind, wish) in kinds {
        let mut other = Session::open(place.hub.address).await;
        let mut greedy = Session::open(place.hub.address).await;
        let count = fill_with(&mut greedy, wish).await;
        let held = place.memory.held_bytes(Use::Filters);
        assert!(held <= 4 * MIB && held + MIB > 4 * MIB, "{kind}: {held} bytes");
        // More than what their texts alone take, and not much more.
        let texts = 256 * 252 * count;
        assert!((texts..5 * texts).contains(&held), "{kind}: {held} bytes of {count} with {texts} bytes of text");
        other.subscribe(1, wish(0)).await;
        client(place.hub.address).await.subscribe(SubscribeRequest { spec: Some(live(1)) }).await.expect("subscribed");
        drop((greedy, other));
        place.is_empty(Use::Filters).await;
    }
}

#[tokio::test]
async fn an_update_costs_the_difference() {
    let place = Place::new(|_| {}).await;
    for from_stream in ["", "s"] {
        let mut session = Session::open(place.hub.address).await;
        session.subscribe(1, SubscriptionSpec { stream: from_stream.into(), ..spec(&["s.a"]) }).await;
        let small = place.memory.held_bytes(Use::Filters);
        let many: Vec<String> = (0..256).map(|n| format!("s.{n}.{}", "x".repeat(200))).collect();
        let update = |filters| Wire::Update(Update { subscription_id: 1, filters, expression: String::new() });
        session.send(2, update(many.clone())).await;
        while !matches!(session.frame().await.frame, Some(Frame::Subscribed(_))) {}
        assert!(place.memory.held_bytes(Use::Filters) > small + 256 * 200);
        session.send(2, update(vec!["s.b".into()])).await;
        until("the old ones cost nothing", async || place.memory.held_bytes(Use::Filters) == small).await;
        while !matches!(session.frame().await.frame, Some(Frame::Subscribed(_))) {}
        let others = place.fill(Use::Filters);
        session.send(3, update(many)).await;
        let status = loop {
            match session.frame().await.frame.expect("a frame") {
                Frame::Error(status) => break status,
                Frame::Progress(_) | Frame::Heartbeat(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        };
        check_status("an update", &status, (QUOTA.0, QUOTA.1, ""));
        drop(others);
        assert_eq!(place.memory.held_bytes(Use::Filters), small);
        session.send(0, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await;
        while !matches!(session.frame().await.frame, Some(Frame::Ended(_))) {}
        assert_eq!(place.memory.held_bytes(Use::Filters), place.definition_bytes);
    }
}

#[tokio::test]
async fn requests_may_be_compressed_with_gzip() {
    let place = Place::new(|_| {}).await;
    let mut witness = Witness::open(place.hub.address).await;
    let mut connection = Http2::connect(place.hub.address).await;
    let headers = [("grpc-encoding", "gzip")];
    let mut call = session_on(&mut connection, &headers).await;
    let of =
        |events| switchyard::proto::v1::SessionRequest { request_id: 9, command: Some(Wire::Publish(publish(events))) };
    // Small and large, compressed and not, in one session.
    for events in [vec![event("a", "x")], vec![text_of("a", MIB - KIB); 3], vec![text_of("s.x", MIB / 2); 2]] {
        call.send(gzip(&of(events.clone()).encode_to_vec()));
        let Frame::Published(published) = soon("an answer", next(&mut call)).await else { panic!("not published") };
        assert_eq!(published.results.len(), events.len());
    }
    call.send(framed(&of(vec![event("a", "plain")]).encode_to_vec()));
    assert!(matches!(next(&mut call).await, Frame::Published(_)));
    let get = GetEventRequest { stream: "s".into(), which: Some(Which::Sequence(1)) }.encode_to_vec();
    for (path, message) in [(PUBLISH, publish(vec![event("a", "x")]).encode_to_vec()), (GET_EVENT, get)] {
        let mut call = connection.call_with(path, &headers).await;
        call.send(gzip(&message));
        call.half_close();
        assert_eq!(call.status().await.code(), Code::Ok, "{path}");
    }
    // One that unpacks to more than a frame may have, one that is damaged, and one that does not say how.
    let bomb = gzip(&vec![0; 4 * MIB + 1]);
    assert!(bomb.len() < 64 * KIB);
    let mut damaged = gzip(&publish(vec![text_of("a", KIB)]).encode_to_vec());
    damaged[20] ^= 0xff;
    for path in [SESSION, PUBLISH, GET_EVENT] {
        for (headers, bytes, code) in [
            (&headers[..], &bomb, Code::ResourceExhausted),
            (&headers, &damaged, Code::Internal),
            (&[], &damaged, Code::Internal),
        ] {
            let mut call = connection.call_with(path, headers).await;
            call.send(bytes.clone());
            call.half_close();
            let status = call.status().await;
            assert_eq!(status.code(), code, "{path}: {status}");
        }
    }
    witness.is_served().await;
    place.is_empty(Use::Frames).await;
    place.is_empty(Use::Publishes).await;
}
