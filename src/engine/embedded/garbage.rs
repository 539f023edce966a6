//! What deleted streams leave in the store: their events, which go bit by bit, so that whatever waits to be stored does not
//! wait for all of them.
//!
//! A stream is gone once its definition is. What is left when the hub stops is found again when it starts.

use std::collections::VecDeque;

use redb::{Durability as Commit, ReadableTable};

use super::{
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

/// What streams that were deleted have left: those that, by their numbers, are not there any more.
pub(super) fn find(store: &Store, is_there: impl Fn(u64) -> bool) -> Result<VecDeque<Garbage>, Trouble> {
    let transaction = store.read_transaction()?;
    let (batches, repeats) = (transaction.open_table(BATCHES)?, transaction.open_table(REPEATS)?);
    let (mut found, mut next) = (VecDeque::new(), 0);
    loop {
        let of_batches = batches.range((next, 0)..)?.next().transpose()?.map(|(key, _)| key.value().0);
        let of_repeats = repeats.range((next, 0)..)?.next().transpose()?.map(|(key, _)| key.value().0);
        let Some(id) = [of_batches, of_repeats].into_iter().flatten().min() else { return Ok(found) };
        if !is_there(id) {
            found.push_back(Garbage { id, storage: Storage::File, _holdings: None });
        }
        next = id + 1;
    }
}

/// Deletes some of what a stream has in a store that has no such stream any more; true when that was the last, and how many
/// bytes of batches it was.
pub(super) fn forget_some(store: &Store, id: u64, at_once: bool) -> Result<(bool, u64), Trouble> {
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
