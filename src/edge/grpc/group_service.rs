//! `switchyard.v1.GroupService`: managing groups on streams, and what they dropped.
//!
//! Requests become values of the model and messages are made of what comes back; `manage` does the work.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::access::Access;
use crate::{
    auth::Caller,
    edge::wire::{
        forms::v1::{self as wire, group_service_server},
        request::{Refusal, duration, field, group_name, page_size, start, stream_name},
    },
    event::Event,
    hub::{GroupStatus, Hub, MemberName, MemberStatus, UnackedEvent, UnackedStage},
    manage::{
        Page,
        dead_letters::{self, Letter, ManagedLetters},
        groups::{self, GroupSetting, ManagedGroup},
    },
    model::{CommandError, Group, GroupSettings, StreamError, StreamName},
};

/// Serves the calls of `GroupService`.
#[derive(Debug)]
pub(super) struct GroupService {
    hub: Arc<Hub>,
    access: Access,
}

impl GroupService {
    pub(super) fn new(hub: Arc<Hub>, access: Access) -> Self {
        Self { hub, access }
    }

    fn caller<T>(&self, request: &Request<T>, call: &'static str) -> Result<Caller, Refusal> {
        Ok(self.access.caller(request.extensions(), call)?)
    }

    fn managed<'a>(&'a self, caller: &'a Caller, stream: &str, group: &str) -> Result<ManagedGroup<'a>, CommandError> {
        let (stream, group) = names(stream, ("name", group))?;
        groups::to_manage(&self.hub, caller, &stream, group)
    }

