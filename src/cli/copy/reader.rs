//! The events of a stream from a position on, one after the other, as far as somebody asks.

use std::{collections::VecDeque, time::Duration};

use anyhow::{anyhow, bail};
use tokio::time::timeout;

use super::end::End;
use crate::client::{Delivery, GapReason, Item, OnGap, Received, Start, Stream, Subscription};

/// Events on their way here, and those that wait here, at most,
const WINDOW_EVENTS: u32 = 8_192;
/// and their bytes.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// How long a hub may send nothing for a stream that has more. It covers a restart.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Reads a stream. What the stream no longer has is passed over.
pub(super) struct Reader<'a> {
    end: &'a End,
    subscription: Subscription,
    waiting: VecDeque<Received>,
    is_caught_up: bool,
}

impl<'a> Reader<'a> {
    /// Begins behind a sequence of a stream of this epoch.
    pub(super) async fn open(end: &'a End, after: i64, epoch: i64) -> anyhow::Result<Self> {
        let spec = Stream::named(&end.name).from(Start::After(after)).on_gap(OnGap::Earliest);
        let spec = spec.window(WINDOW_EVENTS).window_bytes(WINDOW_BYTES);
        let opened = timeout(PATIENCE, end.hub.client.subscribe(spec)).await;
        let subscription = opened.map_err(|_| nothing_came(end))?.map_err(|error| end.explain(&error))?;
        if subscription.opened().is_none_or(|opened| opened.epoch != epoch) {
            return Err(end.changed());
        }
        Ok(Self { end, subscription, waiting: VecDeque::new(), is_caught_up: false })
    }

    /// The next event, up to this sequence; `None` when there is none. The stream had this sequence when the reader began.
    pub(super) async fn next_up_to(&mut self, last: i64) -> anyhow::Result<Option<Received>> {
        loop {
            match self.waiting.front() {
                Some(event) if event.sequence() <= last => return Ok(self.waiting.pop_front()),
                None if !self.is_caught_up => self.wait().await?,
                _ => return Ok(None),
            }
        }
    }

    /// Waits for what comes next.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let next = timeout(PATIENCE, self.subscription.next()).await.map_err(|_| nothing_came(self.end))?;
        match next {
            Some(Ok(Item::Events(mut batch))) => {
                self.waiting.extend(batch.take_events().into_iter().map(Delivery::into_event));
                batch.done().await.map_err(|error| self.end.explain(&error))
            }
            Some(Ok(Item::Gap(gap))) if gap.reason == GapReason::Retention => Ok(()),
            Some(Ok(Item::Gap(_))) => Err(self.end.changed()),
            Some(Ok(Item::CaughtUp)) => {
                self.is_caught_up = true;
                Ok(())
            }
            Some(Err(error)) => Err(self.end.explain(&error)),
            None => bail!("the session with {} is over", self.end.url),
        }
    }
}

fn nothing_came(end: &End) -> anyhow::Error {
    anyhow!("nothing came from {} for {PATIENCE:?}", end.place())
}
