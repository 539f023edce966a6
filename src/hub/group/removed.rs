//! Events that the stream loses before the group is done with them: they are done at once, and that is told.
//!
//! What is lost in front is known by where the stream begins. What is taken out of its middle is asked for: of all events
//! that the group holds, some at a time.

use super::driver::Active;
use crate::{
    engine::MAX_SEQUENCES,
    model::{End, StreamError, StreamSettings},
    outbox::{Gap, GapReason},
};

/// While the group holds events it is looked for removed ones this often, even if nothing else happens; what is taken out
/// all the time is asked for no more often.
const LOOK_MS: u64 = 1_000;
/// The log tells of a group that loses events no more often than this.
const TELL_MS: u64 = 10_000;

/// What a group knows of what its stream loses.
#[derive(Debug, Default)]
pub(super) struct Removed {
    /// How the stream was when all that is held was last asked for: how often events were taken out of its middle, and, if
    /// later events push out earlier ones, how far it had come.
    seen: (u64, u64),
    /// Held when that was found to have changed, and still to be asked for.
    asking: Vec<u64>,
    /// It is not asked before.
    again_at: u64,
    /// When to look again, if nothing happens until then.
    look_at: u64,
    /// How many were lost since the task began.
    pub(super) lost: u64,
    /// Of these the log has not been told,
    untold: u64,
    /// and is not before.
    tell_at: u64,
}

/// True for a stream of which the first events go only because later ones of their topics take their place: that is no loss.
pub(super) fn only_replaces(settings: &StreamSettings) -> bool {
    let StreamSettings { max_events_per_topic, max_age, max_events, max_bytes, .. } = settings;
    max_events_per_topic.is_some() && max_age.is_none() && max_events.is_none() && max_bytes.is_none()
}

impl Active {
    /// When to look for what was removed, if nothing happens until then.
    pub(super) fn look_due(&self) -> Option<u64> {
        let counts = self.state.counts();
        let holds = counts.pending + counts.unacked > 0 || self.removed.untold > 0;
        holds.then_some(self.removed.look_at)
    }

    /// Looks for events that the stream has lost; true when there is more to look at.
    pub(super) async fn look_for_removed(&mut self) -> bool {
        let now = self.clock.now();
        self.removed.look_at = now + LOOK_MS;
        self.look_at_front();
        self.tell_log(now);
        if self.removed.asking.is_empty() && now < self.removed.again_at {
            return false;
        }
        self.ask_for_some(now).await
    }

    /// The same without a pause, until all was looked at.
    pub(super) async fn look_for_all_removed(&mut self) {
        self.look_at_front();
        let now = self.clock.now();
        while self.ask_for_some(now).await {}
    }

    /// What comes before the first event of the stream is done.
    pub(super) fn look_at_front(&mut self) {
        let (earliest, floor) = (self.stream.earliest(), self.state.floor());
        if earliest <= floor + 1 {
            return;
        }
        let lost = self.state.purge(earliest - 1);
        if lost == 0 || only_replaces(&self.stream.settings()) {
            return;
        }
        let latest = *self.stream.visible().borrow();
        for seat in self.seats.those_who_end_with_gaps() {
            let error = StreamError::Lost { stream: self.key.0.clone(), after: floor, earliest, latest };
            seat.outbox.close_key(seat.key, End::Stream(error));
        }
        self.lose(lost, (floor + 1, earliest - 1));
    }

    /// Asks for some of what is held whether it is still there, if some of it may not be; true when there is more.
    async fn ask_for_some(&mut self, now: u64) -> bool {
        if self.over.is_some() || self.is_waiting(now) {
            return false;
        }
        if self.removed.asking.is_empty() {
            let pushes_out = self.stream.settings().max_events_per_topic.is_some();
            let latest = if pushes_out { *self.stream.visible().borrow() } else { 0 };
            let seen = (self.stream.removals(), latest);
            if self.removed.seen == seen {
                return false;
            }
            self.removed.seen = seen;
            self.removed.again_at = now + LOOK_MS;
            self.removed.asking = self.state.held_sequences();
        }
        let rest = self.removed.asking.len().saturating_sub(MAX_SEQUENCES);
        let some = self.removed.asking.split_off(rest);
        if some.is_empty() {
            return false;
        }
        let kept = match self.stream.which(some.clone()).await {
            Ok(kept) => kept,
            Err(error) => {
                self.removed.asking.extend(some);
                self.failed_to_read(&error);
                return false;
            }
        };
        // Told together: members are as many as clients choose.
        let gone = some.into_iter().filter(|sequence| kept.binary_search(sequence).is_err());
        let lost: Vec<u64> = gone.filter(|sequence| self.finish_gone(*sequence)).collect();
        if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
            self.lose(lost.len() as u64, (*first, *last));
        }
        !self.removed.asking.is_empty()
    }

    /// An event that the group holds is not in the stream any more, and is done.
    pub(super) fn gone(&mut self, sequence: u64) {
        if self.finish_gone(sequence) {
            self.lose(1, (sequence, sequence));
        }
    }

    /// The same; true when it is lost. That is so once it was tried: until then it is as one that is passed over. It is not
    /// where a later one of its topic takes its place.
    fn finish_gone(&mut self, sequence: u64) -> bool {
        let tried = self.state.gone(sequence) == Some(true) || self.state.gone_unread(sequence);
        tried && self.stream.settings().max_events_per_topic.is_none()
    }

    /// So many events between two sequences are lost to the group: its members are told, and whoever watches it.
    fn lose(&mut self, count: u64, sequences: (u64, u64)) {
        self.removed.lost += count;
        self.removed.untold += count;
        self.seats.tell_gap(Gap { count, sequences, reason: GapReason::Retention });
        self.tell_log(self.clock.now());
    }

    fn tell_log(&mut self, now: u64) {
        let untold = self.removed.untold;
        if untold == 0 || now < self.removed.tell_at {
            return;
        }
        (self.removed.untold, self.removed.tell_at) = (0, now + TELL_MS);
        let (stream, group) = (&self.key.0, self.key.2.as_str());
        tracing::warn!(%stream, group, lost = untold, "a group lost events: the stream removed them before they were done");
    }
}
