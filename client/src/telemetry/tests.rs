//! What providers get of a client that measures.

use std::{collections::HashMap, future::pending, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::{
    metrics::{
        InMemoryMetricExporter, SdkMeterProvider,
        data::{AggregatedMetrics, MetricData, ScopeMetrics},
    },
    trace::{InMemorySpanExporter, SdkTracerProvider, SpanData},
};
use tonic::Code;

use super::{Consuming, Telemetry, w3c};
use crate::{
    client::Client,
    error::{Error, ErrorKind},
    event::Event,
    machine::verdict::Verdict,
    outcome::{Published, Receipt},
    proto::v1,
    received::Received,
};

/// Providers that keep what they are given.
struct Seen {
    spans: InMemorySpanExporter,
    tracers: SdkTracerProvider,
    metrics: InMemoryMetricExporter,
    meters: SdkMeterProvider,
}

impl Seen {
    fn new() -> Self {
        let (spans, metrics) = (InMemorySpanExporter::default(), InMemoryMetricExporter::default());
        let tracers = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        let meters = SdkMeterProvider::builder().with_periodic_exporter(metrics.clone()).build();
        Self { spans, tracers, metrics, meters }
    }

    fn telemetry(&self) -> Telemetry {
        let mut telemetry = Telemetry::default();
        telemetry.trace(&self.tracers);
        telemetry.measure(&self.meters);
        telemetry
    }

    fn client(&self) -> Client {
        let builder = Client::builder(["127.0.0.1:1"]).name("billing").queue_events(1);
        builder.tracer_provider(&self.tracers).meter_provider(&self.meters).connect_lazy().expect("a client")
    }

    /// The spans that have ended.
    fn spans(&self) -> Vec<SpanData> {
        self.spans.get_finished_spans().expect("spans")
    }

    fn span(&self) -> SpanData {
        let mut spans = self.spans();
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.remove(0)
    }

    /// What an instrument says now: values, or how many there are, by attributes.
    fn points(&self, instrument: &str) -> Vec<(String, u64)> {
        self.metrics.reset();
        self.meters.force_flush().expect("flushed");
        let mut points = Vec::new();
        for resource in self.metrics.get_finished_metrics().expect("metrics") {
            for metric in resource.scope_metrics().flat_map(ScopeMetrics::metrics) {
                if metric.name() != instrument {
                    continue;
                }
                match metric.data() {
                    AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                        points.extend(sum.data_points().map(|point| (told(point.attributes()), point.value())));
                    }
                    AggregatedMetrics::U64(MetricData::Gauge(gauge)) => {
                        points.extend(gauge.data_points().map(|point| (told(point.attributes()), point.value())));
                    }
                    AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                        points.extend(histogram.data_points().map(|point| (told(point.attributes()), point.count())));
                    }
                    other => unreachable!("{other:?}"),
                }
            }
        }
        points.sort();
        points
    }
}

/// Attributes on one line, without the system, which all have.
fn told<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut all: Vec<String> = attributes.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    all.sort();
    let system = all.iter().position(|pair| pair == "messaging.system=switchyard");
    system.map(|at| all.remove(at));
    all.join(" ")
}

fn events<'a>(topics: &[&'a str]) -> Vec<Event<'a>> {
    topics.iter().map(|topic| Event::new(*topic)).collect()
}

const LIVE: Published = Published::Live { matched: 1 };

