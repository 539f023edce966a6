//! What the outbox keeps for one subscription from a stream: how far it came, and whether it waits to be filled.
//!
//! Such a subscription is filled by its session, which reads the stream for it; nothing is ever dropped from its queue
//! without being read again. Pure.

use std::sync::Arc;

use super::frame::{Gap, GapReason};
use crate::model::{Filter, Group, Origin, Position, filter_tokens, limits};

/// At most this many events wait for one subscription from a stream: several record batches of small ones, since one that
/// is read in parts is read again for each part,
const MOST_EVENTS: usize = 4096;
/// or as many as have this many bytes,
const MOST_BYTES: usize = 1024 * 1024;
/// and it is filled again once no more than a half of either waits.
const LOW_PART: usize = 2;

/// At most this many events wait for one member of a group: what waits for it is kept from the others.
const MOST_MEMBER_EVENTS: usize = limits::AUTOMATIC_CREDIT_EVENTS as usize;
/// As much, in bytes.
const MOST_MEMBER_BYTES: usize = limits::AUTOMATIC_CREDIT_BYTES as usize;

/// How much more may be put into a queue, and behind what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Everything up to this sequence was sent, waits, or was passed over. 0 for a member of a group.
    pub after: u64,
    /// How many events.
    pub events: usize,
    /// How many bytes.
    pub bytes: usize,
}

/// What a subscription from a stream asked for. Shared with whoever reads the stream for it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// None: everything.
    pub filters: Arc<[Filter]>,
    /// The tokens of the filters.
    pub(super) tokens: u32,
}

impl Wanted {
    /// What these filters match.
    pub fn new(filters: Arc<[Filter]>) -> Self {
        // The limit on tokens is below 2^32.
        let tokens = filter_tokens(&filters) as u32;
        Self { filters, tokens }
    }
}

/// The group on a stream that a subscription is a member of.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its stream.
    pub origin: Arc<Origin>,
    /// Its name.
    pub group: Group,
}

/// What became of events for a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// They wait in it.
    Taken,
    /// They do not: what waited before them was given up since, and comes first.
    Stale,
    /// The subscription is gone.
    Gone,
}

/// The part of a subscription that only a member of a group on a stream has. Its group keeps its place.
#[derive(Debug)]
pub(super) struct Member {
    /// Its group may hand it more, and has been told or need not be.
    pub(super) hungry: bool,
    /// It says what became of what it was sent: it has not had all it may get before it has said that of the last event.
    pub(super) acknowledges: bool,
    /// What it asked for.
    pub(super) wanted: Wanted,
    /// Where it is a member.
    pub(super) joined: Joined,
    /// What its group has lost and it was not told yet.
    gap: Option<Gap>,
}

impl Member {
    pub(super) fn new(acknowledges: bool, wanted: Wanted, joined: Joined) -> Self {
        Self { hungry: false, acknowledges, wanted, joined, gap: None }
    }

    /// Its group has lost events: told with those lost before that it has not heard of yet.
    pub(super) fn lose(&mut self, gap: Gap) {
        let Gap { count, sequences: (from, to), reason } = gap;
        let before = self.gap.unwrap_or(Gap { count: 0, sequences: (from, to), reason });
        let sequences = (before.sequences.0.min(from), before.sequences.1.max(to));
        self.gap = Some(Gap { count: before.count.saturating_add(count), sequences, reason });
    }

    /// The group has lost events of which it was not told yet.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// The gap that is due, which is then no longer due.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    /// How much more fits into its queue, given what waits there.
    pub(super) fn room(events: usize, bytes: usize) -> Room {
        Room {
            after: 0,
            events: MOST_MEMBER_EVENTS.saturating_sub(events),
            bytes: MOST_MEMBER_BYTES.saturating_sub(bytes),
        }
    }

    /// True when it is time to fill its queue, given what waits there.
    pub(super) fn is_low(events: usize, bytes: usize) -> bool {
        events <= MOST_MEMBER_EVENTS / LOW_PART && bytes <= MOST_MEMBER_BYTES / LOW_PART
    }
}

/// The part of a subscription that only one from a stream has.
#[derive(Debug)]
// Each is true or not by itself: none follows from the others.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Stored {
    origin: Arc<Origin>,
    /// Everything up to here was sent or passed over.
    sent: u64,
    /// Everything up to here was sent, waits, or was passed over.
    through: u64,
    /// The last sequence that the stream was known to have.
    latest: u64,
    /// Nothing the stream has is missing in the queue.
    caught_up: bool,
    /// Tells of `sent` and `latest` as soon as nothing waits.
    progress_due: bool,
    /// Told as soon as nothing waits; nothing is put in before.
    gap: Option<Gap>,
    /// Its session wants to put more into its queue, and has been told or need not be.
    pub(super) hungry: bool,
    /// Its session keeps it filled without being asked.
    pub(super) following: bool,
    /// What it asked for.
    pub(super) wanted: Wanted,
}

impl Stored {
    /// One that begins behind `position`.
    pub(super) fn new(position: Position, latest: u64, wanted: Wanted) -> Self {
        let Position { origin, sequence } = position;
        Self {
            origin,
            sent: sequence,
            through: sequence,
            latest,
            caught_up: false,
            progress_due: false,
            gap: None,
            hungry: false,
            following: false,
            wanted,
        }
    }

    /// How far it came.
    pub(super) fn position(&self) -> Position {
        Position { origin: Arc::clone(&self.origin), sequence: self.sent }
    }

    /// True when nothing that the stream is known to have is missing in its queue.
    pub(super) fn caught_up(&self) -> bool {
        self.caught_up
    }

