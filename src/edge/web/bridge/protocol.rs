//! Which protocol a request speaks, by its method and its headers, and what is answered where it speaks none. Pure.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tonic::body::Body;

use super::calls::Call;

/// In what form messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Proto,
    Json,
}

/// What a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC-Web; as text in either direction, or not.
    Web { codec: Codec, text_in: bool, text_out: bool },
    /// A unary call of Connect by POST: the body is the message.
    Unary(Codec),
    /// One by GET, whose message is in the query.
    Get,
    /// Any other call of Connect: the body is envelopes.
    Stream(Codec),
}

/// Why a request is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoCall {
    /// By another method than these.
    Method(&'static str),
    /// In a form that the call does not take, of which these are.
    Content(&'static str),
}

const OF_UNARY: &str = "application/json, application/proto, application/grpc-web+proto, application/grpc-web+json, \
                        application/grpc-web-text+proto";
const OF_SERVER_STREAM: &str = "application/connect+json, application/connect+proto, application/grpc-web+proto, \
                                application/grpc-web+json, application/grpc-web-text+proto";
const OF_CLIENT_STREAM: &str = "application/connect+json, application/connect+proto";

impl Protocol {
    /// What a request speaks; `call` is what it asks for, if there is such a call.
    pub(super) fn of(method: &Method, headers: &HeaderMap, call: Option<&Call>) -> Result<Self, NoCall> {
        let safe = call.is_some_and(|call| call.safe);
        match *method {
            Method::POST => {}
            Method::GET if safe => return Ok(Self::Get),
            _ => return Err(NoCall::Method(if safe { "GET, POST" } else { "POST" })),
        }
        let protocol = by_content(headers).ok_or(NoCall::Content(forms_of(call)))?;
        let fits = match (protocol, call) {
            (_, None) | (Self::Web { .. }, _) => true,
            (Self::Stream(_), Some(call)) => !call.is_unary(),
            (Self::Unary(_) | Self::Get, Some(call)) => call.is_unary(),
        };
        if fits { Ok(protocol) } else { Err(NoCall::Content(forms_of(call))) }
    }

    /// How its responses say what they are.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Web { codec: Codec::Proto, text_out: false, .. } => "application/grpc-web+proto",
            Self::Web { codec: Codec::Proto, text_out: true, .. } => "application/grpc-web-text+proto",
            Self::Web { codec: Codec::Json, text_out: false, .. } => "application/grpc-web+json",
            Self::Web { codec: Codec::Json, text_out: true, .. } => "application/grpc-web-text+json",
            Self::Unary(Codec::Proto) => "application/proto",
            Self::Unary(Codec::Json) | Self::Get => "application/json",
            Self::Stream(Codec::Proto) => "application/connect+proto",
            Self::Stream(Codec::Json) => "application/connect+json",
        })
    }
}

impl NoCall {
    /// The answer to who speaks none of the protocols.
    pub(super) fn response(self) -> Response<Body> {
        let (status, name, value, text) = match self {
            Self::Method(methods) => {
                let text = format!("This call is made by {}.\n", methods.replace(", ", " or "));
                (StatusCode::METHOD_NOT_ALLOWED, header::ALLOW, methods, text)
            }
            Self::Content(types) => {
                let text =
                    format!("This call takes one of these content types: {types}. Plain gRPC is on the main port.\n");
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, header::HeaderName::from_static("accept-post"), types, text)
            }
        };
        let mut response = Response::new(Body::new(http_body_util::Full::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}

fn forms_of(call: Option<&Call>) -> &'static str {
    match call {
        Some(call) if call.client_streams => OF_CLIENT_STREAM,
        Some(call) if call.server_streams => OF_SERVER_STREAM,
        _ => OF_UNARY,
    }
}

/// True for a request that speaks one of the protocols, and not only JSON, which many do.
pub(super) fn is_ours(headers: &HeaderMap) -> bool {
    match by_content(headers) {
        Some(Protocol::Unary(Codec::Json)) => headers.contains_key("connect-protocol-version"),
        protocol => protocol.is_some(),
    }
}

/// By the one header that says so. A page of another origin cannot have a browser send any of these content types without
/// asking first, which is what keeps it out.
fn by_content(headers: &HeaderMap) -> Option<Protocol> {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (kind, parameters) = split(only.to_str().ok()?);
    let protocol = match &*kind.to_ascii_lowercase() {
        "application/proto" => Protocol::Unary(Codec::Proto),
        "application/json" => Protocol::Unary(Codec::Json),
        "application/connect+proto" => Protocol::Stream(Codec::Proto),
        "application/connect+json" => Protocol::Stream(Codec::Json),
        "application/grpc-web" | "application/grpc-web+proto" => web(Codec::Proto, false, headers),
        "application/grpc-web+json" => web(Codec::Json, false, headers),
        "application/grpc-web-text" | "application/grpc-web-text+proto" => web(Codec::Proto, true, headers),
        "application/grpc-web-text+json" => web(Codec::Json, true, headers),
        _ => return None,
    };
    parameters.split(';').all(is_harmless).then_some(protocol)
}

/// Who sends text gets text, and so does who asks for it.
fn web(codec: Codec, text_in: bool, headers: &HeaderMap) -> Protocol {
    let asks = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("application/grpc-web-text"));
    Protocol::Web { codec, text_in, text_out: text_in || headers.get_all(header::ACCEPT).iter().any(asks) }
}

