//! The judge: which rules a history breaks. It judges invariants, not transcripts: what may come in any order may. Pure.

mod checked;
mod groups;
mod publishing;
mod reading;
mod sessions;
mod view;

use std::collections::BTreeMap;

use crate::{history::Entry, rule::Rule, scenario::Scenario};
use checked::Checked;
use view::View;

/// Of one rule no more is reported.
const MOST_FINDINGS: usize = 5;

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    pub text: String,
    /// Whether something was seen that must not be; and not only nothing that should have been.
    pub is_seen: bool,
}

/// What the judge says of a history.
#[derive(Debug, Default)]
pub struct Verdict {
    /// None: the client has passed.
    pub findings: Vec<Finding>,
    /// By rule: how often there was something to judge.
    pub evidence: BTreeMap<Rule, usize>,
}

impl Verdict {
    /// Whether this rule was seen to be broken.
    pub fn breaks(&self, rule: Rule) -> bool {
        self.findings.iter().any(|finding| finding.rule == rule && finding.is_seen)
    }
}

/// Judges what happened in a scenario. A rule that the scenario is about, and of which there is nothing to judge, counts as
/// broken: the scenario has not shown what it is there for.
pub fn judge(scenario: &Scenario, history: &[Entry]) -> Verdict {
    let view = View::new(history);
    let mut verdict = Verdict::default();
    for rule in Rule::ALL {
        let Checked { evidence, mut problems } = check(rule, scenario, &view);
        let is_seen = !problems.is_empty();
        if evidence == 0 && !is_seen && scenario.rules.contains(&rule) {
            problems.push("the scenario has shown nothing of it".to_owned());
        }
        let more = problems.len().saturating_sub(MOST_FINDINGS);
        problems.truncate(MOST_FINDINGS);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        verdict.findings.extend(problems.into_iter().map(|text| Finding { rule, text, is_seen }));
        verdict.evidence.insert(rule, evidence);
    }
    verdict
}

fn check(rule: Rule, scenario: &Scenario, view: &View) -> Checked {
    match rule {
        Rule::Progress => sessions::progress(view),
        Rule::States => sessions::changes(view),
        Rule::ForEver => sessions::for_ever(view, scenario.fails_with.as_deref()),
        Rule::Backoff => sessions::backoff(view),
        Rule::Silence => sessions::silence(view),
        Rule::End => sessions::end(view),
        Rule::Leaks => sessions::leaks(view),
        Rule::Order => reading::order(view),
        Rule::Loss => reading::loss(view),
        Rule::Repeat => reading::repeat(view),
        Rule::Gaps => reading::gaps(view),
        Rule::Place => reading::place(view),
        Rule::Ended => reading::ended(view),
        Rule::Window => groups::window(view),
        Rule::Acks => groups::acks(view),
        Rule::Attempts => groups::attempts(view),
        Rule::Publishes => publishing::publishes(view),
        Rule::PublishOrder => publishing::order(view),
        Rule::Queue => publishing::queue(view),
    }
}

#[cfg(test)]
mod tests;
