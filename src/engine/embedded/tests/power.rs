//! Losses of power, on disks that are full, too: what was answered is there, what was seen stays, and what may be lost is told.

use super::*;
use crate::engine::LetterId;

/// What a client knows after a loss of power.
#[derive(Debug, Default)]
struct Witness {
    /// Text and id by sequence, of every event whose result was OK.
    stored: BTreeMap<u64, (String, String)>,
    /// The last sequence that a reader saw.
    seen: u64,
    /// The last state of the group that was saved for sure, and the one that may have been.
    saved: u64,
    tried: u64,
    letters: u64,
}

/// Publishes, saves and reads until the disk fails or enough was done.
async fn work(engine: &Arc<dyn Engine>, random: &mut fastrand::Rng, witness: &mut Witness, round: u32) {
    let Some(stream) = engine.stream("s") else { return };
    let group = Group::parse("g").expect("a group");
    for step in 0..random.u32(1..20) {
        let (mut receipts, mut texts) = (Vec::new(), Vec::new());
        for batch in 0..random.u32(1..4) {
            let some: Vec<_> = (0..random.u32(1..20))
                .map(|n| (format!("{round}.{step}.{batch}.{n}"), "x".repeat(random.usize(0..2_000))))
                .collect();
            let events = some.iter().map(|(id, text)| event_with("s", id, text, 0)).collect();
            receipts.push(stream.append(Append { events, precondition: None }).await);
            texts.push(some);
        }
        if random.u32(..3) == 0 {
            witness.tried += 1;
            let letter = crate::engine::DeadLetter {
                id: LetterId::first(witness.tried),
                stream: name("dead"),
                event: event("dead", "letter"),
            };
            let state = Bytes::from(witness.tried.to_string());
            if stream.groups().bury(crate::engine::Fence::default(), group.clone(), state, vec![letter]).await.is_err()
            {
                return;
            }
            (witness.saved, witness.letters) = (witness.tried, witness.letters + 1);
        }
        for (receipt, some) in receipts.into_iter().zip(texts) {
            let Ok(receipt) = receipt else { return };
            let Ok(results) = receipt.await else { return };
            for (result, (id, text)) in results.iter().zip(some) {
                witness.stored.insert(result.sequence, (id, text));
            }
            witness.seen = witness.seen.max(*stream.visible().borrow());
        }
    }
}

/// What must be there after a loss of power.
async fn check(engine: &Arc<dyn Engine>, witness: &mut Witness, all: &mut BTreeMap<u64, String>) {
    let stream = engine.stream("s").expect("the stream");
    let found = read_all(&stream, 0, &[], EVERYTHING).await.expect("readable");
    let latest = stream.state().await.expect("the state").latest;
    assert!(latest >= witness.seen, "{} was seen, and {latest} is the last", witness.seen);
    assert!(found.iter().map(|(sequence, _)| *sequence).eq(1..=latest), "sequences are missing");
    for (sequence, text) in &found {
        if let Some((_, stored)) = witness.stored.get(sequence) {
            assert!(stored == text, "{sequence} is another event");
        }
        let before = all.entry(*sequence).or_insert_with(|| text.clone());
        assert!(before == text, "{sequence} changed");
    }
    assert!(witness.stored.keys().all(|sequence| *sequence <= latest), "a stored event is lost");
    let known = witness.stored.iter().rev().take(5).map(|(n, (id, _))| (*n, event_with("s", id, "again", 0)));
    let known: Vec<(u64, Event)> = known.collect();
    // A full disk does not say what it knows.
    if !known.is_empty() && engine.health() == Health::Good {
        let events = known.iter().map(|(_, event)| event.clone()).collect();
        let results = append_all(&stream, events, None).await.expect("known");
        let expected: Vec<_> = known.iter().map(|(sequence, _)| (*sequence, true)).collect();
        assert_eq!(results.iter().map(|r| (r.sequence, r.duplicate)).collect::<Vec<_>>(), expected);
    }
    let groups = stream.groups().list().await.expect("readable");
    let state = String::from_utf8(groups[0].state.to_vec()).expect("text");
    let state: u64 = if state.is_empty() { 0 } else { state.parse().expect("a number") };
    assert!((witness.saved..=witness.tried).contains(&state), "state {state} of {witness:?}");
    let letters = sequences(&engine.stream("dead").expect("the stream"), 0).await.len() as u64;
    assert_eq!(letters, state, "a state and its dead letters are one");
    (witness.saved, witness.tried, witness.letters) = (state, state, letters);
}

