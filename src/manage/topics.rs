//! Pages of the topics that a stream has events of, as far as their caller may read them.
//!
//! What one call looks at is limited, however few topics the caller may read: a page may be empty and not the last. Where it goes
//! on may be a topic that the caller may not know of, so that is hidden, and the token is good for no other list.

use std::time::SystemTime;

use super::{MAX_PAGE, MAX_PAGE_BYTES, streams::ReadableStream};
use crate::{
    engine::{KeptTopic, TopicsAsked},
    model::{CommandError, Filter, StreamError, limits::MAX_NAME_BYTES},
};

/// So often one call looks at topics at most, each time at a thousand or so.
const LOOKS: usize = 64;
/// The last events of so many topics are read at once,
const TIMES_AT_ONCE: usize = 16;
/// and no more once this much was read: each of them may be stored beside much else.
const MAX_READ_BYTES: usize = 16 * MAX_PAGE_BYTES;

/// A topic with its numbers has this many bytes at most, so that pages are limited in bytes, too.
const MAX_TOPIC_BYTES: usize = MAX_NAME_BYTES + 64;
const _: () = assert!(MAX_PAGE * MAX_TOPIC_BYTES <= MAX_PAGE_BYTES);

/// Which topics are asked for.
#[derive(Debug, Clone, Copy)]
pub struct TopicsPageAsked<'a> {
    /// Those that begin with this.
    pub prefix: &'a str,
    /// Those that match this; every one without.
    pub filter: Option<&'a Filter>,
    /// Where the page begins, as the one before told; empty for the first.
    pub page_token: &'a str,
    /// So many at most, at least 1.
    pub most: usize,
}

/// A topic that a stream has events of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStatus {
    /// The topic.
    pub topic: Box<str>,
    /// How many events of it are kept.
    pub events: u64,
    /// The last of them: its sequence and when it was appended. `None` while it is being removed.
    pub last: Option<(u64, SystemTime)>,
}

impl ReadableStream<'_> {
    /// A page of topics, by name, and what is to be asked for the next page with.
    pub async fn topics(&self, asked: TopicsPageAsked<'_>) -> Result<(Vec<TopicStatus>, Option<String>), CommandError> {
        let tokens = self.hub.tokens();
        let list = [self.stream.name().as_str(), asked.filter.map_or("", Filter::as_str), asked.prefix];
        let after = match asked.page_token {
            "" => Some(Vec::new()),
            token => tokens.reveal(token, &list),
        };
        let after = after.ok_or_else(|| CommandError::Field {
            field: "page_token",
            problem: "was not issued for a call with these fields".to_owned(),
        })?;
        let (found, through) = self.found(after.into(), asked).await?;
        let topics = self.with_times(&found).await?;
        let cut = topics.last().filter(|_| topics.len() < found.len()).map(|last| last.topic.as_bytes());
        let next = cut.or(through.as_deref()).map(|name| tokens.hide(name, &list));
        Ok((topics, next))
    }

    /// What the caller may read of the topics that are asked for, behind a name; and as far as was looked, if there may be more.
    async fn found(
        &self,
        mut after: Box<[u8]>,
        asked: TopicsPageAsked<'_>,
    ) -> Result<(Vec<KeptTopic>, Option<Box<[u8]>>), StreamError> {
        let name = self.stream.name();
        let mut topics = Vec::new();
        for _ in 0..LOOKS {
            let (prefix, filter) = (asked.prefix.as_bytes(), asked.filter);
            // Of many the caller may read few.
            let rest = TopicsAsked { after: &after, prefix, filter, most: MAX_PAGE };
            let found = self.stream.topics(rest).await.map_err(|error| error.about(name))?;
            topics.extend(self.caller.keep_readable(name.as_str(), found.topics, KeptTopic::topic).await);
            if topics.len() > asked.most {
                topics.truncate(asked.most);
                let last = topics.last().map(|last| last.topic().as_bytes().into());
                return Ok((topics, last));
            }
            match found.through {
                Some(through) => after = through,
                None => return Ok((topics, None)),
            }
            if topics.len() == asked.most {
                break;
            }
            // All this is in memory, and others want to work.
            tokio::task::yield_now().await;
        }
        // One that the caller may read says nothing that it does not know. Then some is looked at once more.
        let through = topics.last().map_or(after, |last| last.topic().as_bytes().into());
        Ok((topics, Some(through)))
    }

    /// Topics with the times of their last events: the first of them, as far as what has to be read for that is not too much.
    async fn with_times(&self, found: &[KeptTopic]) -> Result<Vec<TopicStatus>, StreamError> {
        let (mut topics, mut read_bytes) = (Vec::with_capacity(found.len()), 0);
        for some in found.chunks(TIMES_AT_ONCE) {
            if read_bytes >= MAX_READ_BYTES {
                break;
            }
            let sequences = some.iter().filter_map(|topic| topic.last).collect();
            let read = self.stream.append_times(sequences).await.map_err(|error| error.about(self.stream.name()))?;
            read_bytes += read.read_bytes;
            let time_of = |last: u64| {
                let at = read.times.binary_search_by_key(&last, |(sequence, _)| *sequence).ok()?;
                read.times.get(at).copied()
            };
            topics.extend(some.iter().map(|topic| TopicStatus {
                topic: topic.topic().to_string().into(),
                events: topic.events,
                last: topic.last.and_then(time_of),
            }));
        }
        Ok(topics)
    }
}
