//! Groups on streams at work: one task for each group that somebody uses.
//!
//! The task owns the group's [`crate::groups::GroupState`] and does what that asks for: it reads the stream ahead, hands
//! events to members that have room, and stores what is done before it says so. Sessions and those who manage groups
//! speak to it through a [`Handle`]; a task ends when there is no handle, no member that may come back, and nothing to
//! store. It never waits for a session, so that a session may wait for it.

mod command;
mod deliver;
mod driver;
mod letters;
mod manage;
mod removed;
mod save;
mod seats;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot},
    time::{Instant, timeout_at},
};

pub(crate) use command::{Command, Departure, Identity, Newcomer, Speaker};
pub use manage::{AsOf, GroupStatus, Redriven};

use crate::{
    engine::{Engine, EventStream, GroupStoreError, StoredGroup},
    event::Event,
    groups::MemberId,
    model::{Group, GroupSettings, Start, StreamError, StreamName},
    tasks::{OnPanic, Tasks},
};
use command::Answer;
use driver::Driver;

/// So many commands wait for one group; who has more waits with them.
const MOST_COMMANDS: usize = 256;
/// So many calls that change groups may wait.
const MOST_CALLS: usize = 128;
/// Whoever asks how groups stand waits no longer for what is not stored yet: then it is told how they were stored last.
const PATIENCE: Duration = Duration::from_millis(250);
/// Counters are kept for at most this many idle groups.
const MOST_TALLIES: usize = 10_000;

/// What is needed for streams besides what a hub has anyway.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Where they are kept.
    pub engine: Arc<dyn Engine>,
    /// What spawns the tasks of groups.
    pub tasks: Tasks,
}

/// A group, in one life of its stream.
type Key = (StreamName, i64, Group);

/// All groups on streams that are in use.
#[derive(Debug)]
pub struct Groups {
    streams: Streams,
    used: Mutex<Used>,
    /// Wakes who waits for the last task to end.
    ended: Notify,
    next_member: AtomicU64,
    closing: AtomicBool,
    /// One permit for each call that changes groups and has not ended.
    calls: Semaphore,
}

#[derive(Debug, Default)]
struct Used {
    doors: HashMap<Key, Entry>,
    tallies: HashMap<Key, Tally>,
}

#[derive(Debug)]
struct Entry {
    mailbox: Arc<Mailbox>,
    handles: usize,
}

/// What was counted for a group since the start of the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    expired: u64,
    dropped: u64,
    lost: u64,
}

/// What is with the members of a group, and what that holds up.
#[derive(Debug, Clone, Copy, Default)]
struct InHands {
    members: usize,
    /// Events that were delivered, or wait for a further attempt.
    unacked: u64,
    /// Events behind an earlier one of their key.
    blocked: u64,
}

/// The way to the task of one group.
#[derive(Debug)]
struct Mailbox {
    commands: mpsc::Sender<Command>,
    /// Members that are gone. Beside the commands, so that one can go without waiting; looked at only when all commands
    /// that came before are done.
    departures: Mutex<Vec<(MemberId, Departure)>>,
    /// Wakes the task.
    wake: Notify,
    /// How the group stands; `None` while that is not known.
    board: Mutex<Option<Board>>,
}

/// What is told of a group while its task waits for the disk.
#[derive(Debug, Clone)]
struct Board {
    settings: GroupSettings,
    in_hands: InHands,
    tally: Tally,
    /// Its state as it was stored last.
    stored: Bytes,
}

/// Keeps the task of a group running, and reaches it.
#[derive(Debug)]
pub(crate) struct Handle {
    groups: Arc<Groups>,
    key: Key,
    mailbox: Arc<Mailbox>,
}

/// Who is asked how a group stands.
enum Asked {
    /// Its task, which goes on while the handle is there. How it was stored last is for when that does not answer.
    Task(Handle, Option<oneshot::Receiver<Result<GroupStatus, StreamError>>>, StoredGroup),
    /// Nobody: as it is stored.
    Store(StoredGroup, Tally),
}

