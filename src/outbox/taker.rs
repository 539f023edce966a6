//! The edges' view of an outbox: what waits is taken, in the order in which it is sent.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{frame::Batch, lock::Outbox, queues::Turn};
use crate::model::End;

/// Takes what waits for one client, which has one writer.
#[derive(Debug, Clone, Copy)]
pub struct Taker<'a>(&'a Outbox);

/// What a turn of the writer found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The batch has something to send.
    Batch,
    /// The session is over; this is how.
    Finished(End),
}

impl<'a> Taker<'a> {
    /// Of an outbox whose writer it is.
    pub fn new(outbox: &'a Outbox) -> Self {
        Self(outbox)
    }

    /// Takes what is sent next into `batch`, which the caller has cleared. Subscriptions that ended thereby are for the
    /// session to have forgotten: see [`super::Attention::closed`].
    pub fn poll_take(self, context: &mut Context<'_>, batch: &mut Batch) -> Poll<Taken> {
        let now = Instant::now();
        let mut waits = false;
        let taken = self.0.with(|state| {
            state.writing_since = None;
            waits = state.should_wait();
            if waits {
                return Poll::Pending;
            }
            match state.queues.fill(batch) {
                Turn::Some => {
                    state.last_sent = now;
                    state.writing_since = Some(now);
                    state.sent_events += batch.events.len() as u64;
                    Poll::Ready(Taken::Batch)
                }
                Turn::Finished(end) => {
                    state.over = true;
                    self.0.reader.notify_one();
                    Poll::Ready(Taken::Finished(end))
                }
                Turn::Idle => {
                    match &mut state.writer {
                        Some(waker) => waker.clone_from(context.waker()),
                        none => *none = Some(context.waker().clone()),
                    }
                    Poll::Pending
                }
            }
        });
        if waits {
            context.waker().wake_by_ref();
        }
        taken
    }
}
