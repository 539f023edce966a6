//! What one stream holds of the memory of the hub: its definition, its topics, its ids, and, when it is kept in memory, its
//! events.
//!
//! The committer alone changes it. Before an append is drafted, room is reserved for what it may add at most, or it is
//! refused; once it is applied, what is really there is held instead. What limits, purges and deletions end is given
//! back, and opening the store counts anew, beyond the limits if need be: a hub must start.

use std::{collections::BTreeMap, sync::Arc};

use super::batch::HEAD_BYTES;
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

/// What a stream holds.
#[derive(Debug)]
pub(super) struct Holdings {
    client: Arc<Client>,
    definition: Held,
    topics: Held,
    ids: Held,
    events: Held,
}

/// How much memory the batches of a stream in memory take, by their first sequences.
#[derive(Debug, Default)]
pub(super) struct BatchSizes {
    of: BTreeMap<u64, usize>,
    all: usize,
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
        Self { client, definition, topics, ids, events }
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

    /// Holds what is there.
    pub(super) fn set(&mut self, topics: usize, ids: usize, events: usize) {
        self.topics.set(topics);
        self.ids.set(ids);
        self.events.set(events);
    }
}

impl BatchSizes {
    /// A batch has so many bytes now; 0: it is gone.
    pub(super) fn resize(&mut self, first: u64, bytes: usize) {
        let bytes = batch_bytes(bytes);
        let before = if bytes == 0 { self.of.remove(&first) } else { self.of.insert(first, bytes) };
        self.all = self.all + bytes - before.unwrap_or_default();
    }

    /// What they take together.
    pub(super) fn bytes(&self) -> usize {
        self.all
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
