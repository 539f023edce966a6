//! All streams as the committer has them: their drafts are written and applied together, they are compared with the store
//! after it was opened again, and what time ends is ended.

use std::{collections::BTreeMap, sync::Arc};

use redb::{TableError, WriteTransaction};

use super::{
    chores::Swept,
    core::Core,
    directory::Directory,
    draft::Draft,
    ids::bound_ids,
    recover::{self, Reading},
    rows::{BATCHES, OLD_REPEATS, PROGRESS, REPEATS},
    store::Trouble,
    stores::Stores,
    stream::Retired,
    tail::Budget,
};
use crate::{
    engine::{Options, StoreError},
    model::{Group, Storage},
};

/// The streams of an engine.
pub(super) struct Streams {
    pub(super) stores: Arc<Stores>,
    pub(super) directory: Arc<Directory>,
    pub(super) options: Arc<Options>,
    /// In order, as everything that is gone through here: what happens is then the same every time.
    pub(super) cores: BTreeMap<u64, Core>,
    budget: Budget,
}

/// What streams are, compared with the store.
#[derive(Debug)]
pub(super) struct Compared {
    /// False when one could not be read, and is to be looked at again.
    pub(super) all: bool,
    /// One is damaged.
    pub(super) corrupt: Option<StoreError>,
}

impl Streams {
    pub(super) fn new(
        stores: Arc<Stores>,
        directory: Arc<Directory>,
        options: Arc<Options>,
        cores: BTreeMap<u64, Core>,
    ) -> Self {
        let budget = Budget::new(options.tail_cache_bytes);
        Self { stores, directory, options, cores, budget }
    }

    /// True when there is such a stream, and it lies there.
    pub(super) fn lies_in(&self, id: u64, storage: Storage) -> bool {
        self.cores.get(&id).is_some_and(|core| core.shared.storage == storage)
    }

    /// True when there is something to be done in the store for streams that lie there.
    pub(super) fn has_chores(&self, storage: Storage) -> bool {
        self.cores.values().any(|core| core.shared.storage == storage && core.retention.has_chores())
    }

    /// True when batches there are to be written again, more than are in one go.
    pub(super) fn has_waste(&self, storage: Storage) -> bool {
        self.cores.values().any(|core| core.shared.storage == storage && core.retention.waste.is_much())
    }

    /// Writes drafts, and does all chores. Gives what has to be known once that is committed.
    pub(super) fn write(
        &mut self,
        transaction: &WriteTransaction,
        storage: Storage,
        now: u64,
        drafts: &mut BTreeMap<u64, Draft>,
    ) -> Result<Vec<(u64, Vec<Swept>)>, Trouble> {
        let mut swept = Vec::new();
        let mut batches = transaction.open_table(BATCHES)?;
        let mut progress = transaction.open_table(PROGRESS)?;
        for (id, draft) in drafts.iter_mut().filter(|(_, draft)| !draft.is_empty()) {
            if let Some(core) = self.cores.get(id).filter(|core| core.shared.storage == storage) {
                core.end.write(draft, &mut batches)?;
                progress.insert(id, &*core.progress(Some(draft)).to_row())?;
            }
        }
        let has_chores = |core: &&mut Core| core.shared.storage == storage && core.retention.has_chores();
        let mut busy = self.cores.values_mut().filter(has_chores).peekable();
        if busy.peek().is_none() {
            return Ok(swept);
        }
        let mut repeats = transaction.open_table(REPEATS)?;
        for core in busy {
            let id = core.shared.id;
            let draft = drafts.get(&id);
            swept.push((id, core.do_chores(&mut batches, &mut repeats, now, draft)?));
            progress.insert(id, &*core.progress(draft).to_row())?;
        }
        Ok(swept)
    }

    /// The chores are in the store.
    pub(super) fn chores_done(&mut self, swept: Vec<(u64, Vec<Swept>)>) {
        for (id, swept) in swept {
            if let Some(core) = self.cores.get_mut(&id) {
                core.retention.chores_done(swept);
                core.weigh();
            }
        }
    }

    /// Drafts are in the store: they are counted, what limits end is ended, and readers see them.
    pub(super) fn apply(&mut self, now: u64, drafts: BTreeMap<u64, Draft>) {
        for (id, draft) in drafts {
            if let Some(core) = self.cores.get_mut(&id) {
                core.apply(draft, &mut self.budget);
                if let Err(trouble) = core.trim(now, 0) {
                    tracing::error!(stream = %core.shared.name, %trouble, "limits cannot be enforced");
                }
                core.publish();
                core.weigh();
            }
        }
        bound_ids(&mut self.cores, &self.stores.accountant);
    }

    /// What a group of this stream buried is not tried again: it is gone, or has letters back.
    pub(super) fn forget_buried(&mut self, id: u64, group: &Group) {
        if let Some(core) = self.cores.get_mut(&id) {
            core.buried.forget(group);
        }
    }

    /// Drafts were not written.
    pub(super) fn take_back(&mut self, drafts: &BTreeMap<u64, Draft>) {
        for (id, draft) in drafts {
            if let Some(core) = self.cores.get_mut(id) {
                core.take_back(draft);
            }
        }
    }

    /// How many bytes of batches were deleted since somebody last asked.
    pub(super) fn take_deleted(&mut self) -> u64 {
        self.cores.values_mut().map(|core| std::mem::take(&mut core.retention.deleted)).sum()
    }

    /// Limits by age, keys that are too old, and what waits to be deleted; true when there is more than is done in one go.
    pub(super) fn pass_time(&mut self, now: u64) -> bool {
        let mut is_more = false;
        for core in self.cores.values_mut() {
            match core.pass_time(now) {
                Ok(more) => is_more |= more,
                Err(trouble) => tracing::error!(stream = %core.shared.name, %trouble, "limits cannot be enforced"),
            }
            core.drop_empty();
            core.repeats.expire(now);
            core.weigh();
        }
        is_more
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
    /// lost something a new epoch.
    pub(super) fn compare(&mut self) -> Compared {
        let ids: Vec<u64> = self.cores.keys().copied().filter(|id| self.lies_in(*id, Storage::File)).collect();
        let mut compared = Compared { all: true, corrupt: None };
        for id in ids {
            if let Err(trouble) = self.compare_one(id) {
                tracing::error!(%trouble, "a stream cannot be read again");
                if let error @ StoreError::Corrupt { .. } = trouble.error() {
                    compared.corrupt = Some(error);
                }
                compared.all = false;
            }
        }
        compared
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
