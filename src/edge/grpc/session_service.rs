//! `switchyard.v1.SessionService`: who is connected, how far each is behind, and ending one.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    access::Access,
    stream_service::{MAX_PAGE, MAX_PAGE_BYTES, Refusal, field, page_size},
    wire::v1::{self as wire, session_service_server},
};
use crate::{
    auth::Action,
    hub::{Hub, Kind, OpenSession},
    model::{
        CommandError,
        limits::{MAX_CLIENT_NAME_BYTES, MAX_PRINCIPAL_BYTES, MAX_SESSION_ID_BYTES},
    },
    outbox::SubscriptionStatus,
};

/// What a session is shown with besides its id and the names of its principal and its client, in bytes: its peer, numbers, a
/// time.
const MOST_OF_THE_REST_BYTES: usize = 256;
const _: () = assert!(
    MAX_PAGE as usize * (MAX_SESSION_ID_BYTES + MAX_PRINCIPAL_BYTES + MAX_CLIENT_NAME_BYTES + MOST_OF_THE_REST_BYTES)
        <= MAX_PAGE_BYTES,
    "the largest page of sessions is no larger than any other"
);

/// Serves the calls of `SessionService`.
#[derive(Debug)]
pub(super) struct SessionService {
    hub: Arc<Hub>,
    access: Access,
}

impl SessionService {
    pub(super) fn new(hub: Arc<Hub>, access: Access) -> Self {
        Self { hub, access }
    }

    /// Whether the caller may look at sessions and end them.
    fn authorize<T>(&self, request: &Request<T>, call: &'static str) -> Result<(), Refusal> {
        Ok(self.access.caller(request.extensions(), call)?.authorize(&Action::ManageSessions)?)
    }

    fn list(&self, asked: &wire::ListSessionsRequest) -> Result<wire::ListSessionsResponse, Refusal> {
        let after = page_token(&asked.page_token)?;
        let (page, next) = self.hub.list_sessions(after, page_size(asked.page_size)?);
        let sessions = page.iter().map(|session| shown(session)).collect();
        Ok(wire::ListSessionsResponse { sessions, next_page_token: told(next) })
    }

    fn get(&self, asked: &wire::GetSessionRequest) -> Result<wire::GetSessionResponse, Refusal> {
        let session = self.hub.find_session(&asked.session_id)?;
        // A slot is a place in a table of this process.
        let from = usize::try_from(page_token(&asked.page_token)?).unwrap_or(usize::MAX);
        let (page, next) = session.statuses(from, page_size(asked.page_size)?);
        let subscriptions = page.into_iter().map(|status| self.shown_subscription(status)).collect();
        let next_page_token = told(next.map(|slot| slot as u64));
        Ok(wire::GetSessionResponse { session: Some(shown(&session)), subscriptions, next_page_token })
    }

    fn shown_subscription(&self, status: SubscriptionStatus) -> wire::SubscriptionState {
        let (stream, sequence, lag) = status.position.map_or_else(Default::default, |position| {
            let name = position.origin.stream.to_string();
            let stream = self.hub.engine().and_then(|engine| engine.stream(&name));
            let latest = stream.filter(|stream| stream.epoch() == position.origin.epoch).map(|s| s.state().latest);
            let lag = latest.unwrap_or_default().saturating_sub(position.sequence);
            (name, position.sequence.cast_signed(), lag.cast_signed())
        });
        wire::SubscriptionState {
            subscription_id: status.subscription_id,
            waiting_events: count(status.waiting_events),
            waiting_bytes: count(status.waiting_bytes),
            credit: status.credit.map(|grant| wire::Credit { events: grant.events, bytes: grant.bytes }),
            credit_blocked: status.credit_blocked,
            stream,
            sequence,
            lag,
            group_member: status.group_member,
        }
    }
}

#[tonic::async_trait]
impl session_service_server::SessionService for SessionService {
    async fn list_sessions(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        self.authorize(&request, "ListSessions")?;
        Ok(Response::new(self.list(request.get_ref())?))
    }

    async fn get_session(
        &self,
        request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::GetSessionResponse>, Status> {
        self.authorize(&request, "GetSession")?;
        Ok(Response::new(self.get(request.get_ref())?))
    }

    async fn terminate_session(
        &self,
        request: Request<wire::TerminateSessionRequest>,
    ) -> Result<Response<wire::TerminateSessionResponse>, Status> {
        self.authorize(&request, "TerminateSession")?;
        let asked = request.get_ref();
        self.hub.terminate_session(&asked.session_id, &asked.reason).map_err(Refusal::from)?;
        Ok(Response::new(wire::TerminateSessionResponse {}))
    }
}

fn shown(session: &OpenSession) -> wire::Session {
    let kind = match session.kind() {
        Kind::Many => wire::SessionKind::Session,
        Kind::One => wire::SessionKind::Subscribe,
    };
    wire::Session {
        session_id: session.id().to_owned(),
        kind: kind.into(),
        peer: session.peer().map_or_else(String::new, |peer| peer.to_string()),
        principal: session.principal().to_owned(),
        client_name: session.client_name().map_or_else(String::new, ToString::to_string),
        create_time: Some(session.opened().into()),
        subscriptions: count(session.subscriptions()),
        waiting_bytes: count(session.waiting_bytes()),
    }
}

/// Where a page begins; tokens are numbers that mean nothing to clients.
fn page_token(token: &str) -> Result<u64, CommandError> {
    match token {
        "" => Ok(0),
        token => token.parse().map_err(|_| field("page_token", "was not issued by this hub")),
    }
}

fn told(next: Option<u64>) -> String {
    next.map_or_else(String::new, |next| next.to_string())
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
