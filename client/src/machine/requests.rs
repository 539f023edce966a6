//! The requests of a session that the hub will answer, by their ids. Pure.

use std::collections::HashMap;

/// Ids below this are of commands that are answered only on failure; they are not remembered.
const FIRST: i64 = 16;
/// The id of every `hello`.
pub(crate) const HELLO: i64 = 1;
/// The id of every `authenticate`.
pub(crate) const AUTHENTICATE: i64 = 2;
/// The id of every `unsubscribe`. It is answered by `ended`, which bears the subscription.
pub(crate) const UNSUBSCRIBE: i64 = 3;
/// The id of every `credit`.
pub(crate) const CREDIT: i64 = 4;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To open this subscription.
    Subscribe(i64),
    /// To store what was said of events of this subscription.
    Acknowledge(i64),
    /// To publish.
    Publish,
}

/// The requests that are open.
#[derive(Debug)]
pub(crate) struct Requests {
    next: i64,
    open: HashMap<i64, Asked>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { next: FIRST, open: HashMap::new() }
    }
}

impl Requests {
    /// The id that the next request will have.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// A request is written, with the id that was next.
    pub(crate) fn open(&mut self, asked: Asked) -> i64 {
        let request = self.next;
        self.next += 1;
        self.open.insert(request, asked);
        request
    }

    /// A request is answered: what it was.
    pub(crate) fn close(&mut self, request: i64) -> Option<Asked> {
        self.open.remove(&request)
    }

    /// The session is over, and nothing is answered any more. Ids are not used again: nobody can take one answer for another.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }
}
