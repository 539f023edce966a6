//! Reading: from the tail in memory, or from the store. Both see a stream through its bounds, and both give nothing
//! that has expired or was pushed out.

use bytes::Bytes;

use super::{
    batch::{Damaged, Record, Records, time_of},
    store::{Loaded, Trouble},
    stream::{Bounds, Shared},
};
use crate::{
    engine::{AppendTimes, Chunk, ReadError, ReadLimits, StoreError},
    event::Event,
    model::{Filter, Topic},
};

/// One call looks at so many bytes at most.
const LOOK_BYTES: usize = 2 * 1024 * 1024;
/// One call looks at so many pieces of the tail at most: a lone event is a piece.
const LOOK_PIECES: usize = 4096;
/// One call compares so many topics with filters at most: a millisecond or so.
pub(super) const MOST_COMPARISONS: usize = 32_768;
/// Events that are less than one part in so many of the memory they share get memory of their own: a few events that wait
/// for a slow client must not hold all that was written beside them.
const SHARE: usize = 4;

/// Collects what is found.
struct Finder<'a> {
    filters: &'a [Filter],
    limits: ReadLimits,
    chunk: Chunk,
    /// How many events were found, and how long they are together.
    found: (usize, usize),
    /// How often a topic was compared with a filter.
    compared: usize,
    /// Something is missing: it was deleted meanwhile, or lost.
    hole: bool,
}

impl<'a> Finder<'a> {
    fn new(after: u64, latest: u64, filters: &'a [Filter], limits: ReadLimits) -> Self {
        let chunk = Chunk { events: Vec::new(), through: after, latest };
        Self { filters, limits, chunk, found: (0, 0), compared: 0, hole: false }
    }

    fn is_full(&self) -> bool {
        let (events, bytes) = self.found;
        let compared_enough = self.compared >= MOST_COMPARISONS;
        events >= self.limits.events.max(1) || (bytes >= self.limits.bytes && events > 0) || compared_enough
    }

    /// Whether an event of `bytes` is among those that are wanted; counts it then.
    fn wants(&mut self, topic: Topic<'_>, bytes: usize) -> bool {
        let found = self.filters.iter().position(|filter| filter.matches(topic));
        self.compared += found.map_or(self.filters.len(), |at| at + 1);
        let wants = self.filters.is_empty() || found.is_some();
        if wants {
            self.found.0 += 1;
            self.found.1 += bytes;
        }
        wants
    }

    /// True when what was found since then is a small part of a piece of memory of `bytes`.
    fn is_small_part(&self, before: (usize, usize), bytes: usize) -> bool {
        (self.found.1 - before.1) * SHARE < bytes
    }
}

/// What memory has behind a point.
pub(super) struct InTail {
    pub(super) chunk: Chunk,
    /// All that was looked at is gone, and there is more: in the store there may be nothing of it any more.
    pub(super) is_gone: bool,
}

/// Reads from memory; `None` when it is not there.
pub(super) fn from_tail(
    stream: &Shared,
    after: u64,
    bounds: Bounds,
    filters: &[Filter],
    limits: ReadLimits,
) -> Option<InTail> {
    let pieces = stream.tail.from(after + 1, limits.bytes.min(LOOK_BYTES), LOOK_PIECES);
    if pieces.is_empty() {
        return None;
    }
    let topics = stream.topics.read();
    let topics = topics.is_limited().then_some(topics);
    let mut finder = Finder::new(after, bounds.latest, filters, limits);
    let (mut now, mut is_gone) = (None, true);
    for piece in &pieces {
        let (events, expires) = piece.events(&stream.warp)?;
        let (before, first) = (finder.found, finder.chunk.events.len());
        let skip = (after + 1).saturating_sub(piece.first) as usize;
        for (at, event) in events.iter().enumerate().skip(skip) {
            let sequence = event.sequence();
            if finder.is_full() || sequence > bounds.latest {
                break;
            }
            finder.chunk.through = sequence;
            let kept = topics.as_ref().is_none_or(|topics| topics.keeps(event.topic().as_bytes(), sequence));
            if !kept || has_expired(expires, at, || *now.get_or_insert_with(|| stream.now())) {
                continue;
            }
            is_gone = false;
            if finder.wants(event.topic(), event.encoded_len()) {
                finder.chunk.events.push(event.clone());
            }
        }
        if finder.is_small_part(before, piece.bytes()) {
            finder.chunk.events[first..].iter_mut().for_each(|event| *event = event.detached());
        }
        if finder.chunk.through < piece.last {
            break;
        }
    }
    is_gone &= finder.chunk.through < bounds.latest;
    Some(InTail { chunk: finder.chunk, is_gone })
}

