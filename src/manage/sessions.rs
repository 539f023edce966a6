//! Open sessions: who they are, what each of their subscriptions asked for and how far it is behind, and ending one.

use std::sync::Arc;

use super::page::Filling;
use crate::{
    auth::{Action, Caller},
    hub::{About, Groups, Hub, OpenSession},
    model::{CommandError, Denial, Filter, Group, StreamName},
    outbox::{Joined, Place, SubscriptionStatus},
};

/// Subscriptions are described so many at a time: each may have hundreds of filters.
const AT_ONCE: usize = 16;

/// The sessions of a hub, for a caller that may manage them.
#[derive(Debug)]
pub struct Sessions<'a>(&'a Hub);

/// What one subscription asked for, and how it stands.
#[derive(Debug, Clone)]
pub struct SubscriptionProgress {
    /// In its session.
    pub status: SubscriptionStatus,
    /// None for all of its stream.
    pub filters: Vec<String>,
    /// The stream it reads, by itself or with its group; `None` for a live one.
    pub stream: Option<StreamName>,
    /// The group it is a member of.
    pub group: Option<Group>,
    /// How many sequences it is behind the end of its stream; 0 unless it reads one by itself that is there still.
    pub lag: u64,
    /// How many events it was sent and has yet to acknowledge; `None` unless its group, which is on a stream, said so in
    /// time.
    pub unacked: Option<u64>,
}

impl<'a> Sessions<'a> {
    /// For a caller that may manage them.
    pub fn to_manage(hub: &'a Hub, caller: &Caller) -> Result<Self, Denial> {
        caller.authorize(&Action::ManageSessions)?;
        Ok(Self(hub))
    }

    /// A page of sessions, the oldest first, as `show` makes of them, each of as many bytes as `bytes_of` says: at most
    /// `most`, and where to go on if there are more; `after` is 0 at first.
    pub fn list<T>(
        &self,
        after: u64,
        most: usize,
        show: impl Fn(&OpenSession) -> T,
        bytes_of: impl Fn(&T) -> usize,
    ) -> (Vec<T>, Option<u64>) {
        let (some, next) = self.0.list_sessions(after, most);
        let (mut filling, mut last) = (Filling::new(most), after);
        for session in &some {
            let shown = show(session);
            let bytes = bytes_of(&shown);
            if !filling.add(shown, bytes) {
                return (filling.page().items, Some(last));
            }
            last = session.number;
        }
        (filling.page().items, next)
    }

    /// The session of that id.
    pub fn find(&self, id: &str) -> Result<Arc<OpenSession>, CommandError> {
        self.0.find_session(id)
    }

    /// A page of the subscriptions of a session, likewise; `from` is 0 at first.
    pub async fn subscriptions<T>(
        &self,
        session: &OpenSession,
        from: usize,
        most: usize,
        show: impl Fn(SubscriptionProgress) -> T,
        bytes_of: impl Fn(&T) -> usize,
    ) -> (Vec<T>, Option<usize>) {
        let (mut filling, mut from, by) = (Filling::new(most), Some(from), Groups::patience());
        while let Some(at) = from {
            let (some, next) = session.statuses(at, AT_ONCE);
            let members = some.iter().filter_map(|status| match &status.place {
                Place::Member { joined, .. } => Some((status.subscription_id, joined.clone())),
                Place::Live(_) | Place::Stream { .. } => None,
            });
            let members: Vec<(i64, Joined)> = members.collect();
            let mut unacked = About::new(self.0).unacked(session, members, by).await.into_iter();
            for status in some {
                let slot = status.key.slot as usize;
                let mut progress = self.progress(session, status);
                if matches!(progress.status.place, Place::Member { .. }) {
                    progress.unacked = unacked.next().flatten();
                }
                let shown = show(progress);
                let bytes = bytes_of(&shown);
                if !filling.add(shown, bytes) {
                    return (filling.page().items, Some(slot));
                }
            }
            from = next;
            // A page may take a while to make.
            tokio::task::yield_now().await;
        }
        (filling.page().items, None)
    }

    fn progress(&self, session: &OpenSession, status: SubscriptionStatus) -> SubscriptionProgress {
        let texts =
            |filters: &[Filter]| -> Vec<String> { filters.iter().map(|filter| filter.as_str().to_owned()).collect() };
        let (stream, (filters, group), lag) = match &status.place {
            Place::Live(None) => Default::default(),
            Place::Live(Some(route)) => (None, About::new(self.0).live(session, status.key, route), 0),
            Place::Member { joined, filters } => {
                (Some(joined.origin.stream.clone()), (texts(filters), Some(joined.group.clone())), 0)
            }
            Place::Stream { position, filters } => {
                let stream = self.0.engine().and_then(|engine| engine.stream(position.origin.stream.as_str()));
                let latest = stream.filter(|stream| stream.epoch() == position.origin.epoch).map(|s| s.bounds().latest);
                let lag = latest.unwrap_or_default().saturating_sub(position.sequence);
                (Some(position.origin.stream.clone()), (texts(filters), None), lag)
            }
        };
        SubscriptionProgress { status, filters, stream, group, lag, unacked: None }
    }

    /// Ends the session of that id; its client gets the reason.
    pub fn terminate(&self, id: &str, why: &str) -> Result<(), CommandError> {
        self.0.terminate_session(id, why)
    }
}
