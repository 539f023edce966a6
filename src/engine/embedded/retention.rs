//! How long events are kept: the limits of a stream, purges, and what then has to go from the store.
//!
//! Limits are kept event by event in memory, where readers see them at once. What lies in the store follows with the
//! next commit, a whole batch at a time.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    batch::{Record, Records},
    end::End,
    holdings::BatchSizes,
    lasts::Lasts,
    repeats::Repeats,
    store::{Loaded, Trouble},
    stream::Shared,
    waste::Waste,
};
use crate::model::Storage;

/// So many bytes of batches are looked at in one commit of a purge: what else waits to be written waits no longer than that.
pub(super) const PURGE_BYTES: usize = 4 * 1024 * 1024;

/// So many bytes of batches are read at a time to end what a limit ends: what else waits to be written waits no longer.
pub(super) const TRIM_BYTES: usize = 4 * 1024 * 1024;

/// What ends the events of a stream, and what of it is not in the store yet.
#[derive(Debug)]
pub(super) struct Retention {
    pub(super) stream: Arc<Shared>,
    /// The oldest events, where a limit may end them.
    pub(super) front: Front,
    /// Batches to delete with the next commit, by their first sequences.
    pub(super) deletions: Vec<u64>,
    /// Keys to keep when their events are deleted: sequence, time and key.
    pub(super) leaving: Vec<(u64, u64, u128)>,
    /// The floor is not in the store yet.
    pub(super) floor_moved: bool,
    pub(super) waste: Waste,
    /// Events ended by their ttl, and who reads ahead was not told yet.
    pub(super) expired: bool,
    /// For the last events of topics that are not known.
    pub(super) search: Option<Lasts>,
    /// Until then nothing ends by its age: the clock may be wrong.
    pub(super) patience: u64,
    /// How many bytes of batches were deleted since somebody last asked.
    pub(super) deleted: u64,
    /// How much memory its batches take, in streams in memory.
    pub(super) sizes: BatchSizes,
}

/// The oldest events of a stream, read as far as limits need them.
#[derive(Debug)]
pub(super) struct Front {
    /// The batch they are in.
    pub(super) first: Option<u64>,
    value: Bytes,
    records: VecDeque<Record>,
    /// Everything up to here was looked at.
    through: u64,
}

impl Front {
    /// Nothing up to `through` is of interest.
    fn after(through: u64) -> Self {
        Self { first: None, value: Bytes::new(), records: VecDeque::new(), through }
    }

    /// What was read may be another now.
    pub(super) fn forget(&mut self, floor: u64) {
        self.records.clear();
        self.value = Bytes::new();
        self.through = floor - 1;
    }
}

impl Retention {
    /// Of a stream of which nothing is read yet.
    pub(super) fn new(stream: &Arc<Shared>) -> Self {
        Self {
            stream: Arc::clone(stream),
            front: Front::after(stream.bounds().floor - 1),
            deletions: Vec::new(),
            leaving: Vec::new(),
            floor_moved: false,
            waste: Waste::default(),
            expired: false,
            search: None,
            patience: 0,
            deleted: 0,
            sizes: BatchSizes::default(),
        }
    }

    /// What is written in one commit may be read in the next, but not before: nothing waits for less than this.
    pub(super) fn has_chores(&self) -> bool {
        self.floor_moved || !self.deletions.is_empty() || !self.leaving.is_empty() || self.waste.is_much()
    }

    /// A batch has so many bytes now; 0: it is gone.
    pub(super) fn resize(&mut self, first: u64, bytes: usize) {
        if self.stream.storage == Storage::Memory {
            self.sizes.resize(first, bytes);
        }
    }

    /// One more event of its batch is dead.
    pub(super) fn push_out(&mut self, end: &End, sequence: u64, bytes: u32) {
        self.stream.miss(sequence, sequence);
        self.waste.die(sequence, bytes, end.open());
    }

