//! One unit on its way: messages that are stored together, tried until what became of them is known. Pure.
//!
//! **Ids.** Every message with a key has that as its id. The first one *without* a key has the number of the unit: since a unit is
//! stored as a whole, that one id says of all whether it is. It is not on the first message when that has a key: a known key may
//! be an earlier event of the publisher, and says nothing of the messages behind it. A unit of keys alone needs none: all of them
//! are known once it is stored, and a header of the message tells whether by this unit.
//!
//! **Not known and not stored.** A try without an answer may be stored later. Until an id shows that it is, or a precondition that
//! no longer holds shows that it cannot be, no failure of this unit says that nothing was done.

use std::collections::BTreeMap;

use super::request::{Answer, Command, Failed, Id, Message, Outgoing, Stored};
use crate::engine::Precondition;

/// A try that is not answered by then is lost.
const TRY_MS: u64 = 2_000;
/// What is not known by then is not tried any longer.
pub(super) const PATIENCE_MS: u64 = 10_000;
/// The first wait after a try that did nothing; each is twice the one before, up to the last.
const WAIT_MS: (u64, u64) = (20, 500);
/// What is in process is asked for again after this.
const IN_PROCESS_MS: u64 = 100;
/// This many times the server says that, and then another is asked.
const IN_PROCESS_MOST: u32 = 3;
/// This many times the leader says that the precondition holds after all.
const EQUAL_MOST: u32 = 20;

/// What the rules of a lane are. Only tests leave some out, to see that they are needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Messages without a key have ids.
    pub(super) ids: bool,
    /// The first message without a key has it, wherever it is; otherwise only the first of all.
    pub(super) anywhere: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { ids: true, anywhere: true }
    }
}

/// How a unit has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Stored,
    Failed(Failed),
}

/// One message.
#[derive(Debug)]
struct Slot<B> {
    message: Outgoing<B>,
    found: Option<Stored>,
    /// The one before it in the unit with the same key.
    same_as: Option<usize>,
}

/// What is asked, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Send,
    /// With what the precondition was compared with, if it did not hold.
    Probe {
        actual: Option<u64>,
    },
    /// Where these are; `landed` when it is the one that says that all are stored.
    Locate {
        which: Vec<usize>,
        landed: bool,
    },
    Last(Precondition),
    /// Whether these, all that are left, are stored by this unit.
    Compare {
        which: Vec<usize>,
        sequences: Vec<u64>,
    },
}

/// A unit until its end.
#[derive(Debug)]
pub(super) struct Flight<B> {
    number: u64,
    slots: Vec<Slot<B>>,
    precondition: Option<Precondition>,
    begun: u64,
    /// For this long after its beginning its ids are certainly known.
    window: u64,
    step: Step,
    /// The last request; 0 before the first.
    request: u64,
    /// It waits before it asks; otherwise for an answer.
    waits: bool,
    until: u64,
    /// A try may be stored, or may yet be.
    unknown: bool,
    failures: u32,
    in_process: u32,
    equal: u32,
}

impl<B: Clone> Flight<B> {
    /// Of these messages. `window` is how long ids are known.
    pub(super) fn new(
        number: u64,
        messages: Vec<Message<B>>,
        precondition: Option<Precondition>,
        window: u64,
        rules: Rules,
        now: u64,
    ) -> Self {
        let mut slots: Vec<Slot<B>> = Vec::with_capacity(messages.len());
        let mut first_of: BTreeMap<u128, usize> = BTreeMap::new();
        let mut has_own = !rules.ids;
        for (at, Message { key, body, .. }) in messages.into_iter().enumerate() {
            let same_as = key.and_then(|key| match *first_of.entry(key).or_insert(at) {
                first if first < at => Some(first),
                _ => None,
            });
            let may_own = !has_own && (rules.anywhere || at == 0);
            let id = key.map(Id::Key).or(may_own.then_some(Id::Own(number)));
            has_own |= matches!(id, Some(Id::Own(_)));
            slots.push(Slot { message: Outgoing { id, body }, found: None, same_as });
        }
        Self {
            number,
            slots,
            precondition,
            begun: now,
            window,
            step: Step::Send,
            request: 0,
            waits: true,
            until: now,
            unknown: false,
            failures: 0,
            in_process: 0,
            equal: 0,
        }
    }

    /// When there is something to do by time alone.
    pub(super) fn due(&self) -> u64 {
        self.until
    }

    /// True when an answer with this number is waited for.
    pub(super) fn waits_for(&self, request: u64) -> bool {
        !self.waits && self.request == request
    }

    /// Where each message is, of a unit that is stored.
    pub(super) fn results(&self) -> impl Iterator<Item = Option<Stored>> {
        self.slots.iter().map(|slot| match slot.same_as {
            Some(first) => {
                let found = self.slots.get(first).and_then(|slot| slot.found);
                found.map(|found| Stored { duplicate: true, ..found })
            }
            None => slot.found,
        })
    }

