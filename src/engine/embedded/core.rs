//! One stream as the committer has it: what the next event gets, and drafts of what is about to be written.
//!
//! A draft changes nothing that a failed commit would have to take back but the keys of repetitions; a draft that was
//! committed is applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64},
    },
};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use redb::Table;
use tokio::sync::watch;

use super::{
    batch::{self, HEAD_BYTES, Head, MOST_RECORD_HEAD_BYTES, Record, time_of},
    clock::Warp,
    expiry::Dues,
    holdings::{self, Holdings},
    keep::{Front, Lasts},
    owners::Charges,
    repeats::Repeats,
    rows::{Definition, Progress},
    store::Trouble,
    stores::Stores,
    stream::{Bounds, Retired, Shared},
    tail::{Budget, Piece, Tail},
    topics::Topics,
};
use crate::{
    engine::{AppendError, Appended, Options, Precondition},
    event::{Event, Seal, Spans, Stamp},
    memory::{Held, MemoryFull, Use},
    model::{Storage, StreamSettings},
};

/// The last batch of a stream is written again with every commit until it has these bytes, so that lone events do not make a
/// key each. With its key it just fits a page of the database.
pub(super) const OPEN_BATCH_BYTES: usize = 16 * 1024 - 256;
/// No batch is larger, unless one event alone is. With its key it just fits a page of the database.
const BATCH_BYTES: usize = 64 * 1024 - 256;

/// The last batch of a stream, to which more is added.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) head: Head,
    /// Its records, without the head.
    pub(super) records: Vec<u8>,
}

/// How many records a batch has, and how many of them are dead: newer events of their topics pushed them out, or they are past
/// their ttl.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) records: u32,
    pub(super) dead: u32,
    pub(super) dead_bytes: u32,
}

/// A stream, and the only one who may change it.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) visible: watch::Sender<u64>,
    pub(super) next: u64,
    /// When the last event was appended, in microseconds since 1970.
    pub(super) time: u64,
    pub(super) open: Option<OpenBatch>,
    pub(super) repeats: Repeats,
    /// The oldest events, where a limit may end them.
    pub(super) front: Front,
    /// Batches to delete with the next commit, by their first sequences.
    pub(super) deletions: Vec<u64>,
    /// Keys to keep when their events are deleted: sequence, time and key.
    pub(super) leaving: Vec<(u64, u64, u128)>,
    /// The floor is not in the store yet.
    pub(super) floor_moved: bool,
    /// In streams that limit the events of each topic every batch, in others those with events that have a ttl.
    pub(super) loads: BTreeMap<u64, Load>,
    /// Batches of which so much is dead that they are written again.
    pub(super) sweep: BTreeSet<u64>,
    /// When events end by their ttl.
    pub(super) dues: Dues,
    /// Some did, and who reads ahead was not told yet.
    pub(super) expired: bool,
    /// For the last events of topics that are not known.
    pub(super) search: Option<Lasts>,
    /// Until then nothing ends by its age: the clock may be wrong.
    pub(super) patience: u64,
    /// What it holds of the memory of the hub.
    pub(super) holdings: Holdings,
    /// How many bytes of batches were deleted since somebody last asked.
    pub(super) deleted: u64,
}

/// Events that are about to be written to one stream.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) pieces: Vec<DraftPiece>,
    next: u64,
    /// What its events are stamped with,
    time: u64,
    /// and when they are appended, as ages go.
    pub(super) now: u64,
    /// How many keys were added.
    keys: usize,
    /// The last sequences of topics in this draft, once a precondition asked for them.
    topics: Option<HashMap<Box<[u8]>, u64>>,
    /// How many events it has.
    events: usize,
    /// What they are stored with, in bytes.
    stored: u64,
    /// Room for what they may add in memory.
    reserved: Vec<Held>,
}

/// Part of a draft that goes into one batch.
#[derive(Debug)]
pub(super) struct DraftPiece {
    /// It goes behind what the open batch has.
    continues: bool,
    first: u64,
    base_time: u64,
    /// Sequence and time of what is in front of it.
    before: (u64, u64),
    last: (u64, u64),
    /// Room for a head, and the records: what is written, unless it continues.
    pub(super) buffer: Vec<u8>,
    pub(super) records: Vec<Record>,
}

