//! What the machine tells the handles, and in what it counts time. Pure.

use std::time::Duration;

use crate::{error::Error, outcome::Receipt, state::Status};

/// A point in time: how long after the client was made.
pub(crate) type Moment = Duration;

/// Something that somebody may wait for.
#[derive(Debug)]
pub(crate) enum News {
    /// Something has changed for whoever reads this subscription, or waits for it.
    Subscription(i64),
    /// What became of the events of a publish.
    Published(u64, Receipt),
    /// What became of an acknowledgement.
    Settled(u64, Result<(), Error>),
    /// Some of what was only sent was refused, and this often so far.
    Refused(u64, Error),
    /// There is room in the queue of publishes.
    Room,
    /// The client is in another state.
    State(Status),
}
