//! How one subscription stands, as values for those who list them. Pure.

use std::sync::Arc;

use super::{attention::SubscriptionKey, route::Route, stored::Joined};
use crate::model::{Filter, Grant, Position};

/// How one subscription stands.
#[derive(Debug, Clone)]
pub struct SubscriptionStatus {
    /// Names it in its session for good.
    pub key: SubscriptionKey,
    /// Which one.
    pub subscription_id: i64,
    /// How many events wait for it.
    pub waiting_events: usize,
    /// Their encoded size.
    pub waiting_bytes: usize,
    /// The credit it has left; `None` for automatic credit.
    pub credit: Option<Grant>,
    /// Something is there for it, and its client gave no credit for it.
    pub credit_blocked: bool,
    /// How many events it was sent; `None` for one that asked for so many and no more.
    pub sent_events: Option<u64>,
    /// How many it will be sent yet, if it asked for so many and no more.
    pub events_left: Option<u64>,
    /// What it gets.
    pub place: Place,
}

/// What a subscription gets, and how far it has come in it.
#[derive(Debug, Clone)]
pub enum Place {
    /// Live events. The router knows which, as long as it has the route.
    Live(Option<Route>),
    /// A stream.
    Stream {
        /// How far it came.
        position: Position,
        /// None: everything.
        filters: Arc<[Filter]>,
    },
    /// Its share of what a group on a stream gets.
    Member {
        /// Which group.
        joined: Joined,
        /// None: everything.
        filters: Arc<[Filter]>,
    },
}
