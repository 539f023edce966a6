//! What all of one run share: the phase, the trace, and the books in which clients write what they were told.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    time::Duration,
};

use switchyard::proto::v1::{Event, PublishResult, ReceivedEvent, event::Payload};

pub const STREAM: &str = "sim";
/// A stream of locks, and what is kept in it.
pub const LOCKS: &str = "locks";
pub const KEPT: &str = "lock.kept";
pub const GROUP: &str = "work";
pub const PORT: u16 = 50051;

/// What clients are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Whatever they do, while things fail.
    Work,
    /// Finish what was begun; nothing fails any more.
    Finish,
    /// Everything is published: read it.
    Read,
    /// Everything is done.
    Over,
}

/// All of one run.
pub struct World {
    pub seed: u64,
    phase: Cell<Phase>,
    trace: RefCell<Vec<String>>,
    /// How the hub is to be started again now.
    pub restart: Cell<Option<Restart>>,
    /// There is a copy of its disk from when it was dead.
    pub has_copy: Cell<bool>,
    pub books: RefCell<Books>,
}

/// How a hub is started again once everything is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Restart {
    /// On the copy of its disk.
    OnCopy,
    /// After its store was told that it was put back.
    Told,
}

/// A token that a reader was given.
#[derive(Debug, Clone)]
pub struct Token {
    pub text: String,
    pub filters: Vec<String>,
    /// Its place is behind this event, or further: behind others that the filters left out.
    pub last: i64,
}

#[derive(Default)]
pub struct Books {
    /// Of the stream, once it is made.
    pub epoch: Option<i64>,
    /// How many events each publisher has begun to publish, and what it was answered, in their order.
    pub published: BTreeMap<usize, (u64, Vec<PublishResult>)>,
    /// What each reader got.
    pub read: BTreeMap<String, Vec<(i64, String)>>,
    pub tokens: Vec<Token>,
    /// What members were brought.
    pub brought: HashMap<i64, String>,
    pub deliveries: usize,
    /// Said to be done.
    pub said: HashSet<i64>,
    /// Answered as done, by which hub.
    pub done: HashMap<i64, u64>,
    /// How many workers still publish, or read.
    pub publishing: usize,
    pub reading: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            phase: Cell::new(Phase::Work),
            trace: RefCell::default(),
            restart: Cell::new(None),
            has_copy: Cell::new(false),
            books: RefCell::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub fn enter(&self, phase: Phase) {
        self.note("world", &phase);
        self.phase.set(phase);
    }

    /// Waits for a phase, or a later one.
    pub async fn until(&self, phase: Phase) {
        while self.phase() < phase {
            pause(10).await;
        }
    }

    /// Has the hub started again, however it is.
    pub async fn start_again(&self, how: Restart) {
        self.restart.set(Some(how));
        while self.restart.get().is_some() {
            pause(10).await;
        }
    }

    /// Choices of one part of the run, the same for the same seed.
    pub fn random(&self, of: &str) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed ^ (u64::from(crc32c::crc32c(of.as_bytes())) << 24))
    }

    /// Writes down what happened, and when.
    pub fn note(&self, who: &str, what: &impl Debug) {
        let at = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        self.trace.borrow_mut().push(format!("{at} {who} {what:?}"));
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.trace.take()
    }
}

/// Simulated time passes.
pub async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// The event that a publisher numbers so.
pub fn numbered(publisher: usize, number: u64) -> Event {
    Event {
        id: number.to_string(),
        source: format!("publisher-{publisher}"),
        topic: format!("sim.{publisher}.{}", number % 3),
        payload: Some(Payload::Text(content(publisher, number))),
        ..Event::default()
    }
}

pub fn content(publisher: usize, number: u64) -> String {
    format!("{publisher} {number} {}", "x".repeat((number as usize * 37 + publisher) % 300))
}

pub fn text(received: &ReceivedEvent) -> &str {
    match received.event.as_ref().and_then(|event| event.payload.as_ref()) {
        Some(Payload::Text(text)) => text,
        other => panic!("not a text: {other:?}"),
    }
}

/// Whose an event is, and which.
pub fn words(text: &str) -> (usize, u64) {
    let mut words = text.split(' ').map_while(|word| word.parse::<u64>().ok());
    let mut word = || words.next().expect("a number");
    (word() as usize, word())
}
