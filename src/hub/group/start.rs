//! Where a group begins, and where it is moved to.

use std::{sync::Arc, time::UNIX_EPOCH};

use crate::{
    engine::{EventStream, ReadError},
    model::{Start, StreamError},
};

/// The first sequence that a group gets which begins there; and when it begins, in microseconds since 1970, if that is not yet.
pub(super) async fn sequence_at(
    stream: &Arc<dyn EventStream>,
    start: &Start,
    field: &'static str,
) -> Result<(u64, u64), StreamError> {
    let kept = stream.state().await.map_err(|error| error.about(stream.name()))?;
    let refuse = |problem: String| Err(StreamError::Mismatch { field, problem });
    match start {
        Start::New => Ok((kept.latest + 1, 0)),
        Start::Earliest => Ok((kept.earliest, 0)),
        Start::After(sequence) if *sequence > kept.latest => {
            refuse(format!("is beyond the end of the stream, which is {}", kept.latest))
        }
        Start::After(sequence) => Ok((sequence + 1, 0)),
        // What comes until then is nothing for it.
        Start::At(time) if *time > stream.now() => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok((kept.latest + 1, u64::try_from(since.as_micros()).unwrap_or(u64::MAX)))
        }
        Start::At(time) => match stream.first_at(*time).await {
            Ok(sequence) => Ok((sequence.max(kept.earliest), 0)),
            Err(ReadError::Lost { earliest, .. }) => Ok((earliest, 0)),
            Err(error) => Err(error.about(stream.name())),
        },
        Start::LastPerTopic => refuse("of a group cannot be the last event of every topic".to_owned()),
        Start::Token(_) => refuse("of a group cannot be a resume token".to_owned()),
    }
}