fn refused(reason: &str) -> Error {
    Error::new(ErrorKind::Refused, Code::ResourceExhausted, reason, "no room")
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn received(parent: Option<&str>) -> Received {
    let event = Event::new("orders.eu").id("17");
    let event = match parent {
        Some(parent) => event.attribute(w3c::PARENT, parent).attribute(w3c::STATE, "a=1"),
        None => event,
    };
    Received::from(v1::ReceivedEvent { event: Some(event.into()), ..Default::default() })
}

fn consuming(seen: &Seen) -> Consuming {
    seen.telemetry().consume("billing")
}

#[test]
fn a_publish_is_a_span_below_that_of_its_caller_and_its_events_name_it() {
    let seen = Seen::new();
    let caller = seen.tracers.tracer("caller").start("caller");
    let above = caller.span_context().clone();
    let mut attributes = HashMap::new();
    {
        let _here = Context::new().with_span(caller).attach();
        let mut sending = seen.telemetry().send(&events(&["orders.eu"]));
        sending.inject(&mut attributes);
        sending.queued();
        assert!(seen.spans().is_empty(), "it is not answered yet");
        sending.answered(&Receipt::each(vec![Ok(LIVE)]));
    }
    let span = seen.spans().into_iter().find(|span| span.name != "caller").expect("a span");
    assert_eq!((&*span.name, &span.span_kind, &span.status), ("send orders.eu", &SpanKind::Producer, &Status::Unset));
    assert_eq!((span.parent_span_id, span.span_context.trace_id()), (above.span_id(), above.trace_id()));
    let expected = "messaging.batch.message_count=1 messaging.destination.name=orders.eu messaging.operation.name=send \
                    messaging.operation.type=send";
    assert_eq!(told(span.attributes.iter()), expected);
    let told = w3c::read(&attributes[w3c::PARENT], "").expect("a context");
    assert_eq!(told.span_id(), span.span_context.span_id());
    assert_eq!(span.instrumentation_scope.name(), "switchyard-client");
}

#[test]
fn an_event_that_brings_a_context_keeps_it_and_the_span_is_linked_to_it() {
    let seen = Seen::new();
    let event = Event::new("a").attribute(w3c::PARENT, PARENT);
    let mut attributes = HashMap::from([(w3c::PARENT.to_owned(), PARENT.to_owned())]);
    let mut sending = seen.telemetry().send(&[event]);
    sending.inject(&mut attributes);
    assert_eq!(attributes[w3c::PARENT], PARENT);
    drop(sending);
    let links: Vec<SpanContext> = seen.span().links.iter().map(|link| link.span_context.clone()).collect();
    assert_eq!(links.iter().map(|link| link.span_id().to_string()).collect::<Vec<_>>(), ["b7ad6b7169203331"]);
    assert_eq!(seen.points("messaging.client.sent.messages"), [], "it was dropped before it was queued");
}

#[test]
fn what_is_refused_is_told_apart_by_its_reason_and_not_by_topic() {
    let seen = Seen::new();
    let mut sending = seen.telemetry().send(&events(&["a", "b", "b"]));
    sending.queued();
    sending.answered(&Receipt::each(vec![Ok(LIVE), Err(refused("STREAM_FULL")), Ok(LIVE)]));
    let span = seen.span();
    assert_eq!(span.name, "send", "its events have several topics");
    assert!(matches!(&span.status, Status::Error { description } if description.contains("no room")));
    assert!(span.attributes.contains(&KeyValue::new("error.type", "STREAM_FULL")));
    assert!(span.attributes.contains(&KeyValue::new("messaging.batch.message_count", 3)));
    let good = "messaging.operation.name=send".to_owned();
    let bad = format!("error.type=STREAM_FULL {good}");
    assert_eq!(seen.points("messaging.client.sent.messages"), [(bad.clone(), 1), (good, 2)]);
    assert_eq!(seen.points("messaging.client.operation.duration"), [(bad, 1)]);
}

#[test]
fn what_nobody_waits_for_is_counted_too() {
    let seen = Seen::new();
    let mut sending = seen.telemetry().send(&events(&["a", "a"]));
    sending.queued();
    drop(sending);
    assert_eq!(seen.span().name, "send a");
    assert_eq!(seen.points("messaging.client.sent.messages"), [("messaging.operation.name=send".to_owned(), 2)]);
    assert_eq!(seen.points("messaging.client.operation.duration"), []);
}

#[tokio::test]
async fn a_handler_runs_in_a_span_below_the_publisher() {
    let seen = Seen::new();
    let (consuming, event) = (consuming(&seen), received(Some(PARENT)));
    consuming.received(3);
    let processing = consuming.process(&event);
    // One before it awaits anything, and one after.
    let inside = || Context::current().span().span_context().span_id();
    let work = processing.run(|| {
        let begun = inside();
        async move {
            tokio::task::yield_now().await;
            (begun, inside())
        }
    });
    let (begun, later) = work.await;
    processing.ended(&Verdict::Ack);
    let span = seen.span();
    assert_eq!((begun, later), (span.span_context.span_id(), span.span_context.span_id()));
    assert_eq!(
        (&*span.name, &span.span_kind, &span.status),
        ("process orders.eu", &SpanKind::Consumer, &Status::Unset)
    );
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(span.parent_span_is_remote && span.links.len() == 1);
    assert_eq!(span.span_context.trace_state().header(), "a=1");
    let expected = "messaging.consumer.group.name=billing messaging.destination.name=orders.eu messaging.message.id=17 \
                    messaging.operation.name=process messaging.operation.type=process";
    assert_eq!(told(span.attributes.iter()), expected);
    let labels = |operation| format!("messaging.consumer.group.name=billing messaging.operation.name={operation}");
    assert_eq!(seen.points("messaging.client.consumed.messages"), [(labels("receive"), 3)]);
    assert_eq!(seen.points("messaging.process.duration"), [(labels("process"), 1)]);
}

#[test]
fn an_event_without_a_context_is_worked_on_in_a_trace_of_its_own() {
    let seen = Seen::new();
    let _here = Context::new().with_span(seen.tracers.tracer("worker").start("worker")).attach();
    let processing = consuming(&seen).process(&received(None));
    processing.ended(&Verdict::Nack { delay: None, reason: "no disk".to_owned() });
    let span = seen.span();
    assert_eq!((span.parent_span_id, span.links.len()), (SpanId::INVALID, 0), "not below the endless span of a worker");
    assert_eq!(span.status, Status::error("no disk"));
    let labels = "error.type=nack messaging.consumer.group.name=billing messaging.operation.name=process".to_owned();
    assert_eq!(seen.points("messaging.process.duration"), [(labels, 1)]);
}

#[test]
fn the_span_of_a_handler_that_is_dropped_ends() {
    let seen = Seen::new();
    let processing = consuming(&seen).process(&received(None));
    let work = processing.run(pending::<()>);
    drop((work, processing));
    assert_eq!(seen.span().status, Status::Unset);
    assert_eq!(seen.points("messaging.process.duration"), []);
}

#[test]
fn a_received_event_tells_its_context() {
    let context = received(Some(PARENT)).parent_context();
    assert_eq!(context.span().span_context().span_id().to_string(), "b7ad6b7169203331");
    assert!(!received(None).parent_context().has_active_span());
    assert!(!received(Some("nonsense")).parent_context().has_active_span());
}

#[tokio::test]
async fn the_calls_of_a_client_are_recorded_whether_they_are_queued_or_not() {
    let seen = Seen::new();
    let client = seen.client();
    let first = client.try_publish(Event::new("a")).expect("room for one");
    assert!(seen.spans().is_empty());
    let second = client.try_publish(Event::new("b")).expect_err("no room for two");
    assert_eq!((second.reason(), &*seen.span().name), ("QUEUE_FULL", "send b"));
    let third = client.publish(Event::new("c")).deadline(Duration::from_millis(1)).await.expect_err("no room");
    assert_eq!(third.reason(), "DEADLINE_PASSED");
    drop(first);
    let names: Vec<_> = seen.spans().iter().map(|span| span.name.to_string()).collect();
    assert_eq!(names, ["send b", "send c", "send a"]);
    let labels = "messaging.operation.name=send";
    let expected = [
        (format!("error.type=DEADLINE_PASSED {labels}"), 1),
        (format!("error.type=QUEUE_FULL {labels}"), 1),
        (labels.to_owned(), 1),
    ];
    assert_eq!(seen.points("messaging.client.sent.messages"), expected);
}

#[tokio::test]
async fn what_is_only_sent_is_recorded_until_it_is_queued() {
    let seen = Seen::new();
    let client = seen.client();
    client.send_all([Event::new("a")]).await.expect("room");
    assert_eq!(&*seen.span().name, "send a");
    assert_eq!(seen.points("messaging.client.sent.messages"), [("messaging.operation.name=send".to_owned(), 1)]);
}

#[tokio::test]
async fn what_a_client_has_is_read_as_long_as_there_is_one() {
    let seen = Seen::new();
    let client = seen.client();
    let first = client.try_publish(Event::new("a")).expect("room for one");
    let queued = || seen.points("switchyard.client.queued_publishes");
    assert_eq!(queued(), [("messaging.client.id=billing".to_owned(), 1)]);
    assert_eq!(seen.points("switchyard.client.sessions"), [("messaging.client.id=billing".to_owned(), 0)]);
    let states = client.states();
    drop((first, client));
    assert!(states.has_changed().is_err(), "the meter does not keep it");
    assert_eq!(queued(), []);
}

#[test]
fn without_providers_nothing_is_done() {
    let mut attributes = HashMap::new();
    let mut sending = Telemetry::default().send(&events(&["a"]));
    sending.inject(&mut attributes);
    sending.answered(&Receipt::each(vec![Ok(LIVE)]));
    assert!(attributes.is_empty());
    let processing = Telemetry::default().consume("billing").process(&received(Some(PARENT)));
    processing.ended(&Verdict::Ack);
}
