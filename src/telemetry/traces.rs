//! Traces, sent by OTLP: a span for each publish, and one for each delivery of an event that brings a trace of its own.
//!
//! A session lives for days and has no span. What a publish hands on is found again by the W3C context in the event's
//! attributes `traceparent` and `tracestate`, which publishers set and the hub passes on as they are. Whether a trace is
//! recorded is decided where it begins: by its first service, or by `sample_ratio` where the publisher brings none.

use std::{fmt, str::FromStr, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, Span, SpanBuilder, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
        Tracer, TracerProvider,
    },
};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};

/// What is recorded and not sent yet is sent within this time, and what remains when the hub ends has as long.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// A publish of many events is linked to so many of their traces at most.
const MOST_LINKS: usize = 32;

/// Where traces go; in the file under `[traces]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceOptions {
    /// The collector, which takes OTLP over gRPC, such as `http://127.0.0.1:4317`. Empty: no traces.
    pub endpoint: String,
    /// The share of publishes that start a trace, from 0 to 1, among those whose events bring none.
    pub sample_ratio: f64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { endpoint: String::new(), sample_ratio: 0.01 }
    }
}

impl TraceOptions {
    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(format!("traces.sample_ratio is {} and must be 0 to 1", self.sample_ratio));
        }
        let is_url =
            self.endpoint.is_empty() || http::Uri::from_str(&self.endpoint).is_ok_and(|uri| uri.host().is_some());
        let wants = "must be a URL such as http://127.0.0.1:4317";
        is_url.then_some(()).ok_or_else(|| format!("traces.endpoint is {:?} and {wants}", self.endpoint))
    }
}

/// The trace an event is part of, as its attributes tell.
#[derive(Debug, Clone, Copy)]
pub struct TraceParent<'a> {
    /// `traceparent`.
    pub parent: &'a str,
    /// `tracestate`; may be empty.
    pub state: &'a str,
}

/// Records spans and has them sent.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The span of a publish, which ends when this is dropped.
#[derive(Debug)]
pub struct PublishSpan(
    /// Apart, since few publishes have one and each session has room for one.
    Box<opentelemetry_sdk::trace::Span>,
);

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Traces {
    /// Starts to send; `None` where nothing is to be sent. `node` names the hub. Must run where tasks can be spawned.
    pub fn start(options: &TraceOptions, node: &str) -> Result<Option<Self>, String> {
        if options.endpoint.is_empty() {
            return Ok(None);
        }
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .with_timeout(SEND_TIMEOUT)
            .build()
            .map_err(|error| format!("traces.endpoint: {error}"))?;
        let resource = Resource::builder_empty()
            .with_service_name("switchyard")
            .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(options.sample_ratio))))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("switchyard");
        Ok(Some(Self { provider, tracer }))
    }

    /// Begins the span of a publish of `events` events, the first of them to `topic`. It is part of the trace of the first
    /// event that brings one, and linked to those of the others.
    pub fn publish<'a>(
        &self,
        topic: &str,
        events: usize,
        parents: impl Iterator<Item = TraceParent<'a>>,
    ) -> PublishSpan {
        let mut contexts = parents.filter_map(context).take(MOST_LINKS);
        let parent = contexts.next();
        let builder = SpanBuilder::from_name("publish")
            .with_kind(SpanKind::Server)
            .with_links(contexts.map(Link::with_context).collect())
            .with_attributes([
                KeyValue::new("messaging.destination.name", topic.to_owned()),
                KeyValue::new("messaging.batch.message_count", count(events)),
            ]);
        PublishSpan(Box::new(self.tracer.build_with_context(builder, &below(parent))))
    }

    /// Records that an event was handed to the transport of a subscriber. Nothing is recorded of one that brings no trace,
    /// or one that nobody records.
    pub fn delivered(&self, parent: TraceParent<'_>, topic: &str, session: &str, subscription_id: i64) {
        let Some(context) = context(parent).filter(SpanContext::is_sampled) else { return };
        let builder = SpanBuilder::from_name("deliver")
            .with_kind(SpanKind::Producer)
            .with_links(vec![Link::with_context(context.clone())])
            .with_attributes([
                KeyValue::new("messaging.destination.name", topic.to_owned()),
                KeyValue::new("switchyard.session_id", session.to_owned()),
                KeyValue::new("switchyard.subscription_id", subscription_id),
            ]);
        self.tracer.build_with_context(builder, &below(Some(context))).end();
    }

    /// Sends what is left, which takes at most a few seconds. Waits: call it where that is allowed.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SEND_TIMEOUT) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

impl PublishSpan {
    /// So many of its events were refused.
    pub fn refused(&mut self, events: usize) {
        self.0.set_attribute(KeyValue::new("switchyard.refused_events", count(events)));
    }
}

impl Drop for PublishSpan {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn count(events: usize) -> i64 {
    i64::try_from(events).unwrap_or(i64::MAX)
}

fn below(parent: Option<SpanContext>) -> Context {
    parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent))
}

/// A W3C trace context (version 00, and as far as they begin alike, later ones); `None` for what is none.
fn context(told: TraceParent<'_>) -> Option<SpanContext> {
    let mut parts = told.parent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2];
    if !lengths || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = TraceState::from_str(told.state).unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, state)).filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parent: &str) -> Option<SpanContext> {
        context(TraceParent { parent, state: "" })
    }

    #[test]
    fn contexts_are_read_as_w3c_has_them() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = parse(good).expect("a context");
        assert!(found.is_sampled() && found.is_remote());
        assert_eq!(found.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(!parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").expect("a context").is_sampled());
        assert!(parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later").is_some());
        for bad in [
            "",
            "nonsense",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-xx",
            "00-\u{e9}af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn options_are_checked() {
        let with = |endpoint: &str, sample_ratio| TraceOptions { endpoint: endpoint.into(), sample_ratio }.check();
        assert!(with("", 1.0).is_ok() && with("http://collector:4317", 0.0).is_ok());
        assert!(with("", 1.01).is_err() && with("not a url", 1.0).is_err() && with("/path", 1.0).is_err());
    }
}
