//! The machine against the naive model, over random histories with restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{super::*, naive::Naive, *};

/// The stream ends here.
const LAST: u64 = 40;

/// By sequence: `None` is not for this group, else the key, 0 for none.
type Stream = Vec<Option<u64>>;

#[derive(Debug, Clone)]
enum Step {
    Read {
        count: u64,
    },
    Next {
        member: u64,
    },
    Send {
        member: u64,
        which: usize,
    },
    Unsend {
        member: u64,
        which: usize,
    },
    Say {
        member: u64,
        sequence: u64,
        outcome: Outcome,
        up_to: bool,
    },
    /// Something true, said by whoever has the event.
    Answer {
        which: usize,
        outcome: Outcome,
        up_to: bool,
    },
    Join {
        member: u64,
    },
    Leave {
        member: u64,
    },
    Detach {
        member: u64,
        window: u64,
    },
    Die {
        member: u64,
    },
    Pass {
        ms: u64,
    },
    Bury,
    BuryWithoutState,
    Store,
    Restart,
    Seek {
        sequence: u64,
    },
    Purge {
        through: u64,
    },
    Gone {
        sequence: u64,
    },
    Settings {
        which: u64,
    },
    Reopen {
        sequence: u64,
    },
    /// One has an event from another owner, which knew of `more` failed attempts, or fewer.
    Adopt {
        member: u64,
        which: usize,
        more: u32,
        ms: u64,
    },
    /// One comes back as another, and has of each event, by its bit, whether it holds it; or does not say.
    Succeed {
        member: u64,
        by: u64,
        holds: Option<u64>,
    },
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
        8 => (which(), an_outcome(), prop::bool::weighted(0.3))
            .prop_map(|(which, outcome, up_to)| Step::Answer { which, outcome, up_to }),
        3 => member().prop_map(|member| Step::Join { member }),
        1 => member().prop_map(|member| Step::Leave { member }),
        1 => (member(), 0..60_u64).prop_map(|(member, window)| Step::Detach { member, window }),
        1 => member().prop_map(|member| Step::Die { member }),
        4 => (0..80_u64).prop_map(|ms| Step::Pass { ms }),
        2 => Just(Step::Bury),
        1 => Just(Step::BuryWithoutState),
        2 => Just(Step::Store),
        1 => Just(Step::Restart),
        1 => sequence().prop_map(|sequence| Step::Seek { sequence }),
        1 => sequence().prop_map(|through| Step::Purge { through }),
        1 => sequence().prop_map(|sequence| Step::Gone { sequence }),
        1 => (0..4_u64).prop_map(|which| Step::Settings { which }),
        2 => sequence().prop_map(|sequence| Step::Reopen { sequence }),
        // Not over at once: time does something here only when it passes.
        2 => (member(), which(), 0..4_u32, 1..120_u64)
            .prop_map(|(member, which, more, ms)| Step::Adopt { member, which, more, ms }),
        2 => (member(), member(), prop::option::of(any::<u64>()))
            .prop_map(|(member, by, holds)| Step::Succeed { member, by, holds }),
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

/// One of `sequences`, or 1.
fn pick(sequences: Vec<u64>, which: usize) -> u64 {
    sequences.get(which % sequences.len().max(1)).copied().unwrap_or(1)
}

/// The machine and the model, side by side.
struct Both {
    stream: Stream,
    group: GroupState,
    naive: Naive,
    stored: (Vec<u8>, Naive, BTreeMap<u64, u64>),
    now: u64,
    /// Those that were ever.
    reopened: BTreeSet<u64>,
    /// Every letter that was stored, by its event and round: a store that never forgets one would take no other for it.
    letters: BTreeSet<(u64, u64)>,
    /// The rounds of letters that were stored without the state in which their events are done.
    early: BTreeMap<u64, u64>,
}

impl Both {
    fn new(stream: Stream, look_ahead: usize) -> Self {
        let (mut group, naive) = (GroupState::new(some_settings(0), 0), Naive::new(some_settings(0), 0));
        group.backlog.put_off.look_ahead = look_ahead;
        let stored = (group.encode(&[]), naive.clone(), BTreeMap::new());
        let (reopened, letters, early) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { stream, group, naive, stored, now: 0, reopened, letters, early }
    }