/// Looks at the clock only when something expires at all.
fn has_expired(expires: &[u64], at: usize, mut now: impl FnMut() -> u64) -> bool {
    let expires = expires.get(at).copied().unwrap_or(u64::MAX);
    expires != u64::MAX && expires <= now()
}

/// Reads from the store, in a thread where waiting is allowed.
pub(super) fn from_store(
    stream: &Shared,
    after: u64,
    filters: &[Filter],
    limits: ReadLimits,
) -> Result<Chunk, ReadError> {
    let bounds = match stream.start(after)? {
        Ok(bounds) => bounds,
        Err(chunk) => return Ok(chunk),
    };
    let found = stream.store().read(|batches| {
        let mut finder = Finder::new(after, bounds.latest, filters, limits);
        let mut looked = 0;
        batches.from(stream.id, after + 1, |loaded| {
            finder.hole = loaded.head.first > finder.chunk.through + 1;
            if finder.hole {
                return Ok(false);
            }
            looked += loaded.value.len();
            look(stream, &loaded, &mut finder)?;
            Ok(!finder.is_full() && finder.chunk.through < bounds.latest && looked < LOOK_BYTES)
        })?;
        Ok((finder.hole || finder.chunk.through == after, finder.chunk))
    });
    let (hole, chunk) = found.map_err(|trouble| read_error(stream, &trouble))?;
    if hole && chunk.through == after {
        // Deleted since the bounds were looked at, or the stream was: then they say so now.
        stream.start(after)?.map_or_else(Ok, |_| {
            let what = format!("stream {} has no record batch for sequence {}", stream.id, after + 1);
            Err(read_error(stream, &Trouble::Damaged(what)))
        })
    } else {
        Ok(chunk)
    }
}

fn look(stream: &Shared, loaded: &Loaded, finder: &mut Finder<'_>) -> Result<(), Trouble> {
    let (head, latest) = (loaded.head, finder.chunk.latest);
    let damaged = Trouble::batch(stream.id, head.first);
    let topics = stream.topics.read();
    let topics = topics.is_limited().then_some(topics);
    let now = stream.now();
    let mut places = Vec::with_capacity(loaded.most_records());
    let before = finder.found;
    let mut whole = true;
    for record in Records::new(&head, &loaded.value) {
        let record = record.map_err(&damaged)?;
        if record.sequence <= finder.chunk.through {
            continue;
        }
        if finder.is_full() || record.sequence > latest {
            whole = false;
            break;
        }
        finder.chunk.through = record.sequence;
        let kept = topics.as_ref().is_none_or(|topics| topics.keeps(record.topic(&loaded.value), record.sequence));
        if !kept || record.ends(&stream.warp) <= now {
            continue;
        }
        let place = record.place(&loaded.value).map_err(&damaged)?;
        if finder.wants(place.topic(&loaded.value), record.len as usize) {
            places.push(place);
        }
    }
    if finder.is_small_part(before, loaded.value.len()) {
        finder.chunk.events.extend(places.iter().map(|place| place.detached(&loaded.value)));
    } else {
        finder.chunk.events.extend(Event::together(loaded.value.clone(), places));
    }
    if whole {
        // The end of the batch may be of events that are gone.
        finder.chunk.through = finder.chunk.through.max(head.last.min(latest));
    }
    Ok(())
}

/// A single event from memory, whether or not it is still kept.
pub(super) fn in_tail(stream: &Shared, sequence: u64) -> Option<Event> {
    let pieces = stream.tail.from(sequence, 1, 1);
    let piece = pieces.first()?;
    let (events, _) = piece.events(&stream.warp)?;
    events.get((sequence - piece.first) as usize).map(Event::detached)
}

/// A single event from the store, whether or not it is still kept.
pub(super) fn one(stream: &Shared, sequence: u64) -> Result<Option<Event>, ReadError> {
    let found = stream.store().read(|batches| {
        let Some(loaded) = batches.covering(stream.id, sequence)? else { return Ok(None) };
        let damaged = Trouble::batch(stream.id, loaded.head.first);
        for record in Records::new(&loaded.head, &loaded.value) {
            let record = record.map_err(&damaged)?;
            if record.sequence == sequence {
                return Ok(Some(record.place(&loaded.value).map_err(&damaged)?.detached(&loaded.value)));
            }
        }
        Ok(None)
    });
    found.map_err(|trouble| read_error(stream, &trouble))
}

