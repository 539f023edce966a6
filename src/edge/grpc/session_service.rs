//! `switchyard.v1.SessionService`: who is connected, how far each is behind, and ending one.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::access::Access;
use crate::{
    auth::Caller,
    edge::wire::{
        forms::v1::{self as wire, session_service_server},
        request::{Refusal, field, page_size},
    },
    hub::{Hub, Kind, OpenSession},
    manage::sessions::{Sessions, SubscriptionProgress},
    model::{CommandError, Labels},
    outbox::Place,
};

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

    fn caller<T>(&self, request: &Request<T>, call: &'static str) -> Result<Caller, Refusal> {
        Ok(self.access.caller(request.extensions(), call)?)
    }

    fn list(&self, caller: &Caller, asked: &wire::ListSessionsRequest) -> Result<wire::ListSessionsResponse, Refusal> {
        let sessions = Sessions::to_manage(&self.hub, caller)?;
        let (after, size) = (page_token(&asked.page_token)?, page_size(asked.page_size)?);
        let (sessions, next) = sessions.list(after, size, |session| self.shown(session), Message::encoded_len);
        Ok(wire::ListSessionsResponse { sessions, next_page_token: told(next) })
    }

    async fn get(&self, caller: &Caller, asked: &wire::GetSessionRequest) -> Result<wire::GetSessionResponse, Refusal> {
        let sessions = Sessions::to_manage(&self.hub, caller)?;
        let session = sessions.find(&asked.session_id)?;
        // A slot is a place in a table of this process.
        let from = usize::try_from(page_token(&asked.page_token)?).unwrap_or(usize::MAX);
        let size = page_size(asked.page_size)?;
        let page = sessions.subscriptions(&session, from, size, shown_subscription, Message::encoded_len);
        let (subscriptions, next) = page.await;
        let next_page_token = told(next.map(|slot| slot as u64));
        Ok(wire::GetSessionResponse { session: Some(self.shown(&session)), subscriptions, next_page_token })
    }

    fn shown(&self, session: &OpenSession) -> wire::Session {
        let traffic = session.traffic(self.hub.uptime());
        let kind = match session.kind() {
            Kind::Many => wire::SessionKind::Session,
            Kind::One => wire::SessionKind::Subscribe,
        };
        let labels = session.labels().into_iter().flat_map(Labels::pairs);
        wire::Session {
            session_id: session.id().to_owned(),
            kind: kind.into(),
            peer: session.peer().map_or_else(String::new, |peer| peer.to_string()),
            principal: session.principal().to_owned(),
            client_name: session.client_name().map_or_else(String::new, ToString::to_string),
            create_time: Some(session.opened().into()),
            subscriptions: count(session.subscriptions()),
            waiting_bytes: count(session.waiting_bytes()),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            sent_events: traffic.sent.cast_signed(),
            published_events: traffic.published.cast_signed(),
            sent_events_per_second: traffic.sent_per_second,
            published_events_per_second: traffic.published_per_second,
        }
    }

    fn terminate(&self, caller: &Caller, asked: &wire::TerminateSessionRequest) -> Result<(), Refusal> {
        let sessions = Sessions::to_manage(&self.hub, caller)?;
        Ok(sessions.terminate(&asked.session_id, &asked.reason)?)
    }
}

#[tonic::async_trait]
impl session_service_server::SessionService for SessionService {
    async fn list_sessions(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        let caller = self.caller(&request, "ListSessions")?;
        Ok(Response::new(self.list(&caller, request.get_ref())?))
    }

    async fn get_session(
        &self,
        request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::GetSessionResponse>, Status> {
        let caller = self.caller(&request, "GetSession")?;
        Ok(Response::new(self.get(&caller, request.get_ref()).await?))
    }

    async fn terminate_session(
        &self,
        request: Request<wire::TerminateSessionRequest>,
    ) -> Result<Response<wire::TerminateSessionResponse>, Status> {
        let caller = self.caller(&request, "TerminateSession")?;
        self.terminate(&caller, request.get_ref())?;
        Ok(Response::new(wire::TerminateSessionResponse {}))
    }
}

fn shown_subscription(progress: SubscriptionProgress) -> wire::SubscriptionState {
    let SubscriptionProgress { status, filters, stream, group, lag, unacked } = progress;
    let sequence = match &status.place {
        Place::Stream { position, .. } => position.sequence,
        Place::Live(_) | Place::Member { .. } => 0,
    };
    let told = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    wire::SubscriptionState {
        subscription_id: status.subscription_id,
        waiting_events: count(status.waiting_events),
        waiting_bytes: count(status.waiting_bytes),
        credit: status.credit.map(|grant| wire::Credit { events: grant.events, bytes: grant.bytes }),
        credit_blocked: status.credit_blocked,
        stream: stream.map_or_else(String::new, |stream| stream.to_string()),
        sequence: sequence.cast_signed(),
        lag: lag.cast_signed(),
        group_member: matches!(status.place, Place::Member { .. }),
        filters,
        group: group.map_or_else(String::new, |group| group.as_str().to_owned()),
        unacked: unacked.map(told),
        sent_events: status.sent_events.map(told),
        events_left: status.events_left.map(told),
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
