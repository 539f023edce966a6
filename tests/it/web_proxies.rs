//! The web listener through nginx, HAProxy and Envoy, with the files of `examples/proxies`: WebSocket, event streams, polls
//! and publishing; what keeps an idle client alive, and what each setting there is needed for.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use switchyard::server::Server;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    harness::{metric, until},
    proxy::{AUTHORITIES, Front, Kind, Proxy},
    web::{
        address, ask, hub,
        source::Source,
        websocket::{JSON, WebSocket},
    },
};

/// How long a client is idle: several times what the proxy allows, and longer than Envoy lets a response last unless it is
/// told otherwise.
const IDLE: Duration = Duration::from_secs(16);
/// The hub with heartbeats, and the one without.
const HEARD: &str = "hub-0.example";
const SILENT: &str = "hub-1.example";
/// Longer than the test.
const NEVER_MS: u64 = 300_000;

/// Two hubs; only the heartbeats of the first one tell that an idle client is alive. One poll waits at a time.
async fn hubs() -> [Server; 2] {
    let start = async |heartbeat_interval_ms| {
        hub(|config| {
            config.web.hosts = AUTHORITIES.join(",").try_into().expect("hosts");
            config.web.max_polls = 1;
            config.sessions.heartbeat_interval_ms = heartbeat_interval_ms;
            config.connections.keepalive_interval_ms = NEVER_MS;
            config.connections.keepalive_timeout_ms = NEVER_MS;
        })
        .await
    };
    [start(1_000).await, start(NEVER_MS).await]
}

async fn front(kind: Kind, hubs: &[Server; 2], changes: &[(&str, &str)]) -> Proxy {
    Proxy::begin(kind, Front::Web, ports(hubs), changes).await
}

fn ports(hubs: &[Server; 2]) -> [(SocketAddr, SocketAddr); 2] {
    hubs.each_ref().map(|hub| (address(hub), hub.ops_address))
}

async fn socket(proxy: &Proxy, host: &str) -> WebSocket {
    let stream = Box::new(TcpStream::connect(proxy.address).await.expect("a proxy"));
    let uri = format!("ws://{host}/v1/ws");
    // As a page that was loaded through the proxy.
    let headers = [("sec-websocket-protocol", JSON), ("origin", &format!("http://{host}"))];
    let (mut socket, _) = WebSocket::over(stream, &uri, &headers).await;
    assert!(socket.json().await["welcome"].is_object());
    socket.say(json!({"subscribe": {"subscriptionId": 1, "spec": {"filters": ["a"]}}})).await;
    assert!(socket.json().await["subscribed"].is_object());
    socket
}

async fn source(proxy: &Proxy, host: &str) -> Source {
    let mut source = Source::stream(proxy.address, "/v1/events?filter=a", &[("host", host)]).await;
    source.named("subscribed").await;
    source
}

async fn post(proxy: &Proxy, host: &str, path: &str, body: &Value) -> crate::web::Answer {
    let headers = [("host", host), ("content-type", "application/json")];
    ask(proxy.address, "POST", path, &headers, &body.to_string()).await
}

async fn publish(proxy: &Proxy, host: &str, text: &str) -> u16 {
    post(proxy, host, "/v1/publish", &json!({"events": [{"topic": "a", "text": text}]})).await.status
}

async fn open_session(proxy: &Proxy, host: &str) -> String {
    let opened = post(proxy, host, "/v1/poll", &json!({"spec": {"filters": ["a"]}})).await;
    assert_eq!(opened.status, 200, "{}", opened.body);
    opened.json()["session"].as_str().expect("a session").to_owned()
}

async fn poll(proxy: &Proxy, host: &str, query: &str) -> crate::web::Answer {
    ask(proxy.address, "GET", &format!("/v1/poll?{query}"), &[("host", host)], "").await
}

