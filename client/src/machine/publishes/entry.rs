//! One call of the application, and what is known of each of its events. Pure.

use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use crate::{
    error::{Error, ErrorKind},
    machine::{news::Moment, wire},
    outcome::Published,
    proto::v1::{Durability, PublishPrecondition, PublishResult},
};

/// One call of the application.
#[derive(Debug)]
pub(crate) struct NewPublish {
    /// Each encoded.
    pub(crate) events: Vec<Bytes>,
    pub(crate) precondition: Option<PublishPrecondition>,
    /// When whoever called is told, whatever is known then.
    pub(crate) deadline: Moment,
    /// What belongs to no stream may be written again too.
    pub(crate) retry_live: bool,
}

impl NewPublish {
    pub(crate) fn amount(&self) -> Amount {
        Amount { events: self.events.len(), bytes: self.events.iter().map(wire::entry_len).sum() }
    }
}

/// A number of events, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What is known of the stream of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// The hub is asked.
    Asked,
    /// There is one, and it stores the event once, however often it is written.
    InStream,
}

#[derive(Debug)]
struct Item {
    event: Bytes,
    known: Known,
    result: Option<Result<Published, Error>>,
}

#[derive(Debug)]
// Each is true or not by itself: none follows from the others.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Entry {
    items: Vec<Item>,
    amount: Amount,
    precondition: Option<PublishPrecondition>,
    deadline: Moment,
    retry_live: bool,
    /// It is written alone: the hub refused it together with others.
    is_alone: bool,
    /// It is written in this session, and not answered.
    pub(super) is_in_flight: bool,
    /// A session was lost before it was answered.
    is_lost: bool,
    /// Whoever called was told at the deadline, and hears nothing more.
    pub(super) is_told: bool,
}

impl Entry {
    pub(super) fn new(new: NewPublish) -> Self {
        let amount = new.amount();
        let items = new.events.into_iter().map(|event| Item { event, known: Known::Nothing, result: None }).collect();
        Self {
            items,
            amount,
            precondition: new.precondition,
            deadline: new.deadline,
            retry_live: new.retry_live,
            is_alone: false,
            is_in_flight: false,
            is_lost: false,
            is_told: false,
        }
    }

    /// All of it.
    pub(super) fn amount(&self) -> Amount {
        self.amount
    }

    pub(super) fn deadline(&self) -> Moment {
        self.deadline
    }

    pub(super) fn precondition(&self) -> Option<&PublishPrecondition> {
        self.precondition.as_ref()
    }

