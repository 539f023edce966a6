//! `switchyard hub`: what a hub is, and what goes on in it.

use anyhow::Context;
use serde_json::{Value, json};

use super::{reach::Reach, show};
use crate::proto::v1::{GetHubRequest, Hub, HubFeature, HubTraffic, Limits};

/// Show a hub: its version, its limits, what it can do, and what goes on in it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What goes on in a hub is shown to callers that may manage sessions. Rates are over the last 5 to 10 seconds.

Examples:
  switchyard hub
  switchyard hub --json
  switchyard hub --server https://hub.example:50051 --token-file admin.token")]
pub struct HubCommand {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

impl HubCommand {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut reached = self.reach.connect().await?;
        let answer = reached.ask("GetHub", reached.hub().get_hub(GetHubRequest {})).await?;
        let hub = answer.hub.context("the hub did not show itself")?;
        let told = if self.json { as_json(&hub).to_string() } else { show::fields(&rows(&hub)) };
        show::print(&told).map(drop)
    }
}

fn feature(feature: HubFeature) -> Option<&'static str> {
    match feature {
        HubFeature::Streams => Some("streams"),
        HubFeature::Authentication => Some("authentication"),
        HubFeature::Exchange => Some("exchange"),
        HubFeature::Unspecified => None,
    }
}

fn rows(hub: &Hub) -> Vec<(&'static str, String)> {
    let features: Vec<_> = hub.features().filter_map(feature).collect();
    let interval = hub.heartbeat_interval.as_ref().map(show::wire_duration);
    let mut rows = vec![
        ("node", hub.node.clone()),
        ("version", hub.version.clone()),
        ("uptime", hub.uptime.as_ref().map(show::wire_duration).unwrap_or_default()),
        ("features", show::or_dash(&features.join(" "))),
        ("heartbeat interval", interval.unwrap_or_default()),
        ("alternatives", show::or_dash(&hub.alternatives.join(" "))),
    ];
    rows.extend(hub.limits.iter().flat_map(limit_rows));
    rows.extend(hub.traffic.iter().flat_map(traffic_rows));
    rows
}

fn limit_rows(limits: &Limits) -> Vec<(&'static str, String)> {
    vec![
        ("max event", show::bytes(limits.max_event_bytes)),
        ("max frame", show::bytes(limits.max_frame_bytes)),
        ("max subscriptions", format!("{} in a session", limits.max_subscriptions)),
        ("max filters", format!("{} in a subscription", limits.max_filters)),
        ("max publish", format!("{} events", limits.max_publish_events)),
        ("queue", format!("{} events, {}", limits.queue_events, show::bytes(limits.queue_bytes))),
    ]
}

fn traffic_rows(traffic: &HubTraffic) -> Vec<(&'static str, String)> {
    let rate = |events: f64, bytes: f64| format!("{events:.1} events/s, {}/s", show::bytes(bytes as i64));
    vec![
        ("sessions", traffic.sessions.to_string()),
        ("subscriptions", traffic.subscriptions.to_string()),
        ("streams", traffic.streams.to_string()),
        ("waiting", show::bytes(traffic.waiting_bytes)),
        ("in", rate(traffic.events_in_per_second, traffic.event_bytes_in_per_second)),
        ("in since start", format!("{} events, {}", traffic.events_in, show::bytes(traffic.event_bytes_in))),
        ("out", rate(traffic.events_out_per_second, traffic.event_bytes_out_per_second)),
        ("out since start", format!("{} events, {}", traffic.events_out, show::bytes(traffic.event_bytes_out))),
    ]
}

/// The hub with the names of the contract.
fn as_json(hub: &Hub) -> Value {
    let features: Vec<_> = hub.features().map(|feature| feature.as_str_name()).collect();
    json!({
        "node": hub.node,
        "version": hub.version,
        "uptime": hub.uptime.as_ref().map(ToString::to_string),
        "limits": hub.limits.as_ref().map(limits_json),
        "heartbeat_interval": hub.heartbeat_interval.as_ref().map(ToString::to_string),
        "features": features,
        "alternatives": hub.alternatives,
        "traffic": hub.traffic.as_ref().map(traffic_json),
    })
}

fn limits_json(limits: &Limits) -> Value {
    json!({
        "max_event_bytes": limits.max_event_bytes,
        "max_frame_bytes": limits.max_frame_bytes,
        "max_subscriptions": limits.max_subscriptions,
        "max_publish_events": limits.max_publish_events,
        "max_filters": limits.max_filters,
        "queue_events": limits.queue_events,
        "queue_bytes": limits.queue_bytes,
    })
}

fn traffic_json(traffic: &HubTraffic) -> Value {
    json!({
        "sessions": traffic.sessions,
        "subscriptions": traffic.subscriptions,
        "streams": traffic.streams,
        "waiting_bytes": traffic.waiting_bytes,
        "events_in": traffic.events_in,
        "event_bytes_in": traffic.event_bytes_in,
        "events_out": traffic.events_out,
        "event_bytes_out": traffic.event_bytes_out,
        "events_in_per_second": traffic.events_in_per_second,
        "event_bytes_in_per_second": traffic.event_bytes_in_per_second,
        "events_out_per_second": traffic.events_out_per_second,
        "event_bytes_out_per_second": traffic.event_bytes_out_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_shown_only_where_the_hub_shows_it() {
        let mut hub = Hub { node: "hub-0".into(), features: vec![1, 99], ..Hub::default() };
        let names = |hub: &Hub| rows(hub).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert!(!names(&hub).contains(&"sessions") && as_json(&hub)["traffic"].is_null());
        assert_eq!(as_json(&hub)["features"], json!(["HUB_FEATURE_STREAMS"]));
        hub.traffic =
            Some(HubTraffic { events_in_per_second: 2.0, event_bytes_in_per_second: 2048.0, ..HubTraffic::default() });
        assert!(rows(&hub).contains(&("in", "2.0 events/s, 2.0 KiB/s".to_owned())));
    }
}
