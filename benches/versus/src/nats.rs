//! NATS as a side: core NATS through async-nats, driven as fast as its client goes.
//!
//! Subjects and payloads are shared and never copied here; the client gathers what is published and writes it when its
//! task runs, so there is nothing to flush in a load; it need not check subjects that are known to be good.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use anyhow::{Context, bail, ensure};
use async_nats::{Client, ConnectOptions, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use switchyard::bench::{Check, Outgoing, Publish, Receive, Side};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::coop::unconstrained,
};

/// As much as the client can be told to read at a time.
const READ_BUFFER_BYTES: u16 = u16::MAX;
/// At most this many messages are taken before publishers hear of them.
const MOST_TOGETHER: usize = 1024;
/// The first lines of a server are shorter.
const MOST_GREETING_BYTES: usize = 16 * 1024;

/// A NATS server at an address.
#[derive(Debug)]
pub(crate) struct NatsSide {
    pub(crate) address: SocketAddr,
}

/// A connection that publishes.
#[derive(Debug)]
pub(crate) struct NatsPublisher {
    client: Client,
    /// By where the topic is in memory: the topics of a load live as long as it does.
    subjects: HashMap<usize, (Arc<str>, Subject)>,
}

/// A connection that subscribes.
pub(crate) struct NatsSubscriber {
    messages: Pin<Box<dyn Stream<Item = (usize, Message)> + Send>>,
    /// The filters when they may overlap. NATS delivers a message once for each that matches, where the hub delivers it
    /// once: those that came for an earlier filter are then left out.
    overlapping: Vec<String>,
    _client: Client,
}

impl NatsSide {
    /// Connects as both kinds of clients do.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        ConnectOptions::new()
            .read_buffer_capacity(READ_BUFFER_BYTES)
            .skip_subject_validation(true)
            .connect(self.address.to_string())
            .await
            .with_context(|| format!("no NATS server answers at {}", self.address))
    }

    /// A subscriber that takes nothing. Bare TCP, since async-nats always reads, and drops what its user does not take.
    pub(crate) async fn stalled(&self, filter: &str) -> anyhow::Result<TcpStream> {
        let mut connection = TcpStream::connect(self.address).await?;
        let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {filter} 1\r\nPING\r\n");
        connection.write_all(hello.as_bytes()).await?;
        let mut told = Vec::new();
        while !told.windows(4).any(|word| word == b"PONG") {
            ensure!(told.len() < MOST_GREETING_BYTES, "not a NATS server");
            ensure!(connection.read_buf(&mut told).await? > 0, "the NATS server hung up");
        }
        Ok(connection)
    }
}

impl Side for NatsSide {
    type Publisher = NatsPublisher;
    type Subscriber = NatsSubscriber;

    async fn publisher(&self) -> anyhow::Result<NatsPublisher> {
        Ok(NatsPublisher { client: self.connect().await?, subjects: HashMap::new() })
    }

    async fn subscriber(&self, filters: &[String]) -> anyhow::Result<NatsSubscriber> {
        let client = self.connect().await?;
        let mut subscriptions: Vec<Subscriber> = Vec::new();
        for filter in filters {
            subscriptions.push(client.subscribe(filter.clone()).await?);
        }
        // A flush of the client ends when all is written; only an answer tells that it was read.
        client.flush().await?;
        answered(&client).await?;

        let overlapping =
            if filters.len() > 1 && filters.iter().any(|f| f.contains('*')) { filters.to_vec() } else { Vec::new() };
        let mut numbered = subscriptions.into_iter().enumerate().map(|(at, one)| one.map(move |message| (at, message)));
        let messages: Pin<Box<dyn Stream<Item = (usize, Message)> + Send>> = match (filters.len(), numbered.next()) {
            (1, Some(only)) => Box::pin(only),
            (_, Some(first)) => Box::pin(stream::select_all(std::iter::once(first).chain(numbered))),
            (_, None) => bail!("no filters"),
        };
        Ok(NatsSubscriber { messages, overlapping, _client: client })
    }
}

/// Ends when the server has done everything this client asked of it.
async fn answered(client: &Client) -> anyhow::Result<()> {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    echo.next().await.context("the NATS server hung up")?;
    Ok(())
}

impl Publish for NatsPublisher {
    async fn publish(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()> {
        for Outgoing { topic, payload } in batch.drain(..) {
            let place = topic.as_ptr().addr();
            let (_, subject) = self.subjects.entry(place).or_insert_with(|| {
                let subject = Subject::from(topic.as_ref());
                (topic, subject)
            });
            self.client.publish(subject.clone(), payload).await?;
        }
        Ok(())
    }
}

impl Receive for NatsSubscriber {
    async fn receive(&mut self, check: &mut impl Check) -> anyhow::Result<()> {
        // Tokio would stop at 128 messages, however many there are.
        unconstrained(std::future::poll_fn(|context| self.poll_receive(context, check))).await
    }
}

impl NatsSubscriber {
    /// Takes what is there.
    fn poll_receive(&mut self, context: &mut TaskContext<'_>, check: &mut impl Check) -> Poll<anyhow::Result<()>> {
        let mut taken = 0;
        while taken < MOST_TOGETHER {
            match self.messages.poll_next_unpin(context) {
                Poll::Ready(Some((at, message))) => {
                    let earlier = self.overlapping.iter().take(at);
                    if !earlier.into_iter().any(|filter| matches(filter, &message.subject)) {
                        check.check(&message.payload);
                        taken += 1;
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Err(anyhow::anyhow!("the NATS client gave up"))),
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a filter without `>` matches.
fn matches(filter: &str, subject: &str) -> bool {
    let (mut wanted, mut given) = (filter.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == "*" || wanted == given => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_token_by_token() {
        assert!(matches("bench.*.2", "bench.1.2"));
        assert!(!matches("bench.*.2", "bench.1.3"));
        assert!(!matches("bench.*", "bench.1.2"));
        assert!(!matches("bench.*.2", "bench.1"));
    }
}
