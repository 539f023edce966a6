//! The groups of a stream: their settings, and where they are.
//!
//! A group at the target begins behind the last event before which everything is done at the source. The contract does not
//! say what is done above that, so some events come again, and none is lost.

use anyhow::{Context, ensure};
use prost_types::FieldMask;

use super::{end::End, map::Map};
use crate::{
    cli::{group, value},
    proto::v1::{
        CreateGroupRequest, GetGroupRequest, GetStreamRequest, Group, SeekGroupRequest, UpdateGroupRequest,
        start_position::Position,
    },
};

/// All settings of a group.
const SETTINGS: [&str; 5] = ["ack_deadline", "max_attempts", "backoff", "max_unacked", "dead_letter_stream"];

/// Refuses groups that the target could not have, before anything is done.
pub(super) async fn check(source: &mut End, target: &mut End) -> anyhow::Result<()> {
    for group in of(source).await? {
        let letters = &group.dead_letter_stream;
        if letters.is_empty() {
            continue;
        }
        let request = GetStreamRequest { name: letters.clone() };
        let found = target.calls.find("GetStream", target.calls.streams().get_stream(request)).await?;
        ensure!(
            found.is_some(),
            "the group {} has the dead-letter stream {letters}, which {} does not have: create it there first",
            group.name,
            target.url
        );
    }
    Ok(())
}

/// Gives the target the groups of the source. `last` is the last sequence of the target. Says how many there are.
pub(super) async fn copy(source: &mut End, target: &mut End, map: &Map, last: i64) -> anyhow::Result<usize> {
    let groups = of(source).await?;
    for group in &groups {
        let cursor = group.state.map_or(0, |state| map.floor(state.cursor)).min(last);
        one(target, group, cursor).await.with_context(|| format!("group {}", group.name))?;
    }
    Ok(groups.len())
}

async fn of(source: &mut End) -> anyhow::Result<Vec<Group>> {
    let groups = group::of_stream(&mut source.calls, &source.name).await;
    groups.with_context(|| source.place())
}

async fn one(target: &mut End, group: &Group, cursor: i64) -> anyhow::Result<()> {
    let wanted = Group { stream: target.name.clone(), state: None, ..group.clone() };
    let position = Some(value::position(Position::AfterSequence(cursor)));
    let (stream, name) = (wanted.stream.clone(), wanted.name.clone());
    let calls = &mut target.calls;
    let request = GetGroupRequest { stream: stream.clone(), name: name.clone() };
    let found = calls.find("GetGroup", calls.groups().get_group(request)).await?.and_then(|answer| answer.group);
    let Some(there) = found else {
        let request = CreateGroupRequest { group: Some(wanted), start: position };
        calls.change("CreateGroup", calls.groups().create_group(request)).await?;
        return Ok(());
    };
    let at = there.state.map_or(0, |state| state.cursor);
    if (Group { state: None, ..there }) != wanted {
        let paths = SETTINGS.map(str::to_owned).to_vec();
        let request = UpdateGroupRequest { group: Some(wanted), update_mask: Some(FieldMask { paths }) };
        calls.change("UpdateGroup", calls.groups().update_group(request)).await?;
    }
    // One that is further has members there already.
    if at < cursor {
        let request = SeekGroupRequest { stream, name, position };
        calls.change("SeekGroup", calls.groups().seek_group(request)).await?;
    }
    Ok(())
}