impl Core {
    /// A stream without events, as it is at `progress`.
    pub(super) fn empty(
        stores: &Arc<Stores>,
        options: &Options,
        id: u64,
        definition: &Definition,
        settings: StreamSettings,
        progress: Progress,
    ) -> Self {
        let (sender, visible) = watch::channel(progress.next - 1);
        let window = u64::try_from(settings.dedupe_window.as_micros()).unwrap_or(u64::MAX);
        let warp = Warp::new(stores.now(), progress.time);
        let (floor, latest) = (progress.floor, progress.next - 1);
        let bounds = Bounds { floor, latest, withdrawn: floor, events: 0, bytes: 0 };
        let holdings = Holdings::new(&stores.accountant, &stores.definitions, &settings);
        let shared = Shared {
            id,
            name: settings.name.clone(),
            epoch: definition.epoch,
            created: definition.created,
            storage: settings.storage,
            topics: RwLock::new(Topics::new(settings.max_events_per_topic)),
            share: stores.owners.share(&settings.owner),
            settings: RwLock::new(Arc::new(settings)),
            bounds: Mutex::new(bounds),
            tail: Arc::new(Tail::default()),
            visible,
            retired: AtomicU8::default(),
            warp,
            stores: Arc::clone(stores),
            removals: AtomicU64::default(),
            holes: Mutex::default(),
        };
        Self::new(Arc::new(shared), sender, Repeats::new(window, options.max_dedupe_ids), progress, holdings)
    }

    /// A stream that is whole at `progress`.
    fn new(
        shared: Arc<Shared>,
        visible: watch::Sender<u64>,
        repeats: Repeats,
        progress: Progress,
        holdings: Holdings,
    ) -> Self {
        Self {
            shared,
            visible,
            next: progress.next,
            time: progress.time,
            open: None,
            repeats,
            front: Front::after(progress.floor - 1),
            deletions: Vec::new(),
            leaving: Vec::new(),
            floor_moved: false,
            loads: BTreeMap::new(),
            sweep: BTreeSet::new(),
            dues: Dues::default(),
            expired: false,
            search: None,
            patience: 0,
            holdings,
            deleted: 0,
        }
    }

    /// A draft without events.
    pub(super) fn draft(&mut self, now: u64) -> Draft {
        self.repeats.expire(now);
        Draft {
            pieces: Vec::new(),
            next: self.next,
            time: self.time.max(self.shared.warp.stamp(now)),
            now,
            keys: 0,
            topics: None,
            events: 0,
            stored: 0,
            reserved: Vec::new(),
        }
    }

    /// How far the stream comes with a draft.
    pub(super) fn progress(&self, draft: Option<&Draft>) -> Progress {
        let (next, time) = draft.map_or((self.next, self.time), |draft| (draft.next, draft.time));
        Progress { next, floor: self.shared.bounds().floor, time }
    }

    /// What is written in one commit may be read in the next, but not before: nothing waits for less than this.
    pub(super) fn has_chores(&self) -> bool {
        self.floor_moved || !self.deletions.is_empty() || !self.leaving.is_empty() || !self.sweep.is_empty()
    }

