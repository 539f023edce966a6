//! The router's view of an outbox: live events come in.

use std::sync::Arc;

use super::{
    attention::{Closed, SubscriptionKey},
    lock::Outbox,
    queues::Offer,
};
use crate::event::Event;

/// Offers live events to the subscriptions of one client.
#[derive(Debug, Clone)]
pub struct Inlet(Arc<Outbox>);

impl Inlet {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self(outbox)
    }

    /// Offers events to subscriptions, in order; `taken` hears of each that was taken. What comes back is for the
    /// router to forget.
    pub fn offer<'a, T>(
        &self,
        offers: impl Iterator<Item = (SubscriptionKey, &'a Event, T)> + Clone,
        mut taken: impl FnMut(T),
    ) -> Vec<Closed> {
        let allowed = self.0.budget.allowed_bytes();
        self.0.with(|state| {
            let allowed = state.allowed(allowed);
            state.queues.backlog.subscribers.fetch(offers.clone().map(|(key, ..)| key));
            for (key, event, tag) in offers {
                if state.queues.offer(key, event, allowed) == Offer::Taken {
                    taken(tag);
                }
            }
            state.queues.backlog.take_closed()
        })
    }

    /// Offers an event to one member of a group, but only if it would be served at once.
    pub fn offer_if_served(&self, key: SubscriptionKey, event: &Event) -> bool {
        let allowed = self.0.budget.allowed_bytes();
        self.0.with(|state| {
            state.queues.backlog.would_serve(key) && state.queues.offer(key, event, allowed) == Offer::Taken
        })
    }
}
