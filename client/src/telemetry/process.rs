//! What a subscription receives, and what a worker does with each event: its span, and how long it takes.

use std::{future::Future, sync::Arc, time::Instant};

use opentelemetry::{
    Context, KeyValue,
    global::BoxedTracer,
    trace::{FutureExt, Link, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, WithContext},
};

use super::meters::{DESTINATION, ERROR, GROUP, MESSAGE_ID, Meters, OPERATION_TYPE, base, seconds, with_error};
use crate::{machine::verdict::Verdict, received::Received};

const PROCESS: &str = "process";
const RECEIVE: &str = "receive";

/// A subscription, as far as somebody looks at it.
#[derive(Debug)]
pub(crate) struct Consuming {
    tracer: Option<Arc<BoxedTracer>>,
    meters: Option<Arc<Meters>>,
    group: Option<KeyValue>,
}

/// An event that is worked on.
#[derive(Debug)]
pub(crate) struct Processing {
    /// With the span, if there is one: what is begun meanwhile is part of it.
    context: Context,
    has_span: bool,
    measured: Option<Measured>,
}

#[derive(Debug)]
struct Measured {
    meters: Arc<Meters>,
    group: Option<KeyValue>,
    begun: Instant,
}

impl Consuming {
    pub(super) fn new(tracer: Option<&Arc<BoxedTracer>>, meters: Option<&Arc<Meters>>, group: &str) -> Self {
        let is_seen = (tracer.is_some() || meters.is_some()) && !group.is_empty();
        let group = is_seen.then(|| KeyValue::new(GROUP, group.to_owned()));
        Self { tracer: tracer.cloned(), meters: meters.cloned(), group }
    }

    /// So many events were given to the application.
    pub(crate) fn received(&self, events: usize) {
        if let Some(meters) = &self.meters {
            meters.consumed.add(events as u64, &with_group(RECEIVE, self.group.as_ref()));
        }
    }

    /// A worker begins with an event.
    pub(crate) fn process(&self, event: &Received) -> Processing {
        let measured = self.meters.as_ref().map(|meters| Measured {
            meters: Arc::clone(meters),
            group: self.group.clone(),
            begun: Instant::now(),
        });
        let Some(tracer) = &self.tracer else {
            return Processing { context: Context::current(), has_span: false, measured };
        };
        // Below its publisher and not below whoever runs the worker, whose span would have no end.
        let parent = event.parent_context();
        let mut attributes = with_group(PROCESS, self.group.as_ref());
        attributes.extend([
            KeyValue::new(OPERATION_TYPE, PROCESS),
            KeyValue::new(DESTINATION, event.topic().to_owned()),
            KeyValue::new(MESSAGE_ID, event.id().to_owned()),
        ]);
        let builder = SpanBuilder::from_name(format!("{PROCESS} {}", event.topic()))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(vec![Link::with_context(parent.span().span_context().clone())]);
        let span = tracer.build_with_context(builder, &parent);
        Processing { context: parent.with_span(span), has_span: true, measured }
    }
}

impl Processing {
    /// Begins what a handler does, as a part of the span.
    pub(crate) fn run<F: Future>(&self, begin: impl FnOnce() -> F) -> WithContext<F> {
        let _here = self.context.clone().attach();
        begin().with_context(self.context.clone())
    }

    /// The handler has said what is to become of the event.
    pub(crate) fn ended(mut self, verdict: &Verdict) {
        let failure = match verdict {
            Verdict::Ack => None,
            Verdict::Nack { reason, .. } => Some(("nack", reason)),
            Verdict::Reject { reason } => Some(("reject", reason)),
        };
        if let Some(Measured { meters, group, begun }) = self.measured.take() {
            let attributes = with_error(&with_group(PROCESS, group.as_ref()), failure.map(|(kind, _)| kind));
            meters.process.record(seconds(begun.elapsed()), &attributes);
        }
        if let Some((kind, reason)) = failure.filter(|_| self.has_span) {
            let span = self.context.span();
            span.set_attribute(KeyValue::new(ERROR, kind));
            span.set_status(Status::error(reason.clone()));
        }
    }
}

impl Drop for Processing {
    fn drop(&mut self) {
        if self.has_span {
            self.context.span().end();
        }
    }
}

fn with_group(operation: &'static str, group: Option<&KeyValue>) -> Vec<KeyValue> {
    let mut attributes = base(operation);
    attributes.extend(group.cloned());
    attributes
}
