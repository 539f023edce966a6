//! Pages of the events of a stream, from the oldest or from the newest, as far as their caller may read them.
//!
//! What one call reads is limited, however little of it the caller may read or the filter lets through: a page may be empty and
//! not the last.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{MAX_PAGE_BYTES, page::Filling, streams::ReadableStream};
use crate::{
    engine::{Chunk, MAX_SEQUENCES, ReadError, ReadLimits},
    event::Event,
    model::{CommandError, Filter, StreamError},
};

/// So often one call reads at most, each time a page at most, or one event.
const READS: usize = 16;
/// From the newest on, a stream is read in windows, each from its first event to its last. The first has so many sequences: each
/// of them may take a read, and a call gets on by one window at least.
const FIRST_WINDOW: u64 = READS as u64;
/// Later windows have more, but no more than this.
const MAX_WINDOW: u64 = 4096;
/// Times are told apart down to this.
const INSTANT: Duration = Duration::from_micros(1);

/// Where a page of events begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the first of all.
    First,
    /// With the event of that sequence; without one with the next in the order that is asked for.
    Sequence(u64),
    /// With the first that was appended at that time, or is the next in the order that is asked for.
    Time(SystemTime),
    /// Behind what was on other pages.
    Behind(EventMark),
}

/// As far as pages have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventMark {
    /// The epoch of the stream.
    pub epoch: i64,
    /// All up to this sequence, in the order that was asked for, is done; from the newest on without this one.
    pub sequence: u64,
}

/// Which events are asked for.
#[derive(Debug, Clone)]
pub struct EventsAsked {
    /// Where to begin.
    pub begin: Begin,
    /// From the newest to the oldest.
    pub newest_first: bool,
    /// What topics have to match; every one without.
    pub filter: Option<Filter>,
    /// So many at most, at least 1.
    pub most: usize,
}

impl ReadableStream<'_> {
    /// A page of events, each as `show` makes it with the bytes it has there, and where the next page begins.
    pub async fn events<T>(
        &self,
        asked: EventsAsked,
        show: impl Fn(&Event) -> (T, usize),
    ) -> Result<(Vec<T>, Option<EventMark>), CommandError> {
        let mut filling = Filling::new(asked.most);
        let reading = Reading { of: self, filters: asked.filter.into_iter().collect(), left: READS };
        let add = |event: &Event| {
            let (shown, bytes) = show(event);
            filling.add(shown, bytes)
        };
        let sequence = if asked.newest_first {
            let (earliest, before) = self.newest(asked.begin).await?;
            reading.newest_first((earliest, before), asked.most, add).await?
        } else {
            let after = self.oldest(asked.begin).await?;
            reading.oldest_first(after, asked.most, add).await?
        };
        let mark = sequence.map(|sequence| EventMark { epoch: self.stream.epoch(), sequence });
        Ok((filling.page().items, mark))
    }

    /// Behind which sequence to begin.
    async fn oldest(&self, begin: Begin) -> Result<u64, StreamError> {
        let (earliest, _) = self.bounds(begin).await?;
        let first = match begin {
            Begin::First => 0,
            Begin::Sequence(sequence) => sequence,
            Begin::Time(time) => self.first_at(time).await?,
            Begin::Behind(mark) => mark.sequence.saturating_add(1),
        };
        Ok(first.max(earliest).saturating_sub(1))
    }

    /// The first sequence there is, and before which to begin.
    async fn newest(&self, begin: Begin) -> Result<(u64, u64), StreamError> {
        let (earliest, latest) = self.bounds(begin).await?;
        let before = match begin {
            Begin::First => u64::MAX,
            Begin::Sequence(sequence) => sequence.saturating_add(1),
            Begin::Time(time) => match time.checked_add(INSTANT) {
                Some(later) => self.first_at(later).await?,
                None => u64::MAX,
            },
            Begin::Behind(mark) => mark.sequence,
        };
        Ok((earliest, before.min(latest.saturating_add(1))))
    }

    /// The first and the last sequence of the stream, if it is the one that a mark is of.
    async fn bounds(&self, begin: Begin) -> Result<(u64, u64), StreamError> {
        let name = self.stream.name();
        let state = self.stream.state().await.map_err(|error| error.about(name))?;
        match begin {
            Begin::Behind(mark) if mark.epoch != state.epoch => {
                let (earliest, latest) = (state.earliest, state.latest);
                Err(StreamError::PageEpoch { stream: name.clone(), earliest, latest })
            }
            _ => Ok((state.earliest, state.latest)),
        }
    }

    async fn first_at(&self, time: SystemTime) -> Result<u64, StreamError> {
        self.stream.first_at(time).await.map_err(|error| error.about(self.stream.name()))
    }

    async fn readable(&self, events: Vec<Event>) -> Vec<Event> {
        self.caller.keep_readable(self.stream.name().as_str(), events, Event::topic).await
    }
}

/// What one call reads.
struct Reading<'a> {
    of: &'a ReadableStream<'a>,
    filters: Arc<[Filter]>,
    /// So often it may still read.
    left: usize,
}

