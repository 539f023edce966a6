//! The contract as messages, for every edge that speaks them: commands from frames, frames from what waits for a client,
//! errors as statuses. Protobuf messages stop here; the form of an event, which is compatible with them, is the hub's own
//! (`event`).
//!
//! The room validates once, and accounts for the memory that a message takes while it comes. It cuts messages out of bodies
//! that have a length before each, as gRPC and Connect do; other ways to cut them, and what stands before those that are
//! sent, are for the edges. It serves nothing and decides nothing.

pub(in crate::edge) mod batch;
pub(in crate::edge) mod buffer;
pub(in crate::edge) mod command;
pub(in crate::edge) mod forms;
pub(in crate::edge) mod framer;
pub(in crate::edge) mod frames;
pub(in crate::edge) mod head;
pub(in crate::edge) mod lateness;
pub(in crate::edge) mod publish;
pub(in crate::edge) mod publish_call;
pub(in crate::edge) mod request;
pub(in crate::edge) mod requests;
pub(in crate::edge) mod results;
pub(in crate::edge) mod status;
pub(in crate::edge) mod waiting;
