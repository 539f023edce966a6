//! The composition root: how a hub starts and how it stops, in order.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    auth::Auth,
    config::{Config, Drain},
    edge::{
        Door,
        grpc::{self, Access, Entry},
        http::{self, Ops},
        web::{self, Web},
    },
    engine::{Embedded, Engine},
    hub::{Hub, Setup, Streams, Tracing},
    memory::Memory,
    model::Peer,
    net::{self, Acceptor, Bound, Connections, Http, Tls},
    readiness::{Phase, Readiness},
    tasks::{OnPanic, Tasks},
    telemetry::{Metrics, Traces},
};

/// After the connections are closed, tasks have this long to notice.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

/// A connection to the operator's port is closed when it is this old, whatever it does.
const OPS_MAX_AGE_MS: u64 = 300_000;

/// The store has this long to write what is left.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A running hub.
#[derive(Debug)]
pub struct Server {
    /// Where gRPC clients connect by TCP; port 0 if they connect by a Unix socket.
    pub address: SocketAddr,
    /// Where probes and scrapes connect, likewise.
    pub ops_address: SocketAddr,
    /// Where browsers and plain HTTP clients connect, likewise, if there is such a port.
    pub web_address: Option<SocketAddr>,
    drain: Drain,
    hub: Arc<Hub>,
    engine: Option<Arc<dyn Engine>>,
    traces: Option<Arc<Traces>>,
    tasks: Tasks,
    readiness: Readiness,
    /// Those of clients: gRPC, and further edges.
    ports: Vec<Port>,
    operators: Port,
    /// Ends the thread of the operator's port, if this is dropped instead of stopped.
    _ops: DropGuard,
}

/// One listening port.
#[derive(Debug, Clone)]
struct Port {
    connections: Arc<Connections>,
    stop: CancellationToken,
}

impl Port {
    fn new(metrics: &Arc<Metrics>, memory: &Arc<Memory>) -> Self {
        Self {
            connections: Arc::new(Connections::new(Arc::clone(metrics), Arc::clone(memory))),
            stop: CancellationToken::new(),
        }
    }

    fn acceptor(
        &self,
        options: net::Options,
        tls: Option<Arc<Tls>>,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
    ) -> Acceptor {
        Acceptor {
            options: Arc::new(options),
            tls,
            connections: Arc::clone(&self.connections),
            tasks: tasks.clone(),
            metrics: Arc::clone(metrics),
            stop: self.stop.clone(),
        }
    }

    /// Closes it with all its connections: the hub does not come up.
    fn abandon(&self) {
        self.stop.cancel();
        self.connections.close();
    }
}

/// The store, once it is open; `None` on a hub that keeps no streams.
pub type Opening = Pin<Box<dyn Future<Output = anyhow::Result<Option<Arc<dyn Engine>>>> + Send>>;

/// Where operators connect, and their connections. Waited for in the thread that serves them.
pub type OpsListener<O> = Pin<Box<dyn Future<Output = io::Result<(Bound, O)>> + Send>>;

/// Accepts the connections of one port for clients, with whatever is spoken there, until the acceptor stops.
pub type EdgePort = Box<dyn FnOnce(EdgeParts) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What an edge is made of.
pub struct EdgeParts {
    /// The way in.
    pub door: Door,
    /// Accepts its connections.
    pub acceptor: Acceptor,
    /// The services of gRPC, for an edge that stands before them.
    pub grpc: web::Grpc,
}

/// A further port for clients.
pub struct Edge {
    /// Where it listens; `None` for one that is no web listener.
    pub web: Option<Bound>,
    /// What is spoken there.
    pub port: EdgePort,
}

/// What a hub stands on: where connections come from, where streams are kept, and what runs its tasks.
pub struct Ground<C, O> {
    /// Where clients connect, and their connections.
    pub clients: (Bound, C),
    /// Further ports for clients, with the same limits and TLS.
    pub edges: Vec<Edge>,
    /// Listens for operators.
    pub operators: OpsListener<O>,
    /// Where streams are kept. Until it is open, clients are told to try again.
    pub engine: Opening,
    /// Who knows the callers, if anybody asks.
    pub auth: Option<Arc<Auth>>,
    /// What clients are spoken to with, if not plainly.
    pub tls: Option<Arc<Tls>>,
    /// Metrics shared by every part above.
    pub metrics: Arc<Metrics>,
    /// Accounts for what clients make the hub keep.
    pub memory: Arc<Memory>,
    /// Task tracker, likewise shared.
    pub tasks: Tasks,
}

