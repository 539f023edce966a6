//! A call to publish, from when it is made to its answer: its span, and what is counted of it.
//!
//! What is counted is what the application wanted to be published, whether or not it waits for the answer. How long that
//! took is known only if it does.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Instant};

use opentelemetry::{
    KeyValue,
    global::{BoxedSpan, BoxedTracer},
    trace::{Link, Span, SpanBuilder, SpanKind, Status, Tracer},
};

use super::{
    meters::{BATCH, DESTINATION, ERROR, Meters, OPERATION_TYPE, base, error_type, seconds, with_error},
    w3c,
};
use crate::{error::Error, event::Event, outcome::Receipt};

const SEND: &str = "send";
/// A publish is linked to so many of the traces that its events bring, at most.
const MOST_LINKS: usize = 32;

/// A call to publish; nothing where nobody looks at it.
#[derive(Debug)]
pub(crate) struct Sending(Option<Box<Sent>>);

#[derive(Debug)]
struct Sent {
    span: Option<BoxedSpan>,
    meters: Option<Arc<Meters>>,
    events: u64,
    begun: Instant,
    is_queued: bool,
}

impl Sending {
    /// One that nobody looks at.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(tracer: Option<&BoxedTracer>, meters: Option<&Arc<Meters>>, events: &[Event<'_>]) -> Self {
        if events.is_empty() || (tracer.is_none() && meters.is_none()) {
            return Self(None);
        }
        Self(Some(Box::new(Sent {
            span: tracer.map(|tracer| tracer.build(span(events))),
            meters: meters.cloned(),
            events: events.len() as u64,
            begun: Instant::now(),
            is_queued: false,
        })))
    }

    /// Adds the context of the span to the attributes of one of its events, unless they have one already.
    pub(crate) fn inject(&mut self, attributes: &mut HashMap<String, String>) {
        let span = self.0.as_ref().and_then(|sent| sent.span.as_ref());
        if let Some(span) = span.filter(|_| !attributes.contains_key(w3c::PARENT)) {
            w3c::write(span.span_context(), attributes);
        }
    }

    /// Its events are in the queue.
    pub(crate) fn queued(&mut self) {
        if let Some(sent) = &mut self.0 {
            sent.is_queued = true;
        }
    }

    /// What has become of its events.
    pub(crate) fn answered(&mut self, receipt: &Receipt) {
        if let Some(sent) = self.0.take() {
            sent.answered(receipt);
        }
    }

    /// It has failed as a whole.
    pub(crate) fn failed(&mut self, error: &Error) {
        if let Some(sent) = self.0.take() {
            let events = sent.events;
            sent.end(&[(Some(error_type(error)), events)], Some(error));
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Some(mut sent) = self.0.take() else { return };
        if let Some(meters) = sent.meters.take().filter(|_| sent.is_queued) {
            meters.sent.add(sent.events, &base(SEND));
        }
        if let Some(mut span) = sent.span.take() {
            span.end();
        }
    }
}

impl Sent {
    fn answered(self, receipt: &Receipt) {
        let mut counts: Vec<(Option<String>, u64)> = Vec::new();
        let mut published = receipt.len() as u64;
        for error in receipt.errors().map(error_type) {
            published -= 1;
            match counts.iter_mut().find(|(known, _)| known.as_ref() == Some(&error)) {
                Some((_, count)) => *count += 1,
                None => counts.push((Some(error), 1)),
            }
        }
        counts.extend(Some((None, published)).filter(|(_, count)| *count > 0));
        self.end(&counts, receipt.errors().next());
    }

    fn end(mut self, counts: &[(Option<String>, u64)], error: Option<&Error>) {
        let kind = error.map(error_type);
        if let Some(meters) = &self.meters {
            let base = base(SEND);
            for (error, count) in counts {
                meters.sent.add(*count, &with_error(&base, error.as_deref()));
            }
            meters.operation.record(seconds(self.begun.elapsed()), &with_error(&base, kind.as_deref()));
        }
        if let Some(span) = &mut self.span {
            if let (Some(kind), Some(error)) = (kind, error) {
                span.set_attribute(KeyValue::new(ERROR, kind));
                span.set_status(Status::error(error.to_string()));
            }
            span.end();
        }
    }
}

/// The span of a call that publishes these events.
fn span(events: &[Event<'_>]) -> SpanBuilder {
    let topic = events.first().map(Event::topic);
    let topic = topic.filter(|topic| events.iter().all(|event| event.topic() == *topic));
    let name = topic.map_or(Cow::Borrowed(SEND), |topic| Cow::Owned(format!("{SEND} {topic}")));
    let mut attributes = base(SEND);
    attributes.push(KeyValue::new(OPERATION_TYPE, SEND));
    attributes.push(KeyValue::new(BATCH, i64::try_from(events.len()).unwrap_or(i64::MAX)));
    attributes.extend(topic.map(|topic| KeyValue::new(DESTINATION, topic.to_owned())));
    // Of events that are passed on, and keep the context that they have.
    let links = events.iter().filter_map(|event| {
        let state = event.attribute_of(w3c::STATE).unwrap_or_default();
        w3c::read(event.attribute_of(w3c::PARENT)?, state)
    });
    SpanBuilder::from_name(name)
        .with_kind(SpanKind::Producer)
        .with_attributes(attributes)
        .with_links(links.take(MOST_LINKS).map(Link::with_context).collect())
}
