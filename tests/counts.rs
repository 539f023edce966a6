//! What an event costs on its way through the hub, counted rather than timed: allocations, bytes allocated, wake-ups.
//!
//! The hub runs in this thread, without sockets: requests go to its tower service, their bodies are fed by hand, and the
//! bodies of its responses are polled by hand. Only allocations of this thread are counted, so every number is the same
//! on every run. The bounds are what was measured when they were written, plus a little for a new version of a
//! dependency; a test that fails names what was measured. Whoever makes the hub cheaper lowers the bound.
//!
//! Bytes allocated stand for bytes copied: whatever the hub copies, it copies into memory it has just allocated. A
//! buffer that grows counts each time with its whole size, as it is copied each time.

#![allow(clippy::panic, clippy::cast_precision_loss)]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use allocation_counter::AllocationInfo;
use bytes::{BufMut, Bytes};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use prost::Message;
use switchyard::{
    auth::Reflection,
    edge::{
        Door,
        grpc::{self, Access},
    },
    engine::{Append, Embedded, Engine, Options, ReadLimits},
    event::{Draft, EventIds, Payload},
    hub::{Hub, Setup, Streams},
    json,
    memory::{Memory, Use},
    model::{Filter, Storage, StreamName, StreamSettings},
    proto::v1::{
        self as client, PublishRequest, SessionRequest, SessionResponse, Subscribe, SubscriptionSpec,
        session_request::Command, session_response::Frame as Answer,
    },
    readiness::Readiness,
    tasks::Tasks,
};
use tokio::runtime::Runtime;
use tonic::{body::Body, service::Routes};
use tower::ServiceExt;

const PAYLOAD_BYTES: usize = 128;
/// How many events are published at once.
const BATCH: usize = 100;
/// How many batches are published before anything is counted, and how many while it is.
const ROUNDS: usize = 20;
/// As large as the DATA frames of HTTP/2 are by default.
const TRANSPORT_PIECE_BYTES: usize = 16 * 1024;
/// A number may grow by a twentieth before a test fails.
const SLACK: f64 = 1.05;
/// The hub has nothing left to do long before it was given this many turns.
const TURNS: usize = 64;

/// A hub, and the runtime of one thread that its tasks share with the test.
struct InProcess {
    runtime: Runtime,
    routes: Routes,
    memory: Arc<Memory>,
}

/// The request body of a session: what the client has sent and the hub has not read.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    reader: Option<Waker>,
}

/// One session as its client sees it.
struct Session {
    sent: Sent,
    received: Body,
    writer: Arc<Wakes>,
}

/// The task of a writer that is woken: it only counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Wakes {
    /// How often it was woken since this was last asked.
    fn take(&self) -> usize {
        self.0.swap(0, Relaxed)
    }
}

impl Sent {
    fn push(&self, frame: Bytes) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.frames.push_back(frame);
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = waiting.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        waiting.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl InProcess {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self::start_with(runtime, Setup::default())
    }

    fn start_with(runtime: Runtime, setup: Setup) -> Self {
        let memory = Arc::clone(&setup.memory);
        let hub = Arc::new(Hub::new(setup));
        let access = Access::new(Door::new(None, Readiness::default().view()), Reflection::On);
        let routes = grpc::routes(hub, Tasks::default(), Readiness::default().view(), &access).expect("routes");
        Self { runtime, routes, memory }
    }

    /// Lets the tasks of the hub run until they have nothing left to do.
    fn settle(&self) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }

    fn call(&self, method: &str, body: Body) -> Response<Body> {
        let path = format!("/switchyard.v1.{method}");
        let request = Request::post(path).header("content-type", "application/grpc").body(body).expect("a request");
        self.runtime.block_on(self.routes.clone().oneshot(request)).expect("an answer")
    }

    fn session(&self) -> Session {
        let sent = Sent::default();
        let received = self.call("HubService/Session", Body::new(sent.clone())).into_body();
        let mut session = Session { sent, received, writer: Arc::default() };
        assert!(matches!(session.frames()[..], [Answer::Welcome(_)]));
        session
    }

    /// A session that has `count` subscriptions to the topic of [`events`].
    fn subscriber(&self, count: usize) -> Session {
        let mut session = self.session();
        for _ in 0..count {
            session.send(Command::Subscribe(Subscribe { subscription_id: 0, spec: Some(spec()) }));
            self.settle();
            assert!(matches!(session.frames()[..], [Answer::Subscribed(_)]));
        }
        session
    }

    fn subscribers(&self, sessions: usize) -> Vec<Session> {
        (0..sessions).map(|_| self.subscriber(1)).collect()
    }

    /// Sends a frame and takes what it brings to every subscriber, who must get `each` batches; counts what the hub
    /// allocates meanwhile.
    fn deliver(
        &self,
        frame: &[Bytes],
        publisher: &Session,
        subscribers: &mut [Session],
        each: usize,
    ) -> AllocationInfo {
        for piece in frame {
            publisher.sent.push(piece.clone());
        }
        let mut counted = allocation_counter::measure(|| self.settle());
        for subscriber in subscribers {
            let mut events = 0;
            counted += allocation_counter::measure(|| {
                while let Poll::Ready(piece) = subscriber.poll() {
                    allocation_counter::opt_out(|| events += count_events(&piece));
                }
            });
            assert_eq!(events, each * BATCH);
        }
        counted
    }
}

