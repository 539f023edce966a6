//! The `Session` call as bytes: its request, whose frames are complete when they are handed over, and its response, which is
//! read where it lies.
//!
//! The codec of tonic would copy both once more, into buffers of its own (docs/adr/0036).

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::sync::mpsc;
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header},
    metadata::{Ascii, MetadataMap, MetadataValue},
};

use crate::{
    connect::MAX_FRAME_BYTES,
    cutter::{CutError, Cutter},
    machine::wire::{self, Heard},
};

/// A frame that is smaller than this gets memory of its own: where it is, it would keep a piece many times its size for as
/// long as somebody has an event of it.
const SMALL_BYTES: usize = 8 * 1024;
/// The path of the call.
const PATH: &str = "/switchyard.v1.HubService/Session";

/// The request, with these frames, by somebody who shows this.
pub(crate) fn request(frames: mpsc::Receiver<Bytes>, authorization: Option<MetadataValue<Ascii>>) -> Request<Body> {
    let mut metadata = MetadataMap::new();
    if let Some(value) = authorization {
        metadata.insert("authorization", value);
    }
    let mut request = Request::new(Body::new(Outgoing(frames)));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(PATH);
    *request.headers_mut() = metadata.into_headers();
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

/// The body of the request.
struct Outgoing(mpsc::Receiver<Bytes>);

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The frames of the response.
#[derive(Debug)]
pub(crate) struct Frames {
    body: Body,
    cutter: Cutter,
    /// Of HTTP; and of gRPC, if it was said at once.
    status: StatusCode,
    is_well: bool,
}

impl Frames {
    /// Of a response that has begun; why it has not, if so.
    pub(crate) fn new(response: Response<Body>) -> Result<Self, Status> {
        // A call that ends at once says so in its headers.
        let is_well = match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => return Err(status),
            status => status.is_some(),
        };
        let status = response.status();
        Ok(Self { body: response.into_body(), cutter: Cutter::new(MAX_FRAME_BYTES), status, is_well })
    }

    /// The next frame; `None` when the call has ended well. Nothing is lost if this is dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Result<Heard, Status>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Heard, Status>>> {
        loop {
            match self.cutter.next() {
                Ok(Some(frame)) => return Poll::Ready(Some(heard(frame))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(broken(error)))),
            }
            let trailers = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        self.cutter.add(bytes);
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => None,
            };
            return Poll::Ready(self.end(trailers.as_ref()).map(Err));
        }
    }

    /// Why the call ended, unless it ended well.
    fn end(&self, trailers: Option<&HeaderMap>) -> Option<Status> {
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => Some(status),
            _ if self.cutter.is_within() => Some(Status::internal("the call ended within a frame")),
            Some(_) => None,
            None if self.is_well => None,
            // Of something between here and the hub, which knows no gRPC.
            None => {
                let code = match self.status {
                    StatusCode::UNAUTHORIZED => Code::Unauthenticated,
                    StatusCode::FORBIDDEN => Code::PermissionDenied,
                    StatusCode::NOT_FOUND => Code::Unimplemented,
                    StatusCode::BAD_REQUEST => Code::Internal,
                    StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
                    _ => Code::Unknown,
                };
                let text = format!("the call ended without a status of gRPC, and with status {} of HTTP", self.status);
                Some(Status::new(code, text))
            }
        }
    }
}

fn heard(frame: Bytes) -> Result<Heard, Status> {
    let frame = if frame.len() < SMALL_BYTES { Bytes::copy_from_slice(&frame) } else { frame };
    wire::decode(frame).map_err(|_| Status::internal("a frame of the hub does not decode"))
}

fn broken(error: CutError) -> Status {
    match error {
        CutError::Compressed => Status::internal("a frame of the hub is compressed, or no message of gRPC"),
        CutError::TooLong(len) => {
            Status::out_of_range(format!("a frame of the hub has {len} bytes, more than {MAX_FRAME_BYTES}"))
        }
    }
}
