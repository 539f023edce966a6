//! When a session needs a fresh token, and what becomes of it. Pure.
//!
//! Every answer belongs to the session it was asked for: a token that comes late, for a session that is over, is thrown away.

use std::time::Duration;

use super::news::Moment;
use crate::backoff::Backoff;

/// How long to wait before a source that failed, or whose token was refused, is asked again: at first,
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
/// and in the end.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest token that a hub takes, in bytes.
const MAX_TOKEN_BYTES: usize = 12_288;

/// A token that a source gave, and how long it is still good, if that is known.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) value: String,
    pub(crate) life: Option<Duration>,
}

/// The token of the current session.
#[derive(Debug)]
pub(crate) struct Refresh {
    has_source: bool,
    session: u64,
    due: Option<Moment>,
    is_fetching: bool,
    /// To be written.
    fresh: Option<Fresh>,
    /// The source says how long its tokens are good; otherwise the hub does.
    knows_life: bool,
    backoff: Backoff,
}

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fresh").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Refresh {
    pub(crate) fn new(has_source: bool, seed: u64) -> Self {
        let backoff = Backoff::new(SHORTEST_WAIT, LONGEST_WAIT).with_seed(seed);
        Self { has_source, session: 0, due: None, is_fetching: false, fresh: None, knows_life: false, backoff }
    }

    pub(crate) fn has_source(&self) -> bool {
        self.has_source
    }

    /// A session begins, with a token that is good for this long, if that is known.
    pub(crate) fn session_begins(&mut self, now: Moment, session: u64, life: Option<Duration>) {
        self.session = session;
        self.is_fetching = false;
        self.fresh = None;
        self.knows_life = life.is_some();
        self.due = life.map(|life| now + four_fifths(life));
        self.backoff.reset();
    }

    /// The hub says how long the token is still good.
    pub(crate) fn hub_says(&mut self, now: Moment, life: Duration) {
        if !self.knows_life {
            self.due = Some(now + four_fifths(life));
        }
    }

    /// The hub says that it is time.
    pub(crate) fn expiring(&mut self, now: Moment) {
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    /// The session for which the source is to be asked now, if it is time. The answer comes with [`Self::fetched`].
    pub(crate) fn fetch(&mut self, now: Moment) -> Option<u64> {
        let is_time = self.has_source && !self.is_fetching && self.fresh.is_none();
        if is_time && self.due.is_some_and(|due| due <= now) {
            self.is_fetching = true;
            return Some(self.session);
        }
        None
    }

    /// The source has answered. False when that cannot be used.
    pub(crate) fn fetched(&mut self, now: Moment, session: u64, token: Option<Fresh>) -> bool {
        if session != self.session || !self.is_fetching {
            return true;
        }
        self.is_fetching = false;
        match token.filter(|token| !token.value.is_empty() && token.value.len() <= MAX_TOKEN_BYTES) {
            Some(token) => {
                self.knows_life = token.life.is_some();
                // One that is over when it comes, perhaps because clocks differ, is not replaced by the next such at once.
                let wait = |life| Some(four_fifths(life)).filter(|wait| *wait >= SHORTEST_WAIT);
                self.due = token.life.map(|life| now + wait(life).unwrap_or_else(|| self.backoff.next()));
                self.fresh = Some(token);
                true
            }
            None => {
                self.refused(now);
                false
            }
        }
    }

    /// The token is to be written.
    pub(crate) fn has_fresh(&self) -> bool {
        self.fresh.is_some()
    }

    /// The token to write.
    pub(crate) fn take(&mut self) -> Option<String> {
        self.fresh.take().map(|fresh| fresh.value)
    }

    /// The hub has refused the token: another one is needed.
    pub(crate) fn refused(&mut self, now: Moment) {
        self.due = Some(now + self.backoff.next());
    }

    pub(crate) fn session_lost(&mut self) {
        self.due = None;
        self.is_fetching = false;
        self.fresh = None;
    }

    /// When the source is to be asked.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.due.filter(|_| self.has_source && !self.is_fetching && self.fresh.is_none())
    }
}