/// Starts a hub on this machine and returns when it serves.
pub async fn start(config: Config) -> anyhow::Result<Server> {
    let tasks = Tasks::default();
    let metrics = Arc::new(Metrics::default());
    let memory = Arc::new(Memory::new(&config.memory));
    // First: a hub that cannot know its callers does nothing at all.
    let auth = Auth::open(&config.auth, &tasks, &metrics).await.map_err(anyhow::Error::msg)?;
    let tls = Tls::load(&config.tls, &metrics).context("TLS")?;
    let clients = net::listen(&config.listen, &config.connections)
        .await
        .with_context(|| format!("listen: cannot listen on {} for clients", config.listen))?;
    let edges = web_edge(&config, &tasks, &memory).await?.into_iter().collect();
    let (ops_listen, options) = (config.ops_listen.clone(), config.connections.clone());
    let operators = Box::pin(async move { net::listen(&ops_listen, &options).await });

    // Not begun before `start_on` waits for it: a hub that cannot listen leaves its store alone.
    let engine = Box::pin(open_engine(config.clone(), tasks.clone(), Arc::clone(&metrics), Arc::clone(&memory)));
    start_on(config, Ground { clients, edges, operators, engine, auth, tls, metrics, memory, tasks }).await
}

/// The web listener, if there is to be one.
pub async fn web_edge(config: &Config, tasks: &Tasks, memory: &Arc<Memory>) -> anyhow::Result<Option<Edge>> {
    let Some(listen) = config.web.listen.address() else { return Ok(None) };
    let listening = net::listen(listen, &config.connections).await;
    let (address, listener) = listening
        .with_context(|| format!("web.listen: cannot listen on {listen} for browsers (empty switches it off)"))?;
    let (options, connections, tasks) = (config.web.clone(), Arc::new(config.connections.clone()), tasks.clone());
    let (calls, memory, frame_timeout) =
        (web::Calls::of_contract()?, Arc::clone(memory), config.sessions.frame_timeout());
    let port: EdgePort = Box::new(move |EdgeParts { door, acceptor, grpc }| {
        let bridge = web::Bridge::new(grpc, calls, memory, tasks.clone(), frame_timeout);
        let router = web::router(Web::new(door, options, Arc::clone(&connections), tasks.clone(), bridge));
        Box::pin(acceptor.run(listener, Http::new(router, connections, tasks).at_length()))
    });
    Ok(Some(Edge { web: Some(address), port }))
}

