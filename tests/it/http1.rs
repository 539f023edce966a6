//! A port where HTTP/1 is served at length, with a handler of this test's own: connections between requests, limits of time,
//! cuts, and other protocols after an upgrade or an extended CONNECT.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use switchyard::{
    config::Config,
    cut::Cut,
    engine::Engine,
    memory::Memory,
    net::{self, AtItsOwnPace, Connection, Http, Inbound, Takeover, TunnelProtocol, Upgraded},
    server::{self, Edge, EdgeParts, EdgePort, Ground, Server},
    tasks::Tasks,
    telemetry::Metrics,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Notify,
};
use tokio_stream::StreamExt;

use crate::{
    authority::{Authority, Secret, VERSIONS, tls_stream},
    connections::counted,
    harness::{config, metric, pause, soon, until},
};

/// What the handler shares with its test.
#[derive(Clone, Default)]
struct Handler {
    /// Of all requests, where they have one.
    cuts: Arc<Mutex<Vec<Arc<Cut>>>>,
    /// Lets requests to `/slow` go on, one at a time.
    go: Arc<Notify>,
    /// Held by every body that has no end of its own.
    endless: Arc<()>,
}

impl Handler {
    async fn serve(self, mut request: Request<Inbound>) -> Result<Response<Body>, Infallible> {
        let cut = request.extensions().get::<Arc<Cut>>().cloned();
        let connection = request.extensions().get::<Arc<Connection>>().cloned().expect("a connection");
        let mut response = Response::builder().header("x-has-cut", cut.is_some().to_string());
        self.cuts.lock().expect("no panic").extend(cut);
        if let Some(protocol) = request.extensions_mut().remove::<TunnelProtocol>() {
            response = response.header("x-protocol", protocol.name());
        }
        let path = request.uri().path().to_owned();
        let body = match &*path {
            "/echo" => Body::new(request.into_body()),
            "/silent" => {
                let endless = Arc::clone(&self.endless);
                let first = tokio_stream::once(Ok::<_, Infallible>(Bytes::from_static(b"first")));
                Body::from_stream(first.chain(tokio_stream::pending()).map(move |it| (it, &endless).0))
            }
            "/flood" | "/flood/at-its-own-pace" => {
                let endless = Arc::clone(&self.endless);
                let piece = Bytes::from(vec![b'x'; 64 * 1024]);
                let pieces = std::iter::repeat_with(move || Ok::<_, Infallible>((piece.clone(), &endless).0));
                Body::from_stream(tokio_stream::iter(pieces))
            }
            "/slow" => {
                self.go.notified().await;
                Body::from("done")
            }
            "/upgrade" | "/upgrade/stay" => {
                let stays = path.ends_with("stay");
                response = response.status(StatusCode::SWITCHING_PROTOCOLS).header("upgrade", "echo");
                response = response.header("connection", "upgrade");
                response = response.extension(Takeover::new(move |socket| echo(socket, connection, stays)));
                Body::empty()
            }
            _ => Body::from("hello"),
        };
        if path == "/flood/at-its-own-pace" {
            response = response.extension(AtItsOwnPace);
        }
        Ok(response.body(body).expect("a response"))
    }
}

/// Says what the client says, until the connection leaves, if it does not stay.
async fn echo(mut socket: Upgraded, connection: Arc<Connection>, stays: bool) -> Result<(), net::ServeError> {
    let mut said = [0; 1024];
    loop {
        let leaving = poll_fn(|_| if connection.is_leaving() && !stays { Poll::Ready(()) } else { Poll::Pending });
        let bytes = tokio::select! {
            () = leaving => 0,
            read = socket.read(&mut said) => read.map_err(net::ServeError::of_client)?,
        };
        if bytes == 0 {
            socket.write_all(b"bye").await.map_err(net::ServeError::of_client)?;
            return socket.shutdown().await.map_err(net::ServeError::of_client);
        }
        socket.write_all(&said[..bytes]).await.map_err(net::ServeError::of_client)?;
    }
}

