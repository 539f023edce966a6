//! Which groups have a task, how that is reached, and when it may end.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    command::{Command, Departure},
    key::Key,
    status::{Board, Tally},
};
use crate::{groups::MemberId, model::StreamError};

/// This many commands wait for one group; whoever has more waits with them.
const MOST_COMMANDS: usize = 256;
/// Counters are kept for at most this many idle groups.
const MOST_TALLIES: usize = 10_000;

/// All groups that have a task.
#[derive(Debug, Default)]
pub(super) struct InUse {
    used: Mutex<Used>,
    /// Wakes whoever waits for the last task to end.
    ended: Notify,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Used {
    entries: HashMap<Key, Entry>,
    tallies: HashMap<Key, Tally>,
}

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    handles: usize,
}

/// The way to the task of one group.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) commands: mpsc::Sender<Command>,
    /// Members that are gone. Beside the commands, so that one can go without waiting; read only when all commands that came
    /// before are done.
    pub(super) departures: Mutex<Vec<(MemberId, Departure)>>,
    /// Wakes the task.
    pub(super) wake: Notify,
    /// How the group stands; `None` while that is not known.
    pub(super) board: Mutex<Option<Board>>,
}

impl Mailbox {
    fn new() -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (sender, commands) = mpsc::channel(MOST_COMMANDS);
        let (departures, wake, board) = (Mutex::default(), Notify::new(), Mutex::default());
        (Arc::new(Self { commands: sender, departures, wake, board }), commands)
    }
}

impl InUse {
    /// Reaches a group. One that has no task gets one by `spawn`, with what was counted of it before.
    pub(super) fn handle(
        self: &Arc<Self>,
        key: Key,
        spawn: impl FnOnce(Arc<Mailbox>, mpsc::Receiver<Command>, Tally),
    ) -> Handle {
        let mut used = self.used.lock();
        let tally = used.tallies.get(&key).copied().unwrap_or_default();
        let entry = used.entries.entry(key.clone()).or_insert_with(|| {
            let (mailbox, commands) = Mailbox::new();
            spawn(Arc::clone(&mailbox), commands, tally);
            Entry { mailbox, handles: 0 }
        });
        entry.handles += 1;
        Handle { in_use: Arc::clone(self), key, mailbox: Arc::clone(&entry.mailbox) }
    }

    /// Reaches a group that has a task.
    pub(super) fn find(self: &Arc<Self>, key: &Key) -> Option<Handle> {
        let mut used = self.used.lock();
        let entry = used.entries.get_mut(key)?;
        entry.handles += 1;
        Some(Handle { in_use: Arc::clone(self), key: key.clone(), mailbox: Arc::clone(&entry.mailbox) })
    }

    /// What was counted of a group that has no task.
    pub(super) fn tally(&self, key: &Key) -> Tally {
        self.used.lock().tallies.get(key).copied().unwrap_or_default()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.used.lock().entries.contains_key(key)
    }

    /// Has every task end once all is stored; returns when there is none.
    pub(super) async fn close(&self) {
        self.closing.store(true, Relaxed);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            {
                let used = self.used.lock();
                if used.entries.is_empty() {
                    return;
                }
                used.entries.values().for_each(|entry| entry.mailbox.wake.notify_one());
            }
            ended.await;
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// The task of a group has nothing left to do: true when it may end, which it then must.
    pub(super) fn retire(&self, key: &Key, commands: &mpsc::Receiver<Command>, tally: Tally) -> bool {
        let mut used = self.used.lock();
        // Without a handle nobody can send anything.
        let idle = used.entries.get(key).is_none_or(|entry| {
            entry.handles == 0 && commands.is_empty() && entry.mailbox.departures.lock().is_empty()
        });
        if idle {
            used.entries.remove(key);
            if tally == Tally::default() {
                used.tallies.remove(key);
            } else if used.tallies.len() < MOST_TALLIES || used.tallies.contains_key(key) {
                used.tallies.insert(key.clone(), tally);
            }
            self.ended.notify_waiters();
        }
        idle
    }

    /// A task ended for whatever reason: it is not found any more.
    pub(super) fn forget(&self, key: &Key, mailbox: &Arc<Mailbox>) {
        let mut used = self.used.lock();
        if used.entries.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.mailbox, mailbox)) {
            used.entries.remove(key);
        }
        self.ended.notify_waiters();
    }
}

/// Keeps the task of a group running, and reaches it.
#[derive(Debug)]
pub(crate) struct Handle {
    in_use: Arc<InUse>,
    key: Key,
    mailbox: Arc<Mailbox>,
}

impl Handle {
    /// Sends a command; waits for room. False when nobody takes it: the task is gone only if it failed.
    pub(crate) async fn send(&self, command: Command) -> bool {
        self.mailbox.commands.send(command).await.is_ok()
    }

    /// The same without waiting. False when there is no room either.
    pub(super) fn try_send(&self, command: Command) -> bool {
        self.mailbox.commands.try_send(command).is_ok()
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StreamError>>) -> Command,
    ) -> Result<T, StreamError> {
        self.begin(command).await.await.unwrap_or(Err(StreamError::Unavailable))
    }

    /// Sends a command; where its answer comes.
    pub(crate) async fn begin<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> oneshot::Receiver<T> {
        let (answer, told) = oneshot::channel();
        self.send(command(answer)).await;
        told
    }

    /// A member is gone; what it sent before is applied first.
    pub(crate) fn depart(&self, member: MemberId, how: Departure) {
        self.mailbox.departures.lock().push((member, how));
    }

    /// What its task tells of the group while it waits for the disk.
    pub(super) fn board(&self) -> Option<Board> {
        self.mailbox.board.lock().clone()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut used = self.in_use.used.lock();
        if let Some(entry) = used.entries.get_mut(&self.key).filter(|entry| Arc::ptr_eq(&entry.mailbox, &self.mailbox))
        {
            entry.handles -= 1;
        }
        drop(used);
        self.mailbox.wake.notify_one();
    }
}
