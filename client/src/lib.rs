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

mod backoff;
mod connect;
mod credential;
pub mod proto;

pub use backoff::Backoff;
pub use connect::{Target, TlsFiles, explain, explain_message};
pub use credential::{Bearer, Credential, Link, TOKEN_VARIABLE};
