//! How a call ended: read from the trailers of gRPC, written as gRPC-Web and as Connect have it. Pure.
//!
//! The same three things everywhere, a code, a message and details, with whatever metadata the service added. Why a call
//! ended is not decided here; what the hub refuses itself is worded in `edge/wire/status.rs`.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode;
use prost::Message as _;
use serde::Serialize;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::pb;

use super::{
    super::refusal::of_code,
    envelope::{END_OF_STREAM, TRAILERS, enveloped},
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Headers of gRPC that say how messages are sent: no metadata of anybody's.
const OF_GRPC: [&str; 3] = ["grpc-encoding", "grpc-accept-encoding", "grpc-timeout"];

/// Base64 as binary headers have it: with padding or without, written without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the type of a detail begins with; Connect leaves it out.
const TYPE_URL: &str = "type.googleapis.com/";

/// The form of a detail for people, given its type and its bytes; `None` for a type that is not known.
pub(super) type Debug<'a> = &'a dyn Fn(&str, &[u8]) -> Option<Value>;

/// How a call ended, and the metadata that came with it.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    code: Code,
    message: String,
    /// An encoded `google.rpc.Status`; empty when there are none.
    details: Bytes,
    pub(super) metadata: HeaderMap,
}

/// An error as Connect has it.
#[derive(Debug, Serialize)]
struct ErrorJson<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<DetailJson>,
}

#[derive(Debug, Serialize)]
struct DetailJson {
    r#type: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<Value>,
}

/// What the last envelope of a stream holds.
#[derive(Debug, Serialize)]
struct EndJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson<'a>>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    metadata: serde_json::Map<String, Value>,
}

impl From<Status> for Ending {
    fn from(status: Status) -> Self {
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            details: Bytes::copy_from_slice(status.details()),
            metadata: status.metadata().clone().into_headers(),
        }
    }
}

impl Ending {
    /// One that no service has worded.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Bytes::new(), metadata: HeaderMap::new() }
    }

    /// What these trailers say, or the headers of a response that has nothing else; `None` if they say nothing.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let code = Code::from_bytes(headers.get(STATUS)?.as_bytes());
        let message = headers.get(MESSAGE).map(|text| percent_decode(text.as_bytes()).decode_utf8_lossy().into_owned());
        let details = headers.get(DETAILS).and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let mut metadata = headers.clone();
        for name in [STATUS, MESSAGE, DETAILS] {
            metadata.remove(name);
        }
        Some(Self { code, message: message.unwrap_or_default(), details: details.unwrap_or_default().into(), metadata })
    }

    /// The end of a call whose service has broken off without a word.
    pub(super) fn missing() -> Self {
        Self::new(Code::Internal, "the call ended without a status")
    }

    pub(super) fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }

    /// The status of HTTP that Connect's unary calls end with.
    pub(super) fn http_status(&self) -> StatusCode {
        of_code(self.code)
    }

    /// How long to wait before trying again, in whole seconds, if the details say so.
    pub(super) fn retry_after(&self) -> Option<HeaderValue> {
        let details = self.decoded().details;
        let retry = details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
        let delay = pb::RetryInfo::decode(&*retry.value).ok()?.retry_delay?;
        let seconds = delay.seconds.saturating_add(i64::from(delay.nanos > 0)).max(0);
        Some(HeaderValue::from(seconds))
    }

    /// As the body of a unary response of Connect.
    pub(super) fn connect_error(&self, debug: Debug<'_>) -> Vec<u8> {
        json(&self.error(debug))
    }

    /// As the last envelope of a stream of Connect.
    pub(super) fn connect_end(&self, debug: Debug<'_>) -> Bytes {
        let error = (!self.is_ok()).then(|| self.error(debug));
        let mut metadata = serde_json::Map::new();
        for name in self.metadata.keys().filter(|name| !is_of_grpc(name)) {
            metadata.insert(name.to_string(), self.metadata.get_all(name).iter().map(text).collect());
        }
        enveloped(END_OF_STREAM, &json(&EndJson { error, metadata }))
    }

    /// As the last frame of gRPC-Web.
    pub(super) fn web_trailers(&self) -> Bytes {
        let mut block = BytesMut::new();
        for (name, value) in &self.grpc_headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                block.put_slice(part);
            }
        }
        enveloped(TRAILERS, &block)
    }

    /// As the headers of a response that has nothing else.
    pub(super) fn grpc_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let metadata = tonic::metadata::MetadataMap::from_headers(self.metadata.clone());
        let status = Status::with_details_and_metadata(self.code, &*self.message, self.details.clone(), metadata);
        if status.add_header(&mut headers).is_err() {
            // Only a message that no header can hold, and percent-encoding leaves none.
            headers.insert(STATUS, HeaderValue::from_static("13"));
        }
        headers
    }

    fn decoded(&self) -> pb::Status {
        pb::Status::decode(&*self.details).unwrap_or_default()
    }

    fn error(&self, debug: Debug<'_>) -> ErrorJson<'_> {
        let details = self.decoded().details.into_iter().map(|any| {
            let name = any.type_url.strip_prefix(TYPE_URL).unwrap_or(&any.type_url);
            DetailJson { debug: debug(name, &any.value), value: BASE64.encode(&any.value), r#type: name.to_owned() }
        });
        ErrorJson { code: code_name(self.code), message: &self.message, details: details.collect() }
    }
}

/// True for a header that only says how messages are sent.
pub(super) fn is_of_grpc(name: &HeaderName) -> bool {
    *name == http::header::CONTENT_TYPE || OF_GRPC.contains(&name.as_str())
}

/// Without the headers that say how a call ended and how its messages are sent.
pub(super) fn without_grpc(headers: &mut HeaderMap) {
    for name in OF_GRPC {
        headers.remove(name);
    }
    for name in [STATUS, MESSAGE, DETAILS, http::header::CONTENT_TYPE, http::header::CONTENT_LENGTH] {
        headers.remove(name);
    }
}

/// The code in the words of Connect.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
        // There is no error without a code.
        Code::Unknown | Code::Ok => "unknown",
    }
}

