//! The subscriptions of one session that read streams: each gets what the stream has, then what comes, as one ordered feed.
//!
//! A subscription is *behind* or *following*. One that is behind is read for on its own, from where it is, whenever its
//! queue in the outbox is low. When it has all that the stream has it follows: what comes is read once for all that
//! follow a stream, matched by a trie, and put into their queues. One whose queue is full then is behind again. The
//! session's own task does all of it, one step at a time; what waits in a queue may be given up at any time, and so the
//! outbox takes what was read only for a subscription that is still where the read began. Nothing is ever dropped here: a
//! slow subscription is only further behind.
//!
//! As in the router, filters are refused that would make an event take too many steps, and others work between some thousand
//! of them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use smallvec::SmallVec;
use tokio::{sync::watch, time::Instant};

use crate::{
    engine::{Chunk, EventStream, ReadError, ReadLimits},
    event::Event,
    model::{CommandError, End, Filter, OnGap, StreamError, Topic, filter_tokens},
    outbox::{Filled, Filler, GapReason, Room, SubscriptionKey},
    router::{Descent, NodeId, Shape, Shapes, Trie},
    tasks::Turn,
};

use super::early::{Early, pass_over, time_left};

/// So much of a stream is read at a time for all that follow it.
const FOLLOW_AT_ONCE: ReadLimits = ReadLimits { events: 1024, bytes: 1024 * 1024 };

/// So many single events are read at a time; each may be large.
const SINGLE_AT_ONCE: usize = 16;
/// So many of the last events of topics are looked up at a time.
const LAST_AT_ONCE: usize = 4096;
/// Events are handed to those that follow in runs of at least so many matches,
const FOLLOW_MATCHES: usize = 2048;
/// or such as took at least this many steps to find.
const FOLLOW_STEPS: usize = 8192;
/// What a match that is handed out costs, in steps,
const OFFER_STEPS: usize = 2;
/// and a token of a filter that comes into a trie or leaves it.
const TOKEN_STEPS: usize = 2;
/// One read is taken to have looked at so many events at most: sequences may have holes.
const MOST_LOOKED: usize = 4096;
/// So many filters are compared with an event in one step.
const FILTERS_A_STEP: usize = 4;
/// How often to look whether there is memory for those that wait for it.
const STARVED_INTERVAL: Duration = Duration::from_millis(100);

/// All subscriptions of one session that read streams.
#[derive(Debug)]
pub(super) struct Feeds {
    filler: Filler,
    known: HashMap<SubscriptionKey, Feed>,
    tails: Vec<Tail>,
    /// To be read for next, in turn.
    hungry: VecDeque<SubscriptionKey>,
    /// To be read for once the hub has memory for them.
    starved: Vec<SubscriptionKey>,
    /// When to look whether it has, while there are any.
    starved_until: Instant,
    /// To be read for at a time.
    early: Early,
    /// When those that follow are told how far they are, if nothing else tells them.
    progress_at: Instant,
    progress_interval: Duration,
    /// Those of the filters of all of them.
    shapes: Shapes,
    /// As many as there may be that are not simple.
    max_shapes: usize,
    turn: Turn,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Feed {
    stream: Arc<dyn EventStream>,
    /// None: everything.
    filters: Arc<[Filter]>,
    on_gap: OnGap,
    /// Where it began, if that is with whatever is there: as long as it is there still and has not had all that there is, it
    /// loses nothing by what is deleted.
    start: Option<u64>,
    /// Up to this sequence only the last event of each topic comes; 0 for one that begins in another way.
    last_up_to: u64,
    /// It begins with what is stored at this time, which is not yet, or later.
    at: Option<SystemTime>,
    /// Some of these, while it is there.
    page: Page,
    /// Where its filters are in the trie of its tail, while it follows.
    nodes: SmallVec<[NodeId; 2]>,
    following: bool,
    /// It stands among those that are to be read for.
    waiting: bool,
}

/// The last events of topics, in `(after, through]`.
#[derive(Debug, Default)]
struct Page {
    after: u64,
    through: u64,
    /// Ascending.
    sequences: Vec<u64>,
}

/// The end of one stream, for all that follow it.
struct Tail {
    stream: Arc<dyn EventStream>,
    /// Everything up to here was handed to those that follow.
    after: u64,
    trie: Trie<SubscriptionKey>,
    shapes: Shapes,
    descent: Descent,
    followers: usize,
    /// Up to where those that follow were told how far they are.
    told: u64,
    /// Ends when the stream has more, or is gone.
    change: Change,
}

/// What [`Feeds::sleep`] waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wake {
    /// A stream has more.
    More(usize),
    /// A stream is gone.
    Gone(usize),
    /// Time has passed.
    Time,
}

