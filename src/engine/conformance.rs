//! What every engine must do, whatever it is made of. Each function is a test; `suite!` runs them all on one engine.

mod groups;
mod time;
mod topics;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
pub(crate) use groups::*;
pub(crate) use time::*;
pub(crate) use topics::*;

use super::{
    Append, AppendError, Appended, CreateError, DeleteError, Engine, EventStream, GroupStoreError, OpenError,
    Precondition, PurgeError, ReadError, ReadLimits, UpdateError,
};
use crate::{
    event::{Draft, Event, EventIds, Payload},
    model::{Filter, Group, GroupSettings, Storage, StreamName, StreamSettings, Topic},
};

/// Where engines come from.
pub(crate) trait Ground {
    /// An engine without streams.
    fn engine(&self) -> impl Future<Output = Arc<dyn Engine>>;

    /// The same streams after everything was closed and opened again.
    fn reopened(&self, engine: Arc<dyn Engine>) -> impl Future<Output = Arc<dyn Engine>>;

    /// So much time passes at once.
    fn pass(&self, time: Duration);

    /// From now on, before there is an engine, time passes only by [`Self::pass`].
    fn stop_clock(&self);

    /// What an event counts of the `max_bytes` of a stream when it is appended now, at this sequence. The clock is stopped, since
    /// the length of a time is part of it.
    fn stored_bytes(&self, event: &Event, stream: &str, sequence: u64) -> u64;
}

/// Where two hubs may be on one store.
pub(crate) trait TwoHubs: Ground {
    /// An engine of another hub on the store of one that is open, or why there is none.
    fn beside(&self) -> impl Future<Output = Result<Arc<dyn Engine>, OpenError>>;
}

pub(crate) const EVERYTHING: ReadLimits = ReadLimits { events: usize::MAX, bytes: usize::MAX };

/// An event of the source `src`, or of none when it has no id of its own. A `ttl_ms` of 0 is none.
pub(crate) fn event_with(topic: &str, id: &str, text: &str, ttl_ms: u64) -> Event {
    let draft = Draft {
        topic,
        id,
        source: if id.is_empty() { "" } else { "src" },
        ttl: (ttl_ms > 0).then(|| Duration::from_millis(ttl_ms)),
        payload: Payload::Text(text),
        ..Draft::default()
    };
    draft.build(usize::MAX, &mut EventIds::new("")).expect("an event")
}

pub(crate) fn event(topic: &str, text: &str) -> Event {
    event_with(topic, "", text, 0)
}

/// An event that counts exactly this much, once it has a text that is long enough.
pub(crate) fn sized(bytes: u64, counts: impl Fn(&Event) -> u64, with: impl Fn(&str) -> Event) -> Event {
    let rest = bytes.checked_sub(counts(&with(""))).expect("room for its fields");
    let text = "x".repeat(rest as usize);
    // A longer text has a longer length in front of it.
    let lengths = (0..=text.len()).rev().map(|len| with(&text[..len]));
    lengths.into_iter().find(|event| counts(event) == bytes).expect("such a length")
}

pub(crate) fn filters(patterns: &[&str]) -> Vec<Filter> {
    patterns.iter().map(|pattern| Filter::parse(pattern.as_bytes()).expect("a filter")).collect()
}

pub(crate) fn name(text: &str) -> StreamName {
    StreamName::parse(text).expect("a name")
}

pub(crate) fn settings(text: &str, patterns: &[&str]) -> StreamSettings {
    StreamSettings::new(name(text), filters(patterns))
}

pub(crate) fn group(text: &str) -> Group {
    Group::parse(text).expect("a group")
}

pub(crate) async fn append_all(
    stream: &Arc<dyn EventStream>,
    events: Vec<Event>,
    precondition: Option<Precondition>,
) -> Result<Vec<Appended>, AppendError> {
    stream.append(Append { events, precondition }).await?.await
}

pub(crate) async fn append(stream: &Arc<dyn EventStream>, topic: &str, text: &str) -> u64 {
    append_all(stream, vec![event(topic, text)], None).await.expect("stored")[0].sequence
}

