//! What time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{clock::Slewed, committer::Committer, link::Link};

/// The log is told when the wall clock is so far from the time that streams go by.
const JUMP_SECONDS: f64 = 2.0;

/// The time of the hub, from what the wall clock shows.
pub(super) fn clock(wall: SystemTime) -> Slewed {
    Slewed::new(0, nanos(wall))
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl Link {
    /// What time it is, in microseconds since 1970. Never goes back.
    pub(super) fn now(&self) -> u64 {
        let (at, wall) = self.file.disk().time();
        let passed = u64::try_from(at.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX);
        self.clock.lock().advance(passed, nanos(wall)) / 1000
    }

    /// How far the wall clock is ahead of that, in seconds.
    pub(super) fn clock_offset(&self) -> f64 {
        self.now();
        self.clock.lock().offset()
    }
}

impl Committer {
    /// Says when the wall clock has jumped, and when it is near again.
    pub(super) fn look_at_clock(&mut self) {
        let seconds = self.link.clock_offset();
        if !self.clock_told && seconds.abs() > JUMP_SECONDS {
            self.clock_told = true;
            tracing::warn!(
                seconds,
                "the wall clock has jumped: the time of streams approaches it by a tenth of the time that passes"
            );
        } else if self.clock_told && seconds.abs() < JUMP_SECONDS / 2.0 {
            self.clock_told = false;
            tracing::info!(seconds, "the wall clock and the time of streams agree again");
        }
    }
}
