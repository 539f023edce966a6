//! Starting up: until the store is open everybody is answered, if only that it is recovering.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use switchyard::{
    config::Config,
    edge::grpc::CALLS,
    engine::{Embedded, Engine},
    net,
    server::{self, Ground, Server},
    tasks::Tasks,
    telemetry::Metrics,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::{
    harness::{channel, config, exit, http_get, program, reason_of_call, signal, soon, until},
    http2::Http2,
    stored::{Folder, all, create, hub_on, numbered, stop, store, stream},
};

/// A hub whose store is not opened before it is let.
struct Held {
    address: SocketAddr,
    ops_address: SocketAddr,
    gate: oneshot::Sender<()>,
    starting: JoinHandle<anyhow::Result<Server>>,
}

async fn held(folder: &Folder) -> Held {
    let config = Config { data_dir: folder.path().into(), ..config() };
    let clients = net::listen(&config.listen, &config.connections).await.expect("a port");
    let address = clients.0.tcp();
    let (ops_listen, of_connections) = (config.ops_listen.clone(), config.connections.clone());
    let (tell, told) = oneshot::channel();
    let operators = Box::pin(async move {
        let operators = net::listen(&ops_listen, &of_connections).await?;
        tell.send(operators.0.tcp()).expect("the test waits for it");
        Ok(operators)
    });
    let (gate, opened) = oneshot::channel();
    let (tasks, metrics) = (Tasks::default(), Arc::new(Metrics::default()));
    let (of_store, counted, options, path) =
        (tasks.clone(), Arc::clone(&metrics), config.engine.clone(), config.data_dir.clone());
    let (memory, of_hub) = (Arc::default(), Arc::default());
    let engine = Box::pin(async move {
        opened.await?;
        let engine = Embedded::open(&path, &options, &of_store, &counted, &memory)?;
        Ok(Some(Arc::new(engine) as Arc<dyn Engine>))
    });
    let ground =
        Ground { clients, edges: Vec::new(), operators, engine, auth: None, tls: None, metrics, memory: of_hub, tasks };
    let starting = tokio::spawn(server::start_on(config, ground));
    Held { address, ops_address: told.await.expect("it listens"), gate, starting }
}

async fn status_of(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel.clone()).check(request).await.expect("an answer").into_inner().status()
}

/// How a call fails.
async fn failure(channel: &Channel, path: &'static str) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    soon("a connection", grpc.ready()).await.expect("ready");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    let answer = soon("an answer", grpc.server_streaming(Request::new(()), path, codec)).await;
    answer.map(|_| ()).expect_err("nobody is served yet")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_the_store_is_open_every_call_is_told_to_try_again() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..100)).await;
    stop(hub).await;

    let hub = held(&folder).await;
    let (clients, operators) = (channel(hub.address).await, channel(hub.ops_address).await);
    for port in [&clients, &operators] {
        assert_eq!(status_of(port, "liveness").await, ServingStatus::Serving);
        for service in ["", "readiness", "switchyard.v1.HubService"] {
            assert_eq!(status_of(port, service).await, ServingStatus::NotServing, "{service:?}");
        }
    }
    assert!(http_get(hub.ops_address, "/livez").await.starts_with("HTTP/1.1 200"));
    let ready = http_get(hub.ops_address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("starting\n"), "{ready}");
    assert!(http_get(hub.ops_address, "/metrics").await.contains("switchyard_store_writable 0"));
    let by_http2 = http::Request::get("http://hub/readyz").body(Vec::new()).expect("a request");
    assert_eq!(Http2::connect(hub.address).await.send(by_http2).await.0.status, 503);
    assert_eq!(failure(&clients, "/nothing.v1.Nothing/Nothing").await.code(), Code::Unavailable);
    let calls = CALLS.iter().map(|(call, _)| *call).filter(|call| !call.starts_with("/grpc.health"));
    for call in calls {
        let status = failure(&clients, call).await;
        assert_eq!((status.code(), &*reason_of_call(&status)), (Code::Unavailable, "ENGINE_RECOVERING"), "{call}");
        assert!(status.get_details_retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{call}");
    }
    let readiness = HealthCheckRequest { service: "readiness".into() };
    let mut watch = HealthClient::new(clients.clone()).watch(readiness).await.expect("a stream").into_inner();
    let mut next = async || soon("a status", watch.next()).await.expect("open").expect("a status").status();
    assert_eq!(next().await, ServingStatus::NotServing);

    hub.gate.send(()).expect("it waits");
    let server = soon("the start", hub.starting).await.expect("no panic").expect("it starts");
    assert_eq!(next().await, ServingStatus::Serving, "the call that was there before goes on");
    assert_eq!(status_of(&clients, "readiness").await, ServingStatus::Serving, "so does the connection");
    assert_eq!(all(server.address, "s").await.len(), 100);
    drop(watch);
    server.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_whose_store_does_not_open_leaves_its_ports() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("streams.redb"), "this is no store, and never was one").expect("written");
    let hub = held(&folder).await;
    let clients = channel(hub.address).await;
    hub.gate.send(()).expect("it waits");
    let error = soon("the end", hub.starting).await.expect("no panic").expect_err("it does not start");
    assert!(error.to_string().contains("is damaged"), "{error}");
    for address in [hub.address, hub.ops_address] {
        until("nobody listens", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    }
    // A call that was on its way when the connection ended is lost with it.
    until("clients find no hub", async || failure(&clients, CALLS[0].0).await.code() == Code::Unavailable).await;
}

