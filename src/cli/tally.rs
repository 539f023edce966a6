//! What became of what was published: counted, and told to people and programs.

use std::{fmt::Write, time::Instant};

use anyhow::anyhow;
use serde_json::json;

use super::show;
use crate::{
    client::{Error, ErrorKind, Published, explain_message},
    proto::v1::{Durability, PublishResponse, PublishResult},
};

/// The results so far.
pub(super) struct Tally {
    start: Instant,
    /// Duplicates are those of other publishes: otherwise an event is one only of itself, sent again after a lost session.
    counts_duplicates: bool,
    accepted: u64,
    matched: i64,
    duplicates: u64,
    /// The last result of an event that a stream holds. All have one topic, and so one stream.
    stored: Option<PublishResult>,
    refused: Failures,
    unknown: Failures,
}

/// Lines that failed in one way.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    /// The first of them, and why.
    first: Option<(u64, String)>,
}

impl Failures {
    fn add(&mut self, line: u64, why: &str) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|(first, _)| line < *first) {
            self.first = Some((line, show::one_line(why).into_owned()));
        }
    }
}

impl Tally {
    /// `has_id` for events whose id was chosen by whoever publishes them.
    pub(super) fn new(has_id: bool) -> Self {
        Self {
            start: Instant::now(),
            counts_duplicates: has_id,
            accepted: 0,
            matched: 0,
            duplicates: 0,
            stored: None,
            refused: Failures::default(),
            unknown: Failures::default(),
        }
    }

    /// Adds the results of a call. Fails with the first that was refused.
    pub(super) fn add(&mut self, response: PublishResponse) -> anyhow::Result<()> {
        for result in response.results {
            if let Some(status) = &result.status {
                return Err(explain_message(status));
            }
            self.accept(result);
        }
        Ok(())
    }

    /// Adds what became of a line.
    pub(super) fn add_line(&mut self, line: u64, result: Result<Published, Error>) {
        match result {
            Ok(Published::Stored { stream, sequence, epoch, duplicate, durability, matched, .. }) => {
                let durability = durability.into();
                let result = PublishResult { stream, sequence, epoch, duplicate, durability, matched, status: None };
                self.accept(result);
            }
            Ok(Published::Live { matched, .. }) => self.accept(PublishResult { matched, ..PublishResult::default() }),
            Err(error) if error.kind() == ErrorKind::Unknown => self.unknown.add(line, &error.to_string()),
            Err(error) => self.refused.add(line, &error.to_string()),
        }
    }

    /// Nobody waited for what became of a line.
    pub(super) fn add_unanswered(&mut self, line: u64) {
        self.unknown.add(line, "the hub has not answered");
    }

    fn accept(&mut self, result: PublishResult) {
        self.accepted += 1;
        self.matched += result.matched;
        self.duplicates += u64::from(result.duplicate && self.counts_duplicates);
        if !result.stream.is_empty() {
            self.stored = Some(result);
        }
    }

    pub(super) fn tell_progress(&self) {
        let rate = self.accepted as f64 / self.start.elapsed().as_secs_f64().max(f64::EPSILON);
        eprintln!("{} events, {rate:.0} a second", self.accepted);
    }

    /// Tells what was published.
    pub(super) fn tell(&self, json: bool) {
        if json {
            println!("{}", self.as_json());
            return;
        }
        let stored = self.stored.as_ref().map(|last| self.stored_text(last)).unwrap_or_default();
        println!("published {}, matched {}{stored}", self.accepted, self.matched);
    }

    /// Tells what became of all lines. Fails if something was refused or is unknown, and with `failure`, for which it ended
    /// before the last line.
    pub(super) fn finish(&self, json: bool, failure: Option<anyhow::Error>) -> anyhow::Result<()> {
        let is_clean = self.refused.count == 0 && self.unknown.count == 0;
        let is_good = is_clean && failure.is_none();
        if is_good || self.accepted > 0 {
            self.tell(json);
        }
        let summary = self.summary();
        match failure {
            None if is_clean => {
                eprintln!("{summary}");
                Ok(())
            }
            None => Err(anyhow!(summary)),
            // It alone says all there is to say.
            Some(failure) if is_clean && self.accepted == 0 => Err(failure),
            Some(failure) => Err(failure.context(summary)),
        }
    }

