//! A disk without room: nothing is stored until there is some, but what makes room is done all the same.
//!
//! Deleting needs room, too: the database writes what it changes elsewhere in its file before it gives up what was there. The
//! reserve is given up for this, and nothing else is written meanwhile. What is deleted does not make the file
//! shorter; it is room inside the file, and enough of it is as good as room on the disk.

use std::collections::BTreeMap;

use super::{
    disk::Fault,
    draft::Draft,
    store::Trouble,
    streams::Compared,
    writer::{Unsynced, Writer},
};
use crate::{
    engine::{Health, StoreError},
    model::Storage,
};

impl Writer {
    /// The disk was found without room when the store was opened.
    pub(super) fn begin_full(&mut self) {
        tracing::warn!("the disk has no room for streams: only reading and deleting work");
        self.condition.fill();
        self.stores.set_health(Health::Full);
    }

    /// Whether what makes room may be written.
    pub(super) fn may_make_room(&self, storage: Storage) -> Result<(), StoreError> {
        self.condition.may_make_room(storage, &self.stores.file)
    }

    /// Whether that may be done without being asked for.
    pub(super) fn may_sweep(&self, storage: Storage) -> bool {
        self.condition.may_sweep(storage, &self.stores.file)
    }

    /// Nothing of this round is in the store. What it means to those who wait is given back.
    pub(super) fn fail(&mut self, storage: Storage, trouble: &Trouble, drafts: &BTreeMap<u64, Draft>) -> StoreError {
        self.streams.take_back(drafts);
        let fault = self.stores.of(storage).fault();
        tracing::error!(%trouble, ?fault, "streams cannot be written");
        match fault {
            Some(Fault::Full) if storage == Storage::File => {
                self.condition.fill();
                self.streams.take_deleted();
                self.stores.set_health(Health::Full);
                self.stores.file.disk().release();
                self.reopen();
            }
            _ => {
                self.condition.fail(match trouble.error() {
                    StoreError::Full => StoreError::Unavailable,
                    error => error,
                });
                self.stores.set_health(Health::Unavailable);
            }
        }
        self.condition.error().cloned().unwrap_or(StoreError::Unavailable)
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
        if !self.condition.is_full() {
            return;
        }
        if self.stores.file.fault() == Some(Fault::Failed) {
            // More than room is missing now, and nobody knows what is on the disk.
            self.condition.fail(StoreError::Unavailable);
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
            self.condition.heal();
            self.stores.set_health(Health::Good);
        }
    }

    /// Whether there is room inside the file, and the reserve besides.
    fn has_made_room(&mut self) -> bool {
        self.condition.has_made_room(self.streams.take_deleted()) && (self.takes_room(false) || self.takes_room(true))
    }

    /// Closed, the file ends behind the last page that is used, which may be far behind all others unless they are moved.
    fn takes_room(&mut self, compact: bool) -> bool {
        let file = &self.stores.file;
        file.close();
        let compacted = if compact { file.compact() } else { Ok(()) };
        let filled = compacted.and_then(|()| file.disk().fill().map_err(Trouble::from));
        self.reopen();
        let file = &self.stores.file;
        let taken = filled.and_then(|()| file.disk().reserve(false).map_err(Trouble::from));
        if let Err(trouble) = &taken {
            tracing::warn!(%trouble, compact, "the deleted space cannot be used yet");
        }
        taken.is_ok() && file.is_good()
    }

    /// Streams are compared with the store after that was opened again; false when one could not be read, and is to be looked
    /// at again.
    pub(super) fn compare(&mut self) -> bool {
        let Compared { all, corrupt } = self.streams.compare();
        if let Some(error) = corrupt {
            self.condition.fail(error);
            self.stores.set_health(Health::Unavailable);
        }
        all
    }
}
