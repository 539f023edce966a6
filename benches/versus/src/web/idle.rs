//! Connections and streams of the web that do nothing: what each costs its server in memory.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    start,
    subscriber::{Door, Subscriber},
};
use crate::contender::{Contender, Ground};

/// So many WebSockets.
const CONNECTIONS: usize = 2_000;
/// So many event streams, on so many connections of HTTP/2.
const STREAMS: usize = 2_000;
const STREAM_CONNECTIONS: usize = 4;
/// What connecting leaves to be done is done after this.
const SETTLE: Duration = Duration::from_millis(500);

/// Bytes for each WebSocket.
pub(crate) async fn websockets(ground: &Ground, contender: Contender) -> anyhow::Result<f64> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let server = start(ground, contender).await?;
    let door = if contender == Contender::Nats { Door::Nats } else { Door::WebSocket };
    // The first one brings what the server has once for all.
    let mut open = vec![Subscriber::idle(server.web_address()?, door).await?];
    tokio::time::sleep(SETTLE).await;
    let before = server.resident_bytes()?;
    while open.len() <= CONNECTIONS {
        open.push(Subscriber::idle(server.web_address()?, door).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = server.resident_bytes()?.saturating_sub(before);
    Ok(grown as f64 / CONNECTIONS as f64)
}

/// Bytes for each event stream of the hub, with its part of a connection.
pub(crate) async fn event_streams(ground: &Ground) -> anyhow::Result<f64> {
    let server = start(ground, Contender::Hub).await?;
    let at = server.web_address()?;
    let mut connections = JoinSet::new();
    let mut requests = connect(at, &mut connections).await?;
    let mut open = vec![event_stream(&mut requests, at, 0).await?];
    tokio::time::sleep(SETTLE).await;
    let before = server.resident_bytes()?;
    for number in 1..=STREAMS {
        if number % (STREAMS / STREAM_CONNECTIONS) == 1 {
            requests = connect(at, &mut connections).await?;
        }
        open.push(event_stream(&mut requests, at, number).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = server.resident_bytes()?.saturating_sub(before);
    Ok(grown as f64 / STREAMS as f64)
}

/// A connection, which lives as long as `connections`.
async fn connect(
    at: SocketAddr,
    connections: &mut JoinSet<Result<(), h2::Error>>,
) -> anyhow::Result<SendRequest<Bytes>> {
    let (requests, connection) = h2::client::handshake(TcpStream::connect(at).await?).await?;
    connections.spawn(connection);
    Ok(requests)
}

/// A stream that is subscribed to a topic of its own.
async fn event_stream(requests: &mut SendRequest<Bytes>, at: SocketAddr, number: usize) -> anyhow::Result<RecvStream> {
    let request = http::Request::get(format!("http://{at}/v1/events?filter=idle.{number}")).body(())?;
    let mut ready = requests.clone().ready().await?;
    let (response, _) = ready.send_request(request, true)?;
    let mut body = response.await?.into_body();
    let mut told = Vec::new();
    while !told.windows(17).any(|some| some == b"event: subscribed") {
        let some = body.data().await.context("the event stream ended")??;
        body.flow_control().release_capacity(some.len())?;
        told.extend_from_slice(&some);
        ensure!(told.len() < 16 * 1024, "no event stream");
    }
    Ok(body)
}
