//! Pages under development: files of one folder, which the operator names. They may load nothing from elsewhere.

use std::path::Path;

use axum::{body::Body, extract::Request, response::Response};
use http::{HeaderValue, Method, StatusCode, header::CONTENT_SECURITY_POLICY};
use tower::ServiceExt;
use tower_http::services::ServeDir;

/// Scripts, styles and connections of this hub, and pictures that a page makes itself.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'");

/// The file at the path of a request, if the folder has one. An empty folder has none.
pub(super) async fn find(folder: &Path, request: Request) -> Option<Response> {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    if folder.as_os_str().is_empty() || !is_read {
        return None;
    }
    let found = ServeDir::new(folder).oneshot(request).await.ok()?;
    if found.status() == StatusCode::NOT_FOUND {
        return None;
    }
    let mut page = found.map(Body::new);
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    Some(page)
}
