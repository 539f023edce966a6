//! What all doors of the web listener share.

use std::sync::Arc;

use super::{options::Options, ticket::Tickets};
use crate::edge::Door;

/// What a request is answered from.
#[derive(Debug)]
pub struct Web {
    pub(super) door: Door,
    pub(super) options: Options,
    pub(super) tickets: Tickets,
}

impl Web {
    /// Behind a door.
    pub fn new(door: Door, options: Options) -> Arc<Self> {
        Arc::new(Self { door, options, tickets: Tickets::default() })
    }
}
