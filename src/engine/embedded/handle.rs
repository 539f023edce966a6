//! A stream as those above the engine hold it: reads that memory answers at once, those that go to the disk beside
//! everything else, and the way to the committer for whatever changes it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::{
    batch::{micros, time_of},
    groups,
    inbox::{self, Closed},
    link::Link,
    purge::{Purge, Selection},
    read::{self, InTail},
    store::Trouble,
    stream::{self, Shared},
    topics::LastSearch,
    turns::Place,
    work::{Act, AppendWork, Reply, SaveWork, Work},
};
use crate::{
    engine::{
        Append, AppendError, AppendTimes, Bounds, Boxed, Chunk, Claim, DeadLetter, EventStream, Fence, GroupStore,
        GroupStoreError, Kept, LettersBack, MAX_SEQUENCES, PurgeError, ReadError, ReadLimits, Receipt, StoreError,
        StoredGroup, TopicsAsked, TopicsFound,
    },
    event::Event,
    model::{
        Filter, Group, GroupSettings, StreamName, StreamSettings, StreamState, Topic, limits::MAX_GROUP_STATE_BYTES,
    },
};

/// For so many steps the topics of a stream are looked through before others have a turn, who may want to append.
const LOOK_STEPS: usize = 2048;

/// A handle: the stream, for as long as somebody wants it, and the way to whoever may change it.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) stream: Arc<Shared>,
    link: Arc<Link>,
}

impl Handle {
    pub(super) fn new(stream: Arc<Shared>, link: Arc<Link>) -> Self {
        Self { stream, link }
    }

