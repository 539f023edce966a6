//! The one thread that writes, or, where there is but one thread for everything, the one task.
//!
//! Each round takes all that waits, drafts it, writes and commits it once, and then, in this order, counts it, ends
//! what limits end, shows it to readers and answers. Everything rare is an act that has the committer for itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use redb::{Durability as Commit, WriteTransaction};

use super::{
    chores::Swept,
    core::Core,
    directory::Directory,
    draft::Draft,
    full::Full,
    garbage::Garbage,
    ids::{Forgotten, bound_ids},
    link::Link,
    now::JumpWatch,
    owners::Charges,
    rows::{BATCHES, GROUP_STATES, PROGRESS, REPEATS, row},
    store::Trouble,
    stores::Stores,
    stream::Shared,
    tail::Budget,
    work::{Act, AppendWork, SaveWork, Work},
};
use crate::{
    engine::{AppendError, Appended, DeadLetter, GroupStoreError, Health, Options, PurgeError, StoreError},
    event::{Event, Seal},
    model::{Durability, Group, Storage},
    telemetry::Metrics,
};

/// What streams of durability NONE have written is flushed when it is so much: until then it cannot make room for
/// anything.
const MOST_UNSYNCED_BYTES: usize = 64 * 1024 * 1024;

/// The writing side of the engine.
pub(super) struct Committer {
    link: Arc<Link>,
    pub(super) stores: Arc<Stores>,
    pub(super) directory: Arc<Directory>,
    pub(super) options: Options,
    pub(super) seal: Seal,
    /// In order, as everything that is gone through here: what happens is then the same every time.
    pub(super) cores: BTreeMap<u64, Core>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Budget,
    /// What every write to the disk is answered with, as long as there is something.
    pub(super) broken: Option<StoreError>,
    /// As long as that is that there is no room.
    pub(super) full: Full,
    pub(super) unsynced: Unsynced,
    pub(super) forgotten: Forgotten,
    clock: JumpWatch,
    swept_at: Instant,
    /// Limits want to end more than was ended in one go.
    sweep_on: bool,
    /// What deleted streams left in the store.
    pub(super) garbage: VecDeque<Garbage>,
    closing: bool,
}

/// What was committed and not flushed.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    bytes: usize,
    /// When it has to be, for streams that promise a time.
    pub(super) due: Option<Instant>,
}

/// An answer that waits for the commit.
enum Answer {
    Append(AppendWork, Vec<Appended>),
    Save(SaveWork),
}

/// What one round writes.
#[derive(Default)]
pub(super) struct Round {
    pub(super) now: u64,
    pub(super) drafts: BTreeMap<u64, Draft>,
    charges: Charges,
    states: Vec<(Arc<Shared>, Group, Vec<u8>)>,
    answers: Vec<Answer>,
    /// What comes again in the next round: of streams, which are named, that have more past its ttl than can be counted in one.
    later: Vec<Work>,
    pub(super) expiring: BTreeSet<u64>,
    /// Something has to be on the disk before it is answered.
    sync: bool,
    /// Something has to be on the disk before long.
    soon: bool,
}

impl Committer {
    pub(super) fn new(
        link: Arc<Link>,
        directory: Arc<Directory>,
        options: Options,
        seal: Seal,
        (cores, garbage): (BTreeMap<u64, Core>, VecDeque<Garbage>),
        metrics: Arc<Metrics>,
    ) -> Self {
        let budget = Budget::new(options.tail_cache_bytes);
        let (unsynced, swept_at) = (Unsynced::default(), Instant::now());
        Self {
            stores: Arc::clone(&link.stores),
            link,
            directory,
            options,
            seal,
            cores,
            metrics,
            budget,
            broken: None,
            full: Full::default(),
            unsynced,
            forgotten: Forgotten::default(),
            clock: JumpWatch::default(),
            swept_at,
            sweep_on: false,
            garbage,
            closing: false,
        }
    }