fn text(value: &HeaderValue) -> Value {
    String::from_utf8_lossy(value.as_bytes()).into_owned().into()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Fails only for maps whose keys are no strings.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn no_debug(_: &str, _: &[u8]) -> Option<Value> {
        None
    }

    fn headers(status: &Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).expect("headers");
        headers
    }

    fn refused() -> Ending {
        let mut details = ErrorDetails::with_error_info("STREAM_NOT_FOUND", "switchyard", [("a".into(), "1".into())]);
        details.set_retry_info(Some(std::time::Duration::from_millis(1500)));
        let mut status = Status::with_error_details(Code::NotFound, "no stream \"ä\" 100%", details);
        status.metadata_mut().insert("x-of-the-service", "1".parse().expect("a value"));
        Ending::of(&headers(&status)).expect("a status")
    }

    #[test]
    fn an_error_is_what_connect_has_for_it() {
        let ending = refused();
        let known = |name: &str, _: &[u8]| (name == "google.rpc.ErrorInfo").then(|| serde_json::json!({"a": 1}));
        let error: Value = serde_json::from_slice(&ending.connect_error(&known)).expect("JSON");
        assert_eq!(
            (error["code"].as_str(), error["message"].as_str()),
            (Some("not_found"), Some("no stream \"ä\" 100%"))
        );
        let details = error["details"].as_array().expect("details");
        let of = |name: &str| details.iter().find(|detail| detail["type"] == name).expect("a detail");
        let info = of("google.rpc.ErrorInfo");
        assert_eq!((details.len(), &info["debug"]["a"]), (2, &1.into()));
        assert_eq!(of("google.rpc.RetryInfo")["debug"], Value::Null);
        let value = BASE64.decode(info["value"].as_str().expect("text")).expect("base64");
        assert_eq!(pb::ErrorInfo::decode(&*value).expect("it decodes").reason, "STREAM_NOT_FOUND");
        assert_eq!(ending.http_status(), StatusCode::NOT_FOUND);
        assert_eq!(ending.retry_after(), Some(HeaderValue::from_static("2")));
    }

    #[test]
    fn a_stream_ends_with_its_error_and_its_metadata() {
        let end = refused().connect_end(&no_debug);
        assert_eq!(end[0], END_OF_STREAM);
        let end: Value = serde_json::from_slice(&end[5..]).expect("JSON");
        assert_eq!(
            (&end["error"]["code"], &end["metadata"]["x-of-the-service"][0]),
            (&"not_found".into(), &"1".into())
        );
        let ok = Ending::of(&headers(&Status::ok(""))).expect("a status");
        assert_eq!(ok.connect_end(&no_debug)[5..], b"{}"[..]);
        assert!(ok.is_ok() && ok.retry_after().is_none());
    }

    #[test]
    fn trailers_of_grpc_web_are_those_of_grpc() {
        let frame = refused().web_trailers();
        assert_eq!(frame[0], TRAILERS);
        let block = std::str::from_utf8(&frame[5..]).expect("ASCII");
        for line in
            ["grpc-status: 5\r\n", "grpc-message: no%20stream%20%22%C3%A4%22%20100%25\r\n", "x-of-the-service: 1\r\n"]
        {
            assert!(block.contains(line), "{block}");
        }
        assert!(block.contains("grpc-status-details-bin: "), "{block}");
    }

    #[test]
    fn every_code_has_a_name_and_a_status_of_its_own_kind() {
        let of = |code| {
            let ending = Ending::new(code, "");
            (code_name(code), ending.http_status().as_u16())
        };
        let all: Vec<_> = (1..=16).map(|number| of(Code::from_i32(number))).collect();
        let wanted = [
            ("canceled", 499),
            ("unknown", 500),
            ("invalid_argument", 400),
            ("deadline_exceeded", 504),
            ("not_found", 404),
            ("already_exists", 409),
            ("permission_denied", 403),
            ("resource_exhausted", 429),
            ("failed_precondition", 400),
            ("aborted", 409),
            ("out_of_range", 400),
            ("unimplemented", 501),
            ("internal", 500),
            ("unavailable", 503),
            ("data_loss", 500),
            ("unauthenticated", 401),
        ];
        assert_eq!(all, wanted);
    }

    #[test]
    fn what_is_no_status_or_a_damaged_one_is_read_all_the_same() {
        assert!(Ending::of(&HeaderMap::new()).is_none());
        let damaged = [("grpc-status", "x"), ("grpc-message", "%ff%"), ("grpc-status-details-bin", "***")];
        let headers = damaged.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let ending = Ending::of(&headers.into_iter().collect()).expect("a status");
        assert_eq!((ending.code, &*ending.message, ending.details.len()), (Code::Unknown, "\u{fffd}%", 0));
    }

    proptest! {
        #[test]
        fn an_ending_is_the_same_behind_headers(code in 1..=16, message in any::<String>(), details: Vec<u8>) {
            let mut before = Ending::new(Code::from_i32(code), message);
            before.details = details.into();
            let after = Ending::of(&before.grpc_headers()).expect("a status");
            prop_assert_eq!((after.code, after.message, after.details), (before.code, before.message, before.details));
        }
    }
}
