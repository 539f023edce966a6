//! What a stream refuses: what rests on another state of it, more topics than it may have, and events that are larger than
//! all it keeps, which would push out everything, and themselves.

use std::collections::BTreeSet;

use super::{
    core::{Core, Draft},
    holdings::STAMP_BYTES,
};
use crate::{
    engine::{AppendError, Precondition},
    event::{Event, Seal},
};

impl Core {
    /// Refuses what is not to be appended unless the stream is where its publisher takes it to be.
    pub(super) fn check(
        &self,
        draft: &mut Draft,
        events: &[Event],
        precondition: Precondition,
    ) -> Result<(), AppendError> {
        let (expected, actual) = match precondition {
            Precondition::LastSequence(expected) => (expected, draft.place().0 - 1),
            Precondition::LastTopicSequence(expected) => {
                let Some(first) = events.first() else { return Ok(()) };
                if events.iter().any(|event| event.topic() != first.topic()) {
                    return Err(AppendError::MixedTopics);
                }
                let topic = first.topic().as_bytes();
                let drafted = draft.last_of(topic);
                (expected, drafted.or_else(|| self.shared.topics.read().last(topic, draft.now)).unwrap_or_default())
            }
        };
        if expected == actual { Ok(()) } else { Err(AppendError::SequenceMismatch { actual }) }
    }

    /// Refuses an event that is larger than all that the stream keeps, or several that are if they are to be kept `together`.
    pub(super) fn check_bytes(
        &self,
        draft: &Draft,
        events: &[Event],
        together: bool,
        seal: Seal,
    ) -> Result<(), AppendError> {
        let Some(limit) = self.shared.settings.read().max_bytes else { return Ok(()) };
        let most: u64 = events.iter().map(|event| (event.encoded_len() + STAMP_BYTES) as u64).sum();
        if most <= limit {
            return Ok(());
        }
        let (mut all, mut scratch) = (0, Vec::new());
        for event in events {
            if self.is_known(event, draft.now) {
                continue;
            }
            self.stamp(event, draft.place(), seal, &mut scratch);
            let bytes = scratch.len() as u64;
            all += bytes;
            if bytes > limit || (together && all > limit) {
                return Err(AppendError::NeverFits { bytes: if together { all } else { bytes }, limit });
            }
        }
        Ok(())
    }

    /// True for an event that the stream would not keep, were it the only one.
    pub(super) fn never_fits(&self, event: &Event, seal: Seal) -> bool {
        let Some(limit) = self.shared.settings.read().max_bytes else { return false };
        let mut stored = Vec::new();
        self.stamp(event, (self.next, self.time), seal, &mut stored);
        stored.len() as u64 > limit
    }

    /// Refuses what would make too many topics. Counts exactly only when it is close.
    pub(super) fn check_topics(&self, draft: &Draft, events: &[Event], limit: usize) -> Result<(), AppendError> {
        let topics = self.shared.topics.read();
        if topics.len() + draft.events() + events.len() <= limit {
            return Ok(());
        }
        let drafted = draft.pieces.iter().flat_map(|piece| piece.records.iter().map(|r| r.topic(&piece.buffer)));
        let all = drafted.chain(events.iter().map(|event| event.topic().as_bytes()));
        let new: BTreeSet<&[u8]> = all.filter(|topic| !topics.has(topic)).collect();
        if topics.len() + new.len() <= limit { Ok(()) } else { Err(AppendError::TooManyTopics { limit }) }
    }
}