type Change = Pin<Box<dyn Future<Output = (watch::Receiver<u64>, bool)> + Send>>;

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("after", &self.after).field("followers", &self.followers).finish_non_exhaustive()
    }
}

impl Feeds {
    /// None yet. Idle subscriptions are told how far they are every `progress_interval`. Their filters may have so many
    /// shapes that are not simple.
    pub(super) fn new(filler: Filler, progress_interval: Duration, max_shapes: usize) -> Self {
        Self {
            filler,
            known: HashMap::new(),
            tails: Vec::new(),
            hungry: VecDeque::new(),
            starved: Vec::new(),
            starved_until: Instant::now(),
            early: Early::default(),
            progress_at: Instant::now() + progress_interval,
            progress_interval,
            shapes: Shapes::default(),
            max_shapes,
            turn: Turn::default(),
        }
    }

    /// Refuses filters that would make events take too many steps.
    pub(super) fn check(&self, filters: &[Filter]) -> Result<(), CommandError> {
        let limit = self.max_shapes;
        let fits = !self.shapes.would_exceed(filters, limit);
        fits.then_some(()).ok_or(CommandError::TooManyFilterShapes { whole: "session", limit })
    }

    /// Begins to read for a subscription that is open; with `lost` it has lost events up to there before it began.
    pub(super) fn add(&mut self, key: SubscriptionKey, feed: Feed, lost: Option<(u64, GapReason)>) {
        if let Some((to, reason)) = lost {
            self.filler.lose(key, to, reason);
        }
        add_shapes(&mut self.shapes, &feed.filters);
        // The outbox says when it is to be read for.
        self.known.insert(key, feed);
    }

    /// True for a subscription that reads a stream.
    pub(super) fn has(&self, key: SubscriptionKey) -> bool {
        self.known.contains_key(&key)
    }

    /// Changes what a subscription gets of all that was not sent to it yet.
    pub(super) fn set_filters(&mut self, key: SubscriptionKey, filters: Arc<[Filter]>) -> Result<(), CommandError> {
        self.check(&filters)?;
        if let Some(after) = self.tail_of(key).map(|tail| tail.after) {
            // Up to there the old ones were looked at, if nothing waits.
            self.filler.end_following(key, after);
            self.leave(key);
        }
        // What waits was read with the old ones.
        self.filler.rewind(key);
        if let Some(feed) = self.known.get_mut(&key) {
            remove_shapes(&mut self.shapes, &feed.filters);
            add_shapes(&mut self.shapes, &filters);
            feed.filters = filters;
            feed.page = Page::default();
        }
        Ok(())
    }

    /// A subscription is over.
    fn forget(&mut self, key: SubscriptionKey) {
        if let Some(feed) = self.known.remove(&key) {
            remove_shapes(&mut self.shapes, &feed.filters);
        }
    }

    /// Notes which subscriptions want to be read for, and forgets those that are over.
    pub(super) async fn note(&mut self, hungry: Vec<SubscriptionKey>, gone: Vec<SubscriptionKey>) {
        for key in gone {
            self.leave(key);
            self.forget(key);
            self.turn.spend(1).await;
        }
        for key in hungry {
            // One that was following gave up what waited for it.
            self.leave(key);
            self.wait_for_turn(key);
            self.turn.spend(1).await;
        }
    }

    fn wait_for_turn(&mut self, key: SubscriptionKey) {
        if let Some(feed) = self.known.get_mut(&key).filter(|feed| !feed.waiting) {
            feed.waiting = true;
            self.hungry.push_back(key);
        }
    }

    fn tail_of(&self, key: SubscriptionKey) -> Option<&Tail> {
        let feed = self.known.get(&key).filter(|feed| feed.following)?;
        self.tails.iter().find(|tail| Arc::ptr_eq(&tail.stream, &feed.stream))
    }

