//! Where the store lies: a file in the data directory, and beside it a lock and a reserve.
//!
//! The reserve is a file of real bytes that nobody needs. When the disk is full it is deleted, so that the store can be
//! opened again and read, and events can be deleted; once it can be made again, there is room.

use std::{
    fmt::Debug,
    fs::{File, TryLockError},
    io::{Error, ErrorKind, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use redb::{StorageBackend, backends::FileBackend};

use super::private;
use crate::engine::OpenError;

const STORE_FILE: &str = "streams.redb";
/// A store that is being made, until it is one: whatever ends the process, no half of one is found as the other.
const NEW_FILE: &str = "streams.new";
const LOCK_FILE: &str = "streams.lock";
const RESERVE_FILE: &str = "streams.reserve";
/// A reserve that is being made.
const NEW_RESERVE_FILE: &str = "streams.reserve.new";
/// What the store may need to be opened again on a full disk, and to delete events.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// With less it is none.
const LEAST_RESERVE_BYTES: u64 = RESERVE_BYTES / 2;

/// What a store is kept on.
pub(super) trait Disk: Debug + Send + Sync {
    /// The store's bytes.
    fn open(&self) -> Result<Box<dyn StorageBackend>, Error>;

    /// What was opened is a store, also after a loss of power.
    fn keep(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Sees to it that there is room to spare, and with `more` that there was as much again beside it. Without, half of it
    /// will do: some of the room it had is a part of the store now.
    fn reserve(&self, more: bool) -> Result<(), Error>;

    /// Gives blocks to all of the store's file: a file has holes where nothing was written yet, and room in them is none.
    fn fill(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Gives up the room to spare.
    fn release(&self);

    /// Others may have it.
    fn leave(&self);

    /// How much room the store takes, in bytes.
    fn bytes(&self) -> u64;

    /// Where it is, for a person.
    fn folder(&self) -> String;

    /// How long the next write takes where time is simulated; otherwise it takes the time it takes.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    /// What the clocks there show: the one that never goes back, and the one on the wall.
    fn time(&self) -> (Instant, SystemTime) {
        (Instant::now(), SystemTime::now())
    }
}

/// A data directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: Mutex<Option<File>>,
}

impl Folder {
    /// Makes the directory if there is none, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let folder = path.display().to_string();
        let io = |error: Error| OpenError::Io { folder: folder.clone(), problem: error.to_string() };
        private::make(path).map_err(io)?;
        let lock = private::file().create(true).truncate(false).open(path.join(LOCK_FILE)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {
                private::tighten(path);
                Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock)) })
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { folder }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// True when there is a store, or what was one.
    pub(super) fn has_store(&self) -> bool {
        self.path.join(STORE_FILE).exists()
    }

    /// A store that was being made is not to be one.
    pub(super) fn give_up(&self) {
        if let Err(error) = std::fs::remove_file(self.path.join(NEW_FILE)) {
            tracing::debug!(%error, "no new store to give up");
        }
    }

    /// What was made in the directory is there after a loss of power.
    fn sync(&self) -> Result<(), Error> {
        File::open(&self.path)?.sync_all()
    }
}

impl Disk for Folder {
    fn open(&self) -> Result<Box<dyn StorageBackend>, Error> {
        let mut options = private::file();
        let path = self.path.join(STORE_FILE);
        let file = match std::fs::metadata(&path) {
            // A new store would hide that there was another.
            Ok(found) if found.len() == 0 => return Err(Error::new(ErrorKind::UnexpectedEof, "the file is empty")),
            Ok(_) => options.open(path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                options.create(true).truncate(true).open(self.path.join(NEW_FILE))?
            }
            Err(error) => return Err(error),
        };
        let backend = FileBackend::new(file).map_err(|error| Error::other(error.to_string()))?;
        Ok(Box::new(backend))
    }

    fn keep(&self) -> Result<(), Error> {
        let path = self.path.join(STORE_FILE);
        if !path.exists() {
            std::fs::rename(self.path.join(NEW_FILE), path)?;
        }
        self.sync()
    }

    fn reserve(&self, more: bool) -> Result<(), Error> {
        let (path, new) = (self.path.join(RESERVE_FILE), self.path.join(NEW_RESERVE_FILE));
        let there = std::fs::metadata(&path).map_or(0, |found| found.len());
        if there == RESERVE_BYTES {
            return Ok(());
        }
        match make_reserve(&new, more).and_then(|()| std::fs::rename(&new, path)) {
            Err(error) if is_full(&error) && there >= LEAST_RESERVE_BYTES => std::fs::remove_file(new),
            // A part of a reserve would take the room it is to keep.
            made => made.inspect_err(|_| self.release()),
        }
    }

    fn fill(&self) -> Result<(), Error> {
        fill_holes(&private::file().open(self.path.join(STORE_FILE))?)
    }

    fn release(&self) {
        for file in [RESERVE_FILE, NEW_RESERVE_FILE] {
            if let Err(error) = std::fs::remove_file(self.path.join(file)) {
                tracing::debug!(file, %error, "no reserve to give up");
            }
        }
    }

    fn leave(&self) {
        *self.lock.lock() = None;
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(self.path.join(STORE_FILE)).map_or(0, |file| file.len())
    }

    fn folder(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(target_os = "linux")]
fn fill_holes(file: &File) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;

    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::Errno,
    };

    let found = file.metadata()?;
    // What is left of the reserve is for this, and not for more.
    if found.len().saturating_sub(found.blocks() * 512) > LEAST_RESERVE_BYTES {
        return Err(ErrorKind::StorageFull.into());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, found.len()) {
        // A write will tell.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        filled => Ok(filled?),
    }
}