/// Some of the last sequences of topics, behind the first and up to the second of `range`.
pub(crate) async fn lasts(
    stream: &Arc<dyn EventStream>,
    patterns: &[&str],
    range: (u64, u64),
    most: usize,
) -> Vec<u64> {
    stream.last_per_topic(&filters(patterns).into(), range.0, range.1, most).await.expect("the stream is there")
}

/// Sequence and text of everything after a sequence, read in steps.
pub(crate) async fn read_all(
    stream: &Arc<dyn EventStream>,
    after: u64,
    patterns: &[&str],
    limits: ReadLimits,
) -> Result<Vec<(u64, String)>, ReadError> {
    let filters: Arc<[Filter]> = filters(patterns).into();
    let (mut all, mut at) = (Vec::new(), after);
    loop {
        let chunk = stream.read(at, &filters, limits).await?;
        assert!(chunk.events.len() <= limits.events.max(1), "more events than were asked for");
        all.extend(chunk.events.iter().map(|event| (event.sequence(), text_of(event, stream))));
        assert!(chunk.events.last().is_none_or(|last| last.sequence() <= chunk.through));
        if chunk.through >= chunk.latest {
            return Ok(all);
        }
        assert!(chunk.through > at, "no progress");
        at = chunk.through;
    }
}

/// The text of a stored event.
pub(crate) fn text_of(event: &Event, stream: &Arc<dyn EventStream>) -> String {
    assert_eq!(event.view().stream, stream.name().as_str());
    match event.view().payload {
        Payload::Text(text) => text.to_owned(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn sequences(stream: &Arc<dyn EventStream>, after: u64) -> Vec<u64> {
    let all = read_all(stream, after, &[], EVERYTHING).await.expect("readable");
    all.into_iter().map(|(sequence, _)| sequence).collect()
}

pub(crate) async fn what_is_appended_is_read_in_order(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &["a.>"])).await.expect("made");
    let events = (0..100).map(|n| event("a.b", &format!("text {n}"))).collect();
    let results = append_all(&stream, events, None).await.expect("stored");
    let expected = |n: u64| Appended { sequence: n, epoch: stream.epoch(), duplicate: false };
    assert_eq!(results, (1..=100).map(expected).collect::<Vec<_>>());
    assert_eq!(append(&stream, "a.c", "text 100").await, 101);

    let expected: Vec<_> = (0..=100).map(|n| (n + 1, format!("text {n}"))).collect();
    for limits in [EVERYTHING, ReadLimits { events: 7, bytes: usize::MAX }, ReadLimits { events: 1000, bytes: 1 }] {
        assert_eq!(read_all(&stream, 0, &[], limits).await.as_ref(), Ok(&expected));
        assert_eq!(read_all(&stream, 42, &[], limits).await.expect("readable"), expected[42..]);
    }
    assert_eq!(read_all(&stream, 0, &["a.c"], EVERYTHING).await.expect("readable"), expected[100..]);
    let past = stream.read(500, &Arc::from([]), EVERYTHING).await.expect("readable");
    assert_eq!((past.events.len(), past.through, past.latest), (0, 500, 101));

    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(read_all(&stream, 0, &[], EVERYTHING).await, Ok(expected));
    assert_eq!(append(&stream, "a.b", "").await, 102);
    let state = stream.state().await.expect("the state");
    assert_eq!((state.earliest, state.latest, state.events), (1, 102, 102));
}

pub(crate) async fn what_is_stored_is_visible_when_its_result_is_known(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let mut visible = stream.visible();
    assert_eq!(*visible.borrow_and_update(), 0);
    append(&stream, "a", "").await;
    assert!(visible.has_changed().expect("open"));
    assert_eq!(*visible.borrow_and_update(), 1);
    engine.delete_stream(stream.name()).await.expect("deleted");
    while visible.changed().await.is_ok() {}
    assert_eq!(append_all(&stream, vec![event("a", "")], None).await, Err(AppendError::Closed));
    assert_eq!(stream.read(0, &Arc::from([]), EVERYTHING).await.err(), Some(ReadError::Closed));
    assert_eq!(stream.purge(1, None).await, Err(PurgeError::Closed));
    assert_eq!(stream.groups().list().await.err(), Some(GroupStoreError::Closed));
}

pub(crate) async fn topics_belong_to_one_stream(ground: &impl Ground) {
    let engine = ground.engine().await;
    let of = |engine: &Arc<dyn Engine>, topic: &str| {
        let topic = Topic::parse(topic.as_bytes()).expect("a topic");
        engine.stream_of(topic).map(|stream| stream.name().to_string())
    };
    assert_eq!(of(&engine, "a.b"), None);
    engine.create_stream(settings("one", &["a.>", "b.*"])).await.expect("made");
    engine.create_stream(settings("two", &["b.c.d"])).await.expect("made");
    let overlap = CreateError::Overlap { with: name("one") };
    assert_eq!(engine.create_stream(settings("three", &["*.b"])).await.err(), Some(overlap));
    let exists = CreateError::Exists { name: name("two") };
    assert_eq!(engine.create_stream(settings("two", &["x"])).await.err(), Some(exists));
    assert!(matches!(engine.create_stream(settings("x", &[])).await, Err(CreateError::Setting(_))));
    for (topic, stream) in [("a.b", Some("one")), ("b.c", Some("one")), ("b.c.d", Some("two")), ("a", None)] {
        assert_eq!(of(&engine, topic).as_deref(), stream, "{topic}");
    }
    engine.update_stream(settings("two", &["b.c.>", "x"]), None).await.expect("updated");
    let overlap = UpdateError::Overlap { with: name("two") };
    assert_eq!(engine.update_stream(settings("one", &["*"]), None).await.err(), Some(overlap));
    let missing = UpdateError::NotFound { name: name("three") };
    assert_eq!(engine.update_stream(settings("three", &["z"]), None).await.err(), Some(missing));
    let memory = StreamSettings { storage: Storage::Memory, ..settings("one", &["a.>"]) };
    assert_eq!(engine.update_stream(memory, None).await.err(), Some(UpdateError::Mismatch { field: "storage" }));
    let two = engine.stream("two").expect("made");
    let (before, less) = (two.settings(), StreamSettings { max_events: Some(9), ..settings("two", &["b.c.>", "x"]) });
    engine.update_stream(less.clone(), Some(Arc::clone(&before))).await.expect("nobody else changed it");
    assert_eq!(engine.update_stream(less, Some(before)).await.err(), Some(UpdateError::Changed));

    let engine = ground.reopened(engine).await;
    assert_eq!(of(&engine, "x").as_deref(), Some("two"));
    let names: Vec<_> = engine.streams().iter().map(|stream| stream.name().to_string()).collect();
    assert_eq!(names, ["one", "two"]);
    engine.delete_stream(&name("two")).await.expect("deleted");
    assert_eq!(engine.delete_stream(&name("two")).await, Err(DeleteError::NotFound { name: name("two") }));
    assert_eq!((of(&engine, "x"), of(&engine, "a.b").as_deref()), (None, Some("one")));
}

pub(crate) async fn a_stream_made_again_has_a_new_epoch_and_no_events(ground: &impl Ground) {
    let engine = ground.engine().await;
    let one = engine.create_stream(settings("s", &[">"])).await.expect("made");
    append(&one, "a", "").await;
    one.groups().create(group("g"), GroupSettings::default(), Bytes::new()).await.expect("made");
    engine.delete_stream(one.name()).await.expect("deleted");
    let two = engine.create_stream(settings("s", &[">"])).await.expect("made");
    assert!(two.epoch() > one.epoch());
    assert_eq!(sequences(&two, 0).await, [0; 0]);
    assert_eq!(two.groups().list().await, Ok(Vec::new()));
    assert_eq!(append(&two, "a", "").await, 1);
}

pub(crate) async fn repetitions_are_known_inside_the_window(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let results = |results: Result<Vec<Appended>, AppendError>| {
        results.expect("stored").iter().map(|result| (result.sequence, result.duplicate)).collect::<Vec<_>>()
    };
    let some = |ids: &[&str]| ids.iter().map(|id| event_with("a", id, "", 0)).collect::<Vec<_>>();
    assert_eq!(
        results(append_all(&stream, some(&["1", "2", "1", ""]), None).await),
        [(1, false), (2, false), (1, true), (3, false)]
    );
    assert_eq!(results(append_all(&stream, some(&["2", "", "3"]), None).await), [(2, true), (4, false), (5, false)]);
    // The limit deletes what the keys are of.
    let few = StreamSettings { max_events: Some(1), ..settings("s", &[">"]) };
    engine.update_stream(few, None).await.expect("updated");
    assert_eq!(sequences(&stream, 4).await, [5]);
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(
        results(append_all(&stream, some(&["3", "2", "1", "4"]), None).await),
        [(5, true), (2, true), (1, true), (6, false)]
    );
    let elsewhere = vec![event_with("b", "4", "", 0), event_with("b", "4", "", 0)];
    assert_eq!(results(append_all(&stream, elsewhere, None).await), [(7, false), (7, true)], "another topic");
    let off = StreamSettings { dedupe_window: Duration::ZERO, ..settings("s", &[">"]) };
    engine.update_stream(off, None).await.expect("updated");
    assert_eq!(results(append_all(&stream, some(&["4", "4"]), None).await), [(8, false), (9, false)]);
}

pub(crate) async fn preconditions_hold_for_the_whole_append(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let two = |id: &str| vec![event_with("a", id, "", 0), event("a", "")];
    let last = |sequence| Some(Precondition::LastSequence(sequence));
    let of_topic = |sequence| Some(Precondition::LastTopicSequence(sequence));
    assert!(append_all(&stream, two("1"), last(0)).await.is_ok());
    let mismatch = |actual| Err(AppendError::SequenceMismatch { actual });
    assert_eq!(append_all(&stream, two("2"), last(1)).await, mismatch(2));
    append(&stream, "b", "").await;
    assert_eq!(append_all(&stream, two("2"), of_topic(3)).await, mismatch(2));
    assert!(append_all(&stream, two("2"), of_topic(2)).await.is_ok());
    assert_eq!(append_all(&stream, vec![event("c", "")], of_topic(1)).await, mismatch(0));
    let mixed = vec![event("a", ""), event("b", "")];
    assert_eq!(append_all(&stream, mixed, of_topic(5)).await, Err(AppendError::MixedTopics));
    // Tried again after its answer was lost.
    let again = append_all(&stream, vec![event_with("a", "2", "", 0)], of_topic(2)).await.expect("known");
    assert!(again[0].duplicate);
    assert_eq!(sequences(&stream, 0).await, [1, 2, 3, 4, 5]);

    // Of many that compare at the same time exactly one wins.
    let mut receipts = Vec::new();
    for _ in 0..20 {
        receipts.push(stream.append(Append { events: vec![event("b", "")], precondition: of_topic(3) }).await);
    }
    let mut won = 0;
    for receipt in receipts {
        won += usize::from(receipt.expect("queued").await.is_ok());
    }
    assert_eq!(won, 1);
}

pub(crate) async fn limits_hold_exactly_for_readers(ground: &impl Ground) {
    ground.stop_clock();
    let engine = ground.engine().await;
    let few = StreamSettings { max_events: Some(10), ..settings("few", &["few"]) };
    let few = engine.create_stream(few).await.expect("made");
    let max_bytes = 5 * ground.stored_bytes(&event("small", "0123456789"), "small", 1);
    let small = StreamSettings { max_bytes: Some(max_bytes), ..settings("small", &["small"]) };
    let small = engine.create_stream(small).await.expect("made");
    for n in 1..=25 {
        append(&few, "few", "").await;
        append(&small, "small", "0123456789").await;
        let state = few.state().await.expect("the state");
        assert_eq!((state.latest, state.events), (n, n.min(10)));
        assert_eq!(state.earliest, n.saturating_sub(9).max(1));
        assert!(small.state().await.expect("the state").bytes <= max_bytes);
    }
    assert_eq!(sequences(&few, 15).await, (16..=25).collect::<Vec<_>>());
    let lost = ReadError::Lost { earliest: 16, latest: 25 };
    assert_eq!(few.read(14, &Arc::from([]), EVERYTHING).await.err(), Some(lost.clone()));
    assert_eq!(
        (small.state().await.expect("the state").events, small.state().await.expect("the state").earliest),
        (5, 21)
    );
    let mut many = Vec::new();
    many.resize_with(5_000, || event("few", ""));
    append_all(&few, many, None).await.expect("stored");
    assert_eq!(sequences(&few, 5_015).await.len(), 10);

    let engine = ground.reopened(engine).await;
    let few = engine.stream("few").expect("the stream");
    assert_eq!(
        (few.state().await.expect("the state").earliest, few.state().await.expect("the state").events),
        (5_016, 10)
    );
    engine.update_stream(settings("few", &["few"]), None).await.expect("updated");
    append(&few, "few", "").await;
    assert_eq!(
        (few.state().await.expect("the state").earliest, few.state().await.expect("the state").events),
        (5_016, 11)
    );
}

pub(crate) async fn old_events_go_by_themselves(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    append_all(&stream, vec![event("a", ""), event("b", "")], None).await.expect("stored");
    let short = StreamSettings { max_age: Some(Duration::from_millis(1)), ..settings("s", &[">"]) };
    engine.update_stream(short, None).await.expect("updated");
    while stream.state().await.expect("the state").events > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        (stream.state().await.expect("the state").earliest, stream.state().await.expect("the state").latest),
        (3, 2)
    );
    assert_eq!(stream.last_of(Topic::parse(b"a").expect("a topic")).await.expect("readable"), None);
    engine.update_stream(settings("s", &[">"]), None).await.expect("updated");
    assert_eq!(append(&stream, "a", "").await, 3);
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(sequences(&stream, 2).await, [3]);
}

