//! The state of one group on one stream: which event a member gets next, and what becomes of it. Pure.
//!
//! A [`GroupState`] is fed with the sequences of a stream, hands them out to members under leases, takes their
//! acknowledgements, and brings back what fails, after a wait, until it is given up. It keeps the order of the events
//! of one key. It is a pure machine: it knows neither events nor clients, reads nothing, stores nothing and starts
//! nothing. Time is an argument: milliseconds since the Unix epoch, by a clock that does not go back.
//!
//! What the caller owes it:
//! - It reads the stream where [`GroupState::feed`] says and offers what it found ([`GroupState::offer`]).
//! - When an event from [`GroupState::next`] was written to the transport it says so ([`GroupState::sent`]): that
//!   starts the lease. If it will not be written, [`GroupState::unsend`].
//! - A member that comes back is a new one, which goes on for the one it was ([`GroupState::succeed`]).
//! - When it was restored, and members who are there have events from another owner, it says which
//!   ([`GroupState::adopt`]) before anything is handed out.
//! - Members that grant no credit are to be paced ([`GroupState::pace`]); which of them may have more than before
//!   [`GroupState::take_eased`] tells.
//! - What it finds missing in the stream it says ([`GroupState::gone`], [`GroupState::purge`]).
//! - It calls [`GroupState::tick`] when [`GroupState::due`] says.
//! - *Acknowledged means stored.* It applies acknowledgements, takes [`GroupState::encode`], stores that, and only then
//!   tells the members. [`GroupState::revision`] tells whether there is anything to store. What is handed out meanwhile
//!   does no harm: after a store that failed and a restart, some events are delivered again, and none is lost.
//! - It stores [`GroupState::dead_letters`] in the same transaction, names them to `encode`, and once that is stored
//!   says [`GroupState::buried`].
//!
//! Its parts, from below: `done` and `failure` make up `progress`, all that survives a restart (`snapshot`); `held` has the
//! events that are ready or come later, in the order of their keys, and `put_off` those that are too many of one key;
//! `backlog` is these together, and `members` knows who has what. [`GroupState`] is above them all; `holding` and `unacked` show
//! what it has.
//!
//! Why it is as it is: docs/adr/0007-groups.md.

mod acknowledge;
mod adopt;
mod backlog;
mod counts;
mod delivery;
mod done;
mod failure;
mod feed;
mod held;
mod holding;
mod member;
mod members;
mod membership;
mod outcome;
mod progress;
mod put_off;
mod rounds;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod unacked;
mod window;

pub use counts::Counts;
pub use delivery::Delivery;
pub use done::Done;
pub use failure::DeadLetter;
pub use feed::{Feed, StaleRead};
pub use holding::Holding;
pub use member::MemberId;
pub use outcome::{Answer, Outcome, UpTo};
pub use snapshot::SnapshotError;
pub use state::{GroupState, Oldest};
pub use unacked::{Stage, Unacked};
