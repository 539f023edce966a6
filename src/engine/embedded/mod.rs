//! Streams in one file on this machine, in redb, and streams in memory.
//!
//! One thread writes (`committer`): it takes all that waits, writes record batches (`batch`) and commits once, so that
//! many publishers share one flush. Readers near the head are served from memory (`tail`), the others read the file in
//! threads of their own (`read`). What is kept in memory, topics and keys of repetitions, is counted from the batches when
//! the store is opened (`recover`).
//!
//! From the bottom up, each on those before it:
//!
//! - the file: `disk`, `store` and its `rows`; both databases with the time and the accounts over them are `stores`;
//! - a stream as readers see it: `stream`, `read`;
//! - a stream as the committer has it (`core`): what is about to be written (`draft`), whether it may be (`admission`), where
//!   it goes (`end`), and what ends events (`retention`, `expiry`, `chores`, `waste`);
//! - what is asked of the committer (`work`), the way there (`inbox`, `link`), and what takes it (`handle`, `directory`);
//! - writing: all streams (`streams`), transactions and what becomes of them when the disk refuses (`writer`, `full`), one
//!   round (`round`), the `committer`, and what is rare (`admin`, `purging`, `give_back`).

mod admin;
mod admission;
mod backup;
mod batch;
mod buried;
mod chores;
mod clock;
mod committer;
mod condition;
mod core;
mod directory;
mod disk;
mod draft;
mod end;
mod expiry;
mod full;
mod garbage;
mod give_back;
mod groups;
mod handle;
mod holdings;
mod holes;
mod ids;
mod inbox;
mod lasts;
mod link;
mod now;
mod overlay;
mod owners;
mod private;
mod purge;
mod purging;
mod read;
mod recover;
mod repeats;
mod retention;
mod round;
mod rows;
mod simulated;
mod store;
mod stores;
mod stream;
mod streams;
mod tail;
#[cfg(test)]
mod tests;
mod topics;
mod turns;
mod waste;
mod work;
mod writer;

use std::{
    collections::{BTreeMap, VecDeque},
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Duration,
};

use self::{
    committer::Committer,
    directory::Directory,
    disk::{Disk, Folder, InMemory, is_full},
    garbage::Garbage,
    handle::Handle,
    inbox::Inbox,
    link::Link,
    recover::{FORMAT, OtherFormat},
    store::{Store, Trouble},
    stores::Stores,
    stream::Shared,
    streams::Streams,
    work::Act,
    writer::Writer,
};
pub use self::{simulated::Simulated, turns::MOST_WAITING};
use super::{
    Backup, BackupError, Boxed, ClockState, CreateError, DeleteError, Engine, EventStream, Health, OpenError, Options,
    RestoreError, Restored, StoreError, UpdateError, routes::Conflict,
};
use crate::{
    memory::Memory,
    model::{StreamName, StreamSettings, Topic},
    tasks::{OnPanic, Tasks},
    telemetry::Metrics,
};

/// How much of the database in memory may be cached beside itself.
const MEMORY_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// How much room there is on the disk when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    /// As much as opening it writes, it is to be hoped.
    Little,
    /// Not even that.
    None,
}

/// The engine of a single hub.
#[derive(Debug)]
pub struct Embedded {
    link: Arc<Link>,
    directory: Arc<Directory>,
    token_key: [u8; 32],
    backup_timeout: Duration,
}

impl Embedded {
    /// Opens the store in a directory, which is made if there is none. Reads all of it: call it where waiting is allowed.
    /// Commits are timed in `metrics`.
    pub fn open(
        path: &Path,
        options: &Options,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
        memory: &Arc<Memory>,
    ) -> Result<Self, OpenError> {
        let folder = Folder::lock(path)?;
        Self::open_on(Arc::new(folder), options, tasks, metrics, memory)
    }

