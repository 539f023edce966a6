//! Calls to publish: from their options to the hub's answer.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout_at};
use tonic::Code;

use crate::{
    error::{Error, ErrorKind},
    machine::{
        news::Moment,
        publishes::{Care, NewPublish},
        wire::Encoded,
    },
    outcome::{Published, Receipt},
    proto::v1::{PublishPrecondition, publish_precondition::Condition},
    shared::{Owner, Shared},
    telemetry::Sending,
};

/// How long a publish is tried, unless told otherwise. Shorter than the dedupe window of a stream that has the default.
const DEADLINE: Duration = Duration::from_secs(30);

/// An event to be published. Await it for what became of it.
#[must_use = "nothing is published until this is awaited"]
pub struct Publish<'a>(PublishAll<'a>);

/// Events to be published in one call. Await it for what became of each.
#[must_use = "nothing is published until this is awaited"]
pub struct PublishAll<'a> {
    owner: &'a Arc<Owner>,
    events: Encoded,
    deadline: Duration,
    precondition: Option<PublishPrecondition>,
    retry_live: bool,
    sending: Sending,
}

/// An event that is in the queue. Await it for what became of it; to drop it takes nothing back.
#[derive(Debug)]
pub struct Publishing(PublishingAll);

/// Events that are in the queue. Await it for what became of each, in their order.
#[derive(Debug)]
pub struct PublishingAll {
    answer: oneshot::Receiver<Receipt>,
    count: usize,
    sending: Sending,
    /// The client is not over as long as somebody waits for this.
    _owner: Arc<Owner>,
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publish")
    }
}

impl fmt::Debug for PublishAll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishAll").field("events", &self.events.events()).finish_non_exhaustive()
    }
}

impl<'a> Publish<'a> {
    pub(crate) fn new(owner: &'a Arc<Owner>, event: Encoded, sending: Sending) -> Self {
        Self(PublishAll::new(owner, event, sending))
    }

    /// How long to try, waiting for room in the queue included: 30 seconds unless this is called. It must be shorter than the
    /// dedupe window of the stream, or a late try could store the event twice.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self(self.0.deadline(deadline))
    }

    /// Tries again even if no stream holds the topic and the event may have been delivered: then it can come twice.
    pub fn retry_live(self) -> Self {
        Self(self.0.retry_live())
    }

    /// Only if this is the latest sequence of the stream; 0 if nothing was ever stored in it.
    pub fn if_last_sequence(self, sequence: i64) -> Self {
        Self(self.0.if_last_sequence(sequence))
    }

    /// Only if this is the latest sequence of the topic in its stream; 0 if the stream has no event of it.
    pub fn if_last_topic_sequence(self, sequence: i64) -> Self {
        Self(self.0.if_last_topic_sequence(sequence))
    }

    /// Waits for room in the queue alone, and not for the answer: for publishers that have much under way. The order of these
    /// calls is the order of their events.
    pub async fn queued(self) -> Result<Publishing, Error> {
        self.0.queued().await.map(Publishing)
    }

    pub(crate) fn try_queue(self) -> Result<Publishing, Error> {
        let owner = self.0.owner;
        let (new, _, sending) = self.0.into_parts();
        let answer = owner.shared().publish(new).and_then(|taken| {
            let text = "the queue of publishes is full";
            taken.map_err(|_| Error::new(ErrorKind::Refused, Code::ResourceExhausted, "QUEUE_FULL", text))
        });
        PublishingAll::begin(answer, 1, sending, Arc::clone(owner)).map(Publishing)
    }
}

impl<'a> PublishAll<'a> {
    pub(crate) fn new(owner: &'a Arc<Owner>, events: Encoded, sending: Sending) -> Self {
        Self { owner, events, deadline: DEADLINE, precondition: None, retry_live: false, sending }
    }

    /// As [`Publish::deadline`].
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// As [`Publish::retry_live`].
    pub fn retry_live(self) -> Self {
        Self { retry_live: true, ..self }
    }

