//! Making, changing, moving and deleting a group, and telling how it stands.

use std::{sync::Arc, time::UNIX_EPOCH};

use bytes::Bytes;

use super::{
    Board, InHands, Tally,
    command::Answer,
    driver::{Active, Driver, not_found},
    no_dead_letter_stream, of_group,
    removed::only_replaces,
};
use crate::{
    engine::{EventStream, ReadError, ReadLimits, StoredGroup},
    event::Event,
    groups::GroupState,
    model::{Group, GroupSettings, Start, StreamError, StreamName},
};

/// With so many reads the oldest event that is not done is looked for.
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
}

/// How sure what is told of a group has to be. Whichever it is, what is told when that takes too long is how it was stored
/// last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// As it is now: a crash may undo the last of it. Does not wait for that to be stored.
    Now,
    /// Told once it is stored, so that no crash undoes it, or could not be.
    Stored,
}

/// What became of dead letters that were given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// So many are delivered again.
    pub redriven: usize,
    /// So many are nothing for the members there are, and stay.
    pub unmatched: usize,
    /// For the others there was no room: too many wait to be delivered.
    pub full: bool,
}

impl Driver {
    /// Makes the group, to begin at `start`.
    pub(super) async fn create(&mut self, settings: GroupSettings, start: &Start) -> Result<(), StreamError> {
        let name = self.stream.name().clone();
        self.check(&settings)?;
        let (_, _, group) = self.active_key();
        let (first, begins) = sequence_at(&self.stream, start, "start").await?;
        let refused = |error| of_group(&error, &name, Some(&group));
        let mut state = GroupState::new(settings.clone(), first - 1);
        state.begin_at(begins);
        let stored: Bytes = state.encode(&[]).into();
        self.stream.create_group(group.clone(), settings, stored.clone()).await.map_err(refused)?;
        self.active = Some(self.active_with(state, stored));
        Ok(())
    }

    pub(super) async fn update(
        &mut self,
        change: Box<dyn FnOnce(&mut GroupSettings) + Send>,
    ) -> Result<(), StreamError> {
        let mut settings = self.active().await?.state.settings().clone();
        change(&mut settings);
        self.check(&settings)?;
        let (name, _, group) = self.active_key();
        let updated = self.stream.update_group(group.clone(), settings.clone()).await;
        updated.map_err(|error| of_group(&error, &name, Some(&group)))?;
        let active = self.active().await?;
        // What is being stored as dead letters is not to be tried again, whatever the settings say now.
        active.finish_save().await;
        active.state.set_settings(settings);
        active.saves.unread = true;
        Ok(())
    }

    pub(super) async fn delete(&mut self) -> Result<(), StreamError> {
        let active = self.active().await?;
        let key = active.key.clone();
        let (name, _, group) = &key;
        let deleted = self.stream.delete_group(group.clone()).await;
        deleted.map_err(|error| of_group(&error, name, Some(group)))?;
        self.active().await?.over = Some(not_found(&key));
        Ok(())
    }

    fn check(&self, settings: &GroupSettings) -> Result<(), StreamError> {
        settings.check()?;
        let Some(letters) = &settings.dead_letter_stream else { return Ok(()) };
        if letters == self.stream.name() {
            let problem = "must differ from the stream of the group".to_owned();
            return Err(StreamError::Mismatch { field: "dead_letter_stream", problem });
        }
        match self.groups.stream(letters.as_str()) {
            Ok(_) => Ok(()),
            Err(_) => Err(no_dead_letter_stream(letters)),
        }
    }
}

impl Active {
    pub(super) async fn seek(&mut self, to: &Start, answer: Answer<()>) {
        match sequence_at(&self.stream, to, "position").await {
            Ok((sequence, begins)) => {
                self.state.seek(sequence);
                self.state.begin_at(begins);
                self.ready.clear();
                self.seats.recall();
                self.when_stored(move |stored| _ = answer.send(stored));
            }
            Err(error) => _ = answer.send(Err(error)),
        }
    }

