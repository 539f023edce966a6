//! What is sent to a client, in order: answers to its pings, pings of the hub, what waits for it, and at the end a close.
//!
//! It makes the next bytes whenever the transport has room for them, and holds none. What waits for the client is
//! somebody else's: a function gives it, frame by frame, and says when it is over.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Sleep;

use super::{
    alive::{Alive, Beat},
    frame::{Opcode, close, put_close, put_control},
    line::{Heard, Line},
};

/// What is sent next.
#[derive(Debug)]
pub(super) enum Next {
    /// Whole frames.
    Frames(Bytes),
    /// The end.
    Close(Closing),
}

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    /// Frames that come before the close.
    pub(super) last: Vec<u8>,
    pub(super) code: u16,
    /// ASCII.
    pub(super) reason: &'static str,
}

/// How sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// With a close, of the hub or of the client.
    Closed,
    /// The client went without one.
    Gone,
    /// The client did not show that it is alive.
    Silent,
    /// The client took nothing for too long.
    Stalled,
}

/// The sending half of one connection.
pub(super) struct Sender<F> {
    next: F,
    line: Arc<Line>,
    alive: Alive,
    /// As long as this the client may take nothing.
    write_timeout: Duration,
    /// Until it has taken nothing for that long.
    patience: Option<Pin<Box<Sleep>>>,
    sent: Option<Sent>,
}

impl<F: FnMut(&mut Context<'_>) -> Poll<Next>> Sender<F> {
    pub(super) fn new(next: F, line: Arc<Line>, alive: Alive, write_timeout: Duration) -> Self {
        Self { next, line, alive, write_timeout, patience: None, sent: None }
    }

    /// The next bytes, for a transport that has room for them; at the end, how it ended.
    pub(super) fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Sent>> {
        if let Some(sent) = self.sent {
            return Poll::Ready(Err(sent));
        }
        match self.line.news(context) {
            None => {}
            Some(Heard::Pings(pongs)) => return Poll::Ready(Ok(pongs.into())),
            Some(Heard::Closes(code)) => return Poll::Ready(Ok(self.close(Sent::Closed, Vec::new(), code, ""))),
            Some(Heard::Gone) => {
                self.sent = Some(Sent::Gone);
                return Poll::Ready(Err(Sent::Gone));
            }
        }
        match self.alive.poll(context, &self.line) {
            Poll::Pending => {}
            Poll::Ready(Beat::Ping) => {
                let mut ping = Vec::new();
                put_control(Opcode::Ping, &[], &mut ping);
                return Poll::Ready(Ok(ping.into()));
            }
            Poll::Ready(Beat::Gone) => {
                return Poll::Ready(Ok(self.close(Sent::Silent, Vec::new(), Some(close::AWAY), "no answer to a ping")));
            }
        }
        match (self.next)(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Next::Frames(frames)) => Poll::Ready(Ok(frames)),
            Poll::Ready(Next::Close(Closing { last, code, reason })) => {
                Poll::Ready(Ok(self.close(Sent::Closed, last, Some(code), reason)))
            }
        }
    }

    /// While the transport has no room: ready when the client has not taken anything for too long, or has not shown that it is
    /// alive.
    pub(super) fn poll_stuck(&mut self, context: &mut Context<'_>) -> Poll<Sent> {
        // A ping that it is time for is not sent: there is no room for it. It counts from now all the same.
        while let Poll::Ready(beat) = self.alive.poll(context, &self.line) {
            if beat == Beat::Gone {
                return Poll::Ready(Sent::Silent);
            }
        }
        let timeout = self.write_timeout;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        patience.as_mut().poll(context).map(|()| Sent::Stalled)
    }

    /// The transport has room again, which it had not.
    pub(super) fn took(&mut self) {
        self.patience = None;
        self.line.hear();
    }

    fn close(&mut self, how: Sent, mut last: Vec<u8>, code: Option<u16>, reason: &str) -> Bytes {
        self.sent = Some(how);
        put_close(code, reason, &mut last);
        last.into()
    }
}
