//! What one stream holds of the memory of the hub: its definition, its topics, its ids, and, when it is kept in memory, its
//! events.
//!
//! The committer alone changes it. Before an append is drafted, room is reserved for what it may add at most, or it is
//! refused; once it is applied, what is really there is held instead. What limits, purges and deletions end is given
//! back, and opening the store counts anew, beyond the limits if need be: a hub must start.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{batch::HEAD_BYTES, committer::Committer, core::Core};
use crate::{
    engine::routes::TOKEN_BYTES,
    memory::{Client, Held, Memory, MemoryFull, Use},
    model::StreamSettings,
};

/// What the database adds to a batch in its page.
const PAGE_HEAD_BYTES: usize = 64;
/// A batch has pages of its own from this size on; smaller ones share them.
const OWN_PAGE_BYTES: usize = 2 * 1024;
/// The smallest page.
const PAGE_BYTES: usize = 4 * 1024;
/// What a stream adds to an event that it stores: its name, numbers, and where the fields stand.
pub(super) const STAMP_BYTES: usize = 160;
/// What a filter costs besides its text, which is there twice, and its tokens.
const FILTER_BYTES: usize = 32;
/// Who holds too many ids gives up this part of them at least, so that it is not asked for each.
const IDS_PART: usize = 16;

/// The log is told of ids that are forgotten too early no more often.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// What a stream holds.
#[derive(Debug)]
pub(super) struct Holdings {
    client: Arc<Client>,
    definition: Held,
    topics: Held,
    ids: Held,
    events: Held,
    /// How much memory each batch takes, in streams in memory.
    batches: BTreeMap<u64, usize>,
    batch_bytes: usize,
}

impl Holdings {
    /// Of a stream of which only its definition is there.
    pub(super) fn new(memory: &Arc<Memory>, definitions: &Arc<Client>, settings: &StreamSettings) -> Self {
        let client = memory.client();
        let mut definition = definitions.nothing(Use::Filters);
        definition.set(definition_bytes(settings));
        let nothing = |of| client.nothing(of);
        let (topics, ids, events) =
            (nothing(Use::Topics), memory.client().nothing(Use::Ids), nothing(Use::MemoryStreams));
        Self { client, definition, topics, ids, events, batches: BTreeMap::new(), batch_bytes: 0 }
    }

    /// The stream is defined in another way.
    pub(super) fn redefine(&mut self, settings: &StreamSettings) {
        self.definition.set(definition_bytes(settings));
    }

    /// Holds room for what is about to be added.
    pub(super) fn reserve(&self, of: Use, bytes: usize) -> Result<Held, MemoryFull> {
        self.client.hold(of, bytes)
    }

    /// How much more would fit, in bytes.
    pub(super) fn room(&self, of: Use) -> usize {
        self.client.room_bytes(of)
    }

    /// A batch has so many bytes now; 0: it is gone.
    pub(super) fn resize(&mut self, first: u64, bytes: usize) {
        let bytes = batch_bytes(bytes);
        let before = if bytes == 0 { self.batches.remove(&first) } else { self.batches.insert(first, bytes) };
        self.batch_bytes = self.batch_bytes + bytes - before.unwrap_or_default();
    }

    /// Holds what is there.
    pub(super) fn set(&mut self, topics: usize, ids: usize) {
        self.topics.set(topics);
        self.ids.set(ids);
        self.events.set(self.batch_bytes);
    }
}

/// What a batch takes in memory: the pages of the database come in powers of two.
fn batch_bytes(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ if bytes < OWN_PAGE_BYTES => (bytes + PAGE_HEAD_BYTES) * 3 / 2,
        _ => (bytes + PAGE_HEAD_BYTES).next_power_of_two().max(PAGE_BYTES),
    }
}

/// What an event of so many bytes may take in memory, whatever it shares a batch with.
pub(super) fn event_bytes(bytes: usize) -> usize {
    let bytes = bytes + STAMP_BYTES;
    if bytes < OWN_PAGE_BYTES { bytes * 3 / 2 } else { batch_bytes(bytes + HEAD_BYTES) }
}

/// What the definition of a stream takes in memory, in bytes.
pub(super) fn definition_bytes(settings: &StreamSettings) -> usize {
    let of_filter = |text: &str| 2 * text.len() + text.split('.').count() * TOKEN_BYTES + FILTER_BYTES;
    settings.filters.iter().map(|filter| of_filter(filter.as_str())).sum()
}

/// When streams know more ids than fit, those that know most forget their oldest, so that whoever has few is not harmed.
pub(super) fn bound_ids(cores: &mut BTreeMap<u64, Core>, memory: &Memory) {
    let mut forgotten = 0;
    loop {
        let over = memory.held_bytes(Use::Ids).saturating_sub(memory.limit_bytes(Use::Ids));
        if over == 0 {
            break;
        }
        let most = cores.values_mut().max_by_key(|core| core.repeats.len());
        let Some(core) = most.filter(|core| core.repeats.len() > 0) else { break };
        let known = core.repeats.len();
        let too_many = over.div_ceil(core.ids_bytes() / known);
        forgotten += core.repeats.forget_oldest(too_many.max(known / IDS_PART)) as u64;
        core.weigh();
    }
    if forgotten > 0 {
        memory.gave_up(Use::Ids, forgotten);
    }
}

/// Ids that were forgotten before their time, as long as the log was not told.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    early: u64,
    told_at: Option<Instant>,
}

impl Forgotten {
    /// How many there are, if it is time to tell.
    fn take_due(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|told| now < told + TELL_INTERVAL) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.early))
    }
}

impl Committer {
    /// Counts the ids that streams had too many of, and says so once a minute at most.
    pub(super) fn count_early_forgotten(&mut self, now: Instant) {
        let mut of = None;
        for core in self.cores.values_mut() {
            let early = core.repeats.take_early();
            if early > 0 {
                self.metrics.dedupe_ids_forgotten(early);
                self.forgotten.early += early;
                of = Some(core.shared.name.clone());
            }
        }
        if let Some((stream, early)) = of.zip(self.forgotten.take_due(now)) {
            let (limit, memory) = (self.options.max_dedupe_ids, self.stores.accountant.limit_bytes(Use::Ids));
            tracing::warn!(%stream, early, limit, memory, "duplicates may be stored: ids are forgotten before the dedupe window ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_forgotten_early_are_told_once_a_minute_and_all_of_them() {
        let (mut forgotten, start) = (Forgotten::default(), Instant::now());
        let told = [0, 30, 59, 60, 119].map(|second| {
            forgotten.early += 5;
            forgotten.take_due(start + Duration::from_secs(second))
        });
        assert_eq!(told, [Some(5), None, None, Some(15), None]);
    }
}
