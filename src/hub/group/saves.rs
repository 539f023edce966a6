//! What of a group is stored, what is being stored, and who waits for it.
//!
//! One save is under way at a time; what comes meanwhile goes into the next, so that many acknowledgements share one
//! write. What nobody waits for is stored a little later.

use std::{collections::VecDeque, fmt, future::Future, pin::Pin};

use bytes::Bytes;

use super::key::Key;
use crate::{
    engine::{GroupStoreError, StoreError},
    groups::{DeadLetter, GroupState},
    model::StreamError,
};

/// What nobody waits for is stored this much later.
const LAZY_MS: u64 = 100;
/// After a save that failed, the next is tried this much later.
const RETRY_MS: u64 = 1_000;
/// No more commands are taken while answers for this many events wait to be stored.
const MOST_WAITING: usize = 100_000;
/// The most dead letters in one save.
const LETTERS_AT_ONCE: usize = 64;

/// A save that is over: how, and what it was of.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) result: Result<(), GroupStoreError>,
    pub(super) revision: u64,
    pub(super) state: Bytes,
    pub(super) buried: Vec<u64>,
}

type UnderWay = Pin<Box<dyn Future<Output = Saved> + Send>>;
type Then = Box<dyn FnOnce(Result<(), StreamError>) + Send>;

/// Somebody who waits until a revision is stored.
struct Waiting {
    revision: u64,
    /// For how many events.
    events: usize,
    then: Then,
}

/// The saves of one group.
pub(super) struct Saves {
    /// The save that goes on.
    under_way: Option<UnderWay>,
    /// It has dead letters.
    burying: bool,
    /// Some may have been given up before a restart that were not read since.
    unread: bool,
    /// Everything up to this revision is stored,
    stored: u64,
    /// as this state.
    state: Bytes,
    waiting: VecDeque<Waiting>,
    waiting_events: usize,
    /// When what nobody waits for is stored.
    lazy_at: Option<u64>,
    /// After a failure: nothing is stored before.
    retry_at: u64,
    /// After a failure of dead letters alone: none is stored before.
    letters_at: u64,
    failed: bool,
    /// How many dead letters were stored.
    buried: u64,
}