impl Reading<'_> {
    /// Hands over what the caller may read, at most `most`, until `add` takes no more; tells what all is done up to, if there
    /// may be more.
    async fn oldest_first(
        mut self,
        mut after: u64,
        mut most: usize,
        mut add: impl FnMut(&Event) -> bool,
    ) -> Result<Option<u64>, StreamError> {
        let mut many = most;
        loop {
            let Some(chunk) = self.some(after, many).await? else { return Ok(Some(after)) };
            for event in self.of.readable(chunk.events).await {
                if !add(&event) {
                    return Ok(Some(event.sequence().saturating_sub(1)));
                }
                most = most.saturating_sub(1);
            }
            after = chunk.through;
            if after >= chunk.latest {
                return Ok(None);
            }
            if most == 0 {
                return Ok(Some(after));
            }
            // Of many the caller may read few: so that few calls get past the others.
            many = many.saturating_mul(4);
        }
    }

    /// The same from before a sequence down to the first there is; all is done down to what it tells.
    async fn newest_first(
        mut self,
        (earliest, mut before): (u64, u64),
        mut most: usize,
        mut add: impl FnMut(&Event) -> bool,
    ) -> Result<Option<u64>, StreamError> {
        let mut size = FIRST_WINDOW;
        while before > earliest {
            let reads = self.left;
            let begin = before.saturating_sub(size).max(earliest);
            let Some(window) = self.window(begin, before).await? else { return Ok(Some(before)) };
            let readable = self.of.readable(window.events).await;
            for event in readable.iter().rev() {
                if !add(event) {
                    return Ok(Some(event.sequence().saturating_add(1)));
                }
                most = most.saturating_sub(1);
            }
            let looked = before - window.begin;
            before = window.begin;
            if most == 0 {
                return Ok(Some(before).filter(|before| *before > earliest));
            }
            size = next_size(looked, (readable.len(), most), (reads - self.left, self.left));
        }
        Ok(None)
    }

    /// The last events of those from `begin` to before `before`, as many as are a page; `None` when that takes more than may be
    /// read.
    async fn window(&mut self, begin: u64, before: u64) -> Result<Option<Window>, StreamError> {
        let (mut begin, mut after) = (begin, begin.saturating_sub(1));
        let (mut events, mut bytes) = (VecDeque::new(), 0);
        while after.saturating_add(1) < before {
            let most = usize::try_from(before - after - 1).unwrap_or(usize::MAX);
            let Some(chunk) = self.some(after, most).await? else { return Ok(None) };
            for event in chunk.events.into_iter().take_while(|event| event.sequence() < before) {
                bytes += event.encoded_len();
                events.push_back(event);
                while bytes > MAX_PAGE_BYTES
                    && events.len() > 1
                    && let Some(oldest) = events.pop_front()
                {
                    bytes -= oldest.encoded_len();
                    begin = oldest.sequence() + 1;
                }
            }
            after = chunk.through;
        }
        Ok(Some(Window { begin, events: events.into() }))
    }

    /// Up to `most` events behind a sequence, or behind what is lost; `None` when no more may be read.
    async fn some(&mut self, mut after: u64, most: usize) -> Result<Option<Chunk>, StreamError> {
        let limits = ReadLimits { events: most.min(MAX_SEQUENCES), bytes: MAX_PAGE_BYTES };
        let stream = &self.of.stream;
        while self.left > 0 {
            self.left -= 1;
            match stream.read(after, &self.filters, limits).await {
                Ok(chunk) => {
                    // What is read from memory comes at once, and others want to work.
                    tokio::task::yield_now().await;
                    return Ok(Some(chunk));
                }
                Err(ReadError::Lost { earliest, .. }) => after = earliest.saturating_sub(1),
                Err(error) => return Err(error.about(stream.name())),
            }
        }
        Ok(None)
    }
}

/// Events that follow each other in a stream.
struct Window {
    /// What is before this sequence was not looked at.
    begin: u64,
    events: Vec<Event>,
}

/// How many sequences the next window has, after one of `looked` with so many events and so many that are still wanted: as many as
/// these are likely to be among, at most four times as many as before, and no more than the reads are enough for, of which that
/// one took some and some are left.
fn next_size(looked: u64, (found, wanted): (usize, usize), (took, left): (usize, usize)) -> u64 {
    let likely = looked.saturating_mul(wanted as u64) / (found as u64).max(1);
    let most = looked.saturating_mul(4).min(MAX_WINDOW);
    let enough = looked.saturating_mul(left as u64) / (took as u64).max(1);
    likely.min(most).max(FIRST_WINDOW).min(enough).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_as_large_as_what_is_wanted_and_can_be_read() {
        assert_eq!(next_size(16, (16, 20), (1, 15)), 20, "each sequence has an event");
        assert_eq!(next_size(16, (16, 2), (1, 15)), FIRST_WINDOW, "a few are left");
        assert_eq!(next_size(16, (0, 100), (1, 15)), 64, "there was none");
        assert_eq!(next_size(4096, (0, 100), (1, 15)), MAX_WINDOW);
        assert_eq!(next_size(16, (16, 100), (8, 8)), 16, "every other event takes a read");
        assert_eq!(next_size(16, (16, 100), (15, 1)), 1);
        assert_eq!(next_size(16, (16, 100), (16, 0)), 1, "which is not read");
    }
}
