//! Three replicas, one store, and a network that fails: no acknowledgement that was confirmed is ever lost.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

/// A replica, and how often it was started.
type Node = (usize, u32);
/// The events that are acknowledged, by their bits.
type Acked = u128;

const REPLICAS: usize = 3;
/// What happens from outside in one history.
const STEPS: usize = 120;

#[derive(Debug, Clone)]
enum OnItsWay {
    Request { from: Node, command: Command<Node, Acked>, answered: bool },
    Answer { to: Node, request: u64, answer: Answer<Node, Acked> },
}

/// The record of one group, with all that it was.
struct Store {
    history: Vec<Seen<Node, Acked>>,
    ids: BTreeSet<WriteId<Node>>,
}

impl Store {
    fn now(&self) -> &Seen<Node, Acked> {
        self.history.last().expect("the group was made")
    }

    fn write(
        &mut self,
        expected: Option<u64>,
        id: Option<WriteId<Node>>,
        record: Record<Node, Acked>,
    ) -> Answer<Node, Acked> {
        if id.as_ref().is_some_and(|id| self.ids.contains(id)) {
            return Answer::Known;
        }
        if expected.is_some_and(|expected| expected != self.now().revision) {
            return Answer::Mismatch;
        }
        let revision = self.now().revision + 1;
        self.ids.extend(id);
        self.history.push(Seen { revision, record });
        Answer::Written { revision }
    }
}

/// A replica with its driver.
struct Replica {
    node: Node,
    owner: Owner<Node, Acked>,
    drives: bool,
    state: Acked,
    /// What is confirmed once the save is stored that has this number.
    waits: Option<(u64, Acked)>,
    /// It does nothing before.
    paused_until: u64,
}

impl Replica {
    fn new(node: Node, rules: Rules) -> Self {
        let owner = Owner::new(node, rules);
        Self { node, owner, drives: false, state: 0, waits: None, paused_until: 0 }
    }
}

/// What was counted in some histories.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    confirmed: u32,
    stopped: u32,
    /// Owners that stopped although nobody had claimed the group since.
    stopped_falsely: u32,
    unsure: u32,
    released: u32,
    /// Confirmed, and not in the record any more.
    lost: u32,
    /// Not driven in the end, although it was wanted and all was well.
    stuck: u32,
}

