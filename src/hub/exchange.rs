//! Live events between the hubs that share a store: what is published on one reaches live subscriptions on the others.
//!
//! Only what belongs to no stream goes through it. It is at most once, as live events are, and never makes a publisher wait;
//! a hub that is alone has none.

use std::fmt::Debug;

use crate::{engine::Boxed, event::Event};

/// The way to the other hubs.
pub trait Exchange: Debug + Send + Sync {
    /// Sends live events to the other hubs, in this order. Does not wait: what there is no room for is lost to them.
    fn send(&self, events: &[Event]);

    /// The next live events of other hubs, never of this one, in the order in which their publishers sent them; `None` when
    /// there will be no more. One caller waits at a time. Dropping the future loses nothing.
    fn hear(&self) -> Boxed<'_, Option<Vec<Event>>>;
}
