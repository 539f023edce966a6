//! The counters of a client as instruments that are read when somebody collects them.
//!
//! A meter keeps what it reads from for ever: that must not keep the client.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use super::meters::{CLIENT_ID, ERROR};
use crate::state::Stats;

/// Reads the counters; `None` when the client is gone.
pub(super) type Read = Arc<dyn Fn() -> Option<Stats> + Send + Sync>;

/// Name, unit, what it is, and where it is found.
type Row = (&'static str, &'static str, &'static str, fn(&Stats) -> u64);

const COUNTERS: [Row; 3] = [
    ("switchyard.client.sessions", "{session}", "Sessions that were opened.", |stats| stats.sessions),
    (
        "switchyard.client.full_windows",
        "{time}",
        "How often a subscription had to stop the hub because its window was full.",
        |stats| stats.full_windows,
    ),
    (
        "switchyard.client.refused_sends",
        "{refusal}",
        "How often something was refused that was sent without waiting for an answer.",
        |stats| stats.refused_sends,
    ),
];

const GAUGES: [Row; 6] = [
    ("switchyard.client.subscriptions", "{subscription}", "Subscriptions.", |stats| stats.subscriptions as u64),
    ("switchyard.client.events_in_hand", "{event}", "Events that this client holds.", |stats| stats.events_in_hand),
    ("switchyard.client.bytes_in_hand", "By", "Their bytes.", |stats| stats.bytes_in_hand),
    (
        "switchyard.client.unanswered_acknowledgements",
        "{acknowledgement}",
        "Acknowledgements that the hub has not answered.",
        |stats| stats.unanswered_acknowledgements as u64,
    ),
    (
        "switchyard.client.queued_publishes",
        "{event}",
        "Events that wait to be published, or for the answer.",
        |stats| stats.queued_publishes as u64,
    ),
    ("switchyard.client.unanswered_publishes", "{event}", "Events that were written and are not answered.", |stats| {
        stats.unanswered_publishes as u64
    }),
];

/// Has them read. Clients of one provider are told apart by their names.
pub(super) fn observe(meter: &Meter, client: &str, read: Read) {
    let name: Option<KeyValue> = (!client.is_empty()).then(|| KeyValue::new(CLIENT_ID, client.to_owned()));
    for (instrument, unit, text, value) in COUNTERS {
        let (read, name) = (Arc::clone(&read), name.clone());
        let builder = meter.u64_observable_counter(instrument).with_unit(unit).with_description(text);
        let observed = builder.with_callback(move |observer| {
            if let Some(stats) = read() {
                observer.observe(value(&stats), name.as_slice());
            }
        });
        observed.build();
    }
    for (instrument, unit, text, value) in GAUGES {
        let (read, name) = (Arc::clone(&read), name.clone());
        let builder = meter.u64_observable_gauge(instrument).with_unit(unit).with_description(text);
        let observed = builder.with_callback(move |observer| {
            if let Some(stats) = read() {
                observer.observe(value(&stats), name.as_slice());
            }
        });
        observed.build();
    }
    observe_losses(meter, name.clone(), Arc::clone(&read));
    observe_silence(meter, name, read);
}

fn observe_losses(meter: &Meter, name: Option<KeyValue>, read: Read) {
    let text = "Attempts that failed and sessions that ended, by reason.";
    let builder = meter.u64_observable_counter("switchyard.client.losses").with_unit("{loss}").with_description(text);
    let observed = builder.with_callback(move |observer| {
        for (reason, count) in read().map(|stats| stats.losses).unwrap_or_default() {
            let reason = KeyValue::new(ERROR, reason);
            let attributes: Vec<_> = name.iter().cloned().chain([reason]).collect();
            observer.observe(count, &attributes);
        }
    });
    observed.build();
}

fn observe_silence(meter: &Meter, name: Option<KeyValue>, read: Read) {
    let text = "How long ago the last frame of the current session came.";
    let builder =
        meter.f64_observable_gauge("switchyard.client.since_last_frame").with_unit("s").with_description(text);
    let observed = builder.with_callback(move |observer| {
        if let Some(silence) = read().and_then(|stats| stats.since_last_frame) {
            observer.observe(silence.as_secs_f64(), name.as_slice());
        }
    });
    observed.build();
}
