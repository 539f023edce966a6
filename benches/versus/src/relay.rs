//! The roofline: what tonic can carry when nothing is done but to carry it. Publishers send batches, and each batch goes
//! to every subscriber through a bounded channel. The server decodes and encodes messages as any user of tonic does, and
//! its load treats them as that of the hub does: as bytes. There are no topics, no filters, no queues that overflow, and
//! nobody is isolated from anybody.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as TaskContext, Poll},
};

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, stream};
use switchyard::{
    bench::{Check, Outgoing, Publish, Receive, Side, opaque},
    client::Target,
    proto::v1::PublishRequest,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, StreamingService},
    transport::{self, Channel},
};
use tonic_prost::ProstCodec;

/// Where the one method is.
const PATH: &str = "/versus.Relay/Relay";
/// Says which of both a client is.
const ROLE: &str = "role";
/// So many batches may wait for one client or for its transport, as in the hub's client.
const BATCHES_IN_FLIGHT: usize = 4;
/// As the hub's: see `connections.stream_window_bytes` and `connections.connection_window_bytes`.
const SERVER_WINDOWS_BYTES: (u32, u32) = (512 * 1024, 8 * 1024 * 1024);
/// As of the client on the hub's side, which these loads must not differ in.
const CLIENT_WINDOWS_BYTES: (u32, u32) = (4 * 1024 * 1024, 8 * 1024 * 1024);

type Batches = mpsc::Sender<Result<PublishRequest, Status>>;
type BatchStream = Pin<Box<dyn Stream<Item = Result<PublishRequest, Status>> + Send>>;
type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// The server.
#[derive(Debug, Clone, Default)]
struct Relay {
    /// Replaced as a whole when one comes, so that a publisher holds no lock while it sends.
    subscribers: Arc<Mutex<Arc<Vec<Batches>>>>,
}

/// Serves until the process is killed.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.context("cannot listen")?;
    eprintln!("listening on {}", listener.local_addr()?);
    let connections = TcpListenerStream::new(listener).map(|accepted| {
        let connection = accepted?;
        connection.set_nodelay(true)?;
        Ok::<_, std::io::Error>(connection)
    });
    transport::Server::builder()
        .initial_stream_window_size(SERVER_WINDOWS_BYTES.0)
        .initial_connection_window_size(SERVER_WINDOWS_BYTES.1)
        .add_service(Relay::default())
        .serve_with_incoming(connections)
        .await?;
    Ok(())
}

impl NamedService for Relay {
    const NAME: &'static str = "versus.Relay";
}

impl tower::Service<http::Request<Body>> for Relay {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let relay = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).streaming(relay, request).await) })
    }
}

impl StreamingService<PublishRequest> for Relay {
    type Response = PublishRequest;
    type ResponseStream = BatchStream;
    type Future = Answer<Response<BatchStream>, Status>;

    fn call(&mut self, request: Request<Streaming<PublishRequest>>) -> Self::Future {
        let stream: BatchStream = if request.metadata().get(ROLE).is_some_and(|role| role == "publish") {
            let relay = self.clone();
            // A stream without items, whose end is that of the publisher: this spares a task.
            Box::pin(stream::once(relay.forward(request.into_inner())).filter_map(Result::err).map(Err))
        } else {
            let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
            let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut *subscribers).push(sender);
            Box::pin(ReceiverStream::new(receiver))
        };
        Box::pin(async move { Ok(Response::new(stream)) })
    }
}

impl Relay {
    /// Sends every batch to everybody, in order, as fast as the slowest takes them.
    async fn forward(self, mut batches: Streaming<PublishRequest>) -> Result<(), Status> {
        while let Some(batch) = batches.message().await? {
            let subscribers = Arc::clone(&self.subscribers.lock().unwrap_or_else(PoisonError::into_inner));
            if let [all_but_last @ .., last] = subscribers.as_slice() {
                let others = all_but_last.iter().map(|subscriber| (subscriber, batch.clone()));
                for (subscriber, batch) in others {
                    // One that is gone gets nothing; the load would notice.
                    subscriber.send(Ok(batch)).await.ok();
                }
                last.send(Ok(batch)).await.ok();
            }
        }
        Ok(())
    }
}

/// A relay at an address.
#[derive(Debug)]
pub(crate) struct RelaySide {
    pub(crate) address: SocketAddr,
}

/// A stream that publishes.
#[derive(Debug)]
pub(crate) struct RelayPublisher {
    batches: mpsc::Sender<Bytes>,
    _answers: Streaming<Bytes>,
}

/// A stream that subscribes.
#[derive(Debug)]
pub(crate) struct RelaySubscriber {
    batches: Streaming<Bytes>,
    /// Kept open, as on the hub's side.
    _requests: mpsc::Sender<Bytes>,
}

impl RelaySide {
    async fn call(&self, role: &'static str) -> anyhow::Result<(mpsc::Sender<Bytes>, Streaming<Bytes>)> {
        let target = Target { server: self.address.to_string(), ..Target::default() };
        let channel: Channel = target
            .channel_with(|endpoint| {
                endpoint
                    .initial_stream_window_size(CLIENT_WINDOWS_BYTES.0)
                    .initial_connection_window_size(CLIENT_WINDOWS_BYTES.1)
            })
            .await?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await?;
        let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert(ROLE, tonic::metadata::MetadataValue::from_static(role));
        let answer = grpc.streaming(request, http::uri::PathAndQuery::from_static(PATH), AsBytes).await?;
        Ok((sender, answer.into_inner()))
    }
}

impl Side for RelaySide {
    type Publisher = RelayPublisher;
    type Subscriber = RelaySubscriber;

    async fn publisher(&self) -> anyhow::Result<RelayPublisher> {
        let (batches, answers) = self.call("publish").await?;
        Ok(RelayPublisher { batches, _answers: answers })
    }

    async fn subscriber(&self, _: &[String]) -> anyhow::Result<RelaySubscriber> {
        let (requests, batches) = self.call("subscribe").await?;
        Ok(RelaySubscriber { batches, _requests: requests })
    }
}

impl Publish for RelayPublisher {
    async fn publish(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()> {
        let publish = opaque::publish(batch);
        batch.clear();
        self.batches.send(publish).await.context("the relay hung up")
    }
}

impl Receive for RelaySubscriber {
    async fn receive(&mut self, check: &mut impl Check) -> anyhow::Result<()> {
        let batch = self.batches.message().await?.context("the relay hung up")?;
        opaque::each_published(&batch, check).context("a batch does not decode")
    }
}

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy)]
struct AsBytes;

impl Codec for AsBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
