//! What a member of a group holds, and what was said of it: from the delivery of an event to the hub's answer that its
//! acknowledgement is stored. Pure.
//!
//! An event is in one hand, however often it is delivered. If it comes again while the application still works on it, or
//! after the application has settled it, the application does not get it a second time: its word holds for the new lease.
//! The exception is a caller who was told that the lease is lost: it may count on the event to come again.
//!
//! Words wait here while there is no session. All of it is bounded: words by the events that were held, and what is owed by
//! a number.

mod owed;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use tonic::Code;

use self::owed::Owed;
use super::{
    credit::Size,
    news::{Moment, News},
    verdict::Verdict,
};
use crate::{
    error::{Error, ErrorKind},
    proto::v1::{AckOutcome, AckResult, Acknowledge},
};

/// The most sequences in one command; a hub takes ten times as many.
const MOST_SEQUENCES: usize = 1000;
/// Sequences of lost leases that are kept to be told; further ones are only counted.
const MOST_LOST: usize = 1000;
/// How long to wait before words are repeated that the hub could not store.
const REPEAT_DELAY: Duration = Duration::from_secs(1);

/// An event in hand.
#[derive(Debug)]
struct Hand {
    /// Tells it from another time that the event was in hand.
    copy: u64,
    bytes: i64,
    /// The application has it. Otherwise it waits to be taken.
    is_taken: bool,
}

/// A verdict that the hub has not answered.
#[derive(Debug)]
struct Word {
    number: u64,
    sequence: i64,
    verdict: Verdict,
    /// Whoever waits for the answer.
    ticket: Option<u64>,
}

/// The leases that were lost since somebody asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) sequences: Vec<i64>,
    pub(crate) count: u64,
}

/// All that one member holds.
#[derive(Debug, Default)]
pub(crate) struct Hands {
    held: HashMap<i64, Hand>,
    /// Words to be written, in order.
    waiting: VecDeque<Word>,
    /// Words that were written in this session, by request.
    written: HashMap<i64, Vec<Word>>,
    /// The numbers of words that are not answered.
    unanswered: BTreeSet<u64>,
    /// How many final words there are of a sequence that are not answered.
    settling: HashMap<i64, u32>,
    /// Those of them that came again meanwhile. What the hub has not answered may have been about the lease before.
    renewed: HashSet<i64>,
    /// Leases to extend, and for how long.
    extends: BTreeMap<i64, Option<Duration>>,
    /// Requests that extend, and are not answered.
    extending: HashSet<i64>,
    owed: Owed,
    lost: Lost,
    /// Numbers copies and words.
    next: u64,
    /// Nothing is written before this.
    not_before: Moment,
}

impl Hands {
    /// An event came. `None` when it is in hand already, or settled: then it is not for the application.
    pub(crate) fn arrive(&mut self, sequence: i64, bytes: i64) -> Option<u64> {
        if self.held.contains_key(&sequence) {
            return None;
        }
        if self.settling.contains_key(&sequence) {
            self.renewed.insert(sequence);
            return None;
        }
        if let Some(verdict) = self.owed.take(sequence) {
            self.say(sequence, verdict, None);
            return None;
        }
        // It comes again, which is all that a NACK asks for. One that was written is the hub's business.
        self.waiting.retain(|word| {
            let is_moot = word.sequence == sequence;
            if is_moot {
                self.unanswered.remove(&word.number);
            }
            !is_moot
        });
        let copy = self.number();
        self.held.insert(sequence, Hand { copy, bytes, is_taken: false });
        Some(copy)
    }

    /// The application takes an event.
    pub(crate) fn taken(&mut self, sequence: i64) {
        if let Some(hand) = self.held.get_mut(&sequence) {
            hand.is_taken = true;
        }
    }

    /// The application has settled an event. `None` when this copy of it is no longer in hand.
    pub(crate) fn settle(&mut self, sequence: i64, copy: u64, verdict: Verdict, ticket: Option<u64>) -> Option<Size> {
        let size = self.let_go(sequence, copy)?;
        self.say(sequence, verdict, ticket);
        Some(size)
    }

    /// The application has dropped an event and said nothing. Its lease runs out.
    pub(crate) fn let_go(&mut self, sequence: i64, copy: u64) -> Option<Size> {
        if self.held.get(&sequence)?.copy != copy {
            return None;
        }
        self.extends.remove(&sequence);
        self.held.remove(&sequence).map(|hand| Size::one(hand.bytes))
    }

