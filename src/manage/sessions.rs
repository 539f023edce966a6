//! Open sessions: who they are, how far each of their subscriptions is behind, and ending one.

use std::sync::Arc;

use crate::{
    auth::{Action, Caller},
    hub::{Hub, OpenSession},
    model::{CommandError, Denial},
    outbox::SubscriptionStatus,
};

/// The sessions of a hub, for a caller that may manage them.
#[derive(Debug)]
pub struct Sessions<'a>(&'a Hub);

/// How one subscription stands.
#[derive(Debug, Clone)]
pub struct SubscriptionProgress {
    /// In its session.
    pub status: SubscriptionStatus,
    /// How many sequences it is behind the end of its stream; 0 unless it reads one that is there still.
    pub lag: u64,
}

impl<'a> Sessions<'a> {
    /// For a caller that may manage them.
    pub fn to_manage(hub: &'a Hub, caller: &Caller) -> Result<Self, Denial> {
        caller.authorize(&Action::ManageSessions)?;
        Ok(Self(hub))
    }

    /// At most `most` sessions, the oldest first, and where to go on if there are more; `after` is 0 at first.
    pub fn list(&self, after: u64, most: usize) -> (Vec<Arc<OpenSession>>, Option<u64>) {
        self.0.list_sessions(after, most)
    }

    /// The session of that id.
    pub fn find(&self, id: &str) -> Result<Arc<OpenSession>, CommandError> {
        self.0.find_session(id)
    }

    /// How at most `most` subscriptions of a session stand, and where to go on from; `from` is 0 at first.
    pub fn subscriptions(
        &self,
        session: &OpenSession,
        from: usize,
        most: usize,
    ) -> (Vec<SubscriptionProgress>, Option<usize>) {
        let (page, next) = session.statuses(from, most);
        (page.into_iter().map(|status| self.progress(status)).collect(), next)
    }

    fn progress(&self, status: SubscriptionStatus) -> SubscriptionProgress {
        let lag = status.position.as_ref().map_or(0, |position| {
            let stream = self.0.engine().and_then(|engine| engine.stream(position.origin.stream.as_str()));
            let latest = stream.filter(|stream| stream.epoch() == position.origin.epoch).map(|s| s.bounds().latest);
            latest.unwrap_or_default().saturating_sub(position.sequence)
        });
        SubscriptionProgress { status, lag }
    }

    /// Ends the session of that id; its client gets the reason.
    pub fn terminate(&self, id: &str, why: &str) -> Result<(), CommandError> {
        self.0.terminate_session(id, why)
    }
}
