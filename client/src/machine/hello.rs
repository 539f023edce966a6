//! How a client introduces itself to a hub: what it is called, and which session it comes back from. Pure.

use std::{collections::HashMap, time::Duration};

use crate::proto::v1::Hello;

/// All that a hub is told at the beginning of a session.
#[derive(Debug)]
pub(super) struct Introduction {
    name: String,
    labels: HashMap<String, String>,
    heartbeat: Duration,
    /// The session whose leases are to be kept. Empty before the first.
    previous: String,
}

impl Introduction {
    pub(super) fn new(name: String, labels: HashMap<String, String>, heartbeat: Duration) -> Self {
        Self { name, labels, heartbeat, previous: String::new() }
    }

    /// How often the hub is to say that it is there.
    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// What is held is held in this session from now on.
    pub(super) fn comes_from(&mut self, session_id: &str) {
        session_id.clone_into(&mut self.previous);
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            client_name: self.name.clone(),
            labels: self.labels.clone(),
            heartbeat_interval: self.heartbeat.try_into().ok(),
            previous_session_id: self.previous.clone(),
        }
    }
}
