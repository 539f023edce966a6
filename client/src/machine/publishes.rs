//! What is to be published: a queue with a limit, from the call of the application to the hub's answer for every event. Pure.
//!
//! Order is that of the calls, over all sessions: what a lost session left unanswered is written first, in order. Every
//! event has its id by now, so that a stream stores it once. What belongs to no stream could be delivered twice. Whether it
//! does is not known here, so the hub is asked before anything doubtful is written again: a publish with a precondition that
//! never holds is a duplicate if the stream has the event, a mismatch if it does not, and refused where there is no stream.

mod entry;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tonic::Code;

pub(crate) use self::entry::{Amount, NewPublish};
use self::entry::{Entry, Known, is_transient, no_answer};
use super::{
    news::{Moment, News},
    requests::{Asked, Requests},
    wire,
};
use crate::{
    backoff::Backoff,
    error::{Error, ErrorKind},
    proto::v1::{
        self, Event, Limits, PublishPrecondition, PublishRequest, PublishResponse, publish_precondition::Condition,
        session_request::Command,
    },
};

/// Publishes that were written and are not answered: with more, those that wait go together.
const MOST_REQUESTS: usize = 64;
/// Calls that are written together have at most this many events,
const MOST_TOGETHER: usize = 500;
/// and this many bytes.
const MOST_BYTES_TOGETHER: usize = 512 * 1024;
/// What a frame has besides its events, in bytes.
const FRAME_OVERHEAD: usize = 64;
/// The limits of a hub that does not say.
const DEFAULT_FRAME_BYTES: usize = 4 * 1024 * 1024;
const DEFAULT_EVENTS: usize = 10_000;
/// How long to wait before what a hub could not take is written again: at first,
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// and in the end.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What was written and is not answered.
#[derive(Debug)]
enum Sent {
    /// What was left of these calls.
    Calls(Vec<u64>),
    /// Whether the stream has this event of a call.
    Question(u64, usize),
}

/// All calls that are not answered.
#[derive(Debug)]
pub(crate) struct Publishes {
    most: Amount,
    held: Amount,
    all: BTreeMap<u64, Entry>,
    /// What is to be written, in order.
    queue: BTreeSet<u64>,
    /// Calls of which the hub was asked something, and how many questions it has not answered.
    questions: BTreeMap<u64, usize>,
    sent: HashMap<i64, Sent>,
    deadlines: BTreeSet<(Moment, u64)>,
    next: u64,
    /// Nothing is written before this.
    not_before: Moment,
    backoff: Backoff,
    /// The session is to end: nothing new is written.
    is_quiet: bool,
    /// A fresh token may help.
    renews: bool,
    max_frame_bytes: usize,
    max_events: usize,
}

impl Publishes {
    pub(crate) fn new(most: Amount, renews: bool, seed: u64) -> Self {
        Self {
            most,
            held: Amount::default(),
            all: BTreeMap::new(),
            queue: BTreeSet::new(),
            questions: BTreeMap::new(),
            sent: HashMap::new(),
            deadlines: BTreeSet::new(),
            next: 1,
            not_before: Moment::ZERO,
            backoff: Backoff::new(SHORTEST_WAIT, LONGEST_WAIT).with_seed(seed),
            is_quiet: false,
            renews,
            max_frame_bytes: DEFAULT_FRAME_BYTES,
            max_events: DEFAULT_EVENTS,
        }
    }

    /// Whether so much can ever wait.
    pub(crate) fn fits(&self, amount: Amount) -> bool {
        amount.events <= self.most.events && amount.bytes <= self.most.bytes
    }

    /// Whether so much can wait now.
    pub(crate) fn has_room(&self, amount: Amount) -> bool {
        self.held.events + amount.events <= self.most.events && self.held.bytes + amount.bytes <= self.most.bytes
    }

