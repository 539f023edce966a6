//! Dead letters that are given back: their group has the events and they are gone, both or neither.

use super::*;
use crate::engine::{DeadLetter, Fence, LetterId, LettersBack};

fn group() -> Group {
    Group::parse("g").expect("a group")
}

fn state(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A stream with a group, and its dead letters: 1 to `letters`.
async fn with_letters(disk: &Simulated, letters: usize, bytes: usize) -> Arc<dyn Engine> {
    let engine = open(disk, &options()).expect("a new store");
    let stream = engine.create_stream(settings("s", &["s"])).await.expect("made");
    engine.create_stream(settings("dead", &["dead"])).await.expect("made");
    stream.groups().create(group(), GroupSettings::default(), Bytes::new()).await.expect("made");
    let letter =
        |id| DeadLetter { id: LetterId::first(id), stream: name("dead"), event: event("a", &"x".repeat(bytes)) };
    stream
        .groups()
        .bury(Fence::default(), group(), state("given up"), (1..=letters as u64).map(letter).collect())
        .await
        .expect("saved");
    engine
}

fn back(engine: &dyn Engine, sequences: &[u64]) -> LettersBack {
    LettersBack { letters: engine.stream("dead").expect("the stream").origin(), sequences: sequences.to_vec() }
}

async fn found(engine: &dyn Engine) -> (Bytes, Vec<u64>) {
    let groups = engine.stream("s").expect("the stream").groups().list().await.expect("readable");
    (groups[0].state.clone(), sequences(&engine.stream("dead").expect("the stream"), 0).await)
}

#[test]
fn letters_are_given_back_with_the_state_that_has_their_events() {
    let disk = Simulated::default();
    runtime().block_on(async {
        let engine = with_letters(&disk, 5, 10).await;
        let (stream, dead) = (engine.stream("s").expect("the stream"), engine.stream("dead").expect("the stream"));
        let removals = dead.removals();
        stream
            .groups()
            .give_back(Fence::default(), group(), state("has them"), back(&*engine, &[2, 4, 99]))
            .await
            .expect("given back");
        assert_eq!(found(&*engine).await, (state("has them"), vec![1, 3, 5]));
        assert_ne!(dead.removals(), removals);
        assert_eq!(
            (dead.state().await.expect("the state").events, dead.kept().after(1), dead.kept().after(3)),
            (3, 2, 1)
        );

        let other = Group::parse("other").expect("a group");
        let refused = stream.groups().give_back(Fence::default(), other, state(""), back(&*engine, &[1])).await;
        assert_eq!(refused, Err(GroupStoreError::NotFound));
        let mut of_another = back(&*engine, &[1]);
        of_another.letters.epoch += 1;
        let refused = stream.groups().give_back(Fence::default(), group(), state("not"), of_another).await;
        assert_eq!(refused, Err(GroupStoreError::DeadLetterStream { name: name("dead") }));
        assert_eq!(found(&*engine).await, (state("has them"), vec![1, 3, 5]), "nothing of what was refused");

        engine.close().await.expect("closed");
        let engine = open(&disk, &options()).expect("the same store");
        assert_eq!(found(&*engine).await, (state("has them"), vec![1, 3, 5]));
    });
}

#[test]
fn however_large_they_are_and_whatever_there_is_all_of_it_is_one_step() {
    runtime().block_on(async {
        let engine = with_letters(&Simulated::default(), 9, 1_000_000).await;
        let stream = engine.stream("s").expect("the stream");
        let all: Vec<u64> = (1..=9).collect();
        stream
            .groups()
            .give_back(Fence::default(), group(), state("has them"), back(&*engine, &all))
            .await
            .expect("given back");
        let groups = stream.groups().list().await.expect("readable");
        let left = engine.stream("dead").expect("the stream").state().await.expect("the state").events;
        assert_eq!((&*groups[0].state, left), (&b"has them"[..], 0));
    });
}

#[test]
fn wherever_the_power_is_lost_the_letters_are_there_or_the_state_is() {
    let mut seen = [false; 2];
    for operations in 1..60 {
        let disk = Simulated::default();
        let (saved, letters) = runtime().block_on(async {
            let engine = with_letters(&disk, 5, 10).await;
            let stream = engine.stream("s").expect("the stream");
            disk.set_fuse(operations);
            stream.groups().give_back(Fence::default(), group(), state("has them"), back(&*engine, &[2, 4])).await.ok();
            disk.lose_power(&mut fastrand::Rng::with_seed(operations.into()));
            drop((stream, engine));
            disk.set_fuse(u32::MAX);
            found(&*open(&disk, &options()).expect("the store")).await
        });
        let has_them = saved == state("has them");
        let expected = if has_them { vec![1, 3, 5] } else { vec![1, 2, 3, 4, 5] };
        assert_eq!(letters, expected, "after {operations} operations, with {saved:?}");
        seen[usize::from(has_them)] = true;
    }
    assert_eq!(seen, [true; 2], "both were tried");
}

#[test]
fn which_events_are_kept_is_told_without_reading_them() {
    for per_topic in [None, Some(2)] {
        runtime().block_on(async {
            let disk = Simulated::default();
            let engine = open(&disk, &options()).expect("a new store");
            let wanted = StreamSettings { max_events_per_topic: per_topic, ..settings("s", &[">"]) };
            let stream = engine.create_stream(wanted).await.expect("made");
            let events = (1..=10).map(|n| event(if n % 2 == 0 { "even" } else { "odd" }, "")).collect();
            append_all(&stream, events, None).await.expect("stored");
            if per_topic.is_none() {
                stream.remove(vec![8]).await.expect("removed");
            }
            stream.purge(1, None).await.expect("purged");
            let expected: Vec<u64> =
                if per_topic.is_some() { vec![7, 8, 9, 10] } else { vec![2, 3, 4, 5, 6, 7, 9, 10] };
            let check = async |stream: &Arc<dyn crate::engine::EventStream>| {
                assert_eq!(stream.which((0..20).collect()).await, Ok(expected.clone()));
                let kept = stream.kept();
                for at in 0..12 {
                    let exact = expected.iter().filter(|sequence| **sequence > at).count() as u64;
                    assert_eq!(kept.after(at), exact, "behind {at}");
                }
            };
            check(&stream).await;
            engine.close().await.expect("closed");
            let engine = open(&disk, &options()).expect("the same store");
            check(&engine.stream("s").expect("the stream")).await;
        });
    }
}
