//! What time it is for the hub, from what the clocks beside the disk show.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::clock::Slewed;

/// The log is told when the wall clock is so far from the time that streams go by.
const JUMP_SECONDS: f64 = 2.0;

/// The time that streams go by.
#[derive(Debug)]
pub(super) struct Time {
    /// When the store was opened.
    begin: Instant,
    /// The time of the hub since.
    clock: Mutex<Slewed>,
}

/// Sees when the wall clock jumps.
#[derive(Debug, Default)]
pub(super) struct JumpWatch {
    /// The log was told that the wall clock is far from the time of the hub.
    told: bool,
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl Time {
    /// From what both clocks show when the store is opened.
    pub(super) fn new((begin, wall): (Instant, SystemTime)) -> Self {
        Self { begin, clock: Mutex::new(Slewed::new(0, nanos(wall))) }
    }

    /// What time it is, in microseconds since 1970, when the clocks show this. Never goes back.
    pub(super) fn now(&self, (at, wall): (Instant, SystemTime)) -> u64 {
        let passed = u64::try_from(at.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX);
        self.clock.lock().advance(passed, nanos(wall)) / 1000
    }

    /// How far the wall clock was ahead of that the last time, in seconds.
    pub(super) fn offset(&self) -> f64 {
        self.clock.lock().offset()
    }
}

impl JumpWatch {
    /// Says when the wall clock, which is so far ahead, has jumped, and when it is near again.
    pub(super) fn look(&mut self, seconds: f64) {
        if !self.told && seconds.abs() > JUMP_SECONDS {
            self.told = true;
            tracing::warn!(
                seconds,
                "the wall clock has jumped: the time of streams approaches it by a tenth of the time that passes"
            );
        } else if self.told && seconds.abs() < JUMP_SECONDS / 2.0 {
            self.told = false;
            tracing::info!(seconds, "the wall clock and the time of streams agree again");
        }
    }
}
