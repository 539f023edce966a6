//! What can go wrong with streams: one type per operation. `edge/wire/status.rs` alone turns these into statuses.

use crate::{
    memory::{MemoryFull, Use},
    model::{Group, Origin, SettingError, StreamError, StreamName},
};

/// The store itself could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room on the disk. It heals by itself once there is.
    #[error("the disk has no room left for streams")]
    Full,
    /// The store failed, or is closed. Whether the operation happened is not known.
    #[error("the store is not available")]
    Unavailable,
    /// As many calls that change streams wait as may. Nothing was done.
    #[error("{limit} calls that change streams are waiting, which is the limit")]
    Busy {
        /// How many may wait.
        limit: usize,
    },
    /// The store was opened again, and the stream with it: it is found by its name. Nothing was done.
    #[error("the store is recovering")]
    Recovering,
    /// What was read is not what was written.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// Where, and what to do.
        what: String,
    },
}

/// Why there is no backup, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// There is one at a time.
    #[error("another backup is running")]
    UnderWay,
    /// It would have gone on.
    #[error("the backup took more than {} ms", .limit.as_millis())]
    TooLong {
        /// How long it may take.
        limit: std::time::Duration,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store was not put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What is to be restored is no backup, or not all of one.
    #[error("the backup {what}")]
    Backup {
        /// What is wrong with it.
        what: String,
    },
    /// A store is never overwritten.
    #[error("{folder} has a store: move it away first")]
    InTheWay {
        /// The data directory.
        folder: String,
    },
    /// There is nothing to give new epochs to.
    #[error("{folder} has no store")]
    NoStore {
        /// The data directory.
        folder: String,
    },
    /// The directory cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk does not do what it is asked to, or the store is damaged.
    #[error("{what}")]
    Failed {
        /// As the system says it.
        what: String,
    },
}

/// Why an engine does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{folder} is in use by another process")]
    InUse {
        /// The data directory.
        folder: String,
    },
    /// It is damaged.
    #[error(
        "STORE_CORRUPT: the store in {folder} is damaged: {what}. Restore it from a copy, or move it away to start with none"
    )]
    Corrupt {
        /// The data directory.
        folder: String,
        /// Where.
        what: String,
    },
    /// It was written by a newer hub.
    #[error("the store in {folder} has format {found}; this hub supports {known}")]
    Format {
        /// The data directory.
        folder: String,
        /// What it has.
        found: u64,
        /// What this hub knows.
        known: u64,
    },
    /// The disk does not do what it is asked to.
    #[error("cannot open the store in {folder}: {problem}")]
    Io {
        /// The data directory.
        folder: String,
        /// As the system says it.
        problem: String,
    },
}

