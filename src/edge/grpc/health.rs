//! `grpc.health.v1.Health`, as the specification has it: Watch on an unknown service stays open, and List is there.
//!
//! `liveness` says that the process runs and never depends on anything else; everything else says whether it serves.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use crate::{
    edge::wire::{
        forms::health::{HealthListRequest, HealthListResponse, health_server::Health},
        status,
    },
    model::limits::MAX_WATCHES,
    net::Connection,
    readiness::{Phase, ReadinessView},
};

/// Every name there is a status for; empty is the server as a whole.
const SERVICES: [&str; 9] = [
    "",
    "liveness",
    "readiness",
    "switchyard.v1.HubService",
    "switchyard.v1.StreamService",
    "switchyard.v1.GroupService",
    "switchyard.v1.SessionService",
    "switchyard.v1.BackupService",
    "switchyard.v1.AccessService",
];

/// Answers health checks from the phase of the process.
#[derive(Debug, Clone)]
pub(super) struct HealthService {
    readiness: ReadinessView,
}

impl HealthService {
    pub(super) fn new(readiness: ReadinessView) -> Self {
        Self { readiness }
    }
}

/// A service by its name; `None` for one that nobody knows, of which nothing is kept.
fn known(service: &str) -> Option<&'static str> {
    SERVICES.into_iter().find(|known| *known == service)
}

fn serving(service: Option<&str>, phase: Phase) -> ServingStatus {
    match (service, phase) {
        (None, _) => ServingStatus::ServiceUnknown,
        (Some("liveness"), _) | (_, Phase::Serving) => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match serving(known(&request.get_ref().service), self.readiness.phase()) {
            ServingStatus::ServiceUnknown => Err(status::unknown_service()),
            known => Ok(Response::new(response(known))),
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let phase = self.readiness.phase();
        let statuses: HashMap<_, _> =
            SERVICES.iter().map(|name| ((*name).to_owned(), response(serving(Some(name), phase)))).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Ends only when the hub stops. Whoever connects may watch, so it costs little, and not without end.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let connection = request.extensions().get::<Arc<Connection>>();
        let counted = connection.map(|connection| connection.open_watch(MAX_WATCHES));
        let permit = counted.map(|permit| permit.ok_or_else(|| status::too_many_watches(MAX_WATCHES))).transpose()?;
        let service = known(&request.get_ref().service);
        let mut last = None;
        let changes = self
            .readiness
            .phases()
            .take_while(|phase| *phase != Phase::Stopped)
            .map(move |phase| {
                // Counted as long as the stream is there.
                let _ = &permit;
                serving(service, phase)
            })
            .filter(move |status| last.replace(*status) != Some(*status))
            .map(|status| Ok(response(status)));
        Ok(Response::new(Box::pin(changes)))
    }
}
