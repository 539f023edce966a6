//! Streams on disk: storing events, with every answer awaited, and reading them back.
//!
//! One repetition is one server with an empty folder: a publisher that keeps a fixed window of unanswered events, the
//! same for every server; the same publisher with one event at a time; one subscriber that reads everything from the
//! earliest event on; and another one, after the server was stopped and started again and the system has forgotten what it
//! knew of the disk. Sequence and checksum of every
//! event are checked as it is read, and the sequences that answers name as they come.

pub(crate) mod beside;
mod folder;
pub(crate) mod group;
mod hub;
mod jetstream;
mod load;
mod publish;
mod store;

pub(crate) use load::PAYLOAD_BYTES;
pub(crate) use publish::{ROWS, measure};
pub(crate) use store::{Figure, Store};