    fn key(&self, sequence: u64) -> Option<u64> {
        self.stream.get(sequence as usize - 1).copied().flatten()
    }

    fn read(&mut self, count: u64) {
        let after = self.group.read_to();
        let through = (after + count).min(LAST).max(after);
        self.offer(after, through);
        let events: Vec<_> = (after + 1..=through).filter_map(|at| Some((at, self.key(at)?))).collect();
        // It takes no more than it can hold.
        self.naive.read(&events, through.min(self.group.read_to()), self.now);
        self.read_again();
    }

    fn offer(&mut self, after: u64, through: u64) {
        let events = (after + 1..=through).filter_map(|at| Some((at, self.key(at)?)));
        let offered: Vec<_> = events.map(|(sequence, key)| (sequence, (key > 0).then_some(key))).collect();
        self.group.offer(after, offered, through, self.now).expect("what is wanted");
    }

    /// Reads what is put off as far as is wanted, some at a time. The model knows of it only by the order in which events
    /// come to be held.
    fn read_again(&mut self) {
        self.naive.note_put_off(&self.group);
        while let Some(feed) = self.group.backlog.feed_again() {
            let before = self.group.counts();
            self.offer(feed.after, (feed.after + 7).min(self.group.read_to()));
            self.naive.note_put_off(&self.group);
            assert_eq!(self.group.counts().pending, before.pending, "nothing is lost by reading again");
        }
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
        // One that was reopened is behind those that were held then.
        let order = |sequence| self.naive.held.get(&sequence).map(|known| known.order);
        for earlier in 1..sequence {
            let same = key.is_some() && self.key(earlier) == key;
            let again = [earlier, sequence].iter().any(|one| self.reopened.contains(one));
            let overtaken = same && !self.is_done(earlier) && (!again || order(earlier) < order(sequence));
            assert!(!overtaken, "{sequence} overtakes {earlier}");
        }
        Some(sequence)
    }

    fn is_done(&self, sequence: u64) -> bool {
        let mut above = self.group.done().ranges();
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
        let burying = self.naive.those(|sequence| self.naive.is_burying(sequence));
        let buried: Vec<u64> = letters.iter().map(|letter| letter.sequence).collect();
        assert_eq!(buried, burying);
        let bytes = self.group.encode(&buried);
        for letter in letters {
            let failed = &self.naive.failed[&letter.sequence];
            let expected = (failed.attempts, failed.reason.as_str(), failed.round);
            assert_eq!((letter.attempts, &*letter.reason, letter.round), expected);
            self.letter(&letter);
            assert!(self.group.buried(letter.sequence));
            self.naive.finish(letter.sequence);
        }
        let bytes = if self.bury_unread() { self.group.encode(&[]) } else { bytes };
        self.stored = (bytes, self.naive.clone(), self.early.clone());
    }

    /// A letter is stored: no other had its id, but one that was stored before its state was, which it must be known by.
    fn letter(&mut self, letter: &DeadLetter) {
        let DeadLetter { sequence, round, .. } = *letter;
        let is_new = self.letters.insert((sequence, round));
        match self.early.remove(&sequence) {
            Some(early) => assert_eq!((early, is_new), (round, false), "the letter of {sequence} is stored twice"),
            None => assert!(is_new, "the letter of {sequence} is taken for another of round {round}"),
        }
    }

    /// The letters are stored, and the owner of the group is lost before the state is. That events were given back, or the group
    /// moved, is stored before.
    fn bury_without_state(&mut self) {
        if self.stored.1.rounds != self.naive.rounds {
            self.store();
        }
        for letter in self.group.dead_letters() {
            self.letters.insert((letter.sequence, letter.round));
            self.stored.2.insert(letter.sequence, letter.round);
        }
        self.restart();
    }

    fn store(&mut self) {
        self.stored = (self.group.encode(&[]), self.naive.clone(), self.early.clone());
    }