struct World {
    random: Rng,
    rules: Rules,
    store: Store,
    replicas: Vec<Replica>,
    on_its_way: BTreeMap<(u64, u64), OnItsWay>,
    count: u64,
    now: u64,
    heals: bool,
    next_ack: u32,
    confirmed: Acked,
    tally: Tally,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let record = Record { term: 0, owner: None, save: 0, state: 0 };
        Self {
            random: Rng::with_seed(seed),
            rules,
            store: Store { history: vec![Seen { revision: 1, record }], ids: BTreeSet::new() },
            replicas: (0..REPLICAS).map(|place| Replica::new((place, 0), rules)).collect(),
            on_its_way: BTreeMap::new(),
            count: 0,
            now: 0,
            heals: false,
            next_ack: 0,
            confirmed: 0,
            tally: Tally::default(),
        }
    }

    fn percent(&mut self, percent: u8) -> bool {
        !self.heals && self.random.u8(0..100) < percent
    }

    fn arrives(&mut self, after: u64, what: OnItsWay) {
        self.count += 1;
        self.on_its_way.insert((self.now + after, self.count), what);
    }

    fn carry_out(&mut self, place: usize, commands: Vec<Command<Node, Acked>>) {
        for command in commands {
            let current = self.store.now().record.clone();
            let replica = &mut self.replicas[place];
            match command {
                Command::Read { .. } | Command::Write { .. } => self.send(place, command),
                Command::Adopt { state, .. } => (replica.state, replica.waits) = (state, None),
                Command::Drive { .. } | Command::Resume => replica.drives = true,
                Command::Saved { save } => {
                    if let Some((_, acked)) = replica.waits.take_if(|(number, _)| *number == save) {
                        self.tally.confirmed += (acked & !self.confirmed).count_ones();
                        self.confirmed |= acked;
                    }
                }
                Command::Pause { .. } => {
                    (replica.drives, replica.waits) = (false, None);
                    self.tally.unsure += 1;
                }
                Command::Stop => {
                    let is_owner = current.owner == Some(replica.node) && current.term == replica.owner.term;
                    (replica.drives, replica.waits, replica.state) = (false, None, 0);
                    self.tally.stopped += 1;
                    self.tally.stopped_falsely += u32::from(is_owner);
                    let more = replica.owner.stopped(self.now);
                    self.carry_out(place, more);
                }
                Command::Released => {
                    (replica.drives, replica.waits) = (false, None);
                    self.tally.released += 1;
                }
                Command::Follow { .. } => replica.drives = false,
                Command::Missing => panic!("it is there"),
            }
        }
    }

    /// Of requests 10 % are lost and 10 % late, of answers 15 % are lost.
    fn send(&mut self, place: usize, command: Command<Node, Acked>) {
        if self.percent(10) {
            if let Command::Read { request } | Command::Write { request, .. } = command
                && self.random.bool()
            {
                let to = self.replicas[place].node;
                self.arrives(1, OnItsWay::Answer { to, request, answer: Answer::Failed });
            }
            return;
        }
        let after = if self.percent(11) { self.random.u64(500..9_000) } else { self.random.u64(1..8) };
        let answered = !self.percent(15);
        let from = self.replicas[place].node;
        self.arrives(after, OnItsWay::Request { from, command, answered });
    }

    /// True while an earlier try of a write is on its way: then the store may say that something is in process.
    fn has_another_try(&self, write: &WriteId<Node>) -> bool {
        self.on_its_way.values().any(|other| {
            matches!(other, OnItsWay::Request { from, command: Command::Write { record, .. }, .. }
                if *from == write.node && (record.term, record.save) == (write.term, write.save))
        })
    }

    fn take(&mut self, from: Node, command: Command<Node, Acked>, answered: bool) {
        let (request, answer) = match command {
            Command::Read { request } => {
                let (last, count) = (self.store.history.len() - 1, self.store.history.len().min(4));
                // An isolated leader answers as if all was well.
                let back = if self.percent(30) { self.random.usize(0..count) } else { 0 };
                (request, Answer::Read(Some(self.store.history[last - back].clone())))
            }
            Command::Write { request, expected, id, record } => {
                let try_of = WriteId { term: record.term, node: from, save: record.save };
                let in_process = self.has_another_try(&try_of) && self.percent(30);
                let answer = if in_process { Answer::Mismatch } else { self.store.write(expected, id, record) };
                let lost = self.confirmed & !self.store.now().record.state;
                self.tally.lost = self.tally.lost.max(lost.count_ones());
                (request, answer)
            }
            other => panic!("{other:?} is no request"),
        };
        if answered {
            let after = self.random.u64(1..4);
            self.arrives(after, OnItsWay::Answer { to: from, request, answer });
        }
    }

    /// When a replica has something to do, which it does not while it is paused.
    fn due_of(replica: &Replica) -> Option<u64> {
        replica.owner.due().map(|due| due.max(replica.paused_until))
    }

    fn pass(&mut self, until: u64) {
        loop {
            let due =
                self.replicas.iter().enumerate().filter_map(|(place, one)| Some((Self::due_of(one)?, place))).min();
            let arrives = self.on_its_way.keys().next().map(|(at, _)| *at);
            let Some(next) = arrives.into_iter().chain(due.map(|(at, _)| at)).min().filter(|next| *next <= until)
            else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            if arrives == Some(next) {
                match self.on_its_way.pop_first() {
                    Some((_, OnItsWay::Request { from, command, answered })) => self.take(from, command, answered),
                    Some((_, OnItsWay::Answer { to, request, answer })) => self.answered(to, request, answer),
                    None => {}
                }
            } else if let Some((_, place)) = due {
                let commands = self.replicas[place].owner.tick(self.now);
                self.carry_out(place, commands);
            }
        }
    }

    fn answered(&mut self, to: Node, request: u64, answer: Answer<Node, Acked>) {
        let (place, now) = (to.0, self.now);
        let replica = &mut self.replicas[place];
        if replica.paused_until > now {
            let after = replica.paused_until - now;
            self.arrives(after, OnItsWay::Answer { to, request, answer });
        } else if replica.node == to {
            let commands = replica.owner.answer(request, answer, now);
            self.carry_out(place, commands);
        }
    }

    fn acknowledge(&mut self, place: usize) {
        let replica = &mut self.replicas[place];
        if replica.drives && self.next_ack < Acked::BITS {
            replica.state |= 1 << self.next_ack;
            self.next_ack += 1;
        }
        self.save(place);
    }

    fn save(&mut self, place: usize) {
        let replica = &mut self.replicas[place];
        if replica.drives
            && let Some((save, commands)) = replica.owner.save(replica.state, self.now)
        {
            replica.waits = Some((save, replica.state));
            self.carry_out(place, commands);
        }
    }

    fn step(&mut self) {
        let place = self.random.usize(0..REPLICAS);
        let other = self.random.usize(0..REPLICAS);
        let (now, suspected) = (self.now, self.replicas[other].node);
        let replica = &mut self.replicas[place];
        if replica.paused_until > now {
            return;
        }
        let commands = match self.random.u8(0..100) {
            0..60 => return self.acknowledge(place),
            60..72 => replica.owner.want(true, now),
            72..80 if other != place => replica.owner.suspect(suspected, now),
            80..84 => {
                replica.paused_until = now + self.random.u64(100..15_000);
                return;
            }
            84..87 => {
                *replica = Replica::new((place, replica.node.1 + 1), self.rules);
                return;
            }
            87..92 if replica.drives => replica.owner.release(replica.state, now).unwrap_or_default(),
            92..100 => {
                let back = self.random.usize(0..self.store.history.len().min(3));
                let seen = self.store.history[self.store.history.len() - 1 - back].clone();
                replica.owner.watched(seen, now)
            }
            _ => return,
        };
        self.carry_out(place, commands);
    }

    /// All is well from now on: the group is claimed from whoever has it, and its state can be saved.
    fn heal(&mut self) {
        self.heals = true;
        self.pass(self.now + 60_000);
        let before = self.tally.confirmed;
        for _ in 0..30 {
            for place in 0..REPLICAS {
                let others = (0..REPLICAS).filter(|other| *other != place).map(|other| self.replicas[other].node);
                let owner = self.store.now().record.owner.filter(|owner| self.replicas[owner.0].node != *owner);
                let gone: Vec<Node> = owner.into_iter().chain(others.take(usize::from(place == 0))).collect();
                let watched = self.replicas[place].owner.watched(self.store.now().clone(), self.now);
                self.carry_out(place, watched);
                if self.replicas.iter().any(|replica| replica.drives) {
                    self.acknowledge(place);
                } else {
                    for node in gone {
                        let commands = self.replicas[place].owner.suspect(node, self.now);
                        self.carry_out(place, commands);
                    }
                    let commands = self.replicas[place].owner.want(true, self.now);
                    self.carry_out(place, commands);
                }
                self.pass(self.now + 3_000);
            }
        }
        let drives = self.replicas.iter().filter(|replica| replica.drives).count();
        let has_room = self.next_ack < Acked::BITS;
        self.tally.stuck = u32::from(drives != 1 || (has_room && self.tally.confirmed == before));
    }
}

