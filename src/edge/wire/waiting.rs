//! Waiting for memory: asking again and again, ever less often.
//!
//! Nobody is woken when memory is free, so that giving it back costs the same however many wait. What waits is not read
//! meanwhile, and flow control stops its client.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::memory::MemoryFull;

/// How long until memory is asked for again, at first
const SHORTEST: Duration = Duration::from_millis(5);
/// and at most: each time twice as long as before.
const LONGEST: Duration = Duration::from_millis(160);

/// Somebody who waits.
#[derive(Debug)]
pub(in crate::edge) struct Waiting {
    timer: Pin<Box<Sleep>>,
    interval: Duration,
    since: Instant,
}

impl Waiting {
    /// Begins to wait.
    pub(in crate::edge) fn new() -> Self {
        Self { timer: Box::pin(tokio::time::sleep(SHORTEST)), interval: SHORTEST, since: Instant::now() }
    }

    /// Ready each time memory is to be asked for again.
    pub(in crate::edge) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.timer.as_mut().poll(context));
        self.interval = (2 * self.interval).min(LONGEST);
        self.timer.as_mut().reset(Instant::now() + self.interval);
        Poll::Ready(())
    }

    /// How long it has waited.
    pub(in crate::edge) fn time(&self) -> Duration {
        self.since.elapsed()
    }
}

/// Asks for memory until there is some, for at most `timeout`. `ask` is told whether it has asked before.
pub(in crate::edge) async fn until_fits<T>(
    timeout: Duration,
    mut ask: impl FnMut(bool) -> Result<T, MemoryFull>,
) -> Result<T, MemoryFull> {
    if let Ok(held) = ask(false) {
        return Ok(held);
    }
    let mut waiting = Waiting::new();
    loop {
        poll_fn(|context| waiting.poll(context)).await;
        match ask(true) {
            Err(full) if waiting.time() >= timeout => return Err(full),
            Err(_) => {}
            held => return held,
        }
    }
}
