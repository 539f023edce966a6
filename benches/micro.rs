//! Micro-benchmarks of the way of an event: match, enqueue, accept, take, encode. `cargo bench --bench micro`.
//!
//! Each goes through the public face of its room, without sockets and without a runtime. They are for comparing a change
//! with what was before it, on one machine; what must hold anywhere is counted in tests/counts.rs.
//!
//! - `matching`: `Router::publish` to subscriptions that the router knows and the outbox does not, so that nearly
//!   nothing but the match is left.
//! - `enqueue`: the same to subscriptions that take the events.
//! - `accept`: a `Publish` call that nobody wants. One event is nearly all call; the difference to a hundred is the
//!   decoding, checking and copying of an event.
//! - `take`: `Taker::poll_take` until nothing waits: the fair writer alone.
//! - `encode`: the response body of a session: take and encode. The difference to `take` is the encoding.
//! - `json_*`: an event and a publish in JSON, beside the same by a library that builds messages, and the frame that takes
//!   longest to read.

use std::{
    cell::RefCell,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{BufMut, Bytes};
use divan::{Bencher, black_box, counter::ItemsCount};
use http::Request;
use http_body::Body as _;
use http_body_util::Full;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use switchyard::{
    auth::{Caller, Reflection},
    edge::{
        Door,
        grpc::{self, Access},
    },
    event::{Draft, Event, EventIds, Payload, Span, Spans},
    hub::{Hub, Options, Publish, Setup},
    json,
    model::{Filter, Overflow, SubscriptionSpec},
    outbox::{Allowances, Batch, Budget, Desk, Outbox, Route, SubscriptionKey, Taker},
    proto::v1 as client,
    readiness::Readiness,
    router::{Limits, Router, Scratch},
    tasks::Tasks,
};
use tokio::time::Instant;
use tonic::{body::Body, service::Routes};
use tower::ServiceExt;

const PAYLOAD_BYTES: usize = 128;
const BATCH: usize = 100;

fn main() {
    divan::main();
}

/// Runs a future of the hub to its end. Whatever it waits for is ready when it is asked again.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

/// An event as far as the rooms behind the wire look.
fn event(topic: &str) -> Event {
    let mut encoded = topic.as_bytes().to_vec();
    encoded.resize(topic.len() + PAYLOAD_BYTES, 7);
    let len = u16::try_from(topic.len()).expect("a short topic");
    let spans = Spans { topic: Span { start: 0, len }, ..Spans::default() };
    Event::new(encoded.into(), spans, 0).expect("a topic")
}

fn filter(text: &str) -> Filter {
    Filter::parse(text.as_bytes()).expect("a filter")
}

fn spec(text: &str) -> SubscriptionSpec {
    let (filters, overflow) = (vec![filter(text)], Overflow::DropOldest);
    SubscriptionSpec { stream: None, filters, group: None, credit: None, overflow, max_events: None, max_batch: 10_000 }
}

fn outbox() -> Arc<Outbox> {
    let options = Options::default();
    let budget = Arc::new(Budget::new(options.session_queue_bytes, options.hub_queue_bytes));
    let heartbeat = Duration::from_secs(15);
    Arc::new(Outbox::new(options.limits(), heartbeat, false, budget, Allowances::default(), None, Instant::now()))
}

/// Opens a subscription that the router does not know.
fn open(desk: &Desk, spec: &SubscriptionSpec) -> SubscriptionKey {
    let (key, _) = desk.reserve(0, spec).expect("room");
    let route = Route { nodes: smallvec::SmallVec::new(), group: 0, tokens: std::num::NonZeroU32::MIN };
    desk.open(key, route, 0).expect("it is reserved");
    key
}

/// Takes all that waits, and tells how many events.
fn take_all(outbox: &Outbox, batch: &mut Batch) -> usize {
    let mut events = 0;
    let mut context = Context::from_waker(Waker::noop());
    while Taker::new(outbox).poll_take(&mut context, batch).is_ready() {
        events += batch.events.len();
        batch.clear();
    }
    events
}

/// Publishes a hundred events, always others, among `subscriptions` of one topic each. With `wildcards`, every tenth is by
/// `*` instead and every hundredth by `>`, so that an event has two matches however many subscriptions there are.
fn matching(bencher: Bencher, subscriptions: usize, wildcards: bool) {
    let router = Router::new(Limits::default());
    let number = router.join(Desk::new(outbox()).inlet());
    let topic = |n: usize| format!("shop.{}.order{n}.created", n / 100);
    for n in 0..subscriptions {
        let text = match n {
            n if wildcards && n % 100 == 0 => format!("shop.{}.>", n / 100),
            n if wildcards && n % 10 == 0 => format!("shop.*.order{n}.*"),
            n => topic(n),
        };
        // The outbox has no such subscription, so offering the event to it is one failed look-up.
        let key = SubscriptionKey { slot: u32::try_from(n).expect("few"), generation: 0 };
        finish(router.subscribe(number, key, &[filter(&text)], None)).expect("room");
    }
    let (mut scratch, mut next) = (Scratch::default(), 0);
    bencher
        .counter(ItemsCount::new(BATCH))
        // Far apart, so that what matches is not in the cache thanks to the event before.
        .with_inputs(|| {
            let mut topics = || {
                next = (next + 7919) % subscriptions;
                event(&topic(next))
            };
            (0..BATCH).map(|_| topics()).collect::<Vec<_>>()
        })
        .bench_local_refs(|events| finish(router.publish(black_box(events), &mut scratch)));
}

#[divan::bench(args = [1_000, 100_000], sample_size = 1, sample_count = 1_000)]
fn match_exact(bencher: Bencher, subscriptions: usize) {
    matching(bencher, subscriptions, false);
}

#[divan::bench(args = [1_000, 100_000], sample_size = 1, sample_count = 1_000)]
fn match_with_wildcards(bencher: Bencher, subscriptions: usize) {
    matching(bencher, subscriptions, true);
}

/// A hundred events to one subscription in each of `outboxes`, whose writers wait. Counts deliveries.
#[divan::bench(args = [1, 100], sample_size = 1, sample_count = 1_000)]
fn enqueue(bencher: Bencher, outboxes: usize) {
    let router = Router::new(Limits::default());
    let outboxes: Vec<_> = (0..outboxes).map(|_| outbox()).collect();
    for outbox in &outboxes {
        let spec = spec("orders.*.created");
        let desk = Desk::new(Arc::clone(outbox));
        let key = open(&desk, &spec);
        let number = router.join(desk.inlet());
        finish(router.subscribe(number, key, &spec.filters, None)).expect("room");
    }
    let events: Vec<_> = (0..BATCH).map(|_| event("orders.eu.created")).collect();
    let (mut scratch, mut batch) = (Scratch::default(), Batch::default());
    bencher
        .counter(ItemsCount::new(BATCH * outboxes.len()))
        .with_inputs(|| outboxes.iter().map(|outbox| take_all(outbox, &mut batch)).sum::<usize>())
        .bench_local_values(|_| finish(router.publish(black_box(&events), &mut scratch)));
}

/// A thousand events that wait for `subscriptions`, evenly.
#[divan::bench(args = [1, 1_000], sample_size = 1, sample_count = 1_000)]
fn take(bencher: Bencher, subscriptions: usize) {
    const EVENTS: usize = 1_000;
    let outbox = outbox();
    let (desk, spec) = (Desk::new(Arc::clone(&outbox)), spec(">"));
    let inlet = desk.inlet();
    let keys: Vec<_> = (0..subscriptions).map(|_| open(&desk, &spec)).collect();
    let event = event("orders.eu.created");
    let mut batch = Batch::default();
    bencher
        .counter(ItemsCount::new(EVENTS))
        .with_inputs(|| {
            let offers = keys.iter().cycle().take(EVENTS).map(|key| (*key, &event, ()));
            inlet.offer(offers, |()| ())
        })
        .bench_local_values(|_| assert_eq!(take_all(&outbox, &mut batch), EVENTS));
}

fn hub() -> (Arc<Hub>, Routes) {
    let hub = Arc::new(Hub::new(Setup::default()));
    let access = Access::new(Door::new(None, Readiness::default().view()), Reflection::On);
    let routes =
        grpc::routes(Arc::clone(&hub), Tasks::default(), Readiness::default().view(), &access).expect("routes");
    (hub, routes)
}

fn call(routes: &Routes, method: &str, body: Body) -> Body {
    let path = format!("/switchyard.v1.HubService/{method}");
    let request = Request::post(path).body(body).expect("a request");
    finish(routes.clone().oneshot(request)).expect("an answer").into_body()
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
    message.encode(&mut bytes).expect("room");
    bytes.into()
}

/// The next piece of a response body.
fn next_piece(body: &mut Body) -> Option<Bytes> {
    match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(frame)) => frame.expect("no error").into_data().ok(),
        Poll::Ready(None) | Poll::Pending => None,
    }
}

