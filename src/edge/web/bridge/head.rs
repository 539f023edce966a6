//! The headers of Connect and gRPC-Web as those of gRPC, and back. Pure.
//!
//! Whatever is not the protocol's is somebody's metadata and goes through as it is.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Connect's headers, and those that say how the body was sent, which is between the client and the bridge.
const NOT_PASSED_ON: [HeaderName; 16] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::EXPECT,
    header::TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("grpc-accept-encoding"),
    VERSION,
    TIMEOUT,
    ENCODING,
    HeaderName::from_static("connect-accept-encoding"),
];

const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The most digits of a timeout, in Connect and in gRPC.
const MAX_TIMEOUT_DIGITS: usize = 10;
const MAX_GRPC_TIMEOUT_DIGITS: usize = 8;

/// Why the headers of a call are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    #[error("connect-protocol-version must be 1")]
    Version,
    #[error("connect-timeout-ms must be 1 to 10 digits, and sent once")]
    Timeout,
    /// Not a mistake of the client's but something the hub does not have.
    #[error("requests are taken without compression, or with gzip")]
    Compression,
}

/// How the messages of a request may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
}

/// Where a request of Connect says how its messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoded<'a> {
    /// In the header of the body, for its one message.
    Body,
    /// In a header of its own, for each of its messages.
    Messages,
    /// In the query.
    Query(Option<&'a str>),
}

/// Makes the headers of a call of Connect those of one of gRPC, and says how its messages are compressed.
pub(super) fn of_connect(headers: &mut HeaderMap, encoded: Encoded<'_>) -> Result<Compression, BadHead> {
    let version = only(headers, &VERSION).map_err(|()| BadHead::Version)?;
    if version.is_some_and(|version| version != "1") {
        return Err(BadHead::Version);
    }
    let timeout = match only(headers, &TIMEOUT).map_err(|()| BadHead::Timeout)? {
        None => None,
        Some(timeout) => Some(grpc_timeout(timeout.as_bytes()).ok_or(BadHead::Timeout)?),
    };
    let of_header = |name| match only(headers, name) {
        Ok(value) => compression(value.map(HeaderValue::as_bytes)),
        Err(()) => Err(BadHead::Compression),
    };
    let compression = match encoded {
        Encoded::Body => of_header(&header::CONTENT_ENCODING)?,
        Encoded::Messages => of_header(&ENCODING)?,
        Encoded::Query(name) => compression(name.map(str::as_bytes))?,
    };
    for name in [GRPC_TIMEOUT, GRPC_ENCODING] {
        headers.remove(name);
    }
    if let Some(timeout) = timeout {
        headers.insert(GRPC_TIMEOUT, timeout);
    }
    if compression == Compression::Gzip {
        headers.insert(GRPC_ENCODING, HeaderValue::from_static("gzip"));
    }
    of_web(headers);
    Ok(compression)
}

