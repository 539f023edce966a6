//! Who owns a group: one replica's part in that, over a store that compares and sets one record for each group. Pure; time is an
//! argument, in milliseconds by a clock that does not go back.
//!
//! ```text
//! Following   another owns it, or nobody
//!   Claiming    the record is read, and set to one with the next term and this node
//!     Adopting    the state is restored; the nodes say what their members have
//!       Owning      events are handed out
//!         Saving      the state is being set; what waits for that is confirmed when it is known to be
//!         Unsure      that took too long: nothing is handed out, and it is tried until it is known
//!         Releasing   the last state is being set, with nobody as owner
//!       Fenced      another has claimed it: nothing is confirmed any more
//! ```
//!
//! **Safety** rests on the comparison alone: a claim takes over the state that it read only if that is the last one, and after it
//! no write of the owner before succeeds. Whether a node is alive decides only when somebody claims.
//!
//! **A write of which nothing is known** is tried again with the same id until something is. Reads may be stale, so that only what
//! cannot be undone counts: that a record has this write, or a later term. Anything else is tried again.
//!
//! What the caller owes it: it stores dead letters before it calls [`Owner::save`], carries out every [`Command`] in order, and
//! calls [`Owner::tick`] when [`Owner::due`] says.

/// A request that is not answered by then is lost.
const TRY_MS: u64 = 2_000;
/// After an answer that says nothing, the next try is made this much later.
const AGAIN_MS: u64 = 50;
/// A save of which nothing is known for this long makes its owner unsure; a release is left as it is.
const UNSURE_MS: u64 = 10_000;
/// The nodes have this long to say what their members have.
const ADOPTING_MS: u64 = 500;

/// What the rules are. Only tests leave some out, to see that they are needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Writes compare.
    pub(super) compares: bool,
    /// Writes have ids.
    pub(super) ids: bool,
    /// Only a later term ends an owner; otherwise any record that is not its own write does.
    pub(super) terms: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { compares: true, ids: true, terms: true }
    }
}

/// What the store has of a group. `S` is its state, `N` the name of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<N, S> {
    /// One more with each claim.
    pub(super) term: u64,
    pub(super) owner: Option<N>,
    /// Which write of its term it is.
    pub(super) save: u64,
    pub(super) state: S,
}

/// A record, and the revision by which it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen<N, S> {
    pub(super) revision: u64,
    pub(super) record: Record<N, S>,
}

/// What the store knows a write by. With the node: two nodes may claim the same term.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteId<N> {
    pub(super) term: u64,
    pub(super) node: N,
    pub(super) save: u64,
}

/// What is to be done. What has a `request` is answered by [`Owner::answer`] with that number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command<N, S> {
    /// Ask the leader for the record.
    Read { request: u64 },
    /// Set the record if its revision is this one, as an atomic batch of one: then the id is checked before the revision,
    /// however many replicas there are.
    Write { request: u64, expected: Option<u64>, id: Option<WriteId<N>>, record: Record<N, S> },
    /// Restore this state, and ask all nodes what their members have.
    Adopt { term: u64, state: S },
    /// Hand out events.
    Drive { term: u64 },
    /// This save is stored: confirm what waits for it.
    Saved { save: u64 },
    /// Hand out nothing for now. Whether this save is stored is not known.
    Pause { save: u64 },
    /// Hand out events again.
    Resume,
    /// Confirm nothing any more, recall what is with members, and call [`Owner::stopped`].
    Stop,
    /// The group has no owner.
    Released,
    /// Send what is for the owner to this node; `None` for nobody.
    Follow { owner: Option<N> },
    /// There is no such group.
    Missing,
}

/// What the store said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer<N, S> {
    Written {
        revision: u64,
    },
    /// 10201: a write with this id is stored.
    Known,
    /// 10071, 10164: the revision is another, or something is in process.
    Mismatch,
    /// No responders, a timeout, anything else.
    Failed,
    Read(Option<Seen<N, S>>),
}

/// Where a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Following,
    Claiming,
    Adopting { until: u64 },
    Owning,
    Saving,
    Unsure,
    Releasing,
    Fenced,
}