    /// True when [`Self::step`] has something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Reads once, for the subscription whose turn it is.
    pub(super) async fn step(&mut self) {
        let Some(key) = self.hungry.pop_front() else { return };
        let Some(feed) = self.known.get_mut(&key) else { return };
        feed.waiting = false;
        if feed.following {
            return;
        }
        let Some(room) = self.filler.room(key) else { return self.forget(key) };
        if let Some(left) = time_left(&feed.stream, feed.at) {
            match feed.stream.check() {
                Ok(()) => self.early.wait(key, left),
                Err(error) => self.failed(key, room.after, &error),
            }
        } else if room.bytes == 0 {
            if self.starved.is_empty() {
                self.starved_until = Instant::now() + STARVED_INTERVAL;
            }
            self.starved.push(key);
        } else if room.events > 0 {
            let (filters, read) = (feed.filters.len(), feed.read(room).await);
            match read {
                Ok(chunk) => {
                    let looked = usize::try_from(chunk.through.saturating_sub(room.after)).unwrap_or(usize::MAX);
                    self.turn.note(chunk.events.len() + looked.min(MOST_LOOKED) * filters / FILTERS_A_STEP);
                    self.take(key, room.after, chunk);
                }
                Err(error) => self.failed(key, room.after, &error),
            }
            self.turn.spend(1).await;
        }
    }

    /// Puts what was read for a subscription behind `after` into its queue.
    fn take(&mut self, key: SubscriptionKey, after: u64, chunk: Chunk) {
        let Chunk { events, through, latest } = chunk;
        match self.filler.fill(key, after, events, through, latest) {
            Filled::Taken => {}
            // What waited was given up while this was read: it is read with that, from where it is now.
            Filled::Stale => return self.wait_for_turn(key),
            Filled::Gone => return self.forget(key),
        }
        let Some(feed) = self.known.get_mut(&key) else { return };
        if through >= feed.last_up_to {
            feed.page = Page::default();
        }
        if through >= latest {
            self.join(key, through);
        }
    }

    /// Lets a subscription follow that was read for up to `through`, all that its stream had.
    fn join(&mut self, key: SubscriptionKey, through: u64) {
        let Some(feed) = self.known.get_mut(&key) else { return };
        let found = self.tails.iter().position(|tail| Arc::ptr_eq(&tail.stream, &feed.stream));
        // Where the others are further already, or what was read was given up since, it is read for once more.
        if found.is_some_and(|at| through < self.tails[at].after) || !self.filler.begin_following(key, through) {
            return;
        }
        let at = found.unwrap_or_else(|| {
            self.tails.push(Tail::new(&feed.stream, through));
            self.tails.len() - 1
        });
        self.turn.note(TOKEN_STEPS * filter_tokens(&feed.filters));
        feed.nodes = self.tails[at].insert(&feed.filters, key);
        feed.following = true;
        feed.start = None;
    }

    /// Lets a subscription follow no longer; it is read for on its own from where it is.
    fn leave(&mut self, key: SubscriptionKey) {
        let Some(feed) = self.known.get_mut(&key).filter(|feed| feed.following) else { return };
        feed.following = false;
        let nodes = std::mem::take(&mut feed.nodes);
        let Some(at) = self.tails.iter().position(|tail| Arc::ptr_eq(&tail.stream, &feed.stream)) else { return };
        let tail = &mut self.tails[at];
        self.turn.note(TOKEN_STEPS * filter_tokens(&feed.filters));
        remove_shapes(&mut tail.shapes, &feed.filters);
        nodes.iter().for_each(|node| tail.trie.remove(*node, key));
        tail.followers -= 1;
        if tail.followers == 0 {
            self.tails.swap_remove(at);
        }
    }

    /// What to do about a subscription that could not be read for.
    fn failed(&mut self, key: SubscriptionKey, after: u64, error: &ReadError) {
        let Some(feed) = self.known.get_mut(&key) else { return };
        let stream = feed.stream.name().clone();
        let end = match *error {
            ReadError::Lost { earliest, latest } if feed.start == Some(after) => {
                feed.start = Some(earliest - 1);
                let chunk = Chunk { events: Vec::new(), through: earliest - 1, latest };
                return self.take(key, after, chunk);
            }
            ReadError::Lost { earliest, latest } => {
                let to = match feed.on_gap {
                    OnGap::Fail => None,
                    OnGap::Earliest => Some(earliest - 1),
                    OnGap::Latest => Some(latest),
                };
                match to {
                    Some(to) => {
                        self.filler.lose(key, to, GapReason::Retention);
                        return;
                    }
                    None => StreamError::Lost { stream, after, earliest, latest },
                }
            }
            // Deleted; or made anew, which is for the client to find out by its token.
            ReadError::Closed | ReadError::Store(_) => error.about(&stream),
        };
        self.leave(key);
        self.forget(key);
        self.filler.close_key(key, End::Stream(end));
    }

