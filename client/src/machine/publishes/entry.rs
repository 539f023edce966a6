//! One call of the application, and what is known of each of its events. Pure.
//!
//! A call is one piece of bytes for as long as all of its events are alike: that is nearly always. It is taken apart when
//! something is known of some of them and not of others.

use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use crate::{
    error::{Error, ErrorKind},
    machine::{
        news::Moment,
        wire::{self, Encoded, Piece, Results},
    },
    outcome::{Published, Receipt},
    proto::v1::{PublishPrecondition, PublishResult},
};

/// One call of the application.
#[derive(Debug)]
pub(crate) struct NewPublish {
    pub(crate) events: Encoded,
    pub(crate) precondition: Option<PublishPrecondition>,
    pub(crate) care: Care,
}

/// How much a call is cared for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Care {
    /// The hub answers, and what is not answered is written again until this time, when whoever called is told.
    Until {
        deadline: Moment,
        /// What belongs to no stream may be written again too.
        retry_live: bool,
    },
    /// Nobody answers. It is written once.
    Sent,
}

impl NewPublish {
    pub(crate) fn amount(&self) -> Amount {
        Amount { events: self.events.events(), bytes: self.events.len() }
    }
}

/// A number of events, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

impl Amount {
    pub(crate) fn add(&mut self, more: Self) {
        self.events += more.events;
        self.bytes += more.bytes;
    }