impl Session {
    fn send(&self, command: Command) {
        self.sent.push(framed(&SessionRequest { request_id: 0, command: Some(command) }));
    }

    fn publish(&self) {
        for piece in frame(true) {
            self.sent.push(piece);
        }
    }

    /// What the transport does while it has room.
    fn poll(&mut self) -> Poll<Bytes> {
        let waker = Waker::from(Arc::clone(&self.writer));
        match Pin::new(&mut self.received).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(frame.into_data().expect("no end")),
            Poll::Ready(other) => panic!("the session is over: {other:?}"),
        }
    }

    /// All that waits, decoded.
    fn frames(&mut self) -> Vec<Answer> {
        let mut frames = Vec::new();
        while let Poll::Ready(piece) = self.poll() {
            frames.extend(answers(&piece));
        }
        frames
    }

    /// How many events wait.
    fn events(&mut self) -> usize {
        let count = |frame: &Answer| match frame {
            Answer::Events(events) => events.events.len(),
            other => panic!("not events: {other:?}"),
        };
        self.frames().iter().map(count).sum()
    }
}

/// The frames in a piece of a response body; a piece holds whole ones.
fn answers(piece: &Bytes) -> Vec<Answer> {
    let mut rest = &piece[..];
    let mut answers = Vec::new();
    while let Some((head, tail)) = rest.split_at_checked(5) {
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (message, after) = tail.split_at(len);
        answers.push(SessionResponse::decode(message).expect("a frame").frame.expect("a known frame"));
        rest = after;
    }
    answers
}

fn count_events(piece: &Bytes) -> usize {
    let count = |frame: Answer| if let Answer::Events(events) = frame { events.events.len() } else { 0 };
    answers(piece).into_iter().map(count).sum()
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
    message.encode(&mut bytes).expect("room");
    bytes.into()
}

fn spec() -> SubscriptionSpec {
    SubscriptionSpec { filters: vec!["orders.*.created".into()], ..SubscriptionSpec::default() }
}

/// A batch of events, with ids of the publisher's or without.
fn events(with_ids: bool) -> PublishRequest {
    let event = |number: usize| client::Event {
        id: if with_ids { format!("0123456789-{number:03}") } else { String::new() },
        topic: "orders.eu.created".into(),
        payload: Some(client::event::Payload::Data(vec![7; PAYLOAD_BYTES].into())),
        ..client::Event::default()
    };
    PublishRequest { events: (0..BATCH).map(event).collect(), precondition: None }
}

/// A command that publishes [`events`], in one piece.
fn frame(with_ids: bool) -> Vec<Bytes> {
    vec![framed(&SessionRequest { request_id: 0, command: Some(Command::Publish(events(with_ids))) })]
}

/// Publishes until nothing grows any more, then counts; gives allocations and bytes per delivered event.
fn per_delivery(frame: &[Bytes], mut subscribers: Vec<Session>, each: usize, hub: &InProcess) -> (f64, f64) {
    let publisher = hub.session();
    let mut total = AllocationInfo::default();
    for round in 0..2 * ROUNDS {
        let counted = hub.deliver(frame, &publisher, &mut subscribers, each);
        if round >= ROUNDS {
            total += counted;
        }
    }
    let deliveries = (ROUNDS * BATCH * each * subscribers.len()) as f64;
    (total.count_total as f64 / deliveries, total.bytes_total as f64 / deliveries)
}

/// Holds `measured` allocations and bytes against what they were when the bound was written.
#[track_caller]
fn check(measured: (f64, f64), known: (f64, f64)) {
    println!("allocations and bytes per event: {measured:.3?}");
    let (allocations, bytes) = measured;
    assert!(allocations <= known.0 * SLACK, "{allocations:.3} allocations per event, and were {}", known.0);
    assert!(bytes <= known.1 * SLACK, "{bytes:.1} bytes allocated per event, and were {}", known.1);
}

