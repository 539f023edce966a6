//! Events past their ttl end as by a limit: they are counted no more, and leave the store.
//!
//! Of each batch that has events with a ttl it is known when the first of them ends that was not counted as gone. Once that time
//! is there the batch is read, and what has ended in it is gone; the store follows as it does for limits on topics. Readers and
//! preconditions look at the times themselves and need not wait for this. What limits end does: the living are not to be
//! pushed out by the dead.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::Relaxed,
};

use super::{
    batch::Records,
    committer::{Committer, Round},
    core::{Core, Draft},
    keep::{Lasts, TRIM_BYTES},
    store::{Loaded, Trouble},
};
use crate::{event::Event, model::Storage};

/// What a batch costs in memory that has events with a ttl.
const DUE_BYTES: usize = 128;

/// When events of batches end by their ttl.
#[derive(Debug, Default)]
pub(super) struct Dues {
    /// Of each batch, by its first sequence, when the first ends of those not counted as gone.
    of: BTreeMap<u64, u64>,
    order: BTreeSet<(u64, u64)>,
}

impl Dues {
    /// When the first event of a batch ends that is not gone: those that end before that are. `u64::MAX` when there is none.
    pub(super) fn of(&self, first: u64) -> u64 {
        self.of.get(&first).copied().unwrap_or(u64::MAX)
    }

    /// Sets it.
    pub(super) fn set(&mut self, first: u64, due: u64) {
        let before = if due == u64::MAX { self.of.remove(&first) } else { self.of.insert(first, due) };
        if let Some(before) = before {
            self.order.remove(&(before, first));
        }
        if due != u64::MAX {
            self.order.insert((due, first));
        }
    }

    /// A batch with events that end by `now`.
    fn next(&self, now: u64) -> Option<u64> {
        self.order.first().filter(|(due, _)| *due <= now).map(|(_, first)| *first)
    }

    pub(super) fn clear(&mut self) {
        self.of.clear();
        self.order.clear();
    }

    /// How much memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.of.len() * DUE_BYTES
    }

    /// How much an append may add to that, which has events with a ttl, and in all so many bytes of events.
    pub(super) fn most_bytes(bytes: usize) -> usize {
        DUE_BYTES * (2 + bytes / super::core::OPEN_BATCH_BYTES)
    }
}

