//! Storing what is done, before it is said to be.

use std::sync::Arc;

use bytes::Bytes;

use super::{active::Active, saves::Saved};
use crate::{
    engine::{DeadLetter, LetterId, LettersBack},
    model::StreamError,
};

/// Dead letters of this many bytes go into one save, beside the first.
const LETTER_BYTES: usize = 4 * 1024 * 1024;

impl Active {
    /// Begins to store what is to be stored, if it is time.
    pub(super) async fn start_save(&mut self) {
        let now = self.now();
        let letters_may = self.saves.letters_may(now);
        if self.source.is_over() || !self.saves.may_begin(now) {
            return;
        }
        let letters = if letters_may { self.letters().await } else { Vec::new() };
        let (has_letters, revision) = (!letters.is_empty(), self.state.revision());
        if !self.saves.is_wanted(revision, now, has_letters, self.seats.is_empty()) {
            return;
        }
        let (buried, letters): (Vec<u64>, Vec<DeadLetter>) = letters.into_iter().unzip();
        let state: Bytes = self.state.encode(&buried).into();
        let (stream, group, fence) = (Arc::clone(&self.source.stream), self.source.key.group.clone(), self.fence);
        self.saves.begin(has_letters, async move {
            let result = if letters.is_empty() {
                stream.groups().save(fence, group, state.clone()).await
            } else {
                stream.groups().bury(fence, group, state.clone(), letters).await
            };
            Saved { result, revision, state, buried }
        });
    }

    /// Waits for the save that is under way, if there is one.
    pub(super) async fn finish_save(&mut self) {
        if let Some(under_way) = self.saves.take_under_way() {
            let saved = under_way.await;
            self.saved(saved);
        }
    }

    /// A save is over.
    pub(super) fn saved(&mut self, saved: Saved) {
        let now = self.now();
        if let Some(error) = self.saves.end(saved, &mut self.state, &self.source.key, now) {
            self.source.end(error);
        }
    }

    /// Stores what was done so far, and removes dead letters whose events the group has back by that. Nothing else is being
    /// stored.
    pub(super) async fn store_with_letters_back(&mut self, back: LettersBack) -> Result<(), StreamError> {
        let (revision, state) = (self.state.revision(), Bytes::from(self.state.encode(&[])));
        let key = &self.source.key;
        let result = self.source.stream.groups().give_back(self.fence, key.group.clone(), state.clone(), back).await;
        let told = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(key.refused(error)),
        };
        self.saved(Saved { result, revision, state, buried: Vec::new() });
        told
    }

    /// The dead letters that are to be stored now, each with the sequence its event has in the stream.
    async fn letters(&mut self) -> Vec<(u64, DeadLetter)> {
        let Some(stream) = self.state.settings().dead_letter_stream.clone() else { return Vec::new() };
        let given_up = self.saves.given_up(&self.state);
        if given_up.is_empty() {
            return Vec::new();
        }
        let sequences = given_up.iter().map(|letter| letter.sequence).collect();
        let Some(events) = self.source.fetch(sequences).await else { return Vec::new() };
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
            let event = self.source.dead_letter(&letter, event);
            let id = LetterId { sequence: letter.sequence, round: letter.round };
            letters.push((id.sequence, DeadLetter { id, stream: stream.clone(), event }));
        }
        letters
    }
}
