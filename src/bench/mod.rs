//! The load generator behind `switchyard bench`: any hub, through `switchyard-client` or over generated code, every
//! event checked.
//!
//! A load is a plan (`workload`) that runs on a side (`side`): publishers keep a fixed window of undelivered events, or a
//! fixed rate, and subscribers check sequence and checksum of everything they get (`record`). The room owns no part of
//! the hub: what it does, any client can do. `benches/versus` puts the same plans on other systems.

mod client;
mod command;
mod hub;
mod load;
pub mod opaque;
mod record;
mod side;
pub mod workload;

pub use client::ClientSide;
pub use command::Bench;
pub use hub::HubSide;
pub use load::{Latency, Outcome, Pace, Plan, run};
pub use record::{Expectation, Faults, HEADER_BYTES, Record};
pub use side::{Check, Outgoing, Publish, Receive, Side};
