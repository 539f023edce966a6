//! How many events a member may have that grants no credit of its own: as many as it works through well within the time
//! that it has for one. What it is sent beyond that only waits in its buffer, while the lease runs.
//!
//! What lies in its buffer although the lease is over counts, too: what is sent now is worked on only after that.

use super::{GroupState, MemberId, millis};
use crate::model::limits::AUTOMATIC_MEMBER_EVENTS;

/// The window that a member begins with.
const FIRST: u32 = 16;
/// The largest there is.
const MOST: u32 = AUTOMATIC_MEMBER_EVENTS as u32;
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
    /// So many answers came soon, one after the other, since it was full.
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

impl GroupState {
    /// From now on a member has no more events than it seems to work through in time. For one that grants no credit.
    pub fn pace(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id).filter(|member| member.window.is_none()) {
            member.window = Some(Window::first());
            self.paced += 1;
        }
    }

    /// How many more events a member may have, as far as its window goes.
    pub fn room(&self, id: MemberId) -> usize {
        let Some(member) = self.members.get(&id) else { return 0 };
        let Some(window) = member.window else { return usize::MAX };
        window.events().min(self.share()).saturating_sub(member.leases() + member.owed.len())
    }

    /// The lease of an event ends without an answer, which its member may be on the way to.
    pub(super) fn owe(&mut self, id: MemberId, turn: u64, sequence: u64) {
        let clock = self.clock;
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(window) = &mut member.window else { return };
        window.expired();
        member.owed.insert(turn, sequence);
        member.heard = member.heard.max(clock);
        self.owing.insert(id);
    }

    /// A member says something of an event: it is done with what it was sent before that.
    pub(super) fn hear(&mut self, id: MemberId, sequence: u64) {
        let leased = self.sent_to(sequence).filter(|(member, _)| *member == id).map(|(_, turn)| turn);
        let clock = self.clock;
        let Some(member) = self.members.get_mut(&id).filter(|member| !member.owed.is_empty()) else { return };
        member.heard = clock;
        let late = || member.owed.iter().find(|(_, owed)| **owed == sequence).map(|(turn, _)| *turn);
        if let Some(turn) = leased.or_else(late) {
            member.owed = member.owed.split_off(&(turn + 1));
            if member.owed.is_empty() {
                self.owing.remove(&id);
            }
            self.eased.insert(id);
        }
    }

    /// Members that have said nothing for as long as they may take for an event have forgotten what they were sent.
    pub(super) fn forgive(&mut self) {
        let (clock, deadline) = (self.clock, millis(self.settings.ack_deadline));
        let silent =
            |id: &MemberId| self.members.get(id).is_none_or(|member| member.heard.saturating_add(deadline) <= clock);
        let silent: Vec<MemberId> = self.owing.iter().copied().filter(silent).collect();
        for id in silent {
            self.owing.remove(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.owed.clear();
                self.eased.insert(id);
            }
        }
    }

    /// Members that may have more events than they could since the last call.
    pub fn take_eased(&mut self) -> impl Iterator<Item = MemberId> + use<> {
        std::mem::take(&mut self.eased).into_iter()
    }

    /// What a member with a window may have of `max_unacked` at most, so that there is some for all.
    fn share(&self) -> usize {
        (self.settings.max_unacked as usize / self.paced.max(1)).max(1)
    }

    /// The share of each member may have grown.
    pub(super) fn ease_all(&mut self) {
        let paced = self.members.iter().filter(|(_, member)| member.window.is_some());
        self.eased.extend(paced.map(|(id, _)| *id));
    }

    /// The same, when it is the share that holds them back.
    pub(super) fn ease_those_who_share(&mut self) {
        if self.share() <= MOST as usize {
            self.ease_all();
        }
    }

    /// A member answered for an event that was sent to it at `since` and is still leased.
    pub(super) fn measure(&mut self, id: MemberId, since: Option<u64>) {
        let (now, deadline) = (self.clock, millis(self.settings.ack_deadline));
        let window = self.members.get_mut(&id).and_then(|member| member.window.as_mut());
        if let (Some(since), Some(window)) = (since, window) {
            window.answered(now.saturating_sub(since), deadline);
        }
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
