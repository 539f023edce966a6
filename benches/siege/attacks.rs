//! What one client does to the hub, each with one connection or a few, and everything within the rules of the contract.

use std::{future::Future, net::SocketAddr, pin::Pin, time::Duration};

use bytes::Bytes;
use http::Request;
use prost::Message;
use switchyard::proto::v1::{
    CreateStreamRequest, Credit, Event, GetEventRequest, ListStreamsRequest, PublishRequest, SessionRequest, Storage,
    Stream, Subscribe, SubscriptionSpec, event::Payload, get_event_request::Which,
    hub_service_client::HubServiceClient, session_request::Command, stream_service_client::StreamServiceClient,
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::pair::connect;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One way to harm a hub.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// Goes on until it is dropped.
    pub(crate) begin: fn(SocketAddr) -> Running,
}

/// No attack: a neighbour that keeps the hub busy, to compare with.
pub(crate) const BUSY: Attack = Attack { name: "busy", begin: |address| go_on(address, busy) };

pub(crate) const ATTACKS: &[Attack] = &[
    Attack { name: "wildcard filters", begin: |address| go_on(address, wildcard_filters) },
    Attack { name: "unread ListStreams", begin: |address| go_on(address, unread_lists) },
    Attack { name: "unread GetEvent", begin: |address| go_on(address, unread_events) },
    Attack { name: "complete publishes", begin: |address| go_on(address, complete_publishes) },
    Attack { name: "unfinished frames", begin: |address| go_on(address, unfinished_frames) },
    Attack { name: "MEMORY streams", begin: |address| go_on(address, memory_streams) },
    Attack { name: "stored filters", begin: |address| go_on(address, stored_filters) },
    Attack { name: "live filters", begin: |address| go_on(address, live_filters) },
    Attack { name: "topics", begin: |address| go_on(address, topics) },
    Attack { name: "ids", begin: |address| go_on(address, ids) },
    Attack { name: "large batches", begin: |address| go_on(address, large_batches) },
];

/// Does it again and again: an attack that is refused, or that loses its connection, begins anew.
fn go_on<F: Future<Output = anyhow::Result<()>> + Send + 'static>(
    address: SocketAddr,
    attack: impl Fn(SocketAddr) -> F + Send + Sync + 'static,
) -> Running {
    Box::pin(async move {
        loop {
            attack(address).await.ok();
            sleep(Duration::from_millis(100)).await;
        }
    })
}

fn event(topic: impl Into<String>, bytes: usize) -> Event {
    Event { topic: topic.into(), payload: Some(Payload::Text("x".repeat(bytes))), ..Event::default() }
}

async fn create(channel: &Channel, name: &str, filters: Vec<String>, storage: Storage) {
    let stream = Stream { name: name.to_owned(), filters, storage: storage.into(), ..Stream::default() };
    // It may be there from before.
    StreamServiceClient::new(channel.clone()).create_stream(CreateStreamRequest { stream: Some(stream) }).await.ok();
}

async fn publish(channel: &Channel, events: Vec<Event>) -> Result<(), tonic::Status> {
    let request = PublishRequest { events, ..PublishRequest::default() };
    HubServiceClient::new(channel.clone()).publish(request).await.map(drop)
}

/// A session whose frames nobody reads.
async fn session(channel: &Channel) -> anyhow::Result<(mpsc::Sender<SessionRequest>, impl Sized + Send + use<>)> {
    let (commands, receiver) = mpsc::channel(1);
    let frames = HubServiceClient::new(channel.clone()).session(ReceiverStream::new(receiver)).await?;
    Ok((commands, frames))
}

fn subscribe(subscription_id: i64, filters: Vec<String>, stream: &str) -> SessionRequest {
    let credit = Some(Credit { events: 1, ..Credit::default() });
    let spec = SubscriptionSpec { filters, stream: stream.to_owned(), credit, ..SubscriptionSpec::default() };
    SessionRequest { request_id: 0, command: Some(Command::Subscribe(Subscribe { subscription_id, spec: Some(spec) })) }
}

async fn busy(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let channel = channel.clone();
        calls.spawn(async move {
            loop {
                publish(&channel, (0..100).map(|_| event("busy.topic", 100)).collect()).await?;
            }
            #[allow(unreachable_code)]
            Ok::<_, tonic::Status>(())
        });
    }
    calls.join_next().await;
    Ok(())
}

/// Filters whose paths fork at every token, and topics that follow all of them in vain.
async fn wildcard_filters(address: SocketAddr) -> anyhow::Result<()> {
    const DEPTH: usize = 15;
    let channel = connect(address).await?;
    let (commands, _frames) = session(&channel).await?;
    let filters: Vec<String> = (0..1_u32 << DEPTH)
        .map(|mask| {
            let tokens = (0..DEPTH).map(|at| if mask >> at & 1 == 0 { "a." } else { "*." });
            tokens.chain(["z"]).collect()
        })
        .collect();
    for (id, some) in (1..).zip(filters.chunks(256)) {
        commands.send(subscribe(id, some.to_vec(), "")).await?;
    }
    let topic = "a.".repeat(DEPTH) + "b";
    loop {
        let both = [(); 2].map(|()| publish(&channel, vec![event(topic.clone(), 0); 5_000]));
        let [one, two] = both;
        tokio::try_join!(one, two)?;
    }
}

/// A connection without a gRPC library, and the task that drives it.
async fn raw(
    address: SocketAddr,
    builder: &h2::client::Builder,
) -> anyhow::Result<(h2::client::SendRequest<Bytes>, JoinSet<()>)> {
    let (requests, connection) = builder.handshake(TcpStream::connect(address).await?).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    Ok((requests, driver))
}