    /// What was given up before a restart is buried before it is read again; true when there was some.
    fn bury_unread(&mut self) -> bool {
        let unread = self.group.unread_dead_letters(usize::MAX);
        let sequences: Vec<u64> = unread.iter().map(|letter| letter.sequence).collect();
        assert_eq!(sequences, self.naive.given_up_unread());
        for letter in &unread {
            self.letter(letter);
        }
        for sequence in &sequences {
            let stored = self.group.encode(&[*sequence]);
            assert!(self.group.buried(*sequence));
            assert_eq!(self.group.encode(&[]), stored);
            self.naive.finish(*sequence);
            self.naive.skip();
        }
        !sequences.is_empty()
    }

    fn restart(&mut self) {
        let settings = self.group.settings().clone();
        let look_ahead = self.group.backlog.put_off.look_ahead;
        self.group = GroupState::restore(settings.clone(), &self.stored.0, self.now).expect("what was encoded");
        self.group.backlog.put_off.look_ahead = look_ahead;
        self.naive = self.stored.1.restarted(settings, self.now);
        self.early = self.stored.2.clone();
    }

    fn member_step(&mut self, member: u64, step: &Step) {
        let (member, now) = (MemberId(member), self.now);
        match step {
            Step::Next { .. } => drop(self.next(member)),
            Step::Send { which, .. } => {
                let sequence = pick(self.naive.leases_of(member, false), *which);
                assert_eq!(self.group.sent(member, sequence, now), self.naive.sent(member, sequence, now));
            }
            Step::Unsend { which, .. } => {
                let sequence = pick(self.naive.leases_of(member, false), *which);
                let unsent = self.naive.leases_of(member, false).contains(&sequence);
                assert_eq!(self.group.unsend(member, sequence), unsent);
                if unsent {
                    self.naive.unlease(vec![sequence]);
                }
            }
            Step::Join { .. } => {
                self.group.join(member);
                self.naive.members.entry(member).or_insert(None);
            }
            Step::Succeed { by, holds, .. } => self.succeed(member, MemberId(*by), *holds),
            Step::Adopt { which, more, ms, .. } => {
                let sequence = pick(self.naive.those(|sequence| !self.naive.is_blocked(sequence)), *which);
                let attempt = self.naive.failed.get(&sequence).map_or(0, |failed| failed.attempts) + more;
                let expected = self.naive.adopt(member, sequence, attempt, now + ms);
                assert_eq!(self.group.adopt(member, sequence, attempt, now + ms), expected);
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
                    if self.naive.leases_of(member, true).is_empty() {
                        self.naive.members.remove(&member);
                    } else {
                        self.naive.members.insert(member, Some(self.naive.clock + window));
                    }
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

    fn succeed(&mut self, member: MemberId, by: MemberId, holds: Option<u64>) {
        let bit = |bits: u64, sequence: u64| bits >> sequence & 1 == 1;
        let holds: Option<Vec<u64>> = holds.map(|bits| (1..=LAST).filter(|sequence| bit(bits, *sequence)).collect());
        let is_foreign = |sequence: u64| self.naive.lessee(sequence).is_some_and(|one| one != member && one != by);
        let foreign = self.naive.those(is_foreign);
        let expected = self.naive.succeed(member, by, holds.as_deref(), self.now);
        assert_eq!(self.group.succeed(member, by, holds.as_deref(), self.now), expected);
        self.naive.drop_those_given_up();
        for sequence in holds.into_iter().flatten() {
            let answer = self.naive.judge(by, sequence, &Outcome::Ack);
            let may = [Answer::Applied, Answer::AlreadyDone].contains(&answer);
            assert_eq!(self.group.may_acknowledge(by, sequence), may);
        }
        for sequence in foreign {
            let has = self.group.backlog.held.sent_to(sequence).map(|(member, _)| member);
            assert_ne!(has, Some(by), "{sequence} was another's");
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Read { count } => self.read(*count),
            Step::Say { member, sequence, outcome, up_to } => {
                self.say(MemberId(*member), *sequence, outcome, *up_to);
            }
            Step::Answer { which, outcome, up_to } => {
                let sequence = pick(self.naive.those(|sequence| self.naive.is_leased(sequence)), *which);
                let lease = self.naive.held.get(&sequence).and_then(|known| known.lease.clone());
                self.say(lease.map_or(A, |lease| lease.member), sequence, outcome, *up_to);
            }
            Step::Pass { ms } => {
                self.now += ms;
                self.group.tick(self.now);
                self.naive.tick(self.now);
            }
            Step::Bury => self.bury(),
            Step::BuryWithoutState => self.bury_without_state(),
            Step::Store => self.store(),
            Step::Restart => self.restart(),
            Step::Seek { sequence } => {
                self.group.seek(*sequence);
                self.naive.seek(*sequence);
                // Their next letters are other ones.
                self.early.clear();
            }
            Step::Purge { through } => assert_eq!(self.group.purge(*through), self.naive.purge(*through)),
            // That it is gone is found when it is read again.
            Step::Gone { sequence } if self.naive.is_put_off(*sequence) => {}
            Step::Gone { sequence } => {
                let (tried, known) = (self.naive.failed.contains_key(sequence), self.naive.held.get(sequence));
                let expected = known.map(|known| known.was_sent || tried);
                assert_eq!(self.group.gone(*sequence), expected);
                let unread = expected.is_none() && tried;
                assert_eq!(self.group.gone_unread(*sequence), unread);
                if expected.is_some() || unread {
                    self.naive.finish(*sequence);
                    self.naive.skip();
                    self.naive.drop_those_given_up();
                }
            }
            Step::Reopen { sequence } => {
                if let Some(key) = self.key(*sequence) {
                    assert!(self.group.reopen(*sequence, (key > 0).then_some(key)));
                    self.reopened.insert(*sequence);
                    // Its letter is removed.
                    self.early.remove(sequence);
                    self.naive.reopen(*sequence, key);
                    self.naive.drop_those_given_up();
                }
            }
            Step::Settings { which } => {
                self.group.set_settings(some_settings(*which));
                self.naive.settings = some_settings(*which);
                self.naive.drop_those_given_up();
            }
            Step::Succeed { member, .. }
            | Step::Adopt { member, .. }
            | Step::Next { member }
            | Step::Send { member, .. }
            | Step::Unsend { member, .. }
            | Step::Join { member }
            | Step::Leave { member }
            | Step::Detach { member, .. }
            | Step::Die { member } => self.member_step(*member, step),
        }
        self.read_again();
    }

    fn check(&self) {
        assert_eq!(self.group.counts(), self.naive.counts());
        assert_eq!((self.group.read_to(), self.group.floor()), (self.naive.read_to, self.naive.floor()));
        let done: BTreeSet<u64> = (0..=LAST + 2).filter(|sequence| self.is_done(*sequence)).collect();
        assert_eq!(done, self.naive.done);
        assert_eq!(self.group.due(), self.naive.due());
        for member in (1..4).map(MemberId) {
            let has = [true, false].iter().any(|sent| !self.naive.leases_of(member, *sent).is_empty());
            assert_eq!(self.group.has_leases(member), has, "whether {member:?} holds anything");
        }
        for sequence in &self.naive.acked {
            assert!(done.contains(sequence), "the acknowledgement of {sequence} is lost");
        }
    }

    /// Everybody acknowledges from now on: everything must become done, in few steps.
    fn drain(&mut self) {
        for member in 1..4 {
            self.step(&Step::Leave { member });
        }
        self.step(&Step::Join { member: 1 });
        for _ in 0..20 * LAST {
            self.read(LAST);
            self.bury();
            self.read_again();
            while let Some(sequence) = self.next(A) {
                assert!(self.group.sent(A, sequence, self.now) && self.naive.sent(A, sequence, self.now));
                self.say(A, sequence, &Outcome::Ack, false);
                self.read_again();
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
    fn it_does_what_the_model_does(
        stream in a_stream(),
        look_ahead in prop_oneof![Just(16 * 1024_usize), 8..40_usize],
        steps in prop::collection::vec(a_step(), 0..120),
    ) {
        let mut both = Both::new(stream, look_ahead);
        both.step(&Step::Join { member: 1 });
        let mut before = (both.group.revision(), both.group.encode(&[]));
        for step in &steps {
            both.step(step);
            both.naive.forget_settled();
            both.check();
            let after = (both.group.revision(), both.group.encode(&[]));
            let restarted = matches!(step, Step::Restart | Step::BuryWithoutState);
            prop_assert!(restarted || before.0 < after.0 || before == after, "a change without a revision");
            before = after;
        }
        both.drain();
    }
}