    /// Puts an append into the draft, all of it or nothing.
    pub(super) fn plan(
        &mut self,
        draft: &mut Draft,
        events: &[Event],
        precondition: Option<Precondition>,
        max_topics: usize,
        seal: Seal,
        charges: &mut Charges,
    ) -> Result<Vec<Appended>, AppendError> {
        if let Some(precondition) = precondition
            && (self.repeats.is_off() || !events.iter().all(|event| self.is_known(event, draft.now)))
        {
            self.check(draft, events, precondition)?;
        }
        self.check_topics(draft, events, max_topics)?;
        self.check_bytes(draft, events, precondition.is_some(), seal)?;
        self.charge(draft, events.iter(), true, seal, charges).map_err(|limit| AppendError::QuotaUsedUp { limit })?;
        self.reserve(draft, events.iter())?;
        let epoch = self.shared.epoch;
        let mut scratch = Vec::new();
        let mut results = Vec::with_capacity(events.len());
        for event in events {
            let key = if self.repeats.is_off() { None } else { event.dedupe_key() };
            if let Some(sequence) = key.and_then(|key| self.first_of(event, key, draft.now)) {
                results.push(Appended { sequence, epoch, duplicate: true });
                continue;
            }
            let sequence = self.put(draft, event, seal, &mut scratch);
            if let Some(key) = key {
                self.repeats.add(key, sequence, draft.now);
                draft.keys += 1;
            }
            results.push(Appended { sequence, epoch, duplicate: false });
        }
        Ok(results)
    }

    /// The sequence of the event that this one, of that key, is a repetition of.
    fn first_of(&self, event: &Event, key: u128, now: u64) -> Option<u64> {
        self.repeats.find(key).or_else(|| self.repeats.find_old(|| event.old_dedupe_key(), now))
    }

    /// True for a repetition of an event that is stored.
    pub(super) fn is_known(&self, event: &Event, now: u64) -> bool {
        !self.repeats.is_off() && event.dedupe_key().is_some_and(|key| self.first_of(event, key, now).is_some())
    }

    /// Writes an event as it is stored at a sequence and time, in place of what is in `stored`.
    pub(super) fn stamp(&self, event: &Event, (sequence, time): (u64, u64), seal: Seal, stored: &mut Vec<u8>) -> Spans {
        stored.clear();
        seal(event, &Stamp { stream: self.shared.name.as_str(), sequence, time: time_of(time) }, stored)
    }

