//! Pure values that every other room speaks in: topics, filters, events, what a subscription wants, reasons, limits.
//!
//! Nothing here knows protobuf, a clock, a lock or a socket. A value that exists is valid: parsing is the only way to
//! make one.

mod event;
mod group_settings;
pub mod limits;
mod reason;
mod refusal;
mod stream;
mod subscription;
mod topic;

pub use event::Event;
pub use group_settings::{GroupSettings, GroupSettingsError};
pub use reason::Reason;
pub use refusal::{CommandError, End, EventError};
pub use stream::{StreamName, StreamNameError};
pub use subscription::{Grant, Group, GroupError, Overflow, Wish, filter_tokens};
pub use topic::{Filter, FilterError, NameError, Token, Topic};
