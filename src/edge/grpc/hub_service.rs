//! `switchyard.v1.HubService`: its calls, as one tower service.
//!
//! Written by hand rather than generated, because its responses are bodies of their own and its requests are cut into
//! frames without decoding them (docs/adr/0002). The response to `Session` is returned before its first command is
//! read: many clients wait for the headers before they send anything.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request, Response};
use prost::Message as _;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    access::Access,
    framing, hub_status,
    response::{client_of, unary},
    session_body::SessionBody,
};
use crate::{
    auth::Caller,
    edge::{
        Opening,
        wire::{
            buffer::Message,
            command,
            forms::v1,
            framer::{Encoding, Framer},
            head::Frames,
            publish_call::PublishCall,
            requests,
            status::{self, no_memory},
        },
    },
    event::EventIds,
    hub::{Hub, Kind},
    manage::about,
    memory::Use,
    model::{CommandError, limits},
    net::{Ahead, AtItsOwnPace},
    session::{self, NoRequests, Requests},
    tasks::{OnPanic, Tasks},
};

/// Held for what a hub is: the addresses of others, and little besides.
const HUB_RESPONSE_BYTES: usize = 1024 + limits::MAX_ALTERNATIVES * (limits::MAX_ALTERNATIVE_BYTES + 4);

/// What stands before the names of the calls.
const PATH: &str = "/switchyard.v1.HubService/";

/// Serves the calls of `HubService`.
#[derive(Debug, Clone)]
pub(super) struct HubService {
    hub: Arc<Hub>,
    tasks: Tasks,
    access: Access,
}

impl NamedService for HubService {
    const NAME: &'static str = "switchyard.v1.HubService";
}

impl HubService {
    pub(super) fn new(hub: Arc<Hub>, tasks: Tasks, access: Access) -> Self {
        Self { hub, tasks, access }
    }

    async fn call(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        match request.uri().path().strip_prefix(PATH) {
            Some("Session") => self.session(request),
            Some("Subscribe") => self.subscribe(request).await,
            Some("Publish") => self.publish(request).await,
            Some("GetHub") => self.get_hub(request).await,
            _ => Err(status::unimplemented("HubService has no such method")),
        }
    }

    fn session(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let caller = self.caller(&request, "Session")?;
        let opening = self.opening(request.extensions())?;
        let client = Arc::clone(opening.client());
        let ahead = request.extensions().get::<Ahead>().cloned();
        let messages = self.messages(request, Some(Frames::Commands))?;
        let (session, permit) = opening.open(Kind::Many, caller).map_err(|error| refusal(&error))?;
        let ids = EventIds::new(session.id());
        let body = Body::new(SessionBody::new(session.outlet(), permit));
        let requests = requests::Requests::new(messages.patient(), Arc::clone(&self.hub), client, ids);
        let requests = Commands { requests, ahead };
        self.tasks.spawn_beside("session", OnPanic::Log, session.run(requests));
        Ok(at_its_own_pace(body))
    }

    async fn subscribe(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let caller = self.caller(&request, "Subscribe")?;
        let opening = self.opening(request.extensions())?;
        let message = only_message(self.messages(request, None)?.expected()).await?;
        let spec = command::subscribe_request(message.bytes)?;
        let (mut session, permit) = opening.open(Kind::One, caller).map_err(|error| refusal(&error))?;
        session.subscribe_once(&spec).await.map_err(command::refused_spec)?;
        let body = Body::new(SessionBody::new(session.outlet(), permit));
        self.tasks.spawn_beside("session", OnPanic::Log, session.run(NoRequests));
        Ok(at_its_own_pace(body))
    }

    async fn publish(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let caller = self.caller(&request, "Publish")?;
        let client = client_of(&self.hub, request.extensions());
        let message = only_message(self.messages(request, Some(Frames::Publish))?.expected()).await?;
        let call = PublishCall { hub: &self.hub, tasks: &self.tasks, caller: &caller, client: &client };
        let (results, held) = call.request(message).await.map_err(|fault| fault.status())?;
        Ok(unary(&results, held))
    }

    async fn get_hub(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let caller = self.caller(&request, "GetHub")?;
        let client = client_of(&self.hub, request.extensions());
        let message = only_message(self.messages(request, None)?.expected()).await?;
        v1::GetHubRequest::decode(message.bytes).map_err(|error| undecodable(&error))?;
        let held = client.hold(Use::Responses, HUB_RESPONSE_BYTES).map_err(no_memory)?;
        let hub = hub_status::shown(&about::see(&self.hub, &caller).await);
        Ok(unary(&v1::GetHubResponse { hub: Some(hub) }.encode_to_vec(), held))
    }

    fn caller(&self, request: &Request<Body>, call: &'static str) -> Result<Caller, Status> {
        self.access.caller(request.extensions(), call).map_err(|denial| status::of_denial(denial).status())
    }

    /// The messages of a request, cut but not decoded.
    fn messages(&self, request: Request<Body>, frames: Option<Frames>) -> Result<Framer, Status> {
        let encoding = Encoding::of(request.headers())?;
        let client = client_of(&self.hub, request.extensions());
        Ok(Framer::within(&self.hub, &client, request.into_body(), encoding, frames))
    }

    /// Counts one session more on the connection the request came over.
    fn opening(&self, extensions: &Extensions) -> Result<Opening, Status> {
        let opening = Opening::new(&self.hub, extensions.get(), extensions.get().cloned());
        opening.map_err(|error| refusal(&error))
    }
}

impl Service<Request<Body>> for HubService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Self::call(self.clone(), request);
        Box::pin(async move { Ok(call.await.unwrap_or_else(Status::into_http)) })
    }
}

/// The commands of a session.
struct Commands<S> {
    requests: S,
    ahead: Option<Ahead>,
}

impl<S: Stream<Item = Result<session::Request, CommandError>> + Unpin> Stream for Commands<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let next = Pin::new(&mut self.requests).poll_next(context);
        if next.is_pending() {
            // They may wait for memory, and then nothing is read.
            self.poll_ahead(context);
        }
        next
    }
}

impl<S: Stream<Item = Result<session::Request, CommandError>> + Unpin> Requests for Commands<S> {
    fn poll_ahead(&mut self, context: &mut Context<'_>) {
        if let Some(ahead) = &self.ahead {
            ahead.poll(context);
        }
    }
}

/// The one message of a request that has one. Waits for its end: a stream that is answered before would have to be
/// reset, and a client may only cause so many resets.
async fn only_message(mut messages: Framer) -> Result<Message, Status> {
    let bad = |problem: &str| refusal(&CommandError::Undecodable { problem: problem.to_owned() });
    let broken = |error: CommandError| refusal(&error);
    let message = messages.next().await.ok_or_else(|| bad("the request is missing"))?.map_err(broken)?;
    match messages.next().await {
        None => Ok(message),
        Some(Ok(_)) => Err(bad("the call takes one request")),
        Some(Err(error)) => Err(broken(error)),
    }
}

/// The response of a session, which has rules of its own for slow clients.
fn at_its_own_pace(body: Body) -> Response<Body> {
    let mut response = framing::response(body);
    response.extensions_mut().insert(AtItsOwnPace);
    response
}

fn undecodable(error: &prost::DecodeError) -> Status {
    refusal(&CommandError::Undecodable { problem: format!("the request does not decode: {error}") })
}

/// The refusal of a call whose fields are at the top of its request.
fn refusal(error: &CommandError) -> Status {
    status::of_command(error, "").status()
}
