//! The life of one group: read from the store when it is needed first, made, changed and deleted, until it is over.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    active::Active,
    clock::Clock,
    command::Newcomer,
    key::{Key, no_dead_letter_stream},
    source::Source,
    start::sequence_at,
    status::Tally,
};
use crate::{
    engine::{Claim, Engine, EventStream, Fence},
    groups::GroupState,
    model::{GroupSettings, Start, StreamError},
};

/// A group that may exist.
#[derive(Debug)]
pub(super) struct Life {
    engine: Arc<dyn Engine>,
    pub(super) key: Key,
    stream: Arc<dyn EventStream>,
    pub(super) clock: Clock,
    /// What was counted before it was `active`.
    pub(super) base: Tally,
    /// `None` until it is needed, and while the group does not exist.
    pub(super) active: Option<Active>,
}

impl Life {
    /// `base` is what was counted of the group before.
    pub(super) fn new(engine: Arc<dyn Engine>, key: Key, stream: Arc<dyn EventStream>, base: Tally) -> Self {
        Self { engine, key, stream, clock: Clock::start(), base, active: None }
    }

    /// The group, read from the store if it was not yet.
    pub(super) async fn active(&mut self) -> Result<&mut Active, StreamError> {
        if self.active.is_none() {
            self.active = self.load().await?;
        }
        self.active.as_mut().ok_or_else(|| self.key.not_found())
    }

    pub(super) async fn bury(&mut self) -> Result<(), StreamError> {
        self.active().await?.bury().await;
        Ok(())
    }

    async fn load(&mut self) -> Result<Option<Active>, StreamError> {
        // In this order: what is loaded under the claim is what is saved under it.
        let fence = claim(&*self.stream, &self.key).await?;
        let stored = self.stream.groups().load(self.key.group.clone()).await;
        let Some(stored) = stored.map_err(|error| self.key.refused(&error))? else { return Ok(None) };
        let kept = self.stream.state().await.map_err(|error| error.about(self.stream.name()))?;
        let now = self.clock.now();
        let mut state = if stored.state.is_empty() {
            // One of a stream in memory, which is another now; all it has is new to the group.
            GroupState::new(stored.settings, kept.earliest - 1)
        } else {
            GroupState::restore(stored.settings, &stored.state, now).map_err(|error| self.key.corrupt(error))?
        };
        if state.floor() > kept.latest {
            // The stream lost its tail, and the group did not.
            state.seek(kept.latest + 1);
        }
        let stored = state.encode(&[]).into();
        Ok(Some(self.active_with(state, stored, fence)))
    }

    /// `stored` is the state as it is stored.
    fn active_with(&self, state: GroupState, stored: Bytes, fence: Fence) -> Active {
        Active::new(Source::new(self.key.clone(), Arc::clone(&self.stream), self.clock), state, stored, fence)
    }

    pub(super) async fn join(&mut self, newcomer: Newcomer) -> Result<(), StreamError> {
        match self.active().await.map(drop) {
            Err(StreamError::GroupNotFound { .. }) => {
                self.create(GroupSettings::default(), &newcomer.start).await?;
            }
            known => known?,
        }
        let active = self.active().await?;
        // With other filters than before the group reads anew: what is being stored as dead letters has to be done by then.
        active.finish_save().await;
        active.seat(newcomer)
    }

    /// Makes the group, to begin at `start`.
    pub(super) async fn create(&mut self, settings: GroupSettings, start: &Start) -> Result<(), StreamError> {
        self.check(&settings)?;
        let (first, begins) = sequence_at(&self.stream, start, "start").await?;
        let mut state = GroupState::new(settings.clone(), first - 1);
        state.begin_at(begins);
        let stored: Bytes = state.encode(&[]).into();
        let created = self.stream.groups().create(self.key.group.clone(), settings, stored.clone()).await;
        created.map_err(|error| self.key.refused(&error))?;
        let fence = claim(&*self.stream, &self.key).await?;
        self.active = Some(self.active_with(state, stored, fence));
        Ok(())
    }

    pub(super) async fn update(
        &mut self,
        change: Box<dyn FnOnce(&mut GroupSettings) + Send>,
    ) -> Result<(), StreamError> {
        let mut settings = self.active().await?.state.settings().clone();
        change(&mut settings);
        self.check(&settings)?;
        let updated = self.stream.groups().update(self.key.group.clone(), settings.clone()).await;
        updated.map_err(|error| self.key.refused(&error))?;
        let active = self.active().await?;
        // What is being stored as dead letters is not to be tried again, whatever the settings say now.
        active.finish_save().await;
        active.state.set_settings(settings);
        active.saves.look_for_unread();
        Ok(())
    }

    pub(super) async fn delete(&mut self) -> Result<(), StreamError> {
        self.active().await?;
        let deleted = self.stream.groups().delete(self.key.group.clone()).await;
        deleted.map_err(|error| self.key.refused(&error))?;
        let not_found = self.key.not_found();
        self.active().await?.source.end(not_found);
        Ok(())
    }

    fn check(&self, settings: &GroupSettings) -> Result<(), StreamError> {
        settings.check()?;
        let Some(letters) = &settings.dead_letter_stream else { return Ok(()) };
        if letters == self.stream.name() {
            let problem = "must differ from the stream of the group".to_owned();
            return Err(StreamError::Mismatch { field: "dead_letter_stream", problem });
        }
        let found = self.engine.stream(letters.as_str());
        found.map(drop).ok_or_else(|| no_dead_letter_stream(letters))
    }

    /// Ends it if it is over, for those who wait and its members.
    pub(super) fn end_if_over(&mut self) {
        let Some(error) = self.active.as_mut().and_then(|active| active.source.take_end()) else { return };
        self.base = self.tally();
        if let Some(active) = self.active.take() {
            active.end(&error);
        }
    }

    /// What was counted since the hub started.
    pub(super) fn tally(&self) -> Tally {
        self.active.as_ref().map_or(self.base, |active| active.tally(self.base))
    }

    /// Its task has failed, or has nothing left to do.
    pub(super) fn abandon(&mut self) {
        if let Some(active) = self.active.take() {
            // Only a task that failed has members.
            active.end(&StreamError::Unavailable);
        }
    }
}

/// Claims a group for this hub.
async fn claim(stream: &dyn EventStream, key: &Key) -> Result<Fence, StreamError> {
    match stream.groups().claim(key.group.clone()).await {
        Ok(Claim::Here(fence)) => Ok(fence),
        Ok(Claim::At(node)) => {
            tracing::debug!(stream = %key.stream, group = key.group.as_str(), %node, "another hub drives this group");
            Err(StreamError::Unavailable)
        }
        Err(error) => Err(key.refused(&error)),
    }
}
