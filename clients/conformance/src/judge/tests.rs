//! Histories that somebody made up: what is allowed passes, and each thing that is not is found by its rule.

use super::*;
use crate::{
    history::{Fact, Kept},
    protocol::{
        Command, Connect, Event, Failure, Fate, From, Gap, Mode, Outcome, Phase, Publish, Report, State, Stats,
        Subscribe, Take, Then,
    },
};

/// A history, of which each entry is 10 ms after the one before.
#[derive(Default)]
struct Story(Vec<Entry>);

impl Story {
    fn and(mut self, fact: Fact) -> Self {
        let at = self.0.last().map_or(0, |last| last.at + 10);
        self.0.push(Entry { at, fact });
        self
    }

    /// The same, this much later.
    fn after(mut self, ms: u64, fact: Fact) -> Self {
        let at = self.0.last().map_or(0, |last| last.at) + ms;
        self.0.push(Entry { at, fact });
        self
    }

    fn all(self, facts: impl IntoIterator<Item = Fact>) -> Self {
        facts.into_iter().fold(self, Self::and)
    }

    /// What the rule says: whether there was something to judge, and the problems.
    fn checked(&self, rule: Rule) -> (usize, Vec<String>) {
        let scenario = scenario();
        let Checked { evidence, problems } = check(rule, &scenario, &View::new(&self.0));
        (evidence, problems)
    }

    fn passes(&self, rule: Rule) {
        let (evidence, problems) = self.checked(rule);
        assert!(evidence > 0 && problems.is_empty(), "{rule}: {evidence}, {problems:?}");
    }

    fn breaks(&self, rule: Rule) {
        let (_, problems) = self.checked(rule);
        assert!(!problems.is_empty(), "{rule} is not broken");
    }
}

fn scenario() -> Scenario {
    let text = "- {name: one, about: a, rules: [loss], steps: [], fails_with: EXPECTED}";
    crate::scenario::parse(text).expect("a scenario").remove(0)
}

fn reader() -> Story {
    Story::default().and(Fact::DriverBegan).and(told_subscribe("s", "", "")).and(take(Then::Done))
}

fn told_subscribe(stream: &str, group: &str, position: &str) -> Fact {
    let filters = if stream.is_empty() { vec!["a.>".to_owned()] } else { Vec::new() };
    Fact::Told(Command::Subscribe(Subscribe {
        sub: "r".into(),
        stream: stream.into(),
        group: group.into(),
        filters,
        from: From::Earliest,
        window: 4,
        position: position.into(),
        ..Subscribe::default()
    }))
}

fn take(then: Then) -> Fact {
    Fact::Told(Command::Take(Take { sub: "r".into(), count: None, then, work_ms: 0, extend_ms: 0 }))
}

fn event(sequence: i64, text: &str) -> Fact {
    let (sub, topic) = ("r".to_owned(), if sequence > 0 { "s.a" } else { "a.x" }.to_owned());
    Fact::Heard(Report::Event(Event { sub, sequence, topic, text: text.into(), attempt: 1 }))
}

fn events(sequences: &[i64]) -> Vec<Fact> {
    sequences.iter().map(|sequence| event(*sequence, &sequence.to_string())).collect()
}

fn gap(reason: &str, from: Option<i64>, to: Option<i64>) -> Fact {
    Fact::Heard(Report::Gap(Gap { sub: "r".into(), reason: reason.into(), count: None, from, to }))
}

fn stored(sequences: std::ops::RangeInclusive<i64>) -> Fact {
    let kept = |sequence: i64| Kept { sequence, topic: "s.a".into(), text: sequence.to_string() };
    Fact::Stored { stream: "s".into(), events: sequences.map(kept).collect() }
}

fn seeded(number: u64) -> Fact {
    Fact::Seeded { topic: "a.x".into(), number, sequence: 0 }
}

fn state(state: Phase, reason: &str, session: &str) -> Fact {
    let (reason, address, session) = (reason.into(), "127.0.0.1:1".into(), session.into());
    Fact::Heard(Report::State(State { state, reason, address, session }))
}

