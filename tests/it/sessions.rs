//! What a hub shows of its sessions and subscriptions besides what operators saw of them before: labels, traffic, what each
//! subscription asked for, and what members of groups have. In pages that are limited in bytes.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use prost::Message;
use switchyard::{
    manage::MAX_PAGE_BYTES,
    model::limits::MAX_LABEL_BYTES,
    proto::v1::{
        GetSessionRequest, Hello, ListSessionsRequest, Session as Listed, Subscribe, SubscribeRequest,
        SubscriptionSpec, SubscriptionState, Update, session_request::Command as Wire, session_response::Frame,
        session_service_client::SessionServiceClient,
    },
};
use tonic::transport::Channel;

use crate::{
    auth_harness::{Guarded, bear, token},
    harness::{Folder, Session, channel, client, event, hub, hub_with, metric, reason, spec, until},
    stored::{create, from, hub_on, numbered, preset, store, stream},
    workplace::Place,
};

async fn service(address: SocketAddr) -> SessionServiceClient<Channel> {
    SessionServiceClient::new(channel(address).await)
}

async fn list(address: SocketAddr) -> Vec<Listed> {
    let request = ListSessionsRequest { page_size: 1000, ..ListSessionsRequest::default() };
    service(address).await.list_sessions(request).await.expect("listed").into_inner().sessions
}

/// The subscriptions of the only session that has any, by their ids.
async fn subscriptions(address: SocketAddr) -> HashMap<i64, SubscriptionState> {
    let mut found = HashMap::new();
    for session in list(address).await.into_iter().filter(|session| session.subscriptions > 0) {
        let request = GetSessionRequest { session_id: session.session_id, ..GetSessionRequest::default() };
        let page = service(address).await.get_session(request).await.expect("shown").into_inner();
        found.extend(page.subscriptions.into_iter().map(|one| (one.subscription_id, one)));
    }
    found
}

fn sorted(filters: &[String]) -> Vec<&str> {
    let mut filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    filters.sort_unstable();
    filters
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_session_is_shown_with_its_labels_and_its_traffic() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let given = labels(&[("app", "billing"), ("zone", "b")]);
    session.send(0, Wire::Hello(Hello { labels: given.clone(), ..Hello::default() })).await;
    session.subscribe(1, spec(&["a"])).await;
    let mut silent = Session::open(hub.address).await;
    silent.subscribe(1, spec(&["b"])).await;
    session.publish(vec![event("a", "1"), event("a", "2"), event("c", "3")]).await;
    session.collect(&HashMap::from([(1, 2)])).await;
    let listed = list(hub.address).await;
    assert_eq!(listed[0].labels, given);
    assert_eq!((listed[0].sent_events, listed[0].published_events), (2, 3));
    assert!(listed[0].sent_events_per_second > 0.0, "{:?}", listed[0]);
    assert!(listed[0].published_events_per_second > listed[0].sent_events_per_second, "{:?}", listed[0]);
    assert!(listed[1].labels.is_empty(), "{:?}", listed[1]);
    assert_eq!((listed[1].sent_events, listed[1].published_events), (0, 0));
    assert!(listed[1].sent_events_per_second.abs() < f64::EPSILON, "{:?}", listed[1]);
}

#[tokio::test]
async fn a_live_subscription_is_shown_with_what_it_asked_for() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(1, spec(&["orders.*.created", "orders.eu.>", "orders.eu.>", "x"])).await;
    session.subscribe(2, SubscriptionSpec { group: "workers".into(), max_events: 5, ..spec(&["a.b"]) }).await;
    session.publish(vec![event("x", "1"), event("a.b", "2"), event("x", "3")]).await;
    session.collect(&HashMap::from([(1, 2), (2, 1)])).await;
    let shown = subscriptions(hub.address).await;
    assert_eq!(sorted(&shown[&1].filters), ["orders.*.created", "orders.eu.>", "x"]);
    assert_eq!((shown[&1].stream.as_str(), shown[&1].group.as_str(), shown[&1].unacked), ("", "", None));
    assert_eq!((shown[&1].sent_events, shown[&1].events_left), (Some(2), None));
    assert_eq!((sorted(&shown[&2].filters), shown[&2].group.as_str()), (vec!["a.b"], "workers"));
    assert_eq!((shown[&2].sent_events, shown[&2].events_left), (None, Some(4)));
    let filters = vec!["y.*".to_owned()];
    session.send(0, Wire::Update(Update { subscription_id: 1, filters, expression: String::new() })).await;
    assert!(matches!(session.frame().await.frame, Some(Frame::Subscribed(_))));
    assert_eq!(subscriptions(hub.address).await[&1].filters, ["y.*"]);
}

