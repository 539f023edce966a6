//! One stream as everyone but the committer sees it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{clock::Warp, holes::Holes, owners::Share, store::Store, stores::Stores, tail::Tail, topics::Topics};
use crate::{
    engine::{Chunk, ReadError, StoreError},
    model::{Storage, StreamName, StreamSettings},
};

/// What readers may see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Nothing before this sequence.
    pub(super) floor: u64,
    /// Nothing after this one.
    pub(super) latest: u64,
    /// What is before this sequence is not even for those who follow: it was purged, or is too old.
    pub(super) withdrawn: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// Why a handle is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retired {
    /// The stream is deleted.
    Deleted,
    /// The stream was read anew, after the disk was full, and has another handle.
    Replaced,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: u64,
    pub(super) name: StreamName,
    pub(super) epoch: i64,
    /// In microseconds since 1970.
    pub(super) created: u64,
    pub(super) storage: Storage,
    pub(super) settings: RwLock<Arc<StreamSettings>>,
    pub(super) bounds: Mutex<Bounds>,
    pub(super) topics: RwLock<Topics>,
    pub(super) tail: Arc<Tail>,
    pub(super) visible: watch::Receiver<u64>,
    /// Not 0: as a [`Retired`].
    pub(super) retired: AtomicU8,
    pub(super) share: Share,
    /// How its times are to be taken.
    pub(super) warp: Warp,
    pub(super) stores: Arc<Stores>,
    /// How often events were taken out of it.
    pub(super) removals: AtomicU64,
    /// What is missing in its middle.
    pub(super) holes: Mutex<Holes>,
}

impl Shared {
    /// Where it lies.
    pub(super) fn store(&self) -> &Store {
        self.stores.of(self.storage)
    }

    /// What time it is, in microseconds since 1970. Never goes back.
    pub(super) fn now(&self) -> u64 {
        self.stores.now()
    }

    /// Its handle is no longer good.
    pub(super) fn retire(&self, why: Retired) {
        let number = match why {
            Retired::Deleted => 1,
            Retired::Replaced => 2,
        };
        self.retired.store(number, Relaxed);
    }

    /// Nothing when its handle is good; `deleted` when the stream is.
    pub(super) fn check<E: From<StoreError>>(&self, deleted: E) -> Result<(), E> {
        match self.retired.load(Relaxed) {
            0 => Ok(()),
            1 => Err(deleted),
            _ => Err(StoreError::Recovering.into()),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        *self.bounds.lock()
    }

    /// These are not kept any more, or never were, though later ones and earlier ones may be.
    pub(super) fn miss(&self, first: u64, last: u64) {
        let floor = self.bounds().floor;
        self.holes.lock().add_range(first, last, floor);
    }

    /// What it holds has changed.
    pub(super) fn weigh(&self) {
        self.share.set(self.bounds().bytes);
    }

    /// Where a read after `after` begins, or what it finds at once.
    pub(super) fn start(&self, after: u64) -> Result<Result<Bounds, Chunk>, ReadError> {
        self.check(ReadError::Closed)?;
        let bounds = self.bounds();
        if after.saturating_add(1) < bounds.floor {
            return Err(ReadError::Lost { earliest: bounds.floor, latest: bounds.latest });
        }
        if after >= bounds.latest {
            return Ok(Err(Chunk { events: Vec::new(), through: after, latest: bounds.latest }));
        }
        Ok(Ok(bounds))
    }
}