/// One history.
fn history(seed: u64, rules: Rules) -> Tally {
    let mut world = World::new(seed, rules);
    for _ in 0..STEPS {
        world.step();
        let after = [0, 5, 40, 600][world.random.usize(0..4)];
        world.pass(world.now + after);
    }
    world.heal();
    world.tally
}

/// Many histories: what was counted, and in how many something was lost.
fn histories(count: u64, rules: Rules) -> (Tally, u32) {
    let (mut all, mut losers) = (Tally::default(), 0);
    for seed in 0..count {
        let one = history(seed, rules);
        all.confirmed += one.confirmed;
        all.stopped += one.stopped;
        all.stopped_falsely += one.stopped_falsely;
        all.unsure += one.unsure;
        all.released += one.released;
        all.stuck += one.stuck;
        losers += u32::from(one.lost > 0);
    }
    (all, losers)
}

#[test]
fn no_confirmed_acknowledgement_is_lost_and_no_owner_stops_for_nothing() {
    let (all, losers) = histories(3_000, Rules::default());
    assert_eq!((losers, all.stopped_falsely, all.stuck), (0, 0, 0), "{all:?}");
    assert!(all.confirmed > 3_000 && all.stopped > 1_000 && all.unsure > 10 && all.released > 100, "{all:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn nor_in_any_other_history(seed in any::<u64>()) {
        let tally = history(seed, Rules::default());
        prop_assert_eq!((tally.lost, tally.stopped_falsely, tally.stuck), (0, 0, 0), "seed {}", seed);
    }
}

