//! The rules of a group with no thought for speed: everything is looked at each time.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::*, *};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lease {
    pub(super) member: MemberId,
    /// Turn and deadline.
    pub(super) sent: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) key: u64,
    /// Those of one key go in the order in which they came to be held: not put off.
    pub(super) order: u64,
    pub(super) lease: Option<Lease>,
    pub(super) was_sent: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) attempts: u32,
    /// With a member that was lost, in a row.
    pub(super) losses: u32,
    pub(super) due: u64,
    pub(super) rejected: bool,
    pub(super) reason: String,
    /// Of its letter.
    pub(super) round: u64,
}

/// The order of what is put off begins here.
const PUT_OFF: u64 = 1 << 32;

/// The rules, with no thought for speed.
#[derive(Debug, Clone)]
pub(super) struct Naive {
    pub(super) settings: GroupSettings,
    pub(super) clock: u64,
    pub(super) turn: u64,
    pub(super) order: u64,
    pub(super) read_to: u64,
    pub(super) done: BTreeSet<u64>,
    pub(super) failed: BTreeMap<u64, Failed>,
    pub(super) held: BTreeMap<u64, Known>,
    /// With the end of the window of one that is detached.
    pub(super) members: BTreeMap<MemberId, Option<u64>>,
    pub(super) expired: u64,
    pub(super) dropped: u64,
    /// Who settled what, and in which turn it was sent, while that one has others that were sent earlier.
    pub(super) settled: Vec<(MemberId, u64, u64)>,
    /// Acknowledged, and not since sought back to.
    pub(super) acked: BTreeSet<u64>,
    /// How often events were given back or the group was moved, and the count of the last move.
    pub(super) rounds: (u64, u64),
}

impl Naive {
    pub(super) fn new(settings: GroupSettings, floor: u64) -> Self {
        Self {
            settings,
            clock: 0,
            turn: 0,
            order: 0,
            read_to: floor,
            done: (0..=floor).collect(),
            failed: BTreeMap::new(),
            held: BTreeMap::new(),
            members: BTreeMap::new(),
            expired: 0,
            dropped: 0,
            settled: Vec::new(),
            acked: BTreeSet::new(),
            rounds: (0, 0),
        }
    }

    pub(super) fn floor(&self) -> u64 {
        (0..1_000).find(|sequence| !self.done.contains(&(sequence + 1))).expect("an end")
    }

    pub(super) fn is_blocked(&self, sequence: u64) -> bool {
        let Known { key, order, .. } = self.held[&sequence];
        key > 0 && self.held.values().any(|other| other.key == key && other.order < order)
    }

    /// What is put off is behind all that is held of its key.
    pub(super) fn note_put_off(&mut self, group: &GroupState) {
        for (sequence, known) in &mut self.held {
            if !group.holds(*sequence) {
                known.order = PUT_OFF + sequence;
            } else if known.order >= PUT_OFF {
                self.order += 1;
                known.order = self.order;
            }
        }
    }

    pub(super) fn is_put_off(&self, sequence: u64) -> bool {
        self.held.get(&sequence).is_some_and(|known| known.order >= PUT_OFF)
    }

    pub(super) fn is_final(&self, sequence: u64) -> bool {
        let most = self.settings.max_attempts;
        let failed = self.failed.get(&sequence);
        failed.is_some_and(|failed| failed.rejected || (most > 0 && failed.attempts >= most))
    }

    pub(super) fn is_leased(&self, sequence: u64) -> bool {
        self.held[&sequence].lease.is_some()
    }

    /// Which member has it.
    pub(super) fn lessee(&self, sequence: u64) -> Option<MemberId> {
        self.held[&sequence].lease.as_ref().map(|lease| lease.member)
    }

    pub(super) fn is_burying(&self, sequence: u64) -> bool {
        !self.is_leased(sequence) && !self.is_blocked(sequence) && self.is_final(sequence)
    }

    pub(super) fn those(&self, is: impl Fn(u64) -> bool) -> Vec<u64> {
        self.held.keys().copied().filter(|sequence| is(*sequence)).collect()
    }

