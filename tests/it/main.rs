//! The tests of the hub as its users meet it: real servers on port 0, real clients, real processes.

#![allow(unreachable_pub, clippy::panic, clippy::match_wild_err_arm, clippy::unnecessary_wraps)]

mod harness;
mod session;
