//! Everything that waits to be sent to one client: frames, events, credit, and the order in which they leave.
//!
//! Four parties work on it from tasks of their own, and each holds a view that has its verbs and no others: the router
//! offers live events ([`Inlet`]), the session applies commands ([`Desk`]), its feeds and groups fill it from streams
//! ([`Filler`]), and the wire takes batches ([`Taker`]). The hub owns it ([`Outbox`]). The room owns the one lock between
//! them (`lock.rs`); what happens under the lock is pure and lives in [`queues`] and below.
//!
//! It never routes, never encodes and never knows who the client is.

mod allowance;
mod attention;
mod backlog;
mod budget;
mod cost;
mod counts;
mod credit;
mod desk;
mod filler;
mod frame;
mod inlet;
mod lock;
mod pool;
mod queues;
mod replies;
mod round;
mod route;
mod status;
mod stored;
mod subscriber;
mod subscribers;
mod taker;
#[cfg(test)]
#[allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::map_entry, clippy::type_complexity)]
mod tests;

pub use allowance::{Allowance, Allowances};
pub use attention::{Attention, Closed, SubscriptionKey};
pub use budget::Budget;
pub use cost::Cost;
pub use counts::Counts;
pub use desk::{Call, Desk};
pub use filler::Filler;
pub use frame::{
    Accepted, Acked, Batch, Frame, Gap, GapReason, Item, Opened, Published, Reply, ResumeOutcome, Returned,
    SessionLimits, StoredAt, Subscribed, Welcome,
};
pub use inlet::Inlet;
pub use lock::{Outbox, Tick};
pub use route::Route;
pub use status::{Place, SubscriptionStatus};
pub use stored::{Filled, Joined, Room, Wanted};
pub use taker::{Taken, Taker};
