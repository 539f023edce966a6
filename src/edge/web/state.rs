//! What all doors of the web listener share.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, OnceLock},
};

use axum::{extract::Request, response::Response};
use tower::util::BoxCloneSyncService;

use super::{bridge::Bridge, messages::Messages, options::Options, parked::Kept, ticket::Tickets, waiters::Waiters};
use crate::{
    edge::Door,
    hub::Hub,
    json::Forms,
    net,
    session::Park,
    tasks::{OnPanic, Tasks},
};

/// The services of gRPC, as the composition root hands them in.
pub type Grpc = BoxCloneSyncService<Request, Response<tonic::body::Body>, Infallible>;

/// What all doors of the web listener share.
pub struct Web {
    pub(super) door: Door,
    pub(super) options: Options,
    /// What runs the sessions of its clients.
    pub(super) tasks: Tasks,
    pub(super) tickets: Tickets,
    /// Of the connections it is on.
    pub(super) connections: Arc<net::Options>,
    /// The JSON of events, which many get.
    pub(super) forms: Arc<Forms>,
    pub(super) messages: Messages,
    pub(super) waiters: Arc<Waiters>,
    /// The sessions of polls.
    pub(super) park: Arc<Park<Kept>>,
    /// Their time is kept.
    parking: OnceLock<()>,
    /// For those who speak gRPC-Web or Connect.
    pub(super) bridge: Bridge<Grpc>,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Web {
    /// Behind a door, with the services of gRPC beside it.
    pub fn new(
        door: Door,
        options: Options,
        connections: Arc<net::Options>,
        tasks: Tasks,
        bridge: Bridge<Grpc>,
    ) -> Arc<Self> {
        let (forms, messages, tickets) = (Arc::default(), Messages::find(), Tickets::default());
        let waiters = Waiters::new(options.max_polls, options.max_polls_per_principal);
        let (park, parking) = (Park::new(options.parked()), OnceLock::new());
        Arc::new(Self { door, options, tasks, tickets, connections, forms, messages, waiters, park, parking, bridge })
    }

    /// From now on sessions that are set aside end in time.
    pub(super) fn keep_parked(&self, hub: &Arc<Hub>) {
        self.parking.get_or_init(|| {
            let (park, hub) = (Arc::clone(&self.park), Arc::clone(hub));
            self.tasks.spawn("parked sessions", OnPanic::Stop, async move { park.keep_time(&hub).await });
        });
    }
}
