//! The round of the fair writer: which subscriptions are served, in turn. Pure.

use std::collections::VecDeque;

use super::attention::SubscriptionKey;

/// Subscriptions that have something to send. One that ends stays until its turn comes, or until such ones are half of all.
#[derive(Debug, Default)]
pub(super) struct Round {
    ready: VecDeque<SubscriptionKey>,
    /// How many in `ready` are gone.
    stale: usize,
}

impl Round {
    /// True when there is one that is not gone.
    pub(super) fn has_any(&self) -> bool {
        self.ready.len() > self.stale
    }

    pub(super) fn push(&mut self, key: SubscriptionKey) {
        self.ready.push_back(key);
    }

    /// Whose turn it is, which may be gone: see [`Self::was_gone`].
    pub(super) fn pop(&mut self) -> Option<SubscriptionKey> {
        self.ready.pop_front()
    }

    /// The one whose turn it was is gone.
    pub(super) fn was_gone(&mut self) {
        self.stale = self.stale.saturating_sub(1);
    }

    /// One of them is gone now.
    pub(super) fn leave(&mut self, is_live: impl Fn(SubscriptionKey) -> bool) {
        self.stale += 1;
        if self.stale > self.ready.len() / 2 {
            self.ready.retain(|key| is_live(*key));
            self.stale = 0;
        }
    }
}
