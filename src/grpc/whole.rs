//! Generated services get the messages of a request whole, and within the limits of the hub; what they answer is within
//! its limits, too.
//!
//! Left to themselves they would wait for the rest of a message as long as its connection lives, hold what has come of it
//! uncounted, and keep every answer until its client reads it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    hub_service::{encoding, framer, no_memory},
    response::{client_of, kept},
};
use crate::{
    memory::{Held, Use},
    session::Hub,
};

/// Held for a response before it is made, in bytes: as much as any has of a call that changes something, so that none is
/// refused for its response once it is done.
const USUAL_RESPONSE_BYTES: usize = 4 * 1024;
/// The same for calls that answer with a stream, whose filters may be as large as the request.
const STREAM_RESPONSE_BYTES: usize = 80 * 1024;
/// Held for a call with many responses, each of which waits until the one before is read.
const MANY_RESPONSES_BYTES: usize = 128 * 1024;

/// What limits the requests of a service.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    pub(super) hub: Arc<Hub>,
    /// A request is one message.
    pub(super) one: bool,
}

impl Whole {
    /// The service, within limits.
    pub(super) fn of<S>(&self, inner: S) -> Limited<S> {
        Limited { inner, whole: self.clone() }
    }

    /// What is held for a response before it is made.
    fn ahead(&self, path: &str) -> usize {
        match path.rsplit('/').next() {
            _ if !self.one => MANY_RESPONSES_BYTES,
            Some("CreateStream" | "UpdateStream") => STREAM_RESPONSE_BYTES,
            _ => USUAL_RESPONSE_BYTES,
        }
    }
}

/// A service within limits.
#[derive(Debug, Clone)]
pub(super) struct Limited<S> {
    inner: S,
    whole: Whole,
}

impl<S> Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    /// Begins a call, if its response fits.
    fn begin(&mut self, mut request: Request<Body>) -> Result<(S::Future, Held), Status> {
        let Self { inner, whole } = self;
        let encoding = encoding(&request)?;
        // What the service gets is not compressed any more.
        request.headers_mut().remove("grpc-encoding");
        let client = client_of(&whole.hub, request.extensions());
        let held = client.hold(Use::Responses, whole.ahead(request.uri().path())).map_err(no_memory)?;
        let response = inner.call(request.map(|body| {
            let messages = framer(&whole.hub, &client, body, encoding, None);
            if whole.one { messages.expected().into_body() } else { messages.into_body() }
        }));
        Ok((response, held))
    }
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let begun = self.begin(request);
        Box::pin(async move {
            let (response, held) = match begun {
                Ok(begun) => begun,
                Err(status) => return Ok(status.into_http()),
            };
            Ok(kept(response.await?, held).await.unwrap_or_else(|full| no_memory(full).into_http()))
        })
    }
}
