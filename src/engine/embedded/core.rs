//! One stream as the committer has it: where it goes on, what it knows repetitions by, what ends its events, and what it
//! holds of the memory of the hub.
//!
//! A draft changes nothing that a failed commit would have to take back but the keys of repetitions; a draft that was
//! committed is applied.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64},
};

use parking_lot::{Mutex, RwLock};
use redb::WriteTransaction;
use tokio::sync::watch;

use super::{
    admission::Admission,
    buried::Buried,
    chores::{BatchTable, RepeatTable, Swept},
    clock::Warp,
    draft::{Draft, DraftPiece, Sealer},
    end::{Added, End},
    holdings::Holdings,
    lasts::{Gone, Lasts},
    owners::Charges,
    purge::Selection,
    repeats::Repeats,
    retention::{Retention, TRIM_BYTES},
    rows::{BATCHES, Definition, PROGRESS, Progress, REPEATS},
    store::Trouble,
    stores::Stores,
    stream::{Bounds, Retired, Shared},
    tail::{Budget, Piece, Tail},
    topics::Topics,
};
use crate::{
    engine::{AppendError, Appended, Options, Precondition},
    event::Event,
    model::{Storage, StreamSettings},
};

/// A stream, and the only one who may change it.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    visible: watch::Sender<u64>,
    pub(super) end: End,
    pub(super) repeats: Repeats,
    /// The dead letters of its groups that may be tried again.
    pub(super) buried: Buried,
    pub(super) retention: Retention,
    /// What it holds of the memory of the hub.
    pub(super) holdings: Holdings,
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
        let shared = Arc::new(shared);
        Self {
            visible: sender,
            end: End::new(id, progress),
            repeats: Repeats::new(window, options.max_dedupe_ids),
            buried: Buried::default(),
            retention: Retention::new(&shared),
            holdings,
            shared,
        }
    }

    /// A draft without events.
    pub(super) fn draft(&mut self, now: u64) -> Draft {
        self.repeats.expire(now);
        Draft::new(self.end.next, self.end.time.max(self.shared.warp.stamp(now)), now)
    }

    /// How far the stream comes with a draft.
    pub(super) fn progress(&self, draft: Option<&Draft>) -> Progress {
        self.end.progress(self.shared.bounds().floor, draft)
    }

    fn sealer(&self) -> Sealer<'_> {
        Sealer { stream: self.shared.name.as_str() }
    }

    /// What decides on what is appended.
    pub(super) fn admission(&self) -> Admission<'_> {
        let (stream, sealer) = (&*self.shared, self.sealer());
        Admission { stream, repeats: &self.repeats, holdings: &self.holdings, sealer }
    }

    /// Puts an append into the draft, all of it or nothing.
    pub(super) fn plan(
        &mut self,
        draft: &mut Draft,
        events: &[Event],
        precondition: Option<Precondition>,
        max_topics: usize,
        charges: &mut Charges,
    ) -> Result<Vec<Appended>, AppendError> {
        self.admission().admit(draft, events, precondition, max_topics, charges)?;
        let epoch = self.shared.epoch;
        let sealer = Sealer { stream: self.shared.name.as_str() };
        let mut scratch = Vec::new();
        let mut results = Vec::with_capacity(events.len());
        for event in events {
            let key = if self.repeats.is_off() { None } else { event.dedupe_key() };
            if let Some(sequence) = key.and_then(|key| self.repeats.first_of(event, key, draft.now)) {
                results.push(Appended { sequence, epoch, duplicate: true });
                continue;
            }
            let sequence = self.end.put(draft, event, sealer, &mut scratch);
            if let Some(key) = key {
                self.repeats.add(key, sequence, draft.now);
                draft.keys += 1;
            }
            results.push(Appended { sequence, epoch, duplicate: false });
        }
        Ok(results)
    }

    /// Puts one event into the draft, whatever is known of it.
    pub(super) fn put(&self, draft: &mut Draft, event: &Event) {
        self.end.put(draft, event, self.sealer(), &mut Vec::new());
    }

    /// What its ids take in memory, where the keys of events that are gone may be in the store, too.
    pub(super) fn ids_bytes(&self) -> usize {
        let bytes = self.repeats.bytes();
        if self.shared.storage == Storage::Memory { bytes * 3 / 2 } else { bytes }
    }

    /// Holds the memory that the stream takes now.
    pub(super) fn weigh(&mut self) {
        let topics = self.shared.topics.read().bytes() + self.retention.waste.bytes();
        self.holdings.set(topics, self.ids_bytes(), self.retention.sizes.bytes());
    }

    /// A draft is in the store. Readers do not see it yet.
    pub(super) fn apply(&mut self, draft: Draft, budget: &mut Budget) {
        (self.end.next, self.end.time) = draft.place();
        for piece in draft.pieces {
            let Added { closed, records, bytes, is_full } = self.end.add(&piece);
            if let Some(closed) = closed {
                self.retention.waste.look_at(closed);
            }
            self.retention.resize(piece.first, bytes);
            self.count(&piece, records);
            if !budget.is_off() {
                self.remember(piece, budget);
            }
            if is_full {
                self.close_batch();
            }
        }
    }

    /// Nothing is added to the last batch any more.
    fn close_batch(&mut self) {
        if let Some(first) = self.end.close() {
            self.retention.waste.look_at(first);
        }
    }

    /// Events in, and events out that they push out of their topics. Their batch has so many records now.
    fn count(&mut self, piece: &DraftPiece, records: u32) {
        let shared = Arc::clone(&self.shared);
        let mut topics = shared.topics.write();
        let mut pushed_out = Vec::new();
        let (mut bytes, mut due) = (0, u64::MAX);
        let is_limited = topics.is_limited();
        for record in &piece.records {
            bytes += u64::from(record.len);
            let ends = record.ends(&shared.warp);
            due = due.min(ends);
            pushed_out.extend(topics.add(record.topic(&piece.buffer), record.sequence, record.len, ends));
        }
        drop(topics);
        self.retention.waste.add(piece.first, records, due, is_limited);
        let mut bounds = shared.bounds.lock();
        bounds.events += piece.records.len() as u64;
        bounds.bytes += bytes;
        bounds.events -= pushed_out.len() as u64;
        bounds.bytes -= pushed_out.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
        drop(bounds);
        shared.weigh();
        for (sequence, bytes) in pushed_out {
            self.retention.push_out(&self.end, sequence, bytes);
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
        let latest = self.end.next - 1;
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

    /// Ends every event that a limit ends, and every one up to `purge`. Gives the number of events ended.
    pub(super) fn trim(&mut self, now: u64, purge: u64) -> Result<u64, Trouble> {
        let (ended, _) = self.trim_some(now, purge, usize::MAX)?;
        Ok(ended)
    }

    /// The same, until batches of so many bytes were read; true when there is more to end.
    pub(super) fn trim_some(&mut self, now: u64, purge: u64, at_once: usize) -> Result<(u64, bool), Trouble> {
        self.retention.trim(&self.end, &self.repeats, now, purge, at_once)
    }

    /// Counts what is past its ttl as gone where that makes a difference to an append, behind `more` events that are drafted;
    /// true when the append has to wait for more of that.
    pub(super) fn expire_for(
        &mut self,
        events: &[Event],
        more: usize,
        max_topics: usize,
        now: u64,
    ) -> Result<bool, Trouble> {
        Ok(self.retention.awaits_expiry(events, more, max_topics, now)
            && self.retention.expire(&self.end, now, TRIM_BYTES)?)
    }

    /// What time brings when nothing else does: true when there is more of it.
    pub(super) fn pass_time(&mut self, now: u64) -> Result<bool, Trouble> {
        let more = self.retention.expire_some(&self.end, now)?;
        Ok(more | self.trim_some(now, 0, TRIM_BYTES)?.1)
    }

    /// When everything is over, the last batch goes too.
    pub(super) fn drop_empty(&mut self) {
        if self.retention.is_over(&self.end) {
            self.close_batch();
            self.retention.delete_front();
        }
    }

    /// Does in the store what limits did in memory, in a commit with a draft or none. What has to be remembered once that is
    /// committed is given back.
    pub(super) fn do_chores(
        &mut self,
        batches: &mut BatchTable<'_>,
        keys: &mut RepeatTable<'_>,
        now: u64,
        draft: Option<&Draft>,
    ) -> Result<Vec<Swept>, Trouble> {
        self.retention.do_chores(batches, keys, &self.repeats, now, draft.map_or(0, Draft::batches))
    }

    /// Takes some of a selection out of the store, from sequence `at` on.
    pub(super) fn take_out(
        &mut self,
        transaction: &WriteTransaction,
        selection: &Selection,
        at: u64,
        now: u64,
    ) -> Result<TakenOut, Trouble> {
        let mut batches = transaction.open_table(BATCHES)?;
        let (gone, left) = self.retention.take_out(&mut batches, &self.end, &self.repeats, selection, at, now)?;
        let swept = self.settle_out(transaction, &mut batches, now)?;
        Ok(TakenOut { gone, left, swept })
    }

    /// Takes all of a selection out of the store.
    pub(super) fn take_all_out(
        &mut self,
        transaction: &WriteTransaction,
        selection: &Selection,
        now: u64,
    ) -> Result<TakenOut, Trouble> {
        let mut batches = transaction.open_table(BATCHES)?;
        let (mut gone, mut left) = (Vec::new(), Some(0));
        while let Some(at) = left {
            let some = self.retention.take_out(&mut batches, &self.end, &self.repeats, selection, at, now)?;
            gone.extend(some.0);
            left = some.1;
        }
        let swept = self.settle_out(transaction, &mut batches, now)?;
        Ok(TakenOut { gone, left, swept })
    }

    /// What is deleted and the keys that stay behind are one commit.
    fn settle_out(
        &mut self,
        transaction: &WriteTransaction,
        batches: &mut BatchTable<'_>,
        now: u64,
    ) -> Result<Vec<Swept>, Trouble> {
        let swept = self.do_chores(batches, &mut transaction.open_table(REPEATS)?, now, None)?;
        transaction.open_table(PROGRESS)?.insert(self.shared.id, &*self.progress(None).to_row())?;
        Ok(swept)
    }

    /// What was taken out is committed. Gives how many events of it were still kept, and the search for the last events of
    /// their topics, if there is one to be made.
    pub(super) fn taken_out(&mut self, taken: TakenOut, now: u64) -> Result<(u64, Option<Lasts>), Trouble> {
        let TakenOut { gone, swept, .. } = taken;
        self.retention.chores_done(swept);
        let count = self.retention.taken_out(&gone);
        self.end.close();
        // When nothing is left, the floor moves with the answer, not at some time after it.
        self.trim(now, 0)?;
        Ok((count, Lasts::of(&self.shared, &gone)))
    }
}

/// What was taken out of the store.
#[derive(Debug)]
pub(super) struct TakenOut {
    gone: Vec<Gone>,
    /// Where to go on, if that was not all.
    pub(super) left: Option<u64>,
    swept: Vec<Swept>,
}