pub(crate) async fn a_topic_keeps_its_last_events(ground: &impl Ground) {
    let engine = ground.engine().await;
    let two = StreamSettings { max_events_per_topic: Some(2), ..settings("s", &[">"]) };
    let stream = engine.create_stream(two.clone()).await.expect("made");
    for n in 0..3_000 {
        append(&stream, ["a", "b", "c"][n % 3], &"x".repeat(100)).await;
    }
    append(&stream, "rare", "").await;
    for _ in 0..10 {
        append(&stream, "a", "").await;
    }
    let expected = [2_996, 2_997, 2_999, 3_000, 3_001, 3_010, 3_011];
    assert_eq!(sequences(&stream, 0).await, expected);
    assert_eq!(stream.state().await.expect("the state").events, expected.len() as u64);
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(sequences(&stream, 0).await, expected);
    assert_eq!(lasts(&stream, &[], (0, u64::MAX), 9).await, [2_999, 3_000, 3_001, 3_011]);
    assert_eq!(lasts(&stream, &["a", "rare"], (0, 3_010), 9).await, [3_001]);
    assert_eq!(lasts(&stream, &[], (2_999, u64::MAX), 2).await, [3_000, 3_001]);
    let one = StreamSettings { max_events_per_topic: Some(1), ..two };
    engine.update_stream(one, None).await.expect("updated");
    assert_eq!(sequences(&stream, 0).await, [2_999, 3_000, 3_001, 3_011]);
    append(&stream, "c", "").await;
    assert_eq!(sequences(&stream, 0).await, [2_999, 3_001, 3_011, 3_012]);
}