#[test]
fn without_comparing_acknowledgements_are_lost() {
    let (all, losers) = histories(300, Rules { compares: false, ..Rules::default() });
    assert!(losers > 50, "in {losers} of 300 histories: {all:?}");
}

#[test]
fn without_ids_an_owner_takes_its_own_save_for_that_of_another_unless_it_goes_by_terms() {
    let count = |rules| {
        let (all, losers) = histories(300, rules);
        assert_eq!(losers, 0, "that is never unsafe");
        all.stopped_falsely
    };
    let rules = Rules::default();
    let (neither, ids) = (count(Rules { ids: false, terms: false, ..rules }), count(Rules { terms: false, ..rules }));
    assert!(neither > ids && ids > 0, "{neither} without ids, {ids} with");
    assert_eq!(count(Rules { ids: false, ..rules }), 0, "a term says it all");
}

fn commands(all: &[Command<Node, Acked>]) -> Vec<&'static str> {
    let name = |command: &Command<Node, Acked>| match command {
        Command::Read { .. } => "read",
        Command::Write { .. } => "write",
        Command::Adopt { .. } => "adopt",
        Command::Drive { .. } => "drive",
        Command::Saved { .. } => "saved",
        Command::Pause { .. } => "pause",
        Command::Resume => "resume",
        Command::Stop => "stop",
        Command::Released => "released",
        Command::Follow { .. } => "follow",
        Command::Missing => "missing",
    };
    all.iter().map(name).collect()
}

fn seen(revision: u64, term: u64, owner: Option<Node>, save: u64) -> Seen<Node, Acked> {
    Seen { revision, record: Record { term, owner, save, state: 5 } }
}

const ME: Node = (0, 0);
const OTHER: Node = (1, 0);

fn read(revision: u64, term: u64, owner: Option<Node>, save: u64) -> Answer<Node, Acked> {
    Answer::Read(Some(seen(revision, term, owner, save)))
}

/// One that owns the group since 0, by revision 8 and term 4.
fn owning() -> Owner<Node, Acked> {
    let mut owner = Owner::new(ME, Rules::default());
    assert_eq!(commands(&owner.want(true, 0)), ["read"]);
    let claim = owner.answer(1, read(7, 3, None, 2), 0);
    let [Command::Write { request: 2, expected: Some(7), id: Some(id), record }] = &claim[..] else {
        panic!("{claim:?}")
    };
    assert_eq!((id.term, id.node, record.term, record.owner, record.state), (4, ME, 4, Some(ME), 5));
    assert_eq!(owner.answer(2, Answer::Written { revision: 8 }, 0), [Command::Adopt { term: 4, state: 5 }]);
    assert_eq!(owner.adopted(), [Command::Drive { term: 4 }]);
    owner
}

#[test]
fn a_group_without_an_owner_is_claimed_and_one_with_is_not_until_that_is_gone() {
    assert_eq!(owning().phase(), Phase::Owning);
    let mut owner = Owner::new(ME, Rules::default());
    owner.want(true, 0);
    assert_eq!(owner.answer(1, read(7, 3, Some(OTHER), 2), 0), [Command::Follow { owner: Some(OTHER) }]);
    assert_eq!(owner.suspect((2, 0), 0), []);
    assert_eq!(commands(&owner.suspect(OTHER, 0)), ["read"]);
    assert_eq!(commands(&owner.answer(2, read(7, 3, Some(OTHER), 2), 0)), ["write"]);
    assert_eq!(commands(&owner.answer(3, Answer::Mismatch, 0)), ["read"]);
    let won = owner.answer(4, read(8, 4, Some((2, 0)), 0), 0);
    assert_eq!(won, [Command::Follow { owner: Some((2, 0)) }]);
}

#[test]
fn a_claim_that_the_owner_is_ahead_of_with_a_save_is_lost() {
    let mut owner = Owner::new(ME, Rules::default());
    owner.want(true, 0);
    owner.suspect(OTHER, 0);
    assert_eq!(commands(&owner.answer(1, read(7, 3, Some(OTHER), 2), 0)), ["write"]);
    owner.answer(2, Answer::Mismatch, 0);
    assert_eq!(owner.answer(3, read(8, 3, Some(OTHER), 3), 0), [Command::Follow { owner: Some(OTHER) }]);
    assert_eq!(owner.phase(), Phase::Following);
}

