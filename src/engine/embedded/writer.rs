//! The store as it is written to: transactions on what the streams are, what is committed and not flushed yet, and what
//! becomes of it all when the disk refuses.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{Durability as Commit, WriteTransaction};

use super::{
    condition::Condition,
    draft::Draft,
    garbage::{self, Garbage},
    rows::GROUP_STATES,
    store::Trouble,
    stores::Stores,
    stream::Shared,
    streams::Streams,
};
use crate::{
    engine::{Health, StoreError},
    model::{Group, Storage},
    telemetry::Metrics,
};

/// What streams of durability NONE have written is flushed when it is so much: until then it cannot make room for
/// anything.
const MOST_UNSYNCED_BYTES: usize = 64 * 1024 * 1024;

/// The state of a group that is about to be written, as a row.
pub(super) type StateRow = (Arc<Shared>, Group, Vec<u8>);

/// What writes to the store.
pub(super) struct Writer {
    pub(super) streams: Streams,
    pub(super) stores: Arc<Stores>,
    pub(super) condition: Condition,
    pub(super) unsynced: Unsynced,
    /// What deleted streams left in the store.
    pub(super) garbage: VecDeque<Garbage>,
    pub(super) metrics: Arc<Metrics>,
    sync_interval: Duration,
}

/// What was committed and not flushed.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    bytes: usize,
    /// When it has to be, for streams that promise a time.
    pub(super) due: Option<Instant>,
}

impl Unsynced {
    /// True when it is time to flush, or too much waits.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now()) || self.bytes > MOST_UNSYNCED_BYTES
    }

    fn wait(&mut self, interval: Duration) {
        self.due.get_or_insert_with(|| Instant::now() + interval);
    }
}

impl Writer {
    pub(super) fn new(streams: Streams, garbage: VecDeque<Garbage>, metrics: Arc<Metrics>) -> Self {
        Self {
            stores: Arc::clone(&streams.stores),
            sync_interval: streams.options.sync_interval(),
            streams,
            condition: Condition::default(),
            unsynced: Unsynced::default(),
            garbage,
            metrics,
        }
    }

    /// Runs one durable transaction on the disk.
    pub(super) fn transact<T>(
        &mut self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        if let Some(error) = self.condition.error() {
            return Err(error.clone());
        }
        self.transact_in(Storage::File, act)
    }