/// Starts a hub on other ground than this machine's, such as a simulated network. It serves when this returns; who comes
/// before is told that the store is recovering.
pub async fn start_on<C, O, I, J>(config: Config, ground: Ground<C, O>) -> anyhow::Result<Server>
where
    C: Stream<Item = io::Result<(I, Peer)>> + Send + 'static,
    O: Stream<Item = io::Result<(J, Peer)>> + Send + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    J: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ground { clients, edges, operators: ops_listener, engine, auth, tls, metrics, memory, tasks } = ground;
    let (address, listener) = clients;
    let node = if config.node.is_empty() { host_name() } else { config.node.clone() };
    let readiness = Readiness::default();
    let operators = Port::new(&Arc::default(), &Arc::default());
    let traces = Traces::start(&config.traces, &node).map_err(anyhow::Error::msg)?.map(Arc::new);

    let ops_guard = operators.stop.clone().drop_guard();
    let (auth_is_off, door) = (auth.is_none(), Door::new(auth, readiness.view()));
    let (metrics_of_ops, health) = (Arc::clone(&metrics), grpc::health_routes(readiness.view()));
    let ops = Ops { metrics: metrics_of_ops, door: door.clone(), health, log_changes: config.ops.log_changes };
    let ops_tls = tls.clone().filter(|_| config.tls.ops);
    let acceptor = operators.acceptor(ops_connections(&config), ops_tls, &tasks, &Arc::new(Metrics::default()));
    let ops_address = serve_operators(&tasks, &operators, acceptor, ops_listener, ops)
        .await
        .with_context(|| format!("ops_listen: cannot listen on {} for operators", config.ops_listen))?;

    if let Some(tls) = &tls {
        tasks.spawn("certificates", OnPanic::Stop, Arc::clone(tls).watch(tasks.clone()));
    }
    let access = Access::new(door.clone(), config.auth.reflection);
    let entry = Entry::new(access.clone(), readiness.view());
    let behind = entry.clone();
    let handler = tower::service_fn(move |request| behind.clone().serve_request(request));
    let http = Http::new(handler, Arc::new(config.connections.clone()), tasks.clone());
    let main = Edge { web: None, port: Box::new(move |parts| Box::pin(parts.acceptor.run(listener, http))) };
    let shared = (tls, &tasks, &metrics, &memory);
    let web_address = edges.iter().find_map(|edge| edge.web.clone());
    let serve = |edge: Edge| serve_clients(edge.port, &config, (&door, &entry), &shared);
    let ports: Vec<_> = [main].into_iter().chain(edges).map(serve).collect();
    for at in [Some(&address), web_address.as_ref()].into_iter().flatten() {
        warn_if_exposed(&config, at, auth_is_off);
    }
    let web_shown = web_address.as_ref().map(tracing::field::display);

    // From here on everybody is answered, if only that the store is recovering.
    tracing::info!(%address, %ops_address, web_address = web_shown, "listening");
    let engine = engine.await.inspect_err(|_| {
        ports.iter().chain([&operators]).for_each(Port::abandon);
    })?;
    let streams = engine.clone().map(|engine| Streams { engine, tasks: tasks.clone() });
    let hub = Arc::new(Hub::new(Setup {
        node: node.as_str().into(),
        options: config.sessions.clone(),
        quotas: config.quotas.clone(),
        metrics: Arc::clone(&metrics),
        memory,
        tracing: traces.clone().map(|traces| Tracing { traces }),
        streams,
        exchange: None,
    }));
    let time = Arc::clone(&hub);
    tasks.spawn("time", OnPanic::Stop, async move { time.keep_time().await });
    entry.open(grpc::routes(Arc::clone(&hub), tasks.clone(), readiness.view(), &access)?);
    door.open(Arc::clone(&hub));
    readiness.enter(Phase::Serving);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%address, %ops_address, web_address = web_shown, node, tls = config.tls.is_on(), version, "serving");
    Ok(Server {
        address: address.tcp(),
        ops_address: ops_address.tcp(),
        web_address: web_address.map(|address| address.tcp()),
        drain: config.drain,
        hub,
        engine,
        traces,
        tasks,
        readiness,
        ports,
        operators,
        _ops: ops_guard,
    })
}

/// Begins to accept clients, with whatever is spoken there.
fn serve_clients(
    edge: EdgePort,
    config: &Config,
    (door, entry): (&Door, &Entry),
    (tls, tasks, metrics, memory): &(Option<Arc<Tls>>, &Tasks, &Arc<Metrics>, &Arc<Memory>),
) -> Port {
    let port = Port::new(metrics, memory);
    let acceptor = port.acceptor(config.connections.clone(), tls.clone(), tasks, metrics);
    let connections = Arc::clone(&port.connections);
    tasks.spawn("connections", OnPanic::Stop, connections.keep_time(config.connections.clone()));
    let entry = entry.clone();
    let grpc = tower::service_fn(move |request: axum::extract::Request| entry.clone().serve_request(request));
    let parts = EdgeParts { door: door.clone(), acceptor, grpc: web::Grpc::new(grpc) };
    tasks.spawn("accept clients", OnPanic::Stop, edge(parts));
    port
}

/// The limits of connections to the operator's port. Who is silent there makes room for who speaks.
fn ops_connections(config: &Config) -> net::Options {
    let idle_ms = config.ops.idle_timeout_ms;
    net::Options {
        max: config.ops.max_connections,
        max_per_address: 0,
        idle_timeout_ms: idle_ms,
        max_age_ms: OPS_MAX_AGE_MS.max(idle_ms),
        max_age_grace_ms: idle_ms,
        handshake_timeout_ms: config.connections.handshake_timeout_ms.min(idle_ms),
        max_handshakes: config.ops.max_connections.div_ceil(2),
        ..config.connections.clone()
    }
}