/// Makes the headers of a call of gRPC-Web those of one of gRPC.
pub(super) fn of_web(headers: &mut HeaderMap) {
    for name in &NOT_PASSED_ON {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Metadata that came behind the message of a unary call, as headers before it.
pub(super) fn add_trailers(headers: &mut HeaderMap, trailers: &HeaderMap) {
    for (name, value) in trailers.iter().filter(|(name, _)| !super::ending::is_of_grpc(name)) {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ()> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(()),
        (value, None) => Ok(value),
    }
}

fn compression(name: Option<&[u8]>) -> Result<Compression, BadHead> {
    match name {
        None | Some(b"" | b"identity") => Ok(Compression::None),
        Some(b"gzip") => Ok(Compression::Gzip),
        Some(_) => Err(BadHead::Compression),
    }
}

/// Milliseconds as gRPC has a timeout, in seconds where that has too few digits.
fn grpc_timeout(digits: &[u8]) -> Option<HeaderValue> {
    if digits.is_empty() || digits.len() > MAX_TIMEOUT_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let ms = digits.iter().fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0'));
    let timeout = if ms < 10_u64.pow(MAX_GRPC_TIMEOUT_DIGITS as u32) {
        format!("{ms}m")
    } else {
        format!("{}S", ms.div_ceil(1000))
    };
    HeaderValue::try_from(timeout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let of = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        pairs.iter().map(of).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    #[test]
    fn headers_of_a_call_are_those_of_grpc_and_metadata_goes_through() {
        let mut got = headers(&[
            ("content-type", "application/json"),
            ("content-length", "2"),
            ("connect-protocol-version", "1"),
            ("connect-timeout-ms", "1500"),
            ("content-encoding", "gzip"),
            ("accept-encoding", "br"),
            ("grpc-timeout", "1n"),
            ("authorization", "Bearer x"),
            ("x-mine", "1"),
            ("x-mine", "2"),
            ("x-mine-bin", "AAE"),
        ]);
        assert_eq!(of_connect(&mut got, Encoded::Body), Ok(Compression::Gzip));
        let wanted = headers(&[
            ("content-type", "application/grpc+proto"),
            ("te", "trailers"),
            ("grpc-timeout", "1500m"),
            ("grpc-encoding", "gzip"),
            ("authorization", "Bearer x"),
            ("x-mine", "1"),
            ("x-mine", "2"),
            ("x-mine-bin", "AAE"),
        ]);
        assert_eq!(got, wanted);
    }

    #[test]
    fn a_timeout_has_no_more_digits_than_grpc_allows() {
        for (ms, wanted) in [
            ("0", Some("0m")),
            ("99999999", Some("99999999m")),
            ("100000000", Some("100000S")),
            ("100000001", Some("100001S")),
            ("9999999999", Some("10000000S")),
            ("0000000001", Some("1m")),
            ("", None),
            ("10000000000", None),
            ("1s", None),
            ("-1", None),
            ("1.5", None),
        ] {
            let got = of_connect(&mut headers(&[("connect-timeout-ms", ms)]), Encoded::Body);
            assert_eq!(got.is_ok(), wanted.is_some(), "{ms}");
            assert_eq!(grpc_timeout(ms.as_bytes()), wanted.map(HeaderValue::from_static), "{ms}");
        }
        let mut twice = headers(&[("connect-timeout-ms", "1"), ("connect-timeout-ms", "1")]);
        assert_eq!(of_connect(&mut twice, Encoded::Body), Err(BadHead::Timeout));
    }

    #[test]
    fn compression_is_read_where_the_kind_of_call_has_it() {
        let gzip = || headers(&[("content-encoding", "gzip"), ("connect-content-encoding", "identity")]);
        assert_eq!(of_connect(&mut gzip(), Encoded::Body), Ok(Compression::Gzip));
        assert_eq!(of_connect(&mut gzip(), Encoded::Messages), Ok(Compression::None));
        assert_eq!(of_connect(&mut gzip(), Encoded::Query(Some("gzip"))), Ok(Compression::Gzip));
        assert_eq!(of_connect(&mut gzip(), Encoded::Query(Some("br"))), Err(BadHead::Compression));
        let mut two = headers(&[("content-encoding", "gzip, gzip")]);
        assert_eq!(of_connect(&mut two, Encoded::Body), Err(BadHead::Compression));
        let mut version = headers(&[("connect-protocol-version", "2")]);
        assert_eq!(of_connect(&mut version, Encoded::Messages), Err(BadHead::Version));
    }

    #[test]
    fn trailers_of_a_unary_call_come_before_its_message() {
        let mut got = headers(&[("x-first", "1")]);
        add_trailers(
            &mut got,
            &headers(&[("x-last", "2"), ("x-last-bin", "AAE"), ("content-type", "application/grpc")]),
        );
        assert_eq!(got, headers(&[("x-first", "1"), ("trailer-x-last", "2"), ("trailer-x-last-bin", "AAE")]));
    }
}
