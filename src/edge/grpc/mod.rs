//! gRPC: HTTP requests to messages of the contract, and responses to what gRPC makes of them.
//!
//! The room owns the services of the main port, who may call them, and gRPC's framing; what a message means is in
//! [`wire`](super::wire), which other edges share. It decides nothing: routing, credit and ends are the session's, who may
//! manage what, and how, is `manage`'s, connections are the net's.

mod access;
mod access_service;
mod backup_service;
mod deadline;
mod entry;
mod framing;
mod group_service;
mod health;
mod hub_service;
mod hub_status;
mod limit;
mod reflection;
mod response;
mod session_body;
mod session_service;
mod stream_service;

use std::sync::Arc;

pub use access::{Access, CALLS, Needs};
pub use entry::Entry;
use tonic::service::Routes;

use super::wire::{
    forms::{
        health::health_server::HealthServer,
        v1::{
            access_service_server::AccessServiceServer, backup_service_server::BackupServiceServer,
            group_service_server::GroupServiceServer, session_service_server::SessionServiceServer,
            stream_service_server::StreamServiceServer,
        },
    },
    status,
};
use crate::{
    hub::Hub,
    model::{Reason, limits},
    readiness::ReadinessView,
    tasks::Tasks,
};
use access_service::AccessService;
use backup_service::BackupService;
use group_service::GroupService;
use health::HealthService;
use hub_service::HubService;
use limit::Limits;
use reflection::Descriptors;
use session_service::SessionService;
use stream_service::StreamService;

/// Requests of small services are no larger than this, in bytes.
const SMALL_REQUEST_BYTES: usize = 64 * 1024;

/// Requests about streams, and about what a caller may do, may have as many filters, each as long, as a stream may have. What
/// else is in one is small.
const STREAM_REQUEST_BYTES: usize = 128 * 1024;
const _: () = assert!(limits::MAX_STREAM_FILTERS * (limits::MAX_NAME_BYTES + 3) + 1024 < STREAM_REQUEST_BYTES);

/// Requests about groups may name ten thousand dead letters, of ten bytes at most each.
const GROUP_REQUEST_BYTES: usize = 256 * 1024;

/// The name of the gRPC code that a reason comes with, as docs/errors.md has it.
pub fn code_name(reason: Reason) -> &'static str {
    status::code_name(reason)
}

/// Everything the main port serves.
pub fn routes(hub: Arc<Hub>, tasks: Tasks, readiness: ReadinessView, access: &Access) -> anyhow::Result<Routes> {
    // Of a request that is one message, the message is expected at once.
    let one = Limits::new(Arc::clone(&hub));
    let many = one.of_many();
    let health = HealthServer::new(HealthService::new(readiness)).max_decoding_message_size(SMALL_REQUEST_BYTES);
    let streams = StreamServiceServer::new(StreamService::new(Arc::clone(&hub), access.clone()))
        .max_decoding_message_size(STREAM_REQUEST_BYTES);
    let groups = GroupServiceServer::new(GroupService::new(Arc::clone(&hub), access.clone()))
        .max_decoding_message_size(GROUP_REQUEST_BYTES);
    let sessions = SessionServiceServer::new(SessionService::new(Arc::clone(&hub), access.clone()))
        .max_decoding_message_size(SMALL_REQUEST_BYTES);
    let backups = BackupServiceServer::new(BackupService::new(Arc::clone(&hub), access.clone()))
        .max_decoding_message_size(SMALL_REQUEST_BYTES);
    let callers = AccessServiceServer::new(AccessService::new(Arc::clone(&hub), access.clone()))
        .max_decoding_message_size(STREAM_REQUEST_BYTES);
    let (reflection, alpha) = Descriptors::new()?.services(SMALL_REQUEST_BYTES);
    Ok(Routes::new(one.of(health, SMALL_REQUEST_BYTES))
        .add_service(one.of(streams, STREAM_REQUEST_BYTES))
        .add_service(one.of(groups, GROUP_REQUEST_BYTES))
        .add_service(one.of(sessions, SMALL_REQUEST_BYTES))
        .add_service(one.of(backups, SMALL_REQUEST_BYTES))
        .add_service(one.of(callers, STREAM_REQUEST_BYTES))
        .add_service(HubService::new(hub, tasks, access.clone()))
        .add_service(many.of(reflection, SMALL_REQUEST_BYTES))
        .add_service(many.of(alpha, SMALL_REQUEST_BYTES))
        .prepare())
}

/// Health checks alone, for the operator's port.
pub fn health_routes(readiness: ReadinessView) -> Routes {
    Routes::new(HealthServer::new(HealthService::new(readiness)).max_decoding_message_size(SMALL_REQUEST_BYTES))
}
