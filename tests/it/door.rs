//! What the main port makes of requests that are not gRPC, of calls it does not have, and of deadlines.

use std::time::Duration;

use http::{Request, response::Parts};
use prost::Message;
use switchyard::{edge::grpc::CALLS, server::Server};
use tonic::{Code, Status};

use crate::{
    authority::{Authority, Secret, VERSIONS, tls_stream},
    harness::{event, http, hub, hub_with, metric, publish, reason_of_call, until},
    http2::{Http2, PUBLISH, SESSION, SUBSCRIBE, framed},
    witness::{check_status, status_of},
};

/// The calls of which a client may wait for more than one answer.
const STREAMS: [&str; 5] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    SESSION,
    SUBSCRIBE,
];

/// A publish that a hub would carry out if it was sent as gRPC.
fn request(method: &str, path: &str, content_types: &[&str]) -> Request<Vec<u8>> {
    // A tunnel has a place and no path.
    let uri = if method == "CONNECT" { "hub:50051".to_owned() } else { format!("http://hub{path}") };
    let mut request = Request::builder().method(method).uri(uri);
    for kind in content_types {
        request = request.header("content-type", *kind);
    }
    request.body(framed(&publish(vec![event("a", "x")]).encode_to_vec())).expect("a request")
}

fn grpc_status(head: &Parts) -> Option<Code> {
    Status::from_header_map(&head.headers).map(|status| status.code())
}

/// Sends what is no gRPC, in every form, and checks that it is refused and looks like that.
async fn check_refused(connection: &mut Http2) {
    const GRPC: &str = "application/grpc";
    let other_types: [&[&str]; 12] = [
        &[],
        &[""],
        &["text/plain"],
        &["application/json"],
        &["application/grpc-web"],
        &["application/grpc-web+proto"],
        &["application/grpc-web-text"],
        &["application/grpc+json"],
        &["application/grpc+"],
        &["application/grpcx"],
        &["application/x-www-form-urlencoded"],
        &[GRPC, "text/plain"],
    ];
    let posts = other_types.into_iter().map(|types| ("POST", types, 415, None));
    let methods = ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "QUERY"];
    let others = methods.into_iter().map(|method| (method, &[GRPC][..], 405, Some("POST")));
    for (method, types, code, allow) in posts.chain(others) {
        for path in [PUBLISH, "/", "/grpc.health.v1.Health/Check", "/nothing"] {
            let what = format!("{method} {path} {types:?}");
            let (head, body) = connection.send(request(method, path, types)).await;
            assert_eq!(head.status.as_u16(), code, "{what}");
            assert_eq!(head.headers.get("allow").map(|allow| allow.to_str().expect("text")), allow, "{what}");
            assert_eq!(head.headers["content-type"], "text/plain; charset=utf-8", "{what}");
            assert_eq!(grpc_status(&head), None, "{what}");
            let told = String::from_utf8(body).expect("text");
            assert!(if method == "HEAD" { told.is_empty() } else { told.contains("gRPC") }, "{what}: {told}");
        }
    }
}

/// What is gRPC is published over the same connection.
async fn check_taken(hub: &Server, connection: &mut Http2) {
    assert_eq!(metric(hub, "switchyard_events_in_total").await, 0, "nothing was carried out");
    let types = ["application/grpc", "application/grpc+proto", "Application/GRPC", "application/grpc; charset=utf-8"];
    for kind in types {
        let (head, _) = connection.send(request("POST", PUBLISH, &[kind])).await;
        assert_eq!((head.status.as_u16(), &head.headers["content-type"] == "application/grpc"), (200, true), "{kind}");
    }
    assert_eq!(metric(hub, "switchyard_events_in_total").await, types.len() as u64);
}

#[tokio::test]
async fn what_is_not_grpc_is_not_carried_out_and_never_looks_like_success() {
    let hub = hub().await;
    let mut connection = Http2::connect(hub.address).await;
    check_refused(&mut connection).await;
    check_taken(&hub, &mut connection).await;
}

#[tokio::test]
async fn nor_is_it_over_tls_where_browsers_speak_http2() {
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    let hub = hub_with(|config| secret.serve(config)).await;
    let stream = tls_stream(hub.address, &[&authority], &VERSIONS, None).await.expect("TLS");
    let mut connection = Http2::over(&h2::client::Builder::new(), stream).await;
    check_refused(&mut connection).await;
    check_taken(&hub, &mut connection).await;
}

/// How the hub answers each kind of check that load balancers make: GET, HEAD, gRPC, and a call that no hub has.
async fn checks(connection: &mut Http2) -> (u16, u16, Option<Code>, Option<Code>) {
    let mut get = async |method| connection.send(request(method, "/readyz", &[])).await;
    let ((head, told), (brief, nothing)) = (get("GET").await, get("HEAD").await);
    assert!(!told.is_empty() && nothing.is_empty());
    let (by_grpc, _) = connection.send(request("POST", "/readyz", &["application/grpc"])).await;
    let (unknown, _) = connection.send(request("POST", "/AWS.ALB/healthcheck", &["application/grpc"])).await;
    (head.status.as_u16(), brief.status.as_u16(), grpc_status(&by_grpc), grpc_status(&unknown))
}