fn up(session: &str) -> Story {
    Story::default().and(state(Phase::Connecting, "", "")).and(state(Phase::Up, "", session))
}

#[test]
fn events_in_order_pass_and_two_that_changed_places_do_not() {
    reader().all(events(&[1, 2, 5])).passes(Rule::Order);
    reader().all(events(&[1, 3, 2])).breaks(Rule::Order);
    reader().all(events(&[1, 3])).and(gap("epoch", None, None)).all(events(&[1, 2])).passes(Rule::Order);
    let live = || Story::default().and(Fact::DriverBegan).and(told_subscribe("", "", ""));
    live().and(event(0, "1")).and(event(0, "2")).passes(Rule::Order);
    live().and(event(0, "2")).and(event(0, "1")).breaks(Rule::Order);
}

#[test]
fn an_event_that_is_missing_is_found_unless_a_gap_explains_it() {
    reader().all(events(&[1, 2, 3])).and(stored(1..=3)).passes(Rule::Loss);
    reader().all(events(&[1, 3])).and(stored(1..=3)).breaks(Rule::Loss);
    reader().all(events(&[2, 3])).and(stored(1..=3)).breaks(Rule::Loss);
    let told = |from, to| {
        let story = reader().all(events(&[1])).and(gap("retention", Some(from), Some(to)));
        story.all(events(&[4])).and(stored(1..=4))
    };
    told(2, 3).passes(Rule::Loss);
    told(2, 2).breaks(Rule::Loss);
    let live = || Story::default().and(Fact::DriverBegan).and(told_subscribe("", "", "")).all((1..=3).map(seeded));
    live().and(event(0, "1")).and(event(0, "2")).passes(Rule::Loss);
    live().and(event(0, "1")).and(event(0, "3")).breaks(Rule::Loss);
    live().and(event(0, "1")).and(gap("away", None, None)).and(event(0, "3")).and(event(0, "4")).passes(Rule::Loss);
}

fn settled(sequence: i64, reason: Option<&str>) -> Fact {
    let error = reason.map(|reason| Failure { reason: reason.into(), text: String::new() });
    Fact::Heard(Report::Settled { sub: "r".into(), sequence, error })
}

fn member() -> Story {
    Story::default().and(Fact::DriverBegan).and(told_subscribe("s", "g", "")).and(take(Then::Hold))
}

#[test]
fn an_event_comes_again_only_after_its_first_delivery_came_to_nothing() {
    reader().all(events(&[1, 2, 2])).breaks(Rule::Repeat);
    let nack =
        |sequences: &[i64]| Fact::Told(Command::Nack { sub: "r".into(), sequences: sequences.to_vec(), delay_ms: 0 });
    member().all(events(&[1])).and(nack(&[1])).all(events(&[1])).passes(Rule::Repeat);
    member().all(events(&[1])).and(nack(&[])).all(events(&[1])).passes(Rule::Repeat);
    member().all(events(&[1, 2])).and(nack(&[2])).all(events(&[1])).breaks(Rule::Repeat);
    member().all(events(&[1])).and(settled(1, Some("LEASE_EXPIRED"))).all(events(&[1])).passes(Rule::Repeat);
    member().all(events(&[1, 1])).and(settled(1, Some("LEASE_EXPIRED"))).passes(Rule::Repeat);
    member().all(events(&[1, 1])).after(2000, settled(1, Some("LEASE_EXPIRED"))).breaks(Rule::Repeat);
    member().all(events(&[1, 1])).and(settled(1, Some("LEASE_EXPIRED"))).all(events(&[1])).breaks(Rule::Repeat);
    member().all(events(&[1])).and(settled(1, None)).all(events(&[1])).breaks(Rule::Repeat);
    let next_run = [Fact::DriverBegan, told_subscribe("s", "g", ""), take(Then::Hold)];
    member().all(events(&[1])).and(settled(1, None)).all(next_run).all(events(&[1])).breaks(Rule::Repeat);
}

