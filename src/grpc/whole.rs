//! Generated services get the messages of a request whole, and within the limits of the hub.
//!
//! Left to themselves they would wait for the rest of a message as long as its connection lives, and hold what has come
//! of it uncounted.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use tonic::{body::Body, server::NamedService};
use tower::Service;

use super::hub_service::framer;
use crate::session::Hub;

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
}

/// A service within limits.
#[derive(Debug, Clone)]
pub(super) struct Limited<S> {
    inner: S,
    whole: Whole,
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Limited<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.inner.call(request.map(|body| {
            let messages = framer(&self.whole.hub, body);
            if self.whole.one { messages.expected().into_body() } else { messages.into_body() }
        }))
    }
}