    async fn managed_letters(
        &self,
        caller: &Caller,
        stream: &str,
        group: &str,
    ) -> Result<ManagedLetters<'_>, CommandError> {
        let (stream, group) = names(stream, ("group", group))?;
        dead_letters::to_manage(&self.hub, caller, &stream, group).await
    }

    async fn create(&self, caller: &Caller, asked: &wire::CreateGroupRequest) -> Result<wire::Group, Refusal> {
        let wanted = asked.group.as_ref().ok_or_else(|| field("group", "is missing"))?;
        let group = self.managed(caller, &wanted.stream, &wanted.name).map_err(below_group)?;
        let mut settings = GroupSettings::default();
        for path in SETTINGS {
            setting(path, wanted).map_err(below_group)?.apply(&mut settings);
        }
        let start = start(asked.start.as_ref())?;
        let made = group.create(settings, start).await.map_err(of_settings)?;
        Ok(shown(&made))
    }

    async fn get(&self, caller: &Caller, asked: &wire::GetGroupRequest) -> Result<wire::Group, Refusal> {
        let (stream, group) = names(&asked.stream, ("name", &asked.name))?;
        Ok(shown(&groups::see(&self.hub, caller, &stream, group).await?))
    }

    async fn list(
        &self,
        caller: &Caller,
        asked: &wire::ListGroupsRequest,
    ) -> Result<wire::ListGroupsResponse, Refusal> {
        let size = page_size(asked.page_size)?;
        let of = match asked.stream.as_str() {
            "" => None,
            name => Some(stream_name("stream", name)?),
        };
        // Neither name has a dot.
        let after = asked.page_token.split_once('.').unwrap_or_default();
        // One more tells whether there are more.
        let list = groups::list(&self.hub, caller, of.as_ref(), after, size + 1, shown).await?;
        let page = Page::fill(list, size, Message::encoded_len);
        let next_page_token = page.next(|last| format!("{}.{}", last.stream, last.name)).unwrap_or_default();
        Ok(wire::ListGroupsResponse { groups: page.items, next_page_token })
    }

    async fn update(&self, caller: &Caller, asked: &wire::UpdateGroupRequest) -> Result<wire::Group, Refusal> {
        let wanted = asked.group.as_ref().ok_or_else(|| field("group", "is missing"))?;
        let group = self.managed(caller, &wanted.stream, &wanted.name).map_err(below_group)?;
        let paths = asked.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        if paths.is_empty() {
            return Err(field("update_mask", "is empty").into());
        }
        let mut changes = Vec::with_capacity(paths.len());
        for path in paths {
            if !SETTINGS.contains(&path.as_str()) {
                let problem = format!("names {path:?}, which is not a setting of a group that can be changed");
                return Err(StreamError::Mismatch { field: "update_mask", problem }.into());
            }
            changes.push(setting(path, wanted).map_err(below_group)?);
        }
        let updated = group.update(changes).await.map_err(of_settings)?;
        Ok(shown(&updated))
    }

    async fn delete(&self, caller: &Caller, asked: &wire::DeleteGroupRequest) -> Result<(), Refusal> {
        Ok(self.managed(caller, &asked.stream, &asked.name)?.delete().await?)
    }

    async fn seek(&self, caller: &Caller, asked: &wire::SeekGroupRequest) -> Result<wire::Group, Refusal> {
        let group = self.managed(caller, &asked.stream, &asked.name)?;
        let Some(wire::StartPosition { position: Some(_) }) = &asked.position else {
            return Err(field("position", "is missing").into());
        };
        let to = start(asked.position.as_ref()).map_err(|error| match error {
            CommandError::Field { problem, .. } => field("position", problem),
            error => error,
        })?;
        Ok(shown(&group.seek(to).await?))
    }

    async fn redrive(
        &self,
        caller: &Caller,
        asked: &wire::RedriveDeadLettersRequest,
    ) -> Result<wire::RedriveDeadLettersResponse, Refusal> {
        let letters = self.managed_letters(caller, &asked.stream, &asked.group).await?;
        let done = letters.redrive(sequences(&asked.sequences)?).await?;
        Ok(wire::RedriveDeadLettersResponse {
            redriven: done.redriven.cast_signed(),
            lost: done.lost.cast_signed(),
            unmatched: done.unmatched.cast_signed(),
        })
    }

    async fn purge(&self, caller: &Caller, asked: &wire::PurgeDeadLettersRequest) -> Result<i64, Refusal> {
        let letters = self.managed_letters(caller, &asked.stream, &asked.group).await?;
        Ok(letters.purge(sequences(&asked.sequences)?).await?.cast_signed())
    }

    async fn members(
        &self,
        caller: &Caller,
        asked: &wire::ListMembersRequest,
    ) -> Result<wire::ListMembersResponse, Refusal> {
        let page = (number(&asked.page_token)?, page_size(asked.page_size)?);
        let (stream, group) = names(&asked.stream, ("group", &asked.group))?;
        let members = groups::members(&self.hub, caller, (&stream, group), page, shown_member, Message::encoded_len);
        let (members, next) = members.await?;
        Ok(wire::ListMembersResponse { members, next_page_token: token(next) })
    }

    async fn unacked(
        &self,
        caller: &Caller,
        asked: &wire::ListUnackedRequest,
    ) -> Result<wire::ListUnackedResponse, Refusal> {
        let page = (number(&asked.page_token)?, page_size(asked.page_size)?);
        let (stream, group) = names(&asked.stream, ("group", &asked.group))?;
        let events = groups::unacked(&self.hub, caller, (&stream, group), page, shown_unacked, Message::encoded_len);
        let (events, next) = events.await?;
        Ok(wire::ListUnackedResponse { events, next_page_token: token(next) })
    }

    async fn list_letters(
        &self,
        caller: &Caller,
        asked: &wire::ListDeadLettersRequest,
    ) -> Result<wire::ListDeadLettersResponse, Refusal> {
        let (after, size) = (number(&asked.page_token)?, page_size(asked.page_size)?);
        let (stream, group) = names(&asked.stream, ("group", &asked.group))?;
        let letters = dead_letters::to_read(&self.hub, caller, &stream, group).await?;
        let (some, next) = letters.page(after, size).await?;
        Ok(wire::ListDeadLettersResponse {
            dead_letters: some.iter().map(shown_letter).collect(),
            next_page_token: token(next),
        })
    }
}

