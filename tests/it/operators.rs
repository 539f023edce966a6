//! What operators see of a hub, and what they can do to it: sessions listed, shown and ended, and the state of streams and
//! groups in the metrics.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    process::Stdio,
};

use switchyard::proto::v1::{
    GetSessionRequest, Hello, ListSessionsRequest, Session as Listed, SessionKind, SubscribeRequest,
    TerminateSessionRequest, session_request::Command as Wire, session_service_client::SessionServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::{
    harness::{
        self, Session, channel, client, credit, event, http, hub, metric, program, reason, reason_of_call, soon, spec,
        until,
    },
    stored::{Folder, create, from, hub_on, numbered, store, stream},
    workplace::Place,
};

async fn sessions(address: std::net::SocketAddr) -> SessionServiceClient<Channel> {
    SessionServiceClient::new(channel(address).await)
}

async fn list(service: &mut SessionServiceClient<Channel>, page_size: i32) -> Vec<Listed> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSessionsRequest { page_size, page_token };
        let page = service.list_sessions(request).await.expect("a page").into_inner();
        all.extend(page.sessions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn sessions_are_listed_with_who_they_are_and_how_they_stand() {
    let hub = hub().await;
    let mut named = Session::open(hub.address).await;
    named.send(0, Wire::Hello(Hello { client_name: "billing".into(), ..Hello::default() })).await;
    named.subscribe(7, spec(&["a.>"])).await;
    let mut client = client(hub.address).await;
    let request = SubscribeRequest { spec: Some(spec(&["b.>"])) };
    let _one = client.subscribe(request).await.expect("subscribed");

    let mut service = sessions(hub.address).await;
    let listed = list(&mut service, 0).await;
    assert_eq!(listed.len(), 2);
    let kinds: Vec<SessionKind> = listed.iter().map(Listed::kind).collect();
    assert_eq!(kinds, [SessionKind::Session, SessionKind::Subscribe], "the oldest first");
    assert_eq!((listed[0].client_name.as_str(), listed[0].subscriptions), ("billing", 1));
    assert!(listed[0].peer.starts_with("127.0.0.1:") && listed[0].create_time.is_some(), "{:?}", listed[0]);
    drop(named);
    until("one is left", async || list(&mut service, 0).await.len() == 1).await;
}

#[tokio::test]
async fn many_sessions_and_subscriptions_come_in_pages() {
    let hub = hub().await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(Session::open(hub.address).await);
    }
    for id in 1..=25 {
        open[2].subscribe(id, spec(&["a.b"])).await;
    }
    let mut service = sessions(hub.address).await;
    let ids: Vec<String> = list(&mut service, 2).await.into_iter().map(|session| session.session_id).collect();
    assert_eq!(ids.len(), 5);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 5, "none twice");

    let (mut seen, mut page_token) = (HashSet::new(), String::new());
    loop {
        let request = GetSessionRequest { session_id: ids[2].clone(), page_size: 10, page_token };
        let page = service.get_session(request).await.expect("a page").into_inner();
        assert_eq!(page.session.expect("a session").subscriptions, 25);
        seen.extend(page.subscriptions.iter().map(|one| one.subscription_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, (1..=25).collect());
    let request = ListSessionsRequest { page_size: 1001, ..ListSessionsRequest::default() };
    assert_eq!(service.list_sessions(request).await.expect_err("too large").code(), Code::InvalidArgument);
    let request = ListSessionsRequest { page_token: "x".into(), ..ListSessionsRequest::default() };
    assert_eq!(service.list_sessions(request).await.expect_err("no token").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_subscription_that_waits_for_credit_is_seen_as_such() {
    let hub = hub().await;
    let mut session = Session::open(hub.address).await;
    let starved = switchyard::proto::v1::SubscriptionSpec { credit: credit(1, 0), ..spec(&["a.>"]) };
    session.subscribe(1, starved).await;
    session.subscribe(2, spec(&["b.>"])).await;
    session.publish(vec![event("a.b", "1")]).await;
    session.events().await;
    assert_eq!(metric(&hub, "switchyard_credit_blocked_subscriptions").await, 0, "nothing waits");
    session.publish(vec![event("a.b", "2"), event("a.b", "3")]).await;

    let mut service = sessions(hub.address).await;
    let session_id = list(&mut service, 0).await[0].session_id.clone();
    let request = GetSessionRequest { session_id, ..GetSessionRequest::default() };
    let shown = service.get_session(request).await.expect("shown").into_inner();
    let of = |id: i64| shown.subscriptions.iter().find(|one| one.subscription_id == id).expect("there").clone();
    let (starved, fed) = (of(1), of(2));
    assert!(starved.credit_blocked && starved.waiting_events == 2 && starved.waiting_bytes > 0, "{starved:?}");
    assert_eq!(starved.credit.map(|credit| credit.events), Some(0));
    assert!(!fed.credit_blocked && fed.credit.is_none(), "{fed:?}");
    assert_eq!(metric(&hub, "switchyard_credit_blocked_subscriptions").await, 1);

    let grant = switchyard::proto::v1::AddCredit { subscription_id: 1, credit: credit(5, 0) };
    session.send(0, Wire::Credit(grant)).await;
    session.events().await;
    assert_eq!(metric(&hub, "switchyard_credit_blocked_subscriptions").await, 0);
}

#[tokio::test]
async fn a_session_that_is_terminated_is_told_why_and_where_to_resume() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["a.>"])).await;
    store(hub.address, numbered("a.b", 0..3)).await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(4, from("s", crate::stored::after(0))).await;
    session.events().await;

    let mut service = sessions(hub.address).await;
    let session_id = list(&mut service, 0).await[0].session_id.clone();
    let why = |reason: &str| TerminateSessionRequest { session_id: session_id.clone(), reason: reason.to_owned() };
    let long = service.terminate_session(why(&"x".repeat(257))).await.expect_err("too long");
    assert_eq!((long.code(), reason_of_call(&long).as_str()), (Code::InvalidArgument, "MALFORMED_COMMAND"));
    service.terminate_session(why(&"x".repeat(256))).await.expect("just short enough");
    let ended = loop {
        match session.frame().await.frame {
            Some(switchyard::proto::v1::session_response::Frame::Ended(ended)) => break ended,
            Some(switchyard::proto::v1::session_response::Frame::Progress(_)) => {}
            other => panic!("not ended: {other:?}"),
        }
    };
    let status = ended.status.expect("a status");
    assert_eq!((ended.subscription_id, reason(&status).as_str()), (4, "SESSION_TERMINATED"));
    assert!(status.message.contains("xxx") && !ended.resume_token.is_empty(), "{status:?}");
    let end = session.end().await.expect_err("an end with a reason");
    assert_eq!((end.code(), reason_of_call(&end).as_str()), (Code::Aborted, "SESSION_TERMINATED"));
    let gone = service.terminate_session(why("")).await.expect_err("it is gone, or going");
    assert_eq!(reason_of_call(&gone), "SESSION_NOT_FOUND");
}

#[tokio::test]
async fn streams_groups_and_the_store_are_in_the_metrics() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["1", "2", "3"]).await;
    let of_hub = |name: &'static str| metric(&place.server, name);
    assert_eq!(of_hub("switchyard_stream_events").await, 3);
    assert_eq!(of_hub("switchyard_stream_last_sequence").await, 3);
    assert!(of_hub("switchyard_stream_bytes").await > 0);
    assert_eq!((of_hub("switchyard_group_lag").await, of_hub("switchyard_group_unacked").await), (3, 0));
    assert!(of_hub("switchyard_store_bytes").await > 0);
    assert!(of_hub("switchyard_commit_seconds_count").await > 0);
    assert_eq!(of_hub("switchyard_store_writable").await, 1);

    let mut worker = place.member().await;
    let first = worker.event().await;
    until("all are with the member", async || metric(&place.server, "switchyard_group_unacked").await == 3).await;
    assert_eq!(metric(&place.server, "switchyard_group_members").await, 1);
    worker.ack(&[first.sequence]).await;
    assert_eq!(metric(&place.server, "switchyard_group_lag").await, 2);
    let text = harness::http_get(place.server.ops_address, "/metrics").await;
    assert!(text.contains("switchyard_group_lag{stream=\"") && text.contains("group=\""), "{text}");
}

