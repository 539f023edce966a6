//! The edges: every way into the hub, each in a room of its own.
//!
//! An edge turns what its clients send into commands and calls, and what waits for them into its own frames. It decides
//! nothing: who a caller is and what it may do is for `auth`, whether there is a hub to come in to for the readiness of
//! the process, and everything else for `session`, `manage` and `hub`. No edge uses another.

pub mod grpc;
pub mod http;
