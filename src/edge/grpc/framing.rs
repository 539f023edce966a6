//! The framing of gRPC: what stands before a message, and what begins and ends a response.

use http::{HeaderMap, HeaderValue};
use tonic::Status;

/// The byte before every message that says whether it is compressed, and its length in four.
pub(super) const PREFIX_BYTES: usize = 5;

/// The prefix of a message of `len` bytes.
pub(super) fn prefix(len: usize) -> [u8; PREFIX_BYTES] {
    // A message is a batch of bounded size or holds one event: far below 4 GiB.
    let [a, b, c, d] = (len as u32).to_be_bytes();
    [0, a, b, c, d]
}

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
