//! The time in which a message has to be complete that has begun to come.
//!
//! It is counted only while its client is read. A client that sent something just now is not late: the hub may not have
//! read for long, and then the client could not send.

use std::{future::Future, pin::Pin, task::Context, time::Duration};

use tokio::time::{Instant, Sleep};

/// The time of one message after the other.
#[derive(Debug)]
pub(in crate::edge) struct Lateness {
    timeout: Duration,
    /// Since when the hub waits for what is next, unless it may wait for ever.
    since: Option<Instant>,
    /// Kept when a message is complete: most often the next one is not. It then rings for nothing, once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Lateness {
    /// No message has begun.
    pub(in crate::edge) fn new(timeout: Duration) -> Self {
        Self { timeout, since: None, timer: None }
    }

    /// How long a message may take.
    pub(in crate::edge) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A message has begun, or is expected, if none was before.
    pub(in crate::edge) fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// The message goes on: the time until now does not count.
    pub(in crate::edge) fn restart(&mut self) {
        if self.since.is_some() {
            self.since = Some(Instant::now());
        }
    }

    /// The message is complete, and the next one may take its time.
    pub(in crate::edge) fn end(&mut self) {
        self.since = None;
    }

    /// Whether the client has used up its time. If it has, but something `came` just now, the time begins again.
    pub(in crate::edge) fn poll(&mut self, context: &mut Context<'_>, came: bool) -> bool {
        while let Some(since) = self.since {
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + self.timeout)));
            if timer.as_mut().poll(context).is_pending() {
                return false;
            }
            match since.elapsed() >= self.timeout {
                true if came => self.since = Some(Instant::now()),
                true => return true,
                // It was set for a message before.
                false => timer.as_mut().reset(since + self.timeout),
            }
        }
        false
    }
}
