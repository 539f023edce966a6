//! All that is asked of the committer, and how it answers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    inbox::{Queued, Room},
    purge::Purge,
    stream::Shared,
    turns::Turn,
};
use crate::{
    engine::{
        AppendError, Appended, CreateError, DeadLetter, DeleteError, GroupStoreError, LettersBack, Precondition,
        PurgeError, StoreError, UpdateError,
    },
    event::Event,
    model::{Group, GroupSettings, StreamName, StreamSettings},
};

/// Something for the committer to do.
pub(super) enum Work {
    Append(AppendWork),
    Save(SaveWork),
    /// Anything rare. It has the committer for itself.
    Act(Box<Act>),
}

pub(super) struct AppendWork {
    pub(super) stream: Arc<Shared>,
    pub(super) events: Vec<Event>,
    pub(super) precondition: Option<Precondition>,
    pub(super) reply: oneshot::Sender<Result<Vec<Appended>, AppendError>>,
    pub(super) room: Room,
}

/// The state of a group, and what it gives up.
pub(super) struct SaveWork {
    pub(super) stream: Arc<Shared>,
    pub(super) group: Group,
    pub(super) state: Bytes,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) reply: oneshot::Sender<Result<(), GroupStoreError>>,
    pub(super) room: Room,
}

/// What is rare.
pub(super) enum Act {
    Create {
        settings: StreamSettings,
        reply: Reply<Result<Arc<Shared>, CreateError>>,
    },
    /// Changes settings, if they are those `before`.
    Update {
        settings: StreamSettings,
        before: Option<Arc<StreamSettings>>,
        /// Whether limits want to end more than was ended in one go.
        reply: Reply<Result<(Arc<Shared>, bool), UpdateError>>,
    },
    /// Ends some of what the limits of a stream want to have ended.
    Limit {
        id: u64,
        /// Whether there is more.
        reply: Reply<Result<bool, StoreError>>,
    },
    Delete {
        name: StreamName,
        reply: Reply<Result<(), DeleteError>>,
    },
    /// Does some of a purge.
    Purge {
        stream: Arc<Shared>,
        what: Purge,
        /// How many events are gone, and what is left to be done.
        reply: Reply<Result<(u64, Option<Purge>), PurgeError>>,
    },
    /// Makes a group, which `first` is the state of, or changes one that is there.
    PutGroup {
        stream: Arc<Shared>,
        group: Group,
        settings: GroupSettings,
        first: Option<Bytes>,
        reply: Reply<Result<(), GroupStoreError>>,
    },
    DeleteGroup {
        stream: Arc<Shared>,
        group: Group,
        reply: Reply<Result<(), GroupStoreError>>,
    },
    /// Saves the state of a group that has dead letters back, and removes those.
    GiveBack {
        stream: Arc<Shared>,
        group: Group,
        state: Bytes,
        back: LettersBack,
        reply: Reply<Result<Rest, GroupStoreError>>,
    },
    Close {
        reply: Reply<Result<(), StoreError>>,
    },
}

/// What is left to be done for a stream of dead letters.
pub(super) type Rest = Option<(Arc<Shared>, Purge)>;

/// Answers a call that waits, whose turn is over with that.
pub(super) struct Reply<T> {
    turn: Option<Turn>,
    sender: oneshot::Sender<T>,
}

impl<T> Reply<T> {
    /// And where the answer comes.
    pub(super) fn new(turn: Option<Turn>) -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { turn, sender }, receiver)
    }

    pub(super) fn send(self, answer: T) {
        drop(self.turn);
        // Nobody may be left to hear of it.
        let _ = self.sender.send(answer);
    }
}

impl AppendWork {
    pub(super) fn answer(self, answer: Result<Vec<Appended>, AppendError>) {
        // Whoever asked may be gone.
        let _ = self.reply.send(answer);
        drop(self.room);
    }
}

impl SaveWork {
    /// True when both are of one group.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.stream.id == other.stream.id && self.group == other.group
    }

    pub(super) fn answer(self, answer: Result<(), GroupStoreError>) {
        let _ = self.reply.send(answer);
        drop(self.room);
    }
}

impl Queued for Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(work) => work.room.bytes(),
            Self::Save(work) => work.room.bytes(),
            Self::Act(_) => 0,
        }
    }

    fn is_alone(&self) -> bool {
        matches!(self, Self::Act(_))
    }
}
