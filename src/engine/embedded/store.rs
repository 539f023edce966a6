//! The database under the streams: opening it, opening it again after the disk was full, and reading batches from it.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{
    CommitError, CompactionError, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, StorageError, TableError, TransactionError, WriteTransaction,
};

use super::{
    batch::{self, Damaged, Head},
    disk::{self, Disk, Fault, Watched},
    overlay::Overlay,
    rows::{BATCHES, GROUP_STATES, GROUPS, META, PROGRESS, REPEATS, STREAMS, checked, row},
};
use crate::engine::StoreError;

/// Why the database did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It says so.
    #[error(transparent)]
    Database(#[from] redb::Error),
    /// It gave back what nobody wrote.
    #[error("{0}")]
    Damaged(String),
    /// It is closed.
    #[error("the store is closed")]
    Closed,
}

macro_rules! from_errors_of_the_database {
    ($($error:ty),*) => {$(
        impl From<$error> for Trouble {
            fn from(error: $error) -> Self {
                Self::Database(error.into())
            }
        }
    )*};
}

from_errors_of_the_database!(StorageError, TableError, TransactionError, CommitError, DatabaseError, CompactionError);

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Database(redb::Error::Io(error))
    }
}

impl Trouble {
    /// A batch is not what was written.
    pub(super) fn batch(stream: u64, first: u64) -> impl Fn(Damaged) -> Self {
        move |Damaged| Self::Damaged(format!("record batch {first} of stream {stream} is not what was written"))
    }

    /// A row is not what was written.
    pub(super) fn row(what: &'static str) -> impl Fn(Damaged) -> Self {
        move |Damaged| Self::Damaged(format!("a row of {what} is not what was written"))
    }

    /// True when there was no room on the disk.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Database(redb::Error::Io(error)) if disk::is_full(error))
    }

    /// What it means to who asked.
    pub(super) fn error(&self) -> StoreError {
        match self {
            Self::Damaged(what) | Self::Database(redb::Error::Corrupted(what)) => {
                StoreError::Corrupt { what: format!("{what}. Restore the data directory from a copy") }
            }
            // The file ends before what must be in it.
            Self::Database(redb::Error::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                StoreError::Corrupt { what: "the file is cut off. Restore the data directory from a copy".to_owned() }
            }
            Self::Database(redb::Error::Io(error)) if error.kind() == ErrorKind::InvalidData => StoreError::Corrupt {
                what: "the file is not a store. Restore the data directory from a copy".to_owned(),
            },
            Self::Database(_) | Self::Closed => StoreError::Unavailable,
        }
    }
}

/// A reader whose database was closed under it asks so often for the new one.
const READ_ATTEMPTS: u32 = 20;
const READ_WAIT: Duration = Duration::from_millis(25);

/// The row that tells whether the store was closed.
const CLEAN: &str = "clean";
/// The row of the last epoch that a stream got.
const LAST_EPOCH: &str = "last_epoch";

#[derive(Debug)]
struct Open {
    database: Database,
    fault: Arc<Mutex<Option<Fault>>>,
    /// It is there to be read alone.
    over_memory: bool,
}

/// One database and the disk under it.
#[derive(Debug)]
pub(super) struct Store {
    disk: Arc<dyn Disk>,
    cache_bytes: usize,
    read_attempts: u32,
    open: RwLock<Option<Open>>,
    /// It will not be opened again.
    left: AtomicBool,
}