#[test]
fn members_elsewhere_are_waited_for_only_so_long() {
    let mut owner = Owner::new(ME, Rules::default());
    owner.want(true, 0);
    owner.answer(1, read(7, 3, None, 2), 0);
    owner.answer(2, Answer::Written { revision: 8 }, 10);
    assert_eq!((owner.due(), owner.save(6, 20)), (Some(510), None));
    assert_eq!(owner.tick(510), [Command::Drive { term: 4 }]);
}

#[test]
fn a_save_of_which_nothing_is_known_is_tried_until_it_is() {
    let mut owner = owning();
    let (save, write) = owner.save(7, 0).expect("it owns the group");
    assert_eq!((save, commands(&write), owner.save(8, 1)), (1, vec!["write"], None));
    let mut tries = 0;
    while owner.phase() == Phase::Saving {
        let now = owner.due().expect("a timeout");
        tries += 1;
        let again = owner.tick(now);
        let [.., Command::Write { expected: Some(8), id: Some(id), .. }] = &again[..] else { panic!("{again:?}") };
        assert_eq!((id.save, commands(&again).contains(&"pause")), (1, now >= 10_000));
    }
    assert_eq!((tries, owner.phase(), owner.save(9, 10_000)), (5, Phase::Unsure, None));
    let request = owner.request;
    assert_eq!(commands(&owner.answer(request, Answer::Known, 10_001)), ["saved", "read"]);
    assert_eq!(commands(&owner.answer(request + 1, read(9, 4, Some(ME), 1), 10_002)), ["resume"]);
    let (_, write) = owner.save(9, 10_003).expect("it owns the group");
    assert!(matches!(write[..], [Command::Write { expected: Some(9), .. }]));
}

#[test]
fn a_stale_read_ends_nothing_and_a_later_term_does() {
    let mut owner = owning();
    owner.save(7, 0);
    assert_eq!(commands(&owner.answer(3, Answer::Mismatch, 0)), ["read"]);
    assert_eq!(owner.answer(4, read(6, 3, Some(OTHER), 1), 0), []);
    assert_eq!(commands(&owner.tick(50)), ["write"]);
    assert_eq!(commands(&owner.answer(5, Answer::Mismatch, 51)), ["read"]);
    assert_eq!(owner.answer(6, read(12, 5, Some(OTHER), 1), 52), [Command::Stop]);
    assert_eq!((owner.phase(), owner.save(8, 53)), (Phase::Fenced, None));
    assert_eq!(owner.stopped(54), [Command::Follow { owner: Some(OTHER) }]);
    let mut watching = owning();
    assert_eq!(watching.watched(seen(12, 5, Some(OTHER), 1), 0), [Command::Stop]);
}

#[test]
fn a_group_that_is_released_has_no_owner_and_is_claimed_with_one_write() {
    let mut owner = owning();
    let release = owner.release(7, 0).expect("it owns the group");
    let [Command::Write { record: Record { owner: None, term: 4, save: 1, .. }, .. }] = &release[..] else {
        panic!("{release:?}")
    };
    assert_eq!(owner.answer(3, Answer::Written { revision: 9 }, 0), [Command::Released]);
    let mut other = Owner::new(OTHER, Rules::default());
    assert_eq!(other.watched(seen(9, 4, None, 1), 0), []);
    assert_eq!(commands(&other.want(true, 0)), ["read"]);
    assert_eq!(commands(&other.answer(1, read(9, 4, None, 1), 0)), ["write"]);
}

#[test]
fn a_release_of_which_nothing_is_known_is_left_as_it_is() {
    let mut owner = owning();
    owner.release(7, 0).expect("it owns the group");
    while owner.phase() == Phase::Releasing {
        owner.tick(owner.due().expect("a timeout"));
    }
    assert_eq!((owner.phase(), owner.due()), (Phase::Following, None));
    assert_eq!(commands(&owner.want(true, 20_000)), ["read"], "it is named, and does not drive it");
}

#[test]
fn a_group_that_is_gone_has_no_owner() {
    let mut owner = owning();
    owner.save(7, 0);
    owner.answer(3, Answer::Mismatch, 0);
    assert_eq!(commands(&owner.answer(4, Answer::Read(None), 0)), ["stop", "missing"]);
    assert_eq!((owner.phase(), owner.due()), (Phase::Following, None));
}
