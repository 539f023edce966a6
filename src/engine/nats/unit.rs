//! The units of one lane: appends wait, and go to the server together, one unit at a time. Pure; time is an argument, in
//! milliseconds by a clock that does not go back.
//!
//! A unit is what waits when the one before it has ended: whole appends, as long as they are no more than [`MOST_EVENTS`] and
//! [`MOST_BYTES`] together. One that is larger than that alone is a unit of its own; only one of more than [`MOST_EVENTS`] is cut,
//! since the server takes no more at once. An append with a precondition is alone: so nobody else pays when it does not hold.
//! Since the next unit is sent when the one before has ended, nothing overtakes a retry.
//!
//! What the caller owes it: it carries out every [`Command`] in order, gives back what the server says with the number of the
//! request, and calls [`Lane::tick`] when [`Lane::due`] says.

use std::collections::VecDeque;

use super::{
    flight::{Ending, Flight, Rules},
    request::{Answer, Command, Failed, Message, Queued, Stored},
};
use crate::engine::Precondition;

/// The most events in a unit: what the server takes in one atomic batch.
pub(super) const MOST_EVENTS: usize = 1_000;
/// The most bytes of the appends in a unit, beside one that has more alone.
pub(super) const MOST_BYTES: usize = 512 * 1024;
/// No more events wait than this,
const MOST_EVENTS_WAITING: usize = 16 * MOST_EVENTS;
/// nor more bytes, beside an append that has more alone.
const MOST_BYTES_WAITING: usize = 8 * 1024 * 1024;

/// An append, or a piece of one.
#[derive(Debug)]
struct Piece<B> {
    append: u64,
    messages: Vec<Message<B>>,
    bytes: usize,
    precondition: Option<Precondition>,
    /// No other piece of its append comes after it.
    is_last: bool,
}

/// The piece of an append in a unit: how many messages it has there.
#[derive(Debug, Clone, Copy)]
struct Part {
    append: u64,
    messages: usize,
    is_last: bool,
}

/// The unit that is on its way.
#[derive(Debug)]
struct UnderWay<B> {
    flight: Flight<B>,
    parts: Vec<Part>,
    /// What it would be made of again, to find out which of its appends is refused.
    pieces: Vec<Piece<B>>,
}

/// One lane of one stream.
#[derive(Debug)]
pub(super) struct Lane<B> {
    rules: Rules,
    /// How long the stream knows ids, in milliseconds.
    window: u64,
    waiting: VecDeque<Piece<B>>,
    waiting_events: usize,
    waiting_bytes: usize,
    /// This many pieces go one by one, since one of them was refused.
    alone: usize,
    under_way: Option<UnderWay<B>>,
    /// What became of the first pieces of an append of several.
    results: Vec<Result<Stored, Failed>>,
    units: u64,
    requests: u64,
}

impl<B: Clone> Lane<B> {
    /// With nothing in it. `window` is how long the stream knows ids, in milliseconds.
    pub(super) fn new(window: u64, rules: Rules) -> Self {
        Self {
            rules,
            window,
            waiting: VecDeque::new(),
            waiting_events: 0,
            waiting_bytes: 0,
            alone: 0,
            under_way: None,
            results: Vec::new(),
            units: 0,
            requests: 0,
        }
    }

    /// Takes an append, unless it has no room: then it is given back.
    pub(super) fn queue(&mut self, queued: Queued<B>, now: u64) -> Result<Vec<Command<B>>, Queued<B>> {
        let bytes = queued.messages.iter().map(|message| message.bytes).sum::<usize>();
        let events = self.waiting_events + queued.messages.len();
        let is_full = events > MOST_EVENTS_WAITING || self.waiting_bytes.saturating_add(bytes) > MOST_BYTES_WAITING;
        if is_full && !self.waiting.is_empty() {
            return Err(queued);
        }
        let Queued { append, mut messages, precondition } = queued;
        if messages.is_empty() || (precondition.is_some() && messages.len() > MOST_EVENTS) {
            let results = vec![Err(Failed::TooMany { limit: MOST_EVENTS }); messages.len()];
            return Ok(vec![Command::Done { append, results }]);
        }
        while !messages.is_empty() {
            let rest = messages.split_off(messages.len().min(MOST_EVENTS));
            let piece = std::mem::replace(&mut messages, rest);
            let bytes = piece.iter().map(|message| message.bytes).sum();
            self.push(Piece { append, messages: piece, bytes, precondition, is_last: messages.is_empty() });
        }
        let mut out = Vec::new();
        self.go_on(now, &mut out);
        Ok(out)
    }

