//! What every edge must do, whatever it speaks: run on gRPC, and on an edge that is made for this.

mod line;
mod poll;
mod post;
mod web;
mod ws;

use std::{path::PathBuf, sync::Arc, time::Duration};

use switchyard::{
    config::Config,
    engine::Engine,
    memory::Memory,
    net,
    proto::v1::{self, session_request::Command, session_response::Frame},
    server::{self, Edge, EdgePort, Ground, Server},
    tasks::Tasks,
    telemetry::Metrics,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::oneshot,
};
use tonic::Request;

use crate::{
    auth_harness::{Guarded, bear, token},
    harness::{self, Folder, client, event, metric, publish, soon, spec, until},
    web::any_port,
};
use line::Line;
use poll::Polls;
use post::Posts;
use web::Sse;
use ws::Ws;

/// Where a client of an edge connects.
#[derive(Clone)]
struct Addresses {
    grpc: std::net::SocketAddr,
    web: std::net::SocketAddr,
    socket: PathBuf,
}

/// A client of an edge.
trait Client: Sized {
    /// Opens a session, or says why the hub refuses it.
    async fn open(hub: &Addresses, token: Option<&str>) -> Result<Self, String>;
    async fn subscribe(&mut self, filter: &str);
    async fn publish(&mut self, topic: &str, text: &str);
    /// The text of the next event, or how the session ended.
    async fn next(&mut self) -> Result<String, String>;
}

struct Grpc(harness::Session);

impl Client for Grpc {
    async fn open(hub: &Addresses, token: Option<&str>) -> Result<Self, String> {
        let (commands, receiver) = tokio::sync::mpsc::channel(64);
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        if let Some(token) = token {
            bear(&mut request, token);
        }
        let mut hub = client(hub.grpc).await;
        let frames = soon("headers", hub.session(request)).await.map_err(|status| status.message().to_owned())?;
        Ok(Self(harness::Session { commands: Some(commands), frames: frames.into_inner(), id: String::new() }))
    }

    async fn subscribe(&mut self, filter: &str) {
        let subscribe = v1::Subscribe { subscription_id: 1, spec: Some(spec(&[filter])) };
        self.0.send(1, Command::Subscribe(subscribe)).await;
        while !matches!(self.0.frame().await.frame, Some(Frame::Subscribed(_))) {}
    }

    async fn publish(&mut self, topic: &str, text: &str) {
        self.0.send(2, Command::Publish(publish(vec![event(topic, text)]))).await;
    }

    async fn next(&mut self) -> Result<String, String> {
        loop {
            match soon("a frame", self.0.frames.message()).await {
                Ok(Some(frame)) => {
                    if let Some(Frame::Events(events)) = frame.frame {
                        return Ok(harness::texts(&events).concat());
                    }
                }
                Ok(None) => return Err("ended".to_owned()),
                Err(status) => return Err(status.message().to_owned()),
            }
        }
    }
}

struct Lines(BufReader<UnixStream>);

impl Lines {
    async fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).await.expect("sent");
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        soon("a line", self.0.read_line(&mut line)).await.expect("a line");
        line.trim_end().to_owned()
    }
}

impl Client for Lines {
    async fn open(hub: &Addresses, token: Option<&str>) -> Result<Self, String> {
        let mut client = Self(BufReader::new(UnixStream::connect(&hub.socket).await.expect("a socket")));
        client.say(&token.map_or("HELLO".to_owned(), |token| format!("AUTH {token}"))).await;
        // A refusal is the last line; a session answers its first command.
        client.say("SUB open.none").await;
        match client.line().await {
            line if line == "SUBSCRIBED" => Ok(client),
            line => Err(line.strip_prefix("REFUSED ").expect("a refusal").to_owned()),
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        self.say(&format!("SUB {filter}")).await;
        assert_eq!(self.line().await, "SUBSCRIBED");
    }

    async fn publish(&mut self, topic: &str, text: &str) {
        self.say(&format!("PUB {topic} {text}")).await;
    }

    async fn next(&mut self) -> Result<String, String> {
        loop {
            let line = self.line().await;
            match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
                ["EVENT", _, text] => return Ok(text.to_owned()),
                ["BYE", ..] | [""] => return Err(line),
                _ => {}
            }
        }
    }
}