    /// Waits until a stream that somebody follows has more, or until time brings something to do; for ever when there is
    /// nothing to wait for. What comes back must be given to [`Self::wake`].
    pub(super) async fn sleep(&mut self) -> Wake {
        let tails = &mut self.tails;
        let changed = poll_fn(|context| {
            for (at, tail) in tails.iter_mut().enumerate() {
                if let Poll::Ready((visible, open)) = tail.change.as_mut().poll(context) {
                    tail.change = Box::pin(change(visible));
                    return Poll::Ready(if open { Wake::More(at) } else { Wake::Gone(at) });
                }
            }
            Poll::Pending
        });
        // A point in time, not a time from now: a session that is always busy comes here again and again.
        let starved = (!self.starved.is_empty()).then_some(self.starved_until);
        let next = [starved, self.early.next()].into_iter().flatten().fold(self.progress_at, Instant::min);
        tokio::select! {
            wake = changed => wake,
            () = tokio::time::sleep_until(next), if !self.known.is_empty() => Wake::Time,
        }
    }

    /// Does what [`Self::sleep`] waited for.
    pub(super) async fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::More(at) => self.advance(at).await,
            Wake::Gone(at) => {
                let why = self.tails[at].stream.check().err().unwrap_or(ReadError::Closed);
                self.abandon(at, &why).await;
            }
            Wake::Time => {
                if self.starved_until <= Instant::now() {
                    for key in std::mem::take(&mut self.starved) {
                        self.wait_for_turn(key);
                    }
                }
                while let Some(key) = self.early.take() {
                    self.wait_for_turn(key);
                }
                self.tell_progress().await;
            }
        }
    }

    /// Hands out what a stream has more, some at a time; the rest at the next wake.
    async fn advance(&mut self, at: usize) {
        let tail = &mut self.tails[at];
        let chunk = match tail.stream.follow(tail.after, &Arc::default(), FOLLOW_AT_ONCE).await {
            Ok(chunk) => chunk,
            Err(error) => return self.abandon(at, &error).await,
        };
        tail.after = chunk.through;
        if chunk.through < chunk.latest {
            tail.look_again();
        }
        let (mut rest, mut behind) = (&chunk.events[..], HashSet::new());
        while !rest.is_empty() {
            let (events, steps, matches) = self.tails[at].matches(rest);
            self.turn.spend(steps).await;
            for some in matches.chunks(FOLLOW_MATCHES) {
                behind.extend(self.filler.follow(some.iter().map(|(event, key)| (*key, &rest[*event]))));
                self.turn.spend(OFFER_STEPS * some.len()).await;
            }
            rest = &rest[events..];
        }
        for key in behind {
            self.leave(key);
            self.turn.spend(1).await;
        }
    }

    /// A stream cannot be read for all that follow it: each is read for on its own, and finds out why.
    async fn abandon(&mut self, at: usize, error: &ReadError) {
        let stream = Arc::clone(&self.tails[at].stream);
        let followers: Vec<SubscriptionKey> = self
            .known
            .iter()
            .filter(|(_, feed)| feed.following && Arc::ptr_eq(&feed.stream, &stream))
            .map(|(key, _)| *key)
            .collect();
        let after = self.tails[at].after;
        for key in followers {
            self.leave(key);
            self.filler.end_following(key, after);
            // Further back than the others, if what waited for it was given up.
            match self.filler.room(key) {
                Some(room) => self.failed(key, room.after, error),
                None => self.forget(key),
            }
            self.turn.spend(1).await;
        }
    }

    /// Tells those that follow how far they are, if it is time and that is further than they know.
    async fn tell_progress(&mut self) {
        if Instant::now() < self.progress_at {
            return;
        }
        self.progress_at = Instant::now() + self.progress_interval;
        let news: Vec<(Arc<dyn EventStream>, u64)> = self
            .tails
            .iter_mut()
            .filter(|tail| tail.after > tail.told)
            .map(|tail| {
                tail.told = tail.after;
                (Arc::clone(&tail.stream), tail.after)
            })
            .collect();
        for (key, feed) in self.known.iter().filter(|(_, feed)| feed.following) {
            if let Some((_, after)) = news.iter().find(|(stream, _)| Arc::ptr_eq(stream, &feed.stream)) {
                self.filler.tell_progress(*key, *after);
            }
            self.turn.spend(OFFER_STEPS + news.len() / FILTERS_A_STEP).await;
        }
    }
}

