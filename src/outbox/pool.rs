//! The waiting events of all subscriptions of one session, in one block of memory. Pure.
//!
//! Each subscription has a queue that is a linked list through the pool, so that an empty queue costs 16 bytes and no
//! allocation, and memory freed by one subscription serves the next.

use crate::event::Event;

/// Names no node.
const NONE: u32 = u32::MAX;
/// What memory is fetched by.
const CACHE_LINE_BYTES: usize = 64;
/// A pool that empties gives its memory back when it has room for more than this many nodes.
const KEEP_NODES: usize = 1024;

/// One subscription's waiting events, oldest first. It is only valid with the pool it grew in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    head: u32,
    tail: u32,
    len: u32,
    bytes: u32,
}

/// Where an event waits in the pool.
pub(super) type NodeId = u32;

/// All nodes of one session, each with a place in both lists: as one record an event and a number would be padded to 24 bytes.
#[derive(Debug)]
pub(super) struct Pool {
    events: Vec<Option<Event>>,
    next: Vec<u32>,
    free: u32,
    used: usize,
}

impl Queue {
    pub(super) const EMPTY: Queue = Queue { head: NONE, tail: NONE, len: 0, bytes: 0 };

    pub(super) fn len(self) -> usize {
        self.len as usize
    }

    pub(super) fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The encoded size of all that waits.
    pub(super) fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// Where the oldest event waits.
    pub(super) fn head(self) -> Option<NodeId> {
        (self.head != NONE).then_some(self.head)
    }
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { events: Vec::new(), next: Vec::new(), free: NONE, used: 0 }
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The event that waits at `id`.
    pub(super) fn get(&self, id: NodeId) -> Option<&Event> {
        self.events.get(id as usize)?.as_ref()
    }

    /// Appends an event and tells where it waits.
    pub(super) fn push(&mut self, queue: &mut Queue, event: Event) -> NodeId {
        queue.len += 1;
        queue.bytes = queue.bytes.saturating_add(size(&event));
        let id = if self.free == NONE {
            // Budgets keep a session far below 2^32 waiting events.
            self.events.push(Some(event));
            self.next.push(NONE);
            (self.events.len() - 1) as u32
        } else {
            let id = self.free;
            self.free = std::mem::replace(&mut self.next[id as usize], NONE);
            self.events[id as usize] = Some(event);
            id
        };
        self.used += 1;
        if queue.tail == NONE {
            queue.head = id;
        } else {
            self.next[queue.tail as usize] = id;
        }
        queue.tail = id;
        id
    }

    /// Has the oldest `most` events brought from memory all at once. Those of a client that takes nothing lie there since long,
    /// and freeing one after the other would wait for each; what is freed is also what the next events are written to.
    pub(super) fn fetch(&self, queue: Queue, most: usize) {
        let nodes = || std::iter::successors(queue.head(), |id| self.next.get(*id as usize).copied()).take(most);
        let events = || nodes().filter_map(|id| self.get(id));
        // First what all else hangs on: each of these can be fetched without waiting for another.
        let shared = events().fold(0, |sum, event| sum ^ event.sequence());
        let lines = events().flat_map(|event| event.encoded().iter().step_by(CACHE_LINE_BYTES));
        std::hint::black_box(lines.fold(shared, |sum, byte| sum ^ u64::from(*byte)));
    }

    /// Takes the oldest event.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<Event> {
        let id = queue.head()?;
        let event = self.events[id as usize].take()?;
        queue.head = std::mem::replace(&mut self.next[id as usize], self.free);
        if queue.head == NONE {
            queue.tail = NONE;
        }
        queue.len -= 1;
        queue.bytes -= size(&event);
        self.free = id;
        self.used -= 1;
        if self.used == 0 && self.events.capacity() > KEEP_NODES {
            *self = Self::new();
        }
        Some(event)
    }

    /// Puts `event` in the place of the one that waits at `id` in `queue`, and gives that one back.
    pub(super) fn replace(&mut self, queue: &mut Queue, id: NodeId, event: Event) -> Option<Event> {
        let place = self.events.get_mut(id as usize)?.as_mut()?;
        queue.bytes = queue.bytes - size(place) + size(&event);
        Some(std::mem::replace(place, event))
    }

    /// Empties a queue.
    pub(super) fn clear(&mut self, queue: &mut Queue) {
        while self.pop(queue).is_some() {}
    }
}

fn size(event: &Event) -> u32 {
    u32::try_from(event.encoded_len()).unwrap_or(u32::MAX)
}
