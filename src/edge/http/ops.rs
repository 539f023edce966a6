//! The operator's port: plain HTTP/1 and h2c, for probes and scrapes.
//!
//! It is served by a thread of its own, so that probes are answered when every worker is busy: nothing here waits for a
//! worker but `/metrics`, which asks the hub, for one scrape at a time and not for ever.
//!
//! `/livez` says that the process runs, `/readyz` whether it serves, `/metrics` what it counts. `grpc.health.v1` is
//! here too, so that Kubernetes' gRPC probes work whatever the main port wants of its clients. Nothing here changes
//! what the hub does; only how much it logs can be set, by `PUT /log`, from the machine of the hub. The record that `auth`
//! keeps is logged in any case.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Extension, Request, State, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tower::ServiceExt;

use super::options::LogChanges;
use crate::{
    edge::Door,
    net::Connection,
    readiness::Phase,
    telemetry::{AUDIT, Gauges, Metrics, log_filter, set_log_filter},
};

/// The longest log filter, in bytes.
const MAX_LOG_FILTER_BYTES: usize = 1024;
/// A request that is not answered after this long is refused: the rest of it does not come, or the hub is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the operator's port answers from.
#[derive(Debug, Clone)]
pub struct Ops {
    /// What it counts besides what the hub has.
    pub metrics: Arc<Metrics>,
    /// The way to the hub, and the phase of the process.
    pub door: Door,
    /// gRPC health checks.
    pub health: Routes,
    /// Who may change what is logged.
    pub log_changes: LogChanges,
}

#[derive(Debug)]
struct Answers {
    ops: Ops,
    /// One scrape at a time.
    scrapes: Semaphore,
}

/// The pages of the operator's port.
pub fn router(ops: Ops) -> Router {
    let health = ops.health.clone();
    Router::new()
        .route("/livez", get("ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(
            "/log",
            get(show_log).put(change_log).fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "GET or PUT\n")),
        )
        .fallback(async || {
            (StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics, /log and, by gRPC, grpc.health.v1\n")
        })
        .layer(DefaultBodyLimit::max(MAX_LOG_FILTER_BYTES))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(health, by_grpc))
        .with_state(Arc::new(Answers { ops, scrapes: Semaphore::new(1) }))
}

/// Calls of gRPC go to the health checks, whose watches last.
async fn by_grpc(State(health): State<Routes>, request: Request, next: Next) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if content_type.is_none_or(|kind| !kind.starts_with(b"application/grpc")) {
        return next.run(request).await;
    }
    let answered: Result<_, Infallible> = health.oneshot(request).await;
    match answered {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(PATIENCE, next.run(request)).await;
    answered.unwrap_or_else(|_| (StatusCode::SERVICE_UNAVAILABLE, "not in time\n").into_response())
}

async fn ready(State(answers): State<Arc<Answers>>) -> (StatusCode, String) {
    match answers.ops.door.phase() {
        Phase::Serving => (StatusCode::OK, "ok\n".to_owned()),
        phase => (StatusCode::SERVICE_UNAVAILABLE, format!("{phase:?}\n").to_lowercase()),
    }
}

async fn metrics(State(answers): State<Arc<Answers>>) -> impl IntoResponse {
    // It is never closed.
    let _scrape = answers.scrapes.acquire().await;
    let gauges = match answers.ops.door.hub() {
        Ok(hub) => hub.observe().await,
        Err(_) => Gauges::default(),
    };
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], answers.ops.metrics.render(&gauges))
}

async fn show_log() -> String {
    format!("{}\n", log_filter().unwrap_or_default())
}

async fn change_log(
    State(answers): State<Arc<Answers>>,
    connection: Option<Extension<Arc<Connection>>>,
    filter: Result<Bytes, BytesRejection>,
) -> Response {
    let bad = |problem: String| (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response();
    let (changes, peer) = (answers.ops.log_changes, connection.map(|connection| connection.peer()));
    if !changes.allow(peer) {
        let problem = match changes {
            LogChanges::Off => "the log filter cannot be changed here (ops.log_changes)\n",
            _ => "the log filter can be changed only from the machine of the hub (ops.log_changes)\n",
        };
        return (StatusCode::FORBIDDEN, problem).into_response();
    }
    let Ok(filter) = filter else { return bad(format!("log: at most {MAX_LOG_FILTER_BYTES} bytes")) };
    let Ok(filter) = std::str::from_utf8(&filter) else { return bad("log: not text".to_owned()) };
    if let Err(problem) = set_log_filter(filter.trim()) {
        return bad(problem);
    }
    let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
    tracing::warn!(target: AUDIT, peer, log = filter.trim(), "log filter changed");
    show_log().await.into_response()
}
