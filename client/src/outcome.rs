//! What became of events that were published. Pure.

use std::fmt;

use crate::{
    error::Error,
    machine::wire::Results,
    proto::v1::{Durability, PublishResult},
};

/// An event was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// A stream has it.
    #[non_exhaustive]
    Stored {
        /// Which stream.
        stream: String,
        /// Its sequence there.
        sequence: i64,
        /// The epoch of the stream.
        epoch: i64,
        /// The stream had it already: from an earlier try, or from another event with the same topic, source and id.
        duplicate: bool,
        /// What the stream promises.
        durability: Durability,
        /// How many live subscriptions of that hub got it too; a group counts as one.
        matched: i64,
    },
    /// No stream holds its topic. It went to live subscriptions.
    #[non_exhaustive]
    Live {
        /// How many got it on that hub; a group counts as one.
        matched: i64,
    },
}

impl Published {
    /// Its sequence, if a stream has it.
    pub fn sequence(&self) -> Option<i64> {
        match self {
            Self::Stored { sequence, .. } => Some(*sequence),
            Self::Live { .. } => None,
        }
    }

    /// True when a stream had it already.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Stored { duplicate: true, .. })
    }
}

impl From<PublishResult> for Published {
    fn from(result: PublishResult) -> Self {
        if result.stream.is_empty() {
            return Self::Live { matched: result.matched };
        }
        Self::Stored {
            durability: Durability::try_from(result.durability).unwrap_or_default(),
            stream: result.stream,
            sequence: result.sequence,
            epoch: result.epoch,
            duplicate: result.duplicate,
            matched: result.matched,
        }
    }
}

/// What became of the events of one call, in their order.
///
/// ```
/// # async fn publish(hub: switchyard_client::Client) -> Result<(), switchyard_client::Error> {
/// use switchyard_client::Event;
///
/// let readings = ["21.5", "21.7"].map(|reading| Event::new("rooms.7").text(reading));
/// let receipt = hub.publish_all(readings).await?;
/// println!("{} events", receipt.len());
/// receipt.all()?; // All of them were published.
/// for published in receipt {
///     println!("{:?}", published?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Receipt(Outcomes);

#[derive(Clone)]
enum Outcomes {
    /// All were published: the hub's results, which are read when somebody asks.
    Taken(Results),
    Each(Vec<Result<Published, Error>>),
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl Receipt {
    pub(crate) fn taken(results: Results) -> Self {
        Self(Outcomes::Taken(results))
    }

    pub(crate) fn each(results: Vec<Result<Published, Error>>) -> Self {
        Self(Outcomes::Each(results))
    }

    /// How many events there were.
    pub fn len(&self) -> usize {
        match &self.0 {
            Outcomes::Taken(results) => results.count,
            Outcomes::Each(results) => results.len(),
        }
    }

    /// True when there were none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all of them were published: otherwise the first error.
    pub fn all(&self) -> Result<(), Error> {
        self.errors().next().cloned().map_or(Ok(()), Err)
    }

    /// Why some of them were not published, or nobody knows.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        let each = match &self.0 {
            Outcomes::Taken(_) => &[][..],
            Outcomes::Each(results) => results,
        };
        each.iter().filter_map(|result| result.as_ref().err())
    }
}

impl IntoIterator for Receipt {
    type Item = Result<Published, Error>;
    type IntoIter = Outcome;

    fn into_iter(self) -> Outcome {
        let results = match self.0 {
            Outcomes::Taken(results) => results.iter().map(|result| Ok(result.into())).collect(),
            Outcomes::Each(results) => results,
        };
        Outcome(results.into_iter())
    }
}

/// What became of each event of a call.
#[derive(Debug)]
pub struct Outcome(std::vec::IntoIter<Result<Published, Error>>);

impl Iterator for Outcome {
    type Item = Result<Published, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Outcome {}