impl Groups {
    /// None in use yet.
    pub fn new(streams: Streams) -> Self {
        Self {
            streams,
            used: Mutex::default(),
            ended: Notify::new(),
            next_member: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            calls: Semaphore::new(MOST_CALLS),
        }
    }

    /// Room for a call that changes groups.
    fn call(&self) -> Result<SemaphorePermit<'_>, StreamError> {
        let too_many = StreamError::TooMany { what: "calls that change groups waiting", limit: MOST_CALLS };
        self.calls.try_acquire().map_err(|_| too_many)
    }

    /// By when whoever asks now how groups stand is told, whatever the disk does.
    pub fn patience() -> Instant {
        Instant::now() + PATIENCE
    }

    /// Reaches a group, whether or not it exists.
    pub(crate) fn handle(self: &Arc<Self>, stream: &Arc<dyn EventStream>, group: &Group) -> Handle {
        let key = (stream.name().clone(), stream.epoch(), group.clone());
        let mut used = self.used.lock();
        let tally = used.tallies.get(&key).copied().unwrap_or_default();
        let entry = used.doors.entry(key.clone()).or_insert_with(|| {
            let (sender, commands) = mpsc::channel(MOST_COMMANDS);
            let mailbox = Arc::new(Mailbox {
                commands: sender,
                departures: Mutex::default(),
                wake: Notify::new(),
                board: Mutex::default(),
            });
            let driver = Driver::new(Arc::clone(self), key.clone(), Arc::clone(stream), Arc::clone(&mailbox), commands);
            self.streams.tasks.spawn("group", OnPanic::Log, driver.run(tally));
            Entry { mailbox, handles: 0 }
        });
        entry.handles += 1;
        Handle { groups: Arc::clone(self), key, mailbox: Arc::clone(&entry.mailbox) }
    }

    /// A number for a member that no other has.
    pub(crate) fn next_member(&self) -> MemberId {
        MemberId(self.next_member.fetch_add(1, Relaxed))
    }

    /// Has every group give back what members have that may still come back, and store all; returns when none is in use.
    pub(super) async fn close(&self) {
        self.closing.store(true, Relaxed);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            {
                let used = self.used.lock();
                if used.doors.is_empty() {
                    return;
                }
                used.doors.values().for_each(|entry| entry.mailbox.wake.notify_one());
            }
            ended.await;
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// The task of a group has nothing left to do: true when it may end, which it then must.
    fn retire(&self, key: &Key, commands: &mpsc::Receiver<Command>, tally: Tally) -> bool {
        let mut used = self.used.lock();
        // Without a handle nobody can send anything.
        let idle = used.doors.get(key).is_none_or(|entry| {
            entry.handles == 0 && commands.is_empty() && entry.mailbox.departures.lock().is_empty()
        });
        if idle {
            used.doors.remove(key);
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
    fn forget(&self, key: &Key, mailbox: &Arc<Mailbox>) {
        let mut used = self.used.lock();
        if used.doors.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.mailbox, mailbox)) {
            used.doors.remove(key);
        }
        self.ended.notify_waiters();
    }

    fn tally(&self, key: &Key) -> Tally {
        self.used.lock().tallies.get(key).copied().unwrap_or_default()
    }

    fn is_used(&self, key: &Key) -> bool {
        self.used.lock().doors.contains_key(key)
    }

    /// Asks whoever knows it how a group stands.
    fn begin_standing(self: &Arc<Self>, stream: &Arc<dyn EventStream>, stored: StoredGroup, as_of: AsOf) -> Asked {
        let key = (stream.name().clone(), stream.epoch(), stored.group.clone());
        if !self.is_used(&key) {
            return Asked::Store(stored, self.tally(&key));
        }
        let handle = self.handle(stream, &stored.group);
        let (answer, told) = oneshot::channel();
        // One that has no room for a command has much to do, or waits for the disk.
        let taken = handle.mailbox.commands.try_send(Command::GroupStatus { as_of, answer }).is_ok();
        Asked::Task(handle, taken.then_some(told), stored)
    }

    /// How it stands: as of now or as it is stored, or, when `by` is over, as it was stored last.
    async fn finish_standing(
        stream: &Arc<dyn EventStream>,
        asked: Asked,
        by: Instant,
    ) -> Result<GroupStatus, StreamError> {
        match asked {
            Asked::Store(stored, tally) => manage::standing_of_idle(stream, stored, tally).await,
            Asked::Task(handle, told, stored) => {
                if let Some(told) = told
                    && let Ok(told) = timeout_at(by, told).await
                {
                    return told.unwrap_or(Err(StreamError::Unavailable));
                }
                let board = handle.mailbox.board.lock().clone();
                match board {
                    Some(board) => manage::standing_of_board(stream, &stored.group, board).await,
                    None => manage::standing_of_idle(stream, stored, Tally::default()).await,
                }
            }
        }
    }

    /// The stream of that name.
    pub fn stream(&self, name: &str) -> Result<Arc<dyn EventStream>, StreamError> {
        self.streams.engine.stream(name).ok_or_else(|| StreamError::NotFound(name.to_owned()))
    }

    /// Makes a group that begins at `start`.
    pub async fn create(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
        settings: GroupSettings,
        start: Start,
    ) -> Result<GroupStatus, StreamError> {
        let _call = self.call()?;
        let handle = self.handle(stream, group);
        handle.ask(|answer| Command::Create { settings, start, answer }).await?;
        handle.ask(stored_status).await
    }

    /// How a group stands.
    pub async fn status(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
    ) -> Result<GroupStatus, StreamError> {
        let stored = stream.group(group.clone()).await;
        let stored = stored.map_err(|error| of_group(&error, stream.name(), Some(group)))?;
        let Some(stored) = stored else {
            return Err(of_group(&GroupStoreError::NotFound, stream.name(), Some(group)));
        };
        let asked = self.begin_standing(stream, stored, AsOf::Stored);
        Self::finish_standing(stream, asked, Self::patience()).await
    }

    /// How the groups of a stream stand that come after `after` by name, at most `most`, and the last that was looked at
    /// unless that was the last of all. All are asked before the first is waited for: what they wait for is the same flush.
    /// When `by` is over it is told how they were stored last.
    pub async fn list(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        after: &str,
        most: usize,
        as_of: AsOf,
        by: Instant,
    ) -> Result<(Vec<GroupStatus>, Option<Group>), StreamError> {
        let stored = stream.groups().await.map_err(|error| of_group(&error, stream.name(), None))?;
        let (mut asked, mut last) = (Vec::new(), None);
        let mut wanted = stored.into_iter().filter(|one| one.group.as_str() > after);
        for one in wanted.by_ref().take(most) {
            last = Some(one.group.clone());
            asked.push(self.begin_standing(stream, one, as_of));
        }
        let last = last.filter(|_| wanted.next().is_some());
        let mut all = Vec::with_capacity(asked.len());
        for one in asked {
            match Self::finish_standing(stream, one, by).await {
                Ok(status) => all.push(status),
                // Deleted since.
                Err(StreamError::GroupNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((all, last))
    }

    /// Changes settings of a group.
    pub async fn update(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
        change: impl FnOnce(&mut GroupSettings) + Send + 'static,
    ) -> Result<GroupStatus, StreamError> {
        let _call = self.call()?;
        let handle = self.handle(stream, group);
        handle.ask(|answer| Command::Update { change: Box::new(change), answer }).await?;
        handle.ask(stored_status).await
    }

    /// Moves the cursor of a group.
    pub async fn seek(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
        to: Start,
    ) -> Result<GroupStatus, StreamError> {
        let _call = self.call()?;
        let handle = self.handle(stream, group);
        handle.ask(|answer| Command::Seek { to, answer }).await?;
        handle.ask(stored_status).await
    }

    /// Deletes a group.
    pub async fn delete(self: &Arc<Self>, stream: &Arc<dyn EventStream>, group: &Group) -> Result<(), StreamError> {
        let _call = self.call()?;
        self.handle(stream, group).ask(Command::Delete).await
    }

    /// Has everything that a group gave up stored as dead letters, as far as that is possible before long.
    pub async fn bury(self: &Arc<Self>, stream: &Arc<dyn EventStream>, group: &Group) -> Result<(), StreamError> {
        let _call = self.call()?;
        let handle = self.handle(stream, group);
        // Later they are stored all the same.
        timeout_at(Self::patience(), handle.ask(Command::Bury)).await.unwrap_or(Ok(()))
    }

    /// Has events of the stream delivered to the group again, beginning with attempt 1, each named with the sequence of its
    /// dead letter, which is removed then; one whose dead letter is gone is left as it is.
    pub async fn redrive(
        self: &Arc<Self>,
        stream: &Arc<dyn EventStream>,
        group: &Group,
        letters: &Arc<dyn EventStream>,
        events: Vec<(u64, Event)>,
    ) -> Result<Redriven, StreamError> {
        let _call = self.call()?;
        let letters = Arc::clone(letters);
        self.handle(stream, group).ask(|answer| Command::Redrive { letters, events, answer }).await
    }
}

impl Handle {
    /// Sends a command; waits for room. False when nobody takes it: the task is gone only if it failed.
    pub(crate) async fn send(&self, command: Command) -> bool {
        self.mailbox.commands.send(command).await.is_ok()
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

    /// A member is gone; what it sent before is looked at first.
    pub(crate) fn depart(&self, member: MemberId, how: Departure) {
        self.mailbox.departures.lock().push((member, how));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut used = self.groups.used.lock();
        if let Some(entry) = used.doors.get_mut(&self.key).filter(|entry| Arc::ptr_eq(&entry.mailbox, &self.mailbox)) {
            entry.handles -= 1;
        }
        drop(used);
        self.mailbox.wake.notify_one();
    }
}

fn stored_status(answer: Answer<GroupStatus>) -> Command {
    Command::GroupStatus { as_of: AsOf::Stored, answer }
}

/// What the store says of a group, in the words of the hub.
fn of_group(error: &GroupStoreError, stream: &StreamName, group: Option<&Group>) -> StreamError {
    let named = || (stream.clone(), group.map_or_else(String::new, |group| group.as_str().to_owned()));
    match error {
        GroupStoreError::Closed => StreamError::NotFound(stream.to_string()),
        GroupStoreError::Exists => {
            let (stream, group) = named();
            StreamError::GroupExists { stream, group }
        }
        GroupStoreError::NotFound => {
            let (stream, group) = named();
            StreamError::GroupNotFound { stream, group }
        }
        GroupStoreError::Setting(error) => StreamError::Setting(error.clone()),
        GroupStoreError::DeadLetterStream { name } => no_dead_letter_stream(name),
        GroupStoreError::TooMany { limit } => StreamError::TooMany { what: "groups on this stream", limit: *limit },
        // Dead letters wait by themselves; nobody else is told.
        GroupStoreError::TooLarge { .. }
        | GroupStoreError::QuotaUsedUp { .. }
        | GroupStoreError::NeverFits { .. }
        | GroupStoreError::NoMemory { .. } => StreamError::Unavailable,
        GroupStoreError::Store(error) => error.into(),
    }
}

fn no_dead_letter_stream(name: &StreamName) -> StreamError {
    StreamError::Mismatch { field: "dead_letter_stream", problem: format!("is {name}, which does not exist") }
}
