//! The machine against a naive model that looks at everything each time, over random histories with restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{super::*, *};

/// The stream ends here.
const LAST: u64 = 40;

/// By sequence: `None` is not for this group, else the key, 0 for none.
type Stream = Vec<Option<u64>>;

#[derive(Debug, Clone)]
enum Step {
    Read { count: u64 },
    Next { member: u64 },
    Send { member: u64, which: usize },
    Unsend { member: u64, which: usize },
    Say { member: u64, sequence: u64, outcome: Outcome, up_to: bool },
    /// Something true, said by whoever has the event.
    Answer { which: usize, outcome: Outcome },
    Join { member: u64 },
    Leave { member: u64 },
    Detach { member: u64, window: u64 },
    Die { member: u64 },
    Pass { ms: u64 },
    Bury,
    Store,
    Restart,
    Seek { sequence: u64 },
    Purge { through: u64 },
    Gone { sequence: u64 },
    Settings { which: u64 },
}

fn an_outcome() -> impl Strategy<Value = Outcome> {
    let delay = || prop::option::of(0..50_u64);
    prop_oneof![
        5 => Just(Outcome::Ack),
        3 => (delay(), "[ab]{0,2}").prop_map(|(delay, reason)| Outcome::Nack { delay, reason: reason.into() }),
        1 => delay().prop_map(|delay| Outcome::Extend { delay }),
        1 => "[ab]{0,2}".prop_map(|reason| Outcome::Reject { reason: reason.into() }),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let (member, sequence, which) = (|| 1..4_u64, || 1..LAST + 2, || 0..8_usize);
    prop_oneof![
        4 => (0..15_u64).prop_map(|count| Step::Read { count }),
        8 => member().prop_map(|member| Step::Next { member }),
        8 => (member(), which()).prop_map(|(member, which)| Step::Send { member, which }),
        1 => (member(), which()).prop_map(|(member, which)| Step::Unsend { member, which }),
        2 => (member(), sequence(), an_outcome(), any::<bool>())
            .prop_map(|(member, sequence, outcome, up_to)| Step::Say { member, sequence, outcome, up_to }),
        8 => (which(), an_outcome()).prop_map(|(which, outcome)| Step::Answer { which, outcome }),
        3 => member().prop_map(|member| Step::Join { member }),
        1 => member().prop_map(|member| Step::Leave { member }),
        1 => (member(), 0..60_u64).prop_map(|(member, window)| Step::Detach { member, window }),
        1 => member().prop_map(|member| Step::Die { member }),
        4 => (0..80_u64).prop_map(|ms| Step::Pass { ms }),
        2 => Just(Step::Bury),
        2 => Just(Step::Store),
        1 => Just(Step::Restart),
        1 => sequence().prop_map(|sequence| Step::Seek { sequence }),
        1 => sequence().prop_map(|through| Step::Purge { through }),
        1 => sequence().prop_map(|sequence| Step::Gone { sequence }),
        1 => (0..4_u64).prop_map(|which| Step::Settings { which }),
    ]
}

fn some_settings(which: u64) -> GroupSettings {
    GroupSettings {
        ack_deadline: Duration::from_millis(100),
        max_attempts: [3, 2, 0, 3][which as usize],
        backoff: [10, 0, 40].map(Duration::from_millis)[..which as usize].to_vec(),
        max_unacked: [4, 100, 1, 4][which as usize],
        dead_letter_stream: (which != 3).then(|| StreamName::parse("dead").expect("a name")),
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Lease {
    member: MemberId,
    /// Turn and deadline.
    sent: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    key: u64,
    lease: Option<Lease>,
    was_sent: bool,
}

#[derive(Debug, Clone)]
struct Failed {
    attempts: u32,
    due: u64,
    rejected: bool,
    reason: String,
}

/// The rules, with no thought for speed.
#[derive(Debug, Clone)]
struct Naive {
    settings: GroupSettings,
    clock: u64,
    turn: u64,
    read_to: u64,
    done: BTreeSet<u64>,
    failed: BTreeMap<u64, Failed>,
    held: BTreeMap<u64, Known>,
    /// With the end of the window of one that is detached.
    members: BTreeMap<MemberId, Option<u64>>,
    expired: u64,
    dropped: u64,
    /// Acknowledged, and not since sought back to.
    acked: BTreeSet<u64>,
}

impl Naive {
    fn new(settings: GroupSettings, floor: u64) -> Self {
        Self {
            settings,
            clock: 0,
            turn: 0,
            read_to: floor,
            done: (0..=floor).collect(),
            failed: BTreeMap::new(),
            held: BTreeMap::new(),
            members: BTreeMap::new(),
            expired: 0,
            dropped: 0,
            acked: BTreeSet::new(),
        }
    }

    fn floor(&self) -> u64 {
        (0..).find(|sequence| !self.done.contains(&(sequence + 1))).expect("an end")
    }

    fn is_blocked(&self, sequence: u64) -> bool {
        let key = self.held[&sequence].key;
        key > 0 && self.held.range(..sequence).any(|(_, earlier)| earlier.key == key)
    }

    fn is_final(&self, sequence: u64) -> bool {
        let most = self.settings.max_attempts;
        let failed = self.failed.get(&sequence);
        failed.is_some_and(|failed| failed.rejected || (most > 0 && failed.attempts >= most))
    }

    fn is_leased(&self, sequence: u64) -> bool {
        self.held[&sequence].lease.is_some()
    }

    fn is_burying(&self, sequence: u64) -> bool {
        !self.is_leased(sequence) && !self.is_blocked(sequence) && self.is_final(sequence)
    }

    fn where_(&self, is: impl Fn(u64) -> bool) -> Vec<u64> {
        self.held.keys().copied().filter(|sequence| is(*sequence)).collect()
    }

    fn came_back(&self, sequence: u64) -> bool {
        self.failed.contains_key(&sequence) || self.held[&sequence].was_sent
    }

    fn unacked(&self) -> Vec<u64> {
        self.where_(|sequence| !self.is_blocked(sequence) && (self.is_leased(sequence) || self.came_back(sequence)))
    }

    fn leases_of(&self, member: MemberId, sent: bool) -> Vec<u64> {
        self.where_(|sequence| {
            let lease = self.held[&sequence].lease.as_ref();
            lease.is_some_and(|lease| lease.member == member && lease.sent.is_some() == sent)
        })
    }

    fn finish(&mut self, sequence: u64) {
        self.held.remove(&sequence);
        self.failed.remove(&sequence);
        self.done.insert(sequence);
    }

    fn drop_those_given_up(&mut self) {
        while self.settings.dead_letter_stream.is_none()
            && let Some(sequence) = self.where_(|sequence| self.is_burying(sequence)).first()
        {
            self.finish(*sequence);
            self.dropped += 1;
        }
    }

    fn fail(&mut self, sequence: u64, reason: &str, delay: Option<u64>, rejected: bool) {
        let attempts = self.failed.get(&sequence).map_or(0, |failed| failed.attempts) + 1;
        let steps: Vec<u64> = self.settings.backoff.iter().map(|wait| wait.as_millis() as u64).collect();
        let wait = steps.get(attempts as usize - 1).or(steps.last()).copied().unwrap_or(0);
        let due = self.clock + delay.unwrap_or(wait);
        self.failed.insert(sequence, Failed { attempts, due, rejected, reason: reason.to_owned() });
        self.held.get_mut(&sequence).expect("held").lease = None;
    }

    fn tick(&mut self, now: u64) {
        self.clock = self.clock.max(now);
        for sequence in self.where_(|sequence| self.deadline(sequence).is_some_and(|end| end <= self.clock)) {
            self.expired += 1;
            self.fail(sequence, "it was not acknowledged in time", None, false);
        }
        let over = |until: &Option<u64>| until.is_some_and(|until| until <= self.clock);
        let lost: Vec<_> = self.members.iter().filter(|(_, until)| over(until)).map(|(member, _)| *member).collect();
        for member in lost {
            self.lose(member);
        }
        self.drop_those_given_up();
    }

    fn deadline(&self, sequence: u64) -> Option<u64> {
        self.held[&sequence].lease.as_ref().and_then(|lease| lease.sent).map(|(_, deadline)| deadline)
    }

    fn unlease(&mut self, sequences: Vec<u64>) {
        for sequence in sequences {
            self.held.get_mut(&sequence).expect("held").lease = None;
        }
    }

    fn lose(&mut self, member: MemberId) {
        self.members.remove(&member);
        self.unlease(self.leases_of(member, false));
        for sequence in self.leases_of(member, true) {
            self.fail(sequence, "the member it was delivered to was lost", None, false);
        }
    }

    fn leave(&mut self, member: MemberId) {
        self.members.remove(&member);
        self.unlease(self.leases_of(member, false));
        self.unlease(self.leases_of(member, true));
    }

    fn next(&mut self, member: MemberId, now: u64) -> Option<Delivery> {
        self.tick(now);
        if self.members.get(&member) != Some(&None) {
            return None;
        }
        let ready = self.where_(|sequence| {
            let waits = self.failed.get(&sequence).is_some_and(|failed| failed.due > self.clock);
            !self.is_leased(sequence) && !self.is_blocked(sequence) && !self.is_final(sequence) && !waits
        });
        let again = ready.iter().find(|sequence| self.came_back(**sequence));
        let room = self.unacked().len() < self.settings.max_unacked as usize;
        let sequence = *again.or(ready.first().filter(|_| room))?;
        self.held.get_mut(&sequence).expect("held").lease = Some(Lease { member, sent: None });
        let failed = self.failed.get(&sequence);
        let last_failure = failed.map_or("", |failed| &failed.reason).into();
        Some(Delivery { sequence, attempt: failed.map_or(0, |failed| failed.attempts) + 1, last_failure })
    }

    fn sent(&mut self, member: MemberId, sequence: u64, now: u64) -> bool {
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

    fn judge(&self, member: MemberId, sequence: u64, outcome: &Outcome) -> Answer {
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

    fn say(&mut self, member: MemberId, sequence: u64, outcome: &Outcome, up_to: bool, now: u64) -> UpTo {
        self.tick(now);
        let answer = self.judge(member, sequence, outcome);
        if answer != Answer::Applied {
            return UpTo { answer, applied: 0 };
        }
        let turn = |naive: &Self, sequence: u64| {
            naive.held[&sequence].lease.as_ref().and_then(|lease| lease.sent).map(|(turn, _)| turn)
        };
        let mut all = vec![sequence];
        if let (true, Some(last)) = (up_to, turn(self, sequence)) {
            all = self.leases_of(member, true);
            all.retain(|sequence| turn(self, *sequence).is_some_and(|turn| turn <= last));
        }
        for sequence in &all {
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

    fn read(&mut self, events: &[(u64, u64)], through: u64, now: u64) {
        self.tick(now);
        for sequence in self.read_to + 1..=through {
            match events.iter().find(|(known, _)| *known == sequence) {
                Some((_, key)) if !self.done.contains(&sequence) => {
                    self.held.insert(sequence, Known { key: *key, ..Known::default() });
                }
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

    fn skip(&mut self) {
        while self.done.contains(&(self.read_to + 1)) {
            self.read_to += 1;
        }
    }

    fn purge(&mut self, through: u64) -> usize {
        let before = self.held.len();
        for sequence in self.done.last().map_or(1, |_| 1)..=through {
            self.finish(sequence);
        }
        let lost = before - self.held.len();
        self.read_to = self.read_to.max(through);
        self.skip();
        self.drop_those_given_up();
        lost
    }

    fn seek(&mut self, sequence: u64) {
        let old = self.clone();
        *self = Self::new(old.settings, sequence - 1);
        (self.clock, self.members, self.expired, self.dropped) = (old.clock, old.members, old.expired, old.dropped);
        self.acked = old.acked.range(..sequence).copied().collect();
    }

    fn restarted(&self, settings: GroupSettings, now: u64) -> Self {
        let mut again = Self::new(settings, self.floor());
        again.clock = now;
        (again.done, again.failed, again.acked) = (self.done.clone(), self.failed.clone(), self.acked.clone());
        again
    }

    fn counts(&self) -> Counts {
        let (unacked, leased) = (self.unacked().len(), self.where_(|sequence| self.is_leased(sequence)).len());
        let burying = self.where_(|sequence| self.is_burying(sequence)).len();
        Counts {
            pending: self.held.len() - unacked,
            unacked,
            leased,
            redelivering: unacked - leased - burying,
            burying,
            members: self.members.len(),
            expired: self.expired,
            dropped: self.dropped,
        }
    }

    fn due(&self) -> Option<u64> {
        let ends = self.held.keys().filter_map(|sequence| self.deadline(*sequence));
        let waiting = self.where_(|sequence| {
            !self.is_leased(sequence) && !self.is_blocked(sequence) && !self.is_final(sequence)
        });
        let waits = waiting.iter().filter_map(|sequence| Some(self.failed.get(sequence)?.due));
        // What is due already rings no more.
        let waits = waits.filter(|due| *due > self.clock);
        ends.chain(waits).chain(self.members.values().flatten().copied()).min()
    }
}

/// The machine and the model, side by side.
struct Both {
    stream: Stream,
    group: GroupState,
    naive: Naive,
    stored: (Vec<u8>, Naive),
    now: u64,
}

impl Both {
    fn new(stream: Stream) -> Self {
        let (group, naive) = (GroupState::new(some_settings(0), 0), Naive::new(some_settings(0), 0));
        let stored = (group.encode(&[]), naive.clone());
        Self { stream, group, naive, stored, now: 0 }
    }

    fn key(&self, sequence: u64) -> Option<u64> {
        self.stream.get(sequence as usize - 1).copied().flatten()
    }

    fn read(&mut self, count: u64) {
        let after = self.group.read_to();
        let through = (after + count).min(LAST).max(after);
        let events: Vec<_> = (after + 1..=through).filter_map(|at| Some((at, self.key(at)?))).collect();
        let offered = events.iter().map(|(sequence, key)| (*sequence, (*key > 0).then_some(*key)));
        self.group.offer(after, offered, through, self.now).expect("what is wanted");
        self.naive.read(&events, through, self.now);
    }

    fn next(&mut self, member: MemberId) -> Option<u64> {
        let delivery = self.group.next(member, self.now);
        assert_eq!(delivery, self.naive.next(member, self.now));
        let delivery = delivery?;
        let sequence = delivery.sequence;
        assert!(!self.naive.acked.contains(&sequence), "{sequence} was acknowledged");
        let most = self.group.settings().max_attempts;
        assert!(most == 0 || delivery.attempt <= most, "{sequence} has attempt {}", delivery.attempt);
        let key = self.key(sequence).filter(|key| *key > 0);
        for earlier in 1..sequence {
            let overtaken = key.is_some() && self.key(earlier) == key && !self.is_done(earlier);
            assert!(!overtaken, "{sequence} overtakes {earlier}");
        }
        Some(sequence)
    }

    fn is_done(&self, sequence: u64) -> bool {
        let mut above = self.group.done_above();
        sequence <= self.group.floor() || above.any(|(first, last)| (first..=last).contains(&sequence))
    }

    fn say(&mut self, member: MemberId, sequence: u64, outcome: &Outcome, up_to: bool) {
        let expected = self.naive.say(member, sequence, outcome, up_to, self.now);
        if up_to {
            assert_eq!(self.group.acknowledge_up_to(member, sequence, outcome, self.now), expected);
        } else {
            assert_eq!(self.group.acknowledge(member, sequence, outcome, self.now), expected.answer);
        }
    }

    fn bury(&mut self) {
        let letters: Vec<_> = self.group.dead_letters().collect();
        let burying = self.naive.where_(|sequence| self.naive.is_burying(sequence));
        let buried: Vec<u64> = letters.iter().map(|letter| letter.sequence).collect();
        assert_eq!(buried, burying);
        let bytes = self.group.encode(&buried);
        for letter in letters {
            let failed = &self.naive.failed[&letter.sequence];
            assert_eq!((letter.attempts, &*letter.reason), (failed.attempts, failed.reason.as_str()));
            assert!(self.group.buried(letter.sequence));
            self.naive.finish(letter.sequence);
        }
        self.stored = (bytes, self.naive.clone());
    }

    fn restart(&mut self) {
        let settings = self.group.settings().clone();
        self.group = GroupState::restore(settings.clone(), &self.stored.0, self.now).expect("what was encoded");
        self.naive = self.stored.1.restarted(settings, self.now);
    }

    fn pick(&self, sequences: Vec<u64>, which: usize) -> u64 {
        sequences.get(which % sequences.len().max(1)).copied().unwrap_or(1)
    }

    fn member_step(&mut self, member: u64, step: &Step) {
        let (member, now) = (MemberId(member), self.now);
        match step {
            Step::Next { .. } => drop(self.next(member)),
            Step::Send { which, .. } => {
                let sequence = self.pick(self.naive.leases_of(member, false), *which);
                assert_eq!(self.group.sent(member, sequence, now), self.naive.sent(member, sequence, now));
            }
            Step::Unsend { which, .. } => {
                let sequence = self.pick(self.naive.leases_of(member, false), *which);
                let unsent = self.naive.leases_of(member, false).contains(&sequence);
                assert_eq!(self.group.unsend(member, sequence), unsent);
                if unsent {
                    self.naive.unlease(vec![sequence]);
                }
            }
            Step::Join { .. } => {
                let joined = match self.naive.members.insert(member, None) {
                    None => Joined::New,
                    Some(None) => Joined::Present,
                    Some(Some(_)) => Joined::Reattached,
                };
                assert_eq!(self.group.join(member), joined);
            }
            Step::Leave { .. } => {
                self.group.leave(member);
                self.naive.leave(member);
            }
            Step::Detach { window, .. } => {
                self.group.detach(member, *window, now);
                self.naive.tick(now);
                if self.naive.members.get(&member) == Some(&None) {
                    self.naive.unlease(self.naive.leases_of(member, false));
                    match self.naive.leases_of(member, true).is_empty() {
                        true => self.naive.members.remove(&member),
                        false => self.naive.members.insert(member, Some(self.naive.clock + window)),
                    };
                }
            }
            Step::Die { .. } => {
                self.group.die(member, now);
                self.naive.tick(now);
                self.naive.lose(member);
            }
            _ => {}
        }
        self.naive.drop_those_given_up();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Read { count } => self.read(*count),
            Step::Say { member, sequence, outcome, up_to } => {
                self.say(MemberId(*member), *sequence, outcome, *up_to);
            }
            Step::Answer { which, outcome } => {
                let sequence = self.pick(self.naive.where_(|sequence| self.naive.is_leased(sequence)), *which);
                let lease = self.naive.held.get(&sequence).and_then(|known| known.lease.clone());
                self.say(lease.map_or(A, |lease| lease.member), sequence, outcome, false);
            }
            Step::Pass { ms } => {
                self.now += ms;
                self.group.tick(self.now);
                self.naive.tick(self.now);
            }
            Step::Bury => self.bury(),
            Step::Store => self.stored = (self.group.encode(&[]), self.naive.clone()),
            Step::Restart => self.restart(),
            Step::Seek { sequence } => {
                self.group.seek(*sequence);
                self.naive.seek(*sequence);
            }
            Step::Purge { through } => assert_eq!(self.group.purge(*through), self.naive.purge(*through)),
            Step::Gone { sequence } => {
                let known = self.naive.held.contains_key(sequence) && !self.naive.is_blocked(*sequence);
                assert_eq!(self.group.gone(*sequence), known);
                if known {
                    self.naive.finish(*sequence);
                    self.naive.drop_those_given_up();
                }
            }
            Step::Settings { which } => {
                self.group.set_settings(some_settings(*which));
                self.naive.settings = some_settings(*which);
                self.naive.drop_those_given_up();
            }
            Step::Next { member }
            | Step::Send { member, .. }
            | Step::Unsend { member, .. }
            | Step::Join { member }
            | Step::Leave { member }
            | Step::Detach { member, .. }
            | Step::Die { member } => self.member_step(*member, step),
        }
    }

    fn check(&self) {
        assert_eq!(self.group.counts(), self.naive.counts());
        assert_eq!((self.group.read_to(), self.group.floor()), (self.naive.read_to, self.naive.floor()));
        let done: BTreeSet<u64> = (0..=LAST + 2).filter(|sequence| self.is_done(*sequence)).collect();
        assert_eq!(done, self.naive.done);
        assert_eq!(self.group.due(), self.naive.due());
        for sequence in &self.naive.acked {
            assert!(done.contains(sequence), "the acknowledgement of {sequence} is lost");
        }
    }

    /// Everybody acknowledges from now on: everything must become done, in few steps.
    fn drain(&mut self) {
        self.group.join(A);
        self.naive.members.insert(A, None);
        for _ in 0..20 * LAST {
            self.read(LAST);
            self.bury();
            while let Some(sequence) = self.next(A) {
                assert!(self.group.sent(A, sequence, self.now) && self.naive.sent(A, sequence, self.now));
                self.say(A, sequence, &Outcome::Ack, false);
            }
            self.check();
            if self.group.floor() >= LAST && self.group.counts().pending == 0 {
                return;
            }
            self.now = self.group.due().unwrap_or(self.now);
        }
        panic!("something is stuck: {:?}", self.group);
    }
}

fn a_stream() -> impl Strategy<Value = Stream> {
    prop::collection::vec(prop_oneof![1 => Just(None), 6 => (0..4_u64).prop_map(Some)], LAST as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn it_does_what_the_model_does(stream in a_stream(), steps in prop::collection::vec(a_step(), 0..120)) {
        let mut both = Both::new(stream);
        both.step(&Step::Join { member: 1 });
        let mut before = (both.group.revision(), both.group.encode(&[]));
        for step in &steps {
            both.step(step);
            both.check();
            let after = (both.group.revision(), both.group.encode(&[]));
            let restarted = matches!(step, Step::Restart);
            prop_assert!(restarted || before.0 < after.0 || before == after, "a change without a revision");
            before = after;
        }
        both.drain();
    }
}