/// The real hub, and what it logs.
struct Starting {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Starting {
    fn new(folder: &Folder) -> Self {
        let mut child = program()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--ops-listen",
                "127.0.0.1:0",
                "--web-listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ])
            .args(["--data-dir", folder.text()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, log }
    }

    /// The next line of the log that says this.
    fn line(&mut self, message: &str) -> serde_json::Value {
        let mut told = String::new();
        loop {
            let before = told.len();
            assert!(self.log.read_line(&mut told).expect("a log") > 0, "no {message:?} in {told}");
            let line: serde_json::Value = serde_json::from_str(&told[before..]).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_how_far_the_store_is_read() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    for name in ["s", "t"] {
        create(hub.address, stream(name, &[&format!("{name}.>")])).await;
        store(hub.address, numbered(&format!("{name}.x"), 0..500)).await;
    }
    stop(hub).await;
    let mut hub = Starting::new(&folder);
    let begins = hub.line("reading the store");
    assert_eq!((&begins["events"], &begins["streams"], &begins["of_streams"]), (&0.into(), &0.into(), &2.into()));
    assert!(begins["of_bytes"].as_u64().is_some_and(|bytes| bytes > 10_000), "{begins}");
    let open = hub.line("the store is open");
    assert_eq!((&open["streams"], &open["events"]), (&2.into(), &1000.into()));
    hub.line("serving");
}

#[test]
fn a_hub_that_is_asked_to_stop_while_it_recovers_does_so_at_once() {
    let folder = Folder::new();
    // Whoever opens this to write waits until somebody reads it: so the store is not open before the test ends.
    let made = Command::new("mkfifo").arg(folder.path().join("streams.reserve.new")).status();
    assert!(made.expect("mkfifo runs").success());
    for name in ["TERM", "INT"] {
        let mut hub = Starting::new(&folder);
        let listening = hub.line("listening");
        let ops: SocketAddr = listening["ops_address"].as_str().and_then(|at| at.parse().ok()).expect("an address");
        tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
            assert!(http_get(ops, "/readyz").await.starts_with("HTTP/1.1 503"));
            assert!(http_get(ops, "/livez").await.starts_with("HTTP/1.1 200"));
        });
        signal(hub.child.id(), name);
        assert!(exit(&mut hub.child, Duration::from_secs(20)).success(), "{name}");
    }
}
