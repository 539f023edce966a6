//! The machine of a lane with a model of a stream and of a network that fails.

mod model;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use proptest::prelude::*;

use super::{
    super::request::{Id, Outgoing},
    *,
};
use model::{Body, Server};

/// How long ids are known, if nothing else is said.
const WINDOW: u64 = 120_000;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// It does not arrive.
    Lost,
    /// It arrives when nobody waits for it any more.
    Late,
    /// It arrives, and its answer does not.
    AnswerLost,
    /// The connection is lost, whether it has arrived or not.
    Cut {
        arrived: bool,
    },
    /// The leader changes: 10158, whether it is stored later or not.
    InProcess {
        later: bool,
    },
    /// It does not arrive, and the answer says so.
    Refused(u8),
}

/// What is on its way, by when it arrives.
#[derive(Debug)]
enum OnItsWay {
    Request { command: Command<Body>, answered: bool },
    Answer { request: u64, answer: Answer },
}

struct World {
    random: Rng,
    lane: Lane<Body>,
    server: Server,
    now: u64,
    on_its_way: BTreeMap<(u64, u64), OnItsWay>,
    count: u64,
    /// The network is good from now on.
    heals: bool,
    published: BTreeMap<u64, (Vec<Body>, Option<Precondition>)>,
    results: BTreeMap<u64, Vec<Result<Stored, Failed>>>,
    /// Appends of which a try had no answer that says what became of it.
    doubtful: BTreeSet<u64>,
    /// Keys of such: what has the same in one unit is not sent.
    doubtful_keys: BTreeSet<u128>,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let mut random = Rng::with_seed(seed);
        let window = if random.u8(0..4) == 0 { 15_000 } else { WINDOW };
        let server = Server::new(random.bool());
        Self {
            random,
            lane: Lane::new(window, rules),
            server,
            now: 0,
            on_its_way: BTreeMap::new(),
            count: 0,
            heals: false,
            published: BTreeMap::new(),
            results: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            doubtful_keys: BTreeSet::new(),
        }
    }

    fn fate(&mut self) -> Fate {
        if self.heals {
            return Fate::Good;
        }
        match self.random.u8(0..100) {
            0..10 => Fate::Lost,
            10..20 => Fate::Late,
            20..32 => Fate::AnswerLost,
            32..38 => Fate::Cut { arrived: self.random.bool() },
            38..44 => Fate::InProcess { later: self.random.bool() },
            44..54 => Fate::Refused(self.random.u8(0..5)),
            _ => Fate::Good,
        }
    }

    fn arrives(&mut self, after: u64, what: OnItsWay) {
        self.count += 1;
        self.on_its_way.insert((self.now + after, self.count), what);
    }

    fn carry_out(&mut self, commands: Vec<Command<Body>>) {
        for command in commands {
            match command {
                Command::Done { append, results } => {
                    assert!(self.results.insert(append, results).is_none(), "{append} is answered twice");
                }
                Command::Move | Command::Drop | Command::Crowded | Command::Full => {}
                command => self.send(command),
            }
        }
    }

    fn send(&mut self, command: Command<Body>) {
        let (request, bodies) = match &command {
            Command::Send { request, messages, .. } => {
                assert!(messages.len() <= MOST_EVENTS, "a unit of {} events", messages.len());
                (*request, messages.iter().map(|message| message.body).collect())
            }
            Command::Probe { request, .. }
            | Command::Locate { request, .. }
            | Command::Last { request, .. }
            | Command::Compare { request, .. } => (*request, Vec::new()),
            other => panic!("{other:?} is no request"),
        };
        let fate = self.fate();
        if !matches!(fate, Fate::Good | Fate::Refused(_)) {
            self.doubtful.extend(bodies.iter().map(|body| body.append));
            self.doubtful_keys.extend(bodies.iter().filter_map(|body| body.key));
        }
        let (soon, late) = (self.random.u64(1..4), self.random.u64(500..12_000));
        let whole = |answered| OnItsWay::Request { command, answered };
        match fate {
            Fate::Good => self.arrives(soon, whole(true)),
            Fate::Lost => {}
            Fate::Late => self.arrives(late, whole(true)),
            Fate::AnswerLost => self.arrives(soon, whole(false)),
            Fate::Cut { arrived } => {
                if arrived {
                    self.arrives(soon, whole(false));
                }
                self.arrives(soon + 1, OnItsWay::Answer { request, answer: Answer::Lost });
            }
            Fate::InProcess { later } => {
                if later {
                    self.arrives(late / 4, whole(false));
                }
                self.arrives(soon, OnItsWay::Answer { request, answer: Answer::InProcess });
            }
            Fate::Refused(which) => {
                let answers = [Answer::NotSent, Answer::NotSent, Answer::Incomplete, Answer::Crowded, Answer::Full];
                let answer = answers[usize::from(which)].clone();
                self.arrives(soon, OnItsWay::Answer { request, answer });
            }
        }
    }

    /// Lets what is next happen. False when there is nothing more.
    fn step(&mut self) -> bool {
        let next = self.on_its_way.keys().next().copied();
        let due = self.lane.due();
        match (next, due) {
            (None, None) => return false,
            (Some((at, _)), due) if due.is_none_or(|due| at <= due) => {
                self.now = self.now.max(at);
                match self.on_its_way.pop_first() {
                    Some((_, OnItsWay::Request { command, answered })) => {
                        let (request, answer) = self.server.take(command);
                        if answered {
                            self.arrives(1, OnItsWay::Answer { request, answer });
                        }
                    }
                    Some((_, OnItsWay::Answer { request, answer })) => {
                        let commands = self.lane.answer(request, answer, self.now);
                        self.carry_out(commands);
                    }
                    None => {}
                }
            }
            (_, due) => {
                self.now = self.now.max(due.unwrap_or(0));
                let commands = self.lane.tick(self.now);
                self.carry_out(commands);
            }
        }
        true
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        loop {
            let next = self.on_its_way.keys().next().map(|(at, _)| *at);
            let next = next.into_iter().chain(self.lane.due()).min();
            if next.is_none_or(|next| next > until) {
                self.now = until;
                return;
            }
            self.step();
        }
    }

    fn publish(&mut self, append: u64) {
        let count = if self.random.u8(0..40) == 0 { 1_500 } else { self.random.usize(1..6) };
        let topic = self.random.u8(0..2);
        let precondition = match self.random.u8(0..10) {
            0..2 => Some(Precondition::LastSequence(self.server.last(None))),
            2..4 => Some(Precondition::LastTopicSequence(self.server.last(Some(topic)))),
            _ => None,
        };
        let keyed = self.random.u8(0..4);
        let bodies: Vec<Body> = (0..count)
            .map(|at| {
                let has_key = keyed == 3 || (keyed > 0 && self.random.u8(0..3) == 0);
                let key = has_key.then(|| u128::from(self.random.u8(0..12)));
                Body { append, at, topic, key: key.map(|key| key + u128::from(append / 8 * 12)) }
            })
            .collect();
        let messages = bodies.iter().map(|body| Message { key: body.key, bytes: 100, body: *body }).collect();
        self.published.insert(append, (bodies, precondition));
        let commands = self.lane.queue(Queued { append, messages, precondition }, self.now).expect("room");
        self.carry_out(commands);
    }

    /// Another publisher appends, at times with a key that is used here too.
    fn another_publishes(&mut self, append: u64) {
        let key = self.random.bool().then(|| u128::from(self.random.u8(0..12)) + u128::from(append / 8 * 12));
        let body = Body { append: 0, at: usize::MAX, topic: self.random.u8(0..2), key };
        let id = key.map(Id::Key);
        self.server.append(0, &[Outgoing { id, body }], None);
    }

    /// What is not true of all that was answered.
    fn lie(&self) -> Option<String> {
        let mut places: BTreeMap<(u64, usize), Vec<u64>> = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for (entry, sequence) in self.server.log.iter().zip(1..) {
            if entry.body.append > 0 {
                places.entry((entry.body.append, entry.body.at)).or_default().push(sequence);
            }
            if entry.body.key.is_some_and(|key| !keys.insert(key)) {
                return Some(format!("a key is stored twice: {:?}", entry.body));
            }
        }
        if let Some((body, places)) = places.iter().find(|(_, places)| places.len() > 1) {
            return Some(format!("{body:?} is stored at {places:?}"));
        }
        let mut last = 0;
        for (append, (bodies, precondition)) in &self.published {
            let Some(results) = self.results.get(append) else { return Some(format!("{append} has no answer")) };
            if results.len() != bodies.len() {
                return Some(format!("{append} has {} results", results.len()));
            }
            if bodies.len() <= MOST_EVENTS && results.iter().any(Result::is_ok) != results.iter().all(Result::is_ok) {
                return Some(format!("{append} is stored in part: {results:?}"));
            }
            for (body, result) in bodies.iter().zip(results) {
                let at = places.get(&(body.append, body.at)).and_then(|places| places.first()).copied();
                let is_true = match *result {
                    Ok(Stored { sequence, duplicate: false }) => {
                        let is_later = sequence > last;
                        last = sequence;
                        at == Some(sequence) && is_later
                    }
                    Ok(Stored { sequence, duplicate: true }) => {
                        let first = self.server.log.get(sequence as usize - 1);
                        at.is_none_or(|at| at != sequence) && first.is_some_and(|first| first.body.key == body.key)
                    }
                    Err(Failed::Unknown) => {
                        let has_doubtful = |body: &Body| body.key.is_some_and(|key| self.doubtful_keys.contains(&key));
                        self.doubtful.contains(append) || bodies.iter().any(has_doubtful)
                    }
                    Err(Failed::Mismatch { actual }) => at.is_none() && !holds(*precondition, actual),
                    Err(_) => at.is_none(),
                };
                if !is_true {
                    return Some(format!("{body:?} is at {at:?}, and was answered {result:?} after {last}"));
                }
            }
        }
        None
    }
}

