//! The query of a request: its parameters as checked values. Pure.
//!
//! An unknown parameter, or one that comes twice where one is meant, is refused: what a client misspells would be ignored
//! otherwise, and it would get other events than it asked for.

use std::{borrow::Cow, time::Duration};

use crate::model::{CommandError, Filter, OnGap, Overflow, Start, StreamName, limits::MAX_FILTERS};

/// A query has no more parameters: as many as there may be filters, and the others.
const MAX_PARAMETERS: usize = MAX_FILTERS as usize + 16;
/// No poll waits longer.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);
/// How much is shown of a name that nobody knows, in characters.
const MAX_SHOWN: usize = 32;

/// The parameters of a request, by name.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Those of the part of an address behind `?`, all of which are among `known`, or belong to everybody.
    pub(super) fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, CommandError> {
        let mut parameters = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(field("query", format!("has more than {MAX_PARAMETERS} parameters")));
            }
            // Its value was used up before anybody else reads the query.
            if name == TICKET {
                continue;
            }
            if !known.contains(&&*name) {
                let shown: String =
                    name.chars().take(MAX_SHOWN).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
                return Err(field("query", format!("has a parameter {shown:?}, which is not known here")));
            }
            parameters.push((name, value));
        }
        Ok(Self { parameters })
    }

    /// The value of a parameter that comes once at most. An empty one is as if it were not there.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<&str>, CommandError> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(field(name, "comes twice")),
            (value, None) => Ok(value.filter(|value| !value.is_empty())),
        }
    }

    fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        self.parameters.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// `stream`, if it is there.
    pub(super) fn stream(&self) -> Result<Option<StreamName>, CommandError> {
        let parse = |name: &str| {
            StreamName::parse(name).map_err(|error| field("stream", format!("is not the name of a stream: {error}")))
        };
        self.one("stream")?.map(parse).transpose()
    }

    /// Every `filter`.
    pub(super) fn filters(&self) -> Result<Vec<Filter>, CommandError> {
        if self.all("filter").count() > MAX_FILTERS as usize {
            return Err(field("filter", format!("comes more than {MAX_FILTERS} times")));
        }
        let parse = |(index, text): (usize, &str)| {
            Filter::parse(text.as_bytes()).map_err(|error| CommandError::Filter { index, error })
        };
        self.all("filter").enumerate().map(parse).collect()
    }

    /// Where to begin in a stream: behind `cursor`, which counts most since it is the latest that the client knows, behind
    /// `after`, or as `start` says; `None` when nothing does.
    pub(super) fn start(&self, cursor: Option<&str>) -> Result<Option<Start>, CommandError> {
        let after = self.one("after")?.map(|after| number("after", after)).transpose()?;
        let start = self.one("start")?;
        if after.is_some() && start.is_some() {
            return Err(field("after", "cannot be given together with `start`"));
        }
        let start = match start {
            None => after.map(Start::After),
            Some("new") => Some(Start::New),
            Some("earliest") => Some(Start::Earliest),
            Some("last_per_topic") => Some(Start::LastPerTopic),
            Some(_) => return Err(field("start", "must be new, earliest or last_per_topic")),
        };
        Ok(cursor.map(|cursor| Start::Token(cursor.into())).or(start))
    }

    /// `on_gap`; a gap ends the subscription unless something else is asked for.
    pub(super) fn on_gap(&self) -> Result<OnGap, CommandError> {
        match self.one("on_gap")? {
            None | Some("fail") => Ok(OnGap::Fail),
            Some("earliest") => Ok(OnGap::Earliest),
            Some("latest") => Ok(OnGap::Latest),
            Some(_) => Err(field("on_gap", "must be fail, earliest or latest")),
        }
    }

    /// `overflow`.
    pub(super) fn overflow(&self) -> Result<Option<Overflow>, CommandError> {
        match self.one("overflow")? {
            None => Ok(None),
            Some("drop_oldest") => Ok(Some(Overflow::DropOldest)),
            Some("conflate") => Ok(Some(Overflow::Conflate)),
            Some("end") => Ok(Some(Overflow::End)),
            Some(_) => Err(field("overflow", "must be drop_oldest, conflate or end")),
        }
    }

    /// `limit`, from 1 to `most`.
    pub(super) fn limit(&self, most: u64) -> Result<Option<u64>, CommandError> {
        let limit = self.one("limit")?.map(|limit| number("limit", limit)).transpose()?;
        match limit {
            Some(limit) if limit == 0 || limit > most => Err(field("limit", format!("must be 1 to {most}"))),
            limit => Ok(limit),
        }
    }

    /// `wait`, as `25s` or `500ms`; `usual` when it is not there.
    pub(super) fn wait(&self, usual: Duration) -> Result<Duration, CommandError> {
        match self.one("wait")? {
            None => Ok(usual),
            Some("0") => Ok(Duration::ZERO),
            Some(text) => humantime::parse_duration(text)
                .ok()
                .filter(|wait| *wait <= MAX_WAIT)
                .ok_or_else(|| field("wait", format!("must be 0 to {}s, such as 25s", MAX_WAIT.as_secs()))),
        }
    }
}

/// Lets a client in once; whoever lets it in takes note of that.
const TICKET: &str = "ticket";

fn number(name: &'static str, text: &str) -> Result<u64, CommandError> {
    text.parse().map_err(|_| field(name, "is not a whole number"))
}