    /// Opens the store on a simulated disk.
    pub fn open_simulated(
        disk: &Simulated,
        options: &Options,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
        memory: &Arc<Memory>,
    ) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(disk.of_new_process()), options, tasks, metrics, memory)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        options: &Options,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
        memory: &Arc<Memory>,
    ) -> Result<Self, OpenError> {
        let folder = disk.folder();
        let io = |problem: String| OpenError::Io { folder: folder.clone(), problem };
        let mut room = match disk.reserve(true) {
            Ok(()) => Room::Enough,
            Err(error) if is_full(&error) => Room::Little,
            Err(error) => return Err(io(error.to_string())),
        };
        let opened = loop {
            // A damaged file may make the database panic; it is still only a damaged file.
            let read = || Self::read(Arc::clone(&disk), options, tasks, memory, room == Room::None);
            let opened = catch_unwind(AssertUnwindSafe(read))
                .unwrap_or_else(|_| Err(Trouble::Damaged("the database cannot make sense of its file".to_owned())));
            if room == Room::None || !opened.as_ref().is_err_and(Trouble::is_full) {
                break opened;
            }
            // This is what the reserve is for.
            room = if room == Room::Enough { Room::Little } else { Room::None };
            disk.release();
        };
        let (link, directory, token_key, (cores, garbage)) = opened
            .map_err(|trouble| match trouble.error() {
                StoreError::Corrupt { .. } => OpenError::Corrupt { folder: folder.clone(), what: trouble.to_string() },
                _ => io(trouble.to_string()),
            })?
            .map_err(|OtherFormat(found)| OpenError::Format { folder: folder.clone(), found, known: FORMAT })?;
        let (stores, kept) = (Arc::clone(&link.stores), Arc::new(options.clone()));
        let streams = Streams::new(stores, Arc::clone(&directory), kept, cores);
        let mut writer = Writer::new(streams, garbage, Arc::clone(metrics));
        if room != Room::Enough {
            writer.begin_full();
        }
        let committer = Committer::new(Arc::clone(&link), writer);
        if tasks.has_one_thread() {
            tasks.spawn("committer", OnPanic::Stop, committer.run_as_task());
        } else {
            let run = move || committer.run();
            tasks.thread("committer", OnPanic::Stop, run).map_err(|error| io(error.to_string()))?;
        }
        Ok(Self { link, directory, token_key, backup_timeout: options.backup_timeout() })
    }

    fn read(
        disk: Arc<dyn Disk>,
        options: &Options,
        tasks: &Tasks,
        accountant: &Arc<Memory>,
        over_memory: bool,
    ) -> Result<Result<Opened, OtherFormat>, Trouble> {
        let alone = tasks.has_one_thread();
        let file = Store::open(disk, options.store_cache_bytes, alone, over_memory)?;
        let memory = Store::open(Arc::new(InMemory), MEMORY_CACHE_BYTES, alone, false)?;
        let mut new_key = [0; 32];
        let no_secret = |error| Trouble::Database(redb::Error::Io(std::io::Error::other(error)));
        getrandom::fill(&mut new_key).map_err(no_secret)?;
        let token_key = match recover::meta(&file, new_key)? {
            Ok(key) => key,
            Err(other) => return Ok(Err(other)),
        };
        let inbox = Inbox::new(options.max_queued_bytes, tasks.has_one_thread());
        let stores = Arc::new(Stores::new(file, memory, accountant));
        let closed = stores.file.was_closed()?;
        let cores = recover::streams(&stores, options, closed)?;
        let garbage = garbage::find(&stores.file, |id| cores.contains_key(&id))?;
        stores.file.set_clean(false)?;
        let link = Arc::new(Link::new(inbox, stores, tasks.clone(), options.readers));
        let directory = Arc::new(Directory::new(Arc::clone(&link)));
        for core in cores.values() {
            directory.put(&core.shared);
        }
        Ok(Ok((link, directory, token_key, (cores, garbage))))
    }

    /// Looks at the filters of a stream that is to be made or changed.
    async fn check_filters(&self, settings: &StreamSettings) -> Result<Result<(), Conflict<Handle>>, StoreError> {
        let (directory, settings) = (Arc::clone(&self.directory), settings.clone());
        self.link.beside(move || directory.check(&settings)).await
    }

    fn handle(&self, stream: Arc<Shared>) -> Arc<dyn EventStream> {
        Arc::new(Handle::new(stream, Arc::clone(&self.link)))
    }

    async fn make(&self, settings: StreamSettings) -> Result<Arc<Shared>, CreateError> {
        let (_place, turn) = (self.link.turns.place()?, self.link.turns.turn().await?);
        settings.check()?;
        // Whatever else is wrong with it is said by the committer.
        if self.directory.find(settings.name.as_str()).is_none() {
            self.check_filters(&settings).await?.map_err(|conflict| match conflict {
                Conflict::Overlap(with) => CreateError::Overlap { with: with.stream.name.clone() },
                Conflict::Steps { limit } => CreateError::TooManySteps { limit },
            })?;
        }
        self.link.act(turn, |reply| Act::Create { settings, reply }).await?
    }

    async fn change(
        &self,
        settings: StreamSettings,
        before: Option<Arc<StreamSettings>>,
    ) -> Result<Arc<Shared>, UpdateError> {
        let (_place, turn) = (self.link.turns.place()?, self.link.turns.turn().await?);
        settings.check()?;
        let found = self.directory.find(settings.name.as_str());
        let is_new = found.is_some_and(|found| {
            let now = Arc::clone(&found.settings.read());
            now.filters != settings.filters && before.as_ref().is_none_or(|before| **before == *now)
        });
        if is_new {
            self.check_filters(&settings).await?.map_err(|conflict| match conflict {
                Conflict::Overlap(with) => UpdateError::Overlap { with: with.stream.name.clone() },
                Conflict::Steps { limit } => UpdateError::TooManySteps { limit },
            })?;
        }
        let act = |reply| Act::Update { settings, before, reply };
        let (stream, mut more) = self.link.act(turn, act).await??;
        while more {
            let (id, turn) = (stream.id, self.link.turns.turn().await?);
            more = self.link.act(turn, |reply| Act::Limit { id, reply }).await??;
        }
        Ok(stream)
    }

    async fn unmake(&self, name: StreamName) -> Result<(), DeleteError> {
        let (_place, turn) = (self.link.turns.place()?, self.link.turns.turn().await?);
        if self.directory.find(name.as_str()).is_some() {
            let (stores, directory, letters) =
                (Arc::clone(&self.link.stores), Arc::clone(&self.directory), name.clone());
            let search = move || groups::that_buries_in(&stores.file, &letters, |id| directory.name_of(id));
            let found = self.link.beside(search).await?;
            if let Some((stream, group)) = found.map_err(|trouble| trouble.error())? {
                return Err(DeleteError::TakesDeadLetters { stream, group });
            }
        }
        self.link.act(turn, |reply| Act::Delete { name, reply }).await?
    }
}

