//! Where each event is that is not done, and the events of its key behind it. Pure.
//!
//! An event moves by [`GroupState::lift`] out of its place and [`GroupState::place`] into another; nothing else touches
//! the sets that a place stands for.

use super::{GroupState, MemberId};

/// With no event held, tables with room for more than this many are given back.
const KEEP_EVENTS: usize = 1024;

/// One event that is not done.
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

/// The held events of one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    /// The one that came last, which the next one will follow.
    last: u64,
    pub(super) events: usize,
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

impl GroupState {
    pub(super) fn phase(&self, sequence: u64) -> Option<Phase> {
        self.held.get(&sequence).map(|event| event.phase)
    }

    /// Holds an event that was offered: behind the one of its key, if there is one.
    pub(super) fn hold(&mut self, sequence: u64, key: Option<u64>) {
        let leader = key.and_then(|key| self.chain(key, sequence));
        self.held.insert(sequence, Held { phase: Phase::Behind, key, leader, follower: None, sent_since: None });
        match leader.and_then(|leader| self.held.get_mut(&leader)) {
            Some(leader) => leader.follower = Some(sequence),
            None => self.release(sequence),
        }
    }

    /// Makes an event the last of its key that is held, and tells which one was.
    fn chain(&mut self, key: u64, sequence: u64) -> Option<u64> {
        let chain = self.keys.entry(key).or_insert(Chain { last: sequence, events: 0 });
        chain.events += 1;
        let before = std::mem::replace(&mut chain.last, sequence);
        (chain.events > 1).then_some(before)
    }

    /// Holds an event that was given back and is nothing for the members there are.
    pub(super) fn hold_aside(&mut self, sequence: u64) {
        let event = Held { phase: Phase::Behind, key: None, leader: None, follower: None, sent_since: None };
        self.held.insert(sequence, event);
        self.place(sequence, Phase::Aside);
    }

    /// Puts an event that is in no set into one.
    pub(super) fn place(&mut self, sequence: u64, phase: Phase) {
        let Some(event) = self.held.get_mut(&sequence) else { return };
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
            Phase::Leased { member, sent } => {
                self.leased += 1;
                if let Some(sent) = sent {
                    self.timers.insert((sent.deadline, sequence));
                }
                if let Some(member) = self.members.get_mut(&member) {
                    member.take(sequence, sent);
                    let leases = member.leases();
                    if let Some(window) = &mut member.window {
                        window.took(leases);
                    }
                }
                if self.room(member) == 0 {
                    self.eased.remove(&member);
                }
            }
            Phase::Burying => {
                self.burying.insert(sequence);
            }
            Phase::Aside => self.aside += 1,
        }
    }

    /// Takes an event out of whatever set it is in.
    pub(super) fn lift(&mut self, sequence: u64) {
        let Some(event) = self.held.get_mut(&sequence) else { return };
        match std::mem::replace(&mut event.phase, Phase::Behind) {
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
            Phase::Leased { member, sent } => {
                self.leased -= 1;
                if let Some(sent) = sent {
                    self.timers.remove(&(sent.deadline, sequence));
                }
                if let Some(known) = self.members.get_mut(&member) {
                    known.give_back(sequence, sent);
                    if known.window.is_some() {
                        self.eased.insert(member);
                    }
                }
            }
            Phase::Burying => {
                self.burying.remove(&sequence);
            }
            Phase::Aside => self.aside -= 1,
        }
    }

    /// The event is done: the next one of its key is free, unless this was behind another itself.
    pub(super) fn finish(&mut self, sequence: u64) {
        if let Some(follower) = self.remove(sequence) {
            self.release(follower);
        }
    }

    /// Decides where an event goes that is with nobody and behind nobody.
    pub(super) fn release(&mut self, sequence: u64) {
        let mut next = Some(sequence);
        // A dropped event frees the next one of its key, which may be one to drop too.
        while let Some(sequence) = next.take() {
            let Some(event) = self.held.get(&sequence) else { return };
            let phase = match self.failures.get(&sequence) {
                Some(failure) if failure.is_final(&self.settings) => Phase::Burying,
                Some(failure) if failure.due > self.clock => Phase::Waiting { due: failure.due },
                Some(failure) if failure.attempts > 0 => Phase::Again,
                _ if event.sent_since.is_some() => Phase::Again,
                _ => Phase::New,
            };
            if phase == Phase::Burying && self.settings.dead_letter_stream.is_none() {
                self.dropped += 1;
                next = self.remove(sequence);
            } else {
                self.place(sequence, phase);
            }
        }
    }

    /// Makes an event done, and tells which one of its key is free by that.
    fn remove(&mut self, sequence: u64) -> Option<u64> {
        self.lift(sequence);
        let event = self.held.remove(&sequence)?;
        self.revision += 1;
        self.done.insert(sequence, sequence);
        self.failures.remove(&sequence);
        self.unlink(&event);
        if self.held.is_empty() && self.held.capacity() > KEEP_EVENTS {
            self.held.shrink_to(KEEP_EVENTS / 2);
            self.keys.shrink_to(KEEP_EVENTS / 2);
        }
        event.follower.filter(|_| event.leader.is_none())
    }

    /// Takes an event out of the list of its key. One that is not the first of it goes only when the stream loses it: one
    /// that was reopened is behind later ones.
    fn unlink(&mut self, event: &Held) {
        if let Some(leader) = event.leader.and_then(|leader| self.held.get_mut(&leader)) {
            leader.follower = event.follower;
        }
        if let Some(follower) = event.follower.and_then(|follower| self.held.get_mut(&follower)) {
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
}
