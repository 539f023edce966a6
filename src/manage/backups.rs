//! Copies of a hub at work, made as fast as they are taken.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::engine;
use crate::{
    auth::{Action, Caller},
    engine::{BackupError, NextPiece},
    hub::Hub,
    model::{CommandError, StreamError},
};

/// A backup under way. It is over when this is dropped.
pub struct RunningBackup {
    hub: Arc<Hub>,
    store_bytes: u64,
    /// `None` when it is over.
    next: Option<NextPiece>,
}

/// Begins a backup.
pub async fn begin(hub: Arc<Hub>, caller: &Caller) -> Result<RunningBackup, CommandError> {
    caller.authorize(&Action::Backup)?;
    let backup = engine(&hub)?.backup().await.map_err(|error| of_backup(&error))?;
    let store_bytes = backup.store_bytes();
    tracing::info!(store_bytes, "backup started");
    Ok(RunningBackup { hub, store_bytes, next: Some(backup.next()) })
}

impl RunningBackup {
    /// How much room the store took when it was begun, in bytes.
    pub fn store_bytes(&self) -> u64 {
        self.store_bytes
    }

    /// The next bytes; `None` behind the last, and after an error. They are made once those before are taken.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, CommandError>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let made = ready!(next.as_mut().poll(context));
        self.next = None;
        Poll::Ready(match made {
            _ if self.hub.is_draining() => Some(Err(CommandError::Draining)),
            Ok(Some((data, rest))) => {
                self.next = Some(rest.next());
                Some(Ok(data))
            }
            Ok(None) => {
                tracing::info!("backup finished");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "backup aborted");
                Some(Err(of_backup(&error).into()))
            }
        })
    }
}

impl fmt::Debug for RunningBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningBackup").field("store_bytes", &self.store_bytes).finish_non_exhaustive()
    }
}

fn of_backup(error: &BackupError) -> StreamError {
    match error {
        BackupError::UnderWay => StreamError::TooMany { what: "backups under way", limit: 1 },
        BackupError::TooLong { .. } => StreamError::TooLong { what: error.to_string() },
        BackupError::Store(error) => error.into(),
    }
}