    /// As [`Publish::if_last_sequence`]: all of the events or none.
    pub fn if_last_sequence(self, sequence: i64) -> Self {
        self.only_if(Condition::LastSequence(sequence))
    }

    /// As [`Publish::if_last_topic_sequence`]: all of the events or none, and all of one topic.
    pub fn if_last_topic_sequence(self, sequence: i64) -> Self {
        self.only_if(Condition::LastTopicSequence(sequence))
    }

    fn only_if(self, condition: Condition) -> Self {
        Self { precondition: Some(PublishPrecondition { condition: Some(condition) }), ..self }
    }

    /// As [`Publish::queued`].
    pub async fn queued(self) -> Result<PublishingAll, Error> {
        let (owner, count) = (Arc::clone(self.owner), self.events.events());
        let (new, deadline, sending) = self.into_parts();
        let until = owner.shared().at(deadline);
        let queued = timeout_at(until, queue(owner.shared(), new, Shared::publish)).await.unwrap_or_else(|_| {
            let text = "the queue of publishes was full until the deadline: the event was not published";
            Err(Error::new(ErrorKind::Refused, Code::DeadlineExceeded, "DEADLINE_PASSED", text))
        });
        PublishingAll::begin(queued, count, sending, owner)
    }

    fn into_parts(self) -> (NewPublish, Moment, Sending) {
        let deadline = self.owner.shared().now().saturating_add(self.deadline);
        let care = Care::Until { deadline, retry_live: self.retry_live };
        (NewPublish { events: self.events, precondition: self.precondition, care }, deadline, self.sending)
    }
}

/// Takes a call into the queue with `put`, which gives it back where there is no room: then waits for room.
async fn queue<T>(
    shared: &Shared,
    mut new: NewPublish,
    put: impl Fn(&Shared, NewPublish) -> Result<Result<T, NewPublish>, Error>,
) -> Result<T, Error> {
    if new.events.events() == 0 {
        return Err(Error::invalid("events", "are missing"));
    }
    // In the order of the calls, and nobody is passed over because others need less room.
    let _turn = shared.turnstile.acquire().await;
    loop {
        let room = shared.room.notified();
        match put(shared, new)? {
            Ok(queued) => return Ok(queued),
            Err(full) => new = full,
        }
        room.await;
    }
}

/// Sends events that nobody answers: takes them into the queue.
pub(crate) async fn send(owner: Arc<Owner>, events: Encoded, mut sending: Sending) -> Result<(), Error> {
    let new = NewPublish { events, precondition: None, care: Care::Sent };
    let sent = queue(owner.shared(), new, Shared::send).await;
    match &sent {
        Ok(()) => sending.queued(),
        Err(error) => sending.failed(error),
    }
    sent
}

impl PublishingAll {
    /// Its events are in the queue, or were not taken.
    fn begin(
        queued: Result<oneshot::Receiver<Receipt>, Error>,
        count: usize,
        mut sending: Sending,
        owner: Arc<Owner>,
    ) -> Result<Self, Error> {
        match queued {
            Ok(answer) => {
                sending.queued();
                Ok(Self { answer, count, sending, _owner: owner })
            }
            Err(error) => {
                sending.failed(&error);
                Err(error)
            }
        }
    }
}

impl<'a> IntoFuture for Publish<'a> {
    type Output = Result<Published, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.queued().await?.await })
    }
}

impl<'a> IntoFuture for PublishAll<'a> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.queued().await?.await) })
    }
}

impl Future for Publishing {
    type Output = Result<Published, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let receipt = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(receipt.into_iter().next().unwrap_or_else(|| Err(gone())))
    }
}

impl Future for PublishingAll {
    type Output = Receipt;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        let receipt = answer.unwrap_or_else(|_| Receipt::each(vec![Err(gone()); self.count]));
        self.sending.answered(&receipt);
        Poll::Ready(receipt)
    }
}

/// Nobody is left to say what became of it.
fn gone() -> Error {
    Error::closed().into_kind(ErrorKind::Unknown)
}
