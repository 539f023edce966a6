//! What the two halves of a connection have to say to each other: the reader, which is polled by the task of the session, and
//! the sender, which is polled where the connection is driven.
//!
//! The reader answers nothing by itself. It leaves here that a ping is to be answered, that the client closes or is gone,
//! and that it is alive, and wakes the sender.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Context,
};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

use super::frame::{Breach, MAX_CONTROL_BYTES, Opcode, put_control};

/// So many answers to pings wait at most; of more, the oldest are not given: a client that has sent another ping does not
/// need them.
const MAX_PONGS_BYTES: usize = 16 * (2 + MAX_CONTROL_BYTES);

/// Between the halves of one connection.
#[derive(Debug, Default)]
pub(super) struct Line {
    said: Mutex<Said>,
    /// There is something new in `said`.
    news: AtomicBool,
    sender: AtomicWaker,
    /// Something came from the client since the sender has asked.
    heard: AtomicBool,
    /// The reader waits for the client, not the client for the hub.
    listens: AtomicBool,
}

#[derive(Debug, Default)]
struct Said {
    /// Frames that answer pings.
    pongs: Vec<u8>,
    /// How the client ends, once it does.
    end: Option<Heard>,
    breach: Option<Breach>,
}

/// What the sender has to know of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has sent pings: the frames that answer them.
    Pings(Vec<u8>),
    /// It closes, and says why if it wants to.
    Closes(Option<u16>),
    /// Its half of the connection has ended without a close.
    Gone,
}

impl Line {
    /// The client has sent a ping.
    pub(super) fn ping(&self, payload: &[u8]) {
        let mut said = self.said.lock();
        if said.pongs.len() + 2 + payload.len() > MAX_PONGS_BYTES {
            said.pongs.clear();
        }
        put_control(Opcode::Pong, payload, &mut said.pongs);
        drop(said);
        self.wake();
    }

    /// The client has said its last.
    pub(super) fn end(&self, end: Heard) {
        self.said.lock().end.get_or_insert(end);
        self.wake();
    }

    /// The client has done what ends its connection. The session ends for it, and then the sender does.
    pub(super) fn breach(&self, breach: Breach) {
        self.said.lock().breach.get_or_insert(breach);
    }

    /// What the client has done, if it has done anything.
    pub(super) fn breached(&self) -> Option<Breach> {
        self.said.lock().breach
    }

    /// What the client has said since the last time. The task that asks is woken when there is more.
    pub(super) fn news(&self, context: &Context<'_>) -> Option<Heard> {
        self.sender.register(context.waker());
        if !self.news.swap(false, Relaxed) {
            return None;
        }
        let mut said = self.said.lock();
        if said.pongs.is_empty() {
            return said.end.take();
        }
        // What is behind the pongs comes next time.
        self.news.store(said.end.is_some(), Relaxed);
        Some(Heard::Pings(std::mem::take(&mut said.pongs)))
    }

    /// Something came from the client, or it took something it had not taken for a while.
    pub(super) fn hear(&self) {
        self.heard.store(true, Relaxed);
    }

    /// The reader waits for the client from now on, or does not.
    pub(super) fn listen(&self, listens: bool) {
        self.listens.store(listens, Relaxed);
    }

    /// From now on the client is to show that it is alive.
    pub(super) fn ask(&self) {
        self.heard.store(false, Relaxed);
    }

    /// Whether the client may be alive: it has been heard of since it was asked, or could not be.
    pub(super) fn may_be_alive(&self) -> bool {
        self.heard.load(Relaxed) || !self.listens.load(Relaxed)
    }

    fn wake(&self) {
        self.news.store(true, Relaxed);
        self.sender.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn news(line: &Line) -> Option<Heard> {
        line.news(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn pings_are_answered_in_order_before_anything_ends() {
        let line = Line::default();
        assert_eq!(news(&line), None);
        line.ping(b"a");
        line.ping(b"");
        line.end(Heard::Closes(Some(1000)));
        line.end(Heard::Gone);
        assert_eq!(news(&line), Some(Heard::Pings(vec![0x8A, 1, b'a', 0x8A, 0])));
        assert_eq!(news(&line), Some(Heard::Closes(Some(1000))), "the first end counts");
        assert_eq!(news(&line), None);
    }

    #[test]
    fn sixteen_of_the_longest_pings_wait_for_an_answer_and_not_one_more() {
        let line = Line::default();
        (0..16).for_each(|n| line.ping(&[n; MAX_CONTROL_BYTES]));
        let Some(Heard::Pings(pongs)) = news(&line) else { panic!("no answers") };
        assert_eq!((pongs.len(), pongs[2]), (MAX_PONGS_BYTES, 0));
        (0..17).for_each(|n| line.ping(&[n; MAX_CONTROL_BYTES]));
        let Some(Heard::Pings(pongs)) = news(&line) else { panic!("no answers") };
        assert_eq!((pongs.len(), pongs[2]), (2 + MAX_CONTROL_BYTES, 16), "only the newest is needed");
    }

    #[test]
    fn a_client_that_is_not_listened_to_cannot_show_that_it_is_alive() {
        let line = Line::default();
        assert!(line.may_be_alive());
        line.listen(true);
        assert!(!line.may_be_alive());
        line.hear();
        assert!(line.may_be_alive());
        line.ask();
        assert!(!line.may_be_alive());
    }
}