/// Its bytes and the shared header around them are one allocation each; the rest is shared by a batch. It is copied
/// twice, in and out, which is 350 bytes; most others are lists of a batch that grow, and the box in which its command is
/// applied.
#[test]
fn an_event_for_one_subscriber_is_two_allocations_and_two_copies() {
    let hub = InProcess::start();
    let subscribers = hub.subscribers(1);
    check(per_delivery(&frame(true), subscribers, 1, &hub), (2.18, 618.0));
}

/// The hub writes the id where it belongs.
#[test]
fn an_event_that_needs_an_id_costs_no_allocation_more() {
    let hub = InProcess::start();
    let subscribers = hub.subscribers(1);
    check(per_delivery(&frame(false), subscribers, 1, &hub), (2.18, 628.0));
}

/// A hundred deliveries share one event: what is left for each is its copy into the response. A batch of one session is
/// nine allocations.
#[test]
fn a_hundred_sessions_share_an_event_that_was_encoded_once() {
    let hub = InProcess::start();
    let subscribers = hub.subscribers(100);
    check(per_delivery(&frame(true), subscribers, 1, &hub), (0.111, 221.2));
}

#[test]
fn a_hundred_subscriptions_of_one_session_share_the_batches_of_its_writer() {
    let hub = InProcess::start();
    let subscribers = vec![hub.subscriber(100)];
    check(per_delivery(&frame(true), subscribers, 100, &hub), (0.039, 253.0));
}

/// The transport cuts where it likes; a message that lies across a cut is put together in a buffer that doubles.
#[test]
fn a_frame_in_pieces_is_put_together_in_one_more_buffer() {
    let hub = InProcess::start();
    let subscribers = hub.subscribers(1);
    let whole = frame(true).remove(0);
    let pieces: Vec<_> = whole.chunks(TRANSPORT_PIECE_BYTES).map(Bytes::copy_from_slice).collect();
    assert_eq!(pieces.len(), 2);
    check(per_delivery(&pieces, subscribers, 1, &hub), (2.22, 1033.0));
}

/// A call of `Publish` with a batch that nobody gets: decoding and checking alone, the call, and its answer.
#[test]
fn a_publish_that_nobody_wants_allocates_its_events_and_its_answer() {
    let hub = InProcess::start();
    let body = framed(&events(true));
    let call = || {
        let response = hub.call("HubService/Publish", Body::new(http_body_util::Full::new(body.clone())));
        let mut response = pin!(response.into_body());
        let mut pieces = 0;
        while let Poll::Ready(Some(piece)) = response.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            piece.expect("no error");
            pieces += 1;
        }
        assert_eq!(pieces, 2, "a message and trailers");
    };
    call();
    let counted = allocation_counter::measure(call);
    let each = |total: u64| total as f64 / BATCH as f64;
    check((each(counted.count_total), each(counted.bytes_total)), (2.50, 684.0));
}

/// A subscriber who waits is woken once for a whole batch, whether it has one subscription or many.
#[test]
fn a_batch_wakes_a_waiting_writer_once() {
    for subscriptions in [1, 100] {
        let hub = InProcess::start();
        let publisher = hub.session();
        let mut subscriber = hub.subscriber(subscriptions);
        subscriber.writer.take();
        for _ in 0..3 {
            publisher.publish();
            hub.settle();
            assert_eq!(subscriber.writer.take(), 1);
            assert_eq!(subscriber.events(), subscriptions * BATCH);
        }
    }
}

#[test]
fn a_batch_wakes_each_waiting_session_once() {
    let hub = InProcess::start();
    let publisher = hub.session();
    let subscribers = hub.subscribers(100);
    for subscriber in &subscribers {
        subscriber.writer.take();
    }
    publisher.publish();
    hub.settle();
    assert!(subscribers.iter().all(|subscriber| subscriber.writer.take() == 1));
}

#[test]
fn a_writer_that_is_awake_is_not_woken() {
    let hub = InProcess::start();
    let publisher = hub.session();
    let mut subscriber = hub.subscriber(1);
    publisher.publish();
    hub.settle();
    subscriber.writer.take();
    // It was woken and has not come yet.
    publisher.publish();
    hub.settle();
    // It has taken something and has not found the outbox empty.
    assert!(subscriber.poll().is_ready());
    publisher.publish();
    hub.settle();
    assert_eq!(subscriber.writer.take(), 0);
    assert!(subscriber.events() > 0);
}

