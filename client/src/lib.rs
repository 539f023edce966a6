//! A client of Switchyard: connecting to a hub, and the contract as generated code.
//!
//! ```no_run
//! # async fn publish() -> anyhow::Result<()> {
//! use switchyard_client::{Target, proto::v1};
//!
//! let mut hub = Target { server: "127.0.0.1:50051".into(), ..Target::default() }.hub().await?;
//! let event = v1::Event { topic: "orders.eu.created".into(), ..v1::Event::default() };
//! hub.publish(v1::PublishRequest { events: vec![event], ..v1::PublishRequest::default() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It holds no state: a connection that breaks is for its user to make again.

#![warn(missing_docs)]
// Counts in tests are small.
#![cfg_attr(test, allow(clippy::cast_possible_wrap, clippy::cast_sign_loss))]
// Until handles and driver use it.
#![allow(dead_code, unreachable_pub)]

mod backoff;
mod codec;
mod connect;
mod credential;
mod driver;
mod error;
mod event;
mod ids;
mod item;
mod link;
mod machine;
mod outcome;
mod position;
pub mod proto;
mod shared;
mod spec;
mod state;
mod token;

pub use backoff::Backoff;
pub use connect::{Target, TlsFiles, explain, explain_message};
pub use credential::{Bearer, Credential, Link, TOKEN_VARIABLE};
pub use error::{Error, ErrorKind};
