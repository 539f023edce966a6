//! The small rows of the store: how streams and groups are set up, how far streams have come. Each row carries a
//! checksum, as nothing else would notice that a setting was changed by the disk.

use std::time::Duration;

use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::batch::Damaged;
use crate::model::{Durability, Filter, GroupSettings, Storage, StreamName, StreamSettings};

/// Facts about the store as a whole.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// From the number of a stream to its definition.
pub(super) const STREAMS: TableDefinition<u64, &[u8]> = TableDefinition::new("streams");
/// From the number of a stream to how far it has come.
pub(super) const PROGRESS: TableDefinition<u64, &[u8]> = TableDefinition::new("progress");
/// From the number of a stream and the first sequence to a record batch.
pub(super) const BATCHES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("batches");
/// From stream and sequence to time and key of events that are deleted and yet known for repetitions.
pub(super) const REPEATS: TableDefinition<(u64, u64), (u64, u128)> = TableDefinition::new("repeats_of_topics");
/// The same from before the topic was part of keys. It is only read, and deleted when all windows in it are over.
pub(super) const OLD_REPEATS: TableDefinition<(u64, u64), (u64, u128)> = TableDefinition::new("repeats");
/// From stream and name to the settings of a group.
pub(super) const GROUPS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("groups");
/// From stream and name to the state of a group.
pub(super) const GROUP_STATES: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("group_states");

/// How a row is written: its checksum first.
pub(super) fn row(bytes: &[u8]) -> Vec<u8> {
    let mut row = crc32c::crc32c(bytes).to_le_bytes().to_vec();
    row.extend_from_slice(bytes);
    row
}

/// What a row holds, if it is as it was written.
pub(super) fn checked(row: &[u8]) -> Result<&[u8], Damaged> {
    let (sum, bytes) = row.split_at_checked(4).ok_or(Damaged)?;
    if sum == crc32c::crc32c(bytes).to_le_bytes() { Ok(bytes) } else { Err(Damaged) }
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// The sequence of the next event.
    pub(super) next: u64,
    /// Nothing before this sequence is kept.
    pub(super) floor: u64,
    /// When the last event was appended, in microseconds since 1970.
    pub(super) time: u64,
}

impl Progress {
    pub(super) const START: Progress = Progress { next: 1, floor: 1, time: 0 };

    pub(super) fn to_row(self) -> Vec<u8> {
        row([self.next, self.floor, self.time].map(u64::to_le_bytes).as_flattened())
    }

    pub(super) fn from_row(row: &[u8]) -> Result<Self, Damaged> {
        let bytes: &[u8; 24] = checked(row)?.try_into().map_err(|_| Damaged)?;
        let mut numbers = bytes.chunks_exact(8).map(|number| number.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || numbers.next().ok_or(Damaged);
        Ok(Self { next: next()?, floor: next()?, time: next()? })
    }
}

/// A stream as its row has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) epoch: i64,
    /// In microseconds since 1970.
    pub(super) created: u64,
    name: String,
    /// Empty, too, where streams were made before they had one.
    #[serde(default)]
    owner: String,
    filters: Vec<String>,
    memory: bool,
    max_age_ms: Option<u64>,
    max_events: Option<u64>,
    max_bytes: Option<u64>,
    max_events_per_topic: Option<u64>,
    dedupe_window_ms: u64,
    durability: String,
}

impl Definition {
    pub(super) fn new(settings: &StreamSettings, epoch: i64, created: u64) -> Self {
        Self {
            epoch,
            created,
            name: settings.name.as_str().to_owned(),
            owner: (*settings.owner).to_owned(),
            filters: settings.filters.iter().map(|filter| filter.as_str().to_owned()).collect(),
            memory: settings.storage == Storage::Memory,
            max_age_ms: settings.max_age.map(ms),
            max_events: settings.max_events,
            max_bytes: settings.max_bytes,
            max_events_per_topic: settings.max_events_per_topic,
            dedupe_window_ms: ms(settings.dedupe_window),
            durability: match settings.durability {
                Durability::Sync => "sync",
                Durability::Interval => "interval",
                Durability::None => "none",
            }
            .to_owned(),
        }
    }