    /// Takes what the server said to a request.
    pub(super) fn answer(&mut self, request: u64, answer: Answer, now: u64) -> Vec<Command<B>> {
        let mut out = Vec::new();
        if let Some(under_way) = &mut self.under_way
            && under_way.flight.waits_for(request)
            && let Some(ending) = under_way.flight.answer(answer, now, &mut out)
        {
            self.end(ending, &mut out);
        }
        self.go_on(now, &mut out);
        out
    }

    /// Does what is to be done by time alone.
    pub(super) fn tick(&mut self, now: u64) -> Vec<Command<B>> {
        let mut out = Vec::new();
        self.go_on(now, &mut out);
        out
    }

    /// When there is something to do by time alone; `None` for never.
    pub(super) fn due(&self) -> Option<u64> {
        self.under_way.as_ref().map(|under_way| under_way.flight.due())
    }

    fn push(&mut self, piece: Piece<B>) {
        self.waiting_events += piece.messages.len();
        self.waiting_bytes += piece.bytes;
        self.waiting.push_back(piece);
    }

    fn pop(&mut self) -> Option<Piece<B>> {
        let piece = self.waiting.pop_front()?;
        self.waiting_events -= piece.messages.len();
        self.waiting_bytes -= piece.bytes;
        Some(piece)
    }

    /// Sends what is to be sent by now. A unit that ends by that makes way for the next.
    fn go_on(&mut self, now: u64, out: &mut Vec<Command<B>>) {
        loop {
            let Some(under_way) = &mut self.under_way else {
                self.under_way = self.next_unit(now);
                if self.under_way.is_none() {
                    return;
                }
                continue;
            };
            let Some(ending) = under_way.flight.tick(&mut self.requests, now, out) else { return };
            self.end(ending, out);
        }
    }

    /// What waits, as far as it goes together.
    fn next_unit(&mut self, now: u64) -> Option<UnderWay<B>> {
        let mut pieces = vec![self.pop()?];
        let is_alone = self.alone > 0;
        self.alone = self.alone.saturating_sub(1);
        let (mut events, mut bytes) = (pieces[0].messages.len(), pieces[0].bytes);
        let mut is_open = !is_alone && pieces[0].precondition.is_none();
        while is_open && let Some(next) = self.waiting.front() {
            (events, bytes) = (events + next.messages.len(), bytes.saturating_add(next.bytes));
            is_open = next.precondition.is_none() && events <= MOST_EVENTS && bytes <= MOST_BYTES;
            if is_open {
                pieces.extend(self.pop());
            }
        }
        self.units += 1;
        let of =
            |piece: &Piece<B>| Part { append: piece.append, messages: piece.messages.len(), is_last: piece.is_last };
        let parts = pieces.iter().map(of).collect();
        let messages = pieces.iter().flat_map(|piece| piece.messages.iter().cloned()).collect();
        let flight = Flight::new(self.units, messages, pieces[0].precondition, self.window, self.rules, now);
        Some(UnderWay { flight, parts, pieces })
    }

    /// The unit has ended: its appends are answered.
    fn end(&mut self, ending: Ending, out: &mut Vec<Command<B>>) {
        let Some(UnderWay { flight, parts, pieces }) = self.under_way.take() else { return };
        if matches!(ending, Ending::Failed(Failed::Refused { .. })) && pieces.len() > 1 {
            // The others are not to fail for one.
            self.alone += pieces.len();
            for piece in pieces.into_iter().rev() {
                self.waiting_events += piece.messages.len();
                self.waiting_bytes += piece.bytes;
                self.waiting.push_front(piece);
            }
            return;
        }
        let mut found = flight.results();
        for Part { append, messages, is_last } in parts {
            let of_part: Vec<Option<Stored>> = found.by_ref().take(messages).collect();
            // An append of nothing but repetitions is done, whatever became of the others.
            let is_stored = of_part.iter().all(Option::is_some);
            let failed = if let Ending::Failed(failed) = ending { failed } else { Failed::Unknown };
            let result = |found: Option<Stored>| found.filter(|_| is_stored).ok_or(failed);
            self.results.extend(of_part.into_iter().map(result));
            if !is_stored && !is_last {
                self.skip_rest_of(append);
            } else if !is_last {
                continue;
            }
            out.push(Command::Done { append, results: std::mem::take(&mut self.results) });
        }
    }

    /// The pieces of an append behind one that failed are not tried: its events are to be stored in order.
    fn skip_rest_of(&mut self, append: u64) {
        while self.waiting.front().is_some_and(|piece| piece.append == append) {
            let messages = self.pop().map_or(0, |piece| piece.messages.len());
            self.results.extend(std::iter::repeat_n(Err(Failed::Unreachable), messages));
        }
    }
}

#[cfg(test)]
mod tests;
