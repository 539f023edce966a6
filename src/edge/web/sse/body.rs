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
use crate::{edge::wire::batch, net::SessionPermit, outbox::Taken, session::Outlet};

/// The body of one subscription.
#[derive(Debug)]
pub(super) struct EventBody {
    outlet: Outlet,
    writer: Writer,
    finished: bool,
    /// Counts the session as one of its connection.
    _permit: Option<SessionPermit>,
}

impl EventBody {
    pub(super) fn new(outlet: Outlet, writer: Writer, permit: Option<SessionPermit>) -> Self {
        Self { outlet, writer, finished: false, _permit: permit }
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
        batch::lend(|batch| match this.outlet.poll_take(context, batch) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Taken::Batch) => {
                let (tokens, metrics) = (this.outlet.tokens(), this.outlet.metrics());
                Poll::Ready(Some(Ok(Frame::data(this.writer.encode(batch, tokens, metrics)))))
            }
            // The last message has said how.
            Poll::Ready(Taken::Finished(_)) => {
                this.finished = true;
                Poll::Ready(None)
            }
        })
    }
}
