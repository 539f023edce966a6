//! The headers of every response of the web listener: what browsers may do with it, and what pages of other origins may
//! read.

use axum::response::Response;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};

use super::origin::Source;

/// Headers that pages of other origins may send.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, last-event-id, x-grpc-web, x-user-agent, grpc-timeout, content-encoding, \
     connect-protocol-version, connect-timeout-ms, connect-content-encoding, connect-accept-encoding, ce-specversion, ce-id, ce-source, ce-type, \
     ce-time, ce-subject, traceparent, tracestate",
);
/// Headers that they may read.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "grpc-status, grpc-message, grpc-status-details-bin, connect-content-encoding, x-switchyard-cursor, \
     x-switchyard-caught-up, x-switchyard-gap, retry-after",
);
/// For how many seconds a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Whether a browser asks what a page may do, before it does it.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a page of a listed origin may do with a path that has these methods.
pub(super) fn preflight(methods: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(methods) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

/// What every response has besides its own.
pub(super) fn add(headers: &mut HeaderMap, source: &Source) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Source::Listed(origin) = source {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        headers
            .insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin"));
    }
}
