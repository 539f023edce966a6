//! How many events a stream keeps behind a sequence.

/// What a stream kept when it was asked.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    earliest: u64,
    latest: u64,
    events: u64,
    /// First and last sequence of each place where events are missing, how many are missing there, and how many there and
    /// behind; ascending.
    missing: Vec<(u64, u64, u64, u64)>,
}

impl Kept {
    /// Of `events` from `earliest` to `latest`, with so many missing in each of these places, which ascend.
    pub fn new(
        earliest: u64,
        latest: u64,
        events: u64,
        places: impl DoubleEndedIterator<Item = (u64, u64, u64)>,
    ) -> Self {
        let mut sum = 0;
        let mut missing: Vec<_> = places
            .rev()
            .map(|(first, last, missing)| {
                sum += missing;
                (first, last, missing, sum)
            })
            .collect();
        missing.reverse();
        Self { earliest, latest, events, missing }
    }

    /// The first sequence of the stream.
    pub fn earliest(&self) -> u64 {
        self.earliest
    }

    /// The last one.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// How many events are kept behind a sequence: exactly, or, where very many are missing in the middle, a little more.
    pub fn after(&self, sequence: u64) -> u64 {
        if sequence < self.earliest {
            return self.events;
        }
        let at = self.missing.partition_point(|(_, last, ..)| *last <= sequence);
        let missing = self.missing.get(at).map_or(0, |(first, _, missing, sum)| {
            // Those of a place that is cut in two are before the cut as far as they can be.
            let before = (sequence + 1).saturating_sub((*first).max(self.earliest)).min(*missing);
            sum - before
        });
        self.latest.saturating_sub(sequence).saturating_sub(missing).min(self.events)
    }

    /// How many are kept behind `after` up to and with `through`, about as exactly.
    pub fn between(&self, after: u64, through: u64) -> u64 {
        self.after(after).saturating_sub(self.after(through)).min(through.saturating_sub(after))
    }
}