/// A hub with such a port beside its own.
struct Hub {
    address: SocketAddr,
    server: Server,
    handler: Handler,
}

async fn hub(change: impl FnOnce(&mut Config)) -> Hub {
    hub_where(change, true).await
}

async fn hub_where(change: impl FnOnce(&mut Config), at_length: bool) -> Hub {
    let mut config = config();
    config.drain.spread_ms = 0;
    change(&mut config);
    let (tasks, metrics, handler) = (Tasks::default(), Arc::new(Metrics::default()), Handler::default());
    let clients = net::listen(&config.listen, &config.connections).await.expect("a port");
    let (bound, listener) = net::listen(&config.listen, &config.connections).await.expect("a port");
    let (of_edge, of_port) = (handler.clone(), tasks.clone());
    let port: EdgePort = Box::new(move |EdgeParts { acceptor, .. }| {
        let service = tower::service_fn(move |request| of_edge.clone().serve(request));
        let http = Http::new(service, Arc::clone(&acceptor.options), of_port);
        Box::pin(acceptor.run(listener, if at_length { http.at_length() } else { http }))
    });
    let (ops_listen, options) = (config.ops_listen.clone(), config.connections.clone());
    let ground = Ground {
        clients,
        edges: vec![Edge { web: None, port }],
        operators: Box::pin(async move { net::listen(&ops_listen, &options).await }),
        engine: Box::pin(async { Ok(None::<Arc<dyn Engine>>) }),
        auth: None,
        tls: net::Tls::load(&config.tls, &metrics).expect("certificates"),
        memory: Arc::new(Memory::new(&config.memory)),
        metrics,
        tasks,
    };
    let server = server::start_on(config, ground).await.expect("a hub starts");
    Hub { address: bound.tcp(), server, handler }
}

impl Hub {
    async fn client(&self) -> Client<TcpStream> {
        Client(BufReader::new(TcpStream::connect(self.address).await.expect("a port")))
    }

    async fn count(&self, name: &str) -> u64 {
        counted(self.server.ops_address, &format!("{name} ")).await
    }

    /// Waits until no connection is open, and nothing is left of what was served.
    async fn is_empty(&self) {
        until("no connection", async || metric(&self.server, "switchyard_open_connections").await == 0).await;
        assert_eq!(Arc::strong_count(&self.handler.endless), 2, "bodies are dropped");
    }
}

struct Client<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn say(&mut self, text: impl AsRef<[u8]>) {
        soon("room to send", self.0.write_all(text.as_ref())).await.expect("sent");
    }

    /// Asks for a path by GET.
    async fn ask(&mut self, path: &str, headers: &str) {
        self.say(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await;
    }

    /// Asks for an upgrade, and says more at once.
    async fn upgrade(&mut self, path: &str, more: &str) {
        self.say(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n{more}")).await;
    }

    /// The head of a response.
    async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(soon("a line", self.0.read_line(&mut head)).await.expect("a line") > 0, "an end after {head:?}");
        }
        head.to_ascii_lowercase()
    }

    async fn bytes(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        soon("bytes", self.0.read_exact(&mut bytes)).await.expect("bytes");
        String::from_utf8(bytes).expect("text")
    }

    /// Says something, which is said back.
    async fn echo(&mut self, text: &str) {
        self.say(text).await;
        assert_eq!(self.bytes(text.len()).await, text);
    }

    /// A response with a length: its head and body.
    async fn response(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = self.bytes(length.expect("a length")).await;
        (head, body)
    }

    async fn hello(&mut self) {
        self.ask("/hello", "").await;
        let (head, body) = self.response().await;
        assert_eq!((head.starts_with("http/1.1 200 "), &*body), (true, "hello"), "{head}");
    }

    /// What is sent before the hub closes the connection, in whatever way.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        soon("an end", self.0.read_to_end(&mut rest)).await.ok();
        String::from_utf8(rest).expect("text")
    }
}

