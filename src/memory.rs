//! The memory that clients make the hub keep, in bytes: one accountant, with a limit for each use of it.
//!
//! Limits on one session, connection or stream do not bound a hub that may have thousands of them. So whoever keeps
//! something for a client holds its bytes here first, and refuses the client when they do not fit. A [`Client`] is one
//! connection: it may hold half of each limit, so that no single one can use up what all share, and its first
//! [`NEVER_REFUSED_BYTES`] of each use always fit, so that others can always go on. What waits to be *sent* has an
//! accountant of its own, [`crate::outbox::Budget`], which drops events instead of refusing them.
//!
//! Who waits for memory while it holds some, such as a frame that has come in part, may wait for others that wait for
//! it. One at a time may therefore hold more than the limits, by [`Held::overdraw`]: it goes on, and makes room.
//!
//! The defaults together with that one fit the pod of `k8s/base`. The room counts; it never allocates, waits or logs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};

/// A connection that holds no more than this of a use is not refused, however much all others hold.
pub const NEVER_REFUSED_BYTES: usize = 64 * 1024;

/// One connection may hold this part of what the hub may.
const CLIENT_SHARE: usize = 2;

const MIB: usize = 1024 * 1024;

/// What clients make the hub keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Frames that have come in part.
    Frames,
    /// Events that were read and wait to be stored.
    Publishes,
    /// Responses of unary calls that the client has not read.
    Responses,
    /// Subscriptions and their filters, live and stored, and the labels of sessions.
    Filters,
    /// Events of streams with storage MEMORY.
    MemoryStreams,
    /// Topics that streams know.
    Topics,
    /// Ids that streams know, by which they find duplicates.
    Ids,
}

impl Use {
    /// Each of them once.
    pub const ALL: [Self; 7] =
        [Self::Frames, Self::Publishes, Self::Responses, Self::Filters, Self::MemoryStreams, Self::Topics, Self::Ids];

    /// As it stands in metrics and errors, and, with `_bytes`, in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Publishes => "publishes",
            Self::Responses => "responses",
            Self::Filters => "filters",
            Self::MemoryStreams => "memory_streams",
            Self::Topics => "topics",
            Self::Ids => "ids",
        }
    }
}

/// How much memory clients may make the hub keep, in bytes; in the file under `[memory]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Frames that have partly arrived, in bytes.
    pub frames_bytes: usize,
    /// Events that were read and wait to be stored, in bytes.
    pub publishes_bytes: usize,
    /// Responses of unary calls that clients have not read, in bytes.
    pub responses_bytes: usize,
    /// Subscriptions and their filters, and the labels of sessions, in bytes.
    pub filters_bytes: usize,
    /// Events of streams with storage MEMORY, in bytes.
    pub memory_streams_bytes: usize,
    /// Topics that streams keep track of, in bytes.
    pub topics_bytes: usize,
    /// Ids by which streams find duplicates, in bytes.
    pub ids_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frames_bytes: 128 * MIB,
            publishes_bytes: 128 * MIB,
            responses_bytes: 64 * MIB,
            filters_bytes: 160 * MIB,
            memory_streams_bytes: 192 * MIB,
            topics_bytes: 128 * MIB,
            ids_bytes: 64 * MIB,
        }
    }
}

impl Options {
    fn limit(&self, of: Use) -> usize {
        match of {
            Use::Frames => self.frames_bytes,
            Use::Publishes => self.publishes_bytes,
            Use::Responses => self.responses_bytes,
            Use::Filters => self.filters_bytes,
            Use::MemoryStreams => self.memory_streams_bytes,
            Use::Topics => self.topics_bytes,
            Use::Ids => self.ids_bytes,
        }
    }

    /// What is out of range, with its key and what it may be.
    pub fn check(&self) -> Result<(), String> {
        // Half of it is for one client, which must be able to send the largest frame, compressed.
        let least = |of| if matches!(of, Use::Frames | Use::Publishes) { 16 * MIB } else { 8 * MIB };
        match Use::ALL.into_iter().find(|of| self.limit(*of) < least(*of)) {
            Some(of) => {
                let (key, is, least) = (of.name(), self.limit(of), least(of));
                Err(format!("memory.{key}_bytes is {is} and must be at least {least}"))
            }
            None => Ok(()),
        }
    }
}

/// What was asked for does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hub has no memory left for {} of this client (memory.{}_bytes)", .of.name(), .of.name())]
pub struct MemoryFull {
    /// Of what.
    pub of: Use,
}

/// What one use of memory holds, and may hold.
#[derive(Debug)]
struct Share {
    limit: usize,
    held: AtomicUsize,
    refused: AtomicU64,
    /// Somebody holds more than the limits.
    overdrawn: AtomicBool,
}

/// The accountant of one hub.
#[derive(Debug)]
pub struct Memory([Share; Use::ALL.len()]);

impl Default for Memory {
    fn default() -> Self {
        Self::new(&Options::default())
    }
}

