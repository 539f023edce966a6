//! A stream of the hub, and a group on it.

use std::cell::RefCell;

use anyhow::{Context, bail, ensure};
use switchyard::{
    bench::{HubSide, Outgoing, opaque},
    proto::{
        load::{
            AckMode, Acknowledge, AddCredit, Credit, Durability as Promise, SessionRequest, SessionResponse,
            StartPosition, StartPreset, Subscribe, SubscriptionSpec, session_request::Command, session_response::Frame,
            start_position::Position,
        },
        v1::{
            self, CreateGroupRequest, CreateStreamRequest, Durability, GetGroupRequest, Group, Storage, Stream,
            group_service_client::GroupServiceClient, stream_service_client::StreamServiceClient,
        },
    },
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::store::{
    EventStore, GROUP, MOST_OF_MEMBER, MOST_UNACKED, Member, Publisher, Replay, STREAM, Shared, TOPIC, Tally,
};
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

/// A session that is a member of the group.
pub(super) struct HubMember {
    commands: mpsc::Sender<SessionRequest>,
    frames: Streaming<SessionResponse>,
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

impl Shared for HubStore {
    type Member = HubMember;

    async fn group(&self) -> anyhow::Result<()> {
        let group = Group {
            stream: STREAM.to_owned(),
            name: GROUP.to_owned(),
            max_unacked: i32::try_from(MOST_UNACKED)?,
            ..Group::default()
        };
        let earliest = v1::start_position::Position::Preset(v1::StartPreset::Earliest.into());
        let start = v1::StartPosition { position: Some(earliest) };
        let mut groups = GroupServiceClient::new(self.side.target.channel().await?);
        groups.create_group(CreateGroupRequest { group: Some(group), start: Some(start) }).await?;
        Ok(())
    }

    async fn member(&self) -> anyhow::Result<HubMember> {
        let (commands, frames) = self.side.session().await?;
        Ok(HubMember { commands, frames })
    }

    async fn is_done(&self, sequence: u64) -> anyhow::Result<bool> {
        let request = GetGroupRequest { stream: STREAM.to_owned(), name: GROUP.to_owned() };
        let mut groups = GroupServiceClient::new(self.side.target.channel().await?);
        let told = groups.get_group(request).await?.into_inner().group.and_then(|group| group.state);
        let state = told.context("the group has no state")?;
        Ok((state.cursor, state.pending, state.unacked) == (i64::try_from(sequence)?, 0, 0))
    }
}

impl HubMember {
    async fn send(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(SessionRequest { request_id: 1, command: Some(command) }).await.context("the session ended")
    }
}

impl Member for HubMember {
    async fn work(&mut self, tally: &RefCell<Tally>) -> anyhow::Result<()> {
        let spec = SubscriptionSpec {
            stream: STREAM.to_owned(),
            group: GROUP.to_owned(),
            ack_mode: AckMode::Explicit.into(),
            credit: Some(Credit { events: MOST_OF_MEMBER.into(), bytes: 0 }),
            ..SubscriptionSpec::default()
        };
        self.send(Command::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) })).await?;
        loop {
            match self.frames.next().await.context("the session ended")??.frame {
                Some(Frame::Events(events)) => {
                    let (mut sequences, mut fault) = (Vec::new(), None);
                    let seen = &mut |sequence, payload: &[u8]| {
                        fault = tally.borrow_mut().came(payload, Some(sequence)).err().or(fault.take());
                        sequences.push(sequence.cast_signed());
                    };
                    opaque::each_stored(&events, seen).context("an `events` frame does not decode")?;
                    fault.map_or(Ok(()), Err)?;
                    let credit = Some(Credit { events: i64::try_from(sequences.len())?, bytes: 0 });
                    let done = Acknowledge { subscription_id: 1, sequences, ..Acknowledge::default() };
                    self.send(Command::Acknowledge(done)).await?;
                    self.send(Command::Credit(AddCredit { subscription_id: 1, credit })).await?;
                }
                Some(Frame::Acknowledged(acknowledged)) => {
                    let mut tally = tally.borrow_mut();
                    for result in acknowledged.results {
                        ensure!(result.status.is_none(), "not acknowledged: {result:?}");
                        tally.acknowledged(u64::try_from(result.sequence)?)?;
                    }
                }
                Some(Frame::Welcome(_) | Frame::Subscribed(_) | Frame::Heartbeat(_)) => {}
                other => bail!("not expected of a group: {other:?}"),
            }
        }
    }
}
