//! The healthy pair: a publisher of a hundred events a second, and the subscriber to them. Every event is accounted for.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use switchyard::proto::v1::{
    Event, PublishRequest, SessionRequest, Subscribe, SubscriptionSpec, event::Payload,
    hub_service_client::HubServiceClient, session_request::Command, session_response::Frame,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::hub::Hub;

/// One event in this time.
const PERIOD: Duration = Duration::from_millis(10);
/// Events that are on their way when the measurement ends have this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// A probe of Kubernetes gives up after a second.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the pair saw.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) events: usize,
    pub(crate) lost: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) most_resident_bytes: u64,
    pub(crate) slowest_probe: Duration,
    pub(crate) probes_failed: usize,
}

pub(crate) async fn measure(hub: &Hub, time: Duration) -> anyhow::Result<Measured> {
    let channel = connect(hub.address).await?;
    let (commands, receiver) = mpsc::channel(16);
    let mut client = HubServiceClient::new(channel.clone());
    let mut frames = client.session(ReceiverStream::new(receiver)).await?.into_inner();
    let spec = SubscriptionSpec { filters: vec!["healthy".to_owned()], ..SubscriptionSpec::default() };
    let subscribe = Command::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) });
    commands.send(SessionRequest { request_id: 1, command: Some(subscribe) }).await?;
    loop {
        let frame = frames.message().await?.context("the session ended")?;
        if matches!(frame.frame, Some(Frame::Subscribed(_))) {
            break;
        }
    }
    let start = Instant::now();
    let (mut publishing, mut probing) = (JoinSet::new(), JoinSet::new());
    publishing.spawn(publish(connect(hub.address).await?, start, time));
    let (stop, stopped) = oneshot::channel::<()>();
    probing.spawn(probe(hub.ops_address, stopped));

    let (mut latencies, mut most_resident_bytes, mut sent) = (Vec::new(), 0, None);
    let mut looks = interval(Duration::from_millis(100));
    let deadline = time + PATIENCE;
    while sent.is_none_or(|sent| latencies.len() < sent) && start.elapsed() < deadline {
        tokio::select! {
            Some(done) = publishing.join_next() => sent = Some(done??),
            _ = looks.tick() => most_resident_bytes = most_resident_bytes.max(hub.resident_bytes()),
            frame = frames.message() => {
                let frame = frame?.context("the session ended")?;
                let Some(Frame::Events(events)) = frame.frame else { continue };
                for event in events.events.into_iter().filter_map(|received| received.event) {
                    let sent_at: u64 = event.id.parse().context("not one of ours")?;
                    latencies.push(start.elapsed().saturating_sub(Duration::from_nanos(sent_at)));
                }
            }
        }
    }
    drop(stop);
    let (slowest_probe, probes_failed) = probing.join_next().await.context("nobody probed")??;
    let events = latencies.len();
    latencies.sort_unstable();
    let at = |percent: usize| latencies.get(events * percent / 100).copied().unwrap_or(PATIENCE);
    let lost = sent.unwrap_or(usize::MAX).saturating_sub(events);
    let (p50, p99) = (at(50), at(99));
    Ok(Measured { events, lost, p50, p99, most_resident_bytes, slowest_probe, probes_failed })
}

/// Publishes at a steady pace, whether or not the hub keeps up. Gives how many the hub has accepted.
async fn publish(channel: Channel, start: Instant, time: Duration) -> anyhow::Result<usize> {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    while start.elapsed() < time {
        // What is late is late from when it should have been sent.
        let due = ticks.tick().await.into_std();
        let id = due.saturating_duration_since(start).as_nanos().to_string();
        let payload = Some(Payload::Text("x".repeat(100)));
        let event = Event { id, topic: "healthy".to_owned(), payload, ..Event::default() };
        let request = PublishRequest { events: vec![event], ..PublishRequest::default() };
        let mut client = HubServiceClient::new(channel.clone());
        calls.spawn(async move { client.publish(request).await });
    }
    let mut accepted = 0;
    while let Some(call) = calls.join_next().await {
        call?.context("the healthy publisher was refused")?;
        accepted += 1;
    }
    Ok(accepted)
}

/// Asks `/livez` ten times a second, each time over a new connection as Kubernetes does. Gives the slowest answer, and how
/// many came too late or not at all.
async fn probe(address: SocketAddr, mut stopped: oneshot::Receiver<()>) -> (Duration, usize) {
    let (mut slowest, mut failed) = (Duration::ZERO, 0);
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut stopped => return (slowest, failed),
            _ = ticks.tick() => {}
        }
        let start = Instant::now();
        let answered = timeout(PROBE_TIMEOUT, ask(address)).await;
        failed += usize::from(!matches!(answered, Ok(Ok(true))));
        slowest = slowest.max(start.elapsed());
    }
}

async fn ask(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(format!("http://{address}"))?.connect().await?)
}

impl Hub {
    /// Resident memory, in bytes.
    fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}