#[tokio::test]
async fn a_subscription_from_a_stream_is_shown_with_what_it_asked_for() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["a.>"])).await;
    store(hub.address, numbered("a.b", 0..3)).await;
    let mut session = Session::open(hub.address).await;
    let earliest = || preset(switchyard::proto::v1::StartPreset::Earliest);
    session.subscribe(1, SubscriptionSpec { filters: vec!["a.b".into()], ..from("s", earliest()) }).await;
    assert_eq!(session.events().await.events.len(), 3);
    let spec = Some(from("s", preset(switchyard::proto::v1::StartPreset::New)));
    session.send(2, Wire::Subscribe(Subscribe { subscription_id: 2, spec })).await;
    while session.frame().await.request_id != 2 {}
    let shown = subscriptions(hub.address).await;
    assert_eq!((shown[&1].stream.as_str(), shown[&1].filters.as_slice()), ("s", &["a.b".to_owned()][..]));
    assert_eq!((shown[&1].sequence, shown[&1].sent_events), (3, Some(3)));
    assert!(shown[&2].filters.is_empty() && !shown[&2].group_member, "{:?}", shown[&2]);
    let filters = vec!["a.c".to_owned()];
    session.send(0, Wire::Update(Update { subscription_id: 1, filters, expression: String::new() })).await;
    until("it has others", async || subscriptions(hub.address).await[&1].filters == ["a.c"]).await;
}

#[tokio::test]
async fn a_member_is_shown_with_its_group_and_what_it_has() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["1", "2", "3"]).await;
    let mut worker = place.member_with(|spec| spec.filters = vec!["jobs.a".into()]).await;
    let first = worker.event().await;
    let shown = async || subscriptions(place.server.address).await[&1].clone();
    until("all are with it", async || shown().await.unacked == Some(3)).await;
    let one = shown().await;
    assert_eq!((one.stream.as_str(), one.group.as_str(), one.group_member), ("jobs", "g", true));
    assert_eq!((one.filters.as_slice(), one.sent_events), (&["jobs.a".to_owned()][..], Some(3)));
    worker.ack(&[first.sequence]).await;
    assert_eq!(shown().await.unacked, Some(2));
}

