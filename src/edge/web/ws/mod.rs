//! WebSocket: a whole session over one connection (RFC 6455), or over a stream of HTTP/2 (RFC 8441).
//!
//! A message is a frame of the contract, in protobuf or in JSON. The room owns the protocol, from the bytes of a client to the
//! messages of a session and back: masks, fragments, pings, closes and their codes, and what all of that may cost. The code is
//! its own since no library works on both transports without a buffer for every idle connection (docs/adr/0033-websocket.md).
//! It decides nothing about events: the session is that of every edge.
//!
//! A connection has two halves. The reader ([`messages`]) is polled by the task of the session; the sender ([`sender`]) where
//! the connection or the stream is driven; [`line`] is between them.

mod alive;
mod closing;
mod commands;
mod decoder;
mod encoding;
mod frame;
mod handshake;
mod line;
mod messages;
mod output;
mod sender;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod transport;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};

use http::Extensions;

use super::state::Web;
use crate::{
    auth::Caller,
    edge::{
        Opening,
        wire::{
            buffer::Lender,
            head::Frames,
            requests::Requests,
            status::{self, Fault},
        },
    },
    event::EventIds,
    hub::{Hub, Kind},
    memory::Client,
    model::CommandError,
    net::{Ahead, AtItsOwnPace, SessionPermit, Takeover},
    session::Session,
    tasks::{OnPanic, Tasks},
};
use alive::Alive;
use commands::{Commands, Protobuf};
use encoding::{Encoding, Json};
use handshake::Handshake;
use line::Line;
use messages::Messages;
use output::Output;
use sender::{Next, Sender};
use source::{Socket, Source, Tunnel};
use transport::SenderBody;

/// Begins a session. What hinders it is said over the WebSocket: pages do not learn of a status of HTTP.
pub(super) async fn serve(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let shake = match Handshake::of(&request) {
        Ok(shake) => shake,
        Err(refusal) => return refusal.into_response(),
    };
    let (parts, body) = request.into_parts();
    let encoding = match shake.protocol {
        handshake::JSON => Encoding::Json(Json { messages: web.messages, forms: Arc::clone(&web.forms) }),
        _ => Encoding::Protobuf,
    };
    let refused = |fault| {
        let closing = closing::of_refusal(&fault, &encoding);
        let next = move |_: &mut Context<'_>| Poll::Ready(Next::Close(closing.clone()));
        Sender::new(next, Arc::default(), alive(&web), web.connections.response_timeout())
    };
    let opened = Opened::new(&web, &parts.extensions, caller);
    if shake.upgrades() {
        let takeover = match opened {
            Ok(opened) => Takeover::new(move |upgraded| {
                let (read, write) = tokio::io::split(upgraded);
                transport::send(opened.begin(Socket(read), encoding, alive(&web)), write)
            }),
            Err(fault) => {
                let sender = refused(fault);
                Takeover::new(move |upgraded| transport::send(sender, upgraded))
            }
        };
        let mut response = shake.response(Body::empty());
        response.extensions_mut().insert(takeover);
        return response;
    }
    let body = match opened {
        Ok(opened) => Body::new(SenderBody::new(opened.begin(Tunnel(body), encoding, alive(&web)))),
        Err(fault) => Body::new(SenderBody::new(refused(fault))),
    };
    let mut response = shake.response(body);
    response.extensions_mut().insert(AtItsOwnPace);
    response
}

/// The time of a connection, which begins now.
fn alive(web: &Web) -> Alive {
    Alive::new(web.connections.keepalive_interval(), web.connections.keepalive_timeout())
}

/// A session that has been opened, on a connection that does not speak WebSocket yet.
struct Opened {
    session: Session,
    permit: Option<SessionPermit>,
    hub: Arc<Hub>,
    client: Arc<Client>,
    ahead: Option<Ahead>,
    tasks: Tasks,
}

impl Opened {
    fn new(web: &Web, extensions: &Extensions, caller: Caller) -> Result<Self, Fault> {
        let hub = web.door.hub().map_err(|error| status::of_stream(&error))?;
        let refused = |error: CommandError| status::of_command(&error, "");
        let opening = Opening::new(hub, extensions.get(), extensions.get().cloned()).map_err(refused)?;
        let client = Arc::clone(opening.client());
        let (session, permit) = opening.open(Kind::Many, caller).map_err(refused)?;
        let (ahead, tasks) = (extensions.get().cloned(), web.tasks.clone());
        Ok(Self { session, permit, hub: Arc::clone(hub), client, ahead, tasks })
    }

    /// Runs it on what comes from a client. Gives what goes to it.
    fn begin(
        self,
        source: impl Source + 'static,
        encoding: Encoding,
        alive: Alive,
    ) -> Sender<impl FnMut(&mut Context<'_>) -> Poll<Next> + Unpin> {
        let Self { session, permit, hub, client, ahead, tasks } = self;
        let line = Arc::<Line>::default();
        // Of JSON nobody knows what it is before it is read.
        let publishes = encoding.kind() == frame::Kind::Binary && hub.keeps_streams();
        let publishes = publishes.then(|| (Arc::clone(&hub), Frames::Commands));
        let lender = Lender { client: Arc::clone(&client), publishes };
        let (timeout, write_timeout) = (hub.options().frame_timeout(), hub.options().write_timeout());
        let messages = Messages::new(source, Some(encoding.kind()), Arc::clone(&line), lender, timeout);
        let ids = EventIds::new(session.id());
        let requests = Requests::new(Protobuf::new(messages, &encoding), hub, client, ids);
        let mut output = Output::new(session.outlet(), encoding, Arc::clone(&line), permit);
        let commands = Commands::new(requests, ahead, Arc::clone(&line));
        tasks.spawn_beside("session", OnPanic::Log, session.run(commands));
        Sender::new(move |context| output.poll_next(context), line, alive, write_timeout)
    }
}
