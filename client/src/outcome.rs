//! What became of an event that was published. Pure.

use crate::proto::v1::Durability;

/// An event was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// A stream has it.
    #[non_exhaustive]
    Stored {
        /// Which stream.
        stream: String,
        /// Its sequence there.
        sequence: i64,
        /// The epoch of the stream.
        epoch: i64,
        /// The stream had it already: from an earlier try, or from another event with the same topic, source and id.
        duplicate: bool,
        /// What the stream promises.
        durability: Durability,
        /// How many live subscriptions of that hub got it too; a group counts as one.
        matched: i64,
    },
    /// No stream holds its topic. It went to live subscriptions.
    #[non_exhaustive]
    Live {
        /// How many got it on that hub; a group counts as one.
        matched: i64,
    },
}

impl Published {
    /// Its sequence, if a stream has it.
    pub fn sequence(&self) -> Option<i64> {
        match self {
            Self::Stored { sequence, .. } => Some(*sequence),
            Self::Live { .. } => None,
        }
    }

    /// True when a stream had it already.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Stored { duplicate: true, .. })
    }
}
