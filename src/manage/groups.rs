//! Groups on streams: making, changing, moving and deleting them, and who may see which.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{engine, page::Filling};
use crate::{
    auth::{Action, Caller},
    engine::EventStream,
    hub::{AsOf, GroupStatus, Groups, Hub, MemberName, MemberStatus, UnackedEvent, UnackedStage},
    model::{CommandError, Group, GroupSettings, Start, StreamError, StreamName, limits},
};

/// One setting of a group, with its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupSetting {
    /// [`GroupSettings::ack_deadline`].
    AckDeadline(Duration),
    /// [`GroupSettings::max_attempts`].
    MaxAttempts(u32),
    /// [`GroupSettings::backoff`].
    Backoff(Vec<Duration>),
    /// [`GroupSettings::max_unacked`].
    MaxUnacked(u32),
    /// [`GroupSettings::dead_letter_stream`].
    DeadLetterStream(Option<StreamName>),
}

impl GroupSetting {
    fn name(&self) -> &'static str {
        match self {
            Self::AckDeadline(_) => "ack_deadline",
            Self::MaxAttempts(_) => "max_attempts",
            Self::Backoff(_) => "backoff",
            Self::MaxUnacked(_) => "max_unacked",
            Self::DeadLetterStream(_) => "dead_letter_stream",
        }
    }

    /// Puts it in place of the one that is there.
    pub fn apply(&self, settings: &mut GroupSettings) {
        match self {
            Self::AckDeadline(deadline) => settings.ack_deadline = *deadline,
            Self::MaxAttempts(most) => settings.max_attempts = *most,
            Self::Backoff(steps) => settings.backoff.clone_from(steps),
            Self::MaxUnacked(most) => settings.max_unacked = *most,
            Self::DeadLetterStream(name) => settings.dead_letter_stream.clone_from(name),
        }
    }
}

/// What is done with a group on a stream, by their names.
pub(super) type OnGroup = for<'a> fn(&'a str, &'a str) -> Action<'a>;

/// A group, which may not exist, on a stream that does; its caller may make, change, move and delete it.
#[derive(Debug)]
pub struct ManagedGroup<'a> {
    caller: &'a Caller,
    group: OfStream<'a>,
}

/// A group by its name, on a stream that was found.
#[derive(Debug)]
pub(super) struct OfStream<'a> {
    pub(super) groups: &'a Arc<Groups>,
    pub(super) stream: Arc<dyn EventStream>,
    pub(super) group: Group,
}

impl<'a> OfStream<'a> {
    /// For a caller that may do that with it.
    pub(super) fn find(
        hub: &'a Hub,
        caller: &Caller,
        (stream, group): (&StreamName, Group),
        action: OnGroup,
    ) -> Result<Self, CommandError> {
        caller.authorize(&action(stream.as_str(), group.as_str()))?;
        let groups = groups_of(hub)?;
        Ok(Self { groups, stream: groups.stream(stream.as_str())?, group })
    }

    pub(super) async fn status(&self) -> Result<GroupStatus, StreamError> {
        self.groups.status(&self.stream, &self.group).await
    }
}

/// How a group stands.
pub async fn see(hub: &Hub, caller: &Caller, stream: &StreamName, group: Group) -> Result<GroupStatus, CommandError> {
    let found = OfStream::find(hub, caller, (stream, group), |stream, group| Action::SeeGroup { stream, group })?;
    Ok(found.status().await?)
}

