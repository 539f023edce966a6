//! What limits and purges ended in memory, done in the store: batches are deleted, and those of which much is dead are
//! written again without it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use redb::{ReadableTable, Table};

use super::{
    batch::{self, Head},
    end::End,
    lasts::Gone,
    purge::Selection,
    repeats::Repeats,
    retention::{PURGE_BYTES, Retention},
    store::{Loaded, Trouble},
    waste::Load,
};

/// So many batches are written again in one commit,
const SWEEP_AT_ONCE: usize = 32;
/// or so many times as many as are new in it: what is dead is not to grow faster than it is swept.
const SWEEP_FOR_EACH: usize = 2;

pub(super) type BatchTable<'t> = Table<'t, (u64, u64), &'static [u8]>;
pub(super) type RepeatTable<'t> = Table<'t, (u64, u64), (u64, u128)>;

/// What a rewritten batch changes once it is committed.
#[derive(Debug)]
pub(super) struct Swept {
    first: u64,
    /// What it has now; `None` when it is part of the one before it.
    load: Option<Load>,
}

impl Retention {
    /// Does in the store what limits did in memory, in a commit with so many `new` batches. What has to be remembered once
    /// that is committed is given back.
    pub(super) fn do_chores(
        &mut self,
        batches: &mut BatchTable<'_>,
        keys: &mut RepeatTable<'_>,
        repeats: &Repeats,
        now: u64,
        new: usize,
    ) -> Result<Vec<Swept>, Trouble> {
        let id = self.stream.id;
        // First, so that no batch becomes part of one that goes.
        for first in &self.deletions {
            let removed = batches.remove((id, *first))?;
            self.deleted += removed.map_or(0, |removed| removed.value().len() as u64);
        }
        let mut swept = Vec::new();
        for first in self.waste.to_sweep(SWEEP_AT_ONCE.max(SWEEP_FOR_EACH * new)) {
            // Those in front are deleted as a whole before long.
            if self.front.first.is_none_or(|front| first > front) && !self.deletions.contains(&first) {
                swept.extend(self.rewrite(batches, repeats, first, now)?);
            } else {
                self.waste.spare(first);
            }
        }
        for (sequence, time, key) in &self.leaving {
            keys.insert((id, *sequence), (*time, *key))?;
        }
        Ok(swept)
    }

    /// Writes a batch again without what is dead. An empty one becomes part of the one before it, so that none are left
    /// over.
    fn rewrite(
        &mut self,
        batches: &mut BatchTable<'_>,
        repeats: &Repeats,
        first: u64,
        now: u64,
    ) -> Result<Option<Swept>, Trouble> {
        let id = self.stream.id;
        let Some(Loaded { head, value }) = get(batches, id, first)? else { return Ok(None) };
        let floor = self.stream.bounds().floor;
        let mut gone = Vec::new();
        let stream = Arc::clone(&self.stream);
        let topics = stream.topics.read();
        let (less, out) = batch::without(id, &head, &value, |record| {
            let kept = topics.keeps(record.topic(&value), record.sequence);
            let keep = record.sequence >= floor && kept && !self.waste.is_over(first, record, &stream.warp);
            if !keep {
                gone.push(*record);
            }
            keep
        })
        .map_err(Trouble::batch(id, first))?;
        drop(topics);
        self.deleted += value.len().saturating_sub(out.len()) as u64;
        for record in &gone {
            self.leave(repeats, record, &value, now);
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

    /// The chores are in the store.
    pub(super) fn chores_done(&mut self, swept: Vec<Swept>) {
        for Swept { first, load } in swept {
            if let Some(load) = load {
                self.waste.swept(first, load, self.stream.topics.read().is_limited());
            } else {
                self.resize(first, 0);
                self.waste.remove(first);
            }
        }
        for first in std::mem::take(&mut self.deletions) {
            self.waste.remove(first);
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
        end: &End,
        repeats: &Repeats,
        selection: &Selection,
        at: u64,
        now: u64,
    ) -> Result<(Vec<Gone>, Option<u64>), Trouble> {
        let (id, floor) = (self.stream.id, self.stream.bounds().floor);
        let (mut all, mut looked) = (Vec::new(), 0);
        let mut at = at.max(floor);
        while let Some(wanted) = selection.next(at).filter(|wanted| *wanted < end.next) {
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
                self.leave(repeats, &record, &value, now);
                if !self.waste.is_over(head.first, &record, &self.stream.warp) {
                    all.push((record.topic(&value).into(), record));
                }
            }
        }
        Ok((all, None))
    }

    /// What [`Self::take_out`] gave back is gone. Tells how many of them were still kept.
    pub(super) fn taken_out(&mut self, gone: &[Gone]) -> u64 {
        let mut topics = self.stream.topics.write();
        let (mut events, mut bytes, mut missing) = (0, 0, Vec::new());
        for (topic, record) in gone {
            if topics.remove(topic, record.sequence) {
                missing.push(record.sequence);
                events += 1;
                bytes += u64::from(record.len);
            }
        }
        drop(topics);
        let mut bounds = self.stream.bounds.lock();
        bounds.events -= events;
        bounds.bytes = bounds.bytes.saturating_sub(bytes);
        let floor = bounds.floor;
        drop(bounds);
        for sequence in missing {
            self.stream.miss(sequence, sequence);
        }
        self.stream.weigh();
        self.stream.tail.clear();
        self.front.forget(floor);
        self.stream.removals.fetch_add(1, Relaxed);
        events
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
            conformance::{append_all, event, settings},
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
            let read = engine.link.stores.file.read_transaction().expect("open");
            let batches = read.open_table(BATCHES).expect("a table").len().expect("counted");
            assert!(batches < 400, "{batches} batches for {TOPICS} events");
            assert_eq!(stream.state().await.expect("the state").events, TOPICS as u64);
        });
    }
}