/// A write of which the outcome is not known yet.
#[derive(Debug)]
struct Write<N, S> {
    record: Record<N, S>,
    expected: u64,
    begun: u64,
    /// It is stored, and the revision is not known yet.
    is_stored: bool,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Nothing,
    Read,
    Write,
}

/// One replica, for one group.
#[derive(Debug)]
pub(super) struct Owner<N, S> {
    rules: Rules,
    node: N,
    phase: Phase,
    /// Somebody here uses the group.
    wanted: bool,
    /// A node that seems to be gone.
    suspect: Option<N>,
    /// The last record that was seen.
    seen: Option<Seen<N, S>>,
    /// The last term that was claimed here, and its last write.
    term: u64,
    save: u64,
    write: Option<Write<N, S>>,
    ask: Ask,
    request: u64,
    /// It waits before it asks; otherwise for an answer.
    waits: bool,
    until: u64,
}

impl<N: Clone + Eq, S: Clone> Owner<N, S> {
    /// One that knows nothing yet.
    pub(super) fn new(node: N, rules: Rules) -> Self {
        Self {
            rules,
            node,
            phase: Phase::Following,
            wanted: false,
            suspect: None,
            seen: None,
            term: 0,
            save: 0,
            write: None,
            ask: Ask::Nothing,
            request: 0,
            waits: false,
            until: 0,
        }
    }

    /// Where it is.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// When there is something to do by time alone; `None` for never.
    pub(super) fn due(&self) -> Option<u64> {
        let asked = (self.ask != Ask::Nothing).then_some(self.until);
        let adopting = if let Phase::Adopting { until } = self.phase { Some(until) } else { None };
        [asked, adopting].into_iter().flatten().min()
    }

    /// Whether there are members here, or a call for the group.
    pub(super) fn want(&mut self, wanted: bool, now: u64) -> Vec<Command<N, S>> {
        self.wanted = wanted;
        self.consider(now)
    }

    /// A node seems to be gone: nothing was heard of it for long, or its inbox is not there.
    pub(super) fn suspect(&mut self, node: N, now: u64) -> Vec<Command<N, S>> {
        self.suspect = Some(node);
        self.consider(now)
    }

    /// The record has changed, as a watch of it says: maybe long ago.
    pub(super) fn watched(&mut self, seen: Seen<N, S>, now: u64) -> Vec<Command<N, S>> {
        let mut out = Vec::new();
        let before = self.owner();
        self.note(seen);
        let is_later = self.seen.as_ref().is_some_and(|seen| seen.record.term > self.term);
        match self.phase {
            Phase::Following if self.owner() != before => out.push(Command::Follow { owner: self.owner() }),
            Phase::Following | Phase::Claiming | Phase::Fenced => {}
            _ if is_later => self.lost(&mut out),
            _ => {}
        }
        out.extend(self.consider(now));
        out
    }

    /// All nodes have said what their members have.
    pub(super) fn adopted(&mut self) -> Vec<Command<N, S>> {
        if !matches!(self.phase, Phase::Adopting { .. }) {
            return Vec::new();
        }
        self.phase = Phase::Owning;
        vec![Command::Drive { term: self.term }]
    }

    /// Saves the state, if it is the owner and no other save is under way: gives its number.
    pub(super) fn save(&mut self, state: S, now: u64) -> Option<(u64, Vec<Command<N, S>>)> {
        let out = self.write_next(Phase::Saving, Some(self.node.clone()), state, now)?;
        Some((self.save, out))
    }

    /// Saves the state for whoever owns the group next.
    pub(super) fn release(&mut self, state: S, now: u64) -> Option<Vec<Command<N, S>>> {
        self.write_next(Phase::Releasing, None, state, now)
    }

    /// The driver has stopped.
    pub(super) fn stopped(&mut self, now: u64) -> Vec<Command<N, S>> {
        if self.phase != Phase::Fenced {
            return Vec::new();
        }
        self.phase = Phase::Following;
        let mut out = vec![Command::Follow { owner: self.owner() }];
        out.extend(self.consider(now));
        out
    }

