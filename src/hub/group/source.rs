//! The stream of a group as its task reads it: not while it waits after a failure, and no more once the group is over.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{clock::Clock, key::Key};
use crate::{
    engine::{EventStream, MAX_SEQUENCES, ReadError, StoreError},
    event::{Event, GivenUp},
    groups::DeadLetter,
    model::{Origin, Position, StreamError},
    outbox::{Opened, ResumeOutcome, Returned},
};

/// After a read that failed, the next is tried this much later.
const RETRY_MS: u64 = 1_000;

/// Where the events of one group come from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) key: Key,
    pub(super) stream: Arc<dyn EventStream>,
    pub(super) clock: Clock,
    /// After a failure: nothing is read before.
    retry_at: u64,
    /// The group is no more.
    over: Option<StreamError>,
}

impl Source {
    pub(super) fn new(key: Key, stream: Arc<dyn EventStream>, clock: Clock) -> Self {
        Self { key, stream, clock, retry_at: 0, over: None }
    }

    /// The group is no more.
    pub(super) fn end(&mut self, why: StreamError) {
        self.over = Some(why);
    }

    /// The stream is gone, or is being recovered.
    pub(super) fn close(&mut self) {
        self.over = Some(self.stream.why_closed());
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Why the group is no more, to be asked once.
    pub(super) fn take_end(&mut self) -> Option<StreamError> {
        self.over.take()
    }

    /// False when it is over, and until it is time to read again after a failure.
    pub(super) fn may_read(&self, now: u64) -> bool {
        self.over.is_none() && now >= self.retry_at
    }

    /// The time is over for which nothing is read.
    pub(super) fn look_again(&mut self, now: u64) {
        if now >= self.retry_at {
            self.retry_at = 0;
        }
    }

    pub(super) fn due(&self) -> Option<u64> {
        (self.retry_at > 0).then_some(self.retry_at)
    }

    pub(super) fn failed_to_read(&mut self, error: &ReadError) {
        match error {
            ReadError::Closed | ReadError::Store(StoreError::Recovering) => self.close(),
            error => {
                let (stream, group) = (&self.key.stream, self.key.group.as_str());
                tracing::warn!(%stream, group, %error, "cannot read the stream of a group");
                self.retry_at = self.clock.now() + RETRY_MS;
            }
        }
    }

    /// The last sequence that readers may see.
    pub(super) fn latest(&self) -> u64 {
        *self.stream.visible().borrow()
    }

    /// Events of these sequences, without those that are not kept; `None` when they cannot be read now.
    pub(super) async fn fetch(&mut self, mut sequences: Vec<u64>) -> Option<HashMap<u64, Event>> {
        sequences.sort_unstable();
        sequences.truncate(MAX_SEQUENCES);
        if sequences.is_empty() {
            return Some(HashMap::new());
        }
        match self.stream.get(sequences).await {
            Ok(chunk) => Some(chunk.events.into_iter().map(|event| (event.sequence(), event)).collect()),
            Err(ReadError::Lost { .. }) => Some(HashMap::new()),
            Err(error) => {
                self.failed_to_read(&error);
                None
            }
        }
    }

    /// True for an event that was read ahead and that the stream does not give any more: it was purged, or is past its ttl.
    pub(super) fn is_over_for(&self, event: &Event, earliest: u64) -> bool {
        let expired = || {
            let ttl = Duration::from_millis(event.spans().ttl_ms?.get());
            // By the clock that the stream goes by, which is not that of leases.
            Some(self.stream.age(event.append_time()?) >= ttl)
        };
        event.sequence() < earliest || expired().unwrap_or(false)
    }

    /// What a member learns that gets what comes after `floor`.
    pub(super) fn opened(&self, floor: u64, ack_deadline: Option<Duration>) -> Opened {
        let kept = self.stream.bounds();
        let origin = Arc::new(Origin { stream: self.key.stream.clone(), epoch: self.key.epoch });
        Opened {
            position: Position { origin, sequence: floor.max(kept.earliest.saturating_sub(1)) },
            earliest: kept.earliest,
            latest: kept.latest,
            outcome: ResumeOutcome::Fresh,
            ack_deadline,
            returned: Returned::default(),
        }
    }

    /// An event that the group gave up, as a dead letter.
    pub(super) fn dead_letter(&self, letter: &DeadLetter, event: &Event) -> Event {
        event.dead_letter(&GivenUp {
            stream: self.key.stream.as_str(),
            sequence: letter.sequence,
            group: self.key.group.as_str(),
            attempts: letter.attempts,
            reason: &letter.reason,
        })
    }
}