impl Memory {
    /// Nothing is held yet.
    pub fn new(options: &Options) -> Self {
        Self(Use::ALL.map(|of| Share {
            limit: options.limit(of),
            held: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            overdrawn: AtomicBool::new(false),
        }))
    }

    /// Holds memory that no connection accounts for, such as what a stream keeps.
    pub fn hold(self: &Arc<Self>, of: Use, bytes: usize) -> Result<Held, MemoryFull> {
        Held { memory: Arc::clone(self), client: None, of, bytes: 0, overdraws: false }.grown(bytes)
    }

    /// What one connection holds: nothing yet.
    pub fn client(self: &Arc<Self>) -> Arc<Client> {
        Arc::new(Client { memory: Arc::clone(self), held: Default::default() })
    }

    /// Counts what did not fit and was given up instead of being refused, `times` over.
    pub fn gave_up(&self, of: Use, times: u64) {
        self.share(of).refused.fetch_add(times, Relaxed);
    }

    /// How much is held, in bytes.
    pub fn held_bytes(&self, of: Use) -> usize {
        self.share(of).held.load(Relaxed)
    }

    /// How much may be held, in bytes.
    pub fn limit_bytes(&self, of: Use) -> usize {
        self.share(of).limit
    }

    /// How often something did not fit, and was refused or given up.
    pub fn refusals(&self, of: Use) -> u64 {
        self.share(of).refused.load(Relaxed)
    }

    fn share(&self, of: Use) -> &Share {
        &self.0[of as usize]
    }
}

/// What one connection makes the hub keep.
#[derive(Debug)]
pub struct Client {
    memory: Arc<Memory>,
    held: [AtomicUsize; Use::ALL.len()],
}

impl Client {
    /// Holds memory on behalf of this connection.
    pub fn hold(self: &Arc<Self>, of: Use, bytes: usize) -> Result<Held, MemoryFull> {
        self.nothing(of).grown(bytes)
    }

    /// Holds no memory on behalf of this connection, to begin with.
    pub fn nothing(self: &Arc<Self>, of: Use) -> Held {
        Held { memory: Arc::clone(&self.memory), client: Some(Arc::clone(self)), of, bytes: 0, overdraws: false }
    }

    /// How much more would fit now, in bytes.
    pub fn room_bytes(&self, of: Use) -> usize {
        let (share, held) = (self.memory.share(of), self.held[of as usize].load(Relaxed));
        let of_hub = share.limit.saturating_sub(share.held.load(Relaxed));
        let of_this = share.own_limit().saturating_sub(held);
        of_this.min(of_hub.max(NEVER_REFUSED_BYTES.saturating_sub(held)))
    }
}

impl Share {
    /// How much one client may hold, in bytes.
    fn own_limit(&self) -> usize {
        (self.limit / CLIENT_SHARE).max(NEVER_REFUSED_BYTES)
    }
}

/// Memory that is accounted for as long as this lives.
#[derive(Debug)]
pub struct Held {
    memory: Arc<Memory>,
    client: Option<Arc<Client>>,
    of: Use,
    bytes: usize,
    /// It is the one that may hold more than the limits.
    overdraws: bool,
}

impl Held {
    /// Of what it is.
    pub fn of(&self) -> Use {
        self.of
    }

    /// How much it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds more. When that does not fit, nothing has changed but the count of refusals.
    pub fn grow(&mut self, bytes: usize) -> Result<(), MemoryFull> {
        let grown = self.grow_again(bytes);
        if grown.is_err() {
            self.memory.share(self.of).refused.fetch_add(1, Relaxed);
        }
        grown
    }

    /// The same for who was refused just now and has waited: the refusal is counted once.
    pub fn grow_again(&mut self, bytes: usize) -> Result<(), MemoryFull> {
        if bytes == 0 || self.fits(bytes) {
            self.bytes += bytes;
            return Ok(());
        }
        Err(MemoryFull { of: self.of })
    }

    /// True for the one that may hold more than the limits.
    pub fn overdraws(&self) -> bool {
        self.overdraws
    }

