//! The response body of a session: what the outbox hands out, as HTTP frames.
//!
//! It is a body of its own rather than a tonic stream, so that a batch is encoded straight into the bytes that go to
//! the transport, and an idle session holds no buffer. The transport polls it only while it has room: that is the hub's
//! back-pressure, and nothing else is needed.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::framing;
use crate::{
    edge::wire::{framer, frames, status},
    net::SessionPermit,
    outbox::{Batch, Taken},
    session::Outlet,
};

/// A batch with room for more events or frames than this gives its memory back when the session is idle.
const KEEP_EVENTS: usize = 256;

/// The response body of one session.
#[derive(Debug)]
pub(super) struct SessionBody {
    outlet: Outlet,
    batch: Batch,
    finished: bool,
    /// Counts the session as one of its connection.
    _permit: Option<SessionPermit>,
}

impl SessionBody {
    pub(super) fn new(outlet: Outlet, permit: Option<SessionPermit>) -> Self {
        Self { outlet, batch: Batch::default(), finished: false, _permit: permit }
    }
}

impl Body for SessionBody {
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
        let taken = this.outlet.poll_take(context, &mut this.batch);
        Poll::Ready(Some(Ok(match taken {
            Poll::Pending => {
                if this.batch.events.capacity().max(this.batch.items.capacity()) > KEEP_EVENTS {
                    this.batch = Batch::default();
                }
                return Poll::Pending;
            }
            Poll::Ready(Taken::Batch) => Frame::data(frames::encode(
                &mut this.batch,
                this.outlet.tokens(),
                this.outlet.metrics(),
                framer::prefix,
            )),
            Poll::Ready(Taken::Finished(end)) => {
                this.finished = true;
                Frame::trailers(framing::trailers(&status::of_finished_call(&end)))
            }
        })))
    }
}
