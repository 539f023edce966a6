//! Giving dead letters back: their group has the events again and the letters are gone, both or neither. The contract asks
//! for less; with one file it costs nothing more.

use redb::WriteTransaction;

use super::{
    committer::Committer,
    core::Core,
    groups,
    purge::{Purge, Selection},
    rows::{GROUP_STATES, row},
    store::Trouble,
    stream::Shared,
    work::Rest,
};
use crate::{
    engine::{GroupStoreError, LettersBack, StoreError},
    model::{Group, Storage},
};

impl Committer {
    /// Saves the state of a group and removes the dead letters that it has back, in one transaction.
    pub(super) fn give_back(
        &mut self,
        stream: &Shared,
        group: &Group,
        state: &[u8],
        back: LettersBack,
    ) -> Result<Rest, GroupStoreError> {
        if !groups::knows(stream, group)? {
            return Err(GroupStoreError::NotFound);
        }
        let gone = || GroupStoreError::DeadLetterStream { name: back.letters.stream.clone() };
        let letters = self.writer.streams.directory.find(back.letters.stream.as_str());
        let letters = letters.filter(|found| found.epoch == back.letters.epoch).ok_or_else(gone)?;
        let Some(mut core) = self.writer.streams.cores.remove(&letters.id) else { return Err(gone()) };
        let state = row(state);
        let save = |transaction: &WriteTransaction| -> Result<(), Trouble> {
            transaction.open_table(GROUP_STATES)?.insert((stream.id, group.as_str()), &*state)?;
            Ok(())
        };
        let selection = Selection::Sequences(back.sequences.into_iter().collect());
        let (of_group, of_letters) = (stream.storage, letters.storage);
        let apart = of_group != of_letters;
        // What is in memory alone is gone anyway when the process ends between the two: the disk first.
        let first = if apart && of_group == Storage::File { self.writer.transact_in(of_group, save) } else { Ok(()) };
        let taken = first.and_then(|()| {
            let with = |transaction: &WriteTransaction| if apart { Ok(()) } else { save(transaction) };
            self.take_letters(&mut core, selection, with)
        });
        let taken = match taken {
            Ok(rest) if apart && of_group == Storage::Memory => self.writer.transact_in(of_group, save).map(|()| rest),
            taken => taken,
        };
        core.drop_empty();
        core.weigh();
        self.writer.streams.cores.insert(letters.id, core);
        if self.writer.condition.is_broken() {
            // It was not there to be compared when the store was opened again.
            let _ = self.writer.compare();
        }
        let rest = taken?;
        self.writer.streams.forget_buried(stream.id, group);
        // It is in the store. What else there is to do for it waits when the disk refuses now.
        let _ = self.writer.settle(of_letters);
        Ok(rest.map(|rest| (letters, rest)))
    }

    /// Takes all of a selection out of a stream, `with` something else, and tells what is left to be done for it.
    fn take_letters(
        &mut self,
        core: &mut Core,
        mut selection: Selection,
        with: impl FnOnce(&WriteTransaction) -> Result<(), Trouble>,
    ) -> Result<Option<Purge>, StoreError> {
        selection.limit(core.end.next - 1);
        let now = core.shared.now();
        let taken = self.writer.transact_in(core.shared.storage, |transaction| {
            with(transaction)?;
            core.take_all_out(transaction, &selection, now)
        })?;
        let (_, lacking) = core.taken_out(taken, now).map_err(|trouble| trouble.error())?;
        Ok(lacking.map(|search| Purge::Lasts { search, rest: None }))
    }
}
