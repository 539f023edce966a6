//! The entry of the main port: what is a call at all, and whether there are services to take it yet.
//!
//! What is not gRPC is refused before anything is done for it. Until the store is open there are no services but health
//! checks; everybody else gets an error that says to try again. Every call ends at the deadline its client gave it. The entry owns
//! no connection, knows no call by name, and leaves who may come in to [`Access`].

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use tonic::{Status, body::Body, service::Routes};
use tower::ServiceExt;

use super::{
    Access,
    access::{Needs, unknown_call},
    deadline::Deadline,
    health_routes,
};
use crate::{
    edge::wire::status,
    model::{CommandError, StreamError},
    readiness::{Phase, ReadinessView},
};

/// What every path of a health check begins with.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Where load balancers ask whether this hub serves: the one path that is answered without gRPC.
const READY: &str = "/readyz";
/// How gRPC names its requests. There is no other encoding of messages than that of Protobuf.
const CONTENT_TYPES: [&str; 2] = ["application/grpc", "application/grpc+proto"];

/// Lets requests in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Entry {
    access: Access,
    /// All there is until the services are.
    health: Routes,
    services: Arc<OnceLock<Routes>>,
}

impl Entry {
    /// One behind which there are only health checks so far.
    pub fn new(access: Access, readiness: ReadinessView) -> Self {
        Self { access, health: health_routes(readiness), services: Arc::default() }
    }

    /// From now on the services are behind it.
    pub fn open(&self, services: Routes) {
        self.services.get_or_init(|| services);
    }

    /// Sends calls that may come in to the services, and tells everyone else what this port is.
    pub async fn serve_request<B>(self, request: Request<B>) -> Result<Response<Body>, Infallible>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        if request.version() != Version::HTTP_2 {
            return Ok(not_http2());
        }
        if request.uri().path() == READY {
            return Ok(self.ready(request.method(), request.headers()));
        }
        if let Some(refused) = not_grpc(request.method(), request.headers()) {
            return Ok(refused);
        }
        let deadline = match Deadline::of(request.headers()) {
            Ok(deadline) => deadline,
            Err(error) => return Ok(status::of_command(&error, "").status().into_http()),
        };
        // Boxed: the task of a stream keeps its size as long as the stream is open, and this is done before it begins.
        let calling = Box::pin(self.call(request));
        Ok(match deadline {
            None => calling.await,
            Some(deadline) => deadline.keep(calling).await,
        })
    }

    async fn call<B>(self, mut request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let needs = match self.access.admit(&mut request).await {
            Ok(needs) => needs,
            Err(status) => return status.into_http(),
        };
        let routes = match (needs, self.services.get()) {
            // Load balancers check hubs by calls that no hub has; one that drains must fail that check, too.
            (None, _) => return self.not_serving().unwrap_or_else(|| unknown_call(&request)).into_http(),
            (Some(_), Some(services)) => services.clone(),
            (Some(Needs::Nothing), None) if request.uri().path().starts_with(HEALTH) => self.health,
            (Some(_), None) => return recovering().into_http(),
        };
        match routes.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Why this hub wants no new clients, if it does not.
    fn not_serving(&self) -> Option<Status> {
        match self.access.door().phase() {
            Phase::Serving => None,
            Phase::Starting => Some(recovering()),
            Phase::Draining | Phase::Stopped => Some(status::of_command(&CommandError::Draining, "").status()),
        }
    }

    /// Whether this hub serves, for load balancers that look at the status of HTTP or at that of gRPC.
    fn ready(&self, method: &Method, headers: &HeaderMap) -> Response<Body> {
        if *method == Method::POST && is_grpc(headers) {
            return self.not_serving().unwrap_or_else(|| Status::ok("")).into_http();
        }
        let (code, text) = match (method, self.access.door().phase()) {
            (&Method::GET | &Method::HEAD, Phase::Serving) => (StatusCode::OK, "ok\n".to_owned()),
            (&Method::GET | &Method::HEAD, phase) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("{phase:?}\n").to_lowercase())
            }
            _ => {
                return refused(
                    method,
                    StatusCode::METHOD_NOT_ALLOWED,
                    "GET or HEAD, or POST of gRPC\n",
                    "GET, HEAD, POST",
                );
            }
        };
        told(method, code, text)
    }
}

fn recovering() -> Status {
    status::of_stream(&StreamError::Recovering).status()
}

/// Whether a request says that it is gRPC.
fn is_grpc(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return false };
    let kind = only.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    CONTENT_TYPES.iter().any(|known| known.eq_ignore_ascii_case(kind))
}

/// The refusal of a request that is no call. A page of another origin can make a browser send nearly anything but this
/// content type, so that a hub that its network or a client certificate protects is not reached through browsers.
fn not_grpc(method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
    if *method != Method::POST {
        let text = "This port speaks gRPC over HTTP/2: POST with content-type application/grpc. Load balancers may GET /readyz; \
                    metrics and probes are on the operator's port.\n";
        return Some(refused(method, StatusCode::METHOD_NOT_ALLOWED, text, "POST"));
    }
    let text = "This port speaks gRPC: content-type application/grpc or application/grpc+proto. It has no gRPC-Web and no JSON.\n";
    (!is_grpc(headers)).then(|| told(method, StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}

/// A refusal with the methods that would do.
fn refused(method: &Method, code: StatusCode, text: &'static str, allow: &'static str) -> Response<Body> {
    let mut response = told(method, code, text);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// A response for whoever does not speak gRPC.
fn told(method: &Method, code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    // The response to HEAD is the headers of the one to GET.
    let body = if *method == Method::HEAD { Body::empty() } else { Body::new(Full::new(text.into())) };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// For who speaks HTTP/1.
fn not_http2() -> Response<Body> {
    let text = "This port speaks gRPC over HTTP/2; health and metrics over HTTP/1 are on the operator's port.\n";
    let mut response = told(&Method::GET, StatusCode::UPGRADE_REQUIRED, text);
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("h2c"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade, close"));
    response
}
