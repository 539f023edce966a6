//! gRPC on the inside of the bridges, as little of it as the suite needs: messages out of the body of a request, and a
//! response that is written as the call goes on.

use std::{future::poll_fn, io::Read, pin::Pin};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, body::Body};

const PREFIX_BYTES: usize = 5;

/// The messages of a request.
pub struct Incoming {
    body: Body,
    buffer: BytesMut,
    gzip: bool,
    limit: usize,
}

impl Incoming {
    /// No message may be larger than `limit` bytes.
    pub fn new(body: Body, headers: &HeaderMap, limit: usize) -> Result<Self, Status> {
        let gzip = match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
            None | Some(b"identity") => false,
            Some(b"gzip") => true,
            Some(_) => return Err(Status::unimplemented("unknown compression")),
        };
        Ok(Self { body, buffer: BytesMut::new(), gzip, limit })
    }

    /// The next message; `None` when there are no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.cut()? {
                return Ok(Some(message));
            }
            match poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(status)) => return Err(status),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::internal("the last message is not complete")),
            }
        }
    }

    /// The one message of a call that takes one.
    pub async fn only(&mut self) -> Result<Bytes, Status> {
        match (self.next().await?, self.next().await?) {
            (Some(message), None) => Ok(message),
            _ => Err(Status::unimplemented("the call takes one message")),
        }
    }

    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(&[flags, a, b, c, d]) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > self.limit {
            return Err(Status::resource_exhausted("the message is too large"));
        }
        if self.buffer.len() < PREFIX_BYTES + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        let message = self.buffer.split_to(len).freeze();
        match flags {
            0 => Ok(Some(message)),
            1 if self.gzip => self.unpacked(&message).map(Some),
            _ => Err(Status::internal("the message is compressed, and the call does not say how")),
        }
    }

    fn unpacked(&self, message: &[u8]) -> Result<Bytes, Status> {
        let mut out = Vec::new();
        let most = self.limit as u64 + 1;
        let read = flate2::read::GzDecoder::new(message).take(most).read_to_end(&mut out);
        read.map_err(|_| Status::internal("the message is not gzip"))?;
        if out.len() > self.limit {
            return Err(Status::resource_exhausted("the message is too large"));
        }
        Ok(out.into())
    }
}

/// Where a call writes its response. What is written when nobody reads any more is lost.
pub struct Outgoing(mpsc::Sender<Result<Frame<Bytes>, Status>>);

impl Outgoing {
    /// A response with these headers, and where to write it.
    pub fn new(headers: HeaderMap) -> (Response<Body>, Self) {
        let (frames, receiver) = mpsc::channel(16);
        let mut response = Response::new(Body::new(StreamBody::new(ReceiverStream::new(receiver))));
        *response.headers_mut() = headers;
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        (response, Self(frames))
    }

    pub async fn send(&self, message: &[u8]) {
        let [a, b, c, d] = (message.len() as u32).to_be_bytes();
        let data = [&[0, a, b, c, d], message].concat();
        self.0.send(Ok(Frame::data(data.into()))).await.ok();
    }

    pub async fn end(self, mut trailers: HeaderMap, status: Result<(), Status>) {
        let status = status.err().unwrap_or_else(|| Status::new(Code::Ok, ""));
        status.add_header(&mut trailers).expect("trailers");
        self.0.send(Ok(Frame::trailers(trailers))).await.ok();
    }
}
