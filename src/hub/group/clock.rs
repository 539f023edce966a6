//! The time that a group goes by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since 1970 that do not go back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    begin: Instant,
    begin_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begin: Instant::now(), begin_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(super) fn now(self) -> u64 {
        let passed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.begin_ms.saturating_add(passed)
    }

    pub(super) fn at(self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms.saturating_sub(self.begin_ms))
    }
}
