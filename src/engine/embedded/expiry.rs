//! Events past their ttl end as by a limit: they are counted no more, and leave the store.
//!
//! Of each batch that has events with a ttl it is known when the first of them ends that was not counted as gone. Once that time
//! is there the batch is read, and what has ended in it is gone; the store follows as it does for limits on topics. Readers and
//! preconditions look at the times themselves and need not wait for this. What limits end does: the living are not to be
//! pushed out by the dead.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    batch::Records,
    end::End,
    retention::{Retention, TRIM_BYTES},
    store::{Loaded, Trouble},
};
use crate::event::Event;

impl Retention {
    /// True when an append has to wait until what is past its ttl is counted no more: what limits end for it is to be alive.
    pub(super) fn awaits_expiry(&self, events: &[Event], more: usize, max_topics: usize, now: u64) -> bool {
        let limited = || {
            let settings = self.stream.settings.read();
            let limits = [settings.max_events, settings.max_bytes, settings.max_events_per_topic];
            limits.iter().any(Option::is_some) || self.stream.topics.read().len() + more + events.len() > max_topics
        };
        self.waste.next_due(now).is_some() && limited()
    }

    /// Counts events that are past their ttl as gone, until batches of so many bytes were read; true when there are more.
    pub(super) fn expire(&mut self, end: &End, now: u64, at_once: usize) -> Result<bool, Trouble> {
        let (mut read, mut more) = (0, false);
        if self.waste.next_due(now).is_none() {
            return Ok(false);
        }
        let stream = Arc::clone(&self.stream);
        let batches = stream.store().batches()?;
        while let Some(first) = self.waste.next_due(now) {
            more = read >= at_once;
            if more {
                break;
            }
            match batches.covering(stream.id, first)? {
                Some(loaded) if loaded.head.first == first => {
                    read += loaded.value.len();
                    self.expire_in(end, &loaded, now)?;
                }
                // It was deleted, or what was left of it is part of the one before.
                _ => self.waste.set_due(first, u64::MAX),
            }
        }
        stream.weigh();
        Ok(more)
    }

    fn expire_in(&mut self, end: &End, Loaded { head, value }: &Loaded, now: u64) -> Result<(), Trouble> {
        let stream = Arc::clone(&self.stream);
        let (was, floor) = (self.waste.due(head.first), stream.bounds().floor);
        let (mut due, mut gone) = (u64::MAX, Vec::new());
        for record in Records::new(head, value) {
            let record = record.map_err(Trouble::batch(stream.id, head.first))?;
            let ends = record.ends(&stream.warp);
            if ends > now {
                due = due.min(ends);
            } else if ends >= was && record.sequence >= floor {
                gone.push(record);
            }
        }
        let mut topics = stream.topics.write();
        // Others may have been pushed out of their topics before.
        gone.retain(|record| topics.expire(record.topic(value), record.sequence));
        let lacking = gone.iter().filter(|record| topics.lacks_last(record.topic(value)));
        let lacking: Vec<Box<[u8]>> = lacking.map(|record| record.topic(value).into()).collect();
        drop(topics);
        let mut bounds = stream.bounds.lock();
        bounds.events -= gone.len() as u64;
        bounds.bytes = bounds.bytes.saturating_sub(gone.iter().map(|record| u64::from(record.len)).sum());
        drop(bounds);
        self.waste.set_due(head.first, due);
        self.expired |= !gone.is_empty();
        for record in &gone {
            self.push_out(end, record.sequence, record.len);
        }
        self.look_for(lacking, head.last);
        Ok(())
    }

    /// The last events of these topics are not known, and are to be found at `at` or before.
    fn look_for(&mut self, topics: Vec<Box<[u8]>>, at: u64) {
        if !topics.is_empty() {
            self.search.get_or_insert_default().add(topics, at);
        }
    }

    /// What time brings when nothing else does: true when there is more of it.
    pub(super) fn expire_some(&mut self, end: &End, now: u64) -> Result<bool, Trouble> {
        let mut more = self.expire(end, now, TRIM_BYTES)?;
        if !more && let Some(mut search) = self.search.take() {
            // Most of them have no event left by now.
            search.drop_empty(&self.stream);
            more = !search.find(&self.stream, &self.waste)?;
            self.search = Some(search).filter(|_| more);
        }
        if std::mem::take(&mut self.expired) {
            // Not each time: whoever read ahead reads anew for it.
            self.stream.removals.fetch_add(1, Relaxed);
        }
        Ok(more)
    }
}