    /// Works until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(works) = self.link.inbox.take(self.deadline()) {
            if !self.round(works) {
                break;
            }
        }
        self.leave();
    }

    /// The same as a task, which waits for the disk by itself.
    pub(super) async fn run_as_task(mut self) {
        let link = Arc::clone(&self.link);
        while let Some(works) = link.inbox.taken(self.deadline()).await {
            tokio::time::sleep(link.stores.file.disk().delay()).await;
            if !self.round(works) {
                break;
            }
        }
        self.leave();
    }

    /// One round, and what time brings; false when it was the last.
    fn round(&mut self, works: Vec<Work>) -> bool {
        self.work(works);
        if self.closing {
            // What time would bring might open it again.
            return false;
        }
        if self.sweep_on || self.swept_at.elapsed() >= self.options.sweep_interval() {
            self.swept_at = Instant::now();
            self.pass_time();
        }
        self.collect_garbage();
        if self.unsynced.due.is_some_and(|due| due <= Instant::now()) || self.unsynced.bytes > MOST_UNSYNCED_BYTES {
            self.flush();
        }
        true
    }

    fn leave(&self) {
        self.link.inbox.close();
        // What is left is not done, and whoever waits for it gets to know that when it is dropped.
        while self.link.inbox.take(Instant::now()).is_some() {}
        self.stores.set_health(Health::Unavailable);
        self.stores.file.leave();
        self.stores.memory.leave();
    }

    fn deadline(&self) -> Instant {
        if self.sweep_on || self.may_collect_garbage() {
            return Instant::now();
        }
        let sweep = self.swept_at + self.options.sweep_interval();
        self.unsynced.due.map_or(sweep, |due| due.min(sweep))
    }

    fn work(&mut self, works: Vec<Work>) {
        let charges = Charges::new(self.options.max_owner_bytes);
        let mut round = Round { now: self.stores.now(), charges, ..Round::default() };
        for work in works {
            match work {
                Work::Append(work) => self.plan_append(&mut round, work),
                Work::Save(work) => self.plan_save(&mut round, work),
                Work::Act(act) => self.act(*act),
            }
        }
        self.finish(round);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Create { settings, reply } => reply.send(self.create(settings)),
            Act::Update { settings, before, reply } => reply.send(self.update(settings, before.as_deref())),
            Act::Limit { id, reply } => reply.send(self.limit(id)),
            Act::Delete { name, reply } => reply.send(self.delete(&name)),
            Act::Purge { stream, what, reply } => {
                let good = stream.check(PurgeError::Closed);
                reply.send(good.and_then(|()| self.purge(stream.id, what)));
            }
            Act::PutGroup { stream, group, settings, first, reply } => {
                let good = stream.check(GroupStoreError::Closed);
                reply.send(good.and_then(|()| self.put_group(&stream, &group, &settings, first.as_deref())));
            }
            Act::DeleteGroup { stream, group, reply } => {
                let good = stream.check(GroupStoreError::Closed);
                reply.send(good.and_then(|()| self.delete_group(&stream, &group)));
            }
            Act::GiveBack { stream, group, state, back, reply } => {
                let good = stream.check(GroupStoreError::Closed);
                reply.send(good.and_then(|()| self.give_back(&stream, &group, &state, back)));
            }
            Act::Close { reply } => reply.send(self.close()),
        }
    }

    /// Counts what is past its ttl as gone where that makes a difference to an append; true when the append, and those that
    /// come after it, have to wait for more of that.
    fn expire_for(&mut self, round: &mut Round, id: u64, events: &[Event]) -> Result<bool, Trouble> {
        let broken = self.broken.is_some();
        let core = self.cores.get_mut(&id).filter(|core| !broken || core.shared.storage == Storage::Memory);
        let Some(core) = core.filter(|_| !round.expiring.contains(&id)) else {
            return Ok(round.expiring.contains(&id));
        };
        let drafted = round.drafts.get(&id).map_or(0, Draft::events);
        if core.expire_for(events, drafted, self.options.max_topics, round.now)? {
            round.expiring.insert(id);
        }
        Ok(round.expiring.contains(&id))
    }

    fn plan_append(&mut self, round: &mut Round, work: AppendWork) {
        let stream = &work.stream;
        match self.expire_for(round, stream.id, &work.events) {
            Ok(true) => return round.later.push(Work::Append(work)),
            Ok(false) => {}
            Err(trouble) => return work.answer(Err(trouble.error().into())),
        }
        let good = stream.check(AppendError::Closed);
        let planned = match (good, &self.broken, self.cores.get_mut(&stream.id)) {
            (Err(error), ..) => Err(error),
            (.., None) => Err(AppendError::Closed),
            (_, Some(error), _) if stream.storage == Storage::File => Err(error.clone().into()),
            (.., Some(core)) => {
                round.wants(stream.storage, stream.settings.read().durability);
                let draft = round.drafts.entry(stream.id).or_insert_with(|| core.draft(round.now));
                let (max_topics, charges) = (self.options.max_topics, &mut round.charges);
                core.plan(draft, &work.events, work.precondition, max_topics, self.seal, charges)
            }
        };
        match planned {
            Ok(results) => round.answers.push(Answer::Append(work, results)),
            Err(error) => work.answer(Err(error)),
        }
    }

    fn plan_save(&mut self, round: &mut Round, work: SaveWork) {
        for letter in &work.dead_letters {
            let Some(stream) = self.directory.find(letter.stream.as_str()) else { continue };
            match self.expire_for(round, stream.id, std::slice::from_ref(&letter.event)) {
                Ok(true) => return round.later.push(Work::Save(work)),
                Ok(false) => {}
                Err(trouble) => return work.answer(Err(trouble.error().into())),
            }
        }
        match self.check_save(&work).and_then(|letters| self.charge_save(round, &work, letters)) {
            Ok(letters) => {
                round.wants(work.stream.storage, work.stream.settings.read().durability);
                for (id, letter) in letters.into_iter().zip(&work.dead_letters) {
                    let Some(core) = self.cores.get_mut(&id) else { continue };
                    round.wants(core.shared.storage, core.shared.settings.read().durability);
                    let draft = round.drafts.entry(id).or_insert_with(|| core.draft(round.now));
                    core.put(draft, &letter.event, self.seal);
                }
                round.states.push((Arc::clone(&work.stream), work.group.clone(), row(&work.state)));
                round.answers.push(Answer::Save(work));
            }
            Err(error) => work.answer(Err(error)),
        }
    }

    /// The streams that the dead letters go to.
    fn check_save(&self, work: &SaveWork) -> Result<Vec<u64>, GroupStoreError> {
        work.stream.check(GroupStoreError::Closed)?;
        let mut on_disk = work.stream.storage == Storage::File;
        let mut ids = Vec::with_capacity(work.dead_letters.len());
        for letter in &work.dead_letters {
            let name = &letter.stream;
            let stream = self.directory.find(name.as_str()).filter(|stream| self.cores.contains_key(&stream.id));
            let stream = stream.ok_or_else(|| GroupStoreError::DeadLetterStream { name: name.clone() })?;
            on_disk |= stream.storage == Storage::File;
            ids.push(stream.id);
        }
        if !self.knows_group(&work.stream, &work.group)? {
            return Err(GroupStoreError::NotFound);
        }
        match &self.broken {
            Some(error) if on_disk => Err(error.clone().into()),
            _ => Ok(ids),
        }
    }

    /// What a group gives up is on the account of who owns the stream it goes to, all of it or nothing.
    fn charge_save(
        &mut self,
        round: &mut Round,
        work: &SaveWork,
        letters: Vec<u64>,
    ) -> Result<Vec<u64>, GroupStoreError> {
        let mut by_stream: BTreeMap<u64, Vec<&DeadLetter>> = BTreeMap::new();
        for (id, letter) in letters.iter().zip(&work.dead_letters) {
            by_stream.entry(*id).or_default().push(letter);
        }
        for (id, some) in by_stream {
            let Some(core) = self.cores.get_mut(&id) else { continue };
            let draft = round.drafts.entry(id).or_insert_with(|| core.draft(round.now));
            let events = some.iter().map(|letter| &letter.event);
            let admission = core.admission(self.seal);
            if events.clone().any(|event| admission.never_fits(event, core.end.place())) {
                return Err(GroupStoreError::NeverFits { name: core.shared.name.clone() });
            }
            admission
                .charge(draft, events, false, &mut round.charges)
                .map_err(|_| GroupStoreError::QuotaUsedUp { name: core.shared.name.clone() })?;
            admission
                .reserve(draft, some.iter().map(|letter| &letter.event))
                .map_err(|full| GroupStoreError::NoMemory { name: core.shared.name.clone(), full })?;
        }
        Ok(letters)
    }

    /// Writes what a round planned, and what limits want to have deleted.
    fn finish(&mut self, round: Round) {
        let Round { now, mut drafts, states, answers, later, sync, soon, .. } = round;
        self.link.inbox.put_back(later);
        let bytes: usize = drafts.values().map(Draft::bytes).sum();
        // The disk first: what is in memory alone is gone anyway when the process ends between the two.
        for storage in [Storage::File, Storage::Memory] {
            let commit = if sync || storage == Storage::Memory { Commit::Immediate } else { Commit::None };
            let concerned = drafts.iter().any(|(id, draft)| !draft.is_empty() && self.stores(*id, storage))
                || states.iter().any(|(stream, ..)| stream.storage == storage);
            if !concerned {
                continue;
            }
            if let Err(trouble) = self.commit(storage, commit, now, &mut drafts, &states) {
                let error = self.fail(storage, &trouble, &drafts);
                for answer in answers {
                    answer.fail(&error);
                }
                return;
            }
            if storage == Storage::File {
                self.committed(commit, bytes, soon);
            }
        }
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
        // A session waits for the first of its publishes: with the last answered first, it wakes once for all of them.
        answers.into_iter().rev().for_each(Answer::succeed);
    }

    fn committed(&mut self, commit: Commit, bytes: usize, soon: bool) {
        if matches!(commit, Commit::Immediate) {
            self.unsynced = Unsynced::default();
        } else {
            self.unsynced.bytes += bytes;
            if soon {
                self.unsynced.due.get_or_insert_with(|| Instant::now() + self.options.sync_interval());
            }
        }
    }

    pub(super) fn stores(&self, id: u64, storage: Storage) -> bool {
        self.cores.get(&id).is_some_and(|core| core.shared.storage == storage)
    }

    /// One transaction: drafts, states of groups, and all chores.
    fn commit(
        &mut self,
        storage: Storage,
        commit: Commit,
        now: u64,
        drafts: &mut BTreeMap<u64, Draft>,
        states: &[(Arc<Shared>, Group, Vec<u8>)],
    ) -> Result<(), Trouble> {
        let begun = Instant::now();
        let mut transaction = self.stores.of(storage).write()?;
        transaction.set_durability(commit).map_err(|error| Trouble::Database(error.into()))?;
        let mut swept = Vec::new();
        for (stream, group, state) in states.iter().filter(|(stream, ..)| stream.storage == storage) {
            transaction.open_table(GROUP_STATES)?.insert((stream.id, group.as_str()), &**state)?;
        }
        self.write_streams(&transaction, storage, now, drafts, &mut swept)?;
        transaction.commit()?;
        if storage == Storage::File {
            self.metrics.committed(begun.elapsed());
        }
        for (id, swept) in swept {
            if let Some(core) = self.cores.get_mut(&id) {
                core.retention.chores_done(swept);
                core.weigh();
            }
        }
        Ok(())
    }

    fn write_streams(
        &mut self,
        transaction: &WriteTransaction,
        storage: Storage,
        now: u64,
        drafts: &mut BTreeMap<u64, Draft>,
        swept: &mut Vec<(u64, Vec<Swept>)>,
    ) -> Result<(), Trouble> {
        let mut batches = transaction.open_table(BATCHES)?;
        let mut progress = transaction.open_table(PROGRESS)?;
        for (id, draft) in drafts.iter_mut().filter(|(_, draft)| !draft.is_empty()) {
            if let Some(core) = self.cores.get(id).filter(|core| core.shared.storage == storage) {
                core.end.write(draft, &mut batches)?;
                progress.insert(id, &*core.progress(Some(draft)).to_row())?;
            }
        }
        let mut busy = self
            .cores
            .values_mut()
            .filter(|core| core.shared.storage == storage && core.retention.has_chores())
            .peekable();
        if busy.peek().is_none() {
            return Ok(());
        }
        let mut repeats = transaction.open_table(REPEATS)?;
        for core in busy {
            let id = core.shared.id;
            let draft = drafts.get(&id);
            swept.push((id, core.do_chores(&mut batches, &mut repeats, now, draft)?));
            progress.insert(id, &*core.progress(draft).to_row())?;
        }
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
                    self.made_room(0);
                }
                Ok(())
            }
            Err(trouble) => Err(self.fail(storage, &trouble, &none)),
        }
    }

    /// What was committed and not flushed is flushed.
    fn flush(&mut self) {
        self.unsynced = Unsynced::default();
        if let Err(error) = self.settle(Storage::File) {
            tracing::error!(%error, "stored events could not be flushed to disk");
        }
    }

    /// Limits by age, keys that are too old, what waits to be deleted, and a disk that may have room again.
    fn pass_time(&mut self) {
        self.heal();
        self.clock.look(self.stores.clock_offset());
        let now = self.stores.now();
        self.sweep_on = false;
        for core in self.cores.values_mut() {
            match core.pass_time(now) {
                Ok(more) => self.sweep_on |= more,
                Err(trouble) => tracing::error!(stream = %core.shared.name, %trouble, "limits cannot be enforced"),
            }
            core.drop_empty();
            core.repeats.expire(now);
            core.weigh();
        }
        let (limit, memory) = (self.options.max_dedupe_ids, &self.stores.accountant);
        self.forgotten.count(&mut self.cores, limit, memory, &self.metrics, Instant::now());
        for storage in [Storage::File, Storage::Memory] {
            let chores = self.cores.values().any(|core| core.shared.storage == storage && core.retention.has_chores());
            if !chores || !self.may_sweep(storage) {
                continue;
            }
            if let Err(error) = self.settle(storage) {
                tracing::warn!(%error, "deleted events stay on the disk for now");
            } else {
                self.sweep_on |=
                    self.cores.values().any(|core| core.shared.storage == storage && core.retention.waste.is_much());
            }
        }
        if self.broken.is_none()
            && let Err(trouble) = self.forget_repeats(now)
        {
            self.fail(Storage::File, &trouble, &BTreeMap::new());
        }
    }

    /// Flushes everything and marks the store as closed.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        self.closing = true;
        self.link.inbox.close();
        match &self.broken {
            None => self.settle(Storage::File)?,
            // Nothing waits to be flushed. What little there is to say may fit.
            Some(StoreError::Full) => {}
            Some(error) => return Err(error.clone()),
        }
        if let Err(trouble) = self.stores.file.set_clean(true) {
            return Err(self.broken.clone().unwrap_or_else(|| self.fail(Storage::File, &trouble, &BTreeMap::new())));
        }
        // Whoever is told may open it at once.
        self.stores.set_health(Health::Unavailable);
        self.stores.file.leave();
        Ok(())
    }
}

impl Round {
    fn wants(&mut self, storage: Storage, durability: Durability) {
        if storage == Storage::File {
            self.sync |= durability == Durability::Sync;
            self.soon |= durability == Durability::Interval;
        }
    }
}

impl Answer {
    fn succeed(self) {
        match self {
            Self::Append(work, results) => work.answer(Ok(results)),
            Self::Save(work) => work.answer(Ok(())),
        }
    }

    fn fail(self, error: &StoreError) {
        match self {
            Self::Append(work, _) => work.answer(Err(error.clone().into())),
            Self::Save(work) => work.answer(Err(error.clone().into())),
        }
    }
}
