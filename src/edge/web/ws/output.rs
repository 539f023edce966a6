//! What waits for the client of a session, as frames of WebSocket.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{closing, encoding::Encoding, line::Line, sender::Next};
use crate::{edge::wire::batch, net::SessionPermit, outbox::Taken, session::Outlet};

/// The sending half of one session.
pub(super) struct Output {
    outlet: Outlet,
    encoding: Encoding,
    line: Arc<Line>,
    /// Counts the session as one of its connection.
    _permit: Option<SessionPermit>,
}

impl Output {
    pub(super) fn new(outlet: Outlet, encoding: Encoding, line: Arc<Line>, permit: Option<SessionPermit>) -> Self {
        Self { outlet, encoding, line, _permit: permit }
    }

    /// What is sent next.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        batch::lend(|batch| match self.outlet.poll_take(context, batch) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Taken::Batch) => {
                let (tokens, metrics) = (self.outlet.tokens(), self.outlet.metrics());
                Poll::Ready(Next::Frames(self.encoding.frames(batch, tokens, metrics)))
            }
            Poll::Ready(Taken::Finished(end)) => {
                Poll::Ready(Next::Close(closing::of_end(&end, self.line.breached(), &self.encoding)))
            }
        })
    }
}