    /// Reads from the disk, or looks through much memory, where that holds nobody up.
    async fn read_disk<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let Ok(_permit) = self.link.readers.acquire().await else { return Err(StoreError::Unavailable.into()) };
        let stream = Arc::clone(&self.stream);
        self.link.beside(move || read(&stream)).await?
    }

    /// Reads what is stored of groups.
    async fn of_groups<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, GroupStoreError> {
        self.read_disk(move |stream| {
            stream.check(GroupStoreError::Closed)?;
            read(stream).map_err(|trouble| trouble.error().into())
        })
        .await
    }

    /// The last of every topic. Most searches are over soon; of those that are not, one goes on at a time.
    async fn search(&self, mut search: LastSearch) -> Result<Vec<u64>, ReadError> {
        let stream = &self.stream;
        stream.check(ReadError::Closed)?;
        let now = stream.now();
        if search.look(&stream.topics.read(), now, LOOK_STEPS) {
            return Ok(search.finish());
        }
        let Ok(_permit) = self.link.searches.acquire().await else { return Err(StoreError::Unavailable.into()) };
        let stream = Arc::clone(stream);
        let look = move || {
            while !search.look(&stream.topics.read(), now, LOOK_STEPS) {
                stream.check(ReadError::Closed)?;
            }
            Ok(search.finish())
        };
        self.link.beside(look).await?
    }

    /// Some of the topics. What is counted is shown a moment later; nobody learns of the last of a topic before.
    async fn some_topics(&self, asked: TopicsAsked<'_>) -> Result<TopicsFound, ReadError> {
        let stream = &self.stream;
        stream.check(ReadError::Closed)?;
        let found = stream.topics.read().some(&asked, stream.now(), LOOK_STEPS);
        let last = found.topics.iter().filter_map(|topic| topic.last).max().unwrap_or_default();
        self.until_visible(last).await?;
        Ok(found)
    }

    /// Waits until readers may see a sequence.
    async fn until_visible(&self, sequence: u64) -> Result<(), ReadError> {
        if self.stream.visible.clone().wait_for(|visible| *visible >= sequence).await.is_err() {
            self.stream.check(ReadError::Closed)?;
            return Err(StoreError::Unavailable.into());
        }
        Ok(())
    }

    /// The last event of a topic. What newer ones push out between the looks is found all the same, since it was the last.
    async fn find_last_event(&self, topic: Topic<'_>) -> Result<Option<Event>, ReadError> {
        let stream = &self.stream;
        let mut before = None;
        loop {
            stream.check(ReadError::Closed)?;
            let last = stream.topics.read().last(topic.as_bytes(), stream.now());
            let Some(sequence) = last.filter(|_| last != before) else { return Ok(None) };
            before = last;
            // Events are counted before they are shown.
            self.until_visible(sequence).await?;
            let found = match read::in_tail(stream, sequence) {
                Some(event) => Some(event),
                None => self.read_disk(move |stream| read::one(stream, sequence)).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    async fn append_work(&self, append: Append) -> Result<Receipt, AppendError> {
        let (inbox, stream) = (&self.link.inbox, Arc::clone(&self.stream));
        let (bytes, limit) = (inbox::cost(&append.events), inbox.limit());
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        stream.check(AppendError::Closed)?;
        let unavailable = |Closed| AppendError::from(StoreError::Unavailable);
        let room = inbox.room(bytes).await.map_err(unavailable)?;
        let (reply, receipt) = Receipt::new();
        let Append { events, precondition } = append;
        let work = AppendWork { stream, events, precondition, reply, room };
        inbox.push(Work::Append(work)).map_err(unavailable)?;
        Ok(receipt)
    }

    /// Has the committer delete everything up to a sequence, or what is selected: some at a time, so that appends come
    /// between. Goes on when nobody waits for it any more.
    async fn purged(&self, what: Purge, place: Option<Place>) -> Result<u64, PurgeError> {
        let Self { stream, link } = self.clone();
        let purge = async move {
            let _place = place;
            let (mut total, mut rest) = (0, Some(what));
            while let Some(what) = rest.take() {
                let (turn, stream) = (link.turns.turn().await?, Arc::clone(&stream));
                let (purged, left) = link.act(turn, |reply| Act::Purge { stream, what, reply }).await??;
                total += purged;
                rest = left;
            }
            Ok(total)
        };
        self.link.tasks.see_through("purge", purge).await
    }

    /// Has the committer save the state of a group, and store its dead letters, in one transaction.
    async fn saved(&self, group: Group, state: Bytes, dead_letters: Vec<DeadLetter>) -> Result<(), GroupStoreError> {
        let (inbox, stream) = (&self.link.inbox, Arc::clone(&self.stream));
        let bytes = state.len() + inbox::cost(dead_letters.iter().map(|letter| &letter.event));
        let limit = MAX_GROUP_STATE_BYTES.min(inbox.limit());
        if bytes > limit {
            return Err(GroupStoreError::TooLarge { bytes, limit });
        }
        let unavailable = |Closed| GroupStoreError::from(StoreError::Unavailable);
        let room = inbox.room(bytes).await.map_err(unavailable)?;
        let (reply, result) = oneshot::channel();
        let work = SaveWork { stream, group, state, dead_letters, reply, room };
        inbox.push(Work::Save(work)).map_err(unavailable)?;
        result.await.unwrap_or(Err(StoreError::Unavailable.into()))
    }

    /// Has the committer save the state of a group that has dead letters back, and remove those.
    async fn back(&self, group: Group, state: Bytes, back: LettersBack) -> Result<(), GroupStoreError> {
        let (bytes, limit) = (state.len(), MAX_GROUP_STATE_BYTES);
        if bytes > limit {
            return Err(GroupStoreError::TooLarge { bytes, limit });
        }
        let act = |stream, reply| Act::GiveBack { stream, group, state, back, reply };
        if let Some((letters, rest)) = self.act(act).await? {
            // The last events of some topics are looked for; the letters are gone whatever becomes of that.
            let _ = Self::new(letters, Arc::clone(&self.link)).purged(rest, None).await;
        }
        Ok(())
    }

    /// Has the committer do something with the groups of the stream.
    async fn act<T>(
        &self,
        act: impl FnOnce(Arc<Shared>, Reply<Result<T, GroupStoreError>>) -> Act,
    ) -> Result<T, GroupStoreError> {
        let turn = self.link.turns.turn().await?;
        self.link.act(turn, |reply| act(Arc::clone(&self.stream), reply)).await?
    }
}

/// Sequences as reading takes them: in order, each once, and no more than are looked at.
fn ascending(mut sequences: Vec<u64>) -> Vec<u64> {
    sequences.sort_unstable();
    sequences.dedup();
    sequences.truncate(MAX_SEQUENCES);
    sequences
}

impl EventStream for Handle {
    fn name(&self) -> &StreamName {
        &self.stream.name
    }

    fn epoch(&self) -> i64 {
        self.stream.epoch
    }

    fn check(&self) -> Result<(), ReadError> {
        self.stream.check(ReadError::Closed)
    }

    fn settings(&self) -> Arc<StreamSettings> {
        Arc::clone(&self.stream.settings.read())
    }

    fn state(&self) -> Boxed<'_, Result<StreamState, ReadError>> {
        let stream::Bounds { floor, latest, events, bytes, .. } = self.stream.bounds();
        Box::pin(std::future::ready(Ok(StreamState {
            settings: (*self.settings()).clone(),
            epoch: self.stream.epoch,
            created: time_of(self.stream.created),
            earliest: floor,
            latest,
            events,
            bytes,
        })))
    }

    fn bounds(&self) -> Bounds {
        let stream::Bounds { floor, latest, .. } = self.stream.bounds();
        Bounds { earliest: floor, latest }
    }

    fn visible(&self) -> watch::Receiver<u64> {
        self.stream.visible.clone()
    }

    fn append(&self, append: Append) -> Boxed<'_, Result<Receipt, AppendError>> {
        Box::pin(self.append_work(append))
    }

    fn read<'a>(
        &'a self,
        after: u64,
        filters: &'a Arc<[Filter]>,
        limits: ReadLimits,
    ) -> Boxed<'a, Result<Chunk, ReadError>> {
        Box::pin(async move {
            let bounds = match self.stream.start(after)? {
                Ok(bounds) => bounds,
                Err(chunk) => return Ok(chunk),
            };
            let mut after = after;
            match read::from_tail(&self.stream, after, bounds, filters, limits) {
                Some(InTail { chunk, is_gone: false }) => return Ok(chunk),
                Some(InTail { chunk, .. }) => after = chunk.through,
                None => {}
            }
            let filters = Arc::clone(filters);
            self.read_disk(move |stream| read::from_store(stream, after, &filters, limits)).await
        })
    }

    fn follow<'a>(
        &'a self,
        after: u64,
        filters: &'a Arc<[Filter]>,
        limits: ReadLimits,
    ) -> Boxed<'a, Result<Chunk, ReadError>> {
        let bounds = self.stream.bounds();
        let ended = after.saturating_add(1) < bounds.floor && after.saturating_add(1) >= bounds.withdrawn;
        // Where topics are limited, what was pushed out of its topic cannot be told from the rest.
        let may = ended && self.check().is_ok() && !self.stream.topics.read().is_limited();
        if may && let Some(InTail { chunk, .. }) = read::from_tail(&self.stream, after, bounds, filters, limits) {
            return Box::pin(std::future::ready(Ok(chunk)));
        }
        self.read(after, filters, limits)
    }

    fn get(&self, sequences: Vec<u64>) -> Boxed<'_, Result<Chunk, ReadError>> {
        let sequences = ascending(sequences);
        Box::pin(self.read_disk(move |stream| read::some(stream, &sequences)))
    }

    fn now(&self) -> SystemTime {
        time_of(self.stream.warp.stamp(self.stream.now()))
    }

    fn age(&self, time: SystemTime) -> Duration {
        Duration::from_micros(self.stream.now().saturating_sub(self.stream.warp.appended(micros(time))))
    }

    fn which(&self, sequences: Vec<u64>) -> Boxed<'_, Result<Vec<u64>, ReadError>> {
        let sequences = ascending(sequences);
        Box::pin(self.read_disk(move |stream| read::which(stream, &sequences)))
    }

    fn kept(&self) -> Kept {
        let stream::Bounds { floor, latest, events, .. } = self.stream.bounds();
        self.stream.holes.lock().kept(floor, latest, events)
    }

    fn first_at(&self, time: SystemTime) -> Boxed<'_, Result<u64, ReadError>> {
        Box::pin(self.read_disk(move |stream| read::first_at(stream, micros(time))))
    }

    fn last_per_topic<'a>(
        &'a self,
        filters: &'a Arc<[Filter]>,
        after: u64,
        up_to: u64,
        most: usize,
    ) -> Boxed<'a, Result<Vec<u64>, ReadError>> {
        Box::pin(self.search(LastSearch::new(filters, after, up_to, most)))
    }

    fn removals(&self) -> u64 {
        self.stream.removals.load(Relaxed)
    }

    fn last_of<'a>(&'a self, topic: Topic<'a>) -> Boxed<'a, Result<Option<u64>, ReadError>> {
        let last = self.stream.topics.read().last(topic.as_bytes(), self.stream.now());
        Box::pin(std::future::ready(Ok(last)))
    }

    fn last_event<'a>(&'a self, topic: Topic<'a>) -> Boxed<'a, Result<Option<Event>, ReadError>> {
        Box::pin(self.find_last_event(topic))
    }

    fn topics<'a>(&'a self, asked: TopicsAsked<'a>) -> Boxed<'a, Result<TopicsFound, ReadError>> {
        Box::pin(self.some_topics(asked))
    }

    fn append_times(&self, sequences: Vec<u64>) -> Boxed<'_, Result<AppendTimes, ReadError>> {
        let sequences = ascending(sequences);
        Box::pin(self.read_disk(move |stream| read::times(stream, &sequences)))
    }

    fn purge(&self, up_to: u64, filter: Option<Filter>) -> Boxed<'_, Result<u64, PurgeError>> {
        let selected = |filter| Purge::Selected { selection: Selection::Matching { up_to, filter }, at: 0 };
        let what = filter.map_or(Purge::UpTo(up_to), selected);
        Box::pin(async move {
            let place = self.link.turns.place()?;
            self.purged(what, Some(place)).await
        })
    }

    fn remove(&self, sequences: Vec<u64>) -> Boxed<'_, Result<u64, PurgeError>> {
        let selection = Selection::Sequences(sequences.into_iter().take(MAX_SEQUENCES).collect());
        Box::pin(self.purged(Purge::Selected { selection, at: 0 }, None))
    }

    fn groups(&self) -> &dyn GroupStore {
        self
    }
}

