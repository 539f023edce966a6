//! What is shown of a hub that its sessions and groups know only together: what a subscription asked for, and what it has.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Hub, Identity, OpenSession};
use crate::{
    model::Group,
    outbox::{Joined, Route, SubscriptionKey},
};

/// What goes on in a hub.
#[derive(Debug, Clone, Copy)]
pub struct HubTraffic {
    /// Open sessions.
    pub sessions: usize,
    /// Open subscriptions.
    pub subscriptions: usize,
    /// Streams.
    pub streams: usize,
    /// What waits in all sessions, overhead included, in bytes.
    pub waiting_bytes: usize,
    /// Events accepted since it started and their bytes, and events sent and theirs.
    pub totals: [u64; 4],
    /// The same in a second, over the last seconds.
    pub per_second: [f64; 4],
}

/// Looks at a hub for those who show it.
#[derive(Debug, Clone, Copy)]
pub struct About<'a>(&'a Hub);

impl<'a> About<'a> {
    /// Of a hub.
    pub fn new(hub: &'a Hub) -> Self {
        Self(hub)
    }

    /// Its name.
    pub fn node(&self) -> &'a Arc<str> {
        &self.0.node
    }

    /// Whether it has live events in common with other hubs.
    pub fn has_exchange(&self) -> bool {
        self.0.exchange.is_some()
    }

    /// What goes on in it.
    pub async fn traffic(&self) -> HubTraffic {
        let hub = self.0;
        let (subscriptions, _) = hub.count_subscriptions().await;
        let totals = hub.metrics.totals();
        HubTraffic {
            sessions: hub.session_count(),
            subscriptions,
            streams: hub.engine.as_ref().map_or(0, |engine| engine.streams().len()),
            waiting_bytes: hub.waiting_bytes(),
            totals,
            per_second: hub.traffic.lock().rates(hub.uptime(), totals),
        }
    }

    /// What a live subscription of a session gets, as it was asked for: its filters, and its group. Nothing of one that is
    /// over.
    pub fn live(&self, session: &OpenSession, key: SubscriptionKey, route: &Route) -> (Vec<String>, Option<Group>) {
        session.outbox_id().map(|outbox| self.0.router.describe(outbox, key, route)).unwrap_or_default()
    }

    /// How many events each of these members was sent and has yet to acknowledge, named by its subscription in a session and
    /// its group: `None` for one of which that is not known before `by`.
    pub async fn unacked(&self, session: &OpenSession, members: Vec<(i64, Joined)>, by: Instant) -> Vec<Option<u64>> {
        let Some(groups) = &self.0.groups else { return vec![None; members.len()] };
        let identity = |subscription_id| Identity {
            principal: Arc::clone(&session.principal),
            session: Arc::clone(&session.id),
            subscription_id,
        };
        let members = members.into_iter().map(|(id, joined)| (joined.origin, joined.group, identity(id)));
        groups.held(members.collect(), by).await
    }
}
