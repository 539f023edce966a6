//! The composition root: how a hub starts and how it stops, in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Drain},
    engine::{Embedded, Engine},
    grpc,
    net::{self, Acceptor, Connections},
    ops::Ops,
    readiness::{Phase, Readiness},
    session::{Hub, Streams},
    tasks::{OnPanic, Tasks},
    telemetry::Metrics,
};

/// After the connections are closed, tasks have this long to notice.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

/// The store has this long to write what is left.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// A running hub.
#[derive(Debug)]
pub struct Server {
    /// Where gRPC clients connect.
    pub address: SocketAddr,
    /// Where probes and scrapes connect.
    pub ops_address: SocketAddr,
    drain: Drain,
    hub: Arc<Hub>,
    engine: Option<Arc<dyn Engine>>,
    tasks: Tasks,
    readiness: Readiness,
    clients: Port,
    operators: Port,
}

/// One listening port.
#[derive(Debug)]
struct Port {
    connections: Arc<Connections>,
    stop: CancellationToken,
}

impl Port {
    fn new(metrics: &Arc<Metrics>) -> Self {
        Self { connections: Arc::new(Connections::new(Arc::clone(metrics))), stop: CancellationToken::new() }
    }

    fn acceptor(&self, config: &Config, tasks: &Tasks, metrics: &Arc<Metrics>) -> Acceptor {
        Acceptor {
            options: config.connections.clone(),
            connections: Arc::clone(&self.connections),
            tasks: tasks.clone(),
            metrics: Arc::clone(metrics),
            stop: self.stop.clone(),
        }
    }
}

/// Starts a hub and returns when it serves.
pub async fn start(config: Config) -> anyhow::Result<Server> {
    let node = if config.node.is_empty() { host_name() } else { config.node.clone() };
    let metrics = Arc::new(Metrics::default());
    let tasks = Tasks::default();
    let readiness = Readiness::default();
    let (clients, operators) = (Port::new(&metrics), Port::new(&Arc::new(Metrics::default())));
    let (address, listener) = net::listen(config.listen, &config.connections)
        .await
        .with_context(|| format!("cannot listen on {} for clients", config.listen))?;
    let (ops_address, ops_listener) = net::listen(config.ops_listen, &config.connections)
        .await
        .with_context(|| format!("cannot listen on {} for operators", config.ops_listen))?;

    // Only now: a hub that cannot listen leaves its store alone. Until it is open, clients wait to be accepted.
    let engine = open_engine(&config, &tasks).await?;
    let streams = engine.clone().map(|engine| Streams { engine, tasks: tasks.clone(), forms: grpc::FORMS });
    let hub = Arc::new(Hub::new(&node, config.sessions.clone(), Arc::clone(&metrics), streams));

    let time = Arc::clone(&hub);
    tasks.spawn("time", OnPanic::Stop, async move { time.keep_time().await });

    let routes = grpc::routes(Arc::clone(&hub), tasks.clone(), readiness.view())?;
    let handler = tower::service_fn(move |request| grpc::serve_request(routes.clone(), request));
    let acceptor = clients.acceptor(&config, &tasks, &metrics);
    tasks.spawn("accept clients", OnPanic::Stop, acceptor.run(listener, handler));

    let ops = Ops::new(Arc::clone(&hub), readiness.view(), grpc::health_routes(readiness.view()));
    let handler = tower::service_fn(move |request| ops.clone().serve_request(request));
    let acceptor = operators.acceptor(&config, &tasks, &Arc::new(Metrics::default()));
    tasks.spawn("accept operators", OnPanic::Stop, acceptor.run(ops_listener, handler));

    readiness.enter(Phase::Serving);
    tracing::info!(%address, %ops_address, node, version = env!("CARGO_PKG_VERSION"), "serving");
    Ok(Server { address, ops_address, drain: config.drain, hub, engine, tasks, readiness, clients, operators })
}

/// Opens the store, which reads all of it; before it is open nobody can connect.
async fn open_engine(config: &Config, tasks: &Tasks) -> anyhow::Result<Option<Arc<dyn Engine>>> {
    if config.data_dir.as_os_str().is_empty() {
        return Ok(None);
    }
    let (folder, options, of_store) = (config.data_dir.clone(), config.engine.clone(), tasks.clone());
    let open = move || Embedded::open(&folder, &options, grpc::seal, &of_store);
    let engine = tasks.block(open).await.context("the task that opens the store failed")??;
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
        self.clients.connections.close();
        self.operators.stop.cancel();
        self.operators.connections.close();
        tokio::time::timeout(LAST_PATIENCE, async {
            self.clients.connections.until_none().await;
            self.operators.connections.until_none().await;
        })
        .await
        .ok();
        let stored = self.close_engine().await;
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
        self.clients.stop.cancel();
        self.clients.connections.leave();
        self.hub.drain(self.drain.spread()).await;
        // Only now: health watches end with this, and until now they were worth watching.
        self.readiness.enter(Phase::Stopped);
        self.clients.connections.until_none().await;
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "switchyard".to_owned() } else { name.to_owned() }
}
