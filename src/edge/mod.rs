//! The edges: every way into the hub, each in a room of its own.
//!
//! An edge turns what its clients send into commands and calls, and what waits for them into its own frames. It decides
//! nothing: who comes in is for the [`Door`], and everything else for `session`, `manage` and `hub`. No edge uses
//! another; what those that speak the contract have in common is in [`wire`].

mod door;
pub mod grpc;
pub mod http;
pub mod web;
pub mod wire;

pub use door::{Door, Opening, client_of};
