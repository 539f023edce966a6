//! The embedded engine: the contract, a model, losses of power, full disks and damage.

mod backup;
mod full;
mod letters;
mod memory;
mod parts;
mod power;
mod time;
mod upgrade;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Embedded, disk::Disk, simulated::Simulated};
use crate::{
    engine::{
        Append, AppendError, Engine, EventStream, GroupStoreError, Health, OpenError, Options, PurgeError, ReadError,
        StoreError,
        conformance::{
            EVERYTHING, Ground, TwoHubs, append, append_all, event, event_with, filters, name, read_all, sequences,
            settings, suite,
        },
    },
    event::{Event, Stamp},
    model::{Durability, Filter, Group, GroupSettings, StreamSettings, StreamState, Topic},
    tasks::Tasks,
};

/// Time passes quickly, and memory is short.
fn options() -> Options {
    Options { sweep_interval_ms: 5, sync_interval_ms: 2, store_cache_bytes: 1024 * 1024, ..Options::default() }
}

fn open(disk: &Simulated, options: &Options) -> Result<Arc<dyn Engine>, OpenError> {
    let engine = Embedded::open_on(
        Arc::new(disk.of_new_process()),
        options,
        &Tasks::default(),
        &Arc::default(),
        &Arc::default(),
    )?;
    Ok(Arc::new(engine))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

struct OnDisk {
    disk: Simulated,
    options: Options,
}

impl OnDisk {
    fn new(options: Options) -> Self {
        Self { disk: Simulated::default(), options }
    }
}

impl Ground for OnDisk {
    async fn engine(&self) -> Arc<dyn Engine> {
        open(&self.disk, &self.options).expect("a new store")
    }

    async fn reopened(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        engine.close().await.expect("closed");
        open(&self.disk, &self.options).expect("the same store")
    }

    fn pass(&self, time: Duration) {
        self.disk.pass(time);
    }

    fn stop_clock(&self) {
        self.disk.stop_clock();
    }

    fn stored_bytes(&self, event: &Event, stream: &str, sequence: u64) -> u64 {
        stored_bytes(&self.disk, event, stream, sequence)
    }
}

/// What a stream on a disk whose clock is stopped counts for an event.
pub(super) fn stored_bytes(disk: &Simulated, event: &Event, stream: &str, sequence: u64) -> u64 {
    event.sealed_len(&Stamp { stream, sequence, time: disk.time().1 }) as u64
}

mod with_a_tail {
    super::suite!(super::OnDisk::new(super::options()));
}

mod without_a_tail {
    super::suite!(super::OnDisk::new(super::Options { tail_cache_bytes: 0, ..super::options() }));
}

/// A directory that goes with the test.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("switchyard-{:x}", fastrand::u64(..))))
    }

    fn open(&self) -> Result<Embedded, OpenError> {
        Embedded::open(&self.0, &options(), &Tasks::default(), &Arc::default(), &Arc::default())
    }
}

impl Ground for Directory {
    async fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(self.open().expect("a new store"))
    }

    async fn reopened(&self, engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
        engine.close().await.expect("closed");
        Arc::new(self.open().expect("the same store"))
    }

    fn pass(&self, _: Duration) {
        unimplemented!("time passes by itself")
    }

    fn stop_clock(&self) {
        unimplemented!("there is only one")
    }

    fn stored_bytes(&self, _: &Event, _: &str, _: u64) -> u64 {
        unimplemented!("it changes with the time")
    }
}

impl TwoHubs for Directory {
    async fn beside(&self) -> Result<Arc<dyn Engine>, OpenError> {
        Ok(Arc::new(self.open()?))
    }
}

