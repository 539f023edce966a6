//! Opening a store: every batch is read and checked once, and what is kept in memory is counted from them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use redb::{ReadableTable, TableError};

use super::{
    batch::{Damaged, HEAD_BYTES, Record, Records},
    core::Core,
    holes::Holes,
    ids::bound_ids,
    rows::{Definition, META, OLD_REPEATS, PROGRESS, Progress, REPEATS, STREAMS, checked, from_row, row, to_row},
    store::{Loaded, Store, Trouble, next_epoch, note_epoch},
    stores::Stores,
    topics::Topics,
    waste::{Load, Waste},
};
use crate::{
    engine::Options,
    model::{Durability, Storage, StreamSettings},
};

/// What this hub writes.
pub(super) const FORMAT: u64 = 1;
const FORMAT_ROW: &str = "format";
const TOKEN_KEY: &str = "token_key";
/// How often the log tells how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// The log is told of times that are further ahead.
const AHEAD_TOLD: Duration = Duration::from_secs(2);
/// A stream that had its last event before that may have been alone with a right clock, or be so with a wrong one:
const LONG_SILENCE: Duration = Duration::from_secs(24 * 3600);
/// so long nothing ends by its age.
const PATIENCE: Duration = Duration::from_secs(600);

/// How far the reading of a store has come. The log tells it now and then.
#[derive(Debug)]
pub(super) struct Reading {
    /// How many streams are read, of how many.
    streams: (usize, usize),
    events: u64,
    /// How many bytes were read, of how many; the file has others too.
    bytes: (u64, u64),
    tell_at: Instant,
}

impl Reading {
    /// Nothing was read yet of so many streams in a file of so many bytes.
    pub(super) fn new(streams: usize, file_bytes: u64) -> Self {
        Self { streams: (0, streams), events: 0, bytes: (0, file_bytes), tell_at: Instant::now() + TELL_INTERVAL }
    }

    /// A batch more was read; true when it is time to tell.
    fn add(&mut self, events: u64, bytes: u64, now: Instant) -> bool {
        self.events += events;
        self.bytes.0 += bytes;
        if now < self.tell_at {
            return false;
        }
        self.tell_at = now + TELL_INTERVAL;
        true
    }

    /// The same, and tells when it is time to.
    fn read(&mut self, events: u64, bytes: u64) {
        if self.add(events, bytes, Instant::now()) {
            self.tell();
        }
    }

    fn tell(&self) {
        let ((streams, of_streams), (bytes, of_bytes)) = (self.streams, self.bytes);
        tracing::info!(events = self.events, bytes, of_bytes, streams, of_streams, "reading the store");
    }
}

/// The store is of another format.
#[derive(Debug)]
pub(super) struct OtherFormat(pub(super) u64);

/// Checks the format, and gives the secret bytes, which are made when the store is new.
pub(super) fn meta(store: &Store, new_key: [u8; 32]) -> Result<Result<[u8; 32], OtherFormat>, Trouble> {
    let transaction = store.write()?;
    let key = {
        let mut meta = transaction.open_table(META)?;
        let read = |name: &str| -> Result<Option<Vec<u8>>, Trouble> {
            let Some(found) = meta.get(name)? else { return Ok(None) };
            Ok(Some(checked(found.value()).map_err(Trouble::row("meta"))?.to_vec()))
        };
        let short = |_| Trouble::Damaged("a row of meta has the wrong size".to_owned());
        let format =
            read(FORMAT_ROW)?.map(|bytes| bytes.try_into().map(u64::from_le_bytes)).transpose().map_err(short)?;
        if let Some(found) = format.filter(|found| *found != FORMAT) {
            return Ok(Err(OtherFormat(found)));
        }
        let known: Option<[u8; 32]> = read(TOKEN_KEY)?.map(TryInto::try_into).transpose().map_err(short)?;
        let key = known.unwrap_or(new_key);
        meta.insert(FORMAT_ROW, &*row(&FORMAT.to_le_bytes()))?;
        meta.insert(TOKEN_KEY, &*row(&key))?;
        key
    };
    transaction.commit()?;
    Ok(Ok(key))
}