/// The events of these sequences, which ascend.
pub(super) fn some(stream: &Shared, sequences: &[u64]) -> Result<Chunk, ReadError> {
    let picked = pick(stream, sequences, |record, value| Ok(record.place(value)?.detached(value)))?;
    let through = sequences.last().copied().unwrap_or_default();
    Ok(Chunk { events: picked.taken, through, latest: picked.latest })
}

/// Those of these sequences, which ascend, that readers can get.
pub(super) fn which(stream: &Shared, sequences: &[u64]) -> Result<Vec<u64>, ReadError> {
    pick(stream, sequences, |record, _| Ok(record.sequence)).map(|picked| picked.taken)
}

/// When those of these sequences were appended, which ascend, that readers can get.
pub(super) fn times(stream: &Shared, sequences: &[u64]) -> Result<AppendTimes, ReadError> {
    let picked = pick(stream, sequences, |record, _| Ok((record.sequence, time_of(record.time))))?;
    Ok(AppendTimes { times: picked.taken, read_bytes: picked.loaded_bytes })
}

/// What was taken of records.
struct Picked<T> {
    taken: Vec<T>,
    /// The last sequence that readers can get.
    latest: u64,
    /// So much was loaded.
    loaded_bytes: usize,
}

/// Takes something of each of these records, which ascend, that readers can get.
fn pick<T>(
    stream: &Shared,
    sequences: &[u64],
    take: impl Fn(&Record, &Bytes) -> Result<T, Damaged>,
) -> Result<Picked<T>, ReadError> {
    stream.check(ReadError::Closed)?;
    let bounds = stream.bounds();
    let now = stream.now();
    let found = stream.store().read(|batches| {
        let (mut taken, mut loaded_bytes) = (Vec::new(), 0);
        let mut rest = sequences.iter().copied().filter(|sequence| (bounds.floor..=bounds.latest).contains(sequence));
        let mut next = rest.next();
        while let Some(sequence) = next {
            let Some(loaded) = batches.covering(stream.id, sequence)? else {
                next = rest.next();
                continue;
            };
            loaded_bytes += loaded.value.len();
            let damaged = Trouble::batch(stream.id, loaded.head.first);
            for record in Records::new(&loaded.head, &loaded.value) {
                let record = record.map_err(&damaged)?;
                while next.is_some_and(|wanted| wanted < record.sequence) {
                    next = rest.next();
                }
                if next == Some(record.sequence) {
                    let topics = stream.topics.read();
                    if record.ends(&stream.warp) > now && topics.keeps(record.topic(&loaded.value), record.sequence) {
                        taken.push(take(&record, &loaded.value).map_err(&damaged)?);
                    }
                    next = rest.next();
                }
            }
            while next.is_some_and(|wanted| wanted <= loaded.head.last) {
                next = rest.next();
            }
        }
        Ok(Picked { taken, latest: bounds.latest, loaded_bytes })
    });
    found.map_err(|trouble| read_error(stream, &trouble))
}

/// The first sequence appended at `time` or later: times never go back, so halving finds it.
pub(super) fn first_at(stream: &Shared, time: u64) -> Result<u64, ReadError> {
    stream.check(ReadError::Closed)?;
    let bounds = stream.bounds();
    let found = stream.store().read(|batches| {
        // Everything below `low` is earlier, `high` is not.
        let (mut low, mut high) = (bounds.floor, bounds.latest + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(loaded) = batches.covering(stream.id, middle)? else {
                // Deleted meanwhile.
                low = middle + 1;
                continue;
            };
            if loaded.head.last_time < time {
                low = loaded.head.last + 1;
            } else if loaded.head.base_time >= time && loaded.head.first > low {
                high = loaded.head.first;
            } else {
                let damaged = Trouble::batch(stream.id, loaded.head.first);
                for record in Records::new(&loaded.head, &loaded.value) {
                    let record = record.map_err(&damaged)?;
                    if record.time >= time && record.sequence >= low {
                        return Ok(record.sequence.min(bounds.latest + 1));
                    }
                }
                low = loaded.head.last + 1;
            }
        }
        Ok(low.min(bounds.latest + 1))
    });
    found.map_err(|trouble| read_error(stream, &trouble))
}

fn read_error(stream: &Shared, trouble: &Trouble) -> ReadError {
    let error = trouble.error();
    if let StoreError::Corrupt { what } = &error {
        tracing::error!(stream = %stream.name, what, "the store is damaged");
    }
    error.into()
}