    /// Holds more, whatever the limits, unless another does; from then on, until it is dropped or shrinks to nothing. For
    /// who waits in vain while it holds some.
    pub fn overdraw(&mut self, bytes: usize) -> Result<(), MemoryFull> {
        let share = self.memory.share(self.of);
        self.overdraws = self.overdraws || !share.overdrawn.swap(true, Relaxed);
        if !self.overdraws {
            return Err(MemoryFull { of: self.of });
        }
        share.held.fetch_add(bytes, Relaxed);
        if let Some(client) = &self.client {
            client.held[self.of as usize].fetch_add(bytes, Relaxed);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Holds exactly so much, whether it fits or not: what is there already cannot be refused any more.
    pub fn set(&mut self, bytes: usize) {
        if bytes <= self.bytes {
            return self.shrink(self.bytes - bytes);
        }
        let more = bytes - self.bytes;
        self.bytes = bytes;
        self.memory.share(self.of).held.fetch_add(more, Relaxed);
        if let Some(client) = &self.client {
            client.held[self.of as usize].fetch_add(more, Relaxed);
        }
    }

    /// Holds less, down to nothing.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.memory.share(self.of).held.fetch_sub(bytes, Relaxed);
        if let Some(client) = &self.client {
            client.held[self.of as usize].fetch_sub(bytes, Relaxed);
        }
        if self.bytes == 0 && std::mem::take(&mut self.overdraws) {
            self.memory.share(self.of).overdrawn.store(false, Relaxed);
        }
    }

    fn grown(mut self, bytes: usize) -> Result<Self, MemoryFull> {
        self.grow(bytes).map(|()| self)
    }

    /// Counts `bytes` more, or nothing at all.
    fn fits(&self, bytes: usize) -> bool {
        let share = self.memory.share(self.of);
        let Some(client) = &self.client else { return add(&share.held, bytes, share.limit) };
        let held = &client.held[self.of as usize];
        if !add(held, bytes, share.own_limit()) {
            return false;
        }
        let little = held.load(Relaxed) <= NEVER_REFUSED_BYTES;
        if add(&share.held, bytes, if little { usize::MAX } else { share.limit }) {
            return true;
        }
        held.fetch_sub(bytes, Relaxed);
        false
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

/// Adds to a count, unless that were more than its limit.
fn add(count: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    let fits = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= limit);
    count.fetch_update(Relaxed, Relaxed, fits).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8 * MIB;

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::new(&Options { frames_bytes: LIMIT, ..Options::default() }))
    }

    #[test]
    fn what_is_held_fits_the_limit_and_no_more() {
        let memory = memory();
        let mut all = memory.hold(Use::Frames, LIMIT).expect("at the limit");
        assert_eq!(memory.hold(Use::Frames, 1).err(), Some(MemoryFull { of: Use::Frames }), "one past");
        assert_eq!(memory.refusals(Use::Frames), 1);
        memory.hold(Use::Topics, 1).expect("another use");
        all.shrink(1);
        memory.hold(Use::Frames, 1).expect("room again");
        drop(all);
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }

    #[test]
    fn one_connection_holds_half_and_a_little_always_fits() {
        let memory = memory();
        let (greedy, other, third) = (memory.client(), memory.client(), memory.client());
        let _half = greedy.hold(Use::Frames, LIMIT / 2).expect("half");
        assert!(greedy.hold(Use::Frames, 1).is_err(), "one past half");
        let _rest = other.hold(Use::Frames, LIMIT / 2).expect("the other half");
        let mut little = third.hold(Use::Frames, NEVER_REFUSED_BYTES).expect("little");
        assert!(little.grow(1).is_err(), "one past little");
        assert_eq!(little.bytes(), NEVER_REFUSED_BYTES);
        drop(little);
        assert_eq!(memory.held_bytes(Use::Frames), LIMIT);
    }

    #[test]
    fn one_at_a_time_may_hold_more_than_the_limits() {
        let memory = memory();
        let client = memory.client();
        let mut first = client.hold(Use::Frames, LIMIT / 2).expect("half");
        let mut second = memory.hold(Use::Frames, LIMIT / 2).expect("the other half");
        assert!(first.grow(1).is_err() && first.grow_again(1).is_err());
        assert_eq!(memory.refusals(Use::Frames), 1, "asking again is no other refusal");
        first.overdraw(1).expect("the first that asks");
        first.overdraw(2).expect("more of it");
        assert!(second.overdraw(1).is_err(), "one at a time");
        assert_eq!(memory.held_bytes(Use::Frames), LIMIT + 3);
        drop(first);
        second.overdraw(LIMIT).expect("the next");
        second.shrink(usize::MAX);
        client.nothing(Use::Frames).overdraw(1).expect("it has nothing left");
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }

    #[test]
    fn the_largest_frame_fits_the_least_limits() {
        let with = |frames_bytes| Options { frames_bytes, ..Options::default() };
        assert!(with(16 * MIB).check().is_ok());
        assert!(with(16 * MIB - 1).check().is_err_and(|error| error.contains("memory.frames_bytes")));
    }

    #[test]
    fn what_is_there_already_is_held_beyond_the_limit_and_nothing_beside_it() {
        let memory = memory();
        let (one, other) = (memory.client(), memory.client());
        let mut held = one.nothing(Use::Frames);
        held.set(LIMIT + 1);
        assert_eq!((memory.held_bytes(Use::Frames), one.room_bytes(Use::Frames)), (LIMIT + 1, 0));
        assert!(held.grow(1).is_err() && other.hold(Use::Frames, NEVER_REFUSED_BYTES + 1).is_err());
        assert_eq!(other.room_bytes(Use::Frames), NEVER_REFUSED_BYTES);
        held.set(LIMIT / 4);
        assert_eq!((one.room_bytes(Use::Frames), other.room_bytes(Use::Frames)), (LIMIT / 4, LIMIT / 2));
        drop(held);
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }
}