    pub(super) fn came_back(&self, sequence: u64) -> bool {
        self.has_failed(sequence) || self.held[&sequence].was_sent
    }

    pub(super) fn has_failed(&self, sequence: u64) -> bool {
        self.failed.get(&sequence).is_some_and(|failed| failed.attempts + failed.losses > 0)
    }

    /// Given up before a restart, and not read since.
    pub(super) fn given_up_unread(&self) -> Vec<u64> {
        let unread = self.failed.keys().copied().filter(|sequence| *sequence > self.read_to);
        unread.filter(|sequence| self.is_final(*sequence)).collect()
    }

    pub(super) fn unacked(&self) -> Vec<u64> {
        self.those(|sequence| !self.is_blocked(sequence) && (self.is_leased(sequence) || self.came_back(sequence)))
    }

    pub(super) fn leases_of(&self, member: MemberId, sent: bool) -> Vec<u64> {
        self.those(|sequence| {
            let lease = self.held[&sequence].lease.as_ref();
            lease.is_some_and(|lease| lease.member == member && lease.sent.is_some() == sent)
        })
    }

    pub(super) fn finish(&mut self, sequence: u64) {
        self.held.remove(&sequence);
        self.failed.remove(&sequence);
        self.done.insert(sequence);
    }

    pub(super) fn drop_those_given_up(&mut self) {
        while self.settings.dead_letter_stream.is_none()
            && let Some(sequence) = self.those(|sequence| self.is_burying(sequence)).first()
        {
            self.finish(*sequence);
            self.dropped += 1;
        }
    }

    pub(super) fn fail(&mut self, sequence: u64, reason: &str, delay: Option<u64>, rejected: bool) {
        let attempts = self.failed.get(&sequence).map_or(0, |failed| failed.attempts) + 1;
        let due = self.clock + delay.unwrap_or_else(|| self.backoff(attempts));
        let (round, reason) = (self.round(sequence), reason.to_owned());
        self.failed.insert(sequence, Failed { attempts, losses: 0, due, rejected, reason, round });
        self.held.get_mut(&sequence).expect("held").lease = None;
    }

    /// That of the letter that an event would have.
    fn round(&self, sequence: u64) -> u64 {
        self.failed.get(&sequence).map_or(self.rounds.1, |failed| failed.round)
    }

    fn backoff(&self, times: u32) -> u64 {
        let steps: Vec<u64> = self.settings.backoff.iter().map(|wait| wait.as_millis() as u64).collect();
        steps.get(times as usize - 1).or(steps.last()).copied().unwrap_or(0)
    }

    /// It was with a member that is lost, and may be back: three times in a row nobody counts that.
    fn lose_one(&mut self, sequence: u64, is_back: bool) {
        let before = self.failed.get(&sequence).cloned();
        let losses = before.as_ref().map_or(0, |failed| failed.losses) + 1;
        if losses > 3 {
            self.fail(sequence, "the member it was delivered to was lost", None, false);
            self.failed.get_mut(&sequence).expect("failed").losses = losses;
            return;
        }
        let (attempts, reason) = before.map_or((0, String::new()), |failed| (failed.attempts, failed.reason));
        let due = self.clock + if is_back { 0 } else { self.backoff(losses) };
        let round = self.round(sequence);
        self.failed.insert(sequence, Failed { attempts, losses, due, rejected: false, reason, round });
        self.held.get_mut(&sequence).expect("held").lease = None;
    }

    fn is_with_one_away(&self, sequence: u64) -> bool {
        let lessee = self.lessee(sequence);
        lessee.is_some_and(|member| matches!(self.members.get(&member), Some(Some(_))))
    }

    pub(super) fn tick(&mut self, now: u64) {
        self.clock = self.clock.max(now);
        for sequence in self.those(|sequence| self.deadline(sequence).is_some_and(|end| end <= self.clock)) {
            self.expired += 1;
            if self.is_with_one_away(sequence) {
                self.lose_one(sequence, false);
            } else {
                self.fail(sequence, "it was not acknowledged in time", None, false);
            }
        }
        let over = |until: &Option<u64>| until.is_some_and(|until| until <= self.clock);
        let lost: Vec<_> = self.members.iter().filter(|(_, until)| over(until)).map(|(member, _)| *member).collect();
        for member in lost {
            self.lose(member);
        }
        self.drop_those_given_up();
    }

