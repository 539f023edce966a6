//! A client that publishes by POST, on one connection; what comes of it, it reads as any client of gRPC. What is true of it
//! instead where it has no session.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use super::{Addresses, Client, Grpc, hub};
use crate::{
    harness::{self, metric, soon, until},
    web::{Answer, Conversation},
};

const JSON: (&str, &str) = ("content-type", "application/json");

pub struct Posts {
    hub: Addresses,
    token: Option<String>,
    socket: Conversation,
    reader: Option<Grpc>,
}

fn body(topic: &str, text: &str) -> String {
    json!({ "events": [{ "topic": topic, "text": text }] }).to_string()
}

impl Posts {
    async fn post(&mut self, topic: &str, text: &str) -> Answer {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![JSON];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        self.socket.ask("POST", "/v1/publish", &headers, &body(topic, text)).await
    }
}

impl Client for Posts {
    async fn open(hub: &Addresses, token: Option<&str>) -> Result<Self, String> {
        let socket = Conversation::open(hub.web).await;
        let mut posts = Self { hub: hub.clone(), token: token.map(str::to_owned), socket, reader: None };
        let answer = posts.post("open.none", "").await;
        if answer.status == 200 {
            Ok(posts)
        } else {
            Err(answer.json()["message"].as_str().expect("a message").to_owned())
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        let mut reader = Grpc::open(&self.hub, self.token.as_deref()).await.expect("a session");
        reader.subscribe(filter).await;
        self.reader = Some(reader);
    }

    async fn publish(&mut self, topic: &str, text: &str) {
        self.post(topic, text).await;
    }

    async fn next(&mut self) -> Result<String, String> {
        self.reader.as_mut().expect("subscribed").next().await
    }
}

/// A request that the hub has begun to read.
async fn begun(at: &Addresses, whole: &str) -> Conversation {
    let mut socket = Conversation::open(at.web).await;
    let length = whole.len().to_string();
    socket.begin("POST", "/v1/publish", &[JSON, ("content-length", &length), ("expect", "100-continue")]).await;
    assert_eq!(socket.answer().await.status, 100, "it reads the body");
    socket.send(&whole[..1]).await;
    socket
}

/// What has begun when the hub shuts down is done, and answered.
pub async fn answered_when_it_drains() {
    let (at, server) = hub(harness::config()).await;
    let whole = body("a", "last words");
    let mut socket = begun(&at, &whole).await;
    let stopping = tokio::spawn(server.stop(Duration::ZERO));
    until("nobody new comes in", async || TcpStream::connect(at.web).await.is_err()).await;
    socket.send(&whole[1..]).await;
    let answer = socket.answer().await;
    assert_eq!((answer.status, answer.json()["results"].as_array().map(Vec::len)), (200, Some(1)), "{}", answer.body);
    assert!(socket.is_ended().await);
    soon("it stops", stopping).await.expect("stopped");
}

/// It is the hub that waits for such a client, and it does not wait for long.
pub async fn cut_when_it_sends_nothing() {
    let mut config = harness::config();
    config.sessions.frame_timeout_ms = 200;
    let (at, server) = hub(config).await;
    let mut socket = begun(&at, &body("a", "x")).await;
    let answer = socket.answer().await;
    let message = answer.json()["message"].to_string();
    assert!(
        (400..500).contains(&answer.status) && message.contains("was not complete"),
        "{}: {message}",
        answer.status
    );
    assert!(socket.is_ended().await);
    until("nothing of it is left", async || metric(&server, "switchyard_open_connections").await == 0).await;
}
