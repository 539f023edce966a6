//! The facts that are counted, in Prometheus form.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{
    gauges::{GaugeSet, Gauges},
    wire::{ReasonLabel, Wire},
};

const IDS_FORGOTTEN_HELP: &str =
    "Ids forgotten before the dedupe window of their stream ended, because it had too many";
const COMMIT_SECONDS_HELP: &str = "How long the store takes to write and flush what waits, in seconds";
/// From a tenth of a millisecond to more than a second and a half.
const COMMIT_SECONDS: [f64; 15] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192,
    1.6384,
];

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) wire: Wire,
    sessions: Counter,
    sessions_closed: Counter,
    events_in: Counter,
    event_bytes_in: Counter,
    events_refused: Counter,
    events_out: Counter,
    event_bytes_out: Counter,
    bytes_out: Counter,
    commands_refused: Counter,
    gaps: Counter,
    gap_events: Counter,
    ends: Family<ReasonLabel, Counter>,
    denied: Family<ReasonLabel, Counter>,
    quota_refusals: Family<QuotaLabel, Counter>,
    dedupe_ids_forgotten: Counter,
    commit_seconds: Histogram,
    /// Set before every reading, and read before the next one.
    gauges_seen: Mutex<GaugeSet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuotaLabel {
    quota: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switchyard");
        let wire = Wire::new(&mut registry);
        macro_rules! registered {
            ($name:literal, $help:expr) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        let sessions: Counter = registered!("sessions", "Sessions opened, Subscribe calls included");
        let sessions_closed: Counter = registered!("sessions_closed", "Sessions closed");
        let events_in: Counter = registered!("events_in", "Events published and accepted");
        let event_bytes_in: Counter = registered!("event_bytes_in", "Their encoded size in bytes");
        let events_refused: Counter = registered!("events_refused", "Events published and refused");
        let events_out: Counter = registered!("events_out", "Events handed to the transport of a subscriber");
        let event_bytes_out: Counter = registered!("event_bytes_out", "Their encoded size in bytes");
        let bytes_out: Counter = registered!("bytes_out", "Bytes of all frames handed to transports");
        let commands_refused: Counter = registered!("commands_refused", "Commands of sessions answered with an error");
        let gaps: Counter = registered!("gaps", "Gap frames sent");
        let gap_events: Counter = registered!("gap_events", "Events reported lost in gap frames");
        let ends: Family<ReasonLabel, Counter> = registered!("subscription_ends", "Subscriptions ended, by reason");
        let denied: Family<ReasonLabel, Counter> = registered!("denied", "Calls and commands denied, by reason");
        let quota_refusals: Family<QuotaLabel, Counter> =
            registered!("quota_refusals", "Refusals because a quota is used up, by quota");
        let dedupe_ids_forgotten: Counter = registered!("dedupe_ids_forgotten", IDS_FORGOTTEN_HELP);
        let commit_seconds = Histogram::new(COMMIT_SECONDS);
        registry.register("commit_seconds", COMMIT_SECONDS_HELP, commit_seconds.clone());
        let gauges_seen = Mutex::new(GaugeSet::new(&mut registry));
        Self {
            registry,
            wire,
            sessions,
            sessions_closed,
            events_in,
            event_bytes_in,
            events_refused,
            events_out,
            event_bytes_out,
            bytes_out,
            commands_refused,
            gaps,
            gap_events,
            ends,
            denied,
            quota_refusals,
            dedupe_ids_forgotten,
            commit_seconds,
            gauges_seen,
        }
    }
}

impl Metrics {
    /// A session was opened.
    pub fn session_opened(&self) {
        self.sessions.inc();
    }

    /// A session was closed.
    pub fn session_closed(&self) {
        self.sessions_closed.inc();
    }

    /// Events were published and accepted.
    pub fn events_in(&self, events: usize, bytes: usize) {
        self.events_in.inc_by(events as u64);
        self.event_bytes_in.inc_by(bytes as u64);
    }

    /// Events were published and refused.
    pub fn events_refused(&self, events: usize) {
        self.events_refused.inc_by(events as u64);
    }

    /// Frames were handed to a transport: `events` events of `event_bytes`, all in all `bytes`.
    pub fn sent(&self, events: usize, event_bytes: usize, bytes: usize) {
        self.events_out.inc_by(events as u64);
        self.event_bytes_out.inc_by(event_bytes as u64);
        self.bytes_out.inc_by(bytes as u64);
    }

    /// How many events were accepted and how many bytes they had, and how many were handed to transports and how many those
    /// had.
    pub fn totals(&self) -> [u64; 4] {
        [&self.events_in, &self.event_bytes_in, &self.events_out, &self.event_bytes_out].map(Counter::get)
    }

    /// A command was answered by an error.
    pub fn command_refused(&self) {
        self.commands_refused.inc();
    }

    /// A subscriber was told that it will not get `events`.
    pub fn gap_told(&self, events: u64) {
        self.gaps.inc();
        self.gap_events.inc_by(events);
    }

    /// Somebody was refused for what it is. `reason` is a name of the closed list of reasons.
    pub fn denied(&self, reason: &'static str) {
        self.denied.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A subscription is over. `reason` is a name of the closed list of reasons.
    pub fn subscription_ended(&self, reason: &'static str) {
        self.subscriptions_ended(reason, 1);
    }

    /// So many are.
    pub fn subscriptions_ended(&self, reason: &'static str, subscriptions: u64) {
        self.ends.get_or_create(&ReasonLabel { reason }).inc_by(subscriptions);
    }

    /// The store wrote and flushed what waited.
    pub fn committed(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// A stream had too many ids to know repetitions by.
    pub fn dedupe_ids_forgotten(&self, ids: u64) {
        self.dedupe_ids_forgotten.inc_by(ids);
    }

    /// A quota is used up. `quota` is a name of the closed list of quotas.
    pub fn quota_refused(&self, quota: &'static str) {
        self.quota_refusals.get_or_create(&QuotaLabel { quota }).inc();
    }

    /// Everything in the text form of Prometheus (OpenMetrics 1.0).
    pub fn render(&self, gauges: &Gauges) -> String {
        let gauges_seen = self.gauges_seen.lock();
        gauges_seen.set(gauges);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