#[tokio::test]
async fn what_is_logged_can_be_changed_while_the_hub_runs() {
    let mut child = program()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--web-listen",
            "127.0.0.1:0",
            "--data-dir",
            "",
        ])
        .args(["--log-format", "json", "--log", "info"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut lines = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.expect("a line")).expect("JSON"));
    let serving = lines.find(|line| line["message"] == "serving").expect("it serves");
    let address = |name: &str| serving[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let (clients, ops): (std::net::SocketAddr, _) = (address("address"), address("ops_address"));

    assert!(harness::http_get(ops, "/log").await.ends_with("info\n"));
    let refused = http(ops, "PUT", "/log", "nonsense=nonsense=x").await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert!(http(ops, "PUT", "/log", &"x".repeat(1025)).await.starts_with("HTTP/1.1 400"), "one byte past");
    assert!(http(ops, "DELETE", "/log", "").await.starts_with("HTTP/1.1 405"));
    assert!(http(ops, "PUT", "/log", "off").await.ends_with("off\n"));
    assert!(http(ops, "PUT", "/log", "switchyard=debug").await.ends_with("switchyard=debug\n"));
    let changed = lines.find(|line| line["target"] == "audit").expect("a line");
    assert_eq!((&changed["log"], &changed["message"]), (&"off".into(), &"log filter changed".into()));
    assert!(changed["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{changed}");

    // Not HTTP: the end of such a connection is told at debug.
    let mut stream = tokio::net::TcpStream::connect(clients).await.expect("a port");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0; 64]).await.expect("sent");
    let seen = tokio::task::spawn_blocking(move || lines.any(|line| line["level"] == "DEBUG"));
    assert!(soon("a line at debug", seen).await.expect("no panic"));
    child.kill().expect("a child");
    child.wait().expect("gone");
}