/// Every stream of the store. `closed` tells that it was closed the last time.
pub(super) fn streams(stores: &Arc<Stores>, options: &Options, closed: bool) -> Result<BTreeMap<u64, Core>, Trouble> {
    let mut ids = Vec::new();
    for entry in stores.file.read_transaction()?.open_table(STREAMS)?.iter()? {
        ids.push(entry?.0.value());
    }
    let start = Instant::now();
    let mut reading = Reading::new(ids.len(), stores.file.bytes());
    let mut cores = BTreeMap::new();
    if !ids.is_empty() {
        reading.tell();
    }
    for id in ids {
        let settings = definition(&stores.file, id)?.settings().map_err(Trouble::row("streams"))?;
        let lost = may_lose(&settings) && (settings.storage == Storage::Memory || !closed);
        let mut core = stream(stores, options, id, lost, &mut reading)?;
        core.look_at_times(stores.now());
        core.trim(stores.now(), 0)?;
        core.weigh();
        reading.streams.0 += 1;
        let events = core.shared.bounds().events;
        tracing::info!(stream = %core.shared.name, events, epoch = core.shared.epoch, "stream read");
        cores.insert(id, core);
        bound_ids(&mut cores, &stores.accountant);
    }
    if !cores.is_empty() {
        let ms = start.elapsed().as_millis() as u64;
        tracing::info!(streams = cores.len(), events = reading.events, ms, "the store is open");
    }
    Ok(cores)
}

fn definition(store: &Store, id: u64) -> Result<Definition, Trouble> {
    let streams = store.read_transaction()?.open_table(STREAMS)?;
    let Some(found) = streams.get(id)? else { return Err(Trouble::Damaged(format!("stream {id} is gone"))) };
    from_row(found.value()).map_err(Trouble::row("streams"))
}

/// How far a stream has come in the store.
pub(super) fn progress(store: &Store, id: u64) -> Result<Progress, Trouble> {
    let rows = store.read_transaction()?.open_table(PROGRESS)?;
    let Some(found) = rows.get(id)? else {
        return Err(Trouble::Damaged(format!("the record of the end of stream {id} is missing")));
    };
    Progress::from_row(found.value()).map_err(Trouble::row("progress"))
}

/// Reads a stream. With `lost` it gets a new epoch, since readers may have seen what is not there any more.
pub(super) fn stream(
    stores: &Arc<Stores>,
    options: &Options,
    id: u64,
    lost: bool,
    reading: &mut Reading,
) -> Result<Core, Trouble> {
    let mut definition = definition(&stores.file, id)?;
    let settings = definition.settings().map_err(Trouble::row("streams"))?;
    if lost {
        let transaction = stores.file.write()?;
        definition.epoch = next_epoch(&transaction, stores.now())?;
        transaction.open_table(STREAMS)?.insert(id, &*to_row(&definition))?;
        transaction.commit()?;
    }
    let fresh = settings.storage == Storage::Memory;
    let progress = if fresh { Progress::START } else { progress(&stores.file, id)? };
    let per_topic = settings.max_events_per_topic;
    let mut core = Core::empty(stores, options, id, &definition, settings, progress);
    if !fresh {
        core.read_repeats(&stores.file)?;
        core.recount(per_topic, reading)?;
        core.delete_passed(&stores.file)?;
    }
    Ok(core)
}

/// Writes down the epoch of a stream, if it got it while the disk had no room for that.
pub(super) fn keep_epoch(store: &Store, id: u64, epoch: i64) -> Result<(), Trouble> {
    let mut definition = definition(store, id)?;
    if definition.epoch == epoch {
        return Ok(());
    }
    definition.epoch = epoch;
    let transaction = store.write()?;
    note_epoch(&transaction, epoch)?;
    transaction.open_table(STREAMS)?.insert(id, &*to_row(&definition))?;
    transaction.commit()?;
    Ok(())
}

