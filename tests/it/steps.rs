//! Work that clients choose the length of is bounded in steps, and probes are answered whatever the workers do.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
};

use switchyard::proto::v1::{
    CreateStreamRequest, Stream, Subscribe, SubscriptionSpec, Unsubscribe, Update, session_request::Command as Wire,
    session_response::Frame, stream_service_client::StreamServiceClient,
};
use tonic::Code;

use crate::{
    harness::{Folder, Process, Session, channel, client, event, hub, hub_with, publish, soon, spec, until},
    witness::check_status,
};

/// Filters of each combination of `a` and `*`, and then what no topic has.
fn combinations(tokens: u32) -> Vec<String> {
    let token = |way: u32, n: u32| if way >> n & 1 == 1 { "*." } else { "a." };
    (0..1_u32 << tokens).map(|way| (0..tokens).map(|n| token(way, n)).collect::<String>() + "z").collect()
}

fn of(filters: &[String]) -> SubscriptionSpec {
    SubscriptionSpec { filters: filters.to_vec(), ..SubscriptionSpec::default() }
}

/// Nine tokens, two of them `*`, of which one is the last: one shape more with each number up to 7.
fn one_shape(n: usize) -> String {
    format!("{}*.{}*", "a.".repeat(n), "a.".repeat(7 - n))
}

/// What a command is answered; how far subscriptions are is told in between.
async fn answer(session: &mut Session, command: Wire) -> Frame {
    session.send(9, command).await;
    loop {
        match session.frame().await.frame.expect("a frame") {
            Frame::Progress(_) => {}
            answer => return answer,
        }
    }
}

async fn subscribe(session: &mut Session, subscription_id: i64, spec: SubscriptionSpec) -> Frame {
    answer(session, Wire::Subscribe(Subscribe { subscription_id, spec: Some(spec) })).await
}

async fn is_subscribed(session: &mut Session, id: i64, spec: SubscriptionSpec) {
    let answer = subscribe(session, id, spec).await;
    assert!(matches!(answer, Frame::Subscribed(_)), "{answer:?}");
}

fn check_refused(place: &str, status: Option<tonic_types::pb::Status>) {
    let field = format!("{place}filters");
    check_status(place, &status.expect("a status"), (Code::ResourceExhausted, "QUOTA_EXCEEDED", &field));
}

/// Subscribes to three shapes in a session that may have them, and to one too many.
async fn check_shapes(address: SocketAddr, stream: &str) {
    let mut session = Session::open(address).await;
    let spec = |filters: &[String]| SubscriptionSpec { stream: stream.to_owned(), ..of(filters) };
    for n in 0..3 {
        is_subscribed(&mut session, n as i64 + 1, spec(&[one_shape(n)])).await;
    }
    let Frame::Ended(ended) = subscribe(&mut session, 8, spec(&[one_shape(7)])).await else { panic!("one past") };
    check_refused("subscribe.spec.", ended.status);
    let simple = [combinations(7)[127].clone(), format!("{}*.b", "a.".repeat(20))];
    is_subscribed(&mut session, 8, spec(&simple)).await;
    let update = Update { subscription_id: 8, filters: vec![one_shape(7)], expression: String::new() };
    let Frame::Error(error) = answer(&mut session, Wire::Update(update)).await else { panic!("one past") };
    check_refused("update.", Some(error));
    let ended = answer(&mut session, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await;
    assert!(matches!(ended, Frame::Ended(_)), "{ended:?}");
    is_subscribed(&mut session, 9, spec(&[one_shape(7)])).await;
}

#[tokio::test]
async fn the_shapes_of_the_filters_of_a_session() {
    let hub = hub_with(|config| config.sessions.max_filter_shapes = 3).await;
    check_shapes(hub.address, "").await;
}

#[tokio::test]
async fn the_shapes_of_the_filters_of_a_hub() {
    let hub = hub_with(|config| config.sessions.hub_filter_shapes = 4).await;
    let mut other = Session::open(hub.address).await;
    other.subscribe(1, spec(&[&one_shape(6)])).await;
    check_shapes(hub.address, "").await;
}

#[tokio::test]
async fn the_shapes_of_filters_on_a_stream() {
    let folder = Folder::new();
    let hub = hub_with(|config| {
        config.data_dir = folder.path().into();
        config.sessions.max_filter_shapes = 3;
    })
    .await;
    let stream = Stream { name: "steps".into(), filters: vec!["a.>".into()], ..Stream::default() };
    let mut streams = StreamServiceClient::new(channel(hub.address).await);
    streams.create_stream(CreateStreamRequest { stream: Some(stream) }).await.expect("created");
    check_shapes(hub.address, "steps").await;
}

/// What the hub answers to a plain request, asked without a runtime.
fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a port");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_while_every_worker_is_busy() {
    let hub = hub().await;
    let (busy, all_busy) = mpsc::channel();
    let mut release = Vec::new();
    for _ in 0..2 {
        let (end, wait) = mpsc::channel::<()>();
        let busy = busy.clone();
        release.push(end);
        tokio::spawn(async move {
            busy.send(()).expect("the test waits");
            // Not a way to wait for anything: a worker that does nothing else meanwhile.
            wait.recv().ok();
        });
    }
    (0..2).for_each(|_| all_busy.recv().expect("busy"));
    for path in ["/livez", "/readyz", "/metrics", "/log"] {
        assert!(ask(hub.ops_address, path).starts_with("HTTP/1.1 200"), "{path}");
    }
    drop(release);
    soon("the end", hub.stop(std::time::Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_combines_wildcards_holds_up_neither_probes_nor_others() {
    let hub = hub().await;
    let mut attacker = Session::open(hub.address).await;
    let (mut accepted, mut refused) = (0, 0);
    for (id, some) in (1..).zip(combinations(12).chunks(256).chain(combinations(8).chunks(256))) {
        match subscribe(&mut attacker, id, of(some)).await {
            Frame::Subscribed(_) => accepted += 1,
            Frame::Ended(_) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(accepted >= 1 && refused >= 1, "{accepted} accepted, {refused} refused");
    let topic = ["a"; 12].join(".") + ".b";
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (address, topic) = (hub.address, topic.clone());
            tokio::spawn(async move {
                let events = (0..5_000).map(|_| event(&topic, "")).collect();
                client(address).await.publish(publish(events)).await.expect("published")
            })
        })
        .collect();
    let mut healthy = client(hub.address).await;
    let (mut probes, mut publishes) = (0, 0);
    while probes < 3 || calls.iter().any(|call| !call.is_finished()) {
        assert!(ask(hub.ops_address, "/livez").starts_with("HTTP/1.1 200"));
        probes += 1;
        soon("an answer", healthy.publish(publish(vec![event("ok.x", "")]))).await.expect("published");
        publishes += 1;
    }
    assert_eq!(probes, publishes);
    for call in calls {
        assert_eq!(call.await.expect("done").into_inner().results.len(), 5_000);
    }
}

#[tokio::test]
async fn idle_connections_to_the_port_of_probes_do_not_keep_probes_out() {
    let process = Process::start_with_files(128, &[]);
    let held: Vec<TcpStream> = [process.address; 300]
        .into_iter()
        .chain([process.ops_address; 200])
        .map(|address| TcpStream::connect(address).expect("the system accepts"))
        .collect();
    until("a probe is answered", async || answers(process.ops_address)).await;
    drop(held);
}

fn answers(address: SocketAddr) -> bool {
    let mut answer = String::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    asked.is_ok() && answer.starts_with("HTTP/1.1 200")
}
