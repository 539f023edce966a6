//! What a lane is given, what it asks of the server, and what that answers. Pure.

use crate::engine::Precondition;

/// What the server knows a message by, for as long as the stream's duplicate window lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Id {
    /// [`crate::event::Event::dedupe_key`] of the event.
    Key(u128),
    /// The number of its unit, which no other unit of the lane has: for an event without a key.
    Own(u64),
}

/// An event that is to be appended.
#[derive(Debug, Clone)]
pub(super) struct Message<B> {
    /// What its publisher's repetitions are known by.
    pub(super) key: Option<u128>,
    /// What it counts against the size of a unit.
    pub(super) bytes: usize,
    pub(super) body: B,
}

/// Events of one call, which get one answer.
#[derive(Debug, Clone)]
pub(super) struct Queued<B> {
    /// Which call: larger than that of any before.
    pub(super) append: u64,
    /// At least one.
    pub(super) messages: Vec<Message<B>>,
    pub(super) precondition: Option<Precondition>,
}

/// A message as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing<B> {
    pub(super) id: Option<Id>,
    pub(super) body: B,
}

/// What a lane wants done. What has a `request` is answered by [`super::unit::Lane::answer`] with that number; what is answered
/// too late is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command<B> {
    /// Send these: one as a plain message, more as one atomic batch under an id that is new each time. The precondition goes with
    /// the first. Each carries `unit` in a header of its own, by which [`Command::Compare`] finds it.
    Send { request: u64, unit: u64, messages: Vec<Outgoing<B>>, precondition: Option<Precondition> },
    /// Find out which of these ids the server knows. Nothing may be stored by that: each is sent as an atomic batch of one with
    /// a sequence that cannot be right.
    Probe { request: u64, ids: Vec<Id> },
    /// Send each of these alone, as a plain message: their ids are known, so that the answers say at which sequence.
    Locate { request: u64, unit: u64, messages: Vec<Outgoing<B>> },
    /// Ask the leader what the precondition is compared with.
    Last { request: u64, of: Precondition, body: B },
    /// Ask the leader whether the message at this sequence carries this unit.
    Compare { request: u64, unit: u64, sequence: u64 },
    /// This server seems to be cut off from the others: take another connection.
    Move,
    /// Drop the connection with whatever it has not sent: nothing of that may arrive later.
    Drop,
    /// The server has too much to do.
    Crowded,
    /// The server has no room.
    Full,
    /// What became of an append: one result for each of its messages.
    Done { append: u64, results: Vec<Result<Stored, Failed>> },
}

/// What the server said, or that it said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// To `Send`: stored; the last sequence. `duplicate` is for a plain message alone.
    Acked { sequence: u64, duplicate: bool },
    /// Not connected, or no responders: this try did nothing.
    NotSent,
    /// The connection is lost, or the answer is no answer.
    Lost,
    /// 10158: a message with this id is in process.
    InProcess,
    /// 10201: one of the ids is known.
    Duplicates,
    /// 10071, 10164: the precondition does not hold, or something on that topic is in process.
    Mismatch,
    /// 10176: the leader changed inside the batch. Nothing is stored.
    Incomplete,
    /// 10210, 10167, 429: too much at once. Nothing is stored.
    Crowded,
    /// 10002, 10023, 10047: no room. Nothing is stored.
    Full,
    /// Anything else, by its number. Nothing is stored.
    Refused { code: u16 },
    /// To `Probe`: for each id whether it is known.
    Known(Vec<bool>),
    /// To `Locate`: for each message where it is, and whether it was there.
    Located(Vec<Stored>),
    /// To `Last`; 0 for nothing.
    Last(u64),
    /// To `Compare`. False for a message that is gone.
    Ours(bool),
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    /// Its key was known before: this is where the first one is.
    pub(super) duplicate: bool,
}

/// Why a message is not stored, or not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// Nothing was done, and may be tried again.
    Unreachable,
    /// It may be stored, or may be some time later.
    Unknown,
    /// The server has no room. Nothing was done.
    Full,
    /// The precondition does not hold. Nothing was done.
    Mismatch { actual: u64 },
    /// More messages than can be appended under one precondition.
    TooMany { limit: usize },
    /// The server refuses it, with this number. Nothing was done.
    Refused { code: u16 },
}
