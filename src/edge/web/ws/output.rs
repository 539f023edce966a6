//! What waits for the client of a session, as frames of WebSocket.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{closing, encoding::Encoding, line::Line, sender::Next};
use crate::{
    net::SessionPermit,
    outbox::{Batch, Taken},
    session::Outlet,
};

/// A batch with room for more events or frames than this gives its memory back when the session is idle: an idle one is
/// little more than what it keeps.
const KEEP: usize = 16;

/// The sending half of one session.
pub(super) struct Output {
    outlet: Outlet,
    batch: Batch,
    encoding: Encoding,
    line: Arc<Line>,
    /// Counts the session as one of its connection.
    _permit: Option<SessionPermit>,
}

impl Output {
    pub(super) fn new(outlet: Outlet, encoding: Encoding, line: Arc<Line>, permit: Option<SessionPermit>) -> Self {
        Self { outlet, batch: Batch::default(), encoding, line, _permit: permit }
    }

    /// What is sent next.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        match self.outlet.poll_take(context, &mut self.batch) {
            Poll::Pending => {
                if self.batch.events.capacity().max(self.batch.items.capacity()) > KEEP {
                    self.batch = Batch::default();
                }
                Poll::Pending
            }
            Poll::Ready(Taken::Batch) => {
                let (tokens, metrics) = (self.outlet.tokens(), self.outlet.metrics());
                Poll::Ready(Next::Frames(self.encoding.frames(&mut self.batch, tokens, metrics)))
            }
            Poll::Ready(Taken::Finished(end)) => {
                Poll::Ready(Next::Close(closing::of_end(&end, self.line.breached(), &self.encoding)))
            }
        }
    }
}
