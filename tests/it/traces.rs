//! Traces, as a collector gets them: a real OTLP service, which keeps what it is sent.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use switchyard::proto::v1::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::harness::{Session, client, event, hub_with, publish, soon, spec};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        for span in resources.into_iter().flat_map(|one| one.scope_spans).flat_map(|one| one.spans) {
            self.0.send(span).expect("the test waits");
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector, its URL, and what it gets.
async fn collector() -> (String, mpsc::UnboundedReceiver<Span>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, spans) = mpsc::unbounded_channel();
    let serving = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    (url, spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traced(flags: &str) -> Event {
    let mut event = event("a.b", "x");
    event.attributes.insert("traceparent".into(), format!("00-{TRACE}-{PARENT}-{flags}"));
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_and_its_deliveries_are_in_the_trace_of_the_event() {
    let (url, mut spans) = collector().await;
    let hub = hub_with(|config| {
        config.traces.endpoint = url;
        config.traces.sample_ratio = 0.0;
    })
    .await;
    let mut session = Session::open(hub.address).await;
    session.subscribe(3, spec(&["a.>"])).await;
    session.subscribe(4, spec(&["a.b"])).await;
    let mut caller = client(hub.address).await;
    // Neither of a trace that nobody records, nor without one.
    caller.publish(publish(vec![traced("00")])).await.expect("published");
    caller.publish(publish(vec![event("a.b", "x")])).await.expect("published");
    caller.publish(publish(vec![traced("01")])).await.expect("published");
    let mut got = 0;
    while got < 6 {
        got += session.events().await.events.len();
    }
    drop(session);
    soon("the stop", hub.stop(std::time::Duration::ZERO)).await;

    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(soon("a span", spans.recv()).await.expect("a span"));
    }
    assert!(spans.try_recv().is_err(), "no span of what is not recorded");
    seen.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<&str> = seen.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["deliver", "deliver", "publish"]);
    for span in &seen {
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()), "{span:?}");
        assert!(span.attributes.iter().any(|pair| pair.key == "messaging.destination.name"), "{span:?}");
    }
    for delivery in &seen[..2] {
        assert_eq!(hex(&delivery.links[0].span_id), PARENT, "linked to the event's context");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_holds_nobody_up() {
    let hub = hub_with(|config| {
        // Nobody listens on the port of a listener that is gone.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        config.traces.endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        config.traces.sample_ratio = 1.0;
    })
    .await;
    let mut caller = client(hub.address).await;
    for _ in 0..100 {
        caller.publish(publish(vec![traced("01")])).await.expect("published");
    }
    soon("the stop", hub.stop(std::time::Duration::ZERO)).await;
}
