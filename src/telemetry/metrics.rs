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
    set::metric_set,
    wire::{ReasonLabel, Wire},
};

/// From a tenth of a millisecond to more than a second and a half.
const COMMIT_SECONDS: [f64; 15] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192,
    1.6384,
];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(super) wire: Wire,
    counts: Counts,
    /// Set before every reading, and read before the next one.
    gauges_seen: Mutex<GaugeSet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuotaLabel {
    quota: &'static str,
}

metric_set! {
    /// What sessions and the store count.
    struct Counts {
        sessions: Counter = "sessions", "Sessions opened, Subscribe calls included";
        sessions_closed: Counter = "sessions_closed", "Sessions closed";
        events_in: Counter = "events_in", "Events published and accepted";
        event_bytes_in: Counter = "event_bytes_in", "Their encoded size in bytes";
        events_refused: Counter = "events_refused", "Events published and refused";
        events_out: Counter = "events_out", "Events handed to the transport of a subscriber";
        event_bytes_out: Counter = "event_bytes_out", "Their encoded size in bytes";
        bytes_out: Counter = "bytes_out", "Bytes of all frames handed to transports";
        commands_refused: Counter = "commands_refused", "Commands of sessions answered with an error";
        gaps: Counter = "gaps", "Gap frames sent";
        gap_events: Counter = "gap_events", "Events reported lost in gap frames";
        ends: Family<ReasonLabel, Counter> = "subscription_ends", "Subscriptions ended, by reason";
        denied: Family<ReasonLabel, Counter> = "denied", "Calls and commands denied, by reason";
        quota_refusals: Family<QuotaLabel, Counter> =
            "quota_refusals", "Refusals because a quota is used up, by quota";
        dedupe_ids_forgotten: Counter =
            "dedupe_ids_forgotten",
            "Ids forgotten before the dedupe window of their stream ended, because it had too many";
        commit_seconds: Histogram =
            "commit_seconds", "How long the store takes to write and flush what waits, in seconds",
            Histogram::new(COMMIT_SECONDS);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switchyard");
        let wire = Wire::new(&mut registry);
        let counts = Counts::new(&mut registry);
        let gauges_seen = Mutex::new(GaugeSet::new(&mut registry));
        Self { registry, wire, counts, gauges_seen }
    }
}

impl Metrics {
    /// A session was opened.
    pub fn session_opened(&self) {
        self.counts.sessions.inc();
    }

    /// A session was closed.
    pub fn session_closed(&self) {
        self.counts.sessions_closed.inc();
    }

    /// Events were published and accepted.
    pub fn events_in(&self, events: usize, bytes: usize) {
        self.counts.events_in.inc_by(events as u64);
        self.counts.event_bytes_in.inc_by(bytes as u64);
    }

    /// Events were published and refused.
    pub fn events_refused(&self, events: usize) {
        self.counts.events_refused.inc_by(events as u64);
    }

    /// Frames were handed to a transport: `events` events of `event_bytes`, all in all `bytes`.
    pub fn sent(&self, events: usize, event_bytes: usize, bytes: usize) {
        self.counts.events_out.inc_by(events as u64);
        self.counts.event_bytes_out.inc_by(event_bytes as u64);
        self.counts.bytes_out.inc_by(bytes as u64);
    }

    /// How many events were accepted and how many bytes they had, and how many were handed to transports and how many those
    /// had.
    pub fn totals(&self) -> [u64; 4] {
        [&self.counts.events_in, &self.counts.event_bytes_in, &self.counts.events_out, &self.counts.event_bytes_out]
            .map(Counter::get)
    }

    /// A command was answered by an error.
    pub fn command_refused(&self) {
        self.counts.commands_refused.inc();
    }

    /// A subscriber was told that it will not get `events`.
    pub fn gap_told(&self, events: u64) {
        self.counts.gaps.inc();
        self.counts.gap_events.inc_by(events);
    }

    /// Somebody was refused for what it is. `reason` is a name of the closed list of reasons.
    pub fn denied(&self, reason: &'static str) {
        self.counts.denied.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A subscription is over. `reason` is a name of the closed list of reasons.
    pub fn subscription_ended(&self, reason: &'static str) {
        self.subscriptions_ended(reason, 1);
    }

    /// So many are.
    pub fn subscriptions_ended(&self, reason: &'static str, subscriptions: u64) {
        self.counts.ends.get_or_create(&ReasonLabel { reason }).inc_by(subscriptions);
    }

    /// The store wrote and flushed what waited.
    pub fn committed(&self, took: Duration) {
        self.counts.commit_seconds.observe(took.as_secs_f64());
    }

    /// A stream had too many ids to know repetitions by.
    pub fn dedupe_ids_forgotten(&self, ids: u64) {
        self.counts.dedupe_ids_forgotten.inc_by(ids);
    }

    /// A quota is used up. `quota` is a name of the closed list of quotas.
    pub fn quota_refused(&self, quota: &'static str) {
        self.counts.quota_refusals.get_or_create(&QuotaLabel { quota }).inc();
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
