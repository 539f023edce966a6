//! Subscriptions that begin at a time that is not yet: they are read for from then on.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    engine::{Chunk, EventStream, ReadError},
    outbox::SubscriptionKey,
};

/// How often to look whether it is time, at the least: clocks differ, and streams are deleted.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_millis(1);

/// Those of one session, in the order in which they are looked at again.
#[derive(Debug, Default)]
pub(super) struct Early {
    order: BTreeSet<(Instant, SubscriptionKey)>,
    known: HashSet<SubscriptionKey>,
}

impl Early {
    /// Looks at a subscription again after so long, or earlier.
    pub(super) fn wait(&mut self, key: SubscriptionKey, left: Duration) {
        if self.known.insert(key) {
            self.order.insert((Instant::now() + left.min(LOOK_INTERVAL), key));
        }
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// One that it is time to look at.
    pub(super) fn take(&mut self) -> Option<SubscriptionKey> {
        self.next().filter(|at| *at <= Instant::now())?;
        let (_, key) = self.order.pop_first()?;
        self.known.remove(&key);
        Some(key)
    }
}

/// How long it is until a time, as the stream goes by it.
pub(super) fn time_left(stream: &Arc<dyn EventStream>, at: Option<SystemTime>) -> Option<Duration> {
    Some(at?.duration_since(stream.now()).ok()?.max(SHORTEST))
}

/// What is to be passed over behind `after` because it was stored before a time; nothing when that was done.
pub(super) async fn pass_over(
    stream: &Arc<dyn EventStream>,
    at: SystemTime,
    after: u64,
) -> Result<Option<Chunk>, ReadError> {
    let through = stream.first_at(at).await? - 1;
    let latest = stream.bounds().latest.max(through);
    Ok((through > after).then_some(Chunk { events: Vec::new(), through, latest }))
}
