//! What is kept of groups: their settings and state, their dead letters, and which hub drives them.

use std::sync::Arc;

use bytes::Bytes;

use super::{EVERYTHING, Ground, TwoHubs, append, event_with, group, name, read_all, sequences, settings};
use crate::{
    engine::{
        Claim, DeadLetter, DeleteError, Engine, EventStream, Fence, GroupStoreError, LetterId, LettersBack, OpenError,
        StoredGroup,
    },
    model::{Group, GroupSettings},
};

/// Claims the group of a stream for the hub whose handle this is.
async fn claimed(stream: &Arc<dyn EventStream>, group: &Group) -> Fence {
    match stream.groups().claim(group.clone()).await.expect("claimed") {
        Claim::Here(fence) => fence,
        Claim::At(node) => panic!("{node} has it"),
    }
}

async fn stored(stream: &Arc<dyn EventStream>, group: &Group) -> StoredGroup {
    stream.groups().load(group.clone()).await.expect("readable").expect("the group")
}

fn state(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// The dead letter of an event with that sequence.
fn letter(sequence: u64) -> DeadLetter {
    DeadLetter {
        id: LetterId::first(sequence),
        stream: name("dead"),
        event: event_with("a", "", &sequence.to_string(), 0),
    }
}

fn letters(sequences: &[u64]) -> Vec<DeadLetter> {
    sequences.iter().map(|sequence| letter(*sequence)).collect()
}

/// The texts of all dead letters, which are the sequences of their events.
async fn buried(engine: &Arc<dyn Engine>) -> Vec<String> {
    let dead = engine.stream("dead").expect("the stream");
    read_all(&dead, 0, &[], EVERYTHING).await.expect("readable").into_iter().map(|(_, text)| text).collect()
}

/// A stream with a group, and one for its dead letters.
async fn with_group(engine: &Arc<dyn Engine>) -> (Arc<dyn EventStream>, Group) {
    let stream = engine.create_stream(settings("s", &["a"])).await.expect("made");
    engine.create_stream(settings("dead", &["dead"])).await.expect("made");
    stream.groups().create(group("g"), GroupSettings::default(), Bytes::new()).await.expect("made");
    (stream, group("g"))
}

pub(crate) async fn groups_are_kept_with_their_last_state(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &["a"])).await.expect("made");
    let dead = engine.create_stream(settings("dead", &["dead"])).await.expect("made");
    let settings_of = |n| GroupSettings { max_unacked: n, ..GroupSettings::default() };
    stream.groups().create(group("g"), settings_of(1), Bytes::new()).await.expect("made");
    assert_eq!(stream.groups().create(group("g"), settings_of(2), Bytes::new()).await, Err(GroupStoreError::Exists));
    assert_eq!(stream.groups().update(group("h"), settings_of(2)).await, Err(GroupStoreError::NotFound));
    assert_eq!(stream.groups().delete(group("h")).await, Err(GroupStoreError::NotFound));
    stream.groups().create(group("h"), GroupSettings::default(), Bytes::new()).await.expect("made");
    stream.groups().update(group("g"), settings_of(7)).await.expect("changed");

    let letter = |id, to: &str| DeadLetter {
        id: LetterId::first(id),
        stream: name(to),
        event: event_with("a", "id", "given up", 0),
    };
    let state = |text: &'static str| Bytes::from_static(text.as_bytes());
    stream.groups().save(Fence::default(), group("g"), state("one")).await.expect("saved");
    stream
        .groups()
        .bury(Fence::default(), group("g"), state("two"), vec![letter(1, "dead"), letter(2, "dead")])
        .await
        .expect("saved");
    let gone = Err(GroupStoreError::DeadLetterStream { name: name("x") });
    assert_eq!(
        stream
            .groups()
            .bury(Fence::default(), group("g"), state("three"), vec![letter(3, "dead"), letter(4, "x")])
            .await,
        gone
    );
    assert_eq!(stream.groups().save(Fence::default(), group("x"), state("x")).await, Err(GroupStoreError::NotFound));
    assert_eq!(*dead.visible().borrow(), 2);

    let engine = ground.reopened(engine).await;
    let (stream, dead) = (engine.stream("s").expect("the stream"), engine.stream("dead").expect("the stream"));
    let groups = stream.groups().list().await.expect("readable");
    let found: Vec<_> = groups.iter().map(|g| (g.group.as_str(), g.settings.max_unacked, &*g.state)).collect();
    assert_eq!(found, [("g", 7, &b"two"[..]), ("h", 1_000, &b""[..])]);
    let letters = read_all(&dead, 0, &[], EVERYTHING).await.expect("readable");
    assert_eq!(letters, [(1, "given up".to_owned()), (2, "given up".to_owned())]);
    stream.groups().delete(group("g")).await.expect("deleted");
    stream.groups().create(group("g"), settings_of(3), Bytes::new()).await.expect("made");
    let groups = stream.groups().list().await.expect("readable");
    assert_eq!((groups[0].settings.max_unacked, groups[0].state.len()), (3, 0));
}

