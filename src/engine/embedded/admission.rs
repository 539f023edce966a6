//! Whether a stream takes an append: what rests on another state of it, more topics than it may have, events that are larger
//! than all it keeps, which would push out everything, and themselves, and what is more than its owner or the memory of the
//! hub has room for. Decides, and changes nothing of the stream.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    draft::{Draft, Sealer},
    holdings::{self, Holdings, STAMP_BYTES},
    owners::Charges,
    repeats::Repeats,
    stream::Shared,
    waste::Waste,
};
use crate::{
    engine::{AppendError, Precondition},
    event::Event,
    memory::{MemoryFull, Use},
    model::Storage,
};

/// What decides on an append.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission<'a> {
    pub(super) stream: &'a Shared,
    pub(super) repeats: &'a Repeats,
    pub(super) holdings: &'a Holdings,
    pub(super) sealer: Sealer<'a>,
}

impl Admission<'_> {
    /// Whether an append may be put into the draft, which gets room for it then: all of it or nothing.
    pub(super) fn admit(
        &self,
        draft: &mut Draft,
        events: &[Event],
        precondition: Option<Precondition>,
        max_topics: usize,
        charges: &mut Charges,
    ) -> Result<(), AppendError> {
        if let Some(precondition) = precondition
            && (self.repeats.is_off() || !events.iter().all(|event| self.repeats.knows(event, draft.now)))
        {
            self.check(draft, events, precondition)?;
        }
        self.check_topics(draft, events, max_topics)?;
        self.check_bytes(draft, events, precondition.is_some())?;
        self.charge(draft, events.iter(), true, charges).map_err(|limit| AppendError::QuotaUsedUp { limit })?;
        self.reserve(draft, events.iter())?;
        Ok(())
    }

    /// Refuses what is not to be appended unless the stream is where its publisher takes it to be.
    fn check(&self, draft: &mut Draft, events: &[Event], precondition: Precondition) -> Result<(), AppendError> {
        let (expected, actual) = match precondition {
            Precondition::LastSequence(expected) => (expected, draft.place().0 - 1),
            Precondition::LastTopicSequence(expected) => {
                let Some(first) = events.first() else { return Ok(()) };
                if events.iter().any(|event| event.topic() != first.topic()) {
                    return Err(AppendError::MixedTopics);
                }
                let topic = first.topic().as_bytes();
                let drafted = draft.last_of(topic);
                (expected, drafted.or_else(|| self.stream.topics.read().last(topic, draft.now)).unwrap_or_default())
            }
        };
        if expected == actual { Ok(()) } else { Err(AppendError::SequenceMismatch { actual }) }
    }

    /// Refuses what would make too many topics. Counts exactly only when it is close.
    fn check_topics(&self, draft: &Draft, events: &[Event], limit: usize) -> Result<(), AppendError> {
        let topics = self.stream.topics.read();
        if topics.len() + draft.events() + events.len() <= limit {
            return Ok(());
        }
        let all = draft.topics().chain(events.iter().map(|event| event.topic().as_bytes()));
        let new: BTreeSet<&[u8]> = all.filter(|topic| !topics.has(topic)).collect();
        if topics.len() + new.len() <= limit { Ok(()) } else { Err(AppendError::TooManyTopics { limit }) }
    }

    /// Refuses an event that is larger than all that the stream keeps, or several that are if they are to be kept `together`.
    fn check_bytes(&self, draft: &Draft, events: &[Event], together: bool) -> Result<(), AppendError> {
        let Some(limit) = self.stream.settings.read().max_bytes else { return Ok(()) };
        let most: u64 = events.iter().map(|event| (event.encoded_len() + STAMP_BYTES) as u64).sum();
        if most <= limit {
            return Ok(());
        }
        let mut all = 0;
        for event in events {
            if self.repeats.knows(event, draft.now) {
                continue;
            }
            let bytes = self.sealer.stamped_len(event, draft.place()) as u64;
            all += bytes;
            if bytes > limit || (together && all > limit) {
                return Err(AppendError::NeverFits { bytes: if together { all } else { bytes }, limit });
            }
        }
        Ok(())
    }

    /// True for an event that the stream would not keep, were it the only one, stored at a sequence and time.
    pub(super) fn never_fits(&self, event: &Event, place: (u64, u64)) -> bool {
        let Some(limit) = self.stream.settings.read().max_bytes else { return false };
        self.sealer.stamped_len(event, place) as u64 > limit
    }

    /// Charges the owner for events that are about to be put into the draft, all or none. Where they may be
    /// `repetitions`, those that are known are not stored again.
    pub(super) fn charge<'a>(
        &self,
        draft: &Draft,
        events: impl Iterator<Item = &'a Event>,
        repetitions: bool,
        charges: &mut Charges,
    ) -> Result<(), u64> {
        if charges.is_off() {
            return Ok(());
        }
        let ((mut sequence, time), mut bytes) = (draft.place(), 0);
        let mut seen = BTreeSet::new();
        for event in events {
            let key = if !repetitions || self.repeats.is_off() { None } else { event.dedupe_key() };
            if key.is_some_and(|key| self.repeats.first_of(event, key, draft.now).is_some() || !seen.insert(key)) {
                continue;
            }
            bytes += self.sealer.stamped_len(event, (sequence, time)) as u64;
            sequence += 1;
        }
        let most = self.stream.settings.read().max_bytes.unwrap_or(u64::MAX);
        charges.add(&self.stream.share, self.stream.bounds().bytes + draft.stored(), most, bytes)
    }

    /// Reserves memory for events that are about to be put into the draft, for all or none. Counts exactly only when it is
    /// close.
    pub(super) fn reserve<'a>(
        &self,
        draft: &mut Draft,
        events: impl Iterator<Item = &'a Event> + Clone,
    ) -> Result<(), MemoryFull> {
        let mut bytes = self.most_topic_bytes(events.clone());
        if bytes > self.holdings.room(Use::Topics) {
            bytes = self.topic_bytes(events.clone());
        }
        if events.clone().any(|event| event.spans().ttl_ms.is_some()) {
            bytes += Waste::most_bytes(events.clone().map(Event::encoded_len).sum());
        }
        let topics = if bytes > 0 { Some(self.holdings.reserve(Use::Topics, bytes)?) } else { None };
        if self.stream.storage == Storage::Memory {
            let bytes = self.event_bytes(draft, events);
            if bytes > 0 {
                draft.hold(self.holdings.reserve(Use::MemoryStreams, bytes)?);
            }
        }
        if let Some(topics) = topics {
            draft.hold(topics);
        }
        Ok(())
    }

    /// What events add to the topics, if each is of a new one.
    fn most_topic_bytes<'a>(&self, events: impl Iterator<Item = &'a Event>) -> usize {
        let topics = self.stream.topics.read();
        let of_topic = topics.topic_bytes();
        let (mut bytes, mut before) = (0, None);
        for event in events {
            let topic = event.topic().as_bytes();
            if before != Some(topic) {
                bytes += of_topic + topic.len();
                before = Some(topic);
            }
            bytes += topics.most_event_bytes(event.spans().ttl_ms.is_some());
        }
        bytes
    }

    /// What events add to the topics.
    fn topic_bytes<'a>(&self, events: impl Iterator<Item = &'a Event>) -> usize {
        let topics = self.stream.topics.read();
        let (mut bytes, mut new) = (0, BTreeSet::new());
        for event in events {
            let topic = event.topic().as_bytes();
            if !topics.has(topic) && new.insert(topic) {
                bytes += topics.topic_bytes() + topic.len();
            }
            bytes += topics.event_bytes(topic, event.spans().ttl_ms.is_some());
        }
        bytes
    }

    /// What events add to a stream in memory, without those that they take the place of.
    fn event_bytes<'a>(&self, draft: &Draft, events: impl Iterator<Item = &'a Event>) -> usize {
        let (settings, bounds) = (Arc::clone(&self.stream.settings.read()), self.stream.bounds());
        let usual = bounds.bytes.checked_div(bounds.events).unwrap_or_default();
        let topics = self.stream.topics.read();
        let (mut taken, mut stored, mut count, mut replaced) = (0_usize, 0, 0, 0);
        let (first, time) = draft.place();
        for event in events {
            taken += holdings::event_bytes(event.encoded_len());
            stored += self.sealer.stamped_len(event, (first + count, time)) as u64;
            count += 1;
            replaced += u64::from(topics.is_full(event.topic().as_bytes()));
        }
        let over = |limit: Option<u64>, held: u64, more: u64| {
            limit.map_or(0, |limit| held.saturating_add(more).saturating_sub(limit).min(more))
        };
        let events_over = over(settings.max_events, bounds.events + draft.events() as u64, count);
        let bytes_over = over(settings.max_bytes, bounds.bytes + draft.stored(), stored);
        // As a part of what is stored: what that takes beside itself is replaced with it.
        let ended = bytes_over.max(usual.saturating_mul(events_over.max(replaced))).min(stored);
        let kept = u128::from(stored - ended) * taken as u128 / u128::from(stored.max(1));
        usize::try_from(kept).unwrap_or(usize::MAX)
    }
}