/// Serves operators in a thread of their own until it is stopped. Tells where, once it listens.
async fn serve_operators<O, J>(
    tasks: &Tasks,
    port: &Port,
    acceptor: Acceptor,
    listener: OpsListener<O>,
    ops: Ops,
) -> io::Result<Bound>
where
    O: Stream<Item = io::Result<(J, Peer)>> + Send + 'static,
    J: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let connections = Arc::clone(&port.connections);
    let serve = async move {
        let listener = match listener.await {
            Ok((address, listener)) => {
                tell.send(Ok(address)).ok();
                listener
            }
            Err(error) => return tell.send(Err(error)).unwrap_or_default(),
        };
        let time = Arc::clone(&connections).keep_time((*acceptor.options).clone());
        let edge = Http::new(http::router(ops), Arc::clone(&acceptor.options), acceptor.tasks.clone());
        tokio::select! {
            () = acceptor.run(listener, edge) => {}
            () = time => {}
        }
        connections.close();
        tokio::time::timeout(LAST_PATIENCE, connections.until_none()).await.ok();
    };
    tasks.apart("operators", OnPanic::Stop, serve)?;
    told.await.unwrap_or_else(|_| Err(io::Error::other("its thread has failed")))
}

/// Says what anybody on the network may do with a hub that others can reach.
fn warn_if_exposed(config: &Config, address: &Bound, auth_is_off: bool) {
    let Bound::Tcp(address) = address else { return };
    if address.ip().is_loopback() {
        return;
    }
    if auth_is_off {
        tracing::warn!(
            %address,
            "WITHOUT AUTHENTICATION: anyone on the network may publish, read and delete everything; see docs/security.md"
        );
    }
    if !config.tls.is_on() {
        tracing::warn!(
            %address,
            "WITHOUT TLS: anyone on the network can read and change what clients send; set tls.cert_file and tls.key_file"
        );
    }
}

/// Opens the store, which reads all of it.
async fn open_engine(
    config: Config,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    memory: Arc<Memory>,
) -> anyhow::Result<Option<Arc<dyn Engine>>> {
    if config.data_dir.as_os_str().is_empty() {
        return Ok(None);
    }
    let mut options = config.engine;
    options.max_owner_bytes = config.quotas.max_stored_bytes;
    let of_store = tasks.clone();
    let open = move || Embedded::open(&config.data_dir, &options, &of_store, &metrics, &memory);
    let engine = tasks.once("opener", open).await?.context("the thread that opens the store failed")??;
    Ok(Some(Arc::new(engine)))
}

impl Server {
    /// Ends when the hub can no longer be trusted to be whole.
    pub async fn failed(&self) {
        self.tasks.failed().await;
    }

    /// Stops in order (design 3.12), and in any case before the deadline. `wait` is how long to go on serving first
    /// while not ready.
    pub async fn stop(self, wait: Duration) {
        tracing::info!(sessions = self.hub.session_count(), wait_ms = wait.as_millis() as u64, "draining");
        self.readiness.enter(Phase::Draining);
        tokio::time::sleep(wait).await;

        let in_order = tokio::time::timeout(self.drain.deadline(), self.leave()).await.is_ok();
        if !in_order {
            tracing::warn!(sessions = self.hub.session_count(), "deadline reached: closing what is left");
            self.readiness.enter(Phase::Stopped);
        }
        self.ports.iter().for_each(|port| port.connections.close());
        self.operators.stop.cancel();
        self.operators.connections.close();
        tokio::time::timeout(LAST_PATIENCE, async {
            self.until_no_clients().await;
            self.operators.connections.until_none().await;
        })
        .await
        .ok();
        let stored = self.close_engine().await;
        if let Some(traces) = self.traces {
            self.tasks.block(move || traces.stop()).await;
        }
        tracing::info!(in_order, stored, "stopped");
    }

    /// Writes everything to the disk. False when it could not be done in time; then the next start finds out what is there.
    async fn close_engine(&self) -> bool {
        let Some(engine) = &self.engine else { return true };
        match tokio::time::timeout(CLOSE_PATIENCE, engine.close()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "the store did not close");
                false
            }
            Err(_) => {
                tracing::error!("the store did not close in time");
                false
            }
        }
    }

    /// Tells every client to go and waits until they have.
    async fn leave(&self) {
        for port in &self.ports {
            port.stop.cancel();
            port.connections.leave();
        }
        self.hub.drain(self.drain.spread()).await;
        // Only now: health watches end with this, and until now they were worth watching.
        self.readiness.enter(Phase::Stopped);
        self.until_no_clients().await;
    }

    async fn until_no_clients(&self) {
        for port in &self.ports {
            port.connections.until_none().await;
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "switchyard".to_owned() } else { name.to_owned() }
}
