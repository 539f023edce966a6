//! Clients of the WebSocket edge, in either form.

use prost::Message as _;
use serde_json::{Value, json};
use switchyard::proto::v1::{SessionResponse, session_response::Frame};
use tokio::net::TcpStream;

use super::{Addresses, Client};
use crate::{
    harness::texts,
    web::{
        ask,
        websocket::{JSON, PROTOBUF, WebSocket},
    },
};

/// One that speaks JSON, or protobuf.
pub struct Ws<const SPEAKS_JSON: bool>(WebSocket);

impl<const SPEAKS_JSON: bool> Ws<SPEAKS_JSON> {
    /// The next frame, whatever it is written in, as far as these tests look at it.
    async fn frame(&mut self) -> Option<Seen> {
        let message = self.0.message().await.filter(|message| !message.is_close())?;
        Some(if SPEAKS_JSON { of_json(message.as_text()?) } else { of_protobuf(message.as_payload()) })
    }
}

/// What a frame is.
enum Seen {
    Welcome,
    Subscribed,
    Events(Vec<String>),
    Error { request_id: i64, text: String },
    Other,
}

fn of_json(text: &str) -> Seen {
    let frame: Value = serde_json::from_str(text).expect("JSON");
    if let Some(error) = frame.get("error") {
        let request_id = frame["requestId"].as_str().map_or(0, |id| id.parse().expect("a number"));
        return Seen::Error { request_id, text: error["message"].as_str().expect("a text").to_owned() };
    }
    if let Some(events) = frame["events"]["events"].as_array() {
        return Seen::Events(
            events.iter().map(|it| it["event"]["text"].as_str().expect("a text").to_owned()).collect(),
        );
    }
    match (frame.get("welcome"), frame.get("subscribed")) {
        (Some(_), _) => Seen::Welcome,
        (_, Some(_)) => Seen::Subscribed,
        _ => Seen::Other,
    }
}

fn of_protobuf(bytes: &[u8]) -> Seen {
    let frame = SessionResponse::decode(bytes).expect("a frame");
    match frame.frame {
        Some(Frame::Welcome(_)) => Seen::Welcome,
        Some(Frame::Subscribed(_)) => Seen::Subscribed,
        Some(Frame::Events(events)) => Seen::Events(texts(&events)),
        Some(Frame::Error(status)) => Seen::Error { request_id: frame.request_id, text: status.message },
        _ => Seen::Other,
    }
}

impl<const SPEAKS_JSON: bool> Client for Ws<SPEAKS_JSON> {
    async fn open(hub: &Addresses, token: Option<&str>) -> Result<Self, String> {
        let protocol = if SPEAKS_JSON { JSON } else { PROTOBUF };
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("sec-websocket-protocol", protocol)];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        // Without a key it is no WebSocket, but as far as credentials go it is the same.
        let refused = ask(hub.web, "GET", "/v1/ws", &headers, "").await;
        if refused.status == 401 {
            return Err(refused.json()["message"].as_str().expect("a text").to_owned());
        }
        let stream = Box::new(TcpStream::connect(hub.web).await.expect("a port"));
        let (socket, _) = WebSocket::over(stream, &format!("ws://{}/v1/ws", hub.web), &headers).await;
        let mut client = Self(socket);
        match client.frame().await {
            Some(Seen::Welcome) => Ok(client),
            Some(Seen::Error { text, .. }) => Err(text),
            _ => panic!("neither a welcome nor an error"),
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        let subscribe = json!({"subscriptionId": 1, "spec": {"filters": [filter]}});
        self.command(json!({"requestId": 1, "subscribe": subscribe})).await;
        while !matches!(self.frame().await, Some(Seen::Subscribed)) {}
    }

    async fn publish(&mut self, topic: &str, text: &str) {
        let publish = json!({"events": [{"topic": topic, "text": text}]});
        self.command(json!({"requestId": 2, "publish": publish})).await;
    }

    async fn next(&mut self) -> Result<String, String> {
        let mut end = "ended".to_owned();
        loop {
            match self.frame().await {
                Some(Seen::Events(texts)) => return Ok(texts.concat()),
                Some(Seen::Error { request_id: 0, text }) => end = text,
                Some(_) => {}
                None => return Err(end),
            }
        }
    }
}

impl<const SPEAKS_JSON: bool> Ws<SPEAKS_JSON> {
    async fn command(&mut self, command: Value) {
        if SPEAKS_JSON {
            return self.0.say(command).await;
        }
        let request = switchyard::json::message("switchyard.v1.SessionRequest").expect("in the contract");
        let bytes = request.decode(command.to_string().as_bytes()).expect("a command");
        self.0.send(tokio_websockets::Message::binary(bytes)).await;
    }
}