/// A page of the members of a group, as `show` makes of them, each of as many bytes as `bytes_of` says: at most `most` with
/// numbers after `after`, and where to go on if there are more.
pub async fn members<T>(
    hub: &Hub,
    caller: &Caller,
    (stream, group): (&StreamName, Group),
    (after, most): (u64, usize),
    show: impl Fn(MemberStatus) -> T,
    bytes_of: impl Fn(&T) -> usize,
) -> Result<(Vec<T>, Option<u64>), CommandError> {
    let found = OfStream::find(hub, caller, (stream, group), |stream, group| Action::SeeGroup { stream, group })?;
    let (members, next) = found.groups.members(&found.stream, &found.group, after, most).await?;
    let (mut filling, mut last) = (Filling::new(most), after);
    for mut member in members {
        let number = member.number;
        member.name = seen_by(caller, member.name);
        let shown = show(member);
        let bytes = bytes_of(&shown);
        if !filling.add(shown, bytes) {
            return Ok((filling.page().items, Some(last)));
        }
        last = number;
    }
    Ok((filling.page().items, next))
}

/// A page of the events of a group that were delivered and are not done, likewise, after a sequence; there may be none and
/// yet more.
pub async fn unacked<T>(
    hub: &Hub,
    caller: &Caller,
    (stream, group): (&StreamName, Group),
    (after, most): (u64, usize),
    show: impl Fn(UnackedEvent) -> T,
    bytes_of: impl Fn(&T) -> usize,
) -> Result<(Vec<T>, Option<u64>), CommandError> {
    let found = OfStream::find(hub, caller, (stream, group), |stream, group| Action::SeeGroup { stream, group })?;
    let (events, next) = found.groups.unacked(&found.stream, &found.group, after, most).await?;
    let managed = Action::ManageGroup { stream: stream.as_str(), group: found.group.as_str() };
    let sees_failures = caller.may(&managed);
    let (mut filling, mut last) = (Filling::new(most), after);
    for mut event in events {
        let sequence = event.sequence;
        if let UnackedStage::Assigned(member) | UnackedStage::Sent { member, .. } = &mut event.stage {
            *member = member.take().map(|name| seen_by(caller, name));
        }
        if !sees_failures {
            event.failure = Box::default();
        }
        let shown = show(event);
        let bytes = bytes_of(&shown);
        if !filling.add(shown, bytes) {
            return Ok((filling.page().items, Some(last)));
        }
        last = sequence;
    }
    Ok((filling.page().items, next))
}

/// What a caller may know of how a member is called: of those of its own principal, and if it manages sessions, all.
fn seen_by(caller: &Caller, name: MemberName) -> MemberName {
    if name.principal == *caller.principal().id() || caller.may(&Action::ManageSessions) {
        return name;
    }
    MemberName { principal: Arc::default(), session: Arc::default(), subscription_id: 0, ..name }
}

/// A group, for a caller that may make, change, move and delete it.
pub fn to_manage<'a>(
    hub: &'a Hub,
    caller: &'a Caller,
    stream: &StreamName,
    group: Group,
) -> Result<ManagedGroup<'a>, CommandError> {
    let group = OfStream::find(hub, caller, (stream, group), |stream, group| Action::ManageGroup { stream, group })?;
    Ok(ManagedGroup { caller, group })
}

/// Up to `most` groups that the caller may see, of one stream or of all, that come after a group by the names of its stream
/// and its own, in that order. Each becomes what `show` makes of it at once, so that no event of it is kept.
pub async fn list<T>(
    hub: &Hub,
    caller: &Caller,
    stream: Option<&StreamName>,
    (after_stream, after_group): (&str, &str),
    most: usize,
    show: impl Fn(&GroupStatus) -> T,
) -> Result<Vec<T>, CommandError> {
    let groups = groups_of(hub)?;
    let streams = match stream {
        None => engine(hub)?.streams(),
        Some(name) => match groups.stream(name.as_str()) {
            Ok(stream) => vec![stream],
            // Whether it exists is not for everybody.
            Err(StreamError::NotFound(_)) if !caller.may(&Action::SeeStream(name.as_str())) => Vec::new(),
            Err(error) => return Err(error.into()),
        },
    };
    let (mut found, by) = (Vec::new(), Groups::patience());
    for of in streams.iter().filter(|of| of.name().as_str() >= after_stream) {
        let after = if of.name().as_str() == after_stream { after_group } else { "" };
        match some_of(groups, caller, (of, after), most - found.len(), by, &show).await {
            Ok(some) => found.extend(some),
            // Deleted since.
            Err(StreamError::NotFound(_)) if stream.is_none() => {}
            Err(error) => return Err(error.into()),
        }
        if found.len() == most {
            break;
        }
    }
    Ok(found)
}

