//! Where in a stream somebody begins that asked for a start, and what of it is lost already.

use std::{sync::Arc, time::SystemTime};

use super::TokenKey;
use crate::{
    engine::{EventStream, ReadError},
    model::{Filter, OnGap, Start, StreamError, StreamState},
    outbox::{GapReason, ResumeOutcome},
};

/// Where a reader of a stream begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// Behind this sequence.
    pub(crate) after: u64,
    pub(crate) outcome: ResumeOutcome,
    /// What it has lost before it begins: up to where it then goes on.
    pub(crate) lost: Option<(u64, GapReason)>,
    /// With whatever is there: what is deleted before it has begun is no loss.
    pub(crate) with_what_is_there: bool,
    /// Up to this sequence only the last event of each topic comes.
    pub(crate) last_up_to: u64,
    /// It begins with what is stored at this time, which is not yet, or later.
    pub(crate) at: Option<SystemTime>,
}

impl Beginning {
    /// Where in a stream that stands so a reader begins, with these filters, that asked for a start and says what is to be done
    /// when that is lost.
    pub(crate) async fn find(
        tokens: &TokenKey,
        stream: &Arc<dyn EventStream>,
        state: &StreamState,
        filters: &Arc<[Filter]>,
        (start, on_gap): (&Start, OnGap),
    ) -> Result<Self, StreamError> {
        Ok(match start {
            Start::New => Beginning::after(state.latest),
            Start::Earliest => Beginning::with_what_is_there(state.earliest - 1),
            Start::LastPerTopic => {
                let first = stream.last_per_topic(filters, 0, state.latest, 1).await;
                let first = first.map_err(|error| error.about(stream.name()))?;
                let after = first.first().map_or(state.latest, |sequence| sequence - 1);
                Beginning { last_up_to: state.latest, ..Beginning::after(after) }
            }
            Start::After(sequence) => resume(state, *sequence, on_gap)?,
            Start::At(time) if *time > stream.now() => Beginning { at: Some(*time), ..Beginning::after(state.latest) },
            Start::At(time) => match stream.first_at(*time).await {
                Ok(sequence) => Beginning::with_what_is_there(sequence.max(state.earliest) - 1),
                Err(ReadError::Lost { earliest, .. }) => Beginning::with_what_is_there(earliest - 1),
                Err(error) => return Err(error.about(stream.name())),
            },
            Start::Token(token) => {
                let position = tokens.open(token)?;
                if position.origin.stream != state.settings.name {
                    let problem = format!("is for stream {}", position.origin.stream);
                    return Err(StreamError::Mismatch { field: "start.resume_token", problem });
                }
                // One that is further than the stream has seen a tail that is lost: the store was put back from a copy.
                let beginning = if position.origin.epoch == state.epoch && position.sequence <= state.latest {
                    resume(state, position.sequence, on_gap)?
                } else {
                    anew(state, on_gap)?
                };
                let resumed = beginning.outcome == ResumeOutcome::Fresh;
                Beginning { outcome: if resumed { ResumeOutcome::Resumed } else { beginning.outcome }, ..beginning }
            }
        })
    }

    fn after(after: u64) -> Self {
        Self { after, outcome: ResumeOutcome::Fresh, lost: None, with_what_is_there: false, last_up_to: 0, at: None }
    }

    fn with_what_is_there(after: u64) -> Self {
        Self { with_what_is_there: true, ..Self::after(after) }
    }
}

/// Behind a sequence of the stream as it is.
fn resume(state: &StreamState, after: u64, on_gap: OnGap) -> Result<Beginning, StreamError> {
    let (earliest, latest) = (state.earliest, state.latest);
    if after > latest {
        let problem = format!("is beyond the end of the stream, which is {latest}");
        return Err(StreamError::Mismatch { field: "start.after_sequence", problem });
    }
    if after + 1 >= earliest {
        return Ok(Beginning::after(after));
    }
    let to = match on_gap {
        OnGap::Fail => {
            return Err(StreamError::Lost { stream: state.settings.name.clone(), after, earliest, latest });
        }
        OnGap::Earliest => earliest - 1,
        OnGap::Latest => latest,
    };
    let lost = Some((to, GapReason::Retention));
    Ok(Beginning { outcome: ResumeOutcome::Gap, lost, ..Beginning::after(after) })
}

/// In a stream that is not the one the position is from.
fn anew(state: &StreamState, on_gap: OnGap) -> Result<Beginning, StreamError> {
    let (earliest, latest) = (state.earliest, state.latest);
    let after = match on_gap {
        OnGap::Fail => return Err(StreamError::Epoch { stream: state.settings.name.clone(), earliest, latest }),
        OnGap::Earliest => earliest - 1,
        OnGap::Latest => latest,
    };
    Ok(Beginning { outcome: ResumeOutcome::Gap, lost: Some((after, GapReason::Epoch)), ..Beginning::after(after) })
}
