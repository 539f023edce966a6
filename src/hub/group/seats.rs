//! The members of a group as its task sees them: where each takes its events, and whose turn it is.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    command::{Identity, Newcomer},
    shown::MemberName,
};
use crate::{
    groups::{GroupState, MemberId},
    model::{AckMode, End, Filter, StreamError},
    outbox::{Filler, Gap, SubscriptionKey},
};

/// How long until it is looked again whether there is memory for those that wait for it.
const STARVED_INTERVAL_MS: u64 = 100;

/// One member that has a transport.
#[derive(Debug)]
// Each is true or not by itself: none follows from the others.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Seat {
    pub(super) outbox: Filler,
    pub(super) key: SubscriptionKey,
    /// Otherwise what was sent is done.
    pub(super) acknowledges: bool,
    may_return: bool,
    ends_with_gap: bool,
    /// How many events it may still be sent; `u64::MAX` is no limit.
    left: u64,
    /// It stands in the rotation.
    in_rotation: bool,
}

/// All members.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: HashMap<MemberId, Seat>,
    /// Those that may have room, in turn.
    rotation: VecDeque<MemberId>,
    /// Those for whom the hub has no memory, and when to look again.
    starved: Vec<MemberId>,
    starved_until: u64,
    /// Those that were sent all they wanted, and have yet to acknowledge some of it.
    sated: Vec<MemberId>,
    /// All members, with or without a transport, by how they are told when they come back: by their session, and by the one
    /// that this went on for. Some may be gone.
    known: HashMap<Identity, MemberId>,
    /// How they are called.
    names: HashMap<MemberId, MemberName>,
    /// What all members want of the stream, sorted; none: everything. That of the last ones when there is none.
    filters: Option<Arc<[Filter]>>,
}

impl Seats {
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    pub(super) fn get(&self, member: MemberId) -> Option<&Seat> {
        self.taken.get(&member)
    }

