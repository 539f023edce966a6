//! What measures a client: a tracer and instruments, for whatever begins to be measured.

use std::sync::Arc;

use opentelemetry::{
    InstrumentationScope,
    global::BoxedTracer,
    metrics::MeterProvider,
    trace::{Tracer, TracerProvider},
};

use super::{meters::Meters, process::Consuming, send::Sending, stats};
use crate::{event::Event, state::Stats};

/// What of a client measures it, as far as its user wants.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    tracer: Option<Arc<BoxedTracer>>,
    meters: Option<Arc<Meters>>,
}

impl Telemetry {
    pub(crate) fn trace<P>(&mut self, provider: &P)
    where
        P: TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as Tracer>::Span: Send + Sync + 'static,
    {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(provider.tracer_with_scope(scope())))));
    }

    pub(crate) fn measure(&mut self, provider: &impl MeterProvider) {
        self.meters = Some(Arc::new(Meters::new(provider.meter_with_scope(scope()))));
    }

    /// Has the counters of a client read whenever its metrics are.
    pub(crate) fn observe(&self, client: &str, read: impl Fn() -> Option<Stats> + Send + Sync + 'static) {
        if let Some(meters) = &self.meters {
            stats::observe(&meters.meter, client, Arc::new(read));
        }
    }

    /// Somebody looks at something.
    pub(crate) fn is_on(&self) -> bool {
        self.tracer.is_some() || self.meters.is_some()
    }

    /// A call to publish begins.
    pub(crate) fn send(&self, events: &[Event<'_>]) -> Sending {
        Sending::new(self.tracer.as_deref(), self.meters.as_ref(), events)
    }

    /// A subscription begins.
    pub(crate) fn consume(&self, group: &str) -> Consuming {
        Consuming::new(self.tracer.as_ref(), self.meters.as_ref(), group)
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("switchyard-client").with_version(env!("CARGO_PKG_VERSION")).build()
}
