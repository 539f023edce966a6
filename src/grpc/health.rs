//! `grpc.health.v1.Health`, as the specification has it: Watch on an unknown service stays open, and List is there.
//!
//! `liveness` says that the process runs and never depends on anything else; everything else says whether it serves.

use std::{collections::HashMap, pin::Pin};

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::{
    status,
    wire::health::{HealthListRequest, HealthListResponse, health_server::Health},
};
use crate::readiness::{Phase, ReadinessView};

/// Every name there is a status for; empty is the server as a whole.
const SERVICES: [&str; 7] = [
    "",
    "liveness",
    "readiness",
    "switchyard.v1.HubService",
    "switchyard.v1.StreamService",
    "switchyard.v1.GroupService",
    "switchyard.v1.SessionService",
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

fn serving(service: &str, phase: Phase) -> ServingStatus {
    match (service, phase) {
        (unknown, _) if !SERVICES.contains(&unknown) => ServingStatus::ServiceUnknown,
        ("liveness", _) | (_, Phase::Serving) => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match serving(&request.get_ref().service, self.readiness.phase()) {
            ServingStatus::ServiceUnknown => Err(status::unknown_service()),
            known => Ok(Response::new(response(known))),
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let phase = self.readiness.phase();
        let statuses: HashMap<_, _> =
            SERVICES.iter().map(|name| ((*name).to_owned(), response(serving(name, phase)))).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Ends only when the hub stops.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let mut last = None;
        let changes = self
            .readiness
            .phases()
            .take_while(|phase| *phase != Phase::Stopped)
            .map(move |phase| serving(&service, phase))
            .filter(move |status| last.replace(*status) != Some(*status))
            .map(|status| Ok(response(status)));
        Ok(Response::new(Box::pin(changes)))
    }
}