#[cfg(not(target_os = "linux"))]
fn fill_holes(_file: &File) -> Result<(), Error> {
    Ok(())
}

fn make_reserve(path: &Path, more: bool) -> Result<(), Error> {
    let mut file = private::file().create(true).truncate(true).open(path)?;
    // If just the reserve fits, the next event does not, and the disk is as full as before.
    let wanted = if more { 2 * RESERVE_BYTES } else { RESERVE_BYTES };
    let piece = vec![0; 64 * 1024];
    let mut made = 0;
    while made < wanted {
        match file.write_all(&piece) {
            Ok(()) => made += piece.len() as u64,
            Err(_) if !more && made >= LEAST_RESERVE_BYTES => break,
            Err(error) => return Err(error),
        }
    }
    file.set_len(made.min(RESERVE_BYTES))?;
    file.sync_all()
}

/// Memory, for streams that are not to outlive the process.
#[derive(Debug, Default)]
pub(super) struct InMemory;

impl Disk for InMemory {
    fn open(&self) -> Result<Box<dyn StorageBackend>, Error> {
        Ok(Box::new(Sparse::default()))
    }

    fn reserve(&self, _more: bool) -> Result<(), Error> {
        Ok(())
    }

    fn release(&self) {}

    fn leave(&self) {}

    fn bytes(&self) -> u64 {
        0
    }

    fn folder(&self) -> String {
        "memory".to_owned()
    }
}

/// Memory is taken in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

/// A file in memory that takes memory only where it was written to: the database makes it twice as long as it needs.
#[derive(Debug, Default)]
struct Sparse(RwLock<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    len: u64,
    pieces: Vec<Option<Box<[u8]>>>,
}

/// Each piece that `len` bytes from `offset` are in, where in it they are, and where among those bytes that is.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let offset = offset as usize;
    let (first, end) = (offset / PIECE_BYTES, (offset + len).div_ceil(PIECE_BYTES));
    (first..end).map(move |at| {
        let begin = at * PIECE_BYTES;
        let from = offset.max(begin);
        let to = (offset + len).min(begin + PIECE_BYTES);
        (at, from - begin..to - begin, from - offset..to - offset)
    })
}

