//! How many bytes may wait in all sessions together.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What waits in the whole hub, and what may. Shared by all outboxes.
#[derive(Debug)]
pub struct Budget {
    hub_bytes: usize,
    session_bytes: usize,
    waiting_bytes: AtomicUsize,
    sessions: AtomicUsize,
}

impl Budget {
    /// At most `session_bytes` in one session and about `hub_bytes` in all.
    pub fn new(session_bytes: usize, hub_bytes: usize) -> Self {
        Self { hub_bytes, session_bytes, waiting_bytes: AtomicUsize::new(0), sessions: AtomicUsize::new(0) }
    }

    /// What waits in all sessions now, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Relaxed)
    }

    /// What one session may hold now. While the hub as a whole holds too much, that is an equal share: sessions that
    /// hold more are shed first, and those that hold little lose nothing.
    pub(super) fn allowed_bytes(&self) -> usize {
        if self.waiting_bytes() <= self.hub_bytes {
            return self.session_bytes;
        }
        self.session_bytes.min(self.hub_bytes / self.sessions.load(Relaxed).max(1))
    }

    /// True for a session that holds `bytes` while the hub as a whole is short of memory, and that holds more than its share
    /// of what would be plenty.
    pub(super) fn is_short_with(&self, bytes: usize) -> bool {
        let plenty = self.hub_bytes / 2;
        self.waiting_bytes() > plenty && bytes > plenty / self.sessions.load(Relaxed).max(1)
    }

    pub(super) fn join(&self) {
        self.sessions.fetch_add(1, Relaxed);
    }

    pub(super) fn leave(&self) {
        self.sessions.fetch_sub(1, Relaxed);
    }

    /// One session went from `before` to `after` waiting bytes.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after > before {
            self.waiting_bytes.fetch_add(after - before, Relaxed);
        } else if before > after {
            self.waiting_bytes.fetch_sub(before - after, Relaxed);
        }
    }
}
