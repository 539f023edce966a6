//! A client that polls live topics, on one connection, and publishes on it. What is true of it instead where it has no
//! connection at length.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Addresses, Client, counted, hub};
use crate::{
    harness::{self, client, event, metric, publish, until},
    web::{Answer, Conversation},
};

pub struct Polls {
    socket: Conversation,
    authorization: Option<String>,
    session: String,
    cursor: String,
    texts: VecDeque<String>,
}

fn message(status: &Value) -> String {
    status["message"].as_str().expect("a message").to_owned()
}

impl Polls {
    async fn open_on(at: SocketAddr, authorization: Option<String>) -> Result<Self, String> {
        let (socket, session, cursor) = (Conversation::open(at).await, String::new(), String::new());
        let mut polls = Self { socket, authorization, session, cursor, texts: VecDeque::new() };
        polls.begin("open.none").await.map(|()| polls)
    }

    async fn ask(&mut self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(self.authorization.as_deref().map(|value| ("authorization", value)));
        self.socket.ask(method, path, &headers, &body.map(|body| body.to_string()).unwrap_or_default()).await
    }

    /// Opens a session.
    async fn begin(&mut self, filter: &str) -> Result<(), String> {
        let answer = self.ask("POST", "/v1/poll", Some(json!({ "spec": { "filters": [filter] } }))).await;
        if answer.status != 200 {
            return Err(message(&answer.json()));
        }
        let text = |name: &str| answer.json()[name].as_str().expect("a text").to_owned();
        (self.session, self.cursor) = (text("session"), text("cursor"));
        Ok(())
    }

    async fn poll(&mut self, wait: &str) -> Answer {
        let path = format!("/v1/poll?session={}&cursor={}&wait={wait}", self.session, self.cursor);
        self.ask("GET", &path, None).await
    }
}

impl Client for Polls {
    async fn open(hub: &Addresses, token: Option<&str>) -> Result<Self, String> {
        Self::open_on(hub.web, token.map(|token| format!("Bearer {token}"))).await
    }

    async fn subscribe(&mut self, filter: &str) {
        let path = format!("/v1/poll?session={}", self.session);
        assert_eq!(self.ask("DELETE", &path, None).await.status, 204);
        self.begin(filter).await.expect("a session");
    }

    async fn publish(&mut self, topic: &str, text: &str) {
        self.ask("POST", "/v1/publish", Some(json!({ "events": [{ "topic": topic, "text": text }] }))).await;
    }

    async fn next(&mut self) -> Result<String, String> {
        loop {
            if let Some(text) = self.texts.pop_front() {
                return Ok(text);
            }
            let answer = self.poll("25s").await;
            let said = answer.json();
            if answer.status != 200 {
                return Err(message(&said));
            }
            said["cursor"].as_str().expect("a cursor").clone_into(&mut self.cursor);
            let events = said["events"].as_array().expect("events");
            self.texts = events.iter().map(|it| it["event"]["text"].as_str().expect("a text").to_owned()).collect();
            if self.texts.is_empty() && said["ended"].is_object() {
                return Err(message(&said["ended"]["status"]));
            }
        }
    }
}

/// A poll that waits hears what a session hears. One that comes later finds no hub: what it missed is gone with that.
pub async fn answered_when_it_drains() {
    let mut config = harness::config();
    config.drain.spread_ms = 0;
    config.web.max_polls = 1;
    let (at, server) = hub(config).await;
    let mut session = Polls::open(&at, None).await.expect("a session");
    session.subscribe("a").await;
    client(at.grpc).await.publish(publish(vec![event("a", "last words")])).await.expect("published");
    assert_eq!(session.next().await, Ok("last words".to_owned()));
    let mut waits = JoinSet::new();
    waits.spawn(async move { session.poll("60s").await.json() });
    let mut other = Polls::open(&at, None).await.expect("a session");
    until("it waits", async || other.poll("1ms").await.status == 429).await;
    let stopping = tokio::spawn(server.stop(Duration::ZERO));
    let answer = harness::soon("an answer", waits.join_next()).await.expect("one").expect("no panic");
    let is_told =
        answer["draining"]["deadline"].is_string() || message(&answer["ended"]["status"]).contains("shutting down");
    assert!(is_told, "{answer}");
    harness::soon("it stops", stopping).await.expect("stopped");
}

/// Nothing is written to a client that does not ask: little waits for it, and not for long.
pub async fn over_when_nobody_polls() {
    let mut config = harness::config();
    config.web.parked_bytes = 64 * 1024;
    config.web.parked_timeout_ms = 3_000;
    config.sessions.write_timeout_ms = 200;
    let (at, server) = hub(config).await;
    let mut session = Polls::open(&at, None).await.expect("a session");
    session.subscribe("flood").await;
    let mut publisher = client(at.grpc).await;
    let mut most = 0;
    until("it is over", async || {
        let flood = vec![event("flood", "x".repeat(4 * 1024)); 64];
        publisher.publish(publish(flood)).await.expect("published");
        most = metric(&server, "switchyard_queue_bytes").await.max(most);
        metric(&server, "switchyard_open_sessions").await == 0
    })
    .await;
    assert!((1..=64 * 1024).contains(&most), "{most} bytes");
    assert_eq!(metric(&server, "switchyard_streams_cut_total").await, 0, "there was none");
    assert!(session.next().await.expect_err("it is gone").contains("has no session"));
}

/// A session of polls does not go with a connection, but some time later.
pub async fn counted_beside_connections() {
    let mut config = harness::config();
    config.web.parked_timeout_ms = 5_000;
    counted::<Polls>(config, 2).await;
}
