//! What is checked before a door sees a request: the names in it, its path and method, and who sends it.
//!
//! A path without a row here is open to nobody. Rights that depend on the request are asked for by the door, of the
//! [`Caller`] that is left in the extensions of the request.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{ALLOW, AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    request::Parts,
};
use tonic::Code;

use super::{
    headers,
    origin::{self, Source},
    refusal::Refusal,
    state::Web,
};
use crate::{
    auth::Caller,
    model::Denial,
    net::{Connection, TunnelProtocol},
};

/// A WebSocket may bring its credential as a subprotocol with this before it, in base64url: pages can't set headers.
const BEARER_PROTOCOL: &str = "switchyard.bearer.";
/// The parameter with a ticket.
const TICKET: &str = "ticket=";

/// A path of the web listener.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// As it is in a request.
    pub path: &'static str,
    /// The methods it has, with commas between them.
    pub methods: &'static str,
    /// Whether a ticket may stand for the credential, once.
    pub takes_tickets: bool,
}

/// Every path but those of calls, which are the contract's and have their rows in `edge/grpc/access.rs`, and of pages.
pub const PATHS: &[Path] = &[
    Path { path: "/v1/ticket", methods: "POST", takes_tickets: false },
    Path { path: "/v1/events", methods: "GET", takes_tickets: true },
    Path { path: "/v1/poll", methods: "GET, POST, DELETE", takes_tickets: false },
    Path { path: "/v1/publish", methods: "POST", takes_tickets: false },
    Path { path: "/v1/ws", methods: "GET", takes_tickets: true },
];

/// Lets a request go on to its door, or not.
pub(super) async fn check(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let options = &web.options;
    let (mut head, body) = request.into_parts();
    let source = match origin::judge(&head.uri, &head.headers, &options.origins, &options.hosts) {
        Ok(source) => source,
        Err(foreign) => {
            let mut response =
                Refusal::new(StatusCode::FORBIDDEN, Code::PermissionDenied, foreign.to_string()).into_response();
            headers::add(response.headers_mut(), &Source::Own);
            return response;
        }
    };
    let mut response = match admit(&web, &mut head).await {
        Ok(Some(response)) => response,
        Ok(None) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal.into_response(),
    };
    headers::add(response.headers_mut(), &source);
    response
}

/// Checks path, method and credential. Answers a preflight.
async fn admit(web: &Web, head: &mut Parts) -> Result<Option<Response>, Refusal> {
    let (path, is_preflight) = (head.uri.path(), headers::is_preflight(&head.method, &head.headers));
    let Some(row) = PATHS.iter().find(|row| row.path == path) else {
        // The services behind the bridges check who calls.
        let methods = web.bridge.methods(path).filter(|_| is_preflight);
        return Ok(methods.map(headers::preflight));
    };
    if is_preflight {
        return Ok(Some(headers::preflight(row.methods)));
    }
    // Over HTTP/2 an extended CONNECT is what the GET of an upgrade is over HTTP/1.
    let tunnel = head.extensions.get::<TunnelProtocol>();
    let method = tunnel.map_or(&head.method, |_| &Method::GET);
    if !row.methods.split(", ").any(|known| known == method.as_str()) {
        let text = format!("{} has {}", row.path, row.methods);
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, text);
        return Err(refusal.with(ALLOW, HeaderValue::from_static(row.methods)));
    }
    let caller = caller(web, row, head).await?;
    head.extensions.insert(caller);
    Ok(None)
}

/// Who sends a request: by one credential, since of two nobody could say which counts.
async fn caller(web: &Web, row: &Path, head: &Parts) -> Result<Caller, Refusal> {
    let connection = head.extensions.get::<Arc<Connection>>();
    let ticket = row.takes_tickets.then(|| ticket_of(&head.uri)).flatten();
    let shown = credential(&head.headers)?;
    match (ticket, shown) {
        (Some(_), Some(_)) => Err(Denial::Invalid.into()),
        (Some(ticket), None) => Ok(web.tickets.redeem(ticket, row.path).ok_or(Denial::Invalid)?),
        (None, shown) => {
            let admitted = web.door.admit(row.path, shown.as_deref(), connection.map(AsRef::as_ref)).await;
            Ok(admitted?)
        }
    }
}

fn ticket_of(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|parameter| parameter.strip_prefix(TICKET))
}

/// The credential of a request, as the value of a header `authorization`.
fn credential(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    let by_header = headers.get_all(AUTHORIZATION).iter().map(|value| Some(value.as_bytes().to_vec()));
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let by_protocol = protocols.flat_map(|value| value.split(',')).filter_map(|protocol| {
        let encoded = protocol.trim().strip_prefix(BEARER_PROTOCOL)?;
        Some(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok().map(|token| [b"Bearer ", &token[..]].concat()))
    });
    let mut all = by_header.chain(by_protocol);
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(Some(only)), None) => Ok(Some(only)),
        _ => Err(Denial::Invalid.into()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn shown(headers: &[(&str, &str)]) -> Result<Option<Vec<u8>>, StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).expect("a name"), value.parse().expect("a value"));
        }
        credential(&map).map_err(|refusal| refusal.into_response().status())
    }

    #[test]
    fn one_credential_counts_wherever_it_is_and_two_never_do() {
        let protocol = format!("switchyard.v1.json, {BEARER_PROTOCOL}{}", BASE64_URL_SAFE_NO_PAD.encode("t.o.k"));
        assert_eq!(shown(&[]), Ok(None));
        assert_eq!(shown(&[("sec-websocket-protocol", "switchyard.v1.json")]), Ok(None));
        assert_eq!(shown(&[("authorization", "Bearer t.o.k")]), Ok(Some(b"Bearer t.o.k".to_vec())));
        assert_eq!(shown(&[("sec-websocket-protocol", &protocol)]), Ok(Some(b"Bearer t.o.k".to_vec())));
        for two in [
            [("authorization", "Bearer a"), ("authorization", "Bearer a")],
            [("authorization", "Bearer a"), ("sec-websocket-protocol", &protocol)],
            [("sec-websocket-protocol", &protocol), ("sec-websocket-protocol", &protocol)],
            [("sec-websocket-protocol", "switchyard.bearer.!"), ("x", "y")],
        ] {
            assert_eq!(shown(&two), Err(StatusCode::UNAUTHORIZED), "{two:?}");
        }
    }
}
