//! A client that reads an event stream, and publishes by POST.

use std::net::SocketAddr;

use serde_json::json;

use super::{Addresses, Client};
use crate::web::{ask, source::Source};

pub struct Sse {
    at: SocketAddr,
    authorization: Option<String>,
    source: Source,
}

impl Sse {
    async fn source(at: SocketAddr, authorization: Option<&str>, filter: &str) -> Result<Source, String> {
        let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
        let path = format!("/v1/events?filter={}", filter.replace('>', "%3E"));
        let mut source = Source::open(at, &path, &headers).await;
        if source.status != 200 {
            let refusal = ask(at, "GET", &path, &headers, "").await.json();
            return Err(refusal["message"].as_str().expect("a message").to_owned());
        }
        loop {
            let heard = source.next().await.ok_or("ended")?;
            match heard.event.as_str() {
                "subscribed" => return Ok(source),
                "ended" => return Err(heard.json()["status"]["message"].as_str().expect("a message").to_owned()),
                _ => {}
            }
        }
    }
}

impl Client for Sse {
    async fn open(hub: &Addresses, token: Option<&str>) -> Result<Self, String> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let source = Self::source(hub.web, authorization.as_deref(), "open.none").await?;
        Ok(Self { at: hub.web, authorization, source })
    }

    async fn subscribe(&mut self, filter: &str) {
        self.source = Self::source(self.at, self.authorization.as_deref(), filter).await.expect("subscribed");
    }

    async fn publish(&mut self, topic: &str, text: &str) {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(self.authorization.as_deref().map(|value| ("authorization", value)));
        let body = json!({ "events": [{ "topic": topic, "text": text }] }).to_string();
        ask(self.at, "POST", "/v1/publish", &headers, &body).await;
    }

    async fn next(&mut self) -> Result<String, String> {
        loop {
            let heard = self.source.next().await.ok_or("ended")?;
            match heard.event.as_str() {
                "message" => return Ok(heard.text()),
                "ended" => return Err(heard.json()["status"]["message"].as_str().expect("a message").to_owned()),
                _ => {}
            }
        }
    }
}