/// A call that publishes `events` that nobody wants, from the bytes of the request to those of the answer.
#[divan::bench(args = [1, 100])]
fn accept(bencher: Bencher, events: usize) {
    let (_hub, routes) = hub();
    let event = client::Event {
        id: "0123456789".into(),
        topic: "orders.eu.created".into(),
        payload: Some(client::event::Payload::Data(vec![7; PAYLOAD_BYTES].into())),
        ..client::Event::default()
    };
    let request = framed(&client::PublishRequest { events: vec![event; events], precondition: None });
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        let mut response = call(&routes, "Publish", Body::new(Full::new(request.clone())));
        next_piece(&mut response).expect("an answer")
    });
}

/// A hundred events that wait for one subscription, into the bytes of an `events` frame.
#[divan::bench(sample_size = 1, sample_count = 1_000)]
fn encode(bencher: Bencher) {
    let (hub, routes) = hub();
    // The task of the session would read commands; there are none, and what is measured is polled here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _inside = runtime.enter();
    let spec = client::SubscriptionSpec { filters: vec![">".into()], ..client::SubscriptionSpec::default() };
    let request = framed(&client::SubscribeRequest { spec: Some(spec) });
    let body = RefCell::new(call(&routes, "Subscribe", Body::new(Full::new(request))));
    let events: Vec<_> = (0..BATCH).map(|_| event("orders.eu.created")).collect();
    let caller = Caller::nobody("Publish", None);
    let mut publisher = hub.publisher(&caller);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            while next_piece(&mut body.borrow_mut()).is_some() {}
            let events = events.iter().cloned().map(Ok).collect();
            let publish = Publish { events, precondition: None, memory: None, quiet: true };
            finish(publisher.publish(&caller, publish)).expect("published")
        })
        .bench_local_values(|_| next_piece(&mut body.borrow_mut()).expect("events"));
}

