//! What waits for the committer, in order and with a limit.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::event::Event;

/// Waiting bytes are counted in units of these.
const UNIT_BYTES: usize = 1024;
/// What an event costs besides its bytes while it waits.
const EVENT_OVERHEAD_BYTES: usize = 128;
/// So many bytes are committed together: more would only make the first of them wait.
const ROUND_BYTES: usize = 8 * 1024 * 1024;

/// What can wait here.
pub(super) trait Queued {
    /// How many bytes of events it is, as they are committed together.
    fn bytes(&self) -> usize;

    /// It is done by itself, not together with others.
    fn is_alone(&self) -> bool;
}

/// The room that something takes while it waits; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    /// What it was asked for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

struct Queue<W> {
    works: VecDeque<W>,
    closed: bool,
}

/// Where work waits.
pub(super) struct Inbox<W> {
    queue: Mutex<Queue<W>>,
    /// Wakes the committer where it is a thread,
    some: Condvar,
    /// and where it is a task.
    task: Option<Notify>,
    room: Arc<Semaphore>,
    limit: usize,
}

impl<W> std::fmt::Debug for Inbox<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Nobody takes work any more.
#[derive(Debug)]
pub(super) struct Closed;

/// What events cost while they wait.
pub(super) fn cost<'a>(events: impl IntoIterator<Item = &'a Event>) -> usize {
    events.into_iter().map(|event| event.encoded_len() + EVENT_OVERHEAD_BYTES).sum()
}

impl<W: Queued> Inbox<W> {
    /// Empty. `for_task` says that the committer is a task, not a thread.
    pub(super) fn new(limit: usize, for_task: bool) -> Self {
        let room = Arc::new(Semaphore::new(limit / UNIT_BYTES));
        let task = for_task.then(Notify::new);
        let queue = Mutex::new(Queue { works: VecDeque::new(), closed: false });
        Self { queue, some: Condvar::new(), task, room, limit }
    }

    /// The most that one work may cost.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Waits for room, in the order of asking. No more than the limit is ever asked for.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room, Closed> {
        let units = bytes.min(self.limit).div_ceil(UNIT_BYTES).min(self.limit / UNIT_BYTES);
        let permit = Arc::clone(&self.room).acquire_many_owned(units as u32).await.map_err(|_| Closed)?;
        Ok(Room { bytes, _permit: permit })
    }

    /// Puts work at the end.
    pub(super) fn push(&self, work: W) -> Result<(), Closed> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Closed);
        }
        queue.works.push_back(work);
        let was_empty = queue.works.len() == 1;
        drop(queue);
        if was_empty {
            self.wake();
        }
        Ok(())
    }

    /// Puts work back that was taken, to be taken first.
    pub(super) fn put_back(&self, works: Vec<W>) {
        let mut queue = self.queue.lock();
        for work in works.into_iter().rev() {
            queue.works.push_front(work);
        }
    }

    fn wake(&self) {
        match &self.task {
            None => _ = self.some.notify_one(),
            Some(task) => task.notify_one(),
        }
    }

    /// Takes what is done together, and waits for it until `deadline`: one that is done alone, or as many others as make a round.
    /// `None` once it is closed and everything was taken.
    pub(super) fn take(&self, deadline: Instant) -> Option<Vec<W>> {
        let mut queue = self.queue.lock();
        while queue.works.is_empty() && !queue.closed {
            if self.some.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        Self::round(&mut queue)
    }

    /// The same for a task.
    pub(super) async fn taken(&self, deadline: Instant) -> Option<Vec<W>> {
        if let Some(task) = &self.task
            && self.is_empty()
        {
            // Late or not, there may be something.
            tokio::time::timeout_at(deadline.into(), task.notified()).await.ok();
        }
        Self::round(&mut self.queue.lock())
    }

    fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.works.is_empty() && !queue.closed
    }

    fn round(queue: &mut Queue<W>) -> Option<Vec<W>> {
        if queue.works.is_empty() {
            return (!queue.closed).then(Vec::new);
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(work) = queue.works.pop_front() {
            let alone = work.is_alone();
            if alone && !taken.is_empty() {
                queue.works.push_front(work);
                break;
            }
            bytes += work.bytes();
            taken.push(work);
            if alone || bytes >= ROUND_BYTES {
                break;
            }
        }
        Some(taken)
    }

    /// True when it takes no more.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.room.close();
        self.wake();
    }
}