    pub(super) fn deadline(&self, sequence: u64) -> Option<u64> {
        self.held[&sequence].lease.as_ref().and_then(|lease| lease.sent).map(|(_, deadline)| deadline)
    }

    pub(super) fn unlease(&mut self, sequences: Vec<u64>) {
        for sequence in sequences {
            self.held.get_mut(&sequence).expect("held").lease = None;
        }
    }

    pub(super) fn lose(&mut self, member: MemberId) {
        self.members.remove(&member);
        self.unlease(self.leases_of(member, false));
        for sequence in self.leases_of(member, true) {
            self.lose_one(sequence, false);
        }
    }

    pub(super) fn leave(&mut self, member: MemberId) {
        self.members.remove(&member);
        self.unlease(self.leases_of(member, false));
        self.unlease(self.leases_of(member, true));
    }

    pub(super) fn next(&mut self, member: MemberId, now: u64) -> Option<Delivery> {
        self.tick(now);
        if self.members.get(&member) != Some(&None) {
            return None;
        }
        let ready = self.those(|sequence| {
            let waits = self.failed.get(&sequence).is_some_and(|failed| failed.due > self.clock);
            !self.is_leased(sequence) && !self.is_blocked(sequence) && !self.is_final(sequence) && !waits
        });
        let again = ready.iter().find(|sequence| self.came_back(**sequence));
        let room = self.unacked().len() < self.settings.max_unacked as usize;
        let sequence = *again.or(ready.first().filter(|_| room))?;
        let known = self.held.get_mut(&sequence).expect("held");
        known.lease = Some(Lease { member, sent: None });
        let failed = self.failed.get(&sequence);
        let (redelivered, attempt) =
            (known.was_sent || failed.is_some(), failed.map_or(0, |failed| failed.attempts) + 1);
        let last_failure = failed.map_or("", |failed| &failed.reason).into();
        Some(Delivery { sequence, attempt, last_failure, redelivered })
    }

    pub(super) fn sent(&mut self, member: MemberId, sequence: u64, now: u64) -> bool {
        if !self.leases_of(member, false).contains(&sequence) {
            return false;
        }
        self.tick(now);
        self.turn += 1;
        let sent = Some((self.turn, self.clock + self.settings.ack_deadline.as_millis() as u64));
        let known = self.held.get_mut(&sequence).expect("held");
        (known.lease, known.was_sent) = (Some(Lease { member, sent }), true);
        true
    }

    /// An event is with a member since it was handed out elsewhere.
    pub(super) fn adopt(&mut self, member: MemberId, sequence: u64, attempt: u32, deadline: u64) -> bool {
        let before = self.failed.get(&sequence).cloned();
        let failed = before.as_ref().map_or(0, |failed| failed.attempts);
        let is_held = self.held.contains_key(&sequence) && !self.is_put_off(sequence);
        let is_free = is_held && !self.is_leased(sequence) && !self.is_burying(sequence);
        if !is_free || attempt <= failed || !self.members.contains_key(&member) {
            return false;
        }
        if attempt - 1 > failed {
            let (losses, reason) = before.map_or((0, String::new()), |before| (before.losses, before.reason));
            let (attempts, due, round) = (attempt - 1, self.clock, self.round(sequence));
            self.failed.insert(sequence, Failed { attempts, losses, due, rejected: false, reason, round });
        }
        self.turn += 1;
        let sent = Some((self.turn, deadline));
        let known = self.held.get_mut(&sequence).expect("held");
        (known.lease, known.was_sent) = (Some(Lease { member, sent }), true);
        true
    }

