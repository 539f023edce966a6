//! What is rare: making, changing and deleting streams and groups, and purges. Each is a transaction of its own.

use std::{collections::BTreeMap, sync::Arc};

use redb::{TableError, WriteTransaction};

use super::{
    committer::Committer,
    core::Core,
    garbage::Garbage,
    holdings::definition_bytes,
    purge::{Purge, Selection},
    recover::{self, Reading},
    retention::TRIM_BYTES,
    rows::{
        Definition, GROUP_STATES, GROUPS, GroupDefinition, OLD_REPEATS, PROGRESS, Progress, REPEATS, STREAMS, row,
        to_row,
    },
    store::{Trouble, next_epoch, next_number},
    stream::{Retired, Shared},
};
use crate::{
    engine::{CreateError, DeleteError, GroupStoreError, Health, PurgeError, StoreError, UpdateError},
    memory::Use,
    model::{Group, GroupSettings, Storage, StreamName, StreamSettings},
};

/// The row of the last number that a stream got.
const LAST_STREAM: &str = "last_stream";

impl Committer {
    /// Runs one durable transaction on the disk.
    fn transact<T>(&mut self, act: impl FnOnce(&WriteTransaction) -> Result<T, Trouble>) -> Result<T, StoreError> {
        if let Some(error) = &self.broken {
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

    pub(super) fn create(&mut self, settings: StreamSettings) -> Result<Arc<Shared>, CreateError> {
        settings.check()?;
        let limit = self.options.max_streams;
        if self.directory.find(settings.name.as_str()).is_some() {
            return Err(CreateError::Exists { name: settings.name });
        }
        if self.cores.len() >= limit {
            return Err(CreateError::TooMany { limit });
        }
        let _room = self.stores.definitions.hold(Use::Filters, definition_bytes(&settings))?;
        let created = self.stores.now();
        let (id, definition) = self.transact(|transaction| {
            let id = next_number(transaction, LAST_STREAM, 1)?;
            let definition = Definition::new(&settings, next_epoch(transaction, created)?, created);
            transaction.open_table(STREAMS)?.insert(id, &*to_row(&definition))?;
            transaction.open_table(PROGRESS)?.insert(id, &*Progress::START.to_row())?;
            Ok((id, definition))
        })?;
        let core = Core::empty(&self.stores, &self.options, id, &definition, settings, Progress::START);
        let shared = Arc::clone(&core.shared);
        self.cores.insert(id, core);
        self.directory.put(&shared);
        Ok(shared)
    }

    /// Changes settings, and tells whether limits want to end more than was ended in one go.
    pub(super) fn update(
        &mut self,
        mut settings: StreamSettings,
        before: Option<&StreamSettings>,
    ) -> Result<(Arc<Shared>, bool), UpdateError> {
        settings.check()?;
        let found = self.directory.find(settings.name.as_str());
        let Some(shared) = found else { return Err(UpdateError::NotFound { name: settings.name }) };
        if before.is_some_and(|before| *before != **shared.settings.read()) {
            return Err(UpdateError::Changed);
        }
        if shared.storage != settings.storage {
            return Err(UpdateError::Mismatch { field: "storage" });
        }
        settings.owner = Arc::clone(&shared.settings.read().owner);
        let same = settings.filters == shared.settings.read().filters;
        let need = if same { 0 } else { definition_bytes(&settings) };
        let _room = self.stores.definitions.hold(Use::Filters, need)?;
        let definition = Definition::new(&settings, shared.epoch, shared.created);
        // On a full disk, too: limits that are tighter make room.
        self.transact_in(Storage::File, |transaction| {
            transaction.open_table(STREAMS)?.insert(shared.id, &*to_row(&definition))?;
            Ok(())
        })?;
        let per_topic = settings.max_events_per_topic;
        let recount = shared.settings.read().max_events_per_topic != per_topic;
        let window = u64::try_from(settings.dedupe_window.as_micros()).unwrap_or(u64::MAX);
        *shared.settings.write() = Arc::new(settings);
        self.directory.put(&shared);
        let (now, file_bytes) = (self.stores.now(), self.stores.file.bytes());
        let Some(core) = self.cores.get_mut(&shared.id) else { return Ok((shared, false)) };
        core.repeats.set_window(window, now);
        core.holdings.redefine(&shared.settings.read());
        let limited = if recount { core.recount(per_topic, &mut Reading::new(1, file_bytes)) } else { Ok(()) };
        limited.map_err(|trouble| UpdateError::Store(trouble.error()))?;
        let more = self.limit(shared.id)?;
        Ok((shared, more))
    }

    /// Ends some of what limits want to have ended; true when there is more.
    pub(super) fn limit(&mut self, id: u64) -> Result<bool, StoreError> {
        let now = self.stores.now();
        let Some(core) = self.cores.get_mut(&id) else { return Ok(false) };
        let storage = core.shared.storage;
        let (_, more) = core.trim_some(now, 0, TRIM_BYTES).map_err(|trouble| trouble.error())?;
        core.weigh();
        self.settle(storage)?;
        Ok(more)
    }

    pub(super) fn delete(&mut self, name: &StreamName) -> Result<(), DeleteError> {
        let found = self.directory.find(name.as_str());
        let Some(shared) = found else { return Err(DeleteError::NotFound { name: name.clone() }) };
        let (id, storage) = (shared.id, shared.storage);
        self.transact_in(Storage::File, |transaction| forget(transaction, id))?;
        if storage == Storage::Memory {
            self.transact_in(Storage::Memory, |transaction| forget(transaction, id))?;
        }
        self.made_room(0);
        self.directory.remove(&shared);
        let core = self.cores.remove(&id);
        if let Some(core) = &core {
            core.retire(Retired::Deleted);
        }
        let holdings = core.filter(|_| storage == Storage::Memory).map(|core| core.holdings);
        self.garbage.push_back(Garbage { id, storage, _holdings: holdings });
        Ok(())
    }

    /// Ends everything up to a sequence, or some of what is selected. Gives how many events that were, and what is left to
    /// be done.
    pub(super) fn purge(&mut self, id: u64, what: Purge) -> Result<(u64, Option<Purge>), PurgeError> {
        let now = self.stores.now();
        let Some(mut core) = self.cores.remove(&id) else { return Err(PurgeError::Closed) };
        let storage = core.shared.storage;
        let purged = match what {
            Purge::UpTo(up_to) => self.purge_up_to(&mut core, up_to, now),
            Purge::Selected { selection, at } => self.purge_some(&mut core, selection, at, now),
            Purge::Lasts { mut search, rest } => {
                let ended = search.find(&core.shared, &core.retention.waste).unwrap_or_else(|trouble| {
                    // They are gone all the same.
                    tracing::error!(stream = %core.shared.name, %trouble, "the last events of some topics are not known");
                    true
                });
                self.cores.insert(id, core);
                let more = if ended { rest.map(|rest| *rest) } else { Some(Purge::Lasts { search, rest }) };
                return Ok((0, more));
            }
        };
        core.drop_empty();
        core.weigh();
        self.cores.insert(id, core);
        if self.broken.is_some() {
            // It was not there to be compared when the store was opened again.
            let _ = self.compare();
        }
        let purged = purged?;
        // It is in the store. What else there is to do for it waits when the disk refuses now.
        let _ = self.settle(storage);
        Ok(purged)
    }

    fn purge_up_to(&mut self, core: &mut Core, up_to: u64, now: u64) -> Result<(u64, Option<Purge>), StoreError> {
        let (id, kept) = (core.shared.id, core.progress(None));
        // What comes while it is under way stays.
        let up_to = up_to.min(core.end.next - 1);
        let part = core.retention.part_of_purge(up_to).map_err(|trouble| trouble.error())?;
        let progress = Progress { floor: kept.floor.max(part + 1), ..kept };
        // First: a purge that fails has taken nothing from readers.
        self.transact_in(core.shared.storage, |transaction| {
            transaction.open_table(PROGRESS)?.insert(id, &*progress.to_row())?;
            Ok(())
        })?;
        let ended = core.trim(now, part).map_err(|trouble| trouble.error())?;
        Ok((ended, (part < up_to).then_some(Purge::UpTo(up_to))))
    }

    fn purge_some(
        &mut self,
        core: &mut Core,
        mut selection: Selection,
        at: u64,
        now: u64,
    ) -> Result<(u64, Option<Purge>), StoreError> {
        // What comes while it is under way stays.
        selection.limit(core.end.next - 1);
        let taken =
            self.transact_in(core.shared.storage, |transaction| core.take_out(transaction, &selection, at, now))?;
        let rest = taken.left.map(|at| Purge::Selected { selection, at });
        let (purged, lacking) = core.taken_out(taken, now).map_err(|trouble| trouble.error())?;
        let rest = match lacking {
            Some(search) => Some(Purge::Lasts { search, rest: rest.map(Box::new) }),
            None => rest,
        };
        Ok((purged, rest))
    }

    pub(super) fn knows_group(&self, stream: &Shared, group: &Group) -> Result<bool, GroupStoreError> {
        let known = || -> Result<bool, Trouble> {
            let read = self.stores.file.read_transaction()?;
            let groups = read.open_table(GROUPS)?;
            Ok(groups.get((stream.id, group.as_str()))?.is_some())
        };
        known().map_err(|trouble| trouble.error().into())
    }

    fn count_groups(&self, stream: &Shared) -> Result<usize, GroupStoreError> {
        let count = || -> Result<usize, Trouble> {
            let groups = self.stores.file.read_transaction()?.open_table(GROUPS)?;
            Ok(groups.range((stream.id, "")..(stream.id + 1, ""))?.count())
        };
        count().map_err(|trouble| trouble.error().into())
    }

    /// Makes a group, which `first` is the state of, or changes one that is there. Its stream for dead letters is looked for
    /// here, where streams are deleted one at a time with this.
    pub(super) fn put_group(
        &mut self,
        stream: &Shared,
        group: &Group,
        settings: &GroupSettings,
        first: Option<&[u8]>,
    ) -> Result<(), GroupStoreError> {
        settings.check()?;
        match (self.knows_group(stream, group)?, first.is_some()) {
            (true, true) => return Err(GroupStoreError::Exists),
            (false, false) => return Err(GroupStoreError::NotFound),
            _ => {}
        }
        if let Some(name) = &settings.dead_letter_stream
            && self.directory.find(name.as_str()).is_none()
        {
            return Err(GroupStoreError::DeadLetterStream { name: name.clone() });
        }
        let limit = self.options.max_groups;
        if first.is_some() && self.count_groups(stream)? >= limit {
            return Err(GroupStoreError::TooMany { limit });
        }
        let definition = to_row(&GroupDefinition::new(settings));
        let key = (stream.id, group.as_str());
        let put_state = |transaction: &WriteTransaction| {
            if let Some(first) = first {
                transaction.open_table(GROUP_STATES)?.insert(key, &*row(first))?;
            }
            Ok(())
        };
        if stream.storage == Storage::Memory {
            // Before the group is there: it has a state while this process lives.
            self.transact_in(Storage::Memory, put_state)?;
        }
        Ok(self.transact(|transaction| {
            transaction.open_table(GROUPS)?.insert(key, &*definition)?;
            if stream.storage == Storage::File { put_state(transaction) } else { Ok(()) }
        })?)
    }

    pub(super) fn delete_group(&mut self, stream: &Shared, group: &Group) -> Result<(), GroupStoreError> {
        if !self.knows_group(stream, group)? {
            return Err(GroupStoreError::NotFound);
        }
        let key = (stream.id, group.as_str());
        let storages: &[Storage] =
            if stream.storage == Storage::File { &[Storage::File] } else { &[Storage::Memory, Storage::File] };
        for storage in storages {
            self.transact_in(*storage, |transaction| {
                transaction.open_table(GROUPS)?.remove(key)?;
                transaction.open_table(GROUP_STATES)?.remove(key)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Keys of deleted events go that are older than the window, or were forgotten before its end.
    pub(super) fn forget_repeats(&mut self, now: u64) -> Result<(), Trouble> {
        for core in self.cores.values() {
            let store = core.shared.store();
            let id = core.shared.id;
            let first = core.repeats.first().unwrap_or(u64::MAX);
            let warp = core.shared.warp;
            let old = |sequence: u64, time: u64| sequence < first || !core.repeats.covers(warp.appended(time), now);
            // Times ascend with sequences, so the old ones stand in front; the others are not looked at.
            let mut up_to = None;
            let read = store.read_transaction()?.open_table(REPEATS)?;
            for entry in read.range((id, 0)..=(id, u64::MAX))? {
                let (key, value) = entry?;
                if !old(key.value().1, value.value().0) {
                    break;
                }
                up_to = Some(key.value());
            }
            drop(read);
            let Some(up_to) = up_to else { continue };
            let transaction = store.write()?;
            transaction.open_table(REPEATS)?.retain_in((id, 0)..=up_to, |_, _| false)?;
            transaction.commit()?;
        }
        self.forget_old_repeats(now)
    }

    /// Keys without a topic go once none of them tells anything any more.
    fn forget_old_repeats(&mut self, now: u64) -> Result<(), Trouble> {
        if let Err(TableError::TableDoesNotExist(_)) = self.stores.file.read_transaction()?.open_table(OLD_REPEATS) {
            return Ok(());
        }
        let mut kept = false;
        for core in self.cores.values_mut() {
            kept |= core.repeats.keeps_old(now);
        }
        if !kept {
            let transaction = self.stores.file.write()?;
            transaction.delete_table(OLD_REPEATS)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// After the database was opened again: streams that are not what they were here get new handles, and those that
    /// lost something a new epoch. False when one could not be read, and is to be looked at again.
    pub(super) fn compare(&mut self) -> bool {
        let ids: Vec<u64> = self.cores.keys().copied().filter(|id| self.stores(*id, Storage::File)).collect();
        let mut all = true;
        for id in ids {
            if let Err(trouble) = self.compare_one(id) {
                tracing::error!(%trouble, "a stream cannot be read again");
                if let error @ StoreError::Corrupt { .. } = trouble.error() {
                    self.broken = Some(error);
                    self.stores.set_health(Health::Unavailable);
                }
                all = false;
            }
        }
        all
    }

    /// The old handle stays in the directory until there is a new one: who asks for the stream meanwhile is told to come again,
    /// and not that there is none.
    fn compare_one(&mut self, id: u64) -> Result<(), Trouble> {
        let Some(core) = self.cores.get(&id) else { return Ok(()) };
        if self.stores.file.is_good() {
            recover::keep_epoch(&self.stores.file, id, core.shared.epoch)?;
        }
        let stored = recover::progress(&self.stores.file, id)?;
        if stored.next == core.end.next {
            return Ok(());
        }
        let (shared, lost) = (Arc::clone(&core.shared), stored.next < core.end.next);
        tracing::warn!(stream = %shared.name, lost, "a stream is not what it was before the disk failed");
        core.retire(Retired::Replaced);
        let mut reading = Reading::new(1, self.stores.file.bytes());
        let mut core = recover::stream(&self.stores, &self.options, id, lost, &mut reading)?;
        core.trim(self.stores.now(), 0)?;
        core.weigh();
        self.directory.put(&core.shared);
        self.cores.insert(id, core);
        Ok(())
    }
}

/// Takes a stream out of a store, but for its events and the keys of those that are gone: there may be very many.
fn forget(transaction: &WriteTransaction, id: u64) -> Result<(), Trouble> {
    transaction.open_table(STREAMS)?.remove(id)?;
    transaction.open_table(PROGRESS)?.remove(id)?;
    transaction.open_table(GROUPS)?.retain_in((id, "")..(id + 1, ""), |_, _| false)?;
    transaction.open_table(GROUP_STATES)?.retain_in((id, "")..(id + 1, ""), |_, _| false)?;
    Ok(())
}