/// Starts a hub with both edges. Its store opens when the gate does.
async fn start(
    mut config: Config,
    gate: Option<oneshot::Receiver<()>>,
) -> (Addresses, tokio::task::JoinHandle<Server>) {
    let socket = PathBuf::from(format!("/tmp/switchyard-{:x}.sock", fastrand::u64(..)));
    let (tasks, metrics) = (Tasks::default(), Arc::new(Metrics::default()));
    let auth = switchyard::auth::Auth::open(&config.auth, &tasks, &metrics).await.expect("auth");
    let clients = net::listen(&config.listen, &config.connections).await.expect("a port");
    let listen = format!("unix:{}", socket.display()).parse().expect("an address");
    let (_, lines) = net::listen(&listen, &config.connections).await.expect("a socket");
    let of_lines = tasks.clone();
    let port: EdgePort =
        Box::new(move |parts| Box::pin(parts.acceptor.run(lines, Line { door: parts.door, tasks: of_lines })));
    let memory = Arc::new(Memory::new(&config.memory));
    config.web.listen = any_port();
    let edge_of_web = server::web_edge(&config, &tasks, &memory).await.expect("a port").expect("a web listener");
    let web_address = edge_of_web.web.as_ref().expect("an address").tcp();
    let addresses = Addresses { grpc: clients.0.tcp(), web: web_address, socket };
    let (ops_listen, options) = (config.ops_listen.clone(), config.connections.clone());
    let ground = Ground {
        clients,
        edges: vec![Edge { web: None, port }, edge_of_web],
        operators: Box::pin(async move { net::listen(&ops_listen, &options).await }),
        engine: Box::pin(async move {
            if let Some(gate) = gate {
                gate.await?;
            }
            Ok(None::<Arc<dyn Engine>>)
        }),
        auth,
        tls: None,
        memory,
        metrics,
        tasks,
    };
    let starting = tokio::spawn(async { server::start_on(config, ground).await.expect("a hub starts") });
    (addresses, starting)
}

async fn hub(config: Config) -> (Addresses, Server) {
    let (addresses, starting) = start(config, None).await;
    (addresses, starting.await.expect("it starts"))
}

async fn refused_without_a_credential<C: Client>() {
    let folder = Folder::new();
    let config = Config { data_dir: PathBuf::new(), ..Guarded::config(&folder) };
    let (at, _server) = hub(config).await;
    for bad in [None, Some("no-such-token")] {
        let refusal = C::open(&at, bad).await.err().expect("refused");
        assert!(refusal.contains("credential"), "{refusal}");
    }
    let mut reader = C::open(&at, Some(&token("ann", &["reader"]))).await.expect("a session");
    reader.subscribe("open.>").await;
    // What it may not publish is refused, and the session goes on.
    reader.publish("closed.a", "secret").await;
    reader.publish("open.a", "public").await;
    assert_eq!(reader.next().await, Ok("public".to_owned()));
}

async fn refused_while_recovering<C: Client>() {
    let (gate, opened) = oneshot::channel();
    let (at, starting) = start(harness::config(), Some(opened)).await;
    let refusal = C::open(&at, None).await.err().expect("refused");
    assert!(refusal.contains("recovering"), "{refusal}");
    gate.send(()).expect("it waits");
    let _server = starting.await.expect("it starts");
    assert!(C::open(&at, None).await.is_ok());
}

