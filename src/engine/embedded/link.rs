//! What every handle of a stream shares with all others: the way to the committer and the stores, and whose turn it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    clock::Slewed,
    committer::Committer,
    inbox::{Closed, Inbox, Work},
    now,
    owners::Owners,
    store::Store,
};
use crate::{
    engine::{Health, StoreError},
    memory::{Client, Memory},
    model::Storage,
    tasks::Tasks,
};

/// So many calls that change streams may wait for their turn.
pub const MOST_WAITING: usize = 128;

/// What every handle needs to reach the committer and the stores.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) inbox: Inbox,
    pub(super) file: Store,
    pub(super) memory: Store,
    pub(super) tasks: Tasks,
    /// One permit for each read from the disk that may go on.
    pub(super) readers: Semaphore,
    /// Whose turn it is to search all topics of a stream.
    pub(super) searches: Semaphore,
    /// Whose turn it is to change streams or groups: one at a time, so that whatever waits to be appended waits for one of
    /// them at most.
    turns: Arc<Semaphore>,
    /// Whose turn it is to make a backup: it keeps the database from using again what is deleted meanwhile.
    pub(super) backups: Arc<Semaphore>,
    /// One permit for each call that changes streams and has not ended.
    waiting: Arc<Semaphore>,
    pub(super) owners: Owners,
    /// Accounts for what streams hold in memory,
    pub(super) accountant: Arc<Memory>,
    /// and for all their definitions.
    pub(super) definitions: Arc<Client>,
    health: AtomicU8,
    /// When the store was opened, and the time of the hub since.
    pub(super) begin: Instant,
    pub(super) clock: Mutex<Slewed>,
}

/// The turn of a call that changes streams or groups: nothing else changes them meanwhile.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "it is over when this is dropped")] OwnedSemaphorePermit);

/// The place of a call that changes streams, among those that wait.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "it is free when this is dropped")] OwnedSemaphorePermit);

impl Link {
    pub(super) fn new(
        inbox: Inbox,
        file: Store,
        memory: Store,
        tasks: Tasks,
        readers: usize,
        accountant: &Arc<Memory>,
    ) -> Self {
        let (begin, wall) = file.disk().time();
        Self {
            begin,
            clock: Mutex::new(now::clock(wall)),
            inbox,
            file,
            memory,
            tasks,
            readers: Semaphore::new(readers),
            searches: Semaphore::new(1),
            turns: Arc::new(Semaphore::new(1)),
            backups: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
            owners: Owners::default(),
            accountant: Arc::clone(accountant),
            definitions: accountant.client(),
            health: AtomicU8::new(0),
        }
    }

    pub(super) fn store(&self, storage: Storage) -> &Store {
        match storage {
            Storage::File => &self.file,
            Storage::Memory => &self.memory,
        }
    }

    pub(super) fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::Good,
            1 => Health::Full,
            _ => Health::Unavailable,
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        let number = match health {
            Health::Good => 0,
            Health::Full => 1,
            Health::Unavailable => 2,
        };
        self.health.store(number, Relaxed);
    }

    /// A place among the calls that change streams, unless too many wait.
    pub(super) fn place(&self) -> Result<Place, StoreError> {
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        place.map(Place).map_err(|_| StoreError::Busy { limit: MOST_WAITING })
    }

    /// Waits for the turn to change streams or groups.
    pub(super) async fn turn(&self) -> Result<Turn, StoreError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map(Turn).map_err(|_| StoreError::Unavailable)
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
    pub(super) async fn act<T: Send + 'static>(
        &self,
        turn: Turn,
        act: impl FnOnce(&mut Committer) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.act_at_once(move |committer| {
            let _turn = turn;
            act(committer)
        })
        .await
    }

    /// The same without a turn.
    pub(super) async fn act_at_once<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Committer) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        let work = Work::Act(Box::new(move |committer| {
            // Nobody may be left to hear of it.
            let _ = reply.send(act(committer));
        }));
        self.inbox.push(work).map_err(|Closed| StoreError::Unavailable)?;
        result.await.map_err(|_| StoreError::Unavailable)
    }
}
