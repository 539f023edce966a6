//! Finding the last events of topics of which the last was taken out before others: back from there, some batches at a time.

use std::collections::HashMap;

use super::{
    batch::{Record, Records},
    store::{Loaded, Trouble},
    stream::Shared,
    waste::Waste,
};

/// So far back the last event of a topic is looked for, in bytes, when the one after it was taken out.
const FIND_BYTES: usize = 64 * 1024 * 1024;
/// So many bytes of batches are looked at in one go: what else waits to be written waits no longer than that.
const AT_ONCE_BYTES: usize = 4 * 1024 * 1024;

/// What is taken out of the store: its topic, and where it was.
pub(super) type Gone = (Box<[u8]>, Record);

/// A search for the last events of topics.
#[derive(Debug, Default)]
pub(super) struct Lasts {
    /// Of each how many of its events were found.
    wanted: HashMap<Box<[u8]>, u64>,
    at: u64,
    looked: usize,
}

impl Lasts {
    /// For the topics of what is gone of which the last event is to be found, if there are any.
    pub(super) fn of(stream: &Shared, gone: &[Gone]) -> Option<Self> {
        let mut topics = stream.topics.write();
        let lacking = gone.iter().filter(|(topic, _)| topics.lacks_last(topic));
        let wanted: HashMap<Box<[u8]>, u64> = lacking.map(|(topic, _)| (topic.clone(), 0)).collect();
        let at = gone.iter().map(|(_, record)| record.sequence).max().unwrap_or_default().max(topics.take_forgotten());
        (!wanted.is_empty()).then_some(Self { wanted, at, looked: 0 })
    }

    /// Looks for more topics, at `at` or before.
    pub(super) fn add(&mut self, topics: Vec<Box<[u8]>>, at: u64) {
        self.wanted.extend(topics.into_iter().map(|topic| (topic, 0)));
        self.at = self.at.max(at);
    }

    /// Looks no longer for topics that have no event left.
    pub(super) fn drop_empty(&mut self, stream: &Shared) {
        self.wanted.retain(|topic, found| *found > 0 || stream.topics.read().lacks_last(topic));
    }

    /// Looks some way back; true when there is no more to look at, or what was looked at is enough. What is further back is
    /// known again when the store is opened.
    pub(super) fn find(&mut self, stream: &Shared, waste: &Waste) -> Result<bool, Trouble> {
        let (id, floor) = (stream.id, stream.bounds().floor);
        let batches = stream.store().batches()?;
        let mut looked = 0;
        while !self.wanted.is_empty()
            && self.at >= floor
            && let Some(Loaded { head, value }) = batches.covering(id, self.at)?
        {
            let mut found = Vec::new();
            for record in Records::new(&head, &value) {
                let record = record.map_err(Trouble::batch(id, head.first))?;
                let gone = record.sequence < floor || waste.is_over(head.first, &record, &stream.warp);
                if !gone && record.sequence <= self.at && self.wanted.contains_key(record.topic(&value)) {
                    found.push(record);
                }
            }
            let mut topics = stream.topics.write();
            for record in found.iter().rev() {
                let ends = record.ends(&stream.warp);
                let topic = record.topic(&value);
                topics.found(topic, record.sequence, ends);
                let Some(found) = self.wanted.get_mut(topic) else { continue };
                *found += 1;
                // As long as they end, there may be one before that outlives them.
                if ends == u64::MAX || *found >= topics.count(topic) {
                    self.wanted.remove(topic);
                }
            }
            drop(topics);
            self.at = head.first.saturating_sub(1);
            looked += value.len();
            self.looked += value.len();
            if self.looked >= FIND_BYTES {
                break;
            }
            if looked >= AT_ONCE_BYTES {
                return Ok(false);
            }
        }
        if self.looked >= FIND_BYTES {
            let known = stream.topics.read();
            let topics = self.wanted.keys().filter(|topic| known.lacks_last(topic)).count();
            if topics > 0 {
                tracing::warn!(stream = %stream.name, topics, "the last events of some topics are too far back and unknown until a restart");
            }
        }
        Ok(true)
    }
}
