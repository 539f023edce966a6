//! `switchyard.v1.GroupService`: managing groups on streams, and what they gave up.
//!
//! Requests become values of the model, the groups of the session room do the work, and errors become statuses in
//! `status`. Dead letters are events of an ordinary stream; what makes them those of a group stands in their
//! attributes, which only this room can read.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    access::{Access, OnGroup, manage_group, manage_letters, read_group, see_group},
    command,
    stream_service::{MAX_PAGE_BYTES as PAGE_BYTES, Refusal, duration, field, fitting, page_size, stream_name},
    wire::v1::{self as wire, group_service_server},
};
use crate::{
    auth::{Action, Caller},
    engine::{EventStream, MAX_SEQUENCES, ReadError, ReadLimits},
    event::Event,
    hub::{AsOf, GroupStatus, Groups, Hub},
    model::{CommandError, Group, GroupSettings, Start, StreamError, limits},
};

/// So much of a dead-letter stream is read at once,
const READ_AT_ONCE: ReadLimits = ReadLimits { events: MAX_SEQUENCES, bytes: PAGE_BYTES };
/// and so much at most for one page, which may then be empty and not the last.
const READS_PER_PAGE: usize = 16;
/// So many origins of dead letters are looked for at once; each may be large.
const ORIGINS_AT_ONCE: usize = 64;

/// Serves the calls of `GroupService`.
#[derive(Debug)]
pub(super) struct GroupService {
    hub: Arc<Hub>,
    access: Access,
}

type Stream = Arc<dyn EventStream>;

/// A dead letter of a group.
struct Letter {
    event: Event,
    origin: u64,
    attempts: u32,
    reason: String,
}

/// The dead letters of a group: where they are, and whose.
struct Letters {
    stream: Stream,
    group: Group,
    of: Stream,
}

impl GroupService {
    pub(super) fn new(hub: Arc<Hub>, access: Access) -> Self {
        Self { hub, access }
    }

    fn caller<T>(&self, request: &Request<T>, call: &'static str) -> Result<Caller, Refusal> {
        Ok(self.access.caller(request.extensions(), call)?)
    }

    fn groups(&self) -> Result<&Arc<Groups>, StreamError> {
        self.hub.groups().ok_or(StreamError::None)
    }

    /// A group and its stream, for a caller that may do that with them.
    fn group(
        &self,
        caller: &Caller,
        (stream, group): (&str, &str),
        field: &'static str,
        action: OnGroup,
    ) -> Result<(Stream, Group), CommandError> {
        let stream = stream_name("stream", stream)?;
        let group = group_name(field, group)?;
        caller.authorize(&action(stream.as_str(), group.as_str()))?;
        Ok((self.groups()?.stream(stream.as_str())?, group))
    }

    async fn create(&self, caller: &Caller, asked: wire::CreateGroupRequest) -> Result<wire::Group, Refusal> {
        let wanted = asked.group.ok_or_else(|| field("group", "is missing"))?;
        let below = |error: CommandError| Refusal::at("group.", error);
        let named = (wanted.stream.as_str(), wanted.name.as_str());
        let (stream, group) = self.group(caller, named, "name", manage_group).map_err(below)?;
        let mut settings = GroupSettings::default();
        for path in SETTINGS {
            set(&mut settings, path, &wanted).map_err(below)?;
        }
        check_dead_letters(caller, &settings).map_err(below)?;
        let start = command::start(asked.start.as_ref())?;
        let made = self.groups()?.create(&stream, &group, settings, start).await.map_err(below_group)?;
        tracing::info!(stream = %stream.name(), group = group.as_str(), "group created");
        Ok(shown(&made))
    }

