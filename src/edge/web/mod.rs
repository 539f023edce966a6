//! The web listener: every way into the hub that browsers, scripts and plain HTTP clients use.
//!
//! The room owns its paths, and what is checked on each of them before anything else: `Host`, `Origin`, the method and the
//! credential ([`access`]). Each door is a file or folder of its own. It decides nothing about events: sessions, publishing
//! and rights are those of every edge. The port of gRPC is another one, which no page can reach.

mod access;
mod body;
mod bridge;
mod cloud_events;
mod headers;
mod issue;
mod media;
mod messages;
mod options;
mod origin;
mod pages;
mod parked;
mod poll;
mod publish;
mod query;
mod refusal;
mod sse;
mod state;
mod ticket;
mod waiters;
mod ws;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::StatusCode;
use tonic::Code;

pub use access::{PATHS, Path};
pub use bridge::{Bridge, Calls, Form, Read, Reading};
pub use options::{Options, WebListen};
pub use state::{Grpc, Web};

use crate::edge::wire::status;
use refusal::Refusal;

/// Everything the web listener serves.
pub fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/v1/ticket", post(issue::serve))
        .route("/v1/ws", any(ws::serve))
        .route("/v1/events", get(sse::serve))
        .route("/v1/poll", any(poll::serve))
        .route("/v1/publish", post(publish::serve))
        .fallback(elsewhere)
        .layer(middleware::from_fn_with_state(Arc::clone(&web), access::check))
        .with_state(web)
}

/// What is on no path of [`PATHS`]: a call, or a page, if the hub serves any.
async fn elsewhere(State(web): State<Arc<Web>>, request: Request) -> Response {
    if web.bridge.wants(request.uri().path(), request.headers()) {
        let response = web.bridge.clone().serve(request.map(tonic::body::Body::new)).await;
        return response.map(axum::body::Body::new);
    }
    let path = status::shown(request.uri().path());
    if let Some(page) = pages::find(&web.options.pages, request).await {
        return page;
    }
    let text = format!("there is nothing at {path}: docs/web.md has the paths");
    Refusal::new(StatusCode::NOT_FOUND, Code::NotFound, text).into_response()
}
