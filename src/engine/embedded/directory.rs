//! Which streams there are: by name, and by the topics they store.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crossbeam_utils::sync::ShardedLock;
use hashbrown::HashMap;

use super::{handle::Handle, link::Link, stream::Shared};
use crate::{
    engine::routes::{Conflict, NewFilters, Routes},
    model::{StreamName, StreamSettings, Topic},
};

/// Which streams there are. Changed by the committer alone.
#[derive(Debug)]
pub(super) struct Directory {
    link: Arc<Link>,
    /// Looked at before anything else: without streams a publish costs no more.
    count: AtomicUsize,
    inner: ShardedLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    names: HashMap<Box<str>, Listed>,
    routes: Routes<Handle>,
}

/// A stream, and with which filters it is among the routes.
#[derive(Debug)]
struct Listed {
    handle: Arc<Handle>,
    settings: Arc<StreamSettings>,
}

impl Directory {
    /// Without streams. The handles of those to come reach the committer by `link`.
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, count: AtomicUsize::default(), inner: ShardedLock::default() }
    }

    /// True when there is no stream: one atomic load.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        // A panic of a writer leaves the directory as it was: it is changed as a whole.
        read(&self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut inner);
        self.count.store(inner.names.len(), Relaxed);
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Shared>> {
        self.handle(name).map(|handle| Arc::clone(&handle.stream))
    }

    pub(super) fn handle(&self, name: &str) -> Option<Arc<Handle>> {
        self.read(|inner| inner.names.get(name).map(|listed| Arc::clone(&listed.handle)))
    }

    pub(super) fn find_topic(&self, topic: Topic<'_>) -> Option<Arc<Handle>> {
        if self.is_empty() {
            return None;
        }
        self.read(|inner| inner.routes.find(topic).cloned())
    }

    /// All of them, in the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<Handle>> {
        let all = |inner: &Inner| inner.names.values().map(|listed| Arc::clone(&listed.handle)).collect();
        let mut all: Vec<_> = self.read(all);
        all.sort_unstable_by(|one: &Arc<Handle>, two| one.stream.name.cmp(&two.stream.name));
        all
    }

    /// The name of the stream with this number. Goes through all of them.
    pub(super) fn name_of(&self, id: u64) -> Option<StreamName> {
        self.all().into_iter().find(|handle| handle.stream.id == id).map(|handle| handle.stream.name.clone())
    }

    /// A stream is new, or its filters are.
    pub(super) fn put(&self, stream: &Arc<Shared>) {
        let settings = Arc::clone(&stream.settings.read());
        self.change(|Inner { names, routes }| {
            let before = names.remove(stream.name.as_str());
            let same = before.as_ref().filter(|before| Arc::ptr_eq(&before.handle.stream, stream));
            let new = || Arc::new(Handle::new(Arc::clone(stream), Arc::clone(&self.link)));
            let handle = same.map_or_else(new, |same| Arc::clone(&same.handle));
            for filter in before.iter().flat_map(|before| &before.settings.filters) {
                routes.remove(filter);
            }
            for filter in &settings.filters {
                routes.add(filter, &handle);
            }
            names.insert(stream.name.as_str().into(), Listed { handle, settings });
        });
    }

    pub(super) fn remove(&self, stream: &Shared) {
        self.change(|Inner { names, routes }| {
            let before = names.remove(stream.name.as_str());
            for filter in before.iter().flat_map(|before| &before.settings.filters) {
                routes.remove(filter);
            }
        });
    }

    /// Whether the filters of a stream that is to be made or changed go with those of the others. Takes a while: not for the
    /// committer, and only where nothing else changes streams.
    pub(super) fn check(&self, settings: &StreamSettings) -> Result<(), Conflict<Handle>> {
        let new = NewFilters::new(&settings.filters);
        self.read(|inner| inner.routes.check(&new, |other| other.stream.name == settings.name))
    }
}
