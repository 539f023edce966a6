//! The web listener: every way into the hub that browsers, scripts and plain HTTP clients use.
//!
//! The room owns its paths, and what is checked on each of them before anything else: `Host`, `Origin`, the method and the
//! credential ([`access`]). Each door is a file or folder of its own. It decides nothing about events: sessions, publishing
//! and rights are those of every edge. The port of gRPC is another one, which no page can reach.

mod access;
mod headers;
mod options;
mod origin;
mod pages;
mod refusal;
mod ticket;

use std::{convert::Infallible, fmt, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use tonic::Code;
use tower::util::BoxCloneSyncService;

pub use access::{PATHS, Path};
pub use options::{Options, WebListen};

use super::Door;
use crate::{edge::wire::status, hub::Hub, tasks::Tasks};
use refusal::Refusal;
use ticket::Tickets;

/// The services of gRPC, as the composition root hands them in.
pub type Grpc = BoxCloneSyncService<Request, Response<tonic::body::Body>, Infallible>;

/// What all doors of the web listener share.
pub struct Web {
    door: Door,
    options: Options,
    /// What runs the sessions of its clients.
    #[expect(dead_code, reason = "the doors are being built")]
    tasks: Tasks,
    tickets: Tickets,
    /// For those who speak gRPC-Web or Connect.
    #[expect(dead_code, reason = "the doors are being built")]
    grpc: Grpc,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Web {
    /// Behind a door, with the services of gRPC beside it.
    pub fn new(door: Door, options: Options, tasks: Tasks, grpc: Grpc) -> Arc<Self> {
        Arc::new(Self { door, options, tasks, tickets: Tickets::default(), grpc })
    }

    /// The hub, once its store is open.
    #[expect(dead_code, reason = "the doors are being built")]
    fn hub(&self) -> Result<&Arc<Hub>, Refusal> {
        self.door.hub().map_err(|error| status::of_stream(&error).into())
    }
}

/// Everything the web listener serves.
pub fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/v1/ticket", post(ticket::issue))
        .fallback(elsewhere)
        .layer(middleware::from_fn_with_state(Arc::clone(&web), access::check))
        .with_state(web)
}

/// What is on no path: a page, if the hub serves any.
async fn elsewhere(State(web): State<Arc<Web>>, request: Request) -> Response {
    let path = status::shown(request.uri().path());
    if let Some(page) = pages::find(&web.options.pages, request).await {
        return page;
    }
    let text = format!("there is nothing at {path}: docs/web.md has the paths");
    Refusal::new(StatusCode::NOT_FOUND, Code::NotFound, text).into_response()
}