#[tokio::test]
async fn load_balancers_can_tell_by_http2_that_a_hub_drains() {
    let hub = hub().await;
    let address = hub.address;
    let mut connection = Http2::connect(address).await;
    assert_eq!(checks(&mut connection).await, (200, 200, Some(Code::Ok), Some(Code::Unimplemented)));
    for method in ["POST", "PUT", "OPTIONS", "DELETE"] {
        let (head, _) = connection.send(request(method, "/readyz", &["text/plain"])).await;
        assert_eq!((head.status.as_u16(), &head.headers["allow"] == "GET, HEAD, POST"), (405, true), "{method}");
    }
    assert!(http(address, "GET", "/readyz", "").await.starts_with("HTTP/1.1 426 "));

    // Time enough to look while it is draining; the test does not wait for its end.
    let stopping = tokio::spawn(hub.stop(Duration::from_secs(60)));
    let unavailable = Some(Code::Unavailable);
    until("it drains", async || checks(&mut connection).await == (503, 503, unavailable, unavailable)).await;
    let (head, _) = connection.send(request("GET", "/", &[])).await;
    assert_eq!(head.status, 405);
    stopping.abort();
}

#[tokio::test]
async fn a_call_that_the_hub_does_not_have_is_named() {
    let hub = hub().await;
    let mut connection = Http2::connect(hub.address).await;
    let long = format!("/{}/x", "y".repeat(8_000));
    for (path, text) in [
        ("/foo.Bar/Baz", "unknown service foo.Bar"),
        ("/switchyard.v1.HubService/Baz", "unknown method Baz for service switchyard.v1.HubService"),
        ("/switchyard.v1.HubService/publish", "unknown method publish for service switchyard.v1.HubService"),
        ("/switchyard.v1.HubService/", "unknown method \"\" for service switchyard.v1.HubService"),
        ("/switchyard.v1.HubService/Publish?x=1", "unknown method Publish?x=1 for service switchyard.v1.HubService"),
        ("/switchyard.v1.HubService/Publish/Publish", "unknown service switchyard.v1.HubService/Publish"),
        ("/grpc.health.v1.Health/Baz", "unknown method Baz for service grpc.health.v1.Health"),
        ("/Publish", "/Publish is not the name of a call"),
        ("/", "/ is not the name of a call"),
        (long.as_str(), &format!("unknown service {}...", "y".repeat(128))),
    ] {
        let mut call = connection.call(path).await;
        let (code, _, status) = call.end().await.expect("the connection lives");
        let status = status.expect("a status");
        assert_eq!((code.as_u16(), status.code(), status.message()), (200, Code::Unimplemented, text));
    }
}

/// The statuses of calls with this timeout: half a request each, so that none ends by itself; or, of those that answer
/// more than once, a whole one.
async fn after(connection: &mut Http2, timeout: &str) -> Vec<(&'static str, Option<Status>)> {
    let mut calls = Vec::new();
    for (path, _) in CALLS {
        let mut call = connection.call_with(path, &[("grpc-timeout", timeout)]).await;
        call.send(match *path {
            SUBSCRIBE => framed(&[0x0a, 3, 0x0a, 1, b'a']),
            path if STREAMS.contains(&path) => framed(&[]),
            _ => vec![0, 0, 0, 0, 9, 1],
        });
        calls.push((*path, call));
    }
    let mut statuses = Vec::new();
    for (path, mut call) in calls {
        let head = call.headers().await.expect("the connection lives");
        let status = match Status::from_header_map(&head.headers) {
            Some(status) => Some(status),
            None => call.skip_to_end().await.expect("the connection lives"),
        };
        statuses.push((path, status));
    }
    statuses
}

#[tokio::test]
async fn every_call_ends_at_its_deadline() {
    let hub = hub().await;
    let mut connection = Http2::connect(hub.address).await;
    for timeout in ["0n", "50m"] {
        for (path, status) in after(&mut connection, timeout).await {
            let status = status.unwrap_or_else(|| panic!("{path} ended without a status"));
            assert_eq!(status.code(), Code::DeadlineExceeded, "{path}: {status:?}");
        }
    }
    until("no session is left", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    assert_eq!(metric(&hub, "switchyard_open_subscriptions").await, 0);
    let (head, _) = connection.send(request("POST", PUBLISH, &["application/grpc"])).await;
    assert_eq!(head.status, 200, "the connection lives");
}

#[tokio::test]
async fn a_call_that_is_done_before_its_deadline_ends_as_any_other() {
    let hub = hub().await;
    let mut connection = Http2::connect(hub.address).await;
    for timeout in ["30S", "99999999H", "29999m"] {
        let mut call = connection.call_with(PUBLISH, &[("grpc-timeout", timeout)]).await;
        call.send(framed(&publish(vec![event("a", "x")]).encode_to_vec()));
        call.half_close();
        let head = call.headers().await.expect("the connection lives");
        assert_eq!((head.status.as_u16(), grpc_status(&head)), (200, None), "{timeout}");
        let status = call.skip_to_end().await.expect("the connection lives");
        assert_eq!(status.map(|status| status.code()), Some(Code::Ok), "{timeout}");
    }
}

#[tokio::test]
async fn a_timeout_that_is_none_is_refused() {
    let hub = hub().await;
    let mut connection = Http2::connect(hub.address).await;
    for path in [PUBLISH, SESSION, "/switchyard.v1.StreamService/ListStreams"] {
        for timeout in ["", "soon", "5", "5s", "-1S", "1.5S", "123456789S"] {
            let mut call = connection.call_with(path, &[("grpc-timeout", timeout)]).await;
            let status = call.end().await.expect("the connection lives").2.expect("a status");
            assert_eq!(reason_of_call(&status), "MALFORMED_COMMAND", "{path} {timeout:?}");
            check_status(timeout, &status_of(&status), (Code::InvalidArgument, "MALFORMED_COMMAND", "grpc-timeout"));
            assert!(status.message().starts_with("grpc-timeout must be 1 to 8 digits"), "{status:?}");
        }
    }
}
