//! Whose stored bytes are: what the streams of one owner hold together, and whether more fits.
//!
//! The committer alone counts, and it alone lets an append in: what is about to be written is charged before it is drafted,
//! and forgotten with the round whether that was committed or not. What a stream holds is what its bounds say, so all
//! that ends an event gives its bytes back, and opening the store counts anew.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// One owner, while it has streams.
#[derive(Debug)]
pub(super) struct Owner {
    name: Arc<str>,
    /// What its streams hold together.
    bytes: AtomicU64,
}

/// The part of one stream in what its owner holds.
#[derive(Debug)]
pub(super) struct Share {
    owner: Arc<Owner>,
    counted: AtomicU64,
}

/// Every owner that has a stream.
#[derive(Debug, Default)]
pub(super) struct Owners(Mutex<HashMap<Arc<str>, Weak<Owner>>>);

/// What one round is about to store, by owner.
#[derive(Debug, Default)]
pub(super) struct Charges {
    /// What each owner may store, in bytes; 0 is no limit.
    limit: u64,
    added: BTreeMap<Arc<str>, u64>,
}

impl Owners {
    /// The share of a new stream.
    pub(super) fn share(&self, name: &Arc<str>) -> Share {
        let mut owners = self.0.lock();
        let owner = owners.get(name).and_then(Weak::upgrade).unwrap_or_else(|| {
            owners.retain(|_, owner| owner.strong_count() > 0);
            let owner = Arc::new(Owner { name: Arc::clone(name), bytes: AtomicU64::new(0) });
            owners.insert(Arc::clone(name), Arc::downgrade(&owner));
            owner
        });
        Share { owner, counted: AtomicU64::new(0) }
    }
}

impl Share {
    /// The stream holds so much now.
    pub(super) fn set(&self, bytes: u64) {
        let before = self.counted.swap(bytes, Relaxed);
        self.owner.bytes.fetch_add(bytes, Relaxed);
        self.owner.bytes.fetch_sub(before, Relaxed);
    }
}

