//! The conformance suite of Connect (`connectconformance`), on the bridges of the web listener.
//!
//! The suite starts this program again, with `serve`, as the server that it tests: a hub with one more port, on which
//! the service of the suite is behind the bridges, so that requests come in as they do in production. The suite and
//! its protos are installed by `make tools`; neither is in this repository.

#![allow(
    unreachable_pub,
    clippy::panic,
    clippy::disallowed_methods,
    // Lengths of messages, which are limited.
    clippy::cast_possible_truncation,
)]

mod messages;
mod service;
mod wire;

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use http::Request;
use prost::Message as _;
use prost_reflect::Value;
use switchyard::{
    config::Config,
    edge::web::Bridge,
    engine::Engine,
    memory::Memory,
    net::{self, Http, Inbound},
    server::{self, Edge, EdgeParts, Ground},
    tasks::Tasks,
    telemetry::Metrics,
};
use tonic::body::Body;

use messages::{Fields, Protos};
use service::Service;

/// Without a limit of the suite's, that of a frame of the hub.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// How long a message may take to come.
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = root.join(".tools/connectconformance/proto");
    if std::env::args().nth(1).as_deref() == Some("serve") {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(serve(&protos));
        return ExitCode::SUCCESS;
    }
    let suite = root.join(".tools/bin/connectconformance");
    assert!(suite.exists() && protos.exists(), "connectconformance is missing: run `make tools`");
    let status = Command::new(suite)
        .args(["--mode", "server", "--conf"])
        .arg(root.join("tests/connect/suite.yaml"))
        // Further flags, such as `--trace` or `--run '**/some/case'`.
        .args(std::env::var("CONNECTCONFORMANCE_FLAGS").unwrap_or_default().split_whitespace())
        .arg("--")
        .arg(std::env::current_exe().expect("this program"))
        .arg("serve")
        .status()
        .expect("the suite runs");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Serves until the suite kills it.
async fn serve(protos: &Path) {
    let protos = Protos::compile(protos);
    let asked = protos.decode("ServerCompatRequest", &read()).expect("a request");
    let limit = asked.number("message_receive_limit") as usize;
    let service = Service { protos: protos.clone(), limit: if limit == 0 { MAX_MESSAGE_BYTES } else { limit } };
    let mut config = Config { data_dir: PathBuf::new(), ..Config::default() };
    config.listen = "127.0.0.1:0".parse().expect("an address");
    config.ops_listen = "127.0.0.1:0".parse().expect("an address");
    let (tasks, memory) = (Tasks::default(), Arc::<Memory>::default());
    let (bound, listener) = net::listen(&config.listen, &config.connections).await.expect("a port");
    let calls = protos.calls();
    let (of_bridge, of_web) = (Arc::clone(&memory), tasks.clone());
    let port = Box::new(move |EdgeParts { acceptor, .. }: EdgeParts| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let inner = tower::service_fn(move |request: Request<axum::body::Body>| service.clone().call(request));
        let bridge = Bridge::new(inner, calls, of_bridge, of_web.clone(), TIMEOUT);
        let handler = tower::service_fn(move |request: Request<Inbound>| {
            let bridge = bridge.clone();
            async move { Ok(bridge.serve(request.map(Body::new)).await) }
        });
        let http = Http::new(handler, Arc::clone(&acceptor.options), of_web).at_length();
        Box::pin(acceptor.run(listener, http))
    });
    let (ops_listen, options) = (config.ops_listen.clone(), config.connections.clone());
    let ground = Ground {
        clients: net::listen(&config.listen, &config.connections).await.expect("a port"),
        edges: vec![Edge { web: Some(bound), port }],
        operators: Box::pin(async move { net::listen(&ops_listen, &options).await }),
        engine: Box::pin(async { Ok(None::<Arc<dyn Engine>>) }),
        auth: None,
        tls: None,
        metrics: Arc::new(Metrics::default()),
        memory,
        tasks,
    };
    let server = server::start_on(config, ground).await.expect("a hub starts");
    let mut started = protos.make("ServerCompatResponse");
    started.set_field_by_name("host", Value::String("127.0.0.1".to_owned()));
    started.set_field_by_name("port", Value::U32(server.web_address.expect("a port").port().into()));
    write(&started.encode_to_vec());
    std::future::pending::<()>().await;
}

/// A message of the suite: its length in four bytes comes first.
fn read() -> Vec<u8> {
    let mut len = [0; 4];
    std::io::stdin().read_exact(&mut len).expect("a length");
    let mut message = vec![0; u32::from_be_bytes(len) as usize];
    std::io::stdin().read_exact(&mut message).expect("a message");
    message
}

fn write(message: &[u8]) {
    let mut out = std::io::stdout();
    out.write_all(&(message.len() as u32).to_be_bytes()).expect("written");
    out.write_all(message).expect("written");
    out.flush().expect("written");
}