/// True when a crash may have taken what readers saw.
fn may_lose(settings: &StreamSettings) -> bool {
    settings.storage == Storage::Memory || settings.durability != Durability::Sync
}

impl Core {
    /// Says when the times of the stream and the clock do not go together. One that has heard nothing for long keeps what its
    /// age would end a little longer: if it is the clock that is wrong, there is time to set it.
    fn look_at_times(&mut self, now: u64) {
        let (stream, ahead) = (&self.shared.name, self.shared.warp.ahead());
        if ahead > AHEAD_TOLD.as_micros() as u64 {
            let seconds = ahead / 1_000_000;
            tracing::warn!(%stream, seconds, "the last event has a time in the future: the clock is behind now, or was ahead then");
        }
        let silent = now.saturating_sub(self.end.time);
        let may_end = self.shared.settings.read().max_age.is_some() && self.shared.bounds().events > 0;
        if may_end && silent > LONG_SILENCE.as_micros() as u64 {
            let (hours, minutes) = (silent / 3_600_000_000, PATIENCE.as_secs() / 60);
            tracing::warn!(%stream, hours, minutes, "the last event is long ago: nothing is removed by age for some minutes, in case the clock is wrong");
            self.retention.patience = now + PATIENCE.as_micros() as u64;
        }
    }

    /// The keys of events that are deleted come first, since they are the oldest.
    fn read_repeats(&mut self, store: &Store) -> Result<(), Trouble> {
        let (id, now) = (self.shared.id, self.shared.now());
        let transaction = store.read_transaction()?;
        for entry in transaction.open_table(REPEATS)?.range((id, 0)..=(id, u64::MAX))? {
            let (key, value) = entry?;
            let (time, dedupe) = value.value();
            let appended = self.shared.warp.appended(time);
            if self.repeats.covers(appended, now) {
                self.repeats.add(dedupe, key.value().1, appended);
            }
        }
        let old = match transaction.open_table(OLD_REPEATS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            old => old?,
        };
        for entry in old.range((id, 0)..=(id, u64::MAX))?.rev() {
            let (key, value) = entry?;
            let (time, dedupe) = value.value();
            let appended = self.shared.warp.appended(time);
            if !self.repeats.covers(appended, now) {
                break;
            }
            self.repeats.add_old(dedupe, key.value().1, appended);
        }
        Ok(())
    }