pub(crate) async fn purges_take_what_they_name(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    for n in 0..600 {
        append(&stream, ["a", "b"][n % 2], &"x".repeat(100)).await;
    }
    assert_eq!(stream.purge(100, None).await, Ok(100));
    assert_eq!(stream.state().await.expect("the state").earliest, 101);
    assert_eq!(stream.purge(200, filters(&["b"]).pop()).await, Ok(50));
    let mut expected: Vec<u64> = (101..=200).filter(|n| n % 2 == 1).chain(201..=600).collect();
    assert_eq!(sequences(&stream, 100).await, expected);
    assert_eq!(append(&stream, "a", "").await, 601);
    expected.push(601);
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(
        stream.remove(vec![601, 150, 150, 50, 300, 900]).await,
        Ok(2),
        "150 and 50 were gone, 900 is yet to come"
    );
    expected.retain(|n| ![300, 601].contains(n));
    assert_eq!(append(&stream, "a", "").await, 602);
    expected.push(602);
    assert_eq!(sequences(&stream, 100).await, expected);
    assert_eq!(stream.state().await.expect("the state").events, expected.len() as u64);
    let removals = stream.removals();
    assert_eq!(stream.remove(vec![602, 599]).await, Ok(2));
    assert_eq!(lasts(&stream, &[], (0, 602), 9).await, [597, 600], "the last of each that is kept");
    assert_ne!(stream.removals(), removals);
    assert_eq!(stream.last_of(Topic::parse(b"b").expect("a topic")).await.expect("readable"), Some(600));
    assert_eq!(stream.purge(u64::MAX, filters(&["b"]).pop()).await, Ok(199));
    assert_eq!(stream.last_of(Topic::parse(b"b").expect("a topic")).await.expect("readable"), None);
    assert_eq!(stream.purge(u64::MAX, None).await, Ok(249));
    assert_eq!(
        (stream.state().await.expect("the state").earliest, stream.state().await.expect("the state").events),
        (603, 0)
    );
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(
        (
            stream.state().await.expect("the state").earliest,
            stream.state().await.expect("the state").events,
            stream.state().await.expect("the state").latest
        ),
        (603, 0, 602)
    );
    assert_eq!(append(&stream, "a", "").await, 603);
    assert_eq!(sequences(&stream, 602).await, [603]);
}

