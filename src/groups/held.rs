//! The events that are held: where each is, and those of its key behind it. Pure.
//!
//! An event moves by [`HeldEvents::lift`] out of its place and [`HeldEvents::place`] into another; nothing else touches the
//! sets that a place stands for.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::member::{MemberId, Sent};

/// With no event held, tables with room for more than this many are given back.
const KEEP_EVENTS: usize = 1024;

/// One event that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) phase: Phase,
    key: Option<u64>,
    /// The event of the same key that it is behind.
    leader: Option<u64>,
    /// The next event of the same key.
    follower: Option<u64>,
    /// When it was first written to a transport.
    pub(super) sent_since: Option<u64>,
}

impl Held {
    /// True while an earlier one of its key is not done.
    pub(super) fn is_behind(&self) -> bool {
        self.leader.is_some()
    }

    /// Which one of its key is free once it is done.
    pub(super) fn frees(&self) -> Option<u64> {
        self.follower.filter(|_| self.leader.is_none())
    }
}

/// The held events of one key.
#[derive(Debug, Clone, Copy)]
struct Chain {
    /// The one that came last, which the next one will follow.
    last: u64,
    events: usize,
}

/// The place of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// In no set: an earlier one of its key is not done. Also while it moves.
    Behind,
    /// May be handed out, for the first time.
    New,
    /// May be handed out, and was before.
    Again,
    /// Failed, and waits until `due`.
    Waiting { due: u64 },
    /// With a member.
    Leased { member: MemberId, sent: Option<Sent> },
    /// Given up, and not stored as a dead letter yet.
    Burying,
    /// In no set: given back to the group, and nothing for the members there are. Holds nothing up.
    Aside,
}

/// All events that are held. Each is in exactly one of the places that [`Phase`] names.
#[derive(Debug, Default)]
pub(super) struct HeldEvents {
    events: HashMap<u64, Held>,
    keys: HashMap<u64, Chain>,
    new: BTreeSet<u64>,
    again: BTreeSet<u64>,
    burying: BTreeSet<u64>,
    /// When leases and waits end, and of which event.
    timers: BTreeSet<(u64, u64)>,
    leased: usize,
    waiting: usize,
    aside: usize,
}