pub(crate) async fn a_stream_stays_while_a_group_puts_its_dead_letters_there(ground: &impl Ground) {
    let engine = ground.engine().await;
    let stream = engine.create_stream(settings("s", &["a"])).await.expect("made");
    engine.create_stream(settings("dead", &["dead"])).await.expect("made");
    let into =
        |name: Option<&str>| GroupSettings { dead_letter_stream: name.map(self::name), ..GroupSettings::default() };
    let none = Err(GroupStoreError::DeadLetterStream { name: name("x") });
    assert_eq!(stream.groups().create(group("g"), into(Some("x")), Bytes::new()).await, none);
    stream.groups().create(group("g"), into(Some("dead")), Bytes::new()).await.expect("made");
    assert_eq!(stream.groups().update(group("g"), into(Some("x"))).await, none);
    let kept = Err(DeleteError::TakesDeadLetters { stream: name("s"), group: group("g") });
    assert_eq!(engine.delete_stream(&name("dead")).await, kept);
    let engine = ground.reopened(engine).await;
    assert_eq!(engine.delete_stream(&name("dead")).await, kept);
    let stream = engine.stream("s").expect("the stream");
    stream.groups().update(group("g"), into(None)).await.expect("changed");
    engine.delete_stream(&name("dead")).await.expect("deleted");
    engine.create_stream(settings("dead", &["dead"])).await.expect("made");
    stream.groups().update(group("g"), into(Some("dead"))).await.expect("changed");
    engine.delete_stream(&name("s")).await.expect("deleted, and its groups with it");
    engine.delete_stream(&name("dead")).await.expect("deleted");
}

pub(crate) async fn a_letter_that_is_tried_again_is_stored_once(ground: &impl Ground) {
    let engine = ground.engine().await;
    let (stream, group) = with_group(&engine).await;
    let fence = claimed(&stream, &group).await;
    let bury = async |text, sequences: &[u64]| {
        stream.groups().bury(fence, group.clone(), state(text), letters(sequences)).await.expect("stored");
    };
    bury("one", &[1, 2]).await;
    bury("one", &[1, 2]).await;
    assert_eq!(buried(&engine).await, ["1", "2"]);
    bury("two", &[2, 3, 3]).await;
    assert_eq!((buried(&engine).await, stored(&stream, &group).await.state), (letter_texts(&[1, 2, 3]), state("two")));
    // Nobody waits for the first of the two, and both may be written at once.
    let (first, again) = tokio::join!(
        stream.groups().bury(fence, group.clone(), state("three"), letters(&[4])),
        stream.groups().bury(fence, group.clone(), state("three"), letters(&[4])),
    );
    assert_eq!((first, again), (Ok(()), Ok(())));
    assert_eq!(buried(&engine).await, ["1", "2", "3", "4"]);
    // Another group has events of its own.
    let other = self::group("other");
    stream.groups().create(other.clone(), GroupSettings::default(), Bytes::new()).await.expect("made");
    let of_other = claimed(&stream, &other).await;
    stream.groups().bury(of_other, other, state("other"), letters(&[4])).await.expect("stored");
    assert_eq!(buried(&engine).await, ["1", "2", "3", "4", "4"]);
    // An event that the group has back may be given up once more.
    let dead = engine.stream("dead").expect("the stream");
    let back = LettersBack { letters: dead.origin(), sequences: vec![4] };
    stream.groups().give_back(fence, group.clone(), state("four"), back).await.expect("given back");
    assert_eq!(buried(&engine).await, ["1", "2", "3", "4"]);
    let of_round = |round| {
        let again = letters(&[4]).into_iter();
        again.map(|letter| DeadLetter { id: LetterId { round, ..letter.id }, ..letter }).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        stream.groups().bury(fence, group.clone(), state("five"), of_round(1)).await.expect("stored");
    }
    assert_eq!(buried(&engine).await, ["1", "2", "3", "4", "4"]);
    // One of another round is another letter, even in the save that comes next.
    stream.groups().bury(fence, group.clone(), state("six"), of_round(2)).await.expect("stored");
    assert_eq!(buried(&engine).await, ["1", "2", "3", "4", "4", "4"]);
}

