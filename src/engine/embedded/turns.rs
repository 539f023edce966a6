//! Whose turn it is to change streams or groups: one at a time, so that whatever waits to be appended waits for one of them
//! at most, and no more of them than may wait at all.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::StoreError;

/// So many calls that change streams may wait for their turn.
pub const MOST_WAITING: usize = 128;

/// The turns of one engine.
#[derive(Debug)]
pub(super) struct Turns {
    turns: Arc<Semaphore>,
    /// One permit for each call that changes streams and has not ended.
    waiting: Arc<Semaphore>,
}

/// The turn of a call that changes streams or groups: nothing else changes them meanwhile.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "it is over when this is dropped")] OwnedSemaphorePermit);

/// The place of a call that changes streams, among those that wait.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "it is free when this is dropped")] OwnedSemaphorePermit);

impl Default for Turns {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(MOST_WAITING)) }
    }
}

impl Turns {
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
}
