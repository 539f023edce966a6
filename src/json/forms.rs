//! The JSON of events that several clients get: made once, and kept while they are likely to be sent again.
//!
//! To make the JSON of an event costs as much as some fifty copies of it, so what is sent to many is copied from here. What is
//! kept is bounded in bytes, which count the events that it is made of: as long as one of them is known here, its memory
//! is not used for another. An event that only one client gets is never kept.
//!
//! There is no timer. What is kept has two generations; when the younger one has half of the bytes it becomes the older
//! one, and the older one goes. The locks are held for a look-up each, and never two of them at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::event::put_event;
use crate::event::{Allocation, Event};

/// What is kept at most, in bytes.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// What is kept is spread over this many locks.
const SHARDS: usize = 16;
/// A form up to this size is copied while its lock is held.
const COPIED_BYTES: usize = 4 * 1024;
/// What a form costs besides its bytes,
const FORM_OVERHEAD_BYTES: usize = 64;
/// what an event costs besides its own, whether it has a form or not,
const EVENT_OVERHEAD_BYTES: usize = 96;
/// and events that share memory, together.
const GROUP_OVERHEAD_BYTES: usize = 192;

/// The JSON of events, as of [`put_event`].
#[derive(Debug)]
pub struct Forms {
    shards: [Mutex<Shard>; SHARDS],
    most_bytes: usize,
    held: AtomicUsize,
    /// That of the younger generation.
    young: AtomicUsize,
    /// Somebody is at work to begin another generation.
    turning: AtomicBool,
}

#[derive(Debug, Default)]
struct Shard {
    young: Generation,
    old: Generation,
}

/// By the address of the memory that the events share.
type Generation = HashMap<usize, Group>;

/// The forms of events that share memory.
#[derive(Debug)]
struct Group {
    /// Keeps that memory from being used for others.
    _event: Event,
    forms: Box<[Option<Bytes>]>,
    bytes: usize,
}

impl Default for Forms {
    fn default() -> Self {
        Self::new(MOST_BYTES)
    }
}

impl Forms {
    /// Keeps at most this many bytes.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            shards: Default::default(),
            most_bytes,
            held: AtomicUsize::new(0),
            young: AtomicUsize::new(0),
            turning: AtomicBool::new(false),
        }
    }

    /// The JSON of an event.
    pub fn of(&self, event: &Event) -> Bytes {
        let allocation = event.allocation();
        if !is_shared(&allocation) {
            return made(event);
        }
        match self.known(&allocation) {
            Some(form) => form,
            None => self.keep(event, &allocation, made(event)),
        }
    }

    /// Puts the JSON of an event at the end of `out`.
    pub fn put(&self, event: &Event, out: &mut Vec<u8>) {
        let allocation = event.allocation();
        if !is_shared(&allocation) {
            return put_event(event, out);
        }
        let form = match self.shard(allocation.address).lock().known(&allocation) {
            // To copy it is quicker than to count that somebody has it.
            Some(short) if short.len() <= COPIED_BYTES => return out.extend_from_slice(short),
            form => form.cloned(),
        };
        out.extend_from_slice(&form.unwrap_or_else(|| self.keep(event, &allocation, made(event))));
    }

    /// What is kept, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.held.load(Relaxed)
    }

    fn shard(&self, address: usize) -> &Mutex<Shard> {
        // The lower bits are the same for all, and the higher ones for many.
        let mixed = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 60) as usize % SHARDS]
    }

    fn known(&self, allocation: &Allocation) -> Option<Bytes> {
        self.shard(allocation.address).lock().known(allocation).cloned()
    }

    /// Keeps a form, if it fits. Returns the one that is kept, which another may have made meanwhile.
    fn keep(&self, event: &Event, allocation: &Allocation, form: Bytes) -> Bytes {
        for _ in 0..2 {
            match self.shard(allocation.address).lock().keep(self, event, allocation, &form) {
                Kept::As(kept) => return kept,
                Kept::Never => break,
                Kept::NoRoom => {}
            }
            self.turn();
        }
        form
    }

    /// Begins another generation, if this one is as large as it may become.
    fn turn(&self) {
        if self.turning.swap(true, Relaxed) {
            return;
        }
        for shard in &self.shards {
            let gone = {
                let mut shard = shard.lock();
                let young = std::mem::take(&mut shard.young);
                self.young.fetch_sub(bytes(&young), Relaxed);
                std::mem::replace(&mut shard.old, young)
            };
            self.held.fetch_sub(bytes(&gone), Relaxed);
        }
        self.turning.store(false, Relaxed);
    }

    /// Counts this many bytes more of the younger generation, unless they do not fit.
    fn grow(&self, young: usize, held: usize) -> bool {
        let add = |counter: &AtomicUsize, bytes: usize, most: usize| {
            counter.fetch_update(Relaxed, Relaxed, |now| now.checked_add(bytes).filter(|sum| *sum <= most)).is_ok()
        };
        if !add(&self.young, young, self.most_bytes / 2) {
            return false;
        }
        let fits = add(&self.held, held, self.most_bytes);
        if !fits {
            self.young.fetch_sub(young, Relaxed);
        }
        fits
    }
}

/// What became of a form.
enum Kept {
    As(Bytes),
    /// There may be room after another generation has begun.
    NoRoom,
    /// It is too large.
    Never,
}

impl Shard {
    fn known(&self, allocation: &Allocation) -> Option<&Bytes> {
        let group = self.young.get(&allocation.address).or_else(|| self.old.get(&allocation.address))?;
        group.forms.get(allocation.at)?.as_ref()
    }

    fn keep(&mut self, forms: &Forms, event: &Event, allocation: &Allocation, form: &Bytes) -> Kept {
        let Allocation { address, at, events, .. } = *allocation;
        let known = |group: Option<&Group>| group.and_then(|group| group.forms.get(at)?.clone());
        if let Some(form) = known(self.young.get(&address)).or_else(|| known(self.old.get(&address))) {
            return Kept::As(form);
        }
        let more = form.len() + FORM_OVERHEAD_BYTES;
        let whole = GROUP_OVERHEAD_BYTES + allocation.bytes + events * EVENT_OVERHEAD_BYTES;
        // With the first form come the events; an old group becomes young again.
        let (young, held) = match (self.young.get(&address), self.old.get(&address)) {
            (Some(_), _) => (more, more),
            (None, Some(old)) => (old.bytes + more, more),
            (None, None) => (whole + more, whole + more),
        };
        if young > forms.most_bytes / 2 {
            return Kept::Never;
        }
        if !forms.grow(young, held) {
            return Kept::NoRoom;
        }
        if let Some(old) = self.old.remove(&address) {
            self.young.insert(address, old);
        }
        let group = self.young.entry(address).or_insert_with(|| Group {
            _event: event.clone(),
            forms: vec![None; events].into(),
            bytes: whole,
        });
        group.bytes += more;
        if let Some(place) = group.forms.get_mut(at) {
            *place = Some(form.clone());
        }
        Kept::As(form.clone())
    }
}

/// Whether somebody else may want its JSON, too.
fn is_shared(allocation: &Allocation) -> bool {
    allocation.clones > allocation.events
}

fn bytes(generation: &Generation) -> usize {
    generation.values().map(|group| group.bytes).sum()
}

fn made(event: &Event) -> Bytes {
    let mut out = Vec::with_capacity(event.encoded_len() * 3 / 2 + 128);
    put_event(event, &mut out);
    out.into_boxed_slice().into()
}