    /// Takes what the store said to a request.
    pub(super) fn answer(&mut self, request: u64, answer: Answer<N, S>, now: u64) -> Vec<Command<N, S>> {
        let mut out = Vec::new();
        if self.request != request || self.waits || self.ask == Ask::Nothing {
            return out;
        }
        match (self.ask, answer) {
            (Ask::Write, Answer::Written { revision }) => self.landed(revision, now, &mut out),
            (Ask::Write, Answer::Known) => {
                self.stored(&mut out);
                self.ask(Ask::Read, now, &mut out);
            }
            (Ask::Write, Answer::Mismatch) => self.ask(Ask::Read, now, &mut out),
            (Ask::Read, Answer::Read(Some(seen))) => {
                self.note(seen.clone());
                match &self.write {
                    Some(_) => self.compare(&seen, now, &mut out),
                    None => self.claim(now, &mut out),
                }
            }
            (Ask::Read, Answer::Read(None)) => self.missing(&mut out),
            (_, _) => self.wait(now),
        }
        out.extend(self.consider(now));
        out
    }

    /// Does what is to be done by time alone.
    pub(super) fn tick(&mut self, now: u64) -> Vec<Command<N, S>> {
        let mut out = Vec::new();
        if let Phase::Adopting { until } = self.phase
            && now >= until
        {
            out.extend(self.adopted());
        }
        if self.ask != Ask::Nothing && now >= self.until {
            let begun = self.write.as_ref().map(|write| (now.saturating_sub(write.begun), write.is_stored));
            match (self.phase, begun) {
                (Phase::Saving, Some((UNSURE_MS.., false))) => {
                    self.phase = Phase::Unsure;
                    out.push(Command::Pause { save: self.save });
                }
                (Phase::Releasing, Some((UNSURE_MS.., _))) => {
                    // Nobody drives it, whether or not the record says so: whoever wants it claims it.
                    self.wanted = false;
                    self.follow();
                    out.push(Command::Follow { owner: self.owner() });
                    return out;
                }
                _ => {}
            }
            let ask = if self.write.is_some() { Ask::Write } else { self.ask };
            self.ask(ask, now, &mut out);
        }
        out
    }

    /// Who owns the group, as far as is known.
    fn owner(&self) -> Option<N> {
        self.seen.as_ref().and_then(|seen| seen.record.owner.clone())
    }

    /// True when the group is to be claimed from whoever has it: nobody, a node that seems to be gone, or this one, which does not
    /// drive it.
    fn is_free(&self) -> bool {
        self.owner().is_none_or(|owner| owner == self.node || Some(owner) == self.suspect)
    }

    /// Begins to claim the group, if it is wanted and free as far as is known.
    fn consider(&mut self, now: u64) -> Vec<Command<N, S>> {
        let mut out = Vec::new();
        if self.phase == Phase::Following && self.wanted && self.is_free() {
            self.phase = Phase::Claiming;
            self.ask(Ask::Read, now, &mut out);
        }
        out
    }

    /// What was read may be claimed, or shows who has it.
    fn claim(&mut self, now: u64, out: &mut Vec<Command<N, S>>) {
        let Some(Seen { revision, record }) = self.seen.clone().filter(|_| self.is_free() && self.wanted) else {
            self.follow();
            out.push(Command::Follow { owner: self.owner() });
            return;
        };
        let record = Record { term: record.term + 1, owner: Some(self.node.clone()), save: 0, ..record };
        self.write = Some(Write { record, expected: revision, begun: now, is_stored: false });
        self.ask(Ask::Write, now, out);
    }

    /// Begins to write as the owner.
    fn write_next(&mut self, phase: Phase, owner: Option<N>, state: S, now: u64) -> Option<Vec<Command<N, S>>> {
        let expected = self.seen.as_ref().filter(|_| self.phase == Phase::Owning)?.revision;
        let mut out = Vec::new();
        self.save += 1;
        let record = Record { term: self.term, owner, save: self.save, state };
        self.write = Some(Write { record, expected, begun: now, is_stored: false });
        self.phase = phase;
        self.ask(Ask::Write, now, &mut out);
        Some(out)
    }