mod in_a_directory {
    super::suite!(super::Directory::new(); a_second_hub_is_refused_or_shares_the_store);
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_directory_is_for_one_process_and_keeps_what_it_is_given() {
    let directory = Directory::new();
    runtime().block_on(async {
        let engine: Arc<dyn Engine> = Arc::new(directory.open().expect("a new store"));
        assert!(matches!(directory.open(), Err(OpenError::InUse { .. })));
        let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
        append(&stream, "a", "kept").await;
        engine.close().await.expect("closed");
        assert_eq!(engine.close().await, Ok(()));
        assert_eq!(engine.health(), Health::Unavailable);
        assert!(stream.append(Append { events: vec![event("a", "")], precondition: None }).await.is_err());
        let engine = directory.open().expect("the same store");
        let stream = engine.stream("s").expect("the stream");
        assert_eq!(read_all(&stream, 0, &[], EVERYTHING).await, Ok(vec![(1, "kept".to_owned())]));
    });
}

#[test]
fn a_file_that_is_no_store_is_told_so() {
    let directory = Directory::new();
    std::fs::create_dir_all(&directory.0).expect("made");
    std::fs::write(directory.0.join("streams.redb"), [7; 10_000]).expect("written");
    assert!(directory.open().is_err());
}

#[derive(Debug, Clone)]
enum Step {
    /// So many events of a topic, of so many bytes, with ids from a small set or none, and gone after so many seconds or never.
    Append {
        topic: usize,
        count: usize,
        bytes: usize,
        ids: bool,
        ttl: Option<u64>,
    },
    /// So many seconds pass.
    Pass(u64),
    Purge {
        part: prop::sample::Index,
        filter: Option<usize>,
    },
    MaxEvents(Option<u64>),
    PerTopic(Option<u64>),
    Reopen,
    Read {
        from: prop::sample::Index,
        filter: Option<usize>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4_usize, 1..40_usize, prop_oneof![0..50_usize, 0..3_000_usize, Just(70_000)], any::<bool>(), prop::option::of(1..100_u64))
            .prop_map(|(topic, count, bytes, ids, ttl)| {
                let count = if bytes > 9_999 { 2 } else { count };
                Step::Append { topic, count, bytes, ids, ttl }
            }),
        2 => (1..60_u64).prop_map(Step::Pass),
        1 => (any::<prop::sample::Index>(), prop::option::of(0..4_usize))
            .prop_map(|(part, filter)| Step::Purge { part, filter }),
        1 => prop::option::of(1..60_u64).prop_map(Step::MaxEvents),
        1 => prop::option::of(1..9_u64).prop_map(Step::PerTopic),
        1 => Just(Step::Reopen),
        3 => (any::<prop::sample::Index>(), prop::option::of(0..4_usize))
            .prop_map(|(from, filter)| Step::Read { from, filter }),
    ]
}

/// What a stream should hold.
#[derive(Debug, Default)]
struct Model {
    /// Topic, text, and when it ends.
    events: BTreeMap<u64, (usize, String, u64)>,
    /// In seconds.
    now: u64,
    ids: BTreeMap<(usize, String), u64>,
    latest: u64,
    floor: u64,
    max_events: Option<u64>,
    per_topic: Option<u64>,
}

impl Model {
    fn limit(&mut self) {
        self.events.retain(|_, (.., ends)| *ends > self.now);
        for topic in 0..4 {
            let of_topic: Vec<u64> = self.events.iter().filter(|(_, e)| e.0 == topic).map(|(n, _)| *n).collect();
            let most = self.per_topic.map_or(usize::MAX, |most| most as usize);
            for sequence in &of_topic[..of_topic.len().saturating_sub(most)] {
                self.events.remove(sequence);
            }
        }
        while self.max_events.is_some_and(|most| self.events.len() as u64 > most) {
            if let Some((sequence, _)) = self.events.pop_first() {
                self.floor = sequence + 1;
            }
        }
        if self.events.is_empty() {
            self.floor = self.latest + 1;
        }
    }

