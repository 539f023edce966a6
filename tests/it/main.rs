//! The tests of the hub as its users meet it: real servers on port 0, real clients, real processes.

#![allow(
    unreachable_pub,
    clippy::panic,
    clippy::match_wild_err_arm,
    clippy::unnecessary_wraps,
    clippy::disallowed_methods,
    clippy::format_collect,
    // Sequences are signed on the wire, counts are not; none comes near the end of its range.
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
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
mod kill;
mod limits;
mod overflow;
mod resume;
mod session;
mod store;
mod stored;
mod stream_feed;
mod stream_groups;
mod streams;
mod tidy;
mod watch_bugs;
mod witness;
mod workplace;
