//! Pure values that every other room speaks in: topics, filters, what a subscription wants, reasons, limits.
//!
//! Nothing here knows protobuf, a clock, a lock or a socket. A value that exists is valid: parsing is the only way to
//! make one.

mod alternatives;
mod cursor;
mod labels;
pub mod limits;
mod peer;
mod reason;
mod refusal;
mod stream;
mod subscription;
mod topic;

pub use alternatives::{Alternatives, AlternativesError};
pub use cursor::Cursor;
pub use labels::{Labels, LabelsError};
pub use peer::Peer;
pub use reason::Reason;
pub use refusal::{AckError, CommandError, Denial, End, EventError, Quota, StreamError};
pub use stream::{
    Durability, GroupSettings, SettingError, Storage, StreamName, StreamNameError, StreamSettings, StreamState,
};
pub use subscription::{
    AckMode, Grant, Group, GroupError, OnGap, Origin, Overflow, Position, Start, StreamSpec, SubscriptionSpec,
    filter_tokens,
};
pub use topic::{Filter, FilterError, NameError, Token, Topic};
