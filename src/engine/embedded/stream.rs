//! One stream as everyone but the committer sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::{
    clock::Warp,
    committer::Committer,
    groups,
    holes::Holes,
    inbox::{AppendWork, Closed, Inbox, SaveWork, Work},
    keep::{Purge, Selection},
    link::{Link, Place},
    owners::Share,
    read::{self, InTail},
    store::{Store, Trouble},
    tail::Tail,
    topics::{LastSearch, Topics},
};
use crate::{
    engine::{
        Append, AppendError, Boxed, Chunk, DeadLetter, EventStream, GroupStoreError, Kept, LettersBack, MAX_SEQUENCES,
        PurgeError, ReadError, ReadLimits, Receipt, StoreError, StoredGroup,
    },
    event::Event,
    model::{
        Filter, Group, GroupSettings, Storage, StreamName, StreamSettings, StreamState, Topic,
        limits::MAX_GROUP_STATE_BYTES,
    },
};

/// For so many steps the topics of a stream are looked through before others have a turn, who may want to append.
const LOOK_STEPS: usize = 2048;

/// What readers may see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Nothing before this sequence.
    pub(super) floor: u64,
    /// Nothing after this one.
    pub(super) latest: u64,
    /// What is before this sequence is not even for those who follow: it was purged, or is too old.
    pub(super) withdrawn: u64,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

/// Why a handle is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retired {
    /// The stream is deleted.
    Deleted,
    /// The stream was read anew, after the disk was full, and has another handle.
    Replaced,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: u64,
    pub(super) name: StreamName,
    pub(super) epoch: i64,
    /// In microseconds since 1970.
    pub(super) created: u64,
    pub(super) storage: Storage,
    pub(super) settings: RwLock<Arc<StreamSettings>>,
    pub(super) bounds: Mutex<Bounds>,
    pub(super) topics: RwLock<Topics>,
    pub(super) tail: Arc<Tail>,
    pub(super) visible: watch::Receiver<u64>,
    /// Not 0: as a [`Retired`].
    pub(super) retired: AtomicU8,
    pub(super) share: Share,
    /// How its times are to be taken.
    pub(super) warp: Warp,
    pub(super) link: Arc<Link>,
    /// How often events were taken out of it.
    pub(super) removals: AtomicU64,
    /// What is missing in its middle.
    pub(super) holes: Mutex<Holes>,
}

/// Microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The time that is so many microseconds after 1970.
pub(super) fn time_of(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

impl Shared {
    pub(super) fn store(&self) -> &Store {
        self.link.store(self.storage)
    }

    /// Its handle is no longer good.
    pub(super) fn retire(&self, why: Retired) {
        let number = match why {
            Retired::Deleted => 1,
            Retired::Replaced => 2,
        };
        self.retired.store(number, Relaxed);
    }

    /// Nothing when its handle is good; `deleted` when the stream is.
    pub(super) fn check<E: From<StoreError>>(&self, deleted: E) -> Result<(), E> {
        match self.retired.load(Relaxed) {
            0 => Ok(()),
            1 => Err(deleted),
            _ => Err(StoreError::Recovering.into()),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        *self.bounds.lock()
    }

    /// These are not kept any more, or never were, though later ones and earlier ones may be.
    pub(super) fn miss(&self, first: u64, last: u64) {
        let floor = self.bounds().floor;
        self.holes.lock().add_range(first, last, floor);
    }

    /// What it holds has changed.
    pub(super) fn weigh(&self) {
        self.share.set(self.bounds().bytes);
    }

    /// Where a read after `after` begins, or what it finds at once.
    pub(super) fn start(&self, after: u64) -> Result<Result<Bounds, Chunk>, ReadError> {
        self.check(ReadError::Closed)?;
        let bounds = self.bounds();
        if after.saturating_add(1) < bounds.floor {
            return Err(ReadError::Lost { earliest: bounds.floor, latest: bounds.latest });
        }
        if after >= bounds.latest {
            return Ok(Err(Chunk { events: Vec::new(), through: after, latest: bounds.latest }));
        }
        Ok(Ok(bounds))
    }

    /// Reads from the disk, or looks through much memory, where that holds nobody up.
    async fn from_disk<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Shared) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let Ok(_permit) = self.link.readers.acquire().await else { return Err(StoreError::Unavailable.into()) };
        let this = Arc::clone(self);
        self.link.beside(move || read(&this)).await?
    }

    /// Reads what is stored of groups.
    async fn of_groups<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Shared) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, GroupStoreError> {
        self.from_disk(move |stream| {
            stream.check(GroupStoreError::Closed)?;
            read(stream).map_err(|trouble| trouble.error().into())
        })
        .await
    }

    /// The last of every topic. Most searches are over soon; of those that are not, one goes on at a time.
    async fn search(self: &Arc<Self>, mut search: LastSearch) -> Result<Vec<u64>, ReadError> {
        self.check(ReadError::Closed)?;
        let now = self.link.now();
        if search.look(&self.topics.read(), now, LOOK_STEPS) {
            return Ok(search.finish());
        }
        let Ok(_permit) = self.link.searches.acquire().await else { return Err(StoreError::Unavailable.into()) };
        let this = Arc::clone(self);
        let look = move || {
            while !search.look(&this.topics.read(), now, LOOK_STEPS) {
                this.check(ReadError::Closed)?;
            }
            Ok(search.finish())
        };
        self.link.beside(look).await?
    }

    /// The last event of a topic. What newer ones push out between the looks is found all the same, since it was the last.
    async fn last_event(self: &Arc<Self>, topic: Topic<'_>) -> Result<Option<Event>, ReadError> {
        let (mut visible, mut before) = (self.visible.clone(), None);
        loop {
            self.check(ReadError::Closed)?;
            let last = self.topics.read().last(topic.as_bytes(), self.link.now());
            let Some(sequence) = last.filter(|_| last != before) else { return Ok(None) };
            before = last;
            // Events are counted before they are shown.
            if visible.wait_for(|visible| *visible >= sequence).await.is_err() {
                self.check(ReadError::Closed)?;
                return Err(StoreError::Unavailable.into());
            }
            let found = match read::in_tail(self, sequence) {
                Some(event) => Some(event),
                None => self.from_disk(move |stream| read::one(stream, sequence)).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    async fn append_work(self: Arc<Self>, append: Append) -> Result<Receipt, AppendError> {
        let (bytes, limit) = (Inbox::cost(&append.events), self.link.inbox.limit());
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        self.check(AppendError::Closed)?;
        let unavailable = |Closed| AppendError::from(StoreError::Unavailable);
        let room = self.link.inbox.room(bytes).await.map_err(unavailable)?;
        let (reply, receipt) = Receipt::new();
        let Append { events, precondition } = append;
        let link = Arc::clone(&self.link);
        let work = AppendWork { stream: self, events, precondition, reply, room };
        link.inbox.push(Work::Append(work)).map_err(unavailable)?;
        Ok(receipt)
    }

    /// Has the committer delete everything up to a sequence, or what is selected: some at a time, so that appends come
    /// between. Goes on when nobody waits for it any more.
    pub(super) async fn purged(self: &Arc<Self>, what: Purge, place: Option<Place>) -> Result<u64, PurgeError> {
        let this = Arc::clone(self);
        let purge = async move {
            let _place = place;
            let (mut total, mut rest) = (0, Some(what));
            while let Some(what) = rest.take() {
                let (turn, stream) = (this.link.turn().await?, Arc::clone(&this));
                let purge = move |committer: &mut Committer| {
                    stream.check(PurgeError::Closed)?;
                    committer.purge(stream.id, what)
                };
                let (purged, left) = this.link.act(turn, purge).await??;
                total += purged;
                rest = left;
            }
            Ok(total)
        };
        self.link.tasks.see_through("purge", purge).await
    }

    async fn save(
        self: Arc<Self>,
        group: Group,
        state: Bytes,
        dead_letters: Vec<DeadLetter>,
    ) -> Result<(), GroupStoreError> {
        let bytes = state.len() + Inbox::cost(dead_letters.iter().map(|letter| &letter.event));
        let limit = MAX_GROUP_STATE_BYTES.min(self.link.inbox.limit());
        if bytes > limit {
            return Err(GroupStoreError::TooLarge { bytes, limit });
        }
        let unavailable = |Closed| GroupStoreError::from(StoreError::Unavailable);
        let room = self.link.inbox.room(bytes).await.map_err(unavailable)?;
        let (reply, result) = oneshot::channel();
        let link = Arc::clone(&self.link);
        let work = SaveWork { stream: self, group, state, dead_letters, reply, room };
        link.inbox.push(Work::Save(work)).map_err(unavailable)?;
        result.await.unwrap_or(Err(StoreError::Unavailable.into()))
    }
}

/// A handle: the stream, for as long as somebody wants it.
#[derive(Debug, Clone)]
pub(super) struct Handle(pub(super) Arc<Shared>);

/// Sequences as reading takes them: in order, each once, and no more than are looked at.
fn ascending(mut sequences: Vec<u64>) -> Vec<u64> {
    sequences.sort_unstable();
    sequences.dedup();
    sequences.truncate(MAX_SEQUENCES);
    sequences
}

impl EventStream for Handle {
    fn name(&self) -> &StreamName {
        &self.0.name
    }

    fn epoch(&self) -> i64 {
        self.0.epoch
    }

    fn check(&self) -> Result<(), ReadError> {
        self.0.check(ReadError::Closed)
    }

    fn settings(&self) -> Arc<StreamSettings> {
        Arc::clone(&self.0.settings.read())
    }

    fn state(&self) -> StreamState {
        let Bounds { floor, latest, events, bytes, .. } = self.0.bounds();
        StreamState {
            settings: (*self.settings()).clone(),
            epoch: self.0.epoch,
            created: time_of(self.0.created),
            earliest: floor,
            latest,
            events,
            bytes,
        }
    }

    fn visible(&self) -> watch::Receiver<u64> {
        self.0.visible.clone()
    }

    fn append(&self, append: Append) -> Boxed<'_, Result<Receipt, AppendError>> {
        Box::pin(Arc::clone(&self.0).append_work(append))
    }

    fn read<'a>(
        &'a self,
        after: u64,
        filters: &'a Arc<[Filter]>,
        limits: ReadLimits,
    ) -> Boxed<'a, Result<Chunk, ReadError>> {
        Box::pin(async move {
            let bounds = match self.0.start(after)? {
                Ok(bounds) => bounds,
                Err(chunk) => return Ok(chunk),
            };
            let mut after = after;
            match read::from_tail(&self.0, after, bounds, filters, limits) {
                Some(InTail { chunk, is_gone: false }) => return Ok(chunk),
                Some(InTail { chunk, .. }) => after = chunk.through,
                None => {}
            }
            let filters = Arc::clone(filters);
            self.0.from_disk(move |stream| read::from_store(stream, after, &filters, limits)).await
        })
    }

    fn follow<'a>(
        &'a self,
        after: u64,
        filters: &'a Arc<[Filter]>,
        limits: ReadLimits,
    ) -> Boxed<'a, Result<Chunk, ReadError>> {
        let bounds = self.0.bounds();
        let ended = after.saturating_add(1) < bounds.floor && after.saturating_add(1) >= bounds.withdrawn;
        // Where topics are limited, what was pushed out of its topic cannot be told from the rest.
        let may = ended && self.check().is_ok() && !self.0.topics.read().is_limited();
        if may && let Some(InTail { chunk, .. }) = read::from_tail(&self.0, after, bounds, filters, limits) {
            return Box::pin(std::future::ready(Ok(chunk)));
        }
        self.read(after, filters, limits)
    }

    fn get(&self, sequences: Vec<u64>) -> Boxed<'_, Result<Chunk, ReadError>> {
        let sequences = ascending(sequences);
        Box::pin(self.0.from_disk(move |stream| read::some(stream, &sequences)))
    }

    fn now(&self) -> SystemTime {
        time_of(self.0.warp.stamp(self.0.link.now()))
    }

    fn age(&self, time: SystemTime) -> Duration {
        Duration::from_micros(self.0.link.now().saturating_sub(self.0.warp.appended(micros(time))))
    }

    fn which(&self, sequences: Vec<u64>) -> Boxed<'_, Result<Vec<u64>, ReadError>> {
        let sequences = ascending(sequences);
        Box::pin(self.0.from_disk(move |stream| read::which(stream, &sequences)))
    }

    fn kept(&self) -> Kept {
        let Bounds { floor, latest, events, .. } = self.0.bounds();
        self.0.holes.lock().kept(floor, latest, events)
    }

    fn earliest(&self) -> u64 {
        self.0.bounds().floor
    }

    fn first_at(&self, time: SystemTime) -> Boxed<'_, Result<u64, ReadError>> {
        Box::pin(self.0.from_disk(move |stream| read::first_at(stream, micros(time))))
    }

    fn last_per_topic<'a>(
        &'a self,
        filters: &'a Arc<[Filter]>,
        after: u64,
        up_to: u64,
        most: usize,
    ) -> Boxed<'a, Result<Vec<u64>, ReadError>> {
        Box::pin(self.0.search(LastSearch::new(filters, after, up_to, most)))
    }

    fn removals(&self) -> u64 {
        self.0.removals.load(Relaxed)
    }

    fn last_of(&self, topic: Topic<'_>) -> Option<u64> {
        self.0.topics.read().last(topic.as_bytes(), self.0.link.now())
    }

    fn last_event<'a>(&'a self, topic: Topic<'a>) -> Boxed<'a, Result<Option<Event>, ReadError>> {
        Box::pin(self.0.last_event(topic))
    }

    fn purge(&self, up_to: u64, filter: Option<Filter>) -> Boxed<'_, Result<u64, PurgeError>> {
        let selected = |filter| Purge::Selected { selection: Selection::Matching { up_to, filter }, at: 0 };
        let what = filter.map_or(Purge::UpTo(up_to), selected);
        Box::pin(async move {
            let place = self.0.link.place()?;
            self.0.purged(what, Some(place)).await
        })
    }

    fn remove(&self, sequences: Vec<u64>) -> Boxed<'_, Result<u64, PurgeError>> {
        let selection = Selection::Sequences(sequences.into_iter().take(MAX_SEQUENCES).collect());
        Box::pin(self.0.purged(Purge::Selected { selection, at: 0 }, None))
    }

    fn groups(&self) -> Boxed<'_, Result<Vec<StoredGroup>, GroupStoreError>> {
        Box::pin(self.0.of_groups(groups::all))
    }

    fn group(&self, group: Group) -> Boxed<'_, Result<Option<StoredGroup>, GroupStoreError>> {
        Box::pin(self.0.of_groups(move |stream| groups::one(stream, &group)))
    }

    fn create_group(
        &self,
        group: Group,
        settings: GroupSettings,
        state: Bytes,
    ) -> Boxed<'_, Result<(), GroupStoreError>> {
        let act = move |committer: &mut Committer, stream: &Shared| {
            committer.put_group(stream, &group, &settings, Some(&state))
        };
        Box::pin(group_act(&self.0, act))
    }

    fn update_group(&self, group: Group, settings: GroupSettings) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(group_act(&self.0, move |committer, stream| committer.put_group(stream, &group, &settings, None)))
    }

    fn delete_group(&self, group: Group) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(group_act(&self.0, move |committer, stream| committer.delete_group(stream, &group)))
    }

    fn give_back(&self, group: Group, state: Bytes, back: LettersBack) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(Arc::clone(&self.0).back(group, state, back))
    }

    fn save_group(
        &self,
        group: Group,
        state: Bytes,
        dead_letters: Vec<DeadLetter>,
    ) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(Arc::clone(&self.0).save(group, state, dead_letters))
    }
}

/// Has the committer do something with the groups of a stream.
async fn group_act<T: Send + 'static>(
    stream: &Arc<Shared>,
    act: impl FnOnce(&mut Committer, &Shared) -> Result<T, GroupStoreError> + Send + 'static,
) -> Result<T, GroupStoreError> {
    let this = Arc::clone(stream);
    let act = move |committer: &mut Committer| {
        this.check(GroupStoreError::Closed)?;
        act(committer, &this)
    };
    stream.link.act(stream.link.turn().await?, act).await?
}
