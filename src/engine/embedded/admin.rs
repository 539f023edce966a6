//! What is rare: making, changing and deleting streams and groups. Each is a transaction of its own.

use std::sync::Arc;

use redb::WriteTransaction;

use super::{
    committer::Committer,
    core::Core,
    garbage::Garbage,
    groups,
    holdings::definition_bytes,
    recover::Reading,
    retention::TRIM_BYTES,
    rows::{Definition, GROUP_STATES, GROUPS, GroupDefinition, PROGRESS, Progress, STREAMS, row, to_row},
    store::{Trouble, next_epoch, next_number},
    stream::{Retired, Shared},
};
use crate::{
    engine::{CreateError, DeleteError, GroupStoreError, StoreError, UpdateError},
    memory::Use,
    model::{Group, GroupSettings, Storage, StreamName, StreamSettings},
};

/// The row of the last number that a stream got.
const LAST_STREAM: &str = "last_stream";

impl Committer {
    pub(super) fn create(&mut self, settings: StreamSettings) -> Result<Arc<Shared>, CreateError> {
        settings.check()?;
        let limit = self.options.max_streams;
        if self.writer.streams.directory.find(settings.name.as_str()).is_some() {
            return Err(CreateError::Exists { name: settings.name });
        }
        if self.writer.streams.cores.len() >= limit {
            return Err(CreateError::TooMany { limit });
        }
        let _room = self.stores.definitions.hold(Use::Filters, definition_bytes(&settings))?;
        let created = self.stores.now();
        let (id, definition) = self.writer.transact(|transaction| {
            let id = next_number(transaction, LAST_STREAM, 1)?;
            let definition = Definition::new(&settings, next_epoch(transaction, created)?, created);
            transaction.open_table(STREAMS)?.insert(id, &*to_row(&definition))?;
            transaction.open_table(PROGRESS)?.insert(id, &*Progress::START.to_row())?;
            Ok((id, definition))
        })?;
        let core = Core::empty(&self.stores, &self.options, id, &definition, settings, Progress::START);
        let shared = Arc::clone(&core.shared);
        self.writer.streams.cores.insert(id, core);
        self.writer.streams.directory.put(&shared);
        Ok(shared)
    }

    /// Changes settings, and tells whether limits want to end more than was ended in one go.
    pub(super) fn update(
        &mut self,
        mut settings: StreamSettings,
        before: Option<&StreamSettings>,
    ) -> Result<(Arc<Shared>, bool), UpdateError> {
        settings.check()?;
        let found = self.writer.streams.directory.find(settings.name.as_str());
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
        self.writer.transact_in(Storage::File, |transaction| {
            transaction.open_table(STREAMS)?.insert(shared.id, &*to_row(&definition))?;
            Ok(())
        })?;
        let per_topic = settings.max_events_per_topic;
        let recount = shared.settings.read().max_events_per_topic != per_topic;
        let window = u64::try_from(settings.dedupe_window.as_micros()).unwrap_or(u64::MAX);
        *shared.settings.write() = Arc::new(settings);
        self.writer.streams.directory.put(&shared);
        let (now, file_bytes) = (self.stores.now(), self.stores.file.bytes());
        let Some(core) = self.writer.streams.cores.get_mut(&shared.id) else { return Ok((shared, false)) };
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
        let Some(core) = self.writer.streams.cores.get_mut(&id) else { return Ok(false) };
        let storage = core.shared.storage;
        let (_, more) = core.trim_some(now, 0, TRIM_BYTES).map_err(|trouble| trouble.error())?;
        core.weigh();
        self.writer.settle(storage)?;
        Ok(more)
    }

    pub(super) fn delete(&mut self, name: &StreamName) -> Result<(), DeleteError> {
        let found = self.writer.streams.directory.find(name.as_str());
        let Some(shared) = found else { return Err(DeleteError::NotFound { name: name.clone() }) };
        let (id, storage) = (shared.id, shared.storage);
        self.writer.transact_in(Storage::File, |transaction| forget(transaction, id))?;
        if storage == Storage::Memory {
            self.writer.transact_in(Storage::Memory, |transaction| forget(transaction, id))?;
        }
        self.writer.condition.made_room(0);
        self.writer.streams.directory.remove(&shared);
        let core = self.writer.streams.cores.remove(&id);
        if let Some(core) = &core {
            core.retire(Retired::Deleted);
        }
        let holdings = core.filter(|_| storage == Storage::Memory).map(|core| core.holdings);
        self.writer.garbage.push_back(Garbage { id, storage, _holdings: holdings });
        Ok(())
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
        match (groups::knows(stream, group)?, first.is_some()) {
            (true, true) => return Err(GroupStoreError::Exists),
            (false, false) => return Err(GroupStoreError::NotFound),
            _ => {}
        }
        if let Some(name) = &settings.dead_letter_stream
            && self.writer.streams.directory.find(name.as_str()).is_none()
        {
            return Err(GroupStoreError::DeadLetterStream { name: name.clone() });
        }
        let limit = self.options.max_groups;
        if first.is_some() && groups::count(stream)? >= limit {
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
            self.writer.transact_in(Storage::Memory, put_state)?;
        }
        Ok(self.writer.transact(|transaction| {
            transaction.open_table(GROUPS)?.insert(key, &*definition)?;
            if stream.storage == Storage::File { put_state(transaction) } else { Ok(()) }
        })?)
    }

    pub(super) fn delete_group(&mut self, stream: &Shared, group: &Group) -> Result<(), GroupStoreError> {
        if !groups::knows(stream, group)? {
            return Err(GroupStoreError::NotFound);
        }
        let key = (stream.id, group.as_str());
        let storages: &[Storage] =
            if stream.storage == Storage::File { &[Storage::File] } else { &[Storage::Memory, Storage::File] };
        for storage in storages {
            self.writer.transact_in(*storage, |transaction| {
                transaction.open_table(GROUPS)?.remove(key)?;
                transaction.open_table(GROUP_STATES)?.remove(key)?;
                Ok(())
            })?;
        }
        self.writer.streams.forget_buried(stream.id, group);
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
