//! A file stream of JetStream, driven as fast as async-nats goes.
//!
//! Answers come to one subscription: a future for each event, as the client also offers, costs it more.

use std::{
    cell::RefCell,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    task::{Context as TaskContext, Poll},
};

use anyhow::Context;
use async_nats::{
    Client, Subject, Subscriber,
    jetstream::{
        self,
        consumer::{AckPolicy, Consumer, DeliverPolicy, pull, push},
        stream::{Config, StorageType},
    },
};
use futures_util::StreamExt;
use switchyard::bench::{Check, Outgoing};
use tokio::task::coop::unconstrained;

use super::store::{
    EventStore, GROUP, MOST_OF_MEMBER, MOST_UNACKED, Member, Publisher, Replay, STREAM, Shared, TOPIC, Tally,
};
use crate::{child::Server, nats::NatsSide};

/// A NATS server with a stream.
pub(super) struct JetStream {
    address: SocketAddr,
}

/// A connection that publishes.
pub(super) struct JetStreamPublisher {
    client: Client,
    topic: Subject,
    inbox: Subject,
    answers: Subscriber,
    /// The last sequence that an answer named.
    sequence: u64,
}

/// A connection that pulls for the group.
pub(super) struct JetStreamMember {
    consumer: Consumer<pull::Config>,
}

/// Writes the configuration of a server that keeps its streams in `folder`.
pub(super) fn configure(folder: &Path, always: bool) -> anyhow::Result<PathBuf> {
    let path = folder.join("nats.conf");
    let sync = if always { "sync_interval: always" } else { "" };
    let store = folder.join("jetstream");
    fs::write(&path, format!("jetstream {{\n  store_dir: {:?}\n  {sync}\n}}\n", store.display().to_string()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

impl JetStream {
    pub(super) fn at(server: &Server) -> Self {
        Self { address: server.address }
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        NatsSide { address: self.address }.connect().await
    }
}

impl EventStore for JetStream {
    type Publisher = JetStreamPublisher;

    async fn create(&self) -> anyhow::Result<()> {
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![TOPIC.to_owned()],
            storage: StorageType::File,
            ..Config::default()
        };
        jetstream::new(self.connect().await?).create_stream(config).await?;
        Ok(())
    }

    async fn publisher(&self) -> anyhow::Result<JetStreamPublisher> {
        let client = self.connect().await?;
        let inbox = Subject::from(client.new_inbox());
        let answers = client.subscribe(inbox.clone()).await?;
        Ok(JetStreamPublisher { client, topic: TOPIC.into(), inbox, answers, sequence: 0 })
    }

    async fn replay(&self, replay: &mut Replay) -> anyhow::Result<()> {
        let client = self.connect().await?;
        let stream = jetstream::new(client.clone()).get_stream_no_info(STREAM).await?;
        // The fastest of what the client offers: pulling 5000 at a time reads two thirds as many, its ordered pull less.
        let config = push::OrderedConfig {
            deliver_subject: client.new_inbox(),
            deliver_policy: DeliverPolicy::All,
            ..push::OrderedConfig::default()
        };
        let mut messages = stream.create_consumer(config).await?.messages().await?;
        // Tokio would stop at 128 messages, however many there are.
        unconstrained(async {
            while !replay.is_done() {
                let message = messages.next().await.context("the NATS client gave up")??;
                replay.check(&message.payload);
            }
            Ok(())
        })
        .await
    }
}

impl Publisher for JetStreamPublisher {
    async fn send(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()> {
        for Outgoing { payload, .. } in batch.drain(..) {
            self.client.publish_with_reply(self.topic.clone(), self.inbox.clone(), payload).await?;
        }
        Ok(())
    }

    async fn answered(&mut self) -> anyhow::Result<u64> {
        unconstrained(std::future::poll_fn(|context| self.poll_answered(context))).await
    }
}

impl JetStreamPublisher {
    /// Takes what is there.
    fn poll_answered(&mut self, context: &mut TaskContext<'_>) -> Poll<anyhow::Result<u64>> {
        let mut taken = 0;
        loop {
            match self.answers.poll_next_unpin(context) {
                Poll::Ready(Some(answer)) => {
                    self.sequence += 1;
                    let told = sequence(&answer.payload);
                    if told != Some(self.sequence) {
                        let text = String::from_utf8_lossy(&answer.payload).into_owned();
                        return Poll::Ready(Err(anyhow::anyhow!("{text} after {}", self.sequence - 1)));
                    }
                    taken += 1;
                }
                Poll::Ready(None) => return Poll::Ready(Err(anyhow::anyhow!("the NATS client gave up"))),
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(taken)),
            }
        }
    }
}

impl Shared for JetStream {
    type Member = JetStreamMember;

    async fn group(&self) -> anyhow::Result<()> {
        let config = pull::Config {
            durable_name: Some(GROUP.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: MOST_UNACKED.into(),
            ..pull::Config::default()
        };
        let stream = jetstream::new(self.connect().await?).get_stream_no_info(STREAM).await?;
        stream.create_consumer(config).await?;
        Ok(())
    }

    async fn member(&self) -> anyhow::Result<JetStreamMember> {
        let stream = jetstream::new(self.connect().await?).get_stream_no_info(STREAM).await?;
        let consumer = stream.get_consumer(GROUP).await.map_err(anyhow::Error::from_boxed)?;
        Ok(JetStreamMember { consumer })
    }

    async fn is_done(&self, sequence: u64) -> anyhow::Result<bool> {
        let stream = jetstream::new(self.connect().await?).get_stream_no_info(STREAM).await?;
        let info = stream.consumer_info(GROUP).await?;
        Ok((info.ack_floor.stream_sequence, info.num_pending, info.num_ack_pending) == (sequence, 0, 0))
    }
}

impl Member for JetStreamMember {
    async fn work(&mut self, tally: &RefCell<Tally>) -> anyhow::Result<()> {
        let pull = self.consumer.stream().max_messages_per_batch(MOST_OF_MEMBER as usize);
        let mut messages = pull.messages().await?;
        loop {
            let message = messages.next().await.context("the NATS client gave up")??;
            message.ack().await.map_err(anyhow::Error::from_boxed)?;
            let mut tally = tally.borrow_mut();
            let sequence = tally.came(&message.payload, None)?;
            tally.acknowledged(sequence)?;
        }
    }
}

/// The sequence in an answer. None when it is a refusal.
fn sequence(answer: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(answer).ok().filter(|text| !text.contains("\"error\""))?;
    let (_, behind) = text.split_once("\"seq\":")?;
    let end = behind.find(|c: char| !c.is_ascii_digit())?;
    behind[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_a_sequence_or_are_refusals() {
        assert_eq!(sequence(br#"{"stream":"bench","seq":12}"#), Some(12));
        assert_eq!(sequence(br#"{"stream":"bench","seq":12,"duplicate":true}"#), Some(12));
        assert_eq!(sequence(br#"{"error":{"code":503},"stream":"bench","seq":0}"#), None);
        assert_eq!(sequence(b"{}"), None);
    }
}
