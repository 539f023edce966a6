//! Ids for events: UUIDs of version 7, which begin with the time, so that those of one client sort by when they were made.
//!
//! An event gets its id once, before it is first written, and keeps it however often it is written again: it is what the
//! hub finds duplicates by. The seed is from the system, not from the clock: two clients that start together must not make
//! the same ids.

use std::{
    collections::hash_map::RandomState,
    fmt::Write,
    hash::{BuildHasher, Hasher},
    time::{SystemTime, UNIX_EPOCH},
};

/// Makes ids.
#[derive(Debug)]
pub(crate) struct Ids(fastrand::Rng);

/// A number that no other client has. What is random about the keys of a hash map comes from the system.
pub(crate) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self(fastrand::Rng::with_seed(seed()))
    }

    /// An id that is made at this time.
    pub(crate) fn next(&mut self, at: SystemTime) -> String {
        let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        // 48 bits of time, the version, 12 random bits, the variant, 62 random bits.
        let time = (millis & 0xffff_ffff_ffff) << 80;
        let random = self.0.u128(..) & ((0xfff << 64) | (u128::MAX >> 66));
        text(time | (7 << 76) | (2 << 62) | random)
    }
}

fn text(id: u128) -> String {
    let mut text = String::with_capacity(36);
    let groups = [(id >> 96, 8), ((id >> 80) & 0xffff, 4), ((id >> 64) & 0xffff, 4), ((id >> 48) & 0xffff, 4)];
    for (group, digits) in groups {
        // Writing to a string does not fail.
        write!(text, "{group:0digits$x}-").ok();
    }
    write!(text, "{:012x}", id & 0xffff_ffff_ffff).ok();
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7_that_begins_with_the_time() {
        // An example of the standard: 2022-02-22, 19:22:22 UTC.
        let at = UNIX_EPOCH + Duration::from_secs(1_645_557_742);
        let id = Ids::new().next(at);
        let groups: Vec<&str> = id.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(id.starts_with("017f22e2-79b0-7"), "{id}");
        assert!("89ab".contains(&groups[3][..1]), "{id}");
        assert!(id.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c)), "{id}");
    }

    #[test]
    fn no_two_ids_are_the_same_not_even_of_two_clients_at_one_time() {
        let at = SystemTime::now();
        let mut makers = [Ids::new(), Ids::new()];
        let ids: HashSet<String> = (0..20_000).map(|n| makers[n % 2].next(at)).collect();
        assert_eq!(ids.len(), 20_000);
    }
}