    /// Those that the caller may see: others are as if they were not there.
    async fn list(&self, caller: &Caller, asked: wire::ListGroupsRequest) -> Result<wire::ListGroupsResponse, Refusal> {
        let size = page_size(asked.page_size)?;
        let groups = self.groups()?;
        let streams = if asked.stream.is_empty() {
            self.hub.engine().ok_or(StreamError::None)?.streams()
        } else {
            let name = stream_name("stream", &asked.stream)?;
            let stream = groups.stream(name.as_str());
            match stream {
                Ok(stream) => vec![stream],
                // Whether it exists is not for everybody.
                Err(StreamError::NotFound(_)) if !caller.may(&Action::SeeStream(name.as_str())) => Vec::new(),
                Err(error) => return Err(error.into()),
            }
        };
        // Neither name has a dot.
        let (after_stream, after_group) = asked.page_token.split_once('.').unwrap_or_default();
        let mut page: Vec<wire::Group> = Vec::new();
        let by = Groups::patience();
        for stream in streams.iter().filter(|stream| stream.name().as_str() >= after_stream) {
            let after = if stream.name().as_str() == after_stream { after_group } else { "" };
            match self.some_of(caller, stream, after, size + 1 - page.len(), by).await {
                Ok(some) => page.extend(some),
                // Deleted since.
                Err(StreamError::NotFound(_)) if asked.stream.is_empty() => {}
                Err(error) => return Err(error.into()),
            }
            if page.len() > size {
                break;
            }
        }
        let fits = fitting(&page).min(size);
        let more = page.len() > fits;
        page.truncate(fits);
        let last = page.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |group| format!("{}.{}", group.stream, group.name));
        Ok(wire::ListGroupsResponse { groups: page, next_page_token })
    }

    /// Up to `most` groups of a stream that the caller may see, after a name.
    async fn some_of(
        &self,
        caller: &Caller,
        stream: &Stream,
        after: &str,
        most: usize,
        by: Instant,
    ) -> Result<Vec<wire::Group>, StreamError> {
        let (mut found, mut after) = (Vec::new(), after.to_owned());
        loop {
            let (some, last) = self.groups()?.list(stream, &after, most, AsOf::Stored, by).await?;
            let seen = |status: &&GroupStatus| {
                caller.may(&Action::SeeGroup { stream: stream.name().as_str(), group: status.group.as_str() })
            };
            found.extend(some.iter().filter(seen).map(shown).take(most - found.len()));
            match last {
                Some(last) if found.len() < most => last.as_str().clone_into(&mut after),
                _ => return Ok(found),
            }
        }
    }

    async fn update(&self, caller: &Caller, asked: wire::UpdateGroupRequest) -> Result<wire::Group, Refusal> {
        let wanted = asked.group.ok_or_else(|| field("group", "is missing"))?;
        let paths = asked.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let below = |error: CommandError| Refusal::at("group.", error);
        let named = (wanted.stream.as_str(), wanted.name.as_str());
        let (stream, group) = self.group(caller, named, "name", manage_group).map_err(below)?;
        if paths.is_empty() {
            return Err(field("update_mask", "is empty").into());
        }
        for path in &paths {
            if !SETTINGS.contains(&path.as_str()) {
                let problem = format!("names {path:?}, which is not a setting of a group that can be changed");
                return Err(StreamError::Mismatch { field: "update_mask", problem }.into());
            }
            let mut settings = GroupSettings::default();
            set(&mut settings, path, &wanted).map_err(below)?;
            check_dead_letters(caller, &settings).map_err(below)?;
        }
        let changed = paths.join(",");
        let change = move |settings: &mut GroupSettings| {
            for path in &paths {
                // What is wrong with it would have been said above.
                set(settings, path, &wanted).ok();
            }
        };
        let updated = self.groups()?.update(&stream, &group, change).await.map_err(below_group)?;
        tracing::info!(stream = %stream.name(), group = group.as_str(), changed, "group updated");
        Ok(shown(&updated))
    }

    async fn seek(&self, caller: &Caller, asked: wire::SeekGroupRequest) -> Result<wire::Group, Refusal> {
        let (stream, group) = self.group(caller, (&asked.stream, &asked.name), "name", manage_group)?;
        let Some(wire::StartPosition { position: Some(_) }) = &asked.position else {
            return Err(field("position", "is missing").into());
        };
        let to: Start = command::start(asked.position.as_ref()).map_err(|error| match error {
            CommandError::Field { problem, .. } => field("position", problem),
            error => error,
        })?;
        let moved = self.groups()?.seek(&stream, &group, to).await?;
        tracing::info!(stream = %stream.name(), group = group.as_str(), cursor = moved.cursor, "group moved");
        Ok(shown(&moved))
    }

    /// The dead letters of a group, for a caller that may do that with them.
    async fn letters(&self, caller: &Caller, named: (&str, &str), action: OnGroup) -> Result<Letters, Refusal> {
        let (stream, group) = self.group(caller, named, "group", action)?;
        let status = self.groups()?.status(&stream, &group).await?;
        let Some(name) = status.settings.dead_letter_stream else {
            let problem = "has no dead-letter stream".to_owned();
            return Err(StreamError::Mismatch { field: "group", problem }.into());
        };
        // What a restart interrupted, or has just been given up, is one of them. If it cannot be stored now it comes later.
        self.groups()?.bury(&stream, &group).await.ok();
        Ok(Letters { stream: self.groups()?.stream(name.as_str())?, group, of: stream })
    }

    async fn redrive(
        &self,
        caller: &Caller,
        asked: wire::RedriveDeadLettersRequest,
    ) -> Result<wire::RedriveDeadLettersResponse, Refusal> {
        let letters = self.letters(caller, (&asked.stream, &asked.group), manage_letters).await?;
        let chosen = sequences(&asked.sequences)?;
        let told = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (mut redriven, mut unmatched, mut lost, mut after) = (0_i64, 0_i64, 0_i64, 0);
        loop {
            let (some, next) = letters.some(&chosen, after, ORIGINS_AT_ONCE).await?;
            let found = letters.origins(&some).await?;
            lost += told(some.len() - found.len());
            let done = self.groups()?.redrive(&letters.of, &letters.group, &letters.stream, found).await?;
            redriven += told(done.redriven);
            unmatched += told(done.unmatched);
            match next {
                // With more at once than the group can hold, the rest stays for another call.
                Some(next) if !done.full => after = next,
                _ => break,
            }
        }
        let group = letters.group.as_str();
        tracing::info!(stream = %letters.of.name(), group, redriven, lost, unmatched, "redriven");
        Ok(wire::RedriveDeadLettersResponse { redriven, lost, unmatched })
    }

    async fn purge(&self, caller: &Caller, asked: wire::PurgeDeadLettersRequest) -> Result<i64, Refusal> {
        let letters = self.letters(caller, (&asked.stream, &asked.group), manage_letters).await?;
        let chosen = sequences(&asked.sequences)?;
        let (mut purged, mut after) = (0, 0);
        loop {
            let (some, next) = letters.some(&chosen, after, MAX_SEQUENCES).await?;
            purged += letters.remove(some.iter().map(|letter| letter.event.sequence()).collect()).await?;
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        tracing::info!(stream = %letters.of.name(), group = letters.group.as_str(), purged, "dead letters purged");
        Ok(purged.cast_signed())
    }

    /// Those whose topics the caller may read: others are as if they were not there.
    async fn list_letters(
        &self,
        caller: &Caller,
        asked: wire::ListDeadLettersRequest,
    ) -> Result<wire::ListDeadLettersResponse, Refusal> {
        let size = page_size(asked.page_size)?;
        let after = match asked.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| field("page_token", "was not issued by this call"))?,
        };
        let letters = self.letters(caller, (&asked.stream, &asked.group), read_group).await?;
        let (some, next) = letters.page(after, size).await?;
        let stream = letters.of.name().as_str();
        let readable = |letter: &&Letter| caller.may(&Action::ReadEvent { stream, topic: letter.event.topic() });
        Ok(wire::ListDeadLettersResponse {
            dead_letters: some.iter().filter(readable).map(Letter::shown).collect(),
            next_page_token: next.map_or_else(String::new, |next| next.to_string()),
        })
    }
}