impl Store {
    /// Opens the database, which repairs itself after a crash. With `alone` there is no other thread that might open it
    /// again while a reader waits. With `over_memory` its file is not written to.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        cache_bytes: usize,
        alone: bool,
        over_memory: bool,
    ) -> Result<Self, Trouble> {
        let read_attempts = if alone { 1 } else { READ_ATTEMPTS };
        let store = Self { disk, cache_bytes, read_attempts, open: RwLock::new(None), left: AtomicBool::new(false) };
        store.reopen(over_memory)?;
        Ok(store)
    }

    /// Opens the database again, as what it was when it was last committed durably. Over memory it can be read, and nothing
    /// that is written to it stays.
    pub(super) fn reopen(&self, over_memory: bool) -> Result<(), Trouble> {
        *self.open.write() = None;
        let mut backend = self.disk.open()?;
        if over_memory {
            backend = Box::new(Overlay::new(backend)?);
        }
        let (watched, fault) = Watched::new(backend);
        let cache_bytes = self.cache_bytes;
        let open = move || {
            let mut builder = Database::builder();
            builder.set_cache_size(cache_bytes);
            builder.set_repair_callback(|session| {
                let part = session.progress();
                tracing::info!(part, "the store was not closed: checking it");
            });
            let database = builder.create_with_backend(watched)?;
            let transaction = database.begin_write()?;
            make_tables(&transaction)?;
            transaction.commit()?;
            Ok(database)
        };
        let opened: Result<Database, Trouble> = open();
        let database = opened?;
        if !over_memory {
            self.disk.keep()?;
        }
        *self.open.write() = Some(Open { database, fault, over_memory });
        Ok(())
    }

    /// Moves what is in the file to its front, and cuts off the rest. Closed before and after it. Reads all of it.
    pub(super) fn compact(&self) -> Result<(), Trouble> {
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_bytes);
        let mut database = builder.create_with_backend(Watched::new(self.disk.open()?).0)?;
        database.compact()?;
        Ok(())
    }

    /// How much room it takes on its disk, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    /// Closes the database.
    pub(super) fn close(&self) {
        *self.open.write() = None;
    }

    /// Closes the database for good.
    pub(super) fn leave(&self) {
        self.left.store(true, Relaxed);
        self.close();
        self.disk.leave();
    }

    /// The disk under it.
    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Open to be written, and nothing was refused since.
    pub(super) fn is_good(&self) -> bool {
        self.open.read().as_ref().is_some_and(|open| !open.over_memory && open.fault.lock().is_none())
    }

    /// Open to be read alone.
    pub(super) fn is_over_memory(&self) -> bool {
        self.open.read().as_ref().is_some_and(|open| open.over_memory)
    }

    /// What the disk refused first since it was opened.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.open.read().as_ref().and_then(|open| *open.fault.lock())
    }

    pub(super) fn write(&self) -> Result<WriteTransaction, Trouble> {
        let open = self.open.read();
        Ok(open.as_ref().ok_or(Trouble::Closed)?.database.begin_write()?)
    }

    pub(super) fn read_transaction(&self) -> Result<ReadTransaction, Trouble> {
        let open = self.open.read();
        Ok(open.as_ref().ok_or(Trouble::Closed)?.database.begin_read()?)
    }

    /// Writes whether it was closed.
    pub(super) fn set_clean(&self, clean: bool) -> Result<(), Trouble> {
        let transaction = self.write()?;
        note_clean(&transaction, clean)?;
        transaction.commit()?;
        Ok(())
    }

    /// True when it was closed the last time.
    pub(super) fn was_closed(&self) -> Result<bool, Trouble> {
        let meta = self.read_transaction()?.open_table(META)?;
        let Some(clean) = meta.get(CLEAN)? else { return Ok(false) };
        Ok(checked(clean.value()).map_err(Trouble::row("meta"))? == [1])
    }

    /// The batches as they were last committed.
    pub(super) fn batches(&self) -> Result<Batches, Trouble> {
        Ok(Batches(self.read_transaction()?.open_table(BATCHES)?))
    }

    /// Reads, and once more from the database opened anew if it was closed meanwhile because the disk was full.
    pub(super) fn read<T>(&self, read: impl Fn(&Batches) -> Result<T, Trouble>) -> Result<T, Trouble> {
        self.look(|transaction| read(&Batches(transaction.open_table(BATCHES)?)))
    }

    /// The same of all tables.
    pub(super) fn look<T>(&self, look: impl Fn(&ReadTransaction) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut attempt = 0;
        loop {
            let result = self.read_transaction().and_then(|transaction| look(&transaction));
            let closed = matches!(
                result,
                Err(Trouble::Closed
                    | Trouble::Database(redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::Io(_)))
            );
            attempt += 1;
            if !closed || attempt >= self.read_attempts || self.left.load(Relaxed) {
                return result;
            }
            std::thread::sleep(READ_WAIT);
        }
    }
}

