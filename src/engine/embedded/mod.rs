//! Streams in one file on this machine, in redb, and streams in memory.
//!
//! One thread writes (`committer`): it takes all that waits, writes record batches (`batch`) and commits once, so that
//! many publishers share one flush. Readers near the head are served from memory (`tail`), the others read the file in
//! threads of their own (`read`). What is kept in memory, topics and keys of repetitions, is counted from the batches when
//! the store is opened (`recover`).

mod admin;
mod batch;
mod committer;
mod core;
mod disk;
mod inbox;
mod keep;
mod owners;
mod read;
mod recover;
mod repeats;
mod rows;
mod simulated;
mod store;
mod stream;
mod tail;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crossbeam_utils::sync::ShardedLock;
use hashbrown::HashMap;

pub use self::simulated::Simulated;
use self::{
    committer::{Committer, set_clean},
    disk::{Disk, Folder, InMemory},
    inbox::Inbox,
    recover::{FORMAT, OtherFormat},
    store::{Store, Trouble},
    stream::{Handle, Link, Shared},
};
use super::{
    Boxed, CreateError, DeleteError, Engine, EventStream, Health, OpenError, Options, StoreError, UpdateError,
    routes::Routes,
};
use crate::{
    memory::Memory,
    model::{Seal, StreamName, StreamSettings, Topic},
    tasks::{OnPanic, Tasks},
    telemetry::Metrics,
};

/// How much of the database in memory may be cached beside itself.
const MEMORY_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The engine of a single hub.
#[derive(Debug)]
pub struct Embedded {
    link: Arc<Link>,
    directory: Arc<Directory>,
    token_key: [u8; 32],
}

/// Which streams there are. Changed by the committer alone.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Looked at before anything else: without streams a publish costs no more.
    count: AtomicUsize,
    inner: ShardedLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    names: HashMap<Box<str>, Arc<Handle>>,
    routes: Routes<Handle>,
}

impl Directory {
    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        // A panic of a writer leaves the directory as it was: it is changed as a whole.
        read(&self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Box<str>, Arc<Handle>>)) {
        let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut inner.names);
        let mut routes = Routes::default();
        for stream in inner.names.values() {
            stream.0.settings.read().filters.iter().for_each(|filter| routes.add(filter, stream));
        }
        inner.routes = routes;
        self.count.store(inner.names.len(), Relaxed);
    }

    fn find(&self, name: &str) -> Option<Arc<Shared>> {
        self.handle(name).map(|handle| Arc::clone(&handle.0))
    }

    fn handle(&self, name: &str) -> Option<Arc<Handle>> {
        self.read(|inner| inner.names.get(name).cloned())
    }

    fn find_topic(&self, topic: Topic<'_>) -> Option<Arc<Handle>> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        self.read(|inner| inner.routes.find(topic).cloned())
    }

    fn all(&self) -> Vec<Arc<Shared>> {
        let mut all: Vec<_> = self.read(|inner| inner.names.values().map(|handle| Arc::clone(&handle.0)).collect());
        all.sort_unstable_by(|one: &Arc<Shared>, two| one.name.cmp(&two.name));
        all
    }

    /// A stream is new, or its filters are.
    fn put(&self, stream: &Arc<Shared>) {
        self.change(|names| {
            names.insert(stream.name.as_str().into(), Arc::new(Handle(Arc::clone(stream))));
        });
    }

    fn remove(&self, stream: &Shared) {
        self.change(|names| {
            names.remove(stream.name.as_str());
        });
    }
}

impl Embedded {
    /// Opens the store in a directory, which is made if there is none. Reads all of it: call it where waiting is allowed.
    /// Commits are timed in `metrics`.
    pub fn open(
        path: &Path,
        options: &Options,
        seal: Seal,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
        memory: &Arc<Memory>,
    ) -> Result<Self, OpenError> {
        let folder = Folder::lock(path)?;
        Self::open_on(Box::new(folder), options, seal, tasks, metrics, memory)
    }

    /// Opens the store on a simulated disk.
    pub fn open_simulated(
        disk: &Simulated,
        options: &Options,
        seal: Seal,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
        memory: &Arc<Memory>,
    ) -> Result<Self, OpenError> {
        Self::open_on(Box::new(disk.clone()), options, seal, tasks, metrics, memory)
    }

