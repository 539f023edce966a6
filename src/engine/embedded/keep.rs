//! How long events are kept: the limits of a stream, purges, and the batches that are deleted or written again for them.
//!
//! Limits are kept event by event in memory, where readers see them at once. What lies in the store follows with the
//! next commit, a whole batch at a time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::atomic::Ordering::Relaxed,
};

use bytes::Bytes;
use redb::{ReadableTable, Table};

use super::{
    batch::{self, Head, Record, Records},
    core::{Core, Load},
    store::{Loaded, Trouble},
};
use crate::model::{Filter, Storage, Topic};

/// So many batches are written again in one commit,
const SWEEP_AT_ONCE: usize = 32;
/// or so many times as many as are new in it: what is dead is not to grow faster than it is swept.
const SWEEP_FOR_EACH: usize = 2;

/// So many bytes of batches are looked at in one commit of a purge: what else waits to be written waits no longer than that.
const PURGE_BYTES: usize = 4 * 1024 * 1024;

/// So many bytes of batches are read at a time to end what a limit ends: what else waits to be written waits no longer.
pub(super) const TRIM_BYTES: usize = 4 * 1024 * 1024;

/// So far back the last event of a topic is looked for, in bytes, when the one after it was taken out.
const FIND_BYTES: usize = 64 * 1024 * 1024;

/// What is taken out of the store: its topic, and where it was.
type Gone = (Box<[u8]>, Record);
type BatchTable<'t> = Table<'t, (u64, u64), &'static [u8]>;
type RepeatTable<'t> = Table<'t, (u64, u64), (u64, u128)>;

/// The oldest events of a stream, read as far as limits need them.
#[derive(Debug)]
pub(super) struct Front {
    /// The batch they are in.
    first: Option<u64>,
    value: Bytes,
    records: VecDeque<Record>,
    /// Everything up to here was looked at.
    through: u64,
}

impl Front {
    /// Nothing up to `through` is of interest.
    pub(super) fn after(through: u64) -> Self {
        Self { first: None, value: Bytes::new(), records: VecDeque::new(), through }
    }

    /// What was read may be another now.
    pub(super) fn forget(&mut self, floor: u64) {
        self.records.clear();
        self.value = Bytes::new();
        self.through = floor - 1;
    }
}

/// What is still to be purged of a stream.
#[derive(Debug)]
pub(super) enum Purge {
    /// Everything up to a sequence.
    UpTo(u64),
    /// What is selected, from sequence `at` on.
    Selected { selection: Selection, at: u64 },
    /// Nothing of this, but the last events of topics are to be found; and then the rest.
    Lasts { search: Lasts, rest: Option<Box<Purge>> },
}

/// A search for the last events of topics of which the last was taken out before others: back from there.
#[derive(Debug, Default)]
pub(super) struct Lasts {
    /// Of each how many of its events were found.
    pub(super) wanted: HashMap<Box<[u8]>, u64>,
    pub(super) at: u64,
    looked: usize,
}

/// What is taken out of a stream, wherever in it that is.
#[derive(Debug)]
pub(super) enum Selection {
    /// What matches the filter, up to a sequence.
    Matching { up_to: u64, filter: Filter },
    /// The events of these sequences.
    Sequences(BTreeSet<u64>),
}

impl Selection {
    /// Leaves out what comes after `last`.
    pub(super) fn limit(&mut self, last: u64) {
        match self {
            Self::Matching { up_to, .. } => *up_to = last.min(*up_to),
            Self::Sequences(sequences) => sequences.retain(|sequence| *sequence <= last),
        }
    }

    /// The first sequence it may mean, from `at` on.
    fn next(&self, at: u64) -> Option<u64> {
        match self {
            Self::Matching { up_to, .. } => (at <= *up_to).then_some(at),
            Self::Sequences(sequences) => sequences.range(at..).next().copied(),
        }
    }

    fn takes(&self, sequence: u64, topic: &[u8]) -> bool {
        match self {
            Self::Matching { up_to, filter } => {
                sequence <= *up_to && Topic::parse(topic).is_ok_and(|topic| filter.matches(topic))
            }
            Self::Sequences(sequences) => sequences.contains(&sequence),
        }
    }
}