/// Writes whether the store was closed.
pub(super) fn note_clean(transaction: &WriteTransaction, clean: bool) -> Result<(), Trouble> {
    transaction.open_table(META)?.insert(CLEAN, &*row(&[u8::from(clean)]))?;
    Ok(())
}

/// A number that is written down, so that it is never given twice.
pub(super) fn next_number(transaction: &WriteTransaction, name: &str, least: u64) -> Result<u64, Trouble> {
    let mut meta = transaction.open_table(META)?;
    let last = match meta.get(name)? {
        Some(last) => {
            let bytes = checked(last.value()).map_err(Trouble::row("meta"))?;
            bytes
                .try_into()
                .map(u64::from_le_bytes)
                .map_err(|_| Trouble::Damaged("a row of meta is short".to_owned()))?
        }
        None => 0,
    };
    let next = (last + 1).max(least);
    meta.insert(name, &*row(&next.to_le_bytes()))?;
    Ok(next)
}

/// An epoch that no stream had, not even in a store that was here before this one.
pub(super) fn next_epoch(transaction: &WriteTransaction, now: u64) -> Result<i64, Trouble> {
    let next = next_number(transaction, LAST_EPOCH, now / 1000)?;
    Ok(i64::try_from(next).unwrap_or(i64::MAX))
}

/// An epoch is written down as one that a stream has.
pub(super) fn note_epoch(transaction: &WriteTransaction, epoch: i64) -> Result<(), Trouble> {
    next_number(transaction, LAST_EPOCH, epoch.unsigned_abs()).map(drop)
}

pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), Trouble> {
    transaction.open_table(META)?;
    transaction.open_table(STREAMS)?;
    transaction.open_table(PROGRESS)?;
    transaction.open_table(BATCHES)?;
    transaction.open_table(REPEATS)?;
    transaction.open_table(GROUPS)?;
    transaction.open_table(GROUP_STATES)?;
    Ok(())
}

/// The record batches of all streams at one point in time.
#[derive(Debug)]
pub(super) struct Batches(ReadOnlyTable<(u64, u64), &'static [u8]>);

/// A batch in memory of its own.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) head: Head,
    pub(super) value: Bytes,
}

impl Loaded {
    /// How many records it has, or fewer if its head says what cannot be.
    pub(super) fn most_records(&self) -> usize {
        (self.head.count as usize).min(self.value.len())
    }
}

impl Batches {
    /// The batch that covers `sequence`, if there is one.
    pub(super) fn covering(&self, stream: u64, sequence: u64) -> Result<Option<Loaded>, Trouble> {
        let Some(entry) = self.0.range((stream, 0)..=(stream, sequence))?.next_back() else { return Ok(None) };
        let (key, value) = entry?;
        let loaded = load(stream, key.value().1, value.value())?;
        Ok(Some(loaded).filter(|loaded| loaded.head.last >= sequence))
    }

    /// The batches from the one that covers `sequence` on, or from the first behind it, until `each` says that it is
    /// enough.
    pub(super) fn from(
        &self,
        stream: u64,
        sequence: u64,
        mut each: impl FnMut(Loaded) -> Result<bool, Trouble>,
    ) -> Result<(), Trouble> {
        let before = self.0.range((stream, 0)..=(stream, sequence))?.next_back().transpose()?;
        let start = before.map_or(sequence, |(key, _)| key.value().1);
        for entry in self.0.range((stream, start)..=(stream, u64::MAX))? {
            let (key, value) = entry?;
            let loaded = load(stream, key.value().1, value.value())?;
            if loaded.head.last >= sequence && !each(loaded)? {
                break;
            }
        }
        Ok(())
    }
}

fn load(stream: u64, first: u64, value: &[u8]) -> Result<Loaded, Trouble> {
    let head = batch::head(stream, first, value).map_err(Trouble::batch(stream, first))?;
    Ok(Loaded { head, value: Bytes::copy_from_slice(value) })
}