/// The directory is locked by this process, so that no other hub can drive a group: claims succeed, and fences are not
/// compared.
impl GroupStore for Handle {
    fn list(&self) -> Boxed<'_, Result<Vec<StoredGroup>, GroupStoreError>> {
        Box::pin(self.of_groups(groups::all))
    }

    fn load(&self, group: Group) -> Boxed<'_, Result<Option<StoredGroup>, GroupStoreError>> {
        Box::pin(self.of_groups(move |stream| groups::one(stream, &group)))
    }

    fn create(&self, group: Group, settings: GroupSettings, state: Bytes) -> Boxed<'_, Result<(), GroupStoreError>> {
        let first = Some(state);
        Box::pin(self.act(|stream, reply| Act::PutGroup { stream, group, settings, first, reply }))
    }

    fn update(&self, group: Group, settings: GroupSettings) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(self.act(|stream, reply| Act::PutGroup { stream, group, settings, first: None, reply }))
    }

    fn delete(&self, group: Group) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(self.act(|stream, reply| Act::DeleteGroup { stream, group, reply }))
    }

    fn claim(&self, _: Group) -> Boxed<'_, Result<Claim, GroupStoreError>> {
        Box::pin(std::future::ready(Ok(Claim::Here(Fence::default()))))
    }

    fn save(&self, _: Fence, group: Group, state: Bytes) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(self.saved(group, state, Vec::new()))
    }

    fn bury(
        &self,
        _: Fence,
        group: Group,
        state: Bytes,
        letters: Vec<DeadLetter>,
    ) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(self.saved(group, state, letters))
    }

    fn give_back(
        &self,
        _: Fence,
        group: Group,
        state: Bytes,
        back: LettersBack,
    ) -> Boxed<'_, Result<(), GroupStoreError>> {
        Box::pin(self.back(group, state, back))
    }
}