#[tokio::test]
async fn pages_of_sessions_are_limited_in_bytes() {
    const SESSIONS: usize = 300;
    let hub = hub().await;
    let mut open = Vec::new();
    let mut client = client(hub.address).await;
    for n in 0..SESSIONS {
        let mut session = Session::open_on(&mut client).await;
        let given = labels(&[("n", &format!("{n:04}{}", "x".repeat(MAX_LABEL_BYTES - 5)))]);
        session.send(1, Wire::Hello(Hello { labels: given, ..Hello::default() })).await;
        session.subscribe(1, spec(&["a"])).await;
        open.push(session);
    }
    let (mut service, mut seen, mut page_token) = (service(hub.address).await, Vec::new(), String::new());
    let mut before: Option<(usize, usize)> = None;
    loop {
        let request = ListSessionsRequest { page_size: 1000, page_token };
        let page = service.list_sessions(request).await.expect("a page").into_inner();
        let sizes: Vec<usize> = page.sessions.iter().map(Message::encoded_len).collect();
        let bytes = sizes.iter().sum::<usize>();
        assert!(bytes <= MAX_PAGE_BYTES, "{bytes}");
        if let Some((before, sessions)) = before {
            assert!(before + sizes[0] > MAX_PAGE_BYTES, "one more would have fitted on the page of {sessions}");
        }
        before = Some((bytes, sizes.len()));
        seen.extend(page.sessions.into_iter().map(|session| session.session_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((seen.len(), seen.iter().collect::<HashSet<_>>().len()), (SESSIONS, SESSIONS));
    assert!(before.is_some_and(|(_, sessions)| sessions < SESSIONS), "it was one page");
}

#[tokio::test]
async fn pages_of_subscriptions_are_limited_in_bytes() {
    const SUBSCRIPTIONS: i64 = 40;
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    for id in 1..=SUBSCRIPTIONS {
        let filters = (0..256).map(|n| format!("s{id}.n{n}.{}", "x".repeat(240))).collect();
        session.subscribe(id, SubscriptionSpec { filters, ..SubscriptionSpec::default() }).await;
    }
    let session_id = list(hub.address).await[0].session_id.clone();
    let (mut service, mut seen, mut page_token) = (service(hub.address).await, HashSet::new(), String::new());
    let mut pages = 0;
    loop {
        let request = GetSessionRequest { session_id: session_id.clone(), page_size: 1000, page_token };
        let page = service.get_session(request).await.expect("a page").into_inner();
        let bytes: usize = page.subscriptions.iter().map(Message::encoded_len).sum();
        let one = page.subscriptions[0].encoded_len();
        assert!(bytes <= MAX_PAGE_BYTES, "{bytes}");
        assert!(page.subscriptions.iter().all(|one| one.filters.len() == 256));
        seen.extend(page.subscriptions.iter().map(|one| one.subscription_id));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        assert!(bytes + 2 * one > MAX_PAGE_BYTES, "more would have fitted into {bytes}");
    }
    assert_eq!(seen, (1..=SUBSCRIPTIONS).collect());
    assert!(pages > 2, "{pages}");
}

#[tokio::test]
async fn labels_count_as_memory_of_their_connection() {
    let hub = hub_with(|config| config.memory.filters_bytes = 8 * 1024 * 1024).await;
    let mut client = client(hub.address).await;
    let given: HashMap<String, String> = (0..32).map(|n| (format!("n{n:02}"), "x".repeat(125))).collect();
    let (mut open, mut refused) = (Vec::new(), None);
    // Half of the memory is for one connection.
    while refused.is_none() && open.len() < 1_000 {
        let mut session = Session::open_on(&mut client).await;
        session.send(1, Wire::Hello(Hello { labels: given.clone(), ..Hello::default() })).await;
        session.send(2, Wire::Ping(switchyard::proto::v1::Ping::default())).await;
        if let Some(Frame::Error(status)) = session.frame().await.frame {
            refused = Some(reason(&status));
        }
        open.push(session);
    }
    assert_eq!(refused.as_deref(), Some("QUOTA_EXCEEDED"), "after {}", open.len());
    assert!(open.len() > 500, "{}", open.len());
    drop(open);
    until("it is given back", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    let mut session = Session::open_on(&mut client).await;
    session.send(1, Wire::Hello(Hello { labels: given.clone(), ..Hello::default() })).await;
    session.subscribe(1, spec(&["a"])).await;
    assert_eq!(list(hub.address).await[0].labels, given);
}

#[tokio::test]
async fn what_a_caller_may_read_of_a_stream_is_shown_as_its_filters() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let root = token("root", &["admin"]);
    let stream = stream("vault", &["vault.a", "vault.b"]);
    let mut request = tonic::Request::new(switchyard::proto::v1::CreateStreamRequest { stream: Some(stream) });
    bear(&mut request, &root);
    crate::stored::streams(hub.server.address).await.create_stream(request).await.expect("created");
    let mut request = tonic::Request::new(SubscribeRequest { spec: Some(from("vault", None)) });
    bear(&mut request, &token("alice", &["reads-vault"]));
    let _reading = client(hub.server.address).await.subscribe(request).await.expect("subscribed");
    let mut service = service(hub.server.address).await;
    let mut request = tonic::Request::new(ListSessionsRequest::default());
    bear(&mut request, &root);
    let listed = service.list_sessions(request).await.expect("listed").into_inner().sessions.remove(0);
    assert_eq!(listed.principal, "jwt:alice");
    let mut request =
        tonic::Request::new(GetSessionRequest { session_id: listed.session_id, ..GetSessionRequest::default() });
    bear(&mut request, &root);
    let shown = service.get_session(request).await.expect("shown").into_inner().subscriptions.remove(0);
    assert_eq!(sorted(&shown.filters), ["vault.a", "vault.b"]);
}
