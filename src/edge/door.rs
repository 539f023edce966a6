//! The door of every edge: who may come in, whether there is a hub to come in to yet, and what a session is opened on.
//!
//! An edge reads the credential in its own way and words its refusals in its own way; that a caller is known before
//! anything is done for it, and that its sessions are counted and accounted for, is decided here.

use std::sync::{Arc, OnceLock};

use crate::{
    auth::{Auth, Caller, Shown},
    cut::Cut,
    hub::{Hub, Kind},
    memory::Client,
    model::{CommandError, Denial, StreamError},
    net::{Connection, SessionPermit},
    readiness::{Phase, ReadinessView},
    session::Session,
};

/// Lets callers in. Cheap to clone; all edges of a hub have the same.
#[derive(Debug, Clone)]
pub struct Door {
    auth: Option<Arc<Auth>>,
    readiness: ReadinessView,
    hub: Arc<OnceLock<Arc<Hub>>>,
}

impl Door {
    /// One behind which there is no hub yet. Without `auth` everyone is nobody in particular, and comes in.
    pub fn new(auth: Option<Arc<Auth>>, readiness: ReadinessView) -> Self {
        Self { auth, readiness, hub: Arc::default() }
    }

    /// From now on the hub is behind it.
    pub fn open(&self, hub: Arc<Hub>) {
        self.hub.get_or_init(|| hub);
    }

    /// The hub, once its store is open.
    pub fn hub(&self) -> Result<&Arc<Hub>, StreamError> {
        self.hub.get().ok_or(StreamError::Recovering)
    }

    /// How far the process has come: one that is draining wants no new clients.
    pub fn phase(&self) -> Phase {
        self.readiness.phase()
    }

    /// Whether callers have to show a credential.
    pub fn asks(&self) -> bool {
        self.auth.is_some()
    }

    /// The caller with this credential, the value of a header `authorization`, or with the certificate of its connection.
    /// `call` names in the record what is asked for.
    pub async fn admit(
        &self,
        call: &'static str,
        credential: Option<&[u8]>,
        connection: Option<&Connection>,
    ) -> Result<Caller, Denial> {
        let peer = connection.map(Connection::peer);
        let Some(auth) = &self.auth else { return Ok(Caller::nobody(call, peer)) };
        let certificate = connection.and_then(Connection::peer_certificate);
        auth.authenticate(call, Shown { header: credential, certificate, peer }).await
    }
}

/// A session that is about to be opened: it counts as one of its connection from here on, also while its client has yet
/// to say what it wants.
#[derive(Debug)]
pub struct Opening {
    hub: Arc<Hub>,
    permit: Option<SessionPermit>,
    client: Arc<Client>,
    cut: Option<Arc<Cut>>,
}

impl Opening {
    /// On a connection, unless that has as many sessions as it may have. `cut` ends the session when its client takes nothing.
    pub fn new(
        hub: &Arc<Hub>,
        connection: Option<&Arc<Connection>>,
        cut: Option<Arc<Cut>>,
    ) -> Result<Self, CommandError> {
        let limit = hub.options().max_per_connection;
        let permit = match connection {
            Some(connection) => {
                let permit = connection.open_session(limit);
                Some(permit.ok_or(CommandError::TooManySessions { whole: "connection", limit })?)
            }
            None => None,
        };
        Ok(Self { hub: Arc::clone(hub), permit, client: client_of(hub, connection), cut })
    }

    /// Who accounts for what its client makes the hub keep.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Opens it for a caller. It counts while the permit lives.
    pub fn open(self, kind: Kind, caller: Caller) -> Result<(Session, Option<SessionPermit>), CommandError> {
        Ok((Session::open(&self.hub, kind, self.cut, caller, &self.client)?, self.permit))
    }
}

/// Who accounts for what the client of a connection makes the hub keep.
pub fn client_of(hub: &Hub, connection: Option<&Arc<Connection>>) -> Arc<Client> {
    connection.map_or_else(|| hub.memory().client(), |connection| Arc::clone(connection.memory()))
}
