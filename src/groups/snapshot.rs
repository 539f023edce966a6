//! What must survive a restart, as bytes. Pure.
//!
//! `SYGS`, a version, then numbers of seven bits a byte, lowest first: the floor; how many ranges are done above it, and
//! of each the distance to the one before and its length; how many events have failed, and of each the distance to the
//! one before, its attempts, whether it was rejected, when it is due, and its reason with the length before; in version 2
//! when it begins, or 0, and how long each of those that failed waits at most; in version 3 also how often each of them was
//! lost; in version 4 also how many rounds of letters there were, the one of the last move, and the round of each of those that
//! failed; at the end a CRC-32 of all before it, four bytes, lowest first. What an earlier version can say is said in that.
//!
//! Decoding trusts nothing: whatever is not exactly what encoding makes is an error.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    done::{Done, MAX_SEQUENCE},
    failure::Failure,
    rounds::Rounds,
};
use crate::model::limits::{MAX_FAILURE_BYTES, MAX_TIME_MS};

const MAGIC: &[u8; 4] = b"SYGS";
const PLAIN: u8 = 1;
/// With times, and with events that were given back and have not failed since: their attempts are 0. Written only when there is
/// something to say, so that an earlier hub reads all others.
const FULL: u8 = 2;
/// With events that were lost with their members. Written only while there are some.
const LOSSES: u8 = 3;
/// With rounds of letters. Written once an event was given back or the group was moved, and from then on: a round is never used
/// twice, whether or not there is an event that has one.
const ROUNDS: u8 = 4;
const CRC_BYTES: usize = 4;
/// All reasons together get no more room than this, in bytes; those that do not fit are forgotten with a restart.
const REASONS_BYTES: usize = 64 * 1024;

/// Why bytes are not the state of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// They are something else.
    #[error("this is not the state of a group")]
    Foreign,
    /// They were written by a later hub.
    #[error("the state of a group is of version {0}, which this hub does not know")]
    Version(u8),
    /// They were changed after they were written, or cut short.
    #[error("the state of a group is damaged: {0}")]
    Damaged(&'static str),
}

/// What must survive a restart.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) done: Done,
    pub(super) failures: BTreeMap<u64, Failure>,
    /// When it begins, in microseconds since 1970, or 0.
    pub(super) begins: u64,
    pub(super) rounds: Rounds,
}

