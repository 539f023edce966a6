//! Streams: storing events, reading them again, and what groups need to be kept.
//!
//! [`Engine`], [`EventStream`] and [`GroupStore`] are the contract that everything above relies on; `conformance` checks it
//! on every implementation. It also holds for a store that several hubs share (docs/adr/0027-engine-for-shared-stores.md).
//! `embedded` keeps streams in one file on this machine. An engine knows no subscription, no session and no encoding: what is
//! stored of an event is [`crate::event::Event::seal`].

#[cfg(test)]
mod conformance;
mod embedded;
mod error;
mod group_store;
mod kept;
// The engine that uses it is being built around it: until then only its tests do.
#[cfg(test)]
mod nats;
mod options;
mod routes;
mod values;

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use embedded::{Embedded, MOST_WAITING, Simulated, check_backup, renew, renew_simulated, restore};
pub use error::{
    AppendError, BackupError, CreateError, DeleteError, GroupStoreError, OpenError, PurgeError, ReadError,
    RestoreError, StoreError, UpdateError,
};
pub use group_store::{Claim, Fence, GroupStore};
pub use kept::Kept;
pub use options::Options;
use tokio::sync::watch;
pub use values::{
    Append, AppendTimes, Appended, Bounds, Chunk, ClockState, DeadLetter, Health, KeptTopic, LetterId, LettersBack,
    MAX_SEQUENCES, Precondition, ReadLimits, Receipt, Restored, StoredGroup, TopicsAsked, TopicsFound,
};

use crate::{
    event::Event,
    model::{Filter, Origin, StreamError, StreamName, StreamSettings, StreamState, Topic},
};

/// A future that can be sent, as object-safe traits need it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All streams of a hub.
///
/// **Streams do not overlap.** A topic matches the filters of at most one stream; creating or updating a stream so that
/// it would not be so is refused.
///
/// **Definitions are durable** when the call that changes them returns, for every kind of stream. A stream in memory
/// is there again after a restart, empty and with a new epoch.
///
/// **Waiting.** Calls that change streams and groups are done one after the other, and what is appended comes between
/// them. No more than [`MOST_WAITING`] that change streams wait; more are refused with [`StoreError::Busy`].
///
/// **Failing.** [`StoreError::Full`] heals by itself once there is room; reads go on meanwhile, and so does what makes room:
/// purges, deletions of streams and groups, and changes of settings.
/// [`StoreError::Unavailable`] and [`StoreError::Corrupt`] do not. An operation that failed may be called again: none
/// leaves a half of itself behind. Dropping the future of an operation does not undo what has been queued.
pub trait Engine: Debug + Send + Sync {
    /// Makes a stream, which is empty. Fails when one has its name, even with the same settings. Its bytes are on the account of
    /// [`StreamSettings::owner`], of which no stream takes more than [`Options::max_owner_bytes`] together: an append
    /// that has no room there is refused as a whole, and so are dead letters.
    fn create_stream(&self, settings: StreamSettings) -> Boxed<'_, Result<Arc<dyn EventStream>, CreateError>>;

    /// Changes the settings of the stream with that name; all but `storage` and `owner` may change. What tighter limits exclude is
    /// gone when this returns. The handle stays good.
    ///
    /// With `before` they are changed only if they are those still: of two who change a part each, none undoes what the
    /// other did.
    fn update_stream(
        &self,
        settings: StreamSettings,
        before: Option<Arc<StreamSettings>>,
    ) -> Boxed<'_, Result<Arc<dyn EventStream>, UpdateError>>;

    /// Deletes a stream with its events and groups. What it takes on the disk goes bit by bit after that. Its handles answer NotFound or Closed from then on, and
    /// [`EventStream::visible`] closes. Refused while a group has it as stream for dead letters.
    fn delete_stream<'a>(&'a self, name: &'a StreamName) -> Boxed<'a, Result<(), DeleteError>>;

    /// The stream of that name. Takes no lock that is held for long.
    fn stream(&self, name: &str) -> Option<Arc<dyn EventStream>>;

    /// All streams, in the order of their names.
    fn streams(&self) -> Vec<Arc<dyn EventStream>>;