    /// The same for what makes room, which is done on a full disk, too.
    pub(super) fn transact_in<T>(
        &mut self,
        storage: Storage,
        act: impl FnOnce(&WriteTransaction) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        self.may_make_room(storage)?;
        let run = || -> Result<T, Trouble> {
            let transaction = self.stores.of(storage).write()?;
            let result = act(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|trouble| self.fail(storage, &trouble, &BTreeMap::new()))
    }

    /// Writes what a round planned. With `sync` it is on the disk then, with `soon` it is before long.
    pub(super) fn store(
        &mut self,
        now: u64,
        drafts: &mut BTreeMap<u64, Draft>,
        states: &[StateRow],
        sync: bool,
        soon: bool,
    ) -> Result<(), StoreError> {
        let bytes: usize = drafts.values().map(Draft::bytes).sum();
        // The disk first: what is in memory alone is gone anyway when the process ends between the two.
        for storage in [Storage::File, Storage::Memory] {
            let commit = if sync || storage == Storage::Memory { Commit::Immediate } else { Commit::None };
            let concerned = drafts.iter().any(|(id, draft)| !draft.is_empty() && self.streams.lies_in(*id, storage))
                || states.iter().any(|(stream, ..)| stream.storage == storage);
            if !concerned {
                continue;
            }
            if let Err(trouble) = self.commit(storage, commit, now, drafts, states) {
                return Err(self.fail(storage, &trouble, drafts));
            }
            if storage == Storage::File {
                self.committed(commit, bytes, soon);
            }
        }
        Ok(())
    }

    fn committed(&mut self, commit: Commit, bytes: usize, soon: bool) {
        if matches!(commit, Commit::Immediate) {
            self.unsynced = Unsynced::default();
        } else {
            self.unsynced.bytes += bytes;
            if soon {
                self.unsynced.wait(self.sync_interval);
            }
        }
    }

    /// One transaction: drafts, states of groups, and all chores.
    fn commit(
        &mut self,
        storage: Storage,
        commit: Commit,
        now: u64,
        drafts: &mut BTreeMap<u64, Draft>,
        states: &[StateRow],
    ) -> Result<(), Trouble> {
        let begun = Instant::now();
        let mut transaction = self.stores.of(storage).write()?;
        transaction.set_durability(commit).map_err(|error| Trouble::Database(error.into()))?;
        for (stream, group, state) in states.iter().filter(|(stream, ..)| stream.storage == storage) {
            transaction.open_table(GROUP_STATES)?.insert((stream.id, group.as_str()), &**state)?;
        }
        let swept = self.streams.write(&transaction, storage, now, drafts)?;
        transaction.commit()?;
        if storage == Storage::File {
            self.metrics.committed(begun.elapsed());
        }
        self.streams.chores_done(swept);
        Ok(())
    }

    /// Commits chores alone, durably.
    pub(super) fn settle(&mut self, storage: Storage) -> Result<(), StoreError> {
        self.may_make_room(storage)?;
        let (now, mut none) = (self.stores.now(), BTreeMap::new());
        match self.commit(storage, Commit::Immediate, now, &mut none, &[]) {
            Ok(()) => {
                if storage == Storage::File {
                    self.unsynced = Unsynced::default();
                    self.condition.made_room(0);
                }
                Ok(())
            }
            Err(trouble) => Err(self.fail(storage, &trouble, &none)),
        }
    }

    /// What was committed and not flushed is flushed.
    pub(super) fn flush(&mut self) {
        self.unsynced = Unsynced::default();
        if let Err(error) = self.settle(Storage::File) {
            tracing::error!(%error, "stored events could not be flushed to disk");
        }
    }

    /// Deletes some of what deleted streams left.
    pub(super) fn collect_garbage(&mut self) {
        let Some(Garbage { id, storage, .. }) = self.garbage.front() else { return };
        let (id, storage) = (*id, *storage);
        if !self.may_sweep(storage) {
            return;
        }
        // Where there is no room, what is deleted is needed at once.
        let at_once = self.condition.is_broken();
        let (all, bytes) = match garbage::forget_some(self.stores.of(storage), id, at_once) {
            Ok(forgotten) => forgotten,
            Err(trouble) => {
                self.fail(storage, &trouble, &BTreeMap::new());
                return;
            }
        };
        if storage == Storage::File && at_once {
            self.condition.made_room(bytes);
        }
        if all {
            self.garbage.retain(|garbage| garbage.id != id || garbage.storage != storage);
        } else if storage == Storage::File {
            self.unsynced.wait(self.sync_interval);
        }
    }

    /// Whether there is any, and it may be deleted now.
    pub(super) fn may_collect_garbage(&self) -> bool {
        self.garbage.front().is_some_and(|garbage| self.may_sweep(garbage.storage))
    }

    /// Flushes everything and marks the store as closed.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        match self.condition.error() {
            None => self.settle(Storage::File)?,
            // Nothing waits to be flushed. What little there is to say may fit.
            Some(StoreError::Full) => {}
            Some(error) => return Err(error.clone()),
        }
        if let Err(trouble) = self.stores.file.set_clean(true) {
            let known = self.condition.error().cloned();
            return Err(known.unwrap_or_else(|| self.fail(Storage::File, &trouble, &BTreeMap::new())));
        }
        // Whoever is told may open it at once.
        self.stores.set_health(Health::Unavailable);
        self.stores.file.leave();
        Ok(())
    }
}