    /// The application wants to keep an event for longer.
    pub(crate) fn extend(&mut self, sequence: i64, copy: u64, time: Option<Duration>) {
        if self.held.get(&sequence).is_some_and(|hand| hand.copy == copy) {
            self.extends.insert(sequence, time);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn say(&mut self, sequence: i64, verdict: Verdict, ticket: Option<u64>) {
        let number = self.number();
        self.unanswered.insert(number);
        if verdict.is_final() {
            *self.settling.entry(sequence).or_default() += 1;
        }
        self.waiting.push_back(Word { number, sequence, verdict, ticket });
    }

    /// What to write next, as this request, if there is anything.
    pub(crate) fn write(&mut self, now: Moment, request: i64) -> Option<Acknowledge> {
        if now < self.not_before {
            return None;
        }
        if let Some(first) = self.waiting.front() {
            let mut command = first.verdict.command();
            let verdict = first.verdict.clone();
            let alike = self.waiting.iter().take(MOST_SEQUENCES).take_while(|word| word.verdict == verdict).count();
            let words: Vec<Word> = self.waiting.drain(..alike).collect();
            command.sequences = words.iter().map(|word| word.sequence).collect();
            self.written.insert(request, words);
            return Some(command);
        }
        let time = *self.extends.values().next()?;
        let alike = self.extends.iter().filter(|(_, other)| **other == time).map(|(sequence, _)| *sequence);
        let sequences: Vec<i64> = alike.take(MOST_SEQUENCES).collect();
        self.extends.retain(|sequence, _| sequences.binary_search(sequence).is_err());
        self.extending.insert(request);
        Some(Acknowledge {
            sequences,
            outcome: AckOutcome::Extend.into(),
            delay: time.and_then(|time| time.try_into().ok()),
            ..Acknowledge::default()
        })
    }

    /// Some words were not written in this session, whether or not they must wait.
    pub(crate) fn has_waiting_words(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When something is to be written that must wait until then.
    pub(crate) fn due(&self, now: Moment) -> Option<Moment> {
        let waits = self.not_before > now && !(self.waiting.is_empty() && self.extends.is_empty());
        waits.then_some(self.not_before)
    }

    /// The hub has answered.
    pub(crate) fn answered(&mut self, now: Moment, request: i64, results: Vec<AckResult>, news: &mut VecDeque<News>) {
        if self.extending.remove(&request) {
            return;
        }
        let Some(words) = self.written.remove(&request) else { return };
        let mut statuses: HashMap<i64, _> =
            results.into_iter().map(|result| (result.sequence, result.status)).collect();
        let (mut again, mut at_once) = (Vec::new(), Vec::new());
        for word in words {
            match statuses.remove(&word.sequence) {
                Some(None) => self.stored(&word, news),
                Some(Some(status)) => {
                    let error = Error::of_message(ErrorKind::LeaseLost, &status);
                    if error.retryable() {
                        again.push(word);
                    } else if self.holds_again(&word) {
                        at_once.push(word);
                    } else {
                        self.fail(word, &error, news);
                    }
                }
                // One that the hub has not answered, against the contract.
                None => again.push(word),
            }
        }
        self.put_first(at_once);
        self.repeat(now, again);
    }

    /// The hub refused a word. True when the event has come again since: then the refusal was of the lease before, and the
    /// word is to be said of the new one, which would run out otherwise.
    fn holds_again(&mut self, word: &Word) -> bool {
        word.verdict.is_final() && self.renewed.remove(&word.sequence)
    }

    /// The whole command was refused.
    pub(crate) fn refused(&mut self, now: Moment, request: i64, error: &Error, news: &mut VecDeque<News>) {
        self.extending.remove(&request);
        let Some(words) = self.written.remove(&request) else { return };
        // The subscription has just ended, which comes as a frame of its own.
        if error.retryable() || error.reason() == "SUBSCRIPTION_NOT_FOUND" {
            return self.repeat(now, words);
        }
        for word in words {
            self.fail(word, error, news);
        }
    }

    fn repeat(&mut self, now: Moment, words: Vec<Word>) {
        if words.is_empty() {
            return;
        }
        self.not_before = now + REPEAT_DELAY;
        self.put_first(words);
    }

    /// Words are to be written again, before all others.
    fn put_first(&mut self, words: Vec<Word>) {
        for word in words.into_iter().rev() {
            self.waiting.push_front(word);
        }
    }

    fn stored(&mut self, word: &Word, news: &mut VecDeque<News>) {
        self.resolve(word);
        if let Some(ticket) = word.ticket {
            news.push_back(News::Settled(ticket, Ok(())));
        }
    }

    fn fail(&mut self, word: Word, error: &Error, news: &mut VecDeque<News>) {
        self.resolve(&word);
        match word.ticket {
            Some(ticket) => news.push_back(News::Settled(ticket, Err(error.clone()))),
            // The event comes again in any case.
            None if !word.verdict.is_final() => {}
            None => {
                self.lost.count += 1;
                if self.lost.sequences.len() < MOST_LOST {
                    self.lost.sequences.push(word.sequence);
                }
                self.owed.put(word.sequence, word.verdict);
            }
        }
    }

    fn resolve(&mut self, word: &Word) {
        self.unanswered.remove(&word.number);
        if let Some(count) = self.settling.get_mut(&word.sequence).filter(|_| word.verdict.is_final()) {
            *count -= 1;
            if *count == 0 {
                self.settling.remove(&word.sequence);
                self.renewed.remove(&word.sequence);
            }
        }
    }

    /// The session is lost. What was written and not answered is to be written again, in order; what was not taken comes
    /// again, or goes to others: how much that is.
    pub(crate) fn session_lost(&mut self) -> Size {
        let mut words: Vec<Word> = self.written.drain().flat_map(|(_, words)| words).collect();
        words.sort_unstable_by_key(|word| word.number);
        self.put_first(words);
        self.renewed.clear();
        self.extending.clear();
        self.not_before = Moment::ZERO;
        self.forget_untaken()
    }

    /// Events that the application has not taken are not for it any more: how much that is.
    pub(crate) fn forget_untaken(&mut self) -> Size {
        let mut size = Size::default();
        self.held.retain(|_, hand| {
            if !hand.is_taken {
                size.add(Size::one(hand.bytes));
            }
            hand.is_taken
        });
        size
    }

    /// Events that the application has are not in its hands any more: how much that is.
    pub(crate) fn release(&mut self) -> Size {
        self.extends.clear();
        self.held.drain().fold(Size::default(), |mut size, (_, hand)| {
            size.add(Size::one(hand.bytes));
            size
        })
    }

    /// The leases are gone: words that wait cannot be stored, unless their events come again.
    pub(crate) fn leases_lost(&mut self, error: &Error, news: &mut VecDeque<News>) {
        for word in std::mem::take(&mut self.waiting) {
            self.fail(word, error, news);
        }
    }

    /// Nothing comes and goes any more: everything that is unanswered has failed.
    pub(crate) fn give_up(&mut self, error: &Error, news: &mut VecDeque<News>) {
        self.session_lost();
        self.leases_lost(error, news);
        self.held.clear();
        self.extends.clear();
    }

    /// What this client has in hand, for the hub to keep its leases: what the application has, and what it has settled.
    pub(crate) fn held_sequences(&self) -> Vec<i64> {
        let held = self.held.iter().filter(|(_, hand)| hand.is_taken).map(|(sequence, _)| *sequence);
        let mut sequences: Vec<i64> = held.chain(self.waiting.iter().map(|word| word.sequence)).collect();
        sequences.sort_unstable();
        sequences.dedup();
        sequences
    }

    /// How many events the application has, or is to take.
    pub(crate) fn in_hand(&self) -> usize {
        self.held.len()
    }

    /// How many words are not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// A mark behind all that was said so far.
    pub(crate) fn mark(&self) -> u64 {
        self.next
    }

    /// Whether everything before a mark is answered.
    pub(crate) fn is_settled(&self, mark: u64) -> bool {
        self.unanswered.first().is_none_or(|first| *first > mark)
    }

    /// The leases that were lost. Whoever is told may count on the events to come again.
    pub(crate) fn take_lost(&mut self) -> Lost {
        let lost = std::mem::take(&mut self.lost);
        if lost.count > 0 {
            self.owed.clear();
        }
        lost
    }
}

/// Why what was said of events could not be stored, where no hub says it.
pub(crate) fn lease_lost() -> Error {
    let text = "the session was lost, and with it the lease: the group delivers the event again";
    Error::new(ErrorKind::LeaseLost, Code::FailedPrecondition, "LEASE_EXPIRED", text)
}

#[cfg(test)]
mod tests;
