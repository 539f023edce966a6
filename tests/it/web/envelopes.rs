//! Calls whose messages are in envelopes, as Connect and gRPC-Web have them, over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response, Version, response::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::harness::soon;

/// Sends a request on a connection of its own.
pub async fn send(address: SocketAddr, version: Version, mut request: Request<Body>) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(address).await.expect("a connection"));
    let response = if version == Version::HTTP_2 {
        *request.uri_mut() = format!("http://{address}{}", request.uri()).parse().expect("a URI");
        let (mut send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        soon("a response", send.send_request(request)).await
    } else {
        request.headers_mut().insert("host", address.to_string().parse().expect("a value"));
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        soon("a response", send.send_request(request)).await
    };
    response.expect("a response")
}

/// A message with its length before it.
pub fn enveloped(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// The envelopes of a response, as they come.
pub struct Envelopes {
    pub head: Parts,
    body: Incoming,
    text: Option<Vec<u8>>,
    buffer: BytesMut,
}

impl Envelopes {
    /// Those of a response, which may be base64.
    pub fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let content_type = head.headers["content-type"].to_str().expect("ASCII");
        let text = content_type.contains("text").then(Vec::new);
        Self { head, body, text, buffer: BytesMut::new() }
    }

    /// The flags and the bytes of the next; `None` at the end.
    pub async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some(&[flags, a, b, c, d]) = self.buffer.first_chunk::<5>() {
                let len = u32::from_be_bytes([a, b, c, d]) as usize;
                if self.buffer.len() >= 5 + len {
                    self.buffer.advance(5);
                    return Some((flags, self.buffer.split_to(len).freeze()));
                }
            }
            let Some(frame) = soon("a frame", self.body.frame()).await else {
                assert!(self.buffer.is_empty(), "it ends within a message");
                return None;
            };
            let data = frame.expect("a frame").into_data().expect("no trailers");
            match &mut self.text {
                None => self.buffer.extend_from_slice(&data),
                Some(text) => {
                    text.extend_from_slice(&data);
                    let rest = text.split_off(text.len() / 4 * 4);
                    for group in std::mem::replace(text, rest).chunks(4) {
                        self.buffer.extend_from_slice(&BASE64_STANDARD.decode(group).expect("base64"));
                    }
                }
            }
        }
    }

    /// The next, which must be JSON.
    pub async fn json(&mut self) -> (u8, serde_json::Value) {
        let (flags, message) = self.next().await.expect("a message");
        (flags, serde_json::from_slice(&message).expect("JSON"))
    }
}