pub(crate) async fn what_filters_emptied_opens_again(ground: &impl Ground) {
    let mut engine = ground.engine().await;
    engine.create_stream(StreamSettings { max_events: Some(150), ..settings("s", &[">"]) }).await.expect("made");
    let (mut next, mut left) = (1, 0);
    for round in 0..12_u64 {
        let stream = engine.stream("s").expect("the stream");
        let count = 40 + round * 20;
        for _ in 0..count {
            append(&stream, ["a", "b"][round as usize % 2], &"x".repeat(400)).await;
        }
        next += count;
        left = (left + count).min(150);
        assert_eq!(sequences(&stream, next - left - 1).await, (next - left..next).collect::<Vec<_>>());
        if round % 4 != 3 {
            assert_eq!(stream.purge(u64::MAX, filters(&["*"]).pop()).await, Ok(left));
            assert_eq!(stream.purge(u64::MAX, filters(&["c"]).pop()).await, Ok(0));
            left = 0;
            assert_eq!(
                (stream.state().await.expect("the state").earliest, stream.state().await.expect("the state").events),
                (next, 0)
            );
        }
        if round % 2 == 1 {
            engine = ground.reopened(engine).await;
            assert_eq!(engine.stream("s").expect("the stream").state().await.expect("the state").latest, next - 1);
        }
    }
}

