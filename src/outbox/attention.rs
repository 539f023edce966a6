//! What an outbox has for its session to do: which subscriptions are over, and which want to be looked after. Pure.

use super::route::Route;

/// Names one subscription of one session for good: the slot is used again, the generation never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// Where it is.
    pub slot: u32,
    /// Which of those that were there.
    pub generation: u32,
}

/// A subscription that is over, for the router to forget.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which one.
    pub key: SubscriptionKey,
    /// Where the router kept it.
    pub route: Route,
}

/// Subscriptions that their session has to do something for.
#[derive(Debug, Default)]
pub struct Attention {
    /// Their queues are low.
    pub hungry: Vec<SubscriptionKey>,
    /// They are over.
    pub gone: Vec<SubscriptionKey>,
    /// Of members of groups: the sequences that the writer took, in order.
    pub sent: Vec<(SubscriptionKey, Vec<u64>)>,
    /// Of members of groups: the sequences that will not be sent after all, for want of memory.
    pub dropped: Vec<(SubscriptionKey, Vec<u64>)>,
    /// Live ones that are over, for the router to forget.
    pub closed: Vec<Closed>,
}

impl Attention {
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        let Self { hungry, gone, sent, dropped, closed } = self;
        hungry.is_empty() && gone.is_empty() && sent.is_empty() && dropped.is_empty() && closed.is_empty()
    }
}
