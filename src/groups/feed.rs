//! What to read next of the stream. Pure.

/// The most events that are held and were not handed out, ready or behind others of their key. A key that makes no headway
/// uses up no more than its share of them.
pub(super) const LOOK_AHEAD: usize = 16 * 1024;

/// What to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// Read what comes after this sequence.
    pub after: u64,
    /// At most this many events; at least 1.
    pub room: usize,
}

/// What was read is not what is wanted next: the group was moved meanwhile. The read is to be thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events after {after} were offered, those after {wanted} are wanted")]
pub struct StaleRead {
    /// Where the read began.
    pub after: u64,
    /// Where the next read has to begin.
    pub wanted: u64,
}
