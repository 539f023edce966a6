//! Managing what a hub keeps: streams, groups, dead letters, sessions, backups; and what callers may know of the hub and of
//! themselves. A caller and checked values in, values out.
//!
//! Every edge offers this in an encoding of its own; the room knows none of them. What the caller may do is asked here, and
//! before anything is looked up: what changes or reads a thing is a method of a value that only that check gives, such as
//! [`streams::ManagedStream`]. So no edge can forget to ask. What a caller may not know of is as if it were not there.
//!
//! It opens no session and publishes nothing.

pub mod about;
pub mod access;
pub mod backups;
pub mod dead_letters;
pub mod events;
pub mod groups;
mod page;
pub mod polling;
pub mod sessions;
pub mod streams;
pub mod topics;

use std::sync::Arc;

pub use page::{MAX_PAGE, MAX_PAGE_BYTES, Page, USUAL_PAGE};

use crate::{engine::Engine, hub::Hub, model::StreamError};

/// Where streams are kept, on a hub that keeps any.
fn engine(hub: &Hub) -> Result<&Arc<dyn Engine>, StreamError> {
    hub.engine().ok_or(StreamError::None)
}