/// The bytes for what is done, with `buried`, and what failed, without them.
pub(super) fn encode(
    done: &Done,
    failures: &BTreeMap<u64, Failure>,
    (begins, rounds): (u64, Rounds),
    buried: &BTreeSet<u64>,
) -> Vec<u8> {
    let mut done = Cow::Borrowed(done);
    for sequence in buried {
        done.to_mut().insert(*sequence, *sequence);
    }
    let failed: Vec<_> = failures.iter().filter(|(sequence, _)| !buried.contains(sequence)).collect();
    let version = version_of(begins, rounds, failed.iter().map(|(_, failure)| *failure));
    let mut out = MAGIC.to_vec();
    out.push(version);
    number(&mut out, done.floor());
    number(&mut out, done.ranges().len() as u64);
    let mut last = done.floor();
    for (from, to) in done.ranges() {
        number(&mut out, from - last);
        number(&mut out, to - from);
        last = to;
    }
    number(&mut out, failed.len() as u64);
    let (mut last, mut room) = (done.floor(), REASONS_BYTES);
    for (sequence, failure) in &failed {
        let reason = if failure.reason.len() <= room { failure.reason.as_bytes() } else { b"" };
        room -= reason.len();
        number(&mut out, *sequence - last);
        number(&mut out, u64::from(failure.attempts));
        number(&mut out, u64::from(failure.rejected));
        number(&mut out, failure.due);
        number(&mut out, reason.len() as u64);
        out.extend_from_slice(reason);
        last = **sequence;
    }
    if version >= FULL {
        number(&mut out, begins);
        for (_, failure) in &failed {
            number(&mut out, failure.wait);
        }
    }
    if version >= LOSSES {
        for (_, failure) in &failed {
            number(&mut out, u64::from(failure.losses));
        }
    }
    if version >= ROUNDS {
        number(&mut out, rounds.counted);
        number(&mut out, rounds.moved);
        for (_, failure) in &failed {
            number(&mut out, failure.round);
        }
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The first version that can say all of it.
fn version_of<'a>(begins: u64, rounds: Rounds, failures: impl Iterator<Item = &'a Failure>) -> u8 {
    let least = match (rounds, begins) {
        (Rounds { counted: 1.., .. }, _) => ROUNDS,
        (_, 1..) => FULL,
        _ => PLAIN,
    };
    let version = |failure: &Failure| match failure {
        Failure { losses: 1.., .. } => LOSSES,
        Failure { attempts: 0, .. } | Failure { wait: 0..MAX_TIME_MS, .. } => FULL,
        _ => PLAIN,
    };
    failures.map(version).fold(least, u8::max)
}

/// What [`encode`] was given.
pub(super) fn decode(bytes: &[u8]) -> Result<Saved, SnapshotError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(SnapshotError::Foreign)?;
    let version = *rest.first().ok_or(SnapshotError::Damaged("it is cut short"))?;
    if ![PLAIN, FULL, LOSSES, ROUNDS].contains(&version) {
        return Err(SnapshotError::Version(version));
    }
    let (told, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(SnapshotError::Damaged("it is cut short"))?;
    if crc32fast::hash(told) != u32::from_le_bytes(*crc) {
        return Err(SnapshotError::Damaged("its checksum does not match"));
    }
    let mut reader = Reader { rest: told.get(MAGIC.len() + 1..).ok_or(SnapshotError::Damaged("it is cut short"))? };
    let done = reader.done()?;
    let mut failures = reader.failures(&done)?;
    let begins = if version >= FULL { reader.times(&mut failures)? } else { 0 };
    if version >= LOSSES {
        reader.losses(&mut failures)?;
    }
    let rounds = if version >= ROUNDS { reader.rounds(&mut failures)? } else { Rounds::default() };
    if version != version_of(begins, rounds, failures.values()) {
        return Err(SnapshotError::Damaged("its version is not the one it claims"));
    }
    if reader.rest.is_empty() {
        Ok(Saved { done, failures, begins, rounds })
    } else {
        Err(SnapshotError::Damaged("it has too many bytes"))
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn done(&mut self) -> Result<Done, SnapshotError> {
        let floor = self.number()?;
        if floor > MAX_SEQUENCE {
            return Err(SnapshotError::Damaged("its floor is not a sequence"));
        }
        let mut done = Done::up_to(floor);
        let mut last = floor;
        for _ in 0..self.number()? {
            // Ranges that touch would be one.
            let from = self.after(last, 2)?;
            last = self.after(from, 0)?;
            done.insert(from, last);
        }
        Ok(done)
    }

    fn failures(&mut self, done: &Done) -> Result<BTreeMap<u64, Failure>, SnapshotError> {
        let mut failures = BTreeMap::new();
        let mut last = done.floor();
        for _ in 0..self.number()? {
            let sequence = self.after(last, 1)?;
            let attempts = u32::try_from(self.number()?).map_err(|_| SnapshotError::Damaged("too many attempts"))?;
            let rejected = match self.number()? {
                0 => false,
                1 => true,
                _ => return Err(SnapshotError::Damaged("a rejection is neither yes nor no")),
            };
            let due = self.number()?;
            let reason = Cow::Owned(self.text()?);
            if (attempts == 0 && rejected) || done.contains(sequence) {
                return Err(SnapshotError::Damaged("a failure of an event that has none"));
            }
            let failure = Failure { attempts, losses: 0, due, wait: MAX_TIME_MS, rejected, reason, round: 0 };
            failures.insert(sequence, failure);
            last = sequence;
        }
        Ok(failures)
    }

    /// When the group begins, and how long failures wait.
    fn times(&mut self, failures: &mut BTreeMap<u64, Failure>) -> Result<u64, SnapshotError> {
        let begins = self.number()?;
        for failure in failures.values_mut() {
            failure.wait = self.number()?;
            if failure.wait > MAX_TIME_MS {
                return Err(SnapshotError::Damaged("a wait is too long"));
            }
        }
        Ok(begins)
    }

    /// How often those that failed were lost.
    fn losses(&mut self, failures: &mut BTreeMap<u64, Failure>) -> Result<(), SnapshotError> {
        for failure in failures.values_mut() {
            failure.losses = u32::try_from(self.number()?).map_err(|_| SnapshotError::Damaged("too many losses"))?;
            if failure.losses > 0 && failure.rejected {
                return Err(SnapshotError::Damaged("a loss of an event that is given up"));
            }
        }
        Ok(())
    }

    /// The rounds of letters, and those of what failed.
    fn rounds(&mut self, failures: &mut BTreeMap<u64, Failure>) -> Result<Rounds, SnapshotError> {
        let rounds = Rounds { counted: self.number()?, moved: self.number()? };
        for failure in failures.values_mut() {
            failure.round = self.number()?;
            if !(rounds.moved..=rounds.counted).contains(&failure.round) {
                return Err(SnapshotError::Damaged("a round that was not counted"));
            }
        }
        if rounds.moved > rounds.counted {
            return Err(SnapshotError::Damaged("a round that was not counted"));
        }
        Ok(rounds)
    }

    /// A sequence told by its distance to the one before.
    fn after(&mut self, last: u64, least: u64) -> Result<u64, SnapshotError> {
        let distance = self.number()?;
        let sequence = last.checked_add(distance).filter(|sequence| *sequence <= MAX_SEQUENCE && distance >= least);
        sequence.ok_or(SnapshotError::Damaged("its sequences are out of order"))
    }

    fn text(&mut self) -> Result<String, SnapshotError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (text, rest) = self
            .rest
            .split_at_checked(length)
            .filter(|(text, _)| text.len() <= MAX_FAILURE_BYTES)
            .ok_or(SnapshotError::Damaged("a reason is cut short"))?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).map_err(|_| SnapshotError::Damaged("a reason is not text"))
    }

    fn number(&mut self) -> Result<u64, SnapshotError> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(SnapshotError::Damaged("it is cut short"))?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // Encoding makes neither more bits than there are, nor needless bytes.
            if bits << shift >> shift != bits || (*byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SnapshotError::Damaged("a number is too large"))
    }
}