    /// Remembers a record, unless a later one is known.
    fn note(&mut self, seen: Seen<N, S>) {
        if self.seen.as_ref().is_none_or(|known| known.revision < seen.revision) {
            self.seen = Some(seen);
        }
    }

    fn ask(&mut self, ask: Ask, now: u64, out: &mut Vec<Command<N, S>>) {
        self.request += 1;
        (self.ask, self.waits, self.until) = (ask, false, now.saturating_add(TRY_MS));
        match (ask, &self.write) {
            (Ask::Write, Some(Write { record, expected, .. })) => {
                let id = WriteId { term: record.term, node: self.node.clone(), save: record.save };
                out.push(Command::Write {
                    request: self.request,
                    expected: self.rules.compares.then_some(*expected),
                    id: self.rules.ids.then_some(id),
                    record: record.clone(),
                });
            }
            _ => out.push(Command::Read { request: self.request }),
        }
    }

    /// Asks the same again a little later, or writes again what it asked about.
    fn wait(&mut self, now: u64) {
        (self.waits, self.until) = (true, now.saturating_add(AGAIN_MS));
    }

    /// What the record says of the write that is under way.
    fn compare(&mut self, seen: &Seen<N, S>, now: u64, out: &mut Vec<Command<N, S>>) {
        let Some(Write { record, expected, is_stored, .. }) = &self.write else { return };
        let found = &seen.record;
        let is_it = (found.term, found.save, &found.owner) == (record.term, record.save, &record.owner);
        let is_beaten = found.term > record.term || (found.term == record.term && self.phase == Phase::Claiming);
        let is_late = self.phase == Phase::Claiming && seen.revision > *expected;
        if is_it {
            self.landed(seen.revision, now, out);
        } else if is_beaten || is_late || !(self.rules.terms || *is_stored) {
            self.lost(out);
        } else {
            self.wait(now);
        }
    }

    /// The write is stored, though others may have come since.
    fn stored(&mut self, out: &mut Vec<Command<N, S>>) {
        let Some(write) = self.write.as_mut().filter(|write| !write.is_stored) else { return };
        write.is_stored = true;
        if matches!(self.phase, Phase::Saving | Phase::Unsure) {
            out.push(Command::Saved { save: write.record.save });
        }
    }

    /// The write is the last one.
    fn landed(&mut self, revision: u64, now: u64, out: &mut Vec<Command<N, S>>) {
        self.stored(out);
        let Some(Write { record, .. }) = self.write.take() else { return };
        self.ask = Ask::Nothing;
        let (term, save, state) = (record.term, record.save, record.state.clone());
        self.note(Seen { revision, record });
        match self.phase {
            Phase::Claiming => {
                (self.term, self.save, self.suspect) = (term, save, None);
                self.phase = Phase::Adopting { until: now.saturating_add(ADOPTING_MS) };
                out.push(Command::Adopt { term, state });
            }
            Phase::Releasing => {
                self.wanted = false;
                self.follow();
                out.push(Command::Released);
            }
            phase => {
                self.phase = Phase::Owning;
                out.extend((phase == Phase::Unsure).then_some(Command::Resume));
            }
        }
        // A watch may have seen more than that.
        if self.phase != Phase::Following && self.seen.as_ref().is_some_and(|seen| seen.record.term > self.term) {
            self.lost(out);
        }
    }

    /// Another has the group.
    fn lost(&mut self, out: &mut Vec<Command<N, S>>) {
        let was_claiming = self.phase == Phase::Claiming;
        self.follow();
        if was_claiming {
            out.push(Command::Follow { owner: self.owner() });
        } else {
            self.phase = Phase::Fenced;
            out.push(Command::Stop);
        }
    }

    fn follow(&mut self) {
        (self.phase, self.write, self.ask, self.suspect) = (Phase::Following, None, Ask::Nothing, None);
    }

    fn missing(&mut self, out: &mut Vec<Command<N, S>>) {
        if !matches!(self.phase, Phase::Claiming | Phase::Fenced) {
            out.push(Command::Stop);
        }
        self.follow();
        (self.wanted, self.seen) = (false, None);
        out.push(Command::Missing);
    }
}

#[cfg(test)]
mod tests;