impl Charges {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, added: BTreeMap::new() }
    }

    /// True when owners may store whatever they like.
    pub(super) fn is_off(&self) -> bool {
        self.limit == 0
    }

    /// Charges the owner of a stream, which holds `held` bytes with what is drafted and never more than `most`, for so many
    /// bytes more; or tells what it may have, when it has no room for them. What only takes the place of older events costs
    /// nothing.
    pub(super) fn add(&mut self, share: &Share, held: u64, most: u64, more: u64) -> Result<(), u64> {
        let more = held.saturating_add(more).min(most) - held.min(most);
        if self.is_off() || more == 0 {
            return Ok(());
        }
        let owner = &share.owner;
        let added = self.added.entry(Arc::clone(&owner.name)).or_default();
        if owner.bytes.load(Relaxed).saturating_add(*added).saturating_add(more) > self.limit {
            return Err(self.limit);
        }
        *added += more;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{
            Append, AppendError, DeadLetter, Engine, EventStream, Fence, GroupStoreError, LetterId, Options,
            StoreError,
            conformance::{append_all, event, event_with, name, settings, sized},
            embedded::{Embedded, Simulated, tests::stored_bytes},
        },
        model::{Group, GroupSettings, StreamSettings},
        tasks::Tasks,
    };

    const LIMIT: u64 = 1_000;
    /// What an event of [`lone`] is stored with, in a stream with a name of one letter.
    const LONE: u64 = 100;

    fn open(disk: &Simulated, limit: u64) -> Arc<Embedded> {
        disk.stop_clock();
        let options = Options { max_owner_bytes: limit, sweep_interval_ms: 5, ..Options::default() };
        let opened = Embedded::open_simulated(disk, &options, &Tasks::default(), &Arc::default(), &Arc::default());
        Arc::new(opened.expect("a store"))
    }

    fn run<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
    }

    /// A stream of the topic that is its name.
    fn owned(stream: &str, owner: &str) -> StreamSettings {
        StreamSettings { owner: owner.into(), ..settings(stream, &[stream]) }
    }

    async fn make(engine: &Embedded, settings: StreamSettings) -> Arc<dyn EventStream> {
        engine.create_stream(settings).await.expect("made")
    }

    async fn put(stream: &Arc<dyn EventStream>, count: usize) -> Result<(), AppendError> {
        append_all(stream, lone(stream, count), None).await.map(drop)
    }

    /// Events that are stored with [`LONE`] bytes each.
    fn lone(stream: &Arc<dyn EventStream>, count: usize) -> Vec<crate::event::Event> {
        vec![lone_with(stream, ""); count]
    }

    /// The same with an id of its own.
    fn lone_with(stream: &Arc<dyn EventStream>, id: &str) -> crate::event::Event {
        let (topic, disk) = (stream.name().as_str(), Simulated::default());
        disk.stop_clock();
        sized(LONE, |event| stored_bytes(&disk, event, topic, 1), |text| event_with(topic, id, text, 0))
    }

    fn refused() -> Result<(), AppendError> {
        Err(AppendError::QuotaUsedUp { limit: LIMIT })
    }

    fn held(engine: &Embedded, owner: &str) -> u64 {
        let owner = engine.link.stores.owners.0.lock().get(owner).and_then(Weak::upgrade);
        owner.map_or(0, |owner| owner.bytes.load(Relaxed))
    }

    #[test]
    fn the_streams_of_an_owner_hold_as_much_as_they_may_together_and_no_more() {
        run(async {
            let disk = Simulated::default();
            let engine = open(&disk, LIMIT);
            let (a, b) = (make(&engine, owned("a", "one")).await, make(&engine, owned("b", "one")).await);
            let other = make(&engine, owned("o", "other")).await;
            assert_eq!(put(&a, 11).await, refused(), "all or nothing");
            assert_eq!((put(&a, 6).await, put(&b, 4).await), (Ok(()), Ok(())), "at the limit");
            assert_eq!((put(&a, 1).await, put(&b, 1).await), (refused(), refused()), "one past");
            assert_eq!(append_all(&a, vec![event("a", "")], None).await.map(drop), refused(), "two bytes past");
            assert_eq!(put(&other, 10).await, Ok(()), "another owner");
            assert_eq!((held(&engine, "one"), held(&engine, "other")), (LIMIT, LIMIT));

            a.purge(2, None).await.expect("purged");
            assert_eq!((put(&b, 2).await, put(&b, 1).await), (Ok(()), refused()), "what was purged is free");
            b.remove(vec![1]).await.expect("removed");
            assert_eq!((put(&a, 1).await, put(&a, 1).await), (Ok(()), refused()), "as is what was taken out");
            engine.close().await.expect("closed");

            let engine = open(&disk, LIMIT);
            let [a, b] = ["a", "b"].map(|name| engine.stream(name).expect("the stream"));
            assert_eq!((put(&a, 1).await, put(&b, 1).await), (refused(), refused()), "counted again");
            engine
                .update_stream(StreamSettings { max_events: Some(2), ..owned("a", "thief") }, None)
                .await
                .expect("updated");
            assert_eq!((put(&b, 3).await, put(&b, 1).await), (Ok(()), refused()), "what a limit ended is free");
            engine.delete_stream(b.name()).await.expect("deleted");
            assert_eq!((held(&engine, "one"), held(&engine, "thief")), (2 * LONE, 0), "the owner stays");
            engine.close().await.expect("closed");

            let engine = open(&disk, LONE);
            let a = engine.stream("a").expect("the stream");
            assert_eq!(put(&a, 1).await, Err(AppendError::QuotaUsedUp { limit: LONE }), "a smaller limit");
            assert_eq!(a.state().await.expect("the state").events, 2, "ends nothing by itself");
        });
    }

    #[test]
    fn what_only_takes_the_place_of_other_events_and_what_is_repeated_costs_nothing() {
        run(async {
            let engine = open(&Simulated::default(), LIMIT);
            let ring = make(&engine, StreamSettings { max_bytes: Some(5 * LONE), ..owned("r", "one") }).await;
            let rest = make(&engine, owned("s", "one")).await;
            assert_eq!((put(&ring, 5).await, put(&rest, 5).await), (Ok(()), Ok(())));
            assert_eq!((put(&ring, 20).await, put(&rest, 1).await), (Ok(()), refused()));
            assert_eq!((held(&engine, "one"), ring.state().await.expect("the state").events), (LIMIT, 5));

            rest.purge(1, None).await.expect("purged");
            let once = |count| vec![lone_with(&rest, "id"); count];
            let stored = append_all(&rest, once(3), None).await.expect("there is room for one");
            assert_eq!(stored.iter().filter(|one| one.duplicate).count(), 2);
            assert!(append_all(&rest, once(1), None).await.expect("known")[0].duplicate);
            assert_eq!((held(&engine, "one"), put(&rest, 1).await), (LIMIT, refused()));
        });
    }

    #[test]
    fn appends_that_wait_together_are_counted_together_and_forgotten_when_they_fail() {
        run(async {
            let disk = Simulated::default();
            let engine = open(&disk, LIMIT);
            let streams = [make(&engine, owned("a", "one")).await, make(&engine, owned("b", "one")).await];
            let mut receipts = Vec::new();
            for stream in streams.iter().cycle().take(30) {
                let append = Append { events: lone(stream, 1), precondition: None };
                receipts.push(stream.append(append).await.expect("queued"));
            }
            let mut accepted = 0;
            for receipt in receipts {
                accepted += u64::from(receipt.await.is_ok());
            }
            assert_eq!((accepted, held(&engine, "one")), (LIMIT / LONE, LIMIT));

            streams[0].purge(u64::MAX, None).await.expect("purged");
            let free = LIMIT - held(&engine, "one");
            disk.set_capacity(Some(0));
            // Nothing of it is stored until the disk has room again, however often it is tried.
            for _ in 0..3 {
                assert_eq!(put(&streams[0], 1).await, Err(StoreError::Full.into()));
            }
            disk.set_capacity(None);
            while engine.health() != crate::engine::Health::Good {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let [a, b] = ["a", "b"].map(|name| engine.stream(name).expect("the stream"));
            assert_eq!(put(&a, (free / LONE) as usize).await, Ok(()), "all that was free is");
            assert_eq!((put(&b, 1).await, held(&engine, "one")), (refused(), LIMIT));
        });
    }

    #[test]
    fn dead_letters_are_on_the_account_of_who_owns_their_stream() {
        run(async {
            let engine = open(&Simulated::default(), LIMIT);
            let (jobs, lost) = (make(&engine, owned("j", "one")).await, make(&engine, owned("l", "two")).await);
            let group = Group::parse("g").expect("a group");
            jobs.groups().create(group.clone(), GroupSettings::default(), bytes::Bytes::new()).await.expect("made");
            let save = async |count| {
                let letters = lone(&lost, count).into_iter().map(|event| DeadLetter {
                    id: LetterId::first(fastrand::u64(..)),
                    stream: name("l"),
                    event,
                });
                jobs.groups().bury(Fence::default(), group.clone(), bytes::Bytes::new(), letters.collect()).await
            };
            assert_eq!((put(&jobs, 10).await, save(9).await), (Ok(()), Ok(())));
            let full = Err(GroupStoreError::QuotaUsedUp { name: name("l") });
            assert_eq!((save(2).await, save(1).await, save(1).await), (full.clone(), Ok(()), full));
            assert_eq!((save(0).await, held(&engine, "two")), (Ok(()), LIMIT), "the state is stored all the same");
        });
    }

    /// Something that changes what a stream holds.
    async fn disturb(engine: &Embedded, stream: &Arc<dyn EventStream>, random: &mut fastrand::Rng) {
        let (name, state) = (stream.name().as_str(), stream.state().await.expect("the state"));
        match random.u32(..9) {
            0..=3 => {
                let mut receipts = Vec::new();
                for _ in 0..random.u32(1..5) {
                    let text = "x".repeat(random.usize(..150));
                    let events = vec![event(name, &text); random.usize(1..4)];
                    receipts.push(stream.append(Append { events, precondition: None }).await.expect("queued"));
                }
                for receipt in receipts {
                    let stored = receipt.await.map(drop);
                    let fits = !matches!(stored, Err(AppendError::NeverFits { .. }));
                    assert!(stored.is_ok() || stored == refused() || !fits, "{stored:?}");
                }
            }
            4 => drop(stream.purge(random.u64(..=state.latest), None).await.expect("purged")),
            5 => {
                let some = (0..5).map(|_| random.u64(1..=state.latest.max(1))).collect();
                stream.remove(some).await.expect("removed");
            }
            6 | 7 => {
                let mut limit = |most: u64| random.bool().then(|| random.u64(1..most));
                let (max_events, max_bytes) = (limit(9), limit(LIMIT));
                // What was pushed out and is still in the store may come back when this limit is raised.
                let max_events_per_topic =
                    [limit(9), stream.settings().max_events_per_topic].into_iter().flatten().min();
                let wanted = StreamSettings { max_events, max_bytes, max_events_per_topic, ..owned(name, "") };
                engine.update_stream(wanted, None).await.expect("updated");
            }
            _ => engine.delete_stream(stream.name()).await.expect("deleted"),
        }
    }

    #[test]
    fn whatever_happens_the_count_is_right_and_never_beyond_the_limit() {
        run(async {
            let mut most = 0;
            for seed in 0..20 {
                let mut random = fastrand::Rng::with_seed(seed);
                let disk = Simulated::default();
                let mut engine = open(&disk, LIMIT);
                for step in 0..80 {
                    let name = ["a", "b", "c"][random.usize(..3)];
                    match engine.stream(name) {
                        _ if random.u32(..20) == 0 => {
                            if random.bool() {
                                engine.close().await.expect("closed");
                            }
                            drop(engine);
                            disk.lose_power(&mut random);
                            engine = open(&disk, LIMIT);
                        }
                        None => drop(make(&engine, owned(name, if name == "c" { "two" } else { "one" })).await),
                        Some(stream) => disturb(&engine, &stream, &mut random).await,
                    }
                    for (owner, streams) in [("one", &["a", "b"][..]), ("two", &["c"])] {
                        let all = streams.iter().filter_map(|name| engine.stream(name));
                        let mut bytes = 0;
                        for stream in all {
                            bytes += stream.state().await.expect("the state").bytes;
                        }
                        assert_eq!(bytes, held(&engine, owner), "seed {seed}, step {step}, {owner}");
                        assert!(bytes <= LIMIT, "seed {seed}, step {step}: {bytes}");
                        most = most.max(bytes);
                    }
                }
            }
            assert!(most > LIMIT * 9 / 10, "the limit was never near: {most}");
        });
    }

    #[test]
    fn owners_without_streams_are_forgotten() {
        run(async {
            let engine = open(&Simulated::default(), LIMIT);
            for n in 0..10 {
                let stream = make(&engine, owned("s", &n.to_string())).await;
                engine.delete_stream(stream.name()).await.expect("deleted");
            }
            assert!(engine.link.stores.owners.0.lock().len() <= 2);
        });
    }
}