    /// It goes alone, or with others.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone || self.precondition.is_some()
    }

    pub(super) fn set_alone(&mut self) {
        self.is_alone = true;
    }

    pub(super) fn event(&self, at: usize) -> &[u8] {
        &self.items[at].event
    }

    /// The events of which nothing is known.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Bytes> + Clone {
        self.items.iter().filter(|item| item.result.is_none()).map(|item| &item.event)
    }

    pub(super) fn pending_amount(&self) -> Amount {
        self.pending().fold(Amount::default(), |Amount { events, bytes }, event| Amount {
            events: events + 1,
            bytes: bytes + wire::entry_len(event),
        })
    }

    pub(super) fn is_complete(&self) -> bool {
        self.items.iter().all(|item| item.result.is_some())
    }

    /// Some of it may have been published, and nobody knows.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_lost || self.is_in_flight
    }

    /// The next event of which the hub is to be asked before it is written again. Not of one with a precondition: only a
    /// stream takes that.
    pub(super) fn question(&self) -> Option<usize> {
        if !self.is_lost || self.retry_live || self.precondition.is_some() {
            return None;
        }
        self.items.iter().position(|item| item.result.is_none() && item.known == Known::Nothing)
    }

    pub(super) fn ask(&mut self, at: usize) {
        self.know(at, Known::Asked);
    }

    pub(super) fn know(&mut self, at: usize, known: Known) {
        self.items[at].known = known;
    }

    pub(super) fn set(&mut self, at: usize, result: Result<Published, Error>) {
        self.items[at].result = Some(result);
    }

    /// The session is lost, and with it every answer to come.
    pub(super) fn session_lost(&mut self) {
        self.is_lost = true;
        self.is_in_flight = false;
        for item in &mut self.items {
            if item.known == Known::Asked {
                item.known = Known::Nothing;
            }
        }
    }

    /// Takes the results of what was pending. How long the hub asks to wait, if some of it is to be written again.
    pub(super) fn take_results(
        &mut self,
        results: &mut impl Iterator<Item = PublishResult>,
        renews: bool,
    ) -> Option<Duration> {
        let mut pause = None;
        for item in self.items.iter_mut().filter(|item| item.result.is_none()) {
            let result = match results.next() {
                None => Err(no_answer()),
                Some(PublishResult { status: Some(status), .. }) => Err(Error::of_message(ErrorKind::Refused, &status)),
                Some(result) => Ok(published(result)),
            };
            match result {
                Err(error) if is_transient(&error, renews) => {
                    if error.code() == Code::Unavailable {
                        // Nothing but the store of a stream is ever unavailable.
                        item.known = Known::InStream;
                    }
                    pause = pause.max(Some(error.retry_after().unwrap_or_default()));
                }
                result => item.result = Some(result),
            }
        }
        pause
    }

    /// Everything that is pending has failed.
    pub(super) fn fill(&mut self, error: &Error) {
        for item in self.items.iter_mut().filter(|item| item.result.is_none()) {
            item.result = Some(Err(error.clone()));
        }
    }

    /// The client is over.
    pub(super) fn give_up(&mut self, error: &Error) {
        let kind = if self.is_doubtful() { ErrorKind::Unknown } else { error.kind() };
        self.fill(&error.clone().into_kind(kind));
    }

    /// What whoever called is told when the deadline has passed.
    pub(super) fn results_at_deadline(&self) -> Vec<Result<Published, Error>> {
        let (kind, text) = if self.is_doubtful() {
            (ErrorKind::Unknown, "the deadline has passed, and the hub has not said what became of the event")
        } else {
            (ErrorKind::Refused, "the deadline has passed before the event could be sent: it was not published")
        };
        let error = Error::new(kind, Code::DeadlineExceeded, "DEADLINE_PASSED", text);
        let results = self.items.iter().map(|item| item.result.clone());
        results.map(|result| result.unwrap_or_else(|| Err(error.clone()))).collect()
    }

    pub(super) fn into_results(self) -> Vec<Result<Published, Error>> {
        self.items.into_iter().map(|item| item.result.unwrap_or_else(|| Err(no_answer()))).collect()
    }

    /// Whether a hub with these limits can take it.
    pub(super) fn fits(&self, max_events: usize, max_bytes: usize) -> Result<(), Error> {
        let Amount { events, bytes } = self.pending_amount();
        let precondition = self.precondition.as_ref().map_or(0, prost::Message::encoded_len);
        if events <= max_events && bytes + precondition <= max_bytes {
            return Ok(());
        }
        let text = format!(
            "{events} events of {bytes} bytes are too much for one publish: this hub takes {max_events} of {max_bytes}"
        );
        Err(Error::new(ErrorKind::Refused, Code::InvalidArgument, "EVENT_TOO_LARGE", text))
    }
}

/// What the hub says of an event that it took.
pub(super) fn published(result: PublishResult) -> Published {
    if result.stream.is_empty() {
        return Published::Live { matched: result.matched };
    }
    Published::Stored {
        durability: Durability::try_from(result.durability).unwrap_or_default(),
        stream: result.stream,
        sequence: result.sequence,
        epoch: result.epoch,
        duplicate: result.duplicate,
        matched: result.matched,
    }
}

/// Whether the same may be taken soon, on this hub or another.
pub(super) fn is_transient(error: &Error, renews: bool) -> bool {
    error.code() == Code::Unavailable || (renews && error.code() == Code::Unauthenticated)
}

/// No answer came, against the contract.
pub(super) fn no_answer() -> Error {
    Error::new(ErrorKind::Unknown, Code::Unknown, "NO_ANSWER", "the hub did not say what became of the event")
}
