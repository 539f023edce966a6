//! The instruments, and what everything that is recorded has in common.
//!
//! Owns the names of the conventions. Metrics have only attributes with few values: no topic, no text of an error.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

use crate::error::Error;

pub(super) const OPERATION: &str = "messaging.operation.name";
pub(super) const OPERATION_TYPE: &str = "messaging.operation.type";
pub(super) const DESTINATION: &str = "messaging.destination.name";
pub(super) const BATCH: &str = "messaging.batch.message_count";
pub(super) const MESSAGE_ID: &str = "messaging.message.id";
pub(super) const GROUP: &str = "messaging.consumer.group.name";
pub(super) const CLIENT_ID: &str = "messaging.client.id";
pub(super) const ERROR: &str = "error.type";
/// What the conventions advise, in seconds.
const BOUNDARIES: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The instruments of the conventions.
#[derive(Debug)]
pub(super) struct Meters {
    pub(super) meter: Meter,
    pub(super) sent: Counter<u64>,
    pub(super) consumed: Counter<u64>,
    pub(super) operation: Histogram<f64>,
    pub(super) process: Histogram<f64>,
}

impl Meters {
    pub(super) fn new(meter: Meter) -> Self {
        let counter = |name: &'static str, text: &'static str| {
            meter.u64_counter(name).with_unit("{message}").with_description(text).build()
        };
        let histogram = |name: &'static str, text: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(text);
            histogram.with_boundaries(BOUNDARIES.to_vec()).build()
        };
        Self {
            sent: counter("messaging.client.sent.messages", "Events that were to be published."),
            consumed: counter("messaging.client.consumed.messages", "Events that were given to the application."),
            operation: histogram("messaging.client.operation.duration", "From a call to publish to its answer."),
            process: histogram("messaging.process.duration", "How long a handler had an event."),
            meter,
        }
    }
}

/// What all that is recorded of an operation has.
pub(super) fn base(operation: &'static str) -> Vec<KeyValue> {
    vec![KeyValue::new("messaging.system", "switchyard"), KeyValue::new(OPERATION, operation)]
}

/// The same, with the error.
pub(super) fn with_error(base: &[KeyValue], error: Option<&str>) -> Vec<KeyValue> {
    let error = error.map(|error| KeyValue::new(ERROR, error.to_owned()));
    base.iter().cloned().chain(error).collect()
}

/// What kind of error it is: one of a few words.
pub(super) fn error_type(error: &Error) -> String {
    if error.reason().is_empty() { format!("{:?}", error.code()) } else { error.reason().to_owned() }
}

pub(super) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
