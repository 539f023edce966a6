//! One round of the committer: all that waited is planned against the streams as they are, and answered once it is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    condition::Condition,
    draft::Draft,
    groups,
    owners::Charges,
    rows::row,
    store::Trouble,
    streams::Streams,
    work::{AppendWork, SaveWork, Work},
    writer::StateRow,
};
use crate::{
    engine::{AppendError, Appended, DeadLetter, GroupStoreError, LetterId, StoreError},
    event::Event,
    model::{Durability, Storage},
};

/// What one round writes.
pub(super) struct Round {
    pub(super) now: u64,
    pub(super) drafts: BTreeMap<u64, Draft>,
    charges: Charges,
    pub(super) states: Vec<StateRow>,
    pub(super) answers: Vec<Answer>,
    /// What comes again in the next round: of streams, which are named, that have more past its ttl than can be counted in one.
    pub(super) later: Vec<Work>,
    expiring: BTreeSet<u64>,
    /// Something has to be on the disk before it is answered.
    pub(super) sync: bool,
    /// Something has to be on the disk before long.
    pub(super) soon: bool,
}

/// An answer that waits for the commit.
pub(super) enum Answer {
    Append(AppendWork, Vec<Appended>),
    Save(SaveWork),
}

impl Round {
    /// A round without work.
    pub(super) fn new(now: u64, charges: Charges) -> Self {
        Self {
            now,
            drafts: BTreeMap::new(),
            charges,
            states: Vec::new(),
            answers: Vec::new(),
            later: Vec::new(),
            expiring: BTreeSet::new(),
            sync: false,
            soon: false,
        }
    }

    /// Plans an append, or answers it.
    pub(super) fn append(&mut self, streams: &mut Streams, condition: &Condition, work: AppendWork) {
        let stream = &work.stream;
        match self.expire_for(streams, condition, stream.id, &work.events) {
            Ok(true) => return self.later.push(Work::Append(work)),
            Ok(false) => {}
            Err(trouble) => return work.answer(Err(trouble.error().into())),
        }
        let good = stream.check(AppendError::Closed);
        let planned = match (good, condition.error(), streams.cores.get_mut(&stream.id)) {
            (Err(error), ..) => Err(error),
            (.., None) => Err(AppendError::Closed),
            (_, Some(error), _) if stream.storage == Storage::File => Err(error.clone().into()),
            (.., Some(core)) => {
                self.wants(stream.storage, stream.settings.read().durability);
                let draft = self.drafts.entry(stream.id).or_insert_with(|| core.draft(self.now));
                let (max_topics, charges) = (streams.options.max_topics, &mut self.charges);
                core.plan(draft, &work.events, work.precondition, max_topics, charges)
            }
        };
        match planned {
            Ok(results) => self.answers.push(Answer::Append(work, results)),
            Err(error) => work.answer(Err(error)),
        }
    }

    /// Plans to save the state of a group, or answers.
    pub(super) fn save(&mut self, streams: &mut Streams, condition: &Condition, work: SaveWork) {
        for letter in &work.dead_letters {
            let Some(stream) = streams.directory.find(letter.stream.as_str()) else { continue };
            match self.expire_for(streams, condition, stream.id, std::slice::from_ref(&letter.event)) {
                Ok(true) => return self.later.push(Work::Save(work)),
                Ok(false) => {}
                Err(trouble) => return work.answer(Err(trouble.error().into())),
            }
        }
        let new = check_save(streams, condition, &work).map(|letters| self.new_letters(streams, &work, letters));
        match new.and_then(|letters| self.charge_save(streams, letters)) {
            Ok(letters) => {
                self.wants(work.stream.storage, work.stream.settings.read().durability);
                for (id, letter) in letters {
                    let Some(core) = streams.cores.get_mut(&id) else { continue };
                    self.wants(core.shared.storage, core.shared.settings.read().durability);
                    let draft = self.drafts.entry(id).or_insert_with(|| core.draft(self.now));
                    core.put(draft, &letter.event);
                }
                self.states.push((Arc::clone(&work.stream), work.group.clone(), row(&work.state)));
                self.answers.push(Answer::Save(work));
            }
            Err(error) => work.answer(Err(error)),
        }
    }

