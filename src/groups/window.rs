//! How many events a member may have that grants no credit of its own: as many as it works through well within the time
//! that it has for one. What it is sent beyond that only waits in its buffer, while the lease runs. Pure.

use crate::model::limits::AUTOMATIC_MEMBER_EVENTS;

/// The window that a member begins with.
const FIRST: u32 = 16;
/// The largest there is.
pub(super) const MOST: u32 = AUTOMATIC_MEMBER_EVENTS as u32;
/// It is doubled once all events of a full window were answered within this part of the time there is for them,
const SOON_PART: u64 = 4;
/// and shrinks, down to what it began with, when answers take longer than this part.
const LATE_PART: u64 = 2;

/// The window of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    events: u32,
    /// It was full since it has its size: only then do answers tell how long the last event in it waits.
    filled: bool,
    /// This many answers came soon, one after the other, since it was full.
    soon: u32,
}

impl Window {
    pub(super) fn first() -> Self {
        Self { events: FIRST, filled: false, soon: 0 }
    }

    pub(super) fn events(self) -> usize {
        self.events as usize
    }

    /// The member has `leases` now.
    pub(super) fn took(&mut self, leases: usize) {
        if !self.filled && leases >= self.events() {
            (self.filled, self.soon) = (true, 0);
        }
    }

    /// An event was answered `waited` ms after it was sent, of `deadline` that there were.
    pub(super) fn answered(&mut self, waited: u64, deadline: u64) {
        if waited > deadline / SOON_PART {
            self.soon = 0;
            if waited > deadline / LATE_PART && self.events > FIRST {
                self.events -= 1;
            }
            return;
        }
        self.soon = self.soon.saturating_add(1);
        if self.filled && self.soon >= self.events {
            *self = Self { events: (2 * self.events).min(MOST), ..Self::first() };
        }
    }

    /// A lease ended without an answer.
    pub(super) fn expired(&mut self) {
        *self = Self { events: (self.events / 2).max(1), ..Self::first() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(events: u32) -> Window {
        Window { events, ..Window::first() }
    }

    #[test]
    fn it_grows_once_all_of_a_full_window_is_answered_soon_and_has_a_limit() {
        let mut window = Window::first();
        (0..100).for_each(|_| window.answered(0, 100));
        assert_eq!(window.events, FIRST, "it was never full");
        window.took(FIRST as usize);
        (1..FIRST).for_each(|_| window.answered(25, 100));
        window.answered(26, 100);
        (1..FIRST).for_each(|_| window.answered(25, 100));
        assert_eq!(window.events, FIRST, "not all of them one after the other");
        window.answered(25, 100);
        assert_eq!(window, of(2 * FIRST));
        for _ in 0..9 {
            window.took(MOST as usize);
            (0..MOST).for_each(|_| window.answered(0, 100));
        }
        assert_eq!(window.events, MOST);
    }

    #[test]
    fn late_answers_bring_it_back_to_where_it_began_and_lost_leases_to_one() {
        let mut window = of(FIRST + 1);
        window.answered(50, 100);
        assert_eq!(window.events, FIRST + 1);
        (0..9).for_each(|_| window.answered(51, 100));
        assert_eq!(window.events, FIRST);
        (0..9).for_each(|_| window.expired());
        assert_eq!(window.events, 1);
        window.took(1);
        window.answered(1, 100);
        assert_eq!(window.events, 2, "and it grows from there");
    }
}
