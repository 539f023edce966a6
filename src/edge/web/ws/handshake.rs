//! How a WebSocket begins: a request over HTTP/1.1 that asks for an upgrade (RFC 6455), or an extended CONNECT over HTTP/2
//! (RFC 8441), and the subprotocol that both sides speak.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body::Body;
use sha1::{Digest, Sha1};
use tonic::Code;

use crate::{edge::web::refusal::Refusal, net::TunnelProtocol};

/// The subprotocol with messages in JSON.
pub(super) const JSON: &str = "switchyard.v1.json";
/// The one with messages in protobuf.
pub(super) const PROTOBUF: &str = "switchyard.v1.proto";

const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What RFC 6455 puts behind a key, so that nobody answers who doesn't know WebSocket.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The length of a key before base64.
const KEY_BYTES: usize = 16;

/// A request that begins a WebSocket as it should.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    /// The answer to the key, over HTTP/1.
    accept: Option<HeaderValue>,
    /// One of those that both sides know.
    pub(super) protocol: &'static str,
}

impl Handshake {
    /// Checks a request. Credentials among the subprotocols are for others.
    pub(super) fn of<B: Body>(request: &Request<B>) -> Result<Self, Refusal> {
        let headers = request.headers();
        let tunnel = request.extensions().get::<TunnelProtocol>();
        if request.method() == Method::CONNECT {
            if tunnel.is_none_or(|tunnel| tunnel.name() != "websocket") {
                return Err(bad("a CONNECT must be for the protocol websocket"));
            }
            check_version(headers)?;
            return Ok(Self { accept: None, protocol: protocol(headers)? });
        }
        let asks = lists(headers, &UPGRADE, "websocket") && lists(headers, &CONNECTION, "upgrade");
        if !asks || request.version() != Version::HTTP_11 {
            let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, Code::InvalidArgument, "this is for WebSockets");
            return Err(refusal.with(UPGRADE, WEBSOCKET).with(CONNECTION, HeaderValue::from_static("upgrade")));
        }
        check_version(headers)?;
        let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if BASE64_STANDARD.decode(key).map_or(0, |key| key.len()) != KEY_BYTES {
            return Err(bad("sec-websocket-key must be 16 bytes in base64"));
        }
        if !request.body().is_end_stream() {
            return Err(bad("the request must have no body"));
        }
        Ok(Self { accept: Some(answer(key)), protocol: protocol(headers)? })
    }

    /// Whether it is the connection that is taken over, not a stream of HTTP/2.
    pub(super) fn upgrades(&self) -> bool {
        self.accept.is_some()
    }

    /// The response that lets the WebSocket begin.
    pub(super) fn response<B>(self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        if let Some(accept) = self.accept {
            headers.insert(UPGRADE, WEBSOCKET);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        response
    }
}

/// The answer to a key.
pub(super) fn answer(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(MAGIC).finalize();
    // Base64 is ASCII.
    HeaderValue::from_str(&BASE64_STANDARD.encode(digest)).unwrap_or(HeaderValue::from_static(""))
}

fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.get(SEC_WEBSOCKET_VERSION) == Some(&VERSION) {
        return Ok(());
    }
    let text = "the version of WebSocket must be 13";
    let refusal = Refusal::new(StatusCode::UPGRADE_REQUIRED, Code::InvalidArgument, text);
    Err(refusal.with(UPGRADE, WEBSOCKET).with(SEC_WEBSOCKET_VERSION, VERSION))
}

/// The first subprotocol that both sides know.
fn protocol(headers: &HeaderMap) -> Result<&'static str, Refusal> {
    let mut offered = elements(headers, &SEC_WEBSOCKET_PROTOCOL);
    let known = offered.find_map(|offered| [JSON, PROTOBUF].into_iter().find(|known| *known == offered));
    known.ok_or_else(|| bad(format!("sec-websocket-protocol must offer {JSON} or {PROTOBUF}")))
}

/// Whether a header lists a token, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, text)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "other, switchyard.v1.json"),
    ];

    fn check(headers: &[(&str, &str)]) -> Result<Handshake, StatusCode> {
        let mut request = Request::builder().uri("/v1/ws");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        of(request.body(String::new()))
    }

    fn of(request: http::Result<Request<String>>) -> Result<Handshake, StatusCode> {
        Handshake::of(&request.expect("a request")).map_err(|refusal| refusal.into_response().status())
    }

    /// The good headers with another value for one; none for an empty one.
    fn with(name: &str, value: &str) -> Result<Handshake, StatusCode> {
        let headers = GOOD.map(|(known, good)| (known, if known == name { value } else { good }));
        check(&headers.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>())
    }

    #[test]
    fn the_key_of_the_standard_has_the_answer_of_the_standard() {
        let shake = check(&GOOD).expect("good");
        assert_eq!((shake.protocol, shake.upgrades()), (JSON, true));
        let response = shake.response(());
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], JSON);
    }

    #[test]
    fn whatever_is_missing_or_wrong_is_refused() {
        let (bad, upgrade) = (Err(StatusCode::BAD_REQUEST), Err(StatusCode::UPGRADE_REQUIRED));
        assert_eq!(check(&[]), upgrade);
        assert_eq!(with("upgrade", "h2c"), upgrade);
        assert_eq!(with("connection", "close"), upgrade);
        assert_eq!(with("sec-websocket-version", "8"), upgrade);
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==, a", "c2hvcnQ="] {
            assert_eq!(with("sec-websocket-key", key), bad, "{key}");
        }
        for protocol in ["", "chat", "switchyard.v1", "SWITCHYARD.V1.JSON", "switchyard.bearer.abc"] {
            assert_eq!(with("sec-websocket-protocol", protocol), bad, "{protocol}");
        }
    }

    #[test]
    fn only_a_request_of_http_1_1_without_a_body_is_upgraded() {
        let with = |version, body: &str| {
            let mut request = Request::builder().version(version);
            for (name, value) in GOOD {
                request = request.header(name, value);
            }
            of(request.body(body.to_owned())).map(|shake| shake.protocol)
        };
        assert_eq!(with(Version::HTTP_11, ""), Ok(JSON));
        assert_eq!(with(Version::HTTP_11, "a body"), Err(StatusCode::BAD_REQUEST));
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(with(version, ""), Err(StatusCode::UPGRADE_REQUIRED), "{version:?}");
        }
    }

    #[test]
    fn the_client_says_which_subprotocol_it_likes_best() {
        let protocol = |offered| with("sec-websocket-protocol", offered).map(|shake| shake.protocol);
        assert_eq!(protocol("switchyard.v1.proto,switchyard.v1.json"), Ok(PROTOBUF));
        assert_eq!(protocol("switchyard.bearer.abc, switchyard.v1.json, switchyard.v1.proto"), Ok(JSON));
        let mut two = GOOD.to_vec();
        two[4].1 = "chat";
        two.push(("sec-websocket-protocol", PROTOBUF));
        assert_eq!(check(&two).map(|shake| shake.protocol), Ok(PROTOBUF), "in a header of its own");
    }

    #[test]
    fn over_http2_there_is_no_key() {
        let connect = |headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(Method::CONNECT).uri("https://a/v1/ws");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            of(request.body(String::new()))
        };
        assert!(connect(&GOOD[2..]).is_err(), "for nothing in particular");
    }
}