#[tokio::test]
async fn what_is_logged_is_changed_only_where_that_is_allowed() {
    let hub = harness::hub_with(|config| config.ops.log_changes = switchyard::edge::http::LogChanges::Off).await;
    let refused = http(hub.ops_address, "PUT", "/log", "off").await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("ops.log_changes"), "{refused}");
    assert!(harness::http_get(hub.ops_address, "/log").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_subscription_that_is_behind_its_stream_is_counted() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["a.>"])).await;
    store(hub.address, numbered("a.b", 0..3)).await;
    let mut session = Session::open(hub.address).await;
    let wish = switchyard::proto::v1::SubscriptionSpec {
        credit: credit(1, 0),
        ..from("s", crate::stored::preset(switchyard::proto::v1::StartPreset::Earliest))
    };
    session.subscribe(1, wish).await;
    session.events().await;
    until("it is behind", async || metric(&hub, "switchyard_behind_subscriptions").await == 1).await;
    assert_eq!(metric(&hub, "switchyard_credit_blocked_subscriptions").await, 1);
    let mut service = sessions(hub.address).await;
    let session_id = list(&mut service, 0).await[0].session_id.clone();
    let request = GetSessionRequest { session_id, ..GetSessionRequest::default() };
    let shown = service.get_session(request).await.expect("shown").into_inner().subscriptions.remove(0);
    assert_eq!((shown.stream.as_str(), shown.sequence, shown.lag), ("s", 1, 2), "{shown:?}");

    let grant = switchyard::proto::v1::AddCredit { subscription_id: 1, credit: credit(5, 0) };
    session.send(0, Wire::Credit(grant)).await;
    session.events().await;
    until("it has all", async || metric(&hub, "switchyard_behind_subscriptions").await == 0).await;
}
