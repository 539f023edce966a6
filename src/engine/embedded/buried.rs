//! The dead letters in the last save of each group, so that a save that is tried again does not store them twice. Pure.
//!
//! A save and its letters are one transaction, so that only the save before can be the one that is tried again: the next
//! that succeeds takes its place. After a restart the group is loaded, and its state has what was stored.

use std::collections::HashMap;

use crate::{
    engine::{DeadLetter, LetterId},
    model::Group,
};

/// Of the groups of one stream. Those whose last save had no letters take no room.
#[derive(Debug, Default)]
pub(super) struct Buried(HashMap<Group, Box<[LetterId]>>);

impl Buried {
    /// A group was saved with these.
    pub(super) fn saved(&mut self, group: &Group, letters: &[DeadLetter]) {
        if !letters.is_empty() {
            self.0.insert(group.clone(), letters.iter().map(|letter| letter.id).collect());
        } else if !self.0.is_empty() {
            self.0.remove(group);
        }
    }

    /// The letters that its last save had.
    pub(super) fn of(&self, group: &Group) -> &[LetterId] {
        self.0.get(group).map_or(&[], |letters| letters)
    }

    /// The group is gone, or has letters back.
    pub(super) fn forget(&mut self, group: &Group) {
        self.0.remove(group);
    }
}
