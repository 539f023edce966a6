//! Where a member of a group has what it holds: in the last session, or in one before. Pure.
//!
//! A hub keeps the leases of a lost session for a while, under the name of that session. The next one may be lost, too, before
//! every member is open in it; then those that are not are still found by the older name alone, and so are those that came
//! back in between. One that is new to a session is found by the name of that session alone.

/// What one member knows of it.
#[derive(Debug, Default)]
pub(super) struct Home {
    was_asked: bool,
    /// It was lost with a session, and no hub has answered it since.
    is_away: bool,
    /// In this session it is open, and had nothing to come back to.
    is_new: bool,
}

impl Home {
    /// A hub is asked for it.
    pub(super) fn asks(&mut self) {
        self.was_asked = true;
    }

    /// A hub was asked before. It may know it, although nothing has come since.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked
    }

    /// It is open. `is_back` is true if it has what it held before.
    pub(super) fn found(&mut self, is_back: bool) {
        self.is_away = false;
        self.is_new = !is_back;
    }

    /// It has ended, and holds nothing.
    pub(super) fn left(&mut self) {
        self.is_away = false;
        self.is_new = false;
    }

    /// Its session is lost.
    pub(super) fn lost(&mut self) {
        self.is_away = true;
        self.is_new = false;
    }

    /// Whether these are found by the name of the session that is lost now. Those that were new to it are found by that name
    /// alone, and those that were not open in it yet by the older one alone; where there are both, the new ones have more.
    pub(super) fn is_here<'a>(all: impl Iterator<Item = &'a Self>) -> bool {
        let (mut is_any_away, mut is_any_new) = (false, false);
        for one in all {
            is_any_away |= one.is_away;
            is_any_new |= one.is_new;
        }
        is_any_new || !is_any_away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_here(all: &[&Home]) -> bool {
        Home::is_here(all.iter().copied())
    }

    #[test]
    fn the_older_session_is_named_until_everything_is_back() {
        let (mut one, mut two) = (Home::default(), Home::default());
        for member in [&mut one, &mut two] {
            member.asks();
            member.found(false);
        }
        assert!(is_here(&[&one, &two]) && is_here(&[]));
        one.lost();
        two.lost();
        assert!(!is_here(&[&one, &two]), "the next one was lost before it was asked");
        one.found(true);
        assert!(!is_here(&[&one, &two]), "one is found by both names, the other by the older");
        two.found(true);
        assert!(is_here(&[&one, &two]));
    }

    #[test]
    fn one_that_is_new_is_found_by_the_name_of_its_session_alone_and_one_that_has_ended_needs_none() {
        let (mut new, mut away) = (Home::default(), Home::default());
        away.lost();
        assert!(!is_here(&[&new, &away]));
        new.found(false);
        assert!(is_here(&[&new, &away]));
        new.left();
        assert!(!is_here(&[&new, &away]));
        away.left();
        assert!(is_here(&[&new, &away]));
    }
}
