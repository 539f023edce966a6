//! The tests of the hub as its users meet it: real servers on port 0, real clients, real processes.

#![allow(
    unreachable_pub,
    clippy::panic,
    clippy::match_wild_err_arm,
    clippy::unnecessary_wraps,
    clippy::disallowed_methods,
    clippy::format_collect
)]

mod abuse;
mod bad_input;
mod bench;
mod cli;
mod drain;
mod errors;
#[cfg(feature = "tools-tests")]
mod examples;
mod groups;
#[cfg(feature = "tools-tests")]
mod grpcurl;
mod harness;
mod health;
mod http2;
mod isolation;
mod limits;
mod overflow;
mod session;
mod stream_groups;
mod tidy;
mod witness;
mod workplace;