pub(crate) async fn a_filter_purges_in_parts_between_which_others_append(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let text = "x".repeat(50_000);
    for _ in 0..15 {
        let some = (0..20).map(|n| event(["a", "b"][n % 2], &text)).collect();
        append_all(&stream, some, None).await.expect("stored");
    }
    let purged = std::sync::atomic::AtomicBool::new(false);
    let purge = async {
        let count = stream.purge(u64::MAX, Some(Filter::parse(b"a").expect("a filter"))).await;
        purged.store(true, std::sync::atomic::Ordering::SeqCst);
        count
    };
    let appends = async {
        let first = append(&stream, "a", "between").await;
        assert!(!purged.load(std::sync::atomic::Ordering::SeqCst), "it does not wait for all of the purge");
        first
    };
    let (count, between) = tokio::join!(purge, appends);
    assert_eq!((count, between), (Ok(150), 301));
    let rest: Vec<u64> = (1..=150).map(|n| n * 2).chain([301]).collect();
    assert_eq!(sequences(&stream, 0).await, rest);
    assert_eq!(
        (
            stream.state().await.expect("the state").events,
            stream.last_of(Topic::parse(b"a").expect("a topic")).await.expect("readable")
        ),
        (151, Some(301))
    );
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(sequences(&stream, 0).await, rest);
    let all: Vec<u64> = (1..=301).collect();
    assert_eq!(stream.remove(all).await, Ok(151));
    assert_eq!(
        (stream.state().await.expect("the state").events, stream.state().await.expect("the state").earliest),
        (0, 302)
    );
}