    /// The dead letters that are not stored yet, each with the stream it goes to.
    fn new_letters<'a>(&self, streams: &Streams, work: &'a SaveWork, ids: Vec<u64>) -> Vec<(u64, &'a DeadLetter)> {
        let mut letters: Vec<_> = ids.into_iter().zip(&work.dead_letters).collect();
        if letters.is_empty() {
            return letters;
        }
        let before = self.answers.iter().rev().find_map(|answer| match answer {
            Answer::Save(before) if before.is_of(work) => Some(before),
            _ => None,
        });
        let mut known: BTreeSet<LetterId> = match (before, streams.cores.get(&work.stream.id)) {
            (Some(before), _) => before.dead_letters.iter().map(|letter| letter.id).collect(),
            (None, Some(core)) => core.buried.of(&work.group).iter().copied().collect(),
            (None, None) => BTreeSet::new(),
        };
        letters.retain(|(_, letter)| known.insert(letter.id));
        letters
    }

    /// What a group gives up is on the account of who owns the stream it goes to, all of it or nothing.
    fn charge_save<'a>(
        &mut self,
        streams: &mut Streams,
        letters: Vec<(u64, &'a DeadLetter)>,
    ) -> Result<Vec<(u64, &'a DeadLetter)>, GroupStoreError> {
        let mut by_stream: BTreeMap<u64, Vec<&DeadLetter>> = BTreeMap::new();
        for (id, letter) in &letters {
            by_stream.entry(*id).or_default().push(letter);
        }
        for (id, some) in by_stream {
            let Some(core) = streams.cores.get_mut(&id) else { continue };
            let draft = self.drafts.entry(id).or_insert_with(|| core.draft(self.now));
            let events = some.iter().map(|letter| &letter.event);
            let admission = core.admission();
            if events.clone().any(|event| admission.never_fits(event, core.end.place())) {
                return Err(GroupStoreError::NeverFits { name: core.shared.name.clone() });
            }
            admission
                .charge(draft, events, false, &mut self.charges)
                .map_err(|_| GroupStoreError::QuotaUsedUp { name: core.shared.name.clone() })?;
            admission
                .reserve(draft, some.iter().map(|letter| &letter.event))
                .map_err(|full| GroupStoreError::NoMemory { name: core.shared.name.clone(), full })?;
        }
        Ok(letters)
    }

    /// Counts what is past its ttl as gone where that makes a difference to an append; true when the append, and those that
    /// come after it, have to wait for more of that.
    fn expire_for(
        &mut self,
        streams: &mut Streams,
        condition: &Condition,
        id: u64,
        events: &[Event],
    ) -> Result<bool, Trouble> {
        let broken = condition.is_broken();
        let core = streams.cores.get_mut(&id).filter(|core| !broken || core.shared.storage == Storage::Memory);
        let Some(core) = core.filter(|_| !self.expiring.contains(&id)) else {
            return Ok(self.expiring.contains(&id));
        };
        let drafted = self.drafts.get(&id).map_or(0, Draft::events);
        if core.expire_for(events, drafted, streams.options.max_topics, self.now)? {
            self.expiring.insert(id);
        }
        Ok(self.expiring.contains(&id))
    }

    fn wants(&mut self, storage: Storage, durability: Durability) {
        if storage == Storage::File {
            self.sync |= durability == Durability::Sync;
            self.soon |= durability == Durability::Interval;
        }
    }
}

/// The streams that the dead letters go to.
fn check_save(streams: &Streams, condition: &Condition, work: &SaveWork) -> Result<Vec<u64>, GroupStoreError> {
    work.stream.check(GroupStoreError::Closed)?;
    let mut on_disk = work.stream.storage == Storage::File;
    let mut ids = Vec::with_capacity(work.dead_letters.len());
    for letter in &work.dead_letters {
        let name = &letter.stream;
        let stream = streams.directory.find(name.as_str()).filter(|stream| streams.cores.contains_key(&stream.id));
        let stream = stream.ok_or_else(|| GroupStoreError::DeadLetterStream { name: name.clone() })?;
        on_disk |= stream.storage == Storage::File;
        ids.push(stream.id);
    }
    if !groups::knows(&work.stream, &work.group)? {
        return Err(GroupStoreError::NotFound);
    }
    match condition.error() {
        Some(error) if on_disk => Err(error.clone().into()),
        _ => Ok(ids),
    }
}

impl Answer {
    /// What it is of is in the store.
    pub(super) fn stored(&self, streams: &mut Streams) {
        if let Self::Save(work) = self
            && let Some(core) = streams.cores.get_mut(&work.stream.id)
        {
            core.buried.saved(&work.group, &work.dead_letters);
        }
    }

    pub(super) fn succeed(self) {
        match self {
            Self::Append(work, results) => work.answer(Ok(results)),
            Self::Save(work) => work.answer(Ok(())),
        }
    }

    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Self::Append(work, _) => work.answer(Err(error.clone().into())),
            Self::Save(work) => work.answer(Err(error.clone().into())),
        }
    }
}