impl HeldEvents {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Held> {
        self.events.get(&sequence)
    }

    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.events.contains_key(&sequence)
    }

    pub(super) fn phase(&self, sequence: u64) -> Option<Phase> {
        self.events.get(&sequence).map(|event| event.phase)
    }

    /// To whom an event was sent that is leased, and how.
    pub(super) fn sent_to(&self, sequence: u64) -> Option<(MemberId, Sent)> {
        match self.phase(sequence)? {
            Phase::Leased { member, sent: Some(sent) } => Some((member, sent)),
            _ => None,
        }
    }

    /// Holds an event, in no set yet. True when it is behind no other of its key.
    pub(super) fn hold(&mut self, sequence: u64, key: Option<u64>) -> bool {
        let leader = key.and_then(|key| self.chain(key, sequence));
        self.events.insert(sequence, Held { phase: Phase::Behind, key, leader, follower: None, sent_since: None });
        let leader = leader.and_then(|leader| self.events.get_mut(&leader));
        let is_first = leader.is_none();
        if let Some(leader) = leader {
            leader.follower = Some(sequence);
        }
        is_first
    }

    /// Makes an event the last of its key that is held, and tells which one was.
    fn chain(&mut self, key: u64, sequence: u64) -> Option<u64> {
        let chain = self.keys.entry(key).or_insert(Chain { last: sequence, events: 0 });
        chain.events += 1;
        let before = std::mem::replace(&mut chain.last, sequence);
        (chain.events > 1).then_some(before)
    }

    /// Puts an event that is in no set into one.
    pub(super) fn place(&mut self, sequence: u64, phase: Phase) {
        let Some(event) = self.events.get_mut(&sequence) else { return };
        event.phase = phase;
        match phase {
            Phase::Behind => {}
            Phase::New => {
                self.new.insert(sequence);
            }
            Phase::Again => {
                self.again.insert(sequence);
            }
            Phase::Waiting { due } => {
                self.timers.insert((due, sequence));
                self.waiting += 1;
            }
            Phase::Leased { sent, .. } => {
                self.leased += 1;
                if let Some(sent) = sent {
                    self.timers.insert((sent.deadline, sequence));
                }
            }
            Phase::Burying => {
                self.burying.insert(sequence);
            }
            Phase::Aside => self.aside += 1,
        }
    }

    /// Takes an event out of whatever set it is in, and tells where it was.
    pub(super) fn lift(&mut self, sequence: u64) -> Option<Phase> {
        let event = self.events.get_mut(&sequence)?;
        let phase = std::mem::replace(&mut event.phase, Phase::Behind);
        match phase {
            Phase::Behind => {}
            Phase::New => {
                self.new.remove(&sequence);
            }
            Phase::Again => {
                self.again.remove(&sequence);
            }
            Phase::Waiting { due } => {
                self.timers.remove(&(due, sequence));
                self.waiting -= 1;
            }
            Phase::Leased { sent, .. } => {
                self.leased -= 1;
                if let Some(sent) = sent {
                    self.timers.remove(&(sent.deadline, sequence));
                }
            }
            Phase::Burying => {
                self.burying.remove(&sequence);
            }
            Phase::Aside => self.aside -= 1,
        }
        Some(phase)
    }

    /// An event that is leased was written to the transport of its member.
    pub(super) fn mark_sent(&mut self, sequence: u64, now: u64) {
        if let Some(event) = self.events.get_mut(&sequence) {
            event.sent_since.get_or_insert(now);
        }
    }

    /// Lets go of an event that is in no set.
    pub(super) fn remove(&mut self, sequence: u64) -> Option<Held> {
        let event = self.events.remove(&sequence)?;
        self.unlink(&event);
        if self.events.is_empty() && self.events.capacity() > KEEP_EVENTS {
            self.events.shrink_to(KEEP_EVENTS / 2);
            self.keys.shrink_to(KEEP_EVENTS / 2);
        }
        Some(event)
    }

    /// Takes an event out of the list of its key. One that is not the first of it goes only when the stream loses it: one
    /// that was reopened is behind later ones.
    fn unlink(&mut self, event: &Held) {
        if let Some(leader) = event.leader.and_then(|leader| self.events.get_mut(&leader)) {
            leader.follower = event.follower;
        }
        if let Some(follower) = event.follower.and_then(|follower| self.events.get_mut(&follower)) {
            follower.leader = event.leader;
        }
        let Some(key) = event.key else { return };
        let Some(chain) = self.keys.get_mut(&key) else { return };
        chain.events -= 1;
        if chain.events == 0 {
            self.keys.remove(&key);
        } else if let (None, Some(leader)) = (event.follower, event.leader) {
            chain.last = leader;
        }
    }

    /// The next to be handed out: the lowest that comes back, or else the lowest new one, unless as many as `max_unacked`
    /// are unacknowledged.
    pub(super) fn next(&self, max_unacked: u32) -> Option<u64> {
        let new = || self.new.first().filter(|_| self.unacked() < max_unacked as usize);
        self.again.first().or_else(new).copied()
    }

    /// When the next lease or wait ends.
    pub(super) fn due(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// An event of which the lease or the wait is over by now.
    pub(super) fn over_by(&self, now: u64) -> Option<u64> {
        self.timers.first().filter(|(at, _)| *at <= now).map(|(_, sequence)| *sequence)
    }

    /// Those that are given up, and not stored as dead letters yet, ascending.
    pub(super) fn burying(&self) -> &BTreeSet<u64> {
        &self.burying
    }

    /// All of them, ascending. Costs as much as there are.
    pub(super) fn sequences(&self) -> Vec<u64> {
        self.between(0, u64::MAX)
    }

    /// Those from `first` to `last`, ascending. Costs as much as there are.
    pub(super) fn between(&self, first: u64, last: u64) -> Vec<u64> {
        let mut held: Vec<u64> = self.events.keys().copied().filter(|held| (first..=last).contains(held)).collect();
        held.sort_unstable();
        held
    }

    /// How many are of a key.
    pub(super) fn of_key(&self, key: u64) -> usize {
        self.keys.get(&key).map_or(0, |chain| chain.events)
    }

    /// How many may be handed out for the first time.
    pub(super) fn fresh(&self) -> usize {
        self.new.len()
    }

    /// How many are with members.
    pub(super) fn leased(&self) -> usize {
        self.leased
    }

    /// How many came back: they wait for their time or for a member.
    pub(super) fn redelivering(&self) -> usize {
        self.waiting + self.again.len()
    }

    pub(super) fn unacked(&self) -> usize {
        self.leased + self.redelivering() + self.burying.len()
    }

    /// How many hold up the feed once they are too many.
    pub(super) fn ahead(&self) -> usize {
        self.len() - self.unacked() - self.aside
    }
}
