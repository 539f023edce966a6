//! Events that were read ahead and wait to be handed out, as many as fit.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    time::{Duration, UNIX_EPOCH},
};

use crate::event::Event;

/// Events that were read and not handed out stay in memory up to this many bytes; others are read again when it is their
/// turn.
const READY_BYTES: usize = 4 * 1024 * 1024;

/// Events that wait to be handed out.
#[derive(Debug, Default)]
pub(super) struct Ready {
    events: BTreeMap<u64, Event>,
    bytes: usize,
    /// How often something had been taken out of the stream when that was last compared.
    removals: u64,
    hasher: RandomState,
}

impl Ready {
    pub(super) fn keep(&mut self, event: &Event) {
        let bytes = event.encoded_len();
        if self.bytes + bytes <= READY_BYTES && self.events.insert(event.sequence(), event.clone()).is_none() {
            self.bytes += bytes;
        }
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Event> {
        self.events.get(&sequence)
    }

    pub(super) fn take(&mut self, sequence: u64) -> Option<Event> {
        let event = self.events.remove(&sequence)?;
        self.bytes -= event.encoded_len();
        Some(event)
    }

    pub(super) fn forget_up_to(&mut self, sequence: u64) {
        while let Some(first) =
            self.events.first_key_value().map(|(first, _)| *first).filter(|first| *first <= sequence)
        {
            self.take(first);
        }
    }

    /// Forgets all of it if some of it may have been taken out of the stream since: what is wanted is read again.
    pub(super) fn look_for_removals(&mut self, removals: u64) {
        if self.removals != removals {
            self.removals = removals;
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }

    /// The hash of an event's ordering key, if it has one.
    pub(super) fn key_of(&self, event: &Event) -> Option<u64> {
        (!event.key().is_empty()).then(|| self.hasher.hash_one(event.key()))
    }

    /// Of these events, as a group is offered them, those that were appended at `begins` or later, in microseconds since
    /// 1970; 0 for all.
    pub(super) fn offered(&self, events: &[Event], begins: u64) -> impl Iterator<Item = (u64, Option<u64>)> {
        // Most groups begin with whatever comes, and need not read its time.
        let begins = (begins > 0).then(|| UNIX_EPOCH + Duration::from_micros(begins));
        let early = |event: &Event, begins| event.append_time().is_some_and(|time| time < begins);
        let events = events.iter().filter(move |event| begins.is_none_or(|begins| !early(event, begins)));
        events.map(|event| (event.sequence(), self.key_of(event)))
    }
}
