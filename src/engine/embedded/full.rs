//! A disk without room: nothing is stored until there is some, but what makes room is done all the same.
//!
//! Deleting needs room, too: the database writes what it changes elsewhere in its file before it gives up what was there. The
//! reserve is given up for this, and nothing else is written meanwhile. What is deleted does not make the file
//! shorter; it is room inside the file, and enough of it is as good as room on the disk.

use std::collections::BTreeMap;

use super::{
    committer::{Committer, Unsynced},
    disk::Fault,
    draft::Draft,
    store::Trouble,
};
use crate::{
    engine::{Health, StoreError},
    model::Storage,
};

/// With so many bytes deleted there is room inside the file.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;

/// What is known of a disk without room.
#[derive(Debug, Default)]
pub(super) struct Full {
    /// How many bytes were deleted since it is full.
    deleted: u64,
    /// Even what makes room does not fit. Only who asks for it has it tried again.
    stuck: bool,
}

impl Committer {
    /// The disk was found without room when the store was opened.
    pub(super) fn begin_full(&mut self) {
        tracing::warn!("the disk has no room for streams: only reading and deleting work");
        self.broken = Some(StoreError::Full);
        self.stores.set_health(Health::Full);
    }

    /// Whether what makes room may be written.
    pub(super) fn may_make_room(&self, storage: Storage) -> Result<(), StoreError> {
        match &self.broken {
            Some(error) if storage == Storage::File && (*error != StoreError::Full || !self.stores.file.is_good()) => {
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    /// Whether that may be done without being asked for.
    pub(super) fn may_sweep(&self, storage: Storage) -> bool {
        self.may_make_room(storage).is_ok() && (storage == Storage::Memory || !self.full.stuck)
    }

    /// What makes room was done, and deleted so many bytes that no stream counts.
    pub(super) fn made_room(&mut self, bytes: u64) {
        self.full.deleted += bytes;
        self.full.stuck = false;
    }

    /// Nothing of this round is in the store. What it means to those who wait is given back.
    pub(super) fn fail(&mut self, storage: Storage, trouble: &Trouble, drafts: &BTreeMap<u64, Draft>) -> StoreError {
        for (id, draft) in drafts {
            if let Some(core) = self.cores.get_mut(id) {
                core.take_back(draft);
            }
        }
        let fault = self.stores.of(storage).fault();
        tracing::error!(%trouble, ?fault, "streams cannot be written");
        match fault {
            Some(Fault::Full) if storage == Storage::File => {
                self.full = Full { deleted: 0, stuck: self.broken == Some(StoreError::Full) };
                self.cores.values_mut().for_each(|core| core.retention.deleted = 0);
                self.broken = Some(StoreError::Full);
                self.stores.set_health(Health::Full);
                self.stores.file.disk().release();
                self.reopen();
            }
            _ => {
                self.broken = Some(match trouble.error() {
                    StoreError::Full => StoreError::Unavailable,
                    error => error,
                });
                self.stores.set_health(Health::Unavailable);
            }
        }
        self.broken.clone().unwrap_or(StoreError::Unavailable)
    }

    /// The database closes itself at the first error; opened again, it is what was last flushed.
    fn reopen(&mut self) {
        self.unsynced = Unsynced::default();
        let file = &self.stores.file;
        let opened = file.reopen(false).or_else(|trouble| {
            tracing::error!(%trouble, "the store cannot be opened again yet");
            if trouble.is_full() { file.reopen(true) } else { Err(trouble) }
        });
        match opened {
            Ok(()) => _ = self.compare(),
            Err(_) => file.close(),
        }
    }

    /// The same where only the memory over it was written to: what that was is written now.
    fn reopen_on_the_disk(&mut self) {
        let disk = self.stores.file.disk();
        if disk.reserve(false).is_err() {
            return;
        }
        // It is for this.
        disk.release();
        self.reopen();
        if self.stores.file.is_good()
            && let Err(trouble) = self.stores.file.set_clean(false)
        {
            self.fail(Storage::File, &trouble, &BTreeMap::new());
        }
    }

    /// A full disk that has room again is written to again.
    pub(super) fn heal(&mut self) {
        if self.broken != Some(StoreError::Full) {
            return;
        }
        if self.stores.file.fault() == Some(Fault::Failed) {
            // More than room is missing now, and nobody knows what is on the disk.
            self.broken = Some(StoreError::Unavailable);
            self.stores.set_health(Health::Unavailable);
            return;
        }
        if self.stores.file.is_over_memory() {
            self.reopen_on_the_disk();
        } else if !self.stores.file.is_good() {
            self.reopen();
        }
        let has_room =
            self.stores.file.is_good() && (self.stores.file.disk().reserve(true).is_ok() || self.has_made_room());
        if has_room && self.compare() {
            tracing::info!("there is room for streams again");
            (self.broken, self.full) = (None, Full::default());
            self.stores.set_health(Health::Good);
        }
    }

    /// Whether there is room inside the file, and the reserve besides.
    fn has_made_room(&mut self) -> bool {
        self.full.deleted +=
            self.cores.values_mut().map(|core| std::mem::take(&mut core.retention.deleted)).sum::<u64>();
        if self.full.deleted < ROOM_BYTES {
            return false;
        }
        // If that is not enough, so much more is to be deleted.
        self.full.deleted = 0;
        let file = &self.stores.file;
        // Closed, it ends behind the last page that is used.
        file.close();
        let filled = file.disk().fill().or_else(|_| {
            // Which may be far behind all others.
            file.compact().and_then(|()| file.disk().fill().map_err(Trouble::from))
        });
        if let Err(trouble) = &filled {
            tracing::warn!(%trouble, "the deleted space cannot be used yet");
        }
        self.reopen();
        filled.is_ok() && self.stores.file.is_good() && self.stores.file.disk().reserve(false).is_ok()
    }
}