    /// Ends every event that a limit ends, and every one up to `purge`, until batches of so many bytes were read. Gives the
    /// number of events ended, and true when there is more to end.
    pub(super) fn trim(
        &mut self,
        end: &End,
        repeats: &Repeats,
        now: u64,
        purge: u64,
        at_once: usize,
    ) -> Result<(u64, bool), Trouble> {
        let settings = Arc::clone(&self.stream.settings.read());
        let max_age = settings.max_age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
        let (most_events, most_bytes) =
            (settings.max_events.unwrap_or(u64::MAX), settings.max_bytes.unwrap_or(u64::MAX));
        let max_age = max_age.filter(|_| now >= self.patience);
        let purge = purge.min(end.next - 1);
        let mut ended = 0;
        let mut bounds = self.stream.bounds();
        if (bounds.events > most_events || bounds.bytes > most_bytes) && self.waste.next_due(now).is_some() {
            if self.expire(end, now, at_once)? {
                return Ok((0, true));
            }
            bounds = self.stream.bounds();
        }
        let (mut failed, mut read, mut more) = (None, 0_usize, false);
        loop {
            let over = bounds.events > most_events || bounds.bytes > most_bytes;
            // When all that is left is dead, it is passed like anything else: batches go from the front on, one after the
            // other, so that there is never a hole between those that stay.
            let passes = over || (bounds.events == 0 && bounds.floor < end.next);
            if !passes && max_age.is_none() && bounds.floor > purge {
                break;
            }
            more = read >= at_once && self.front.records.is_empty();
            if more {
                break;
            }
            let record = match self.oldest(end, &mut read) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                // What was ended until then is ended.
                Err(trouble) => {
                    failed = Some(trouble);
                    break;
                }
            };
            let old = max_age.is_some_and(|age| self.stream.warp.after(record.time, age) <= now);
            if !passes && !old && record.sequence > purge {
                break;
            }
            self.front.records.pop_front();
            bounds.floor = bounds.floor.max(record.sequence + 1);
            if old || record.sequence <= purge {
                bounds.withdrawn = bounds.floor;
            }
            if self.end(repeats, &record, now) {
                bounds.events -= 1;
                bounds.bytes = bounds.bytes.saturating_sub(record.len.into());
                ended += 1;
            }
        }
        // What was passed over because it was pushed out is gone too.
        let purged = if failed.is_some() || more { 0 } else { purge };
        let passed = self.front.first.unwrap_or_default().max(purged + 1);
        bounds.floor = if bounds.events == 0 { end.next } else { bounds.floor.max(passed) };
        let mut shown = self.stream.bounds.lock();
        self.floor_moved |= shown.floor != bounds.floor;
        (shown.floor, shown.withdrawn) = (bounds.floor, bounds.withdrawn.max(purged.saturating_add(1)));
        (shown.events, shown.bytes) = (bounds.events, bounds.bytes);
        drop(shown);
        self.stream.weigh();
        failed.map_or(Ok((ended, more)), Err)
    }

    /// How far a purge up to a sequence comes when no more batches are read than may be at a time.
    pub(super) fn part_of_purge(&self, up_to: u64) -> Result<u64, Trouble> {
        let (mut read, mut end) = (0, up_to);
        self.stream.store().batches()?.from(self.stream.id, self.stream.bounds().floor, |loaded| {
            read += loaded.value.len();
            let is_enough = read >= PURGE_BYTES;
            if is_enough {
                end = loaded.head.last;
            }
            Ok(!is_enough && loaded.head.last < up_to)
        })?;
        Ok(end.min(up_to))
    }

    /// The oldest record that was not looked at, also one that is pushed out.
    fn oldest(&mut self, end: &End, read: &mut usize) -> Result<Option<Record>, Trouble> {
        while self.front.records.is_empty() && self.front.through + 1 < end.next {
            let (id, wanted) = (self.stream.id, self.front.through + 1);
            let mut found = None;
            self.stream.store().batches()?.from(id, wanted, |loaded| {
                found = Some(loaded);
                Ok(false)
            })?;
            let Some(Loaded { head, value }) = found else {
                return Err(Trouble::Damaged(format!("stream {id} has no record batch for sequence {wanted}")));
            };
            if let Some(passed) = self.front.first.replace(head.first)
                && passed != head.first
            {
                self.deletions.push(passed);
            }
            for record in Records::new(&head, &value) {
                let record = record.map_err(Trouble::batch(id, head.first))?;
                if record.sequence >= wanted {
                    self.front.records.push_back(record);
                }
            }
            *read += value.len();
            (self.front.value, self.front.through) = (value, head.last);
        }
        Ok(self.front.records.front().copied())
    }

    /// An event of the front is over; false when it was already.
    fn end(&mut self, repeats: &Repeats, record: &Record, now: u64) -> bool {
        let value = self.front.value.clone();
        self.leave(repeats, record, &value, now);
        let topic = record.topic(&value);
        let over = self.waste.is_over(self.front.first.unwrap_or_default(), record, &self.stream.warp);
        let mut topics = self.stream.topics.write();
        let kept = !over && topics.keeps(topic, record.sequence);
        if kept {
            topics.remove_oldest(topic, record.sequence);
        }
        kept
    }

    /// A record will be gone from the store; repetitions of it are known none the less.
    pub(super) fn leave(&mut self, repeats: &Repeats, record: &Record, value: &Bytes, now: u64) {
        if repeats.covers(self.stream.warp.appended(record.time), now) && record.spans.id.len > 0 {
            let key = record.place(value).ok().and_then(|place| place.dedupe_key(value));
            self.leaving.extend(key.map(|key| (record.sequence, record.time, key)));
        }
    }

    /// True when everything is over, so that the last batch goes too.
    pub(super) fn is_over(&self, end: &End) -> bool {
        self.stream.bounds().floor == end.next && self.front.through + 1 == end.next
    }

    /// The batch in front is deleted with the next commit.
    pub(super) fn delete_front(&mut self) {
        self.deletions.extend(self.front.first.take());
    }
}
