//! Traces of publishes and deliveries, where the operator wants them.

use std::sync::Arc;

use super::OpenSession;
use crate::{
    event::Event,
    model::EventError,
    outbox::{Batch, Item},
    telemetry::{PublishSpan, TraceParent, Traces},
};

/// Records traces of what goes through the hub.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// Where they are recorded.
    pub traces: Arc<Traces>,
}

impl Tracing {
    /// Begins the span of a publish.
    pub(crate) fn publish(&self, events: &[Result<Event, EventError>]) -> Option<PublishSpan> {
        let accepted = || events.iter().flatten();
        let first = accepted().next()?;
        let parents = accepted().filter_map(parent_of);
        let mut span = self.traces.publish(&first.topic().to_string(), events.len(), parents);
        let refused = events.len() - accepted().count();
        if refused > 0 {
            span.refused(refused);
        }
        Some(span)
    }

    /// Records what is handed to the transport.
    pub(crate) fn delivered(&self, session: &OpenSession, batch: &Batch) {
        let mut events = batch.events.iter();
        for item in &batch.items {
            let Item::Events { subscription_id, count, .. } = item else { continue };
            for event in events.by_ref().take(*count) {
                if let Some(parent) = parent_of(event) {
                    self.traces.delivered(parent, &event.topic().to_string(), session.id(), *subscription_id);
                }
            }
        }
    }
}

/// The trace that an event is part of, by the names that W3C gives to its attributes.
fn parent_of(event: &Event) -> Option<TraceParent<'_>> {
    let (mut parent, mut state) = (None, "");
    for (name, value) in event.attributes() {
        match name {
            "traceparent" => parent = Some(value),
            "tracestate" => state = value,
            _ => {}
        }
    }
    parent.map(|parent| TraceParent { parent, state })
}
