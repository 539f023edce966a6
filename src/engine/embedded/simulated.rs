//! A disk for tests and simulations: it loses power, and what was not flushed is then lost, torn or kept as chance has it;
//! it fills up; its bytes can be damaged; and the clocks beside it can be set.
//!
//! It is part of the library, and not of its tests alone, so that a simulation can put it under a whole hub
//! (docs/adr/0010-simulation.md). Nothing that an operator can set leads here.

use std::{
    collections::BTreeSet,
    io::{Error, ErrorKind},
    sync::{Arc, Weak},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;

use super::disk::Disk;

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;
/// What a disk gives to a file at a time; a file has holes where nothing was written.
const BLOCK_BYTES: u64 = 4096;
const RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// What was asked for since the last flush.
#[derive(Debug)]
enum Pending {
    Len(u64),
    Write(u64, Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    /// As the process sees it.
    seen: Vec<u8>,
    /// As it is after a loss of power, but for what is pending.
    safe: Vec<u8>,
    pending: Vec<Pending>,
    /// The blocks that were written.
    blocks: BTreeSet<u64>,
    /// How many bytes there are for blocks and reserve.
    capacity: Option<u64>,
    reserve: u64,
    /// So many more operations, and the power is gone.
    fuse: Option<u32>,
    /// Who may use it: whoever opened it last.
    owner: Weak<()>,
    /// Counts the processes it had: what is left of one that is dead must not open it again.
    era: u64,
    /// Writes and flushes do not end.
    stalled: bool,
    /// How long writes take at most, and what decides how long each takes.
    slow: Option<(Duration, fastrand::Rng)>,
    /// So much more time has passed than did,
    passed: Duration,
    /// and so many seconds the wall clock is ahead beside that.
    wall_ahead: f64,
    /// What the clocks showed when they were stopped.
    stopped: Option<(Instant, SystemTime)>,
}

impl State {
    fn used(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_BYTES + self.reserve
    }
}

/// A disk. Its clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Simulated(Arc<Mutex<State>>, Arc<Condvar>, u64);

#[derive(Debug)]
struct Backend {
    disk: Simulated,
    owner: Arc<()>,
}

impl Simulated {
    /// The same disk for a process that starts now, and until it dies.
    #[must_use]
    pub(super) fn of_new_process(&self) -> Self {
        let era = self.0.lock().era;
        Self(Arc::clone(&self.0), Arc::clone(&self.1), era)
    }

    /// The power goes after so many operations.
    pub fn set_fuse(&self, operations: u32) {
        self.0.lock().fuse = Some(operations);
    }

    /// How many bytes may be used in all.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.0.lock().capacity = capacity;
    }

    /// Writes take up to so long, where time is simulated.
    pub fn set_delay(&self, most: Duration, random: fastrand::Rng) {
        self.0.lock().slow = Some((most, random));
    }

    /// Time passes there at once.
    pub fn pass(&self, time: Duration) {
        self.0.lock().passed += time;
    }

    /// The wall clock there is ahead by so many seconds, or behind.
    pub fn set_wall_ahead(&self, seconds: f64) {
        self.0.lock().wall_ahead = seconds;
    }

    /// From now on time passes only by [`Self::pass`], from the present second on, and what is stored of an event has the
    /// same length every time.
    pub fn stop_clock(&self) {
        self.0.lock().stopped.get_or_insert_with(|| (Instant::now(), stopped_wall()));
    }

    /// Writes and flushes wait from now on, or no longer. Reading goes on. Not where there is only one thread.
    pub fn set_stalled(&self, stalled: bool) {
        self.0.lock().stalled = stalled;
        self.1.notify_all();
    }

    fn wait_while_stalled(&self) {
        let mut state = self.0.lock();
        while state.stalled {
            self.1.wait(&mut state);
        }
    }

    /// How many bytes are used.
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    #[allow(clippy::len_without_is_empty)]
    /// How long the file is, in bytes.
    pub fn len(&self) -> usize {
        self.0.lock().seen.len()
    }

    /// The power is gone and comes back: whoever used the disk can no longer. Length changes are kept in order up to some
    /// point; each sector that was not flushed is the old or the new one.
    pub fn lose_power(&self, random: &mut fastrand::Rng) {
        let mut state = self.0.lock();
        let pending = std::mem::take(&mut state.pending);
        let keep_lengths = random.usize(..=pending.len());
        // Sometimes everything arrived, sometimes nothing.
        let likely = [0.0, 0.5, 0.9, 1.0][random.usize(..4)];
        for (at, change) in pending.into_iter().enumerate() {
            match change {
                Pending::Len(len) if at < keep_lengths => state.safe.resize(len as usize, 0),
                Pending::Len(_) => {}
                Pending::Write(offset, data) => {
                    for (sector, piece) in data.chunks(SECTOR_BYTES).enumerate() {
                        if random.f64() < likely {
                            put(&mut state.safe, offset as usize + sector * SECTOR_BYTES, piece);
                        }
                    }
                }
            }
        }
        let safe = state.safe.clone();
        state.seen = safe;
        state.fuse = None;
        state.owner = Weak::new();
        state.era += 1;
    }

    /// Whoever used the disk can no longer, as if the process had been killed: what was written stays.
    pub fn take_from_owner(&self) {
        let mut state = self.0.lock();
        state.owner = Weak::new();
        state.era += 1;
    }

    /// Others took the room that was given to the reserve.
    pub fn take_reserve(&self) {
        self.0.lock().reserve = 0;
    }

    /// Changes one bit.
    pub fn flip(&self, byte: usize, bit: u32) {
        let mut state = self.0.lock();
        state.seen[byte] ^= 1 << bit;
        let seen = state.seen.clone();
        state.safe = seen;
    }

    /// Takes away the end.
    pub fn cut(&self, len: usize) {
        let mut state = self.0.lock();
        state.seen.truncate(len);
        let seen = state.seen.clone();
        state.safe = seen;
    }

    /// Another disk with the same bytes.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.0.lock();
        let (passed, wall_ahead, stopped) = (state.passed, state.wall_ahead, state.stopped);
        let (seen, safe) = (state.seen.clone(), state.seen.clone());
        let copy = State { seen, safe, passed, wall_ahead, stopped, ..State::default() };
        Self(Arc::new(Mutex::new(copy)), Arc::default(), 0)
    }

    /// The bytes are those of a copy again, and whoever used the disk can no longer.
    pub fn put_back(&self, copy: &Self) {
        let bytes = copy.0.lock().seen.clone();
        let mut state = self.0.lock();
        state.blocks = (0..(bytes.len() as u64).div_ceil(BLOCK_BYTES)).collect();
        (state.safe, state.seen) = (bytes.clone(), bytes);
        state.pending.clear();
        state.owner = Weak::new();
        state.era += 1;
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

impl Disk for Simulated {
    fn open(&self) -> Result<Box<dyn StorageBackend>, Error> {
        let (owner, mut state) = (Arc::new(()), self.0.lock());
        if self.2 != state.era {
            return Err(Error::other("the disk is gone"));
        }
        state.owner = Arc::downgrade(&owner);
        drop(state);
        Ok(Box::new(Backend { disk: self.clone(), owner }))
    }

    fn reserve(&self, more: bool) -> Result<(), Error> {
        let mut state = self.0.lock();
        if state.reserve > 0 {
            return Ok(());
        }
        let room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        if room < if more { 2 * RESERVE_BYTES } else { RESERVE_BYTES / 2 } {
            return Err(ErrorKind::StorageFull.into());
        }
        state.reserve = room.min(RESERVE_BYTES);
        Ok(())
    }

    fn fill(&self) -> Result<(), Error> {
        let mut state = self.0.lock();
        let blocks = (state.seen.len() as u64).div_ceil(BLOCK_BYTES);
        let more = (blocks - state.blocks.len() as u64) * BLOCK_BYTES;
        if more > RESERVE_BYTES / 2 || state.capacity.is_some_and(|capacity| state.used() + more > capacity) {
            return Err(ErrorKind::StorageFull.into());
        }
        state.blocks.extend(0..blocks);
        Ok(())
    }

    fn release(&self) {
        self.0.lock().reserve = 0;
    }

    fn leave(&self) {}

    fn bytes(&self) -> u64 {
        0
    }

    fn folder(&self) -> String {
        "a simulated disk".to_owned()
    }

    fn delay(&self) -> Duration {
        match &mut self.0.lock().slow {
            Some((most, random)) => most.mul_f64(random.f64()),
            None => Duration::ZERO,
        }
    }

    fn time(&self) -> (Instant, SystemTime) {
        let state = self.0.lock();
        let (at, wall) = state.stopped.unwrap_or_else(|| (Instant::now(), SystemTime::now()));
        let (at, wall) = (at + state.passed, wall + state.passed);
        let apart = Duration::from_secs_f64(state.wall_ahead.abs());
        (at, if state.wall_ahead < 0.0 { wall - apart } else { wall + apart })
    }
}

/// The present second, with a fraction whose encoding has the same length every time.
fn stopped_wall() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(since.as_secs(), 123_456_000)
}

impl Backend {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.disk.0.lock();
        let mine = state.owner.upgrade().is_some_and(|owner| Arc::ptr_eq(&owner, &self.owner));
        if !mine {
            return Err(Error::other("the disk is gone"));
        }
        if let Some(left) = &mut state.fuse {
            let Some(less) = left.checked_sub(1) else { return Err(Error::other("the power is gone")) };
            *left = less;
        }
        act(&mut state)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, Error> {
        self.with(|state| Ok(state.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.with(|state| {
            let start = offset as usize;
            let found = state.seen.get(start..start + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(found);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.with(|state| {
            state.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
            state.seen.resize(len as usize, 0);
            state.pending.push(Pending::Len(len));
            Ok(())
        })
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.disk.wait_while_stalled();
        self.with(|state| {
            let State { safe, pending, .. } = state;
            for change in pending.drain(..) {
                match change {
                    Pending::Len(len) => safe.resize(len as usize, 0),
                    Pending::Write(offset, data) => put(safe, offset as usize, &data),
                }
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.disk.wait_while_stalled();
        self.with(|state| {
            let blocks = offset / BLOCK_BYTES..(offset + data.len() as u64).div_ceil(BLOCK_BYTES);
            let new = blocks.clone().filter(|block| !state.blocks.contains(block)).count() as u64;
            if state.capacity.is_some_and(|capacity| state.used() + new * BLOCK_BYTES > capacity) {
                return Err(ErrorKind::StorageFull.into());
            }
            state.blocks.extend(blocks);
            put(&mut state.seen, offset as usize, data);
            state.pending.push(Pending::Write(offset, data.to_vec()));
            Ok(())
        })
    }
}
