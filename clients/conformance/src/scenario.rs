//! What scenarios.yaml says: for each scenario the hub, the steps, and which rules it is about. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    protocol::{Command, Fate},
    rule::Rule,
};

/// Fewer would not be all that the SPEC asks for.
pub const COUNT: usize = 24;

/// What happens to one client, and what is judged.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// What it is about, in one sentence.
    pub about: String,
    #[serde(default)]
    pub hub: HubSetup,
    pub steps: Vec<Step>,
    /// The rules that it must give something to judge for; all rules are judged.
    pub rules: BTreeSet<Rule>,
    /// The client may fail, and with this reason.
    #[serde(default)]
    pub fails_with: Option<String>,
    /// What a driver that breaks a rule is called, and the rule that it breaks.
    #[serde(default)]
    pub mutants: BTreeMap<String, Rule>,
}

/// The hub of a scenario, and what it has from the beginning.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSetup {
    /// It is started by a step.
    pub absent: bool,
    pub settings: BTreeMap<String, String>,
    /// The policy of a hub that asks for tokens.
    pub policy: Option<String>,
    pub streams: Vec<StreamSetup>,
    pub groups: Vec<GroupSetup>,
}

/// A stream of everything below `NAME.`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSetup {
    pub name: String,
}

/// A group that starts with the first event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSetup {
    pub stream: String,
    pub name: String,
    #[serde(default = "ack_deadline")]
    pub ack_deadline_ms: i64,
}

fn ack_deadline() -> i64 {
    30_000
}

