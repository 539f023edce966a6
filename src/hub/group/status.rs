//! How a group stands, as far as that is known: to its task, to a board that its task keeps, or to the store alone.

use std::sync::Arc;

use bytes::Bytes;

use super::{key::Key, removed::only_replaces};
use crate::{
    engine::{EventStream, ReadError, ReadLimits, StoredGroup},
    event::Event,
    groups::GroupState,
    model::{Group, GroupSettings, StreamError, StreamName},
};

/// With this many reads the oldest event that is not done is looked for.
const MOST_READS: usize = 16;

/// How a group stands.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// Its stream.
    pub stream: StreamName,
    /// Its name.
    pub group: Group,
    /// How it is set up.
    pub settings: GroupSettings,
    /// How many subscriptions are members.
    pub members: usize,
    /// Everything up to here is done.
    pub cursor: u64,
    /// Events that were not delivered to anybody yet.
    pub pending: u64,
    /// Events that were, and are not done.
    pub unacked: u64,
    /// The first event that is not done.
    pub oldest: Option<Event>,
    /// How many leases ran out since the hub started.
    pub expired: u64,
    /// How many events were dropped since then.
    pub dropped: u64,
    /// How many the stream removed before they were done, since then.
    pub lost: u64,
    /// How many wait behind an earlier one of their key.
    pub blocked: u64,
    /// How many became dead letters since the hub started.
    pub buried: u64,
    /// How many are given up, and not stored as dead letters yet.
    pub burying: u64,
}

/// What was counted for a group since the start of the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) expired: u64,
    pub(super) dropped: u64,
    pub(super) lost: u64,
    pub(super) buried: u64,
}

/// What is with the members of a group, and what that holds up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InHands {
    pub(super) members: usize,
    /// Events that were delivered, or wait for a further attempt.
    pub(super) unacked: u64,
    /// Events behind an earlier one of their key.
    pub(super) blocked: u64,
    /// Events that are given up, and not stored as dead letters yet.
    pub(super) burying: u64,
}

/// What is told of a group while its task waits for the disk.
#[derive(Debug, Clone)]
pub(super) struct Board {
    pub(super) settings: GroupSettings,
    pub(super) in_hands: InHands,
    pub(super) tally: Tally,
    /// Its state as it was stored last.
    pub(super) stored: Bytes,
}

/// How a group stands that no task knows.
pub(super) async fn of_idle(
    stream: &Arc<dyn EventStream>,
    stored: StoredGroup,
    mut tally: Tally,
) -> Result<GroupStatus, StreamError> {
    let key = Key::new(&**stream, &stored.group);
    let state = if stored.state.is_empty() {
        GroupState::new(stored.settings, stream.bounds().earliest - 1)
    } else {
        GroupState::restore(stored.settings, &stored.state, 0).map_err(|error| key.corrupt(error))?
    };
    if !only_replaces(&stream.settings()) {
        // Its task will count them when there is one.
        tally.lost += state.done().open_up_to(stream.bounds().earliest - 1);
    }
    of_state(stream, &key, &state, InHands::default(), tally).await
}

/// How a group stands whose task does not answer.
pub(super) async fn of_board(
    stream: &Arc<dyn EventStream>,
    group: &Group,
    board: Board,
) -> Result<GroupStatus, StreamError> {
    let key = Key::new(&**stream, group);
    let state = GroupState::restore(board.settings, &board.stored, 0).map_err(|error| key.corrupt(error))?;
    of_state(stream, &key, &state, board.in_hands, board.tally).await
}

/// How a group stands whose state is known.
pub(super) async fn of_state(
    stream: &Arc<dyn EventStream>,
    key: &Key,
    state: &GroupState,
    in_hands: InHands,
    tally: Tally,
) -> Result<GroupStatus, StreamError> {
    let kept = stream.kept();
    let mut after = state.floor().max(kept.earliest() - 1);
    let (mut open, mut first_open) = (0, None);
    let behind_all = (kept.latest() + 1, kept.latest() + 1);
    for (first, last) in state.done().ranges().take_while(|(first, _)| *first <= kept.latest()).chain([behind_all]) {
        let between = kept.between(after, (first - 1).max(after));
        if between > 0 && first_open.is_none() {
            first_open = Some(after);
        }
        open += between;
        after = after.max(last);
    }
    let oldest = match first_open {
        Some(after) => first_not_done(stream, state, after).await?,
        None => None,
    };
    let InHands { members, unacked, blocked, burying } = in_hands;
    Ok(GroupStatus {
        stream: key.stream.clone(),
        group: key.group.clone(),
        settings: state.settings().clone(),
        members,
        cursor: state.floor(),
        pending: open.saturating_sub(unacked),
        unacked,
        oldest,
        expired: tally.expired,
        dropped: tally.dropped,
        lost: tally.lost,
        blocked,
        buried: tally.buried,
        burying,
    })
}

/// The first event behind `after` that is there and not done, if few reads find it.
async fn first_not_done(
    stream: &Arc<dyn EventStream>,
    state: &GroupState,
    mut after: u64,
) -> Result<Option<Event>, StreamError> {
    for _ in 0..MOST_READS {
        let chunk = match stream.read(after, &Arc::default(), ReadLimits { events: 1, bytes: 1 }).await {
            Ok(chunk) => chunk,
            // Gone between the two looks.
            Err(ReadError::Lost { .. }) => return Ok(None),
            Err(error) => return Err(error.about(stream.name())),
        };
        let Some(event) = chunk.events.into_iter().next() else {
            if chunk.through >= chunk.latest {
                return Ok(None);
            }
            after = chunk.through;
            continue;
        };
        if !state.done().contains(event.sequence()) {
            return Ok(Some(event));
        }
        after = state.done().run_after(event.sequence());
    }
    Ok(None)
}