#[tokio::test]
async fn a_connection_between_requests_outlives_the_time_for_a_head_and_is_closed_after_its_own() {
    let hub = hub(|config| {
        config.connections.handshake_timeout_ms = 200;
        config.connections.http1_idle_timeout_ms = 1_500;
    })
    .await;
    let mut client = hub.client().await;
    client.hello().await;
    pause(Duration::from_millis(600)).await;
    let start = Instant::now();
    client.hello().await;
    assert_eq!(client.rest().await, "");
    assert!(start.elapsed() >= Duration::from_millis(1_500), "{:?}", start.elapsed());
    assert_eq!(hub.count("switchyard_connections_ended_total{reason=\"idle\"}").await, 1);
    hub.is_empty().await;
}

#[tokio::test]
async fn the_shorter_of_the_times_to_be_idle_holds() {
    let hub = hub(|config| config.connections.idle_timeout_ms = 200).await;
    let mut client = hub.client().await;
    client.hello().await;
    assert_eq!(client.rest().await, "");
    assert_eq!(hub.count("switchyard_connections_ended_total{reason=\"idle\"}").await, 1);
}

#[tokio::test]
async fn a_request_that_goes_on_is_not_idle() {
    let hub = hub(|config| {
        config.connections.http1_idle_timeout_ms = 200;
        config.connections.handshake_timeout_ms = 200;
        config.connections.response_timeout_ms = 200;
    })
    .await;
    let (mut slow, mut silent) = (hub.client().await, hub.client().await);
    slow.ask("/slow", "").await;
    silent.ask("/silent", "").await;
    assert!(silent.head().await.contains("transfer-encoding: chunked"));
    assert_eq!(silent.bytes(10).await, "5\r\nfirst\r\n");
    pause(Duration::from_millis(800)).await;
    hub.handler.go.notify_one();
    assert_eq!(slow.response().await.1, "done");
    assert_eq!(slow.rest().await, "", "now it is");
    until("only the silent one is open", async || metric(&hub.server, "switchyard_open_connections").await == 1).await;
    drop(silent);
    hub.is_empty().await;
}

