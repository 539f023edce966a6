//! What goes into an engine and what comes out.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{AppendError, StoreError};
use crate::{
    event::Event,
    model::{Filter, Group, GroupSettings, Origin, StreamName, Topic},
};

/// The most sequences that are looked at in one call.
pub const MAX_SEQUENCES: usize = 1_000;

/// Events for one stream.
#[derive(Debug)]
pub struct Append {
    /// At least one, in order.
    pub events: Vec<Event>,
    /// What must hold for them to be appended.
    pub precondition: Option<Precondition>,
}

/// What must hold for an append to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The last sequence given out in the stream; 0 before the first.
    LastSequence(u64),
    /// The last sequence kept of the topic that every event of the append has; 0 when none is.
    LastTopicSequence(u64),
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence; of the first one, for a repetition.
    pub sequence: u64,
    /// The epoch of the stream.
    pub epoch: i64,
    /// It was known already.
    pub duplicate: bool,
}

/// The results of an append that has its place in the order: a future of them.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Vec<Appended>, AppendError>>);

impl Receipt {
    /// A receipt, and where its results are to be sent.
    pub fn new() -> (oneshot::Sender<Result<Vec<Appended>, AppendError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }
}

impl Future for Receipt {
    type Output = Result<Vec<Appended>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Who was to answer is gone: whether the events are stored nobody knows.
        Pin::new(&mut self.0).poll(context).map(|sent| sent.unwrap_or(Err(StoreError::Unavailable.into())))
    }
}

/// How much one read gives.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// At most so many events, at least 1.
    pub events: usize,
    /// No event is added once there are so many encoded bytes.
    pub bytes: usize,
}

/// What one read found.
#[derive(Debug, Default)]
pub struct Chunk {
    /// What matched, in order.
    pub events: Vec<Event>,
    /// As far as this read looked.
    pub through: u64,
    /// The last sequence that was visible when it looked.
    pub latest: u64,
}

/// Which topics of a stream are asked for.
#[derive(Debug, Clone, Copy)]
pub struct TopicsAsked<'a> {
    /// Those behind this name.
    pub after: &'a [u8],
    /// Those that begin with this.
    pub prefix: &'a [u8],
    /// Those that match this; every one without.
    pub filter: Option<&'a Filter>,
    /// So many at most.
    pub most: usize,
}

/// A topic that a stream has events of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptTopic {
    name: Box<[u8]>,
    /// How many are kept. What is past its ttl may be counted still, and what nobody can read yet already.
    pub events: u64,
    /// The sequence of the last one; `None` while it is looked for, since what was the last is gone.
    pub last: Option<u64>,
}

impl KeptTopic {
    /// Of a topic.
    pub fn new(topic: Topic<'_>, events: u64, last: Option<u64>) -> Self {
        Self { name: topic.as_bytes().into(), events, last }
    }

    /// Which it is.
    pub fn topic(&self) -> Topic<'_> {
        Topic::checked(&self.name)
    }
}

/// Some topics of a stream.
#[derive(Debug, Default)]
pub struct TopicsFound {
    /// By name.
    pub topics: Vec<KeptTopic>,
    /// As far as was looked, where there may be more.
    pub through: Option<Box<[u8]>>,
}

/// When events were appended.
#[derive(Debug, Default)]
pub struct AppendTimes {
    /// By sequence.
    pub times: Vec<(u64, SystemTime)>,
    /// So many bytes were read to find out.
    pub read_bytes: usize,
}

/// A store that was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// How many streams it has.
    pub streams: usize,
}

/// What a group knows a dead letter by, the same when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The sequence of its event.
    pub sequence: u64,
    /// Another once the event was given back or the group was moved: what is given up then is another letter.
    pub round: u64,
}

impl LetterId {
    /// The first letter of the event with this sequence.
    pub fn first(sequence: u64) -> Self {
        Self { sequence, round: 0 }
    }
}

/// An event that a group gives up.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// What its group knows it by.
    pub id: LetterId,
    /// Where it goes.
    pub stream: StreamName,
    /// What is appended there.
    pub event: Event,
}

/// What a stream keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first sequence that may be kept; one behind the last when none is.
    pub earliest: u64,
    /// The last one; 0 before the first.
    pub latest: u64,
}

/// Dead letters whose events a group has back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LettersBack {
    /// The stream they are in.
    pub letters: Origin,
    /// Their sequences there. At most [`MAX_SEQUENCES`].
    pub sequences: Vec<u64>,
}

/// A group as the engine keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGroup {
    /// Its name.
    pub group: Group,
    /// How it is set up.
    pub settings: GroupSettings,
    /// What was saved last; empty when nothing was.
    pub state: Bytes,
}

/// How the time that streams go by and the wall clock stand.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ClockState {
    /// How far the wall clock is ahead, in seconds.
    pub offset_seconds: f64,
    /// How far what the most advanced stream is stamped with is ahead, in seconds.
    pub ahead_seconds: f64,
}

/// Whether publishes to streams can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// They can.
    Good,
    /// There is no room; it heals by itself.
    Full,
    /// The store failed or is closed.
    Unavailable,
}
