//! The rounds of dead letters: what an event is known by that is given up once more. Pure.

/// What tells apart the letters of one event. An event that was given back has a round of its own; all others have that of
/// the last time the group was moved. So the round of an event changes by nothing that happens to others, and a letter that is
/// tried again after a restart has the same one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rounds {
    /// How often events were given back or the group was moved.
    pub(super) counted: u64,
    /// The round of what was not given back.
    pub(super) moved: u64,
}
