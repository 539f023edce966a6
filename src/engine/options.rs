//! What an operator may set about streams.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::limits::{MAX_FRAME_BYTES, MAX_TIME_MS};

/// Limits and times of streams; in the file under `[engine]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Limit on the streams of the hub.
    pub max_streams: usize,
    /// Limit on the groups of one stream.
    pub max_groups: usize,
    /// Limit on the topics of which one stream keeps events: each costs about a hundred bytes of memory.
    pub max_topics: usize,
    /// Limit on the ids by which one stream finds duplicates; with more, the oldest are forgotten before the window
    /// ends.
    pub max_dedupe_ids: usize,
    /// Limit on the bytes that wait to be stored; a publisher over the limit waits.
    pub max_queued_bytes: usize,
    /// How much of the latest events is kept in memory for readers, in all streams together, in bytes.
    pub tail_cache_bytes: usize,
    /// How much of the store itself is cached in memory, in bytes.
    pub store_cache_bytes: usize,
    /// Limit on concurrent reads from the disk.
    pub readers: usize,
    /// How often streams of durability INTERVAL are synced to disk, in milliseconds.
    pub sync_interval_ms: u64,
    /// How often age limits and ttl are applied when nothing is appended, in milliseconds.
    pub sweep_interval_ms: u64,
    /// A backup that takes longer is aborted, in milliseconds: disk space is not reused while it runs.
    pub backup_timeout_ms: u64,
    /// The most bytes in all streams of one owner; 0 is no limit. Set as `quotas.max_stored_bytes`.
    #[serde(skip)]
    pub max_owner_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_streams: 1_000,
            max_groups: 1_000,
            max_topics: 1_000_000,
            max_dedupe_ids: 1_000_000,
            max_queued_bytes: 64 * 1024 * 1024,
            tail_cache_bytes: 64 * 1024 * 1024,
            store_cache_bytes: 16 * 1024 * 1024,
            readers: 4,
            sync_interval_ms: 100,
            sweep_interval_ms: 1_000,
            backup_timeout_ms: 3_600_000,
            max_owner_bytes: 0,
        }
    }
}

impl Options {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            ("max_streams", self.max_streams, 1, 100_000),
            ("max_groups", self.max_groups, 1, 100_000),
            ("max_topics", self.max_topics, 1, 100_000_000),
            ("max_dedupe_ids", self.max_dedupe_ids, 1, 100_000_000),
            ("max_queued_bytes", self.max_queued_bytes, 4 * MAX_FRAME_BYTES, 4 * 1024 * 1024 * 1024),
            ("tail_cache_bytes", self.tail_cache_bytes, 0, usize::MAX),
            ("store_cache_bytes", self.store_cache_bytes, 8 * 1024 * 1024, usize::MAX),
            ("readers", self.readers, 1, 256),
        ];
        for (key, value, least, most) in rules {
            if value < least || value > most {
                return Err(format!("engine.{key} is {value} and must be {least} to {most}"));
            }
        }
        for (key, value) in [
            ("sync_interval_ms", self.sync_interval_ms),
            ("sweep_interval_ms", self.sweep_interval_ms),
            ("backup_timeout_ms", self.backup_timeout_ms),
        ] {
            if !(1..=MAX_TIME_MS).contains(&value) {
                return Err(format!("engine.{key} is {value} and must be 1 to {MAX_TIME_MS}"));
            }
        }
        Ok(())
    }

    /// How often streams of durability INTERVAL are written to the disk.
    pub fn sync_interval(&self) -> Duration {
        Duration::from_millis(self.sync_interval_ms)
    }

    /// How long a backup may take.
    pub fn backup_timeout(&self) -> Duration {
        Duration::from_millis(self.backup_timeout_ms)
    }

    /// How often limits by age are looked at.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_at_their_limits() {
        assert_eq!(Options::default().check(), Ok(()));
        let refused = |options: Options| options.check().is_err();
        assert!(refused(Options { max_streams: 0, ..Options::default() }));
        assert!(refused(Options { readers: 257, ..Options::default() }));
        assert!(refused(Options { max_queued_bytes: 4 * MAX_FRAME_BYTES - 1, ..Options::default() }));
        assert!(!refused(Options { max_queued_bytes: 4 * MAX_FRAME_BYTES, ..Options::default() }));
        assert!(refused(Options { sync_interval_ms: 0, ..Options::default() }));
        assert!(refused(Options { sweep_interval_ms: MAX_TIME_MS + 1, ..Options::default() }));
    }
}
