//! The operator's port: plain HTTP/1 and h2c, for probes and scrapes.
//!
//! It is served by a thread of its own, so that probes are answered when every worker is busy: nothing here waits for a
//! worker but `/metrics`, which asks the hub, for one scrape at a time and not for ever.
//!
//! `/livez` says that the process runs, `/readyz` whether it serves, `/metrics` what it counts. `grpc.health.v1` is
//! here too, so that Kubernetes' gRPC probes work whatever the main port wants of its clients. Nothing here changes
//! what the hub does; only how much it logs can be set, by `PUT /log`, from the machine of the hub. The record that `auth`
//! keeps is logged in any case.

mod options;

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use tonic::{body::Body, service::Routes};
use tower::ServiceExt;

pub use options::{LogChanges, Options};

use crate::{
    hub::Hub,
    net::{Connection, Inbound},
    readiness::{Phase, ReadinessView},
    telemetry::{AUDIT, Gauges, Metrics, log_filter, set_log_filter},
};

/// What is to be logged is told in no more bytes.
const MAX_LOG_FILTER_BYTES: usize = 1024;
/// A request that is not answered after this long is answered so: the rest of it does not come, or the hub is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the operator's port answers from.
#[derive(Debug, Clone)]
pub struct Ops {
    metrics: Arc<Metrics>,
    /// Empty until the store is open.
    hub: Arc<OnceLock<Arc<Hub>>>,
    /// One look at the hub at a time.
    looks: Arc<Semaphore>,
    readiness: ReadinessView,
    /// gRPC health checks.
    health: Routes,
    log_changes: LogChanges,
}

impl Ops {
    /// Answers for a hub that is still starting; `health` serves what is gRPC.
    pub fn new(metrics: Arc<Metrics>, readiness: ReadinessView, health: Routes, options: &Options) -> Self {
        let (looks, log_changes) = (Arc::new(Semaphore::new(1)), options.log_changes);
        Self { metrics, hub: Arc::default(), looks, readiness, health, log_changes }
    }

    /// From now on there are sessions and streams to look at.
    pub fn show(&self, hub: Arc<Hub>) {
        self.hub.get_or_init(|| hub);
    }

    /// Answers one request.
    pub async fn serve_request(self, request: Request<Inbound>) -> Result<Response<Body>, Infallible> {
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content_type.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
            return self.health.oneshot(request).await.map(|response| response.map(Body::new));
        }
        let answered = tokio::time::timeout(PATIENCE, self.answer(request)).await;
        Ok(answered.unwrap_or_else(|_| text(StatusCode::SERVICE_UNAVAILABLE, "not in time\n")))
    }

    async fn answer(&self, request: Request<Inbound>) -> Response<Body> {
        let phase = self.readiness.phase();
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if phase == Phase::Serving => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, format!("{phase:?}\n").to_lowercase()),
            "/metrics" => self.metrics().await,
            "/log" => log(request, self.log_changes).await,
            _ => {
                text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics, /log and, by gRPC, grpc.health.v1\n")
            }
        }
    }

    async fn metrics(&self) -> Response<Body> {
        // It is never closed.
        let _look = self.looks.acquire().await;
        let gauges = match self.hub.get() {
            Some(hub) => hub.observe().await,
            None => Gauges::default(),
        };
        let mut response = text(StatusCode::OK, self.metrics.render(&gauges));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        response
    }
}

/// Shows what is logged, or changes it for who may.
async fn log(request: Request<Inbound>, changes: LogChanges) -> Response<Body> {
    let bad = |problem: String| text(StatusCode::BAD_REQUEST, format!("{problem}\n"));
    let peer = request.extensions().get::<Arc<Connection>>().map(|connection| connection.peer());
    match *request.method() {
        Method::GET => {}
        Method::PUT if !changes.allow(peer.map(|peer| peer.ip())) => {
            let problem = match changes {
                LogChanges::Off => "the log filter cannot be changed here (ops.log_changes)\n",
                _ => "the log filter can be changed only from the machine of the hub (ops.log_changes)\n",
            };
            return text(StatusCode::FORBIDDEN, problem);
        }
        Method::PUT => {
            let body = Limited::new(request.into_body(), MAX_LOG_FILTER_BYTES).collect().await;
            let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
                return bad(format!("log: at most {MAX_LOG_FILTER_BYTES} bytes"));
            };
            let Ok(filter) = std::str::from_utf8(&body) else { return bad("log: not text".to_owned()) };
            if let Err(problem) = set_log_filter(filter.trim()) {
                return bad(problem);
            }
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(target: AUDIT, peer, log = filter.trim(), "log filter changed");
        }
        _ => return text(StatusCode::METHOD_NOT_ALLOWED, "GET or PUT\n"),
    }
    text(StatusCode::OK, format!("{}\n", log_filter().unwrap_or_default()))
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