impl Feed {
    /// One that reads the last events of topics up to `last_up_to`, then all that match. With `start` it begins behind that
    /// sequence, or later, with what is there; with `at` not before that time.
    pub(super) fn new(
        stream: Arc<dyn EventStream>,
        filters: Arc<[Filter]>,
        on_gap: OnGap,
        start: Option<u64>,
        last_up_to: u64,
        at: Option<SystemTime>,
    ) -> Self {
        let (nodes, page) = (SmallVec::new(), Page::default());
        Self { stream, filters, on_gap, start, last_up_to, at, page, nodes, following: false, waiting: false }
    }

    /// The next events for a queue with that room.
    async fn read(&mut self, room: Room) -> Result<Chunk, ReadError> {
        if let Some(at) = self.at {
            if let Some(chunk) = pass_over(&self.stream, at, room.after).await? {
                return Ok(chunk);
            }
            self.at = None;
        }
        // Asked anew every time: what waited may have been given up, and then it is further back than it was.
        if room.after < self.last_up_to {
            return self.read_last(room).await;
        }
        let limits = ReadLimits { events: room.events, bytes: room.bytes };
        self.stream.read(room.after, &self.filters, limits).await
    }

    /// The next of the last events of topics.
    async fn read_last(&mut self, room: Room) -> Result<Chunk, ReadError> {
        if !(self.page.after..self.page.through).contains(&room.after) {
            let (after, up_to) = (room.after, self.last_up_to);
            let sequences = self.stream.last_per_topic(&self.filters, after, up_to, LAST_AT_ONCE).await?;
            let more = sequences.last().filter(|_| sequences.len() == LAST_AT_ONCE);
            self.page = Page { after, through: more.copied().unwrap_or(up_to), sequences };
        }
        let Page { through, sequences, .. } = &self.page;
        let rest = &sequences[sequences.partition_point(|sequence| *sequence <= room.after)..];
        let some = &rest[..rest.len().min(room.events).min(SINGLE_AT_ONCE)];
        let through = if some.len() == rest.len() { *through } else { some.last().copied().unwrap_or(*through) };
        let chunk = self.stream.get(some.to_vec()).await?;
        Ok(Chunk { through, ..chunk })
    }
}

impl Tail {
    fn new(stream: &Arc<dyn EventStream>, after: u64) -> Self {
        let mut tail = Self {
            stream: Arc::clone(stream),
            after,
            trie: Trie::new(),
            shapes: Shapes::default(),
            descent: Descent::default(),
            followers: 0,
            told: after,
            change: Box::pin(change(stream.visible())),
        };
        // There may be more since it was read.
        tail.look_again();
        tail
    }

    /// Has [`Feeds::sleep`] come back to it at once.
    fn look_again(&mut self) {
        let mut visible = self.stream.visible();
        visible.mark_changed();
        self.change = Box::pin(change(visible));
    }

    fn insert(&mut self, filters: &[Filter], key: SubscriptionKey) -> SmallVec<[NodeId; 2]> {
        self.followers += 1;
        add_shapes(&mut self.shapes, filters);
        if filters.is_empty() {
            return SmallVec::from_elem(self.trie.insert(&Filter::all(), key), 1);
        }
        filters.iter().map(|filter| self.trie.insert(filter, key)).collect()
    }

    /// Which of the first of `events` go to whom: by event, each subscription once. Tells how many were looked at, and how
    /// many steps that took.
    fn matches(&mut self, events: &[Event]) -> (usize, usize, Vec<(usize, SubscriptionKey)>) {
        let (mut looked, mut steps, mut found) = (0, 0, Vec::new());
        let together = self.shapes.topics_together();
        while looked < events.len() && steps < FOLLOW_STEPS && found.len() < FOLLOW_MATCHES {
            let some = &events[looked..(looked + together).min(events.len())];
            let topics: SmallVec<[Topic<'_>; 32]> = some.iter().map(|event| event.topic()).collect();
            let known = found.len();
            let most = FOLLOW_MATCHES;
            let matched = self.trie.matches(&topics, &mut self.descent, most, &mut |place, key| {
                found.push((looked + place, key));
            });
            found[known..].sort_unstable();
            looked += matched.topics;
            steps += matched.steps;
        }
        found.dedup();
        (looked, steps, found)
    }
}

fn add_shapes(shapes: &mut Shapes, filters: &[Filter]) {
    for filter in filters {
        shapes.add(Shape::of(filter));
    }
}

fn remove_shapes(shapes: &mut Shapes, filters: &[Filter]) {
    for filter in filters {
        shapes.remove(Shape::of(filter));
    }
}

async fn change(mut visible: watch::Receiver<u64>) -> (watch::Receiver<u64>, bool) {
    let open = visible.changed().await.is_ok();
    (visible, open)
}
