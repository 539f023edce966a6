//! A history in the order in which rules ask for it: by subscription, and by what streams have had. Pure.

use std::collections::BTreeMap;

use crate::{
    history::{Entry, Fact},
    protocol::{Command, Event, Failure, Gap, Report, Subscribe, Take, Then},
};

/// What happened to one subscription.
#[derive(Debug, Clone, Copy)]
pub(super) enum What<'a> {
    Event(&'a Event),
    Gap(&'a Gap),
    Ended(Option<&'a Failure>),
    /// Up to here the caller has done all, and that is kept.
    Done(i64),
    Settled(i64, Option<&'a Failure>),
    /// The caller wants events.
    Take(&'a Take),
    /// The caller says that all it has is done,
    SaysDone,
    /// that these are; none: all that it has,
    Acks(&'a [i64]),
    /// that they failed,
    Nacks(&'a [i64]),
    /// or never can succeed.
    Rejects(&'a [i64]),
}

/// Something that happened to a subscription.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    /// Which entry of the history it is.
    pub(super) index: usize,
    pub(super) at: u64,
    pub(super) what: What<'a>,
}

/// One subscription in one run of the driver.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) spec: &'a Subscribe,
    pub(super) run: usize,
    /// Which life its stream was in when it began.
    pub(super) life: usize,
    pub(super) items: Vec<Item<'a>>,
}

impl Reader<'_> {
    pub(super) fn name(&self) -> &str {
        &self.spec.sub
    }

    pub(super) fn is_live(&self) -> bool {
        self.spec.stream.is_empty()
    }

    /// Whether it reads a stream by itself.
    pub(super) fn reads(&self) -> bool {
        !self.is_live() && self.spec.group.is_empty()
    }

    pub(super) fn is_member_of(&self, stream: &str, group: &str) -> bool {
        self.spec.stream == stream && self.spec.group == group
    }

    /// How many events it may hold.
    pub(super) fn window(&self) -> u64 {
        if self.spec.window == 0 { 256 } else { self.spec.window.into() }
    }

    pub(super) fn wants(&self, topic: &str) -> bool {
        self.spec.filters.is_empty() || self.spec.filters.iter().any(|filter| matches(filter, topic))
    }

    /// What the caller does with what it takes, as it said before this entry.
    pub(super) fn then_before(&self, index: usize) -> Option<Then> {
        let takes = self.items.iter().take_while(|item| item.index < index).filter_map(|item| match item.what {
            What::Take(take) => Some(take.then),
            _ => None,
        });
        takes.last()
    }

    /// How many events it has taken by this time.
    pub(super) fn taken_by(&self, at: u64) -> u64 {
        self.items.iter().take_while(|item| item.at <= at).filter(|item| matches!(item.what, What::Event(_))).count()
            as u64
    }
}

/// An event that a stream has, or has had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) topic: &'a str,
}

/// A history, by subscription and by stream.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) readers: Vec<Reader<'a>>,
    /// By stream, and by which of its lives: what it had.
    known: BTreeMap<(&'a str, usize), BTreeMap<i64, Known<'a>>>,
    /// Which entries are the beginnings of drivers.
    runs: Vec<usize>,
}

impl<'a> View<'a> {
    pub(super) fn new(entries: &'a [Entry]) -> Self {
        let mut making = Making::default();
        for (index, entry) in entries.iter().enumerate() {
            making.add(index, entry);
        }
        let begins = |(index, entry): (usize, &Entry)| (entry.fact == Fact::DriverBegan).then_some(index);
        let runs = entries.iter().enumerate().filter_map(begins).collect();
        Self { entries, readers: making.readers, known: making.known, runs }
    }

    /// What a stream had in one of its lives.
    pub(super) fn known(&self, stream: &str, life: usize) -> impl Iterator<Item = (i64, Known<'a>)> {
        let events = self.known.iter().find(|((name, number), _)| *name == stream && *number == life);
        events.into_iter().flat_map(|(_, events)| events.iter().map(|(sequence, known)| (*sequence, *known)))
    }

    pub(super) fn known_between(&self, stream: &str, life: usize, after: i64, before: i64) -> Vec<(i64, Known<'a>)> {
        if after + 1 >= before {
            return Vec::new();
        }
        let events = self.known.iter().find(|((name, number), _)| *name == stream && *number == life);
        let between = events.into_iter().flat_map(|(_, events)| events.range(after + 1..before));
        between.map(|(sequence, known)| (*sequence, *known)).collect()
    }

    pub(super) fn members<'v>(&'v self, stream: &'v str, group: &'v str) -> impl Iterator<Item = &'v Reader<'a>> {
        self.readers.iter().filter(move |reader| reader.is_member_of(stream, group))
    }

    /// In which run of the driver an entry is.
    pub(super) fn run_at(&self, index: usize) -> usize {
        self.runs.partition_point(|run| *run < index)
    }
}

#[derive(Default)]
struct Making<'a> {
    run: usize,
    /// How often each stream was created.
    lives: BTreeMap<&'a str, usize>,
    readers: Vec<Reader<'a>>,
    known: BTreeMap<(&'a str, usize), BTreeMap<i64, Known<'a>>>,
}

impl<'a> Making<'a> {
    fn life(&self, stream: &str) -> usize {
        self.lives.get(stream).copied().unwrap_or(0)
    }

    fn know(&mut self, stream: &'a str, sequence: i64, topic: &'a str) {
        let life = self.life(stream);
        self.known.entry((stream, life)).or_default().insert(sequence, Known { topic });
    }

    fn add(&mut self, index: usize, entry: &'a Entry) {
        match &entry.fact {
            Fact::DriverBegan => self.run += 1,
            Fact::Created { stream } => *self.lives.entry(stream).or_default() += 1,
            Fact::Seeded { topic, sequence, .. } if *sequence > 0 => {
                self.know(topic.split('.').next().unwrap_or(topic), *sequence, topic);
            }
            Fact::Stored { stream, events } => {
                for event in events {
                    self.know(stream, event.sequence, &event.topic);
                }
            }
            Fact::Told(Command::Subscribe(spec)) => {
                let life = self.life(&spec.stream);
                self.readers.push(Reader { spec, run: self.run, life, items: Vec::new() });
            }
            Fact::Told(command) => {
                if let Some((sub, what)) = told(command) {
                    self.put(index, entry.at, sub, what);
                }
            }
            Fact::Heard(report) => {
                if let Some((sub, what)) = heard(report) {
                    self.put(index, entry.at, sub, what);
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, index: usize, at: u64, sub: &str, what: What<'a>) {
        let run = self.run;
        let mut readers = self.readers.iter_mut().rev().filter(|reader| reader.run == run);
        if let Some(reader) = readers.find(|reader| reader.spec.sub == sub) {
            reader.items.push(Item { index, at, what });
        }
    }
}

fn told(command: &Command) -> Option<(&str, What<'_>)> {
    Some(match command {
        Command::Take(take) => (&take.sub, What::Take(take)),
        Command::Done { sub } => (sub, What::SaysDone),
        Command::Ack { sub, sequences } => (sub, What::Acks(sequences)),
        Command::Nack { sub, sequences, .. } => (sub, What::Nacks(sequences)),
        Command::Reject { sub, sequences } => (sub, What::Rejects(sequences)),
        _ => return None,
    })
}

fn heard(report: &Report) -> Option<(&str, What<'_>)> {
    Some(match report {
        Report::Event(event) => (&event.sub, What::Event(event)),
        Report::Gap(gap) => (&gap.sub, What::Gap(gap)),
        Report::Ended { sub, error } => (sub, What::Ended(error.as_ref())),
        Report::Done { sub, sequence } => (sub, What::Done(*sequence)),
        Report::Settled { sub, sequence, error } => (sub, What::Settled(*sequence, error.as_ref())),
        _ => return None,
    })
}

/// Whether a topic matches a filter: `*` is one token, a final `>` one or more.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('.');
    for token in filter.split('.') {
        match (token, topic.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(has)) if token == has => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn filters_are_those_of_the_hub() {
        for (filter, topic, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*", "a.b.c", false),
            ("a", "b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