#[test]
fn a_live_subscription_that_was_away_must_say_so() {
    let away = || {
        let live = up("one").and(told_subscribe("", "", "")).and(take(Then::Hold)).and(seeded(1)).and(event(0, "1"));
        live.and(state(Phase::Waiting, "", "")).and(state(Phase::Connecting, "", "")).and(state(Phase::Up, "", "two"))
    };
    away().and(gap("away", None, None)).and(seeded(2)).and(event(0, "2")).passes(Rule::Gaps);
    away().and(seeded(2)).and(event(0, "2")).breaks(Rule::Gaps);
    away().and(seeded(2)).and(event(0, "2")).and(gap("away", None, None)).breaks(Rule::Gaps);
}

#[test]
fn the_place_is_behind_what_is_done_and_nothing_else() {
    let done = |sequence| Fact::Heard(Report::Done { sub: "r".into(), sequence });
    let says = || Fact::Told(Command::Done { sub: "r".into() });
    let first = || {
        let story = Story::default().and(Fact::DriverBegan).and(told_subscribe("s", "", "p")).and(take(Then::Hold));
        let story = story.all(events(&[1, 2])).and(says()).and(done(2)).all(events(&[3]));
        story.and(Fact::DriverBegan).and(told_subscribe("s", "", "p")).and(take(Then::Hold))
    };
    first().all(events(&[3])).and(stored(1..=4)).passes(Rule::Place);
    first().all(events(&[4])).and(stored(1..=4)).breaks(Rule::Place);
    first().all(events(&[2])).and(stored(1..=4)).breaks(Rule::Place);
}

#[test]
fn an_end_is_told_once_and_names_what_it_is_of() {
    let ended = |text: &str| {
        let error = Some(Failure { reason: "X".into(), text: text.into() });
        Fact::Heard(Report::Ended { sub: "r".into(), error })
    };
    reader().and(ended("stream s, http://127.0.0.1:1: gone")).passes(Rule::Ended);
    reader().and(ended("gone")).breaks(Rule::Ended);
    reader().and(ended("stream s, 127.0.0.1:1")).and(ended("stream s, 127.0.0.1:1")).breaks(Rule::Ended);
    reader().and(ended("stream s, 127.0.0.1:1")).all(events(&[1])).breaks(Rule::Ended);
}

fn group(cursor: i64, sent: u64, unacked: &[i64]) -> Fact {
    Fact::Group { stream: "s".into(), group: "g".into(), cursor, sent, unacked: unacked.to_vec() }
}

#[test]
fn the_hub_never_has_more_credit_than_there_is_room() {
    member().all(events(&[1, 2, 3, 4])).and(group(0, 4, &[1, 2, 3, 4])).passes(Rule::Window);
    member().all(events(&[1, 2, 3, 4])).and(group(0, 5, &[1, 2, 3, 4, 5])).breaks(Rule::Window);
    let sent = |events| {
        let (session, stream, group, filters) = ("x".into(), "s".into(), String::new(), Vec::new());
        Fact::Sent { session, stream, group, filters, events }
    };
    reader().and(sent(4)).passes(Rule::Window);
    reader().and(sent(5)).breaks(Rule::Window);
    reader().all(events(&[1])).and(sent(5)).passes(Rule::Window);
}

#[test]
fn an_event_is_done_when_its_caller_says_so() {
    let ack = || Fact::Told(Command::Ack { sub: "r".into(), sequences: vec![1] });
    let taken = || member().and(stored(1..=3)).all(events(&[1, 2]));
    taken().and(ack()).and(group(1, 1, &[2])).passes(Rule::Acks);
    taken().and(group(1, 1, &[2])).breaks(Rule::Acks);
    taken().and(ack()).and(settled(1, None)).and(group(0, 2, &[1, 2])).breaks(Rule::Acks);
}

