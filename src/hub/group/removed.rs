//! What a group knows of the events that its stream loses before it is done with them: they are done at once, and that is
//! told.
//!
//! What is lost in front is known by where the stream begins. What is taken out of its middle is asked for: of all events
//! that the group holds, some at a time.

use super::source::Source;
use crate::{
    engine::MAX_SEQUENCES,
    groups::GroupState,
    model::StreamSettings,
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
    lost: u64,
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

impl Removed {
    /// How many events were lost since the task began.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// When to look for what was removed, if nothing happens until then.
    pub(super) fn due(&self, state: &GroupState) -> Option<u64> {
        let counts = state.counts();
        let holds = counts.pending + counts.unacked > 0 || self.untold > 0;
        holds.then_some(self.look_at)
    }

    /// It is looked for removed ones now.
    pub(super) fn looks(&mut self, now: u64) {
        self.look_at = now + LOOK_MS;
    }

    /// False until it is time to ask again.
    pub(super) fn may_ask(&self, now: u64) -> bool {
        !self.asking.is_empty() || now >= self.again_at
    }

    /// What comes before the first event of the stream is done. Gives what is lost by that.
    pub(super) fn look_at_front(&mut self, source: &Source, state: &mut GroupState) -> Option<Gap> {
        let (earliest, floor) = (source.stream.bounds().earliest, state.floor());
        if earliest <= floor + 1 {
            return None;
        }
        let lost = state.purge(earliest - 1);
        if lost == 0 || only_replaces(&source.stream.settings()) {
            return None;
        }
        Some(self.lose(lost, (floor + 1, earliest - 1)))
    }

    /// Asks for some of what is held whether it is still there, if some of it may not be. Gives what is lost, and whether
    /// there is more to ask for.
    pub(super) async fn ask_for_some(
        &mut self,
        source: &mut Source,
        state: &mut GroupState,
        now: u64,
    ) -> (Option<Gap>, bool) {
        let some = if source.may_read(now) { self.next_to_ask(source, state, now) } else { Vec::new() };
        if some.is_empty() {
            return (None, false);
        }
        let kept = match source.stream.which(some.clone()).await {
            Ok(kept) => kept,
            Err(error) => {
                self.asking.extend(some);
                source.failed_to_read(&error);
                return (None, false);
            }
        };
        // Told together: members are as many as clients choose.
        let gone = some.into_iter().filter(|sequence| kept.binary_search(sequence).is_err());
        let lost: Vec<u64> = gone.filter(|sequence| finish(*sequence, source, state)).collect();
        let ends = lost.first().zip(lost.last());
        let gap = ends.map(|(first, last)| self.lose(lost.len() as u64, (*first, *last)));
        (gap, !self.asking.is_empty())
    }

    fn next_to_ask(&mut self, source: &Source, state: &GroupState, now: u64) -> Vec<u64> {
        if self.asking.is_empty() {
            let pushes_out = source.stream.settings().max_events_per_topic.is_some();
            let latest = if pushes_out { source.latest() } else { 0 };
            let seen = (source.stream.removals(), latest);
            if self.seen == seen {
                return Vec::new();
            }
            self.seen = seen;
            self.again_at = now + LOOK_MS;
            self.asking = state.held_sequences();
        }
        let rest = self.asking.len().saturating_sub(MAX_SEQUENCES);
        self.asking.split_off(rest)
    }

    /// An event that the group holds is not in the stream any more, and is done. Gives what is lost by that.
    pub(super) fn gone(&mut self, sequence: u64, source: &Source, state: &mut GroupState) -> Option<Gap> {
        finish(sequence, source, state).then(|| self.lose(1, (sequence, sequence)))
    }

    fn lose(&mut self, count: u64, sequences: (u64, u64)) -> Gap {
        self.lost += count;
        self.untold += count;
        Gap { count, sequences, reason: GapReason::Retention }
    }

    /// Tells the log what is lost, if it is time.
    pub(super) fn tell_log(&mut self, source: &Source, now: u64) {
        let untold = self.untold;
        if untold == 0 || now < self.tell_at {
            return;
        }
        (self.untold, self.tell_at) = (0, now + TELL_MS);
        let (stream, group) = (&source.key.stream, source.key.group.as_str());
        tracing::warn!(%stream, group, lost = untold, "a group lost events: the stream removed them before they were done");
    }
}

/// An event is not in the stream any more, and is done; true when it is lost. That is so once it was tried: until then it is
/// as one that is passed over. It is not where a later one of its topic takes its place.
fn finish(sequence: u64, source: &Source, state: &mut GroupState) -> bool {
    let tried = state.gone(sequence) == Some(true) || state.gone_unread(sequence);
    tried && source.stream.settings().max_events_per_topic.is_none()
}