#[test]
fn a_writer_is_not_woken_for_what_it_may_not_send() {
    let hub = InProcess::start();
    let publisher = hub.session();
    let mut subscriber = hub.session();
    let no_credit = Some(client::Credit { events: 0, bytes: 0 });
    let spec = SubscriptionSpec { credit: no_credit, ..spec() };
    subscriber.send(Command::Subscribe(Subscribe { subscription_id: 0, spec: Some(spec) }));
    hub.settle();
    assert!(matches!(subscriber.frames()[..], [Answer::Subscribed(_)]));
    subscriber.writer.take();
    publisher.publish();
    hub.settle();
    assert_eq!(subscriber.writer.take(), 0);
    assert!(subscriber.poll().is_pending());
}

/// The events of a piece of a stream are made together: where each stands (twice 56 bytes: found, then kept), a handle on it
/// that stays and one that is handed on (16 bytes each, in a list that grows). A read is eleven allocations.
#[test]
fn events_that_are_read_together_are_allocated_together() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let folder = std::env::temp_dir().join(format!("switchyard-counts-{:x}", fastrand::u64(..)));
    let engine = Embedded::open(&folder, &Options::default(), &Tasks::default(), &Arc::default(), &Arc::default())
        .expect("a new store");
    let draft = Draft { topic: "t", payload: Payload::Data(&[b'x'; PAYLOAD_BYTES]), ..Draft::default() };
    let event = draft.build(usize::MAX, &mut EventIds::new("")).expect("an event");
    let stream = runtime.block_on(async {
        let filters = vec![Filter::parse(b">").expect("a filter")];
        let settings = StreamSettings::new(StreamName::parse("s").expect("a name"), filters);
        let stream = engine.create_stream(StreamSettings { storage: Storage::Memory, ..settings }).await.expect("made");
        let append = Append { events: vec![event; BATCH], precondition: None };
        stream.append(append).await.expect("queued").await.expect("stored");
        stream
    });

    let limits = ReadLimits { events: BATCH, bytes: usize::MAX };
    let mut read = 0;
    let counted = allocation_counter::measure(|| {
        read = runtime.block_on(stream.read(0, &Arc::default(), limits)).expect("readable").events.len();
    });
    assert_eq!(read, BATCH);
    check((counted.count_total as f64 / BATCH as f64, counted.bytes_total as f64 / BATCH as f64), (0.11, 171.7));

    runtime.block_on(engine.close()).expect("closed");
    std::fs::remove_dir_all(folder).expect("removed");
}

/// Subscriptions to as many different filters.
const SUBSCRIPTIONS: usize = 1_000;

/// What each of many subscriptions makes the hub keep, and what it is counted with, in bytes.
fn per_subscription(hub: &InProcess, count: usize, wish: impl Fn(usize) -> SubscriptionSpec) -> (f64, f64) {
    let mut session = hub.session();
    let mut subscribe = |number| {
        session.send(Command::Subscribe(Subscribe { subscription_id: 0, spec: Some(wish(number)) }));
        // A group answers from a task of its own, which asks its store first.
        while !session.frames().iter().any(|frame| matches!(frame, Answer::Subscribed(_))) {
            hub.settle();
            std::thread::yield_now();
        }
    };
    // The definition of a stream counts, too.
    let empty = hub.memory.held_bytes(Use::Filters);
    // What the first one needs is for all.
    subscribe(count);
    let before = hub.memory.held_bytes(Use::Filters);
    let kept = allocation_counter::measure(|| (0..count).for_each(&mut subscribe)).bytes_current;
    let counted = hub.memory.held_bytes(Use::Filters) - before;
    drop(session);
    hub.settle();
    assert_eq!(hub.memory.held_bytes(Use::Filters), empty);
    (kept as f64 / count as f64, counted as f64 / count as f64)
}

