//! The one thread that writes, or, where there is but one thread for everything, the one task.
//!
//! Each round takes all that waits, drafts it, writes and commits it once, and then, in this order, counts it, ends
//! what limits end, shows it to readers and answers. Everything rare is an act that has the committer for itself.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    ids::Forgotten,
    link::Link,
    now::JumpWatch,
    owners::Charges,
    round::{Answer, Round},
    stores::Stores,
    work::{Act, Work},
    writer::Writer,
};
use crate::{
    engine::{GroupStoreError, Health, Options, PurgeError, StoreError},
    model::Storage,
};

/// The writing side of the engine.
pub(super) struct Committer {
    link: Arc<Link>,
    pub(super) stores: Arc<Stores>,
    pub(super) options: Arc<Options>,
    pub(super) writer: Writer,
    forgotten: Forgotten,
    clock: JumpWatch,
    swept_at: Instant,
    /// Limits want to end more than was ended in one go.
    sweep_on: bool,
    closing: bool,
}

impl Committer {
    pub(super) fn new(link: Arc<Link>, writer: Writer) -> Self {
        Self {
            link,
            stores: Arc::clone(&writer.stores),
            options: Arc::clone(&writer.streams.options),
            writer,
            forgotten: Forgotten::default(),
            clock: JumpWatch::default(),
            swept_at: Instant::now(),
            sweep_on: false,
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
        self.writer.collect_garbage();
        if self.writer.unsynced.is_due() {
            self.writer.flush();
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
        if self.sweep_on || self.writer.may_collect_garbage() {
            return Instant::now();
        }
        let sweep = self.swept_at + self.options.sweep_interval();
        self.writer.unsynced.due.map_or(sweep, |due| due.min(sweep))
    }

    fn work(&mut self, works: Vec<Work>) {
        let mut round = Round::new(self.stores.now(), Charges::new(self.options.max_owner_bytes));
        for work in works {
            let Writer { streams, condition, .. } = &mut self.writer;
            match work {
                Work::Append(work) => round.append(streams, condition, work),
                Work::Save(work) => round.save(streams, condition, work),
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

    /// Writes what a round planned, and what limits want to have deleted.
    fn finish(&mut self, round: Round) {
        let Round { now, mut drafts, states, answers, later, sync, soon, .. } = round;
        self.link.inbox.put_back(later);
        if let Err(error) = self.writer.store(now, &mut drafts, &states, sync, soon) {
            for answer in answers {
                answer.fail(&error);
            }
            return;
        }
        self.writer.streams.apply(now, drafts);
        for answer in &answers {
            answer.stored(&mut self.writer.streams);
        }
        // A session waits for the first of its publishes: with the last answered first, it wakes once for all of them.
        answers.into_iter().rev().for_each(Answer::succeed);
    }

    /// Limits by age, keys that are too old, what waits to be deleted, and a disk that may have room again.
    fn pass_time(&mut self) {
        self.writer.heal();
        self.clock.look(self.stores.clock_offset());
        let now = self.stores.now();
        self.sweep_on = self.writer.streams.pass_time(now);
        let Writer { streams, metrics, .. } = &mut self.writer;
        let (limit, memory) = (self.options.max_dedupe_ids, &self.stores.accountant);
        self.forgotten.count(&mut streams.cores, limit, memory, metrics, Instant::now());
        for storage in [Storage::File, Storage::Memory] {
            if !self.writer.streams.has_chores(storage) || !self.writer.may_sweep(storage) {
                continue;
            }
            if let Err(error) = self.writer.settle(storage) {
                tracing::warn!(%error, "deleted events stay on the disk for now");
            } else {
                self.sweep_on |= self.writer.streams.has_waste(storage);
            }
        }
        if !self.writer.condition.is_broken()
            && let Err(trouble) = self.writer.streams.forget_repeats(now)
        {
            self.writer.fail(Storage::File, &trouble, &BTreeMap::new());
        }
    }

    /// Flushes everything and marks the store as closed.
    fn close(&mut self) -> Result<(), StoreError> {
        self.closing = true;
        self.link.inbox.close();
        self.writer.close()
    }
}
