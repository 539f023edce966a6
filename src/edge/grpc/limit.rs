//! Generated services get the messages of a request whole, and within the limits of the hub; what they answer is within
//! its limits, too.
//!
//! Left to themselves they would wait for the rest of a message as long as its connection lives, hold what has come of it
//! uncounted, and keep every answer until its client reads it. A page of a list takes milliseconds to make: one is made at a
//! time, so that no client keeps all workers busy with them. Those that are read from the disk wait for it, and no other list
//! waits for them.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::Semaphore;
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::response::{client_of, kept};
use crate::{
    edge::wire::{
        framer::{Encoding, Framer},
        status::no_memory,
    },
    hub::Hub,
    memory::{Held, Use},
    tasks::Turn,
};

/// The response of a call costs a step for this many bytes, which are read, copied and encoded.
const RESPONSE_BYTES_A_STEP: usize = 128;

/// Held for a response before it is made, in bytes: as much as any has of a call that changes something, so that none is
/// refused for its response once it is done.
const USUAL_RESPONSE_BYTES: usize = 4 * 1024;
/// The same for calls that answer with a stream, whose filters may be as large as the request.
const STREAM_RESPONSE_BYTES: usize = 80 * 1024;
/// Held for a call with many responses, each of which waits until the one before is read.
const MANY_RESPONSES_BYTES: usize = 128 * 1024;

/// The same for a page of a list, which is a mebibyte and what is last on it.
const LIST_RESPONSE_BYTES: usize = 1024 * 1024 + STREAM_RESPONSE_BYTES;

/// What limits the requests of a service.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    hub: Arc<Hub>,
    /// A request is one message.
    one: bool,
    /// Whose turn it is to have a page of a list made,
    lists: Arc<Semaphore>,
    /// and one that is read from the disk.
    reads: Arc<Semaphore>,
}

impl Limits {
    /// For services whose requests are one message each.
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, one: true, lists: Arc::new(Semaphore::new(1)), reads: Arc::new(Semaphore::new(1)) }
    }

    /// For services whose requests are many messages.
    pub(super) fn of_many(&self) -> Self {
        Self { one: false, ..self.clone() }
    }

    /// The service, within limits: no message of a request has more than `limit` bytes.
    pub(super) fn of<S>(&self, inner: S, limit: usize) -> Limited<S> {
        Limited { inner, whole: self.clone(), limit }
    }

    /// The request as the service gets it, and what is held for its response.
    fn prepare(&self, mut request: Request<Body>, limit: usize) -> Result<(Request<Body>, Held), Status> {
        let encoding = Encoding::of(request.headers())?;
        // What the service gets is not compressed any more.
        request.headers_mut().remove("grpc-encoding");
        let client = client_of(&self.hub, request.extensions());
        let held = client.hold(Use::Responses, self.ahead(request.uri().path())).map_err(no_memory)?;
        let request = request.map(|body| {
            let messages = Framer::within(&self.hub, &client, body, encoding, None);
            if self.one { messages.expected().into_body(limit) } else { messages.into_body(limit) }
        });
        Ok((request, held))
    }

    /// What is held for a response before it is made.
    fn ahead(&self, path: &str) -> usize {
        match path.rsplit('/').next() {
            _ if !self.one => MANY_RESPONSES_BYTES,
            _ if is_list(path) => LIST_RESPONSE_BYTES,
            Some("CreateStream" | "UpdateStream") => STREAM_RESPONSE_BYTES,
            Some("Backup") => MANY_RESPONSES_BYTES,
            _ => USUAL_RESPONSE_BYTES,
        }
    }
}

/// True for a call that answers with a page of a list.
fn is_list(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|call| call.starts_with("List") || call == "GetSession")
}

/// True for one whose page is read from the disk.
fn is_read(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|call| ["ListDeadLetters", "ListEvents", "ListTopics"].contains(&call))
}

/// A service within limits.
#[derive(Debug, Clone)]
pub(super) struct Limited<S> {
    inner: S,
    whole: Limits,
    limit: usize,
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
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
        let (mut inner, whole, limit) = (self.inner.clone(), self.whole.clone(), self.limit);
        Box::pin(async move {
            let path = request.uri().path();
            let turns = if is_read(path) { &whole.reads } else { &whole.lists };
            let turns = is_list(path).then(|| Arc::clone(turns));
            let (mut request, held) = match whole.prepare(request, limit) {
                Ok(prepared) => prepared,
                Err(status) => return Ok(status.into_http()),
            };
            let mut turn = None;
            if let Some(turns) = turns {
                // Before it is its turn: nobody waits for what a client has not said.
                request = match read(request).await {
                    Ok(request) => request,
                    Err(status) => return Ok(status.into_http()),
                };
                turn = turns.acquire_owned().await.ok();
            }
            let response = kept(inner.call(request).await?, held).await;
            drop(turn);
            let bytes = response.as_ref().map_or(0, |(_, bytes)| *bytes);
            Turn::default().spend(bytes / RESPONSE_BYTES_A_STEP).await;
            let response = response.map(|(response, _)| response);
            Ok(response.unwrap_or_else(|full| no_memory(full).into_http()))
        })
    }
}

/// A request all of which has come.
async fn read(request: Request<Body>) -> Result<Request<Body>, Status> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await?.to_bytes();
    Ok(Request::from_parts(parts, Body::new(Full::new(bytes))))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio::{sync::Notify, task::JoinSet};
    use tower::ServiceExt;

    use super::*;
    use crate::hub::Setup;

    /// How many of a hundred calls of a method were served at once, at most.
    async fn at_once(method: &str) -> usize {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (of_calls, of_most) = (Arc::clone(&now), Arc::clone(&most));
        let inner = tower::service_fn(move |_: Request<Body>| {
            let (now, most) = (Arc::clone(&of_calls), Arc::clone(&of_most));
            async move {
                most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Relaxed);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let service = Limits::new(Arc::new(Hub::new(Setup::default()))).of(inner, 1024);
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let request = Request::post(format!("/switchyard.v1.StreamService/{method}"));
            calls.spawn(service.clone().oneshot(request.body(Body::empty()).expect("a request")));
        }
        assert!(calls.join_all().await.iter().all(Result::is_ok));
        most.load(Relaxed)
    }

    #[tokio::test]
    async fn one_page_of_a_list_is_made_at_a_time() {
        assert_eq!(at_once("ListStreams").await, 1);
        assert_eq!(at_once("GetSession").await, 1, "it has a page of subscriptions");
        assert_eq!(at_once("ListEvents").await, 1);
        assert_eq!(at_once("GetStream").await, 100);
    }

    #[tokio::test]
    async fn a_list_waits_for_no_page_that_is_read_from_the_disk() {
        let listed = Arc::new(Notify::new());
        let inner = tower::service_fn(move |request: Request<Body>| {
            let listed = Arc::clone(&listed);
            async move {
                if is_read(request.uri().path()) {
                    listed.notified().await;
                } else {
                    listed.notify_one();
                }
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let service = Limits::new(Arc::new(Hub::new(Setup::default()))).of(inner, 1024);
        let call = |method| {
            let request = Request::post(format!("/switchyard.v1.StreamService/{method}"));
            service.clone().oneshot(request.body(Body::empty()).expect("a request"))
        };
        let (read, other) = tokio::join!(call("ListEvents"), call("ListStreams"));
        assert!(read.is_ok() && other.is_ok());
    }
}