type Opened = (Arc<Link>, Arc<Directory>, [u8; 32], (BTreeMap<u64, core::Core>, VecDeque<Garbage>));

impl Engine for Embedded {
    fn create_stream(&self, settings: StreamSettings) -> Boxed<'_, Result<Arc<dyn EventStream>, CreateError>> {
        Box::pin(async move { self.make(settings).await.map(|stream| self.handle(stream)) })
    }

    fn update_stream(
        &self,
        settings: StreamSettings,
        before: Option<Arc<StreamSettings>>,
    ) -> Boxed<'_, Result<Arc<dyn EventStream>, UpdateError>> {
        Box::pin(async move { self.change(settings, before).await.map(|stream| self.handle(stream)) })
    }

    fn delete_stream<'a>(&'a self, name: &'a StreamName) -> Boxed<'a, Result<(), DeleteError>> {
        Box::pin(self.unmake(name.clone()))
    }

    fn stream(&self, name: &str) -> Option<Arc<dyn EventStream>> {
        self.directory.handle(name).map(|handle| handle as Arc<dyn EventStream>)
    }

    fn streams(&self) -> Vec<Arc<dyn EventStream>> {
        self.directory.all().into_iter().map(|handle| handle as Arc<dyn EventStream>).collect()
    }

    fn stream_of(&self, topic: Topic<'_>) -> Option<Arc<dyn EventStream>> {
        self.directory.find_topic(topic).map(|handle| handle as Arc<dyn EventStream>)
    }

    fn is_empty(&self) -> bool {
        self.directory.is_empty()
    }

    fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    fn store_bytes(&self) -> u64 {
        self.link.stores.file.bytes()
    }

    fn health(&self) -> Health {
        self.link.stores.health()
    }

    fn clock(&self) -> ClockState {
        let now = self.link.stores.now();
        let ahead =
            self.directory.all().iter().map(|handle| handle.stream.warp.stamp(now) - now).max().unwrap_or_default();
        ClockState { offset_seconds: self.link.stores.clock_offset(), ahead_seconds: ahead as f64 / 1e6 }
    }

    fn backup(&self) -> Boxed<'_, Result<Box<dyn Backup>, BackupError>> {
        let (link, limit) = (Arc::clone(&self.link), self.backup_timeout);
        Box::pin(async move { self.link.beside(move || backup::begin(&link, limit)).await? })
    }

    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.link.inbox.is_closed() {
                return Ok(());
            }
            self.link.act_at_once(|reply| Act::Close { reply }).await?
        })
    }
}

/// Reads a backup to its end, and gives how many streams are in it.
pub fn check_backup(backup: impl Read) -> Result<Restored, RestoreError> {
    backup::check(backup).map(|streams| Restored { streams })
}

/// Makes a store of a backup in a directory that has none. Every stream has a new epoch.
pub fn restore(backup: impl Read, directory: &Path) -> Result<Restored, RestoreError> {
    backup::restore(backup, directory)
}

/// Gives every stream of a directory a new epoch. No hub may have it open.
pub fn renew(directory: &Path) -> Result<Restored, RestoreError> {
    backup::renew(directory)
}

/// The same on a simulated disk.
pub fn renew_simulated(disk: &Simulated) -> Result<Restored, RestoreError> {
    backup::renew_on(Arc::new(disk.of_new_process()))
}

impl Drop for Embedded {
    /// Without [`Engine::close`] it is as if the process had ended.
    fn drop(&mut self) {
        self.link.inbox.close();
    }
}