fn field(field: &'static str, problem: impl Into<String>) -> CommandError {
    CommandError::Field { field, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: [&str; 8] = ["stream", "filter", "start", "after", "on_gap", "overflow", "limit", "wait"];

    fn query(text: &str) -> Result<Query<'_>, CommandError> {
        Query::parse(Some(text), &KNOWN)
    }

    fn refused<T: std::fmt::Debug>(read: Result<T, CommandError>) -> String {
        read.expect_err("refused").to_string()
    }

    #[test]
    fn every_parameter_is_read() {
        let query = query(
            "stream=orders&filter=a.%3E&filter=b.*&start=earliest&on_gap=latest&overflow=conflate&limit=10&wait=2s",
        );
        let query = query.expect("a query");
        assert_eq!(query.stream().expect("a stream").expect("there").as_str(), "orders");
        let filters = query.filters().expect("filters");
        assert_eq!(filters.iter().map(Filter::as_str).collect::<Vec<_>>(), ["a.>", "b.*"]);
        assert_eq!(query.start(None), Ok(Some(Start::Earliest)));
        assert_eq!((query.on_gap(), query.overflow()), (Ok(OnGap::Latest), Ok(Some(Overflow::Conflate))));
        assert_eq!((query.limit(10), query.wait(Duration::ZERO)), (Ok(Some(10)), Ok(Duration::from_secs(2))));
    }

    #[test]
    fn what_is_not_given_is_usual() {
        let query = query("filter=&ticket=t").expect("a query");
        assert_eq!((query.stream(), query.start(None), query.on_gap()), (Ok(None), Ok(None), Ok(OnGap::Fail)));
        assert_eq!((query.limit(1), query.overflow()), (Ok(None), Ok(None)));
        assert_eq!(query.wait(Duration::from_secs(25)), Ok(Duration::from_secs(25)));
        assert!(Query::parse(None, &[]).expect("none").filters().expect("none").is_empty());
    }

    #[test]
    fn a_cursor_counts_more_than_any_other_start() {
        let from_cursor = Ok(Some(Start::Token("c1.s.1.2".into())));
        for text in ["", "start=earliest", "after=7"] {
            assert_eq!(query(text).expect("a query").start(Some("c1.s.1.2")), from_cursor);
        }
        assert_eq!(query("after=7").expect("a query").start(None), Ok(Some(Start::After(7))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(refused(query("filterz=a")), "query has a parameter \"filterz\", which is not known here");
        assert_eq!(refused(query("a%00%0a=a")), "query has a parameter \"a??\", which is not known here");
        let wrong = |text: &str| {
            let query = Query::parse(Some(text), &KNOWN).expect("known");
            let errors = [
                query.stream().err(),
                query.filters().err(),
                query.start(None).err(),
                query.on_gap().err(),
                query.overflow().err(),
                query.limit(1000).err(),
                query.wait(Duration::ZERO).err(),
            ];
            errors.into_iter().flatten().next().expect("one is wrong").to_string()
        };
        assert_eq!(wrong("stream=a&stream=b"), "stream comes twice");
        assert!(wrong("stream=a.b").starts_with("stream is not the name"));
        assert!(wrong("filter=a&filter=a..b").starts_with("filter 1 is invalid"));
        assert_eq!(wrong("start=now"), "start must be new, earliest or last_per_topic");
        assert_eq!(wrong("start=new&after=1"), "after cannot be given together with `start`");
        assert_eq!(wrong("after=-1"), "after is not a whole number");
        assert_eq!(wrong("on_gap=x"), "on_gap must be fail, earliest or latest");
        assert_eq!(wrong("overflow=x"), "overflow must be drop_oldest, conflate or end");
        for bad in ["limit=0", "limit=1001"] {
            assert_eq!(wrong(bad), "limit must be 1 to 1000");
        }
        for bad in ["wait=61s", "wait=a", "wait=25", "wait=60s1ns"] {
            assert_eq!(wrong(bad), "wait must be 0 to 60s, such as 25s");
        }
    }

    #[test]
    fn there_are_so_many_filters_and_parameters_and_no_more() {
        let filters = |count| vec!["filter=a"; count].join("&");
        assert_eq!(query(&filters(256)).expect("few").filters().expect("at the limit").len(), 256);
        assert_eq!(refused(query(&filters(257)).expect("few").filters()), "filter comes more than 256 times");
        assert!(query(&filters(MAX_PARAMETERS)).is_ok());
        assert!(refused(query(&filters(MAX_PARAMETERS + 1))).contains("more than 272 parameters"));
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(text in "[a-z%=&+0-9A-F.>*]{0,64}") {
            if let Ok(query) = query(&text) {
                let _ = (query.stream(), query.filters(), query.start(None), query.wait(Duration::ZERO));
            }
        }

        #[test]
        fn a_filter_comes_through_as_it_was_written(filter in "[a-z0-9_:=@-]{1,8}(\\.(\\*|[a-z]{1,4})){0,4}(\\.>)?") {
            let text: String = form_urlencoded::Serializer::new(String::new()).append_pair("filter", &filter).finish();
            let filters = query(&text).expect("a query").filters().expect("a filter");
            prop_assert_eq!(filters[0].as_str(), filter);
        }
    }
}