    pub(super) fn settings(&self) -> Result<StreamSettings, Damaged> {
        let filters = self.filters.iter().map(|filter| Filter::parse(filter.as_bytes()).map_err(|_| Damaged));
        Ok(StreamSettings {
            name: StreamName::parse(&self.name).map_err(|_| Damaged)?,
            owner: self.owner.as_str().into(),
            filters: filters.collect::<Result<_, _>>()?,
            storage: if self.memory { Storage::Memory } else { Storage::File },
            max_age: self.max_age_ms.map(Duration::from_millis),
            max_events: self.max_events,
            max_bytes: self.max_bytes,
            max_events_per_topic: self.max_events_per_topic,
            dedupe_window: Duration::from_millis(self.dedupe_window_ms),
            durability: match self.durability.as_str() {
                "sync" => Durability::Sync,
                "interval" => Durability::Interval,
                "none" => Durability::None,
                _ => return Err(Damaged),
            },
        })
    }
}

/// The settings of a group as their row has them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GroupDefinition {
    ack_deadline_ms: u64,
    max_attempts: u32,
    backoff_ms: Vec<u64>,
    max_unacked: u32,
    dead_letter_stream: Option<String>,
}

impl GroupDefinition {
    pub(super) fn new(settings: &GroupSettings) -> Self {
        Self {
            ack_deadline_ms: ms(settings.ack_deadline),
            max_attempts: settings.max_attempts,
            backoff_ms: settings.backoff.iter().copied().map(ms).collect(),
            max_unacked: settings.max_unacked,
            dead_letter_stream: settings.dead_letter_stream.as_ref().map(|name| name.as_str().to_owned()),
        }
    }

    /// Where its dead letters go.
    pub(super) fn dead_letter_stream(&self) -> Option<&str> {
        self.dead_letter_stream.as_deref()
    }

    pub(super) fn settings(&self) -> Result<GroupSettings, Damaged> {
        let name = self.dead_letter_stream.as_deref().map(StreamName::parse).transpose().map_err(|_| Damaged)?;
        Ok(GroupSettings {
            ack_deadline: Duration::from_millis(self.ack_deadline_ms),
            max_attempts: self.max_attempts,
            backoff: self.backoff_ms.iter().copied().map(Duration::from_millis).collect(),
            max_unacked: self.max_unacked,
            dead_letter_stream: name,
        })
    }
}

/// A definition as a row.
pub(super) fn to_row(definition: &impl Serialize) -> Vec<u8> {
    // A struct of numbers and strings always has a JSON form.
    row(&serde_json::to_vec(definition).unwrap_or_default())
}

/// A definition from its row.
pub(super) fn from_row<T: for<'a> Deserialize<'a>>(row: &[u8]) -> Result<T, Damaged> {
    serde_json::from_slice(checked(row)?).map_err(|_| Damaged)
}

/// Milliseconds, of which a duration less than one has one: settings that are positive stay so.
fn ms(duration: Duration) -> u64 {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 && !duration.is_zero() { 1 } else { ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_damage_is_noticed() {
        let progress = Progress { next: 7, floor: 3, time: 9 };
        assert_eq!(Progress::from_row(&progress.to_row()), Ok(progress));
        let filters = vec![Filter::parse(b"a.>").expect("a filter")];
        let mut settings = StreamSettings::new(StreamName::parse("s").expect("a name"), filters);
        settings.owner = "jwt:alice".into();
        settings.max_age = Some(Duration::from_secs(1));
        settings.durability = Durability::Interval;
        let row = to_row(&Definition::new(&settings, 5, 6));
        assert_eq!(from_row::<Definition>(&row).and_then(|definition| definition.settings()), Ok(settings));
        let group = GroupSettings::default();
        let group_row = to_row(&GroupDefinition::new(&group));
        assert_eq!(from_row::<GroupDefinition>(&group_row).and_then(|definition| definition.settings()), Ok(group));
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 1;
            assert_eq!(from_row::<Definition>(&damaged).err(), Some(Damaged));
        }
    }
}
