//! How far a copy is, on standard error: one line that changes on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use crate::cli::show;

/// How often a person sees something new,
const ON_TERMINAL: Duration = Duration::from_millis(500);
/// and how often a log does.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// What is being done, and how far it is.
pub(super) struct Progress {
    doing: &'static str,
    done: u64,
    total: u64,
    began: Instant,
    shown: Instant,
    is_terminal: bool,
}

impl Progress {
    /// `total`: about how many events there are to do.
    pub(super) fn new(doing: &'static str, total: u64) -> Self {
        let now = Instant::now();
        Self { doing, done: 0, total, began: now, shown: now, is_terminal: io::stderr().is_terminal() }
    }

    /// More events are done.
    pub(super) fn add(&mut self, events: usize) {
        self.done += events as u64;
        let interval = if self.is_terminal { ON_TERMINAL } else { ELSEWHERE };
        if self.shown.elapsed() < interval {
            return;
        }
        self.shown = Instant::now();
        let line = line(self.doing, self.done, self.total, self.began.elapsed());
        if self.is_terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
    }

    /// How many events were done.
    pub(super) fn done(&self) -> u64 {
        self.done
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal && self.shown > self.began {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(doing: &str, done: u64, total: u64, elapsed: Duration) -> String {
    // Limits remove events and publishers add some: it is an estimate.
    let total = total.max(done);
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = Duration::try_from_secs_f64((total - done) as f64 / rate.max(0.001)).unwrap_or_default();
    let left = show::duration(Duration::from_secs(left.as_secs()));
    format!("{doing} {done} of {total} events, {rate:.0}/s, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_the_rate() {
        let told = line("copied", 1_000, 61_000, Duration::from_secs(2));
        assert_eq!(told, "copied 1000 of 61000 events, 500/s, 2m left");
        assert_eq!(line("copied", 5, 3, Duration::from_secs(1)), "copied 5 of 5 events, 5/s, 0s left");
        assert!(line("copied", 0, 0, Duration::ZERO).ends_with(", 0/s, 0s left"));
    }
}
