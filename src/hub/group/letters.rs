//! Dead letters that are given back to the group, and those that are to be there when somebody asks for them.

use std::{collections::HashSet, sync::Arc};

use super::{active::Active, command::Redriven};
use crate::{
    engine::{EventStream, LettersBack, ReadError},
    event::Event,
    model::StreamError,
};

/// Letters of this many bytes are given back in one step.
const BACK_BYTES: usize = 4 * 1024 * 1024;
/// Whoever asks for dead letters waits for this many saves of them at most.
const MOST_SAVES: usize = 16;

impl Active {
    /// Delivers events again whose dead letters, named with them, are there, and removes those: both in one step of the
    /// store. From the first look to the last the group does nothing else, so that two who give back the same do not do so
    /// twice. What the members there are do not want stays a dead letter.
    pub(super) async fn redrive(
        &mut self,
        letters: &Arc<dyn EventStream>,
        events: Vec<(u64, Event)>,
    ) -> Result<Redriven, StreamError> {
        // It may be what stores these dead letters: until that is known their events are not done, and not to be reopened.
        self.finish_save().await;
        let there = letters.get(events.iter().map(|(letter, _)| *letter).collect()).await;
        let there: HashSet<u64> = match there {
            Ok(chunk) => chunk.events.iter().map(Event::sequence).collect(),
            Err(ReadError::Store(error)) => return Err(StreamError::from(&error)),
            Err(ReadError::Lost { .. } | ReadError::Closed) => HashSet::new(),
        };
        let events = events.into_iter().filter(|(letter, _)| there.contains(letter));
        let (wanted, unwanted): (Vec<_>, Vec<_>) = events.partition(|(_, event)| self.is_wanted(event));
        let mut redriven = 0;
        while redriven < wanted.len() {
            let some = self.reopen_some(&wanted[redriven..]);
            if some.is_empty() {
                break;
            }
            redriven += some.len();
            self.store_with_letters_back(LettersBack { letters: letters.origin(), sequences: some }).await?;
        }
        Ok(Redriven { redriven, unmatched: unwanted.len(), full: redriven < wanted.len() })
    }

    /// True unless there are members, and their filters do not take it. Without members it waits for some who want it.
    fn is_wanted(&self, event: &Event) -> bool {
        let filters = self.seats.filters().filter(|_| self.state.counts().members > 0);
        filters.is_none_or(|filters| filters.is_empty() || filters.iter().any(|filter| filter.matches(event.topic())))
    }

    /// Makes events of the first dead letters ones to be delivered; gives those letters.
    fn reopen_some(&mut self, events: &[(u64, Event)]) -> Vec<u64> {
        let (mut some, mut bytes) = (Vec::new(), 0);
        for (letter, event) in events {
            if bytes >= BACK_BYTES || !self.state.reopen(event.sequence(), self.ready.key_of(event)) {
                break;
            }
            bytes += event.encoded_len();
            some.push(*letter);
        }
        some
    }

    /// Stores what is given up and not yet stored as dead letters, as far as that is possible now.
    pub(super) async fn bury(&mut self) {
        for _ in 0..MOST_SAVES {
            self.finish_save().await;
            self.start_save().await;
            if !self.saves.is_burying() {
                return;
            }
        }
        self.finish_save().await;
    }
}