impl Letters {
    /// What is a dead letter of this group.
    fn judge(&self, event: Event) -> Option<Letter> {
        let (origin, attempts, reason) = {
            let given_up = event.given_up()?;
            if given_up.stream != self.of.name().as_str() || given_up.group != self.group.as_str() {
                return None;
            }
            (given_up.sequence, given_up.attempts, given_up.reason.to_owned())
        };
        Some(Letter { event, origin, attempts, reason })
    }

    /// Up to `most` dead letters after a sequence, and where to go on if there may be more.
    async fn page(&self, after: u64, most: usize) -> Result<(Vec<Letter>, Option<u64>), StreamError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut after = after.max(self.stream.state().earliest - 1);
        for _ in 0..READS_PER_PAGE {
            let chunk = match self.stream.read(after, &Arc::default(), READ_AT_ONCE).await {
                Ok(chunk) => chunk,
                Err(ReadError::Lost { earliest, .. }) => {
                    after = earliest - 1;
                    continue;
                }
                Err(error) => return Err(error.about(self.stream.name())),
            };
            for event in chunk.events {
                let (sequence, size) = (event.sequence(), event.encoded_len());
                let Some(letter) = self.judge(event) else { continue };
                if found.len() == most || (bytes + size > PAGE_BYTES && !found.is_empty()) {
                    return Ok((found, Some(sequence - 1)));
                }
                bytes += size;
                found.push(letter);
            }
            after = chunk.through;
            if chunk.through >= chunk.latest {
                return Ok((found, None));
            }
        }
        Ok((found, Some(after)))
    }

    /// Some of the chosen dead letters after a sequence, or of all if none are chosen, and where to go on if there may be
    /// more.
    async fn some(&self, chosen: &[u64], after: u64, most: usize) -> Result<(Vec<Letter>, Option<u64>), StreamError> {
        if chosen.is_empty() {
            return self.page(after, most).await;
        }
        let begin = chosen.partition_point(|sequence| *sequence <= after);
        let some: Vec<u64> = chosen[begin..].iter().copied().take(most.min(ORIGINS_AT_ONCE)).collect();
        let next = some.last().copied().filter(|_| begin + some.len() < chosen.len());
        let chunk = self.stream.get(some).await.map_err(|error| error.about(self.stream.name()))?;
        Ok((chunk.events.into_iter().filter_map(|event| self.judge(event)).collect(), next))
    }

    /// The events that dead letters are of, each with the sequence of its dead letter, without those that the stream of
    /// the group does not keep.
    async fn origins(&self, letters: &[Letter]) -> Result<Vec<(u64, Event)>, StreamError> {
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        let origins = letters.iter().map(|letter| letter.origin).collect();
        let kept = match self.of.get(origins).await {
            Ok(chunk) => chunk.events,
            Err(ReadError::Lost { .. }) => Vec::new(),
            Err(error) => return Err(error.about(self.of.name())),
        };
        let origin_of = |letter: &Letter| {
            let event = kept.iter().find(|event| event.sequence() == letter.origin)?;
            // A stream that was made again has others under the same sequences.
            let same = letter.event.published().starts_with(event.published());
            same.then(|| (letter.event.sequence(), event.clone()))
        };
        Ok(letters.iter().filter_map(origin_of).collect())
    }

    async fn remove(&self, sequences: Vec<u64>) -> Result<u64, StreamError> {
        if sequences.is_empty() {
            return Ok(0);
        }
        self.stream.remove(sequences).await.map_err(|error| error.about(self.stream.name()))
    }
}