    /// The numbers of all members, in no order. Some may be gone.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.names.keys().map(|member| member.0)
    }

    /// How a member is called.
    pub(super) fn name(&self, member: MemberId) -> Option<&MemberName> {
        self.names.get(&member)
    }

    /// The member that is known so, with or without a transport.
    pub(super) fn member(&self, identity: &Identity) -> Option<MemberId> {
        self.known.get(identity).copied()
    }

    pub(super) fn filters(&self) -> Option<&Arc<[Filter]>> {
        self.filters.as_ref()
    }

    /// A member may have room.
    pub(super) fn hungry(&mut self, member: MemberId) {
        if let Some(seat) = self.taken.get_mut(&member).filter(|seat| !seat.in_rotation) {
            seat.in_rotation = true;
            self.rotation.push_back(member);
        }
    }

    /// Whose turn it is; it is not in the rotation any more.
    pub(super) fn next(&mut self) -> Option<MemberId> {
        while let Some(member) = self.rotation.pop_front() {
            if let Some(seat) = self.taken.get_mut(&member) {
                seat.in_rotation = false;
                return Some(member);
            }
        }
        None
    }

    /// A member that was [`Self::next`] and got nothing is next again.
    pub(super) fn put_first(&mut self, member: MemberId) {
        if let Some(seat) = self.taken.get_mut(&member).filter(|seat| !seat.in_rotation) {
            seat.in_rotation = true;
            self.rotation.push_front(member);
        }
    }

    pub(super) fn has_turns(&self) -> bool {
        !self.rotation.is_empty()
    }

    /// The hub has no memory for what a member would get.
    pub(super) fn starve(&mut self, member: MemberId, now: u64) {
        self.starved.push(member);
        self.starved_until = now + STARVED_INTERVAL_MS;
    }

    pub(super) fn look_again(&mut self, now: u64) {
        if now >= self.starved_until {
            for member in std::mem::take(&mut self.starved) {
                self.hungry(member);
            }
        }
    }

    pub(super) fn due(&self) -> Option<u64> {
        (!self.starved.is_empty()).then_some(self.starved_until)
    }

    /// A member was sent events.
    pub(super) fn sent(&mut self, member: MemberId, events: usize) {
        if let Some(seat) = self.taken.get_mut(&member).filter(|seat| seat.left > 0 && seat.left != u64::MAX) {
            seat.left = seat.left.saturating_sub(events as u64);
            if seat.left == 0 && seat.acknowledges {
                self.sated.push(member);
            }
        }
    }

    /// The seats of those that were sent all they wanted and, by `is_settled`, hold none of it any more. Each is told of
    /// once.
    pub(super) fn settled(&mut self, is_settled: impl Fn(MemberId) -> bool) -> Vec<(Filler, SubscriptionKey)> {
        let all: Vec<MemberId> = self.sated.extract_if(.., |member| is_settled(*member)).collect();
        let seats = all.iter().filter_map(|member| self.taken.get(member));
        seats.map(|seat| (seat.outbox.clone(), seat.key)).collect()
    }

    /// A member has no transport any more. True when it may come back with another.
    pub(super) fn vacate(&mut self, member: MemberId) -> bool {
        self.taken.remove(&member).is_some_and(|seat| seat.may_return)
    }

    /// Members that may come back.
    pub(super) fn absent(&self) -> Vec<MemberId> {
        self.known.values().copied().filter(|member| !self.taken.contains_key(member)).collect()
    }

    /// Everything that waits for members is to be forgotten: it is handed out anew.
    pub(super) fn recall(&mut self) {
        let all: Vec<MemberId> = self.taken.keys().copied().collect();
        for member in all {
            if let Some(seat) = self.taken.get(&member) {
                seat.outbox.recall(seat.key);
            }
            self.hungry(member);
        }
    }

    /// The seats of members that end when events are lost.
    pub(super) fn those_who_end_with_gaps(&self) -> impl Iterator<Item = &Seat> {
        self.taken.values().filter(|seat| seat.ends_with_gap)
    }

    /// Tells all members that events are lost to the group.
    pub(super) fn tell_gap(&self, gap: Gap) {
        self.taken.values().for_each(|seat| seat.outbox.tell_gap(seat.key, gap));
    }

    /// Ends the subscriptions of all members.
    pub(super) fn close(&mut self, error: &StreamError) {
        for (_, seat) in self.taken.drain() {
            seat.outbox.close_key(seat.key, End::Stream(error.clone()));
        }
    }

    /// Takes in a member, which is in the group already.
    pub(super) fn take(&mut self, newcomer: Newcomer) {
        let Newcomer { member, outbox, key, identity, may_return, ends_with_gap, .. } = newcomer;
        let acknowledges = newcomer.ack_mode != AckMode::None;
        let left = newcomer.max_events.unwrap_or(u64::MAX);
        let name = MemberName {
            client_name: newcomer.client_name,
            principal: Arc::clone(&identity.principal),
            session: Arc::clone(&identity.session),
            subscription_id: identity.subscription_id,
        };
        self.names.insert(member, name);
        self.known.insert(identity, member);
        let seat = Seat { outbox, key, acknowledges, may_return, ends_with_gap, left, in_rotation: false };
        self.taken.insert(member, seat);
        self.hungry(member);
    }

    /// A member comes back as another: which one it was, if the group has that one still. Its old transport may not be known to
    /// be lost yet: what that says is of nobody then. It is found by the same name once more: its client may lose this
    /// connection, too, before it has read how its new session is called.
    pub(super) fn come_back(&mut self, previous: &Identity, member: MemberId, state: &GroupState) -> Option<MemberId> {
        let known = self.known.get_mut(previous).filter(|before| state.has_member(**before))?;
        let before = std::mem::replace(known, member);
        if let Some(seat) = self.taken.remove(&before) {
            seat.outbox.close_key(seat.key, End::Unsubscribed);
        }
        Some(before)
    }

    /// All members have the same filters: an event that is nothing for one of them would be done for all. Only `first` may
    /// have others than the last ones had; true when it has.
    pub(super) fn agree_on(&mut self, filters: &[Filter], first: bool) -> Result<bool, StreamError> {
        let mut sorted = filters.to_vec();
        sorted.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        sorted.dedup();
        if self.filters.as_ref().is_some_and(|theirs| **theirs == *sorted) {
            return Ok(false);
        }
        if self.filters.is_some() && !first {
            let problem = "differ from those of the other members of the group".to_owned();
            return Err(StreamError::Mismatch { field: "filters", problem });
        }
        Ok(self.filters.replace(sorted.into()).is_some())
    }

    /// Forgets how members that are gone would be told.
    pub(super) fn forget_absent(&mut self, state: &GroupState) {
        // Each by two names at most.
        if self.known.len() > 2 * state.counts().members {
            self.known.retain(|_, member| state.has_member(*member));
        }
        if self.names.len() > state.counts().members {
            self.names.retain(|member, _| state.has_member(*member));
        }
    }
}
