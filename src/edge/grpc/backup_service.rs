//! `switchyard.v1.BackupService`: copies of a hub at work, sent as fast as they are read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::access::Access;
use crate::{
    edge::wire::{
        forms::v1::{self as wire, backup_service_server},
        request::Refusal,
    },
    hub::Hub,
    manage::backups::{self, RunningBackup},
};

/// Serves the call of `BackupService`.
#[derive(Debug)]
pub(super) struct BackupService {
    hub: Arc<Hub>,
    access: Access,
}

impl BackupService {
    pub(super) fn new(hub: Arc<Hub>, access: Access) -> Self {
        Self { hub, access }
    }
}

#[tonic::async_trait]
impl backup_service_server::BackupService for BackupService {
    type BackupStream = Pieces;

    async fn backup(&self, request: Request<wire::BackupRequest>) -> Result<Response<Pieces>, Status> {
        let caller = self.access.caller(request.extensions(), "Backup").map_err(Refusal::from)?;
        let running = backups::begin(Arc::clone(&self.hub), &caller).await.map_err(Refusal::from)?;
        let store_bytes = i64::try_from(running.store_bytes()).unwrap_or(i64::MAX);
        Ok(Response::new(Pieces { running, store_bytes }))
    }
}

/// What is left of a backup.
pub(super) struct Pieces {
    running: RunningBackup,
    /// Sent with the first piece.
    store_bytes: i64,
}

impl Stream for Pieces {
    type Item = Result<wire::BackupResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.running.poll_next(context).map(|piece| {
            Some(match piece? {
                Ok(data) => Ok(wire::BackupResponse { data, store_bytes: std::mem::take(&mut self.store_bytes) }),
                Err(error) => Err(Refusal::from(error).into()),
            })
        })
    }
}
