//! Storing what is done, before it is said to be.
//!
//! One save is under way at a time; what comes meanwhile goes into the next, so that many acknowledgements share one
//! write. What nobody waits for is stored a little later.

use std::{collections::VecDeque, fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

use super::{driver::Active, of_group};
use crate::{
    engine::{DeadLetter, GroupStoreError, LettersBack, StoreError},
    event::GivenUp,
    model::StreamError,
};

/// What nobody waits for is stored this much later.
const LAZY_MS: u64 = 100;
/// After a save that failed, the next is tried this much later.
const RETRY_MS: u64 = 1_000;
/// No more commands are taken while answers for so many events wait to be stored.
const MOST_WAITING: usize = 100_000;
/// So many dead letters go into one save,
const LETTERS_AT_ONCE: usize = 64;
/// or as many as have this many bytes.
const LETTER_BYTES: usize = 4 * 1024 * 1024;

/// A save that is over: how, and what it was of.
#[derive(Debug)]
pub(super) struct Saved {
    result: Result<(), GroupStoreError>,
    revision: u64,
    state: Bytes,
    buried: Vec<u64>,
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

/// What is stored, what is being stored, and who waits for it.
pub(super) struct Saves {
    /// The save that goes on.
    pub(super) under_way: Option<UnderWay>,
    /// It has dead letters.
    burying: bool,
    /// Some may have been given up before a restart that were not read since.
    pub(super) unread: bool,
    /// Everything up to this revision is stored.
    stored: u64,
    waiting: VecDeque<Waiting>,
    waiting_events: usize,
    /// When what nobody waits for is stored.
    lazy_at: Option<u64>,
    /// After a failure: nothing is stored before.
    retry_at: u64,
    /// After a failure of dead letters alone: none is stored before.
    letters_at: u64,
    failed: bool,
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
    pub(super) fn new(revision: u64) -> Self {
        Self {
            under_way: None,
            burying: false,
            unread: true,
            stored: revision,
            waiting: VecDeque::new(),
            waiting_events: 0,
            lazy_at: None,
            retry_at: 0,
            letters_at: 0,
            failed: false,
        }
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
}

impl Active {
    /// Begins to store what is to be stored, if it is time.
    pub(super) async fn start_save(&mut self) {
        let now = self.clock.now();
        let letters_may = now >= self.saves.letters_at;
        if letters_may {
            self.saves.letters_at = 0;
        }
        if self.saves.under_way.is_some() || self.over.is_some() {
            return;
        }
        self.saves.answer(self.saves.stored, &Ok(()));
        if now < self.saves.retry_at {
            return;
        }
        let letters = if letters_may { self.letters().await } else { Vec::new() };
        let revision = self.state.revision();
        if revision == self.saves.stored && letters.is_empty() {
            (self.saves.lazy_at, self.saves.failed) = (None, false);
            return;
        }
        let urgent = !self.saves.waiting.is_empty() || !letters.is_empty() || self.seats.is_empty();
        if !urgent && now < *self.saves.lazy_at.get_or_insert(now + LAZY_MS) {
            return;
        }
        self.saves.lazy_at = None;
        self.saves.burying = !letters.is_empty();
        let (buried, letters): (Vec<u64>, Vec<DeadLetter>) = letters.into_iter().unzip();
        let state: Bytes = self.state.encode(&buried).into();
        let (stream, group) = (Arc::clone(&self.stream), self.key.2.clone());
        self.saves.under_way = Some(Box::pin(async move {
            let result = stream.save_group(group, state.clone(), letters).await;
            Saved { result, revision, state, buried }
        }));
    }

    /// Waits for the save that is under way, if there is one.
    pub(super) async fn finish_save(&mut self) {
        if let Some(under_way) = self.saves.under_way.take() {
            let saved = under_way.await;
            self.saved(saved);
        }
    }

    /// Stores what was done so far, and removes dead letters whose events the group has back by that. Nothing else is being
    /// stored.
    pub(super) async fn store_with_letters_back(&mut self, back: LettersBack) -> Result<(), StreamError> {
        let (revision, state) = (self.state.revision(), Bytes::from(self.state.encode(&[])));
        let result = self.stream.give_back(self.key.2.clone(), state.clone(), back).await;
        let told = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(of_group(error, &self.key.0, Some(&self.key.2))),
        };
        self.saved(Saved { result, revision, state, buried: Vec::new() });
        told
    }

    /// The dead letters that are to be stored now, each with the sequence its event has in the stream.
    async fn letters(&mut self) -> Vec<(u64, DeadLetter)> {
        let Some(stream) = self.state.settings().dead_letter_stream.clone() else { return Vec::new() };
        let mut given_up: Vec<_> = self.state.dead_letters().take(LETTERS_AT_ONCE).collect();
        if given_up.is_empty() && self.saves.unread {
            given_up = self.state.unread_dead_letters(LETTERS_AT_ONCE);
            self.saves.unread = !given_up.is_empty();
        }
        if given_up.is_empty() {
            return Vec::new();
        }
        let Some(events) = self.fetch(given_up.iter().map(|letter| letter.sequence).collect()).await else {
            return Vec::new();
        };
        let (mut letters, mut bytes) = (Vec::new(), 0);
        for letter in given_up {
            let Some(event) = events.get(&letter.sequence) else {
                // The stream does not keep it any more: there is nothing to bury.
                self.gone(letter.sequence);
                continue;
            };
            bytes += event.encoded_len();
            if bytes > LETTER_BYTES && !letters.is_empty() {
                break;
            }
            let told = GivenUp {
                stream: self.key.0.as_str(),
                sequence: letter.sequence,
                group: self.key.2.as_str(),
                attempts: letter.attempts,
                reason: &letter.reason,
            };
            let event = event.dead_letter(&told);
            letters.push((letter.sequence, DeadLetter { stream: stream.clone(), event }));
        }
        letters
    }

    /// A save is over.
    pub(super) fn saved(&mut self, saved: Saved) {
        self.saves.under_way = None;
        let Saved { result, revision, state, buried } = saved;
        let (stream, _, group) = &self.key;
        match result {
            Ok(()) => {
                self.saves.failed = false;
                self.stored = state;
                let unchanged = self.state.revision() == revision;
                for sequence in buried {
                    self.state.buried(sequence);
                }
                // What was buried is in what was stored.
                self.saves.stored = if unchanged { self.state.revision() } else { revision };
                self.saves.answer(revision, &Ok(()));
            }
            Err(GroupStoreError::DeadLetterStream { name }) => {
                tracing::warn!(%stream, group = group.as_str(), dead_letter_stream = %name, "no stream for dead letters");
                self.saves.letters_at = self.clock.now() + RETRY_MS;
            }
            Err(
                GroupStoreError::QuotaUsedUp { name }
                | GroupStoreError::NeverFits { name }
                | GroupStoreError::NoMemory { name, .. },
            ) => {
                // They wait where they are; acknowledgements do not.
                tracing::warn!(%stream, group = group.as_str(), dead_letter_stream = %name, "no room for dead letters");
                self.saves.letters_at = self.clock.now() + RETRY_MS;
            }
            Err(
                error @ (GroupStoreError::Closed
                | GroupStoreError::NotFound
                | GroupStoreError::Store(StoreError::Recovering)),
            ) => {
                self.over = Some(of_group(&error, stream, Some(group)));
            }
            Err(error) => {
                tracing::warn!(%stream, group = group.as_str(), %error, "the state of a group was not stored");
                self.saves.failed = true;
                self.saves.retry_at = self.clock.now() + RETRY_MS;
                let error = of_group(&error, stream, Some(group));
                self.saves.answer(revision, &Err(error));
            }
        }
    }
}
