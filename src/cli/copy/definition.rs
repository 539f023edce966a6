//! What a stream is defined by, and what of it the copy of a stream must have. Pure.

use crate::proto::v1::Stream;

/// For how long duplicates are found while a stream is copied: not at all. The source may have events with the same id that
/// were published far apart, and the target must keep both. Preconditions keep the copy from storing anything twice.
pub(super) const NO_DEDUPE: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 0 };

/// The definition of the copy while it is made.
pub(super) fn of_copy(source: &Stream, name: &str) -> Stream {
    Stream { name: name.to_owned(), dedupe_window: Some(NO_DEDUPE), state: None, ..source.clone() }
}

/// The settings in which a target differs from its source. A copy that was not finished finds no duplicates yet.
pub(super) fn differences(source: &Stream, target: &Stream) -> Vec<&'static str> {
    let sorted = |stream: &Stream| {
        let mut filters = stream.filters.clone();
        filters.sort_unstable();
        filters
    };
    let is_unfinished = target.dedupe_window == Some(NO_DEDUPE);
    let same = [
        ("filters", sorted(source) == sorted(target)),
        ("storage", source.storage == target.storage),
        ("max_age", source.max_age == target.max_age),
        ("max_events", source.max_events == target.max_events),
        ("max_bytes", source.max_bytes == target.max_bytes),
        ("max_events_per_topic", source.max_events_per_topic == target.max_events_per_topic),
        ("dedupe_window", source.dedupe_window == target.dedupe_window || is_unfinished),
        ("durability", source.durability == target.durability),
    ];
    same.into_iter().filter(|(_, is_same)| !is_same).map(|(name, _)| name).collect()
}

/// Whether the oldest events go away by themselves.
pub(super) fn has_limits(stream: &Stream) -> bool {
    let counts = [stream.max_events, stream.max_bytes, stream.max_events_per_topic];
    stream.max_age.is_some() || counts.iter().any(|limit| *limit > 0)
}

/// Whether a stream with these filters takes events of a topic.
pub(super) fn takes(filters: &[String], topic: &str) -> bool {
    filters.iter().any(|filter| matches(filter, topic))
}

fn matches(filter: &str, topic: &str) -> bool {
    let (mut wanted, mut tokens) = (filter.split('.'), topic.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(want), Some(token)) if want == "*" || want == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream { name: "s".into(), filters: vec!["a.>".into(), "b".into()], ..Stream::default() }
    }

    #[test]
    fn a_copy_differs_in_nothing_but_its_name_and_what_it_is_given_last() {
        let window = Some(prost_types::Duration { seconds: 120, nanos: 0 });
        let source = Stream { dedupe_window: window, max_events: 7, ..stream() };
        let copy = of_copy(&source, "t");
        assert_eq!((copy.name.as_str(), copy.dedupe_window, copy.max_events), ("t", Some(NO_DEDUPE), 7));
        assert_eq!(differences(&source, &copy), [""; 0]);
        let finished = Stream { dedupe_window: window, filters: vec!["b".into(), "a.>".into()], ..copy.clone() };
        assert_eq!(differences(&source, &finished), [""; 0]);
        let other = Stream { max_events: 8, durability: 2, dedupe_window: None, ..finished };
        assert_eq!(differences(&source, &other), ["max_events", "dedupe_window", "durability"]);
        assert_eq!((has_limits(&source), has_limits(&stream())), (true, false));
    }

    #[test]
    fn a_stream_takes_what_a_filter_matches() {
        let takes = |filter: &str, topic: &str| takes(&[filter.to_owned()], topic);
        for (filter, topic) in [("a.>", "a.b"), ("a.>", "a.b.c"), ("a.*.c", "a.b.c"), ("a", "a"), (">", "a")] {
            assert!(takes(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [("a.>", "a"), ("a.*", "a.b.c"), ("a", "b"), ("a.b", "a"), ("a", "a.b")] {
            assert!(!takes(filter, topic), "{filter} {topic}");
        }
    }
}