#[test]
fn only_failures_cost_attempts() {
    let at = |attempt| {
        let (sub, topic, text) = ("r".into(), "s.a".into(), "1".into());
        Fact::Heard(Report::Event(Event { sub, sequence: 1, topic, text, attempt }))
    };
    let nack = || Fact::Told(Command::Nack { sub: "r".into(), sequences: vec![1], delay_ms: 0 });
    member().and(at(1)).and(nack()).and(at(2)).passes(Rule::Attempts);
    member().and(at(2)).breaks(Rule::Attempts);
    member().and(at(1)).and(nack()).and(at(3)).breaks(Rule::Attempts);
}

fn publishing(first: u64, count: u64) -> Story {
    let publish = Publish { topic: "s.a".into(), first, count, deadline_ms: 1, ..Publish::default() };
    Story::default().and(Fact::DriverBegan).and(Fact::Told(Command::Publish(publish)))
}

fn outcome(number: u64, outcome: Fate, sequence: i64) -> Fact {
    Fact::Heard(Report::Outcome(Outcome { number, outcome, sequence, duplicate: false, reason: String::new() }))
}

fn left() -> Fact {
    Fact::DriverEnded { by_itself: true, after_ms: 0 }
}

#[test]
fn outcomes_are_what_the_hub_has() {
    let said = |fate, sequence| publishing(1, 1).and(outcome(1, fate, sequence)).and(left());
    said(Fate::Stored, 1).and(stored(1..=1)).passes(Rule::Publishes);
    said(Fate::Stored, 2).and(stored(1..=2)).breaks(Rule::Publishes);
    said(Fate::Stored, 1).and(stored(2..=3)).breaks(Rule::Publishes);
    said(Fate::Refused, 0).and(stored(2..=3)).passes(Rule::Publishes);
    said(Fate::Refused, 0).and(stored(1..=1)).breaks(Rule::Publishes);
    said(Fate::Unknown, 0).and(stored(1..=1)).passes(Rule::Publishes);
    said(Fate::Unknown, 0).and(stored(2..=2)).passes(Rule::Publishes);
    publishing(1, 1).and(left()).breaks(Rule::Publishes);
    said(Fate::Stored, 1).and(outcome(1, Fate::Stored, 1)).and(stored(1..=1)).breaks(Rule::Publishes);
    let twice = [1, 2].map(|sequence| Kept { sequence, topic: "s.a".into(), text: "1".into() });
    let twice = Fact::Stored { stream: "s".into(), events: twice.to_vec() };
    said(Fate::Unknown, 0).and(twice).breaks(Rule::Publishes);
}

#[test]
fn events_are_stored_in_the_order_of_the_calls() {
    let two = |first, second| {
        publishing(1, 2).and(outcome(1, Fate::Stored, first)).and(outcome(2, Fate::Stored, second)).and(left())
    };
    two(1, 2).passes(Rule::PublishOrder);
    two(2, 1).breaks(Rule::PublishOrder);
}

fn connect() -> Fact {
    let addresses = vec!["proxy".to_owned()];
    Fact::Told(Command::Connect(Connect { addresses, heartbeat_ms: 1000, queue_events: 5, token_source: false }))
}

#[test]
fn the_queue_has_a_limit() {
    let stats = |queued| Fact::Heard(Report::Stats(Stats { queued, in_hand: 0, sessions: 0 }));
    Story::default().and(connect()).and(stats(5)).passes(Rule::Queue);
    Story::default().and(connect()).and(stats(6)).breaks(Rule::Queue);
}

#[test]
fn states_follow_each_other_as_they_may() {
    up("one").passes(Rule::States);
    up("one").and(state(Phase::Waiting, "", "")).and(state(Phase::Up, "", "two")).breaks(Rule::States);
    up("").breaks(Rule::States);
    up("one").and(state(Phase::Closed, "", "")).and(state(Phase::Connecting, "", "")).breaks(Rule::States);
}

#[test]
fn a_client_ends_when_its_caller_says_so() {
    up("one").and(state(Phase::Failed, "EXPECTED", "")).passes(Rule::ForEver);
    up("one").and(state(Phase::Failed, "OTHER", "")).breaks(Rule::ForEver);
    up("one").and(state(Phase::Closed, "", "")).breaks(Rule::ForEver);
    let asked = up("one").and(Fact::Told(Command::Close)).and(state(Phase::Closed, "", ""));
    asked.passes(Rule::ForEver);
}