    /// The sequence of an event, and whether it was known.
    fn append(&mut self, topic: usize, text: String, id: String, ttl: Option<u64>) -> (u64, bool) {
        let key = (topic, id);
        if let Some(known) = self.ids.get(&key) {
            return (*known, true);
        }
        self.latest += 1;
        self.events.insert(self.latest, (topic, text, ttl.map_or(u64::MAX, |ttl| self.now + ttl)));
        if !key.1.is_empty() {
            self.ids.insert(key, self.latest);
        }
        (self.latest, false)
    }

    fn settings(&self) -> StreamSettings {
        let (max_events, max_events_per_topic) = (self.max_events, self.per_topic);
        let dedupe_window = Duration::from_secs(86_400);
        StreamSettings { max_events, max_events_per_topic, dedupe_window, ..settings("s", &["t.*"]) }
    }
}

const TOPICS: [&str; 4] = ["t.a", "t.b", "t.c", "t.d"];

/// Waits until what is past its ttl is counted no more.
async fn settled(stream: &Arc<dyn EventStream>, events: u64) -> StreamState {
    loop {
        let state = stream.state().await.expect("the state");
        if state.events == events && (events > 0 || state.earliest == state.latest + 1) {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Compares which event is the last of each topic.
async fn compare_lasts(stream: &Arc<dyn EventStream>, model: &Model) {
    for (topic, name) in TOPICS.iter().enumerate() {
        let of_topic = model.events.iter().filter(|(_, event)| event.0 == topic).map(|(sequence, _)| *sequence);
        assert_eq!(
            stream.last_of(Topic::parse(name.as_bytes()).expect("a topic")).await.expect("readable"),
            of_topic.max(),
            "{name}"
        );
    }
}

/// Does one step with both, and compares what they say.
async fn compare(step: Step, model: &mut Model, ground: &OnDisk, engine: &mut Arc<dyn Engine>, number: usize) {
    let stream = engine.stream("s").expect("the stream");
    match step {
        Step::Append { topic, count, bytes, ids, ttl } => {
            let mut events = Vec::new();
            let mut expected = Vec::new();
            for n in 0..count {
                let text = format!("{number}.{n}.{}", "x".repeat(bytes));
                let id = if ids { format!("{}", (number * 7 + n) % 50) } else { String::new() };
                events.push(event_with(TOPICS[topic], &id, &text, ttl.unwrap_or(0) * 1000));
                expected.push(model.append(topic, text, id, ttl));
            }
            // What is pushed out by events of the same append is so at once.
            model.limit();
            let results = append_all(&stream, events, None).await.expect("stored");
            let results: Vec<_> = results.iter().map(|result| (result.sequence, result.duplicate)).collect();
            assert_eq!(results, expected);
        }
        Step::Pass(seconds) => {
            ground.pass(Duration::from_secs(seconds));
            model.now += seconds;
            model.limit();
        }
        Step::Purge { part, filter } => {
            let up_to = part.index(model.latest as usize + 1) as u64;
            let before = model.events.len();
            model.events.retain(|sequence, (topic, ..)| *sequence > up_to || filter.is_some_and(|only| only != *topic));
            if filter.is_none() {
                model.floor = model.floor.max(up_to + 1);
            }
            let purged = stream.purge(up_to, filter.map(|topic| filters(&[TOPICS[topic]]).remove(0))).await;
            assert_eq!(purged, Ok((before - model.events.len()) as u64));
        }
        Step::MaxEvents(limit) => {
            model.max_events = limit;
            model.limit();
            engine.update_stream(model.settings(), None).await.expect("updated");
        }
        Step::PerTopic(limit) => {
            // What was pushed out and is still in the store may come back when the limit is raised.
            model.per_topic = match (model.per_topic, limit) {
                (Some(old), Some(new)) => Some(old.min(new)),
                (old, new) => old.or(new),
            };
            model.limit();
            engine.update_stream(model.settings(), None).await.expect("updated");
        }
        Step::Reopen => *engine = ground.reopened(Arc::clone(engine)).await,
        Step::Read { from, filter } => {
            let after = model.floor - 1 + from.index((model.latest + 2 - model.floor) as usize) as u64;
            let patterns: Vec<&str> = filter.iter().map(|topic| TOPICS[*topic]).collect();
            let expected: Vec<(u64, String)> = model
                .events
                .range(after + 1..)
                .filter(|(_, (topic, ..))| filter.is_none_or(|only| only == *topic))
                .map(|(sequence, (_, text, _))| (*sequence, text.clone()))
                .collect();
            assert!(read_all(&stream, after, &patterns, EVERYTHING).await == Ok(expected), "other events");
        }
    }
    let stream = engine.stream("s").expect("the stream");
    compare_lasts(&stream, model).await;
    let counted = settled(&stream, model.events.len() as u64);
    let state = tokio::time::timeout(Duration::from_secs(30), counted).await.expect("what is past its ttl goes");
    assert_eq!((state.latest, state.events), (model.latest, model.events.len() as u64));
    if state.events > 0 {
        assert!(state.earliest >= model.floor.min(state.earliest));
        assert!(model.events.keys().next().is_none_or(|first| state.earliest <= *first));
    }
    model.floor = state.earliest;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_is_what_the_model_is(steps in prop::collection::vec(step(), 1..40), tail: bool, ttls: bool) {
        runtime().block_on(async {
            let ground = OnDisk::new(Options { tail_cache_bytes: if tail { 300_000 } else { 0 }, ..options() });
            ground.stop_clock();
            let mut engine = ground.engine().await;
            let mut model = Model { floor: 1, ..Model::default() };
            engine.create_stream(model.settings()).await.expect("made");
            for (number, step) in steps.into_iter().enumerate() {
                // Not both: what was pushed out of its topic by events that are past their ttl since, and gone from the store,
                // may come back when the stream is counted anew.
                let step = match step {
                    Step::Append { topic, count, bytes, ids, .. } if !ttls => {
                        Step::Append { topic, count, bytes, ids, ttl: None }
                    }
                    Step::PerTopic(_) if ttls => Step::Pass(1),
                    step => step,
                };
                compare(step, &mut model, &ground, &mut engine, number).await;
            }
        });
    }
}

fn keeps(durability: Durability) -> StreamSettings {
    StreamSettings { durability, ..settings("s", &["s"]) }
}

#[test]
fn an_interval_is_flushed_without_being_asked() {
    let disk = Simulated::default();
    runtime().block_on(async {
        let engine = open(&disk, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Interval)).await.expect("made");
        append(&stream, "s", "kept").await;
        loop {
            let copy = disk.copy();
            let mut random = fastrand::Rng::with_seed(1);
            copy.lose_power(&mut random);
            let engine = open(&copy, &options()).expect("a copy");
            if engine.stream("s").expect("the stream").state().await.expect("the state").latest == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_full_disk_refuses_events_goes_on_reading_and_heals() {
    let disk = Simulated::default();
    runtime().block_on(async {
        let engine = open(&disk, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
        disk.set_capacity(Some(disk.used() + 8 * 1024 * 1024));
        let text = "x".repeat(50_000);
        let mut stored = 0;
        let refused = loop {
            let events = vec![event("s", &text), event_with("s", &format!("id {stored}"), &text, 0)];
            match append_all(&stream, events, None).await {
                Ok(results) => stored = results[1].sequence,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, AppendError::Store(StoreError::Full));
        assert!(stored > 10);
        assert_eq!(engine.health(), Health::Full);
        assert_eq!(append_all(&stream, vec![event("s", "")], None).await, Err(AppendError::Store(StoreError::Full)));
        assert_eq!(sequences(&stream, 0).await, (1..=stored).collect::<Vec<_>>());
        assert_eq!(*stream.visible().borrow(), stored);

        disk.set_capacity(None);
        while engine.health() != Health::Good {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What was refused is no repetition now.
        let events = vec![event_with("s", &format!("id {stored}"), "", 0)];
        let results = append_all(&stream, events, None).await.expect("stored");
        assert_eq!((results[0].sequence, results[0].duplicate), (stored + 1, false));
        engine.close().await.expect("closed");
        let engine = open(&disk, &options()).expect("the same store");
        let stream = engine.stream("s").expect("the stream");
        assert_eq!(sequences(&stream, 0).await, (1..=stored + 1).collect::<Vec<_>>());
    });
}

#[test]
fn a_full_disk_takes_unflushed_events_only_with_a_new_epoch() {
    let disk = Simulated::default();
    runtime().block_on(async {
        let options = Options { sync_interval_ms: 60_000, ..options() };
        let engine = open(&disk, &options).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Interval)).await.expect("made");
        disk.set_capacity(Some(disk.used() + 1024 * 1024));
        let text = "x".repeat(50_000);
        while append_all(&stream, vec![event("s", &text)], None).await.is_ok() {}
        let full = engine.stream("s").expect("there is a stream all the time");
        assert!(full.epoch() > stream.epoch());
        sequences(&full, 0).await;
        disk.set_capacity(None);
        while engine.health() != Health::Good {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let again = engine.stream("s").expect("the stream");
        assert!(stream.visible().has_changed().is_err(), "the old handle is closed");
        assert!(again.epoch() > stream.epoch());
        let (closed, none) = (StoreError::Recovering, Vec::new());
        assert_eq!(read_all(&stream, 0, &[], EVERYTHING).await, Err(ReadError::Store(closed.clone())));
        let refused = append_all(&stream, vec![event("s", "")], None).await;
        assert_eq!(refused, Err(AppendError::Store(closed.clone())));
        assert_eq!(stream.remove(none).await, Err(PurgeError::Store(closed.clone())));
        assert_eq!(stream.groups().list().await, Err(GroupStoreError::Store(closed)));
        let next = append(&again, "s", "").await;
        assert_eq!(sequences(&again, 0).await, (1..=next).collect::<Vec<_>>());
    });
}

/// Opens a damaged disk: either it says so, then or when it is read, or everything is there.
async fn told_or_whole(disk: &Simulated, expected: &[(u64, String)]) -> bool {
    let engine = match open(disk, &options()) {
        Ok(engine) => engine,
        Err(OpenError::InUse { .. }) => panic!("in use"),
        Err(_) => return true,
    };
    let Some(stream) = engine.stream("s") else { panic!("the stream is gone without a word") };
    let found = match read_all(&stream, 0, &[], EVERYTHING).await {
        Ok(found) => found,
        Err(ReadError::Store(StoreError::Corrupt { .. } | StoreError::Unavailable)) => return true,
        Err(other) => panic!("{other}"),
    };
    assert!(found == expected, "{} of {} events, and no word", found.len(), expected.len());
    false
}

#[test]
fn damage_is_told_and_never_makes_a_stream_shorter() {
    let disk = Simulated::default();
    let mut random = fastrand::Rng::with_seed(7);
    runtime().block_on(async {
        let engine = open(&disk, &options()).expect("a new store");
        let stream = engine.create_stream(keeps(Durability::Sync)).await.expect("made");
        for _ in 0..100 {
            append(&stream, "s", &"x".repeat(random.usize(..3_000))).await;
        }
        let expected = read_all(&stream, 0, &[], EVERYTHING).await.expect("readable");
        engine.close().await.expect("closed");
        assert!(!told_or_whole(&disk.copy(), &expected).await);
        let mut told = 0;
        for _ in 0..150 {
            let copy = disk.copy();
            copy.flip(random.usize(..copy.len()), random.u32(..8));
            told += u32::from(told_or_whole(&copy, &expected).await);
        }
        for _ in 0..40 {
            let copy = disk.copy();
            copy.cut(random.usize(..copy.len()));
            told += u32::from(told_or_whole(&copy, &expected).await);
        }
        assert!(told > 40, "{told} of 190 damages were noticed");
    });
}

#[test]
fn a_stream_has_no_more_topics_than_it_may() {
    let ground = OnDisk::new(Options { max_topics: 3, ..options() });
    runtime().block_on(async {
        let engine = ground.engine().await;
        let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
        let some = |topics: &[&str]| topics.iter().map(|topic| event(topic, "")).collect::<Vec<_>>();
        assert!(append_all(&stream, some(&["a", "b", "a", "a"]), None).await.is_ok());
        let refused = Err(AppendError::TooManyTopics { limit: 3 });
        assert_eq!(append_all(&stream, some(&["c", "a", "d"]), None).await, refused);
        assert!(append_all(&stream, some(&["c", "a", "c"]), None).await.is_ok());
        stream.purge(u64::MAX, filters(&["a"]).pop()).await.expect("purged");
        assert!(append_all(&stream, some(&["d"]), None).await.is_ok());
        let limit = 16 * 1024 * 1024;
        let engine = OnDisk::new(Options { max_queued_bytes: limit, ..options() }).engine().await;
        let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
        let large = vec![event("a", &"x".repeat(1024 * 1024)); 17];
        let refused = append_all(&stream, large, None).await;
        assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    });
}

#[test]
fn events_found_here_and_there_do_not_hold_what_lies_between_them() {
    runtime().block_on(async {
        let engine = OnDisk::new(Options { tail_cache_bytes: 0, ..options() }).engine().await;
        let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
        let events = (0..500).map(|n| event(if n % 100 == 0 { "rare" } else { "a" }, &"x".repeat(100))).collect();
        append_all(&stream, events, None).await.expect("stored");
        let rare: Arc<[Filter]> = filters(&["rare"]).into();
        let all = stream.read(0, &Arc::from([]), EVERYTHING).await.expect("readable");
        let few = stream.read(0, &rare, EVERYTHING).await.expect("readable");
        let apart = |one: &Event, two: &Event| two.encoded().as_ptr().addr().abs_diff(one.encoded().as_ptr().addr());
        // From 128 to 16,383 sequences take two bytes.
        let shared = apart(&all.events[200], &all.events[300]);
        assert_eq!(shared, apart(&all.events[300], &all.events[400]), "events share what was read together");
        assert_eq!(few.events.iter().map(Event::sequence).collect::<Vec<_>>(), [1, 101, 201, 301, 401]);
        assert_ne!(apart(&few.events[2], &few.events[3]), shared, "few of many have memory of their own");
    });
}

#[test]
fn what_comes_behind_events_that_were_taken_out_keeps_its_sequence_through_restarts() {
    for taken in [vec![3], vec![2, 3], vec![1, 2, 3]] {
        let ground = OnDisk::new(Options { tail_cache_bytes: 0, ..options() });
        runtime().block_on(async {
            let mut engine = ground.engine().await;
            let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
            append_all(&stream, vec![event("a", ""); 3], None).await.expect("stored");
            stream.remove(taken.clone()).await.expect("removed");
            let expected: Vec<u64> = (1..=5).filter(|sequence| !taken.contains(sequence)).collect();
            for known in [false, true] {
                engine = ground.reopened(engine).await;
                let stream = engine.stream("s").expect("the stream");
                let events = vec![event_with("a", "four", "", 0), event_with("a", "five", "", 0)];
                let results = append_all(&stream, events, None).await.expect("stored");
                let results: Vec<_> = results.iter().map(|result| (result.sequence, result.duplicate)).collect();
                assert_eq!(results, [(4, known), (5, known)], "without {taken:?}");
                assert_eq!(sequences(&stream, stream.bounds().earliest - 1).await, expected, "without {taken:?}");
            }
        });
    }
}