fn holds(precondition: Option<Precondition>, actual: u64) -> bool {
    match precondition {
        Some(Precondition::LastSequence(expected) | Precondition::LastTopicSequence(expected)) => expected == actual,
        None => true,
    }
}

/// One history; gives what was not true in it.
fn lie_in(seed: u64, rules: Rules) -> Option<String> {
    let mut world = World::new(seed, rules);
    for append in 1..=world.random.u64(5..40) {
        world.publish(append);
        if world.random.u8(0..3) == 0 {
            world.another_publishes(append);
        }
        let ms = [0, 3, 50, 4_000][world.random.usize(0..4)];
        world.pass(ms);
    }
    world.heals = world.random.bool();
    while world.step() {}
    world.lie()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn every_event_is_stored_once_in_order_and_every_result_is_true(seed in any::<u64>()) {
        prop_assert_eq!(lie_in(seed, Rules::default()), None, "seed {}", seed);
    }
}

fn lies_with(rules: Rules) -> Vec<String> {
    (0..500).filter_map(|seed| lie_in(seed, rules)).collect()
}

#[test]
fn without_ids_events_are_stored_twice() {
    let lies = lies_with(Rules { ids: false, ..Rules::default() });
    let twice = lies.iter().filter(|lie| lie.contains("is stored at")).count();
    assert!(twice > 100, "{twice} of 500 histories have an event twice");
}

#[test]
fn an_id_on_the_first_message_alone_says_nothing_of_those_behind_a_known_key() {
    let lies = lies_with(Rules { anywhere: false, ..Rules::default() });
    let twice = lies.iter().filter(|lie| lie.contains("is stored at")).count();
    assert!(twice > 5, "{twice} of 500 histories have an event twice");
}
