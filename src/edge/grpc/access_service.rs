//! `switchyard.v1.AccessService`: as whom the hub knows a caller, and what that may do.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::access::Access;
use crate::{
    auth::{Action, Caller},
    edge::wire::{
        command::filters,
        forms::v1::{self as wire, access_service_server},
        frames::reason,
        request::{Refusal, field, group_name, stream_name},
        status,
    },
    hub::Hub,
    manage::access::{self, Known},
    model::{CommandError, Topic},
};

/// Serves the calls of `AccessService`.
#[derive(Debug)]
pub(super) struct AccessService {
    hub: Arc<Hub>,
    access: Access,
}

impl AccessService {
    pub(super) fn new(hub: Arc<Hub>, access: Access) -> Self {
        Self { hub, access }
    }

    fn caller<T>(&self, request: &Request<T>, call: &'static str) -> Result<Caller, Refusal> {
        Ok(self.access.caller(request.extensions(), call)?)
    }

    /// Whether a caller may do what it asks about; an error when that is no question.
    fn judge(&self, caller: &Caller, asked: &wire::CheckRequest) -> Result<Result<(), CommandError>, CommandError> {
        use wire::AccessAction as Asked;
        let check = |action: &Action<'_>| access::check(caller, action).map_err(CommandError::from);
        let group = (!asked.group.is_empty()).then_some(asked.group.as_str());
        if group.is_some() {
            group_name("group", &asked.group)?;
        }
        let named = || {
            let (stream, group) = (stream_name("stream", &asked.stream)?, group_name("group", &asked.group)?);
            Ok::<_, CommandError>((stream, group))
        };
        Ok(match Asked::try_from(asked.action) {
            Ok(Asked::Unspecified) | Err(_) => return Err(field("action", "is missing or unknown")),
            Ok(Asked::Publish) => {
                let topic = Topic::parse(asked.topic.as_bytes());
                check(&Action::Publish(topic.map_err(|error| field("topic", format!("is not a topic: {error}")))?))
            }
            Ok(Asked::Subscribe) => check(&Action::Subscribe { filters: &filters(&asked.filters)?, group }),
            Ok(Asked::Read) => {
                let name = stream_name("stream", &asked.stream)?;
                if asked.filters.is_empty() {
                    access::check_read_all(&self.hub, caller, &name, group)
                } else {
                    check(&Action::Read { stream: name.as_str(), filters: &filters(&asked.filters)?, group })
                }
            }
            Ok(Asked::SeeStream) => check(&Action::SeeStream(stream_name("stream", &asked.stream)?.as_str())),
            Ok(Asked::SeeGroup) => {
                let (stream, group) = named()?;
                check(&Action::SeeGroup { stream: stream.as_str(), group: group.as_str() })
            }
            Ok(Asked::ManageStream) => check(&Action::ManageStream(stream_name("stream", &asked.stream)?.as_str())),
            Ok(Asked::AddTopics) => check(&Action::TakeTopics(&filters(&asked.filters)?)),
            Ok(Asked::ManageGroup) => {
                let (stream, group) = named()?;
                check(&Action::ManageGroup { stream: stream.as_str(), group: group.as_str() })
            }
            Ok(Asked::ManageDeadLetters) => {
                let (stream, group) = named()?;
                check(&Action::ManageDeadLetters { stream: stream.as_str(), group: group.as_str() })
            }
            Ok(Asked::ManageSessions) => check(&Action::ManageSessions),
            Ok(Asked::Backup) => check(&Action::Backup),
        })
    }
}

#[tonic::async_trait]
impl access_service_server::AccessService for AccessService {
    async fn who_am_i(&self, request: Request<wire::WhoAmIRequest>) -> Result<Response<wire::WhoAmIResponse>, Status> {
        let Known { principal, authenticated, roles, expires, peer } =
            access::who_am_i(&self.caller(&request, "WhoAmI")?);
        Ok(Response::new(wire::WhoAmIResponse {
            principal: principal.to_string(),
            authenticated,
            roles: roles.items.into_iter().map(String::from).collect(),
            more_roles: roles.more,
            credential_expiry: expires.map(Into::into),
            peer: peer.map_or_else(String::new, |peer| peer.to_string()),
        }))
    }

    async fn check(&self, request: Request<wire::CheckRequest>) -> Result<Response<wire::CheckResponse>, Status> {
        let caller = self.caller(&request, "Check")?;
        Ok(Response::new(match self.judge(&caller, request.get_ref()).map_err(Refusal::from)? {
            Ok(()) => wire::CheckResponse { allowed: true, ..Default::default() },
            Err(error) => {
                let fault = status::of_command(&error, "");
                let text = fault.message().message;
                wire::CheckResponse { allowed: false, reason: reason(fault.reason).into(), text }
            }
        }))
    }
}
