//! Which topics a stream has, and when events were appended.

use std::{sync::Arc, time::Duration};

use super::{Ground, append, append_all, event, event_with, filters, settings};
use crate::{
    engine::{EventStream, KeptTopic, TopicsAsked},
    event::Event,
    model::Filter,
};

/// All topics that begin with something and match a filter, some at a time.
async fn listed(
    stream: &Arc<dyn EventStream>,
    prefix: &str,
    filter: Option<&Filter>,
    most: usize,
) -> Vec<(String, u64, Option<u64>)> {
    let (mut all, mut after): (Vec<KeptTopic>, Box<[u8]>) = (Vec::new(), Box::default());
    loop {
        let asked = TopicsAsked { after: &after, prefix: prefix.as_bytes(), filter, most };
        let found = stream.topics(asked).await.expect("the stream is there");
        assert!(found.topics.len() <= most);
        all.extend(found.topics);
        match found.through {
            Some(through) => after = through,
            None => break,
        }
    }
    all.iter().map(|topic| (topic.topic().to_string(), topic.events, topic.last)).collect()
}

fn owned(topics: &[(&str, u64, u64)]) -> Vec<(String, u64, Option<u64>)> {
    topics.iter().map(|(topic, events, last)| ((*topic).to_owned(), *events, Some(*last))).collect()
}

pub(crate) async fn topics_are_listed_with_their_events(ground: &impl Ground) {
    ground.stop_clock();
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    assert_eq!(listed(&stream, "", None, 9).await, []);
    for topic in ["b.x", "a.x", "a.y", "a.x", "c"] {
        append(&stream, topic, "").await;
    }
    let all = [("a.x", 2, 4), ("a.y", 1, 3), ("b.x", 1, 1), ("c", 1, 5)];
    assert_eq!(listed(&stream, "", None, 9).await, owned(&all));
    assert_eq!(listed(&stream, "", None, 1).await, owned(&all));
    let any_x = &filters(&["*.x"])[0];
    assert_eq!(listed(&stream, "", Some(any_x), 9).await, owned(&[all[0], all[2]]));
    assert_eq!(listed(&stream, "a.", Some(any_x), 9).await, owned(&all[..1]));
    stream.remove(vec![4, 5]).await.expect("removed");
    let rest = owned(&[("a.x", 1, 2), ("a.y", 1, 3), ("b.x", 1, 1)]);
    assert_eq!(listed(&stream, "", None, 9).await, rest);
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(listed(&stream, "", None, 9).await, rest);
    append_all(&stream, vec![event_with("brief", "", "", 1_000)], None).await.expect("stored");
    assert_eq!(listed(&stream, "b", None, 9).await, owned(&[("b.x", 1, 1), ("brief", 1, 6)]));
    ground.pass(Duration::from_secs(1));
    assert_eq!(listed(&stream, "b", None, 9).await, owned(&[("b.x", 1, 1)]), "nothing of it is there any more");
    engine.delete_stream(stream.name()).await.expect("deleted");
    let asked = TopicsAsked { after: b"", prefix: b"", filter: None, most: 9 };
    assert!(stream.topics(asked).await.is_err());
}

pub(crate) async fn the_time_of_an_append_is_found_by_sequence(ground: &impl Ground) {
    ground.stop_clock();
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let mut expected = Vec::new();
    for sequence in 1..=3 {
        ground.pass(Duration::from_secs(1));
        let (before, appended) = (stream.now(), vec![event("a", "1"), event_with("b", "", "2", 2_500)]);
        append_all(&stream, appended, None).await.expect("stored");
        expected.push((2 * sequence - 1, before));
    }
    stream.remove(vec![3]).await.expect("removed");
    let all: Vec<u64> = (1..10).rev().collect();
    let found = stream.append_times(all).await.expect("readable");
    let sequences: Vec<_> = found.times.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, [1, 2, 4, 5, 6]);
    assert!(found.read_bytes > 0 && found.times.is_sorted_by_key(|(_, time)| *time));
    for (sequence, before) in [expected[0], expected[2]] {
        let (_, time) = found.times.iter().find(|(found, _)| *found == sequence).expect("kept");
        let after = time.duration_since(before).expect("not before it was appended");
        assert!(after < Duration::from_secs(1), "{after:?}");
    }
    ground.pass(Duration::from_secs(2));
    let found = stream.append_times(vec![2, 4, 5]).await.expect("readable");
    assert_eq!(found.times.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [5]);
    let got = stream.get(vec![5]).await.expect("readable");
    assert_eq!(got.events.iter().map(Event::sequence).collect::<Vec<_>>(), [5]);
}
