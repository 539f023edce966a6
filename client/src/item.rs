//! What comes for a subscription besides events: where it is, what it will not get, and why. Pure.

use std::time::Duration;

use crate::proto::v1;

/// Where a subscription is, from when it was opened last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The epoch of the stream; 0 for a live subscription.
    pub epoch: i64,
    /// The first sequence that can come; a member of a group may also get older ones, as a retry.
    pub start_sequence: i64,
    /// The earliest sequence the stream has; one more than the latest when it is empty.
    pub earliest_sequence: i64,
    /// The latest sequence the stream has.
    pub latest_sequence: i64,
    /// How long a member may take to settle an event, as its group is configured.
    pub ack_deadline: Option<Duration>,
}

impl From<&v1::Subscribed> for Opened {
    fn from(subscribed: &v1::Subscribed) -> Self {
        Self {
            epoch: subscribed.epoch,
            start_sequence: subscribed.start_sequence,
            earliest_sequence: subscribed.earliest_sequence,
            latest_sequence: subscribed.latest_sequence,
            ack_deadline: subscribed.ack_deadline.and_then(|deadline| deadline.try_into().ok()),
        }
    }
}

/// Events that a subscription does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// How many, where that is known.
    pub count: Option<u64>,
    /// The first sequence that is lost, in a stream.
    pub from: Option<i64>,
    /// The last one.
    pub to: Option<i64>,
    /// Why.
    pub reason: GapReason,
}

/// Why events are lost to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// A queue of the hub was full.
    Overflow,
    /// Later events of the same topics took their place, as asked.
    Conflated,
    /// The stream no longer keeps them.
    Retention,
    /// The stream was created again, restored, or lost its end.
    Epoch,
    /// The client had no session for a while, and nobody keeps events for this subscription.
    Away,
    /// For a reason that this version does not know, or for several.
    Other,
}

impl Gap {
    /// Makes one of two that follow each other.
    pub(crate) fn merge(&mut self, next: &Self) {
        self.count = self.count.zip(next.count).map(|(count, more)| count.saturating_add(more));
        self.from = self.from.or(next.from);
        self.to = next.to.or(self.to);
        if self.reason != next.reason {
            self.reason = GapReason::Other;
        }
    }
}

impl From<&v1::Gap> for Gap {
    fn from(gap: &v1::Gap) -> Self {
        let reason = match gap.reason() {
            v1::GapReason::Overflow => GapReason::Overflow,
            v1::GapReason::Conflated => GapReason::Conflated,
            v1::GapReason::Retention => GapReason::Retention,
            v1::GapReason::Epoch => GapReason::Epoch,
            v1::GapReason::Unspecified => GapReason::Other,
        };
        let known = |value: i64| Some(value).filter(|value| *value > 0);
        let count = known(gap.count).and_then(|count| u64::try_from(count).ok());
        Self { count, from: known(gap.from_sequence), to: known(gap.to_sequence), reason }
    }
}