#[tokio::test]
async fn a_head_takes_no_longer_than_it_may_however_it_comes() {
    let hub = hub(|config| config.connections.handshake_timeout_ms = 500).await;
    for requests_before in [0, 1] {
        let (mut silent, mut slow) = (hub.client().await, hub.client().await);
        for client in [&mut silent, &mut slow] {
            for _ in 0..requests_before {
                client.hello().await;
            }
        }
        let start = Instant::now();
        silent.say("GET /hello HTTP/1.1\r\nhost: x\r\n").await;
        assert_eq!(silent.rest().await, "");
        assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
        // A byte now and then is no more.
        let dripping = async {
            slow.say("GET /hello HTTP/1.1\r\nhost: x\r\nx-long: ").await;
            while slow.0.write_all(b"y").await.is_ok() {
                pause(Duration::from_millis(50)).await;
            }
        };
        soon("a close", dripping).await;
    }
    // What came behind a request is the head of the next, and counts from then on that more comes.
    let mut client = hub.client().await;
    client.say("GET /hello HTTP/1.1\r\nhost: x\r\n\r\nGET /he").await;
    assert_eq!(client.response().await.1, "hello");
    client.say("llo HTTP/1.1\r\n").await;
    assert_eq!(client.rest().await, "");
    hub.is_empty().await;
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_order_and_each_is_a_stream() {
    let hub = hub(|_| {}).await;
    let mut client = hub.client().await;
    client.say("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100)).await;
    for _ in 0..100 {
        let (head, body) = client.response().await;
        assert_eq!((head.contains("x-has-cut: true"), &*body), (true, "hello"));
    }
    client.say("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nback").await;
    assert!(client.head().await.starts_with("http/1.1 200 "));
    drop(client);
    hub.is_empty().await;
    let cuts = std::mem::take(&mut *hub.handler.cuts.lock().expect("no panic"));
    assert_eq!(cuts.len(), 101);
    assert!((1..cuts.len()).all(|n| !Arc::ptr_eq(&cuts[n - 1], &cuts[n])));
}

#[tokio::test]
async fn a_connection_ends_with_a_request_that_was_not_read_and_its_client_knows() {
    let hub = hub(|_| {}).await;
    let mut client = hub.client().await;
    for (path, ends) in [("echo", false), ("echo", false), ("hello", true)] {
        client.say(format!("POST /{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")).await;
        let (head, body) = client.response().await;
        assert_eq!((head.contains("connection: close"), &*body), (ends, "hello"), "{head}");
    }
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_response_whose_client_takes_nothing_is_cut() {
    let hub = hub(|config| config.connections.response_timeout_ms = 300).await;
    let mut client = hub.client().await;
    client.ask("/flood", "").await;
    assert!(client.head().await.starts_with("http/1.1 200 "));
    hub.is_empty().await;
    assert_eq!(hub.count("switchyard_streams_cut_total{reason=\"response_stalled\"}").await, 1);
}

#[tokio::test]
async fn a_response_whose_client_takes_a_little_now_and_then_is_not() {
    let hub = hub(|config| config.connections.response_timeout_ms = 2_000).await;
    let mut client = hub.client().await;
    client.ask("/flood", "").await;
    for _ in 0..20 {
        pause(Duration::from_millis(150)).await;
        client.bytes(4 * 1024 * 1024).await;
    }
    assert_eq!(metric(&hub.server, "switchyard_streams_cut_total").await, 0);
}

#[tokio::test]
async fn one_at_its_own_pace_is_cut_from_outside_only() {
    let hub = hub(|config| config.connections.response_timeout_ms = 200).await;
    let (mut stalled, mut reading) = (hub.client().await, hub.client().await);
    for (client, path) in [(&mut stalled, "/flood/at-its-own-pace"), (&mut reading, "/silent")] {
        client.ask(path, "").await;
        assert!(client.head().await.starts_with("http/1.1 200 "));
    }
    pause(Duration::from_millis(800)).await;
    assert_eq!(metric(&hub.server, "switchyard_open_connections").await, 2);
    let cuts = std::mem::take(&mut *hub.handler.cuts.lock().expect("no panic"));
    assert!(cuts.iter().all(|cut| cut.cut()), "each is the first");
    assert_eq!(reading.rest().await, "5\r\nfirst\r\n", "it has no end");
    hub.is_empty().await;
    assert_eq!(metric(&hub.server, "switchyard_streams_cut_total").await, 0, "whoever cuts counts");
}

#[tokio::test]
async fn what_is_said_together_with_an_upgrade_is_heard_after_it() {
    let hub = hub(|_| {}).await;
    for ahead in [0, 1, 100, 100_000] {
        let mut client = hub.client().await;
        let ahead = "a".repeat(ahead);
        // On a connection that has served a request before.
        client.hello().await;
        client.upgrade("/upgrade", &ahead).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: echo\r\n"), "{head}");
        assert_eq!(client.bytes(ahead.len()).await, ahead);
        client.echo("and more").await;
        client.0.shutdown().await.expect("ended");
        assert_eq!(client.rest().await, "bye");
    }
    hub.is_empty().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_open_until_it_leaves() {
    let hub = hub(|config| {
        config.connections.idle_timeout_ms = 200;
        config.connections.http1_idle_timeout_ms = 200;
        config.connections.handshake_timeout_ms = 200;
    })
    .await;
    let mut client = hub.client().await;
    client.upgrade("/upgrade", "").await;
    client.head().await;
    pause(Duration::from_millis(800)).await;
    client.echo("still there").await;
    assert_eq!(metric(&hub.server, "switchyard_open_connections").await, 1);

    let (start, deadline) = (Instant::now(), config().drain.deadline());
    let stopping = tokio::spawn(hub.server.stop(Duration::ZERO));
    assert_eq!(client.rest().await, "bye");
    drop(client);
    soon("the hub stops", stopping).await.expect("stopped");
    assert!(start.elapsed() < deadline, "in order");
}

#[tokio::test]
async fn one_that_stays_is_closed() {
    let hub = hub(|config| {
        config.connections.max_age_ms = 1_000;
        config.connections.max_age_grace_ms = 500;
    })
    .await;
    let mut client = hub.client().await;
    client.upgrade("/upgrade/stay", "").await;
    client.head().await;
    client.echo("in time").await;
    assert_eq!(client.rest().await, "");
    hub.is_empty().await;
    assert_eq!(hub.count("switchyard_connections_ended_total{reason=\"age\"}").await, 1);
    assert!(hub.handler.cuts.lock().expect("no panic")[0].ends_by().is_some(), "its streams know");
}

#[tokio::test]
async fn one_whose_stream_is_cut_is_closed() {
    let hub = hub(|_| {}).await;
    let mut client = hub.client().await;
    client.upgrade("/upgrade", "").await;
    client.head().await;
    hub.handler.cuts.lock().expect("no panic")[0].cut();
    assert_eq!(client.rest().await, "");
    hub.is_empty().await;
}

#[tokio::test]
async fn only_a_request_that_may_be_upgraded_is() {
    let hub = hub(|_| {}).await;
    let upgrade = "connection: upgrade\r\nupgrade: echo\r\n";
    for request in [
        "GET /upgrade HTTP/1.1\r\nhost: x\r\n\r\necho".to_owned(),
        format!("GET /upgrade HTTP/1.0\r\n{upgrade}\r\necho"),
        format!("POST /upgrade HTTP/1.1\r\nhost: x\r\n{upgrade}content-length: 4\r\n\r\necho"),
    ] {
        let mut client = hub.client().await;
        client.say(&request).await;
        client.head().await;
        assert_eq!(client.rest().await, "", "{request}");
    }
    // One that does not come about is no matter for the request behind it.
    let mut client = hub.client().await;
    client.ask("/hello", upgrade).await;
    assert_eq!(client.response().await.1, "hello");
    client.hello().await;
    client.ask("/hello", "connection: close\r\n").await;
    assert_eq!(client.response().await.1, "hello");
    assert_eq!(client.rest().await, "");
    hub.is_empty().await;
}

#[tokio::test]
async fn a_connection_that_leaves_ends_what_it_has_begun_and_nothing_else() {
    let hub = hub(|_| {}).await;
    let (mut idle, mut slow) = (hub.client().await, hub.client().await);
    idle.hello().await;
    slow.ask("/slow", "").await;
    until("it is asked", async || hub.handler.cuts.lock().expect("no panic").len() == 2).await;
    let stopping = tokio::spawn(hub.server.stop(Duration::ZERO));
    assert_eq!(idle.rest().await, "");
    hub.handler.go.notify_one();
    let (head, body) = slow.response().await;
    assert_eq!((head.contains("connection: close"), &*body), (true, "done"), "{head}");
    assert_eq!(slow.rest().await, "");
    drop((idle, slow));
    soon("the hub stops", stopping).await.expect("stopped");
}

#[tokio::test]
async fn all_of_it_goes_over_tls_too() {
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    let hub = hub(|config| {
        config.connections.response_timeout_ms = 300;
        secret.serve(config);
    })
    .await;
    let client = async || {
        let stream = tls_stream(hub.address, &[&authority], &VERSIONS, None).await.expect("TLS");
        Client(BufReader::new(stream))
    };
    let (mut upgraded, mut stalled) = (client().await, client().await);
    upgraded.hello().await;
    upgraded.upgrade("/upgrade", "ahead").await;
    upgraded.head().await;
    assert_eq!(upgraded.bytes(5).await, "ahead");
    upgraded.echo("and more").await;
    stalled.ask("/flood", "").await;
    until("it is cut", async || metric(&hub.server, "switchyard_streams_cut_total").await == 1).await;
    upgraded.echo("still there").await;
    drop((upgraded, stalled));
    hub.is_empty().await;
}

/// A client of HTTP/2 that has seen the settings of the hub.
async fn http2(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("a port");
    let (requests, mut connection) = h2::client::handshake(stream).await.expect("a handshake");
    let mut pings = connection.ping_pong().expect("the first");
    tokio::spawn(connection);
    soon("a pong", pings.ping(h2::Ping::opaque())).await.expect("the settings have come before it");
    requests
}

fn connect(protocol: Option<&'static str>) -> Request<()> {
    let uri = if protocol.is_some() { "http://hub/echo" } else { "hub:80" };
    let mut request = Request::builder().method(Method::CONNECT).uri(uri);
    if let Some(protocol) = protocol {
        request = request.extension(h2::ext::Protocol::from_static(protocol));
    }
    request.body(()).expect("a request")
}

#[tokio::test]
async fn an_extended_connect_has_two_directions() {
    let hub = hub(|config| config.connections.response_timeout_ms = 200).await;
    let mut requests = http2(hub.address).await;
    assert!(requests.is_extended_connect_protocol_enabled());
    let (response, mut out) = requests.send_request(connect(Some("websocket")), false).expect("sent");
    let (head, mut back) = soon("a response", response).await.expect("a response").into_parts();
    assert_eq!((head.status.as_u16(), &head.headers["x-protocol"] == "websocket"), (200, true));
    assert!(!head.headers.contains_key("content-length"));
    for text in ["to", "and fro"] {
        out.send_data(text.into(), false).expect("an open stream");
        assert_eq!(soon("data", back.data()).await.expect("open").expect("data"), text);
        pause(Duration::from_millis(500)).await;
    }
    out.send_data("the last".into(), true).expect("an open stream");
    assert_eq!(soon("data", back.data()).await.expect("open").expect("data"), "the last");
    // The echo of the client's, which may be an empty frame.
    if let Some(end) = soon("the end", back.data()).await {
        assert_eq!(end.expect("in order"), "");
    }
    assert!(soon("trailers", back.trailers()).await.expect("an end in order").is_none());

    // One that its client resets is over for both.
    let (response, mut out) = requests.send_request(connect(Some("websocket")), false).expect("sent");
    soon("a response", response).await.expect("a response");
    let cut = hub.handler.cuts.lock().expect("no panic").pop().expect("a second");
    out.send_reset(h2::Reason::CANCEL);
    until("nothing is left of it", async || Arc::strong_count(&cut) == 1).await;
    // One that the hub cuts, too.
    let (response, _out) = requests.send_request(connect(Some("websocket")), false).expect("sent");
    let mut back = soon("a response", response).await.expect("a response").into_body();
    hub.handler.cuts.lock().expect("no panic").pop().expect("a third").cut();
    let error = soon("the end", back.data()).await.expect("an error").expect_err("an error");
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_hub_is_no_proxy() {
    let hub = hub(|_| {}).await;
    let mut requests = http2(hub.address).await;
    let (response, _out) = requests.send_request(connect(None), false).expect("sent");
    assert_eq!(soon("a response", response).await.expect("a response").status(), StatusCode::NOT_IMPLEMENTED);
    let mut client = hub.client().await;
    client.say("CONNECT hub:80 HTTP/1.1\r\nhost: hub:80\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert_eq!((head.starts_with("http/1.1 501 "), &*body), (true, ""), "{head}");
    client.hello().await;
    assert_eq!(hub.handler.cuts.lock().expect("no panic").len(), 1, "the handler got the last alone");
}

#[tokio::test]
async fn other_ports_have_none_of_it() {
    let hub = hub_where(|_| {}, false).await;
    let mut client = hub.client().await;
    client.ask("/hello", "").await;
    assert!(client.response().await.0.contains("x-has-cut: false"));
    client.upgrade("/upgrade", "echo").await;
    client.head().await;
    assert_eq!(client.rest().await, "");
    for address in [hub.address, hub.server.address] {
        assert!(!http2(address).await.is_extended_connect_protocol_enabled());
    }
    // The port of gRPC.
    let mut client = Client(BufReader::new(TcpStream::connect(hub.server.address).await.expect("a port")));
    client.upgrade("/switchyard.v1.HubService/Session", "").await;
    assert!(client.head().await.starts_with("http/1.1 426 "));
}