    pub(crate) fn take(&mut self, less: Self) {
        self.events -= less.events;
        self.bytes -= less.bytes;
    }
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

/// A call of which all events are alike.
#[derive(Debug)]
enum Whole {
    /// As it was encoded, with room for the head of a frame.
    New(Encoded),
    /// As it is in a frame.
    Written(Bytes),
    /// All of its events were published.
    Taken(Results),
    /// They are not: it is taken apart.
    Apart,
}

#[derive(Debug)]
// Each is true or not by itself: none follows from the others.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Entry {
    whole: Whole,
    /// Each of its events, once it is taken apart.
    items: Vec<Item>,
    amount: Amount,
    precondition: Option<PublishPrecondition>,
    pub(super) care: Care,
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
        Self {
            amount: new.amount(),
            whole: Whole::New(new.events),
            items: Vec::new(),
            precondition: new.precondition,
            care: new.care,
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

    /// Until when it is tried.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.care {
            Care::Until { deadline, .. } => Some(deadline),
            Care::Sent => None,
        }
    }

    /// Nobody answers, or wants to know.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.care, Care::Sent)
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

    /// All of it as the frame of this request, made where it is, if it was not written before.
    pub(super) fn take_frame(&mut self, request: i64) -> Option<Bytes> {
        let Whole::New(events) = &mut self.whole else { return None };
        let (frame, events) = std::mem::take(events).into_frame(request, self.precondition.as_ref());
        self.whole = Whole::Written(events);
        Some(frame)
    }

    /// It is written together with others: it is not a frame of its own.
    pub(super) fn settle_bytes(&mut self) {
        if let Whole::New(events) = &mut self.whole {
            self.whole = Whole::Written(std::mem::take(events).into_events());
        }
    }

    /// What of it is pending.
    pub(super) fn pending(&self) -> impl Iterator<Item = Piece<'_>> + Clone {
        let whole = match &self.whole {
            Whole::Written(events) => Some(Piece::Events(events)),
            Whole::New(_) | Whole::Taken(_) | Whole::Apart => None,
        };
        let items = self.items.iter().filter(|item| item.result.is_none());
        whole.into_iter().chain(items.map(|item| Piece::Event(&item.event)))
    }

    pub(super) fn pending_amount(&self) -> Amount {
        match self.whole {
            Whole::New(_) | Whole::Written(_) => self.amount,
            Whole::Taken(_) => Amount::default(),
            Whole::Apart => {
                let items = self.items.iter().filter(|item| item.result.is_none());
                items.fold(Amount::default(), |mut sum, item| {
                    sum.add(Amount { events: 1, bytes: wire::entry_len(&item.event) });
                    sum
                })
            }
        }
    }

    /// Takes it apart.
    fn items(&mut self) -> &mut Vec<Item> {
        let events = match std::mem::replace(&mut self.whole, Whole::Apart) {
            Whole::New(events) => events.into_events(),
            Whole::Written(events) => events,
            // All is said of these.
            Whole::Taken(_) | Whole::Apart => return &mut self.items,
        };
        let items = wire::split(&events).into_iter();
        self.items = items.map(|event| Item { event, known: Known::Nothing, result: None }).collect();
        &mut self.items
    }

    /// Takes off the first events, as many as fit into these limits. None if not even the first one does.
    pub(super) fn take_first(&mut self, most: Amount) -> Vec<Bytes> {
        let mut sum = Amount::default();
        let fits = self.items().iter().take_while(|item| {
            sum.add(Amount { events: 1, bytes: wire::entry_len(&item.event) });
            sum.events <= most.events && sum.bytes <= most.bytes
        });
        let count = fits.count();
        self.drop_first(count)
    }

    /// Takes off the first events.
    pub(super) fn drop_first(&mut self, count: usize) -> Vec<Bytes> {
        let count = count.min(self.items().len());
        self.items.drain(..count).map(|item| item.event).collect()
    }

    /// An event of a call that is taken apart.
    pub(super) fn event(&self, at: usize) -> &[u8] {
        self.items.get(at).map_or(&[], |item| &item.event)
    }

    pub(super) fn is_complete(&self) -> bool {
        match self.whole {
            Whole::New(_) | Whole::Written(_) => false,
            Whole::Taken(_) => true,
            Whole::Apart => self.items.iter().all(|item| item.result.is_some()),
        }
    }

    /// Some of it may have been published, and nobody knows.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_lost || self.is_in_flight
    }

    /// The next event of which the hub is to be asked before it is written again. Not of one with a precondition: only a
    /// stream takes that.
    pub(super) fn question(&self) -> Option<usize> {
        let asks = matches!(self.care, Care::Until { retry_live: false, .. });
        if !self.is_lost || !asks || self.precondition.is_some() {
            return None;
        }
        match self.whole {
            Whole::New(_) | Whole::Written(_) => Some(0).filter(|_| self.amount.events > 0),
            Whole::Taken(_) => None,
            Whole::Apart => self.items.iter().position(|item| item.result.is_none() && item.known == Known::Nothing),
        }
    }

    pub(super) fn ask(&mut self, at: usize) {
        self.know(at, Known::Asked);
    }

    pub(super) fn know(&mut self, at: usize, known: Known) {
        if let Some(item) = self.items().get_mut(at) {
            item.known = known;
        }
    }

    pub(super) fn set(&mut self, at: usize, result: Result<Published, Error>) {
        if let Some(item) = self.items().get_mut(at) {
            item.result = Some(result);
        }
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

    /// All that was pending is published: takes the results of that.
    pub(super) fn take_all(&mut self, results: &mut Results) {
        let pending = self.pending_amount().events;
        let results = results.take(pending);
        if results.count == pending && !matches!(self.whole, Whole::Apart) {
            self.whole = Whole::Taken(results);
        } else {
            self.take_results(&mut results.iter(), false);
        }
    }

    /// Takes the results of what was pending. How long the hub asks to wait, if some of it is to be written again.
    pub(super) fn take_results(
        &mut self,
        results: &mut impl Iterator<Item = PublishResult>,
        renews: bool,
    ) -> Option<Duration> {
        let mut pause = None;
        for item in self.items().iter_mut().filter(|item| item.result.is_none()) {
            let result = match results.next() {
                None => Err(no_answer()),
                Some(PublishResult { status: Some(status), .. }) => Err(Error::of_message(ErrorKind::Refused, &status)),
                Some(result) => Ok(result.into()),
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
        for item in self.items().iter_mut().filter(|item| item.result.is_none()) {
            item.result = Some(Err(error.clone()));
        }
    }

    /// The client is over.
    pub(super) fn give_up(&mut self, error: &Error) {
        let kind = if self.is_doubtful() { ErrorKind::Unknown } else { error.kind() };
        self.fill(&error.clone().into_kind(kind));
    }

    /// What whoever called is told when the deadline has passed.
    pub(super) fn results_at_deadline(&mut self) -> Receipt {
        let (kind, text) = if self.is_doubtful() {
            (ErrorKind::Unknown, "the deadline has passed, and the hub has not said what became of the event")
        } else {
            (ErrorKind::Refused, "the deadline has passed before the event could be sent: it was not published")
        };
        let error = Error::new(kind, Code::DeadlineExceeded, "DEADLINE_PASSED", text);
        let results = self.items().iter().map(|item| item.result.clone());
        Receipt::each(results.map(|result| result.unwrap_or_else(|| Err(error.clone()))).collect())
    }

    pub(super) fn into_receipt(mut self) -> Receipt {
        if let Whole::Taken(results) = self.whole {
            return Receipt::taken(results);
        }
        self.items();
        let results = self.items.into_iter().map(|item| item.result.unwrap_or_else(|| Err(no_answer())));
        Receipt::each(results.collect())
    }

    /// Whether a hub with these limits can take it.
    pub(super) fn fits(&self, most: Amount) -> Result<(), Error> {
        let Amount { events, bytes } = self.pending_amount();
        let precondition = self.precondition.as_ref().map_or(0, prost::Message::encoded_len);
        if events <= most.events && bytes + precondition <= most.bytes {
            return Ok(());
        }
        let text = format!(
            "{events} events of {bytes} bytes are too much for one publish: this hub takes {} of {}",
            most.events, most.bytes
        );
        Err(Error::new(ErrorKind::Refused, Code::InvalidArgument, "EVENT_TOO_LARGE", text))
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
