//! What an engine keeps of the groups of one stream: settings, one opaque state each, who drives them, and where their dead
//! letters go. Part of the contract.
//!
//! It does not know what a state says, nor who the members of a group are.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;

use super::{Boxed, DeadLetter, GroupStoreError, LettersBack, StoredGroup};
use crate::model::{Group, GroupSettings};

/// The groups of one stream.
///
/// **One hub drives a group**: it loads the state, hands out events, and saves. Which one is settled by [`Self::claim`], and
/// every write of it carries the [`Fence`] of its claim. A hub that was overtaken, without noticing, is refused with
/// [`GroupStoreError::Fenced`] when it saves, so that what it has not saved is never confirmed. Safety rests on that alone,
/// and not on any clock.
///
/// **Dead letters come no later than the state** in which their events are done: a crash may leave letters without that
/// state, never that state without its letters. Nor is a letter stored twice by being tried again: see [`Self::bury`]. An
/// engine that has transactions over all its streams stores both in one; nothing above relies on that.
pub trait GroupStore: Debug + Send + Sync {
    /// Every group with its settings and the last state saved, empty when none was; ordered by name. Waits for nothing that
    /// is being written.
    fn list(&self) -> Boxed<'_, Result<Vec<StoredGroup>, GroupStoreError>>;

    /// One of them.
    fn load(&self, group: Group) -> Boxed<'_, Result<Option<StoredGroup>, GroupStoreError>>;

    /// Makes a group with its first state, both or none. Durable when it resolves, but for the state in a stream in memory.
    /// Fails with [`GroupStoreError::DeadLetterStream`] when the stream it names for dead letters does not exist.
    fn create(&self, group: Group, settings: GroupSettings, state: Bytes) -> Boxed<'_, Result<(), GroupStoreError>>;

    /// Changes the settings of a group; its state stays. Durable when it resolves. Fails as [`Self::create`] does.
    fn update(&self, group: Group, settings: GroupSettings) -> Boxed<'_, Result<(), GroupStoreError>>;

    /// Deletes a group with its state. Durable when it resolves.
    fn delete(&self, group: Group) -> Boxed<'_, Result<(), GroupStoreError>>;

    /// Asks to drive a group. It is claimed before it is loaded: a state that was loaded before may be out of date. Claiming
    /// again what this hub drives already is harmless. Whether the group exists is for [`Self::load`] to say.
    fn claim(&self, group: Group) -> Boxed<'_, Result<Claim, GroupStoreError>>;

    /// Saves the state of a group. Durable as the stream of the group promises when it resolves.
    fn save(&self, fence: Fence, group: Group, state: Bytes) -> Boxed<'_, Result<(), GroupStoreError>>;

    /// Stores dead letters, and saves the state in which their events are done. Durable as the stream of the group promises
    /// when it resolves. Dead letters are never taken for duplicates of published events, and need not match the filters of
    /// their stream.
    ///
    /// A caller that does not know what became of it calls again, with the letters under the same [`DeadLetter::id`]: one
    /// that is stored is not stored again. That holds until another save of the group has succeeded, and may hold longer: an
    /// event that is given up once more, after it was given back, has a letter with another id.
    ///
    /// Fails with [`GroupStoreError::DeadLetterStream`] when one of those streams is gone.
    fn bury(
        &self,
        fence: Fence,
        group: Group,
        state: Bytes,
        letters: Vec<DeadLetter>,
    ) -> Boxed<'_, Result<(), GroupStoreError>>;

    /// Saves the state of a group, and deletes the dead letters whose events it has back by that, no earlier: after a crash
    /// there may be letters whose events the group has, never events that neither has. Durable when it resolves.
    ///
    /// Fails with [`GroupStoreError::DeadLetterStream`] when the stream they are in is gone, or is another one by now.
    fn give_back(
        &self,
        fence: Fence,
        group: Group,
        state: Bytes,
        back: LettersBack,
    ) -> Boxed<'_, Result<(), GroupStoreError>>;
}

/// Who drives a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// This hub, until another has claimed it. A store with one hub always says this.
    Here(Fence),
    /// Another hub, which has this name.
    At(Arc<str>),
}

/// One claim of a group, which every write under it carries. Of two claims by different hubs the later has the larger fence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);
