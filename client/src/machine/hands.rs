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
/// The most sequences that a member may name when it comes back: as many as a hub ever lets one have.
const MOST_NAMED: usize = 100_000;
/// Extensions that were written and are not answered: with more, those that wait go together.
const MOST_EXTENDING: usize = 64;
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
    /// Those of them that came again in this session: what was said of them holds for the new lease, too.
    came_again: HashSet<i64>,
    /// Leases to extend, and for how long.
    extends: BTreeMap<i64, Option<Duration>>,
    /// Requests that extend and are not answered: what, and for how long.
    extending: BTreeMap<i64, (Vec<i64>, Option<Duration>)>,
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
            self.came_again.insert(sequence);
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
        if self.extending.len() >= MOST_EXTENDING {
            return None;
        }
        let time = *self.extends.values().next()?;
        let alike = self.extends.iter().filter(|(_, other)| **other == time).map(|(sequence, _)| *sequence);
        let sequences: Vec<i64> = alike.take(MOST_SEQUENCES).collect();
        self.extends.retain(|sequence, _| sequences.binary_search(sequence).is_err());
        self.extending.insert(request, (sequences.clone(), time));
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

    /// Something is to be written, now or later.
    pub(crate) fn has_writes(&self) -> bool {
        !(self.waiting.is_empty() && self.extends.is_empty())
    }

    /// When something is to be written that must wait until then.
    pub(crate) fn due(&self, now: Moment) -> Option<Moment> {
        let waits = self.not_before > now && self.has_writes();
        waits.then_some(self.not_before)
    }

    /// The hub has answered.
    pub(crate) fn answered(&mut self, now: Moment, request: i64, results: Vec<AckResult>, news: &mut VecDeque<News>) {
        if self.extending.remove(&request).is_some() {
            return;
        }
        let Some(words) = self.written.remove(&request) else { return };
        let mut statuses: HashMap<i64, _> =
            results.into_iter().map(|result| (result.sequence, result.status)).collect();
        let (mut later, mut at_once) = (Vec::new(), Vec::new());
        for word in words {
            match statuses.remove(&word.sequence) {
                Some(None) => self.stored(&word, news),
                Some(Some(status)) => {
                    let error = Error::of_message(ErrorKind::LeaseLost, &status);
                    if error.retryable() {
                        later.push(word);
                    } else if word.verdict.is_final() && self.came_again.remove(&word.sequence) {
                        // It was about the lease before. Nobody has the event, and it does not come a third time by itself.
                        at_once.push(word);
                    } else {
                        self.fail(word, &error, news);
                    }
                }
                // One that the hub has not answered, against the contract.
                None => later.push(word),
            }
        }
        self.put_first(at_once);
        self.repeat(now, later);
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

    /// Words are to be written before all others, in order.
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
                self.came_again.remove(&word.sequence);
            }
        }
    }

    /// The session is lost. What was written and not answered is to be written again, in order; what was not taken comes
    /// again, or goes to others: how much that is.
    pub(crate) fn session_lost(&mut self, news: &mut VecDeque<News>) -> Size {
        let mut words: Vec<Word> = self.written.drain().flat_map(|(_, words)| words).collect();
        words.sort_unstable_by_key(|word| word.number);
        let mut later: HashSet<i64> = self.held.keys().copied().collect();
        later.extend(self.waiting.iter().map(|word| word.sequence));
        for word in words.into_iter().rev() {
            if !later.insert(word.sequence) && !word.verdict.is_final() {
                // It came again since, so the NACK is stored. Said once more it would be another failure.
                self.stored(&word, news);
            } else {
                self.waiting.push_front(word);
            }
        }
        // What was said last of a lease holds.
        while let Some((_, (sequences, time))) = self.extending.pop_last() {
            for sequence in sequences {
                if self.held.get(&sequence).is_some_and(|hand| hand.is_taken) {
                    self.extends.entry(sequence).or_insert(time);
                }
            }
        }
        self.came_again.clear();
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

    /// The hub says which leases this member does not have any more, ascending. What was said of those cannot be stored,
    /// unless their events come again.
    pub(crate) fn leases_lost(&mut self, lost: &[i64], news: &mut VecDeque<News>) {
        if lost.is_empty() {
            return;
        }
        let is_lost = |sequence: i64| lost.binary_search(&sequence).is_ok();
        self.extends.retain(|sequence, _| !is_lost(*sequence));
        let (gone, stay) = std::mem::take(&mut self.waiting).into_iter().partition(|word| is_lost(word.sequence));
        self.waiting = stay;
        self.fail_all(gone, &lease_lost(), news);
    }

    fn fail_all(&mut self, words: VecDeque<Word>, error: &Error, news: &mut VecDeque<News>) {
        for word in words {
            self.fail(word, error, news);
        }
    }

    /// Nothing comes and goes any more: everything that is unanswered has failed.
    pub(crate) fn give_up(&mut self, error: &Error, news: &mut VecDeque<News>) {
        self.session_lost(news);
        let words = std::mem::take(&mut self.waiting);
        self.fail_all(words, error, news);
        self.held.clear();
        self.extends.clear();
    }

    /// The sequences whose leases this member wants to keep when it comes back, ascending: what the application has, and
    /// what it has said something of that is not answered. Of more than a hub lets one have, those are named of which
    /// something was said; the others come again, and are still in hand.
    pub(crate) fn held_sequences(&self) -> Vec<i64> {
        let mut held: Vec<i64> =
            self.held.iter().filter(|(_, hand)| hand.is_taken).map(|(sequence, _)| *sequence).collect();
        held.sort_unstable();
        let mut named = BTreeSet::new();
        for sequence in self.waiting.iter().map(|word| word.sequence).chain(held) {
            if named.len() == MOST_NAMED {
                break;
            }
            named.insert(sequence);
        }
        named.into_iter().collect()
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
