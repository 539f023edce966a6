//! The body of a response that is envelopes: what the service sends, with the end of the call as the last of them.
//!
//! Messages in protobuf go through as they come, since gRPC, gRPC-Web and Connect put the same five bytes before each. How
//! the call ended, which gRPC says in trailers, becomes one more envelope.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tonic::{Code, Status, body::Body};

use super::{base64_text, broken::Broken, contract::shown, ending::Ending, to_json::ToJson};

/// How a call ends, and what its bytes are sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of gRPC-Web.
    Web,
    /// Of gRPC-Web, as base64.
    WebText,
    /// Of Connect.
    Stream,
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct Translated {
    /// `None` once it is over.
    inner: Option<Body>,
    kind: Kind,
    /// For messages that are sent as JSON.
    json: Option<ToJson>,
    broken: Broken,
}

impl Kind {
    /// The envelope that ends a call.
    pub(super) fn end(self, ending: &Ending) -> Bytes {
        match self {
            Self::Web => ending.web_trailers(),
            Self::WebText => base64_text::encode(&ending.web_trailers()),
            Self::Stream => ending.connect_end(&shown),
        }
    }

    fn data(self, piece: Bytes) -> Bytes {
        if self == Self::WebText { base64_text::encode(&piece) } else { piece }
    }
}

impl Translated {
    pub(super) fn new(inner: Body, kind: Kind, json: Option<ToJson>, broken: Broken) -> Self {
        Self { inner: Some(inner), kind, json, broken }
    }

    fn end(&mut self, ending: &Ending) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.inner = None;
        self.json = None;
        Poll::Ready(Some(Ok(Frame::data(self.kind.end(ending)))))
    }

    /// The end that a service gives; a message that has come in part is not the client's to read.
    fn ending_of(&self, trailers: Option<&HeaderMap>) -> Ending {
        let within = self.json.as_ref().is_some_and(ToJson::is_within);
        match trailers.and_then(Ending::of) {
            Some(ending) if !(ending.is_ok() && within) => ending,
            _ => Ending::missing(),
        }
    }
}

impl http_body::Body for Translated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.inner.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(ending) = this.broken.poll(context) {
            return this.end(&ending);
        }
        loop {
            if let Some(json) = &mut this.json {
                match ready!(json.poll_next(context)) {
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(this.kind.data(piece))))),
                    Ok(None) => {}
                    Err(_) => return this.end(&Ending::new(Code::Internal, "a response could not be written as JSON")),
                }
            }
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            match ready!(Pin::new(inner).poll_frame(context)) {
                None => return this.end(&this.ending_of(None)),
                Some(Err(status)) => return this.end(&status.into()),
                Some(Ok(frame)) => match (frame.into_data(), &mut this.json) {
                    (Ok(piece), _) if piece.is_empty() => {}
                    (Ok(piece), Some(json)) => json.push(piece),
                    (Ok(piece), None) => return Poll::Ready(Some(Ok(Frame::data(this.kind.data(piece))))),
                    (Err(frame), _) => {
                        let ending = this.ending_of(frame.trailers_ref());
                        return this.end(&ending);
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none()
    }
}