pub(crate) async fn no_state_is_there_without_its_letters(ground: &impl Ground) {
    let engine = ground.engine().await;
    let (stream, group) = with_group(&engine).await;
    let fence = claimed(&stream, &group).await;
    stream.groups().save(fence, group.clone(), state("before")).await.expect("saved");
    // Whoever waits for it is gone: it may be done or not.
    let burying = stream.groups().bury(fence, group.clone(), state("after"), letters(&[1, 2]));
    drop(tokio::time::timeout(std::time::Duration::ZERO, burying).await);
    let engine = ground.reopened(engine).await;
    let stream = engine.stream("s").expect("the stream");
    let fence = claimed(&stream, &group).await;
    let found = stored(&stream, &group).await.state;
    if found == state("after") {
        assert_eq!(buried(&engine).await, ["1", "2"]);
    } else {
        assert_eq!(found, state("before"));
        stream.groups().bury(fence, group.clone(), state("after"), letters(&[1, 2])).await.expect("stored");
    }
    assert_eq!((buried(&engine).await, stored(&stream, &group).await.state), (letter_texts(&[1, 2]), state("after")));
}

pub(crate) async fn a_second_hub_is_refused_or_shares_the_store(ground: &impl TwoHubs) {
    let engine = ground.engine().await;
    let (stream, group) = with_group(&engine).await;
    let fence = claimed(&stream, &group).await;
    match ground.beside().await {
        Err(refused) => assert!(matches!(refused, OpenError::InUse { .. }), "{refused}"),
        Ok(second) => shares(&stream, &group, &second).await,
    }
    // Nothing of that disturbs the first.
    stream.groups().save(fence, group.clone(), state("saved")).await.expect("saved");
    let next = append(&stream, "a", "").await;
    assert_eq!((sequences(&stream, next - 1).await, stored(&stream, &group).await.state), (vec![next], state("saved")));
    let engine = ground.reopened(engine).await;
    assert_eq!(stored(&engine.stream("s").expect("the stream"), &group).await.state, state("saved"));
}

/// Two hubs on one store see the same events, and one of them drives a group.
async fn shares(stream: &Arc<dyn EventStream>, group: &Group, second: &Arc<dyn Engine>) {
    let there = second.stream("s").expect("the stream");
    let sequence = append(stream, "a", "shared").await;
    assert_eq!(there.state().await.expect("the state").latest, sequence);
    assert_eq!(sequences(&there, sequence - 1).await, [sequence]);
    assert!(matches!(there.groups().claim(group.clone()).await, Ok(Claim::At(_))));
    let refused = there.groups().save(Fence::default(), group.clone(), state("stolen")).await;
    assert_eq!(refused, Err(GroupStoreError::Fenced));
}

fn letter_texts(sequences: &[u64]) -> Vec<String> {
    sequences.iter().map(u64::to_string).collect()
}
