//! Health checks as the gRPC specification has them, on both ports, and their HTTP likenesses.

use std::time::Duration;

use switchyard::{model::limits::MAX_WATCHES, server::Server};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{http_get, hub, hub_with, soon, until};

const SERVICES: [&str; 9] = [
    "",
    "liveness",
    "readiness",
    "switchyard.v1.HubService",
    "switchyard.v1.StreamService",
    "switchyard.v1.GroupService",
    "switchyard.v1.SessionService",
    "switchyard.v1.BackupService",
    "switchyard.v1.AccessService",
];

async fn health(address: std::net::SocketAddr) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await;
    HealthClient::new(channel.expect("a hub answers"))
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn check_answers_on_both_ports() {
    let hub = hub().await;
    for address in [hub.address, hub.ops_address] {
        let mut client = health(address).await;
        for service in SERVICES {
            let status = client.check(about(service)).await.expect("known").into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{service:?}");
        }
        assert_eq!(client.check(about("nonsense")).await.expect_err("unknown").code(), Code::NotFound);
    }
}

#[tokio::test]
async fn watch_of_an_unknown_service_stays_open() {
    let hub = hub().await;
    let mut client = health(hub.address).await;
    let mut unknown = client.watch(about("nonsense")).await.expect("a stream").into_inner();
    let first = soon("a status", unknown.next()).await.expect("open").expect("a status");
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let more = tokio::time::timeout(Duration::from_millis(200), unknown.next()).await;
    assert!(more.is_err(), "neither ended nor repeated: {more:?}");
}

#[tokio::test]
async fn a_connection_has_its_share_of_watches_and_no_more() {
    let hub = hub().await;
    let (mut client, mut other) = (health(hub.address).await, health(hub.address).await);
    let mut open = Vec::new();
    for n in 0..MAX_WATCHES {
        let service = if n % 2 == 0 { "readiness".to_owned() } else { "x".repeat(60_000) };
        open.push(client.watch(about(&service)).await.expect("a stream"));
    }
    assert_eq!(client.watch(about("")).await.expect_err("one past").code(), Code::ResourceExhausted);
    assert!(client.check(about("")).await.is_ok() && other.watch(about("")).await.is_ok());
    open.pop();
    until("there is room again", async || client.watch(about("")).await.is_ok()).await;
}

async fn stop(hub: Server) {
    hub.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn watch_tells_of_draining_and_ends_with_the_hub() {
    let hub = hub().await;
    let mut client = health(hub.address).await;
    let mut ready = client.watch(about("readiness")).await.expect("a stream").into_inner();
    let mut alive = client.watch(about("liveness")).await.expect("a stream").into_inner();
    let first = soon("a status", ready.next()).await.expect("open").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
    let stopping = tokio::spawn(stop(hub));
    let second = soon("a status", ready.next()).await.expect("open").expect("a status");
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert!(soon("the end", ready.next()).await.is_none());
    let liveness = soon("a status", alive.next()).await.expect("open").expect("a status");
    assert_eq!(liveness.status(), ServingStatus::Serving);
    assert!(soon("the end", alive.next()).await.is_none(), "liveness never says anything but alive");
    soon("the hub to stop", stopping).await.expect("stopped");
}

#[tokio::test]
async fn probes_over_http_follow_the_phase() {
    let hub = hub_with(|config| config.drain.spread_ms = 0).await;
    let ops = hub.ops_address;
    assert!(http_get(ops, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(ops, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(ops, "/nonsense").await.starts_with("HTTP/1.1 404"));
    let metrics = http_get(ops, "/metrics").await;
    assert!(metrics.contains("application/openmetrics-text") && metrics.trim_end().ends_with("# EOF"), "{metrics}");
    // Time enough to look while it is draining; the test does not wait for its end.
    let stopping = tokio::spawn(hub.stop(Duration::from_secs(60)));
    crate::harness::until("it is not ready", async || http_get(ops, "/readyz").await.starts_with("HTTP/1.1 503")).await;
    assert!(http_get(ops, "/livez").await.starts_with("HTTP/1.1 200"));
    assert_eq!(
        health(ops).await.check(about("readiness")).await.expect("known").into_inner().status(),
        ServingStatus::NotServing
    );
    stopping.abort();
}