    /// Counts everything that is kept anew, with a limit for each topic or none, and checks every batch on the way.
    pub(super) fn recount(&mut self, per_topic: Option<u64>, reading: &mut Reading) -> Result<(), Trouble> {
        let shared = Arc::clone(&self.shared);
        let (id, floor, now) = (shared.id, shared.bounds().floor, self.shared.now());
        self.retention.waste = Waste::default();
        self.retention.front.forget(floor);
        self.end.close();
        let mut topics = Topics::new(per_topic);
        *shared.holes.lock() = Holes::default();
        let mut passed = floor - 1;
        let mut newest = None;
        let (mut events, mut bytes, mut dead, mut last) = (0, 0, Vec::new(), None);
        shared.store().batches()?.from(id, 0, |loaded| {
            let Loaded { head, value } = &loaded;
            let expected = last.map_or(head.first.min(floor), |last: u64| last + 1);
            // Nobody misses what is wholly below the floor.
            if head.first < expected || head.first > expected.max(floor) {
                return Err(Trouble::Damaged(format!("stream {id} has no record batch for sequence {expected}")));
            }
            last = Some(head.last);
            let (mut due, mut load) = (u64::MAX, Load { records: head.count, ..Load::default() });
            let mut end = None;
            for record in Records::new(head, value) {
                let record = record.map_err(Trouble::batch(id, head.first))?;
                self.know(&record, value, now).map_err(Trouble::batch(id, head.first))?;
                end = Some((record.sequence, record.time));
                let ends = record.ends(&shared.warp);
                if record.sequence >= floor && ends > now {
                    if passed + 1 < record.sequence {
                        shared.miss(passed + 1, record.sequence - 1);
                    }
                    passed = record.sequence;
                    due = due.min(ends);
                    (events, bytes) = (events + 1, bytes + u64::from(record.len));
                    dead.extend(topics.add(record.topic(value), record.sequence, record.len, ends));
                } else if ends <= now {
                    (load.dead, load.dead_bytes) = (load.dead + 1, load.dead_bytes.saturating_add(record.len));
                }
            }
            self.retention.waste.count(head.first, load, due, per_topic.is_some());
            self.repeats.bound();
            reading.read(head.count.into(), value.len() as u64);
            // Records count from the one in front of them: nothing can follow where the last was taken out.
            newest = (end == Some((head.last, head.last_time))).then_some(loaded);
            Ok(true)
        })?;
        self.repeats.put_in_order();
        self.repeats.expire(now);
        // They were counted when they were forgotten first.
        self.repeats.take_early();
        // More can be added to the last batch, if it has its last event.
        if let Some(Loaded { head, value }) = newest {
            self.end.set_open(head, value[HEAD_BYTES..].to_vec());
        }
        let next = self.end.next;
        if last.map_or(floor, |last| floor.max(last + 1)) != next {
            return Err(Trouble::Damaged(format!("stream {id} ends before sequence {}", next - 1)));
        }
        shared.miss(passed + 1, next - 1);
        events -= dead.len() as u64;
        bytes -= dead.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
        *shared.topics.write() = topics;
        let mut bounds = shared.bounds.lock();
        (bounds.events, bounds.bytes) = (events, bytes);
        drop(bounds);
        if let Some(open) = self.end.open() {
            // It is looked at when nothing is added to it any more.
            self.retention.waste.spare(open);
        }
        for (sequence, bytes) in dead {
            self.retention.push_out(&self.end, sequence, bytes);
        }
        Ok(())
    }

    /// Repetitions of an event are known, if it is not too old.
    fn know(&mut self, record: &Record, value: &Bytes, now: u64) -> Result<(), Damaged> {
        let appended = self.shared.warp.appended(record.time);
        if self.repeats.is_off() || !self.repeats.covers(appended, now) || record.spans.id.len == 0 {
            return Ok(());
        }
        if let Some(key) = record.place(value)?.dedupe_key(value) {
            self.repeats.add(key, record.sequence, appended);
            if record.sequence < self.shared.bounds().floor {
                // The floor may have been stored, and not yet what is to be known of those below it.
                self.retention.leaving.push((record.sequence, record.time, key));
            }
        }
        Ok(())
    }

    /// Batches that were to be deleted before the store was last closed or lost.
    fn delete_passed(&mut self, store: &Store) -> Result<(), Trouble> {
        let (id, floor) = (self.shared.id, self.shared.bounds().floor);
        store.batches()?.from(id, 0, |loaded| {
            let passed = loaded.head.last < floor;
            if passed {
                self.retention.deletions.push(loaded.head.first);
            }
            Ok(passed)
        })?;
        if self.end.open().is_some_and(|open| self.retention.deletions.contains(&open)) {
            self.end.close();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_the_reading_has_come_is_told_once_a_second() {
        let start = Instant::now();
        let mut reading = Reading { tell_at: start + TELL_INTERVAL, ..Reading::new(2, 1000) };
        let at = |ms| start + Duration::from_millis(ms);
        let told = [500, 999, 1000, 1001, 1999, 2000].map(|ms| reading.add(3, 10, at(ms)));
        assert_eq!(told, [false, false, true, false, false, true]);
        assert_eq!((reading.events, reading.bytes), (18, (60, 1000)));
    }
}