impl fmt::Debug for Saves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saves")
            .field("stored", &self.stored)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Saves {
    /// Of a state that is stored as it is.
    pub(super) fn new(revision: u64, state: Bytes) -> Self {
        Self {
            under_way: None,
            burying: false,
            unread: true,
            stored: revision,
            state,
            waiting: VecDeque::new(),
            waiting_events: 0,
            lazy_at: None,
            retry_at: 0,
            letters_at: 0,
            failed: false,
            buried: 0,
        }
    }

    /// The state as it was stored last.
    pub(super) fn state(&self) -> &Bytes {
        &self.state
    }

    /// How many dead letters were stored.
    pub(super) fn buried(&self) -> u64 {
        self.buried
    }

    /// The save that is under way, to be waited for.
    pub(super) fn under_way(&mut self) -> Option<&mut UnderWay> {
        self.under_way.as_mut()
    }

    /// The same, to be waited for by nobody else.
    pub(super) fn take_under_way(&mut self) -> Option<UnderWay> {
        self.under_way.take()
    }

    /// True while dead letters are being stored.
    pub(super) fn is_burying(&self) -> bool {
        self.under_way.is_some() && self.burying
    }

    /// True when more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.waiting_events < MOST_WAITING
    }

    /// True when nothing is left to store, or it cannot be.
    pub(super) fn is_settled(&self, revision: u64) -> bool {
        self.under_way.is_none() && self.waiting.is_empty() && (self.stored == revision || self.failed)
    }

    pub(super) fn due(&self) -> Option<u64> {
        // What failed and nobody waits for is put off once more when its time has come.
        let failed = self.failed && self.lazy_at.is_none();
        let wanted = self.under_way.is_none() && (!self.waiting.is_empty() || failed);
        let retry = wanted.then_some(self.retry_at);
        let lazy = self.lazy_at.filter(|_| self.under_way.is_none()).map(|at| at.max(self.retry_at));
        let letters = (self.letters_at > 0).then_some(self.letters_at);
        [retry, lazy, letters].into_iter().flatten().min()
    }

    pub(super) fn when_stored(
        &mut self,
        revision: u64,
        events: usize,
        then: impl FnOnce(Result<(), StreamError>) + Send + 'static,
    ) {
        self.waiting_events += events;
        self.waiting.push_back(Waiting { revision, events, then: Box::new(then) });
    }

    /// Answers those who wait for what is stored; with a failure, those who wait for what could not be.
    fn answer(&mut self, up_to: u64, result: &Result<(), StreamError>) {
        while self.waiting.front().is_some_and(|waiting| waiting.revision <= up_to) {
            let Some(waiting) = self.waiting.pop_front() else { return };
            self.waiting_events -= waiting.events;
            (waiting.then)(result.clone());
        }
    }

    pub(super) fn fail_all(&mut self, error: &StreamError) {
        self.under_way = None;
        self.answer(u64::MAX, &Err(error.clone()));
    }

    /// Some that were given up may be found unread from now on.
    pub(super) fn look_for_unread(&mut self) {
        self.unread = true;
    }

    /// The first events that were given up and are not stored as dead letters.
    pub(super) fn given_up(&mut self, state: &GroupState) -> Vec<DeadLetter> {
        let mut given_up: Vec<_> = state.dead_letters().take(LETTERS_AT_ONCE).collect();
        if given_up.is_empty() && self.unread {
            given_up = state.unread_dead_letters(LETTERS_AT_ONCE);
            self.unread = !given_up.is_empty();
        }
        given_up
    }

    /// True when dead letters may be stored.
    pub(super) fn letters_may(&mut self, now: u64) -> bool {
        let may = now >= self.letters_at;
        if may {
            self.letters_at = 0;
        }
        may
    }

    /// True when a save may begin. Answers those who wait for nothing more.
    pub(super) fn may_begin(&mut self, now: u64) -> bool {
        if self.under_way.is_some() {
            return false;
        }
        self.answer(self.stored, &Ok(()));
        now >= self.retry_at
    }

    /// True when this revision is to be stored now. It is put off when nobody waits for it: there are no `letters`, and not
    /// `nobody` has a seat, which would end the task.
    pub(super) fn is_wanted(&mut self, revision: u64, now: u64, letters: bool, nobody: bool) -> bool {
        if revision == self.stored && !letters {
            (self.lazy_at, self.failed) = (None, false);
            return false;
        }
        let urgent = !self.waiting.is_empty() || letters || nobody;
        urgent || now >= *self.lazy_at.get_or_insert(now + LAZY_MS)
    }

    /// A save begins, of dead letters too if there are `letters`.
    pub(super) fn begin(&mut self, letters: bool, save: impl Future<Output = Saved> + Send + 'static) {
        self.lazy_at = None;
        self.burying = letters;
        self.under_way = Some(Box::pin(save));
    }

    /// A save is over. Gives why the group is, if it is.
    pub(super) fn end(&mut self, saved: Saved, state: &mut GroupState, key: &Key, now: u64) -> Option<StreamError> {
        self.under_way = None;
        let (stream, group) = (&key.stream, key.group.as_str());
        match saved.result {
            Ok(()) => {
                self.failed = false;
                self.state = saved.state;
                self.buried += saved.buried.len() as u64;
                let unchanged = state.revision() == saved.revision;
                for sequence in saved.buried {
                    state.buried(sequence);
                }
                // What was buried is in what was stored.
                self.stored = if unchanged { state.revision() } else { saved.revision };
                self.answer(saved.revision, &Ok(()));
            }
            Err(GroupStoreError::DeadLetterStream { name }) => {
                tracing::warn!(%stream, group, dead_letter_stream = %name, "no stream for dead letters");
                self.letters_at = now + RETRY_MS;
            }
            Err(
                GroupStoreError::QuotaUsedUp { name }
                | GroupStoreError::NeverFits { name }
                | GroupStoreError::NoMemory { name, .. },
            ) => {
                // They wait where they are; acknowledgements do not.
                tracing::warn!(%stream, group, dead_letter_stream = %name, "no room for dead letters");
                self.letters_at = now + RETRY_MS;
            }
            Err(
                error @ (GroupStoreError::Closed
                | GroupStoreError::NotFound
                | GroupStoreError::Fenced
                | GroupStoreError::Store(StoreError::Recovering)),
            ) => return Some(key.refused(&error)),
            Err(error) => {
                tracing::warn!(%stream, group, %error, "the state of a group was not stored");
                self.failed = true;
                self.retry_at = now + RETRY_MS;
                self.answer(saved.revision, &Err(key.refused(&error)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::{Group, GroupSettings, StreamName};

    #[test]
    fn what_a_hub_could_not_save_that_was_overtaken_is_not_confirmed() {
        let mut state = GroupState::new(GroupSettings::default(), 0);
        let (stream, group) = (StreamName::parse("s").expect("a name"), Group::parse("g").expect("a name"));
        let (key, mut saves) = (Key { stream, epoch: 1, group }, Saves::new(state.revision(), Bytes::new()));
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        let revision = state.revision() + 1;
        saves.when_stored(revision, 1, move |stored| tells.lock().expect("not poisoned").push(stored));
        saves.begin(false, std::future::pending());
        let saved = Saved { result: Err(GroupStoreError::Fenced), revision, state: Bytes::new(), buried: Vec::new() };
        let over = saves.end(saved, &mut state, &key, 0).expect("the group is driven elsewhere");
        assert_eq!((over.clone(), told.lock().expect("not poisoned").len()), (StreamError::Unavailable, 0));
        saves.fail_all(&over);
        assert_eq!(*told.lock().expect("not poisoned"), [Err(StreamError::Unavailable)]);
    }
}