impl Letter {
    fn shown(&self) -> wire::DeadLetter {
        wire::DeadLetter {
            sequence: self.event.sequence().cast_signed(),
            origin_sequence: self.origin.cast_signed(),
            attempts: i32::try_from(self.attempts).unwrap_or(i32::MAX),
            reason: self.reason.clone(),
            time: self.event.append_time().map(Into::into),
            event: self.event.received(),
        }
    }
}

/// What a group gives up is written to the stream it names, whatever topics that takes, and pushes other events out of it:
/// that is for who manages the stream.
fn check_dead_letters(caller: &Caller, settings: &GroupSettings) -> Result<(), CommandError> {
    match &settings.dead_letter_stream {
        Some(stream) => Ok(caller.authorize(&Action::ManageStream(stream.as_str()))?),
        None => Ok(()),
    }
}

#[tonic::async_trait]
impl group_service_server::GroupService for GroupService {
    async fn create_group(
        &self,
        request: Request<wire::CreateGroupRequest>,
    ) -> Result<Response<wire::CreateGroupResponse>, Status> {
        let caller = self.caller(&request, "CreateGroup")?;
        let group = self.create(&caller, request.into_inner()).await?;
        Ok(Response::new(wire::CreateGroupResponse { group: Some(group) }))
    }

