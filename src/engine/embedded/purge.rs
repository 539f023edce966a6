//! What is to be taken out of a stream, and what is left of that to be done. Pure.

use std::collections::BTreeSet;

use super::lasts::Lasts;
use crate::model::{Filter, Topic};

/// What is still to be purged of a stream.
#[derive(Debug)]
pub(super) enum Purge {
    /// Everything up to a sequence.
    UpTo(u64),
    /// What is selected, from sequence `at` on.
    Selected { selection: Selection, at: u64 },
    /// Nothing of this, but the last events of topics are to be found; and then the rest.
    Lasts { search: Lasts, rest: Option<Box<Purge>> },
}

/// What is taken out of a stream, wherever in it that is.
#[derive(Debug)]
pub(super) enum Selection {
    /// What matches the filter, up to a sequence.
    Matching { up_to: u64, filter: Filter },
    /// The events of these sequences.
    Sequences(BTreeSet<u64>),
}

impl Selection {
    /// Leaves out what comes after `last`.
    pub(super) fn limit(&mut self, last: u64) {
        match self {
            Self::Matching { up_to, .. } => *up_to = last.min(*up_to),
            Self::Sequences(sequences) => sequences.retain(|sequence| *sequence <= last),
        }
    }

    /// The first sequence it may mean, from `at` on.
    pub(super) fn next(&self, at: u64) -> Option<u64> {
        match self {
            Self::Matching { up_to, .. } => (at <= *up_to).then_some(at),
            Self::Sequences(sequences) => sequences.range(at..).next().copied(),
        }
    }

    pub(super) fn takes(&self, sequence: u64, topic: &[u8]) -> bool {
        match self {
            Self::Matching { up_to, filter } => {
                sequence <= *up_to && Topic::parse(topic).is_ok_and(|topic| filter.matches(topic))
            }
            Self::Sequences(sequences) => sequences.contains(&sequence),
        }
    }
}