/// Calls that are made as fast as may be, and whose answers nobody reads.
async fn unread(address: SocketAddr, path: &str, request: &impl Message) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let (requests, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { connection.await.ok() });
    let message = request.encode_to_vec();
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    let mut unread = Vec::new();
    for _ in 0..1_000 {
        let mut requests = timeout(Duration::from_secs(5), requests.clone().ready()).await??;
        let request = Request::post(format!("http://hub{path}")).header("content-type", "application/grpc").body(())?;
        let (response, mut send) = requests.send_request(request, false)?;
        send.send_data(body.clone().into(), true)?;
        unread.push((response, send));
    }
    sleep(Duration::from_secs(10)).await;
    Ok(())
}

async fn unread_lists(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    for stream in 0..200 {
        let filters = (0..240).map(|n| format!("lists.{stream}.{n}.{}", "f".repeat(200))).collect();
        create(&channel, &format!("lists-{stream}"), filters, Storage::File).await;
    }
    unread(address, "/switchyard.v1.StreamService/ListStreams", &ListStreamsRequest::default()).await
}

async fn unread_events(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    create(&channel, "large", vec!["large".to_owned()], Storage::File).await;
    publish(&channel, vec![event("large", 1_000_000)]).await?;
    let request = GetEventRequest { stream: "large".to_owned(), which: Some(Which::Sequence(1)) };
    unread(address, "/switchyard.v1.StreamService/GetEvent", &request).await
}

/// Many sessions that publish the largest frames to a stream, faster than any disk.
async fn complete_publishes(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    create(&channel, "heavy", vec!["heavy".to_owned()], Storage::File).await;
    let mut sessions = Vec::new();
    for _ in 0..200 {
        sessions.push(session(&channel).await?);
    }
    let events = vec![event("heavy", 1_000_000); 4];
    let command = Command::Publish(PublishRequest { events, ..PublishRequest::default() });
    loop {
        for (commands, _) in &sessions {
            let request = SessionRequest { request_id: 0, command: Some(command.clone()) };
            timeout(Duration::from_millis(50), commands.send(request)).await.ok();
        }
    }
}

async fn unfinished_frames(address: SocketAddr) -> anyhow::Result<()> {
    const WHOLE_BYTES: usize = 4_000_000;
    let (requests, _driver) = raw(address, &h2::client::Builder::new()).await?;
    let mut open = Vec::new();
    for _ in 0..128 {
        let mut requests = requests.clone().ready().await?;
        let request = Request::post("http://hub/switchyard.v1.HubService/Session")
            .header("content-type", "application/grpc")
            .body(())?;
        let (response, mut send) = requests.send_request(request, false)?;
        let mut body = vec![0];
        body.extend_from_slice(&(WHOLE_BYTES as u32).to_be_bytes());
        body.resize(WHOLE_BYTES, 1);
        send.send_data(body.into(), false)?;
        open.push((response, send));
    }
    sleep(Duration::from_secs(10)).await;
    Ok(())
}

async fn memory_streams(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    for stream in 0..4 {
        create(&channel, &format!("memory-{stream}"), vec![format!("memory.{stream}")], Storage::Memory).await;
    }
    loop {
        for stream in 0..4 {
            publish(&channel, vec![event(format!("memory.{stream}"), 1_000_000); 3]).await?;
        }
    }
}

/// Subscriptions with as many long filters as they may have.
async fn filters(address: SocketAddr, stream: &'static str) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    create(&channel, "filtered", vec!["filtered.>".to_owned()], Storage::File).await;
    let mut sessions = Vec::new();
    for number in 0..10 {
        let (commands, frames) = session(&channel).await?;
        for id in 1..=300 {
            let filters = (0..256).map(|n| format!("filtered.{number}-{id}-{n}.{}", "f".repeat(220))).collect();
            commands.send(subscribe(id, filters, stream)).await?;
        }
        sessions.push((commands, frames));
    }
    sleep(Duration::from_secs(10)).await;
    Ok(())
}

async fn stored_filters(address: SocketAddr) -> anyhow::Result<()> {
    filters(address, "filtered").await
}

async fn live_filters(address: SocketAddr) -> anyhow::Result<()> {
    filters(address, "").await
}

async fn topics(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    for stream in 0..4 {
        create(&channel, &format!("topics-{stream}"), vec![format!("topics.{stream}.>")], Storage::File).await;
    }
    for batch in 0.. {
        for stream in 0..4 {
            let tail = "t".repeat(180);
            let events = (0..5_000).map(|n| event(format!("topics.{stream}.{batch}-{n}.{tail}"), 0)).collect();
            publish(&channel, events).await?;
        }
    }
    Ok(())
}

async fn ids(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    for stream in 0..4 {
        create(&channel, &format!("ids-{stream}"), vec![format!("ids.{stream}")], Storage::File).await;
    }
    for batch in 0.. {
        for stream in 0..4 {
            let event = |n: usize| Event {
                source: "siege".to_owned(),
                id: format!("{batch}-{n}"),
                ..event(format!("ids.{stream}"), 0)
            };
            publish(&channel, (0..5_000).map(event).collect()).await?;
        }
    }
    Ok(())
}

/// Eight sessions' worth of the largest batches.
async fn large_batches(address: SocketAddr) -> anyhow::Result<()> {
    let channel = connect(address).await?;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let channel = channel.clone();
        calls.spawn(async move {
            loop {
                publish(&channel, vec![event("batches.of.many", 0); 10_000]).await?;
            }
            #[allow(unreachable_code)]
            Ok::<_, tonic::Status>(())
        });
    }
    calls.join_next().await;
    Ok(())
}
