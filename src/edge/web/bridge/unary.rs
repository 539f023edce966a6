//! The response of a unary call of Connect: one message and nothing else, or an error, as the status of HTTP says.
//!
//! Nothing can be sent before the call has ended, so the message waits here for that. It is memory of the service's
//! response, which holds it as long as its body lives; for JSON more is held.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use tonic::{Code, Status, body::Body};

use super::{
    broken::Broken,
    calls::Form,
    contract::shown,
    ending::{Ending, without_grpc},
    envelope::{COMPRESSED, Cutter},
    head::add_trailers,
    to_json::{likely_bytes, sized},
};
use crate::{
    edge::wire::status,
    memory::Held,
    model::End,
    tasks::{Tasks, Turn},
};

/// A message of more bytes than this is written as JSON elsewhere.
const LARGE_BYTES: usize = 64 * 1024;
/// A step writes JSON of so many bytes of a message.
const BYTES_A_STEP: usize = 32;

/// Held for the JSON of a response before the call is made, in bytes: as much as most need that change something.
pub(super) const USUAL_JSON_BYTES: usize = 16 * 1024;

/// What writes the JSON of a response.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) form: Arc<dyn Form>,
    /// For the JSON.
    pub(super) held: Held,
    /// Nothing is lost when the answer of the call is not.
    pub(super) safe: bool,
    pub(super) tasks: Tasks,
}

/// A message, and the response that holds memory for it.
struct Kept {
    message: Option<Bytes>,
    _of: Body,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.message.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.message.as_ref().map_or(0, |message| message.len() as u64))
    }
}

/// The response to a client, of that of the service, once that has ended. Without a writer it is in protobuf.
pub(super) async fn answer(response: Response<Body>, writer: Option<Writer>, broken: &Broken) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    let (ending, message) = match Ending::of(&head.headers) {
        Some(ending) => {
            head.headers = HeaderMap::new();
            (ending, None)
        }
        None => whole(&mut body).await,
    };
    let ending = broken.why().unwrap_or(ending);
    without_grpc(&mut head.headers);
    let message = match message {
        Some(message) if ending.is_ok() => message,
        _ => return failed(head.headers, &ending),
    };
    let content_type = if writer.is_some() { "application/json" } else { "application/proto" };
    let message = match writer {
        None => message,
        Some(writer) => match writer.write(message).await {
            Ok(json) => json,
            Err(status) => return failed(head.headers, &status.into()),
        },
    };
    add_trailers(&mut head.headers, &ending.metadata);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Response::from_parts(head, Body::new(Kept { message: (!message.is_empty()).then_some(message), _of: body }))
}

/// An error of a call, with the headers that its service gave it.
pub(super) fn failed(mut headers: HeaderMap, ending: &Ending) -> Response<Body> {
    // A service that ends well without a message has not.
    let ending = if ending.is_ok() { &Ending::new(Code::Internal, "the call ended without a message") } else { ending };
    let mut response = Response::new(Body::new(Full::from(ending.connect_error(&shown))));
    *response.status_mut() = ending.http_status();
    add_trailers(&mut headers, &ending.metadata);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = ending.retry_after() {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    if ending.http_status() == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    *response.headers_mut() = headers;
    response
}

/// How the call ended, and its message if it has exactly one.
async fn whole(body: &mut Body) -> (Ending, Option<Bytes>) {
    let (mut cutter, mut message) = (Cutter::default(), None);
    let mut faults = 0;
    loop {
        let frame = match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => return (Ending::missing(), None),
            Some(Err(status)) => return (status.into(), None),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(piece) => {
                cutter.push(piece);
                while let Some((flags, next)) = cutter.next() {
                    faults += usize::from(message.is_some() || flags & COMPRESSED != 0);
                    message = Some(next);
                }
            }
            Err(frame) => {
                let ending = frame.trailers_ref().and_then(Ending::of).unwrap_or_else(Ending::missing);
                return (ending, message.filter(|_| faults == 0 && !cutter.is_within()));
            }
        }
    }
}

impl Writer {
    async fn write(self, message: Bytes) -> Result<Bytes, Status> {
        let Self { form, mut held, safe, tasks } = self;
        let likely = likely_bytes(message.len());
        if let Err(full) = held.grow(likely.saturating_sub(held.bytes()))
            && safe
        {
            return Err(status::no_memory(full));
        }
        Turn::default().spend(message.len().min(LARGE_BYTES) / BYTES_A_STEP).await;
        let large = message.len() > LARGE_BYTES;
        let write = move || {
            let mut out = Vec::new();
            form.write(&message, &mut out).then_some(out)
        };
        let json = if large { tasks.block(write).await.flatten() } else { write() };
        Ok(sized(json.ok_or_else(|| status::of_end(&End::Internal).status())?, held))
    }
}
