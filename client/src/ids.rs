//! Ids for events: UUIDs of version 7, which begin with the time, so that those of one client sort by when they were made.
//!
//! An event gets its id once, before it is first written, and keeps it however often it is written again: it is what the
//! hub finds duplicates by. The seed is from the system, not from the clock: two clients that start together must not make
//! the same ids.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::{SystemTime, UNIX_EPOCH},
};

const HEX: &[u8; 16] = b"0123456789abcdef";
/// The groups of an id, in digits.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
/// How long an id is, in bytes.
const ID_BYTES: usize = 36;

/// Begins series of ids.
#[derive(Debug)]
pub(crate) struct Ids(fastrand::Rng);

/// Ids that are made at one time.
#[derive(Debug)]
pub(crate) struct Series {
    random: fastrand::Rng,
    /// What all of them have.
    same: u128,
}

/// A number that no other client has. What is random about the keys of a hash map comes from the system.
pub(crate) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self(fastrand::Rng::with_seed(seed()))
    }

    /// Ids that are made at this time.
    pub(crate) fn series(&mut self, at: SystemTime) -> Series {
        let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        // 48 bits of time, the version, 12 random bits, the variant, 62 random bits.
        let time = (millis & 0xffff_ffff_ffff) << 80;
        Series { random: self.0.fork(), same: time | (7 << 76) | (2 << 62) }
    }
}

impl Series {
    /// The next one.
    pub(crate) fn next(&mut self) -> [u8; ID_BYTES] {
        text(self.same | (self.random.u128(..) & ((0xfff << 64) | (u128::MAX >> 66))))
    }
}

fn text(id: u128) -> [u8; ID_BYTES] {
    let (mut text, mut at, mut bytes) = ([b'-'; ID_BYTES], 0, id.to_be_bytes().into_iter());
    for group in GROUPS {
        for (pair, byte) in text[at..at + group].chunks_exact_mut(2).zip(&mut bytes) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 0xf)];
        }
        at += group + 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    fn id(series: &mut Series) -> String {
        String::from_utf8(series.next().into()).expect("ASCII")
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7_that_begins_with_the_time() {
        // An example of the standard: 2022-02-22, 19:22:22 UTC.
        let at = UNIX_EPOCH + Duration::from_secs(1_645_557_742);
        let id = id(&mut Ids::new().series(at));
        let groups: Vec<&str> = id.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), GROUPS);
        assert!(id.starts_with("017f22e2-79b0-7"), "{id}");
        assert!("89ab".contains(&groups[3][..1]), "{id}");
        assert!(id.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c)), "{id}");
    }

    #[test]
    fn every_digit_is_in_its_place() {
        let text = text(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(&text, b"01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn no_two_ids_are_the_same_not_even_of_two_clients_at_one_time() {
        let at = SystemTime::now();
        let mut makers = [Ids::new(), Ids::new()];
        let mut series: Vec<Series> = (0..200).map(|n| makers[n % 2].series(at)).collect();
        let ids: HashSet<String> = (0..20_000).map(|n| id(&mut series[n % 200])).collect();
        assert_eq!(ids.len(), 20_000);
    }
}
