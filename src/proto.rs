//! The contract as clients have it: what the command line, the examples and the tests speak. The hub itself uses another
//! form of the same files (see build.rs) and never this one.

pub use switchyard_client::proto::v1;

/// `switchyard.v1` as a load speaks it: publishes and deliveries are bytes (see build.rs).
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod load {
    include!(concat!(env!("OUT_DIR"), "/load/switchyard.v1.rs"));
}