#[test]
fn a_group_begins_where_it_was_told_after_a_loss_of_power_whatever_its_stream_promises() {
    for durability in [Durability::Sync, Durability::Interval, Durability::None] {
        let disk = Simulated::default();
        runtime().block_on(async {
            let engine = open(&disk, &options()).expect("a new store");
            let stream = engine.create_stream(keeps(durability)).await.expect("made");
            append_all(&stream, vec![event("s", "before"); 9], None).await.expect("stored");
            let (group, state) = (Group::parse("g").expect("a group"), Bytes::from_static(b"behind nine"));
            stream.groups().create(group, GroupSettings::default(), state.clone()).await.expect("made");
            disk.lose_power(&mut fastrand::Rng::with_seed(1));
            drop((stream, engine));
            let engine = open(&disk, &options()).expect("the store");
            let groups = engine.stream("s").expect("the stream").groups().list().await.expect("readable");
            assert_eq!(groups[0].state, state, "{durability:?}");
        });
    }
}

#[test]
fn an_id_is_known_after_its_event_was_purged_wherever_the_power_was_lost() {
    for operations in 1..40 {
        let disk = Simulated::default();
        let known = runtime().block_on(async {
            let engine = open(&disk, &options()).expect("a new store");
            let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
            let once = || vec![event_with("s", "id", "once", 0)];
            append_all(&stream, once(), None).await.expect("stored");
            disk.set_fuse(operations);
            stream.purge(1, None).await.ok();
            disk.lose_power(&mut fastrand::Rng::with_seed(operations.into()));
            drop((stream, engine));
            disk.set_fuse(u32::MAX);
            // What is left to do is done with the next commit.
            let engine = open(&disk, &options()).expect("the store");
            append(&engine.stream("s").expect("the stream"), "s", "another").await;
            engine.close().await.expect("closed");
            drop(engine);
            let engine = open(&disk, &options()).expect("the store");
            append_all(&engine.stream("s").expect("the stream"), once(), None).await.expect("stored")[0].duplicate
        });
        assert!(known, "after {operations} operations");
    }
}

fn lose_power_again_and_again(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = Simulated::default();
    runtime().block_on(async {
        let engine = open(&disk, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
        engine.create_stream(settings("dead", &["dead"])).await.expect("made");
        stream
            .groups()
            .create(Group::parse("g").expect("a group"), GroupSettings::default(), Bytes::new())
            .await
            .expect("made");
        drop((stream, engine));
        disk.lose_power(&mut random);
        let (mut witness, mut all) = (Witness::default(), BTreeMap::new());
        for round in 0..4 {
            // Also while it is opened: a loss of power during recovery.
            if random.u32(..4) == 0 {
                disk.set_fuse(random.u32(1..200));
                drop(open(&disk, &options()));
                disk.lose_power(&mut random);
            }
            let engine = open(&disk, &options()).expect("the store opens again");
            check(&engine, &mut witness, &mut all).await;
            disk.set_capacity(None);
            while engine.health() == Health::Full {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if random.u32(..3) == 0 {
                disk.set_capacity(Some(disk.used() + random.u64(..64 * 1024)));
            }
            disk.set_fuse(random.u32(1..600));
            work(&engine, &mut random, &mut witness, round).await;
            drop(engine);
            disk.lose_power(&mut random);
        }
        let engine = open(&disk, &options()).expect("the store opens again");
        check(&engine, &mut witness, &mut all).await;
    });
}

#[test]
fn no_loss_of_power_takes_what_was_stored_or_seen() {
    for seed in 0..200 {
        let failed = std::panic::catch_unwind(|| lose_power_again_and_again(seed)).is_err();
        assert!(!failed, "seed {seed}");
    }
}

#[test]
fn a_stream_that_may_have_lost_its_tail_has_a_new_epoch_and_no_holes() {
    for (seed, durability) in [(1, Durability::Interval), (2, Durability::None), (3, Durability::Interval)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Simulated::default();
        runtime().block_on(async {
            let engine = open(&disk, &options()).expect("a new store");
            let stream = engine.create_stream(keeps(durability)).await.expect("made");
            for n in 0..100 {
                append(&stream, "s", &format!("{n}")).await;
            }
            drop(engine);
            disk.lose_power(&mut random);
            let engine = open(&disk, &options()).expect("the store opens again");
            let again = engine.stream("s").expect("the stream");
            assert!(again.epoch() > stream.epoch());
            let found = read_all(&again, 0, &[], EVERYTHING).await.expect("readable");
            assert!(found.iter().enumerate().all(|(at, (n, text))| *n == at as u64 + 1 && *text == at.to_string()));
            let epoch = again.epoch();
            engine.close().await.expect("closed");
            let engine = open(&disk, &options()).expect("the store opens again");
            assert_eq!(engine.stream("s").expect("the stream").epoch(), epoch, "it was closed");
        });
    }
}