    async fn get_group(
        &self,
        request: Request<wire::GetGroupRequest>,
    ) -> Result<Response<wire::GetGroupResponse>, Status> {
        let caller = self.caller(&request, "GetGroup")?;
        let asked = request.into_inner();
        let get = async || -> Result<GroupStatus, Refusal> {
            let (stream, group) = self.group(&caller, (&asked.stream, &asked.name), "name", see_group)?;
            Ok(self.groups()?.status(&stream, &group).await?)
        };
        Ok(Response::new(wire::GetGroupResponse { group: Some(shown(&get().await?)) }))
    }

    async fn list_groups(
        &self,
        request: Request<wire::ListGroupsRequest>,
    ) -> Result<Response<wire::ListGroupsResponse>, Status> {
        let caller = self.caller(&request, "ListGroups")?;
        Ok(Response::new(self.list(&caller, request.into_inner()).await?))
    }

    async fn update_group(
        &self,
        request: Request<wire::UpdateGroupRequest>,
    ) -> Result<Response<wire::UpdateGroupResponse>, Status> {
        let caller = self.caller(&request, "UpdateGroup")?;
        let group = self.update(&caller, request.into_inner()).await?;
        Ok(Response::new(wire::UpdateGroupResponse { group: Some(group) }))
    }

    async fn delete_group(
        &self,
        request: Request<wire::DeleteGroupRequest>,
    ) -> Result<Response<wire::DeleteGroupResponse>, Status> {
        let caller = self.caller(&request, "DeleteGroup")?;
        let asked = request.into_inner();
        let delete = async || -> Result<(), Refusal> {
            let (stream, group) = self.group(&caller, (&asked.stream, &asked.name), "name", manage_group)?;
            self.groups()?.delete(&stream, &group).await?;
            tracing::info!(stream = %stream.name(), group = group.as_str(), "group deleted");
            Ok(())
        };
        delete().await?;
        Ok(Response::new(wire::DeleteGroupResponse {}))
    }

