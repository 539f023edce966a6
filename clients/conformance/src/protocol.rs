//! The language between runner and driver: one JSON object a line, commands one way and reports the other. Described for
//! those who write a driver in README.md. Pure.

use serde::{Deserialize, Serialize};

/// The version of this language, which a driver names first.
pub const VERSION: u32 = 1;

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Make a client and run it. Once in the life of a driver.
    Connect(Connect),
    /// From now on the source of tokens gives this one.
    Token {
        value: String,
        /// How long it is good, in milliseconds, if the source knows.
        #[serde(default)]
        life_ms: Option<u64>,
    },
    /// From now on the source of tokens fails.
    TokenFails,
    /// Open a subscription.
    Subscribe(Subscribe),
    /// Take events, or stop taking them.
    Take(Take),
    /// All batches that were taken are done.
    Done { sub: String },
    /// Acknowledge events in hand.
    Ack {
        sub: String,
        /// None: all.
        #[serde(default)]
        sequences: Vec<i64>,
    },
    /// They failed.
    Nack {
        sub: String,
        #[serde(default)]
        sequences: Vec<i64>,
        #[serde(default)]
        delay_ms: u64,
    },
    /// They can never succeed.
    Reject {
        sub: String,
        #[serde(default)]
        sequences: Vec<i64>,
    },
    /// Their leases begin again.
    Extend {
        sub: String,
        #[serde(default)]
        sequences: Vec<i64>,
    },
    /// End a subscription.
    Unsubscribe { sub: String },
    /// Publish events.
    Publish(Publish),
    /// Report what the client has counted.
    Stats,
    /// End the client in order.
    Drain { timeout_ms: u64, mode: Mode },
    /// Drop everything and exit.
    Close,
}

/// The settings of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    pub addresses: Vec<String>,
    #[serde(default = "heartbeat")]
    pub heartbeat_ms: u64,
    /// The limit on events that wait to be published, or for the answer.
    #[serde(default = "queue")]
    pub queue_events: usize,
    /// Whether tokens come from a source; the commands `token` and `token_fails` say what it gives.
    #[serde(default)]
    pub token_source: bool,
}

/// A subscription.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subscribe {
    /// How commands and reports name it.
    pub sub: String,
    /// The stream it reads. Empty: live events.
    pub stream: String,
    /// The group it is a member of.
    pub group: String,
    pub filters: Vec<String>,
    pub from: From,
    /// In events. 0: the usual one.
    pub window: u32,
    pub on_gap: OnGap,
    /// A file that keeps the place.
    pub position: String,
}

/// Where a subscription of a stream starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    #[default]
    New,
    Earliest,
}

/// What it wants where the stream no longer has the events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    #[default]
    Fail,
    Earliest,
    Latest,
}

/// How many events to take, and what to do with each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take {
    pub sub: String,
    /// At least this many more, by whole batches. Absent: all that come.
    #[serde(default)]
    pub count: Option<u64>,
    #[serde(default)]
    pub then: Then,
    /// What is done with each event takes this long.
    #[serde(default)]
    pub work_ms: u64,
    /// While that lasts, its lease begins again this often.
    #[serde(default)]
    pub extend_ms: u64,
}

/// What to do with what is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Keep it until a command says what to do.
    #[default]
    Hold,
    /// The batch is done.
    Done,
    /// Each event is acknowledged.
    Ack,
}

/// Events to publish: the texts are their numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    pub topic: String,
    pub first: u64,
    pub count: u64,
    #[serde(default = "deadline")]
    pub deadline_ms: u64,
    /// They have ids that begin with this and end with the number. Empty: the client makes them.
    #[serde(default)]
    pub id: String,
    /// Only if this is the last sequence of the stream.
    #[serde(default)]
    pub if_last_sequence: Option<i64>,
    /// Only if there is room in the queue.
    #[serde(default)]
    pub only_if_room: bool,
}

/// How a client is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Finish,
    Release,
}

/// What the driver saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Report {
    /// The driver listens. The first line.
    Ready { driver: String, protocol: u32 },
    /// The client is in another state.
    State(State),
    /// The subscription was opened for the first time.
    Subscribed { sub: String },
    /// An event was taken.
    Event(Event),
    /// The subscription has all that the stream has.
    CaughtUp { sub: String },
    /// The subscription misses events here.
    Gap(Gap),
    /// The subscription is over.
    Ended {
        sub: String,
        #[serde(default)]
        error: Option<Failure>,
    },
    /// Everything up to this sequence was said to be done, and that call has returned.
    Done { sub: String, sequence: i64 },
    /// The hub has stored that an event is done; or its lease was lost.
    Settled {
        sub: String,
        sequence: i64,
        #[serde(default)]
        error: Option<Failure>,
    },
    /// What became of an event that was published.
    Outcome(Outcome),
    /// What the client has counted.
    Stats(Stats),
    /// The client was drained.
    Drained {
        /// Whether nothing was left.
        clean: bool,
    },
    /// A command could not be carried out.
    Failed { text: String },
}

/// A state, and how the client came to be in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub state: Phase,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub address: String,
    #[serde(default)]
    pub session: String,
}

/// The states of clients/SPEC.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Idle,
    Connecting,
    Up,
    Draining,
    Waiting,
    Closing,
    Closed,
    Failed,
}

/// An event that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub sub: String,
    /// 0 for a live one.
    pub sequence: i64,
    pub topic: String,
    pub text: String,
    #[serde(default)]
    pub attempt: i32,
}

/// Events that a subscription does not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub sub: String,
    pub reason: String,
    #[serde(default)]
    pub count: Option<u64>,
    #[serde(default)]
    pub from: Option<i64>,
    #[serde(default)]
    pub to: Option<i64>,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: String,
    pub text: String,
}

/// What became of an event that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub number: u64,
    pub outcome: Fate,
    /// Only with `stored`.
    #[serde(default)]
    pub sequence: i64,
    #[serde(default)]
    pub duplicate: bool,
    /// Only with `refused` and `unknown`.
    #[serde(default)]
    pub reason: String,
}

/// The kinds of outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Stored,
    Live,
    Refused,
    Unknown,
}

/// What the client has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Events that wait to be published, or for the answer.
    pub queued: u64,
    pub in_hand: u64,
    pub sessions: u64,
}

fn heartbeat() -> u64 {
    1000
}

fn queue() -> usize {
    8192
}

fn deadline() -> u64 {
    30_000
}
