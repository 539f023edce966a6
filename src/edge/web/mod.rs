//! The web listener: the way into the hub for browsers, scripts and plain HTTP clients.
//!
//! The room owns its paths, and what is checked on each of them before anything else: `Host`, `Origin`, the method and the
//! credential ([`access`]). Each door is a file or folder of its own. It decides nothing about events: sessions, publishing
//! and rights are those of every edge. The port of gRPC is another one, which no page can reach.

mod access;
mod headers;
mod issue;
mod options;
mod origin;
mod pages;
mod refusal;
mod state;
mod ticket;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use tonic::Code;

pub use access::{PATHS, Path};
pub use options::{Options, WebListen};
pub use state::Web;

use crate::edge::wire::status;
use refusal::Refusal;

/// Everything the web listener serves.
pub fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/v1/ticket", post(issue::serve))
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
