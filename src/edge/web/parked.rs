//! What is kept with the session of a poll between two polls.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::memory::Held;

/// What is kept with a session while it is set aside.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// How many answers there were: the cursor of the last one.
    pub(super) answered: u64,
    pub(super) last: Last,
}

/// The last answer.
#[derive(Debug, Default)]
pub(super) enum Last {
    #[default]
    None,
    Whole {
        bytes: Bytes,
        headers: HeaderMap,
        held: Arc<Held>,
    },
    /// It was too large to be kept, and had so many events.
    Gone {
        events: u64,
    },
}
