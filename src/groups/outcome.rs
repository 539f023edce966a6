//! What a member says about an event, and what it is answered. Pure.

/// What a member says about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Ack,
    /// The attempt failed.
    Nack {
        /// When to try again, in milliseconds from now; `None` for the group's backoff.
        delay: Option<u64>,
        /// Why.
        reason: Box<str>,
    },
    /// It needs more time.
    Extend {
        /// How much, in milliseconds from now; `None` for the group's ack deadline.
        delay: Option<u64>,
    },
    /// No attempt will ever succeed.
    Reject {
        /// Why.
        reason: Box<str>,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was done as told.
    Applied,
    /// The event was done already, and nothing has changed.
    AlreadyDone,
    /// Too late: the lease is over, and the event may be with another member.
    Expired,
    /// The event was not delivered, as far as the hub remembers.
    NotDelivered,
}

/// What became of an outcome for all events sent up to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpTo {
    /// The answer for the event that was named. Nothing is done for the others unless it is [`Answer::Applied`], or
    /// [`Answer::AlreadyDone`] because the member settled that event before the others.
    pub answer: Answer,
    /// To how many events it was applied.
    pub applied: usize,
}
