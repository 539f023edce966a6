//! The response body of `GET /v1/events`: what the outbox hands out, written into the bytes that go to the transport. An idle one
//! holds no buffer. The transport polls it only while it has room: that is the hub's back-pressure.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::writer::Writer;
use crate::{
    net::SessionPermit,
    outbox::{Batch, Taken},
    session::Outlet,
};

/// A batch with room for more events or frames than this gives its memory back when the session is idle: thousands of them may
/// be idle on one connection.
const KEEP_ITEMS: usize = 8;

/// The body of one subscription.
#[derive(Debug)]
pub(super) struct EventBody {
    outlet: Outlet,
    writer: Writer,
    batch: Batch,
    finished: bool,
    /// Counts the session as one of its connection.
    _permit: Option<SessionPermit>,
}

impl EventBody {
    pub(super) fn new(outlet: Outlet, writer: Writer, permit: Option<SessionPermit>) -> Self {
        Self { outlet, writer, batch: Batch::default(), finished: false, _permit: permit }
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.finished {
            return Poll::Ready(None);
        }
        match this.outlet.poll_take(context, &mut this.batch) {
            Poll::Pending => {
                if this.batch.events.capacity().max(this.batch.items.capacity()) > KEEP_ITEMS {
                    this.batch = Batch::default();
                }
                Poll::Pending
            }
            Poll::Ready(Taken::Batch) => {
                let (tokens, metrics) = (this.outlet.tokens(), this.outlet.metrics());
                Poll::Ready(Some(Ok(Frame::data(this.writer.encode(&mut this.batch, tokens, metrics)))))
            }
            // The last message has said how.
            Poll::Ready(Taken::Finished(_)) => {
                this.finished = true;
                Poll::Ready(None)
            }
        }
    }
}
