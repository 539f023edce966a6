//! The members of a group: how many events each may have, who may have more than before, and who is gone for good. Pure.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::{
    member::{Member, MemberId, Sent},
    window::{self, Window},
};

#[derive(Debug)]
pub(super) struct Members {
    all: HashMap<MemberId, Member>,
    /// When those that lost their transport are given up.
    windows: BTreeSet<(u64, MemberId)>,
    /// Those with a window that may have more events than they could.
    eased: BTreeSet<MemberId>,
    /// Those that owe an answer for events of which the lease is over.
    owing: BTreeSet<MemberId>,
    /// How many have a window.
    paced: usize,
    /// As many events as all together may have.
    most: usize,
}

impl Members {
    /// None yet, for a group that may have `most` events with its members.
    pub(super) fn new(most: u32) -> Self {
        Self {
            all: HashMap::new(),
            windows: BTreeSet::new(),
            eased: BTreeSet::new(),
            owing: BTreeSet::new(),
            paced: 0,
            most: most as usize,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, id: MemberId) -> Option<&Member> {
        self.all.get(&id)
    }

    /// One joins. One that is there stays as it is.
    pub(super) fn join(&mut self, id: MemberId) {
        self.all.entry(id).or_default();
    }

    /// One goes, with what it has.
    pub(super) fn remove(&mut self, id: MemberId) -> Option<Member> {
        let member = self.all.remove(&id)?;
        if let Some(until) = member.detached_until {
            self.windows.remove(&(until, id));
        }
        self.eased.remove(&id);
        self.owing.remove(&id);
        self.paced -= usize::from(member.window.is_some());
        // The share of the others has grown; that is nothing for them unless it is the share that holds them back.
        if self.share() <= window::MOST as usize {
            self.ease_all();
        }
        Some(member)
    }

    /// The transport of one is lost, which may come back until then. Gives what was not sent to it.
    pub(super) fn detach(&mut self, id: MemberId, until: u64) -> BTreeSet<u64> {
        let Some(member) = self.all.get_mut(&id) else { return BTreeSet::new() };
        member.detached_until = Some(until);
        self.windows.insert((until, id));
        std::mem::take(&mut member.unsent)
    }

    /// True for one that has lost its transport, and may come back.
    pub(super) fn is_away(&self, id: MemberId) -> bool {
        self.all.get(&id).is_some_and(|member| !member.is_attached())
    }

    /// One that was not come back for by now.
    pub(super) fn lost_by(&self, now: u64) -> Option<MemberId> {
        self.windows.first().filter(|(until, _)| *until <= now).map(|(_, id)| *id)
    }

    /// When the next one is given up.
    pub(super) fn due(&self) -> Option<u64> {
        self.windows.first().map(|(until, _)| *until)
    }

    /// An event is with one from now on.
    pub(super) fn take(&mut self, id: MemberId, sequence: u64, sent: Option<Sent>) {
        let Some(member) = self.all.get_mut(&id) else { return };
        member.take(sequence, sent);
        if member.window.is_some() && self.room(id) == 0 {
            self.eased.remove(&id);
        }
    }

    /// An event is not with one any more.
    pub(super) fn give_back(&mut self, id: MemberId, sequence: u64, sent: Option<Sent>) {
        let Some(member) = self.all.get_mut(&id) else { return };
        member.give_back(sequence, sent);
        if member.window.is_some() {
            self.eased.insert(id);
        }
    }

    /// One has nothing more to say about an event, which was sent in this turn.
    pub(super) fn settle(&mut self, id: MemberId, turn: u64, sequence: u64) {
        if let Some(member) = self.all.get_mut(&id) {
            member.settle(turn, sequence);
        }
    }

    /// From now on one has no more events than it seems to work through in time.
    pub(super) fn pace(&mut self, id: MemberId) {
        if let Some(member) = self.all.get_mut(&id).filter(|member| member.window.is_none()) {
            member.window = Some(Window::first());
            self.paced += 1;
        }
    }

    /// One that is paced goes on with the window of another: what it has would have been sent to it, too.
    pub(super) fn inherit_window(&mut self, id: MemberId, window: Option<Window>) {
        if let (Some(window), Some(successor)) = (window, self.all.get_mut(&id)) {
            successor.window = successor.window.map(|_| window);
        }
    }

    /// How many more events one may have, as far as its window goes.
    pub(super) fn room(&self, id: MemberId) -> usize {
        self.all.get(&id).map_or(0, |member| member.room(|| self.share()))
    }

    /// One answered for an event that was sent to it at `since`, of which the lease is `deadline` long.
    pub(super) fn measure(&mut self, id: MemberId, since: Option<u64>, now: u64, deadline: u64) {
        let window = self.all.get_mut(&id).and_then(|member| member.window.as_mut());
        if let (Some(since), Some(window)) = (since, window) {
            window.answered(now.saturating_sub(since), deadline);
        }
    }

    /// The lease of an event ends without an answer, which its member may be on the way to.
    pub(super) fn owe(&mut self, id: MemberId, turn: u64, sequence: u64, now: u64) {
        if self.all.get_mut(&id).is_some_and(|member| member.owe(turn, sequence, now)) {
            self.owing.insert(id);
        }
    }

    /// One says something of an event that is leased to it since a turn, or was: it is done with what it was sent before.
    pub(super) fn hear(&mut self, id: MemberId, sequence: u64, leased: Option<u64>, now: u64) {
        let Some(member) = self.all.get_mut(&id).filter(|member| member.owes()) else { return };
        if member.hear(sequence, leased, now) {
            if !member.owes() {
                self.owing.remove(&id);
            }
            self.eased.insert(id);
        }
    }

    /// True while some have yet to say something of events of which the lease is over.
    pub(super) fn owe_answers(&self) -> bool {
        !self.owing.is_empty()
    }

    /// Those that have said nothing for as long as they may take for an event have forgotten what they were sent.
    pub(super) fn forgive(&mut self, now: u64, deadline: u64) {
        let silent = |id: &MemberId| self.all.get(id).is_none_or(|member| member.is_silent(now, deadline));
        let silent: Vec<MemberId> = self.owing.iter().copied().filter(silent).collect();
        for id in silent {
            self.owing.remove(&id);
            if let Some(member) = self.all.get_mut(&id) {
                member.forgive();
                self.eased.insert(id);
            }
        }
    }

    /// Those that may have more events than they could since the last call.
    pub(super) fn take_eased(&mut self) -> BTreeSet<MemberId> {
        std::mem::take(&mut self.eased)
    }

    /// What all together may have is another.
    pub(super) fn set_most(&mut self, most: u32) {
        self.most = most as usize;
        self.ease_all();
    }

    /// Nobody has anything any more.
    pub(super) fn forget_leases(&mut self) {
        self.all.values_mut().for_each(Member::forget_leases);
        self.owing.clear();
        self.eased.clear();
        self.ease_all();
    }

    /// What one with a window may have at most, so that there is some for all.
    fn share(&self) -> usize {
        (self.most / self.paced.max(1)).max(1)
    }

    /// The share of each may have grown.
    fn ease_all(&mut self) {
        let paced = self.all.iter().filter(|(_, member)| member.window.is_some());
        self.eased.extend(paced.map(|(id, _)| *id));
    }
}