/// What a subscription is counted with covers what is kept for it, and is not several times as much.
#[test]
fn a_subscription_is_counted_with_what_it_costs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let folder = std::env::temp_dir().join(format!("switchyard-counts-{:x}", fastrand::u64(..)));
    let (tasks, memory) = (Tasks::default(), Arc::<Memory>::default());
    let engine = Embedded::open(&folder, &Options::default(), &tasks, &Arc::default(), &memory);
    let engine: Arc<dyn Engine> = Arc::new(engine.expect("a new store"));
    let filters = vec![Filter::parse(b">").expect("a filter")];
    let settings = StreamSettings::new(StreamName::parse("s").expect("a name"), filters);
    runtime.block_on(engine.create_stream(settings)).expect("made");
    drop(runtime);
    // A hub for each: one keeps room for what it had.
    let hub = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let streams = Streams { engine: Arc::clone(&engine), tasks: tasks.clone() };
        let memory = Arc::clone(&memory);
        InProcess::start_with(runtime, Setup { memory, streams: Some(streams), ..Setup::default() })
    };
    let group = client::Group { stream: "s".into(), name: "g".into(), ..client::Group::default() };
    let create = framed(&client::CreateGroupRequest { group: Some(group), start: None });
    let created = hub().call("GroupService/CreateGroup", Body::new(http_body_util::Full::new(create)));
    assert!(!created.headers().contains_key("grpc-status"), "{created:?}");

    let short = |number: usize| SubscriptionSpec { filters: vec![format!("orders.n{number}.created")], ..spec() };
    let long = |number: usize| SubscriptionSpec {
        filters: (0..100).map(|part| format!("n{number}.p{part}.{}", "x".repeat(200))).collect(),
        ..spec()
    };
    let stored = |wish: SubscriptionSpec| SubscriptionSpec { stream: "s".into(), ..wish };
    let in_group = |number| SubscriptionSpec { group: format!("workers-{number}"), ..short(number) };
    let member = |_| SubscriptionSpec { group: "g".into(), ..stored(short(0)) };
    let kinds: [(&str, (f64, f64)); 6] = [
        ("short", per_subscription(&hub(), SUBSCRIPTIONS, short)),
        ("long", per_subscription(&hub(), SUBSCRIPTIONS / 50, long)),
        ("stored", per_subscription(&hub(), SUBSCRIPTIONS, |number| stored(short(number)))),
        ("long, stored", per_subscription(&hub(), SUBSCRIPTIONS / 50, |number| stored(long(number)))),
        ("in groups", per_subscription(&hub(), SUBSCRIPTIONS, in_group)),
        ("members", per_subscription(&hub(), SUBSCRIPTIONS / 10, member)),
    ];
    println!("bytes kept and counted: {kinds:.0?}");
    for (kind, (kept, counted)) in kinds {
        assert!(kept <= counted, "{kind}: {kept:.0} bytes are kept, and {counted:.0} counted");
        assert!(counted <= 4.0 * kept, "{kind}: {kept:.0} bytes are kept, and {counted:.0} counted");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

/// A publish in JSON is read into one piece of memory, and an event of text is written into the caller's.
#[test]
fn json_is_read_and_written_without_anything_in_between() {
    let message = json::message("switchyard.v1.SessionRequest").expect("a message");
    let text =
        r#"{"requestId":"7","publish":{"events":[{"topic":"a.b","text":"h\u00e9","time":"2026-11-28T10:00:00Z"}]}}"#;
    let read = || allocation_counter::measure(|| drop(message.decode(text.as_bytes()).expect("a request")));
    // What is made once is made.
    read();
    assert_eq!(read().count_total, 1);

    let draft = Draft { topic: "t", payload: Payload::Text("hello"), ..Draft::default() };
    let event = draft.build(usize::MAX, &mut EventIds::new("")).expect("an event");
    let mut out = Vec::with_capacity(1024);
    assert_eq!(allocation_counter::measure(|| json::put_event(&event, &mut out)).count_total, 0);
}

/// Whatever a client sends, what is kept while it is read is bounded by its length.
#[test]
fn json_becomes_no_larger_by_being_read() {
    const FRAME: usize = 4 * 1024 * 1024;
    let message = json::message("switchyard.v1.SessionRequest").expect("a message");
    for (before, over, after, most) in [
        (r#"{"publish":{"events":["#, "{},", "{}]}}", 1.1),
        (r#"{"publish":{"events":[{"topic":""#, "x", "\"}]}}", 1.1),
        (r#"{"publish":{"events":[{"data":""#, "QUJD", "\"}]}}", 1.1),
        (r#"{"acknowledge":{"sequences":["#, "-1,", "-1]}}", 3.1),
        (r#"{"acknowledge":{"sequences":["#, "0,", "0]}}", 1.1),
        (r#"{"update":{"filters":["#, "\"\",", "\"\"]}}", 1.1),
        (r#"{"hello":{"labels":{"#, "", "}}}", 4.0),
        ("", "[", "", 1.1),
    ] {
        let all = match over {
            "" => (0..400_000).map(|n| format!("\"{n}\":\"\"")).collect::<Vec<_>>().join(","),
            over => over.repeat(FRAME / over.len()),
        };
        let text = [before, &all, after].concat();
        let most = most * text.len() as f64;
        let counted = allocation_counter::measure(|| drop(message.decode(text.as_bytes())));
        assert!(counted.bytes_max as f64 <= most, "{before}: {} bytes of {}", counted.bytes_max, text.len());
    }
}