    /// Messages that are not found yet, by their places.
    fn left(&self) -> Vec<usize> {
        let left = |(_, slot): &(usize, &Slot<B>)| slot.found.is_none() && slot.same_as.is_none();
        self.slots.iter().enumerate().filter(left).map(|(at, _)| at).collect()
    }

    /// Those of them that have an id.
    fn left_with_id(&self) -> Vec<(usize, Id)> {
        self.left().into_iter().filter_map(|at| Some((at, self.slots.get(at)?.message.id?))).collect()
    }

    fn outgoing(&self, which: &[usize]) -> Vec<Outgoing<B>> {
        which.iter().filter_map(|at| self.slots.get(*at)).map(|slot| slot.message.clone()).collect()
    }

    fn found(&mut self, at: usize, sequence: u64, duplicate: bool) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.found = Some(Stored { sequence, duplicate });
        }
    }

    /// All that are left are stored by this unit, from this sequence on.
    fn found_all(&mut self, first: u64) -> Ending {
        for (at, sequence) in self.left().into_iter().zip(first..) {
            self.found(at, sequence, false);
        }
        Ending::Stored
    }

    /// What is to be asked next.
    fn ask(&mut self, request: &mut u64, now: u64, out: &mut Vec<Command<B>>) {
        *request += 1;
        (self.request, self.waits, self.until) = (*request, false, now.saturating_add(TRY_MS));
        let (request, unit) = (*request, self.number);
        let command = match &self.step {
            Step::Send => {
                let messages = self.outgoing(&self.left());
                Some(Command::Send { request, unit, messages, precondition: self.precondition })
            }
            Step::Probe { .. } => {
                let ids = self.left_with_id().into_iter().map(|(_, id)| id).collect();
                Some(Command::Probe { request, ids })
            }
            Step::Locate { which, .. } => Some(Command::Locate { request, unit, messages: self.outgoing(which) }),
            Step::Last(of) => {
                let first = self.slots.first();
                first.map(|slot| Command::Last { request, of: *of, body: slot.message.body.clone() })
            }
            Step::Compare { sequences, .. } => {
                sequences.first().map(|sequence| Command::Compare { request, unit, sequence: *sequence })
            }
        };
        out.extend(command);
    }

    fn wait(&mut self, ms: u64, now: u64) -> Option<Ending> {
        (self.waits, self.until) = (true, now.saturating_add(ms));
        None
    }

    /// After a try that did nothing: longer each time.
    fn wait_longer(&mut self, now: u64) -> Option<Ending> {
        let ms = (WAIT_MS.0 << self.failures.min(8)).min(WAIT_MS.1);
        self.failures += 1;
        self.wait(ms, now)
    }

    /// A time that lanes of several hubs are unlikely to share.
    fn wait_a_little(&mut self, now: u64) -> Option<Ending> {
        let mixed = (self.number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(self.equal * 7);
        self.wait(4 + mixed % 32, now)
    }

    /// It goes on with this, at once.
    fn then(&mut self, step: Step, now: u64) -> Option<Ending> {
        self.step = step;
        self.wait(0, now)
    }

    /// What is left fails like this, if it is known that nothing was done.
    fn fail(&self, failed: Failed) -> Ending {
        Ending::Failed(if self.unknown { Failed::Unknown } else { failed })
    }

    /// Lets time pass: asks what is to be asked by now, and tells how the unit has ended if it has.
    pub(super) fn tick(&mut self, request: &mut u64, now: u64, out: &mut Vec<Command<B>>) -> Option<Ending> {
        if now < self.until {
            return None;
        }
        if !self.waits {
            self.unknown |= self.may_have_stored();
        }
        let age = now.saturating_sub(self.begun);
        let is_forgotten = self.unknown && age.saturating_add(PATIENCE_MS) >= self.window;
        if age >= PATIENCE_MS || is_forgotten {
            if self.unknown {
                out.push(Command::Drop);
            }
            return Some(self.fail(Failed::Unreachable));
        }
        self.ask(request, now, out);
        None
    }

    /// True when the request that is waited for stores something that was not there.
    fn may_have_stored(&self) -> bool {
        matches!(self.step, Step::Send)
    }

    /// Takes an answer to the last request; what comes of it is for [`Self::tick`] to ask.
    pub(super) fn answer(&mut self, answer: Answer, now: u64, out: &mut Vec<Command<B>>) -> Option<Ending> {
        match (self.step.clone(), answer) {
            (Step::Send, answer) => self.sent(answer, now, out),
            (Step::Probe { actual }, Answer::Known(known)) => self.probed(&known, actual, now),
            (Step::Locate { which, landed }, Answer::Located(found)) if which.len() == found.len() => {
                self.located(which, landed, &found, now)
            }
            (Step::Last(of), Answer::Last(actual)) => self.compared(of, actual, now),
            (Step::Compare { which, sequences }, Answer::Ours(ours)) => {
                for (at, sequence) in which.into_iter().zip(sequences) {
                    self.found(at, sequence, !ours);
                }
                Some(Ending::Stored)
            }
            // A question that was not answered is asked again.
            (_, _) => self.wait_longer(now),
        }
    }

    fn sent(&mut self, answer: Answer, now: u64, out: &mut Vec<Command<B>>) -> Option<Ending> {
        match answer {
            Answer::Acked { sequence, duplicate } => self.acked(sequence, duplicate, now),
            Answer::NotSent | Answer::Incomplete => self.wait_longer(now),
            Answer::Crowded => {
                out.push(Command::Crowded);
                self.wait_longer(now)
            }
            Answer::InProcess => {
                self.unknown = true;
                self.in_process += 1;
                if self.in_process.is_multiple_of(IN_PROCESS_MOST) {
                    out.push(Command::Move);
                }
                self.wait(IN_PROCESS_MS, now)
            }
            Answer::Duplicates => self.then(Step::Probe { actual: None }, now),
            Answer::Mismatch => match self.precondition {
                Some(of) => self.then(Step::Last(of), now),
                None => self.wait_longer(now),
            },
            Answer::Full => {
                out.push(Command::Full);
                Some(self.fail(Failed::Full))
            }
            Answer::Refused { code } => Some(self.fail(Failed::Refused { code })),
            _ => {
                self.unknown = true;
                self.wait_longer(now)
            }
        }
    }

    fn acked(&mut self, sequence: u64, duplicate: bool, now: u64) -> Option<Ending> {
        let left = self.left();
        let behind_first = (left.len() as u64).saturating_sub(1);
        let Some(first) = sequence.checked_sub(behind_first) else {
            self.unknown = true;
            return self.wait_longer(now);
        };
        let id = left.first().and_then(|at| self.slots.get(*at)?.message.id);
        match id {
            Some(Id::Key(_)) if duplicate && self.unknown => {
                self.then(Step::Compare { which: left, sequences: vec![sequence] }, now)
            }
            Some(Id::Key(_)) if duplicate => {
                left.first().into_iter().for_each(|at| self.found(*at, sequence, true));
                Some(Ending::Stored)
            }
            _ => Some(self.found_all(first)),
        }
    }

    /// Which ids are known. With `actual` the precondition does not hold, unless the unit is what broke it.
    fn probed(&mut self, known: &[bool], actual: Option<u64>, now: u64) -> Option<Ending> {
        let (asked, left) = (self.left_with_id(), self.left().len());
        let found: Vec<_> = asked.iter().zip(known).filter(|(_, known)| **known).map(|(asked, _)| *asked).collect();
        let own = found.iter().find(|(_, id)| matches!(id, Id::Own(_)));
        if let Some((own, _)) = own {
            self.unknown = true;
            return self.then(Step::Locate { which: vec![*own], landed: true }, now);
        }
        let which: Vec<usize> = found.iter().map(|(at, _)| *at).collect();
        match actual {
            Some(actual) if which.len() < left => Some(Ending::Failed(Failed::Mismatch { actual })),
            // What was in the way is not there any more.
            None if which.is_empty() => {
                self.step = Step::Send;
                self.wait_longer(now)
            }
            _ => self.then(Step::Locate { which, landed: false }, now),
        }
    }

    fn located(&mut self, which: Vec<usize>, landed: bool, found: &[Stored], now: u64) -> Option<Ending> {
        let is_new = found.iter().any(|found| !found.duplicate);
        let left = self.left();
        if landed {
            let place = left.iter().position(|at| which.contains(at)).unwrap_or(0) as u64;
            let first = found.first().and_then(|found| found.sequence.checked_sub(place));
            // One that was forgotten meanwhile is stored by this once more: where the others are nobody knows.
            let first = first.filter(|_| !is_new);
            return Some(first.map_or(Ending::Failed(Failed::Unknown), |first| self.found_all(first)));
        }
        if self.unknown && which.len() == left.len() && !is_new {
            let sequences = found.iter().map(|found| found.sequence).collect();
            return self.then(Step::Compare { which, sequences }, now);
        }
        for (at, found) in which.into_iter().zip(found) {
            self.found(at, found.sequence, found.duplicate);
        }
        if self.left().is_empty() {
            return Some(Ending::Stored);
        }
        self.then(Step::Send, now)
    }

    /// What the precondition is compared with, at the leader. It is asked before the ids are probed: what is not stored when the
    /// precondition is broken already cannot be stored later.
    fn compared(&mut self, of: Precondition, actual: u64, now: u64) -> Option<Ending> {
        let (Precondition::LastSequence(expected) | Precondition::LastTopicSequence(expected)) = of;
        if expected == actual {
            self.equal += 1;
            self.step = Step::Send;
            return if self.equal > EQUAL_MOST {
                Some(self.fail(Failed::Unreachable))
            } else {
                self.wait_a_little(now)
            };
        }
        let has_keys = self.left_with_id().iter().any(|(_, id)| matches!(id, Id::Key(_)));
        if self.unknown || has_keys {
            return self.then(Step::Probe { actual: Some(actual) }, now);
        }
        Some(Ending::Failed(Failed::Mismatch { actual }))
    }
}