impl Core {
    /// True when events are past their ttl that are still counted.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.dues.next(now).is_some()
    }

    /// True when an append has to wait until what is past its ttl is counted no more: what limits end for it is to be alive.
    pub(super) fn awaits_expiry(&self, events: &[Event], more: usize, max_topics: usize, now: u64) -> bool {
        let limited = || {
            let settings = self.shared.settings.read();
            let limits = [settings.max_events, settings.max_bytes, settings.max_events_per_topic];
            limits.iter().any(Option::is_some) || self.shared.topics.read().len() + more + events.len() > max_topics
        };
        self.is_due(now) && limited()
    }

    /// Counts events that are past their ttl as gone, until batches of so many bytes were read; true when there are more.
    pub(super) fn expire(&mut self, now: u64, at_once: usize) -> Result<bool, Trouble> {
        let (mut read, mut more) = (0, false);
        if !self.is_due(now) {
            return Ok(false);
        }
        let shared = std::sync::Arc::clone(&self.shared);
        let batches = shared.store().batches()?;
        while let Some(first) = self.dues.next(now) {
            more = read >= at_once;
            if more {
                break;
            }
            match batches.covering(shared.id, first)? {
                Some(loaded) if loaded.head.first == first => {
                    read += loaded.value.len();
                    self.expire_in(&loaded, now)?;
                }
                // It was deleted, or what was left of it is part of the one before.
                _ => self.dues.set(first, u64::MAX),
            }
        }
        shared.weigh();
        Ok(more)
    }

    fn expire_in(&mut self, Loaded { head, value }: &Loaded, now: u64) -> Result<(), Trouble> {
        let shared = std::sync::Arc::clone(&self.shared);
        let (was, floor) = (self.dues.of(head.first), shared.bounds().floor);
        let (mut due, mut gone) = (u64::MAX, Vec::new());
        for record in Records::new(head, value) {
            let record = record.map_err(Trouble::batch(shared.id, head.first))?;
            let ends = record.ends(&shared.warp);
            if ends > now {
                due = due.min(ends);
            } else if ends >= was && record.sequence >= floor {
                gone.push(record);
            }
        }
        let mut topics = shared.topics.write();
        // Others may have been pushed out of their topics before.
        gone.retain(|record| topics.expire(record.topic(value), record.sequence));
        let lacking = gone.iter().filter(|record| topics.lacks_last(record.topic(value)));
        let lacking: Vec<Box<[u8]>> = lacking.map(|record| record.topic(value).into()).collect();
        drop(topics);
        let mut bounds = shared.bounds.lock();
        bounds.events -= gone.len() as u64;
        bounds.bytes = bounds.bytes.saturating_sub(gone.iter().map(|record| u64::from(record.len)).sum());
        drop(bounds);
        self.dues.set(head.first, due);
        self.expired |= !gone.is_empty();
        for record in &gone {
            self.push_out(record.sequence, record.len);
        }
        self.look_for(lacking, head.last);
        Ok(())
    }

    /// The last events of these topics are not known, and are to be found at `at` or before.
    fn look_for(&mut self, topics: Vec<Box<[u8]>>, at: u64) {
        if !topics.is_empty() {
            self.search.get_or_insert_default().add(topics, at);
        }
    }

    /// What time brings when nothing else does: true when there is more of it.
    pub(super) fn expire_some(&mut self, now: u64) -> Result<bool, Trouble> {
        let mut more = self.expire(now, TRIM_BYTES)?;
        if !more && let Some(mut search) = self.search.take() {
            // Most of them have no event left by now.
            search.wanted.retain(|topic, found| *found > 0 || self.shared.topics.read().lacks_last(topic));
            more = !self.find_lasts(&mut search)?;
            self.search = Some(search).filter(|_| more);
        }
        if std::mem::take(&mut self.expired) {
            // Not each time: whoever read ahead reads anew for it.
            self.shared.removals.fetch_add(1, Relaxed);
        }
        Ok(more)
    }

    /// A piece of a batch, which now has so many records, with events that end at `due` or later, or none that does.
    pub(super) fn note_due(&mut self, first: u64, records: u32, due: u64) {
        let before = self.dues.of(first);
        self.dues.set(first, before.min(due));
        if before.min(due) != u64::MAX || self.loads.contains_key(&first) {
            self.loads.entry(first).or_default().records = records;
        }
    }

    /// How a batch stands that was written again need not be known any longer, unless more of it can die by itself.
    pub(super) fn may_forget_load(&self, first: u64) -> bool {
        !self.shared.topics.read().is_limited() && self.dues.of(first) == u64::MAX
    }
}

impl Lasts {
    /// Looks for more topics, at `at` or before.
    fn add(&mut self, topics: Vec<Box<[u8]>>, at: u64) {
        self.wanted.extend(topics.into_iter().map(|topic| (topic, 0)));
        self.at = self.at.max(at);
    }
}

impl Committer {
    /// Counts what is past its ttl as gone where that makes a difference to an append; true when the append, and those that
    /// come after it, have to wait for more of that.
    pub(super) fn expire_for(&mut self, round: &mut Round, id: u64, events: &[Event]) -> Result<bool, Trouble> {
        let broken = self.broken.is_some();
        let core = self.cores.get_mut(&id).filter(|core| !broken || core.shared.storage == Storage::Memory);
        let Some(core) = core.filter(|_| !round.expiring.contains(&id)) else {
            return Ok(round.expiring.contains(&id));
        };
        let drafted = round.drafts.get(&id).map_or(0, Draft::events);
        if core.awaits_expiry(events, drafted, self.options.max_topics, round.now)
            && core.expire(round.now, TRIM_BYTES)?
        {
            round.expiring.insert(id);
        }
        Ok(round.expiring.contains(&id))
    }
}
