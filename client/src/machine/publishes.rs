//! What is to be published: a queue with a limit, from the call of the application to the hub's answer for every event. Pure.
//!
//! Order is that of the calls, over all sessions: what a lost session left unanswered is written first, in order. Every
//! event has its id by now, so that a stream stores it once. What belongs to no stream could be delivered twice. Whether it
//! does is not known here, so the hub is asked before anything doubtful is written again: a publish with a precondition that
//! never holds is a duplicate if the stream has the event, a mismatch if it does not, and refused where there is no stream.
//!
//! What is only sent stands in the same queue, and leaves it when it is written: it has no id, and is never written again.

mod entry;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tonic::Code;

pub(crate) use self::entry::{Amount, Care, NewPublish};
use self::entry::{Entry, Known, is_transient, no_answer};
use super::{
    news::{Moment, News},
    requests::{Asked, Requests},
    wire::{self, Piece, Results},
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
/// and this many bytes,
const MOST_BYTES_TOGETHER: usize = 512 * 1024;
/// unless one of them has so many: it is a frame of its own as it is, and need not be copied into one.
pub(crate) const ENOUGH_BYTES: usize = 4 * 1024;
/// What a frame has besides its events, in bytes.
const FRAME_OVERHEAD: usize = 64;
/// The limits of a hub that does not say.
const DEFAULT_FRAME_BYTES: usize = 4 * 1024 * 1024;
const DEFAULT_EVENTS: usize = 10_000;
/// How long to wait before what a hub could not take is written again: at first,
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// and in the end.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Refusals of what was only sent are told of this often; in between they are only counted.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(1);

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
    /// What a frame may have.
    most_in_frame: Amount,
    /// Refusals of what was only sent, and when they are told of again.
    refusals: u64,
    refusals_at: Moment,
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
            most_in_frame: Amount { events: DEFAULT_EVENTS, bytes: DEFAULT_FRAME_BYTES - FRAME_OVERHEAD },
            refusals: 0,
            refusals_at: Moment::ZERO,
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
        let entry = Entry::new(new);
        self.deadlines.extend(entry.deadline().map(|deadline| (deadline, ticket)));
        self.held.add(entry.amount());
        self.all.insert(ticket, entry);
        self.queue.insert(ticket);
        ticket
    }

    // Sessions.

    pub(crate) fn session_begins(&mut self, limits: Option<&Limits>) {
        let limit = |value: Option<i64>, default: usize| {
            value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        let bytes = limit(limits.map(|limits| limits.max_frame_bytes), DEFAULT_FRAME_BYTES);
        let events = limit(limits.map(|limits| limits.max_publish_events.into()), DEFAULT_EVENTS);
        self.most_in_frame = Amount { events, bytes: bytes.saturating_sub(FRAME_OVERHEAD) };
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
        let is_full = self.sent.len() >= MOST_REQUESTS && !first.is_sent();
        let waits = self.is_quiet || now < self.not_before || is_full;
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
            let Err(error) = entry.fits(self.most_in_frame) else { return Some(self.write_calls(requests, news)) };
            if entry.is_sent() {
                let events = entry.take_first(self.most_in_frame);
                if !events.is_empty() {
                    return Some(wire::publish(0, events.iter().map(Piece::Event), None));
                }
                if !entry.drop_first(1).is_empty() {
                    self.refused_sends(now, 1, error, news);
                    continue;
                }
            }
            if let Some(entry) = self.all.get_mut(&first) {
                entry.fill(&error);
            }
            self.finish(first, news);
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
    fn write_calls(&mut self, requests: &mut Requests, news: &mut VecDeque<News>) -> Bytes {
        let tickets = self.together();
        let is_sent = tickets.first().and_then(|first| self.all.get(first)).is_some_and(Entry::is_sent);
        let request = if is_sent { 0 } else { requests.open(Asked::Publish) };
        let frame = self.frame(request, &tickets);
        for ticket in &tickets {
            self.queue.remove(ticket);
            if is_sent {
                self.finish(*ticket, news);
            } else if let Some(entry) = self.all.get_mut(ticket) {
                entry.is_in_flight = true;
            }
        }
        if !is_sent {
            self.sent.insert(request, Sent::Calls(tickets));
        }
        frame
    }

    /// What is first, and what may go with it.
    fn together(&self) -> Vec<u64> {
        let (mut tickets, mut sum, mut sent) = (Vec::new(), Amount::default(), false);
        let most_events = MOST_TOGETHER.min(self.most_in_frame.events);
        let most_bytes = MOST_BYTES_TOGETHER.min(self.most_in_frame.bytes);
        for ticket in &self.queue {
            let Some(entry) = self.all.get(ticket) else { continue };
            let amount = entry.pending_amount();
            let is_enough = entry.is_alone() || amount.bytes >= ENOUGH_BYTES;
            if tickets.is_empty() {
                sent = entry.is_sent();
            } else {
                let fits = sum.events + amount.events <= most_events && sum.bytes + amount.bytes <= most_bytes;
                if is_enough || !fits || entry.is_sent() != sent || entry.question().is_some() {
                    break;
                }
            }
            tickets.push(*ticket);
            sum.add(amount);
            if is_enough {
                break;
            }
        }
        tickets
    }

    /// What is pending of these calls, as one frame.
    fn frame(&mut self, request: i64, tickets: &[u64]) -> Bytes {
        if let [only] = tickets
            && let Some(frame) = self.all.get_mut(only).and_then(|entry| entry.take_frame(request))
        {
            return frame;
        }
        for ticket in tickets {
            self.all.get_mut(ticket).into_iter().for_each(Entry::settle_bytes);
        }
        let entries: Vec<&Entry> = tickets.iter().filter_map(|ticket| self.all.get(ticket)).collect();
        let precondition = entries.first().and_then(|entry| entry.precondition());
        wire::publish(request, entries.iter().flat_map(|entry| entry.pending()), precondition)
    }

    /// The hub, or this client, has refused some of what was only sent.
    fn refused_sends(&mut self, now: Moment, count: u64, error: Error, news: &mut VecDeque<News>) {
        self.refusals += count;
        if now >= self.refusals_at {
            self.refusals_at = now + REFUSALS_INTERVAL;
            news.push_back(News::Refused(self.refusals, error));
        }
    }

    // What comes.

    /// The hub has taken all events of a publish.
    pub(crate) fn taken(&mut self, now: Moment, request: i64, mut results: Results, news: &mut VecDeque<News>) {
        match self.sent.remove(&request) {
            Some(Sent::Calls(tickets)) => {
                for ticket in tickets {
                    let Some(entry) = self.all.get_mut(&ticket) else { continue };
                    entry.is_in_flight = false;
                    entry.take_all(&mut results);
                    self.queue_again(ticket, news);
                }
                self.backoff.reset();
            }
            Some(Sent::Question(ticket, at)) => {
                let answer = results.iter().next().ok_or_else(no_answer);
                self.learned(now, (ticket, at), answer, news);
            }
            None => {}
        }
    }

    /// The hub has answered a publish, and some event was refused.
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
            None if request == 0 => {
                let refused: Vec<_> = results.filter_map(|result| result.status).collect();
                if let Some(first) = refused.first() {
                    let error = Error::of_message(ErrorKind::Refused, first);
                    self.refused_sends(now, refused.len() as u64, error, news);
                }
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
            None if request == 0 => self.refused_sends(now, 1, error.clone(), news),
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
            Ok(result) => entry.set(at, Ok(result.into())),
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
        if let Some(deadline) = entry.deadline() {
            self.deadlines.remove(&(deadline, ticket));
        }
        self.held.take(entry.amount());
        if !entry.is_told && !entry.is_sent() {
            news.push_back(News::Published(ticket, entry.into_receipt()));
        }
        news.push_back(News::Room);
    }

    /// The client is over: what was never written is not done, and of the rest nobody knows.
    pub(crate) fn give_up(&mut self, error: &Error, news: &mut VecDeque<News>) {
        for ticket in self.all.keys().copied().collect::<Vec<_>>() {
            if let Some(entry) = self.all.get_mut(&ticket).filter(|entry| !entry.is_sent()) {
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

    /// How often something that was only sent was refused.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals
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