    fn open_on(
        disk: Box<dyn Disk>,
        options: &Options,
        seal: Seal,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
        memory: &Arc<Memory>,
    ) -> Result<Self, OpenError> {
        let _ = memory;
        let folder = disk.folder();
        let io = |problem: String| OpenError::Io { folder: folder.clone(), problem };
        disk.reserve().map_err(|error| io(error.to_string()))?;
        // A damaged file may make the database panic; it is still only a damaged file.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::read(disk, options, tasks)))
            .unwrap_or_else(|_| Err(Trouble::Damaged("the database cannot make sense of its file".to_owned())));
        let (link, directory, token_key, cores) = opened
            .map_err(|trouble| match trouble.error() {
                StoreError::Corrupt { .. } => OpenError::Corrupt { folder: folder.clone(), what: trouble.to_string() },
                _ => io(trouble.to_string()),
            })?
            .map_err(|OtherFormat(found)| OpenError::Format { folder: folder.clone(), found, known: FORMAT })?;
        let (shared, counted) = (Arc::clone(&link), Arc::clone(metrics));
        let committer = Committer::new(shared, Arc::clone(&directory), options.clone(), seal, cores, counted);
        if tasks.has_one_thread() {
            tasks.spawn("committer", OnPanic::Stop, committer.run_as_task());
        } else {
            let run = move || committer.run();
            tasks.thread("committer", OnPanic::Stop, run).map_err(|error| io(error.to_string()))?;
        }
        Ok(Self { link, directory, token_key })
    }

    fn read(disk: Box<dyn Disk>, options: &Options, tasks: &Tasks) -> Result<Result<Opened, OtherFormat>, Trouble> {
        let file = Store::open(disk, options.store_cache_bytes, tasks.has_one_thread())?;
        let memory = Store::open(Box::new(InMemory), MEMORY_CACHE_BYTES, tasks.has_one_thread())?;
        let mut new_key = [0; 32];
        let no_secret = |error| Trouble::Database(redb::Error::Io(std::io::Error::other(error)));
        getrandom::fill(&mut new_key).map_err(no_secret)?;
        let token_key = match recover::meta(&file, new_key)? {
            Ok(key) => key,
            Err(other) => return Ok(Err(other)),
        };
        let inbox = Inbox::new(options.max_queued_bytes, tasks.has_one_thread());
        let link = Arc::new(Link::new(inbox, file, memory, tasks.clone(), options.readers));
        let closed = recover::was_closed(&link.file)?;
        let cores = recover::streams(&link, options, closed)?;
        set_clean(&link.file, false)?;
        let directory = Arc::new(Directory::default());
        for core in cores.values() {
            directory.put(&core.shared);
        }
        Ok(Ok((link, directory, token_key, cores)))
    }
}

type Opened = (Arc<Link>, Arc<Directory>, [u8; 32], BTreeMap<u64, core::Core>);

fn handle(stream: Arc<Shared>) -> Arc<dyn EventStream> {
    Arc::new(Handle(stream))
}

impl Engine for Embedded {
    fn create_stream(&self, settings: StreamSettings) -> Boxed<'_, Result<Arc<dyn EventStream>, CreateError>> {
        Box::pin(async move { self.link.act(|committer| committer.create(settings)).await?.map(handle) })
    }

    fn update_stream(
        &self,
        settings: StreamSettings,
        before: Option<Arc<StreamSettings>>,
    ) -> Boxed<'_, Result<Arc<dyn EventStream>, UpdateError>> {
        let act = move |committer: &mut Committer| committer.update(settings, before.as_deref());
        Box::pin(async move { self.link.act(act).await?.map(handle) })
    }

    fn delete_stream<'a>(&'a self, name: &'a StreamName) -> Boxed<'a, Result<(), DeleteError>> {
        let name = name.clone();
        Box::pin(async move { self.link.act(move |committer| committer.delete(&name)).await? })
    }

    fn stream(&self, name: &str) -> Option<Arc<dyn EventStream>> {
        self.directory.handle(name).map(|handle| handle as Arc<dyn EventStream>)
    }

    fn streams(&self) -> Vec<Arc<dyn EventStream>> {
        self.directory.all().into_iter().map(handle).collect()
    }

    fn stream_of(&self, topic: Topic<'_>) -> Option<Arc<dyn EventStream>> {
        self.directory.find_topic(topic).map(|handle| handle as Arc<dyn EventStream>)
    }

    fn token_key(&self) -> [u8; 32] {
        self.token_key
    }

    fn store_bytes(&self) -> u64 {
        self.link.file.bytes()
    }

    fn health(&self) -> Health {
        self.link.health()
    }

    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.link.inbox.is_closed() {
                return Ok(());
            }
            self.link.act(Committer::close).await?
        })
    }
}

impl Drop for Embedded {
    /// Without [`Engine::close`] it is as if the process had ended.
    fn drop(&mut self) {
        self.link.inbox.close();
    }
}
