//! A client of WebSocket: a library that is not the hub's, over a socket, TLS, or a stream of HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::SinkExt;
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message as _;
use serde_json::Value;
use switchyard::proto::v1::{SessionRequest, SessionResponse, session_request::Command, session_response::Frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
};
use tokio_stream::StreamExt;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use crate::harness::soon;

/// The subprotocols.
pub const PROTOBUF: &str = "switchyard.v1.proto";
pub const JSON: &str = "switchyard.v1.json";

/// Only to name both in one `dyn`.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A WebSocket.
pub struct WebSocket(WebSocketStream<Box<dyn Io>>);

impl WebSocket {
    /// Over HTTP/1.1.
    pub async fn open(address: SocketAddr, protocol: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("a port");
        Self::over(Box::new(stream), &format!("ws://{address}/v1/ws"), &[("sec-websocket-protocol", protocol)]).await.0
    }

    /// On a connection that is there, with the headers of the response.
    pub async fn over(stream: Box<dyn Io>, uri: &str, headers: &[(&str, &str)]) -> (Self, HeaderMap) {
        let mut client = ClientBuilder::new().uri(uri).expect("a URI").limits(Limits::unlimited());
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            client = client.add_header(name, value.parse().expect("a value")).expect("one that may be set");
        }
        let (socket, response) = soon("a handshake", client.connect_on(stream)).await.expect("a WebSocket");
        (Self(socket), response.headers().clone())
    }

    /// Over a stream of HTTP/2, or the status with which it is refused.
    pub async fn over_http2(
        requests: &mut h2::client::SendRequest<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Self, StatusCode> {
        let mut request = Request::builder().method(Method::CONNECT).uri("http://localhost/v1/ws");
        request = request.extension(h2::ext::Protocol::from_static("websocket"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let (response, out) = requests.send_request(request, false).expect("sent");
        let response = soon("a response", response).await.expect("a response");
        if response.status() != StatusCode::OK {
            return Err(response.status());
        }
        let (here, there) = tokio::io::duplex(64 * 1024);
        tokio::spawn(carry(there, out, response.into_body()));
        Ok(Self(ClientBuilder::new().limits(Limits::unlimited()).take_over(Box::new(here) as Box<dyn Io>)))
    }

    pub async fn send(&mut self, message: Message) {
        soon("room for a message", self.0.send(message)).await.expect("sent");
    }

    /// Sends a command in protobuf.
    pub async fn command(&mut self, request_id: i64, command: Command) {
        let request = SessionRequest { request_id, command: Some(command) };
        self.send(Message::binary(request.encode_to_vec())).await;
    }

    /// Sends one in JSON.
    pub async fn say(&mut self, request: Value) {
        self.send(Message::text(request.to_string())).await;
    }

    /// The next message, or nothing behind the last.
    pub async fn message(&mut self) -> Option<Message> {
        loop {
            match soon("a message", self.0.next()).await {
                Some(Ok(message)) if message.is_ping() || message.is_pong() => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(error)) => panic!("{error}"),
                None => return None,
            }
        }
    }

    /// Reads on for a time, in which something comes now and then; false when it ends before, in whatever way.
    #[cfg(feature = "tools-tests")]
    pub async fn lives(&mut self, time: std::time::Duration) -> bool {
        let start = std::time::Instant::now();
        while start.elapsed() < time {
            match soon("a message, or the end", self.0.next()).await {
                Some(Ok(message)) if !message.is_close() => {}
                _ => return false,
            }
        }
        true
    }

    /// The next frame of a session in protobuf, heartbeats left out.
    pub async fn frame(&mut self) -> SessionResponse {
        loop {
            let message = self.message().await.expect("a frame");
            assert!(message.is_binary(), "{message:?}");
            let frame = SessionResponse::decode(Bytes::from(message.into_payload())).expect("a frame");
            if !matches!(frame.frame, Some(Frame::Heartbeat(_))) {
                return frame;
            }
        }
    }

    /// The same in JSON.
    pub async fn json(&mut self) -> Value {
        loop {
            let message = self.message().await.expect("a frame");
            let text = message.as_text().unwrap_or_else(|| panic!("not a text: {message:?}"));
            let frame: Value = serde_json::from_str(text).expect("JSON");
            if frame.get("heartbeat").is_none() {
                return frame;
            }
        }
    }

    /// The code and the reason of the close that comes next, behind which nothing comes.
    pub async fn closed(&mut self) -> (u16, String) {
        let message = self.message().await.expect("a close");
        let (code, reason) = message.as_close().unwrap_or_else(|| panic!("not a close: {message:?}"));
        let closed = (u16::from(code), reason.to_owned());
        assert!(self.message().await.is_none());
        closed
    }

    /// The same, with the reason in the `error` frame before it, which is of no request.
    pub async fn ended(&mut self) -> (u16, String) {
        let frame = self.frame().await;
        let Some(Frame::Error(status)) = frame.frame else { panic!("not an error: {frame:?}") };
        let (code, reason) = self.closed().await;
        assert_eq!((frame.request_id, crate::harness::reason(&status)), (0, reason.clone()));
        (code, reason)
    }
}

/// A client of HTTP/2 that has seen the settings of the hub.
pub async fn http2(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a port");
    let (requests, mut connection) = h2::client::handshake(stream).await.expect("a handshake");
    let mut pings = connection.ping_pong().expect("the first");
    tokio::spawn(connection);
    soon("a pong", pings.ping(h2::Ping::opaque())).await.expect("the settings have come before it");
    requests
}

/// Carries bytes between a pipe and a stream of HTTP/2 until both directions are over.
async fn carry(pipe: DuplexStream, mut out: h2::SendStream<Bytes>, mut back: h2::RecvStream) {
    let (mut read, mut write) = tokio::io::split(pipe);
    let there = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(some @ 1..) = read.read(&mut bytes).await {
            if out.send_data(Bytes::copy_from_slice(&bytes[..some]), false).is_err() {
                return;
            }
        }
        out.send_data(Bytes::new(), true).ok();
    };
    let here = async {
        while let Some(Ok(data)) = back.data().await {
            back.flow_control().release_capacity(data.len()).expect("what has come");
            if write.write_all(&data).await.is_err() {
                return;
            }
        }
        write.shutdown().await.ok();
    };
    tokio::join!(there, here);
}