/// What a rewritten batch changes once it is committed.
#[derive(Debug)]
pub(super) struct Swept {
    first: u64,
    /// What it has now; `None` when it is part of the one before it.
    load: Option<Load>,
}

impl Core {
    /// Ends every event that a limit ends, and every one up to `purge`. Gives the number of events ended.
    pub(super) fn trim(&mut self, now: u64, purge: u64) -> Result<u64, Trouble> {
        let (ended, _) = self.trim_some(now, purge, usize::MAX)?;
        Ok(ended)
    }

    /// The same, until batches of so many bytes were read; true when there is more to end.
    pub(super) fn trim_some(&mut self, now: u64, purge: u64, at_once: usize) -> Result<(u64, bool), Trouble> {
        let settings = std::sync::Arc::clone(&self.shared.settings.read());
        let max_age = settings.max_age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
        let (most_events, most_bytes) =
            (settings.max_events.unwrap_or(u64::MAX), settings.max_bytes.unwrap_or(u64::MAX));
        let max_age = max_age.filter(|_| now >= self.patience);
        let purge = purge.min(self.next - 1);
        let mut ended = 0;
        let mut bounds = self.shared.bounds();
        if (bounds.events > most_events || bounds.bytes > most_bytes) && self.is_due(now) {
            if self.expire(now, at_once)? {
                return Ok((0, true));
            }
            bounds = self.shared.bounds();
        }
        let (mut failed, mut read, mut more) = (None, 0_usize, false);
        loop {
            let over = bounds.events > most_events || bounds.bytes > most_bytes;
            // When all that is left is dead, it is passed like anything else: batches go from the front on, one after the
            // other, so that there is never a hole between those that stay.
            let passes = over || (bounds.events == 0 && bounds.floor < self.next);
            if !passes && max_age.is_none() && bounds.floor > purge {
                break;
            }
            more = read >= at_once && self.front.records.is_empty();
            if more {
                break;
            }
            let record = match self.oldest(&mut read) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                // What was ended until then is ended.
                Err(trouble) => {
                    failed = Some(trouble);
                    break;
                }
            };
            let old = max_age.is_some_and(|age| self.shared.warp.after(record.time, age) <= now);
            if !passes && !old && record.sequence > purge {
                break;
            }
            self.front.records.pop_front();
            bounds.floor = bounds.floor.max(record.sequence + 1);
            if old || record.sequence <= purge {
                bounds.withdrawn = bounds.floor;
            }
            if self.end(&record, now) {
                bounds.events -= 1;
                bounds.bytes = bounds.bytes.saturating_sub(record.len.into());
                ended += 1;
            }
        }
        // What was passed over because it was pushed out is gone too.
        let purged = if failed.is_some() || more { 0 } else { purge };
        let passed = self.front.first.unwrap_or_default().max(purged + 1);
        bounds.floor = if bounds.events == 0 { self.next } else { bounds.floor.max(passed) };
        let mut shown = self.shared.bounds.lock();
        self.floor_moved |= shown.floor != bounds.floor;
        (shown.floor, shown.withdrawn) = (bounds.floor, bounds.withdrawn.max(purged.saturating_add(1)));
        (shown.events, shown.bytes) = (bounds.events, bounds.bytes);
        drop(shown);
        self.shared.weigh();
        failed.map_or(Ok((ended, more)), Err)
    }

    /// How far a purge up to a sequence comes when no more batches are read than may be at a time.
    pub(super) fn part_of_purge(&self, up_to: u64) -> Result<u64, Trouble> {
        let (mut read, mut end) = (0, up_to);
        self.shared.store().batches()?.from(self.shared.id, self.shared.bounds().floor, |loaded| {
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
    fn oldest(&mut self, read: &mut usize) -> Result<Option<Record>, Trouble> {
        while self.front.records.is_empty() && self.front.through + 1 < self.next {
            let (id, wanted) = (self.shared.id, self.front.through + 1);
            let mut found = None;
            self.shared.store().batches()?.from(id, wanted, |loaded| {
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
    fn end(&mut self, record: &Record, now: u64) -> bool {
        let value = self.front.value.clone();
        self.leave(record, &value, now);
        let topic = record.topic(&value);
        let over = self.is_over(self.front.first.unwrap_or_default(), record);
        let mut topics = self.shared.topics.write();
        let kept = !over && topics.keeps(topic, record.sequence);
        if kept {
            topics.remove_oldest(topic, record.sequence);
        }
        kept
    }

    /// True for a record of a batch that is past its ttl and counted as gone.
    fn is_over(&self, first: u64, record: &Record) -> bool {
        record.ends(&self.shared.warp) < self.dues.of(first)
    }

    /// A record will be gone from the store; repetitions of it are known none the less.
    fn leave(&mut self, record: &Record, value: &Bytes, now: u64) {
        if self.repeats.covers(self.shared.warp.appended(record.time), now) && record.spans.id.len > 0 {
            let key = record.place(value).ok().and_then(|place| place.dedupe_key(value));
            self.leaving.extend(key.map(|key| (record.sequence, record.time, key)));
        }
    }

    /// When everything is over, the last batch goes too.
    pub(super) fn drop_empty(&mut self) {
        if self.shared.bounds().floor == self.next && self.front.through + 1 == self.next {
            self.close_batch();
            self.deletions.extend(self.front.first.take());
        }
    }

    /// Does in the store what limits did in memory, in a commit with so many `new` batches. What has to be remembered once
    /// that is committed is given back.
    pub(super) fn do_chores(
        &mut self,
        batches: &mut BatchTable<'_>,
        repeats: &mut RepeatTable<'_>,
        now: u64,
        new: usize,
    ) -> Result<Vec<Swept>, Trouble> {
        let id = self.shared.id;
        // First, so that no batch becomes part of one that goes.
        for first in &self.deletions {
            let removed = batches.remove((id, *first))?;
            self.deleted += removed.map_or(0, |removed| removed.value().len() as u64);
        }
        let mut swept = Vec::new();
        let candidates: Vec<u64> = self.sweep.iter().copied().take(SWEEP_AT_ONCE.max(SWEEP_FOR_EACH * new)).collect();
        for first in candidates {
            // Those in front are deleted as a whole before long.
            if self.front.first.is_none_or(|front| first > front) && !self.deletions.contains(&first) {
                swept.extend(self.rewrite(batches, first, now)?);
            } else {
                self.sweep.remove(&first);
            }
        }
        for (sequence, time, key) in &self.leaving {
            repeats.insert((id, *sequence), (*time, *key))?;
        }
        Ok(swept)
    }

    /// Writes a batch again without what is dead. An empty one becomes part of the one before it, so that none are left
    /// over.
    fn rewrite(&mut self, batches: &mut BatchTable<'_>, first: u64, now: u64) -> Result<Option<Swept>, Trouble> {
        let id = self.shared.id;
        let Some(Loaded { head, value }) = get(batches, id, first)? else { return Ok(None) };
        let floor = self.shared.bounds().floor;
        let mut gone = Vec::new();
        let shared = std::sync::Arc::clone(&self.shared);
        let topics = shared.topics.read();
        let (less, out) = batch::without(id, &head, &value, |record| {
            let kept = topics.keeps(record.topic(&value), record.sequence);
            let keep = record.sequence >= floor && kept && !self.is_over(first, record);
            if !keep {
                gone.push(*record);
            }
            keep
        })
        .map_err(Trouble::batch(id, first))?;
        drop(topics);
        self.deleted += value.len().saturating_sub(out.len()) as u64;
        for record in &gone {
            self.leave(record, &value, now);
        }
        let before = if less.count == 0 { before(batches, id, first)? } else { None };
        let Some(Loaded { head: before, value }) = before else {
            batches.insert((id, first), &*out)?;
            self.resize(first, out.len());
            return Ok(Some(Swept { first, load: Some(Load { records: less.count, ..Load::default() }) }));
        };
        let head = Head { last: less.last, last_time: less.last_time, ..before };
        let mut value = value.to_vec();
        batch::finish(&mut value, id, &head);
        batches.insert((id, before.first), &*value)?;
        batches.remove((id, first))?;
        Ok(Some(Swept { first, load: None }))
    }

    /// A batch has so many bytes now.
    fn resize(&mut self, first: u64, bytes: usize) {
        if self.shared.storage == Storage::Memory {
            self.holdings.resize(first, bytes);
        }
    }

    /// The chores are in the store.
    pub(super) fn chores_done(&mut self, swept: Vec<Swept>) {
        for Swept { first, load } in swept {
            self.sweep.remove(&first);
            match load {
                Some(_) if self.may_forget_load(first) => self.loads.remove(&first),
                Some(load) => self.loads.insert(first, load),
                None => {
                    self.resize(first, 0);
                    self.dues.set(first, u64::MAX);
                    self.loads.remove(&first)
                }
            };
        }
        for first in std::mem::take(&mut self.deletions) {
            self.loads.remove(&first);
            self.sweep.remove(&first);
            self.dues.set(first, u64::MAX);
            self.resize(first, 0);
        }
        self.leaving.clear();
        self.floor_moved = false;
    }

    /// Takes some of a selection out of the store, from sequence `at` on. Gives back what goes, to be counted once it is
    /// committed, and where to go on, if that was not all.
    pub(super) fn take_out(
        &mut self,
        batches: &mut BatchTable<'_>,
        selection: &Selection,
        at: u64,
        now: u64,
    ) -> Result<(Vec<Gone>, Option<u64>), Trouble> {
        let (id, floor) = (self.shared.id, self.shared.bounds().floor);
        let (mut all, mut looked) = (Vec::new(), 0);
        let mut at = at.max(floor);
        while let Some(wanted) = selection.next(at).filter(|wanted| *wanted < self.next) {
            if looked >= PURGE_BYTES {
                return Ok((all, Some(wanted)));
            }
            at = wanted;
            let Some(Loaded { head, value }) = covering(batches, id, at)? else {
                return Err(Trouble::Damaged(format!("stream {id} has no record batch for sequence {at}")));
            };
            at = head.last + 1;
            looked += value.len();
            let mut gone = Vec::new();
            let (_, out) = batch::without(id, &head, &value, |record| {
                let taken = record.sequence >= floor && selection.takes(record.sequence, record.topic(&value));
                if taken {
                    gone.push(*record);
                }
                !taken
            })
            .map_err(Trouble::batch(id, head.first))?;
            if !gone.is_empty() {
                batches.insert((id, head.first), &*out)?;
                self.resize(head.first, out.len());
                self.deleted += value.len().saturating_sub(out.len()) as u64;
            }
            for record in gone {
                self.leave(&record, &value, now);
                if !self.is_over(head.first, &record) {
                    all.push((record.topic(&value).into(), record));
                }
            }
        }
        Ok((all, None))
    }

    /// What [`Self::take_out`] gave back is gone. Tells how many of them were still kept.
    pub(super) fn taken_out(&mut self, gone: &[Gone]) -> u64 {
        let mut topics = self.shared.topics.write();
        let (mut events, mut bytes, mut missing) = (0, 0, Vec::new());
        for (topic, record) in gone {
            if topics.remove(topic, record.sequence) {
                missing.push(record.sequence);
                events += 1;
                bytes += u64::from(record.len);
            }
        }
        drop(topics);
        let mut bounds = self.shared.bounds.lock();
        bounds.events -= events;
        bounds.bytes = bounds.bytes.saturating_sub(bytes);
        let floor = bounds.floor;
        drop(bounds);
        for sequence in missing {
            self.shared.miss(sequence, sequence);
        }
        self.shared.weigh();
        self.shared.tail.clear();
        self.open = None;
        self.front.forget(floor);
        self.shared.removals.fetch_add(1, Relaxed);
        events
    }

    /// The topics of what is gone of which the last event is to be found, if there are any.
    pub(super) fn lacking(&self, gone: &[Gone]) -> Option<Lasts> {
        let mut topics = self.shared.topics.write();
        let lacking = gone.iter().filter(|(topic, _)| topics.lacks_last(topic));
        let wanted: HashMap<Box<[u8]>, u64> = lacking.map(|(topic, _)| (topic.clone(), 0)).collect();
        let at = gone.iter().map(|(_, record)| record.sequence).max().unwrap_or_default().max(topics.take_forgotten());
        (!wanted.is_empty()).then_some(Lasts { wanted, at, looked: 0 })
    }

    /// Looks for the last events of topics some way back; true when there is no more to look at, or what was looked at is
    /// enough. What is further back is known again when the store is opened.
    pub(super) fn find_lasts(&self, search: &mut Lasts) -> Result<bool, Trouble> {
        let (id, floor) = (self.shared.id, self.shared.bounds().floor);
        let batches = self.shared.store().batches()?;
        let mut looked = 0;
        while !search.wanted.is_empty()
            && search.at >= floor
            && let Some(Loaded { head, value }) = batches.covering(id, search.at)?
        {
            let mut found = Vec::new();
            for record in Records::new(&head, &value) {
                let record = record.map_err(Trouble::batch(id, head.first))?;
                let gone = record.sequence < floor || self.is_over(head.first, &record);
                if !gone && record.sequence <= search.at && search.wanted.contains_key(record.topic(&value)) {
                    found.push(record);
                }
            }
            let mut topics = self.shared.topics.write();
            for record in found.iter().rev() {
                let ends = record.ends(&self.shared.warp);
                let topic = record.topic(&value);
                topics.found(topic, record.sequence, ends);
                let Some(found) = search.wanted.get_mut(topic) else { continue };
                *found += 1;
                // As long as they end, there may be one before that outlives them.
                if ends == u64::MAX || *found >= topics.count(topic) {
                    search.wanted.remove(topic);
                }
            }
            drop(topics);
            search.at = head.first.saturating_sub(1);
            looked += value.len();
            search.looked += value.len();
            if search.looked >= FIND_BYTES {
                break;
            }
            if looked >= PURGE_BYTES {
                return Ok(false);
            }
        }
        if search.looked >= FIND_BYTES {
            let known = self.shared.topics.read();
            let topics = search.wanted.keys().filter(|topic| known.lacks_last(topic)).count();
            if topics > 0 {
                tracing::warn!(stream = %self.shared.name, topics, "the last events of some topics are too far back and unknown until a restart");
            }
        }
        Ok(true)
    }
}

fn get(batches: &BatchTable<'_>, stream: u64, first: u64) -> Result<Option<Loaded>, Trouble> {
    let Some(value) = batches.get((stream, first))? else { return Ok(None) };
    loaded(stream, first, value.value()).map(Some)
}

fn before(batches: &BatchTable<'_>, stream: u64, first: u64) -> Result<Option<Loaded>, Trouble> {
    let Some(entry) = batches.range((stream, 0)..(stream, first))?.next_back() else { return Ok(None) };
    let (key, value) = entry?;
    loaded(stream, key.value().1, value.value()).map(Some)
}

fn covering(batches: &BatchTable<'_>, stream: u64, sequence: u64) -> Result<Option<Loaded>, Trouble> {
    Ok(before(batches, stream, sequence + 1)?.filter(|loaded| loaded.head.last >= sequence))
}

fn loaded(stream: u64, first: u64, value: &[u8]) -> Result<Loaded, Trouble> {
    let head = batch::head(stream, first, value).map_err(Trouble::batch(stream, first))?;
    Ok(Loaded { head, value: Bytes::copy_from_slice(value) })
}

#[cfg(test)]
mod tests {
    use redb::ReadableTableMetadata;

    use super::super::{Embedded, Simulated, rows::BATCHES};
    use crate::{
        engine::{
            Engine, Options,
            conformance::{append_all, event, seal, settings},
        },
        model::StreamSettings,
        tasks::Tasks,
    };

    #[test]
    fn what_newer_events_push_out_is_swept_as_fast_as_it_comes() {
        const TOPICS: usize = 1_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (disk, tasks) = (Simulated::default(), Tasks::default());
            let opened = Embedded::open_simulated(
                &disk,
                &Options::default(),
                seal,
                &tasks,
                &std::sync::Arc::default(),
                &std::sync::Arc::default(),
            );
            let engine = opened.expect("a store");
            let wanted = StreamSettings { max_events_per_topic: Some(1), ..settings("s", &["t.>"]) };
            let stream = engine.create_stream(wanted).await.expect("made");
            let text = "x".repeat(1_000);
            // Each append is a hundred batches, as many as it makes dead: more than are swept when little is written.
            for _ in 0..16 {
                let events = (0..6_000).map(|n| event(&format!("t.{}", n % TOPICS), &text)).collect();
                append_all(&stream, events, None).await.expect("stored");
            }
            let read = engine.stores.file.read_transaction().expect("open");
            let batches = read.open_table(BATCHES).expect("a table").len().expect("counted");
            assert!(batches < 400, "{batches} batches for {TOPICS} events");
            assert_eq!(stream.state().events, TOPICS as u64);
        });
    }
}