/// Every event comes at once, while there is nothing behind it that would push it out of a buffer.
async fn events_come_at_once(kind: Kind) {
    let hubs = hubs().await;
    let proxy = front(kind, &hubs, &[]).await;
    let (mut socket, mut source) = (socket(&proxy, SILENT).await, source(&proxy, SILENT).await);
    let session = open_session(&proxy, SILENT).await;
    for n in 0..3 {
        let text = n.to_string();
        let query = format!("session={session}");
        let waits = poll(&proxy, SILENT, &query);
        let (polled, published) = tokio::join!(waits, publish(&proxy, SILENT, &text));
        assert_eq!((published, &polled.json()["events"][0]["event"]["text"]), (200, &json!(text)), "{}", polled.body);
        assert_eq!(source.texts(1).await, std::slice::from_ref(&text));
        assert_eq!(socket.json().await["events"]["events"][0]["event"]["text"], text);
    }
    // A command the other way, too.
    socket.say(json!({"requestId": 2, "publish": {"events": [{"topic": "a", "text": "mine"}]}})).await;
    assert_eq!(source.texts(1).await, ["mine"]);
    let filler = "x".repeat(1_000_000);
    let large = json!({"events": [{"topic": "a", "text": filler}, {"topic": "a", "text": filler}]});
    assert_eq!(post(&proxy, SILENT, "/v1/publish", &large).await.status, 200, "all that a hub takes");
    assert_eq!(source.texts(2).await.concat().len(), 2 * filler.len());
}

#[tokio::test]
async fn events_come_at_once_through_nginx() {
    events_come_at_once(Kind::Nginx).await;
}

#[tokio::test]
async fn events_come_at_once_through_haproxy() {
    events_come_at_once(Kind::Haproxy).await;
}

#[tokio::test]
async fn events_come_at_once_through_envoy() {
    events_come_at_once(Kind::Envoy).await;
}

async fn heartbeats_keep_idle_pages_alive(kind: Kind) {
    let hubs = hubs().await;
    let proxy = Proxy::begin_short(kind, Front::Web, ports(&hubs), &[]).await;
    let (mut heard, mut silent) = (socket(&proxy, HEARD).await, socket(&proxy, SILENT).await);
    let (mut heard_events, mut silent_events) = (source(&proxy, HEARD).await, source(&proxy, SILENT).await);
    let session = open_session(&proxy, HEARD).await;
    let too_long = format!("session={session}&wait={}s", IDLE.as_secs());
    let lives = tokio::join!(
        heard.lives(IDLE),
        heard_events.lives(IDLE),
        silent.lives(IDLE),
        silent_events.lives(IDLE),
        is_answered(proxy.address, &too_long),
    );
    assert_eq!(
        lives,
        (true, true, false, false, false),
        "{kind:?}: only heartbeats, and shorter polls, outlive its time"
    );
    assert_eq!(poll(&proxy, HEARD, &format!("session={session}&wait=1s")).await.status, 200);
    assert_eq!(publish(&proxy, HEARD, "still here").await, 200);
    assert_eq!(heard_events.texts(1).await, ["still here"]);
    assert_eq!(heard.json().await["events"]["events"][0]["event"]["text"], "still here");
}

/// Whether the hub answers a poll, and not the proxy.
async fn is_answered(proxy: SocketAddr, query: &str) -> bool {
    let mut asked = JoinSet::new();
    let path = format!("/v1/poll?{query}");
    // Envoy closes the connection without an answer.
    asked.spawn(async move { ask(proxy, "GET", &path, &[("host", HEARD)], "").await.status == 200 });
    matches!(asked.join_next().await, Some(Ok(true)))
}

/// All three at a time, since nearly all of it is waiting.
#[tokio::test]
async fn heartbeats_keep_idle_pages_alive_through_every_proxy() {
    tokio::join!(
        heartbeats_keep_idle_pages_alive(Kind::Nginx),
        heartbeats_keep_idle_pages_alive(Kind::Haproxy),
        heartbeats_keep_idle_pages_alive(Kind::Envoy),
    );
}

