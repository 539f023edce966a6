//! Who may call what: one row for every call of the main port, and the step before the services that keeps to it.
//!
//! A call without a row is refused, so one that is added is open to nobody until somebody says here what it needs. Rights that
//! depend on the request, such as which topic, are asked for by whoever serves it, of the [`Caller`] that this step
//! leaves in the extensions of the request.

use std::sync::Arc;

use http::{Extensions, Request, header::AUTHORIZATION, uri::PathAndQuery};
use tonic::Status;

use crate::{
    auth::{Caller, Reflection, Verb},
    edge::{
        Door,
        wire::status::{self, shown},
    },
    model::Denial,
    net::Connection,
};

/// What a call needs before its request is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: probes have no credentials.
    Nothing,
    /// As the operator set it for reflection.
    Reflection,
    /// A credential. What the request asks for is judged as it is read.
    Credential,
    /// A credential, and the right to manage something of that kind. Which, is judged as the request is read.
    Manage(Verb),
}

/// What every call of the main port needs.
pub const CALLS: &[(&str, Needs)] = &[
    ("/grpc.health.v1.Health/Check", Needs::Nothing),
    ("/grpc.health.v1.Health/List", Needs::Nothing),
    ("/grpc.health.v1.Health/Watch", Needs::Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Needs::Reflection),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Needs::Reflection),
    ("/switchyard.v1.AccessService/Check", Needs::Credential),
    ("/switchyard.v1.AccessService/WhoAmI", Needs::Credential),
    ("/switchyard.v1.BackupService/Backup", Needs::Manage(Verb::Backup)),
    ("/switchyard.v1.HubService/GetHub", Needs::Credential),
    ("/switchyard.v1.HubService/Publish", Needs::Credential),
    ("/switchyard.v1.HubService/Session", Needs::Credential),
    ("/switchyard.v1.HubService/Subscribe", Needs::Credential),
    ("/switchyard.v1.SessionService/GetSession", Needs::Manage(Verb::Sessions)),
    ("/switchyard.v1.SessionService/ListSessions", Needs::Manage(Verb::Sessions)),
    ("/switchyard.v1.SessionService/TerminateSession", Needs::Manage(Verb::Sessions)),
    ("/switchyard.v1.StreamService/CreateStream", Needs::Manage(Verb::Streams)),
    ("/switchyard.v1.StreamService/DeleteStream", Needs::Manage(Verb::Streams)),
    ("/switchyard.v1.StreamService/GetEvent", Needs::Credential),
    ("/switchyard.v1.StreamService/GetStream", Needs::Credential),
    ("/switchyard.v1.StreamService/ListEvents", Needs::Credential),
    ("/switchyard.v1.StreamService/ListStreams", Needs::Credential),
    ("/switchyard.v1.StreamService/ListTopics", Needs::Credential),
    ("/switchyard.v1.StreamService/PurgeStream", Needs::Manage(Verb::Streams)),
    ("/switchyard.v1.StreamService/UpdateStream", Needs::Manage(Verb::Streams)),
    ("/switchyard.v1.GroupService/CreateGroup", Needs::Manage(Verb::Groups)),
    ("/switchyard.v1.GroupService/DeleteGroup", Needs::Manage(Verb::Groups)),
    ("/switchyard.v1.GroupService/GetGroup", Needs::Credential),
    ("/switchyard.v1.GroupService/ListDeadLetters", Needs::Credential),
    ("/switchyard.v1.GroupService/ListGroups", Needs::Credential),
    ("/switchyard.v1.GroupService/ListMembers", Needs::Credential),
    ("/switchyard.v1.GroupService/ListUnacked", Needs::Credential),
    ("/switchyard.v1.GroupService/PurgeDeadLetters", Needs::Manage(Verb::DeadLetters)),
    ("/switchyard.v1.GroupService/RedriveDeadLetters", Needs::Manage(Verb::DeadLetters)),
    ("/switchyard.v1.GroupService/SeekGroup", Needs::Manage(Verb::Groups)),
    ("/switchyard.v1.GroupService/UpdateGroup", Needs::Manage(Verb::Groups)),
];

/// Sees to it that every call has what it needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access {
    door: Door,
    reflection: Reflection,
}

impl Access {
    /// Callers come in by `door`; where it asks for no credential, everything is open but what is switched off.
    pub fn new(door: Door, reflection: Reflection) -> Self {
        Self { door, reflection }
    }

    /// By which callers come in.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// Judges a request: what its call needs, which the caller has; `None` if there is no such call. One whose caller is
    /// known bears it from here on.
    pub(super) async fn admit<B>(&self, request: &mut Request<B>) -> Result<Option<Needs>, Status> {
        let path = name(request);
        let row = CALLS.iter().find(|(call, _)| *call == path);
        let needs = row.map(|(_, needs)| *needs);
        if needs == Some(Needs::Reflection) && self.reflection == Reflection::Off {
            return Err(status::unimplemented("reflection is switched off"));
        }
        let open = !self.door.asks()
            || needs == Some(Needs::Nothing)
            || (needs == Some(Needs::Reflection) && self.reflection == Reflection::Open);
        if open {
            return Ok(needs);
        }
        let call = row.map_or("an unknown call", |(call, _)| call);
        let refused = |denial: Denial| status::of_denial(denial).status();
        let caller = {
            let connection = request.extensions().get::<Arc<Connection>>();
            self.door.admit(call, authorization(request), connection.map(AsRef::as_ref)).await.map_err(refused)?
        };
        if let Some(Needs::Manage(verb)) = needs {
            caller.authorize_verb(verb).map_err(refused)?;
        }
        request.extensions_mut().insert(caller);
        Ok(needs)
    }

    /// The caller of a request. Where credentials are needed and the step before the services was missed, nobody may do anything.
    pub(super) fn caller(&self, extensions: &Extensions, call: &'static str) -> Result<Caller, Denial> {
        match extensions.get::<Caller>() {
            Some(caller) => Ok(caller.clone()),
            None if self.door.asks() => Err(Denial::Missing),
            None => Ok(Caller::nobody(call, extensions.get::<Arc<Connection>>().map(|connection| connection.peer()))),
        }
    }
}

/// The name of a request's call. Whatever follows a `?` is part of it: no call has a query.
fn name<B>(request: &Request<B>) -> &str {
    request.uri().path_and_query().map_or("", PathAndQuery::as_str)
}

/// Says which part of a call's name nobody knows.
pub(super) fn unknown_call<B>(request: &Request<B>) -> Status {
    let path = name(request);
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return status::unimplemented(format!("{} is not the name of a call", shown(path)));
    };
    let is_known =
        |call: &str| call.strip_prefix('/').and_then(|call| call.split_once('/')).is_some_and(|c| c.0 == service);
    status::unimplemented(if CALLS.iter().any(|(call, _)| is_known(call)) {
        format!("unknown method {} for service {service}", shown(method))
    } else {
        format!("unknown service {}", shown(service))
    })
}

/// The header that bears a credential. Two headers are ambiguous and count as invalid.
fn authorization<B>(request: &Request<B>) -> Option<&[u8]> {
    let mut all = request.headers().get_all(AUTHORIZATION).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Some(one.as_bytes()),
        (Some(_), Some(_)) => Some(b""),
        (None, _) => None,
    }
}
