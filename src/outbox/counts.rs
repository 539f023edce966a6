//! How many subscriptions of a session are in a state that operators watch: kept as things change, since reading every
//! subscription of every session at each scrape would hold up those who publish to them. Pure.

use super::subscriber::Noted;

/// How many subscriptions are in a state that operators watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Something is there for them, and their clients gave no credit for it.
    pub credit_blocked: usize,
    /// They read a stream and do not have all that it has.
    pub behind: usize,
}

impl Counts {
    /// A subscription is in another state than before.
    pub(super) fn change(&mut self, before: Noted, now: Noted) {
        self.add(before, -1);
        self.add(now, 1);
    }

    /// A subscription counts no more.
    pub(super) fn forget(&mut self, noted: Noted) {
        self.add(noted, -1);
    }

    fn add(&mut self, noted: Noted, by: isize) {
        let add = |count: &mut usize, is: bool| *count = count.saturating_add_signed(if is { by } else { 0 });
        add(&mut self.credit_blocked, noted.credit_blocked());
        add(&mut self.behind, noted.behind());
    }
}
