//! The framing of gRPC: what begins and ends a response.

use http::{HeaderMap, HeaderValue};
use tonic::Status;

/// The headers of a response that is not an error from the start.
pub(super) fn response<B>(body: B) -> http::Response<B> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The trailers that end a stream with `status`.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Only a status with a message or details that no header can hold; ours are short ASCII.
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}
