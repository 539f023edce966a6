//! The frames that wait for a client and are not events. Each holds memory, and so they are counted. Pure.

use std::collections::VecDeque;

use super::frame::Reply;

/// With no frame waiting there is room kept for this many; none where nothing is commanded, since thousands of such sessions
/// may be idle on one connection.
const KEEP_REPLIES: usize = 64;

/// Oldest first.
#[derive(Debug)]
pub(super) struct Replies {
    waiting: VecDeque<Reply>,
    bytes: usize,
    keep: usize,
}

impl Replies {
    /// Of a session that `is_commanded`, or gets little but events.
    pub(super) fn new(is_commanded: bool) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, keep: if is_commanded { KEEP_REPLIES } else { 0 } }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// About how many bytes they hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, reply: Reply) {
        self.bytes += reply.frame.cost();
        self.waiting.push_back(reply);
    }

    pub(super) fn extend(&mut self, replies: impl IntoIterator<Item = Reply>) {
        replies.into_iter().for_each(|reply| self.push(reply));
    }

    /// The oldest, and how many bytes it held.
    pub(super) fn pop(&mut self) -> Option<(Reply, usize)> {
        let reply = self.waiting.pop_front()?;
        let cost = reply.frame.cost();
        self.bytes -= cost;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(self.keep);
        }
        Some((reply, cost))
    }
}
