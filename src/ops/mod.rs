//! The operator's port: plain HTTP/1 and h2c, for probes and scrapes.
//!
//! `/livez` says that the process runs, `/readyz` whether it serves, `/metrics` what it counts. `grpc.health.v1` is
//! here too, so that Kubernetes' gRPC probes work whatever the main port wants of its clients. Nothing here changes
//! the hub.

use std::{convert::Infallible, sync::Arc};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::{body::Body, service::Routes};
use tower::ServiceExt;

use crate::{
    readiness::{Phase, ReadinessView},
    session::Hub,
    telemetry::Gauges,
};

/// What the operator's port answers from.
#[derive(Debug, Clone)]
pub struct Ops {
    hub: Arc<Hub>,
    readiness: ReadinessView,
    /// gRPC health checks.
    health: Routes,
}

impl Ops {
    /// Answers for `hub`; `health` serves what is gRPC.
    pub fn new(hub: Arc<Hub>, readiness: ReadinessView, health: Routes) -> Self {
        Self { hub, readiness, health }
    }

    /// Answers one request.
    pub async fn serve_request(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content_type.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
            return self.health.oneshot(request).await.map(|response| response.map(Body::new));
        }
        let phase = self.readiness.phase();
        Ok(match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if phase == Phase::Serving => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, format!("{phase:?}\n").to_lowercase()),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics and, by gRPC, grpc.health.v1\n"),
        })
    }

    fn metrics(&self) -> Response<Body> {
        let gauges = Gauges {
            sessions: self.hub.session_count(),
            subscriptions: self.hub.subscription_count(),
            queue_bytes: self.hub.waiting_bytes(),
        };
        let mut response = text(StatusCode::OK, self.hub.metrics().render(gauges));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        response
    }
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