    async fn seek_group(
        &self,
        request: Request<wire::SeekGroupRequest>,
    ) -> Result<Response<wire::SeekGroupResponse>, Status> {
        let caller = self.caller(&request, "SeekGroup")?;
        let group = self.seek(&caller, request.into_inner()).await?;
        Ok(Response::new(wire::SeekGroupResponse { group: Some(group) }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Result<Response<wire::ListDeadLettersResponse>, Status> {
        let caller = self.caller(&request, "ListDeadLetters")?;
        Ok(Response::new(self.list_letters(&caller, request.into_inner()).await?))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<wire::RedriveDeadLettersRequest>,
    ) -> Result<Response<wire::RedriveDeadLettersResponse>, Status> {
        let caller = self.caller(&request, "RedriveDeadLetters")?;
        Ok(Response::new(self.redrive(&caller, request.into_inner()).await?))
    }

    async fn purge_dead_letters(
        &self,
        request: Request<wire::PurgeDeadLettersRequest>,
    ) -> Result<Response<wire::PurgeDeadLettersResponse>, Status> {
        let caller = self.caller(&request, "PurgeDeadLetters")?;
        let purged = self.purge(&caller, request.into_inner()).await?;
        Ok(Response::new(wire::PurgeDeadLettersResponse { purged }))
    }
}

fn group_name(field_path: &'static str, name: &str) -> Result<Group, CommandError> {
    Group::parse(name).map_err(|error| field(field_path, format!("is not the name of a group: {error}")))
}

/// A refusal of a request whose group is in a field: what is wrong with its settings stands below that.
fn below_group(error: StreamError) -> Refusal {
    match error {
        StreamError::Mismatch { field: "start", .. } => error.into(),
        StreamError::Setting(_) | StreamError::Mismatch { .. } => Refusal::at("group.", error.into()),
        error => error.into(),
    }
}

/// Sequences of dead letters, ascending.
fn sequences(asked: &[i64]) -> Result<Vec<u64>, CommandError> {
    if asked.len() > limits::MAX_ACKNOWLEDGED {
        let most = limits::MAX_ACKNOWLEDGED;
        return Err(field("sequences", format!("has {} sequences; the limit is {most}", asked.len())));
    }
    let positive = |sequence: &i64| u64::try_from(*sequence).ok().filter(|sequence| *sequence > 0);
    let mut sequences: Vec<u64> = asked
        .iter()
        .map(|sequence| positive(sequence).ok_or_else(|| field("sequences", "must be positive")))
        .collect::<Result<_, _>>()?;
    sequences.sort_unstable();
    sequences.dedup();
    Ok(sequences)
}

/// The settings of a group, as update masks name them.
const SETTINGS: [&str; 5] = ["ack_deadline", "max_attempts", "backoff", "max_unacked", "dead_letter_stream"];

/// Takes one setting as it was asked for; without a value its default.
fn set(settings: &mut GroupSettings, path: &str, asked: &wire::Group) -> Result<(), CommandError> {
    let default = GroupSettings::default();
    match path {
        "ack_deadline" => {
            settings.ack_deadline = match asked.ack_deadline {
                None => default.ack_deadline,
                Some(deadline) => duration("ack_deadline", deadline)?,
            };
            let least = Duration::from_millis(limits::MIN_ACK_DEADLINE_MS);
            if !(least..=limits::MAX_GROUP_TIME).contains(&settings.ack_deadline) {
                return Err(field("ack_deadline", "must be 100 ms to 1 day"));
            }
        }
        "max_attempts" => {
            settings.max_attempts = match asked.max_attempts {
                None => default.max_attempts,
                Some(most) => u32::try_from(most).map_err(|_| field("max_attempts", "is negative"))?,
            }
        }
        "backoff" => {
            let steps = asked.backoff.iter().map(|step| duration("backoff", *step));
            let steps: Vec<Duration> = steps.collect::<Result<_, _>>()?;
            settings.backoff = if steps.is_empty() { default.backoff } else { steps };
        }
        "max_unacked" => {
            settings.max_unacked = match asked.max_unacked {
                0 => default.max_unacked,
                most => u32::try_from(most).map_err(|_| field("max_unacked", "is negative"))?,
            }
        }
        _ => {
            settings.dead_letter_stream = match asked.dead_letter_stream.as_str() {
                "" => None,
                name => Some(stream_name("dead_letter_stream", name)?),
            }
        }
    }
    Ok(())
}

/// A group as it is told.
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
        }),
    }
}