/// Why a stream was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// A setting is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// There is one of that name.
    #[error("stream {name} exists")]
    Exists {
        /// Its name.
        name: StreamName,
    },
    /// A topic would be in two streams.
    #[error("the filters overlap those of stream {with}")]
    Overlap {
        /// The other one.
        with: StreamName,
    },
    /// With those of other streams, the filters take too long to look at.
    #[error("with those of other streams, the filters take more than {limit} steps")]
    TooManySteps {
        /// How many steps they may take.
        limit: usize,
    },
    /// The hub has as many streams as it may.
    #[error("this hub is at its limit of {limit} streams")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// The filters do not fit into memory.
    #[error(transparent)]
    NoMemory(#[from] MemoryFull),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the settings of a stream were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// There is no such stream.
    #[error("there is no stream {name}")]
    NotFound {
        /// The name.
        name: StreamName,
    },
    /// A setting is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Its settings are not those any more that the change was made from.
    #[error("the settings have changed meanwhile")]
    Changed,
    /// A setting that stays as it was made.
    #[error("{field} of a stream cannot be changed")]
    Mismatch {
        /// Which.
        field: &'static str,
    },
    /// A topic would be in two streams.
    #[error("the filters overlap those of stream {with}")]
    Overlap {
        /// The other one.
        with: StreamName,
    },
    /// With those of other streams, the filters take too long to look at.
    #[error("with those of other streams, the filters take more than {limit} steps")]
    TooManySteps {
        /// How many steps they may take.
        limit: usize,
    },
    /// The filters do not fit into memory.
    #[error(transparent)]
    NoMemory(#[from] MemoryFull),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a stream was not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// There is no such stream.
    #[error("there is no stream {name}")]
    NotFound {
        /// The name.
        name: StreamName,
    },
    /// It takes the dead letters of a group of another stream, which would have nowhere to put them.
    #[error("group {} of stream {stream} puts its dead letters there", .group.as_str())]
    TakesDeadLetters {
        /// The stream of the group.
        stream: StreamName,
        /// The group, the first of those that do.
        group: Group,
    },
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was purged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// The handle is no longer good.
    #[error("the stream is gone")]
    Closed,
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The handle is no longer good.
    #[error("the stream is gone")]
    Closed,
    /// The precondition does not hold.
    #[error("the last sequence is {actual}")]
    SequenceMismatch {
        /// What it was compared with.
        actual: u64,
    },
    /// A precondition on a topic, and events of more than one.
    #[error("a precondition on a topic needs events of one topic")]
    MixedTopics,
    /// The stream keeps as many topics as it may.
    #[error("the stream is at its limit of {limit} topics")]
    TooManyTopics {
        /// How many it may have.
        limit: usize,
    },
    /// The owner of the stream stores as much as it may.
    #[error("the owner of the stream has used its quota of {limit} stored bytes")]
    QuotaUsedUp {
        /// How much that is, in bytes.
        limit: u64,
    },
    /// What the events add does not fit into memory.
    #[error(transparent)]
    NoMemory(#[from] MemoryFull),
    /// They are larger than all that the stream keeps. Of events that are not to be appended together, one is.
    #[error("the events have {bytes} bytes; the stream keeps at most {limit}")]
    NeverFits {
        /// What they have, as they are stored.
        bytes: u64,
        /// What it keeps.
        limit: u64,
    },
    /// The append alone is larger than what may wait.
    #[error("the events have {bytes} bytes together; the limit is {limit}")]
    TooLarge {
        /// What they have.
        bytes: usize,
        /// What they may have.
        limit: usize,
    },
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The handle is no longer good.
    #[error("the stream is gone")]
    Closed,
    /// Events after that point are not kept any more.
    #[error("the stream keeps {earliest} to {latest}")]
    Lost {
        /// The first sequence kept; `latest + 1` when none is.
        earliest: u64,
        /// The last visible.
        latest: u64,
    },
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a group was not made, changed, deleted or saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupStoreError {
    /// The handle of the stream is no longer good.
    #[error("the stream is gone")]
    Closed,
    /// There is one of that name.
    #[error("the group exists")]
    Exists,
    /// There is no such group.
    #[error("there is no such group")]
    NotFound,
    /// Another hub has claimed the group since. Nothing was saved.
    #[error("another hub has claimed the group")]
    Fenced,
    /// A setting is out of its range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A stream for dead letters is gone.
    #[error("there is no stream {name} for dead letters")]
    DeadLetterStream {
        /// Its name.
        name: StreamName,
    },
    /// The owner of a stream for dead letters stores as much as it may.
    #[error("the owner of stream {name} has no room for dead letters")]
    QuotaUsedUp {
        /// The name of the stream.
        name: StreamName,
    },
    /// A dead letter is larger than all that its stream keeps.
    #[error("a dead letter is larger than stream {name} may keep")]
    NeverFits {
        /// The name of the stream.
        name: StreamName,
    },
    /// What dead letters add to their stream does not fit into memory.
    #[error("{full}, which dead letters of stream {name} need")]
    NoMemory {
        /// The name of the stream.
        name: StreamName,
        /// What does not fit.
        full: MemoryFull,
    },
    /// The stream has as many groups as it may.
    #[error("the stream is at its limit of {limit} groups")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// The state, with its dead letters, is larger than it may be.
    #[error("the state of the group has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

// In the words of the hub, which a client reads.

impl From<&StoreError> for StreamError {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            StoreError::Busy { limit } => Self::TooMany { what: "calls that change streams waiting", limit: *limit },
            StoreError::Recovering => Self::Recovering,
            StoreError::Unavailable => Self::Unavailable,
            StoreError::Corrupt { what } => Self::Corrupt(what.clone()),
        }
    }
}

impl From<MemoryFull> for StreamError {
    fn from(full: MemoryFull) -> Self {
        match full.of {
            Use::MemoryStreams => Self::MemoryStreamFull,
            of => Self::NoMemory { of: of.name() },
        }
    }
}

impl AppendError {
    /// The refusal of an append to this stream.
    pub fn about(&self, origin: &Origin) -> StreamError {
        match self {
            Self::Closed => StreamError::NotFound(origin.stream.to_string()),
            Self::SequenceMismatch { actual } => StreamError::SequenceMismatch { actual: *actual },
            Self::MixedTopics => {
                let problem = "on a topic needs events of one topic".to_owned();
                StreamError::Mismatch { field: "precondition", problem }
            }
            Self::TooManyTopics { limit } => StreamError::TooMany { what: "topics in this stream", limit: *limit },
            Self::QuotaUsedUp { limit } => StreamError::QuotaUsedUp { limit: *limit },
            Self::NeverFits { bytes, limit } => StreamError::NeverFits { bytes: *bytes, limit: *limit },
            Self::NoMemory(full) => (*full).into(),
            Self::TooLarge { .. } => StreamError::Mismatch { field: "events", problem: self.to_string() },
            Self::Store(error) => error.into(),
        }
    }
}

impl ReadError {
    /// Why this stream could not be read. Where it matters what is lost, that is for the caller to say.
    pub fn about(&self, stream: &StreamName) -> StreamError {
        match self {
            Self::Store(error) => error.into(),
            Self::Closed | Self::Lost { .. } => StreamError::NotFound(stream.to_string()),
        }
    }
}

impl PurgeError {
    /// Why nothing could be removed from this stream.
    pub fn about(&self, stream: &StreamName) -> StreamError {
        match self {
            Self::Store(error) => error.into(),
            Self::Closed => StreamError::NotFound(stream.to_string()),
        }
    }
}
