//! What is past its ttl, what is last, and what is too large.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{
    EVERYTHING, Ground, append, append_all, event, event_with, filters, lasts, name, read_all, sequences, settings,
    sized, text_of,
};
use crate::{
    engine::{AppendError, DeadLetter, EventStream, Fence, GroupStoreError, LetterId, Precondition},
    event::Event,
    model::{Group, GroupSettings, StreamSettings, Topic},
};

const SECOND: Duration = Duration::from_secs(1);

fn topic(name: &str) -> Topic<'_> {
    Topic::parse(name.as_bytes()).expect("a topic")
}

/// An event that is gone after so many seconds.
fn brief(topic: &str, seconds: u64) -> Event {
    event_with(topic, "", "brief", seconds * 1000)
}

async fn put(stream: &Arc<dyn EventStream>, event: Event) -> u64 {
    append_all(stream, vec![event], None).await.expect("stored")[0].sequence
}

/// Waits until the stream counts so many events.
async fn counts(stream: &Arc<dyn EventStream>, events: u64) {
    while stream.state().await.expect("the state").events != events {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) async fn an_event_past_its_ttl_is_gone_for_everybody(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let events = vec![brief("a", 1), brief("a", 1_000), event("a", ""), brief("b", 1)];
    append_all(&stream, events, None).await.expect("stored");
    ground.pass(SECOND);
    assert_eq!(sequences(&stream, 0).await, [2, 3]);
    let got = stream.get(vec![1, 2, 4]).await.expect("readable");
    assert_eq!(got.events.iter().map(Event::sequence).collect::<Vec<_>>(), [2]);
    assert_eq!(
        (stream.last_of(topic("b")).await.expect("readable"), lasts(&stream, &[], (0, 9), 9).await),
        (None, vec![3])
    );
    assert_eq!(stream.last_event(topic("b")).await.expect("readable").map(|event| event.sequence()), None);
    counts(&stream, 2).await;
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!((sequences(&stream, 0).await, stream.state().await.expect("the state").events), (vec![2, 3], 2));
    ground.pass(1_000 * SECOND);
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    assert_eq!(
        (sequences(&stream, 0).await, stream.state().await.expect("the state").events),
        (vec![3], 1),
        "it ended while all was closed"
    );
    assert_eq!(stream.last_of(topic("a")).await.expect("readable"), Some(3));
}

pub(crate) async fn a_topic_is_free_once_its_event_is_past_its_ttl(ground: &impl Ground) {
    ground.stop_clock();
    let mut engine = ground.engine().await;
    engine.create_stream(settings("s", &[">"])).await.expect("made");
    let free = Some(Precondition::LastTopicSequence(0));
    for round in 1..=4 {
        let stream = engine.stream("s").expect("the stream");
        let won = append_all(&stream, vec![brief("lock", 1)], free).await.expect("nobody has it");
        assert_eq!(won[0].sequence, round);
        let taken = append_all(&stream, vec![brief("lock", 1)], free).await;
        assert_eq!(taken, Err(AppendError::SequenceMismatch { actual: round }));
        ground.pass(SECOND);
        if round == 2 {
            engine = ground.reopened(engine).await;
        }
    }
}

pub(crate) async fn the_last_of_a_topic_is_the_last_that_lives(ground: &impl Ground) {
    ground.stop_clock();
    let engine = ground.engine().await;
    for (name, limit) in [("all", None), ("few", Some(3))] {
        let wanted = StreamSettings { max_events_per_topic: limit, ..settings(name, &[&format!("{name}.>")]) };
        let stream = engine.create_stream(wanted).await.expect("made");
        let user = format!("{name}.user");
        let last =
            async || (stream.last_of(topic(&user)).await.expect("readable"), lasts(&stream, &[], (0, 99), 9).await);
        assert_eq!(put(&stream, event(&user, "online")).await, 1);
        put(&stream, brief(&user, 10)).await;
        assert_eq!(put(&stream, brief(&user, 2)).await, 3);
        assert_eq!(last().await, (Some(3), vec![3]));
        ground.pass(2 * SECOND);
        assert_eq!(last().await, (Some(2), vec![2]), "at once");
        counts(&stream, 2).await;
        assert_eq!(last().await, (Some(2), vec![2]));
        ground.pass(8 * SECOND);
        let event = stream.last_event(topic(&user)).await.expect("readable").expect("an event");
        assert_eq!((event.sequence(), text_of(&event, &stream)), (1, "online".to_owned()));
        let onto = |last| Some(Precondition::LastTopicSequence(last));
        let refused = append_all(&stream, vec![brief(&user, 1)], onto(3)).await;
        assert_eq!(refused, Err(AppendError::SequenceMismatch { actual: 1 }));
        append_all(&stream, vec![brief(&user, 1)], onto(1)).await.expect("that is the last");
        assert_eq!(last().await, (Some(4), vec![4]));
        // The one that outlives the others is taken out, and those of which that was not known are the last again.
        let events = vec![brief(&user, 50), brief(&user, 90)];
        append_all(&stream, events, None).await.expect("stored");
        stream.remove(vec![6]).await.expect("removed");
        assert_eq!(last().await, (Some(5), vec![5]));
        ground.pass(50 * SECOND);
        let rest = if limit.is_some() { None } else { Some(1) };
        assert_eq!(last().await.0, rest);
    }
}

pub(crate) async fn the_dead_push_out_nobody(ground: &impl Ground) {
    ground.stop_clock();
    let engine = ground.engine().await;
    let of = |name: &str| settings(name, &[&format!("{name}.>")]);
    // Twice as much as lives at a time.
    let max_bytes = 100 * ground.stored_bytes(&brief("bytes.user", 5), "bytes", 198);
    let all = [
        StreamSettings { max_events: Some(50), ..of("events") },
        StreamSettings { max_bytes: Some(max_bytes), ..of("bytes") },
        StreamSettings { max_events_per_topic: Some(50), ..of("topics") },
    ];
    for wanted in all {
        let stream = engine.create_stream(wanted).await.expect("made");
        let user = format!("{}.user", stream.name());
        put(&stream, event(&user, "kept")).await;
        for _ in 0..4 {
            for _ in 0..49 {
                put(&stream, brief(&user, 5)).await;
            }
            ground.pass(5 * SECOND);
        }
        assert_eq!(put(&stream, brief(&user, 5)).await, 198);
        let found = read_all(&stream, 0, &[], EVERYTHING).await.expect("nothing is lost");
        assert_eq!(found, [(1, "kept".to_owned()), (198, "brief".to_owned())], "{}", stream.name());
    }
    // What lives goes none the less when there is too much of it.
    let stream = engine.stream("events").expect("the stream");
    for _ in 0..50 {
        put(&stream, event("events.user", "")).await;
    }
    assert_eq!(
        (stream.state().await.expect("the state").events, stream.last_event(topic("events.user")).await.is_ok()),
        (50, true)
    );
    assert_eq!(sequences(&stream, 1).await, (199..=248).collect::<Vec<_>>());
}

pub(crate) async fn what_is_past_its_ttl_leaves_with_all_that_is_known_of_it(ground: &impl Ground) {
    ground.stop_clock();
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
    let text = "x".repeat(900);
    let events = (0..2_000_u64).map(|n| event_with(&format!("t.{n}"), &format!("{n}"), &text, 1_000 + n % 5));
    append_all(&stream, events.collect(), None).await.expect("stored");
    let (removals, kept) = (stream.removals(), put(&stream, event("kept", "")).await);
    ground.pass(2 * SECOND);
    counts(&stream, 1).await;
    while stream.removals() == removals {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(stream.state().await.expect("the state").bytes < 100);
    assert_eq!(lasts(&stream, &[], (0, u64::MAX), 9).await, [kept]);
    let again = event_with("t.7", "7", &text, 1_000);
    let known = append_all(&stream, vec![again.clone()], None).await.expect("known");
    assert!(known[0].duplicate, "its id is known for as long as ids are");
    assert_eq!(stream.purge(u64::MAX, filters(&["t.*"]).pop()).await, Ok(0), "nothing is purged that is gone");
    ground.pass(200 * SECOND);
    assert_eq!(put(&stream, again).await, kept + 1);
    ground.pass(2 * SECOND);
    counts(&stream, 1).await;
    assert_eq!(stream.purge(u64::MAX, None).await, Ok(1));
    let engine = ground.reopened(engine).await;
    let state = engine.stream("s").expect("the stream").state().await.expect("the state");
    assert_eq!((state.events, state.bytes, state.earliest), (0, 0, kept + 2));
}

pub(crate) async fn the_last_of_a_busy_topic_is_always_found(ground: &impl Ground) {
    let engine = ground.engine().await;
    let all = engine.create_stream(settings("all", &["all"])).await.expect("made");
    let one = StreamSettings { max_events_per_topic: Some(1), ..settings("one", &["one"]) };
    let few = StreamSettings { max_events: Some(1), ..settings("few", &["few"]) };
    let (one, few) = (engine.create_stream(one).await.expect("made"), engine.create_stream(few).await.expect("made"));
    for stream in [all, one, few] {
        let of = stream.name().to_string();
        append(&stream, &of, "").await;
        let written = AtomicBool::new(false);
        let writer = async {
            for _ in 0..400 {
                append(&stream, &of, "").await;
            }
            written.store(true, SeqCst);
        };
        let reader = async {
            let mut before = 0;
            while !written.load(SeqCst) {
                let last = stream.last_event(topic(&of)).await.expect("readable").expect("there is always one");
                assert!(last.sequence() >= before, "it went back");
                before = last.sequence();
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(writer, reader);
    }
}

pub(crate) async fn what_is_larger_than_the_stream_is_refused(ground: &impl Ground) {
    ground.stop_clock();
    let engine = ground.engine().await;
    let small = StreamSettings { max_bytes: Some(1_000), ..settings("s", &["s", "lost"]) };
    let stream = engine.create_stream(small).await.expect("made");
    let of = |bytes| sized(bytes, |event| ground.stored_bytes(event, "s", 1), |text| event("s", text));
    put(&stream, of(100)).await;
    let refused = |bytes| Err(AppendError::NeverFits { bytes, limit: 1_000 });
    assert_eq!(append_all(&stream, vec![of(1_001)], None).await, refused(1_001));
    assert_eq!(append_all(&stream, vec![of(100), of(2_000)], None).await, refused(2_000));
    let together = Some(Precondition::LastSequence(1));
    assert_eq!(append_all(&stream, vec![of(500), of(501)], together).await, refused(1_001));
    assert_eq!(
        (stream.state().await.expect("the state").latest, sequences(&stream, 0).await),
        (1, vec![1]),
        "nothing has changed"
    );
    append_all(&stream, vec![of(500), of(500)], together).await.expect("as much as there is room for");
    assert_eq!(sequences(&stream, 1).await, [2, 3]);
    append_all(&stream, vec![of(600), of(600), of(1_000)], None).await.expect("they follow each other");
    assert_eq!((sequences(&stream, 5).await, stream.state().await.expect("the state").bytes), (vec![6], 1_000));

    let other = engine.create_stream(settings("o", &["o"])).await.expect("made");
    let group = Group::parse("g").expect("a group");
    other.groups().create(group.clone(), GroupSettings::default(), bytes::Bytes::new()).await.expect("made");
    let letter = |bytes: u64| vec![DeadLetter { id: LetterId::first(bytes), stream: name("s"), event: of(bytes) }];
    let saved =
        async |bytes| other.groups().bury(Fence::default(), group.clone(), bytes::Bytes::new(), letter(bytes)).await;
    assert_eq!(saved(1_001).await, Err(GroupStoreError::NeverFits { name: name("s") }));
    assert_eq!((sequences(&stream, 5).await, saved(1_000).await), (vec![6], Ok(())));
}