    /// The last sequence that the stream was known to have.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Everything up to here was sent, waits, or was passed over.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// Something is lost, which it was not told yet.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// How much more fits into its queue, given what waits there.
    pub(super) fn room(&self, events: usize, bytes: usize) -> Room {
        if self.gap.is_some() {
            return Room { after: self.through, events: 0, bytes: 0 };
        }
        let (events, bytes) = (MOST_EVENTS.saturating_sub(events), MOST_BYTES.saturating_sub(bytes));
        Room { after: self.through, events, bytes }
    }

    /// True when it is time to fill its queue, given what waits there.
    pub(super) fn is_low(&self, events: usize, bytes: usize) -> bool {
        self.gap.is_none() && events <= MOST_EVENTS / LOW_PART && bytes <= MOST_BYTES / LOW_PART
    }

    /// The stream was read up to `through` and is known to have `latest`; what was found waits now.
    pub(super) fn passed(&mut self, through: u64, latest: u64, waits: bool) {
        self.through = self.through.max(through);
        self.latest = self.latest.max(latest);
        let before = std::mem::replace(&mut self.caught_up, self.through >= self.latest);
        self.progress_due |= self.caught_up && !before;
        if !waits {
            self.sent = self.through;
        }
    }

    /// It will be told how far it came.
    pub(super) fn tell(&mut self) {
        self.progress_due = true;
    }

    /// An event left the queue, in which others wait or not.
    pub(super) fn left(&mut self, sequence: u64, others: bool) {
        self.sent = if others { sequence } else { self.through.max(sequence) };
    }

    /// Everything that waited is gone and will be read again. So is a gap behind it: what is lost is found again, but for
    /// that of another epoch, before which nothing waits.
    pub(super) fn rewind(&mut self) {
        self.gap = self.gap.take().filter(|gap| gap.reason == GapReason::Epoch);
        self.through = self.sent;
        self.caught_up = false;
        self.following = false;
    }

    /// True when an event of that sequence is the next for it, or a later one.
    pub(super) fn wants(&self, sequence: u64) -> bool {
        sequence > self.through
    }

    /// Events up to `to` are lost, and it goes on behind them. How many that are is not known of a stream that was made
    /// anew.
    pub(super) fn lose(&mut self, to: u64, reason: GapReason) {
        let from = self.through + 1;
        if reason == GapReason::Epoch {
            self.gap = Some(Gap { count: 0, sequences: (0, 0), reason });
        } else if to >= from {
            self.gap = Some(Gap { count: to - from + 1, sequences: (from, to), reason });
            self.through = to;
        }
    }

    /// True when there is something to tell once nothing waits.
    pub(super) fn has_news(&self) -> bool {
        self.gap.is_some() || self.progress_due
    }

    /// The gap that is due, which is then no longer due.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        let gap = self.gap.take();
        if gap.is_some() {
            self.sent = self.through;
        }
        gap
    }

    /// Whether progress is due, which is then no longer due.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StreamName;

    fn stored(sequence: u64, latest: u64) -> Stored {
        let origin = Arc::new(Origin { stream: StreamName::parse("s").expect("a name"), epoch: 7 });
        Stored::new(Position { origin, sequence }, latest, Wanted::new(Arc::default()))
    }

    #[test]
    fn progress_is_never_ahead_of_what_was_sent() {
        let mut one = stored(0, 10);
        one.passed(10, 10, true);
        assert_eq!(one.position().sequence, 0, "events wait");
        one.left(4, true);
        assert_eq!(one.position().sequence, 4);
        one.left(8, false);
        assert_eq!(one.position().sequence, 10, "what follows was passed over");
        assert!(one.take_progress(), "it has caught up");
        assert!(!one.take_progress());
    }

    #[test]
    fn what_is_rewound_is_read_again_behind_what_was_sent() {
        let mut one = stored(0, 10);
        one.passed(10, 10, true);
        one.left(3, true);
        one.rewind();
        assert_eq!(one.room(0, 0).after, 3);
        assert_eq!(one.position().sequence, 3);
    }

    #[test]
    fn what_a_group_loses_while_its_member_hears_nothing_is_one_gap() {
        let origin = Arc::clone(&stored(0, 0).origin);
        let joined = Joined { origin, group: Group::parse("g").expect("a name") };
        let mut member = Member::new(true, Wanted::new(Arc::default()), joined);
        for (count, sequences) in [(3, (5, 7)), (1, (2, 2)), (4, (8, 20))] {
            member.lose(Gap { count, sequences, reason: GapReason::Retention });
        }
        let told = Gap { count: 8, sequences: (2, 20), reason: GapReason::Retention };
        assert_eq!((member.take_gap(), member.take_gap()), (Some(told), None));
    }

    #[test]
    fn a_gap_is_told_behind_what_waits_and_before_what_follows() {
        let mut one = stored(5, 100);
        one.lose(40, GapReason::Retention);
        assert_eq!(one.room(0, 0), Room { after: 40, events: 0, bytes: 0 });
        assert_eq!(one.position().sequence, 5);
        let gap = one.take_gap().expect("a gap");
        assert_eq!((gap.count, gap.sequences), (35, (6, 40)));
        assert_eq!(one.position().sequence, 40);
        one.lose(40, GapReason::Retention);
        assert_eq!(one.take_gap(), None, "nothing more is lost");
        one.lose(40, GapReason::Epoch);
        assert_eq!(one.take_gap().map(|gap| gap.count), Some(0), "another stream, of which nothing was sent");
    }
}