pub(crate) async fn events_are_found_by_time_and_by_sequence(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let start = SystemTime::now();
    for n in 0..400 {
        append(&stream, ["a", "b"][n % 2], &"x".repeat(200)).await;
    }
    tokio::time::sleep(Duration::from_millis(2)).await;
    let middle = SystemTime::now();
    for _ in 0..400 {
        append(&stream, "a", &"x".repeat(200)).await;
    }
    assert_eq!(stream.first_at(start).await, Ok(1));
    assert_eq!(stream.first_at(middle).await, Ok(401));
    assert_eq!(stream.first_at(SystemTime::now() + Duration::from_secs(9)).await, Ok(801));
    stream.purge(10, None).await.expect("purged");
    assert_eq!(stream.first_at(start).await, Ok(11));
    let got = stream.get(vec![400, 3, 11, 12, 9_999]).await.expect("readable");
    assert_eq!(got.events.iter().map(Event::sequence).collect::<Vec<_>>(), [11, 12, 400]);
    assert_eq!(lasts(&stream, &[], (0, 500), 9).await, [400]);
}

pub(crate) async fn a_stream_in_memory_outlives_nothing_but_its_definition(ground: &impl Ground) {
    let engine = ground.engine().await;
    let memory = StreamSettings { storage: Storage::Memory, max_events: Some(50), ..settings("m", &["m"]) };
    let stream = engine.create_stream(memory.clone()).await.expect("made");
    for _ in 0..60 {
        append(&stream, "m", "").await;
    }
    assert_eq!(sequences(&stream, 10).await, (11..=60).collect::<Vec<_>>());
    let engine_after = ground.reopened(engine).await;
    let after = engine_after.stream("m").expect("the stream");
    assert_eq!(
        (after.state().await.expect("the state").events, after.state().await.expect("the state").latest),
        (0, 0)
    );
    assert!(after.epoch() > stream.epoch());
    assert_eq!(*after.settings(), memory);
    assert_eq!(append(&after, "m", "").await, 1);
}

pub(crate) async fn the_secret_stays_the_same(ground: &impl Ground) {
    let engine = ground.engine().await;
    let key = engine.token_key();
    assert_ne!(key, [0; 32]);
    let engine = ground.reopened(engine).await;
    assert_eq!(engine.token_key(), key);
}

/// Runs every test of the contract on `ground`, an expression; or those that are named, such as what needs [`TwoHubs`].
macro_rules! suite {
    ($ground:expr) => {
        crate::engine::conformance::suite!($ground;
            what_is_appended_is_read_in_order what_is_stored_is_visible_when_its_result_is_known
            topics_belong_to_one_stream a_stream_made_again_has_a_new_epoch_and_no_events
            repetitions_are_known_inside_the_window preconditions_hold_for_the_whole_append
            limits_hold_exactly_for_readers old_events_go_by_themselves a_topic_keeps_its_last_events
            an_event_past_its_ttl_is_gone_for_everybody a_topic_is_free_once_its_event_is_past_its_ttl
            the_last_of_a_topic_is_the_last_that_lives the_dead_push_out_nobody
            what_is_past_its_ttl_leaves_with_all_that_is_known_of_it the_last_of_a_busy_topic_is_always_found
            what_is_larger_than_the_stream_is_refused
            purges_take_what_they_name what_filters_emptied_opens_again
            a_filter_purges_in_parts_between_which_others_append
            events_are_found_by_time_and_by_sequence the_time_of_an_append_is_found_by_sequence
            topics_are_listed_with_their_events
            groups_are_kept_with_their_last_state a_stream_stays_while_a_group_puts_its_dead_letters_there
            a_letter_that_is_tried_again_is_stored_once no_state_is_there_without_its_letters
            a_stream_in_memory_outlives_nothing_but_its_definition
            the_secret_stays_the_same
        );
    };
    ($ground:expr; $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::engine::conformance::$test(&$ground).await;
            }
        )*
    };
}

pub(crate) use suite;
