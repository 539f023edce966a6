//! Whether the store can be written to, and if not, why; and what is known of a disk without room.

use super::store::Store;
use crate::{engine::StoreError, model::Storage};

/// With so many bytes deleted there is room inside the file.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;
/// To use that room may mean to move all there is. So what did not help is not tried again at each pass: 1, 3, 7 and so on are
/// left out in between, at most this many.
const MOST_PASSES: u32 = 64;

/// The condition of the store.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// What every write to the disk is answered with, as long as there is something.
    broken: Option<StoreError>,
    /// How many bytes were deleted since the disk is full.
    deleted: u64,
    /// How often it was asked since that room was last tried,
    passes: u32,
    /// and how often it is to be until it is tried again.
    wait: u32,
    /// Even what makes room does not fit. Only who asks for it has it tried again.
    stuck: bool,
}

impl Condition {
    /// What every write to the disk is answered with, if there is something.
    pub(super) fn error(&self) -> Option<&StoreError> {
        self.broken.as_ref()
    }

    /// True when nothing is written to the disk but what makes room.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// True when that is because the disk is full.
    pub(super) fn is_full(&self) -> bool {
        self.broken == Some(StoreError::Full)
    }

    /// Whether what makes room may be written.
    pub(super) fn may_make_room(&self, storage: Storage, file: &Store) -> Result<(), StoreError> {
        match &self.broken {
            Some(error) if storage == Storage::File && (*error != StoreError::Full || !file.is_good()) => {
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    /// Whether that may be done without being asked for.
    pub(super) fn may_sweep(&self, storage: Storage, file: &Store) -> bool {
        self.may_make_room(storage, file).is_ok() && (storage == Storage::Memory || !self.stuck)
    }

    /// What makes room was done, and deleted so many bytes that no stream counts.
    pub(super) fn made_room(&mut self, bytes: u64) {
        self.deleted += bytes;
        self.stuck = false;
    }

    /// So many bytes more were deleted: whether the room inside the file is to be tried now.
    pub(super) fn has_made_room(&mut self, more: u64) -> bool {
        self.deleted += more;
        self.passes += 1;
        let is_due = self.deleted >= ROOM_BYTES && self.passes > self.wait;
        if is_due {
            (self.passes, self.wait) = (0, (2 * self.wait + 1).min(MOST_PASSES));
        }
        is_due
    }

    /// The disk has no room.
    pub(super) fn fill(&mut self) {
        *self = Self { stuck: self.is_full(), broken: Some(StoreError::Full), ..Self::default() };
    }

    /// Nothing is written to the disk any more.
    pub(super) fn fail(&mut self, error: StoreError) {
        self.broken = Some(error);
    }

    /// There is room again.
    pub(super) fn heal(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::disk::InMemory, *};

    #[test]
    fn a_full_disk_takes_what_makes_room_and_not_again_by_itself_once_that_does_not_fit() {
        let file = Store::open(Arc::new(InMemory), 1024 * 1024, true, false).expect("a store");
        let mut condition = Condition::default();
        assert!(!condition.is_broken() && condition.may_sweep(Storage::File, &file));
        condition.fill();
        assert!(condition.is_full() && condition.may_sweep(Storage::File, &file));
        condition.fill();
        assert_eq!(condition.may_make_room(Storage::File, &file), Ok(()), "whoever asks for it may try");
        assert!(!condition.may_sweep(Storage::File, &file) && condition.may_sweep(Storage::Memory, &file));
        condition.made_room(ROOM_BYTES - 1);
        assert!(condition.may_sweep(Storage::File, &file));
        assert_eq!(
            [0, 1, 0, 0, 0, 0, 0].map(|more| condition.has_made_room(more)),
            [0, 1, 0, 1, 0, 0, 0].map(|due| due == 1)
        );
        assert!((0..1_000).filter(|_| condition.has_made_room(0)).count() >= 14, "it is never given up");
        file.close();
        assert_eq!(condition.may_make_room(Storage::File, &file), Err(StoreError::Full), "it is not open");
        assert_eq!(condition.may_make_room(Storage::Memory, &file), Ok(()));
        condition.heal();
        assert_eq!(condition.error(), None);
    }
}
