//! Polling a stream: what comes behind a position, as far as the caller may read it, and waiting for more. Nothing is kept
//! from one poll to the next but the position, which the caller has.
//!
//! What one call reads is limited, however little of it the caller may read or the filters let through.

use std::sync::Arc;

use tokio::sync::watch;

use super::{MAX_PAGE_BYTES, streams::ReadableStream};
use crate::{
    auth::Action,
    engine::{MAX_SEQUENCES, ReadError, ReadLimits},
    event::Event,
    hub::Beginning,
    model::{CommandError, Filter, OnGap, Origin, Position, Start, StreamError},
    outbox::{Gap, GapReason},
};

/// So often one call reads at most.
const READS: usize = 16;

/// Where to begin to poll, and what for.
#[derive(Debug, Clone)]
pub struct PollAsked {
    /// Where in the stream; not with the last event of every topic, and not at a time.
    pub start: Start,
    /// What to do when what is behind that is lost.
    pub on_gap: OnGap,
    /// What topics have to match; every one without.
    pub filters: Vec<Filter>,
}

/// One poll of a stream: how far it has come.
#[derive(Debug)]
pub struct Polling {
    origin: Arc<Origin>,
    filters: Arc<[Filter]>,
    on_gap: OnGap,
    /// All up to here was handed over or passed over.
    after: u64,
    latest: u64,
    /// Where it begins, if that is with whatever is there: nothing is lost to it as long as it is there still.
    start: Option<u64>,
    gap: Option<Gap>,
    visible: watch::Receiver<u64>,
}

impl ReadableStream<'_> {
    /// Begins to poll.
    pub async fn poll(&self, asked: PollAsked) -> Result<Polling, CommandError> {
        let PollAsked { start, on_gap, filters } = asked;
        let (stream, name) = (&self.stream, self.stream.name());
        if !filters.is_empty() {
            self.caller.authorize(&Action::Read { stream: name.as_str(), filters: &filters, group: None })?;
        }
        if matches!(start, Start::LastPerTopic | Start::At(_)) {
            return Err(CommandError::Unsupported {
                field: "start",
                needs: "a subscription: a poll cannot begin there",
            });
        }
        // What comes from here on is a change.
        let visible = stream.visible();
        let state = stream.state().await.map_err(|error| error.about(name))?;
        let filters: Arc<[Filter]> = filters.into();
        let begins = Beginning::find(self.hub.tokens(), stream, &state, &filters, (&start, on_gap)).await?;
        let mut polling = Polling {
            origin: Arc::new(stream.origin()),
            filters,
            on_gap,
            after: begins.after,
            latest: state.latest,
            start: begins.with_what_is_there.then_some(begins.after),
            gap: None,
            visible,
        };
        if let Some((to, reason)) = begins.lost {
            polling.lose(to, reason);
        }
        Ok(polling)
    }

    /// Hands over the next events until `add` takes no more, at most `most`; what `add` did not take comes again. Also returns
    /// when it has read enough for one call.
    pub async fn poll_on(
        &self,
        polling: &mut Polling,
        mut most: usize,
        mut add: impl FnMut(&Event) -> bool,
    ) -> Result<(), CommandError> {
        let (stream, name) = (&self.stream, self.stream.name());
        // Made anew since: the next poll finds out by its position.
        if stream.epoch() != polling.origin.epoch {
            return Ok(());
        }
        polling.visible.borrow_and_update();
        let mut some = false;
        for _ in 0..READS {
            let limits = ReadLimits { events: most.min(MAX_SEQUENCES), bytes: MAX_PAGE_BYTES };
            match stream.read(polling.after, &polling.filters, limits).await {
                Ok(chunk) => {
                    for event in self.caller.keep_readable(name.as_str(), chunk.events, Event::topic).await {
                        if !add(&event) {
                            polling.pass(event.sequence().saturating_sub(1), chunk.latest);
                            return Ok(());
                        }
                        (some, most) = (true, most.saturating_sub(1));
                    }
                    polling.pass(chunk.through, chunk.latest);
                    if most == 0 || polling.is_caught_up() {
                        return Ok(());
                    }
                    // What is read from memory comes at once, and others want to work.
                    tokio::task::yield_now().await;
                }
                Err(ReadError::Lost { earliest, .. }) if polling.start == Some(polling.after) => {
                    polling.after = earliest - 1;
                    polling.start = Some(polling.after);
                }
                // Events come before the gap that is behind them.
                Err(ReadError::Lost { .. }) if some => return Ok(()),
                Err(ReadError::Lost { earliest, latest }) => match polling.on_gap {
                    OnGap::Earliest => polling.lose(earliest - 1, GapReason::Retention),
                    OnGap::Latest => polling.lose(latest, GapReason::Retention),
                    OnGap::Fail => {
                        let (stream, after) = (name.clone(), polling.after);
                        return Err(StreamError::Lost { stream, after, earliest, latest }.into());
                    }
                },
                Err(error) => return Err(error.about(name).into()),
            }
        }
        Ok(())
    }
}

impl Polling {
    /// Behind all that was handed over or passed over.
    pub fn position(&self) -> Position {
        Position { origin: Arc::clone(&self.origin), sequence: self.after }
    }

    /// True when that is all that the stream is known to have.
    pub fn is_caught_up(&self) -> bool {
        self.after >= self.latest
    }

    /// What is lost, before all that was handed over.
    pub fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// Ends when the stream has more than it had when it was read; false when the stream is gone. Cancel-safe.
    pub async fn change(&mut self) -> bool {
        self.visible.changed().await.is_ok()
    }

    fn pass(&mut self, through: u64, latest: u64) {
        self.after = self.after.max(through);
        self.latest = self.latest.max(latest);
    }

    /// Goes on behind what is lost. How many events that are is not known of a stream that was made anew.
    fn lose(&mut self, to: u64, reason: GapReason) {
        let from = self.after + 1;
        if reason == GapReason::Epoch {
            self.gap = Some(Gap { count: 0, sequences: (0, 0), reason });
        } else if to >= from {
            let (first, count) = self.gap.map_or((from, 0), |gap| (gap.sequences.0, gap.count));
            self.gap = Some(Gap { count: count + (to - from + 1), sequences: (first, to), reason });
        }
        self.after = to;
    }
}
