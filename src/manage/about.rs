//! What a hub is, what it can do, and, for those who manage sessions, what goes on in it.

use std::{sync::Arc, time::Duration};

use crate::{
    auth::{Action, Caller},
    hub::{About, Hub, HubTraffic},
    model::Alternatives,
    outbox::SessionLimits,
};

/// Something that not every hub can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// It keeps streams.
    Streams,
    /// It asks callers who they are.
    Authentication,
    /// It has live events in common with other hubs.
    Exchange,
}

/// What a hub is.
#[derive(Debug, Clone)]
pub struct HubStatus {
    /// Its name.
    pub node: Arc<str>,
    /// For how long it has run.
    pub uptime: Duration,
    /// What its clients must keep to.
    pub limits: SessionLimits,
    /// How often an idle session hears from it.
    pub heartbeat_interval: Duration,
    /// What it can do besides.
    pub features: Vec<Feature>,
    /// Where else its clients may connect.
    pub alternatives: Alternatives,
    /// What goes on in it; `None` for a caller that may not know.
    pub traffic: Option<HubTraffic>,
}

/// What a hub is, as its caller may know it.
pub async fn see(hub: &Hub, caller: &Caller) -> HubStatus {
    let (options, about) = (hub.options(), About::new(hub));
    let features = [
        (Feature::Streams, hub.engine().is_some()),
        (Feature::Authentication, caller.auth().is_some()),
        (Feature::Exchange, about.has_exchange()),
    ];
    let traffic = if caller.may(&Action::ManageSessions) { Some(about.traffic().await) } else { None };
    HubStatus {
        node: Arc::clone(about.node()),
        uptime: hub.uptime(),
        limits: options.limits(),
        heartbeat_interval: options.heartbeat_interval(),
        features: features.into_iter().filter(|(_, has)| *has).map(|(feature, _)| feature).collect(),
        alternatives: options.alternatives.clone(),
        traffic,
    }
}
