//! The dead letters of a group: which events are, reading them, delivering what they are of again, and deleting them.
//!
//! Dead letters are events of an ordinary stream; what makes them those of a group is what the hub added to them.

use std::sync::Arc;

use super::{
    MAX_PAGE_BYTES,
    groups::{OfStream, OnGroup},
};
use crate::{
    auth::{Action, Caller},
    engine::{EventStream, MAX_SEQUENCES, ReadError, ReadLimits},
    event::Event,
    hub::Hub,
    model::{CommandError, Group, StreamError, StreamName, limits::MAX_ACKNOWLEDGED},
};

/// So much of a dead-letter stream is read at once,
const READ_AT_ONCE: ReadLimits = ReadLimits { events: MAX_SEQUENCES, bytes: MAX_PAGE_BYTES };
/// and so much at most for one page, which may then be empty and not the last.
const READS_PER_PAGE: usize = 16;
/// So many origins of dead letters are looked for at once; each may be large.
const ORIGINS_AT_ONCE: usize = 64;

/// A dead letter of a group.
#[derive(Debug)]
pub struct Letter {
    /// The event that was dropped, as it is stored in the stream of dead letters.
    pub event: Event,
    /// Its sequence in the stream of the group.
    pub origin: u64,
    /// How often it was delivered.
    pub attempts: u32,
    /// Why it was dropped.
    pub reason: String,
}

/// What became of dead letters whose events were to be delivered again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedriveTotals {
    /// So many are delivered again.
    pub redriven: u64,
    /// So many are of events that the stream of the group no longer keeps; they stay.
    pub lost: u64,
    /// So many are nothing for the members there are; they stay.
    pub unmatched: u64,
}

/// Dead letters of a group that its caller may read, as far as it may read their topics.
#[derive(Debug)]
pub struct ReadableLetters<'a> {
    caller: &'a Caller,
    letters: Letters<'a>,
}

/// Dead letters of a group that its caller may have delivered again, and delete.
#[derive(Debug)]
pub struct ManagedLetters<'a>(Letters<'a>);

/// The dead letters of a group: where they are, and whose.
#[derive(Debug)]
struct Letters<'a> {
    stream: Arc<dyn EventStream>,
    of: OfStream<'a>,
}

/// The dead letters of a group, for a caller that may read them.
pub async fn to_read<'a>(
    hub: &'a Hub,
    caller: &'a Caller,
    stream: &StreamName,
    group: Group,
) -> Result<ReadableLetters<'a>, CommandError> {
    let read: OnGroup = |stream, group| Action::UseStream { stream, group: Some(group) };
    Ok(ReadableLetters { caller, letters: Letters::find(hub, caller, (stream, group), read).await? })
}

/// The dead letters of a group, for a caller that may have them delivered again, and delete them.
pub async fn to_manage<'a>(
    hub: &'a Hub,
    caller: &Caller,
    stream: &StreamName,
    group: Group,
) -> Result<ManagedLetters<'a>, CommandError> {
    let manage: OnGroup = |stream, group| Action::ManageDeadLetters { stream, group };
    Ok(ManagedLetters(Letters::find(hub, caller, (stream, group), manage).await?))
}

impl ReadableLetters<'_> {
    /// Up to `most` dead letters after a sequence, and where to go on if there may be more. Those whose topics the caller
    /// may not read are as if they were not there: there may be none and yet more.
    pub async fn page(&self, after: u64, most: usize) -> Result<(Vec<Letter>, Option<u64>), StreamError> {
        let (mut some, next) = self.letters.page(after, most).await?;
        let stream = self.letters.of.stream.name().as_str();
        some.retain(|letter| self.caller.may(&Action::ReadEvent { stream, topic: letter.event.topic() }));
        Ok((some, next))
    }
}

