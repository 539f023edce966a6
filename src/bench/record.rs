//! What every event of a load carries, and the check that nothing was lost, doubled, disordered or changed.
//!
//! The first 16 bytes of a payload are: publisher (u16), topic (u24), sequence of that publisher on that topic (u24),
//! the intended send time in units of 100 ns since the start of the run (u32), and a CRC-32 of all the rest (u32), each
//! big-endian. Pure: time is an argument.

/// No payload is smaller.
pub const HEADER_BYTES: usize = 16;
/// The unit of times in a header, in nanoseconds.
pub(super) const TICK_NS: u64 = 100;
/// Topics and sequences have 24 bits; a sequence begins again after that.
const MASK: u32 = (1 << 24) - 1;

/// What an event of a load says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Who sent it.
    pub publisher: u16,
    /// To which topic of the plan.
    pub topic: u32,
    /// Which one of that publisher on that topic, modulo 2^24.
    pub sequence: u32,
    /// When it was to be sent, in [`TICK_NS`] since the start, modulo 2^32.
    pub intended: u32,
}

/// What is wrong with what was received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Events that are missing between others.
    pub lost: u64,
    /// Events that came twice, or after later ones.
    pub repeated: u64,
    /// Events that do not match their checksum.
    pub damaged: u64,
}

impl Record {
    /// Writes the header over the first bytes of a payload, whose length is at least [`HEADER_BYTES`].
    pub fn write(self, payload: &mut [u8]) {
        let name =
            u64::from(self.publisher) << 48 | u64::from(self.topic & MASK) << 24 | u64::from(self.sequence & MASK);
        payload[..8].copy_from_slice(&name.to_be_bytes());
        payload[8..12].copy_from_slice(&self.intended.to_be_bytes());
        let sum = checksum(payload);
        payload[12..16].copy_from_slice(&sum.to_be_bytes());
    }

    /// Reads the header; `None` when the checksum does not fit.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let header: [u8; HEADER_BYTES] = payload.get(..HEADER_BYTES)?.try_into().ok()?;
        let sum = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
        if sum != checksum(payload) {
            return None;
        }
        let name = u64::from_be_bytes([
            header[0], header[1], header[2], header[3], header[4], header[5], header[6], header[7],
        ]);
        Some(Self {
            publisher: (name >> 48) as u16,
            topic: (name >> 24) as u32 & MASK,
            sequence: name as u32 & MASK,
            intended: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        })
    }
}

fn checksum(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&payload[..12]);
    hasher.update(&payload[HEADER_BYTES..]);
    hasher.finalize()
}

/// What one subscriber must get next from each publisher on each topic.
#[derive(Debug)]
pub struct Expectation {
    topics: usize,
    next: Vec<u32>,
    /// What was wrong so far.
    pub faults: Faults,
}

impl Expectation {
    /// Expects the first event of each of `publishers` on each of `topics`.
    pub fn new(publishers: usize, topics: usize) -> Self {
        Self { topics, next: vec![0; publishers * topics], faults: Faults::default() }
    }

    /// Checks one payload. `None` when it is none of the plan's.
    pub fn check(&mut self, payload: &[u8]) -> Option<Record> {
        let Some(record) = Record::read(payload) else {
            self.faults.damaged += 1;
            return None;
        };
        let Some(next) = self.next.get_mut(record.publisher as usize * self.topics + record.topic as usize) else {
            self.faults.damaged += 1;
            return None;
        };
        let ahead = record.sequence.wrapping_sub(*next) & MASK;
        if ahead > MASK / 2 {
            self.faults.repeated += 1;
        } else {
            self.faults.lost += u64::from(ahead);
            *next = (record.sequence + 1) & MASK;
        }
        Some(record)
    }
}

impl Faults {
    /// True when there are none.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// All of both.
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.damaged += other.damaged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(sequence: u32) -> Vec<u8> {
        let mut payload = vec![7; 32];
        Record { publisher: 1, topic: 2, sequence, intended: 5 }.write(&mut payload);
        payload
    }

    fn faults(sequences: &[u32]) -> Faults {
        let mut expectation = Expectation::new(2, 3);
        for sequence in sequences {
            expectation.check(&payload(*sequence));
        }
        expectation.faults
    }

    #[test]
    fn what_is_written_is_read() {
        let record = Record { publisher: u16::MAX, topic: MASK, sequence: MASK, intended: u32::MAX };
        let mut bytes = vec![0; HEADER_BYTES];
        record.write(&mut bytes);
        assert_eq!(Record::read(&bytes), Some(record));
    }

    #[test]
    fn loss_repetition_disorder_and_damage_are_seen() {
        assert!(faults(&[0, 1, 2]).is_none());
        assert_eq!(faults(&[0, 3]), Faults { lost: 2, ..Faults::default() });
        assert_eq!(faults(&[0, 1, 1]), Faults { repeated: 1, ..Faults::default() });
        assert_eq!(faults(&[0, 2, 1]), Faults { lost: 1, repeated: 1, ..Faults::default() });
        let mut expectation = Expectation::new(2, 3);
        let mut damaged = payload(0);
        damaged[20] ^= 1;
        assert_eq!(expectation.check(&damaged), None);
        assert_eq!(expectation.faults.damaged, 1);
        assert_eq!(expectation.check(b"short"), None);
    }
}