fn four_fifths(life: Duration) -> Duration {
    life / 5 * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn fresh(value: &str, life: Option<Duration>) -> Fresh {
        Fresh { value: value.into(), life }
    }

    #[test]
    fn a_token_is_replaced_when_four_fifths_of_its_life_have_passed() {
        let mut refresh = Refresh::new(true, 1);
        refresh.session_begins(S, 1, Some(10 * S));
        refresh.hub_says(S, 100 * S);
        assert_eq!((refresh.due(), refresh.fetch(8 * S)), (Some(9 * S), None));
        assert_eq!(refresh.fetch(9 * S), Some(1));
        assert_eq!((refresh.fetch(9 * S), refresh.due()), (None, None), "it is asked once");
        assert!(refresh.fetched(10 * S, 1, Some(fresh("two", Some(20 * S)))));
        assert_eq!(refresh.take().as_deref(), Some("two"));
        assert_eq!(refresh.due(), Some(26 * S));
    }

    #[test]
    fn the_hub_says_when_the_source_does_not() {
        let mut refresh = Refresh::new(true, 1);
        refresh.session_begins(S, 1, None);
        assert_eq!(refresh.due(), None);
        refresh.hub_says(S, 10 * S);
        assert_eq!(refresh.due(), Some(9 * S));
        refresh.expiring(2 * S);
        assert_eq!(refresh.fetch(2 * S), Some(1));
    }

    #[test]
    fn an_answer_for_an_older_session_is_thrown_away() {
        let mut refresh = Refresh::new(true, 1);
        refresh.session_begins(S, 1, Some(Duration::ZERO));
        assert_eq!(refresh.fetch(S), Some(1));
        refresh.session_lost();
        refresh.session_begins(2 * S, 2, Some(Duration::ZERO));
        assert!(refresh.fetched(2 * S, 1, Some(fresh("late", None))));
        assert!(!refresh.has_fresh());
        assert_eq!(refresh.fetch(2 * S), Some(2));
        assert!(refresh.fetched(2 * S, 1, Some(fresh("later still", None))));
        assert!(!refresh.has_fresh());
        assert!(refresh.fetched(2 * S, 2, Some(fresh("good", None))));
        assert_eq!(refresh.take().as_deref(), Some("good"));
    }

    #[test]
    fn a_source_that_fails_is_asked_again_and_so_is_one_whose_token_is_refused() {
        let mut refresh = Refresh::new(true, 1);
        refresh.session_begins(S, 1, Some(Duration::ZERO));
        for bad in [None, Some(fresh("", None)), Some(fresh(&"x".repeat(MAX_TOKEN_BYTES + 1), None))] {
            assert_eq!(refresh.fetch(100 * S), Some(1));
            assert!(!refresh.fetched(S, 1, bad));
        }
        assert_eq!(refresh.fetch(100 * S), Some(1));
        assert!(refresh.fetched(S, 1, Some(fresh(&"x".repeat(MAX_TOKEN_BYTES), None))));
        assert!(refresh.take().is_some());
        refresh.refused(S);
        assert_eq!(refresh.fetch(100 * S), Some(1));
    }

    #[test]
    fn a_source_whose_tokens_are_over_when_they_come_is_not_asked_in_a_loop() {
        let mut refresh = Refresh::new(true, 1);
        refresh.session_begins(S, 1, Some(Duration::ZERO));
        let mut now = S;
        for _ in 0..20 {
            assert_eq!(refresh.fetch(now), Some(1));
            assert!(refresh.fetched(now, 1, Some(fresh("old", Some(Duration::ZERO)))));
            assert!(refresh.take().is_some());
            now = refresh.due().expect("it is asked again");
        }
        assert!(now > 60 * S, "{now:?}");
    }

    #[test]
    fn without_a_source_nothing_is_asked() {
        let mut refresh = Refresh::new(false, 1);
        refresh.session_begins(S, 1, None);
        refresh.expiring(S);
        assert_eq!((refresh.due(), refresh.fetch(100 * S)), (None, None));
    }
}
