//! The bytes of one frame while it is put together, and the memory that is held for them.
//!
//! A buffer holds its memory before it has it, and grows with what has come, never with what was only announced. A frame
//! that publishes to a stream counts as a publish from the first bytes that say so: while such wait for the disk, they
//! leave the memory for frames to all others.

use std::sync::Arc;

use bytes::Bytes;

use super::head::{Frames, first_topic};
use crate::{
    hub::Hub,
    memory::{Client, Held, MemoryFull, Use},
};

/// A buffer has at least this much room, if its frame is not smaller.
const LEAST_BYTES: usize = 4 * 1024;
/// Up to this size it has four times the room for what has come; later twice.
const SMALL_BYTES: usize = 64 * 1024;

/// Who gives memory to the buffers of one request.
#[derive(Debug)]
pub(in crate::edge) struct Lender {
    pub(in crate::edge) client: Arc<Client>,
    /// Where to look whether a frame publishes to a stream, and what frames are; `None`: none does.
    pub(in crate::edge) publishes: Option<(Arc<Hub>, Frames)>,
}

impl Lender {
    /// Whether the frame that begins so publishes to a stream; `None` while that is not known.
    fn stores(&self, head: &[u8]) -> Option<bool> {
        let Some((hub, frames)) = &self.publishes else { return Some(false) };
        first_topic(head, *frames).map(|topic| hub.stores(topic))
    }
}

/// One message of a client, not decoded, and the memory that is held for it; `None` for one in a piece of the transport.
#[derive(Debug)]
pub(in crate::edge) struct Message {
    pub(in crate::edge) bytes: Bytes,
    pub(in crate::edge) held: Option<Held>,
}

/// Bytes of one frame.
#[derive(Debug, Default)]
pub(in crate::edge) struct Buffer {
    pub(in crate::edge) bytes: Vec<u8>,
    held: Option<Held>,
    /// What is held for a publish until that holds its own.
    before: Option<Held>,
    /// It is known whether it is a publish to a stream.
    known: bool,
    /// Held besides the room of the bytes.
    besides: usize,
}

impl Buffer {
    /// One with which so much more is in use.
    pub(in crate::edge) fn with_besides(besides: usize) -> Self {
        Self { besides, ..Self::default() }
    }

    /// Makes room for `more` bytes of a frame that has `most` at most and begins with `head`. `again` says that it was asked
    /// for before, in vain.
    pub(in crate::edge) fn grow(
        &mut self,
        (more, most): (usize, usize),
        head: Option<&[u8]>,
        lender: &Lender,
        again: bool,
    ) -> Result<(), MemoryFull> {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        let ahead = (4 * needed).clamp(LEAST_BYTES, SMALL_BYTES).max(2 * self.bytes.capacity());
        let capacity = ahead.max(needed).min(most.max(needed));
        if !self.known {
            self.choose(head, lender);
        }
        let held = self.held.get_or_insert_with(|| lender.client.nothing(Use::Frames));
        let wanted = (capacity + self.besides).saturating_sub(held.bytes());
        hold_more(held, wanted, again)?;
        self.before = None;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    /// Notes for what the memory is held, once that is known.
    fn choose(&mut self, head: Option<&[u8]>, lender: &Lender) {
        let head = if self.bytes.is_empty() { head } else { head.and(Some(&*self.bytes)) };
        let stores = head.map_or(Some(false), |head| lender.stores(head));
        self.known = stores.is_some();
        if stores == Some(true) {
            self.before = self.held.replace(lender.client.nothing(Use::Publishes));
        }
    }

    /// The bytes, and the memory they hold.
    pub(in crate::edge) fn finish(mut self) -> (Bytes, Option<Held>) {
        if let Some(held) = &mut self.held {
            held.shrink(self.besides);
        }
        (self.bytes.into(), self.held)
    }
}

/// Has more held for who holds some already. Who has asked before may hold more than the limits, if nobody else does:
/// what it waits for may be held by others that wait.
pub(in crate::edge) fn hold_more(held: &mut Held, bytes: usize, again: bool) -> Result<(), MemoryFull> {
    if again || held.overdraws() { held.grow_again(bytes).or_else(|_| held.overdraw(bytes)) } else { held.grow(bytes) }
}
