//! The group of the hub in memory: who has which event, and what a member that comes back still has.

use std::collections::{BTreeMap, BTreeSet};

/// All leases, and all members by the names they are known by.
#[derive(Debug, Default)]
pub(super) struct Leases {
    holders: BTreeMap<i64, u64>,
    /// By the session and the subscription; of one that came back also by those before.
    known: BTreeMap<(String, i64), u64>,
    next: u64,
}

impl Leases {
    /// A member joins in one session, perhaps after another one. True if it has what it held there: all of it, or what it says.
    pub(super) fn join(&mut self, id: i64, (session, previous): (&str, &str), held: Option<&[i64]>) -> (u64, bool) {
        self.next += 1;
        let member = self.next;
        let name = (previous.to_owned(), id);
        let before = self.known.get(&name).copied().filter(|before| self.holders.values().any(|one| one == before));
        if let Some(before) = before {
            self.known.insert(name, member);
            self.holders.retain(|sequence, one| *one != before || held.is_none_or(|held| held.contains(sequence)));
            self.holders.values_mut().filter(|one| **one == before).for_each(|one| *one = member);
        }
        self.known.insert((session.to_owned(), id), member);
        (member, before.is_some())
    }

    pub(super) fn give(&mut self, member: u64, sequence: i64) {
        assert!(self.holders.insert(sequence, member).is_none(), "{sequence} is somebody's");
    }

    pub(super) fn is_free(&self, sequence: i64) -> bool {
        !self.holders.contains_key(&sequence)
    }

    pub(super) fn has(&self, member: u64, sequence: i64) -> bool {
        self.holders.get(&sequence) == Some(&member)
    }

    pub(super) fn take(&mut self, sequence: i64) {
        self.holders.remove(&sequence);
    }

    /// A member goes in order.
    pub(super) fn leave(&mut self, member: u64) {
        self.holders.retain(|_, one| *one != member);
    }

    /// Nobody but these is waited for any longer.
    pub(super) fn forget_all_but(&mut self, members: &BTreeSet<u64>) {
        self.holders.retain(|_, one| members.contains(one));
    }

    /// Nobody is waited for any longer.
    pub(super) fn forget_all(&mut self) {
        self.holders.clear();
        self.known.clear();
    }

    /// All that somebody has.
    pub(super) fn sequences(&self) -> BTreeSet<i64> {
        self.holders.keys().copied().collect()
    }
}