    /// The stream that stores the events of a topic. Called for every event published: one atomic load when the hub has
    /// no stream, and otherwise no lock that publishers share.
    fn stream_of(&self, topic: Topic<'_>) -> Option<Arc<dyn EventStream>>;

    /// True when the hub has no stream: one atomic load.
    fn is_empty(&self) -> bool;

    /// Secret bytes, made once and kept with the streams: what binds resume tokens to this store.
    fn token_key(&self) -> [u8; 32];

    /// How much room the store takes on the disk, in bytes.
    fn store_bytes(&self) -> u64;

    /// Whether publishes to streams can succeed.
    fn health(&self) -> Health;

    /// How the time that streams go by and the wall clock stand.
    fn clock(&self) -> ClockState;

    /// Begins a backup: everything that is kept on the disk, at one moment after all that was answered before. There is one at
    /// a time. Room that is given up meanwhile is used again only once it is over, so it may not take longer than
    /// [`Options::backup_timeout`].
    fn backup(&self) -> Boxed<'_, Result<Box<dyn Backup>, BackupError>>;

    /// Makes everything durable that was queued, for every kind of durability, and closes the store; all that comes later
    /// answers Unavailable. Idempotent.
    fn close(&self) -> Boxed<'_, Result<(), StoreError>>;
}

/// A backup under way. It is over when this is dropped.
pub trait Backup: Debug + Send {
    /// How much room the store took when it was begun, in bytes.
    fn store_bytes(&self) -> u64;

    /// The next bytes, and what gives those after them; `None` behind the last.
    fn next(self: Box<Self>) -> NextPiece;
}

/// What [`Backup::next`] gives.
pub type NextPiece = Boxed<'static, Result<Option<(bytes::Bytes, Box<dyn Backup>)>, BackupError>>;

/// One stream: a handle that is shared, and cheap to clone.
///
/// **Order.** Sequences count from 1 without gaps in the order in which appends were queued; append times never go
/// back. A sequence is never used twice in an epoch. The epoch of a handle never changes: a stream that lost its tail
/// closes its handles, which answer [`StoreError::Recovering`] from then on, and is found again by name with a new epoch.
///
/// **Visibility.** Readers see an event only once its append is durable as the stream promises, and before the append's
/// receipt resolves. So a reader that follows [`Self::visible`] never sees what a crash takes back in a
/// [`crate::model::Durability::Sync`] stream.
///
/// **Keeping.** An event is kept until a limit of the stream, a purge or its ttl ends it. Limits hold exactly for
/// readers: nothing beyond them is ever read, though its bytes may stay on the disk for a while. A sequence that is
/// not kept is never given to another event. An event past its ttl is gone for readers and preconditions at once, and
/// before limits push out any that is not; [`Self::state`] counts it a little longer, for [`Options::sweep_interval_ms`]
/// or so.
///
/// **Time** does not go back, and comes to the wall clock by a tenth of the time that passes: a wall clock that is wrong for a
/// moment changes nothing. Times that are ahead of the clock when the store is opened are as old as if they were of then.
///
/// **From memory or from the store.** What is not async is answered from memory, as this hub knows it: [`Self::bounds`],
/// [`Self::visible`] and [`Self::kept`] may be behind what other hubs have appended to a shared store. What is async and
/// decides something is exact when it is asked.
///
/// **Groups.** See [`GroupStore`].
pub trait EventStream: Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &StreamName;

    /// Its epoch, for as long as this handle is good.
    fn epoch(&self) -> i64;

    /// What its positions are places in.
    fn origin(&self) -> Origin {
        Origin { stream: self.name().clone(), epoch: self.epoch() }
    }

    /// Whether this handle is good, and if not, why: the stream is deleted, or is to be found again by its name.
    fn check(&self) -> Result<(), ReadError>;

    /// Why this handle is no longer good, in the words of the hub.
    fn why_closed(&self) -> StreamError {
        self.check().err().unwrap_or(ReadError::Closed).about(self.name())
    }

    /// How it is set up.
    fn settings(&self) -> Arc<StreamSettings>;

    /// How it is set up and how far it has come, exactly: what is stored when this is asked is counted.
    fn state(&self) -> Boxed<'_, Result<StreamState, ReadError>>;

    /// What it keeps, as far as this hub knows. From memory, for what is asked often and may be a little behind.
    fn bounds(&self) -> Bounds;

    /// The last sequence that readers may see; 0 before the first. Closes when the handle is no longer good.
    fn visible(&self) -> watch::Receiver<u64>;

    /// Appends events in order. The future waits for room (back-pressure) and resolves once the append has its place in
    /// the order; the [`Receipt`] it gives is a future of the results, which resolves once they are durable as the
    /// stream promises. One result per event, in order.
    ///
    /// An event that is known as a repetition (same [`crate::event::Event::dedupe_key`] inside the window, in the same append
    /// too) is not stored again: its result is `duplicate` with the sequence of the first.
    ///
    /// All or nothing, with a precondition or without. When every event is a repetition the precondition is not looked
    /// at, so that trying again is safe.
    fn append(&self, append: Append) -> Boxed<'_, Result<Receipt, AppendError>>;