    pub(super) fn judge(&self, member: MemberId, sequence: u64, outcome: &Outcome) -> Answer {
        let Some(known) = self.held.get(&sequence) else {
            return if self.done.contains(&sequence) { Answer::AlreadyDone } else { Answer::NotDelivered };
        };
        if known.lease.as_ref().is_some_and(|lease| lease.member == member) {
            Answer::Applied
        } else if self.is_burying(sequence) && matches!(outcome, Outcome::Reject { .. }) {
            Answer::AlreadyDone
        } else if self.came_back(sequence) {
            Answer::Expired
        } else {
            Answer::NotDelivered
        }
    }

    pub(super) fn say(&mut self, member: MemberId, sequence: u64, outcome: &Outcome, up_to: bool, now: u64) -> UpTo {
        self.tick(now);
        let answer = self.judge(member, sequence, outcome);
        let last = match answer {
            Answer::Applied => self.turn_of(sequence),
            Answer::AlreadyDone if up_to => {
                let before = self.settled.iter().rfind(|(by, settled, _)| (*by, *settled) == (member, sequence));
                before.map(|(.., turn)| *turn)
            }
            _ => None,
        };
        let mut all = if answer == Answer::Applied { vec![sequence] } else { Vec::new() };
        if let (true, Some(last)) = (up_to, last) {
            all = self.leases_of(member, true);
            all.retain(|sequence| self.turn_of(*sequence).is_some_and(|turn| turn <= last));
        }
        // In the order of sending, as what is settled before what was sent earlier is remembered.
        all.sort_unstable_by_key(|sequence| self.turn_of(*sequence));
        for sequence in &all {
            if let (Outcome::Ack | Outcome::Reject { .. }, Some(turn)) = (outcome, self.turn_of(*sequence)) {
                self.settled.push((member, *sequence, turn));
            }
            match outcome {
                Outcome::Ack => {
                    self.finish(*sequence);
                    self.acked.insert(*sequence);
                }
                Outcome::Nack { delay, reason } => self.fail(*sequence, reason, *delay, false),
                Outcome::Reject { reason } => self.fail(*sequence, reason, Some(0), true),
                Outcome::Extend { delay } => {
                    let more = delay.unwrap_or(self.settings.ack_deadline.as_millis() as u64);
                    let lease = self.held.get_mut(sequence).and_then(|known| known.lease.as_mut()).expect("leased");
                    lease.sent = lease.sent.map(|(turn, _)| (turn, self.clock + more));
                }
            }
        }
        self.drop_those_given_up();
        UpTo { answer, applied: all.len() }
    }

    pub(super) fn turn_of(&self, sequence: u64) -> Option<u64> {
        self.held.get(&sequence)?.lease.as_ref()?.sent.map(|(turn, _)| turn)
    }

    pub(super) fn forget_settled(&mut self) {
        let settled = std::mem::take(&mut self.settled);
        let earlier = |member, turn| self.leases_of(member, true).iter().any(|one| self.turn_of(*one) < Some(turn));
        self.settled = settled.iter().filter(|(member, _, turn)| earlier(*member, *turn)).copied().collect();
    }

    pub(super) fn read(&mut self, events: &[(u64, u64)], through: u64, now: u64) {
        self.tick(now);
        for sequence in self.read_to + 1..=through {
            match events.iter().find(|(known, _)| *known == sequence) {
                Some((_, key)) if !self.done.contains(&sequence) => self.hold(sequence, *key),
                _ => {
                    self.failed.remove(&sequence);
                    self.done.insert(sequence);
                }
            }
        }
        self.read_to = self.read_to.max(through);
        self.skip();
        self.drop_those_given_up();
    }

    pub(super) fn hold(&mut self, sequence: u64, key: u64) {
        self.order += 1;
        self.held.insert(sequence, Known { key, order: self.order, ..Known::default() });
    }