    fn summary(&self) -> String {
        let Self { accepted, refused, unknown, .. } = self;
        let mut text = format!("{accepted} accepted, {} refused, {} unknown", refused.count, unknown.count);
        for (failures, what) in [(refused, "refused"), (unknown, "unknown")] {
            if let Some((line, why)) = &failures.first {
                // Writing to a string does not fail.
                write!(text, "; the first {what} is line {line}: {why}").ok();
            }
        }
        text
    }

    fn as_json(&self) -> serde_json::Value {
        let mut object = json!({ "events": self.accepted, "matched": self.matched });
        if let Some(last) = &self.stored {
            object["stream"] = json!(last.stream);
            object["sequence"] = json!(last.sequence);
            object["epoch"] = json!(last.epoch);
            object["durability"] = json!(last.durability().as_str_name());
            object["duplicates"] = json!(self.duplicates);
        }
        for (failures, name, first) in
            [(&self.refused, "refused", "first_refused_line"), (&self.unknown, "unknown", "first_unknown_line")]
        {
            if let Some((line, _)) = &failures.first {
                object[name] = json!(failures.count);
                object[first] = json!(line);
            }
        }
        object
    }

    fn stored_text(&self, last: &PublishResult) -> String {
        let PublishResult { stream, sequence, .. } = last;
        if self.accepted == 1 && self.duplicates == 1 {
            return format!(", duplicate of {sequence} in {stream}");
        }
        let promise = match last.durability() {
            Durability::Interval => ", synced at intervals",
            Durability::None => ", not synced",
            Durability::Sync | Durability::Unspecified => "",
        };
        let up_to = if self.accepted == 1 { "" } else { "up to " };
        let duplicates = match self.duplicates {
            0 => String::new(),
            some => format!(", {some} of them duplicates"),
        };
        format!(", stored in {stream} as {up_to}{sequence}{duplicates}{promise}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: i64, duplicate: bool) -> PublishResponse {
        let result = PublishResult { stream: "s".into(), sequence, duplicate, ..PublishResult::default() };
        PublishResponse { results: vec![result] }
    }

    #[test]
    fn the_first_line_of_each_kind_is_named_whatever_the_order() {
        let mut tally = Tally::new(false);
        tally.add(stored(1, false)).unwrap();
        assert_eq!(tally.summary(), "1 accepted, 0 refused, 0 unknown");
        for line in [7, 3, 9] {
            tally.add_unanswered(line);
        }
        tally.refused.add(5, "too\nlarge");
        let expected = "1 accepted, 1 refused, 3 unknown; the first refused is line 5: too\\nlarge; the first unknown is \
                        line 3: the hub has not answered";
        assert_eq!(tally.summary(), expected);
        assert_eq!(tally.finish(false, None).unwrap_err().to_string(), expected);
        let told = tally.as_json();
        let counts = ["events", "refused", "first_refused_line", "unknown", "first_unknown_line"].map(|n| &told[n]);
        assert_eq!(counts, [&json!(1), &json!(1), &json!(5), &json!(3), &json!(3)]);
    }

    #[test]
    fn what_ended_it_is_told_alone_if_nothing_was_published_and_behind_the_counts_otherwise() {
        let failure = || Some(anyhow!("the hub is gone"));
        let mut tally = Tally::new(false);
        assert_eq!(format!("{:#}", tally.finish(false, failure()).unwrap_err()), "the hub is gone");
        tally.add(stored(1, false)).unwrap();
        let told = format!("{:#}", tally.finish(false, failure()).unwrap_err());
        assert_eq!(told, "1 accepted, 0 refused, 0 unknown: the hub is gone");
    }

    #[test]
    fn an_event_that_is_a_duplicate_of_itself_is_none() {
        for (has_id, shown) in
            [(true, ", stored in s as up to 2, 2 of them duplicates"), (false, ", stored in s as up to 2")]
        {
            let mut tally = Tally::new(has_id);
            tally.add(stored(1, true)).unwrap();
            tally.add(stored(2, true)).unwrap();
            let last = tally.stored.clone().unwrap();
            assert!(tally.stored_text(&last).starts_with(shown), "{}", tally.stored_text(&last));
        }
    }
}