    /// What matches one of the filters (none: everything) in `(after, through]`, in order, where [`Chunk::through`] is
    /// as far as this call looked: it goes past what does not match, what has expired and what is not kept, and reaches
    /// `latest` when there is no more. Work is bounded, so a chunk may be empty and yet not reach `latest`.
    ///
    /// At least one event when any was found, however large. `after` below `earliest - 1` is [`ReadError::Lost`]; `after`
    /// at or beyond `latest` gives an empty chunk through `after`. Never blocks the thread it is polled on.
    fn read<'a>(
        &'a self,
        after: u64,
        filters: &'a Arc<[Filter]>,
        limits: ReadLimits,
    ) -> Boxed<'a, Result<Chunk, ReadError>>;

    /// As [`Self::read`], for one that has had everything up to `after` as it came: what limits on the number of events, or on
    /// their bytes, have ended since then is read too, as long as it is in memory. What was purged or is too old is not.
    fn follow<'a>(
        &'a self,
        after: u64,
        filters: &'a Arc<[Filter]>,
        limits: ReadLimits,
    ) -> Boxed<'a, Result<Chunk, ReadError>>;

    /// The events of these sequences, ascending, without those that are not kept or not visible. At most
    /// [`MAX_SEQUENCES`] are looked at.
    fn get(&self, sequences: Vec<u64>) -> Boxed<'_, Result<Chunk, ReadError>>;

    /// What time it is by the clock that appends are stamped with. Never goes back, and is not ahead of what comes.
    fn now(&self) -> SystemTime;

    /// How long ago an event was appended that is stamped with `time`: what `max_age` and ttl are compared with.
    fn age(&self, time: SystemTime) -> Duration;

    /// Which of these sequences are kept and visible, ascending: as [`Self::get`] finds them. At most [`MAX_SEQUENCES`] are
    /// looked at.
    fn which(&self, sequences: Vec<u64>) -> Boxed<'_, Result<Vec<u64>, ReadError>>;

    /// How many events are kept behind which sequence. From memory.
    fn kept(&self) -> Kept;

    /// The first sequence that was appended at `time` or later; `latest + 1` when none was.
    fn first_at(&self, time: SystemTime) -> Boxed<'_, Result<u64, ReadError>>;

    /// For the topics that match one of the filters (none: every topic) the sequences of their last events, where these are
    /// behind `after` and not beyond `up_to`: the first `most` of them, ascending; fewer when there are no more. Whoever has
    /// gone through them page by page and then reads on after `up_to` has seen the last of every topic.
    fn last_per_topic<'a>(
        &'a self,
        filters: &'a Arc<[Filter]>,
        after: u64,
        up_to: u64,
        most: usize,
    ) -> Boxed<'a, Result<Vec<u64>, ReadError>>;

    /// The sequence of the last event of a topic that is kept and not past its ttl. Another may push it out at any time.
    fn last_of<'a>(&'a self, topic: Topic<'a>) -> Boxed<'a, Result<Option<u64>, ReadError>>;

    /// The last event of a topic that is kept and not past its ttl, and visible: there is one whenever the topic has one, however
    /// fast others push it out.
    fn last_event<'a>(&'a self, topic: Topic<'a>) -> Boxed<'a, Result<Option<Event>, ReadError>>;

    /// The topics that events are kept of and that are not all past their ttl, by name. Work is bounded: there may be fewer than
    /// wanted, and more behind [`TopicsFound::through`]. What it tells can be read once it is told.
    fn topics<'a>(&'a self, asked: TopicsAsked<'a>) -> Boxed<'a, Result<TopicsFound, ReadError>>;

    /// When the events of these sequences were appended, without those that are not kept or not visible. At most
    /// [`MAX_SEQUENCES`] are looked at.
    fn append_times(&self, sequences: Vec<u64>) -> Boxed<'_, Result<AppendTimes, ReadError>>;

    /// Deletes what matches `filter` (none: everything) up to a sequence, inclusive, and tells how many events that were.
    /// Durable when it resolves. Sequences go on where they were. With a filter it is done in parts, between which others
    /// append: when it fails, or its future is dropped, some of it may be done.
    fn purge(&self, up_to: u64, filter: Option<Filter>) -> Boxed<'_, Result<u64, PurgeError>>;

    /// Deletes the events of these sequences, and tells how many there were. At most [`MAX_SEQUENCES`] are looked at.
    /// Durable when it resolves.
    fn remove(&self, sequences: Vec<u64>) -> Boxed<'_, Result<u64, PurgeError>>;

    /// How often events were taken out of the middle since the store was opened, by a call or by their ttl. Raised before a call
    /// that does so is answered: whoever holds what was read at another count may hold some that is gone.
    fn removals(&self) -> u64;

    /// What is kept of its groups.
    fn groups(&self) -> &dyn GroupStore;
}