    /// Reserves memory for events that are about to be put into the draft, for all or none. Counts exactly only when it is
    /// close.
    pub(super) fn reserve<'a>(
        &self,
        draft: &mut Draft,
        events: impl Iterator<Item = &'a Event> + Clone,
    ) -> Result<(), MemoryFull> {
        let mut bytes = self.most_topic_bytes(events.clone());
        if bytes > self.holdings.room(Use::Topics) {
            bytes = self.topic_bytes(events.clone());
        }
        if events.clone().any(|event| event.spans().ttl_ms.is_some()) {
            bytes += Dues::most_bytes(events.clone().map(Event::encoded_len).sum());
        }
        let topics = if bytes > 0 { Some(self.holdings.reserve(Use::Topics, bytes)?) } else { None };
        if self.shared.storage == Storage::Memory {
            let bytes = self.event_bytes(draft, events);
            if bytes > 0 {
                draft.reserved.push(self.holdings.reserve(Use::MemoryStreams, bytes)?);
            }
        }
        draft.reserved.extend(topics);
        Ok(())
    }

    /// What events add to the topics, if each is of a new one.
    fn most_topic_bytes<'a>(&self, events: impl Iterator<Item = &'a Event>) -> usize {
        let topics = self.shared.topics.read();
        let of_topic = topics.topic_bytes();
        let (mut bytes, mut before) = (0, None);
        for event in events {
            let topic = event.topic().as_bytes();
            if before != Some(topic) {
                bytes += of_topic + topic.len();
                before = Some(topic);
            }
            bytes += topics.most_event_bytes(event.spans().ttl_ms.is_some());
        }
        bytes
    }

    /// What events add to the topics.
    fn topic_bytes<'a>(&self, events: impl Iterator<Item = &'a Event>) -> usize {
        let topics = self.shared.topics.read();
        let (mut bytes, mut new) = (0, BTreeSet::new());
        for event in events {
            let topic = event.topic().as_bytes();
            if !topics.has(topic) && new.insert(topic) {
                bytes += topics.topic_bytes() + topic.len();
            }
            bytes += topics.event_bytes(topic, event.spans().ttl_ms.is_some());
        }
        bytes
    }

    /// What events add to a stream in memory, without those that they take the place of.
    fn event_bytes<'a>(&self, draft: &Draft, events: impl Iterator<Item = &'a Event>) -> usize {
        let (settings, bounds) = (Arc::clone(&self.shared.settings.read()), self.shared.bounds());
        let usual = bounds.bytes.checked_div(bounds.events).unwrap_or_default();
        let topics = self.shared.topics.read();
        let (mut taken, mut encoded, mut count, mut replaced) = (0_usize, 0, 0, 0);
        for event in events {
            taken += holdings::event_bytes(event.encoded_len());
            encoded += event.encoded_len() as u64;
            count += 1;
            replaced += u64::from(topics.is_full(event.topic().as_bytes()));
        }
        let over = |limit: Option<u64>, held: u64, more: u64| {
            limit.map_or(0, |limit| held.saturating_add(more).saturating_sub(limit).min(more))
        };
        let events_over = over(settings.max_events, bounds.events + draft.events as u64, count);
        let bytes_over = over(settings.max_bytes, bounds.bytes + draft.stored, encoded);
        // As a part of the encoded bytes: what these take beside themselves is replaced with them.
        let ended = bytes_over.max(usual.saturating_mul(events_over.max(replaced))).min(encoded);
        let kept = u128::from(encoded - ended) * taken as u128 / u128::from(encoded.max(1));
        usize::try_from(kept).unwrap_or(usize::MAX)
    }

    /// What its ids take in memory, where the keys of events that are gone may be in the store, too.
    pub(super) fn ids_bytes(&self) -> usize {
        let bytes = self.repeats.bytes();
        if self.shared.storage == Storage::Memory { bytes * 3 / 2 } else { bytes }
    }

    /// Holds the memory that the stream takes now.
    pub(super) fn weigh(&mut self) {
        let topics = self.shared.topics.read().bytes() + self.dues.bytes();
        self.holdings.set(topics, self.ids_bytes());
    }

    /// Charges the owner for events that are about to be put into the draft, all or none. Where they may be
    /// `repetitions`, those that are known are not stored again.
    pub(super) fn charge<'a>(
        &self,
        draft: &Draft,
        events: impl Iterator<Item = &'a Event>,
        repetitions: bool,
        seal: Seal,
        charges: &mut Charges,
    ) -> Result<(), u64> {
        if charges.is_off() {
            return Ok(());
        }
        let (mut sequence, mut bytes, mut scratch) = (draft.next, 0, Vec::new());
        let mut seen = BTreeSet::new();
        for event in events {
            let key = if !repetitions || self.repeats.is_off() { None } else { event.dedupe_key() };
            if key.is_some_and(|key| self.first_of(event, key, draft.now).is_some() || !seen.insert(key)) {
                continue;
            }
            self.stamp(event, (sequence, draft.time), seal, &mut scratch);
            bytes += scratch.len() as u64;
            sequence += 1;
        }
        let most = self.shared.settings.read().max_bytes.unwrap_or(u64::MAX);
        charges.add(&self.shared.share, self.shared.bounds().bytes + draft.stored, most, bytes)
    }

    /// Puts one event into the draft.
    pub(super) fn put(&self, draft: &mut Draft, event: &Event, seal: Seal, scratch: &mut Vec<u8>) -> u64 {
        let (sequence, time) = (draft.next, draft.time);
        let spans = self.stamp(event, (sequence, time), seal, scratch);
        let need = scratch.len() + MOST_RECORD_HEAD_BYTES;
        let open_bytes = self.open.as_ref().map_or(OPEN_BATCH_BYTES, |open| HEAD_BYTES + open.records.len());
        let fits = match draft.pieces.last() {
            None => open_bytes + need <= OPEN_BATCH_BYTES,
            Some(piece) if piece.continues => open_bytes + piece.buffer.len() - HEAD_BYTES + need <= OPEN_BATCH_BYTES,
            Some(piece) => piece.buffer.len() + need <= BATCH_BYTES,
        };
        if !fits || draft.pieces.is_empty() {
            let open = self.open.as_ref().filter(|_| fits && draft.pieces.is_empty());
            // After a full piece there is likely another one.
            let bytes = if draft.pieces.is_empty() { HEAD_BYTES + need } else { BATCH_BYTES.max(HEAD_BYTES + need) };
            let mut buffer = Vec::with_capacity(bytes);
            buffer.resize(HEAD_BYTES, 0);
            let before = open.map_or((sequence - 1, time), |open| (open.head.last, open.head.last_time));
            draft.pieces.push(DraftPiece {
                continues: open.is_some(),
                first: open.map_or(sequence, |open| open.head.first),
                base_time: open.map_or(time, |open| open.head.base_time),
                before,
                last: before,
                buffer,
                records: Vec::with_capacity(bytes / need),
            });
        }
        if let Some(piece) = draft.pieces.last_mut() {
            let start = batch::put(&mut piece.buffer, piece.last, (sequence, time), &spans, scratch);
            piece.last = (sequence, time);
            piece.records.push(Record { sequence, time, spans, start, len: scratch.len() as u32 });
        }
        if let Some(topics) = &mut draft.topics {
            topics.insert(event.topic().as_bytes().into(), sequence);
        }
        draft.next += 1;
        draft.events += 1;
        draft.stored += scratch.len() as u64;
        sequence
    }

    /// Writes a draft, whose heads are filled in.
    pub(super) fn write(&self, draft: &mut Draft, batches: &mut Table<'_, (u64, u64), &[u8]>) -> Result<(), Trouble> {
        for piece in &mut draft.pieces {
            let (key, head) = ((self.shared.id, piece.first), self.head_of(piece));
            match self.open.as_ref().filter(|_| piece.continues) {
                Some(open) => {
                    let mut value = Vec::with_capacity(open.records.len() + piece.buffer.len());
                    value.resize(HEAD_BYTES, 0);
                    value.extend_from_slice(&open.records);
                    value.extend_from_slice(piece.records());
                    batch::finish(&mut value, self.shared.id, &head);
                    batches.insert(key, &*value)?;
                }
                None => {
                    batch::finish(&mut piece.buffer, self.shared.id, &head);
                    batches.insert(key, &*piece.buffer)?;
                }
            }
        }
        Ok(())
    }

    fn head_of(&self, piece: &DraftPiece) -> Head {
        let before = self.open.as_ref().filter(|_| piece.continues).map_or(0, |open| open.head.count);
        Head {
            first: piece.first,
            last: piece.last.0,
            base_time: piece.base_time,
            last_time: piece.last.1,
            count: before + piece.records.len() as u32,
        }
    }

    /// A draft is in the store. Readers do not see it yet.
    pub(super) fn apply(&mut self, draft: Draft, budget: &mut Budget) {
        (self.next, self.time) = (draft.next, draft.time);
        let in_memory = self.shared.storage == Storage::Memory;
        for piece in draft.pieces {
            let head = self.head_of(&piece);
            // Nothing is ever added to one that is as large: its records need not be kept for that.
            let is_full = !piece.continues && piece.buffer.len() >= OPEN_BATCH_BYTES;
            if !piece.continues {
                self.close_batch();
                self.open = Some(OpenBatch { head, records: Vec::new() });
            }
            if let Some(open) = self.open.as_mut().filter(|_| !is_full) {
                open.head = head;
                open.records.extend_from_slice(piece.records());
            }
            if in_memory {
                let open = self.open.as_ref().filter(|_| piece.continues);
                let bytes = open.map_or(piece.buffer.len(), |open| HEAD_BYTES + open.records.len());
                self.holdings.resize(piece.first, bytes);
            }
            self.count(&piece, head.count);
            if !budget.is_off() {
                self.remember(piece, budget);
            }
            let bytes = self.open.as_ref().map(|open| HEAD_BYTES + open.records.len());
            if is_full || bytes.is_some_and(|bytes| bytes >= OPEN_BATCH_BYTES) {
                self.close_batch();
            }
        }
    }

    /// Nothing is added to the last batch any more.
    pub(super) fn close_batch(&mut self) {
        if let Some(open) = self.open.take() {
            self.look_at_load(open.head.first);
        }
    }

    /// Events in, and events out that they push out of their topics. Their batch has so many records now.
    fn count(&mut self, piece: &DraftPiece, records: u32) {
        let shared = Arc::clone(&self.shared);
        let mut topics = shared.topics.write();
        let mut pushed_out = Vec::new();
        let (mut bytes, mut due) = (0, u64::MAX);
        if topics.is_limited() {
            self.loads.entry(piece.first).or_default();
        }
        for record in &piece.records {
            bytes += u64::from(record.len);
            let ends = record.ends(&shared.warp);
            due = due.min(ends);
            pushed_out.extend(topics.add(record.topic(&piece.buffer), record.sequence, record.len, ends));
        }
        drop(topics);
        self.note_due(piece.first, records, due);
        let mut bounds = shared.bounds.lock();
        bounds.events += piece.records.len() as u64;
        bounds.bytes += bytes;
        bounds.events -= pushed_out.len() as u64;
        bounds.bytes -= pushed_out.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
        drop(bounds);
        shared.weigh();
        for (sequence, bytes) in pushed_out {
            self.push_out(sequence, bytes);
        }
    }

    /// One more event of its batch is dead. Every batch is known that has one that can die so.
    pub(super) fn push_out(&mut self, sequence: u64, bytes: u32) {
        self.shared.miss(sequence, sequence);
        let Some((first, load)) = self.loads.range_mut(..=sequence).next_back() else { return };
        load.dead += 1;
        load.dead_bytes = load.dead_bytes.saturating_add(bytes);
        let first = *first;
        if self.open.as_ref().is_none_or(|open| open.head.first != first) {
            self.look_at_load(first);
        }
    }

    pub(super) fn look_at_load(&mut self, first: u64) {
        let much = |load: &Load| load.dead * 2 >= load.records || load.dead_bytes as usize * 2 >= BATCH_BYTES;
        if self.loads.get(&first).is_some_and(|load| load.dead > 0 && much(load)) {
            self.sweep.insert(first);
        }
    }

    /// Keeps what was written for readers near the head.
    fn remember(&self, mut piece: DraftPiece, budget: &mut Budget) {
        if piece.buffer.capacity() > piece.buffer.len() / 4 * 5 {
            piece.buffer.shrink_to_fit();
        }
        let first = piece.before.0 + 1;
        let kept = Piece::new(first, piece.last.0, piece.before.1, piece.buffer.into());
        budget.push(&self.shared.tail, kept);
    }

    /// Readers see all there is.
    pub(super) fn publish(&self) {
        let latest = self.next - 1;
        let mut bounds = self.shared.bounds.lock();
        if bounds.latest == latest {
            return;
        }
        bounds.latest = latest;
        drop(bounds);
        self.visible.send_replace(latest);
    }

    /// A draft was not written.
    pub(super) fn take_back(&mut self, draft: &Draft) {
        self.repeats.take_back(draft.keys);
    }

    /// Handles are no longer good.
    pub(super) fn retire(&self, why: Retired) {
        self.shared.retire(why);
        self.shared.tail.clear();
        self.shared.share.set(0);
    }
}

impl DraftPiece {
    /// What goes into the batch behind its head, or behind what it has.
    fn records(&self) -> &[u8] {
        &self.buffer[HEAD_BYTES..]
    }
}

impl Draft {
    /// True when there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The sequence of the next event, and what it is stamped with.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.next, self.time)
    }

    /// How many events it has.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// How many batches it is written to.
    pub(super) fn batches(&self) -> usize {
        self.pieces.len()
    }

    /// How many bytes are to be written.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.records().len()).sum()
    }

    /// The last sequence of a topic in this draft.
    pub(super) fn last_of(&mut self, topic: &[u8]) -> Option<u64> {
        let pieces = &self.pieces;
        let topics = self.topics.get_or_insert_with(|| {
            let all =
                pieces.iter().flat_map(|piece| piece.records.iter().map(|r| (r.topic(&piece.buffer), r.sequence)));
            all.map(|(topic, sequence)| (topic.into(), sequence)).collect()
        });
        topics.get(topic).copied()
    }
}