    /// Takes a call into the queue, where there is room for it. Its ticket comes back with the results.
    pub(crate) fn add(&mut self, new: NewPublish) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.deadlines.insert((new.deadline, ticket));
        let entry = Entry::new(new);
        self.held.events += entry.amount().events;
        self.held.bytes += entry.amount().bytes;
        self.all.insert(ticket, entry);
        self.queue.insert(ticket);
        ticket
    }

    // Sessions.

    pub(crate) fn session_begins(&mut self, limits: Option<&Limits>) {
        let limit = |value: Option<i64>, default: usize| {
            value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        self.max_frame_bytes = limit(limits.map(|limits| limits.max_frame_bytes), DEFAULT_FRAME_BYTES);
        self.max_events = limit(limits.map(|limits| limits.max_publish_events.into()), DEFAULT_EVENTS);
        self.is_quiet = false;
    }

    /// What was written and not answered is doubtful, and to be written first in the next session.
    pub(crate) fn session_lost(&mut self, news: &mut VecDeque<News>) {
        let mut again: BTreeSet<u64> = std::mem::take(&mut self.questions).into_keys().collect();
        for (_, sent) in self.sent.drain() {
            match sent {
                Sent::Calls(tickets) => again.extend(tickets),
                Sent::Question(ticket, _) => {
                    again.insert(ticket);
                }
            }
        }
        self.not_before = Moment::ZERO;
        self.is_quiet = false;
        for ticket in again {
            let Some(entry) = self.all.get_mut(&ticket) else { continue };
            entry.session_lost();
            self.queue_again(ticket, news);
        }
    }

    /// While the session is to end, nothing new is written.
    pub(crate) fn be_quiet(&mut self, is_quiet: bool) {
        self.is_quiet = is_quiet;
    }

    /// Nothing is unanswered.
    pub(crate) fn is_quiet(&self) -> bool {
        self.sent.is_empty()
    }

    // What is written.

    /// Something is to be written now.
    pub(crate) fn has_writes(&self, now: Moment) -> bool {
        let Some(first) = self.queue.first().and_then(|ticket| self.all.get(ticket)) else { return false };
        let waits = self.is_quiet || now < self.not_before || self.sent.len() >= MOST_REQUESTS;
        !waits && (first.question().is_some() || self.questions.is_empty())
    }

    /// The next frame, if there is one.
    pub(crate) fn write(&mut self, now: Moment, requests: &mut Requests, news: &mut VecDeque<News>) -> Option<Bytes> {
        while self.has_writes(now) {
            let first = *self.queue.first()?;
            let entry = self.all.get_mut(&first)?;
            if let Some(at) = entry.question() {
                return Some(self.ask(first, at, requests));
            }
            if let Err(error) = entry.fits(self.max_events, self.max_frame_bytes.saturating_sub(FRAME_OVERHEAD)) {
                entry.fill(&error);
                self.finish(first, news);
                continue;
            }
            return Some(self.write_calls(requests));
        }
        None
    }

    /// Asks whether the stream has an event, by all that it knows an event by.
    fn ask(&mut self, ticket: u64, at: usize, requests: &mut Requests) -> Bytes {
        let request = requests.open(Asked::Publish);
        self.sent.insert(request, Sent::Question(ticket, at));
        *self.questions.entry(ticket).or_default() += 1;
        let mut event = Event::default();
        if let Some(entry) = self.all.get_mut(&ticket) {
            entry.ask(at);
            if entry.question().is_none() {
                self.queue.remove(&ticket);
            }
            // What was encoded here decodes here.
            let Event { topic, source, id, .. } = Event::decode(entry.event(at)).unwrap_or_default();
            event = Event { topic, source, id, ..event };
        }
        let never = PublishPrecondition { condition: Some(Condition::LastSequence(i64::MAX)) };
        let publish = PublishRequest { events: vec![event], precondition: Some(never) };
        wire::command(request, Command::Publish(publish))
    }

    /// Writes what is first, and what may go with it.
    fn write_calls(&mut self, requests: &mut Requests) -> Bytes {
        let (mut tickets, mut sum) = (Vec::new(), Amount::default());
        let most_events = MOST_TOGETHER.min(self.max_events);
        let most_bytes = MOST_BYTES_TOGETHER.min(self.max_frame_bytes.saturating_sub(FRAME_OVERHEAD));
        for ticket in &self.queue {
            let Some(entry) = self.all.get(ticket) else { continue };
            let Amount { events, bytes } = entry.pending_amount();
            let fits = sum.events + events <= most_events && sum.bytes + bytes <= most_bytes;
            if !tickets.is_empty() && (!fits || entry.is_alone() || entry.question().is_some()) {
                break;
            }
            tickets.push(*ticket);
            sum.events += events;
            sum.bytes += bytes;
            if entry.is_alone() {
                break;
            }
        }
        let request = requests.open(Asked::Publish);
        let entries: Vec<&Entry> = tickets.iter().filter_map(|ticket| self.all.get(ticket)).collect();
        let precondition = entries.first().and_then(|entry| entry.precondition());
        let frame = wire::publish(request, entries.iter().flat_map(|entry| entry.pending()), precondition);
        for ticket in &tickets {
            self.queue.remove(ticket);
            if let Some(entry) = self.all.get_mut(ticket) {
                entry.is_in_flight = true;
            }
        }
        self.sent.insert(request, Sent::Calls(tickets));
        frame
    }

    // What comes.

    /// The hub has answered a publish.
    pub(crate) fn answered(&mut self, now: Moment, request: i64, response: PublishResponse, news: &mut VecDeque<News>) {
        let mut results = response.results.into_iter();
        match self.sent.remove(&request) {
            Some(Sent::Calls(tickets)) => {
                let mut pause = None;
                for ticket in tickets {
                    let Some(entry) = self.all.get_mut(&ticket) else { continue };
                    entry.is_in_flight = false;
                    pause = pause.max(entry.take_results(&mut results, self.renews));
                    self.queue_again(ticket, news);
                }
                match pause {
                    Some(told) => self.pause(now, told),
                    None => self.backoff.reset(),
                }
            }
            Some(Sent::Question(ticket, at)) => {
                let answer = match results.next() {
                    Some(v1::PublishResult { status: Some(status), .. }) => {
                        Err(Error::of_message(ErrorKind::Refused, &status))
                    }
                    Some(result) => Ok(result),
                    None => Err(no_answer()),
                };
                self.learned(now, (ticket, at), answer, news);
            }
            None => {}
        }
    }

    /// The hub refused a publish as a whole: nothing of it was done.
    pub(crate) fn refused(&mut self, now: Moment, request: i64, error: &Error, news: &mut VecDeque<News>) {
        match self.sent.remove(&request) {
            Some(Sent::Calls(tickets)) => {
                let again = is_transient(error, self.renews);
                let together = tickets.len() > 1;
                for ticket in tickets {
                    let Some(entry) = self.all.get_mut(&ticket) else { continue };
                    entry.is_in_flight = false;
                    if !again && together {
                        // One of them may be the cause.
                        entry.set_alone();
                    } else if !again {
                        entry.fill(error);
                    }
                    self.queue_again(ticket, news);
                }
                if again {
                    self.pause(now, error.retry_after().unwrap_or_default());
                }
            }
            Some(Sent::Question(ticket, at)) => self.learned(now, (ticket, at), Err(error.clone()), news),
            None => {}
        }
    }

    /// The answer to a question.
    fn learned(
        &mut self,
        now: Moment,
        (ticket, at): (u64, usize),
        answer: Result<v1::PublishResult, Error>,
        news: &mut VecDeque<News>,
    ) {
        if let Some(count) = self.questions.get_mut(&ticket) {
            *count -= 1;
            if *count == 0 {
                self.questions.remove(&ticket);
            }
        }
        let Some(entry) = self.all.get_mut(&ticket) else { return };
        match answer {
            Ok(result) => entry.set(at, Ok(entry::published(result))),
            Err(error) if error.reason() == "SEQUENCE_MISMATCH" => entry.know(at, Known::InStream),
            Err(error) if error.reason() == "CONFIG_MISMATCH" => entry.set(at, Err(no_stream())),
            Err(error) if is_transient(&error, self.renews) => {
                entry.know(at, Known::Nothing);
                self.pause(now, error.retry_after().unwrap_or_default());
            }
            Err(error) => entry.set(at, Err(error.into_kind(ErrorKind::Unknown))),
        }
        if !self.questions.contains_key(&ticket) {
            self.queue_again(ticket, news);
        }
    }

    /// What is left of a call is to be written again; or it is finished.
    fn queue_again(&mut self, ticket: u64, news: &mut VecDeque<News>) {
        let Some(entry) = self.all.get(&ticket) else { return };
        if entry.is_told || entry.is_complete() {
            self.finish(ticket, news);
        } else {
            self.queue.insert(ticket);
        }
    }

    fn pause(&mut self, now: Moment, told: Duration) {
        self.not_before = self.not_before.max(now + told.max(self.backoff.next()));
    }

    // Time.

    /// When something is to be done although nothing comes.
    pub(crate) fn due(&self, now: Moment) -> Option<Moment> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let write = Some(self.not_before).filter(|at| *at > now && !self.queue.is_empty());
        [deadline, write].into_iter().flatten().min()
    }

    /// Tells those whose deadline has passed.
    pub(crate) fn tick(&mut self, now: Moment, news: &mut VecDeque<News>) {
        while let Some((at, ticket)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.remove(&(at, ticket));
            let Some(entry) = self.all.get_mut(&ticket) else { continue };
            let results = entry.results_at_deadline();
            let is_open = entry.is_in_flight || self.questions.contains_key(&ticket);
            entry.is_told = true;
            news.push_back(News::Published(ticket, results));
            if !is_open {
                self.finish(ticket, news);
            }
        }
    }

    fn finish(&mut self, ticket: u64, news: &mut VecDeque<News>) {
        self.queue.remove(&ticket);
        let Some(entry) = self.all.remove(&ticket) else { return };
        self.deadlines.remove(&(entry.deadline(), ticket));
        self.held.events -= entry.amount().events;
        self.held.bytes -= entry.amount().bytes;
        if !entry.is_told {
            news.push_back(News::Published(ticket, entry.into_results()));
        }
        news.push_back(News::Room);
    }

    /// The client is over: what was never written is not done, and of the rest nobody knows.
    pub(crate) fn give_up(&mut self, error: &Error, news: &mut VecDeque<News>) {
        for ticket in self.all.keys().copied().collect::<Vec<_>>() {
            if let Some(entry) = self.all.get_mut(&ticket) {
                entry.give_up(error);
            }
            self.finish(ticket, news);
        }
        self.sent.clear();
        self.questions.clear();
    }

    // What others ask.

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn held(&self) -> Amount {
        self.held
    }

    /// How many events may have been published, and were not answered; and how many were certainly not.
    pub(crate) fn left(&self) -> (usize, usize) {
        self.all.values().filter(|entry| !entry.is_told).fold((0, 0), |(unknown, unsent), entry| {
            let events = entry.pending_amount().events;
            if entry.is_doubtful() { (unknown + events, unsent) } else { (unknown, unsent + events) }
        })
    }
}

/// Why an event is not written again.
fn no_stream() -> Error {
    let text = "the session was lost before the answer came, and no stream holds the topic: published again, the event \
        could be delivered twice";
    Error::new(ErrorKind::Unknown, Code::Unknown, "NO_STREAM", text)
}
