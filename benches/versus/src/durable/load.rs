//! A publisher that keeps a window of unanswered events full, or sends one at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use switchyard::bench::{Outgoing, Record};
use tokio::time::timeout;

use super::store::{Publisher, TOPIC};

/// The size of every payload.
pub(crate) const PAYLOAD_BYTES: usize = 128;
/// So many events are unanswered at a time: fewer than JetStream takes before it refuses more (10 000).
const WINDOW_EVENTS: u64 = 8192;
/// So many are sent together.
const MOST_TOGETHER: u64 = 128;
/// For how long lone events are sent.
const LONE_TIME: Duration = Duration::from_millis(1500);
/// All of something must have been answered or read within this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long to publish.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Events(u64),
    Time(Duration),
}

/// A publisher and what it has sent.
pub(super) struct Load<P> {
    publisher: P,
    topic: Arc<str>,
    batch: Vec<Outgoing>,
    pub(super) sent: u64,
    answered: u64,
}

impl<P: Publisher> Load<P> {
    pub(super) fn new(publisher: P) -> Self {
        Self { publisher, topic: TOPIC.into(), batch: Vec::new(), sent: 0, answered: 0 }
    }

    /// Sends so many events together.
    async fn send(&mut self, events: u64) -> anyhow::Result<()> {
        for sequence in self.sent..self.sent + events {
            let mut payload = [0; PAYLOAD_BYTES];
            // The record has less room for a sequence, which begins again when it is full.
            let sequence = (sequence & u64::from(u32::MAX)) as u32;
            Record { publisher: 0, topic: 0, sequence, intended: 0 }.write(&mut payload);
            let payload = Bytes::copy_from_slice(&payload);
            self.batch.push(Outgoing { topic: Arc::clone(&self.topic), payload });
        }
        self.sent += events;
        self.publisher.send(&mut self.batch).await
    }

    /// Waits for answers.
    async fn hear(&mut self) -> anyhow::Result<()> {
        self.answered += self.publisher.answered().await?;
        ensure!(self.answered <= self.sent, "more answers than events");
        Ok(())
    }

    /// Keeps the window full until it is over, and then until all is answered. How many events that were.
    pub(super) async fn pipelined(&mut self, length: Length) -> anyhow::Result<u64> {
        let (begin, before) = (Instant::now(), self.sent);
        loop {
            let left = match length {
                Length::Events(events) => (before + events).saturating_sub(self.sent),
                Length::Time(time) if begin.elapsed() < time => MOST_TOGETHER,
                Length::Time(_) => 0,
            };
            let together = left.min(MOST_TOGETHER);
            if together > 0 && self.sent - self.answered + together <= WINDOW_EVENTS {
                self.send(together).await?;
            } else if self.answered < self.sent {
                self.hear().await?;
            } else {
                return Ok(self.sent - before);
            }
        }
    }

    /// One event at a time, for a while: the median time from sending to the answer, in microseconds.
    pub(super) async fn lone(&mut self) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let mut times = Vec::new();
        while begin.elapsed() < LONE_TIME {
            let sent = Instant::now();
            self.send(1).await?;
            timeout(PATIENCE, self.hear()).await.context("no answer")??;
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        let median = times.get(times.len() / 2).context("no answers")?;
        Ok(median.as_secs_f64() * 1e6)
    }
}
