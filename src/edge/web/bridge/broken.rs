//! What is wrong with the body of a request, from where it is noticed to where the call is answered.
//!
//! A service that reads a body which breaks off knows nothing of why: to gRPC that is a client that has gone. The bridge
//! does, and says it instead of whatever the service says.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use tonic::Status;

use super::ending::Ending;

/// Shared by the request and the response of one call.
#[derive(Debug, Clone, Default)]
pub(super) struct Broken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    why: OnceLock<Ending>,
    response: AtomicWaker,
}

impl Broken {
    /// The body is broken: the call ends so. Gives the error that a body breaks off with.
    pub(super) fn end(&self, status: Status) -> Status {
        self.0.why.get_or_init(|| status.into());
        self.0.response.wake();
        Status::aborted("the request is broken")
    }

    /// Ready when the body is broken, with how the call ends. Only the one who answers asks.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Ending> {
        if let Some(why) = self.0.why.get() {
            return Poll::Ready(why.clone());
        }
        self.0.response.register(context.waker());
        self.0.why.get().map_or(Poll::Pending, |why| Poll::Ready(why.clone()))
    }

    /// How the call ends, if the body is known to be broken.
    pub(super) fn why(&self) -> Option<Ending> {
        self.0.why.get().cloned()
    }
}
