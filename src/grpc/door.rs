//! The door of the main port: who may come in, and whether there is anything to come in to yet.
//!
//! Until the store is open there are no services but health checks; everybody else is told to try again. It owns no
//! connection, and knows no call by name.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use http::{Request, Response, StatusCode, Version};
use tonic::{body::Body, service::Routes};
use tower::ServiceExt;

use super::{Access, health_routes, status};
use crate::{model::StreamError, net::Inbound, readiness::ReadinessView};

/// What every path of a health check begins with.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Lets requests in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    access: Access,
    /// All there is until the services are.
    health: Routes,
    services: Arc<OnceLock<Routes>>,
}

impl Door {
    /// One behind which there are only health checks so far.
    pub fn new(access: Access, readiness: ReadinessView) -> Self {
        Self { access, health: health_routes(readiness), services: Arc::default() }
    }

    /// From now on the services are behind it.
    pub fn open(&self, services: Routes) {
        self.services.get_or_init(|| services);
    }

    /// Sends HTTP/2 requests that may come in to the services, and tells everyone else what this port is.
    pub async fn serve_request(self, mut request: Request<Inbound>) -> Result<Response<Body>, Infallible> {
        if request.version() != Version::HTTP_2 {
            return Ok(not_here());
        }
        if let Err(status) = self.access.admit(&mut request).await {
            return Ok(status.into_http());
        }
        let routes = match self.services.get() {
            Some(services) => services.clone(),
            None if request.uri().path().starts_with(HEALTH) => self.health,
            None => return Ok(status::of_stream(&StreamError::Recovering).status().into_http()),
        };
        routes.oneshot(request).await.map(|response| response.map(Body::new))
    }
}

/// For who speaks HTTP/1.
fn not_here() -> Response<Body> {
    let text = "This port speaks gRPC over HTTP/2; health and metrics over HTTP/1 are on the operator's port.\n";
    let mut response = Response::new(Body::new(http_body_util::Full::from(text)));
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response.headers_mut().insert(http::header::UPGRADE, http::HeaderValue::from_static("h2c"));
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("upgrade, close"));
    response
}
