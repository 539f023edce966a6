//! The way to the committer: what every handle of a stream shares with all others, and whose turn it is.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{
    inbox::{Closed, Inbox},
    stores::Stores,
    turns::{Turn, Turns},
    work::{Act, Reply, Work},
};
use crate::{engine::StoreError, tasks::Tasks};

/// What every handle needs to reach the committer and the stores.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) inbox: Inbox<Work>,
    pub(super) stores: Arc<Stores>,
    pub(super) tasks: Tasks,
    /// One permit for each read from the disk that may go on.
    pub(super) readers: Semaphore,
    /// Whose turn it is to search all topics of a stream.
    pub(super) searches: Semaphore,
    /// Whose turn it is to change streams or groups.
    pub(super) turns: Turns,
    /// Whose turn it is to make a backup: it keeps the database from using again what is deleted meanwhile.
    pub(super) backups: Arc<Semaphore>,
}

impl Link {
    pub(super) fn new(inbox: Inbox<Work>, stores: Arc<Stores>, tasks: Tasks, readers: usize) -> Self {
        Self {
            inbox,
            stores,
            tasks,
            readers: Semaphore::new(readers),
            searches: Semaphore::new(1),
            turns: Turns::default(),
            backups: Arc::new(Semaphore::new(1)),
        }
    }

    /// Does what takes long, and needs no committer, where it holds nobody up.
    pub(super) async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.tasks.block(work).await.ok_or_else(|| StoreError::Corrupt { what: "reading it failed".to_owned() })
    }

    /// Has the committer do something, and waits for what comes of it. The turn is over once it is done, whether or not
    /// anybody still waits.
    pub(super) async fn act<T>(&self, turn: Turn, act: impl FnOnce(Reply<T>) -> Act) -> Result<T, StoreError> {
        self.ask(Some(turn), act).await
    }

    /// The same without a turn.
    pub(super) async fn act_at_once<T>(&self, act: impl FnOnce(Reply<T>) -> Act) -> Result<T, StoreError> {
        self.ask(None, act).await
    }

    async fn ask<T>(&self, turn: Option<Turn>, act: impl FnOnce(Reply<T>) -> Act) -> Result<T, StoreError> {
        let (reply, result) = Reply::new(turn);
        self.inbox.push(Work::Act(Box::new(act(reply)))).map_err(|Closed| StoreError::Unavailable)?;
        result.await.map_err(|_| StoreError::Unavailable)
    }
}
