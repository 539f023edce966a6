#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
// Counts in tests are small.
#![cfg_attr(test, allow(clippy::cast_possible_wrap, clippy::cast_sign_loss))]

mod backoff;
mod client;
mod codec;
mod connect;
mod credential;
mod delivery;
mod driver;
mod error;
mod event;
mod ids;
mod item;
mod keeper;
mod link;
mod machine;
mod options;
mod outcome;
mod position;
pub mod proto;
mod publish;
mod shared;
mod spec;
mod state;
mod subscription;
mod telemetry;
mod token;
mod worker;

pub use backoff::Backoff;
pub use client::Client;
pub use connect::{Target, TlsFiles, explain, explain_message};
pub use credential::{Bearer, Credential, Link, TOKEN_VARIABLE};
pub use delivery::{Batch, Deliveries, Delivery};
pub use error::{Error, ErrorKind};
pub use event::{Event, Received};
pub use item::{Gap, GapReason, Opened};
pub use options::Builder;
pub use outcome::Published;
pub use position::{FilePosition, Keeping, MemoryPosition, PositionStore};
pub use publish::{Publish, PublishAll, Publishing, PublishingAll};
pub use spec::{Live, OnGap, Overflow, Spec, Start, Stream};
pub use state::{Drain, Left, State, Stats, Status};
pub use subscription::{Item, Subscription};
pub use token::{Fetching, Token, TokenError, TokenSource};
pub use worker::Failure;

/// What is needed to set up TLS, and what errors bear, of the gRPC library.
pub use tonic::{
    Code,
    transport::{Certificate, ClientTlsConfig, Identity},
};