/// One thing after the other.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Say something to the driver. In addresses, `proxy` and `nowhere` stand for what they say; a position is a name.
    Tell(Command),
    /// Say this many times the same, with the number in place of `{n}`.
    TellMany(Many),
    /// Tell the driver a token of these roles.
    Token(TokenStep),
    /// What the network does from now on. Nothing in it: it works.
    Network(Network),
    /// What happens to all connections now.
    Connections(Blow),
    Hub(HubStep),
    Driver(DriverStep),
    CreateStream(StreamSetup),
    DeleteStream(String),
    Purge(Purge),
    /// Another policy.
    Policy(String),
    /// Somebody else publishes.
    Seed(Seed),
    /// Wait until all of this has happened.
    Until(Counts),
    /// All of this must be so exactly, now.
    Check(Counts),
    /// Wait until the hub says this of a group.
    Group(GroupWait),
    /// Wait until the client has a session, which may be one that it has had,
    Up,
    /// or until it has none.
    Down,
    /// Let this much time pass, in milliseconds: as part of what is tested.
    Pass(u64),
    /// Measure the driver's process.
    Measure,
    Repeat(Repeat),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Many {
    pub count: u64,
    pub commands: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenStep {
    #[serde(default = "somebody")]
    pub name: String,
    pub roles: Vec<String>,
    pub life_s: u64,
    /// Whether the driver's source knows how long it is good.
    #[serde(default)]
    pub is_known: bool,
}

fn somebody() -> String {
    "bob".to_owned()
}

/// What the network does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // Each can be so without the others.
pub struct Network {
    /// Nobody listens.
    pub refuse: bool,
    /// Connections end as soon as they are made.
    pub reset: bool,
    /// What the client sends does not arrive,
    pub swallow_up: bool,
    /// or what the hub sends.
    pub swallow_down: bool,
    /// Everything takes this much longer each way, in milliseconds.
    pub delay_ms: u64,
    /// No more than this passes each way in a second. 0: no limit.
    pub bytes_per_second: u64,
    /// Connections end when this many more bytes have come from the hub, wherever in a frame that is. 0: never.
    pub cut_after_down: u64,
    /// The same for bytes from the client.
    pub cut_after_up: u64,
}

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blow {
    /// They are reset.
    Cut,
    /// The hub's side of them ends.
    HalfClose,
    /// They get a GOAWAY that says that no stream was handled.
    Goaway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HubStep {
    Start,
    /// SIGTERM, and wait for its end.
    Drain,
    Kill,
    Freeze,
    Thaw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverStep {
    /// It is killed, and another one started.
    Restart,
    /// Wait for its end, and start another one.
    Next,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    pub stream: String,
    pub up_to: i64,
}

/// Events whose texts are their numbers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    pub topic: String,
    pub first: u64,
    pub count: u64,
    /// How many in one call.
    #[serde(default = "one_by_one")]
    pub batch: u64,
}

fn one_by_one() -> u64 {
    1
}

/// How often things have happened since the scenario began, over all drivers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counts {
    pub ready: Option<u64>,
    /// Sessions that were opened.
    pub sessions: Option<u64>,
    /// Attempts that failed and sessions that were lost.
    pub losses: Option<u64>,
    pub draining: Option<u64>,
    pub failed: Option<u64>,
    /// Attempts to connect.
    pub attempts: Option<u64>,
    pub subscribed: Option<u64>,
    /// Events that were taken, by subscription.
    pub taken: BTreeMap<String, u64>,
    /// By all subscriptions.
    pub taken_in_all: Option<u64>,
    pub gaps: BTreeMap<String, u64>,
    pub gap_reasons: BTreeMap<String, u64>,
    pub ended: BTreeMap<String, u64>,
    pub end_reasons: BTreeMap<String, u64>,
    pub caught_up: BTreeMap<String, u64>,
    /// Events of which the hub has stored that they are done.
    pub settled: Option<u64>,
    /// Those whose lease was lost.
    pub leases_lost: Option<u64>,
    /// Calls to say that a batch is done that have returned.
    pub done: Option<u64>,
    /// Events that were published, and of which the caller knows what became of them.
    pub outcomes: Option<u64>,
    pub fates: BTreeMap<Fate, u64>,
    pub duplicates: Option<u64>,
    pub stats: Option<u64>,
    pub drained: Option<u64>,
    pub drained_clean: Option<u64>,
    /// Within this time, and not within the usual one, which is long.
    pub within_ms: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupWait {
    pub stream: String,
    pub group: String,
    #[serde(default)]
    pub unacked: Option<i64>,
    #[serde(default)]
    pub pending: Option<i64>,
    #[serde(default)]
    pub expired_at_least: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// This often,
    pub times: u64,
    /// or in a long run for this long.
    pub long_s: u64,
    pub steps: Vec<Step>,
}

/// Reads the file. The error says in which scenario it is.
pub fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let all: Vec<serde_json::Value> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let scenarios = all.into_iter().map(|value| {
        let name = value["name"].as_str().unwrap_or("a scenario without a name").to_owned();
        serde_json::from_value(value).map_err(|error| format!("{name}: {error}"))
    });
    scenarios.collect()
}

/// The scenarios of this crate.
pub fn all() -> Result<Vec<Scenario>, String> {
    parse(include_str!("../scenarios.yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_all_scenarios_and_each_has_its_own_name() {
        let all = all().expect("scenarios.yaml");
        assert_eq!(all.len(), COUNT);
        assert_eq!(all.iter().map(|scenario| &scenario.name).collect::<BTreeSet<_>>().len(), COUNT);
        assert!(all.iter().all(|scenario| !scenario.rules.is_empty() && !scenario.about.is_empty()));
    }

    #[test]
    fn every_rule_has_a_scenario_and_a_mutant() {
        let all = all().expect("scenarios.yaml");
        for rule in Rule::ALL {
            let is_about = |scenario: &&Scenario| scenario.rules.contains(&rule);
            assert!(all.iter().any(|scenario| is_about(&scenario)), "no scenario is about {rule}");
            let breaks = |scenario: &Scenario| scenario.mutants.values().any(|broken| *broken == rule);
            assert!(all.iter().any(breaks), "no mutant breaks {rule}");
        }
        for scenario in &all {
            let judged = |rule: &Rule| scenario.rules.contains(rule);
            assert!(scenario.mutants.values().all(judged), "{}: a mutant of a rule it is not about", scenario.name);
        }
    }

    #[test]
    fn a_word_that_nobody_knows_is_found_and_its_scenario_is_named() {
        let text = "- {name: one, about: a, rules: [loss], steps: [{fly: 1}]}";
        let error = parse(text).expect_err("no such step");
        assert!(error.starts_with("one: ") && error.contains("fly"), "{error}");
    }
}
