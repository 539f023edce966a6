//! What is asked of groups at work and changes nothing: who their members are, and what these have.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    Groups,
    command::{Answer, Command, Identity, View},
    key::{self, Key},
    shown::{MemberStatus, UnackedEvent},
};
use crate::{
    engine::EventStream,
    model::{Group, Origin, StreamError},
};

/// A group is asked for the events of one page so often at most, each time for those it finds with so many looks.
const ASKED_PER_PAGE: usize = 16;

impl Groups {
    /// The first `most` members of a group with numbers after `after`, and where to go on if there are more.
    pub async fn members(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
        after: u64,
        most: usize,
    ) -> Result<(Vec<MemberStatus>, Option<u64>), StreamError> {
        let shown = self.shown(stream, group, |answer| View::Members { after, most, answer }).await?;
        Ok(shown.unwrap_or_default())
    }

    /// The first `most` events of a group that were delivered and are not done, after a sequence, and where to go on if there
    /// may be more.
    pub async fn unacked(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
        mut after: u64,
        most: usize,
    ) -> Result<(Vec<UnackedEvent>, Option<u64>), StreamError> {
        let mut found = Vec::new();
        for _ in 0..ASKED_PER_PAGE {
            let left = most - found.len();
            let shown = self.shown(stream, group, |answer| View::Unacked { after, most: left, answer }).await?;
            let (some, next) = shown.unwrap_or_default();
            found.extend(some);
            match next {
                Some(next) if found.len() < most => after = next,
                next => return Ok((found, next)),
            }
        }
        Ok((found, Some(after)))
    }

    /// What a group shows of itself; `None` for one that nobody uses, which has nothing to show.
    async fn shown<T>(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
        view: impl FnOnce(Answer<T>) -> View,
    ) -> Result<Option<T>, StreamError> {
        let key = Key::new(&**stream, group);
        let Some(handle) = self.in_use.find(&key) else {
            let stored = stream.groups().load(group.clone()).await;
            let stored = stored.map_err(|error| key::refused(&error, stream.name(), Some(group)))?;
            return stored.map(|_| None).ok_or_else(|| key.not_found());
        };
        let asked = handle.ask(|answer| Command::View(view(answer)));
        // One that waits for the disk is asked again later.
        timeout_at(Self::patience(), asked).await.unwrap_or(Err(StreamError::Unavailable)).map(Some)
    }

    /// How many events each of these members was sent and has yet to acknowledge: `None` for one that is no member, and for
    /// one whose group has too much to do to say so before `by`. All groups are asked before the first is waited for.
    pub(in crate::hub) async fn held(
        self: &Arc<Self>,
        members: Vec<(Arc<Origin>, Group, Identity)>,
        by: Instant,
    ) -> Vec<Option<u64>> {
        let mut found = vec![None; members.len()];
        let mut by_group: HashMap<Key, (Vec<usize>, Vec<Identity>)> = HashMap::new();
        for (at, (origin, group, identity)) in members.into_iter().enumerate() {
            let key = Key { stream: origin.stream.clone(), epoch: origin.epoch, group };
            let (places, of) = by_group.entry(key).or_default();
            places.push(at);
            of.push(identity);
        }
        let mut asked = Vec::with_capacity(by_group.len());
        for (key, (places, of)) in by_group {
            let Some(handle) = self.in_use.find(&key) else { continue };
            let (answer, told) = oneshot::channel();
            if handle.try_send(Command::View(View::Held { of, answer })) {
                asked.push((places, handle, told));
            }
        }
        for (places, _handle, told) in asked {
            let Ok(Ok(held)) = timeout_at(by, told).await else { continue };
            for (at, held) in places.into_iter().zip(held) {
                found[at] = held;
            }
        }
        found
    }
}
