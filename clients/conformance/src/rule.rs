//! The rules that the judge knows, by name, each with the rules of clients/SPEC.md that it stands on. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An invariant over the history of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Everything that a scenario waits for comes in time, and what it checks is so.
    Progress,
    /// Changes of state are those of the SPEC, and nothing comes after the last.
    States,
    /// A client ends only when its caller, or an error that trying again cannot mend, ends it.
    ForEver,
    /// Attempts to connect are random in time, and few.
    Backoff,
    /// A hub that is silent is noticed, not too early and not too late.
    Silence,
    /// Events of a subscription come in order.
    Order,
    /// No event is missing between two that came, unless a gap says so.
    Loss,
    /// No event is given twice, unless its first delivery came to nothing.
    Repeat,
    /// The hub never has more credit than the window has room.
    Window,
    /// A live subscription learns that it was away.
    Gaps,
    /// The outcome of a publish is what the hub has.
    Publishes,
    /// Events are stored in the order of the calls.
    PublishOrder,
    /// What waits to be published is limited.
    Queue,
    /// An event of a group is done when the caller says so, and not before.
    Acks,
    /// What is no failure costs no attempt.
    Attempts,
    /// The place that is kept is behind what is done, and nothing else.
    Place,
    /// The end of a subscription is reported once, and says which subscription of which hub.
    Ended,
    /// After the end of the client nothing is left: no process, no session.
    End,
    /// Memory, descriptors and threads do not grow.
    Leaks,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Progress,
        Self::States,
        Self::ForEver,
        Self::Backoff,
        Self::Silence,
        Self::Order,
        Self::Loss,
        Self::Repeat,
        Self::Window,
        Self::Gaps,
        Self::Publishes,
        Self::PublishOrder,
        Self::Queue,
        Self::Acks,
        Self::Attempts,
        Self::Place,
        Self::Ended,
        Self::End,
        Self::Leaks,
    ];

    /// As scenarios.yaml has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Progress => "progress",
            Self::States => "states",
            Self::ForEver => "for_ever",
            Self::Backoff => "backoff",
            Self::Silence => "silence",
            Self::Order => "order",
            Self::Loss => "loss",
            Self::Repeat => "repeat",
            Self::Window => "window",
            Self::Gaps => "gaps",
            Self::Publishes => "publishes",
            Self::PublishOrder => "publish_order",
            Self::Queue => "queue",
            Self::Acks => "acks",
            Self::Attempts => "attempts",
            Self::Place => "place",
            Self::Ended => "ended",
            Self::End => "end",
            Self::Leaks => "leaks",
        }
    }

    /// The rules of clients/SPEC.md that it stands on.
    pub fn of_spec(self) -> &'static [&'static str] {
        match self {
            Self::Progress => &["1.5", "5.1"],
            Self::States => &["1.1", "1.2", "1.3"],
            Self::ForEver => &["1.4", "1.5"],
            Self::Backoff => &["2.1", "2.2"],
            Self::Silence => &["4.2"],
            Self::Order => &["11.2"],
            Self::Loss => &["5.3", "8.1"],
            Self::Repeat => &["5.3", "9.3", "9.4"],
            Self::Window => &["6.1"],
            Self::Gaps => &["8.1", "8.2"],
            Self::Publishes => &["10.1", "10.3", "10.6"],
            Self::PublishOrder => &["10.5", "11.1"],
            Self::Queue => &["10.2"],
            Self::Acks => &["9.1"],
            Self::Attempts => &["9.8", "13.2"],
            Self::Place => &["7.1", "7.2", "7.3"],
            Self::Ended => &["5.5", "15.2"],
            Self::End => &["1.6", "13.1", "13.3"],
            Self::Leaks => &["1.6"],
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
