//! Where the router keeps a subscription, as a value that is handed back to it. Pure.

use std::num::NonZeroU32;

use smallvec::SmallVec;

/// Where the router keeps a subscription. Opaque to the outbox, which only hands it back when the subscription ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The places in the trie.
    pub nodes: SmallVec<[u32; 4]>,
    /// The group, 0 for none.
    pub group: u32,
    /// How many tokens its filters have together. Never 0, which saves a subscription 8 bytes.
    pub tokens: NonZeroU32,
}
