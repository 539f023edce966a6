#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
// Counts in tests are small.
#![cfg_attr(test, allow(clippy::cast_possible_wrap, clippy::cast_sign_loss))]

mod backoff;
mod call;
mod client;
mod connect;
mod credential;
mod cutter;
mod delivery;
mod driver;
mod error;
mod event;
mod fields;
mod ids;
mod index;
mod item;
mod keeper;
mod link;
mod machine;
mod options;
mod outcome;
mod position;
pub mod proto;
mod publish;
mod received;
mod shared;
mod spec;
mod stamp;
mod state;
mod subscription;
mod telemetry;
mod token;
mod worker;

pub use backoff::Backoff;
pub use client::Client;
pub use connect::{Target, TlsFiles, explain, explain_message};
pub use credential::{Bearer, Credential, Link, TOKEN_VARIABLE};
pub use delivery::{Batch, BatchEvents, Deliveries, Delivery};
pub use error::{Error, ErrorKind};
pub use event::{Data, Event};
pub use item::{Gap, GapReason, Opened};
pub use options::Builder;
pub use outcome::{Outcome, Published, Receipt};
pub use position::{FilePosition, Keeping, MemoryPosition, PositionStore};
pub use publish::{Publish, PublishAll, Publishing, PublishingAll};
pub use received::{Received, ReceivedRef};
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
