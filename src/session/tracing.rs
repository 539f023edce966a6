//! Traces of publishes and deliveries, where the operator wants them.

use std::sync::Arc;

use super::OpenSession;
use crate::{
    model::{Event, EventError},
    outbox::{Batch, Item},
    telemetry::{PublishSpan, TraceParent, Traces},
};

/// Records traces of what goes through the hub.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// Where they are recorded.
    pub traces: Arc<Traces>,
    /// Tells the trace that an event is part of. The encoding is the wire's.
    pub parent_of: fn(&Event) -> Option<TraceParent<'_>>,
}

impl Tracing {
    /// Begins the span of a publish.
    pub(super) fn publish(&self, events: &[Result<Event, EventError>]) -> Option<PublishSpan> {
        let accepted = || events.iter().flatten();
        let first = accepted().next()?;
        let parents = accepted().filter_map(|event| (self.parent_of)(event));
        let mut span = self.traces.publish(&first.topic().to_string(), events.len(), parents);
        let refused = events.len() - accepted().count();
        if refused > 0 {
            span.refused(refused);
        }
        Some(span)
    }

    /// Records what is handed to the transport.
    pub(super) fn delivered(&self, session: &OpenSession, batch: &Batch) {
        let mut events = batch.events.iter();
        for item in &batch.items {
            let Item::Events { subscription_id, count, .. } = item else { continue };
            for event in events.by_ref().take(*count) {
                if let Some(parent) = (self.parent_of)(event) {
                    self.traces.delivered(parent, &event.topic().to_string(), session.id(), *subscription_id);
                }
            }
        }
    }
}
