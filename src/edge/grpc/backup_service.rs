//! `switchyard.v1.BackupService`: copies of a hub at work, sent as fast as they are read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{
    access::Access,
    status,
    stream_service::Refusal,
    wire::v1::{self as wire, backup_service_server},
};
use crate::{
    auth::Action,
    engine::{Backup, BackupError, NextPiece},
    hub::Hub,
    model::{CommandError, StreamError},
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

    async fn begin(&self) -> Result<Pieces, Refusal> {
        let engine = self.hub.engine().ok_or(StreamError::None)?;
        let backup = engine.backup().await.map_err(|error| of_backup(&error))?;
        tracing::info!(store_bytes = backup.store_bytes(), "backup started");
        Ok(Pieces::new(Arc::clone(&self.hub), backup))
    }
}

#[tonic::async_trait]
impl backup_service_server::BackupService for BackupService {
    type BackupStream = Pieces;

    async fn backup(&self, request: Request<wire::BackupRequest>) -> Result<Response<Pieces>, Status> {
        let caller = self.access.caller(request.extensions(), "Backup").map_err(Refusal::from)?;
        caller.authorize(&Action::Backup).map_err(Refusal::from)?;
        Ok(Response::new(self.begin().await?))
    }
}

fn of_backup(error: &BackupError) -> StreamError {
    match error {
        BackupError::UnderWay => StreamError::TooMany { what: "backups under way", limit: 1 },
        BackupError::TooLong { .. } => StreamError::TooLong { what: error.to_string() },
        BackupError::Store(error) => error.into(),
    }
}

/// What is left of a backup. The next piece is made once the one before is taken.
pub(super) struct Pieces {
    hub: Arc<Hub>,
    /// `None` when it is over.
    next: Option<NextPiece>,
    /// Told with the first piece.
    store_bytes: i64,
}

impl Pieces {
    fn new(hub: Arc<Hub>, backup: Box<dyn Backup>) -> Self {
        let store_bytes = i64::try_from(backup.store_bytes()).unwrap_or(i64::MAX);
        Self { hub, next: Some(backup.next()), store_bytes }
    }

    /// The piece that was made, and the making of the one after it.
    fn take(&mut self, made: <NextPiece as Future>::Output) -> Option<Result<wire::BackupResponse, Status>> {
        match made {
            _ if self.hub.is_draining() => Some(Err(status::of_command(&CommandError::Draining, "").status())),
            Ok(Some((data, rest))) => {
                self.next = Some(rest.next());
                Some(Ok(wire::BackupResponse { data, store_bytes: std::mem::take(&mut self.store_bytes) }))
            }
            Ok(None) => {
                tracing::info!("backup finished");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "backup aborted");
                Some(Err(status::of_stream(&of_backup(&error)).status()))
            }
        }
    }
}

impl Stream for Pieces {
    type Item = Result<wire::BackupResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let made = ready!(next.as_mut().poll(context));
        self.next = None;
        Poll::Ready(self.take(made))
    }
}
