//! What a hub is, as the message that shows it. Pure.

use crate::{
    edge::wire::{
        forms::v1 as wire,
        frames::{duration, limits},
    },
    hub::HubTraffic,
    manage::about::{Feature, HubStatus},
};

/// The hub as its clients see it.
pub(super) fn shown(status: &HubStatus) -> wire::Hub {
    let features = status.features.iter().map(|feature| match feature {
        Feature::Streams => wire::HubFeature::Streams,
        Feature::Authentication => wire::HubFeature::Authentication,
        Feature::Exchange => wire::HubFeature::Exchange,
    });
    wire::Hub {
        node: status.node.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: duration(status.uptime),
        limits: Some(limits(&status.limits)),
        heartbeat_interval: duration(status.heartbeat_interval),
        features: features.map(Into::into).collect(),
        alternatives: status.alternatives.addresses().map(str::to_owned).collect(),
        traffic: status.traffic.as_ref().map(traffic),
    }
}

fn traffic(traffic: &HubTraffic) -> wire::HubTraffic {
    let told = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let [events_in, event_bytes_in, events_out, event_bytes_out] = traffic.totals.map(u64::cast_signed);
    let [events_in_per_second, event_bytes_in_per_second, events_out_per_second, event_bytes_out_per_second] =
        traffic.per_second;
    wire::HubTraffic {
        sessions: told(traffic.sessions),
        subscriptions: told(traffic.subscriptions),
        streams: told(traffic.streams),
        waiting_bytes: told(traffic.waiting_bytes),
        events_in,
        event_bytes_in,
        events_out,
        event_bytes_out,
        events_in_per_second,
        event_bytes_in_per_second,
        events_out_per_second,
        event_bytes_out_per_second,
    }
}
