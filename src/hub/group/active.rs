//! A group that exists, while its task runs: its state, its stream, its members, and what is stored of it.
//!
//! What it does with these is in the files beside this one, a verb each.

use super::{
    ready::Ready,
    removed::Removed,
    saves::Saves,
    seats::Seats,
    source::Source,
    status::{InHands, Tally},
};
use crate::{engine::Fence, groups::GroupState, model::StreamError, outbox::Gap};

/// A group that exists.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) source: Source,
    pub(super) state: GroupState,
    pub(super) seats: Seats,
    pub(super) ready: Ready,
    pub(super) removed: Removed,
    pub(super) saves: Saves,
    /// Under which this hub drives it.
    pub(super) fence: Fence,
}

impl Active {
    /// Nobody uses it yet; `state` is stored as it is.
    pub(super) fn new(source: Source, state: GroupState, stored: bytes::Bytes, fence: Fence) -> Self {
        let (seats, ready, removed) = (Seats::default(), Ready::default(), Removed::default());
        let saves = Saves::new(state.revision(), stored);
        Self { source, state, seats, ready, removed, saves, fence }
    }

    pub(super) fn now(&self) -> u64 {
        self.source.clock.now()
    }

    /// When time alone brings something to do.
    pub(super) fn due(&self) -> Option<u64> {
        let due =
            [self.state.due(), self.seats.due(), self.source.due(), self.saves.due(), self.removed.due(&self.state)];
        due.into_iter().flatten().min()
    }

    /// True when nobody needs it, and all is stored.
    pub(super) fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.state.counts().members == 0 && self.saves.is_settled(self.state.revision())
    }

    /// What was counted since the hub started, of which `base` was before.
    pub(super) fn tally(&self, base: Tally) -> Tally {
        let counts = self.state.counts();
        let (expired, dropped) = (base.expired + counts.expired, base.dropped + counts.dropped);
        let (lost, buried) = (base.lost + self.removed.lost(), base.buried + self.saves.buried());
        Tally { expired, dropped, lost, buried }
    }

    /// What members have, and what waits for that.
    pub(super) fn in_hands(&self) -> InHands {
        let counts = self.state.counts();
        InHands {
            members: self.seats.len(),
            unacked: counts.unacked as u64,
            blocked: counts.behind as u64,
            burying: counts.burying as u64,
        }
    }

    /// Does `then` once all that was done so far is stored, or could not be.
    pub(super) fn when_stored(&mut self, then: impl FnOnce(Result<(), StreamError>) + Send + 'static) {
        self.saves.when_stored(self.state.revision(), 1, then);
    }

    /// An event that the group holds is not in the stream any more, and is done.
    pub(super) fn gone(&mut self, sequence: u64) {
        let gap = self.removed.gone(sequence, &self.source, &mut self.state);
        self.tell(gap);
    }

    /// Events are lost to the group: its members are told, and whoever watches it.
    pub(super) fn tell(&mut self, gap: Option<Gap>) {
        if let Some(gap) = gap {
            self.seats.tell_gap(gap);
            self.removed.tell_log(&self.source, self.source.clock.now());
        }
    }

    /// The group is no more: its members are told, and whoever waits.
    pub(super) fn end(mut self, error: &StreamError) {
        self.saves.fail_all(error);
        self.seats.close(error);
    }
}