/// An event of text as a publisher makes it: what `json_event` and those beside it write.
fn text_event() -> Event {
    let draft = Draft {
        id: "0123456789",
        topic: "orders.eu.created",
        kind: "com.example.order",
        content_type: "text/plain",
        attributes: &[("traceparent", TRACE)],
        payload: Payload::Text(&TEXT[..PAYLOAD_BYTES]),
        ..Draft::default()
    };
    draft.build(usize::MAX, &mut EventIds::new("s")).expect("an event")
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TEXT: &str = "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown \
                    fox jumps over the lazy dog.";

/// The JSON of an event of text.
#[divan::bench]
fn json_event(bencher: Bencher) {
    let (event, mut out) = (text_event(), Vec::with_capacity(1024));
    bencher.bench_local(|| {
        out.clear();
        json::put_event(black_box(&event), &mut out);
        out.len()
    });
}

/// The same for one of many who get the event.
#[divan::bench]
fn json_event_again(bencher: Bencher) {
    let (event, forms, mut out) = (text_event(), json::Forms::default(), Vec::with_capacity(1024));
    let _other = event.clone();
    bencher.bench_local(|| {
        out.clear();
        forms.put(black_box(&event), &mut out);
        out.len()
    });
}

/// The same by a library that builds messages.
#[divan::bench]
fn json_event_reflected(bencher: Bencher) {
    let (of, received) = (reflected("switchyard.v1.ReceivedEvent"), text_event().received());
    bencher.bench_local(|| {
        let message = DynamicMessage::decode(of.clone(), black_box(&*received)).expect("an event");
        serde_json::to_vec(&message).expect("JSON").len()
    });
}

/// A command that publishes `events`, as JSON.
fn json_request(events: usize) -> String {
    let text = &TEXT[..PAYLOAD_BYTES];
    let event = format!(
        r#"{{"id":"0123456789","topic":"orders.eu.created","type":"com.example.order","contentType":"text/plain","attributes":{{"traceparent":"{TRACE}"}},"text":"{text}"}}"#
    );
    format!(r#"{{"requestId":"7","publish":{{"events":[{}]}}}}"#, vec![event; events].join(","))
}

/// A publish from JSON to protobuf.
#[divan::bench(args = [1, 100])]
fn json_publish(bencher: Bencher, events: usize) {
    let (json, of) = (json_request(events), json::message("switchyard.v1.SessionRequest").expect("a message"));
    bencher
        .counter(ItemsCount::new(events))
        .bench_local(|| of.decode(black_box(json.as_bytes())).expect("a request").len());
}

/// The same by a library that builds messages.
#[divan::bench(args = [1, 100])]
fn json_publish_reflected(bencher: Bencher, events: usize) {
    let (json, of) = (json_request(events), reflected("switchyard.v1.SessionRequest"));
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        let mut json = serde_json::Deserializer::from_slice(black_box(json.as_bytes()));
        let message = DynamicMessage::deserialize(of.clone(), &mut json).expect("a request");
        message.encode_to_vec().len()
    });
}

/// The largest frame, with as many events as fit into it: all of it, which a session reads in parts.
#[divan::bench(sample_size = 1, sample_count = 20)]
fn json_frame_of_nothing(bencher: Bencher) {
    let json = format!(r#"{{"publish":{{"events":[{}{{}}]}}}}"#, "{},".repeat((4 << 20) / 3 - 10));
    let of = json::message("switchyard.v1.SessionRequest").expect("a message");
    bencher.bench_local(|| of.decode(black_box(json.as_bytes())).expect("a request").len());
}

fn reflected(name: &str) -> MessageDescriptor {
    let messages = &include_bytes!(concat!(env!("OUT_DIR"), "/messages.bin"))[..];
    DescriptorPool::decode(messages).expect("descriptors").get_message_by_name(name).expect("a message")
}
