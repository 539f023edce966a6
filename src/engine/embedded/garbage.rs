//! What deleted streams leave in the store: their events, which go bit by bit, so that whatever waits to be stored does not
//! wait for all of them.
//!
//! A stream is gone once its definition is. What is left when the hub stops is found again when it starts.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use redb::{Durability as Commit, ReadableTable};

use super::{
    committer::Committer,
    core::Core,
    holdings::Holdings,
    rows::{BATCHES, REPEATS},
    store::{Store, Trouble},
};
use crate::model::Storage;

/// So many rows are deleted in one commit.
const AT_ONCE: usize = 256;

/// The events of a stream that is no more.
#[derive(Debug)]
pub(super) struct Garbage {
    pub(super) id: u64,
    pub(super) storage: Storage,
    /// Given back when they are gone.
    pub(super) _holdings: Option<Holdings>,
}

/// What streams that were deleted have left.
pub(super) fn find(store: &Store, cores: &BTreeMap<u64, Core>) -> Result<VecDeque<Garbage>, Trouble> {
    let transaction = store.read_transaction()?;
    let (batches, repeats) = (transaction.open_table(BATCHES)?, transaction.open_table(REPEATS)?);
    let (mut found, mut next) = (VecDeque::new(), 0);
    loop {
        let of_batches = batches.range((next, 0)..)?.next().transpose()?.map(|(key, _)| key.value().0);
        let of_repeats = repeats.range((next, 0)..)?.next().transpose()?.map(|(key, _)| key.value().0);
        let Some(id) = [of_batches, of_repeats].into_iter().flatten().min() else { return Ok(found) };
        if !cores.contains_key(&id) {
            found.push_back(Garbage { id, storage: Storage::File, _holdings: None });
        }
        next = id + 1;
    }
}

impl Committer {
    /// Deletes some of what deleted streams left.
    pub(super) fn collect_garbage(&mut self) {
        let Some(Garbage { id, storage, .. }) = self.garbage.front() else { return };
        let (id, storage) = (*id, *storage);
        if !self.may_sweep(storage) {
            return;
        }
        // Where there is no room, what is deleted is needed at once.
        let at_once = self.broken.is_some();
        let (all, bytes) = match forget_some(self.stores.of(storage), id, at_once) {
            Ok(forgotten) => forgotten,
            Err(trouble) => {
                self.fail(storage, &trouble, &BTreeMap::new());
                return;
            }
        };
        if storage == Storage::File && at_once {
            self.made_room(bytes);
        }
        if all {
            self.garbage.retain(|garbage| garbage.id != id || garbage.storage != storage);
        } else if storage == Storage::File {
            self.unsynced.due.get_or_insert_with(|| Instant::now() + self.options.sync_interval());
        }
    }

    /// Whether there is any, and it may be deleted now.
    pub(super) fn may_collect_garbage(&self) -> bool {
        self.garbage.front().is_some_and(|garbage| self.may_sweep(garbage.storage))
    }
}

/// Deletes some of what a stream has in a store that has no such stream any more; true when that was the last, and how many
/// bytes of batches it was.
fn forget_some(store: &Store, id: u64, at_once: bool) -> Result<(bool, u64), Trouble> {
    let mut transaction = store.write()?;
    let mut bytes = 0;
    let all = {
        let mut batches = transaction.open_table(BATCHES)?;
        let mut repeats = transaction.open_table(REPEATS)?;
        let nth = |keys: &mut dyn Iterator<Item = Result<u64, redb::StorageError>>| keys.nth(AT_ONCE - 1);
        let (first, last) = ((id, 0), (id, u64::MAX));
        let keys = batches.range(first..=last)?.map(|entry| entry.map(|(key, _)| key.value().1));
        let batch = nth(&mut { keys }).transpose()?;
        batches.retain_in(first..=(id, batch.unwrap_or(u64::MAX)), |_, value| {
            bytes += value.len() as u64;
            false
        })?;
        let keys = repeats.range(first..=last)?.map(|entry| entry.map(|(key, _)| key.value().1));
        let repeat = nth(&mut { keys }).transpose()?;
        repeats.retain_in(first..=(id, repeat.unwrap_or(u64::MAX)), |_, _| false)?;
        batch.is_none() && repeat.is_none()
    };
    // Once nobody looks for it any more it must not come back.
    let durability = if all || at_once { Commit::Immediate } else { Commit::None };
    transaction.set_durability(durability).map_err(|error| Trouble::Database(error.into()))?;
    transaction.commit()?;
    Ok((all, bytes))
}