fn attempts(waits: &[u64]) -> Story {
    let mut story = Story::default().and(state(Phase::Connecting, "", ""));
    for wait in waits {
        story = story.and(state(Phase::Waiting, "", "")).after(*wait, state(Phase::Connecting, "", ""));
    }
    story
}

#[test]
fn attempts_are_random_in_time_and_few() {
    attempts(&[70, 10, 350, 200, 1500, 900, 4000]).passes(Rule::Backoff);
    attempts(&[100, 200, 400, 800, 1600, 3200, 5000]).breaks(Rule::Backoff);
    attempts(&[95, 96, 97, 98, 99, 100, 101]).breaks(Rule::Backoff);
    attempts(&[1500]).breaks(Rule::Backoff);
    Story::default().all(vec![Fact::Accepted; 30]).breaks(Rule::Backoff);
}

#[test]
fn silence_is_noticed_in_time() {
    let silent = || up("one").and(connect()).and(Fact::Silent);
    let lost = || state(Phase::Waiting, "NOTHING_HEARD", "");
    silent().after(7000, lost()).passes(Rule::Silence);
    silent().after(3000, lost()).breaks(Rule::Silence);
    silent().after(12_000, lost()).breaks(Rule::Silence);
    silent().after(12_000, Fact::Audible).breaks(Rule::Silence);
    assert_eq!(silent().after(2000, Fact::Audible).checked(Rule::Silence), (0, Vec::new()));
}

#[test]
fn nothing_is_left_after_the_end() {
    let ended = |by_itself, after_ms| Fact::DriverEnded { by_itself, after_ms };
    let story = || Story::default().and(Fact::DriverBegan);
    story().and(ended(true, 100)).and(Fact::SessionsLeft(0)).passes(Rule::End);
    story().and(ended(false, 100)).breaks(Rule::End);
    story().and(ended(true, 9000)).breaks(Rule::End);
    story().and(ended(true, 100)).and(Fact::SessionsLeft(1)).breaks(Rule::End);
    let drain = || Fact::Told(Command::Drain { timeout_ms: 1000, mode: Mode::Finish });
    let drained = || Fact::Heard(Report::Drained { clean: true });
    story().and(drain()).and(drained()).and(ended(true, 1)).passes(Rule::End);
    story().and(drain()).and(ended(true, 1)).breaks(Rule::End);
    story().and(drain()).after(9000, drained()).breaks(Rule::End);
    story().and(drained()).breaks(Rule::End);
}

#[test]
fn what_grows_is_a_leak() {
    let measured = |resident_kib, descriptors, threads| Fact::Measured { resident_kib, descriptors, threads };
    let story = || Story::default().and(measured(10_000, 10, 3));
    story().and(measured(12_000, 12, 4)).passes(Rule::Leaks);
    story().and(measured(30_000, 12, 4)).breaks(Rule::Leaks);
    story().and(measured(12_000, 20, 4)).breaks(Rule::Leaks);
    story().and(measured(12_000, 12, 9)).breaks(Rule::Leaks);
}

#[test]
fn what_was_waited_for_and_did_not_come_is_a_finding() {
    Story::default().and(Fact::Reached("x".into())).passes(Rule::Progress);
    Story::default().and(Fact::Missed("x".into())).breaks(Rule::Progress);
    Story::default().and(Fact::Nonsense("x".into())).breaks(Rule::Progress);
}

#[test]
fn a_rule_of_which_nothing_was_shown_counts_as_broken() {
    let verdict = judge(&scenario(), &[]);
    assert_eq!(verdict.findings.len(), 1, "{:?}", verdict.findings);
    let finding = &verdict.findings[0];
    assert_eq!((finding.rule, finding.is_seen, verdict.breaks(Rule::Loss)), (Rule::Loss, false, false));
}
