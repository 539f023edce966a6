//! The tests of the hub as its users meet it: real servers on port 0, real clients, real processes.

#![allow(
    unreachable_pub,
    clippy::panic,
    clippy::match_wild_err_arm,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    clippy::disallowed_methods,
    clippy::format_collect,
    // Sequences are signed on the wire, counts are not; none comes near the end of its range.
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod abuse;
mod access;
mod auth;
mod auth_certificates;
mod auth_cli;
mod auth_commands;
mod auth_harness;
mod auth_keys;
mod auth_sessions;
mod auth_tokens;
mod authority;
mod backups;
mod bad_input;
mod bench;
#[cfg(feature = "tools-tests")]
mod browsers;
mod cli;
mod cli_streams;
mod cli_timeout;
mod cli_views;
mod cli_work;
mod client;
mod connections;
mod contract;
mod copy;
mod door;
mod drain;
#[cfg(feature = "tools-tests")]
mod durable_examples;
mod edges;
mod errors;
#[cfg(feature = "tools-tests")]
mod examples;
mod exchange;
mod fair;
mod full_disk;
mod full_load;
mod group_credit;
mod group_edges;
mod group_members;
mod group_redrive;
mod group_retention;
mod group_return;
mod group_views;
mod groups;
#[cfg(feature = "tools-tests")]
mod grpcurl;
mod harness;
mod health;
mod http1;
mod http2;
mod imports;
mod isolation;
mod kill;
mod limits;
mod listen;
mod manage;
#[cfg(feature = "tools-tests")]
mod manifests;
mod memory;
mod operators;
mod overflow;
#[cfg(feature = "tools-tests")]
mod proxies;
#[cfg(feature = "tools-tests")]
mod proxy;
mod quotas;
mod ranges;
mod recovery;
mod reflection;
mod relay;
mod resume;
mod rights;
#[cfg(feature = "tools-tests")]
mod rolling;
mod session;
mod sessions;
mod slow;
mod stalled;
mod stalled_disk;
mod steps;
mod store;
mod stored;
mod stream_feed;
mod stream_groups;
mod stream_pages;
mod stream_starts;
mod streams;
#[cfg(feature = "tools-tests")]
mod stubs;
mod tidy;
mod time;
mod tls;
mod traces;
mod verifying;
mod watch_bugs;
mod web;
#[cfg(feature = "tools-tests")]
mod web_proxies;
mod witness;
mod workplace;