/// A stream at the next heartbeat, if not before.
async fn one_that_goes_is_noticed(kind: Kind) {
    let hubs = hubs().await;
    let proxy = front(kind, &hubs, &[]).await;
    let (socket, source) = (socket(&proxy, HEARD).await, source(&proxy, HEARD).await);
    let session = open_session(&proxy, HEARD).await;
    let open = async || metric(&hubs[0], "switchyard_open_sessions").await;
    assert_eq!(open().await, 3);
    drop(socket);
    until(&format!("{kind:?}: the WebSocket is gone"), async || open().await == 2).await;
    drop(source);
    until(&format!("{kind:?}: the stream is gone"), async || open().await == 1).await;

    let (address, path) = (proxy.address, format!("/v1/poll?session={session}&wait=60s"));
    let mut polls = JoinSet::new();
    polls.spawn(async move { ask(address, "GET", &path, &[("host", HEARD)], "").await });
    let other = open_session(&proxy, HEARD).await;
    let short = format!("session={other}&wait=1ms");
    until("the poll waits", async || poll(&proxy, HEARD, &short).await.status == 429).await;
    drop(polls);
    until(&format!("{kind:?}: the poll is gone"), async || poll(&proxy, HEARD, &short).await.status == 200).await;
}

#[tokio::test]
async fn one_that_goes_is_noticed_through_every_proxy() {
    tokio::join!(
        one_that_goes_is_noticed(Kind::Nginx),
        one_that_goes_is_noticed(Kind::Haproxy),
        one_that_goes_is_noticed(Kind::Envoy),
    );
}

/// By a name that leads to any hub, each of many requests comes to the hub of the first.
async fn a_client_stays_with_its_hub(kind: Kind) {
    let hubs = hubs().await;
    let proxy = front(kind, &hubs, &[]).await;
    let any = AUTHORITIES[0];
    let session = open_session(&proxy, any).await;
    for _ in 0..8 {
        let issued = post(&proxy, any, "/v1/ticket", &json!({"path": "/v1/events"})).await.json();
        let path = format!("/v1/events?filter=a&ticket={}", issued["ticket"].as_str().expect("a ticket"));
        Source::stream(proxy.address, &path, &[("host", any)]).await.named("subscribed").await;
        assert_eq!(poll(&proxy, any, &format!("session={session}&wait=0")).await.status, 200);
    }
    let foreign =
        ask(proxy.address, "GET", "/v1/events?filter=a", &[("host", any), ("origin", "http://evil")], "").await;
    assert_eq!(foreign.status, 403, "the hub sees who asks");
}

#[tokio::test]
async fn a_client_stays_with_its_hub_through_every_proxy() {
    tokio::join!(
        a_client_stays_with_its_hub(Kind::Nginx),
        a_client_stays_with_its_hub(Kind::Haproxy),
        a_client_stays_with_its_hub(Kind::Envoy),
    );
}

/// What a request that asks for a WebSocket is answered with.
async fn upgraded(proxy: &Proxy) -> u16 {
    let headers = [
        ("host", SILENT),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", JSON),
    ];
    Source::open(proxy.address, "/v1/ws", &headers).await.status
}

#[tokio::test]
async fn each_setting_for_websockets_is_needed() {
    let hubs = hubs().await;
    assert_eq!(upgraded(&front(Kind::Nginx, &hubs, &[]).await).await, 101);
    for (kind, from, to) in [
        (Kind::Nginx, "proxy_set_header Upgrade $http_upgrade;", ""),
        (Kind::Nginx, "proxy_set_header Connection $connection_upgrade;", ""),
        (Kind::Envoy, "upgrade_configs: [{ upgrade_type: websocket }]", ""),
    ] {
        let status = upgraded(&front(kind, &hubs, &[(from, to)]).await).await;
        assert!((400..500).contains(&status), "{status} without {from}");
    }
}

#[tokio::test]
async fn each_setting_of_nginx_for_bodies_is_needed() {
    let hubs = hubs().await;
    let proxy = front(Kind::Nginx, &hubs, &[("client_max_body_size 4m", "client_max_body_size 1m")]).await;
    assert_eq!(publish(&proxy, SILENT, &"x".repeat(2 << 20)).await, 413);
}

#[tokio::test]
async fn envoy_ends_a_stream_after_its_timeout_unless_told_otherwise() {
    let hubs = hubs().await;
    let proxy = front(Kind::Envoy, &hubs, &[("timeout: 0s", "timeout: 4s")]).await;
    assert!(!source(&proxy, HEARD).await.lives(IDLE).await, "timeout: 0s is needed");
}