#[tonic::async_trait]
impl group_service_server::GroupService for GroupService {
    async fn create_group(
        &self,
        request: Request<wire::CreateGroupRequest>,
    ) -> Result<Response<wire::CreateGroupResponse>, Status> {
        let caller = self.caller(&request, "CreateGroup")?;
        let group = self.create(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::CreateGroupResponse { group: Some(group) }))
    }

    async fn get_group(
        &self,
        request: Request<wire::GetGroupRequest>,
    ) -> Result<Response<wire::GetGroupResponse>, Status> {
        let caller = self.caller(&request, "GetGroup")?;
        let group = self.get(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::GetGroupResponse { group: Some(group) }))
    }

    async fn list_groups(
        &self,
        request: Request<wire::ListGroupsRequest>,
    ) -> Result<Response<wire::ListGroupsResponse>, Status> {
        let caller = self.caller(&request, "ListGroups")?;
        Ok(Response::new(self.list(&caller, request.get_ref()).await?))
    }

    async fn update_group(
        &self,
        request: Request<wire::UpdateGroupRequest>,
    ) -> Result<Response<wire::UpdateGroupResponse>, Status> {
        let caller = self.caller(&request, "UpdateGroup")?;
        let group = self.update(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::UpdateGroupResponse { group: Some(group) }))
    }

    async fn delete_group(
        &self,
        request: Request<wire::DeleteGroupRequest>,
    ) -> Result<Response<wire::DeleteGroupResponse>, Status> {
        let caller = self.caller(&request, "DeleteGroup")?;
        self.delete(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::DeleteGroupResponse {}))
    }

    async fn seek_group(
        &self,
        request: Request<wire::SeekGroupRequest>,
    ) -> Result<Response<wire::SeekGroupResponse>, Status> {
        let caller = self.caller(&request, "SeekGroup")?;
        let group = self.seek(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::SeekGroupResponse { group: Some(group) }))
    }

    async fn list_members(
        &self,
        request: Request<wire::ListMembersRequest>,
    ) -> Result<Response<wire::ListMembersResponse>, Status> {
        let caller = self.caller(&request, "ListMembers")?;
        Ok(Response::new(self.members(&caller, request.get_ref()).await?))
    }

    async fn list_unacked(
        &self,
        request: Request<wire::ListUnackedRequest>,
    ) -> Result<Response<wire::ListUnackedResponse>, Status> {
        let caller = self.caller(&request, "ListUnacked")?;
        Ok(Response::new(self.unacked(&caller, request.get_ref()).await?))
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Result<Response<wire::ListDeadLettersResponse>, Status> {
        let caller = self.caller(&request, "ListDeadLetters")?;
        Ok(Response::new(self.list_letters(&caller, request.get_ref()).await?))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<wire::RedriveDeadLettersRequest>,
    ) -> Result<Response<wire::RedriveDeadLettersResponse>, Status> {
        let caller = self.caller(&request, "RedriveDeadLetters")?;
        Ok(Response::new(self.redrive(&caller, request.get_ref()).await?))
    }

    async fn purge_dead_letters(
        &self,
        request: Request<wire::PurgeDeadLettersRequest>,
    ) -> Result<Response<wire::PurgeDeadLettersResponse>, Status> {
        let caller = self.caller(&request, "PurgeDeadLetters")?;
        let purged = self.purge(&caller, request.get_ref()).await?;
        Ok(Response::new(wire::PurgeDeadLettersResponse { purged }))
    }
}

