//! The sending half of one session, for an edge: what waits for the client, and what it takes to write it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    cut::Cut,
    hub::{Hub, OpenSession, TokenKey},
    outbox::{Batch, Taken},
    telemetry::Metrics,
};

/// Everything that an edge writes to the client of a session comes from here. Dropping it says that the client is gone.
#[derive(Debug)]
pub struct Outlet {
    hub: Arc<Hub>,
    entry: Arc<OpenSession>,
}

impl Outlet {
    pub(super) fn new(hub: Arc<Hub>, entry: Arc<OpenSession>) -> Self {
        Self { hub, entry }
    }

    /// Takes what is to be written next into `batch`, which the caller has cleared. While it is pending nothing waits, and
    /// the caller is woken once something does. How often it is called is the pace of the client: a session whose outlet is
    /// not polled after a batch has a client that takes nothing.
    pub fn poll_take(&mut self, context: &mut Context<'_>, batch: &mut Batch) -> Poll<Taken> {
        let taken = self.entry.taker().poll_take(context, batch);
        if taken == Poll::Ready(Taken::Batch)
            && let Some(tracing) = self.hub.tracing()
        {
            tracing.delivered(&self.entry, batch);
        }
        taken
    }

    /// Nobody polls it for a while: at most `bytes` may wait until somebody does again, and the hub neither waits for that
    /// nor sends heartbeats.
    pub(super) fn set_aside(&mut self, bytes: usize) {
        self.entry.set_aside(bytes);
    }

    /// It is polled again, for a stream that `cut` ends.
    pub(super) fn take_up(&mut self, cut: Option<Arc<Cut>>) {
        self.entry.take_up(cut);
    }

    /// What the positions of a batch are sealed with, for the client to resume from.
    pub fn tokens(&self) -> &TokenKey {
        self.hub.tokens()
    }

    /// Where what is written is counted.
    pub fn metrics(&self) -> &Metrics {
        self.hub.metrics()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.entry.abandon();
    }
}