    pub(super) async fn status(&mut self, base: Tally, as_of: AsOf, answer: Answer<GroupStatus>) {
        match as_of {
            AsOf::Now => self.look_at_front(),
            AsOf::Stored => self.look_for_all_removed().await,
        }
        let (name, _, group) = &self.key;
        let (in_hands, tally) = (self.in_hands(), self.tally(base));
        let status = status(&self.stream, name, group, &self.state, in_hands, tally).await;
        let tell = move |_| _ = answer.send(status);
        match as_of {
            AsOf::Now => tell(Ok(())),
            AsOf::Stored => self.when_stored(tell),
        }
    }

    /// What members have, and what waits for that.
    pub(super) fn in_hands(&self) -> InHands {
        let counts = self.state.counts();
        InHands { members: self.seats.len(), unacked: counts.unacked as u64, blocked: counts.behind as u64 }
    }
}

/// How a group stands that no task knows.
pub(super) async fn standing_of_idle(
    stream: &Arc<dyn EventStream>,
    stored: StoredGroup,
    mut tally: Tally,
) -> Result<GroupStatus, StreamError> {
    let state = if stored.state.is_empty() {
        GroupState::new(stored.settings, stream.earliest() - 1)
    } else {
        GroupState::restore(stored.settings, &stored.state, 0).map_err(|error| {
            let group = stored.group.as_str();
            StreamError::Corrupt(format!("group {group} of stream {}: {error}", stream.name()))
        })?
    };
    if !only_replaces(&stream.settings()) {
        // Its task will count them when there is one.
        tally.lost += state.open_up_to(stream.earliest() - 1);
    }
    status(stream, stream.name(), &stored.group, &state, InHands::default(), tally).await
}

/// How a group stands whose task does not answer.
pub(super) async fn standing_of_board(
    stream: &Arc<dyn EventStream>,
    group: &Group,
    board: Board,
) -> Result<GroupStatus, StreamError> {
    let state = GroupState::restore(board.settings, &board.stored, 0).map_err(|error| {
        StreamError::Corrupt(format!("group {} of stream {}: {error}", group.as_str(), stream.name()))
    })?;
    status(stream, stream.name(), group, &state, board.in_hands, board.tally).await
}

async fn status(
    stream: &Arc<dyn EventStream>,
    name: &StreamName,
    group: &Group,
    state: &GroupState,
    in_hands: InHands,
    tally: Tally,
) -> Result<GroupStatus, StreamError> {
    let kept = stream.kept();
    let mut after = state.floor().max(kept.earliest() - 1);
    let (mut open, mut first_open) = (0, None);
    let behind_all = (kept.latest() + 1, kept.latest() + 1);
    for (first, last) in state.done_above().take_while(|(first, _)| *first <= kept.latest()).chain([behind_all]) {
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
    let InHands { members, unacked, blocked } = in_hands;
    Ok(GroupStatus {
        stream: name.clone(),
        group: group.clone(),
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
        match state.done_through(event.sequence()) {
            Some(last) => after = last,
            None => return Ok(Some(event)),
        }
    }
    Ok(None)
}

/// The first sequence that a group gets which begins there; and when it begins, in microseconds since 1970, if that is not yet.
async fn sequence_at(
    stream: &Arc<dyn EventStream>,
    start: &Start,
    field: &'static str,
) -> Result<(u64, u64), StreamError> {
    let kept = stream.state();
    let refuse = |problem: String| Err(StreamError::Mismatch { field, problem });
    match start {
        Start::New => Ok((kept.latest + 1, 0)),
        Start::Earliest => Ok((kept.earliest, 0)),
        Start::After(sequence) if *sequence > kept.latest => {
            refuse(format!("is beyond the end of the stream, which is {}", kept.latest))
        }
        Start::After(sequence) => Ok((sequence + 1, 0)),
        // What comes until then is nothing for it.
        Start::At(time) if *time > stream.now() => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok((kept.latest + 1, u64::try_from(since.as_micros()).unwrap_or(u64::MAX)))
        }
        Start::At(time) => match stream.first_at(*time).await {
            Ok(sequence) => Ok((sequence.max(kept.earliest), 0)),
            Err(ReadError::Lost { earliest, .. }) => Ok((earliest, 0)),
            Err(error) => Err(error.about(stream.name())),
        },
        Start::LastPerTopic => refuse("of a group cannot be the last event of every topic".to_owned()),
        Start::Token(_) => refuse("of a group cannot be a resume token".to_owned()),
    }
}
