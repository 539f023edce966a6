//! Ending one stream of a client from outside.
//!
//! That is the only way to be rid of a stream whose client takes nothing: its response is not polled any more. Whoever
//! decides that it has to go cuts it, whoever serves it drops it; neither knows the other.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use tokio::time::Instant;

/// Ends one stream. In the extensions of every request that came over HTTP/2, or over HTTP/1 where that is served at
/// length.
#[derive(Debug, Default)]
pub struct Cut {
    done: AtomicBool,
    task: AtomicWaker,
    farewell: Arc<Farewell>,
}

/// By when the streams of one connection are to end, once that is known.
#[derive(Debug, Default)]
pub struct Farewell(OnceLock<Instant>);

impl Farewell {
    /// They are to end by then. The first time counts.
    pub fn say(&self, by: Instant) {
        self.0.get_or_init(|| by);
    }
}

impl Cut {
    /// Of one stream of the connection with this farewell.
    pub fn new(farewell: &Arc<Farewell>) -> Arc<Self> {
        Arc::new(Self { farewell: Arc::clone(farewell), ..Self::default() })
    }

    /// Ends the stream: everything that serves it is dropped, and its client gets a reset. False if it was cut before.
    pub fn cut(&self) -> bool {
        let first = !self.done.swap(true, Ordering::AcqRel);
        self.task.wake();
        first
    }

    /// Ready once the stream is to be cut. Only the task of the stream asks.
    pub fn poll_done(&self, context: &Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        if self.done.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// By when the stream is to end, because its connection does.
    pub fn ends_by(&self) -> Option<Instant> {
        self.farewell.0.get().copied()
    }
}
