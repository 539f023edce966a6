//! One member of a group, and what it has. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::window::Window;

/// Of this many events that a member settled before others is remembered when they were sent.
const MOST_SETTLED: usize = 1024;

/// Names a member. The caller chooses it, and never one that was another's: a client that comes back is a new member, which
/// [succeeds](super::GroupState::succeed) the one it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// An event that was written to a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Later ones have higher turns.
    pub(super) turn: u64,
    /// When the lease ends.
    pub(super) deadline: u64,
    /// When it was written; `None` once its member asked for more time.
    pub(super) since: Option<u64>,
}

/// What one member has.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Handed out, and not written to the transport yet.
    pub(super) unsent: BTreeSet<u64>,
    /// By turn: sequences do not rise when some are delivered again.
    pub(super) sent: BTreeMap<u64, u64>,
    /// By turn: what it settled before some that it was sent earlier. An acknowledgement up to one of these means them.
    settled: BTreeMap<u64, u64>,
    /// Without a transport, and until when another may succeed it.
    pub(super) detached_until: Option<u64>,
    /// How many it may have; `None` for one whose client says so itself, by credit.
    pub(super) window: Option<Window>,
    /// By turn: what it was sent and has said nothing of, though the lease is over. Only with a window, and no more than that:
    /// what is sent now is worked on only after what lies in its buffer.
    owed: BTreeMap<u64, u64>,
    /// When it last said something, or the last lease ended.
    heard: u64,
}

impl Member {
    pub(super) fn is_attached(&self) -> bool {
        self.detached_until.is_none()
    }

    pub(super) fn take(&mut self, sequence: u64, sent: Option<Sent>) {
        match sent {
            Some(sent) => {
                self.sent.insert(sent.turn, sequence);
            }
            None => {
                self.unsent.insert(sequence);
            }
        }
        let leases = self.leases();
        if let Some(window) = &mut self.window {
            window.took(leases);
        }
    }

    pub(super) fn give_back(&mut self, sequence: u64, sent: Option<Sent>) {
        match sent {
            Some(sent) => {
                self.sent.remove(&sent.turn);
                let first = self.sent.first_key_value().map_or(u64::MAX, |(turn, _)| *turn);
                while self.settled.first_key_value().is_some_and(|(turn, _)| *turn < first) {
                    self.settled.pop_first();
                }
            }
            None => {
                self.unsent.remove(&sequence);
            }
        }
    }

    /// It has nothing more to say about an event that it has no more.
    pub(super) fn settle(&mut self, turn: u64, sequence: u64) {
        if self.sent.first_key_value().is_some_and(|(first, _)| *first < turn) {
            self.settled.insert(turn, sequence);
            if self.settled.len() > MOST_SETTLED {
                self.settled.pop_first();
            }
        }
    }

    /// When an event was sent that it settled before some that it was sent earlier.
    pub(super) fn turn_of_settled(&self, sequence: u64) -> Option<u64> {
        self.settled.iter().rev().find(|(_, settled)| **settled == sequence).map(|(turn, _)| *turn)
    }

    /// What was sent to it up to a turn, in that order.
    pub(super) fn sent_up_to(&self, turn: u64) -> Vec<u64> {
        self.sent.range(..=turn).map(|(_, sequence)| *sequence).collect()
    }

    /// Of what was sent to one whose transport is lost, the event that it was about to read then: the first behind the last that
    /// it has in its hands.
    pub(super) fn next_to_read(&self, is_held: impl Fn(u64) -> bool) -> Option<u64> {
        self.sent.values().rev().copied().take_while(|sequence| !is_held(*sequence)).last()
    }

    pub(super) fn leases(&self) -> usize {
        self.unsent.len() + self.sent.len()
    }

    /// How many more events it may have, of which its `share` is the most.
    pub(super) fn room(&self, share: impl FnOnce() -> usize) -> usize {
        let Some(window) = self.window else { return usize::MAX };
        window.events().min(share()).saturating_sub(self.leases() + self.owed.len())
    }

    /// The lease of an event ended without an answer, which it may be on the way to. True when it owes that from now on.
    pub(super) fn owe(&mut self, turn: u64, sequence: u64, now: u64) -> bool {
        let Some(window) = &mut self.window else { return false };
        window.expired();
        self.owed.insert(turn, sequence);
        self.heard = self.heard.max(now);
        true
    }

    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// It says something of an event, which is leased since a turn, or owed: it is done with what it was sent before that.
    /// True when it owed something then.
    pub(super) fn hear(&mut self, sequence: u64, leased: Option<u64>, now: u64) -> bool {
        self.heard = now;
        let late = || self.owed.iter().find(|(_, owed)| **owed == sequence).map(|(turn, _)| *turn);
        let turn = leased.or_else(late);
        if let Some(turn) = turn {
            self.owed = self.owed.split_off(&(turn + 1));
        }
        turn.is_some()
    }

    /// True when it has said nothing for `deadline`.
    pub(super) fn is_silent(&self, now: u64, deadline: u64) -> bool {
        self.heard.saturating_add(deadline) <= now
    }

    /// It has forgotten what it was sent.
    pub(super) fn forgive(&mut self) {
        self.owed.clear();
    }

    pub(super) fn forget_leases(&mut self) {
        self.unsent.clear();
        self.sent.clear();
        self.settled.clear();
        self.owed.clear();
    }
}