fn split(content_type: &str) -> (&str, &str) {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    (kind.trim(), parameters)
}

/// False for a parameter that says that the text is in another encoding than ours.
fn is_harmless(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::calls::Form, *};

    fn headers(content_type: &str, accept: &str) -> HeaderMap {
        let of = |value: &str| HeaderValue::from_str(value).expect(value);
        [(header::CONTENT_TYPE, of(content_type)), (header::ACCEPT, of(accept))].into_iter().collect()
    }

    fn of(content_type: &str, call: Option<&Call>) -> Result<Protocol, NoCall> {
        Protocol::of(&Method::POST, &headers(content_type, "*/*"), call)
    }

    fn call(client_streams: bool, server_streams: bool, safe: bool) -> Call {
        let form: Arc<dyn Form> = Arc::new(crate::json::message("switchyard.v1.Event").expect("a message"));
        Call { client_streams, server_streams, safe, request: Arc::clone(&form), response: form }
    }

    #[test]
    fn the_content_type_says_what_a_request_speaks() {
        let unary = call(false, false, false);
        for (content_type, wanted) in [
            ("application/json", Some(Protocol::Unary(Codec::Json))),
            ("Application/JSON ; Charset=\"UTF-8\"", Some(Protocol::Unary(Codec::Json))),
            ("application/json; charset=latin1", None),
            ("application/proto", Some(Protocol::Unary(Codec::Proto))),
            ("application/grpc", None),
            ("application/x-protobuf", None),
            ("text/plain", None),
            ("", None),
            ("application/connect+json", None),
        ] {
            assert_eq!(of(content_type, Some(&unary)), wanted.ok_or(NoCall::Content(OF_UNARY)), "{content_type}");
        }
        let stream = call(false, true, false);
        assert_eq!(of("application/connect+json", Some(&stream)), Ok(Protocol::Stream(Codec::Json)));
        assert_eq!(of("application/json", Some(&stream)), Err(NoCall::Content(OF_SERVER_STREAM)));
        assert_eq!(of("application/json", Some(&call(true, true, false))), Err(NoCall::Content(OF_CLIENT_STREAM)));
        assert_eq!(
            of("application/json", None),
            Ok(Protocol::Unary(Codec::Json)),
            "who serves calls says what there is"
        );
        let twice = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut twice: HeaderMap = twice.into_iter().collect();
        twice.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(Protocol::of(&Method::POST, &twice, None).is_err());
    }

    #[test]
    fn text_is_answered_to_whoever_sends_it_or_asks_for_it() {
        let of = |content_type, accept| Protocol::of(&Method::POST, &headers(content_type, accept), None);
        for (content_type, accept, text_in, text_out) in [
            ("application/grpc-web", "*/*", false, false),
            ("application/grpc-web+proto", "application/grpc-web-text", false, true),
            ("application/grpc-web-text", "application/grpc-web-text", true, true),
            ("application/grpc-web-text+proto", "*/*", true, true),
        ] {
            let wanted = Protocol::Web { codec: Codec::Proto, text_in, text_out };
            assert_eq!(of(content_type, accept), Ok(wanted), "{content_type} {accept}");
        }
    }

    #[test]
    fn only_calls_without_side_effects_are_made_by_get() {
        let of = |method, safe| Protocol::of(&method, &HeaderMap::new(), Some(&call(false, false, safe)));
        assert_eq!(of(Method::GET, true), Ok(Protocol::Get));
        assert_eq!(of(Method::GET, false), Err(NoCall::Method("POST")));
        assert_eq!(of(Method::PUT, true), Err(NoCall::Method("GET, POST")));
        assert_eq!(of(Method::HEAD, true), Err(NoCall::Method("GET, POST")));
        let refused = NoCall::Method("GET, POST").response();
        assert_eq!((refused.status().as_u16(), refused.headers()["allow"].to_str().ok()), (405, Some("GET, POST")));
        let refused = NoCall::Content(OF_UNARY).response();
        assert_eq!((refused.status().as_u16(), refused.headers()["accept-post"].to_str().ok()), (415, Some(OF_UNARY)));
    }
}
