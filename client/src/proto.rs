//! The contract as any Rust client would generate it from the files in `proto/`.
//!
//! The generated code is checked in, so that a user of this crate needs neither those files nor a compiler for them. It is
//! made by the build script of the hub, and a test of the hub compares the two.

/// `switchyard.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod v1 {
    include!("gen/switchyard.v1.rs");
}