    pub(super) fn reopen(&mut self, sequence: u64, key: u64) {
        self.rounds.0 += 1;
        let (round, is_final) = (self.rounds.0, self.failed.contains_key(&sequence) && self.is_final(sequence));
        match self.failed.get_mut(&sequence).filter(|_| !is_final) {
            Some(failed) => failed.round = round,
            None => {
                let given_back =
                    Failed { attempts: 0, losses: 0, due: 0, rejected: false, reason: String::new(), round };
                self.failed.insert(sequence, given_back);
            }
        }
        if self.done.remove(&sequence) {
            self.acked.remove(&sequence);
            if sequence <= self.read_to {
                self.hold(sequence, key);
            }
        }
    }

    pub(super) fn succeed(&mut self, old: MemberId, new: MemberId, holds: Option<&[u64]>, now: u64) -> bool {
        self.tick(now);
        self.members.entry(new).or_insert(None);
        if old == new || self.members.remove(&old).is_none() {
            return false;
        }
        let is_held = |sequence: u64| holds.is_none_or(|holds| holds.contains(&sequence));
        let mut sent = self.leases_of(old, true);
        sent.sort_unstable_by_key(|sequence| self.turn_of(*sequence));
        // What it has, it has read, and what came before that.
        let read = sent.iter().rposition(|sequence| is_held(*sequence)).map_or(0, |last| last + 1);
        for (at, sequence) in sent.into_iter().enumerate() {
            if is_held(sequence) {
                self.held.get_mut(&sequence).and_then(|known| known.lease.as_mut()).expect("leased").member = new;
            } else if at == read {
                self.lose_one(sequence, true);
            } else {
                self.unlease(vec![sequence]);
            }
        }
        for sequence in self.leases_of(old, false) {
            self.unlease(vec![sequence]);
            if holds.is_some() && is_held(sequence) {
                self.held.get_mut(&sequence).expect("held").lease = Some(Lease { member: new, sent: None });
                self.sent(new, sequence, now);
            }
        }
        true
    }

    pub(super) fn skip(&mut self) {
        while self.done.contains(&(self.read_to + 1)) {
            self.read_to += 1;
        }
    }

    pub(super) fn purge(&mut self, through: u64) -> u64 {
        let lost = (1..=through).filter(|sequence| !self.done.contains(sequence)).count() as u64;
        for sequence in 1..=through {
            self.finish(sequence);
        }
        self.read_to = self.read_to.max(through);
        self.skip();
        self.drop_those_given_up();
        lost
    }

    pub(super) fn seek(&mut self, sequence: u64) {
        let old = self.clone();
        *self = Self::new(old.settings, sequence - 1);
        (self.clock, self.members, self.expired, self.dropped) = (old.clock, old.members, old.expired, old.dropped);
        self.acked = old.acked.range(..sequence).copied().collect();
        self.rounds = (old.rounds.0 + 1, old.rounds.0 + 1);
    }

    pub(super) fn restarted(&self, settings: GroupSettings, now: u64) -> Self {
        let mut again = Self::new(settings, self.floor());
        again.clock = now;
        (again.done, again.failed, again.acked) = (self.done.clone(), self.failed.clone(), self.acked.clone());
        again.rounds = self.rounds;
        again
    }

    pub(super) fn counts(&self) -> Counts {
        let (unacked, leased) = (self.unacked().len(), self.those(|sequence| self.is_leased(sequence)).len());
        let burying = self.those(|sequence| self.is_burying(sequence)).len();
        Counts {
            pending: self.held.len() - unacked,
            unacked,
            leased,
            redelivering: unacked - leased - burying,
            burying,
            behind: self.those(|sequence| self.is_blocked(sequence)).len(),
            members: self.members.len(),
            expired: self.expired,
            dropped: self.dropped,
        }
    }

    pub(super) fn due(&self) -> Option<u64> {
        let ends = self.held.keys().filter_map(|sequence| self.deadline(*sequence));
        let waiting =
            self.those(|sequence| !self.is_leased(sequence) && !self.is_blocked(sequence) && !self.is_final(sequence));
        let waits = waiting.iter().filter_map(|sequence| Some(self.failed.get(sequence)?.due));
        // What is due already rings no more.
        let waits = waits.filter(|due| *due > self.clock);
        ends.chain(waits).chain(self.members.values().flatten().copied()).min()
    }
}