/// The names of a stream, in the field `stream`, and of a group on it.
fn names(stream: &str, (field_path, group): (&'static str, &str)) -> Result<(StreamName, Group), CommandError> {
    Ok((stream_name("stream", stream)?, group_name(field_path, group)?))
}

/// A refusal of a request whose group is in a field, for what is in that.
fn below_group(error: CommandError) -> Refusal {
    Refusal::at("group.", error)
}

/// The same, for what became of the request: only what is wrong with a setting is in the group.
fn of_settings(error: CommandError) -> Refusal {
    match error {
        CommandError::Stream(StreamError::Mismatch { field: "start", .. }) => error.into(),
        CommandError::Field { .. } | CommandError::Stream(StreamError::Setting(_) | StreamError::Mismatch { .. }) => {
            below_group(error)
        }
        error => error.into(),
    }
}

/// Where a page begins; tokens are numbers that mean nothing to clients.
fn number(token: &str) -> Result<u64, CommandError> {
    match token {
        "" => Ok(0),
        token => token.parse().map_err(|_| field("page_token", "was not issued by this call")),
    }
}

fn token(next: Option<u64>) -> String {
    next.map_or_else(String::new, |next| next.to_string())
}

/// Sequences of dead letters.
fn sequences(asked: &[i64]) -> Result<Vec<u64>, CommandError> {
    let positive = |sequence: &i64| u64::try_from(*sequence).ok().filter(|sequence| *sequence > 0);
    asked.iter().map(|sequence| positive(sequence).ok_or_else(|| field("sequences", "must be positive"))).collect()
}

/// The settings of a group, as update masks name them.
const SETTINGS: [&str; 5] = ["ack_deadline", "max_attempts", "backoff", "max_unacked", "dead_letter_stream"];

/// One setting as it was asked for; without a value its default.
fn setting(path: &str, asked: &wire::Group) -> Result<GroupSetting, CommandError> {
    let default = GroupSettings::default();
    let count = |field_path, value: i32| u32::try_from(value).map_err(|_| field(field_path, "is negative"));
    Ok(match path {
        "ack_deadline" => GroupSetting::AckDeadline(match asked.ack_deadline {
            None => default.ack_deadline,
            Some(deadline) => duration("ack_deadline", deadline)?,
        }),
        "max_attempts" => GroupSetting::MaxAttempts(match asked.max_attempts {
            None => default.max_attempts,
            Some(most) => count("max_attempts", most)?,
        }),
        "backoff" => {
            let steps = asked.backoff.iter().map(|step| duration("backoff", *step));
            let steps: Vec<_> = steps.collect::<Result<_, _>>()?;
            GroupSetting::Backoff(if steps.is_empty() { default.backoff } else { steps })
        }
        "max_unacked" => GroupSetting::MaxUnacked(match asked.max_unacked {
            0 => default.max_unacked,
            most => count("max_unacked", most)?,
        }),
        _ => GroupSetting::DeadLetterStream(match asked.dead_letter_stream.as_str() {
            "" => None,
            name => Some(stream_name("dead_letter_stream", name)?),
        }),
    })
}

fn shown_letter(letter: &Letter) -> wire::DeadLetter {
    wire::DeadLetter {
        sequence: letter.event.sequence().cast_signed(),
        origin_sequence: letter.origin.cast_signed(),
        attempts: i32::try_from(letter.attempts).unwrap_or(i32::MAX),
        reason: letter.reason.clone(),
        time: letter.event.append_time().map(Into::into),
        event: letter.event.received(),
    }
}

/// A member as clients see it.
fn shown_member(member: MemberStatus) -> wire::GroupMember {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    wire::GroupMember {
        connected: member.away_until.is_none(),
        reattach_deadline: member.away_until.map(Into::into),
        waiting: count(member.waiting),
        unacked: count(member.unacked),
        first_lease_deadline: member.lease_ends.map(Into::into),
        ..shown_name(member.name)
    }
}

/// How a member is called, and nothing else of it.
fn shown_name(name: MemberName) -> wire::GroupMember {
    wire::GroupMember {
        client_name: name.client_name.map_or_else(String::new, |name| name.to_string()),
        session_id: name.session.to_string(),
        subscription_id: name.subscription_id,
        principal: name.principal.to_string(),
        ..wire::GroupMember::default()
    }
}

fn shown_unacked(event: UnackedEvent) -> wire::UnackedEvent {
    use wire::UnackedState as State;
    let (state, member, lease, next) = match event.stage {
        UnackedStage::Assigned(member) => (State::Assigned, member, None, None),
        UnackedStage::Sent { member, until } => (State::Sent, member, Some(until), None),
        UnackedStage::Waiting(due) => (State::Waiting, None, None, Some(due)),
        UnackedStage::Ready => (State::Ready, None, None, None),
        UnackedStage::Burying => (State::Burying, None, None, None),
    };
    wire::UnackedEvent {
        sequence: event.sequence.cast_signed(),
        state: state.into(),
        attempt: i32::try_from(event.attempt).unwrap_or(i32::MAX),
        lease_deadline: lease.map(Into::into),
        next_attempt_time: next.map(Into::into),
        member: member.map(shown_name),
        last_failure: event.failure.into(),
    }
}

/// A group as clients see it.
fn shown(status: &GroupStatus) -> wire::Group {
    let told = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let settings = &status.settings;
    wire::Group {
        stream: status.stream.to_string(),
        name: status.group.as_str().to_owned(),
        ack_deadline: settings.ack_deadline.try_into().ok(),
        max_attempts: Some(i32::try_from(settings.max_attempts).unwrap_or(i32::MAX)),
        backoff: settings.backoff.iter().filter_map(|step| (*step).try_into().ok()).collect(),
        max_unacked: i32::try_from(settings.max_unacked).unwrap_or(i32::MAX),
        dead_letter_stream: settings.dead_letter_stream.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: Some(wire::GroupState {
            members: i32::try_from(status.members).unwrap_or(i32::MAX),
            cursor: told(status.cursor),
            pending: told(status.pending),
            unacked: told(status.unacked),
            oldest_unacked_time: status.oldest.as_ref().and_then(Event::append_time).map(Into::into),
            expired: told(status.expired),
            dropped: told(status.dropped),
            lost: told(status.lost),
            blocked: told(status.blocked),
            dead_letters: told(status.buried),
            burying: told(status.burying),
        }),
    }
}
