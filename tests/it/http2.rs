//! HTTP/2 below gRPC: calls through the `h2` crate, and frames written by hand for what no library would send.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, StatusCode, response::Parts};
use prost::Message;
use switchyard::proto::v1::{SessionRequest, SessionResponse, session_request::Command};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
};
use tonic::Status;

use crate::harness::soon;

pub const SESSION: &str = "/switchyard.v1.HubService/Session";
pub const SUBSCRIBE: &str = "/switchyard.v1.HubService/Subscribe";
pub const PUBLISH: &str = "/switchyard.v1.HubService/Publish";
/// The byte before a message and its length.
const PREFIX_BYTES: usize = 5;

/// A message as gRPC frames it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(message.len()).expect("a small message").to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// A command as gRPC frames it.
pub fn command(request_id: i64, command: Command) -> Vec<u8> {
    framed(&SessionRequest { request_id, command: Some(command) }.encode_to_vec())
}

/// A connection through the `h2` crate.
pub struct Http2 {
    requests: SendRequest<Bytes>,
    /// New sizes for the windows of its streams.
    windows: mpsc::Sender<u32>,
    /// Drives the connection, which ends with this.
    _driver: JoinSet<Result<(), h2::Error>>,
}

impl Http2 {
    /// A connection with the library's own settings.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(&Builder::new(), address).await
    }

    /// A connection with other settings.
    pub async fn connect_with(builder: &Builder, address: SocketAddr) -> Self {
        Self::over(builder, TcpStream::connect(address).await.expect("a port")).await
    }

    /// A connection over what is connected already.
    pub async fn over(builder: &Builder, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (requests, mut connection) = builder.handshake(stream).await.expect("a handshake");
        let (windows, mut sizes) = mpsc::channel(1);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            loop {
                tokio::select! {
                    ended = &mut connection => return ended,
                    Some(size) = sizes.recv() => connection.set_initial_window_size(size)?,
                }
            }
        });
        Self { requests, windows, _driver: driver }
    }

    /// Begins a call.
    pub async fn call(&mut self, path: &str) -> Call {
        self.call_with(path, &[]).await
    }

    /// Begins a call with more headers.
    pub async fn call_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Call {
        let mut requests = soon("room for a call", self.requests.clone().ready()).await.expect("a live connection");
        let mut request = Request::post(format!("http://hub{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let (response, commands) = requests.send_request(request, false).expect("a live connection");
        Call { response: Some(response), commands, body: None, unread: BytesMut::new() }
    }

    /// Sends a whole request, which need not be gRPC, and reads the whole response.
    pub async fn send(&mut self, request: Request<Vec<u8>>) -> (Parts, Vec<u8>) {
        let mut requests = soon("room for a request", self.requests.clone().ready()).await.expect("a live connection");
        let (head, body) = request.into_parts();
        let (response, mut stream) =
            requests.send_request(Request::from_parts(head, ()), body.is_empty()).expect("a request");
        if !body.is_empty() {
            stream.send_data(body.into(), true).expect("an open stream");
        }
        let (head, mut body) = soon("headers", response).await.expect("a response").into_parts();
        let mut all = Vec::new();
        while let Some(data) = soon("data", body.data()).await {
            all.extend_from_slice(&data.expect("an open stream"));
        }
        (head, all)
    }

    /// Lets the hub send this much on each stream before it is read.
    pub async fn open_windows(&self, bytes: u32) {
        self.windows.send(bytes).await.expect("a live connection");
    }
}

/// One call.
pub struct Call {
    response: Option<ResponseFuture>,
    pub commands: SendStream<Bytes>,
    body: Option<RecvStream>,
    unread: BytesMut,
}

impl Call {
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl Into<Bytes>) {
        self.commands.send_data(bytes.into(), false).expect("an open stream");
    }

    /// Sends no more.
    pub fn half_close(&mut self) {
        self.commands.send_data(Bytes::new(), true).expect("an open stream");
    }

    /// The headers of the response.
    pub async fn headers(&mut self) -> Result<Parts, h2::Error> {
        let response = soon("headers", self.response.take().expect("asked once")).await?;
        let (parts, body) = response.into_parts();
        self.body = Some(body);
        Ok(parts)
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Result<Option<SessionResponse>, h2::Error> {
        if self.body.is_none() {
            self.headers().await?;
        }
        let body = self.body.as_mut().expect("headers came");
        loop {
            if let Some(length) = self.unread.get(1..PREFIX_BYTES) {
                let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                if self.unread.len() >= PREFIX_BYTES + length {
                    self.unread.advance(PREFIX_BYTES);
                    return Ok(Some(SessionResponse::decode(self.unread.split_to(length)).expect("a frame")));
                }
            }
            match soon("data", body.data()).await.transpose()? {
                Some(data) => {
                    body.flow_control().release_capacity(data.len())?;
                    self.unread.extend_from_slice(&data);
                }
                None => return Ok(None),
            }
        }
    }

    /// Reads to the end of a call: its HTTP status, its headers and its gRPC status.
    pub async fn end(&mut self) -> Result<(StatusCode, HeaderMap, Option<Status>), h2::Error> {
        let parts = self.headers().await?;
        let status = match Status::from_header_map(&parts.headers) {
            Some(status) => Some(status),
            None => self.end_of_stream().await?,
        };
        Ok((parts.status, parts.headers, status))
    }

    /// Reads a stream to its end and gives the status in its trailers.
    pub async fn end_of_stream(&mut self) -> Result<Option<Status>, h2::Error> {
        let reading = async {
            while self.frame().await?.is_some() {}
            self.body.as_mut().expect("headers came").trailers().await
        };
        // The frames of a call that never ends come in time, each by itself.
        let trailers = soon("the end of the stream", reading).await?;
        Ok(trailers.as_ref().and_then(Status::from_header_map))
    }

    /// Reads to the end of a call whatever its messages are, and gives the status in its trailers.
    pub async fn skip_to_end(&mut self) -> Result<Option<Status>, h2::Error> {
        let body = self.body.as_mut().expect("headers came");
        while let Some(data) = soon("data", body.data()).await.transpose()? {
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = soon("the end of the stream", body.trailers()).await?;
        Ok(trailers.as_ref().and_then(Status::from_header_map))
    }

    /// Reads a call to its end, whatever messages it brings, and gives its status.
    pub async fn status(&mut self) -> Status {
        let parts = self.headers().await.expect("the connection lives");
        if let Some(status) = Status::from_header_map(&parts.headers) {
            return status;
        }
        let body = self.body.as_mut().expect("headers came");
        while let Some(data) = soon("data", body.data()).await {
            let bytes = data.expect("the connection lives").len();
            body.flow_control().release_capacity(bytes).expect("the connection lives");
        }
        let trailers = soon("trailers", body.trailers()).await.expect("the connection lives").expect("trailers");
        Status::from_header_map(&trailers).expect("a status")
    }

    /// Gives up on the call.
    pub fn reset(&mut self) {
        self.commands.send_reset(h2::Reason::CANCEL);
    }
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as the hub sent it.
#[derive(Debug, Clone)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame in bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// The header block of a call, without any compression.
pub fn header_block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "hub"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer of HPACK with a prefix of seven bits.
fn put_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(length as u8);
    };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// A connection whose frames are written by hand.
pub struct Manual {
    pub write: OwnedWriteHalf,
    pub read: OwnedReadHalf,
}

impl Manual {
    /// Connects and says only what HTTP/2 begins with, and these settings.
    pub async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let (read, write) = TcpStream::connect(address).await.expect("a port").into_split();
        let mut manual = Self { write, read };
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let mut out = PREFACE.to_vec();
        out.extend(frame(SETTINGS, 0, 0, &payload));
        manual.send(&out).await.expect("a live connection");
        manual
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon("room to send", self.write.write_all(bytes)).await
    }

    /// Begins a call.
    pub async fn begin(&mut self, stream: u32, path: &str) -> std::io::Result<()> {
        self.send(&frame(HEADERS, END_HEADERS, stream, &header_block(path, &[]))).await
    }

    /// The next frame; `None` once the connection is closed.
    pub async fn frame(&mut self) -> Option<RawFrame> {
        soon("a frame", read_frame(&mut self.read)).await
    }

    /// Reads until a frame is as wanted; `None` if the connection is closed before that.
    pub async fn frame_where(&mut self, wanted: impl Fn(&RawFrame) -> bool) -> Option<RawFrame> {
        while let Some(frame) = self.frame().await {
            if wanted(&frame) {
                return Some(frame);
            }
        }
        None
    }

    /// Reads until the connection is closed, and gives the error code of its GOAWAY, if one came.
    pub async fn until_closed(&mut self) -> Option<u32> {
        until_closed(&mut self.read).await
    }

    /// Sends `bytes` again and again while reading what comes, until the connection is closed or all is sent. Gives the
    /// error code of its GOAWAY, or `Err` with the connection if it was not closed.
    pub async fn flood(self, bytes: &[u8], times: usize) -> Result<Option<u32>, Self> {
        let Self { mut write, mut read } = self;
        let (closed, sent) = {
            let reading = until_closed(&mut read);
            let writing = async {
                for _ in 0..times {
                    if write.write_all(bytes).await.is_err() {
                        return false;
                    }
                }
                true
            };
            tokio::pin!(reading, writing);
            tokio::select! {
                code = &mut reading => (Some(code), false),
                sent = soon("room for a flood", &mut writing) => {
                    if sent { (None, true) } else { (Some(reading.await), false) }
                }
            }
        };
        match closed {
            Some(code) if !sent => Ok(code),
            _ => Err(Self { write, read }),
        }
    }
}

async fn read_frame(read: &mut OwnedReadHalf) -> Option<RawFrame> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    read.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(RawFrame { kind: head[3], flags: head[4], stream, payload })
}

async fn until_closed(read: &mut OwnedReadHalf) -> Option<u32> {
    let mut code = None;
    while let Some(frame) = soon("a frame or a close", read_frame(read)).await {
        if frame.kind == GOAWAY {
            code = frame.payload.get(4..8).map(|four| u32::from_be_bytes(four.try_into().expect("four bytes")));
        }
    }
    code
}
