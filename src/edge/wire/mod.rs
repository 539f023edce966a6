//! The contract as messages, for every edge that speaks them: commands from frames, frames from what waits for a client,
//! errors as statuses. Protobuf messages stop here; the form of an event, which is compatible with them, is the hub's own
//! (`event`).
//!
//! The room validates once, and accounts for the memory that a message takes while it comes. How messages are cut out of
//! what a client sends, and what stands before those that are sent, is for the edges. It serves nothing and decides
//! nothing.

pub(in crate::edge) mod buffer;
pub(in crate::edge) mod command;
pub(in crate::edge) mod forms;
pub(in crate::edge) mod frames;
pub(in crate::edge) mod head;
pub(in crate::edge) mod publish;
pub(in crate::edge) mod request;
pub(in crate::edge) mod requests;
pub(in crate::edge) mod results;
pub(in crate::edge) mod status;
pub(in crate::edge) mod waiting;
