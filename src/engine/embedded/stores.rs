//! What lies under all streams of an engine: the database in the file and the one in memory, the time that both go by, and
//! the accounts of what is in them. Whoever has a stream has these; none of it leads to the committer.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use super::{now::Time, owners::Owners, store::Store};
use crate::{
    engine::Health,
    memory::{Client, Memory},
    model::Storage,
};

/// The databases of an engine.
#[derive(Debug)]
pub(super) struct Stores {
    pub(super) file: Store,
    pub(super) memory: Store,
    pub(super) owners: Owners,
    /// Accounts for what streams hold in memory,
    pub(super) accountant: Arc<Memory>,
    /// and for all their definitions.
    pub(super) definitions: Arc<Client>,
    time: Time,
    health: AtomicU8,
}

impl Stores {
    pub(super) fn new(file: Store, memory: Store, accountant: &Arc<Memory>) -> Self {
        Self {
            time: Time::new(file.disk().time()),
            file,
            memory,
            owners: Owners::default(),
            accountant: Arc::clone(accountant),
            definitions: accountant.client(),
            health: AtomicU8::new(0),
        }
    }

    /// The one that streams of this kind lie in.
    pub(super) fn of(&self, storage: Storage) -> &Store {
        match storage {
            Storage::File => &self.file,
            Storage::Memory => &self.memory,
        }
    }

    /// What time it is, in microseconds since 1970. Never goes back.
    pub(super) fn now(&self) -> u64 {
        self.time.now(self.file.disk().time())
    }

    /// How far the wall clock is ahead of that, in seconds.
    pub(super) fn clock_offset(&self) -> f64 {
        self.now();
        self.time.offset()
    }

    pub(super) fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::Good,
            1 => Health::Full,
            _ => Health::Unavailable,
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        let number = match health {
            Health::Good => 0,
            Health::Full => 1,
            Health::Unavailable => 2,
        };
        self.health.store(number, Relaxed);
    }
}
