//! Purges: a part at a time, each of which is a transaction of its own, so that appends come between.

use super::{
    committer::Committer,
    core::Core,
    purge::{Purge, Selection},
    rows::{PROGRESS, Progress},
};
use crate::engine::{PurgeError, StoreError};

impl Committer {
    /// Ends everything up to a sequence, or some of what is selected. Gives how many events that were, and what is left to
    /// be done.
    pub(super) fn purge(&mut self, id: u64, what: Purge) -> Result<(u64, Option<Purge>), PurgeError> {
        let now = self.stores.now();
        let Some(mut core) = self.writer.streams.cores.remove(&id) else { return Err(PurgeError::Closed) };
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
                self.writer.streams.cores.insert(id, core);
                let more = if ended { rest.map(|rest| *rest) } else { Some(Purge::Lasts { search, rest }) };
                return Ok((0, more));
            }
        };
        core.drop_empty();
        core.weigh();
        self.writer.streams.cores.insert(id, core);
        if self.writer.condition.is_broken() {
            // It was not there to be compared when the store was opened again.
            let _ = self.writer.compare();
        }
        let purged = purged?;
        // It is in the store. What else there is to do for it waits when the disk refuses now.
        let _ = self.writer.settle(storage);
        Ok(purged)
    }

    fn purge_up_to(&mut self, core: &mut Core, up_to: u64, now: u64) -> Result<(u64, Option<Purge>), StoreError> {
        let (id, kept) = (core.shared.id, core.progress(None));
        // What comes while it is under way stays.
        let up_to = up_to.min(core.end.next - 1);
        let part = core.retention.part_of_purge(up_to).map_err(|trouble| trouble.error())?;
        let progress = Progress { floor: kept.floor.max(part + 1), ..kept };
        // First: a purge that fails has taken nothing from readers.
        self.writer.transact_in(core.shared.storage, |transaction| {
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
        let taken = self
            .writer
            .transact_in(core.shared.storage, |transaction| core.take_out(transaction, &selection, at, now))?;
        let rest = taken.left.map(|at| Purge::Selected { selection, at });
        let (purged, lacking) = core.taken_out(taken, now).map_err(|trouble| trouble.error())?;
        let rest = match lacking {
            Some(search) => Some(Purge::Lasts { search, rest: rest.map(Box::new) }),
            None => rest,
        };
        Ok((purged, rest))
    }
}
