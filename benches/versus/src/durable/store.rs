//! What every store that is measured must be able to do, and what is found of it. Knows no store.

use std::cell::RefCell;

use anyhow::{Context, ensure};
use switchyard::bench::{Check, Expectation, Outgoing, Record};

use crate::contender::{Contender, Cost};

/// The stream, and the one topic that it holds.
pub(super) const STREAM: &str = "bench";
pub(super) const TOPIC: &str = "bench.durable";
/// The group.
pub(super) const GROUP: &str = "workers";
/// So many events may be with all members together,
pub(super) const MOST_UNACKED: u32 = 4096;
/// and so many does one of them ask for at a time.
pub(super) const MOST_OF_MEMBER: u32 = 1024;

/// What stores events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A stream of the hub that answers once what it stores is written to the disk.
    Hub,
    /// A file stream of JetStream as it is by default: written to the disk every two minutes.
    JetStream,
    /// The same with `sync_interval: always`.
    JetStreamAlways,
}

/// One thing that a repetition found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Of which row.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) cost: Option<Cost>,
}

impl Store {
    pub(crate) const ALL: [Self; 3] = [Self::Hub, Self::JetStream, Self::JetStreamAlways];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::JetStream => "jetstream",
            Self::JetStreamAlways => "jetstream, sync always",
        }
    }

    /// In whose column its figures are.
    pub(crate) fn contender(self) -> Contender {
        match self {
            Self::Hub => Contender::Hub,
            Self::JetStream | Self::JetStreamAlways => Contender::Nats,
        }
    }
}

/// A server that has a stream, as its clients see it.
pub(super) trait EventStore {
    type Publisher: Publisher;

    /// Makes the stream.
    async fn create(&self) -> anyhow::Result<()>;
    /// Connects one that publishes.
    async fn publisher(&self) -> anyhow::Result<Self::Publisher>;
    /// Connects one that reads, from the earliest event on, until everything was shown.
    async fn replay(&self, replay: &mut Replay) -> anyhow::Result<()>;
}

/// Stores events.
pub(super) trait Publisher {
    /// Sends a batch, in order. The batch is emptied.
    async fn send(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()>;
    /// Waits for answers. How many further events are stored, each at the sequence behind the one before.
    async fn answered(&mut self) -> anyhow::Result<u64>;
}

/// A store whose events a group can share.
pub(super) trait Shared: EventStore {
    type Member: Member;

    /// Makes the group. It begins at the earliest event.
    async fn group(&self) -> anyhow::Result<()>;
    /// Connects a member, which gets nothing yet.
    async fn member(&self) -> anyhow::Result<Self::Member>;
    /// Whether everything up to this sequence is acknowledged and nothing is left, as the server says.
    async fn is_done(&self, sequence: u64) -> anyhow::Result<bool>;
}

/// One member of a group.
pub(super) trait Member {
    /// Takes events and acknowledges each, until the tally is full.
    async fn work(&mut self, tally: &RefCell<Tally>) -> anyhow::Result<()>;
}

/// Checks what is read.
pub(super) struct Replay {
    pub(super) expectation: Expectation,
    pub(super) seen: u64,
    /// How many there are.
    pub(super) events: u64,
}

impl Replay {
    pub(super) fn is_done(&self) -> bool {
        self.seen >= self.events
    }
}

impl Check for Replay {
    fn check(&mut self, payload: &[u8]) {
        self.expectation.check(payload);
        self.seen += 1;
    }
}

/// What all members did together.
pub(super) struct Tally {
    /// How often each event came, by its place in the stream.
    came: Vec<u8>,
    /// Which of them are acknowledged.
    acknowledged: Vec<bool>,
    pub(super) left: u64,
}

impl Tally {
    pub(super) fn new(events: u64) -> Self {
        Self { came: vec![0; events as usize], acknowledged: vec![false; events as usize], left: events }
    }

    /// An event came. Tells its sequence, which must be `sequence` if that is known.
    pub(super) fn came(&mut self, payload: &[u8], sequence: Option<u64>) -> anyhow::Result<u64> {
        let record = Record::read(payload).context("an event is damaged")?;
        let place = record.sequence as usize;
        let told = u64::from(record.sequence) + 1;
        ensure!(sequence.is_none_or(|sequence| sequence == told), "event {place} came as {sequence:?}");
        let times = self.came.get_mut(place).with_context(|| format!("there is no event {place}"))?;
        *times = times.saturating_add(1);
        Ok(told)
    }

    /// An event is acknowledged.
    pub(super) fn acknowledged(&mut self, sequence: u64) -> anyhow::Result<()> {
        let place = sequence as usize - 1;
        ensure!(self.came.get(place).is_some_and(|times| *times > 0), "{sequence} never came");
        if !std::mem::replace(&mut self.acknowledged[place], true) {
            self.left -= 1;
        }
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// How many events came again.
    pub(super) fn again(&self) -> u64 {
        self.came.iter().map(|times| u64::from(*times).saturating_sub(1)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(sequence: u32) -> Vec<u8> {
        let mut payload = vec![0; 32];
        Record { publisher: 0, topic: 0, sequence, intended: 0 }.write(&mut payload);
        payload
    }

    #[test]
    fn a_tally_is_full_when_every_event_is_acknowledged_and_counts_those_that_came_again() {
        let mut tally = Tally::new(2);
        for (place, sequence) in [(1, Some(2)), (0, None), (1, Some(2))] {
            assert!(!tally.is_full());
            let sequence = tally.came(&payload(place), sequence).expect("it fits");
            tally.acknowledged(sequence).expect("it came");
        }
        assert!(tally.is_full());
        assert_eq!(tally.again(), 1);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let mut tally = Tally::new(1);
        assert!(tally.came(&payload(0), Some(7)).is_err());
        assert!(tally.came(&payload(1), None).is_err());
        assert!(tally.came(b"damaged", None).is_err());
        assert!(tally.acknowledged(1).is_err());
    }
}