async fn drained_in_order<C: Client>() {
    let mut config = harness::config();
    config.drain.spread_ms = 0;
    let (at, server) = hub(config).await;
    let mut session = C::open(&at, None).await.expect("a session");
    session.subscribe("a").await;
    client(at.grpc).await.publish(publish(vec![event("a", "last words")])).await.expect("published");
    let stopping = tokio::spawn(server.stop(Duration::ZERO));
    assert_eq!(session.next().await, Ok("last words".to_owned()));
    let end = session.next().await.expect_err("an end");
    assert!(end.contains("shutting down"), "{end}");
    soon("it stops", stopping).await.expect("stopped");
}

async fn cut_when_it_takes_nothing<C: Client>() {
    let mut config = harness::config();
    config.sessions.write_timeout_ms = 200;
    config.sessions.hub_queue_bytes = 64 * 1024;
    let (at, server) = hub(config).await;
    let mut session = C::open(&at, None).await.expect("a session");
    session.subscribe("flood").await;
    let mut publisher = client(at.grpc).await;
    until("it is cut", async || {
        let flood = vec![event("flood", "x".repeat(4 * 1024)); 64];
        publisher.publish(publish(flood)).await.expect("published");
        metric(&server, "switchyard_streams_cut_total").await == 1
    })
    .await;
    until("nothing of it is left", async || metric(&server, "switchyard_open_sessions").await == 0).await;
}

async fn counted_per_connection<C: Client>() {
    counted::<C>(harness::config(), 2).await;
}

/// The same where what comes is no session.
async fn counted_without_sessions<C: Client>() {
    counted::<C>(harness::config(), 0).await;
}

/// Two clients have as many sessions, and as many connections as there may be.
async fn counted<C: Client>(mut config: Config, sessions: u64) {
    config.connections.max = 2;
    let (at, server) = hub(config).await;
    let open = |n: u64| {
        let server = &server;
        async move {
            until("counted", async || metric(server, "switchyard_open_connections").await == n).await;
        }
    };
    let first = C::open(&at, None).await.expect("a session");
    let second = C::open(&at, None).await.expect("at the limit");
    open(2).await;
    assert_eq!(metric(&server, "switchyard_open_sessions").await, sessions);
    drop((first, second));
    open(0).await;
    until("sessions go with them", async || metric(&server, "switchyard_open_sessions").await == 0).await;
}

/// What every edge does; and in its own way, where it has no connection at length.
macro_rules! suite {
    ($edge:ident, $client:ty) => {
        suite!(
            $edge,
            $client,
            drained_in_order::<$client>,
            cut_when_it_takes_nothing::<$client>,
            counted_per_connection::<$client>
        );
    };
    ($edge:ident, $client:ty, $drained:expr, $cut:expr, $counted:expr) => {
        mod $edge {
            use super::*;

            #[tokio::test]
            async fn is_refused_without_a_credential() {
                refused_without_a_credential::<$client>().await;
            }

            #[tokio::test]
            async fn is_refused_while_recovering() {
                refused_while_recovering::<$client>().await;
            }

            #[tokio::test]
            async fn is_drained_in_order() {
                $drained().await;
            }

            #[tokio::test]
            async fn is_cut_when_it_takes_nothing() {
                $cut().await;
            }

            #[tokio::test]
            async fn is_counted_per_connection() {
                $counted().await;
            }
        }
    };
}

suite!(grpc, Grpc);
suite!(line_protocol, Lines);
suite!(events_over_http, Sse);
suite!(websocket_in_protobuf, Ws<false>);
suite!(websocket_in_json, Ws<true>);
suite!(polls, Polls, poll::answered_when_it_drains, poll::over_when_nobody_polls, poll::counted_beside_connections);
suite!(
    publish_over_http,
    Posts,
    post::answered_when_it_drains,
    post::cut_when_it_sends_nothing,
    counted_without_sessions::<Posts>
);

#[test]
fn an_edge_is_small() {
    let lines = include_str!("line.rs").lines().count();
    assert!(lines < 150, "{lines} lines");
}
