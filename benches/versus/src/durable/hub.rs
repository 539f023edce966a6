//! A stream of the hub.

use anyhow::{Context, bail, ensure};
use switchyard::{
    bench::{HubSide, Outgoing, opaque},
    proto::{
        load::{
            Durability as Promise, SessionRequest, SessionResponse, StartPosition, StartPreset, Subscribe,
            SubscriptionSpec, session_request::Command, session_response::Frame, start_position::Position,
        },
        v1::{CreateStreamRequest, Durability, Storage, Stream, stream_service_client::StreamServiceClient},
    },
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::{EventStore, Publisher, Replay, STREAM, TOPIC};
use crate::child::Server;

/// A hub with a stream.
pub(super) struct HubStore {
    side: HubSide,
}

/// A session that publishes.
pub(super) struct HubPublisher {
    commands: mpsc::Sender<SessionRequest>,
    frames: Streaming<SessionResponse>,
    /// The last sequence that an answer named.
    sequence: i64,
}

impl HubStore {
    pub(super) fn at(server: &Server) -> Self {
        Self { side: crate::contender::hub(server) }
    }
}

impl EventStore for HubStore {
    type Publisher = HubPublisher;

    async fn create(&self) -> anyhow::Result<()> {
        let stream = Stream {
            name: STREAM.to_owned(),
            filters: vec![TOPIC.to_owned()],
            storage: Storage::File.into(),
            durability: Durability::Sync.into(),
            ..Stream::default()
        };
        let mut streams = StreamServiceClient::new(self.side.target.channel().await?);
        streams.create_stream(CreateStreamRequest { stream: Some(stream) }).await?;
        Ok(())
    }

    async fn publisher(&self) -> anyhow::Result<HubPublisher> {
        let (commands, frames) = self.side.session().await?;
        Ok(HubPublisher { commands, frames, sequence: 0 })
    }

    async fn replay(&self, replay: &mut Replay) -> anyhow::Result<()> {
        let (commands, mut frames) = self.side.session().await?;
        let start = StartPosition { position: Some(Position::Preset(StartPreset::Earliest.into())) };
        let spec = SubscriptionSpec { stream: STREAM.to_owned(), start: Some(start), ..SubscriptionSpec::default() };
        let subscribe = Command::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) });
        commands.send(SessionRequest { request_id: 1, command: Some(subscribe) }).await?;
        while !replay.is_done() {
            match frames.next().await.context("the session ended")??.frame {
                Some(Frame::Events(events)) => {
                    opaque::each_delivered(&events, replay).context("an `events` frame does not decode")?;
                }
                Some(Frame::Welcome(_) | Frame::Subscribed(_) | Frame::Progress(_) | Frame::Heartbeat(_)) => {}
                other => bail!("not expected while reading: {other:?}"),
            }
        }
        Ok(())
    }
}

impl Publisher for HubPublisher {
    async fn send(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()> {
        let publish = Command::Publish(opaque::publish(batch));
        batch.clear();
        self.commands.send(SessionRequest { request_id: 1, command: Some(publish) }).await.context("the session ended")
    }

    async fn answered(&mut self) -> anyhow::Result<u64> {
        loop {
            match self.frames.next().await.context("the session ended")??.frame {
                Some(Frame::Published(published)) => {
                    for result in &published.results {
                        ensure!(result.status.is_none(), "refused: {:?}", result.status);
                        self.sequence += 1;
                        ensure!(result.sequence == self.sequence, "{result:?} after {}", self.sequence - 1);
                        ensure!(result.durability() == Promise::Sync, "{result:?} is not on the disk");
                    }
                    return Ok(published.results.len() as u64);
                }
                Some(Frame::Welcome(_) | Frame::Heartbeat(_)) => {}
                other => bail!("not expected while publishing: {other:?}"),
            }
        }
    }
}
