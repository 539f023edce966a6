//! What is shown of a group at work, as values: its members, and the events that they have or will have again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How a member is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberName {
    /// The name that its client gave itself.
    pub client_name: Option<Arc<str>>,
    /// Whose it is; empty on a hub that asks nobody.
    pub principal: Arc<str>,
    /// Its session.
    pub session: Arc<str>,
    /// Its subscription there.
    pub subscription_id: i64,
}

/// How one member stands.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// Later members have higher numbers.
    pub number: u64,
    /// How it is called.
    pub name: MemberName,
    /// Its transport is lost, and until when it may come back.
    pub away_until: Option<SystemTime>,
    /// Events that it was given and that are not written to its transport yet.
    pub waiting: usize,
    /// Events that it was sent and has yet to acknowledge.
    pub unacked: usize,
    /// When the lease of the one of these ends that was sent first.
    pub lease_ends: Option<SystemTime>,
}

/// Where an event is that was delivered and is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnackedStage {
    /// With a member, and not written to its transport yet.
    Assigned(Option<MemberName>),
    /// With a member, under a lease.
    Sent {
        /// Whose; `None` for one that is gone meanwhile.
        member: Option<MemberName>,
        /// When the lease ends.
        until: SystemTime,
    },
    /// It failed, and is tried again after this.
    Waiting(SystemTime),
    /// It came back, and waits for a member that takes it.
    Ready,
    /// It is given up, and not stored as a dead letter yet.
    Burying,
}

/// An event that was delivered and is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnackedEvent {
    /// Its sequence.
    pub sequence: u64,
    /// Which attempt it is at, or waits for; how many have failed of one that is given up.
    pub attempt: u32,
    /// Why the last attempt failed; empty when none has.
    pub failure: Box<str>,
    /// Where it is.
    pub stage: UnackedStage,
}

/// A time of a group, which is in milliseconds since 1970.
pub(super) fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}
