//! What the polls of streams and those of sessions have in common: who asks, and how they are answered.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use http::request::Parts;

use super::page::Page;
use crate::{
    auth::Caller,
    edge::{
        client_of,
        web::{body::kept, messages::Messages, refusal::Refusal, state::Web},
        wire::status,
    },
    hub::Hub,
    memory::Client,
    model::{CommandError, Denial},
    net::Connection,
    outbox::{Frame, Gap},
};

/// Shorter than what most proxies wait.
pub(super) const USUAL_WAIT: Duration = Duration::from_secs(25);

/// Who asks, and where it is accounted for.
pub(super) struct Asker<'a> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) caller: Caller,
    pub(super) client: Arc<Client>,
}

impl<'a> Asker<'a> {
    pub(super) fn of(web: &'a Web, head: &Parts) -> Result<Self, CommandError> {
        let hub = web.door.hub()?;
        let caller = head.extensions.get::<Caller>().cloned().ok_or(Denial::Missing)?;
        let client = client_of(hub, head.extensions.get::<Arc<Connection>>());
        Ok(Self { hub, caller, client })
    }
}

/// A gap as JSON.
pub(super) fn gap_json(messages: &Messages, hub: &Hub, gap: Gap) -> Result<String, Refusal> {
    let frame = Frame::Gap { subscription_id: 0, gap };
    Ok(messages.named(frame, hub.tokens())?.1)
}

/// A refusal of the whole poll.
pub(super) fn refused(error: CommandError) -> Refusal {
    status::of_command(&error, "").into()
}

/// The response with all that is on a page.
pub(super) fn answer(hub: &Hub, page: Page, cursor: &str, members: &[(&'static str, String)]) -> Response {
    let (events, event_bytes) = page.counts();
    let (bytes, held, headers) = page.finish(cursor, members);
    hub.metrics().sent(events, event_bytes, bytes.len());
    let mut response = Response::new(kept(bytes, held));
    *response.headers_mut() = headers;
    response
}
