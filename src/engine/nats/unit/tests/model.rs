//! A stream as the server keeps it, as far as appends see it.

use std::collections::BTreeMap;

use super::{
    super::super::request::{Answer, Command, Id, Outgoing, Stored},
    Precondition,
};

/// An event, by where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Body {
    /// 0 for one of another publisher.
    pub(super) append: u64,
    pub(super) at: usize,
    pub(super) topic: u8,
    pub(super) key: Option<u128>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) body: Body,
    unit: u64,
}

#[derive(Debug)]
pub(super) struct Server {
    /// Then ids are checked before sequences; otherwise after.
    replicated: bool,
    pub(super) log: Vec<Entry>,
    ids: BTreeMap<Id, u64>,
}

impl Server {
    pub(super) fn new(replicated: bool) -> Self {
        Self { replicated, log: Vec::new(), ids: BTreeMap::new() }
    }

    /// The last sequence, of a topic or of all.
    pub(super) fn last(&self, topic: Option<u8>) -> u64 {
        let is_of = |entry: &Entry| topic.is_none_or(|topic| entry.body.topic == topic);
        self.log.iter().rposition(is_of).map_or(0, |at| at as u64 + 1)
    }

    fn is_broken(&self, precondition: Option<Precondition>, topic: u8) -> bool {
        match precondition {
            Some(Precondition::LastSequence(expected)) => self.last(None) != expected,
            Some(Precondition::LastTopicSequence(expected)) => self.last(Some(topic)) != expected,
            None => false,
        }
    }

    pub(super) fn append(
        &mut self,
        unit: u64,
        messages: &[Outgoing<Body>],
        precondition: Option<Precondition>,
    ) -> Answer {
        let ids: Vec<Id> = messages.iter().filter_map(|message| message.id).collect();
        let known = ids.iter().find_map(|id| self.ids.get(id)).copied();
        let is_broken = self.is_broken(precondition, messages[0].body.topic);
        match known {
            _ if is_broken && !self.replicated => return Answer::Mismatch,
            Some(sequence) if messages.len() == 1 => return Answer::Acked { sequence, duplicate: true },
            Some(_) => return Answer::Duplicates,
            None if is_broken => return Answer::Mismatch,
            None => {}
        }
        for Outgoing { id, body } in messages {
            self.log.push(Entry { body: *body, unit });
            if let Some(id) = id {
                assert!(self.ids.insert(*id, self.log.len() as u64).is_none(), "an id twice in one batch");
            }
        }
        Answer::Acked { sequence: self.log.len() as u64, duplicate: false }
    }

    /// Does what a request asks for.
    pub(super) fn take(&mut self, command: Command<Body>) -> (u64, Answer) {
        match command {
            Command::Send { request, unit, messages, precondition } => {
                (request, self.append(unit, &messages, precondition))
            }
            Command::Probe { request, ids } => {
                (request, Answer::Known(ids.iter().map(|id| self.ids.contains_key(id)).collect()))
            }
            Command::Locate { request, unit, messages } => {
                let mut found = Vec::new();
                for message in &messages {
                    if let Answer::Acked { sequence, duplicate } =
                        self.append(unit, std::slice::from_ref(message), None)
                    {
                        found.push(Stored { sequence, duplicate });
                    }
                }
                (request, Answer::Located(found))
            }
            Command::Last { request, of, body } => {
                let topic = matches!(of, Precondition::LastTopicSequence(_)).then_some(body.topic);
                (request, Answer::Last(self.last(topic)))
            }
            Command::Compare { request, unit, sequence } => {
                let entry = self.log.get(sequence as usize - 1);
                (request, Answer::Ours(entry.is_some_and(|entry| entry.unit == unit)))
            }
            other => panic!("{other:?} is no request"),
        }
    }
}