impl ManagedLetters<'_> {
    /// Has the events of the chosen dead letters, or of all if none are chosen, delivered again, and deletes the letters.
    pub async fn redrive(&self, chosen: Vec<u64>) -> Result<RedriveTotals, CommandError> {
        let (letters, chosen) = (&self.0, ascending(chosen)?);
        let OfStream { groups, stream, group } = &letters.of;
        let (mut totals, mut after) = (RedriveTotals::default(), 0);
        loop {
            let (some, next) = letters.some(&chosen, after, ORIGINS_AT_ONCE).await?;
            let found = letters.origins(&some).await?;
            totals.lost += (some.len() - found.len()) as u64;
            let done = groups.redrive(stream, group, &letters.stream, found).await?;
            totals.redriven += done.redriven as u64;
            totals.unmatched += done.unmatched as u64;
            match next {
                // With more at once than the group can hold, the rest stays for another call.
                Some(next) if !done.full => after = next,
                _ => break,
            }
        }
        let RedriveTotals { redriven, lost, unmatched } = totals;
        tracing::info!(stream = %stream.name(), group = group.as_str(), redriven, lost, unmatched, "redriven");
        Ok(totals)
    }

    /// Deletes the chosen dead letters, or all if none are chosen; tells how many that were.
    pub async fn purge(&self, chosen: Vec<u64>) -> Result<u64, CommandError> {
        let (letters, chosen) = (&self.0, ascending(chosen)?);
        let (mut purged, mut after) = (0, 0);
        loop {
            let (some, next) = letters.some(&chosen, after, MAX_SEQUENCES).await?;
            purged += letters.remove(some.iter().map(|letter| letter.event.sequence()).collect()).await?;
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        let OfStream { stream, group, .. } = &letters.of;
        tracing::info!(stream = %stream.name(), group = group.as_str(), purged, "dead letters purged");
        Ok(purged)
    }
}

impl<'a> Letters<'a> {
    /// For a caller that may do that with them.
    async fn find(
        hub: &'a Hub,
        caller: &Caller,
        named: (&StreamName, Group),
        action: OnGroup,
    ) -> Result<Self, CommandError> {
        let of = OfStream::find(hub, caller, named, action)?;
        let Some(name) = of.status().await?.settings.dead_letter_stream else {
            let problem = "has no dead-letter stream".to_owned();
            return Err(StreamError::Mismatch { field: "group", problem }.into());
        };
        // What a restart interrupted, or was dropped just now, is one of them. If it cannot be stored now it comes later.
        of.groups.bury(&of.stream, &of.group).await.ok();
        Ok(Self { stream: of.groups.stream(name.as_str())?, of })
    }

    /// What is a dead letter of this group.
    fn judge(&self, event: Event) -> Option<Letter> {
        let (origin, attempts, reason) = {
            let given_up = event.given_up()?;
            if given_up.stream != self.of.stream.name().as_str() || given_up.group != self.of.group.as_str() {
                return None;
            }
            (given_up.sequence, given_up.attempts, given_up.reason.to_owned())
        };
        Some(Letter { event, origin, attempts, reason })
    }

    /// Up to `most` dead letters after a sequence, and where to go on if there may be more.
    async fn page(&self, after: u64, most: usize) -> Result<(Vec<Letter>, Option<u64>), StreamError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut after = after.max(self.stream.bounds().earliest - 1);
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
                if found.len() == most || (bytes + size > MAX_PAGE_BYTES && !found.is_empty()) {
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
        let kept = match self.of.stream.get(origins).await {
            Ok(chunk) => chunk.events,
            Err(ReadError::Lost { .. }) => Vec::new(),
            Err(error) => return Err(error.about(self.of.stream.name())),
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

/// Chosen sequences, each once.
fn ascending(mut sequences: Vec<u64>) -> Result<Vec<u64>, CommandError> {
    if sequences.len() > MAX_ACKNOWLEDGED {
        let problem = format!("has {} sequences; the limit is {MAX_ACKNOWLEDGED}", sequences.len());
        return Err(CommandError::Field { field: "sequences", problem });
    }
    sequences.sort_unstable();
    sequences.dedup();
    Ok(sequences)
}
