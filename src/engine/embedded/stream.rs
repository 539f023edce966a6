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
use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    committer::Committer,
    inbox::{AppendWork, Closed, Inbox, SaveWork, Work},
    keep::{Purge, Selection},
    owners::{Owners, Share},
    read,
    store::Store,
    tail::Tail,
    topics::Topics,
};
use crate::{
    engine::{
        Append, AppendError, Boxed, Chunk, DeadLetter, EventStream, GroupStoreError, Health, MAX_SEQUENCES, PurgeError,
        ReadError, ReadLimits, Receipt, StoreError, StoredGroup,
    },
    model::{
        Filter, Group, GroupSettings, Storage, StreamName, StreamSettings, StreamState, Topic,
        limits::MAX_GROUP_STATE_BYTES,
    },
    tasks::Tasks,
};

/// What every handle needs to reach the committer and the stores.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) inbox: Inbox,
    pub(super) file: Store,
    pub(super) memory: Store,
    pub(super) tasks: Tasks,
    /// One permit for each read from the disk that may go on.
    pub(super) readers: Semaphore,
    pub(super) owners: Owners,
    health: AtomicU8,
}

impl Link {
    pub(super) fn new(inbox: Inbox, file: Store, memory: Store, tasks: Tasks, readers: usize) -> Self {
        Self {
            inbox,
            file,
            memory,
            tasks,
            readers: Semaphore::new(readers),
            owners: Owners::default(),
            health: AtomicU8::new(0),
        }
    }

    pub(super) fn store(&self, storage: Storage) -> &Store {
        match storage {
            Storage::File => &self.file,
            Storage::Memory => &self.memory,
        }
    }

    pub(super) fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::Good,
            1 => Health::Full,
            _ => Health::Unavailable,
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        let number = match health {
            Health::Good => 0,
            Health::Full => 1,
            Health::Unavailable => 2,
        };
        self.health.store(number, Relaxed);
    }

    /// Has the committer do something, and waits for what comes of it.
    pub(super) async fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Committer) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        let work = Work::Act(Box::new(move |committer| {
            // Nobody may be left to hear of it.
            let _ = reply.send(act(committer));
        }));
        self.inbox.push(work).map_err(|Closed| StoreError::Unavailable)?;
        result.await.map_err(|_| StoreError::Unavailable)
    }
}

/// What readers may see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Nothing before this sequence.
    pub(super) floor: u64,
    /// Nothing after this one.
    pub(super) latest: u64,
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
    pub(super) link: Arc<Link>,
    /// How often events were taken out of it.
    pub(super) removals: AtomicU64,
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
    async fn from_disk<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let Ok(_permit) = self.link.readers.acquire().await else { return Err(StoreError::Unavailable.into()) };
        let this = Arc::clone(self);
        let read = self.link.tasks.block(move || read(&this)).await;
        read.unwrap_or_else(|| Err(StoreError::Corrupt { what: "reading it failed".to_owned() }.into()))
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
    /// between.
    async fn purged(self: Arc<Self>, what: Purge) -> Result<u64, PurgeError> {
        let (mut total, mut rest) = (0, Some(what));
        while let Some(what) = rest.take() {
            let this = Arc::clone(&self);
            let purge = move |committer: &mut Committer| {
                this.check(PurgeError::Closed)?;
                committer.purge(this.id, what)
            };
            let (purged, left) = self.link.act(purge).await??;
            total += purged;
            rest = left;
        }
        Ok(total)
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
        let Bounds { floor, latest, events, bytes } = self.0.bounds();
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
            if let Some(chunk) = read::from_tail(&self.0, after, bounds, filters, limits) {
                return Ok(chunk);
            }
            let filters = Arc::clone(filters);
            self.0.from_disk(move |stream| read::from_store(stream, after, &filters, limits)).await
        })
    }

    fn get(&self, mut sequences: Vec<u64>) -> Boxed<'_, Result<Chunk, ReadError>> {
        Box::pin(async move {
            sequences.sort_unstable();
            sequences.dedup();
            sequences.truncate(MAX_SEQUENCES);
            self.0.from_disk(move |stream| read::some(stream, &sequences)).await
        })
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
        let filters = Arc::clone(filters);
        // It goes through all topics, and there may be a million.
        Box::pin(self.0.from_disk(move |stream| {
            stream.check(ReadError::Closed)?;
            Ok(stream.topics.read().last_of_each(&filters, after, up_to, most))
        }))
    }

    fn removals(&self) -> u64 {
        self.0.removals.load(Relaxed)
    }

    fn last_of(&self, topic: Topic<'_>) -> Option<u64> {
        self.0.topics.read().last(topic.as_bytes())
    }

    fn purge(&self, up_to: u64, filter: Option<Filter>) -> Boxed<'_, Result<u64, PurgeError>> {
        let selected = |filter| Purge::Selected { selection: Selection::Matching { up_to, filter }, at: 0 };
        let what = filter.map_or(Purge::UpTo(up_to), selected);
        Box::pin(Arc::clone(&self.0).purged(what))
    }

    fn remove(&self, sequences: Vec<u64>) -> Boxed<'_, Result<u64, PurgeError>> {
        let selection = Selection::Sequences(sequences.into_iter().take(MAX_SEQUENCES).collect());
        Box::pin(Arc::clone(&self.0).purged(Purge::Selected { selection, at: 0 }))
    }

    fn groups(&self) -> Boxed<'_, Result<Vec<StoredGroup>, GroupStoreError>> {
        Box::pin(group_act(&self.0, |committer, stream| committer.groups(stream)))
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
    stream.link.act(act).await?
}
