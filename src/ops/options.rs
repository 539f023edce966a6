//! What an operator may set about the operator's port.

use serde::{Deserialize, Serialize};

use crate::model::limits::MAX_TIME_MS;

/// Limits of the operator's port; in the file under `[ops]`. They are small: probes come one at a time, and files that are
/// open here are missing elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The most connections to the operator's port; one more is closed at once. As many files are kept for them.
    pub max_connections: usize,
    /// A connection to the operator's port that asks nothing for this long is closed, in milliseconds.
    pub idle_timeout_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_connections: 32, idle_timeout_ms: 5_000 }
    }
}

impl Options {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            ("max_connections", self.max_connections as u64, 2, 10_000),
            ("idle_timeout_ms", self.idle_timeout_ms, 100, MAX_TIME_MS),
        ];
        match rules.iter().find(|(_, value, least, most)| value < least || value > most) {
            Some((key, value, least, most)) => Err(format!("ops.{key} is {value} and must be {least} to {most}")),
            None => Ok(()),
        }
    }
}