/// Up to `most` groups of a stream that the caller may see, after a name.
async fn some_of<T>(
    groups: &Arc<Groups>,
    caller: &Caller,
    (stream, after): (&Arc<dyn EventStream>, &str),
    most: usize,
    by: Instant,
    show: impl Fn(&GroupStatus) -> T,
) -> Result<Vec<T>, StreamError> {
    let (mut found, mut after) = (Vec::new(), after.to_owned());
    loop {
        let (some, last) = groups.list(stream, &after, most, AsOf::Stored, by).await?;
        let seen = |status: &&GroupStatus| {
            caller.may(&Action::SeeGroup { stream: stream.name().as_str(), group: status.group.as_str() })
        };
        found.extend(some.iter().filter(seen).map(&show).take(most - found.len()));
        match last {
            Some(last) if found.len() < most => last.as_str().clone_into(&mut after),
            _ => return Ok(found),
        }
    }
}

impl ManagedGroup<'_> {
    /// Makes the group, to begin at `start`.
    pub async fn create(&self, settings: GroupSettings, start: Start) -> Result<GroupStatus, CommandError> {
        self.check(&settings)?;
        let OfStream { groups, stream, group } = &self.group;
        let made = groups.create(stream, group, settings, start).await?;
        tracing::info!(stream = %stream.name(), group = group.as_str(), "group created");
        Ok(made)
    }

    /// Changes settings, and leaves the others as they are.
    pub async fn update(&self, changes: Vec<GroupSetting>) -> Result<GroupStatus, CommandError> {
        let mut wanted = GroupSettings::default();
        for change in &changes {
            change.apply(&mut wanted);
        }
        self.check(&wanted)?;
        let changed: Vec<_> = changes.iter().map(GroupSetting::name).collect();
        let OfStream { groups, stream, group } = &self.group;
        let change = move |settings: &mut GroupSettings| changes.iter().for_each(|change| change.apply(settings));
        let updated = groups.update(stream, group, change).await?;
        tracing::info!(stream = %stream.name(), group = group.as_str(), changed = changed.join(","), "group updated");
        Ok(updated)
    }

    /// Moves the cursor.
    pub async fn seek(&self, to: Start) -> Result<GroupStatus, StreamError> {
        let OfStream { groups, stream, group } = &self.group;
        let moved = groups.seek(stream, group, to).await?;
        tracing::info!(stream = %stream.name(), group = group.as_str(), cursor = moved.cursor, "group moved");
        Ok(moved)
    }

    /// Deletes the group.
    pub async fn delete(&self) -> Result<(), StreamError> {
        let OfStream { groups, stream, group } = &self.group;
        groups.delete(stream, group).await?;
        tracing::info!(stream = %stream.name(), group = group.as_str(), "group deleted");
        Ok(())
    }

    /// What a group drops is written to the stream it names, whatever topics that takes, and pushes other events out of it:
    /// that is for callers that manage the stream.
    fn check(&self, settings: &GroupSettings) -> Result<(), CommandError> {
        let least = Duration::from_millis(limits::MIN_ACK_DEADLINE_MS);
        if !(least..=limits::MAX_GROUP_TIME).contains(&settings.ack_deadline) {
            let problem = "must be 100 ms to 1 day".to_owned();
            return Err(CommandError::Field { field: "ack_deadline", problem });
        }
        match &settings.dead_letter_stream {
            Some(stream) => Ok(self.caller.authorize(&Action::ManageStream(stream.as_str()))?),
            None => Ok(()),
        }
    }
}

fn groups_of(hub: &Hub) -> Result<&Arc<Groups>, StreamError> {
    hub.groups().ok_or(StreamError::None)
}
