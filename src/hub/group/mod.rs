//! Groups on streams at work: one task for each group that somebody uses.
//!
//! The task owns the group's [`crate::groups::GroupState`] and does what that asks for: it reads the stream ahead, hands
//! events to members that have room, and stores what is done before it says so. Sessions and those who manage groups
//! speak to it through a [`Handle`]; a task ends when there is no handle, no member that may come back, and nothing to
//! store. It never waits for a session, so that a session may wait for it.
//!
//! From below: the parts of a group at work, each with a state of its own (`source`, `ready`, `removed`, `saves`, `seats`,
//! `round`); `active`, which has them all, and what it does with them (`deliver`, `acknowledge`, `save`,
//! `letters`, `losses`, `join`, `manage`, `view`); `life`, which makes, loads and deletes it; `driver`, the task. What tasks share is
//! in `in_use`; [`Groups`] is above them all, and what it only asks for is in `holdings`.

mod acknowledge;
mod active;
mod clock;
mod command;
mod deliver;
mod driver;
mod holdings;
mod in_use;
mod join;
mod key;
mod letters;
mod life;
mod losses;
mod manage;
mod ready;
mod removed;
mod round;
mod save;
mod saves;
mod seats;
mod shown;
mod source;
mod start;
mod status;
mod view;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit, oneshot},
    time::{Instant, timeout_at},
};

pub use command::{AsOf, Redriven};
pub(crate) use command::{Command, Departure, Identity, Newcomer, Speaker};
pub(crate) use in_use::Handle;
pub use shown::{MemberName, MemberStatus, UnackedEvent, UnackedStage};
pub use status::GroupStatus;

use crate::{
    engine::{Engine, EventStream, GroupStoreError, StoredGroup},
    event::Event,
    groups::MemberId,
    model::{Group, GroupSettings, Start, StreamError},
    tasks::{OnPanic, Tasks},
};
use command::Answer;
use driver::Driver;
use in_use::InUse;
use key::Key;
use life::Life;
use status::Tally;

/// This many calls that change groups may wait.
const MOST_CALLS: usize = 128;
/// Whoever asks how groups stand waits no longer than this for what is not stored yet, and then gets how they were stored
/// last.
const PATIENCE: Duration = Duration::from_millis(250);

/// What is needed for streams besides what a hub has anyway.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Where they are kept.
    pub engine: Arc<dyn Engine>,
    /// What spawns the tasks of groups.
    pub tasks: Tasks,
}

/// All groups on streams that are in use.
#[derive(Debug)]
pub struct Groups {
    streams: Streams,
    in_use: Arc<InUse>,
    next_member: AtomicU64,
    /// One permit for each call that changes groups and has not ended.
    calls: Semaphore,
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
        Self { streams, in_use: Arc::default(), next_member: AtomicU64::new(1), calls: Semaphore::new(MOST_CALLS) }
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
        let key = Key::new(&**stream, group);
        self.in_use.handle(key.clone(), |mailbox, commands, tally| {
            let life = Life::new(Arc::clone(&self.streams.engine), key, Arc::clone(stream), tally);
            let driver = Driver::new(Arc::clone(&self.in_use), life, stream.visible(), (mailbox, commands));
            self.streams.tasks.spawn("group", OnPanic::Log, driver.run());
        })
    }

    /// A number for a member that no other has.
    pub(crate) fn next_member(&self) -> MemberId {
        MemberId(self.next_member.fetch_add(1, Relaxed))
    }

    /// Has every group give back what members have that may still come back, and store all; returns when none is in use.
    pub(super) async fn close(&self) {
        self.in_use.close().await;
    }

    /// Asks whoever knows it how a group stands.
    fn begin_standing(self: &Arc<Self>, stream: &Arc<dyn EventStream>, stored: StoredGroup, as_of: AsOf) -> Asked {
        let key = Key::new(&**stream, &stored.group);
        if !self.in_use.contains(&key) {
            return Asked::Store(stored, self.in_use.tally(&key));
        }
        let handle = self.handle(stream, &stored.group);
        let (answer, told) = oneshot::channel();
        // One that has no room for a command has much to do, or waits for the disk.
        let taken = handle.try_send(Command::GroupStatus { as_of, answer });
        Asked::Task(handle, taken.then_some(told), stored)
    }

    /// How it stands: as of now or as it is stored, or, when `by` is over, as it was stored last.
    async fn finish_standing(
        stream: &Arc<dyn EventStream>,
        asked: Asked,
        by: Instant,
    ) -> Result<GroupStatus, StreamError> {
        match asked {
            Asked::Store(stored, tally) => status::of_idle(stream, stored, tally).await,
            Asked::Task(handle, told, stored) => {
                if let Some(told) = told
                    && let Ok(told) = timeout_at(by, told).await
                {
                    return told.unwrap_or(Err(StreamError::Unavailable));
                }
                match handle.board() {
                    Some(board) => status::of_board(stream, &stored.group, board).await,
                    None => status::of_idle(stream, stored, Tally::default()).await,
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
        let stored = stream.groups().load(group.clone()).await;
        let stored = stored.and_then(|stored| stored.ok_or(GroupStoreError::NotFound));
        let stored = stored.map_err(|error| key::refused(&error, stream.name(), Some(group)))?;
        let asked = self.begin_standing(stream, stored, AsOf::Stored);
        Self::finish_standing(stream, asked, Self::patience()).await
    }

    /// How the groups of a stream stand that come after `after` by name, at most `most`, and the last that was asked for
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
        let stored = stream.groups().list().await.map_err(|error| key::refused(&error, stream.name(), None))?;
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

fn stored_status(answer: Answer<GroupStatus>) -> Command {
    Command::GroupStatus { as_of: AsOf::Stored, answer }
}