impl StorageBackend for Sparse {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.read().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let file = self.0.read();
        if offset + out.len() as u64 > file.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for (at, there, here) in pieces(offset, out.len()) {
            match file.pieces.get(at) {
                Some(Some(piece)) => out[here].copy_from_slice(&piece[there]),
                _ => out[here].fill(0),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut file = self.0.write();
        let count = (len as usize).div_ceil(PIECE_BYTES);
        file.pieces.truncate(count);
        let left = len as usize % PIECE_BYTES;
        if left > 0
            && let Some(Some(last)) = file.pieces.get_mut(count - 1)
        {
            last[left..].fill(0);
        }
        file.len = len;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut file = self.0.write();
        file.len = file.len.max(offset + data.len() as u64);
        for (at, there, here) in pieces(offset, data.len()) {
            if file.pieces.len() <= at {
                file.pieces.resize_with(at + 1, || None);
            }
            let piece = file.pieces[at].get_or_insert_with(|| vec![0; PIECE_BYTES].into());
            piece[there].copy_from_slice(&data[here]);
        }
        Ok(())
    }
}

/// True when there is no room to write. A file that may grow no further is as good as a full disk, and heals like one when
/// the limit is raised.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// What went wrong first on a disk; everything after it only repeats that something did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// There was no room to write. What had been written is whole.
    Full,
    /// Anything else, above all a failed flush: what is on the disk nobody knows, and trying again could make lost
    /// bytes look kept.
    Failed,
}

/// Passes everything on and remembers the first fault.
#[derive(Debug)]
pub(super) struct Watched {
    backend: Box<dyn StorageBackend>,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Watched {
    /// With where the first fault will be found.
    pub(super) fn new(backend: Box<dyn StorageBackend>) -> (Self, Arc<Mutex<Option<Fault>>>) {
        let fault = Arc::default();
        (Self { backend, fault: Arc::clone(&fault) }, fault)
    }

    fn note<T>(&self, result: Result<T, Error>, may_be_full: bool) -> Result<T, Error> {
        result.inspect_err(|error| {
            let fault = if is_full(error) && may_be_full { Fault::Full } else { Fault::Failed };
            tracing::error!(%error, ?fault, "the disk of the streams failed");
            self.fault.lock().get_or_insert(fault);
        })
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> Result<u64, Error> {
        self.note(self.backend.len(), false)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.note(self.backend.read(offset, out), false)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.note(self.backend.set_len(len), true)
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.note(self.backend.sync_data(), false)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.note(self.backend.write(offset, data), true)
    }

    fn close(&self) -> Result<(), Error> {
        self.backend.close()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What to do to a file: at 0 it gets another length, and otherwise so many bytes are written; where, and which.
    pub(in crate::engine::embedded) type FileStep = (u8, usize, usize, u8);

    /// Does a step with a file and with the bytes that are expected to be in it, and compares them.
    pub(in crate::engine::embedded) fn step_and_compare(
        file: &impl StorageBackend,
        expected: &mut Vec<u8>,
        (kind, at, len, byte): FileStep,
    ) -> Result<(), TestCaseError> {
        if kind == 0 {
            file.set_len(at as u64).expect("set");
            expected.resize(at, 0);
        } else {
            file.write(at as u64, &vec![byte; len]).expect("written");
            expected.resize(expected.len().max(at + len), 0);
            expected[at..at + len].fill(byte);
        }
        let mut read = vec![1; expected.len()];
        file.read(0, &mut read).expect("read");
        prop_assert!(read == *expected && file.len().expect("a length") == expected.len() as u64);
        prop_assert!(file.read(1, &mut read).is_err() || read.is_empty());
        Ok(())
    }

    proptest! {
        #[test]
        fn a_file_in_memory_is_one_whatever_is_written_where(
            steps in prop::collection::vec((0..5_u8, 0..300_000_usize, 0..150_000_usize, any::<u8>()), 1..20),
        ) {
            let (file, mut expected) = (Sparse::default(), Vec::new());
            for step in steps {
                step_and_compare(&file, &mut expected, step)?;
            }
        }
    }
}
